"""Market checks find what they are for, on small frames."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.checks.market import JUMP_WINDOW, Look, duplicate_keys, look_at
from stock_lakehouse.market_calendar import market_calendar

SESSIONS = market_calendar(date(2020, 1, 2)).between(date(2020, 1, 2), date(2020, 6, 30))
SCHEMA = "ticker string, date date, close double, adj_close_deviation double"


def bars(spark: SparkSession, closes: list[float]) -> DataFrame:
    rows = [("A", SESSIONS[at], close, None) for at, close in enumerate(closes)]
    return spark.createDataFrame(rows, SCHEMA)


def wobble(sessions: int) -> list[float]:
    return [100.0 + at % 3 for at in range(sessions)]


def test_a_halved_price_is_a_jump(spark: SparkSession) -> None:
    closes = wobble(JUMP_WINDOW + 2)
    [jump] = look_at(bars(spark, [*closes, closes[-1] / 2]), deviations=25, tolerance=0.001)["A"].jumps
    assert (jump["ticker"], jump["session"]) == ("A", str(SESSIONS[JUMP_WINDOW + 2]))


def test_a_usual_move_or_too_short_a_history_is_none(spark: SparkSession) -> None:
    for closes in (wobble(JUMP_WINDOW + 10), [100.0, 101.0, 40.0]):
        assert look_at(bars(spark, closes), deviations=25, tolerance=0.001)["A"].jumps == ()


def test_an_adj_close_that_is_far_from_the_derived_one_is_reported(spark: SparkSession) -> None:
    rows = [
        *(("A", SESSIONS[at], 1.0, off) for at, off in enumerate((None, -0.002, 0.004))),
        *(("B", SESSIONS[at], 1.0, off) for at, off in enumerate((0.0009, None))),
        ("C", SESSIONS[0], 1.0, None),
    ]
    looks = look_at(spark.createDataFrame(rows, SCHEMA), 25, tolerance=0.001)
    assert {ticker: look.off for ticker, look in looks.items()} == {
        "A": {"ticker": "A", "bars": 2, "most": 0.004}, "B": None, "C": None
    }  # fmt: skip


def test_sessions_are_counted_once(spark: SparkSession) -> None:
    frame = bars(spark, [1.0, 2.0, 3.0])
    assert look_at(frame.union(frame), 25, 0.001) == {
        "A": Look(SESSIONS[0], SESSIONS[2], sessions=3, bars=6, jumps=(), off=None)
    }


def test_two_bars_of_a_session_are_reported(spark: SparkSession) -> None:
    frame = bars(spark, [1.0, 2.0])
    assert duplicate_keys(frame) == []
    assert duplicate_keys(frame.union(frame.limit(1)))[0]["bars"] == 2
