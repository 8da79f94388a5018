"""Curated bars (basis, status) and features (order, tickers, tradable_from) as frames."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.indicators.registry import INDICATORS, compute, indicator_spec
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, FEATURES, PROCESSED, PROCESSED_ACTIONS
from stock_lakehouse.transforms.curated import adjusted, bars_in
from stock_lakehouse.transforms.features import features
from stock_lakehouse_tests.conftest import frame, rows_of

GRACE = timedelta(minutes=30)
CALENDAR = market_calendar(date(2012, 1, 3))
LANDED = datetime(2024, 1, 2, tzinfo=UTC)
FEATURE_INPUTS = (
    "ticker string, date date, close double, adj_close double, volume bigint, dividend double, "
    "price_basis string, year int"
)


@pytest.fixture(scope="module")
def market(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(CALENDAR.table(GRACE))


def processed_bar(
    day: date, close: float = 10.0, adj_close: float | None = 9.0, landed: datetime = LANDED, ticker: str = "AAPL"
) -> tuple[object, ...]:
    naive = landed.astimezone(UTC).replace(tzinfo=None)
    values = (close, close + 1, close - 1, close, adj_close, 100)
    return (ticker, day, *values, False, "split_adjusted", "test", naive, day, None, day.year)


def curated(spark: SparkSession, market: DataFrame, *bars: tuple[object, ...]) -> DataFrame:
    none = (frame(spark, PROCESSED_ACTIONS.ddl), frame(spark, CORPORATE_ACTIONS.ddl))
    return bars_in(adjusted(frame(spark, PROCESSED.ddl, *bars), *none, market))


def history(
    ticker: str, closes: Any, first: date = date(2019, 1, 2), basis: str = "total_return_delivered"
) -> list[tuple[Any, ...]]:
    """Bars of a ticker on consecutive sessions, as features reads them."""
    days = CALENDAR.between(first, CALENDAR.sessions[-1])[: len(closes)]
    return [
        (ticker, day, float(close), float(close) * 0.9, 1000 + place, 0.0, basis, day.year)
        for place, (day, close) in enumerate(zip(days, closes, strict=True))
    ]


def walk(seed: int, length: int) -> np.ndarray:
    return 100 * np.exp(np.random.default_rng(seed).normal(0, 0.02, length).cumsum())


def new_york(day: date, hour: int, minute: int, second: int = 0, micros: int = 0) -> datetime:
    from zoneinfo import ZoneInfo

    return datetime(day.year, day.month, day.day, hour, minute, second, micros, tzinfo=ZoneInfo("America/New_York"))


@pytest.mark.parametrize(
    ("day", "hour"),
    [
        pytest.param(date(2023, 9, 21), 16, id="an ordinary day"),
        pytest.param(date(2023, 11, 24), 13, id="an early close"),
        pytest.param(date(2023, 3, 10), 16, id="the Friday before daylight saving begins"),
        pytest.param(date(2023, 3, 13), 16, id="the Monday after"),
        pytest.param(date(2023, 11, 3), 16, id="the Friday before daylight saving ends"),
        pytest.param(date(2023, 11, 6), 16, id="the Monday after that"),
    ],
)
def test_a_bar_is_final_from_the_close_plus_grace_on(
    spark: SparkSession, market: DataFrame, day: date, hour: int
) -> None:
    final = new_york(day, hour, 30)
    landings = [new_york(day, 9, 30), final - timedelta(microseconds=1), final, final + timedelta(days=3000)]
    bars = [processed_bar(day, landed=landed, ticker=f"T{place}") for place, landed in enumerate(landings)]
    statuses = [row["bar_status"] for row in rows_of(curated(spark, market, *bars))]
    assert statuses == ["provisional", "provisional", "final", "final"]


def test_the_price_basis_says_whether_adj_close_was_delivered(spark: SparkSession, market: DataFrame) -> None:
    bars = [processed_bar(date(2023, 9, 20), adj_close=None), processed_bar(date(2023, 9, 21), adj_close=9.5)]
    price_return, total_return = rows_of(curated(spark, market, *bars))
    assert (price_return["price_basis"], price_return["adj_close"]) == ("price_return", 10.0)
    assert (total_return["price_basis"], total_return["adj_close"]) == ("total_return_delivered", 9.5)


def test_curated_bars_are_the_processed_bars_in_the_columns_of_their_schema(
    spark: SparkSession, market: DataFrame
) -> None:
    days = CALENDAR.between(date(2023, 9, 1), date(2023, 9, 21))
    bars = [processed_bar(day, close=20.0 + place) for place, day in enumerate(days)]
    found = curated(spark, market, *bars)
    assert found.columns == list(CURATED.column_names)
    rows = rows_of(found)
    assert [row["date"] for row in rows] == list(days)
    assert [row["close"] for row in rows] == [20.0 + place for place in range(len(days))]
    assert {(row["volume"], row["dividend"], row["split_ratio"], row["ingested_at"]) for row in rows} == {
        (100, 0.0, 1.0, LANDED)
    }


def test_a_bar_beyond_the_calendar_is_kept(spark: SparkSession, market: DataFrame) -> None:
    (row,) = rows_of(curated(spark, market, processed_bar(date(2090, 1, 3))))
    assert row["date"] == date(2090, 1, 3)


def test_features_are_the_kernels_values_with_nulls_for_the_warm_up(spark: SparkSession, market: DataFrame) -> None:
    closes = walk(1, 260)
    found = features(frame(spark, FEATURE_INPUTS, *history("AAPL", closes)), market)
    assert found.columns == list(FEATURES.column_names)
    rows = rows_of(found)
    expected = compute(
        {
            "close": closes,
            "adj_close": closes * 0.9,
            "volume": 1000.0 + np.arange(260),
            "dividend": np.full(260, np.nan),
            "total_return": np.full(260, True),
        }
    )
    for one in INDICATORS:
        values = [row[one.name] for row in rows]
        right = [None if np.isnan(value) else value for value in expected[one.name].tolist()]
        assert values == right, one.name
        if one.type == "double":
            assert values.count(None) == one.warm_up, one.name
    assert {row["indicator_spec"] for row in rows} == {indicator_spec()}
    assert [row["year"] for row in rows] == [row["date"].year for row in rows]


def test_the_order_of_bars_does_not_matter(spark: SparkSession, market: DataFrame) -> None:
    ordered = [*history("AAPL", walk(1, 230)), *history("NVDA", walk(2, 230))]
    shuffled = random.Random(7).sample(ordered, len(ordered))
    apart = frame(spark, FEATURE_INPUTS, *shuffled).repartition(5)
    assert rows_of(features(apart, market)) == rows_of(features(frame(spark, FEATURE_INPUTS, *ordered), market))


def test_tickers_do_not_mix(spark: SparkSession, market: DataFrame) -> None:
    one, other = history("AAPL", walk(1, 210)), history("NVDA", walk(2, 230), first=date(2018, 6, 1))
    together = rows_of(features(frame(spark, FEATURE_INPUTS, *other, *one), market))
    alone = [row for bars in (one, other) for row in rows_of(features(frame(spark, FEATURE_INPUTS, *bars), market))]
    assert together == alone


def test_a_missing_session_does_not_break_the_windows(spark: SparkSession, market: DataFrame) -> None:
    whole = history("AAPL", walk(1, 60))
    with_gap = [*whole[:30], *whole[35:]]
    rows = rows_of(features(frame(spark, FEATURE_INPUTS, *with_gap), market))
    assert len(rows) == 55
    closes = [bar[2] for bar in with_gap]
    assert rows[-1]["sma_20"] == pytest.approx(sum(closes[-20:]) / 20, rel=1e-12)
    assert rows[30]["return_1d"] == pytest.approx(closes[30] / closes[29] - 1, rel=1e-12)


def test_an_unknown_volume_leaves_its_averages_null_while_it_is_in_the_window(
    spark: SparkSession, market: DataFrame
) -> None:
    bars = [
        bar if place != 30 else (*bar[:4], None, *bar[5:]) for place, bar in enumerate(history("AAPL", walk(1, 90)))
    ]
    rows = rows_of(features(frame(spark, FEATURE_INPUTS, *bars), market))
    for name, window in (("volume_sma_20", 20), ("volume_sma_50", 50)):
        nulls = {place for place, row in enumerate(rows) if row[name] is None}
        assert nulls == {*range(window - 1), *range(30, 30 + window)}, name
    assert rows[-1]["volume_sma_20"] == 1000 + (70 + 89) / 2


def test_a_return_across_a_change_of_basis_leaves_dividends_out_for_that_session_only(
    spark: SparkSession, market: DataFrame
) -> None:
    days = CALENDAR.between(date(2023, 9, 18), date(2023, 9, 22))
    closes, adjusted = (100.0, 110.0, 121.0, 133.1, 146.41), (50.0, 56.0, None, None, 146.41)
    bars = [processed_bar(day, close, adj) for day, close, adj in zip(days, closes, adjusted, strict=True)]
    rows = rows_of(features(curated(spark, market, *bars), market))
    assert [row["price_basis"] for row in rows] == [
        "total_return_delivered",
        "total_return_delivered",
        "price_return",
        "price_return",
        "total_return_delivered",
    ]
    assert rows[0]["return_1d"] is None
    assert [row["return_1d"] for row in rows[1:]] == pytest.approx([0.12, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("day", "tradable_from"),
    [
        pytest.param(date(2023, 9, 20), date(2023, 9, 21), id="the next day"),
        pytest.param(date(2023, 9, 22), date(2023, 9, 25), id="over a weekend"),
        pytest.param(date(2023, 9, 1), date(2023, 9, 5), id="over a weekend and Labor Day"),
        pytest.param(date(2021, 12, 31), date(2022, 1, 3), id="over New Year"),
        pytest.param(date(2012, 10, 26), date(2012, 10, 31), id="over hurricane Sandy"),
        pytest.param(CALENDAR.sessions[-1], None, id="at the calendar's end"),
    ],
)
def test_a_signal_can_be_traded_from_the_next_session(
    spark: SparkSession, market: DataFrame, day: date, tradable_from: date | None
) -> None:
    bars = frame(spark, FEATURE_INPUTS, ("AAPL", day, 1.0, 1.0, 1, 0.0, "total_return", day.year))
    (row,) = rows_of(features(bars, market))
    assert row["tradable_from"] == tradable_from


def test_features_of_no_bars_are_none(spark: SparkSession, market: DataFrame) -> None:
    assert features(frame(spark, FEATURE_INPUTS), market).count() == 0


def test_a_registry_of_ones_own_gives_its_columns(spark: SparkSession, market: DataFrame) -> None:
    some = tuple(one for one in INDICATORS if one.name in ("sma_20", "rsi_14"))
    found = features(frame(spark, FEATURE_INPUTS, *history("AAPL", walk(1, 25))), market, some)
    assert found.columns == [
        "ticker",
        "date",
        "sma_20",
        "rsi_14",
        "tradable_from",
        "price_basis",
        "indicator_spec",
        "year",
    ]
    assert {row["indicator_spec"] for row in rows_of(found)} == {indicator_spec(some)} != {indicator_spec()}
