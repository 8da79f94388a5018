"""Which session the text of a date means, in the forms that vendors write.

Here: dates and timestamps as text, and what the other dates of a file show about the ambiguous ones. Not here: whether the day
is a session of the exchange.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from stock_lakehouse.schemas.forms import BLANKS

Order = Literal["auto", "day_first", "month_first"]

# [0-9], not \d, which also matches digits of other scripts.
_CLOCK = (
    r"(?:[T ] *(?P<clock>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?) ?(?P<half>[AaPp][Mm](?![A-Za-z]))? ?"
    r"(?P<zone>[A-Za-z/_]+|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +)?"
_YEAR_FIRST = re.compile(rf"(?P<y>[0-9]{{4}})(?P<mark>[-/.])(?P<m>[0-9]{{1,2}})(?P=mark)(?P<d>[0-9]{{1,2}}){_CLOCK}")
_COMPACT = re.compile(rf"(?P<y>1[6-9][0-9]{{2}}|2[01][0-9]{{2}})(?P<m>[0-9]{{2}})(?P<d>[0-9]{{2}}){_CLOCK}")
_YEAR_LAST = re.compile(rf"(?P<a>[0-9]{{1,2}})(?P<mark>[-/.])(?P<b>[0-9]{{1,2}})(?P=mark)(?P<y>[0-9]{{4}}),?{_CLOCK}")
_NAMED = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{_WEEKDAY}(?P<d>[0-9]{{1,2}})[- /.]*(?P<month>[a-z]{{3,9}})[- /.,]*(?P<y>[0-9]{{4}}),?{_CLOCK}",
        rf"{_WEEKDAY}(?P<month>[a-z]{{3,9}})[- /.]*(?P<d>[0-9]{{1,2}})(?:st|nd|rd|th)?[- /,]+(?P<y>[0-9]{{4}}),?{_CLOCK}",
        rf"(?P<y>[0-9]{{4}})[- /.](?P<month>[a-z]{{3,9}})[- /.](?P<d>[0-9]{{1,2}}){_CLOCK}",
    )
)
_STAMP = re.compile(r"([12][0-9]{7})([0-9]{2})([0-9]{2})([0-9]{2})")
_ISO_HEAD = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]")
_EPOCH = re.compile(r"(?P<count>-?[0-9]{9,19})(?:[.]0*)?")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = {name: number for number, full in enumerate(_MONTHS, 1) for name in (full, full[:3])} | {"sept": 9}
# Units since 1970 by their number of digits in the years 1973 to 2286: seconds, milliseconds, … and how many make a second.
_UNITS = {9: 1, 10: 1, 12: 1_000, 13: 1_000, 15: 1_000_000, 16: 1_000_000, 18: 1_000_000_000, 19: 1_000_000_000}
_UTC = {"z", "utc", "gmt"}
# A time of day with one of these names is New York's, so the date beside it is the exchange's day.
_OF_NEW_YORK = {"et", "est", "edt", "us/eastern", "america/new_york"}
# New York opens at 9:30. At this time it is midnight only in central Australia.
_OPEN = time(9, 30)
_LATEST = time(17)  # in the exchange's time: a later moment needs proof that it belongs to the day that has just traded

AMBIGUOUS = (
    "the file's dates may be day first or month first (01/02/2024): set csv_dates to day_first or month_first, or write "
    "them as 2024-01-31"
)
CONTRADICTING = (
    "some dates of the file have the day first and some the month (13/01/2024, 01/13/2024): set csv_dates to day_first or "
    "month_first, or write them as 2024-01-31"
)
OTHER_ORDER = "no such date exists in the order that csv_dates sets: correct csv_dates, or write the date as 2024-01-31"
PROVEN_ORDER = "csv_dates is {setting}, but dates of the file have the {shown} first ({example}): set csv_dates to auto"
OTHER_ZONE = (
    "the file's times of day may be midnights of another time zone, written as UTC (2024-01-01 23:00:00), whose day is the next "
    "one: set csv_time_zone to that zone, such as Europe/Berlin, or to UTC if the day is right as it is written"
)
UNREAD_CLOCK = "the date's time of day, or its time zone, cannot be read: write the date as 2024-01-31"


class Reading(NamedTuple):
    """What the text of a date means.

    - `session`: the day; None if it cannot be read.
    - `problem`: why it cannot be read, where a setting or another date of the file would help.
    - `clock`: the time of day; None for a date alone.
    - `day`: the assumed day of the text, even if `session` is None; two moments of one day have the same.
    """

    session: date | None
    problem: str | None = None
    clock: str | None = None
    day: date | None = None


@dataclass(frozen=True)
class DateRules:
    """How the dates of a file are read.

    - `order`: the order of 01/02/2024; auto: as the file's other dates show.
    - `exchange_zone`: time zone of the exchange.
    - `zone`: the time zone whose day a moment with a UTC offset means; None: see `DateEvidence`.
    - `weekdays`: the weekdays with sessions; Monday is 0.
    """

    order: Order = "auto"
    exchange_zone: str = "America/New_York"
    zone: str | None = None
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4)


@dataclass
class _Weekdays:
    """The weekdays of some moments.

    - `seen`: there is at least one moment.
    - `late`: a moment is after 17:00, when it is midnight in Europe.
    - `off`: a moment is on a weekday without sessions.
    - `friday`: a moment is on the last weekday with sessions before one without.
    """

    seen: bool = False
    late: bool = False
    off: bool = False
    friday: bool = False

    def see(self, moment: datetime, weekdays: Sequence[int]) -> None:
        weekday = moment.weekday()
        self.seen = True
        self.late |= moment.time() > _LATEST
        self.off |= weekday not in weekdays
        self.friday |= weekday in weekdays and (weekday + 1) % 7 not in weekdays

    @property
    def state(self) -> tuple[bool, ...]:
        return self.seen, self.late, self.off, self.friday

    @property
    def are_sessions(self) -> bool:
        """Whether they are proven to be on trading days: bars that are a day early have Sundays in place of Fridays."""
        return self.friday and not self.off

    @property
    def are_early(self) -> bool:
        """Whether they are proven to be a day early."""
        return self.off and not self.friday


@dataclass
class DateEvidence:
    """What the dates of a file show about the ambiguous ones.

    - Order: a date such as 13/01/2024 or 01/13/2024 decides the order of all dates. If the setting has the other order, all of
      them are refused.
    - A moment with a UTC offset that is not written as midnight means the exchange's day, if the moments of the file are proven
      to be on trading days and none is after 17:00 there. Midnight in the exchange's time needs no proof. For 9:30, when New York
      opens, it is enough that nothing disproves it.
    - A time of day without an offset means the written day, if the times of the file are not proven to be a day early. After
      17:00 they must be proven to be on trading days.

    Fields and properties:
    - `numeric`: some dates depend on the order.
    - `day_first`, `month_first`: a date shows that order.
    - `example`: the first date that shows an order.
    - `epochs`: some dates are counts since 1970.
    - `midnights`, `others`: some dates are midnights with a UTC offset; some are not.
    - `opens`, `moments`, `walls`: the weekdays of moments at 9:30, of other moments, and of times of day without an offset.
    - `names_zone`: every date is a midnight with its UTC offset, as yfinance writes them.
    """

    rules: DateRules
    numeric: bool = False
    day_first: bool = False
    month_first: bool = False
    example: str = ""
    epochs: bool = False
    midnights: bool = False
    others: bool = False
    opens: _Weekdays = field(default_factory=_Weekdays)
    moments: _Weekdays = field(default_factory=_Weekdays)
    walls: _Weekdays = field(default_factory=_Weekdays)

    def see(self, dates: Iterable[Parsed]) -> None:
        """Record the evidence of the distinct dates of some rows."""
        for parsed in dates:
            self.epochs |= parsed.form == "epoch"
            self.midnights |= parsed.is_zoned_midnight
            self.others |= parsed != _UNREAD and not parsed.is_zoned_midnight
            if parsed.parts:
                first, second, year = parsed.parts
                self.numeric = True
                if not self.example and max(first, second) > 12:
                    self.example = f"{first:02}/{second:02}/{year}"
                self.day_first |= first > 12
                self.month_first |= second > 12
            if parsed.moment:
                kind = self.opens if parsed.moment.time() == _OPEN else self.moments
                kind.see(parsed.moment, self.rules.weekdays)
            if parsed.wall:
                self.walls.see(parsed.wall, self.rules.weekdays)

    def see_iso_days(self) -> None:
        """Record the evidence of dates such as 2024-01-31 alone, which mean the same in every file."""
        self.others = True

    @property
    def state(self) -> tuple[object, ...]:
        """Everything that decides how a date is read."""
        kinds = (kind.state for kind in (self.opens, self.moments, self.walls))
        return self.day_first, self.month_first, self.epochs, self.names_zone, *kinds

    @property
    def is_clear(self) -> bool:
        """Whether every question is answered that other dates of the file could answer."""
        unordered = self.numeric and not (self.day_first or self.month_first)
        open_moments = self.moments.seen and not self._are_wrong(self.moments) and not self.moments.are_sessions
        return not (unordered or open_moments or (self.walls.late and not self.walls.are_sessions))

    @property
    def names_zone(self) -> bool:
        """Whether every date seen is a midnight with its UTC offset."""
        return self.midnights and not self.others

    @property
    def order(self) -> Order:
        """The order of the numeric dates; auto if unknown."""
        if self.rules.order != "auto" or self.day_first == self.month_first:
            return self.rules.order
        return "day_first" if self.day_first else "month_first"

    @property
    def contradiction(self) -> str | None:
        """The problem with the order of the setting, if the file's dates show only the other order."""
        if self.rules.order == "auto" or self.day_first == self.month_first:
            return None
        shown = "day" if self.day_first else "month"
        if self.rules.order == f"{shown}_first":
            return None
        return PROVEN_ORDER.format(setting=self.rules.order, shown=shown, example=self.example)

    def read(self, dates: Iterable[Parsed]) -> list[Reading]:
        """What each of `dates` means."""
        return [self._reading(parsed) for parsed in dates]

    def _are_wrong(self, kind: _Weekdays) -> bool:
        return self.moments.late or self.moments.off or self.opens.off or kind.off

    def _reading(self, parsed: Parsed) -> Reading:
        if parsed.parts:
            return self._ordered(parsed, *parsed.parts)
        assumed = parsed.moment or parsed.wall
        if assumed is None:
            is_unread = parsed.form == "unread clock"
            # In a file of epoch seconds, eight digits may be seconds too.
            is_open = is_unread or (parsed.form == "compact" and self.epochs)
            day = None if is_open else parsed.day
            return Reading(day, UNREAD_CLOCK if is_unread else None, parsed.clock, parsed.day)
        day, clock = assumed.date(), str(assumed.time())
        if self._is_proven(parsed):
            return Reading(day, None, clock, day)
        if parsed.wall and self.rules.zone:
            local = _in_zone(parsed.wall.replace(tzinfo=UTC), _zone(self.rules.zone))
            return Reading(local and local.date(), None, clock, day)
        return Reading(None, OTHER_ZONE, clock, day)

    def _is_proven(self, parsed: Parsed) -> bool:
        if parsed.wall:
            is_late = parsed.wall.time() > _LATEST
            return self.walls.are_sessions if is_late else not self.walls.are_early
        if parsed.moment and parsed.moment.time() == _OPEN:
            return not self._are_wrong(self.opens)
        fridays = self.moments.friday or self.opens.friday
        return fridays and not self._are_wrong(self.moments)

    def _ordered(self, parsed: Parsed, first: int, second: int, year: int) -> Reading:
        assumed = _day(year, second, first) or _day(year, first, second)
        if assumed is None:
            return Reading(None)
        order = self.order
        if order == "auto":
            return Reading(None, CONTRADICTING if self.day_first else AMBIGUOUS, parsed.clock, assumed)
        if contradiction := self.contradiction:
            return Reading(None, contradiction, parsed.clock, assumed)
        day = _day(year, second, first) if order == "day_first" else _day(year, first, second)
        return Reading(day, None if day else OTHER_ORDER, parsed.clock, day or assumed)


class Parsed(NamedTuple):
    """What the text of a date says on its own.

    - `day`: the day.
    - `clock`: the time of day.
    - `parts`: the numbers of a date whose order is open, as written.
    - `moment`: a moment that is not written as midnight, in the exchange's time.
    - `wall`: a day and time without an offset, not midnight.
    - `form`: "epoch" or "compact", which a file does not mix; "unread clock" if the day can be read and its time of day cannot.
    - `is_zoned_midnight`: whether it is a midnight with its UTC offset.
    """

    day: date | None = None
    clock: str | None = None
    parts: tuple[int, int, int] | None = None
    moment: datetime | None = None
    wall: datetime | None = None
    form: str = ""
    is_zoned_midnight: bool = False


_UNREAD = Parsed()


class _Zones(NamedTuple):
    """The exchange's time zone, and the setting's time zone for moments."""

    exchange: ZoneInfo
    setting: ZoneInfo | None


def parse_dates(texts: Iterable[str | None], rules: DateRules) -> list[Parsed]:
    """What each of `texts` says on its own. Raises zoneinfo.ZoneInfoNotFoundError for an unknown time zone."""
    zones = _Zones(_zone(rules.exchange_zone), _zone(rules.zone) if rules.zone else None)
    return [_parse(text, zones) for text in texts]


@lru_cache(maxsize=100_000)  # the files of a folder have the same dates
def _parse(text: str | None, zones: _Zones) -> Parsed:
    text = (text or "").strip(BLANKS)
    if len(text) == 10 and text[4] == text[7] == "-" and text.isascii():  # by far the most frequent form
        try:
            return Parsed(date.fromisoformat(text))
        except ValueError:
            return _UNREAD
    matches = ((form.fullmatch(text), read) for form, read in _FORMS)
    parsed = next((read(match, zones) for match, read in matches if match), _UNREAD)
    if parsed == _UNREAD and _ISO_HEAD.match(text):  # reading the day alone would hide the unread rest of the text
        return Parsed(_day(int(text[:4]), int(text[5:7]), int(text[8:10])), form="unread clock")
    return parsed


def _year_first(match: re.Match[str], zones: _Zones) -> Parsed:
    return _at(_day(int(match["y"]), int(match["m"]), int(match["d"])), match, zones)


def _compact(match: re.Match[str], zones: _Zones) -> Parsed:
    return _year_first(match, zones)._replace(form="compact")


def _stamp(match: re.Match[str], zones: _Zones) -> Parsed:
    day, hours, minutes, seconds = match.groups()
    return _parse(f"{day} {hours}:{minutes}:{seconds}", zones)


def _named(match: re.Match[str], zones: _Zones) -> Parsed:
    month = _MONTH.get(match["month"].lower())
    return _at(_day(int(match["y"]), month, int(match["d"])), match, zones) if month else _UNREAD


def _year_last(match: re.Match[str], zones: _Zones) -> Parsed:
    first, second, year = int(match["a"]), int(match["b"]), int(match["y"])
    if match["mark"] == ".":  # day first, wherever dates have dots
        return _at(_day(year, second, first), match, zones)
    # The time of day does not depend on the order. An offset is rare here, and the written day is then used.
    at = _at(_day(year, second, first) or _day(year, first, second), match, zones)
    clock = str(at.wall.time()) if at.wall else at.clock
    return _UNREAD if at.day is None and at.wall is None else Parsed(clock=clock, parts=(first, second, year))


def _epoch(match: re.Match[str], zones: _Zones) -> Parsed:
    count = int(match["count"])
    unit = _UNITS.get(len(str(abs(count))))
    if unit is None:
        return _UNREAD
    seconds, rest = divmod(count, unit)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=rest * 1_000_000 // unit)
    if moment.time() == time():
        return Parsed(moment.date(), str(time()), form="epoch")
    return _moment(moment, zones)._replace(form="epoch")


_FORMS = (
    (_YEAR_FIRST, _year_first),
    (_COMPACT, _compact),
    (_STAMP, _stamp),
    (_YEAR_LAST, _year_last),
    (_EPOCH, _epoch),
    *((form, _named) for form in _NAMED),
)


def _at(day: date | None, match: re.Match[str], zones: _Zones) -> Parsed:
    """`day` at the time of day in `match`."""
    if day is None or match["clock"] is None:
        return Parsed(day)
    clock, offset = _time(match["clock"], match["half"]), _offset(match["zone"] or "")
    if clock is None or offset is None:
        return _UNREAD
    wall = datetime.combine(day, clock)
    if offset is LOCAL:
        is_exact = clock == time() or match["zone"]
        return Parsed(day, str(clock)) if is_exact else Parsed(wall=wall)
    if clock == time():
        return Parsed(day, str(clock), is_zoned_midnight=True)
    moment = _in_zone(wall.replace(tzinfo=timezone(offset)), zones.exchange)
    if moment and offset and moment.utcoffset() == offset:  # written in the exchange's time
        return Parsed(day, str(clock))
    return _moment(moment, zones) if moment else _UNREAD


def _in_zone(moment: datetime, zone: ZoneInfo) -> datetime | None:
    try:
        return moment.astimezone(zone)
    except OverflowError:  # in the year 1 or 9999
        return None


def _moment(moment: datetime, zones: _Zones) -> Parsed:
    """A moment that is not written as midnight."""
    local = moment.astimezone(zones.setting or zones.exchange)
    if zones.setting or local.time() == time():
        return Parsed(local.date(), str(local.time()))
    return Parsed(moment=local)


def _time(text: str, half: str | None) -> time | None:
    hour, minute, *rest = text.split(":")
    second, _, fraction = (rest[0] if rest else "0").partition(".")
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if half.lower() == "pm" else 0)
    try:
        return time(hours, int(minute), int(second), int(fraction[:6].ljust(6, "0")))
    except ValueError:
        return None


# The offset of a time of day without one, or with the name of New York's time.
LOCAL = timedelta.min


def _offset(text: str) -> timedelta | None:
    """How far the written time is ahead of UTC; LOCAL if the text has no offset, None if it cannot be read."""
    name = text.lower()
    if not name or name in _OF_NEW_YORK:
        return LOCAL
    if name in _UTC:
        return timedelta()
    digits = name[1:].replace(":", "")
    if name[0] not in "+-" or int(digits[:2]) > 14 or int(digits[2:] or 0) > 59:
        return None
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -size if name[0] == "-" else size


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


@lru_cache(maxsize=16)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
