"""Sessions × tickers and partition keys: one becomes the other and back, or a clear error."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime

import dagster as dg
import pytest
from dagster._serdes import deserialize_value, serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_lakehouse.instance.run_tags import RunCoverage, run_coverage
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import (
    LOOK_BACK,
    RANGE_END,
    RANGE_START,
    TICKERS_TAG,
    PartitionError,
    PartitionScheme,
    Rectangle,
    named_tickers,
    narrow_ranges,
    rectangle_of,
    tags_of_tickers,
    tickers_of_run,
)
from stock_lakehouse.settings import Settings

FIRST, LAST = date(2013, 1, 2), date(2023, 9, 21)
CALENDAR = market_calendar(FIRST)
SESSIONS = CALENDAR.between(FIRST, LAST)
TICKERS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
TODAY = date(2024, 1, 2)


def scheme(**changed: object) -> PartitionScheme:
    given_settings = Settings(**{"tickers": TICKERS, "first_date": FIRST, "last_date": LAST, **changed})  # type: ignore[arg-type]
    return PartitionScheme(given_settings, market_calendar(given_settings.first_date, given_settings.exchange))


def keys_of(rectangle: Rectangle) -> list[str]:
    return [f"{session}|{ticker}" for session in rectangle.sessions for ticker in rectangle.tickers]


def in_range(definition: dg.PartitionsDefinition[str], tags: dict[str, str]) -> list[str]:
    """The keys that Dagster makes of a run's range tags."""
    return list(definition.get_partition_keys_in_range(dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])))


rectangles = st.builds(
    lambda sessions, tickers: Rectangle(tuple(sorted(sessions)), tuple(sorted(tickers))),
    st.sets(st.sampled_from(SESSIONS), min_size=1, max_size=20),
    st.sets(st.sampled_from(TICKERS), min_size=1),
)
spans = st.tuples(st.integers(0, len(SESSIONS) - 1), st.integers(1, 40)).map(
    lambda span: SESSIONS[span[0] : span[0] + span[1]]
)


@settings(max_examples=200, deadline=None)
@given(rectangles, st.randoms(use_true_random=False))
def test_keys_in_any_order_give_their_rectangle_back(rectangle: Rectangle, order: random.Random) -> None:
    keys = keys_of(rectangle)
    order.shuffle(keys)
    assert rectangle_of(keys, TICKERS) == rectangle


@settings(max_examples=100, deadline=None)
@given(rectangles, st.randoms(use_true_random=False))
def test_a_session_key_stands_for_every_ticker(rectangle: Rectangle, order: random.Random) -> None:
    keys = [session.isoformat() for session in rectangle.sessions]
    order.shuffle(keys)
    assert rectangle_of(keys, ("NVDA", "AAPL")) == Rectangle(rectangle.sessions, ("AAPL", "NVDA"))


@settings(max_examples=200, deadline=None)
@given(rectangles.filter(lambda r: len(r.sessions) > 1 and len(r.tickers) > 1), st.data())
def test_a_rectangle_with_a_key_missing_is_refused(rectangle: Rectangle, data: st.DataObject) -> None:
    keys = keys_of(rectangle)
    keys.remove(data.draw(st.sampled_from(keys)))
    with pytest.raises(PartitionError, match=rf"{len(keys)} keys are not all of \d+ sessions × \d+ tickers"):
        rectangle_of(keys, TICKERS)


def test_two_bars_on_the_diagonal_are_no_rectangle() -> None:
    with pytest.raises(PartitionError, match="2 keys are not all of 2 sessions × 2 tickers"):
        rectangle_of(["2023-09-20|AAPL", "2023-09-21|NVDA"], TICKERS)


def test_a_ticker_with_any_allowed_letter_makes_a_key() -> None:
    tickers = ("0700.HK", "A^B", "BRK-B", "GC=F")
    rectangle = Rectangle((date(2023, 9, 21),), tickers)
    assert rectangle_of(keys_of(rectangle), tickers) == rectangle


def test_a_rectangle_says_what_it_spans() -> None:
    rectangle = Rectangle((date(2021, 12, 31), date(2022, 1, 3), date(2023, 9, 21)), ("AAPL",))
    assert (rectangle.first, rectangle.last) == (date(2021, 12, 31), date(2023, 9, 21))
    assert rectangle.years == (2021, 2022, 2023)
    assert not rectangle.is_consecutive
    assert Rectangle(SESSIONS[:30], ("AAPL",)).is_consecutive


def covered(rectangle: Rectangle, month: int, *days: int) -> list[int]:
    return [day for day in days if rectangle.covers(date(2023, month, day))]


def test_a_rectangle_covers_its_sessions_and_the_closed_days_before_each_of_them() -> None:
    whole = Rectangle(CALENDAR.between(date(2023, 9, 1), date(2023, 9, 8)), ("AAPL",))
    assert covered(whole, 9, *range(1, 12)) == list(range(1, 9))  # a weekend and Labor Day, not the weekend after
    assert not whole.covers(date(2023, 8, 31))
    parts = Rectangle((date(2023, 9, 5), date(2023, 9, 7)), ("AAPL",))
    assert covered(parts, 9, *range(1, 12)) == [2, 3, 4, 5, 7]


def test_the_row_of_good_friday_belongs_to_the_key_of_monday() -> None:
    thursday, monday = Rectangle((date(2023, 4, 6),), ("AAPL",)), Rectangle((date(2023, 4, 10),), ("AAPL",))
    assert covered(thursday, 4, *range(1, 15)) == [6]
    assert covered(monday, 4, *range(1, 15)) == [7, 8, 9, 10]


@settings(max_examples=50, deadline=None)
@given(st.dates(date(2013, 1, 2), date(2023, 9, 21)), st.sampled_from(["XNYS", "XLON", "24/5", "24/7"]))
def test_each_day_belongs_to_one_key(day: date, exchange: str) -> None:
    calendar = market_calendar(day, exchange)
    near = calendar.between(day - LOOK_BACK, day + LOOK_BACK)
    [key] = [session for session in near if Rectangle((session,), ("AAPL",), exchange).covers(day)]
    assert key == min(session for session in near if session >= day)
    assert day.year in Rectangle((key,), ("AAPL",), exchange).read_years


def test_a_rectangle_reads_the_years_of_the_days_that_it_covers() -> None:
    def of(*sessions: date) -> tuple[int, ...]:
        return Rectangle(sessions, ("AAPL",)).read_years

    assert of(date(2023, 1, 3)) == (2022, 2023)
    assert of(date(2023, 1, 17)) == (2023,)
    assert of(date(2023, 5, 1), date(2023, 5, 2)) == (2023,)
    assert of(date(2019, 5, 1), date(2021, 1, 4)) == (2019, 2020, 2021)


def test_a_rectangle_follows_its_exchange() -> None:
    days = (date(2023, 9, 1), date(2023, 9, 5))
    assert Rectangle(days, ("AAPL",)).is_consecutive
    assert not Rectangle(days, ("VOD.L",), "XLON").is_consecutive  # Labor Day
    assert not Rectangle(days, ("BTC-USD",), "24/7").covers(date(2023, 9, 2))
    one = scheme(tickers=("BTC-USD",), exchange="24/7")
    assert one.request(None, date(2023, 9, 16), date(2023, 9, 17), TODAY) == Rectangle(
        (date(2023, 9, 16), date(2023, 9, 17)), ("BTC-USD",), "24/7"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exchange", "first", "last"),
    [
        ("XNYS", date(1950, 1, 3), date(1953, 2, 27)),
        ("XNYS", date(1964, 12, 21), date(1965, 1, 8)),
        ("24/7", date(2024, 2, 26), date(2024, 3, 10)),
        ("24/5", date(2023, 12, 18), date(2024, 1, 5)),
        ("XLON", date(2023, 1, 3), date(2023, 9, 21)),
        ("XTAE", date(2025, 12, 1), date(2026, 2, 1)),  # Sunday to Thursday, from January on Monday to Friday
    ],
)
def test_dagsters_keys_are_the_sessions_of_every_exchange(exchange: str, first: date, last: date) -> None:
    one = scheme(partition_by="session", exchange=exchange, first_date=first, last_date=last)
    expected = [session.isoformat() for session in market_calendar(first, exchange).between(first, last)]
    assert one.definition().get_partition_keys() == expected


def test_saturdays_of_an_open_lake_since_1950_are_keys_while_they_are_sessions() -> None:
    from datetime import datetime

    one = scheme(partition_by="session", first_date=date(1950, 1, 3), last_date=None)
    keys = one.definition().get_partition_keys(current_time=datetime(2024, 1, 9, 12))
    sessions = market_calendar(date(1950, 1, 3)).between(date(1950, 1, 3), date(2024, 1, 9))
    assert keys == [session.isoformat() for session in sessions]


def test_dagsters_keys_are_the_exchanges_sessions() -> None:
    definition = scheme(partition_by="session").definition()
    assert definition.get_partition_keys() == [session.isoformat() for session in SESSIONS]


def test_dagsters_keys_end_at_the_last_date_even_on_a_day_without_session() -> None:
    one = scheme(partition_by="session", first_date=date(2023, 9, 2), last_date=date(2023, 9, 10))
    assert one.definition().get_partition_keys() == [f"2023-09-0{day}" for day in (5, 6, 7, 8)]


def test_dagsters_keys_of_bars_are_every_session_of_every_ticker() -> None:
    one = scheme(first_date=date(2023, 1, 3))
    keys = one.definition().get_partition_keys()
    expected = keys_of(Rectangle(CALENDAR.between(date(2023, 1, 3), LAST), TICKERS))
    assert sorted(keys) == sorted(expected)
    assert rectangle_of(keys, TICKERS) == one.request(None, None, None, TODAY)


def test_without_a_last_date_dagsters_keys_go_on_to_the_session_of_the_day() -> None:
    """The key of a day must be there at the session's close, not at the day's end in UTC hours later."""
    from datetime import datetime

    one = scheme(partition_by="session", first_date=date(2023, 9, 1), last_date=None)
    keys = one.definition().get_partition_keys(current_time=datetime(2023, 9, 12, 12))
    assert keys == [session.isoformat() for session in CALENDAR.between(date(2023, 9, 1), date(2023, 9, 12))]


def test_more_than_100_000_keys_are_refused_with_the_scheme_that_has_fewer() -> None:
    forty = tuple(f"T{n}" for n in range(40))
    with pytest.raises(PartitionError) as caught:
        scheme(tickers=forty)
    assert str(caught.value).startswith(
        "40 tickers since 2013-01-02 are 107,960 partition keys for each asset, more than 100,000; "
        'set partition_by = "session" in lakehouse.toml'
    )
    assert scheme(tickers=forty[:37]).by == "date_ticker"
    assert len(scheme(tickers=forty, partition_by="session").definition().get_partition_keys()) == 2699


def test_asking_for_nothing_in_particular_is_asking_for_everything() -> None:
    assert scheme().request(None, None, None, TODAY) == Rectangle(SESSIONS, TICKERS)
    assert scheme(partition_by="session").request(None, None, None, TODAY) == Rectangle(SESSIONS, TICKERS)


def test_what_is_asked_is_sessions_from_first_to_last_of_the_tickers_in_order() -> None:
    asked = scheme().request(["NVDA", "AAPL"], date(2023, 9, 16), date(2023, 9, 19), TODAY)
    assert asked == Rectangle((date(2023, 9, 18), date(2023, 9, 19)), ("AAPL", "NVDA"))


def test_an_open_end_is_today() -> None:
    asked = scheme(last_date=None).request(None, date(2023, 12, 28), None, TODAY)
    assert asked.sessions == (date(2023, 12, 28), date(2023, 12, 29), date(2024, 1, 2))


@pytest.mark.parametrize(
    ("tickers", "first", "last", "said"),
    [
        (
            ["MSFT", "AAPL", "IBM"],
            None,
            None,
            "tickers: IBM, MSFT not in the settings; allowed: AAPL, AMZN, GOOG, META, NFLX, NVDA",
        ),
        (None, date(2023, 9, 21), date(2023, 9, 20), "to: 2023-09-20 is before from 2023-09-21"),
        (
            None,
            date(2012, 12, 31),
            None,
            "from, to: 2012-12-31 to 2023-09-21 is not within the lake's 2013-01-02 to 2023-09-21",
        ),
        (
            None,
            None,
            date(2023, 9, 22),
            "from, to: 2013-01-02 to 2023-09-22 is not within the lake's 2013-01-02 to 2023-09-21",
        ),
        (
            None,
            date(2023, 9, 16),
            date(2023, 9, 17),
            "from, to: no session of the exchange from 2023-09-16 to 2023-09-17",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_that_says_what_can(
    tickers: list[str] | None, first: date | None, last: date | None, said: str
) -> None:
    with pytest.raises(PartitionError) as caught:
        scheme().request(tickers, first, last, TODAY)
    assert str(caught.value) == said


def test_a_session_scheme_can_be_asked_for_some_tickers_and_says_them_in_a_tag_of_the_run() -> None:
    one = scheme(partition_by="session")
    some = one.request(["NVDA", "AAPL"], date(2023, 9, 20), date(2023, 9, 21), TODAY)
    tags = one.range_tags(some)
    assert tags == {RANGE_START: "2023-09-20", RANGE_END: "2023-09-21", TICKERS_TAG: "AAPL,NVDA"}
    assert rectangle_of(in_range(one.definition(), tags), tickers_of_run(tags, TICKERS)) == some
    every = one.request(list(reversed(TICKERS)), None, None, TODAY)
    assert TICKERS_TAG not in one.range_tags(every)
    assert tickers_of_run(one.range_tags(every), TICKERS) == TICKERS


@pytest.mark.parametrize("tag", ["AAPL,MSFT", " , "])
def test_a_tag_with_tickers_that_the_settings_lack_is_refused(tag: str) -> None:
    with pytest.raises(PartitionError, match="allowed: tickers of the settings"):
        tickers_of_run({TICKERS_TAG: tag}, TICKERS)


def test_the_future_cannot_be_asked() -> None:
    with pytest.raises(PartitionError, match="not within the lake's 2013-01-02 to 2024-01-02"):
        scheme(last_date=None).request(None, None, date(2024, 1, 3), TODAY)


def test_range_tags_run_from_the_first_bar_to_the_last() -> None:
    one = scheme()
    assert one.range_tags(one.request(None, None, None, TODAY)) == {
        "dagster/asset_partition_range_start": "2013-01-02|AAPL",
        "dagster/asset_partition_range_end": "2023-09-21|NVDA",
    }


def test_range_tags_of_sessions_name_no_ticker() -> None:
    one = scheme(partition_by="session")
    tags = one.range_tags(one.request(None, date(2023, 9, 1), date(2023, 9, 10), TODAY))
    assert tags == {RANGE_START: "2023-09-01", RANGE_END: "2023-09-08"}


def test_neighbouring_tickers_keep_the_settings_order_and_others_are_moved_together() -> None:
    one = scheme(tickers=("NVDA", "AAPL", "META", "GOOG"))
    day = (date(2023, 9, 21),)
    neighbours, apart = Rectangle(day, ("AAPL", "META")), Rectangle(day, ("GOOG", "NVDA"))
    assert one.ticker_order(neighbours) == ("NVDA", "AAPL", "META", "GOOG")
    assert one.range_tags(neighbours) == {
        RANGE_START: "2023-09-21|AAPL",
        RANGE_END: "2023-09-21|META",
        TICKERS_TAG: "AAPL,META",
    }
    assert one.ticker_order(apart) == ("NVDA", "GOOG", "AAPL", "META")
    assert one.range_tags(apart) == {
        RANGE_START: "2023-09-21|NVDA",
        RANGE_END: "2023-09-21|GOOG",
        TICKERS_TAG: "GOOG,NVDA",
    }


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(TICKERS).map(tuple),
    st.sets(st.sampled_from(TICKERS), min_size=1),
    st.sampled_from(["date_ticker", "session"]),
)
def test_a_run_is_read_back_as_a_run_for_exactly_its_tickers(
    order: tuple[str, ...], tickers: set[str], by: str
) -> None:
    one = scheme(tickers=order, partition_by=by)
    asked = Rectangle(CALENDAR.between(date(2023, 9, 20), date(2023, 9, 21)), tuple(sorted(tickers)))
    tags = one.range_tags(asked)
    run = dg.DagsterRun(job_name="stock_lakehouse", run_id="1", tags=tags)
    assert run_coverage(run, order) == RunCoverage("1", asked.first, asked.last, frozenset(tickers))
    # Executed again, it is read with the settings' order of tickers.
    named = named_tickers(tags)
    narrow_ranges(named)
    try:
        keys = in_range(one.definition(), tags)
    finally:
        narrow_ranges(None)
    assert rectangle_of(keys, tickers_of_run(tags, order)) == asked


def test_many_tickers_fit_into_the_tags_that_postgres_can_index() -> None:
    tickers = [f"{number:06}.KS" for number in range(2_000)]
    tags = tags_of_tickers(tickers)
    assert max(map(len, tags.values())) <= 2_000
    assert named_tickers({**tags, RANGE_START: "2023-09-20"}) == tickers
    assert tickers_of_run({TICKERS_TAG: ",".join(tickers)}, tickers) == tickers  # as older versions wrote it
    assert named_tickers({}) is None


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(TICKERS).map(tuple),
    spans,
    st.sets(st.sampled_from(TICKERS), min_size=1),
    st.sampled_from(["date_ticker", "session"]),
)
def test_the_range_that_dagster_reads_from_the_tags_is_the_rectangle(
    order: tuple[str, ...], sessions: tuple[date, ...], tickers: set[str], by: str
) -> None:
    one = scheme(tickers=order, partition_by=by, first_date=date(2013, 1, 2))
    rectangle = Rectangle(sessions, tuple(sorted(tickers if by == "date_ticker" else TICKERS)))
    definition = one.definition(one.ticker_order(rectangle))
    keys = in_range(definition, one.range_tags(rectangle))
    assert rectangle_of(keys, order) == rectangle


def test_a_bars_key_gives_no_tags_of_dimensions_which_would_narrow_a_range_to_it() -> None:
    assert scheme().definition().get_tags_for_partition_key("2023-09-21|NVDA") == {
        "dagster/partition": "2023-09-21|NVDA"
    }


def test_keys_of_sessions_are_kept_for_a_day_and_the_next_day_has_its_key() -> None:
    sessions = scheme(partition_by="session", last_date=None).definition()
    kept = [list(sessions.get_partition_keys(datetime(2023, 9, day, 12, tzinfo=UTC))) for day in (20, 21, 20)]
    assert [keys[-1] for keys in kept] == ["2023-09-20", "2023-09-21", "2023-09-20"]
    assert kept[1] == [str(session) for session in SESSIONS]
    kept[1].clear()
    assert list(sessions.get_partition_keys(datetime(2023, 9, 21, 20, tzinfo=UTC)))[-1] == "2023-09-21"
    # Dagster stores the definition with events, by its class.
    assert deserialize_value(serialize_value(sessions), dg.TimeWindowPartitionsDefinition) == sessions
