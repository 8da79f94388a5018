"""Any division of a history into deliveries, in any order, at any moment and in any of the four forms of prices, gives one table.

The right values are computed here from what was traded, apart from the program.
"""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from stock_lakehouse.sources import AS_TRADED_ADJUSTED_CLOSE, PRICE_FORMS, SPLIT_ADJUSTED, TOTAL_RETURN
from stock_lakehouse_tests.graph import Clocked, clocked, rectangle, run, sessions_of
from stock_lakehouse_tests.vendor import Vendor

TICKER = "AAA"
SESSIONS = sessions_of(date(2019, 12, 9), date(2020, 1, 24))
SPLITS = {SESSIONS[9]: 3.0, SESSIONS[22]: 0.1}  # 3 for 1 in December, 1 for 10 in January
DIVIDENDS = {SESSIONS[4]: 0.9, SESSIONS[9]: 0.4, SESSIONS[16]: 0.31, SESSIONS[22]: 2.5, SESSIONS[29]: 1.7}
NUMBERS = itertools.count()


def traded() -> Vendor:
    """A random walk as traded, with splits and dividends."""
    dice = np.random.default_rng(7)
    close, bars = 120.0, {}
    for day in SESSIONS:
        close = (close - DIVIDENDS.get(day, 0.0)) / SPLITS.get(day, 1.0) * float(np.exp(dice.normal(0, 0.015)))
        bars[day] = (close * 1.001, close * 1.01, close * 0.99, close, 1000.0)
    return Vendor(TICKER, bars, SPLITS, DIVIDENDS)


VENDOR = traded()


def right() -> dict[date, tuple[float, float, float | None]]:
    """By session: close on the splits known at the end, adjusted close, total return since the session before. By hand from
    trades."""
    found: dict[date, tuple[float, float, float | None]] = {}
    shares, total, after = 1.0, 1.0, None
    for day in reversed(SESSIONS):
        if after is not None:
            ratio = SPLITS.get(after, 1.0)
            shares *= ratio
            # A share before the ex-date is `ratio` shares after it, each of which is paid the dividend.
            total *= 1 - DIVIDENDS.get(after, 0.0) * ratio / VENDOR.close(day)
        at = SESSIONS.index(day)
        grown = None
        if at:
            worth = VENDOR.close(day) * SPLITS.get(day, 1.0)
            paid = DIVIDENDS.get(day, 0.0) * SPLITS.get(day, 1.0)
            grown = worth / (VENDOR.close(SESSIONS[at - 1]) - paid) - 1
        found[day] = (VENDOR.close(day) / shares, VENDOR.close(day) / shares * total, grown)
        after = day
    return found


RIGHT = right()


def published(house: Clocked) -> dict[date, dict[str, Any]]:
    bars = {row["date"]: row for row in house.lake.curated.open().to_pyarrow_table().to_pylist()}
    for row in house.lake.features.open().to_pyarrow_table().to_pylist():
        bars[row["date"]]["return_1d"] = row["return_1d"]
    return bars


def assert_right(house: Clocked) -> None:
    bars = published(house)
    assert sorted(bars) == list(SESSIONS)
    for day, (close, adj_close, grown) in RIGHT.items():
        assert bars[day]["close"] == pytest.approx(close, rel=1e-9), day
        assert bars[day]["adj_close"] == pytest.approx(adj_close, rel=1e-9), day
        assert bars[day]["return_1d"] == (None if grown is None else pytest.approx(grown, abs=1e-9)), day
        assert abs(bars[day]["adj_close_deviation"] or 0.0) < 1e-9, day
        assert bars[day]["price_basis"] == "total_return"


@pytest.mark.slow
@pytest.mark.parametrize("form", PRICE_FORMS)
def test_one_delivery_in_each_form_gives_the_right_close_adjusted_close_and_returns(
    spark: SparkSession, tmp_path: Path, form: str
) -> None:
    house = clocked(tmp_path / "lake", spark, (TICKER,))
    run(house, rectangle(SESSIONS, [TICKER]), VENDOR.deliver(SESSIONS[-1], form=form))
    assert_right(house)


@pytest.mark.soak
@pytest.mark.parametrize("form", PRICE_FORMS)
def test_a_bar_a_day_in_each_form_does_so_too(spark: SparkSession, tmp_path: Path, form: str) -> None:
    house = clocked(tmp_path / "lake", spark, (TICKER,))
    steps = [SESSIONS[0], SESSIONS[8], SESSIONS[9], SESSIONS[10], SESSIONS[21], SESSIONS[22], SESSIONS[-1]]
    first = SESSIONS[0]
    for on in steps:
        house._at = datetime(on.year, on.month, on.day, 22, tzinfo=UTC)
        days = [day for day in SESSIONS if first <= day <= on]
        run(house, rectangle(days, [TICKER]), VENDOR.deliver(on, first, form=form), f"{next(NUMBERS):08d}-run")
        first = on + timedelta(days=1)
    assert_right(house)


# From which session to which, until when the vendor knew, and in which form; together they have every session.
PART = st.tuples(
    st.integers(0, len(SESSIONS) - 1),
    st.integers(0, len(SESSIONS) - 1),
    st.integers(0, len(SESSIONS) - 1),
    st.sampled_from(PRICE_FORMS),
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[int, int, int, str]]:
    cuts = sorted({0, *draw(st.lists(st.integers(1, len(SESSIONS) - 1), max_size=3)), len(SESSIONS)})
    parts = [
        (start, end - 1, draw(st.integers(end - 1, len(SESSIONS) - 1)), draw(st.sampled_from(PRICE_FORMS)))
        for start, end in itertools.pairwise(cuts)
    ]
    more = draw(st.lists(PART, max_size=2))
    parts += [(min(a, b), max(a, b), max(a, b, on), form) for a, b, on, form in more]
    return draw(st.permutations(parts))


def assert_any_deliveries(spark: SparkSession, folder: Path, parts: list[tuple[int, int, int, str]]) -> None:
    house = clocked(folder / f"lake{next(NUMBERS)}", spark, (TICKER,))
    for number, (start, end, on, form) in enumerate(parts):
        # Files may land in another order than they were downloaded in.
        house._at = datetime(2020, 2, 1, tzinfo=UTC) + timedelta(days=number)
        days = SESSIONS[start : end + 1]
        rows = [bar for bar in VENDOR.deliver(SESSIONS[on], days[0], form=form) if str(bar["date"]) <= str(days[-1])]
        run(house, rectangle(days, [TICKER]), rows, f"{next(NUMBERS):08d}-run")
    assert_right(house)


ANY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@settings(ANY, max_examples=2)
@given(parts=deliveries())
def test_any_deliveries_in_any_order_give_one_table(
    spark: SparkSession, tmp_path: Path, parts: list[tuple[int, int, int, str]]
) -> None:
    assert_any_deliveries(spark, tmp_path, parts)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(ANY, max_examples=150)
@given(parts=deliveries())
def test_very_many_deliveries_in_any_order_give_one_table(
    spark: SparkSession, tmp_path: Path, parts: list[tuple[int, int, int, str]]
) -> None:
    assert_any_deliveries(spark, tmp_path, parts)


@pytest.mark.parametrize("form", [form for form in PRICE_FORMS if form != TOTAL_RETURN])
def test_a_lake_that_ends_before_its_file_has_prices_on_the_splits_until_its_end(
    spark: SparkSession, tmp_path: Path, form: str
) -> None:
    """The file is adjusted for a split after the lake's end, which it names: the closes are those before it."""
    house = clocked(tmp_path / "lake", spark, (TICKER,))
    days = SESSIONS[:20]
    assert days[-1] < SESSIONS[22]
    run(house, rectangle(days, [TICKER]), VENDOR.deliver(SESSIONS[-1], form=form))
    for day, bar in published(house).items():
        ratio = 3.0 if day < SESSIONS[9] else 1.0
        assert bar["close"] == pytest.approx(VENDOR.close(day) / ratio, rel=1e-9), day
    assert {row["ex_date"] for row in house.lake.corporate_actions.open().to_pyarrow_table().to_pylist()} == {
        day for day in (*SPLITS, *DIVIDENDS) if day <= days[-1]
    }


def test_an_adjusted_close_of_the_download_beside_traded_prices_is_used_where_no_action_is_named(
    spark: SparkSession, tmp_path: Path
) -> None:
    """An export without columns of dividends and splits: the close stays as traded, the adjusted close and returns are right."""
    house = clocked(tmp_path / "lake", spark, (TICKER,))
    rows = VENDOR.deliver(SESSIONS[-1], actions=False, form=AS_TRADED_ADJUSTED_CLOSE)
    run(house, rectangle(SESSIONS, [TICKER]), rows)
    for day, bar in published(house).items():
        assert bar["adj_close"] == pytest.approx(RIGHT[day][1], rel=1e-9)
        assert bar["price_basis"] == "total_return_delivered"


def test_a_dividend_that_another_delivery_names_counts_for_bars_that_say_nothing_of_dividends(
    spark: SparkSession, tmp_path: Path
) -> None:
    house = clocked(tmp_path / "lake", spark, (TICKER,))
    silent = [{**bar, "adj_close": None} for bar in VENDOR.deliver(SESSIONS[-1], actions=False)]
    run(house, rectangle(SESSIONS, [TICKER]), silent)
    named = [bar for bar in VENDOR.deliver(SESSIONS[-1], form=SPLIT_ADJUSTED) if bar["dividends"] != "0.0"]
    days = [date.fromisoformat(str(bar["date"])) for bar in named]
    house._at += timedelta(days=1)
    run(house, rectangle(days, [TICKER]), named, "22222222-run")
    for day, bar in published(house).items():
        assert bar["adj_close"] == pytest.approx(RIGHT[day][1], rel=1e-9)
