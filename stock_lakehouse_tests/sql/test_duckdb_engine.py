"""DuckDB over a lake: what it may read, what it leaves behind, its limits, and its answers from Python."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

import stock_lakehouse
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import NoHistoryError
from stock_lakehouse.lake.serving import reading_copy
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.sql.choose import local_engine
from stock_lakehouse.sql.duckdb_engine import DuckDBEngine
from stock_lakehouse.sql.engine import (
    QueryFailedError,
    QueryRefusedError,
    QuerySyntaxError,
    QueryTimeoutError,
)
from stock_lakehouse_tests import my_indicators
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.sql.conftest import NEW, ODD, OLD, OddLake

# Its work grows with the cube of the calendar's days, far beyond any test's patience.
ENDLESS = """
    SELECT count(*) AS n
    FROM curated_stocks_daily AS a, curated_stocks_daily AS b, curated_stocks_daily AS c, curated_stocks_daily AS d
    WHERE a.close + b.close + c.close < d.close
"""


@pytest.fixture
def engine(lake: Lake) -> DuckDBEngine:
    """The engine of an empty lake."""
    lake.root.mkdir()  # type: ignore[union-attr]
    return DuckDBEngine(lake, reading_copy(lake, None), 1.0)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '/tmp/never'",
        "ATTACH '/tmp/never.db'",
        "INSTALL httpfs",
        "SET threads = 1",
        "SELECT getenv('HOME')",
        "CREATE TABLE x AS SELECT 1 AS y",
        "SELECT 1; SELECT 2",
    ],
)
def test_the_database_itself_refuses_what_the_translation_would_let_through(
    sql: str, engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second lock: also SQL that is handed to DuckDB untranslated reads and changes nothing."""
    from stock_lakehouse.sql import duckdb_engine
    from stock_lakehouse.sql.dialect import Translation

    monkeypatch.setattr(duckdb_engine, "translate", lambda sql, *_: Translation(sql, (), ()))
    before = bytes_of(tmp_path)
    if sql.startswith(("CREATE", "SELECT 1;")):  # in memory, and gone with the query
        engine.run(sql)
    else:
        with pytest.raises((QueryFailedError, QuerySyntaxError)):
            engine.run(sql)
    assert bytes_of(tmp_path) == before


def test_an_empty_lake_has_tables_without_rows_and_stays_empty(engine: DuckDBEngine, tmp_path: Path) -> None:
    before = bytes_of(tmp_path)
    found = engine.run("SELECT ticker, date, close, ingested_at FROM curated_stocks_daily").rows
    assert found.num_rows == 0
    assert found.schema.types == [pa.string(), pa.date32(), pa.float64(), pa.timestamp("us", "UTC")]
    assert engine.run("SELECT count(*) AS n FROM raw_stocks_daily").rows["n"].to_pylist() == [0]
    assert bytes_of(tmp_path) == before


def test_parameters_are_values_and_never_sql(engine: DuckDBEngine) -> None:
    moment = datetime(2024, 1, 1, 9, 30, tzinfo=UTC)
    values = ("x' OR '1'='1", 5, 2.5, True, date(2024, 1, 1), moment)
    row = engine.run("SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f", values).rows.to_pylist()[0]
    assert tuple(row.values()) == values
    assert engine.run("SELECT ? AS nothing", (None,)).rows.schema.types == [pa.null()]
    with pytest.raises(QueryRefusedError):
        engine.run("SELECT ? AS x", (float("nan"),))


def test_results_have_the_types_of_athena(engine: DuckDBEngine) -> None:
    sql = """SELECT count(*) AS n, sum(x) AS s, count_if(x > 1) AS c, avg(x) AS a, max(x) AS m, array_agg(x) AS l, NULL AS z
             FROM (VALUES 1, 2) AS t(x)"""
    assert engine.run(sql).rows.schema.types == [
        pa.int64(), pa.int64(), pa.int64(), pa.float64(), pa.int32(), pa.list_(pa.int32()), pa.null(),
    ]  # fmt: skip


def test_what_fails_while_it_is_computed_says_what_failed(engine: DuckDBEngine) -> None:
    with pytest.raises(QueryFailedError, match=r"^Division by zero$"):
        engine.run("SELECT 1 / x FROM (VALUES 0) AS t(x)")
    with pytest.raises(QueryFailedError, match=r"^Cannot cast abc to double$"):
        engine.run("SELECT CAST(x AS double) FROM (VALUES 'abc') AS t(x)")


def test_an_integer_that_athena_cannot_hold_fails(engine: DuckDBEngine) -> None:
    with pytest.raises(QueryFailedError, match="Overflow"):
        engine.run("SELECT 2147483647 + 1 AS x")


def test_names_may_repeat_in_a_result(engine: DuckDBEngine) -> None:
    found = engine.run("SELECT a.x, b.x FROM (VALUES 1) AS a(x), (VALUES 2) AS b(x)").rows
    assert found.column_names == ["x", "x"]
    assert [column.to_pylist() for column in found.columns] == [[1], [2]]


@pytest.mark.slow
def test_a_query_is_stopped_when_its_time_is_up(odd: OddLake) -> None:
    engine = DuckDBEngine(odd.lake, reading_copy(odd.lake, None), minutes=0.5 / 60)
    began = time.monotonic()
    with pytest.raises(QueryTimeoutError, match="query_minutes"):
        engine.run(ENDLESS)
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_query_writes_no_file_but_missing_ones_of_the_serving_copy(odd: OddLake) -> None:
    odd.engine.run("SELECT count(*) AS n FROM curated_stocks_daily")
    before = bytes_of(odd.root)
    result = odd.engine.run("SELECT count(*) AS n FROM curated_stocks_daily WHERE year = 2020 AND ticker = 'BAC^B'")
    assert result.rows["n"].to_pylist() == [len(NEW)]
    assert bytes_of(odd.root) == before
    assert result.engine == "duckdb"
    assert result.scanned_bytes is not None


@pytest.mark.slow
def test_a_column_that_is_not_published_yet_is_null(odd: OddLake) -> None:
    lake = Lake(LakeOptions(lake_root=odd.root, indicators=Path(my_indicators.__file__)))
    sql = "SELECT count(*) AS n, count(day_range) AS doubles, count(up_day) AS booleans FROM stocks_features"
    rows = len(ODD) * (len(OLD) + len(NEW)) - 1  # one bar is refused
    assert local_engine(lake).run(sql).rows.to_pylist() == [{"n": rows, "doubles": 0, "booleans": 0}]


@pytest.mark.slow
def test_tables_without_history_have_no_past(odd: OddLake) -> None:
    with pytest.raises(NoHistoryError):
        odd.engine.run("SELECT count(*) AS n FROM processed_stocks_daily", as_of=odd.before)


@pytest.mark.slow
def test_python_asks_in_a_line(odd: OddLake) -> None:
    import pandas as pd
    import polars as pl

    sql = "SELECT ticker, count(*) AS n FROM curated_stocks_daily WHERE ticker = ? GROUP BY ticker"
    rows = stock_lakehouse.query(sql, ["BAC^B"], lake_root=odd.root)
    assert rows.to_pylist() == [{"ticker": "BAC^B", "n": len(OLD) + len(NEW)}]
    assert pl.DataFrame(rows).rows() == [("BAC^B", len(OLD) + len(NEW))]
    assert isinstance(rows.to_pandas(), pd.DataFrame)
    then = stock_lakehouse.query(sql, ["BAC^B"], as_of=odd.before, lake_root=odd.root)
    assert then["n"].to_pylist() == [len(OLD)]
    with pytest.raises(stock_lakehouse.QuerySyntaxError, match="did you mean close"):
        stock_lakehouse.query("SELECT clos FROM curated_stocks_daily", lake_root=odd.root)
