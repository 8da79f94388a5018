"""Price histories on which indicators are tried: the sample's, and families of generated ones.

Here: how bars are made. Not here: what indicators must be on them. Generated histories use nothing but `random.random` and
products of doubles, no exp or log, so that they are the same to the last bit on every machine.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from random import Random

import numpy as np

from stock_lakehouse.indicators.registry import INDICATORS

Bars = dict[str, np.ndarray]

TICKERS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
LEVELS = (1e-6, 1e-3, 1.0, 100.0, 1e4, 1e6)
LENGTH = 400
HISTORIES = 42  # a family
# The lengths at which the first values of an indicator appear, and those around them.
EDGES = sorted({1, 2, 3, 300} | {one.warm_up + more for one in INDICATORS for more in (-1, 0, 1, 2)} - {0})


def bars(
    close: object, adj_close: object = None, volume: object = None, total_return: object = None, dividend: object = None
) -> Bars:
    """One ticker's history, as `compute` takes it. By default adj_close is close and delivered, the volume is a million, and
    the deliveries do not say whether there were dividends."""
    prices = np.asarray(close, dtype=np.float64)
    return {
        "close": prices,
        "adj_close": prices.copy() if adj_close is None else np.asarray(adj_close, dtype=np.float64),
        "volume": np.full(len(prices), 1e6) if volume is None else np.asarray(volume, dtype=np.float64),
        "dividend": np.full(len(prices), np.nan) if dividend is None else np.asarray(dividend, dtype=np.float64),
        "total_return": np.full(len(prices), True) if total_return is None else np.asarray(total_return, dtype=bool),
    }


def sample() -> dict[str, Bars]:
    """The bars of the sample that ships inside, by ticker."""
    packed = resources.files("stock_lakehouse.sources") / "sample_data" / "stocks_daily.csv.gz"
    rows: dict[str, list[tuple[str, float, float, float]]] = {ticker: [] for ticker in TICKERS}
    with packed.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            rows[row["symbol"]].append((row["date"], float(row["close"]), float(row["adjusted"]), float(row["volume"])))
    ordered = {ticker: sorted(history) for ticker, history in rows.items()}
    return {ticker: bars(*np.array([row[1:] for row in history]).T) for ticker, history in ordered.items()}


def walk(random: Random, length: int, start: float, step: float = 0.02, drift: float = 0.0) -> list[float]:
    """`length` prices from about `start`; each is the one before, times 1 + drift ± step at most."""
    prices, price = [], start
    for _ in range(length):
        price *= 1.0 + drift + step * (2.0 * random.random() - 1.0)
        prices.append(price)
    return prices


def _walks(random: Random, level: float) -> Bars:
    return bars(walk(random, LENGTH, level, random.choice([1e-4, 0.02, 0.1])))


def _trends(random: Random, level: float) -> Bars:
    """Long rises and sudden falls, and the reverse: what buy and sell signals and crosses are made of."""
    prices, sign = [level], random.choice([-1, 1])
    while len(prices) < LENGTH:
        prices += walk(random, random.randint(40, 80), prices[-1], 0.01, 0.006 * sign)
        prices += walk(random, random.randint(5, 9), prices[-1], 0.01, -0.025 * sign)
        sign = random.choice([-1, 1])
    return bars(prices)


def _gaps(random: Random, level: float) -> Bars:
    """Sessions are missing, one or up to fifty in a row, so the price jumps from bar to bar."""
    prices = walk(random, 2 * LENGTH, level, 0.05)
    for _ in range(30):
        at = random.randrange(len(prices))
        del prices[at : at + random.choice([1, 1, 2, 5, 50])]
    return bars(prices)


def _flat(random: Random, level: float) -> Bars:
    """Stretches without any move, of up to 250 bars, between moves; one in seven histories has no move at all."""
    prices, moves = [level], random.random() > 1 / 7
    while len(prices) < LENGTH:
        prices += [prices[-1]] * random.choice([3, 20, 60, 250])
        prices += walk(random, random.choice([1, 5, 60]) if moves else 0, prices[-1], random.choice([1e-4, 0.05]))
    return bars(prices)


def _ticks(random: Random, level: float) -> Bars:
    """A few prices on a coarse grid, as a share of some cents has: many equal bars, averages and ties."""
    steps, price = [], 20
    for _ in range(LENGTH):
        price = max(price + random.choice([-1, 0, 0, 1]), 1)
        steps.append(price * level / 100)
    return bars(steps)


def _splits(random: Random, level: float) -> Bars:
    """Splits and reverse splits that nobody adjusted for: from one bar to the next the price falls to a 20th or rises."""
    prices = [level]
    while len(prices) < LENGTH:
        start = prices[-1] * random.choice([1 / 20, 1 / 10, 1 / 7, 1 / 4, 1 / 3, 1 / 2, 2, 10])
        prices += walk(random, random.randint(1, 120), start)
    return bars(prices)


def _falls(random: Random, _: float) -> Bars:
    """From a million to a cent: at once, or over 300 bars; then a walk or no move."""
    prices = walk(random, random.choice([30, 210]), 1e6)
    if random.random() < 0.5:
        prices += walk(random, 300, prices[-1], 0.01, -0.06)
    prices += random.choice([walk(random, LENGTH, 1e-2), [1e-2] * LENGTH])
    return bars(prices)


def _dividends(random: Random, level: float) -> Bars:
    """Known dividends, one that is not below the price among them; bars of deliveries that do not say, with and without
    an adjusted close."""
    prices = walk(random, LENGTH, level)
    dividend = [prices[at] * random.choice([0.0, 0.005, 0.05]) if at % 40 == 39 else 0.0 for at in range(LENGTH)]
    dividend[random.randrange(LENGTH)] = 2 * level * LENGTH
    silent, without = random.randrange(LENGTH), random.choice([0.0, 0.05])
    dividend[silent : silent + 150] = [math.nan] * len(dividend[silent : silent + 150])
    adjusted = [price * (0.7 + 0.3 * at / LENGTH) for at, price in enumerate(prices)]
    return bars(prices, adjusted, total_return=[random.random() >= without for _ in prices], dividend=dividend)


def _volumes(random: Random, level: float) -> Bars:
    """Volumes to ten thousand millions, whole and with fractions; days without trade; stretches that are unknown (nan)."""
    volume = [random.random() * 10 ** random.randint(0, 10) for _ in range(LENGTH)]
    if random.random() < 0.5:
        volume = [float(math.floor(one)) for one in volume]
    for _ in range(4):
        at, length = random.randrange(LENGTH), random.choice([1, 1, 3, 30, 70])
        volume[at : at + length] = [random.choice([0.0, math.nan])] * len(volume[at : at + length])
    volume[0] = random.choice([math.nan, 1.0])
    return bars(walk(random, LENGTH, level), volume=volume)


@dataclass(frozen=True)
class Family:
    """Histories of one kind. `description` ends a sentence that begins with the family's name."""

    name: str
    description: str
    make: Callable[[Random, float], Bars]


FAMILIES = (
    Family("walks", f"{LENGTH} bars, moves of 0.01 %, 2 % or 10 % at most", _walks),
    Family("trends", "long rises with sudden falls, long falls with sudden rises", _trends),
    Family("gaps", "missing sessions, 1 to 50 in a row", _gaps),
    Family("flat", "stretches of 3 to 250 equal prices; some without any move", _flat),
    Family("ticks", "few prices on a coarse grid: equal neighbours, equal averages", _ticks),
    Family("splits", "unadjusted splits and reverse splits, from 20:1 to 1:10", _splits),
    Family(
        "dividends", "known, unknown and impossible dividends, with and without a delivered adjusted close", _dividends
    ),
    Family("volumes", "volumes from 0 to 1e10, fractions, stretches of unknown ones", _volumes),
    Family("falls", "from 1e6 to 1e-2, at once or over 300 bars", _falls),
)


def generated() -> Iterator[tuple[str, Bars]]:
    """(family, bars) of every generated history, the same ones each time."""
    for length in EDGES:
        for level in LEVELS:
            yield "short", bars(walk(Random(f"short {length} {level}"), length, level))
    for family in FAMILIES:
        for number in range(HISTORIES):
            yield family.name, family.make(Random(f"{family.name} {number}"), LEVELS[number % len(LEVELS)])
