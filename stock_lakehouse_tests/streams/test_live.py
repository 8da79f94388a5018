"""The running day: live features beside the evening's row, which the layers compute from the official bar."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.indicators.registry import INDICATORS, readers_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.streams import replay
from stock_lakehouse.streams.live import update_live
from stock_lakehouse.transforms.features import features
from stock_lakehouse_tests.streams.house import SESSION, StreamHouse
from stock_lakehouse_tests.streams.test_reconciliation import official, publish

FIRST = date(2022, 9, 1)  # more than 252 sessions before
NAMES = [indicator.name for indicator in INDICATORS]


def bits(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name].hex() if isinstance(row[name], float) else row[name] for name in NAMES}


def evening(house: StreamHouse, session: date) -> dict[str, dict[str, Any]]:
    """The features of `session`, as the layer computes them once its official bars are in."""
    lake = Lake(house.options)
    calendar = house.options.calendar
    sessions = house.spark.createDataFrame(calendar.table(house.options.grace))
    rows = features(lake.curated.read(house.spark), sessions).where(f"date = DATE '{session}'").toArrow().to_pylist()
    return {row["ticker"]: row for row in rows}


def history(tickers: list[str], last: date) -> list[dict[str, Any]]:
    return [official(bar) for bar in replay.sample_bars(tickers, FIRST, last)]


def test_a_closed_day_has_the_evenings_row_to_the_bit_and_a_running_one_but_for_volume(
    tmp_path: Path, spark: SparkSession
) -> None:
    tickers = ["NVDA", "AAPL", "META"]
    house = StreamHouse.made(tmp_path, spark, late_seconds=0)
    days = list(house.options.calendar.between(date(2023, 9, 14), SESSION))
    lake = Lake(house.options)
    for number, session in enumerate(days):
        publish(house, *history(tickers, session - timedelta(days=1)))
        bars = replay.sample_bars(tickers, session, session)
        messages = list(replay.walk_messages(bars, market_calendar(session), 60, replay.Faults()))
        middle = len(messages) // 2
        house.write(*messages[:middle], file=f"{number}.jsonl")
        house.drain()
        running = update_live(lake, 2, spark, house.now).to_pylist()
        assert [row["bar_state"] for row in running] == ["running"] * 3
        house.write(*messages[middle:], file=f"{number}.jsonl")
        house.drain()
        house.settings = house.settings.model_copy(update={"idle_seconds": 1})
        house.now += timedelta(hours=1)  # nothing has come for an hour
        house.drain()
        closed = {row["ticker"]: row for row in update_live(lake, 2, spark, house.now).to_pylist()}
        house.settings = house.settings.model_copy(update={"idle_seconds": 10**7})
        publish(house, *history(tickers, session))
        wanted = evening(house, session)
        assert closed.keys() == wanted.keys()
        for ticker, row in closed.items():
            assert (row["date"], row["bar_state"], row["doubt"]) == (session, "closed", None)
            assert bits(row) == bits(wanted[ticker])
            assert row["tradable_from"] == wanted[ticker]["tradable_from"]
        # Without the official volume nothing that reads it is known, and the rest is.
        volume = readers_of("volume")
        assert "volume_sma_20" in volume
        assert "rsi_14" not in volume
        for row in running:
            assert all(row[name] is None for name in volume)
            assert row["sma_50"] is not None
        # The official bar is final: the evening's row is in stocks_features.
        assert update_live(lake, 2, spark, house.now).num_rows == 0


def test_a_split_of_today_and_a_history_that_ends_too_early_make_the_row_doubtful(
    tmp_path: Path, spark: SparkSession
) -> None:
    house = StreamHouse.made(tmp_path, spark)
    before = house.options.calendar.between(FIRST, SESSION - timedelta(days=1))[-1]
    rows = history(["NVDA", "AAPL", "META", "AMZN"], before)
    for row in rows:
        # NVDA splits 4 for 1 today: its history is not adjusted yet, so it is four times as high.
        if row["ticker"] == "NVDA":
            row |= {name: row[name] * 4 for name in ("open", "high", "low", "close", "adj_close")}
    publish(house, *(row for row in rows if row["ticker"] != "META" or row["date"] != before))
    house.walk(["NVDA", "AAPL", "META", "AMZN", "GOOG"], 300)
    house.drain()
    found = {row["ticker"]: row for row in update_live(Lake(house.options), 2, spark, house.now).to_pylist()}
    states = {ticker: (row["bar_state"], row["doubt"]) for ticker, row in found.items()}
    ratio = found["NVDA"]["close"] / next(
        row["close"] for row in rows if (row["ticker"], row["date"]) == ("NVDA", before)
    )
    assert states == {
        "AAPL": ("running", None),
        "AMZN": ("running", None),
        "GOOG": ("doubtful", "there is no daily bar before it"),
        "META": ("doubtful", "the newest daily bar before it is of 2023-09-19"),
        "NVDA": (
            "doubtful",
            f"the close is {ratio:.4f} times the one before, as after a split that was not delivered yet",
        ),
    }
    for ticker, row in found.items():
        known = {name for name in NAMES if row[name] is not None}
        assert known == (set() if states[ticker][1] else known - set(readers_of("volume")))
        assert bool(known) == (states[ticker][1] is None)
    # Only a bar that changed is computed again, and without a change nothing is committed.
    version = deltalake.DeltaTable(f"{house.root}/stream/live_features").version()
    assert update_live(Lake(house.options), 2, spark, house.now).num_rows == 5
    assert deltalake.DeltaTable(f"{house.root}/stream/live_features").version() == version


def test_an_adj_close_carries_the_factor_of_the_bar_before(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark)
    before = house.options.calendar.between(FIRST, SESSION - timedelta(days=1))[-1]
    rows = history(["AAPL"], before)
    for row in rows:
        row |= {"adj_close": row["close"] * 0.5, "price_basis": "total_return_delivered"}
    publish(house, *rows)
    house.walk(["AAPL"], 60)
    house.drain()
    (row,) = update_live(Lake(house.options), 2, spark, house.now).to_pylist()
    assert row["price_basis"] == "total_return_delivered"
    # By hand: the factor does not change, so the return is that of the closes.
    assert row["return_1d"] == pytest.approx(row["close"] / rows[-1]["close"] - 1, abs=1e-12)


def test_replays_of_another_day_are_no_running_day(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark)
    publish(house, *history(["AAPL"], SESSION - timedelta(days=1)))
    bars = replay.sample_bars(["AAPL"], date(2020, 1, 2), date(2020, 1, 2))
    house.write(*replay.day_messages(bars, house.clock))
    house.drain()
    assert house.bars()[0]["is_replay"]
    assert update_live(Lake(house.options), 2, spark, house.now).num_rows == 0
