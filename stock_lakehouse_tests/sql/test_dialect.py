"""The translation of Athena's dialect to DuckDB: it gives what Trino answered, or says at its place why it is not run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pytest

from stock_lakehouse.sql.dialect import translate
from stock_lakehouse.sql.engine import Parameter, QueryRefusedError, QuerySyntaxError, QueryTextError
from stock_lakehouse.sql.functions import signatures
from stock_lakehouse.tables import BY_NAME
from stock_lakehouse_tests.sql.expressions import STATEMENTS, Statement


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def as_trino(value: Any, kind: str) -> Any:
    """A value as Trino's REST protocol has it."""
    if isinstance(value, list):
        return [as_trino(inner, kind.removeprefix("array(")[:-1]) for inner in value]
    if isinstance(value, datetime):
        zone = " UTC" if value.tzinfo else ""
        return f"{value:%Y-%m-%d %H:%M:%S}.{round(value.microsecond / 1000):03d}{zone}"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def same(found: Any, right: Any) -> bool:
    if isinstance(found, list):
        return len(found) == len(right) and all(map(same, found, right))
    if isinstance(found, float) and isinstance(right, float):
        return math.isclose(found, right, rel_tol=1e-13)
    return type(found) is type(right) and found == right


@pytest.mark.parametrize("statement", [one for one in STATEMENTS if one.here == "same"], ids=lambda one: one.sql)
def test_duckdb_gives_the_rows_and_types_of_trino(statement: Statement, database: duckdb.DuckDBPyConnection) -> None:
    translation = translate(statement.sql, {})
    kinds = [column.type for column in translation.columns]
    rows = [
        [as_trino(value, kind) for value, kind in zip(row, kinds, strict=True)]
        for row in database.execute(translation.sql).fetchall()
    ]
    right = statement.rows or []
    if not statement.is_ordered:
        rows, right = sorted(rows, key=str), sorted(right, key=str)
    assert kinds == statement.types
    assert same(rows, right), (rows, right, translation.sql)


@pytest.mark.parametrize("statement", [one for one in STATEMENTS if one.here == "refused"], ids=lambda one: one.sql)
def test_what_duckdb_does_in_another_way_is_refused(statement: Statement) -> None:
    with pytest.raises(QueryRefusedError):
        translate(statement.sql, {})


@pytest.mark.parametrize("statement", [one for one in STATEMENTS if one.here == "wrong"], ids=lambda one: one.sql)
def test_what_trino_refuses_is_wrong_here_too(statement: Statement) -> None:
    assert statement.error is not None
    with pytest.raises(QuerySyntaxError):
        translate(statement.sql, {})


@pytest.mark.parametrize(
    "statement", [one for one in STATEMENTS if one.here in ("fails", "stops")], ids=lambda one: one.sql
)
def test_what_fails_on_trino_fails_here_too(statement: Statement, database: duckdb.DuckDBPyConnection) -> None:
    assert (statement.error is None) == (statement.here == "stops")
    with pytest.raises(duckdb.Error):
        database.execute(translate(statement.sql, {}).sql).fetchall()


def test_every_function_that_is_run_is_compared_with_trino() -> None:
    compared = " ".join(statement.sql.lower() for statement in STATEMENTS if statement.here == "same")
    # These have a syntax of their own in the statements, or stand beside a synonym of the same line of the table.
    assert [name for name in signatures() if f"{name}(" not in compared] == []


def text_of(sql: str, parameters: tuple[Parameter, ...] = ()) -> QueryTextError:
    with pytest.raises(QueryTextError) as error:
        translate(sql, BY_NAME, parameters)
    return error.value


@pytest.mark.parametrize(
    ("sql", "marked", "reason"),
    [
        ("SELECT ticker, ^clos FROM curated_stocks_daily", "clos", "did you mean close?"),
        ("SELECT *\nFROM ^curated_stock_daily", "curated_stock_daily", "did you mean curated_stocks_daily?"),
        # The column is found in its own alias: a.ticker is right.
        (
            "SELECT a.ticker, b.^tickr FROM curated_stocks_daily a JOIN stocks_features b ON a.ticker = b.ticker",
            "tickr",
            "did you mean ticker?",
        ),
        (
            "SELECT ^date FROM curated_stocks_daily c JOIN stocks_features f ON c.ticker = f.ticker",
            "date",
            "ambiguous: write c.date or f.date",
        ),
        ("SELECT close,\n  ^medan(close)\nFROM curated_stocks_daily", "medan", "not among the functions"),
        ("SELECT close FROM curated_stocks_daily WHERE ^date > '2024-01-01'", "date", "write DATE '2024-01-31'"),
        ("SELECT ^x.close FROM curated_stocks_daily", "x", "no relation x"),
        ("SELECT ticker^, FROM curated_stocks_daily", ",", "nothing after this comma"),
        ("SELECT avg(CASE WHEN buy_signal THEN ^1.0 ELSE 0.0 END) FROM stocks_features", "1.0", "decimal number"),
        ("SELECT ^approx_percentile(close, 0.5) FROM curated_stocks_daily", "approx", "estimates"),
    ],
)  # fmt: skip
def test_an_error_points_at_its_place_in_the_users_sql(sql: str, marked: str, reason: str) -> None:
    place = sql.index("^")
    sql = sql.replace("^", "", 1)
    error = text_of(sql)
    line, column = sql.count("\n", 0, place) + 1, place - (sql.rfind("\n", 0, place) + 1) + 1
    assert (error.line, error.column) == (line, column)
    assert reason in error.reason
    shown, caret = error.text.splitlines()
    assert shown[caret.index("^") :].startswith(marked)
    assert str(error).startswith(f"line {line}, column {column}: ")


def test_a_mistake_in_the_grammar_has_a_line() -> None:
    error = text_of("SELECT ticker\nFROM curated_stocks_daily\nWHERE close > 1 AND FROM")
    assert error.line == 3
    assert error.text.splitlines()[0].strip() == "WHERE close > 1 AND FROM"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO curated_stocks_daily SELECT * FROM curated_stocks_daily",
        "DELETE FROM curated_stocks_daily",
        "CREATE TABLE x AS SELECT 1 AS y",
        "DROP TABLE curated_stocks_daily",
        "COPY curated_stocks_daily TO '/tmp/x'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "SET threads = 1",
        "PRAGMA database_list",
        "SELECT 1; DROP TABLE curated_stocks_daily",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT getenv('HOME')",
        "SELECT read_text('/etc/passwd')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM information_schema.tables",
    ],
)
def test_nothing_but_a_select_of_the_lakes_tables_is_run(sql: str) -> None:
    with pytest.raises(QueryTextError):
        translate(sql, BY_NAME)


def test_parameters_are_bound_and_have_types() -> None:
    sql = "SELECT ticker FROM curated_stocks_daily WHERE ticker = ? AND date >= ? AND volume > ?"
    translation = translate(sql, BY_NAME, ("'; DROP TABLE x --", date(2024, 1, 1), 5))
    assert all(f"${number}" in translation.sql for number in (1, 2, 3))
    assert "DROP" not in translation.sql
    assert "date cannot be compared with varchar" in text_of(sql, ("NVDA", "2024-01-01", 5)).reason
    assert "no value for this `?`" in text_of(sql, ("NVDA",)).reason
    assert "2 parameters are given" in text_of("SELECT 1 WHERE 1 = ?", (1, 2)).reason


def test_parameters_are_bound_in_the_order_of_the_text(database: duckdb.DuckDBPyConnection) -> None:
    sql = "SELECT ? AS first, x AS y FROM (VALUES 1, 2, 3) AS t(x) WHERE x >= ? AND x <> ? ORDER BY x + ? LIMIT ?"
    values = ("a", 1, 2, 10, 1)
    translation = translate(sql, {}, values)
    given = {str(place): value for place, value in enumerate(values, start=1)}
    assert database.execute(translation.sql, given).fetchall() == [("a", 1)]
    error = text_of("SELECT x FROM (VALUES 1) AS t(x) WHERE x = ? AND x > ?", (1,))
    assert (error.line, error.column) == (1, 54)


def test_the_columns_of_a_result_name_the_columns_that_they_are_made_of() -> None:
    sql = """
        WITH falls AS (
          SELECT ticker, close / max(adj_close) OVER (PARTITION BY ticker ORDER BY date) AS share FROM curated_stocks_daily
        )
        SELECT f.ticker, min(share) AS least, count(*) AS n, max(s.rsi_14) AS rsi
        FROM falls AS f JOIN stocks_features AS s ON s.ticker = f.ticker GROUP BY f.ticker
    """
    columns = {column.name: (column.type, column.origin) for column in translate(sql, BY_NAME).columns}
    bars = "curated_stocks_daily"
    assert columns == {
        "ticker": ("varchar", {(bars, "ticker")}),
        "least": ("double", {(bars, "close"), (bars, "adj_close"), (bars, "ticker"), (bars, "date")}),
        "n": ("bigint", frozenset()),
        "rsi": ("double", {("stocks_features", "rsi_14")}),
    }


def test_times_in_parameters_have_the_zone_of_their_value() -> None:
    sql = "SELECT ? AS moment"
    aware = datetime(2024, 1, 1, tzinfo=UTC)
    assert [translate(sql, {}, (value,)).columns[0].type for value in (aware, aware.replace(tzinfo=None), None, True)] == [
        "timestamp with time zone", "timestamp", "unknown", "boolean",
    ]  # fmt: skip
