"""Dates in the forms of vendors, each with the answer written by hand; what is ambiguous, and what settles it."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_lakehouse.sources.dates import (
    AMBIGUOUS,
    CONTRADICTING,
    OTHER_ORDER,
    OTHER_ZONE,
    UNREAD_CLOCK,
    DateEvidence,
    DateRules,
    Reading,
    parse_dates,
)

DAY = date(2024, 1, 2)  # a Tuesday
NEW_YORK = ZoneInfo("America/New_York")


def read(*texts: str | None, rules: DateRules | None = None) -> list[Reading]:
    """What the dates of one file mean."""
    rules = rules or DateRules()
    parsed = parse_dates(texts, rules)
    evidence = DateEvidence(rules)
    evidence.see(parsed)
    return evidence.read(parsed)


def sessions(*texts: str | None, rules: DateRules | None = None) -> list[str | None]:
    return [None if reading.session is None else str(reading.session) for reading in read(*texts, rules=rules)]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02",
        " 2024-01-02\u00a0",
        "2024-1-2",
        "2024/01/02",
        "2024.01.02",
        "20240102",
        "2.1.2024",
        "02.01.2024",
        "02-Jan-2024",
        "02-JAN-2024",
        "02JAN2024",
        "2 January 2024",
        "02-January-2024",
        "Jan 2, 2024",
        "Jan. 2, 2024",
        "January 2 2024",
        "Tue, Jan 2, 2024",
        "Tuesday, January 2nd, 2024",
        "2024-Jan-02",
        "2024-01-02 00:00:00",
        "2024-01-02T00:00:00",
        "2024-01-02 16:00",
        "2024-01-02 4:00 PM",
        "2024-01-02 12:00:00 AM",
        "20240102 16:00",
        "20240102160000",
        "2024-01-02 16:00:00 EST",
        "2024-01-02 16:00:00 America/New_York",
        "2024.01.02 00:00",
        "2024-01-02 00:00:00.000000000",
        "2024-01-02T00:00:00Z",
        "2024-01-02T00:00:00.000Z",
        "2024-01-02 00:00:00+00:00",
        "2024-01-02 00:00:00-05:00",
        "2024-01-02 00:00:00-05",
        "2024-01-02T00:00:00+0530",
        "2024-01-02 00:00:00 UTC",
        "Tue, 02 Jan 2024 00:00:00 GMT",
        "2024-01-02 09:30:00-05:00",
        "2024-01-02 20:00:00-05:00",  # the exchange's own clock
        "2024-01-02T05:00:00Z",  # midnight in New York
        "2024-01-02T14:30:00Z",  # when New York opens
        "1704153600",  # midnight UTC
        "1704171600",  # midnight in New York
        "1704205800",  # when New York opens
        "1704205800.0",
        "1704205800000",
        "1704171600000000",
        "1704171600000000000",
    ],
)
def test_what_has_one_meaning_is_read(text: str) -> None:
    assert sessions(text) == ["2024-01-02"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "n/a",
        "45293",
        "02-Jan-24",
        "1/2/24",
        "240102",
        "2024-13-01",
        "2024-02-30",
        "31.02.2024",
        "01.13.2024",
        "20241301",
        "0000-00-00",
        "10000-01-01",
        "-2024-01-02",
        "2024-W01-2",
        "2024-002",
        "2024-01/02",
        "2024-01-02x",
        "2024-01-02 garbage",
        "2024-01-02 25:00",
        "2024-01-02 13:00 PM",
        "2024-01-02 16:00:00 CST",
        "2024-01-02 16:00:00+99:00",
        "0001-01-01T01:00:00+02:00",
        "9999-12-31T23:00:00-12:00",
        "02-Foo-2024",
        "\uff12\uff10\uff12\uff14-01-02",
        "17042058",
        "170420580",  # 1975 in seconds: Tuesday 11:03 UTC, not when anything opens
        "99999999999",
    ],
)
def test_what_is_no_date_is_none(text: str | None) -> None:
    assert sessions(text) == [None]


@pytest.mark.parametrize("mark", ["/", "-"])
def test_a_day_above_12_fixes_the_order_of_every_date_of_the_file(mark: str) -> None:
    def written(*texts: str) -> list[str]:
        return [text.replace("/", mark) for text in texts]

    assert sessions(*written("01/02/2024", "01/16/2024")) == ["2024-01-02", "2024-01-16"]
    assert sessions(*written("01/02/2024", "16/01/2024")) == ["2024-02-01", "2024-01-16"]
    assert sessions(*written("1/2/2024", "1/16/2024 16:00")) == ["2024-01-02", "2024-01-16"]


def test_without_such_a_day_the_setting_is_asked_for_by_name_and_decides() -> None:
    assert read("01/02/2024", "03/04/2024") == [
        Reading(None, AMBIGUOUS, None, date(2024, 2, 1)),
        Reading(None, AMBIGUOUS, None, date(2024, 4, 3)),
    ]
    assert "csv_dates" in AMBIGUOUS
    assert sessions("01/02/2024", rules=DateRules("day_first")) == ["2024-02-01"]
    assert sessions("01/02/2024", rules=DateRules("month_first")) == ["2024-01-02"]


def test_dates_that_contradict_each_other_are_none_without_the_setting() -> None:
    mixed = ("01/02/2024", "13/02/2024", "02/14/2024")
    assert {reading.problem for reading in read(*mixed)} == {CONTRADICTING}
    assert [(str(one.session), one.problem) for one in read(*mixed, rules=DateRules("day_first"))] == [
        ("2024-02-01", None),
        ("2024-02-13", None),
        ("None", OTHER_ORDER),
    ]


@pytest.mark.parametrize(
    ("rules", "proof", "words"),
    [
        (DateRules("month_first"), "13/01/2024", "csv_dates is month_first, but dates of the file have the day first"),
        (DateRules("day_first"), "01/13/2024", "csv_dates is day_first, but dates of the file have the month first"),
    ],
)
def test_a_setting_that_a_date_disproves_refuses_every_numeric_date(rules: DateRules, proof: str, words: str) -> None:
    readings = read("02/01/2024", "2024-01-03", proof, rules=rules)
    wrong = f"{words} ({proof}): set csv_dates to auto"
    assert [(one.session, one.problem) for one in readings] == [(None, wrong), (date(2024, 1, 3), None), (None, wrong)]


def test_dates_of_other_forms_are_read_beside_ambiguous_ones() -> None:
    assert sessions("01/02/2024", "2024-01-02", "2 Jan 2024") == [None, "2024-01-02", "2024-01-02"]


def test_eight_digits_in_a_file_of_seconds_are_no_date() -> None:
    assert sessions("1704205800", "20240102") == ["2024-01-02", None]


def midnights(zone: str, first: date, days: int) -> list[str]:
    """Midnights of a zone, on weekdays, as UTC."""
    found = (first + timedelta(days=number) for number in range(days))
    return [
        f"{datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        for day in found
        if day.weekday() < 5
    ]


ZONES = (
    *(
        "Europe/London",
        "Europe/Berlin",
        "Europe/Athens",
        "Europe/Moscow",
        "Asia/Dubai",
        "Asia/Kolkata",
        "Asia/Shanghai",
    ),
    *("Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland", "America/Halifax", "America/Sao_Paulo", "America/Caracas"),
    *("America/Chicago", "America/Los_Angeles", "Pacific/Honolulu"),
)


@given(
    st.sampled_from(ZONES),
    st.dates(date(2000, 1, 1), date(2024, 12, 31)),
    st.integers(1, 400),
    st.sampled_from(["text", "seconds", "milliseconds"]),
)
def test_midnights_of_any_zone_that_are_written_as_utc_are_never_a_day_early(
    zone: str, first: date, days: int, form: str
) -> None:
    texts = midnights(zone, first, days)
    true = [day for day in (first + timedelta(days=number) for number in range(days)) if day.weekday() < 5]
    if form != "text":
        factor = 1000 if form == "milliseconds" else 1
        texts = [str(int(datetime.fromisoformat(text).timestamp()) * factor) for text in texts]
    for reading, day in zip(read(*texts), true, strict=True):
        assert reading.session == day or (reading.session is None and reading.problem in (OTHER_ZONE, None))
    assert sessions(*texts, rules=DateRules(zone=zone)) == [str(day) for day in true]


@given(st.sampled_from(ZONES), st.dates(date(2000, 1, 1), date(2024, 12, 31)), st.integers(7, 400))
def test_nor_are_those_without_an_offset_if_the_file_has_a_week(zone: str, first: date, days: int) -> None:
    true = [day for day in (first + timedelta(days=number) for number in range(days)) if day.weekday() < 5]
    texts = [text.replace("T", " ").removesuffix("Z") for text in midnights(zone, first, days)]
    for reading, day in zip(read(*texts), true, strict=True):
        assert (reading.session, reading.problem) in ((day, None), (None, OTHER_ZONE))


@pytest.mark.parametrize("zone", ["Europe/London", "Europe/Berlin", "Europe/Athens", "Europe/Moscow", "Asia/Kolkata"])
def test_the_setting_decides_for_times_of_day_without_an_offset_too(zone: str) -> None:
    texts = [text.replace("T", " ").removesuffix("Z") for text in midnights(zone, date(2024, 1, 1), 366)]
    true = [
        str(day) for day in (date(2024, 1, 1) + timedelta(days=number) for number in range(366)) if day.weekday() < 5
    ]
    assert OTHER_ZONE in {reading.problem for reading in read(*texts)}
    assert sessions(*texts, rules=DateRules(zone=zone)) == true
    assert sessions("2024-01-02", "2024-01-02 16:00", rules=DateRules(zone=zone)) == ["2024-01-02"] * 2


def test_an_evening_without_an_offset_is_of_its_day_if_the_file_shows_it_or_the_setting_says_so() -> None:
    evenings = [f"2024-01-0{day} 23:59:59" for day in (2, 3, 4, 5, 8)]
    assert sessions(*evenings) == ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08"]
    assert sessions(evenings[0]) == [None]
    assert sessions(evenings[0], rules=DateRules(zone="UTC")) == ["2024-01-02"]


def test_a_day_whose_time_of_day_cannot_be_read_is_refused_with_that_reason() -> None:
    assert {reading.problem for reading in read("2024-01-02 16:00:00 CST", "2024-01-02Tnoon")} == {UNREAD_CLOCK}


def test_the_setting_for_the_time_zone_is_asked_for_by_name() -> None:
    assert "csv_time_zone" in OTHER_ZONE
    assert {reading.problem for reading in read(*midnights("Europe/Berlin", DAY, 10))} == {OTHER_ZONE}


@given(
    st.sampled_from([time(), time(9, 30), time(13), time(16), time(16, 15)]),
    st.dates(date(2000, 1, 1), date(2024, 12, 20)),
    st.integers(7, 400),
)
def test_moments_of_the_exchanges_day_are_of_that_day_if_the_file_has_a_week(at: time, first: date, days: int) -> None:
    true = [day for day in (first + timedelta(days=number) for number in range(days)) if day.weekday() < 5]
    texts = [f"{datetime.combine(day, at, NEW_YORK).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for day in true]
    assert sessions(*texts) == [str(day) for day in true]


def test_two_moments_of_one_day_are_told_apart_though_their_session_is_not_known() -> None:
    first, second = read("2024-01-01T22:00:00Z", "2024-01-01T23:00:00Z")
    assert (first.day, first.session) == (second.day, second.session) == (date(2024, 1, 1), None)
    assert first.clock != second.clock


def test_evidence_says_whether_more_of_the_file_could_say_more() -> None:
    for texts, clear in (
        (["2024-01-02"], True),
        (["01/02/2024"], False),
        (["01/02/2024", "01/16/2024"], True),
        (["2024-01-02T21:00:00Z"], False),
        (["2024-01-05T21:00:00Z"], True),
        (["2024-01-01T23:00:00Z"], True),
    ):
        evidence = DateEvidence(DateRules())
        evidence.see(parse_dates(texts, DateRules()))
        assert evidence.is_clear == clear, texts
