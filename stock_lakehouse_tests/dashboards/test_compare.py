"""The answers of the page Compare: against polars on `read_table`, and figures against arithmetic by hand."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stock_lakehouse.dashboards import compare as compare_room
from stock_lakehouse.dashboards.compare import compare, figures_of
from stock_lakehouse.dashboards.errors import WrongQuestionError
from stock_lakehouse.dashboards.questions import answer
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse_tests.dashboards.varied_lake import (
    CORRECTED,
    EARLY_END,
    LATE_START,
    MISSING,
    SESSIONS,
    Varied,
)

ROUNDING = 1e-12


def bars_of(root: Path, tickers: Sequence[str], since: date | None = None) -> pl.DataFrame:
    """Sessions since the first that all of the tickers have: one row a session, a column of adj_close a ticker."""
    rows = pl.DataFrame(read_table("curated_stocks_daily", tickers=tickers, first=since, lake_root=root))
    wide = rows.pivot("ticker", index="date", values="adj_close").sort("date")
    common = wide.drop_nulls()["date"].min()
    return wide.filter(pl.col("date") >= common)


@pytest.mark.parametrize(
    ("tickers", "since"),
    [(("AAA", "BBB"), None), (("AAA", "BBB", "CCC"), None), (("BBB", "AAA"), SESSIONS[-252]), (("CCC",), SESSIONS[0])],
)
def test_every_point_is_adj_close_by_that_of_the_first_session_that_all_have(
    varied: Varied, tickers: tuple[str, ...], since: date | None
) -> None:
    found = compare(View(varied.lake), tickers, since)
    wanted = bars_of(varied.root, tickers, since)
    assert found["tickers"] == [*tickers]
    assert found["date"] == [day.isoformat() for day in wanted["date"]]
    assert (found["first"], found["last"]) == (found["date"][0], "2021-06-30")
    for ticker in tickers:
        # In Python, because polars multiplies by the reciprocal of a number instead of dividing by it.
        first, *_ = values = wanted[ticker].to_list()
        assert found["indexed"][ticker] == [None if value is None else value / first * 100 for value in values]
        assert found["indexed"][ticker][0] == 100


def test_a_session_that_one_ticker_lacks_is_a_gap_of_that_ticker_alone(varied: Varied) -> None:
    found = compare(View(varied.lake), ("AAA", "BBB"))
    gaps = [day for day, value in zip(found["date"], found["indexed"]["AAA"], strict=True) if value is None]
    assert gaps == [day.isoformat() for day in MISSING]
    assert None in found["indexed"]["BBB"]  # its refused bar
    assert found["figures"][0]["sessions"] == len(SESSIONS) - len(MISSING)


def expected_figures(values: pl.DataFrame) -> dict[str, Any]:
    """The figures of the columns date and value, by polars."""
    falls = values.with_columns(peak=pl.col("value").cum_max()).with_columns(fall=pl.col("value") / pl.col("peak") - 1)
    days = (values["date"][-1] - values["date"][0]).days
    total = values["value"][-1] / values["value"][0] - 1
    deviation = values["value"].pct_change().std(ddof=1)
    assert isinstance(deviation, float)
    lowest = falls.filter(pl.col("fall") == pl.col("fall").min())[0]
    before = falls.filter((pl.col("date") <= lowest["date"][0]) & (pl.col("value") == lowest["peak"][0]))
    after = falls.filter((pl.col("date") > lowest["date"][0]) & (pl.col("value") >= lowest["peak"][0]))
    return {
        "total_return": total,
        "annual_return": (1 + total) ** (365.25 / days) - 1,
        "volatility": deviation * 252**0.5,
        "max_drawdown": lowest["fall"][0],
        "peak": str(before["date"].max()),
        "trough": str(lowest["date"][0]),
        "recovered": str(after["date"].min()) if len(after) else None,
    }


def test_the_figures_are_those_that_polars_computes(varied: Varied) -> None:
    tickers = ("AAA", "BBB", "CCC")
    found, wide = compare(View(varied.lake), tickers), bars_of(varied.root, tickers)
    for row in found["figures"]:
        wanted = expected_figures(wide.select("date", value=row["ticker"]).drop_nulls())
        for name, value in wanted.items():
            assert row[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), name


def test_the_figures_of_seven_values_are_those_of_a_calculation_by_hand() -> None:
    # A Tuesday a year, and the six sessions after the first of them.
    days = [date(2019, 1, 1) + timedelta(days=number) for number in (0, 1, 2, 3, 4, 365, 731)]
    figures = figures_of(days, [100, 110, 99, 105.6, 88, 132, 121])
    assert figures["total_return"] == pytest.approx(0.21)
    assert figures["annual_return"] == pytest.approx(0.1, abs=2e-4)  # 731 days are two years and half a day
    assert figures["max_drawdown"] == pytest.approx(-0.2)  # from 110 to 88
    assert (figures["peak"], figures["trough"], figures["recovered"]) == ("2019-01-02", "2019-01-05", "2020-01-01")
    returns = [0.1, -0.1, 0.2 / 3, -1 / 6, 0.5, -1 / 12]
    assert figures["volatility"] == pytest.approx(statistics.stdev(returns) * 252**0.5)
    assert (figures["first"], figures["last"], figures["sessions"]) == ("2019-01-01", "2021-01-01", 7)


def test_what_cannot_be_computed_is_none_and_a_rise_has_no_drawdown() -> None:
    day = date(2020, 1, 2)
    one = figures_of([day], [50.0])
    assert (one["total_return"], one["annual_return"], one["volatility"], one["max_drawdown"]) == (0, None, None, 0)
    two = figures_of([day, day + timedelta(days=1)], [50.0, 55.0])
    assert two["total_return"] == pytest.approx(0.1)
    assert two["volatility"] is None
    assert (two["max_drawdown"], two["peak"], two["trough"], two["recovered"]) == (0, None, None, None)
    fallen = figures_of([day, day + timedelta(days=1)], [50.0, 40.0])
    assert (fallen["peak"], fallen["trough"], fallen["recovered"]) == ("2020-01-02", "2020-01-03", None)


@pytest.mark.parametrize(("days", "is_annualised"), [(356, False), (357, True), (364, True)])
def test_a_return_is_annualised_from_51_weeks_on(days: int, is_annualised: bool) -> None:
    first = date(2020, 1, 2)
    figures = figures_of([first, first + timedelta(days=days)], [100.0, 150.0])
    assert (figures["annual_return"] is not None) == is_annualised
    assert figures["total_return"] == pytest.approx(0.5)


def test_of_many_points_one_a_week_is_drawn_and_the_figures_are_those_of_all_days(
    varied: Varied, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily = compare(View(varied.lake), ("AAA", "BBB"))
    monkeypatch.setattr(compare_room, "MOST_POINTS", 2 * len(SESSIONS) - 1)
    weekly = compare(View(varied.lake), ("AAA", "BBB"))
    assert (daily["sampling"], weekly["sampling"]) == ("daily", "weekly")
    assert weekly["figures"] == daily["figures"]
    days = pl.DataFrame({"date": SESSIONS})
    last_of_week = days.group_by(pl.col("date").dt.truncate("1w")).agg(last=pl.col("date").max())["last"]
    assert weekly["date"] == sorted({SESSIONS[0].isoformat(), *(day.isoformat() for day in last_of_week)})
    values = dict(zip(daily["date"], daily["indexed"]["BBB"], strict=True))
    assert weekly["indexed"]["BBB"] == [values[day] for day in weekly["date"]]


def test_no_ticker_and_more_than_fifty_are_refused(varied: Varied) -> None:
    view = View(varied.lake)
    for number in (0, 51):
        with pytest.raises(WrongQuestionError, match=f"1 to 50 can be compared, and {number} are named"):
            compare(view, tuple(f"T{place}" for place in range(number)))
    assert len(compare(view, tuple(f"T{place}" for place in range(50)))["absent"]) == 50
    assert answer(view, "compare?tickers=AAA,BBB&since=2021-01-04") == compare(view, ("AAA", "BBB"), date(2021, 1, 4))


def test_the_ticker_that_decides_the_first_session_is_named(varied: Varied) -> None:
    found = compare(View(varied.lake), ("AAA", "CCC"))
    assert (found["first"], found["starts_with"]) == (LATE_START.isoformat(), "CCC")
    since = compare(View(varied.lake), ("AAA", "CCC"), LATE_START + timedelta(days=30))
    assert since["starts_with"] is None  # the range decides


def test_tickers_without_a_bar_in_the_range_are_told_with_their_span_and_the_others_compared(varied: Varied) -> None:
    found = compare(View(varied.lake), ("DDD", "AAA", "NONE", "AAA"), SESSIONS[-20])
    assert found["tickers"] == ["AAA"]
    assert found["absent"] == [
        {"ticker": "DDD", "first": SESSIONS[0].isoformat(), "last": EARLY_END.isoformat()},
        {"ticker": "NONE", "first": None, "last": None},
    ]
    assert found["figures"][0]["ticker"] == "AAA"


def test_tickers_that_no_session_have_in_common_are_told(varied: Varied) -> None:
    found = compare(View(varied.lake), ("CCC", "DDD", "AAA"))
    assert found["disjoint"] == {
        "ends": {"ticker": "DDD", "last": EARLY_END.isoformat()},
        "begins": {"ticker": "CCC", "first": LATE_START.isoformat()},
    }
    assert (found["first"], found["date"], found["figures"]) == (None, [], [])
    assert compare(View(varied.lake), ("NONE",))["figures"] == []


def test_the_price_basis_of_each_ticker_is_told(varied: Varied) -> None:
    found = compare(View(varied.lake), ("AAA", "CCC"))
    assert {row["ticker"]: row["price_bases"] for row in found["figures"]} == {
        "AAA": ["total_return_delivered"],
        "CCC": ["price_return"],
    }


def test_an_earlier_moment_has_the_values_of_then(varied: Varied) -> None:
    now, then = compare(View(varied.lake), ("AAA",)), compare(View(varied.lake, as_of=varied.between), ("AAA",))
    at = now["date"].index(CORRECTED.isoformat())
    assert now["indexed"]["AAA"][at] == pytest.approx(1.002 * then["indexed"]["AAA"][at], rel=ROUNDING)
    others = [slice(at), slice(at + 1, None)]
    assert [now["indexed"]["AAA"][part] for part in others] == [then["indexed"]["AAA"][part] for part in others]
