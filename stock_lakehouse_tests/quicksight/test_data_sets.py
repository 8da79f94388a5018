"""What the data sets read: the SQL of Athena on DuckDB against polars, and that Redshift has the SQL that is meant for it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.dashboards.quicksight.data_sets import data_sets
from stock_lakehouse.dashboards.quicksight.refresh import (
    LakeState,
    Loaded,
    Refresh,
    loaded_now,
    needed,
    window_start,
)
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse_tests.graph import NOW as LANDED
from stock_lakehouse_tests.graph import edited
from stock_lakehouse_tests.quicksight.conftest import BARS, DAYS, NEXT_DAY, NOW, REFUSED, TICKERS, Place
from stock_lakehouse_tests.quicksight.test_definition import sets
from stock_lakehouse_tests.redshift_lint import faults

pytestmark = pytest.mark.slow
EXTRA = ("is_newest", "drawdown", "signal", "has_signal")
MARKS = {
    "golden_cross": (0, "low"),
    "death_cross": (0, "high"),
    "buy_signal": (0, "low"),
    "sell_signal": (0, "high"),
    "split_ratio": (1, "high"),
    "dividend": (0, "low"),
}
LABELS = {
    "golden_cross": "Golden cross.",
    "death_cross": "Death cross.",
    "buy_signal": "Buy signal.",
    "sell_signal": "Sell signal.",
}


def table(root: Path, name: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(name, lake_root=root))
    assert isinstance(frame, pl.DataFrame)
    return frame


def expected_daily(root: Path) -> pl.DataFrame:
    """The rows of `daily` by polars, from the tables themselves."""
    bars, features = table(root, "curated_stocks_daily"), table(root, "stocks_features")
    joined = bars.join(features.drop("year", "price_basis"), on=["ticker", "date"], how="left").sort("ticker", "date")
    flags = [name for name, kind in joined.schema.items() if kind == pl.Boolean]
    joined = joined.with_columns(pl.col(flags).cast(pl.Int64))
    found = joined.with_columns(
        (pl.col("date") == pl.col("date").max().over("ticker")).cast(pl.Int64).alias("is_newest"),
        (pl.col("adj_close") / pl.col("adj_close").cum_max().over("ticker") - 1).alias("drawdown"),
    )
    starts = {
        name: (
            pl.col(name).is_not_null()
            & (pl.col(name) != absent)
            & (pl.col(name) != pl.col(name).shift(1).over("ticker").fill_null(absent))
        )
        for name, (absent, _) in MARKS.items()
    }
    found = found.with_columns(
        pl.when(starts[name]).then(pl.col(at)).otherwise(None).alias(f"{name}_at") for name, (_, at) in MARKS.items()
    )
    texts = [pl.when(pl.col(f"{name}_at").is_not_null()).then(pl.lit(label)) for name, label in LABELS.items()]
    return found.with_columns(
        pl.concat_str(texts, separator=" ", ignore_nulls=True).alias("signal"),
        pl.any_horizontal(pl.col(f"{name}_at").is_not_null() for name in LABELS).cast(pl.Int64).alias("has_signal"),
    )


def test_daily_has_each_bar_with_its_features_and_what_quicksight_cannot_compute(place: Place) -> None:
    daily, _ = data_sets(place.settings)
    rows = pl.DataFrame(place.rows(daily.sql), infer_schema_length=None).sort("ticker", "date")
    wanted = expected_daily(Path(place.lake.root))
    assert rows.columns == [field.name for field in daily.fields]
    assert rows.height == len(TICKERS) * len(DAYS) - 1
    assert rows["date"].dtype == pl.Datetime
    for name in rows.columns:
        if rows[name].dtype == pl.Datetime:
            assert rows[name].cast(pl.Date).to_list() == wanted[name].to_list(), name
        else:
            assert rows[name].to_list() == wanted[name].to_list(), name
    assert rows["has_signal"].sum() > 0
    assert rows.filter(pl.col("is_newest") == 1)["date"].unique().to_list() == [datetime(2020, 1, 8)]


def test_quality_counts_bars_quarantine_and_restatements(place: Place, spark: SparkSession) -> None:
    key = ("C=F", DAYS[5])
    restated = edited(BARS, key, close=BARS[key]["open"])
    place.deliver(spark, {key: restated[key]}, (DAYS[5],), "22222222-run")
    _, quality = data_sets(place.settings)
    rows = place.rows(quality.sql)
    assert list(rows[0]) == [field.name for field in quality.fields]
    root = Path(place.lake.root)
    counted = {(row["kind"], row["table_name"], row["ticker"], row["detail"]): row for row in rows}
    for name in ("curated_stocks_daily", "stocks_features"):
        of_table = table(root, name)
        for ticker in TICKERS:
            own = of_table.filter(pl.col("ticker") == ticker)
            row = counted["bars", name, ticker, own["price_basis"][0]]
            assert (row["row_count"], row["day"]) == (own.height, datetime(2020, 1, 8))
    quarantine = [row for row in rows if row["kind"] == "quarantine"]
    reasons = table(root, "processed_quarantine").explode("reasons")["reasons"].to_list()
    assert {row["ticker"] for row in quarantine} == {REFUSED[0]}
    assert sorted(row["detail"] for row in quarantine) == sorted(reasons)
    restatements = [row for row in rows if row["kind"] == "restatement"]
    ledger = table(root, "restatements")
    assert sum(row["row_count"] for row in restatements) == ledger["rows"].sum() > 0
    assert {row["day"].date() for row in restatements} == {LANDED.date()}


@pytest.mark.parametrize("place_of_set", [0, 1], ids=["daily", "quality"])
def test_redshift_has_the_sql_that_is_meant_for_it(place_of_set: int) -> None:
    assert faults(sets("redshift")[place_of_set].sql) == []


def test_redshift_reads_the_rows_that_athena_reads(place: Place) -> None:
    """The SQL for Redshift on DuckDB, over views as the warehouse has them: the same rows of `daily`, and the same counts."""
    root = place.lake.root
    with duckdb.connect() as warehouse:
        for name in ("curated_stocks_daily", "stocks_features", "processed_quarantine"):
            warehouse.register(name, read_table(name, lake_root=root))
        warehouse.execute("CREATE SCHEMA stocks; CREATE SCHEMA stocks_lake")
        warehouse.execute(
            "CREATE TABLE stocks.stock_prices AS FROM curated_stocks_daily;"
            "CREATE TABLE stocks.stock_features AS FROM stocks_features;"
            "CREATE TABLE stocks_lake.processed_quarantine AS FROM processed_quarantine;"
            "CREATE VIEW stocks.prices_with_features AS SELECT p.*, f.* EXCLUDE (ticker, date, year, price_basis)"
            " FROM stocks.stock_prices AS p LEFT JOIN stocks.stock_features AS f ON p.ticker = f.ticker AND p.date = f.date"
        )
        daily, quality = sets("redshift")
        found = warehouse.execute(daily.sql).to_arrow_table().to_pylist()
        counted = warehouse.execute(quality.sql).to_arrow_table().to_pylist()

    def key(row: dict[str, object]) -> str:
        return str(sorted(row.items()))

    of_athena, quality_of_athena = (place.rows(data_set.sql) for data_set in data_sets(place.settings))
    assert sorted(found, key=key) == sorted(of_athena, key=key)
    rows = {(row["kind"], row["ticker"], row["detail"]): row["row_count"] for row in counted if row["kind"] == "bars"}
    wanted = {
        (row["kind"], row["ticker"], row["detail"]): row["row_count"]
        for row in quality_of_athena
        if row["kind"] == "bars"
    }
    assert rows == wanted
    assert [row["row_count"] for row in counted if row["kind"] == "quarantine"] == [1]


# Which rows are read again


def state(lake: Lake) -> LakeState:
    return LakeState(View(lake))


def test_only_a_change_before_the_settled_day_needs_a_full_refresh(place: Place, spark: SparkSession) -> None:
    before = state(place.lake)
    loaded = loaded_now(before.bars, before, NOW, 30)
    assert loaded.settled == date(2019, 12, 24)
    assert needed(loaded, before.bars, before, NOW, 30) is None
    assert needed(None, before.bars, before, NOW, 30) == Refresh("FULL_REFRESH", "nothing is known to be loaded")

    # The day after: a new session, and a bar that is corrected on the settled day itself.
    new = {key: bar for key, bar in BARS.items() if key[1] in NEXT_DAY}
    corrected = ("C=F", date(2019, 12, 24))
    new[corrected] = edited(BARS, corrected, close=BARS[corrected]["open"])[corrected]
    place.deliver(spark, new, (date(2019, 12, 24), *NEXT_DAY), "22222222-run")
    later = state(place.lake)
    next_day = NOW + timedelta(days=1)
    assert later.bars != before.bars
    incremental = Refresh("INCREMENTAL_REFRESH", "only rows from 2019-12-24 on have changed")
    assert needed(loaded, later.bars, later, next_day, 30) == incremental
    # 15 days after the refresh its settled day is still in the window of 30 days, 16 days after it is not.
    assert needed(loaded, later.bars, later, NOW + timedelta(days=14), 30) == incremental
    full = needed(loaded, later.bars, later, NOW + timedelta(days=15), 30)
    assert full == Refresh("FULL_REFRESH", "the last refresh was more than 15 days ago")

    # A bar of the day before the settled one, in the same year.
    key = ("C=F", date(2019, 12, 23))
    place.deliver(spark, {key: edited(BARS, key, close=BARS[key]["open"])[key]}, (key[1],), "33333333-run")
    found = state(place.lake)
    assert needed(loaded, found.bars, found, next_day, 30) == Refresh(
        "FULL_REFRESH", "rows before 2019-12-24 have changed"
    )


@pytest.mark.parametrize(
    ("now", "days", "first"),
    [
        (datetime(2020, 1, 8, 0, 0, tzinfo=UTC), 30, date(2019, 12, 10)),
        (datetime(2020, 1, 8, 23, 59, tzinfo=UTC), 30, date(2019, 12, 10)),
        (datetime(2020, 3, 1, 12, 0, tzinfo=UTC), 2, date(2020, 2, 29)),
    ],
)
def test_the_window_has_whole_days(now: datetime, days: int, first: date) -> None:
    """30 days before the 8th at 23:59 is the 9th of December at 23:59, so the first whole day is the 10th."""
    assert window_start(now, days) == first


def test_what_is_loaded_is_read_back_from_its_tag() -> None:
    loaded = Loaded("0123abcd", date(2019, 12, 24), "ffff")
    assert Loaded.of_tag(loaded.tag) == loaded
    assert len(Loaded("a" * 24, date(2019, 12, 24), "b" * 24).tag) <= 256
    assert [Loaded.of_tag(text) for text in (None, "", "0123abcd", "0123abcd 2019-12-24")] == [None] * 4


def test_the_digest_of_rows_is_the_same_with_and_without_the_serving_copy(place: Place) -> None:
    view, day = View(place.lake), date(2020, 1, 3)
    view.prepare()
    first = LakeState(view).before(day)
    served = [file.path for file in place.lake.storage.walk("serving")]
    assert served
    place.lake.storage.delete(served)
    assert state(place.lake).before(day) == first
    assert state(place.lake).before(date(2020, 1, 6)) != first
