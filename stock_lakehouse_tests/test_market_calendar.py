"""Sessions of the exchange: which days, when they close, what comes next."""

from __future__ import annotations

import csv
import gzip
import itertools
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import exchange_calendars
import pytest

from stock_lakehouse.exchanges import EXAMPLES, SUFFIXES, exchange_of, known_from
from stock_lakehouse.market_calendar import CalendarError, MarketCalendar, market_calendar, utc_now
from stock_lakehouse.settings import Settings

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


def test_closed_days_are_the_days_without_a_session(calendar: MarketCalendar) -> None:
    closed = calendar.closed_days(date(2023, 1, 1), date(2023, 7, 31))
    assert [day for day in closed if day.weekday() < 5] == [
        date(2023, 1, 2),
        date(2023, 1, 16),
        date(2023, 2, 20),
        date(2023, 4, 7),
        date(2023, 5, 29),
        date(2023, 6, 19),
        date(2023, 7, 4),
    ]
    assert set(closed) >= {date(2023, 7, 1), date(2023, 7, 2)}


def test_beyond_the_calendars_end_no_day_is_called_closed(calendar: MarketCalendar) -> None:
    end = calendar.sessions[-1]
    assert calendar.closed_days(end, end + timedelta(days=400)) == ()


def test_closed_days_and_sessions_together_are_all_days(calendar: MarketCalendar) -> None:
    days = {FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)}
    closed, sessions = set(calendar.closed_days(FIRST, LAST)), set(calendar.between(FIRST, LAST))
    assert closed | sessions == days
    assert not closed & sessions


def test_the_table_has_a_row_a_session_with_its_final_time_and_the_next_session(calendar: MarketCalendar) -> None:
    rows = calendar.table(GRACE).to_pylist()
    assert [row["date"] for row in rows] == list(calendar.sessions)
    assert [row["next_session"] for row in rows] == [*calendar.sessions[1:], None]
    by_day = {row["date"]: row for row in rows}
    assert by_day[date(2023, 7, 3)]["final_at"] == utc(2023, 7, 3, 17, 30)
    assert by_day[date(2023, 7, 3)]["next_session"] == date(2023, 7, 5)


def test_the_clock_is_aware_and_utc() -> None:
    assert utc_now().utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("day", "session"),
    [
        (date(2023, 9, 21), date(2023, 9, 21)),
        (date(2023, 9, 23), date(2023, 9, 25)),
        (date(2023, 4, 7), date(2023, 4, 10)),  # Good Friday
        (date(2024, 1, 1), date(2024, 1, 2)),
        (date(1999, 1, 4), None),
        (date(2999, 1, 1), None),
    ],
)
def test_a_day_without_a_session_belongs_to_the_session_after_it(
    calendar: MarketCalendar, day: date, session: date | None
) -> None:
    assert calendar.on_or_after(day) == session


def test_every_day_from_the_first_to_the_last_session_stands_with_its_session(calendar: MarketCalendar) -> None:
    rows = calendar.days().to_pylist()
    days = [row["date"] for row in rows]
    assert (days[0], days[-1]) == (calendar.sessions[0], calendar.sessions[-1])
    assert all(after - before == timedelta(days=1) for before, after in itertools.pairwise(days))
    assert {row["session"] for row in rows} == set(calendar.sessions)
    assert all(row["session"] == calendar.on_or_after(row["date"]) for row in rows)
    assert calendar.on_or_after(calendar.sessions[-1] + timedelta(days=1)) is None


def test_a_calendar_is_built_once() -> None:
    assert market_calendar(date(2013, 1, 2)) is market_calendar(date(2019, 12, 31), "XNYS")
    assert market_calendar(date(2013, 1, 2), "XLON") is not market_calendar(date(2013, 1, 2))


def test_new_york_has_the_sessions_of_exchange_calendars_since_1970_and_its_closes_since_2006() -> None:
    """Two sources of the present and the coming year. Before 2006 only one knows the short days of NYSE, and until October 1974
    that it closed at 15:00 or 15:30."""
    ours, theirs = market_calendar(date(1970, 1, 1)), exchange_calendars.get_calendar("XNYS", start="1970-01-01")
    last = min(ours.sessions[-1], theirs.sessions[-1].date())
    assert last > utc_now().date() + timedelta(days=300)
    assert ours.between(date(1970, 1, 1), last) == tuple(day for day in theirs.sessions.date if day <= last)
    closes = dict(zip(theirs.sessions.date, theirs.closes, strict=True))
    recent = ours.between(date(2006, 1, 1), last)
    assert [ours.close(day) for day in recent] == [closes[day].to_pydatetime() for day in recent]
    assert ours.close(date(2026, 11, 27)) == utc(2026, 11, 27, 18)


def test_new_york_was_closed_on_holidays_before_1970() -> None:
    calendar = market_calendar(date(1964, 12, 21))
    rows = {row["date"]: row["next_session"] for row in calendar.table(GRACE).to_pylist()}
    assert rows[date(1964, 12, 24)] == date(1964, 12, 28)
    assert rows[date(1964, 12, 31)] == date(1965, 1, 4)
    assert len(calendar.between(date(1964, 12, 21), date(1965, 1, 8))) == 13


def test_new_york_traded_on_saturdays_until_1952() -> None:
    calendar = market_calendar(date(1950, 1, 3))
    sessions = calendar.between(date(1950, 1, 3), date(1950, 2, 28))
    assert [day for day in sessions if day.weekday() == 5] == [
        date(1950, 1, 7) + timedelta(days=7 * n) for n in range(8)
    ]
    assert calendar.close(date(1950, 1, 7)) == utc(1950, 1, 7, 17)
    assert calendar.closed_weekdays(date(1950, 1, 3)) == (6,)
    assert calendar.closed_weekdays(date(1953, 1, 2)) == (5, 6)
    assert max(day for day in calendar.sessions if day.weekday() == 5) < date(1952, 6, 1)


def test_crypto_trades_every_day_until_midnight() -> None:
    calendar = market_calendar(date(2020, 1, 1), "24/7")
    assert calendar.closed_days(date(2020, 1, 1), date(2026, 12, 31)) == ()
    assert calendar.close(date(2024, 12, 25)) == utc(2024, 12, 26)
    assert calendar.after(date(2024, 3, 2)) == date(2024, 3, 3)
    assert (calendar.time_zone, calendar.regular_close) == ("UTC", timedelta(hours=24))
    assert calendar.weekdays == (0, 1, 2, 3, 4, 5, 6)


def test_the_calendar_of_every_day_is_that_of_the_library() -> None:
    ours, library = market_calendar(date(2023, 5, 1), "24/7"), MarketCalendar(date(2020, 1, 1), "24/7")
    assert (ours.sessions, ours.opens, ours.closes) == (library.sessions, library.opens, library.closes)
    assert ours.time_zone == library.time_zone


def test_currencies_trade_from_monday_to_friday() -> None:
    calendar = market_calendar(date(2020, 1, 1), "24/5")
    assert {day.weekday() for day in calendar.closed_days(date(2020, 1, 1), date(2026, 12, 31))} == {5, 6}
    assert calendar.close(date(2024, 3, 1)) == utc(2024, 3, 2)
    assert calendar.after(date(2024, 3, 1)) == date(2024, 3, 4)


def test_london_has_its_own_holidays_closes_and_time() -> None:
    calendar = market_calendar(FIRST, "XLON")
    assert calendar.time_zone == "Europe/London"
    assert calendar.on_or_after(date(2023, 5, 8)) == date(2023, 5, 9)  # the coronation
    assert calendar.close(date(2023, 7, 4)) == utc(2023, 7, 4, 15, 30)
    assert calendar.close(date(2023, 12, 22)) == utc(2023, 12, 22, 12, 30)
    with pytest.raises(CalendarError, match="2023-05-08 is not a session of XLON"):
        calendar.close(date(2023, 5, 8))


@pytest.mark.slow
def test_special_sessions_are_sessions() -> None:
    assert market_calendar(FIRST, "XMOS").on_or_after(date(2024, 4, 27)) == date(2024, 4, 27)  # a Saturday
    assert market_calendar(FIRST, "XBOM").on_or_after(date(2024, 1, 20)) == date(2024, 1, 20)


@pytest.mark.slow
@pytest.mark.slice(3)
@pytest.mark.parametrize(
    "exchange", sorted({*EXAMPLES, *itertools.chain(*(fitting for _, fitting in SUFFIXES.values()))})
)
def test_every_exchange_that_is_named_has_a_calendar(exchange: str) -> None:
    assert exchange_of(exchange) == exchange
    calendar = market_calendar(date(2024, 1, 2), exchange)
    assert calendar.sessions[-1] >= date(2026, 12, 30)  # Shanghai's holidays of 2027 are not published yet
    assert timedelta() < calendar.regular_close <= timedelta(days=1)
    assert datetime.now().astimezone(ZoneInfo(calendar.time_zone))


@pytest.mark.slow
def test_a_calendar_begins_where_its_holidays_are_known() -> None:
    assert known_from("XTKS") == date(1997, 1, 1)
    assert market_calendar(date(1990, 1, 1), "XTKS").sessions[0] == date(1997, 1, 6)
    assert market_calendar(date(1885, 1, 1)).sessions[0] == date(1885, 1, 2)
    assert known_from("24/7") is None


@pytest.mark.parametrize(
    ("name", "exchange"), [("XNAS", "XNYS"), ("NASDAQ", "XNYS"), ("NYSE", "XNYS"), ("LSE", "XLON"), ("HKEX", "XHKG")]
)
def test_another_name_of_an_exchange_means_its_mic(name: str, exchange: str) -> None:
    assert exchange_of(name) == exchange


@pytest.mark.parametrize(("days", "state"), [(300, "ok"), (60, "note"), (7, "broken")])
def test_doctor_says_in_time_that_a_calendar_ends(monkeypatch: pytest.MonkeyPatch, days: int, state: str) -> None:
    from stock_lakehouse.cli import doctor

    settings = Settings(exchange="XSHG", tickers=("600519.SS",))
    end = market_calendar(settings.first_date, "XSHG").sessions[-1]
    now = datetime.combine(end, datetime.min.time(), UTC) - timedelta(days=days)
    monkeypatch.setattr("stock_lakehouse.market_calendar.utc_now", lambda: now)
    finding = doctor._calendar(settings)
    assert finding.state == state
    assert f"the calendar of XSHG ends on {end}" in finding.detail
