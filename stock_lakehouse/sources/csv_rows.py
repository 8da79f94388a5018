"""From the lines of a CSV file to batches of its columns, and the rules for what a file does not show itself.

Not here: which column is which (csv_header.py), and what the text means (csv_evidence.py).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.market_calendar import MarketCalendar, utc_now
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.csv_header import Header
from stock_lakehouse.sources.csv_text import LONGEST_LINE, split_line, unreadable
from stock_lakehouse.sources.dates import DateRules, Parsed, parse_dates

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_BATCH = 50_000
CHARACTERS_A_BATCH = 10_000_000
BREAKS = (EOFError, OSError, zlib.error)  # what reading a file that breaks off raises
_FOOTER = re.compile(r'\s*"?Downloaded from ', re.IGNORECASE)  # Barchart.com

ABOVE_HEADER = "the line is above the header of the file: put the header first"


@dataclass(frozen=True)
class CsvRules:
    """How CSV files are read where they do not show it themselves.

    - `prices`: one of PRICE_FORMS, or auto: the form that the titles say, else split_adjusted.
    - `adjusted_to`: the day of the download, for tickers of which a file has no later bar; None: the day of the newest bar.
    - `decimal`: the decimal mark, or auto: the mark that the numbers of a file show. A mark that they disprove is refused.
    - `dates`: the order of day and month, and the time zones.
    - `price_tolerance`: how far, as a fraction, a close may lie outside low…high.
    - `country`: the suffix that vendors add to tickers of the exchange, as in AAPL.US.
    - `calendar`: the sessions of the exchange; None: every Monday to Friday.
    - `now`: the current time. A bar of a later day does not count as the newest.
    """

    prices: str = "auto"
    adjusted_to: date | None = None
    decimal: Literal["auto", "point", "comma"] = "auto"
    dates: DateRules = field(default_factory=DateRules)
    price_tolerance: float = LakeOptions().price_tolerance
    country: str | None = "US"
    calendar: MarketCalendar | None = field(default=None, compare=False)
    now: Callable[[], datetime] = field(default=utc_now, compare=False)


@dataclass
class Batch:
    """Some lines of a file.

    - `numbers`: the line number of each row.
    - `fields`: the fields of each row; or, where all lines were split at once, `split`: the columns.
    - `broken`: by row, the reason and the text of a line that could not be split.
    - `footer`: a line at the end of the file that is not a row.
    """

    header: Header
    width: int
    fields: list[Sequence[str | None]] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    split: list[pa.Array] | None = None
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    is_quoted: bool = False
    footer: str | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, number: int | None, line: str) -> None:
        """Add a line. A blank one is no row."""
        if '"' in line or "\0" in line or len(line) > LONGEST_LINE or line.isspace():
            fields = split_line(line, self.header.separator)
            self.is_quoted = True
        else:
            fields = line.rstrip("\r\n").split(self.header.separator)
        if len(fields) == self.width and not isinstance(fields, str):
            self.fields.append(fields)
            self.numbers.append(number)
        elif fields:
            self.add_unsplit(number, fields, line)

    def add_unsplit(self, number: int | None, fields: Sequence[str] | str, line: str) -> None:
        """Add a line that has another number of fields than the header, or that could not be split, for the reason `fields`."""
        if not isinstance(fields, str) and len(fields) == 1 and _FOOTER.match(line):
            self.footer = printable(line.strip("\r\n")[:80])
            return
        reason = fields if isinstance(fields, str) else f"{len(fields)} fields where the header has {self.width}"
        self.break_off(number, reason, line)

    def break_off(self, number: int | None, reason: str, line: str) -> None:
        """Add a line that is not a row, with the reason."""
        line = unreadable(line)
        self.broken[len(self)] = reason, line
        self.fields.append((None,) * self.width)
        self.numbers.append(number)

    @cached_property
    def _columns(self) -> list[tuple[str | None, ...]]:
        return list(zip(*self.fields, strict=True)) or [()] * self.width

    def column(self, name: str) -> pa.Array:
        """The column `name` of DELIVERED_COLUMNS; null if the file does not have it."""
        return self._column_at(self.header.columns.get(name))

    def _column_at(self, index: int | None) -> pa.Array:
        import pyarrow as pa

        if index is None:
            return pa.nulls(len(self), pa.string())
        return pa.array(self._columns[index], pa.string()) if self.split is None else self.split[index]

    @cached_property
    def dates(self) -> pa.DictionaryArray:
        """The column of dates, dictionary-encoded: each distinct text is kept once."""
        return self.column("date").dictionary_encode("encode")

    @cached_property
    def has_iso_days(self) -> bool:
        """Whether every date is a day such as 2024-01-31 and nothing else, as in most files."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = self.dates.dictionary
        if not len(texts) or texts.null_count:
            return False
        if not pc.all(pc.match_substring_regex(texts, "^[0-9]{4}-[0-9]{2}-[0-9]{2}$")).as_py():
            return False
        try:
            texts.cast(pa.date32())
        except pa.ArrowInvalid:
            return False
        return bool(pc.min(texts).as_py() >= "0001")

    @cached_property
    def clocks(self) -> pa.Array:
        """The column of times of day."""
        return self._column_at(self.header.clock)

    @cached_property
    def symbols(self) -> pa.Array:
        """The column of symbols; the header's ticker where the header names one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if "symbol" in self.header.columns or self.header.symbol is None:
            return self.column("symbol")
        null = pa.scalar(None, pa.string())
        return pc.if_else(pc.is_null(self._column_at(0)), null, pa.scalar(self.header.symbol, pa.string()))

    def parsed(self, rules: DateRules) -> list[Parsed]:
        """What the text of each distinct date says on its own."""
        if self._parsed is None:
            self._parsed = parse_dates(self.dates.dictionary.to_pylist(), rules)
        return self._parsed

    _parsed: list[Parsed] | None = None


def batches_of(lines: Iterable[str], header: Header, width: int, number: int | None) -> Iterator[Batch]:
    """The lines below a header, in batches.

    - `width`: the number of fields of a line.
    - `number`: the line number of the first line; None if unknown.

    Errors from reading the lines pass through, after the rows before them.
    """
    lines, batch = iter(lines), Batch(header, width)
    if number is not None:
        for skipped_number, line in enumerate(header.skipped, 1):
            if _looks_like_a_row(line, header.separator, width):
                batch.break_off(skipped_number, ABOVE_HEADER, line)
    is_last, read_error = False, None
    while not is_last:
        some, is_last, read_error = _next_lines(lines)
        numbers = [None if number is None else number + place for place in range(len(some))]
        if not len(batch) and (columns := split_at_once(some, header.separator, width)):
            batch = Batch(header, width, numbers=numbers, split=columns)
        else:
            for line_number, line in zip(numbers, some, strict=True):
                batch.add(line_number, line)
        yield batch
        number = None if number is None else number + len(some)
        batch = Batch(header, width)
    if read_error is not None:
        raise read_error


def _next_lines(lines: Iterator[str]) -> tuple[list[str], bool, BaseException | None]:
    """The lines of a batch, whether there are none after them, and the error with which reading broke off."""
    some: list[str] = []
    characters = 0
    try:
        for line in lines:
            some.append(line)
            characters += len(line)
            if len(some) == ROWS_A_BATCH or characters >= CHARACTERS_A_BATCH:
                return some, False, None
    except BREAKS as error:
        return some, True, error
    return some, True, None


def split_at_once(lines: Sequence[str], separator: str, width: int) -> list[pa.Array] | None:
    """The columns of `lines`, at a tenth of the cost of line by line; None if they are not all rows without quotes."""
    import pyarrow as pa
    from pyarrow import csv

    text = "".join(lines)
    is_plain = not ('"' in text or "\0" in text or text.startswith("\ufeff"))  # pyarrow leaves out a byte order mark
    if not lines or not is_plain or any(map(str.isspace, lines)) or max(map(len, lines)) > LONGEST_LINE:
        return None
    names, data = [str(index) for index in range(width)], text.encode()
    try:
        table = csv.read_csv(
            pa.py_buffer(data),
            csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            csv.ParseOptions(delimiter=separator, quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:  # a line with another number of fields
        return None
    if table.num_rows != len(lines):
        return None
    return [column.combine_chunks() for column in table.columns]


def width_of(header: Header, lines: Iterable[str]) -> int:
    """The number of fields of the lines below a header, from the first of them: some vendors end each line with a separator."""
    titles = len(header.titles)
    widths = set()
    for line in lines:
        fields = split_line(line, header.separator)
        if fields and not isinstance(fields, str):
            ends_blank = len(fields) == titles + 1 and not fields[-1].strip()
            widths.add(len(fields) if ends_blank or len(fields) == titles - 1 else titles)
    if widths == {titles + 1} or (widths == {titles - 1} and not header.titles[-1]):
        return widths.pop()
    return titles


def _looks_like_a_row(line: str, separator: str, width: int) -> bool:
    fields = split_line(line, separator)
    return (
        isinstance(fields, list) and len(fields) == width and sum(field.strip()[:1].isdigit() for field in fields) > 1
    )
