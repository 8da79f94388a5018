"""A lake at a terminal of 80 columns, with whole names, dates and numbers; and its rows as data and files for other programs."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.tables import TABLES

pytestmark = pytest.mark.slow  # the lake takes seconds to load

CONFIG = """
tickers = ["AAPL", "NVDA"]
first_date = 2023-09-01
last_date = 2023-09-21
source = "csv"
csv_folder = "prices"
"""
HEADER = "Date,Open,High,Low,Close,Volume,Dividends\n"
FIRST = HEADER + "2023-09-18,10,12,9,11,1000,0\n2023-09-19,10,12,9,11,1000,0.5\n2023-09-20,10,12,9,11,1000,0\n"
CORRECTED = FIRST.replace("2023-09-20,10,12,9,11", "2023-09-20,10,12,9,11.5") + "2023-09-21,=1+1,12,9,11,1000,0\n"


def call(*arguments: str, columns: int | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)} if columns else None)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a dividend, a corrected close of 2023-09-20 (11, then 11.5) and a row in quarantine."""
    folder = tmp_path_factory.mktemp("lake")
    (folder / "prices").mkdir()
    (folder / "lakehouse.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as surroundings:
        for name in [name for name in os.environ if name.startswith(("STOCK_LAKEHOUSE_", "DAGSTER_"))]:
            surroundings.delenv(name)
        surroundings.chdir(folder)
        for text in (FIRST, CORRECTED):
            for ticker in ("AAPL", "NVDA"):
                (folder / "prices" / f"{ticker}.csv").write_text(text)
            done = call("materialize")
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def lake(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(loaded)
    return loaded


SHOWS = [("status",), ("tables",), ("restatements", "NVDA"), *(("show", table.name, "NVDA") for table in TABLES)]


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("arguments", SHOWS)
def test_at_80_columns_the_same_words_are_shown_as_at_500(arguments: tuple[str, ...]) -> None:
    narrow, wide = call(*arguments, columns=80), call(*arguments, columns=500)
    assert narrow.exit_code == 0, narrow.output
    assert set(narrow.output.split()) == set(wide.output.split())
    assert max(map(cell_len, narrow.output.splitlines())) <= 80


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status",), ("processed_stocks_daily", "2023-09-18", "2023-09-21")),
        (("restatements", "nvda"), ("curated_stocks_daily", "2023-09-20", "11.5")),
        (("show", "processed_quarantine", "nvda"), ("2023-09-21", "NVDA.csv", "=1+1")),
        (("tables",), ("processed_stocks_daily", "partitions", "version")),
        (("doctor",), ("settings:", "lake:", "instance:", "disk:")),
        (("backfill", "--again", "--dry-run", "--from", "2023-09-18"), ("AAPL,", "2023-09-18", "2023-09-21", "8")),
        (("upkeep", "--check-only"), ("processed_stocks_daily", "curated_stocks_daily")),
    ],
)
def test_at_80_columns_names_and_dates_are_whole(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    result = call(*arguments, columns=80)
    assert result.exit_code == 0, result.output
    assert set(words) <= set(result.stdout.split())
    assert all(cell_len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.usefixtures("lake")
def test_an_empty_answer_for_a_known_ticker_is_no_error() -> None:
    for arguments in (
        ["show", "stocks_features", "nvda", "--from", "2023-09-02", "--to", "2023-09-03"],
        ["show", "processed_stocks_daily", "aapl", "--from", "2023-09-21"],
    ):
        empty = call(*arguments)
        assert empty.exit_code == 0, empty.output
        assert "holds no row of" in empty.output
        assert json.loads(call(*arguments, "--json").stdout) == []
    for arguments in (
        ["show", "stocks_features", "msft"],
        ["restatements", "msft"],
        ["export", "raw_stocks_daily", "--tickers", "msft"],
    ):
        unknown = call(*arguments)
        assert unknown.exit_code == 2
        assert "in the lake; it has AAPL, NVDA" in unknown.output


@pytest.mark.usefixtures("lake")
def test_show_as_json_and_csv_is_data_alone() -> None:
    shown = call("show", "curated_stocks_daily", "nvda", "--last", "1", "--json")
    [row] = json.loads(shown.stdout)
    assert {name: row[name] for name in ("ticker", "date", "close", "volume", "adj_close_deviation")} == {
        "ticker": "NVDA",
        "date": "2023-09-20",
        "close": 11.5,
        "volume": 1000,
        "adj_close_deviation": None,
    }
    delivered = call("show", "processed_quarantine", "nvda", "--csv")
    [line] = csv.DictReader(io.StringIO(delivered.stdout))
    assert (line["date"], line["open"], line["high"], line["line_number"]) == ("2023-09-21", "=1+1", "12", "5")
    assert delivered.stderr == shown.stderr == ""


def test_export_writes_chosen_rows_with_their_types(lake: Path, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "bars.parquet"
    chosen = ("--tickers", "nvda", "--from", "2023-09-19", "--to", "2023-09-20")
    done = call("export", "curated_stocks_daily", *chosen, "--format", "parquet", "--output", str(target))
    assert done.exit_code == 0, done.output
    rows = pq.read_table(target)
    assert rows.column("date").to_pylist() == [date(2023, 9, 19), date(2023, 9, 20)]
    assert rows.column("close").to_pylist() == [11.0, 11.5]
    types = {field.name: field.type for field in rows.schema}
    assert (types["date"], types["close"], types["volume"], types["ingested_at"]) == (
        pa.date32(),
        pa.float64(),
        pa.int64(),
        pa.timestamp("us", "UTC"),
    )
    assert [path.name for path in target.parent.iterdir()] == ["bars.parquet"]  # nothing temporary is left
    before = target.read_bytes()
    refused = call("export", "stocks_features", "--format", "parquet", "--output", str(target))
    assert refused.exit_code == 2
    assert "--force replaces it" in refused.output
    assert target.read_bytes() == before
    assert call("export", "stocks_features", "--format", "parquet", "-o", str(target), "--force").exit_code == 0
    assert pq.read_table(target).num_rows == 6  # two tickers, three sessions: the fourth is in quarantine


def test_export_to_csv_is_as_of_a_moment(lake: Path, tmp_path: Path) -> None:
    import deltalake

    history = deltalake.DeltaTable(str(lake / "lakehouse/curated/stocks_daily")).history()
    corrected = max(commit["timestamp"] for commit in history)
    before = datetime.fromtimestamp((corrected - 1) / 1000, UTC).isoformat()
    target = tmp_path / "bars.csv"
    arguments = ("export", "curated_stocks_daily", "--tickers", "NVDA", "--from", "2023-09-20", "-o", str(target))
    assert call(*arguments, "--as-of", before).exit_code == 0
    with target.open(newline="") as file:
        assert [(row["date"], row["close"]) for row in csv.DictReader(file)] == [("2023-09-20", "11")]


def test_an_export_that_fails_leaves_no_file(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stock_lakehouse.cli import export

    def fail(rows: pa.Table, file: io.BytesIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export.WRITERS, "csv", fail)
    assert isinstance(call("export", "stocks_features", "-o", str(tmp_path / "x.csv")).exception, OSError)
    assert not list(tmp_path.iterdir())


def test_export_to_xlsx_keeps_types_and_text_that_looks_like_a_formula(lake: Path, tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    from zipfile import ZipFile

    for table in ("curated_stocks_daily", "processed_quarantine"):
        target = tmp_path / f"{table}.xlsx"
        done = call("export", table, "--tickers", "nvda", "--format", "xlsx", "-o", str(target))
        assert done.exit_code == 0, done.output
        sheet = ZipFile(target).read("xl/worksheets/sheet1.xml").decode()
        assert "<f>" not in sheet  # no formula
        if table == "curated_stocks_daily":
            assert "<v>45189</v>" in sheet  # 2023-09-20 as Excel counts days
            assert "<v>11.5</v>" in sheet
        else:
            assert "=1+1" in sheet


def test_xlsx_without_its_library_says_what_to_install(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stock_lakehouse.cli import export

    monkeypatch.setattr(export, "find_spec", lambda _: None)
    refused = call("export", "stocks_features", "--format", "xlsx")
    assert refused.exit_code == 2
    assert "pip install XlsxWriter" in refused.output


def test_doctor_creates_nothing(lake: Path, tmp_path: Path) -> None:
    for folder in (lake, tmp_path):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.MonkeyPatch.context() as place:
            place.chdir(folder)
            assert call("doctor").exit_code == 0
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_damaged_database_is_told(lake: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(lake / "lakehouse" / ".dagster", home)
    (home / "history" / "runs.db").write_bytes(b"not a database")
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("DAGSTER_HOME", str(home))
        refused = call("materialize")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"stock-lakehouse: {home}/history/runs.db is damaged; move {home} away")
