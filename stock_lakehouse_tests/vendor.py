"""A vendor that knows as-traded bars, splits and dividends, and delivers as Yahoo does: prices, volumes and dividends adjusted
for the splits until the day of the delivery, adj_close for the dividends too.

Here: made-up histories, and Apple's from 2013 to 2023, whose prices are the sample's. Not here: anything a test expects.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, field
from datetime import date
from importlib import resources

from stock_lakehouse.sources import AS_TRADED, AS_TRADED_ADJUSTED_CLOSE, SPLIT_ADJUSTED, TOTAL_RETURN
from stock_lakehouse_tests.graph import Bar

PRICES = ("open", "high", "low", "close")


@dataclass
class Vendor:
    """`bars` has open, high, low, close and volume as traded. A `late` vendor learns of an action so many sessions after its
    ex-date."""

    ticker: str
    bars: dict[date, tuple[float, float, float, float, float]]
    splits: dict[date, float] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    late: int = 0

    def close(self, day: date) -> float:
        """As traded."""
        return self.bars[day][3]

    def deliver(self, on: date, first: date = date.min, actions: bool = True, form: str = SPLIT_ADJUSTED) -> list[Bar]:
        """The bars from `first` to `on` as delivered after the close of `on` in a form of prices; without `actions` it does
        not name them."""
        days = [day for day in self.bars if day <= on]
        known = set(days[: len(days) - self.late])
        splits = {day: ratio for day, ratio in self.splits.items() if day in known}
        dividends = {day: paid for day, paid in self.dividends.items() if day in known}
        delivered: list[Bar] = []
        total_return, factor, following = 1.0, 1.0, None
        for day in reversed(days):
            if following is not None:
                ratio = splits.get(following, 1.0)
                total_return *= 1 - dividends.get(following, 0.0) * ratio / self.close(day)
                factor *= ratio
            *prices, volume = self.bars[day]
            as_traded = form in (AS_TRADED, AS_TRADED_ADJUSTED_CLOSE)
            scale = 1.0 if as_traded else factor
            paid = total_return if form == TOTAL_RETURN else 1.0
            delivered.append(
                {
                    "ticker": self.ticker,
                    "symbol": self.ticker,
                    "date": day.isoformat(),
                    **{name: repr(price / scale * paid) for name, price in zip(PRICES, prices, strict=True)},
                    "adj_close": None
                    if form in (AS_TRADED, TOTAL_RETURN)
                    else repr(self.close(day) / factor * total_return),
                    "volume": str(round(volume * scale)),
                    "dividends": repr(dividends.get(day, 0.0) / scale) if actions else None,
                    "stock_splits": repr(splits.get(day, 0.0)) if actions else None,
                    "adjusted_to": (day if as_traded else on).isoformat(),
                    **({} if form == SPLIT_ADJUSTED else {"basis": form}),
                    **({"adj_close_as_of": on.isoformat()} if form == AS_TRADED_ADJUSTED_CLOSE else {}),
                }
            )
            following = day
        return [bar for bar in reversed(delivered) if date.fromisoformat(str(bar["date"])) >= first]


# Ex-dates and dollars a share as paid; the ex-dates are those on which the sample's adjusted close says that a dividend went ex.
APPLE_DIVIDENDS = """
2013-02-07 2.65, 2013-05-09 3.05, 2013-08-08 3.05, 2013-11-06 3.05, 2014-02-06 3.05, 2014-05-08 3.29, 2014-08-07 0.47,
2014-11-06 0.47, 2015-02-05 0.47, 2015-05-07 0.52, 2015-08-06 0.52, 2015-11-05 0.52, 2016-02-04 0.52, 2016-05-05 0.57,
2016-08-04 0.57, 2016-11-03 0.57, 2017-02-09 0.57, 2017-05-11 0.63, 2017-08-10 0.63, 2017-11-10 0.63, 2018-02-09 0.63,
2018-05-11 0.73, 2018-08-10 0.73, 2018-11-08 0.73, 2019-02-08 0.73, 2019-05-10 0.77, 2019-08-09 0.77, 2019-11-07 0.77,
2020-02-07 0.77, 2020-05-08 0.82, 2020-08-07 0.82, 2020-11-06 0.205, 2021-02-05 0.205, 2021-05-07 0.22, 2021-08-06 0.22,
2021-11-05 0.22, 2022-02-04 0.22, 2022-05-06 0.23, 2022-08-05 0.23, 2022-11-04 0.23, 2023-02-10 0.23, 2023-05-12 0.24,
2023-08-11 0.24
"""
APPLE_SPLITS = {date(2014, 6, 9): 7.0, date(2020, 8, 31): 4.0}


def sample_of(ticker: str) -> list[dict[str, str]]:
    """The rows of a ticker of the sample."""
    packed = resources.files("stock_lakehouse.sources") / "sample_data" / "stocks_daily.csv.gz"
    with packed.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as text:
        return [row for row in csv.DictReader(text) if row["symbol"] == ticker]


def apple() -> Vendor:
    """Apple's history: two splits, 43 dividends; as traded, which is the sample's bars times the later splits."""
    bars: dict[date, tuple[float, float, float, float, float]] = {}
    for row in sample_of("AAPL"):
        day = date.fromisoformat(row["date"])
        factor = 1.0
        for split, ratio in APPLE_SPLITS.items():
            factor *= ratio if day < split else 1.0
        opened, high, low, close = (float(row[name]) * factor for name in PRICES)
        bars[day] = (opened, high, low, close, round(float(row["volume"]) / factor))
    paid = (line.split() for line in APPLE_DIVIDENDS.replace("\n", " ").split(","))
    return Vendor("AAPL", bars, dict(APPLE_SPLITS), {date.fromisoformat(day): float(value) for day, value in paid})
