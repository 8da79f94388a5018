"""The command `query`, as its user types it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from zipfile import ZipFile

import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.cli.query import _parameter
from stock_lakehouse.sql.engine import Parameter
from stock_lakehouse.sql.reports import reports
from stock_lakehouse_tests.sql.conftest import NEW, ODD, OLD, OddLake

BARS = len(OLD) + len(NEW)


def query(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["query", *arguments], input=typed)


@pytest.fixture
def project(odd: OddLake, tmp_path: Path) -> Path:
    """A folder whose lakehouse.toml names the lake."""
    names = ", ".join(f'"{ticker}"' for ticker in ODD)
    (tmp_path / "lakehouse.toml").write_text(
        f'lake_root = "{odd.root}"\ntickers = [{names}]\nfirst_date = {OLD[0]}\nlast_date = {NEW[-1]}\n'
    )
    return tmp_path


@pytest.mark.slow
def test_a_query_is_printed_as_a_table(project: Path) -> None:
    found = query("SELECT ticker, count(*) AS bars FROM curated_stocks_daily GROUP BY ticker ORDER BY ticker")
    assert found.exit_code == 0, found.output
    assert [line.split() for line in found.stdout.splitlines() if line][:2] == [
        ["ticker", "bars"],
        ["BAC^B", str(BARS)],
    ]
    assert "4 rows by duckdb" in found.stderr


@pytest.mark.slow
def test_a_long_result_is_shown_in_part_and_says_so(project: Path) -> None:
    found = query("SELECT ticker, date, close FROM curated_stocks_daily ORDER BY ticker, date")
    assert f"The first 40 of {4 * BARS - 1:,} rows" in found.stdout
    assert sum("BAC^B" in line for line in found.stdout.splitlines()) == 40


@pytest.mark.slow
def test_files_have_all_rows_in_every_form(project: Path) -> None:
    sql = "SELECT ticker, date, close, volume FROM curated_stocks_daily WHERE ticker = ? ORDER BY date"
    for form in ("csv", "json", "parquet", "xlsx"):
        found = query(sql, "--param", "BAC^B", "--output", f"rows.{form}")
        assert found.exit_code == 0, found.output
    right = pq.read_table("rows.parquet")
    assert right.num_rows == BARS
    assert pl.read_csv("rows.csv", try_parse_dates=True).equals(pl.DataFrame(right))
    assert len(json.loads(Path("rows.json").read_text())) == BARS
    with ZipFile("rows.xlsx") as book:
        assert book.read("xl/worksheets/sheet1.xml").count(b"<row ") == BARS + 1
    assert "exists; --force replaces it" in query(sql, "--param", "BAC^B", "--output", "rows.csv").stderr
    assert query(sql, "--param", "BAC^B", "--output", "rows.csv", "--force").exit_code == 0


@pytest.mark.slow
def test_sql_comes_from_a_file_from_stdin_or_is_a_report(project: Path) -> None:
    sql = "SELECT max(date) AS newest FROM stocks_features"
    (project / "mine.sql").write_text(sql)
    by_file, by_stdin = query("--file", "mine.sql", "--format", "csv"), query("-", "--format", "csv", typed=sql)
    assert by_file.stdout.split() == by_stdin.stdout.split() == ['"newest"', str(NEW[-1])]
    report = query("--report", "stock_summary", "--format", "json")
    assert {row["ticker"]: row["sessions"] for row in json.loads(report.stdout)}["C=F"] == BARS


@pytest.mark.slow
def test_the_past_is_asked_with_as_of(project: Path, odd: OddLake) -> None:
    sql = "SELECT max(date) AS newest FROM curated_stocks_daily"
    found = query(sql, "--as-of", odd.before.isoformat(), "--format", "csv")
    assert found.stdout.split() == ['"newest"', str(OLD[-1])]
    assert "nothing is known of 2001" in query(sql, "--as-of", "2001-01-01").stderr


@pytest.mark.slow
def test_errors_point_into_the_sql(project: Path) -> None:
    found = query("SELECT ticker, clos FROM curated_stocks_daily")
    assert found.exit_code == 2
    lines = found.stderr.splitlines()
    assert lines[0].startswith("stock-lakehouse: line 1, column 16: there is no column clos (did you mean close?)")
    assert lines[-2:] == ["  SELECT ticker, clos FROM curated_stocks_daily", " " * 17 + "^"]


@pytest.mark.slow
def test_an_engine_that_is_not_set_up_says_what_to_set(project: Path) -> None:
    assert "aws.athena_results" in query("SELECT 1 AS x", "--engine", "athena").stderr
    assert "trino.url" in query("SELECT 1 AS x", "--engine", "trino").stderr


def test_what_cannot_be_asked_is_said_in_a_line(tmp_path: Path) -> None:
    assert "give one of: SQL, --file, --report" in query().stderr
    assert "give one of: SQL, --file, --report" in query("SELECT 1", "--report", "drawdown").stderr
    assert "did you mean drawdown?" in query("--report", "drawdwn").stderr
    assert "nowhere.sql cannot be read" in query("--file", "nowhere.sql").stderr
    assert "there is no lake" in query("SELECT 1 AS x").stderr
    assert "name a file with --output" in query("SELECT 1 AS x", "--format", "xlsx").stderr
    assert "end it with .csv" in query("SELECT 1 AS x", "--output", "rows").stderr
    listed = query("--reports").stdout
    assert all(report.name in listed and report.question in listed for report in reports().values())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NVDA", "NVDA"), ("5", 5), ("-2.5", -2.5), ("1e3", 1000.0), ("2024-05-03", date(2024, 5, 3)), ("true", True),
        ("null", None), ("'700'", "700"), ("'it''s'", "it's"), ("1_000", "1_000"), ("nan", "nan"), ("BF.B", "BF.B"),
        ("20240503", 20240503), ("", ""),
    ],
)  # fmt: skip
def test_a_parameter_is_read_as_it_looks(text: str, value: Parameter) -> None:
    assert _parameter(text) == value
    assert type(_parameter(text)) is type(value)
