"""Conversion between sessions × tickers and Dagster's partition keys. No other module knows the form of the keys.

Here: the partitions definition of a scheme, and the rectangle that a run's keys form. Not here: what a run does with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
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

MAX_KEYS = 100_000  # for each asset; with more, Dagster's UI and event log become slow
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
# The tickers of a run, separated by commas and continued in TICKERS_TAG.2 and so on. A run without the tag is for all tickers of
# its keys. The tag is needed because a range of Dagster holds every ticker that the settings list between its first and its last.
TICKERS_TAG = "stock_lakehouse/tickers"
TAG_LENGTH = 1_000  # characters: PostgreSQL indexes run tags and refuses an index row of more than 2,704 bytes
# How far before its first session a run reads actions that were delivered late. Exchanges never close for so long, so a day
# without a session is at most this far before the session that it belongs to.
LOOK_BACK = timedelta(days=14)
_run_tickers: ContextVar[frozenset[str] | None] = ContextVar("run_tickers", default=None)


class PartitionError(Exception):
    """The request cannot be written as partition keys; the message says what can."""


@dataclass(frozen=True)
class Rectangle:
    """The sessions × tickers of a run.

    - `sessions`: in ascending order, not necessarily consecutive.
    - `tickers`: in ascending order.
    - `exchange`: the exchange of the sessions, as the settings name it.
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
        """The years of the sessions, in ascending order."""
        return tuple(sorted({session.year for session in self.sessions}))

    @property
    def read_years(self) -> tuple[int, ...]:
        """The years that a run reads: those of the sessions and of the days up to LOOK_BACK before each."""
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
        """True if the rectangle has every session of the exchange from `first` to `last`."""
        return not self._gaps

    def covers(self, day: date) -> bool:
        """True if a row of `day` belongs to the rectangle. A day without a session belongs to the session after it.

        So the weekend before the first session is inside, and the weekend after the last one is outside.
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
    """The tickers that a run's tags name; None if they name none."""
    if TICKERS_TAG not in tags:
        return None
    present = takewhile(lambda tag: tag in tags, map(_tickers_tag, count(1)))
    return [ticker.strip() for tag in present for ticker in tags[tag].split(",") if ticker.strip()]


def tickers_of_run(tags: Mapping[str, str], all_tickers: Sequence[str]) -> Sequence[str]:
    """The tickers to which a run's tags restrict its keys; `all_tickers` if the tags name none.

    Raises PartitionError if the tag is empty or has a ticker that is not in `all_tickers`.
    """
    named = named_tickers(tags)
    if named is None:
        return all_tickers
    unknown = sorted(set(named) - set(all_tickers))
    if unknown or not named:
        raise PartitionError(f"tag {TICKERS_TAG}: {', '.join(unknown) or 'empty'}; allowed: tickers of the settings")
    return named


def narrow_ranges(tickers: Iterable[str] | None) -> None:
    """Restrict ranges of `date|ticker` keys in this thread to keys of `tickers`; None removes the restriction.

    This is for the process of a run, because Dagster records a materialization for each key in the run's range. The range of a
    run that is executed again from the UI also has the tickers between those of its tag.
    """
    _run_tickers.set(None if tickers is None else frozenset(tickers))


def rectangle_of(keys: Iterable[str], all_tickers: Sequence[str], exchange: str = XNYS) -> Rectangle:
    """The rectangle that partition keys of either scheme form. The keys may be in any order; a session's key has `all_tickers`.

    Raises PartitionError if the keys are not a whole rectangle.
    """
    pairs = [key.partition("|") for key in map(str, keys)]
    sessions = {session for session, _, _ in pairs}
    tickers = {ticker for _, bar, ticker in pairs if bar} or set(all_tickers)
    if any(bar for _, bar, _ in pairs) and len(pairs) != len(sessions) * len(tickers):
        raise PartitionError(f"{len(pairs)} keys are not all of {len(sessions)} sessions × {len(tickers)} tickers")
    return Rectangle(tuple(sorted(map(date.fromisoformat, sessions))), tuple(sorted(tickers)), exchange)


def rows_by_key(
    keys: Sequence[str],
    count_by: Callable[..., Iterable[Mapping[str, Any]]],
    session_of: Callable[[date], date | None],
) -> dict[str, int]:
    """How many rows each of `keys`, the keys of a run, has; a key without rows is missing.

    - count_by: counts the rows by the given columns of `day` and `ticker`, and returns these columns and `count`
    - session_of: the session to which a row of a day belongs
    """
    by_bar = any("|" in key for key in keys)
    wanted, found = {str(key) for key in keys}, dict[str, int]()
    for row in count_by("day", "ticker") if by_bar else count_by("day"):
        session = session_of(row["day"])
        key = f"{session}|{row['ticker']}" if by_bar else str(session)
        if key in wanted:
            found[key] = found.get(key, 0) + row["count"]
    return found


def _keeping_keys(sessions: dg.TimeWindowPartitionsDefinition) -> dg.TimeWindowPartitionsDefinition:
    """`sessions`, which from now on keeps its keys until the next day, and which days between two of them are none.

    Dagster asks for all keys of a partitioned upstream asset of each asset without partitions: fifteen times a run, 0.1 s for 20
    years. It also joins the keys of a run to ranges, for each output and input, and looks for sessions in each weekend and
    holiday: 0.3 s for 20 years. This is no subclass, because Dagster stores the definition with events and knows only its own
    class.
    """
    import dagster as dg

    compute, kept = sessions.get_partition_keys, dict[date, Sequence[str]]()

    def get_partition_keys(current_time: datetime | None = None, *more: Any, **options: Any) -> Sequence[str]:
        with dg.partition_loading_context(current_time) as context:
            day = context.effective_dt.date()  # a day's key appears at a midnight UTC
        keys = kept.get(day)
        if keys is None:
            keys = compute(current_time, *more, **options)
            kept.clear()
            kept[day] = keys
        return [*keys]

    sessions.__dict__["get_partition_keys"] = get_partition_keys
    # Unlike the keys, the days without a session do not depend on the present day.
    sessions.__dict__["has_any_partitions_in_window"] = lru_cache(maxsize=10_000)(sessions.has_any_partitions_in_window)
    return sessions


@lru_cache(maxsize=1)
def _bar_partitions() -> type[dg.MultiPartitionsDefinition]:
    import dagster as dg

    class BarPartitions(dg.MultiPartitionsDefinition):
        """Two-dimensional partitions whose keys carry no tags of their dimensions.

        Works around dagster-io/dagster#28861: a job backfill copies the first key's tags onto each range run and drops only
        `dagster/partition`. Dagster then treats each run as a run of that one key, because the tags of its dimensions remain.

        The last keys are kept, because Dagster asks for all keys of a run about thirty times: 5 s of processor time for 16,000.
        """

        def get_tags_for_partition_key(self, partition_key: str) -> Mapping[str, str]:
            return dg.PartitionsDefinition.get_tags_for_partition_key(self, partition_key)

        def get_partition_keys(
            self, current_time: datetime | None = None, *more: Any, **options: Any
        ) -> Sequence[dg.MultiPartitionKey]:
            with dg.partition_loading_context(current_time) as context:
                day = context.effective_dt.date()  # a day's key appears at a midnight UTC
            return self._kept(
                "_all_keys", day, lambda: super(BarPartitions, self).get_partition_keys(current_time, *more, **options)
            )

        def get_partition_keys_in_range(
            self, partition_key_range: dg.PartitionKeyRange, *more: Any, **options: Any
        ) -> Sequence[dg.MultiPartitionKey]:
            """The keys of a range, restricted to the tickers of `narrow_ranges`."""
            tickers = _run_tickers.get()

            def in_range() -> list[dg.MultiPartitionKey]:
                keys: Sequence[Any] = super(BarPartitions, self).get_partition_keys_in_range(
                    partition_key_range, *more, **options
                )
                return [key for key in keys if tickers is None or key.keys_by_dimension["ticker"] in tickers]

            return self._kept("_range_keys", (partition_key_range, tickers), in_range)

        def _kept(
            self, name: str, of: Hashable, keys: Callable[[], Sequence[dg.MultiPartitionKey]]
        ) -> Sequence[dg.MultiPartitionKey]:
            """`keys()`, or a copy of its last result if that was for the same `of`."""
            last = self.__dict__.get(name)
            if last is None or last[0] != of:
                last = self.__dict__[name] = (of, keys())
            return [*last[1]]

    return BarPartitions


class PartitionScheme:
    """How bars are divided into partitions.

    - `date_ticker`: a key for each bar, like `2023-09-21|NVDA`.
    - `session`: a key for each session.

    Raises PartitionError if the scheme `date_ticker` would have more than MAX_KEYS keys for each asset.
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
                f"{len(self.tickers)} tickers since {self.first} are {keys:,} partition keys for each asset, more than "
                f'{MAX_KEYS:,}; set partition_by = "session" in lakehouse.toml: one key per session for any number of '
                "tickers; an existing lake is kept, and `stock-lakehouse record` marks it under the new keys"
            )

    def definition(self, tickers: Sequence[str] | None = None) -> dg.PartitionsDefinition[str]:
        """The partitions definition. `tickers` is their order, the settings' if None; it decides which tickers are neighbours."""
        import dagster as dg

        # A weekday on which the exchange never trades is excluded as such, also beyond the calendar's end. It is read from the
        # calendar because Saturdays had sessions until 1952.
        weekdays = self._calendar.closed_weekdays(self.first)
        closed = self._calendar.closed_days(self.first, self.last or self._calendar.sessions[-1])
        holidays = [datetime.combine(day, time()) for day in closed if day.weekday() not in weekdays]
        daily = dg.TimeWindowPartitionsDefinition(
            cron_schedule="0 0 * * *",
            start=datetime.combine(self.first, time()),
            end=datetime.combine(self.last, time()) + timedelta(days=1) if self.last else None,
            fmt="%Y-%m-%d",
            exclusions=[*sorted(f"0 0 * * {(weekday + 1) % 7}" for weekday in weekdays), *holidays],
            # Without it a day's key would exist only from the midnight UTC that ends it, hours after the session's close.
            end_offset=1,
        )
        if self.by == "session":
            return _keeping_keys(daily)
        return _bar_partitions()(
            {"date": daily, "ticker": dg.StaticPartitionsDefinition(list(tickers or self.tickers))}
        )

    def request(self, tickers: Sequence[str] | None, first: date | None, last: date | None, today: date) -> Rectangle:
        """The rectangle of `tickers` (all if None) and the sessions from `first` to `last` (all if None).

        Raises PartitionError for a ticker that the settings do not have, a range without a session, or one outside the lake's.
        """
        unknown = sorted(set(tickers or ()) - set(self.tickers))
        if unknown:
            raise PartitionError(
                f"tickers: {', '.join(unknown)} not in the settings; allowed: {', '.join(self.tickers)}"
            )
        end = min(self.last or today, today)
        if end < self.first:
            raise PartitionError(
                f"first_date: no session since {self.first} is finished, the newest is {today}; set first_date to an earlier "
                "day, or wait"
            )
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
        """The tags of the run that materializes `rectangle`. They name its tickers unless those are all of the settings'."""
        first, last = rectangle.first.isoformat(), rectangle.last.isoformat()
        if self.by == "date_ticker":
            positions = sorted(map(self.tickers.index, rectangle.tickers))
            first, last = f"{first}|{self.tickers[positions[0]]}", f"{last}|{self.tickers[positions[-1]]}"
        named = {} if set(rectangle.tickers) == set(self.tickers) else tags_of_tickers(rectangle.tickers)
        return {RANGE_START: first, RANGE_END: last, **named}

    def keys_of(self, rectangle: Rectangle, cells: Cells) -> Iterator[str]:
        """The keys of the bars of `rectangle` that `cells` marks; by session, the keys of the sessions with a marked bar."""
        import dagster as dg

        sessions = [session.isoformat() for session in rectangle.sessions]
        if self.by == "session":
            yield from (session for column, session in enumerate(sessions) if cells[:, column].any())
            return
        for row, column in zip(*cells.nonzero(), strict=True):
            yield dg.MultiPartitionKey({"date": sessions[column], "ticker": rectangle.tickers[row]})

    def ticker_order(self, rectangle: Rectangle) -> tuple[str, ...]:
        """The settings' tickers in an order in which those of `rectangle` are neighbours, because a Dagster range has no gaps.

        It is the settings' order if they are neighbours there.
        """
        inside = set(rectangle.tickers)
        positions = [position for position, ticker in enumerate(self.tickers) if ticker in inside]
        if positions[-1] - positions[0] + 1 == len(positions):
            return self.tickers
        return (*(t for t in self.tickers if t in inside), *(t for t in self.tickers if t not in inside))
