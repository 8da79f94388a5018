"""What the lake holds of each ticker, read from the Delta log in milliseconds, without an engine.

Here: spans, holes and provisional bars. Not here: what is done about them (automation/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_table import DeltaTable

if TYPE_CHECKING:
    from stock_lakehouse.market_calendar import MarketCalendar

DAY = timedelta(days=1)
RECENT_YEARS = 2  # a bar is provisional for hours; one that is longer is still found for a year at least


class HoldingsError(Exception):
    """What the lake holds could not be read; it is not known to be empty."""


@dataclass(frozen=True)
class Held:
    """A ticker's bars: first and last session, the sessions missing between them, and those with a provisional bar."""

    first: date
    last: date
    missing: tuple[date, ...] = ()
    provisional: tuple[date, ...] = ()


@dataclass(frozen=True)
class Gap:
    """Consecutive sessions that a ticker lacks; `ended` says that the ticker has bars after them."""

    ticker: str
    sessions: tuple[date, ...]
    ended: bool

    @property
    def key(self) -> str:
        """The same while it grows at its end; another when the ticker has bars again."""
        return f"{self.ticker}|{self.sessions[0]}|{self.sessions[-1] if self.ended else ''}"


def read_holdings(complete: DeltaTable, bars: DeltaTable, calendar: MarketCalendar) -> dict[str, Held]:
    """What a lake holds of each ticker: sessions by `complete`, its last layer, provisional ones by `bars`, the curated.

    Nothing for a table that was never published. Raises HoldingsError if a table cannot be read.
    """
    from deltalake.exceptions import DeltaError

    try:
        provisional = _provisional(bars)
        return {
            ticker: Held(first, last, missing, tuple(sorted(provisional.get(ticker, ()))))
            for ticker, (first, last, missing) in _spans(complete, calendar).items()
        }
    except (DeltaError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise HoldingsError(f"the lake cannot be read: {type(error).__name__}: {error}") from error


def _spans(table: DeltaTable, calendar: MarketCalendar) -> dict[str, tuple[date, date, tuple[date, ...]]]:
    """First, last and missing sessions of each ticker. Files are opened only of tickers whose row count leaves a hole."""
    import pyarrow as pa

    if not table.exists():
        return {}
    opened = table.open()
    files = pa.table(opened.get_add_actions(flatten=True)).select(
        ["partition.ticker", "min.date", "max.date", "num_records"]
    )
    spans: dict[str, list[tuple[date, date, int]]] = {}
    for ticker, *span, rows in zip(*(column.to_pylist() for column in files.columns), strict=True):
        if rows:
            spans.setdefault(ticker, []).append((*span, rows))
    held = {}
    for ticker, parts in spans.items():
        first, last = min(part[0] for part in parts), max(part[1] for part in parts)
        expected = calendar.between(first, last)
        missing: tuple[date, ...] = ()
        if sum(part[2] for part in parts) != len(expected):
            dates = opened.to_pyarrow_dataset(partitions=[("ticker", "=", ticker)]).to_table(columns=["date"])
            there = set(dates["date"].to_pylist())
            missing = tuple(day for day in expected if day not in there)
        held[ticker] = (first, last, missing)
    return held


# By table: the version last looked at, and what it held. A sensor looks each minute, a table changes once a day.
_seen: dict[tuple[str, int], Mapping[str, Sequence[date]]] = {}


def _provisional(table: DeltaTable) -> Mapping[str, Sequence[date]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    if not table.exists():
        return {}
    opened = table.open()
    version = (str(opened.metadata().id), opened.version())
    if version in _seen:
        return _seen[version]
    newest = pc.max(pa.table(opened.get_add_actions(flatten=True))["partition.year"]).as_py() or 0
    recent = (ds.field("year") > newest - RECENT_YEARS) & (ds.field("bar_status") == "provisional")
    found: dict[str, list[date]] = {}
    for row in opened.to_pyarrow_dataset().to_table(columns=["ticker", "date"], filter=recent).to_pylist():
        found.setdefault(row["ticker"], []).append(row["date"])
    _seen.clear()
    _seen[version] = found
    return found


def find_gaps(calendar: MarketCalendar, holdings: Mapping[str, Held], tickers: Iterable[str], due: date) -> list[Gap]:
    """Every stretch of sessions that one of `tickers` lacks after its first bar: between its bars, or after its last.

    After the last bar only sessions before `due` that some other ticker has: until then a session is new, not missing.
    """
    newest = max((held.last for held in holdings.values()), default=None)
    found = []
    for ticker in tickers:
        held = holdings.get(ticker)
        if held is None or newest is None:
            continue
        found += [Gap(ticker, stretch, True) for stretch in _stretches(held.missing, calendar)]
        end = min(newest, due - DAY)
        if tail := calendar.between(held.last + DAY, end):
            found.append(Gap(ticker, tail, False))
    return found


def _stretches(missing: Sequence[date], calendar: MarketCalendar) -> list[tuple[date, ...]]:
    """`missing`, ascending, cut where a session lies between two of them."""
    stretches: list[list[date]] = []
    for day in missing:
        if stretches and calendar.after(stretches[-1][-1]) == day:
            stretches[-1].append(day)
        else:
            stretches.append([day])
    return [tuple(stretch) for stretch in stretches]
