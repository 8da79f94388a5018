"""The sessions that the lake holds of each ticker, read from the Delta log in milliseconds, without an engine.

With layout "year" the log does not have the tickers: their sessions are read from the files, once for each version.

Here: spans, missing sessions and provisional bars. Not here: what is done about them (automation/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_table import DeltaTable, add_actions, partition_columns
from stock_lakehouse.market_calendar import ONE_DAY

if TYPE_CHECKING:
    import deltalake

    from stock_lakehouse.market_calendar import MarketCalendar

# Only these years are searched for provisional bars. A bar is provisional for hours; one that stays so is found for at least a
# year.
RECENT_YEARS = 2


class CoverageError(Exception):
    """The lake's tables could not be read. That does not mean that they are empty."""


@dataclass(frozen=True)
class TickerCoverage:
    """The sessions of a ticker's bars.

    - first, last: first and last session with a bar
    - missing: sessions between them without a bar
    - provisional: sessions with a provisional bar
    """

    first: date
    last: date
    missing: tuple[date, ...] = ()
    provisional: tuple[date, ...] = ()


@dataclass(frozen=True)
class Gap:
    """Consecutive sessions that a ticker lacks. `ended`: whether the ticker has bars after them."""

    ticker: str
    sessions: tuple[date, ...]
    ended: bool

    @property
    def key(self) -> str:
        """Identity of the gap: it stays the same while the gap grows at its end, and changes when the ticker has bars again."""
        return f"{self.ticker}|{self.sessions[0]}|{self.sessions[-1] if self.ended else ''}"


def read_coverage(complete: DeltaTable, bars: DeltaTable | None, calendar: MarketCalendar) -> dict[str, TickerCoverage]:
    """The sessions that a lake holds, by ticker.

    - complete: the table of the last layer, whose sessions count
    - bars: the curated table, which has the status of each bar; None: provisional bars are not looked for

    A table that was never published has no sessions. Raises CoverageError if a table cannot be read.
    """
    from deltalake.exceptions import DeltaError

    try:
        provisional = {} if bars is None else _provisional(bars)
        return {
            ticker: TickerCoverage(first, last, missing, tuple(sorted(provisional.get(ticker, ()))))
            for ticker, (first, last, missing) in _spans(complete, calendar).items()
        }
    except (DeltaError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise CoverageError(f"the lake cannot be read: {type(error).__name__}: {error}") from error


Spans = Mapping[str, tuple[date, date, tuple[date, ...]]]


def _spans(table: DeltaTable, calendar: MarketCalendar) -> Spans:
    """First, last and missing sessions of each ticker."""
    if not table.exists():
        return {}
    opened = table.snapshot()
    return (
        _spans_by_log(opened, calendar) if "ticker" in partition_columns(opened) else _spans_by_rows(opened, calendar)
    )


def _spans_by_log(opened: deltalake.DeltaTable, calendar: MarketCalendar) -> Spans:
    """`_spans` where each file has one ticker. Files are opened only for tickers with fewer rows than sessions."""

    files = add_actions(opened).select(["partition.ticker", "min.date", "max.date", "num_records"])
    spans: dict[str, list[tuple[date, date, int]]] = {}
    for ticker, *span, rows in zip(*(column.to_pylist() for column in files.columns), strict=True):
        if rows:
            spans.setdefault(ticker, []).append((*span, rows))
    found = {}
    for ticker, parts in spans.items():
        first, last = min(part[0] for part in parts), max(part[1] for part in parts)
        expected = calendar.between(first, last)
        missing: tuple[date, ...] = ()
        if sum(part[2] for part in parts) != len(expected):
            dates = opened.to_pyarrow_dataset(partitions=[("ticker", "=", ticker)]).to_table(columns=["date"])
            present = set(dates["date"].to_pylist())
            missing = tuple(day for day in expected if day not in present)
        found[ticker] = (first, last, missing)
    return found


# The spans of the last version read of a table whose log does not have the tickers, by table ID and version.
_spans_of: dict[tuple[str, int], Spans] = {}


def _spans_by_rows(opened: deltalake.DeltaTable, calendar: MarketCalendar) -> Spans:
    """`_spans` where a file has many tickers: tickers and sessions are read, once for each version."""
    import pyarrow.compute as pc

    version = (str(opened.metadata().id), opened.version())
    if version in _spans_of:
        return _spans_of[version]
    rows = opened.to_pyarrow_dataset().to_table(columns=["ticker", "date"])
    spans = rows.group_by("ticker").aggregate([("date", "min"), ("date", "max"), ("date", "count")])
    found = {}
    for ticker, first, last, count in zip(
        *(spans[name].to_pylist() for name in ("ticker", "date_min", "date_max", "date_count")), strict=True
    ):
        expected = calendar.between(first, last)
        missing: tuple[date, ...] = ()
        if count != len(expected):
            present = set(rows.filter(pc.equal(rows["ticker"], ticker))["date"].to_pylist())
            missing = tuple(day for day in expected if day not in present)
        found[ticker] = (first, last, missing)
    _spans_of.clear()
    _spans_of[version] = found
    return found


# The provisional sessions by ticker of the last version read, by table ID and version. A sensor reads them each minute, a table
# changes once a day.
_provisional_of: dict[tuple[str, int], Mapping[str, Sequence[date]]] = {}


def _provisional(table: DeltaTable) -> Mapping[str, Sequence[date]]:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    if not table.exists():
        return {}
    opened = table.snapshot()
    version = (str(opened.metadata().id), opened.version())
    if version in _provisional_of:
        return _provisional_of[version]
    newest = pc.max(add_actions(opened)["partition.year"]).as_py() or 0
    recent = opened.to_pyarrow_dataset(file_pruning_predicate=[("year", ">", newest - RECENT_YEARS)])
    found: dict[str, list[date]] = {}
    is_provisional = ds.field("bar_status") == "provisional"
    for row in recent.to_table(columns=["ticker", "date"], filter=is_provisional).to_pylist():
        found.setdefault(row["ticker"], []).append(row["date"])
    _provisional_of.clear()
    _provisional_of[version] = found
    return found


def find_gaps(
    calendar: MarketCalendar, coverage: Mapping[str, TickerCoverage], tickers: Iterable[str], due: date
) -> list[Gap]:
    """The gaps of `tickers`: consecutive missing sessions between a ticker's bars, or after its last bar.

    After the last bar, only sessions before `due` that another ticker has are missing; the others are new.
    """
    newest = max((ticker_coverage.last for ticker_coverage in coverage.values()), default=None)
    found = []
    for ticker in tickers:
        ticker_coverage = coverage.get(ticker)
        if ticker_coverage is None or newest is None:
            continue
        found += [Gap(ticker, stretch, True) for stretch in _stretches(ticker_coverage.missing, calendar)]
        end = min(newest, due - ONE_DAY)
        if tail := calendar.between(ticker_coverage.last + ONE_DAY, end):
            found.append(Gap(ticker, tail, False))
    return found


def _stretches(missing: Sequence[date], calendar: MarketCalendar) -> list[tuple[date, ...]]:
    """`missing` (ascending) as runs of consecutive sessions."""
    stretches: list[list[date]] = []
    for day in missing:
        if stretches and calendar.after(stretches[-1][-1]) == day:
            stretches[-1].append(day)
        else:
            stretches.append([day])
    return [tuple(stretch) for stretch in stretches]
