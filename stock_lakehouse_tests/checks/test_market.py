"""Market checks find what they are for, on small frames."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from statistics import stdev

import deltalake
import numpy as np
import pyarrow.compute as pc
import pytest
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.checks import market
from stock_lakehouse.checks.market import (
    JUMP_WINDOW,
    LOOKED_AT,
    TickerAnomalies,
    duplicate_keys,
    look_at,
    look_at_served,
)
from stock_lakehouse.lake.serving import ServingCopy
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.tables import CURATED
from stock_lakehouse_tests.graph import clocked, edited, history, rectangle, run, year_boundary

SESSIONS = market_calendar(date(2020, 1, 2)).between(date(2020, 1, 2), date(2020, 12, 31))
SCHEMA = (
    "ticker string, date date, open double, high double, low double, close double, adj_close double, volume bigint, "
    "dividend double, split_ratio double, basis_factor double, adj_close_deviation double, price_basis string"
)


def bar(ticker: str, at: int, close: float, **changed: object) -> tuple[object, ...]:
    """A bar of session `at`, its four prices alike, with changes."""
    values: dict[str, object] = {
        **dict.fromkeys(("open", "high", "low", "close", "adj_close"), close),
        "volume": 100, "dividend": 0.0, "split_ratio": 1.0, "basis_factor": 1.0, "adj_close_deviation": None,
        "price_basis": "total_return",
        **changed,
    }  # fmt: skip
    return (ticker, SESSIONS[at], *values.values())


def looks(spark: SparkSession, *rows: tuple[object, ...]) -> dict[str, TickerAnomalies]:
    return look_at(spark.createDataFrame(list(rows), SCHEMA), 25, tolerance=0.001)


def bars(spark: SparkSession, closes: list[float]) -> DataFrame:
    return spark.createDataFrame([bar("A", at, close) for at, close in enumerate(closes)], SCHEMA)


def wobble(sessions: int) -> list[float]:
    return [100.0 + at % 3 for at in range(sessions)]


def test_a_halved_price_is_a_jump(spark: SparkSession) -> None:
    closes = wobble(JUMP_WINDOW + 2)
    [jump] = look_at(bars(spark, [*closes, closes[-1] / 2]), deviations=25, tolerance=0.001)["A"].jumps
    assert (jump["ticker"], jump["session"]) == ("A", str(SESSIONS[JUMP_WINDOW + 2]))


def test_a_usual_move_or_too_short_a_history_is_none(spark: SparkSession) -> None:
    for closes in (wobble(JUMP_WINDOW + 10), [100.0, 101.0, 40.0]):
        assert look_at(bars(spark, closes), deviations=25, tolerance=0.001)["A"].jumps == ()


def test_jumps_are_those_of_the_deviation_of_all_moves_before() -> None:
    dice = np.random.default_rng(7)
    moves = np.concatenate([[np.nan], dice.normal(0, 0.02, 600) * dice.choice([1, 1, 1, 6], 600)])
    wanted = []
    for at in range(JUMP_WINDOW + 1, len(moves)):  # the first move is unknown
        before = [float(move) for move in moves[at - JUMP_WINDOW : at]]
        if abs(moves[at]) > market.SMALL_MOVE and abs(moves[at]) > 3 * stdev(before):
            wanted.append((at, pytest.approx(stdev(before), rel=1e-12)))
    assert 3 < len(wanted) < 60
    assert market._jumps(moves, 3) == wanted


def test_an_adj_close_that_is_far_from_the_derived_one_is_reported(spark: SparkSession) -> None:
    rows = [
        *(bar("A", at, 1.0, adj_close_deviation=off) for at, off in enumerate((None, -0.002, 0.004))),
        *(bar("B", at, 1.0, adj_close_deviation=off) for at, off in enumerate((0.0009, None))),
        bar("C", 0, 1.0),
    ]
    assert {ticker: look.off for ticker, look in looks(spark, *rows).items()} == {
        "A": {"ticker": "A", "bars": 2, "most": 0.004}, "B": None, "C": None
    }  # fmt: skip


def test_sessions_are_counted_once(spark: SparkSession) -> None:
    frame = bars(spark, [1.0, 2.0, 3.0])
    look = look_at(frame.union(frame), 25, 0.001)["A"]
    assert (look.first, look.last, look.sessions, look.bars) == (SESSIONS[0], SESSIONS[2], 3, 6)


@pytest.mark.parametrize(
    ("ratio", "before", "after", "is_near"),
    [
        pytest.param(2.0, 100, 50, True, id="2 for 1, not applied"),
        pytest.param(2.0, 100, 200, True, id="2 for 1, applied twice"),
        pytest.param(2.0, 100, 101, False, id="2 for 1, applied"),
        pytest.param(2.0, 100, 43, True, id="2 for 1, not applied, on a bad day"),
        pytest.param(2.0, 100, 75, False, id="2 for 1, applied, on a bad day"),
        pytest.param(1.5, 300, 200, True, id="3 for 2, not applied"),
        pytest.param(0.1, 1, 10.4, True, id="1 for 10, not applied"),
        pytest.param(1.05, 105, 100, True, id="5 % stock dividend, not applied"),
        pytest.param(1.05, 105, 104.5, False, id="5 % stock dividend, applied"),
    ],
)
def test_a_move_near_a_splits_ratio_is_told_in_the_first_sessions_too(
    spark: SparkSession, ratio: float, before: float, after: float, is_near: bool
) -> None:
    look = looks(spark, bar("A", 0, before), bar("A", 1, after, split_ratio=ratio))["A"]
    assert [move["session"] for move in look.split_moves] == ([str(SESSIONS[1])] if is_near else [])


def test_a_move_where_bars_on_two_bases_meet_is_told(spark: SparkSession) -> None:
    """Bars of an older file were divided by a split of 4 for 1 that they knew already; the newer ones were not."""
    rows = [bar("A", 0, 25.1, basis_factor=4.0), bar("A", 1, 25.2, basis_factor=4.0), bar("A", 2, 100.9)]
    (move,) = looks(spark, *rows)["A"].split_moves
    assert (move["session"], move["split"], move["looks"]) == (str(SESSIONS[2]), 4.0, "applied twice")


def test_what_is_not_known_of_bars_is_told_and_an_index_without_volumes_is_whole(spark: SparkSession) -> None:
    known = {"open": None}
    rows = [
        *(bar("A", at, 10.0, **(known if at in (1, 3) else {})) for at in range(5)),
        *(bar("INDEX", at, 10.0, volume=None) for at in range(5)),
        *(bar("C", at, 10.0, volume=None if at == 2 else 100) for at in range(5)),
    ]
    found = {ticker: look.incomplete for ticker, look in looks(spark, *rows).items()}
    days = [str(day) for day in SESSIONS]
    assert found == {
        "A": ({"ticker": "A", "unknown": "open", "bars": 2, "session": days[1], "last": days[3]},),
        "INDEX": (),
        "C": ({"ticker": "C", "unknown": "volume", "bars": 1, "session": days[2], "last": days[2]},),
    }


def test_a_session_from_which_the_price_basis_is_another_is_told(spark: SparkSession) -> None:
    rows = [bar("A", at, 10.0, price_basis="price_return" if at < 2 else "total_return") for at in range(4)]
    bases = [(one["session"], one["basis"]) for one in looks(spark, *rows)["A"].bases]
    assert bases == [(str(SESSIONS[0]), "price_return"), (str(SESSIONS[2]), "total_return")]


def payer(share: float, seed: int = 0, sessions: int = 120) -> list[tuple[object, ...]]:
    """A ticker that pays 2 % each fifth session; its close falls by `share` of the dividend then."""
    dice = np.random.default_rng(seed)
    close, rows = 100.0, []
    for at in range(sessions):
        dividend = 0.02 * close if at and at % 5 == 0 else 0.0
        close = (close - share * dividend) * float(np.exp(dice.normal(0, 0.004)))
        rows.append(bar("A", at, close, dividend=dividend))
    return rows


@pytest.mark.parametrize(("share", "seems"), [(0.0, "total_return"), (1.0, None), (2.0, "split_adjusted")])
def test_what_closes_do_on_ex_dates_tells_the_form_of_prices(
    spark: SparkSession, share: float, seems: str | None
) -> None:
    look = looks(spark, *payer(share))["A"]
    assert (look.seems or (None,))[0] == seems


@pytest.mark.parametrize("seed", range(5))
def test_too_few_ex_dates_tell_nothing(spark: SparkSession, seed: int) -> None:
    few = [row if at < 12 else bar("A", at, float(str(row[5]))) for at, row in enumerate(payer(1.0, seed))]
    assert looks(spark, *few)["A"].seems is None


def test_an_adjusted_close_that_is_the_close_though_dividends_follow_tells_it_too(spark: SparkSession) -> None:
    # The derived adjusted close is 98, the delivered one is the close, 100: 100 / 98 - 1.
    rows = [bar("A", at, 100.0, adj_close=98.0, adj_close_deviation=100 / 98 - 1) for at in range(3)]
    look = looks(spark, *rows, bar("A", 3, 100.0, dividend=2.0, adj_close_deviation=0.0))["A"]
    assert look.seems is not None
    assert look.seems[0] == "total_return"


def test_two_bars_of_a_session_are_reported(spark: SparkSession) -> None:
    frame = bars(spark, [1.0, 2.0])
    assert duplicate_keys(frame) == []
    assert duplicate_keys(frame.union(frame.limit(1)))[0]["bars"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ticker_year", "year"])
def test_the_serving_copy_shows_what_the_table_does(
    tmp_path: Path, spark: SparkSession, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, tickers = year_boundary(200, 30), ("BF.B", "C=F", "BAC^B")
    bars = history(tickers, sessions, 5)
    key, unknown = ("C=F", sessions[150]), ("BF.B", sessions[210])
    bars = edited(edited(bars, key, close="400", high="500"), unknown, volume=None)
    house = clocked(tmp_path, spark, tickers, layout)
    run(house, rectangle(sessions, tickers), bars.values())
    again = house.lake.curated.open().to_pyarrow_dataset().to_table(filter=pc.field("ticker") == "BAC^B").slice(0, 2)
    deltalake.write_deltalake(house.lake.curated.open(), again, mode="append")  # bars that are there twice
    assert look_at_served(house.lake, 5, 0.001) is None  # no copy of that version
    ServingCopy(house.lake).refresh(CURATED)
    monkeypatch.setattr(market, "TICKERS_AT_ONCE", 2)
    found = look_at_served(house.lake, 5, 0.001)
    assert found == look_at(house.lake.curated.read(spark).select(*LOOKED_AT), 5, 0.001)
    assert found is not None
    assert [jump["session"] for jump in found["C=F"].jumps] == [str(sessions[150]), str(sessions[151])]
    assert [(part["unknown"], part["bars"]) for part in found["BF.B"].incomplete] == [("volume", 1)]
    assert found["BAC^B"].bars == found["BAC^B"].sessions + 2
