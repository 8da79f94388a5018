"""Sessions × tickers ↔ partition keys: the one place that knows how they are written.

Here: the partitions definition of a scheme, and the rectangle that a run's keys form. Not here: what a run does with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property, lru_cache
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from stock_lakehouse.exchanges import XNYS

if TYPE_CHECKING:
    import dagster as dg
    import numpy as np

    from stock_lakehouse.market_calendar import MarketCalendar
    from stock_lakehouse.settings import Settings

    Cells = np.ndarray[Any, np.dtype[np.bool_]]  # tickers × sessions of a rectangle

LOOK_BACK = timedelta(days=14)  # how far before its first session a run reads actions that were delivered late
MAX_KEYS = 100_000  # an asset; beyond it Dagster's UI and event log become slow
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
# A run's tickers by comma, continued in TICKERS_TAG.2 and so on; without it a run is for all tickers of its keys. A range of
# Dagster cannot say that: it holds every ticker that the settings name between its first and its last.
TICKERS_TAG = "stock_lakehouse/tickers"
TAG_LENGTH = 1_000  # characters: PostgreSQL indexes run tags, and refuses a row of more than 2,704 bytes there
LOOK_BACK = timedelta(
    days=14
)  # longer than exchanges close: a day without a session is at most so long before its session
_run_tickers: ContextVar[frozenset[str] | None] = ContextVar("run_tickers", default=None)


class PartitionError(Exception):
    """What was asked for cannot be written as partition keys; the message says what can."""


@dataclass(frozen=True)
class Rectangle:
    """The sessions × tickers of a run, both in ascending order; `sessions` need not be consecutive.

    `exchange`: whose sessions they are, as the settings name it.
    """

    sessions: tuple[date, ...]
    tickers: tuple[str, ...]
    exchange: str = XNYS

    @property
    def first(self) -> date:
        return self.sessions[0]

    @property
    def last(self) -> date:
        return self.sessions[-1]

    @property
    def years(self) -> tuple[int, ...]:
        """The years of its sessions, ascending."""
        return tuple(sorted({session.year for session in self.sessions}))

    @property
    def read_years(self) -> tuple[int, ...]:
        """The years of the days that it covers: those of its sessions and of the days up to LOOK_BACK before each."""
        return tuple(sorted({day.year for session in self.sessions for day in (session - LOOK_BACK, session)}))

    @property
    def _calendar(self) -> MarketCalendar:
        from stock_lakehouse.market_calendar import market_calendar

        return market_calendar(self.first, self.exchange)

    @cached_property
    def _gaps(self) -> bool:
        return len(self._calendar.between(self.first, self.last)) != len(self.sessions)

    @property
    def is_consecutive(self) -> bool:
        """Whether every session from first to last is in it."""
        return not self._gaps

    def covers(self, day: date) -> bool:
        """Whether a row of `day` belongs to it. A day that is no session belongs to the session after it.

        So the weekend before its first session is inside, and the weekend after its last one is outside.
        """
        return self._calendar.on_or_after(day) in self._session_set

    @cached_property
    def _session_set(self) -> frozenset[date]:
        return frozenset(self.sessions)


def tags_of_tickers(tickers: Iterable[str]) -> dict[str, str]:
    """The run tags that name `tickers`."""
    values: list[str] = []
    for ticker in tickers:
        if values and len(values[-1]) + 1 + len(ticker) <= TAG_LENGTH:
            values[-1] += f",{ticker}"
        else:
            values.append(ticker)
    return {_tickers_tag(number): value for number, value in enumerate(values, start=1)}


def _tickers_tag(number: int) -> str:
    return TICKERS_TAG if number == 1 else f"{TICKERS_TAG}.{number}"


def named_tickers(tags: Mapping[str, str]) -> list[str] | None:
    """The tickers that a run's tags name; None where they name none."""
    if TICKERS_TAG not in tags:
        return None
    present = takewhile(lambda tag: tag in tags, map(_tickers_tag, count(1)))
    return [ticker.strip() for tag in present for ticker in tags[tag].split(",") if ticker.strip()]


def tickers_of_run(tags: Mapping[str, str], all_tickers: Sequence[str]) -> Sequence[str]:
    """The tickers to which a run's tags narrow its keys; `all_tickers` where they do not.

    Raises PartitionError for a ticker that `all_tickers` lacks.
    """
    asked = named_tickers(tags)
    if asked is None:
        return all_tickers
    unknown = sorted(set(asked) - set(all_tickers))
    if unknown or not asked:
        raise PartitionError(f"tag {TICKERS_TAG}: {', '.join(unknown) or 'empty'}; allowed: tickers of the settings")
    return asked


def narrow_ranges(tickers: Iterable[str] | None) -> None:
    """From now on in this thread, ranges of `date|ticker` keys hold keys of `tickers` alone; None ends that.

    For the process of a run: Dagster reads the run's range, and records a materialization for each of its keys. A run that is
    executed again from the UI has the tickers of its tag, and all tickers between them in its range.
    """
    _run_tickers.set(None if tickers is None else frozenset(tickers))


def rectangle_of(keys: Iterable[str], all_tickers: Sequence[str], exchange: str = XNYS) -> Rectangle:
    """The rectangle that partition keys of either scheme, in any order, form; a session's key stands for `all_tickers`.

    Raises PartitionError when the keys are not a whole rectangle.
    """
    pairs = [key.partition("|") for key in map(str, keys)]
    sessions = {session for session, _, _ in pairs}
    tickers = {ticker for _, bar, ticker in pairs if bar} or set(all_tickers)
    if any(bar for _, bar, _ in pairs) and len(pairs) != len(sessions) * len(tickers):
        raise PartitionError(f"{len(pairs)} keys are not all of {len(sessions)} sessions × {len(tickers)} tickers")
    return Rectangle(tuple(sorted(map(date.fromisoformat, sessions))), tuple(sorted(tickers)), exchange)


@lru_cache(maxsize=1)
def _bar_partitions() -> type[dg.MultiPartitionsDefinition]:
    import dagster as dg

    class BarPartitions(dg.MultiPartitionsDefinition):
        """A backfill of a job puts the tags of its first key on every run of a range, and drops `dagster/partition` alone.

        With those of the dimensions left, Dagster takes each run for a run of that one key (dagster-io/dagster#28861), so a
        key gives none.
        """

        def get_tags_for_partition_key(self, partition_key: str) -> Mapping[str, str]:
            return dg.PartitionsDefinition.get_tags_for_partition_key(self, partition_key)

        def get_partition_keys_in_range(
            self, partition_key_range: dg.PartitionKeyRange, *more: Any, **options: Any
        ) -> Sequence[dg.MultiPartitionKey]:
            """The keys of a range, of the tickers of `narrow_ranges` alone."""
            keys: Sequence[Any] = super().get_partition_keys_in_range(partition_key_range, *more, **options)
            tickers = _run_tickers.get()
            return keys if tickers is None else [key for key in keys if key.keys_by_dimension["ticker"] in tickers]

    return BarPartitions


class PartitionScheme:
    """How bars are cut into partitions: `date_ticker`, a key a bar (`2023-09-21|NVDA`), or `session`, a key a session.

    Raises PartitionError when the scheme would have more than MAX_KEYS keys an asset.
    """

    def __init__(self, settings: Settings, calendar: MarketCalendar) -> None:
        self.by = settings.partition_by
        self.tickers = settings.tickers
        self.first = settings.first_date
        self.last = settings.last_date
        self._calendar = calendar
        keys = len(self.tickers) * len(calendar.between(self.first, self.last or calendar.sessions[-1]))
        if self.by == "date_ticker" and keys > MAX_KEYS:
            raise PartitionError(
                f"{len(self.tickers)} tickers since {self.first} are {keys:,} partition keys an asset, more than "
                f'{MAX_KEYS:,}; set partition_by = "session" in lakehouse.toml: one key a session, any number of tickers; '
                "a lake that is there is kept, and `stock-lakehouse record` marks it under the new keys"
            )

    def definition(self, tickers: Sequence[str] | None = None) -> dg.PartitionsDefinition[str]:
        """The Dagster definition; `tickers` in another order than the settings' makes other tickers neighbours."""
        import dagster as dg

        # By weekday where the exchange never trades on it, also beyond the calendar's end; Saturdays were sessions until 1952.
        weekdays = self._calendar.closed_weekdays(self.first)
        closed = self._calendar.closed_days(self.first, self.last or self._calendar.sessions[-1])
        holidays = [datetime.combine(day, time()) for day in closed if day.weekday() not in weekdays]
        daily = dg.TimeWindowPartitionsDefinition(
            cron_schedule="0 0 * * *",
            start=datetime.combine(self.first, time()),
            end=datetime.combine(self.last, time()) + timedelta(days=1) if self.last else None,
            fmt="%Y-%m-%d",
            exclusions=[*sorted(f"0 0 * * {(weekday + 1) % 7}" for weekday in weekdays), *holidays],
            # A day's key would otherwise come at its midnight UTC, hours after the session's close.
            end_offset=1,
        )
        if self.by == "session":
            return daily
        return _bar_partitions()(
            {"date": daily, "ticker": dg.StaticPartitionsDefinition(list(tickers or self.tickers))}
        )

    def ask(self, tickers: Sequence[str] | None, first: date | None, last: date | None, today: date) -> Rectangle:
        """The rectangle of `tickers` (all if None) and the sessions from `first` to `last` (all if None).

        Raises PartitionError for a ticker that the settings lack, a range without a session, or one beyond the lake's.
        """
        unknown = sorted(set(tickers or ()) - set(self.tickers))
        if unknown:
            raise PartitionError(
                f"tickers: {', '.join(unknown)} not in the settings; allowed: {', '.join(self.tickers)}"
            )
        end = min(self.last or today, today)
        first, last = first or self.first, last or end
        if last < first:
            raise PartitionError(f"to: {last} is before from {first}")
        if first < self.first or last > end:
            raise PartitionError(f"from, to: {first} to {last} is not within the lake's {self.first} to {end}")
        sessions = self._calendar.between(first, last)
        if not sessions:
            raise PartitionError(f"from, to: no session of the exchange from {first} to {last}")
        return Rectangle(sessions, tuple(sorted(tickers or self.tickers)), self._calendar.exchange)

    def range_tags(self, rectangle: Rectangle) -> dict[str, str]:
        """The run tags that make `rectangle` one run. They name its tickers unless those are all of the settings'."""
        first, last = rectangle.first.isoformat(), rectangle.last.isoformat()
        if self.by == "date_ticker":
            places = sorted(map(self.tickers.index, rectangle.tickers))
            first, last = f"{first}|{self.tickers[places[0]]}", f"{last}|{self.tickers[places[-1]]}"
        named = {} if set(rectangle.tickers) == set(self.tickers) else tags_of_tickers(rectangle.tickers)
        return {RANGE_START: first, RANGE_END: last, **named}

    def keys_of(self, rectangle: Rectangle, cells: Cells) -> Iterator[str]:
        """The keys of the bars of `rectangle` that `cells` marks; of the sessions with one where a key is a session."""
        import dagster as dg

        sessions = [session.isoformat() for session in rectangle.sessions]
        if self.by == "session":
            yield from (session for at, session in enumerate(sessions) if cells[:, at].any())
            return
        for ticker, at in zip(*cells.nonzero(), strict=True):
            yield dg.MultiPartitionKey({"date": sessions[at], "ticker": rectangle.tickers[ticker]})

    def ticker_order(self, rectangle: Rectangle) -> tuple[str, ...]:
        """The settings' tickers, moved only if need be so that those of `rectangle` are neighbours: a Dagster range has no
        gaps."""
        asked = set(rectangle.tickers)
        places = [place for place, ticker in enumerate(self.tickers) if ticker in asked]
        if places[-1] - places[0] + 1 == len(places):
            return self.tickers
        return (*(t for t in self.tickers if t in asked), *(t for t in self.tickers if t not in asked))
