"""The answers of the page Signals: against polars and plain loops on `read_table`."""

from __future__ import annotations

import shutil
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.dashboards.signals import DRAWN, LATEST, RECENT, STEPS, signals, zone_of
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse_tests.dashboards.varied_lake import EARLY_END, SESSIONS, TICKERS, Varied, varied_lake

LABELS = {
    "golden_cross": "Golden cross",
    "death_cross": "Death cross",
    "buy_signal": "Buy signal",
    "sell_signal": "Sell signal",
}


def bars_of(root: Path, as_of: Any = None) -> dict[str, pl.DataFrame]:
    """The bars with their features of each ticker, ascending."""
    rows = pl.DataFrame(read_table("bars_with_features", as_of=as_of, lake_root=root)).sort("ticker", "date")
    return {str(key[0]): of_ticker for key, of_ticker in rows.group_by("ticker")}


def runs_of(bars: pl.DataFrame, column: str) -> list[list[dict[str, Any]]]:
    """The runs of consecutive rows with the flag."""
    return [list(run) for flag, run in groupby(bars.to_dicts(), key=lambda row: bool(row[column])) if flag]


def test_the_newest_session_of_every_ticker_has_the_values_of_its_row(varied: Varied) -> None:
    found, wanted = signals(View(varied.lake)), bars_of(varied.root)
    assert [row["ticker"] for row in found["rows"]] == list(TICKERS)
    assert found["newest"] == "2021-06-30"
    for row in found["rows"]:
        bars = wanted[row["ticker"]]
        newest = bars.row(-1, named=True)
        assert row["date"] == newest["date"].isoformat()
        assert {name: row[name] for name in ("close", *LATEST)} == {name: newest[name] for name in ("close", *LATEST)}
        year = bars.filter(pl.col("date") >= newest["date"] - timedelta(days=364))
        assert row["high_52w"] == year["high"].max()
        assert row["from_high"] == newest["close"] / row["high_52w"] - 1
        assert row["zone"] == {"BBB": "overbought", "DDD": "oversold"}.get(row["ticker"])
    assert found["rows"][3]["date"] == EARLY_END.isoformat()  # DDD, of years before the newest two


def test_the_latest_signal_and_cross_of_each_ticker_are_those_of_the_last_two_years(varied: Varied) -> None:
    wanted = bars_of(varied.root)
    seen = 0
    for row in signals(View(varied.lake))["rows"]:
        bars = wanted[row["ticker"]]
        years = bars.filter(pl.col("date").dt.year() >= bars["date"][-1].year - 1)
        for kind, columns in (("signal", ("buy_signal", "sell_signal")), ("cross", ("golden_cross", "death_cross"))):
            flagged = years.filter(pl.any_horizontal(columns))
            newest = flagged.row(-1, named=True) if len(flagged) else None
            assert row[f"{kind}_date"] == (newest and newest["date"].isoformat())
            assert row[kind] == (newest and next(LABELS[name] for name in columns if newest[name]))
            seen += newest is not None
            if kind == "signal":
                tradable = newest["tradable_from"] if newest else None
                assert row["tradable_from"] == (tradable and tradable.isoformat())
    assert seen > 4


def test_the_list_has_each_run_of_flags_that_ends_in_the_last_twenty_sessions(varied: Varied) -> None:
    found, since = signals(View(varied.lake)), SESSIONS[-RECENT]
    assert found["since"] == since.isoformat()
    wanted = [
        {
            "ticker": ticker,
            "column": column,
            "event": LABELS[column],
            "date": run[0]["date"].isoformat(),
            "until": run[-1]["date"].isoformat(),
            "tradable_from": run[-1]["tradable_from"].isoformat(),
            "close": run[-1]["close"],
            "rsi_14": run[-1]["rsi_14"],
        }
        for ticker, bars in bars_of(varied.root).items()
        for column in LABELS
        for run in runs_of(bars, column)
        if run[-1]["date"] >= since
    ]
    assert {event["column"] for event in wanted} >= {"death_cross", "sell_signal"}
    assert sorted(found["events"], key=str) == sorted(wanted, key=str)
    assert [event["until"] for event in found["events"]] == sorted((event["until"] for event in wanted), reverse=True)


def test_the_small_picture_has_the_last_closes_between_the_lowest_and_the_highest(varied: Varied) -> None:
    wanted = bars_of(varied.root)
    for row in signals(View(varied.lake))["rows"]:
        closes = wanted[row["ticker"]]["close"].to_list()[-DRAWN:]
        assert (row["low"], row["high"]) == (min(closes), max(closes))
        assert len(row["drawn"]) == len(closes)
        assert {0, STEPS} <= set(row["drawn"])
        for drawn, close in zip(row["drawn"], closes, strict=True):
            assert (
                abs(min(closes) + drawn / STEPS * (max(closes) - min(closes)) - close)
                <= (max(closes) - min(closes)) / 2 / STEPS * 1.01
            )


@pytest.mark.parametrize(
    ("rsi", "zone"),
    [(70.0, "overbought"), (69.99, None), (30.0, "oversold"), (30.01, None), (None, None), (100.0, "overbought")],
)
def test_an_rsi_of_70_is_overbought_and_one_of_30_oversold(rsi: float | None, zone: str | None) -> None:
    assert zone_of(rsi) == zone


def test_an_earlier_moment_has_the_signals_of_then(varied: Varied) -> None:
    [now, then] = [signals(View(varied.lake, as_of=at))["rows"][0] for at in (None, varied.between)]
    newest = bars_of(varied.root, varied.between)["AAA"].row(-1, named=True)
    assert then["rsi_14"] == newest["rsi_14"] != now["rsi_14"]  # the correction is two sessions before


def test_a_lake_without_bars_has_no_rows(tmp_path: Path) -> None:
    assert signals(View(Lake(tmp_path))) == {"newest": None, "since": None, "rows": [], "events": []}


def test_a_ticker_with_features_and_no_bars_any_more_is_left_out(varied: Varied, tmp_path: Path) -> None:
    shutil.copytree(varied.root, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    lake.curated.open().delete("ticker = 'BBB'")  # the first publish of a run that withdraws it
    found = signals(View(lake))
    assert [row["ticker"] for row in found["rows"]] == ["AAA", "CCC", "DDD", "EEE"]
    assert {event["ticker"] for event in found["events"]} == {
        event["ticker"] for event in signals(View(varied.lake))["events"]
    } - {"BBB"}


@pytest.mark.slow
def test_a_lake_by_year_has_the_same_answer(varied: Varied, spark: SparkSession, tmp_path: Path) -> None:
    by_year = varied_lake(tmp_path / "lake", spark, "year")
    assert signals(View(by_year.lake)) == signals(View(varied.lake))
