"""Sessions of the exchange: which days, when they close, what comes next."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, date, datetime, timedelta
from importlib import resources

import pytest

from stock_lakehouse.market_calendar import CalendarError, MarketCalendar, market_calendar, utc_now

FIRST, LAST = date(2013, 1, 2), date(2023, 9, 21)
GRACE = timedelta(minutes=30)


@pytest.fixture(scope="module")
def calendar() -> MarketCalendar:
    return market_calendar(FIRST)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_the_samples_range_has_2699_sessions_and_they_are_the_samples(calendar: MarketCalendar) -> None:
    sessions = calendar.between(FIRST, LAST)
    assert len(sessions) == 2699
    packed = resources.files("stock_lakehouse.sources") / "sample_data" / "stocks_daily.csv.gz"
    with packed.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as text:
        assert {row["date"] for row in csv.DictReader(text)} == {day.isoformat() for day in sessions}


def test_sessions_ascend_and_none_is_on_a_weekend(calendar: MarketCalendar) -> None:
    assert list(calendar.sessions) == sorted(set(calendar.sessions))
    assert {day.weekday() for day in calendar.sessions} == {0, 1, 2, 3, 4}


def test_the_calendar_starts_before_its_first_day_and_reaches_beyond_today(calendar: MarketCalendar) -> None:
    assert calendar.sessions[0] < FIRST
    assert calendar.sessions[-1] > utc_now().date()


def test_between_includes_both_ends(calendar: MarketCalendar) -> None:
    assert calendar.between(date(2023, 9, 15), date(2023, 9, 18)) == (date(2023, 9, 15), date(2023, 9, 18))
    assert calendar.between(date(2023, 9, 16), date(2023, 9, 17)) == ()
    assert calendar.between(date(2023, 9, 18), date(2023, 9, 15)) == ()


@pytest.mark.parametrize(
    ("session", "close"),
    [
        pytest.param(date(2023, 9, 21), utc(2023, 9, 21, 20), id="summer"),
        pytest.param(date(2023, 1, 5), utc(2023, 1, 5, 21), id="winter"),
        pytest.param(date(2023, 3, 10), utc(2023, 3, 10, 21), id="before daylight saving begins"),
        pytest.param(date(2023, 3, 13), utc(2023, 3, 13, 20), id="after it began"),
        pytest.param(date(2023, 11, 3), utc(2023, 11, 3, 20), id="before it ends"),
        pytest.param(date(2023, 11, 6), utc(2023, 11, 6, 21), id="after it ended"),
        pytest.param(date(2022, 11, 25), utc(2022, 11, 25, 18), id="early close after Thanksgiving"),
        pytest.param(date(2023, 7, 3), utc(2023, 7, 3, 17), id="early close before Independence Day"),
    ],
)
def test_a_session_closes_when_new_york_does(calendar: MarketCalendar, session: date, close: datetime) -> None:
    assert calendar.close(session) == close


@pytest.mark.parametrize("day", [date(2023, 9, 23), date(2023, 7, 4), date(1900, 1, 1), date(2999, 1, 1)])
def test_a_day_that_is_no_session_has_no_close(calendar: MarketCalendar, day: date) -> None:
    with pytest.raises(CalendarError, match=f"{day} is not a session of XNYS"):
        calendar.close(day)


@pytest.mark.parametrize(
    ("day", "following"),
    [
        (date(2023, 9, 20), date(2023, 9, 21)),
        (date(2023, 9, 22), date(2023, 9, 25)),
        (date(2023, 9, 23), date(2023, 9, 25)),
        (date(2023, 9, 1), date(2023, 9, 5)),
        (date(2020, 12, 31), date(2021, 1, 4)),
    ],
)
def test_after_is_the_next_session_never_the_day_itself(calendar: MarketCalendar, day: date, following: date) -> None:
    assert calendar.after(day) == following


def test_after_the_calendars_end_is_an_error_that_says_where_it_ends(calendar: MarketCalendar) -> None:
    with pytest.raises(CalendarError, match=f"the calendar ends {calendar.sessions[-1]}"):
        calendar.after(calendar.sessions[-1])


@pytest.mark.parametrize(
    ("now", "finished"),
    [
        (utc(2023, 9, 21, 20, 30), date(2023, 9, 21)),
        (utc(2023, 9, 21, 20, 29, 59), date(2023, 9, 20)),
        (utc(2023, 9, 24, 12), date(2023, 9, 22)),
        (utc(2023, 7, 3, 17, 30), date(2023, 7, 3)),
        (utc(2023, 7, 3, 17, 29), date(2023, 6, 30)),
        (utc(2023, 7, 4, 23), date(2023, 7, 3)),
        (utc(2023, 11, 6, 20, 45), date(2023, 11, 3)),
        (utc(2023, 11, 6, 21, 30), date(2023, 11, 6)),
    ],
)
def test_the_latest_finished_session_is_the_last_past_its_close_and_grace(
    calendar: MarketCalendar, now: datetime, finished: date
) -> None:
    assert calendar.latest_finished(now, GRACE) == finished


def test_before_the_calendars_start_no_session_is_finished(calendar: MarketCalendar) -> None:
    with pytest.raises(CalendarError, match=f"the calendar starts {calendar.sessions[0]}"):
        calendar.latest_finished(utc(2000, 1, 3))


def test_weekday_holidays_are_the_weekdays_without_a_session(calendar: MarketCalendar) -> None:
    assert calendar.weekday_holidays(date(2023, 1, 1), date(2023, 7, 31)) == (
        date(2023, 1, 2),
        date(2023, 1, 16),
        date(2023, 2, 20),
        date(2023, 4, 7),
        date(2023, 5, 29),
        date(2023, 6, 19),
        date(2023, 7, 4),
    )


def test_beyond_the_calendars_end_nothing_is_called_a_holiday(calendar: MarketCalendar) -> None:
    end = calendar.sessions[-1]
    assert calendar.weekday_holidays(end, end + timedelta(days=400)) == ()


def test_holidays_and_sessions_together_are_all_weekdays(calendar: MarketCalendar) -> None:
    days = {FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)}
    holidays, sessions = set(calendar.weekday_holidays(FIRST, LAST)), set(calendar.between(FIRST, LAST))
    assert holidays | sessions == {day for day in days if day.weekday() < 5}
    assert not holidays & sessions


def test_the_table_has_a_row_a_session_with_its_final_time_and_the_next_session(calendar: MarketCalendar) -> None:
    rows = calendar.table(GRACE).to_pylist()
    assert [row["date"] for row in rows] == list(calendar.sessions)
    assert [row["next_session"] for row in rows] == [*calendar.sessions[1:], None]
    by_day = {row["date"]: row for row in rows}
    assert by_day[date(2023, 7, 3)]["final_at"] == utc(2023, 7, 3, 17, 30)
    assert by_day[date(2023, 7, 3)]["next_session"] == date(2023, 7, 5)


def test_the_clock_is_aware_and_utc() -> None:
    assert utc_now().utcoffset() == timedelta()
