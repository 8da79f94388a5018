"""A small lake in which every page has something to show: five tickers of unequal histories, an edit, refused and missing rows.

Here: what was delivered, and when. Not here: what a test expects of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse_tests.graph import Bar, Bars, Clocked, clocked, edited, history, rectangle, run, sessions_of

SESSIONS = sessions_of(date(2019, 1, 2), date(2021, 6, 30))
# AAA and BBB are whole but for what is below; CCC begins late and its delivery has no adj_close; DDD ended early; EEE has two
# bars, fewer than a deviation of returns needs.
TICKERS = ("AAA", "BBB", "CCC", "DDD", "EEE")
LATE_START, EARLY_END = SESSIONS[350], SESSIONS[250]
FIRSTS, LASTS = {"CCC": LATE_START, "EEE": SESSIONS[-2]}, {"DDD": EARLY_END}
# With these random walks AAA has a death cross and BBB a sell signal in the last 20 sessions, and BBB ends overbought.
SEED = 165
MISSING = (SESSIONS[100], SESSIONS[101], SESSIONS[400])  # of AAA: two in a row, and one in another year
SPLIT, DIVIDEND = SESSIONS[-200], SESSIONS[-100]  # of BBB: four for one, and 0.5
REFUSED = SESSIONS[-50]  # of BBB: a negative volume, and a hostile symbol
CORRECTED = SESSIONS[-3]  # of AAA, after the load
HOSTILE = "</script><img src=x onerror=hacked=1><script>hacked=1</script>"


@dataclass
class Varied:
    """The lake, and a moment between its first load and the correction."""

    house: Clocked
    between: datetime

    @property
    def lake(self) -> Lake:
        return self.house.lake

    @property
    def root(self) -> Path:
        return Path(self.house.lake.root)


def delivered() -> Bars:
    """What the first delivery has."""
    bars = history(TICKERS, SESSIONS, SEED)
    for day in MISSING:
        del bars["AAA", day]
    for ticker, day in list(bars):
        if not FIRSTS.get(ticker, SESSIONS[0]) <= day <= LASTS.get(ticker, SESSIONS[-1]):
            del bars[ticker, day]
        elif ticker == "CCC":
            bars[ticker, day]["adj_close"] = None
    bars["BBB", SPLIT]["stock_splits"] = "4.0"
    bars["BBB", DIVIDEND]["dividends"] = "0.5"
    return edited(bars, ("BBB", REFUSED), symbol=HOSTILE, volume="-1")


def varied_lake(root: Path, spark: SparkSession, layout: str = "ticker_year") -> Varied:
    """The lake at `root`, loaded and then corrected, at the time of this machine, which commits of Delta tables have too."""
    house = clocked(root, spark, TICKERS, layout=layout)
    house._at = utc_now()
    run(house, rectangle(SESSIONS, TICKERS), delivered().values())
    between = utc_now()
    correct(house)
    return Varied(house, between)


def correct(house: Clocked) -> None:
    """Deliver a bar of AAA again, with other prices."""
    house._at = utc_now()
    run(house, rectangle([CORRECTED], ["AAA"]), [corrected()], "22222222-run")


def corrected() -> Bar:
    before = delivered()["AAA", CORRECTED]
    changed = {name: repr(1.002 * float(before[name] or "nan")) for name in ("high", "close", "adj_close")}
    return {**before, **changed}
