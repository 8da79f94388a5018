"""Sessions of the exchange: which days are sessions, when they close, which comes next.

Here: every use of a calendar library for sessions. Not here: what a run does about a session, and the list of exchanges
(exchanges.py).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from statistics import mode
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from stock_lakehouse.exchanges import CRYPTO, XNYS, known_from

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# The calendar starts this long before the first requested day, so that it never starts after it.
MARGIN = timedelta(days=14)
ONE_DAY = timedelta(days=1)
AHEAD = timedelta(days=365)
RECENT = 200  # number of sessions at the calendar's end from which the usual close and weekdays are derived


class CalendarError(Exception):
    """A day is outside the calendar; the message gives the calendar's range."""


class MarketCalendar:
    """Sessions of `exchange` from shortly before `first` to the calendar's end, about a year ahead of today.

    The calendar does not start before the first day whose sessions are recorded (`known_from`). Where the holidays of the coming
    year are not published yet, it ends with the published ones. Closes are UTC instants, so callers need not handle early closes
    and daylight saving time.

    - `exchange`: in the form that `exchange_of` returns.
    - `sessions`: ascending.
    - `time_zone`: the IANA name of the exchange's time zone.
    """

    def __init__(self, first: date, exchange: str = XNYS) -> None:
        self.exchange = exchange
        self._opens, self._closes, self.time_zone = _timetable(
            exchange, max(first - MARGIN, known_from(exchange) or date.min)
        )
        self.sessions: tuple[date, ...] = tuple(self._closes.index.date)

    @cached_property
    def closes(self) -> tuple[datetime, ...]:
        """The close of each of `sessions`, as an aware datetime in UTC."""
        return tuple(close.to_pydatetime() for close in self._closes.dt.tz_convert("UTC"))

    @cached_property
    def opens(self) -> tuple[datetime, ...]:
        """The open of each of `sessions`, as an aware datetime in UTC."""
        return tuple(open_.to_pydatetime() for open_ in self._opens.dt.tz_convert("UTC"))

    @cached_property
    def regular_close(self) -> timedelta:
        """The usual close, as the time since midnight of the session in the exchange's time: 16 hours at XNYS, 24 for 24/7."""
        zone = ZoneInfo(self.time_zone)
        recent = zip(self.sessions[-RECENT:], self.closes[-RECENT:], strict=True)
        return mode(
            close.astimezone(zone).replace(tzinfo=None) - datetime.combine(session, time()) for session, close in recent
        )

    @property
    def weekdays(self) -> tuple[int, ...]:
        """The weekdays (Monday is 0) of recent sessions, ascending."""
        return tuple(sorted({session.weekday() for session in self.sessions[-RECENT:]}))

    def between(self, first: date, last: date) -> tuple[date, ...]:
        """The sessions from `first` to `last`, both included."""
        return self.sessions[bisect_left(self.sessions, first) : bisect_right(self.sessions, last)]

    def close(self, session: date) -> datetime:
        """The close of `session`. Raises CalendarError if it is not a session."""
        return self.closes[self._index(session)]

    def open(self, session: date) -> datetime:
        """The open of `session`. Raises CalendarError if it is not a session."""
        return self.opens[self._index(session)]

    def _index(self, session: date) -> int:
        index = bisect_left(self.sessions, session)
        if index == len(self.sessions) or self.sessions[index] != session:
            raise CalendarError(f"{session} is not a session of {self.exchange}")
        return index

    def after(self, session: date) -> date:
        """The first session after `session`. Raises CalendarError at the calendar's end."""
        index = bisect_right(self.sessions, session)
        if index == len(self.sessions):
            raise CalendarError(f"no session is known after {session}: the calendar ends {self.sessions[-1]}")
        return self.sessions[index]

    def on_or_after(self, day: date) -> date | None:
        """`day` if it is a session, else the first session after it; None for a day outside the calendar."""
        if not self.sessions[0] <= day <= self.sessions[-1]:
            return None
        return self.sessions[bisect_left(self.sessions, day)]

    def latest_finished(self, now: datetime, grace: timedelta = timedelta()) -> date:
        """The last session whose close plus `grace` is not after `now`. Raises CalendarError if there is none."""
        index = bisect_right(self.closes, now - grace)
        if index == 0:
            raise CalendarError(f"no session is finished at {now}: the calendar starts {self.sessions[0]}")
        return self.sessions[index - 1]

    def longest_closure(self, since: date) -> timedelta:
        """The longest time between two closes from `since` to the calendar's end; zero if there are no two."""
        start = bisect_left(self.sessions, since)
        return max((after - before for before, after in pairwise(self.closes[start:])), default=timedelta())

    def closed_weekdays(self, since: date) -> tuple[int, ...]:
        """The weekdays (Monday is 0) without a session, neither from `since` to the calendar's end nor recently; ascending."""
        traded = {session.weekday() for session in self.between(since, self.sessions[-1])}
        return tuple(sorted(set(range(7)) - traded - set(self.weekdays)))

    def closed_days(self, first: date, last: date) -> tuple[date, ...]:
        """The days without a session from `first` to `last`, or to the calendar's end if that comes first."""
        last = min(last, self.sessions[-1])
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        sessions = set(self.between(first, last))
        return tuple(day for day in days if day not in sessions)

    def table(self, grace: timedelta) -> pa.Table:
        """One row a session: date, final_at (close plus `grace`, UTC), next_session (null at the calendar's end)."""
        import pyarrow as pa

        following: Sequence[date | None] = [*self.sessions[1:], None]
        return pa.table(
            {
                "date": pa.array(self.sessions, pa.date32()),
                "final_at": pa.array([close + grace for close in self.closes], pa.timestamp("us", "UTC")),
                "next_session": pa.array(following, pa.date32()),
            }
        )

    def days(self) -> pa.Table:
        """One row for each calendar day from the first to the last session: date, session (`on_or_after` that date)."""
        import pyarrow as pa

        first, last = self.sessions[0], self.sessions[-1]
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return pa.table(
            {
                "date": pa.array(days, pa.date32()),
                "session": pa.array([self.on_or_after(day) for day in days], pa.date32()),
            }
        )


class _EveryDay(MarketCalendar):
    """Every day is a session, which ends at midnight UTC. No library of calendars is imported, which takes half a second."""

    def __init__(self, first: date) -> None:
        begins = first - MARGIN
        self.exchange, self.time_zone = CRYPTO, "UTC"
        days = (utc_now().date() + AHEAD - begins).days + 1
        self.sessions = tuple(begins + timedelta(days=n) for n in range(days))

    @cached_property
    def opens(self) -> tuple[datetime, ...]:
        return tuple(datetime.combine(session, time(), UTC) for session in self.sessions)

    @cached_property
    def closes(self) -> tuple[datetime, ...]:
        return tuple(open_ + ONE_DAY for open_ in self.opens)


def market_calendar(first: date, exchange: str = XNYS) -> MarketCalendar:
    """The calendar of `exchange` from the start of the decade of `first`, built once a process (0.3 s).

    If `first` is in the future, from the start of the present decade, because a calendar ends a year from now.
    """
    return _calendar_from(date(min(first, utc_now().date()).year // 10 * 10, 1, 1), exchange)


@lru_cache(maxsize=8)
def _calendar_from(first: date, exchange: str) -> MarketCalendar:
    return _EveryDay(first) if exchange == CRYPTO else MarketCalendar(first, exchange)


def _timetable(exchange: str, first: date) -> tuple[pd.Series[pd.Timestamp], pd.Series[pd.Timestamp], str]:
    """The open and the close of each session from `first` on, by session, and the exchange's time zone.

    The calendars of exchange_calendars are used directly. pandas_market_calendars 5.5.0 derives them from their rules alone: it
    lacks the 40 Saturdays on which Moscow traded and all Saturdays of Seoul before 1999, has 32 different closes for Tel Aviv,
    fails for Santiago, and continues beyond the last published holidays (Shanghai, Singapore, Mumbai).
    """
    import exchange_calendars

    if exchange != XNYS and exchange in exchange_calendars.get_calendar_names():
        calendar = exchange_calendars.get_calendar(exchange, start=first)
        return calendar.opens, calendar.closes, str(calendar.tz)
    import pandas_market_calendars

    calendar = pandas_market_calendars.get_calendar("NYSE" if exchange == XNYS else exchange)
    schedule = calendar.schedule(first, utc_now().date() + AHEAD)
    return schedule["market_open"], schedule["market_close"], str(calendar.tz)


def utc_now() -> datetime:
    """The time of the wall clock, UTC. Code that needs the time takes a function like this one as an argument."""
    return datetime.now(UTC)
