"""From the lines of a CSV file to batches of its columns; and how such files are to be read, as far as they do not say it.

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
BREAKS = (EOFError, OSError, zlib.error)  # of a file that breaks off
_FOOTER = re.compile(r'\s*"?Downloaded from ', re.IGNORECASE)  # Barchart.com

ABOVE_HEADER = "the line stands above the header of the file: put the header first"


@dataclass(frozen=True)
class CsvRules:
    """How CSV files are read, as far as they do not say it themselves.

    - `prices`: one of PRICE_FORMS, or auto: as the titles say, else split_adjusted.
    - `adjusted_to`: day of the download; the newest bar that a file has of a ticker, where that is later or None is said.
    - `decimal`: auto: as the numbers of a file show. Another mark than they show is refused.
    - `dates`: order of day and month, time zones.
    - `price_tolerance`: how far, relative, a close may lie outside low…high.
    - `country`: what vendors add to a ticker of the exchange: AAPL.US.
    - `calendar`: sessions of the exchange; None: every Monday to Friday. `now`: no bar is newer.
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
    """Some lines of a file: `fields` and `numbers` by row; `broken` has the reason and text of rows that could not be split."""

    header: Header
    width: int
    fields: list[Sequence[str | None]] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    characters: int = 0
    is_quoted: bool = False
    footer: str | None = None

    @property
    def is_full(self) -> bool:
        return len(self.fields) >= ROWS_A_BATCH or self.characters >= CHARACTERS_A_BATCH

    def add_unsplit(self, number: int | None, fields: Sequence[str] | str, line: str) -> None:
        """Add a line that has another number of fields than the header, or could not be split, for the reason in `fields`."""
        if not isinstance(fields, str) and len(fields) == 1 and _FOOTER.match(line):
            self.footer = printable(line.strip("\r\n")[:80])
            return
        reason = fields if isinstance(fields, str) else f"{len(fields)} fields where the header has {self.width}"
        self.break_off(number, reason, line)

    def break_off(self, number: int | None, reason: str, line: str) -> None:
        """Add a line that is no row."""
        line = unreadable(line)
        self.broken[len(self.fields)] = reason, line
        self.fields.append((None,) * self.width)
        self.numbers.append(number)
        self.characters += len(line)

    @cached_property
    def _columns(self) -> list[tuple[str | None, ...]]:
        return list(zip(*self.fields, strict=True)) or [()] * self.width

    def column(self, name: str) -> pa.Array:
        """A delivered column, by our name; null if the file has none."""
        return self._at(self.header.columns.get(name))

    def _at(self, index: int | None) -> pa.Array:
        import pyarrow as pa

        if index is None:
            return pa.nulls(len(self.fields), pa.string())
        return pa.array(self._columns[index], pa.string())

    @cached_property
    def dates(self) -> pa.DictionaryArray:
        """The column of dates, each distinct text once."""
        return self.column("date").dictionary_encode("encode")

    @cached_property
    def clocks(self) -> pa.Array:
        """The column of times of day."""
        return self._at(self.header.clock)

    @cached_property
    def symbols(self) -> pa.Array:
        """The column of symbols; where the header names the ticker, that."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if "symbol" in self.header.columns or self.header.symbol is None:
            return self.column("symbol")
        nothing = pa.scalar(None, pa.string())
        return pc.if_else(pc.is_null(self._at(0)), nothing, pa.scalar(self.header.symbol, pa.string()))

    def parsed(self, rules: DateRules) -> list[Parsed]:
        """What each distinct date says by itself."""
        if self._parsed is None:
            self._parsed = parse_dates(self.dates.dictionary.to_pylist(), rules)
        return self._parsed

    _parsed: list[Parsed] | None = None


def batches_of(lines: Iterable[str], header: Header, width: int, number: int | None) -> Iterator[Batch]:
    """The lines below a header, of which `width` is the number of fields; `number` is the first one's, None if not known.

    What reading the lines raises passes through, after the rows before it.
    """
    separator = header.separator
    batch = Batch(header, width)
    if number is not None:
        for above, line in enumerate(header.skipped, 1):
            if _looks_like_a_row(line, separator, width):
                batch.break_off(above, ABOVE_HEADER, line)
    try:
        for line in lines:
            if '"' in line or "\0" in line or len(line) > LONGEST_LINE or line.isspace():
                fields = split_line(line, separator)
                batch.is_quoted = True
            else:
                fields = line.rstrip("\r\n").split(separator)
            if len(fields) == width and not isinstance(fields, str):
                batch.fields.append(fields)
                batch.numbers.append(number)
                batch.characters += len(line)
            elif fields:
                batch.add_unsplit(number, fields, line)
            if number is not None:
                number += 1
            if batch.is_full:
                yield batch
                batch = Batch(header, width)
    except BREAKS:
        yield batch
        raise
    yield batch


def width_of(header: Header, lines: Iterable[str]) -> int:
    """How many fields the lines below a header have, by the first of them: some vendors end each with a separator."""
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
