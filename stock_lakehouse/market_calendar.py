"""Sessions of the exchange: which days trade, when they close, which comes next.

Here: everything that asks exchange_calendars. Not here: what a run should do about a session.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

EXCHANGE = "XNYS"


class CalendarError(Exception):
    """A day that the calendar does not reach; the message gives the days that it does."""


class MarketCalendar:
    """Sessions of XNYS from shortly before `first` to the calendar's end, about a year ahead of today.

    Closes are UTC instants, so early closes and daylight saving need no care from callers.
    """

    def __init__(self, first: date) -> None:
        import exchange_calendars

        # A few days of margin: the calendar itself must not start after the first day that is asked for.
        self._calendar = exchange_calendars.get_calendar(EXCHANGE, start=first - timedelta(days=14))
        self.sessions: tuple[date, ...] = tuple(self._calendar.sessions.date)

    @cached_property
    def closes(self) -> tuple[datetime, ...]:
        """The close of each of `sessions`, aware, UTC."""
        return tuple(close.to_pydatetime() for close in self._calendar.closes.dt.tz_convert("UTC"))

    def between(self, first: date, last: date) -> tuple[date, ...]:
        """The sessions from `first` to `last`, both included."""
        return self.sessions[bisect_left(self.sessions, first) : bisect_right(self.sessions, last)]

    def close(self, session: date) -> datetime:
        """When `session` closes. Raises CalendarError if it is not a session."""
        index = bisect_left(self.sessions, session)
        if index == len(self.sessions) or self.sessions[index] != session:
            raise CalendarError(f"{session} is not a session of {EXCHANGE}")
        return self.closes[index]

    def after(self, session: date) -> date:
        """The first session after `session`."""
        index = bisect_right(self.sessions, session)
        if index == len(self.sessions):
            raise CalendarError(f"no session is known after {session}: the calendar ends {self.sessions[-1]}")
        return self.sessions[index]

    def latest_finished(self, now: datetime, grace: timedelta = timedelta()) -> date:
        """The last session whose close plus `grace` is not after `now`."""
        index = bisect_right(self.closes, now - grace)
        if index == 0:
            raise CalendarError(f"no session is finished at {now}: the calendar starts {self.sessions[0]}")
        return self.sessions[index - 1]

    def longest_closure(self, since: date) -> timedelta:
        """The longest time between two closes from `since` to the calendar's end."""
        start = bisect_left(self.sessions, since)
        return max(after - before for before, after in pairwise(self.closes[start:]))

    def weekday_holidays(self, first: date, last: date) -> tuple[date, ...]:
        """Mondays to Fridays from `first` to `last` on which the exchange is closed."""
        last = min(last, self.sessions[-1])
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        sessions = set(self.between(first, last))
        return tuple(day for day in days if day.weekday() < 5 and day not in sessions)

    def on_or_after(self, day: date) -> date | None:
        """The session on `day`, or else the next one; None beyond the calendar's end."""
        index = bisect_left(self.sessions, day)
        return self.sessions[index] if index < len(self.sessions) else None

    def days(self) -> pa.Table:
        """A row a calendar day from the first to the last session: date, session (that day, or the next session)."""
        import pyarrow as pa

        first, last = self.sessions[0], self.sessions[-1]
        every = [first + timedelta(days=count) for count in range((last - first).days + 1)]
        sessions = [self.on_or_after(day) for day in every]
        return pa.table({"date": pa.array(every, pa.date32()), "session": pa.array(sessions, pa.date32())})

    def table(self, grace: timedelta) -> pa.Table:
        """A row a session: date, final_at (close plus `grace`, UTC), next_session (null at the calendar's end)."""
        import pyarrow as pa

        following: Sequence[date | None] = [*self.sessions[1:], None]
        return pa.table(
            {
                "date": pa.array(self.sessions, pa.date32()),
                "final_at": pa.array([close + grace for close in self.closes], pa.timestamp("us", "UTC")),
                "next_session": pa.array(following, pa.date32()),
            }
        )


def market_calendar(first: date) -> MarketCalendar:
    """The calendar from the decade of `first` on, built once a process (0.2 s)."""
    return _calendar_from(date(first.year // 10 * 10, 1, 1))


@lru_cache(maxsize=8)
def _calendar_from(first: date) -> MarketCalendar:
    return MarketCalendar(first)


def utc_now() -> datetime:
    """The wall clock; whoever needs the time takes a function like this one as an argument."""
    return datetime.now(UTC)
