"""Daily bars of the sample as messages of a stream, in a file, with faults on request: what a newcomer and the tests read.

Here: the messages and their order. Not here: what is done with them.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from stock_lakehouse.clock import Clock
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.sources.sample import SampleSource

CENT = Decimal("0.000001")  # prices of ticks have six decimals
WRITE_SECONDS = 0.05  # between two writes at a limited rate
GROUP_MESSAGES = 1000  # sent at once at most
# What a broken producer sends, by the reason for which it becomes a dead letter. None: bytes that are no text.
POISON: tuple[tuple[str, dict[str, Any] | bytes], ...] = (
    ("not JSON", b'{"ticker": "NVDA", "close": '),
    ("not UTF-8", b'{"ticker": "\xff\xfe"}'),
    ("bad price", {"close": -1}),
    ("bad price", {"close": "n/a"}),
    ("bad ticker", {"ticker": "not a ticker"}),
    ("bad timestamp", {"timestamp": "2023-09-21 15:30:00"}),
    ("bad volume", {"volume": 1.5}),
    ("impossible prices", {"high": 0.01}),
)


@dataclass(frozen=True)
class Bar:
    """A daily bar as it was traded: prices in currency per share, volume in shares."""

    ticker: str
    session: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: int


@dataclass(frozen=True)
class Faults:
    """The shares of messages that are late, sent twice, or broken; and the seed of the dice."""

    late: float = 0.0
    duplicate: float = 0.0
    poison: float = 0.0
    late_seconds: int = 120
    seed: int = 0


def sample_bars(tickers: Sequence[str], first: date, last: date) -> list[Bar]:
    """The bars of the sample, as traded, by session and ticker. The sample's prices are adjusted for its splits."""
    rows = [
        row for delivery in SampleSource().deliver(tickers, date.min, date.max) for row in delivery.rows.to_pylist()
    ]
    splits = [(row["ticker"], row["date"], float(row["stock_splits"])) for row in rows if float(row["stock_splits"])]
    bars = []
    for row in rows:
        day = date.fromisoformat(row["date"])
        if first <= day <= last:
            later = [ratio for ticker, ex, ratio in splits if ticker == row["ticker"] and ex > row["date"]]
            factor = Decimal(repr(math.prod(later)))
            open_, high, low, close = (
                (Decimal(row[name]) * factor).quantize(CENT) for name in ("open", "high", "low", "close")
            )
            volume = round(Decimal(row["volume"]) / factor)
            bars.append(Bar(row["ticker"], day, open_, high, low, close, volume))
    return sorted(bars, key=lambda bar: (bar.session, bar.ticker))


def day_messages(bars: Sequence[Bar], clock: Clock) -> Iterator[bytes]:
    """A message for each bar, with the time of now and the bar's session as `date`."""
    for bar in bars:
        prices = {name: str(getattr(bar, name)) for name in ("open", "high", "low", "close")}
        yield _encoded({**_of(bar), "timestamp": clock().isoformat(), **prices, "volume": bar.volume})


def walk_messages(
    bars: Sequence[Bar], calendar: MarketCalendar, every_seconds: float, faults: Faults
) -> Iterator[bytes]:
    """Events of each session from its open to its close, a walk of each ticker, in the order of their times, with faults.

    The first price of a walk is the bar's open, the last its close; its highest, lowest and summed volume are the bar's too. The
    last event is in the last minute before the close.
    """
    dice = random.Random(faults.seed)
    sessions = sorted({bar.session for bar in bars})
    for session in sessions:
        events = [event for bar in bars if bar.session == session for event in _walk(bar, calendar, every_seconds)]
        events.sort(key=lambda event: (event["timestamp"], event["ticker"]))
        held: list[tuple[datetime, dict[str, Any]]] = []
        for event in events:
            now = datetime.fromisoformat(event["timestamp"])
            while held and held[0][0] <= now:
                yield _encoded(held.pop(0)[1])
            if dice.random() < faults.late:
                held.append((now + timedelta(seconds=3 * faults.late_seconds), event))
                continue
            yield _encoded(event)
            if dice.random() < faults.duplicate:
                yield _encoded(event)
            if dice.random() < faults.poison:
                _, broken = dice.choice(POISON)
                yield broken if isinstance(broken, bytes) else _encoded({**event, "event_id": "broken", **broken})
        yield from (_encoded(event) for _, event in held)


def paced(
    messages: Iterator[bytes], rate: float | None, say: Callable[[int], None], every_seconds: float = 1.0
) -> Iterator[list[bytes]]:
    """`messages` in groups to be sent at once, at most `rate` messages a second (None: as fast as they are taken).

    `say` is called with the number so far about every `every_seconds`.
    """
    began = said = time.monotonic()
    group: list[bytes] = []
    for count, message in enumerate(messages, 1):
        group.append(message)
        now = time.monotonic()
        ahead = 0.0 if rate is None else count / rate - (now - began)
        if ahead > WRITE_SECONDS or len(group) >= GROUP_MESSAGES:
            yield group
            group = []
            time.sleep(max(0.0, ahead - (time.monotonic() - now)))
        if now - said >= every_seconds:
            said = now
            say(count)
    if group:
        yield group


def write(groups: Iterable[list[bytes]], file: Path) -> int:
    """Append the messages of `groups` to `file`, a line each; return their number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with file.open("ab", buffering=0) as stream:
        # What a killed producer left of a line becomes a line of its own, and so a dead letter.
        if _ends_in_a_line(file):
            stream.write(b"\n")
        for group in groups:
            stream.write(b"".join(message + b"\n" for message in group))
            count += len(group)
    return count


def ticker_of(message: bytes) -> str | None:
    """The ticker of `message`, by which its events stay in order; None if it has none."""
    try:
        return str(json.loads(message)["ticker"])
    except (ValueError, TypeError, KeyError):
        return None


def _ends_in_a_line(file: Path) -> bool:
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - 1))
        return size > 0 and stream.read(1) != b"\n"


def _walk(bar: Bar, calendar: MarketCalendar, every_seconds: float) -> list[dict[str, Any]]:
    """The events of `bar`, by time."""
    start, end = calendar.open(bar.session), calendar.close(bar.session)
    count = max(4, int((end - start).total_seconds() / every_seconds))
    step = (end - start) / count
    dice = random.Random(f"{bar.ticker} {bar.session}")
    first, second = sorted(dice.sample(range(1, count - 1), 2))
    edges = [bar.high, bar.low] if dice.random() < 0.5 else [bar.low, bar.high]
    anchors = [(0, bar.open), (first, edges[0]), (second, edges[1]), (count - 1, bar.close)]
    prices: list[Decimal] = []
    for (left, price), (right, target) in pairwise(anchors):
        width = right - left
        for n in range(width):
            straight = price + (target - price) * n / width
            # Noise between the anchors, and none at them, within the bar's range.
            noise = Decimal(dice.gauss(0, 0.1)) * (bar.high - bar.low) * min(n, width - n) / width
            prices.append(max(bar.low, min(bar.high, straight + noise)).quantize(CENT))
    prices.append(bar.close)
    shares, rest = divmod(bar.volume, count)
    return [
        {
            **_of(bar),
            "timestamp": (start + n * step).isoformat(),
            "close": str(price),
            "volume": shares + (n < rest),
            "event_id": f"{bar.ticker}-{bar.session}-{n}",
        }
        for n, price in enumerate(prices)
    ]


def _of(bar: Bar) -> dict[str, Any]:
    return {"ticker": bar.ticker, "date": bar.session.isoformat(), "replay": True}


def _encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()
