"""What is asked for and when, decided from plain values: a year of sessions, half-days, clock changes, retries, gaps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pytest

from stock_lakehouse.automation.decisions import (
    MOST_GAPS,
    Asked,
    Decision,
    Plan,
    gaps,
    new_market_days,
    rectangles_of,
)
from stock_lakehouse.instance.run_tags import RunCoverage
from stock_lakehouse.lake.coverage import TickerCoverage, find_gaps
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import Rectangle

FIRST = date(2023, 1, 3)
CALENDAR = market_calendar(FIRST)
TICKERS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
PLAN = Plan(TICKERS, FIRST, None, timedelta(minutes=30))
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def all_to(last: str, tickers: tuple[str, ...] = TICKERS) -> dict[str, TickerCoverage]:
    return {ticker: TickerCoverage(FIRST, date.fromisoformat(last)) for ticker in tickers}


def days(
    now: str, holdings: Mapping[str, TickerCoverage], asked: Mapping[str, Asked] | None = None, **more: object
) -> Decision:
    in_flight = more.pop("in_flight", ())
    plan = more.pop("plan", PLAN)
    return new_market_days(at(now), CALENDAR, holdings, in_flight, asked or {}, plan)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "held", "asked_for", "words"),
    [
        # A regular day in winter: close 21:00 UTC, grace 30 minutes.
        ("2024-01-10 20:59", "2024-01-09", (), "the lake holds every session to 2024-01-09; next close 2024-01-10 21:00 UTC"),
        ("2024-01-10 21:10", "2024-01-09", (), "closed 2024-01-10 21:00 UTC, requested from 2024-01-10 21:30 UTC"),
        ("2024-01-10 21:30", "2024-01-09", ("2024-01-10",), "requesting 2024-01-10 for 6 tickers"),
        ("2024-01-10 21:30", "2024-01-10", (), "next close 2024-01-11 21:00 UTC"),
        # Summer: an hour earlier in UTC.
        ("2024-07-10 20:29", "2024-07-09", (), "closed 2024-07-10 20:00 UTC"),
        ("2024-07-10 20:30", "2024-07-09", ("2024-07-10",), "requesting"),
        # The half-day after Thanksgiving closes at 13:00 in New York.
        ("2024-11-29 18:29", "2024-11-27", (), "closed 2024-11-29 18:00 UTC"),
        ("2024-11-29 18:30", "2024-11-27", ("2024-11-29",), "requesting"),
        # Christmas Eve, a half-day, and the holiday after it.
        ("2024-12-24 18:30", "2024-12-23", ("2024-12-24",), "requesting"),
        ("2024-12-25 23:00", "2024-12-24", (), "next close 2024-12-26 21:00 UTC"),
        # The weekend of the change to summer time: Friday's close is 21:00 UTC, Monday's 20:00.
        ("2024-03-08 21:30", "2024-03-07", ("2024-03-08",), "requesting"),
        ("2024-03-10 12:00", "2024-03-08", (), "next close 2024-03-11 20:00 UTC"),
        ("2024-03-11 20:30", "2024-03-08", ("2024-03-11",), "requesting"),
        # And back.
        ("2024-11-01 20:30", "2024-10-31", ("2024-11-01",), "requesting"),
        ("2024-11-04 20:30", "2024-11-01", (), "next close 2024-11-04 21:00 UTC"),
        ("2024-11-04 21:30", "2024-11-01", ("2024-11-04",), "requesting"),
        # A week without the machine: everything that closed since, in one run.
        ("2024-01-16 12:00", "2024-01-08", ("2024-01-09", "2024-01-10", "2024-01-11", "2024-01-12"), "2024-01-09 to 2024-01-12"),
    ],
)  # fmt: skip
def test_a_session_is_asked_for_once_it_has_closed_for_the_grace(
    now: str, held: str, asked_for: tuple[str, ...], words: str
) -> None:
    decision = days(now, all_to(held))
    assert [str(day) for one in decision.ask for day in one.sessions] == list(asked_for)
    assert all(one.tickers == TICKERS for one in decision.ask)
    assert len(decision.ask) <= 1
    assert words in decision.reason


@pytest.mark.parametrize("year", [2021, 2024])
def test_through_a_whole_year_every_session_is_asked_for_once_and_at_the_first_look_after_its_close(year: int) -> None:
    calendar = market_calendar(date(year, 1, 4))
    plan = Plan(TICKERS, date(year, 1, 4), None, timedelta(minutes=30))
    sessions = calendar.between(date(year, 1, 4), date(year, 12, 31))
    assert {18, 20, 21} <= {calendar.close(day).hour for day in sessions}  # a half-day and both offsets from UTC
    holdings: dict[str, TickerCoverage] = {ticker: TickerCoverage(sessions[0], sessions[0]) for ticker in TICKERS}
    asked: Mapping[str, Asked] = {}
    seen: dict[date, datetime] = {}
    now = calendar.close(sessions[0]) + HOUR
    while now < datetime(year + 1, 1, 1, tzinfo=UTC):
        decision = new_market_days(now, calendar, holdings, (), asked, plan)
        asked = decision.asked
        for rectangle in decision.ask:
            assert rectangle.tickers == TICKERS
            for day in rectangle.sessions:
                assert day not in seen
                seen[day] = now
            holdings = {ticker: TickerCoverage(sessions[0], rectangle.last) for ticker in TICKERS}
        now += timedelta(minutes=20)
    assert list(seen) == list(sessions[1:])
    for day, moment in seen.items():
        late = moment - (calendar.close(day) + plan.grace)
        assert timedelta() <= late < timedelta(minutes=20)


def test_what_is_queued_or_running_is_not_asked_for_again() -> None:
    running = RunCoverage("1234abcd-5678", date(2024, 1, 10), date(2024, 1, 10), frozenset(TICKERS))
    decision = days("2024-01-10 22:00", all_to("2024-01-09"), in_flight=[running])
    assert decision.ask == ()
    assert "2024-01-10 is being fetched by run 1234abcd" in decision.reason


def test_only_what_a_run_in_flight_leaves_out_is_asked_for() -> None:
    running = RunCoverage("1234abcd", date(2024, 1, 9), date(2024, 1, 9), frozenset(TICKERS))
    [asked] = days("2024-01-10 22:00", all_to("2024-01-08"), in_flight=[running]).ask
    assert asked.sessions == (date(2024, 1, 10),)
    half = RunCoverage("1234abcd", date(2024, 1, 1), date(2024, 1, 10), frozenset(TICKERS[:4]))
    [asked] = days("2024-01-10 22:00", all_to("2024-01-09"), in_flight=[half]).ask
    assert asked.tickers == TICKERS[4:]


def test_a_session_that_did_not_come_is_asked_again_with_growing_pauses_and_then_left_to_the_gap_sensor() -> None:
    held = {**all_to("2024-01-10"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 9))}
    asked: Mapping[str, Asked] = {}
    moments = []
    for minute in range(0, 24 * 60, 5):
        now = at("2024-01-10 21:30") + timedelta(minutes=minute)
        decision = new_market_days(now, CALENDAR, held, (), asked, PLAN)
        asked = decision.asked
        if decision.ask:
            assert decision.ask == (Rectangle((date(2024, 1, 10),), ("NVDA",)),)
            moments.append(minute)
        elif minute == 5:
            assert "no bar of 2024-01-10 yet for NVDA; requested again from 2024-01-10 21:45 UTC" in decision.reason
    assert moments == [0, 15, 45, 105]
    assert "no bar of 2024-01-10 for NVDA after every attempt: left to gap_sensor" in decision.reason


def test_a_ticker_that_was_given_up_is_asked_once_a_session_with_the_others() -> None:
    halted = TickerCoverage(FIRST, date(2024, 1, 5))
    asked: Mapping[str, Asked] = {"NVDA": Asked(4, at("2024-01-09 23:00"), date(2024, 1, 9))}
    decision = days("2024-01-10 21:30", {**all_to("2024-01-09"), "NVDA": halted}, asked)
    assert decision.ask == (Rectangle((date(2024, 1, 10),), TICKERS),)
    later = days("2024-01-11 12:00", {**all_to("2024-01-10"), "NVDA": halted}, decision.asked)
    assert later.ask == ()
    assert "left to gap_sensor" in later.reason


def test_a_ticker_that_ended_long_ago_does_not_widen_the_new_day_even_without_a_memory() -> None:
    held = {**all_to("2024-01-09"), "NVDA": TickerCoverage(FIRST, date(2023, 6, 1))}
    [asked] = days("2024-01-10 21:30", held).ask
    assert asked == Rectangle((date(2024, 1, 10),), TICKERS)
    decision = days("2024-01-10 21:30", {**all_to("2024-01-10"), "NVDA": TickerCoverage(FIRST, date(2023, 6, 1))})
    assert decision.ask == ()
    assert "no bar of 2024-01-10 for NVDA after every attempt: left to gap_sensor" in decision.reason


def test_what_came_is_forgotten_so_that_the_cursor_stays_small() -> None:
    asked = {"NVDA": Asked(2, at("2024-01-10 21:45"), date(2024, 1, 10))}
    assert days("2024-01-10 22:00", all_to("2024-01-10"), asked).asked == {}


def test_a_provisional_bar_is_asked_for_again_until_it_is_final() -> None:
    day = date(2024, 1, 10)
    provisional = {ticker: TickerCoverage(FIRST, day, provisional=(day,)) for ticker in TICKERS}
    assert days("2024-01-10 20:00", provisional).ask == ()  # the session is still open
    first = days("2024-01-10 21:30", provisional)
    assert first.ask == (Rectangle((day,), TICKERS),)
    again = days("2024-01-10 21:50", provisional, first.asked)
    assert again.ask == (Rectangle((day,), TICKERS),)
    assert days("2024-01-10 21:50", all_to("2024-01-10"), first.asked).ask == ()
    # Even if every attempt of its day went wrong, the next session brings it along.
    gave_up = {ticker: Asked(4, at("2024-01-10 23:00"), day) for ticker in TICKERS}
    [asked] = days("2024-01-11 21:30", provisional, gave_up).ask
    assert asked.sessions == (day, date(2024, 1, 11))


def test_where_files_bring_new_sessions_only_provisional_bars_are_asked_for() -> None:
    day = date(2024, 1, 9)
    plan = Plan(TICKERS, FIRST, None, timedelta(minutes=30), new_sessions=False)
    held = {**all_to("2024-01-09", TICKERS[1:]), "META": TickerCoverage(FIRST, day, provisional=(day,))}
    assert days("2024-01-10 21:30", held, plan=plan).ask == (Rectangle((day,), ("META",)),)
    nothing = days("2024-01-10 21:30", all_to("2024-01-09"), plan=plan)
    assert (nothing.ask, nothing.reason) == ((), "no bar is provisional; next close 2024-01-11 21:00 UTC")


def test_an_empty_lake_is_asked_for_whole_in_one_run() -> None:
    decision = days("2024-01-10 21:30", {})
    assert decision.ask == (Rectangle(CALENDAR.between(FIRST, date(2024, 1, 10)), TICKERS),)


def test_a_new_ticker_is_asked_for_alone_and_does_not_widen_the_new_day() -> None:
    decision = days("2024-01-10 21:30", all_to("2024-01-09", tuple(t for t in TICKERS if t != "META")))
    new_day, history = decision.ask[:-1], decision.ask[-1]
    assert {one.sessions for one in new_day} == {(date(2024, 1, 10),)}
    assert sorted(ticker for one in new_day for ticker in one.tickers) == sorted(set(TICKERS) - {"META"})
    assert history == Rectangle(CALENDAR.between(FIRST, date(2024, 1, 10)), ("META",))


def test_scattered_tickers_are_one_run_with_those_between_them_or_exact_where_keys_are_sessions() -> None:
    tickers = tuple(f"T{number}" for number in range(9))
    plan = Plan(tickers, FIRST, None, timedelta(minutes=30))
    held = {t: TickerCoverage(FIRST, date(2024, 1, 9 if n % 2 else 10)) for n, t in enumerate(tickers)}
    [asked] = days("2024-01-10 21:30", held, plan=plan).ask
    assert asked.tickers == tickers[1:8]
    by_session = Plan(tickers, FIRST, None, timedelta(minutes=30), by_session=True)
    [asked] = days("2024-01-10 21:30", held, plan=by_session).ask
    assert asked.tickers == tickers[1:9:2]


def test_nothing_is_asked_beyond_the_last_day_of_the_settings() -> None:
    plan = Plan(TICKERS, FIRST, date(2023, 9, 21), timedelta(minutes=30))
    decision = days("2024-01-10 21:30", all_to("2023-09-21"), plan=plan)
    assert decision.ask == ()
    assert "last_date is 2023-09-21" in decision.reason
    before = Plan(TICKERS, date(2030, 1, 2), None, timedelta(minutes=30))
    assert "nothing is due before 2030-01-02" in days("2024-01-10 21:30", {}, plan=before).reason


# --- gaps --------------------------------------------------------------------------------------------------------------------


def look_for_gaps(
    now: str,
    holdings: Mapping[str, TickerCoverage],
    asked: Mapping[str, Asked] | None = None,
    in_flight: tuple[RunCoverage, ...] = (),
) -> Decision:
    return gaps(at(now), CALENDAR, holdings, in_flight, asked or {}, PLAN)


def test_a_gap_is_asked_for_on_growing_days_and_then_given_up() -> None:
    missing = (date(2024, 1, 3), date(2024, 1, 4), date(2024, 1, 8))
    held = {**all_to("2024-01-10"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 10), missing)}
    asked: Mapping[str, Asked] = {}
    moments: list[int] = []
    for hour in range(0, 24 * 40, 3):
        now = at("2024-01-10 22:00") + timedelta(hours=hour)
        moved = {
            ticker: TickerCoverage(one.first, CALENDAR.latest_finished(now), one.missing)
            for ticker, one in held.items()
        }
        decision = gaps(now, CALENDAR, moved, (), asked, PLAN)
        asked = decision.asked
        if decision.ask:
            assert decision.ask == (
                Rectangle((date(2024, 1, 3), date(2024, 1, 4)), ("NVDA",)),
                Rectangle((date(2024, 1, 8),), ("NVDA",)),
            )
            moments.append(hour // 24)
    assert moments == [0, 1, 3, 7, 15]
    assert decision.reason == "2 gaps; 2 given up after 5 requests: see check gap_diagnosis"


def test_a_healed_gap_is_forgotten_and_no_gap_is_said_so() -> None:
    asked = {"NVDA|2024-01-03|2024-01-03": Asked(2, at("2024-01-09 22:00"))}
    decision = look_for_gaps("2024-01-10 22:00", all_to("2024-01-10"), asked)
    assert decision == Decision((), "no session is missing between a ticker's bars", {})


def test_a_gap_that_a_run_is_fetching_waits() -> None:
    held = {**all_to("2024-01-10"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 10), (date(2024, 1, 3),))}
    running = RunCoverage("a", date(2024, 1, 2), date(2024, 1, 4), frozenset(TICKERS))
    decision = look_for_gaps("2024-01-10 22:00", held, in_flight=(running,))
    assert decision.ask == ()
    assert "1 being fetched" in decision.reason


def test_the_newest_session_is_no_gap_and_an_outage_of_all_is_none() -> None:
    late = {**all_to("2024-01-10"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 9))}
    assert look_for_gaps("2024-01-10 22:00", late).ask == ()
    assert look_for_gaps("2024-01-16 22:00", all_to("2024-01-05")).ask == ()


def test_a_ticker_that_stopped_is_a_gap_that_keeps_its_count_while_it_grows() -> None:
    due = date(2024, 1, 16)
    [gap] = find_gaps(CALENDAR, {**all_to("2024-01-16"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 8))}, TICKERS, due)
    [grown] = find_gaps(
        CALENDAR, {**all_to("2024-01-18"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 8))}, TICKERS, date(2024, 1, 18)
    )
    assert (gap.sessions[0], gap.sessions[-1], gap.ended) == (date(2024, 1, 9), date(2024, 1, 12), False)
    assert gap.key == grown.key == "NVDA|2024-01-09|"
    back = {**all_to("2024-01-18"), "NVDA": TickerCoverage(FIRST, date(2024, 1, 18), gap.sessions)}
    [ended] = find_gaps(CALENDAR, back, TICKERS, date(2024, 1, 18))
    assert ended.key != gap.key


def test_the_same_gap_of_neighbours_is_one_run_and_runs_are_bounded() -> None:
    days_missing = CALENDAR.between(date(2023, 6, 1), date(2023, 12, 29))[::3]
    held = {ticker: TickerCoverage(FIRST, date(2024, 1, 10), days_missing) for ticker in TICKERS}
    decision = look_for_gaps("2024-01-10 22:00", held)
    assert len(decision.ask) == MOST_GAPS
    assert all(one.tickers == TICKERS and len(one.sessions) == 1 for one in decision.ask)
    following = look_for_gaps("2024-01-10 22:01", held, decision.asked)
    assert following.ask
    assert not set(following.ask) & set(decision.ask)


def test_a_ticker_without_bars_has_no_gaps() -> None:
    assert find_gaps(CALENDAR, all_to("2024-01-10", TICKERS[1:]), TICKERS, date(2024, 1, 10)) == []


def test_files_with_the_same_sessions_are_one_run_and_many_different_ones_too() -> None:
    span = (date(2024, 1, 2), date(2024, 1, 4))
    [one] = rectangles_of(dict.fromkeys(TICKERS, span), CALENDAR, PLAN)
    assert (one.tickers, len(one.sessions)) == (TICKERS, 3)
    different = {ticker: (date(2024, 1, 2 + n), date(2024, 1, 10)) for n, ticker in enumerate(TICKERS)}
    [one] = rectangles_of(different, CALENDAR, PLAN)
    assert (one.first, one.last, one.tickers) == (date(2024, 1, 2), date(2024, 1, 10), TICKERS)
