"""The sample: its actions against its own adjusted close and against Apple's, and what is wrong before the correction."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any

import pytest

from stock_lakehouse.sources.sample import TICKERS, SampleSource
from stock_lakehouse.sources.sample_data import SAMPLE_LAST
from stock_lakehouse_tests.vendor import APPLE_DIVIDENDS, APPLE_SPLITS, sample_of

FIRST = date(2013, 1, 2)


def delivered(first: date = FIRST, **options: bool) -> list[dict[str, Any]]:
    """What the source delivers of all its tickers from `first` on."""
    source = SampleSource(**options)  # type: ignore[arg-type]
    return [row for delivery in source.deliver(TICKERS, first, SAMPLE_LAST) for row in delivery.rows.to_pylist()]


def named(rows: list[dict[str, Any]], column: str) -> dict[tuple[str, str], float]:
    return {(row["ticker"], row["date"]): float(row[column]) for row in rows if float(row[column])}


def test_the_dividends_are_those_that_the_adjusted_close_shows() -> None:
    """Yahoo's adjusted close falls behind the close by a dividend over the close before its ex-date."""
    shown = {}
    for ticker in TICKERS:
        rows = sorted(sample_of(ticker), key=lambda row: row["date"])
        for before, on in pairwise(rows):
            factors = [float(row["adjusted"]) / float(row["close"]) for row in (before, on)]
            paid = float(before["close"]) * (1 - factors[0] / factors[1])
            if paid > 0.005:  # a smaller one is rounding
                shown[ticker, on["date"]] = paid
    dividends = named(delivered(), "dividends")
    assert dividends.keys() == shown.keys()
    assert len(dividends) == 86
    # Yahoo rounds NVIDIA's 9.75 cents of 2015 to 9.8, which is half a per cent.
    assert dividends == pytest.approx(shown, rel=6e-3)


def test_apples_actions_are_apples() -> None:
    rows = [row for row in delivered() if row["ticker"] == "AAPL"]
    paid = dict(line.split() for line in APPLE_DIVIDENDS.replace("\n", " ").split(","))
    for_a_share_of_today = {}
    for day, amount in paid.items():
        later = [ratio for split, ratio in APPLE_SPLITS.items() if date.fromisoformat(day) < split]
        shares = later[0] * later[1] if len(later) == 2 else later[0] if later else 1.0
        for_a_share_of_today["AAPL", day] = float(amount) / shares
    assert named(rows, "dividends") == pytest.approx(for_a_share_of_today)
    assert named(rows, "stock_splits") == {("AAPL", day.isoformat()): ratio for day, ratio in APPLE_SPLITS.items()}


def test_every_row_says_what_it_knows_of_actions() -> None:
    rows = delivered()
    assert len(rows) == 16_194
    assert {row["says"] for row in rows} == {"dividends,splits"}
    assert {row["ticker"] for row in rows if float(row["stock_splits"])} == {"AAPL", "AMZN", "GOOG", "NFLX", "NVDA"}


def test_before_the_correction_a_close_is_mistyped_and_four_bars_are_broken() -> None:
    right = {(row["ticker"], row["date"]): row for row in delivered(date(2023, 9, 18))}
    rows = delivered(date(2023, 9, 18), before_correction=True)
    careless = [row for row in rows if row["file"] == "last_sessions.csv"]
    assert len(careless) == 15
    assert {row["date"] for row in rows if row["file"] is None} == {"2023-09-18", "2023-09-19"}
    prices = ("open", "high", "low", "close", "volume")
    differing = {
        (row["ticker"], row["date"]): [name for name in prices if row[name] != right[row["ticker"], row["date"]][name]]
        for row in rows
        if (row["ticker"], row["date"]) in right
    }
    assert {key: names for key, names in differing.items() if names} == {
        ("NVDA", "2023-09-20"): ["close"],
        ("AAPL", "2023-09-21"): ["high", "low"],
        ("AMZN", "2023-09-21"): ["close"],
        ("META", "2023-09-21"): ["close"],
        ("NFLX", "2023-09-21"): ["volume"],
    }
    mistyped = next(row for row in careless if row["ticker"] == "NVDA" and row["date"] == "2023-09-20")
    assert (mistyped["close"], right["NVDA", "2023-09-20"]["close"]) == ("424.39", "422.3900146484375")
