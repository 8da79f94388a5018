"""What the lines of a CSV file show together, and the delivered rows that are read with that.

Here: the order of the file's dates, its decimal mark, the newest bar of each ticker, intraday bars. Not here: what one date means
(dates.py) and whether a bar is possible (transforms/processed.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from stock_lakehouse.market_calendar import MarketCalendar
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
from stock_lakehouse.sources.csv_rows import Batch, CsvRules
from stock_lakehouse.sources.dates import DateEvidence
from stock_lakehouse.sources.tickers import Tickers

if TYPE_CHECKING:
    import pyarrow as pa

MOST_KEYS = 10_000  # sessions with several bars that are remembered individually
NO_TICKER = "the ticker of the row is unknown: name the file after its ticker, such as AAPL.csv, or add a column Symbol"
OTHER_TICKER = (
    "the symbol of the row is not the ticker that the file is named after: put the row into the file of its ticker, or give "
    "the file a name that is not a ticker"
)
INTRADAY = "several bars of one session (intraday): only daily bars are read; write one row a session"
UNCLEAR_DECIMALS = (
    "the file's numbers may have a decimal point or a decimal comma (1.234): set csv_decimal to point or comma"
)
MIXED_DECIMALS = (
    "some numbers of the file have a decimal point, some a decimal comma, and some may have either (1.234): set csv_decimal "
    "to point or comma"
)
OTHER_DECIMALS = (
    "csv_decimal is {setting}, but numbers of the file have a decimal {mark} ({example}): set csv_decimal to auto"
)


class _Dates(NamedTuple):
    """What the dates of a batch mean, by row.

    - `sessions`, `problems`, `clocks`, `days`: the fields of `Reading`, as text.
    - `are_past`: whether the day is a session of the exchange and not in the future.
    """

    sessions: pa.Array
    problems: pa.Array
    clocks: pa.Array
    days: pa.Array
    are_past: pa.Array


class FileEvidence:
    """What the lines of a file show together: call `see` with each batch, then `rows` with each.

    `ticker` is the ticker that the file is named after. If a later batch changes how an earlier one is read, `is_settled` is
    False: then call `forget_bars`, and `see` with every batch once more.
    """

    def __init__(self, name: str, header: Header, rules: CsvRules, tickers: Tickers, ticker: str | None) -> None:
        self._name, self._header, self._rules, self._tickers, self._ticker = name, header, rules, tickers, ticker
        self._requested = tickers.all
        self.dates = DateEvidence(rules.dates)
        self._decimal_marks = _DecimalMarks()
        self._footer: str | None = None
        self._states_read: set[Any] = set()
        self._last_dates: tuple[Batch, Any, _Dates] | None = None
        self.forget_bars()

    def forget_bars(self) -> None:
        """Reset what depends on how the dates and numbers of all lines are read."""
        self._newest: dict[str, str] = {}
        self._intraday = _IntradaySessions()
        self._states_read.clear()

    @property
    def is_settled(self) -> bool:
        """Whether every batch was read in the same way as the whole file."""
        return self._states_read <= {self._state}

    @property
    def is_clear(self) -> bool:
        """Whether the lines seen so far are enough evidence: more lines would not change how they are read."""
        is_open = self._rules.decimal != "auto" and self._decimal_marks.are_open
        return self.dates.is_clear and self.decimal[1] is None and not is_open

    @property
    def _state(self) -> Any:
        return self.dates.state, self.decimal

    def see(self, batch: Batch) -> None:
        """Record the evidence of a batch."""
        if batch.has_iso_days:
            self.dates.see_iso_days()
        else:
            self.dates.see(batch.parsed(self._rules.dates))
        if self._rules.decimal == "comma" or not _is_plain(batch):
            self._decimal_marks.see(batch)
        self._footer = self._footer or batch.footer
        self._states_read.add(self._state)
        tickers, problems = self._tickers_of(batch)
        dates = self._read_dates(batch)
        if dates.clocks.null_count < len(dates.clocks):
            self._intraday.see(tickers, dates.days, dates.clocks, self._requested)
        self._see_newest(batch, tickers, dates, [problems, self._intraday.problems(tickers, dates.days, dates.clocks)])

    @cached_property
    def _today(self) -> date:
        return self._rules.now().astimezone(ZoneInfo(self._rules.dates.exchange_zone)).date()

    @property
    def decimal(self) -> tuple[str | None, str | None]:
        """The decimal mark if it is a comma; and the problem if it is unknown or contradicts the setting."""
        setting = self._rules.decimal
        if setting == "auto":
            return self._decimal_marks.verdict(self._header.separator)
        return ("," if setting == "comma" else None), self._decimal_marks.contradiction(setting)

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
            notes.append(
                f"the columns are those of {vendor}, so prices are read as {self.form}; set csv_prices to change that"
            )
        if self._rules.dates.order == "auto" and self.dates.numeric and self.dates.order != "auto":
            notes.append(f"dates are read {self.dates.order.replace('_', ' ')}, as the dates with a day above 12 show")
        if self.decimal[0] and self._rules.decimal == "auto":
            notes.append("numbers are read with a decimal comma")
        if self._footer:
            notes.append(f"the line {self._footer!r} is not a row")
        return tuple(notes)

    def rows(self, batch: Batch) -> pa.Table:
        """The delivered rows of a batch."""
        import pyarrow as pa
        import pyarrow.compute as pc

        length = len(batch)
        nulls = pa.nulls(length, pa.string())
        tickers, ticker_problems = self._tickers_of(batch)
        dates = self._read_dates(batch)
        decimal, decimal_problem = self.decimal
        form, newest = self.form, self._known_until(tickers)
        line_problems = nulls
        lines = nulls
        if batch.broken:
            line_problems = pa.array(
                [batch.broken[row][0] if row in batch.broken else None for row in range(length)], pa.string()
            )
            lines = pa.array(
                [batch.broken[row][1] if row in batch.broken else None for row in range(length)], pa.string()
            )
        problems = [
            line_problems,
            ticker_problems,
            self._intraday.problems(tickers, dates.days, dates.clocks),
            dates.problems,
        ]
        if decimal_problem:
            problems.append(_constant(decimal_problem, length))
        as_traded = form in (AS_TRADED, AS_TRADED_ADJUSTED_CLOSE)
        columns = {
            "ticker": tickers,
            "symbol": nulls if self._ticker and self._header.is_named else batch.symbols,
            "problem": pc.coalesce(*problems),
            "line": lines,
            "adjusted_to": dates.sessions if as_traded else newest,
            "file": _constant(self._name, length),
            "line_number": pa.array(batch.numbers, pa.int64()).cast(pa.string()),
            "session": dates.sessions,
            "decimal": _constant(decimal, length),
            "basis": _constant(form, length),
            "adj_close_as_of": newest if form == AS_TRADED_ADJUSTED_CLOSE else nulls,
            "says": _constant(self._header.says, length),
        }
        return pa.table(
            [columns[name] if name in columns else batch.column(name) for name in DELIVERED_COLUMNS],
            names=list(DELIVERED_COLUMNS),
        )

    def _tickers_of(self, batch: Batch) -> tuple[pa.Array, pa.Array]:
        """The ticker of each row, and the problem with it."""
        import pyarrow as pa

        length = len(batch)
        nulls = pa.nulls(length, pa.string())
        has_symbols = "symbol" in self._header.columns or self._header.symbol is not None
        if not has_symbols or (self._ticker and self._header.is_named):
            problem = _constant(None if self._ticker else NO_TICKER, length)
            return _constant(self._ticker, length), problem
        symbols = batch.symbols.dictionary_encode("encode")
        tickers = [self._tickers.of_symbol(symbol) for symbol in symbols.dictionary.to_pylist()]
        if self._ticker is None:
            return pa.array(tickers, pa.string()).take(symbols.indices), nulls
        problems = [
            None if ticker == self._ticker or not (symbol or "").strip() else OTHER_TICKER
            for ticker, symbol in zip(tickers, symbols.dictionary.to_pylist(), strict=True)
        ]
        return _constant(self._ticker, length), pa.array(problems, pa.string()).take(symbols.indices)

    def _read_dates(self, batch: Batch) -> _Dates:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._last_dates is not None and self._last_dates[0] is batch and self._last_dates[1] == self._state:
            return self._last_dates[2]
        problems = clocks = pa.nulls(len(batch), pa.string())
        if batch.has_iso_days:
            texts = batch.dates.dictionary
            days = sessions = batch.column("date")
        else:
            readings = self.dates.read(batch.parsed(self._rules.dates))

            def by_row(values: list[str | None]) -> pa.Array:
                return pa.array(values, pa.string()).take(batch.dates.indices)

            texts = pa.array(
                [None if reading.session is None else reading.session.isoformat() for reading in readings], pa.string()
            )
            days = sessions = texts.take(batch.dates.indices)
            if any(reading.clock for reading in readings):
                clocks = by_row([reading.clock for reading in readings])
            if any(reading.problem for reading in readings):
                problems = by_row([reading.problem for reading in readings])
                days = by_row([None if reading.day is None else reading.day.isoformat() for reading in readings])
        are_past = pc.is_in(texts, value_set=_sessions_until(self._today, self._rules.calendar))
        if self._header.clock is not None:
            both = pc.binary_join_element_wise(batch.clocks, clocks, " ")
            clocks = pc.coalesce(both, batch.clocks, clocks)
        self._last_dates = (
            batch,
            self._state,
            _Dates(sessions, problems, clocks, days, are_past.take(batch.dates.indices)),
        )
        return self._last_dates[2]

    def _known_until(self, tickers: pa.Array) -> pa.Array:
        """The newest day known of each row's ticker: that of the file or of the setting, whichever is later."""
        import pyarrow as pa

        setting = "" if self._rules.adjusted_to is None else self._rules.adjusted_to.isoformat()

        def known(ticker: str | None) -> str | None:
            return max(setting, self._newest.get(ticker or "", "")) or None

        if self._ticker is not None:
            return _constant(known(self._ticker), len(tickers))
        encoded = tickers.dictionary_encode("encode")
        newest = [known(ticker) for ticker in encoded.dictionary.to_pylist()]
        return pa.array(newest, pa.string()).take(encoded.indices)

    def _see_newest(self, batch: Batch, tickers: pa.Array, dates: _Dates, problems: Sequence[pa.Array]) -> None:
        """Record the newest valid bar of each ticker: a possible close on a session that is not in the future."""
        import pyarrow.compute as pc

        decimal, unclear = self.decimal
        if unclear:
            return
        values = {
            name: _doubles(batch.column(name), decimal)
            for name in ("close", "high", "low")
            if name in self._header.columns
        }
        valid = pc.and_(
            pc.greater(values["close"], 0.0),
            dates.are_past,
        )
        for name, compare in (("high", pc.less_equal), ("low", pc.greater_equal)):
            if name in values:  # vendors write 0 for an unknown price
                tolerated = 1 + self._rules.price_tolerance if name == "high" else 1 - self._rules.price_tolerance
                bound = pc.multiply(values[name], tolerated)
                unknown = pc.or_(pc.is_null(bound), pc.fill_null(pc.equal(bound, 0.0), True))
                valid = pc.and_(valid, pc.or_(unknown, pc.fill_null(compare(values["close"], bound), True)))
        for problem in problems:
            valid = pc.and_(valid, pc.is_null(problem))
        valid = pc.fill_null(valid, False)
        for ticker, session in self._newest_of(tickers.filter(valid), dates.sessions.filter(valid)):
            if session is not None and ticker in self._requested:
                self._newest[ticker] = max(session, self._newest.get(ticker, ""))

    def _newest_of(self, tickers: pa.Array, sessions: pa.Array) -> Iterable[tuple[str | None, str | None]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._ticker is not None:
            return [(self._ticker, pc.max(sessions).as_py())]
        groups = pa.table({"ticker": tickers, "session": sessions}).group_by("ticker").aggregate([("session", "max")])
        return zip(groups["ticker"].to_pylist(), groups["session_max"].to_pylist(), strict=True)


@lru_cache(maxsize=8)
def _sessions_until(today: date, calendar: MarketCalendar | None) -> pa.Array:
    """The days, as ISO text, that a valid bar may have."""
    import numpy as np
    import pyarrow as pa

    if calendar is not None:
        return pa.array([day.isoformat() for day in calendar.sessions if day <= today], pa.string())
    days = np.arange(np.datetime64("1800-01-01"), np.datetime64(today) + 1)
    return pa.array(np.datetime_as_string(days[np.is_busday(days)]).tolist(), pa.string())


class _DecimalMarks:
    """Which decimal mark the numbers of a file have.

    - `points`, `commas`: how many numbers can only be read with that mark.
    - `either`: how many can be read with both.
    - `examples`: by mark, the first number, as written, that can only be read with it.
    """

    _BEFORE = rf"^[+-]?[{CURRENCY}]? ?"
    _BEHIND = rf"([eE][+-]?[0-9]+)? ?[KMBTkmbt]?[{CURRENCY}]?$"

    def __init__(self) -> None:
        self.points = self.commas = self.either = 0
        self.examples: dict[str, str] = {}

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
            either = self._matching(marked, rf"[1-9][0-9]{{0,2}}\{mark}[0-9]{{3}}")
            proven = marked.filter(pc.and_not(self._matching(marked, decimal), either))
            grouped = marked.filter(
                self._matching(marked, rf"[0-9]{{1,3}}(?:\{mark}[0-9]{{2,3}})+\{mark}[0-9]{{3}}(?:{other}[0-9]*)?")
            )
            self.either += int(pc.sum(either).as_py() or 0)
            self.points += len(proven if mark == "." else grouped)
            self.commas += len(proven if mark == "," else grouped)
            for shown, texts_of in ((mark, proven), (other, grouped)):
                if len(texts_of):
                    self.examples.setdefault(shown, printable(texts_of[0].as_py().strip()[:40]))

    def _matching(self, texts: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
        import pyarrow.compute as pc

        return pc.match_substring_regex(pc.utf8_trim_whitespace(texts), f"{self._BEFORE}{pattern}{self._BEHIND}")

    @property
    def are_open(self) -> bool:
        """Whether some numbers may have either mark and no number shows which."""
        return bool(self.either) and not self.points and not self.commas

    def contradiction(self, setting: Literal["point", "comma"]) -> str | None:
        """The problem with the mark of the setting, if more than nine in ten numbers that show a mark have the other one.

        In a file with more numbers of each mark the setting decides, because MIXED_DECIMALS asks for it there.
        """
        agreeing, contradicting = (self.points, self.commas) if setting == "point" else (self.commas, self.points)
        if contradicting <= 9 * agreeing:
            return None
        name, mark = ("comma", ",") if setting == "point" else ("point", ".")
        return OTHER_DECIMALS.format(setting=setting, mark=name, example=self.examples[mark])

    def verdict(self, separator: str) -> tuple[str | None, str | None]:
        """The mark if it is a comma; and the problem if it is unknown. In a file separated by commas it is a point by default."""
        if self.points and self.commas:
            if self.either:
                return None, MIXED_DECIMALS
            return ("," if self.commas > self.points else None), None
        if self.commas:
            return ",", None
        return None, UNCLEAR_DECIMALS if self.either and not self.points and separator != "," else None


class _IntradaySessions:
    """Sessions of which a file has rows with different times of day. In any file the rows of a session follow each other."""

    def __init__(self) -> None:
        self._sessions: Counter[str] = Counter()
        self._several: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._last: pa.Table | None = None

    def see(self, tickers: pa.Array, days: pa.Array, clocks: pa.Array, requested: frozenset[str]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = pa.table({"ticker": tickers, "day": days, "clock": clocks}).drop_null()
        rows = rows.filter(pc.is_in(rows["ticker"], value_set=pa.array(sorted(requested), pa.string())))
        if not rows.num_rows:
            return
        before, self._last = self._last, rows.slice(rows.num_rows - 1)
        if before is not None:
            rows = pa.concat_tables([before, rows])
        if pc.count_distinct(rows["clock"]).as_py() == 1:  # one row a session
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
        """INTRADAY for each row of such a session. If most sessions of a ticker are such, for each row with a time of day."""
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
        is_intraday = pc.and_(pc.or_(of_mostly, of_keys), pc.is_valid(clocks))
        return pc.if_else(is_intraday, pa.scalar(INTRADAY, pa.string()), pa.scalar(None, pa.string()))


def _keys(tickers: Any, days: Any) -> Any:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(tickers, days, "|")


def _is_plain(batch: Batch) -> bool:
    """Whether prices and volumes are plain numbers separated by commas, as in most files: their decimal marks are points then.

    The volumes too, because where all prices are whole a volume like 1.000.000 is all that shows a decimal comma.
    """
    import pyarrow as pa

    if batch.is_quoted or batch.header.separator != ",":
        return False
    try:
        for name in ("open", "high", "low", "close", "volume"):
            batch.column(name).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _constant(text: str | None, length: int) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(length, pa.string()) if text is None else pa.repeat(pa.scalar(text, pa.string()), length)


def _doubles(texts: pa.Array, decimal: str | None) -> pa.Array:
    """The number that each text means; null where it means none. Plain numbers, as in most files, do not need the grammar."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        values = texts.cast(pa.float64()) if decimal is None else numbers(texts, decimal)
    except pa.ArrowInvalid:
        values = numbers(texts, decimal)
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
