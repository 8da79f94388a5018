"""The nine reports on DuckDB: they say what polars computes from the same tables, now and in the past."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.sql.choose import local_engine
from stock_lakehouse.sql.dialect import translate
from stock_lakehouse.sql.reports import UnknownReportError, report_named, reports
from stock_lakehouse.tables import BY_NAME
from stock_lakehouse_tests.sql.conftest import NEW, ODD, OLD, RESTATED, OddLake
from stock_lakehouse_tests.sql.expected_reports import EXPECTED, tables_of


def test_every_report_has_a_question_a_grain_and_an_expectation() -> None:
    assert reports().keys() == EXPECTED.keys()
    for report in reports().values():
        assert report.question.endswith("?")
        assert report.grain.startswith("One row ")
        assert report.tables == tuple(name for name in BY_NAME if name in translate(report.sql, BY_NAME).tables)
        # `limited` appends LIMIT behind it.
        assert "ORDER BY" in report.sql.rstrip().rsplit("\n", 1)[-1]
    with pytest.raises(UnknownReportError, match="did you mean stock_summary"):
        report_named("stocks_summary")


def test_the_lineage_of_a_report_comes_from_its_sql() -> None:
    columns = {column.name: column.origin for column in reports()["drawdown"].columns(BY_NAME)}
    bars = "curated_stocks_daily"
    assert columns["ticker"] == {(bars, "ticker")}
    assert {(bars, "adj_close")} < columns["max_drawdown"] <= {(bars, name) for name in ("adj_close", "ticker", "date")}
    assert reports()["latest_signals"].columns(BY_NAME)[2].origin == {(bars, "close")}


@pytest.mark.slow
@pytest.mark.slice(4)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_report_says_what_polars_computes(name: str, odd: OddLake) -> None:
    rows = odd.engine.run(reports()[name].sql).rows
    right = EXPECTED[name](tables_of(odd.root))
    assert right.height
    assert set(right["ticker"]) <= set(ODD)
    assert_frame_equal(pl.DataFrame(rows), right, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stock_summary", "drawdown", "latest_signals"])
def test_a_report_of_the_past_says_what_the_lake_said_then(name: str, odd: OddLake) -> None:
    rows = odd.engine.run(reports()[name].sql, as_of=odd.before).rows
    right = EXPECTED[name](tables_of(odd.root, odd.before.isoformat()))
    assert_frame_equal(pl.DataFrame(rows), right, rel_tol=1e-12, abs_tol=1e-12)
    assert not pl.DataFrame(rows).equals(pl.DataFrame(odd.engine.run(reports()[name].sql).rows))


@pytest.mark.slow
def test_the_past_has_neither_the_restated_value_nor_the_new_year(odd: OddLake) -> None:
    sql = "SELECT close FROM curated_stocks_daily WHERE ticker = ? AND date = ?"
    now, then = (odd.engine.run(sql, RESTATED, as_of=at).rows["close"].to_pylist() for at in (None, odd.before))
    assert now != then
    newest = "SELECT max(date) AS date FROM curated_stocks_daily"
    assert odd.engine.run(newest).rows["date"].to_pylist() == [NEW[-1]]
    assert odd.engine.run(newest, as_of=odd.before).rows["date"].to_pylist() == [OLD[-1]]


@pytest.mark.slow
def test_every_table_is_read_whole(odd: OddLake) -> None:
    for name in (*BY_NAME, "bars_with_features", "curated_stocks_daily_served"):
        source = name.removesuffix("_served")
        rows = odd.engine.run(f"SELECT * FROM {name}").rows  # noqa: S608
        right = read_table(source, lake_root=odd.root)
        assert rows.column_names == right.column_names
        order = [field.name for field in right.schema if not str(field.type).startswith("list")]
        keys = [(column, "ascending") for column in order]
        assert rows.sort_by(keys).to_pylist() == right.sort_by(keys).to_pylist(), name


def test_reports_on_an_empty_lake_have_no_rows(lake: Lake) -> None:
    for report in reports().values():
        assert local_engine(lake).run(report.sql).rows.num_rows == 0


@pytest.mark.slow
def test_a_report_can_be_named_like_a_table(odd: OddLake) -> None:
    rows = odd.engine.run("SELECT max_close FROM stock_summary WHERE ticker = 'BAC^B'").rows
    bars = tables_of(odd.root)["curated_stocks_daily"]
    assert rows["max_close"].to_pylist() == [bars.filter(pl.col("ticker") == "BAC^B")["close"].max()]
