"""From the lines of a CSV file to delivered rows, each with what only the whole file can say about it.

Here: what the lines of a file say together (order of dates, decimal mark, newest bar, bars of parts of a session), and the rows. Not
here: which column is which (csv_header.py), what one date means (dates.py), and whether a bar is possible (processed).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from stock_lakehouse.market_calendar import MarketCalendar, utc_now
from stock_lakehouse.schemas.forms import CURRENCY, SPACES, numbers
from stock_lakehouse.sources import (
    AS_TRADED,
    AS_TRADED_ADJUSTED_CLOSE,
    DELIVERED_COLUMNS,
    SPLIT_ADJUSTED,
    TOTAL_RETURN,
    printable,
)
from stock_lakehouse.sources.csv_header import Header, is_auto_adjusted
from stock_lakehouse.sources.csv_text import LONGEST_LINE, split_line, unreadable
from stock_lakehouse.sources.dates import DateEvidence, DateRules, Parsed, Reading, parse_dates
from stock_lakehouse.sources.tickers import Tickers

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_BATCH = 50_000
CHARACTERS_A_BATCH = 10_000_000
BREAKS = (EOFError, OSError, zlib.error)  # of a file that breaks off
MOST_KEYS = 10_000  # sessions with several bars that are remembered one by one
_FOOTER = re.compile(r'\s*"?Downloaded from ', re.IGNORECASE)  # Barchart.com

NO_TICKER = (
    "which ticker the row is of is not known: name the file after its ticker, such as AAPL.csv, or add a column Symbol"
)
OTHER_TICKER = (
    "the symbol of the row is not the ticker that the file is named after: put the row into the file of its ticker, or give "
    "the file a name that is no ticker"
)
INTRADAY = "several bars of one session (intraday): only daily bars are read; write one row a session"
ABOVE_HEADER = "the line stands above the header of the file: put the header first"
UNCLEAR_DECIMALS = (
    "the file's numbers may have a decimal point or a decimal comma (1.234): set csv_decimal to point or comma"
)
MIXED_DECIMALS = (
    "some numbers of the file have a decimal point, some a decimal comma, and some may have either (1.234): set csv_decimal "
    "to point or comma"
)


@dataclass(frozen=True)
class CsvRules:
    """How CSV files are read, as far as they do not say it themselves.

    - `prices`: one of PRICE_FORMS, or auto: as the titles say, else split_adjusted.
    - `adjusted_to`: day of the download; None: the newest bar that a file has of a ticker.
    - `decimal`: auto: as the numbers of a file show.
    - `dates`: order of day and month, time zones.
    - `calendar`: sessions of the exchange; None: every Monday to Friday. `now`: no bar is newer.
    - `price_tolerance`: how far, relative, a close may lie outside low…high.
    """

    prices: str = "auto"
    adjusted_to: date | None = None
    decimal: Literal["auto", "point", "comma"] = "auto"
    dates: DateRules = DateRules()
    price_tolerance: float = 1e-4
    calendar: Callable[[], MarketCalendar] | None = field(default=None, compare=False)
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
                if not isinstance(fields, str) and len(fields) == 1 and _FOOTER.match(line):
                    batch.footer = printable(line.strip("\r\n")[:80])
                else:
                    reason = (
                        fields if isinstance(fields, str) else f"{len(fields)} fields where the header has {width}"
                    )
                    batch.break_off(number, reason, line)
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
    return isinstance(fields, list) and len(fields) == width and sum(field.strip()[:1].isdigit() for field in fields) > 1


class FileEvidence:
    """What the lines of a file say together: `see` each batch, then `rows` of each. `ticker` is the one of the file's name.

    Where a later batch changes how an earlier one is read, `is_settled` is False: then `forget_bars`, and see all once more.
    """

    def __init__(self, name: str, header: Header, rules: CsvRules, tickers: Tickers, ticker: str | None) -> None:
        self._name, self._header, self._rules, self._tickers, self._ticker = name, header, rules, tickers, ticker
        self._asked = tickers.all
        self.dates = DateEvidence(rules.dates)
        self._marks = _Marks()
        self._footer: str | None = None
        self._read_as: set[Any] = set()
        self._last: tuple[Batch, Any, tuple[pa.Array, pa.Array, pa.Array, pa.Array]] | None = None
        self.forget_bars()

    def forget_bars(self) -> None:
        """Begin anew with what depends on the dates and numbers of all lines."""
        self._newest: dict[str, str] = {}
        self._parts = _Parts()
        self._read_as.clear()

    @property
    def is_settled(self) -> bool:
        """Whether every batch was read as the whole file is."""
        return self._read_as <= {self._state}

    @property
    def is_clear(self) -> bool:
        """Whether the lines seen so far say enough: others of the file would not change how they are read."""
        return self.dates.is_clear and self.decimal[1] is None

    @property
    def _state(self) -> Any:
        dates = self.dates
        return dates.order, dates.day_first, dates.misplaced, dates.friday, dates.epochs, self.decimal

    def see(self, batch: Batch) -> None:
        """Take in a batch."""
        self.dates.see(batch.parsed(self._rules.dates))
        if self._rules.decimal == "auto" and (batch.is_quoted or self._header.separator != ","):
            self._marks.see(batch)
        self._footer = self._footer or batch.footer
        self._read_as.add(self._state)
        tickers, problems = self._tickers_of(batch)
        sessions, _, clocks, days = self._read_dates(batch)
        if clocks.null_count < len(clocks):
            self._parts.see(tickers, days, clocks, self._asked)
        self._see_newest(batch, tickers, sessions, [problems, self._parts.problems(tickers, days, clocks)])

    @property
    def decimal(self) -> tuple[str | None, str | None]:
        """The decimal mark where it is a comma, and why it cannot be told."""
        if self._rules.decimal != "auto":
            return ("," if self._rules.decimal == "comma" else None), None
        return self._marks.verdict(self._header.separator)

    @property
    def form(self) -> str:
        """What the prices are adjusted for, one of PRICE_FORMS."""
        form = self._rules.prices
        if form == "auto":
            form = self._header.form or SPLIT_ADJUSTED
            if is_auto_adjusted(self._header) and self.dates.names_zone:
                form = TOTAL_RETURN
        if form in (AS_TRADED, AS_TRADED_ADJUSTED_CLOSE):
            return AS_TRADED_ADJUSTED_CLOSE if "adj_close" in self._header.columns else AS_TRADED
        return form

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the file, in words."""
        notes = list(self._header.notes)
        if self._rules.prices == "auto" and self.form != SPLIT_ADJUSTED:
            vendor = self._header.vendor or "yfinance's Ticker.history() with auto_adjust"
            notes.append(f"the columns are those of {vendor}, so prices are read as {self.form}; csv_prices can say otherwise")
        if self._rules.dates.order == "auto" and self.dates.numeric and self.dates.order != "auto":
            notes.append(f"dates are read {self.dates.order.replace('_', ' ')}, as those show whose day is above 12")
        if self.decimal[0] and self._rules.decimal == "auto":
            notes.append("numbers are read with a decimal comma")
        if self._footer:
            notes.append(f"the line {self._footer!r} is no row")
        return tuple(notes)

    def rows(self, batch: Batch) -> pa.Table:
        """The delivered rows of a batch."""
        import pyarrow as pa
        import pyarrow.compute as pc

        length = len(batch.fields)
        nothing = pa.nulls(length, pa.string())
        tickers, of_ticker = self._tickers_of(batch)
        sessions, of_date, clocks, days = self._read_dates(batch)
        decimal, of_decimal = self.decimal
        form, newest = self.form, self._known_until(tickers)
        of_line = nothing
        lines = nothing
        if batch.broken:
            of_line = pa.array([batch.broken[row][0] if row in batch.broken else None for row in range(length)], pa.string())
            lines = pa.array([batch.broken[row][1] if row in batch.broken else None for row in range(length)], pa.string())
        problems = [of_line, of_ticker, self._parts.problems(tickers, days, clocks), of_date]
        if of_decimal:
            problems.append(_constant(of_decimal, length))
        as_traded = form in (AS_TRADED, AS_TRADED_ADJUSTED_CLOSE)
        columns = {
            "ticker": tickers,
            "symbol": batch.symbols,
            "problem": pc.coalesce(*problems),
            "line": lines,
            "adjusted_to": sessions if as_traded else newest,
            "file": _constant(self._name, length),
            "line_number": pa.array(batch.numbers, pa.int64()).cast(pa.string()),
            "session": sessions,
            "decimal": _constant(decimal, length),
            "basis": _constant(form, length),
            "adj_close_as_of": newest if form == AS_TRADED_ADJUSTED_CLOSE else nothing,
            "says": _constant(self._header.says, length),
        }
        return pa.table([columns[name] if name in columns else batch.column(name) for name in DELIVERED_COLUMNS], names=list(DELIVERED_COLUMNS))

    def _tickers_of(self, batch: Batch) -> tuple[pa.Array, pa.Array]:
        """The ticker of each row, and what is wrong with it."""
        import pyarrow as pa

        length = len(batch.fields)
        nothing = pa.nulls(length, pa.string())
        has_symbols = "symbol" in self._header.columns or self._header.symbol is not None
        if not has_symbols:
            problem = _constant(None if self._ticker else NO_TICKER, length)
            return _constant(self._ticker, length), problem
        symbols = batch.symbols.dictionary_encode("encode")
        read = [self._tickers.of_symbol(symbol) for symbol in symbols.dictionary.to_pylist()]
        if self._ticker is None:
            return pa.array(read, pa.string()).take(symbols.indices), nothing
        wrong = [
            None if ticker == self._ticker or not (symbol or "").strip() else OTHER_TICKER
            for ticker, symbol in zip(read, symbols.dictionary.to_pylist(), strict=True)
        ]
        return _constant(self._ticker, length), pa.array(wrong, pa.string()).take(symbols.indices)

    def _read_dates(self, batch: Batch) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """By row: the session, what is wrong with the date, the time of day, and the day that the row is of at least supposedly."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._last is not None and self._last[0] is batch and self._last[1] == self._state:
            return self._last[2]
        readings = self.dates.read(batch.parsed(self._rules.dates))

        def by_row(texts: Iterable[str | None]) -> pa.Array:
            return pa.array(list(texts), pa.string()).take(batch.dates.indices)

        sessions = by_row(_text(reading.session) for reading in readings)
        problems = by_row(reading.problem for reading in readings)
        clocks = pa.nulls(len(batch.fields), pa.string())
        days = sessions
        if any(reading.clock for reading in readings):
            clocks = by_row(reading.clock for reading in readings)
        if any(reading.problem for reading in readings):
            days = by_row(_text(reading.day) for reading in readings)
        if self._header.clock is not None:
            own = pc.if_else(pc.is_null(clocks), batch.clocks, clocks)
            clocks = pc.coalesce(pc.binary_join_element_wise(batch.clocks, clocks, " "), own)
        self._last = batch, self._state, (sessions, problems, clocks, days)
        return self._last[2]

    def _known_until(self, tickers: pa.Array) -> pa.Array:
        """The newest day that the file, or the setting, knows of each row's ticker."""
        import pyarrow as pa

        if self._rules.adjusted_to is not None:
            return _constant(self._rules.adjusted_to.isoformat(), len(tickers))
        if self._ticker is not None:
            return _constant(self._newest.get(self._ticker), len(tickers))
        encoded = tickers.dictionary_encode("encode")
        newest = [self._newest.get(ticker) for ticker in encoded.dictionary.to_pylist()]
        return pa.array(newest, pa.string()).take(encoded.indices)

    def _see_newest(self, batch: Batch, tickers: pa.Array, sessions: pa.Array, problems: Sequence[pa.Array]) -> None:
        """Remember the newest valid bar of each ticker: with a close that can be, on a session that is not to come."""
        import pyarrow as pa
        import pyarrow.compute as pc

        decimal, unclear = self.decimal
        if unclear:
            return
        values = {name: _doubles(batch.column(name), decimal) for name in ("close", "high", "low") if name in self._header.columns}
        valid = pc.and_(pc.greater(values["close"], 0.0), pc.is_in(sessions, value_set=self._sessions))
        for name, compare in (("high", pc.less_equal), ("low", pc.greater_equal)):
            if name in values:  # 0 is how vendors write that it is not known
                tolerated = 1 + self._rules.price_tolerance if name == "high" else 1 - self._rules.price_tolerance
                bound = pc.multiply(values[name], tolerated)
                unknown = pc.or_(pc.is_null(bound), pc.fill_null(pc.equal(bound, 0.0), True))
                valid = pc.and_(valid, pc.or_(unknown, pc.fill_null(compare(values["close"], bound), True)))
        for wrong in problems:
            valid = pc.and_(valid, pc.is_null(wrong))
        found = pa.table({"ticker": tickers, "session": sessions}).filter(pc.fill_null(valid, False)).drop_null()
        newest = found.group_by("ticker").aggregate([("session", "max")])
        for ticker, session in zip(newest["ticker"].to_pylist(), newest["session_max"].to_pylist(), strict=True):
            if ticker in self._asked:
                self._newest[ticker] = max(session, self._newest.get(ticker, ""))

    @cached_property
    def _sessions(self) -> pa.Array:
        """The days, as text, of which a bar may be."""
        import pyarrow as pa

        today = self._rules.now().astimezone(ZoneInfo(self._rules.dates.exchange_zone)).date()
        if self._rules.calendar is None:
            import numpy as np

            days = np.arange(np.datetime64("1800-01-01"), np.datetime64(today) + 1)
            return pa.array(np.datetime_as_string(days[np.is_busday(days)]).tolist(), pa.string())
        return pa.array([day.isoformat() for day in self._rules.calendar().sessions if day <= today], pa.string())


class _Marks:
    """Which decimal mark the numbers of a file have: how many can only be read with a point, with a comma, and with either."""

    _BEFORE = rf"^[+-]?[{CURRENCY}]? ?"
    _BEHIND = rf"([eE][+-]?[0-9]+)? ?[KMBTkmbt]?[{CURRENCY}]?$"

    def __init__(self) -> None:
        self.points = self.commas = self.either = 0

    def see(self, batch: Batch) -> None:
        """Count the numbers of a batch."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = ("open", "high", "low", "close", "adj_close", "volume")
        texts = pa.chunked_array([batch.column(name) for name in names if name in batch.header.columns])
        for mark, other in ((".", ","), (",", ".")):
            marked = texts.filter(pc.match_substring(texts, mark))
            if not len(marked):
                continue
            decimal = rf"(?:[0-9{SPACES}{other}]*[0-9]\{mark}[0-9]*|\{mark}[0-9]+)"
            either = self._count(marked, rf"[1-9][0-9]{{0,2}}\{mark}[0-9]{{3}}")
            proven = self._count(marked, decimal) - either
            grouped = self._count(marked, rf"[0-9]{{1,3}}(?:\{mark}[0-9]{{2,3}})+\{mark}[0-9]{{3}}(?:{other}[0-9]*)?")
            self.either += either
            self.points += proven if mark == "." else grouped
            self.commas += proven if mark == "," else grouped

    def _count(self, texts: pa.ChunkedArray, pattern: str) -> int:
        import pyarrow.compute as pc

        matches = pc.match_substring_regex(pc.utf8_trim_whitespace(texts), f"{self._BEFORE}{pattern}{self._BEHIND}")
        return int(pc.sum(matches).as_py() or 0)

    def verdict(self, separator: str) -> tuple[str | None, str | None]:
        """The mark if it is a comma, and why it cannot be told. In a file separated by commas it is a point if nothing is said."""
        if self.points and self.commas:
            if self.either:
                return None, MIXED_DECIMALS
            return ("," if self.commas > self.points else None), None
        if self.commas:
            return ",", None
        return None, UNCLEAR_DECIMALS if self.either and not self.points and separator != "," else None


class _Parts:
    """Sessions of which a file has several rows with different times of day. Rows of one session stand side by side in any file."""

    def __init__(self) -> None:
        self._sessions: Counter[str] = Counter()
        self._several: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._last: pa.Table | None = None

    def see(self, tickers: pa.Array, days: pa.Array, clocks: pa.Array, asked: frozenset[str]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = pa.table({"ticker": tickers, "day": days, "clock": clocks}).drop_null()
        rows = rows.filter(pc.is_in(rows["ticker"], value_set=pa.array(sorted(asked), pa.string())))
        if not rows.num_rows:
            return
        before, self._last = self._last, rows.slice(rows.num_rows - 1)
        if before is not None:
            rows = pa.concat_tables([before, rows])
        if pc.count_distinct(rows["clock"]).as_py() == 1:  # a row a session
            for entry in pc.value_counts(rows["ticker"]).to_pylist():
                self._sessions[entry["values"]] += entry["counts"]
            return
        groups = rows.group_by(["ticker", "day"]).aggregate([("clock", "min"), ("clock", "max")])
        for entry in pc.value_counts(groups["ticker"]).to_pylist():
            self._sessions[entry["values"]] += entry["counts"]
        several = groups.filter(pc.not_equal(groups["clock_min"], groups["clock_max"]))
        self._several.update(several["ticker"].to_pylist())
        if len(self._keys) < MOST_KEYS:
            self._keys.update(_keys(several["ticker"], several["day"]).to_pylist())

    def problems(self, tickers: pa.Array, days: pa.Array, clocks: pa.Array) -> pa.Array:
        """INTRADAY for each row of such a session; of a ticker that mostly has such, for each row with a time of day."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self._several:
            return pa.nulls(len(tickers), pa.string())
        mostly = [
            ticker
            for ticker, several in self._several.items()
            if several * 2 >= self._sessions[ticker] or len(self._keys) >= MOST_KEYS
        ]
        of_mostly = pc.is_in(tickers, value_set=pa.array(mostly, pa.string()))
        of_keys = pc.is_in(_keys(tickers, days), value_set=pa.array(sorted(self._keys), pa.string()))
        wrong = pc.and_(pc.or_(of_mostly, of_keys), pc.is_valid(clocks))
        return pc.if_else(wrong, pa.scalar(INTRADAY, pa.string()), pa.scalar(None, pa.string()))


def _keys(tickers: Any, days: Any) -> Any:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(tickers, days, "|")


def _constant(text: str | None, length: int) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(length, pa.string()) if text is None else pa.repeat(pa.scalar(text, pa.string()), length)


def _text(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _doubles(texts: pa.Array, decimal: str | None) -> pa.Array:
    """The numbers that texts mean; null where they mean none. Plain ones, as most files have, without the grammar of the others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        values = texts.cast(pa.float64()) if decimal is None else numbers(texts, decimal)
    except pa.ArrowInvalid:
        values = numbers(texts, decimal)
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
