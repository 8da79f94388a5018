"""Reading delivered CSV into rows of text, whatever the vendor called its columns.

Here: headers, ragged lines, encodings. Not here: where the file is, and what the values mean.
"""

from __future__ import annotations

import csv
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from stock_lakehouse.settings import TICKER
from stock_lakehouse.sources import DELIVERED_COLUMNS, delivered_table

if TYPE_CHECKING:
    import pyarrow as pa

# Header names, compared without case, spaces, dots, underscores and dashes.
SPELLINGS = {
    "symbol": ("symbol", "ticker", "code", "instrument", "ric"),
    "date": ("date", "datetime", "timestamp", "time", "day", "session", "tradedate", "tradingdate", "pricedate"),
    "open": ("open", "openprice", "o", "1open"),
    "high": ("high", "highprice", "h", "2high"),
    "low": ("low", "lowprice", "l", "3low"),
    "close": ("close", "closeprice", "c", "4close", "last", "closelast", "price"),
    "adj_close": ("adjclose", "adjusted", "adjustedclose", "adj", "closeadj", "5adjustedclose"),
    "volume": ("volume", "vol", "v", "sharestraded", "6volume"),
    "dividends": ("dividends", "dividend", "dividendamount", "divcash"),
    "stock_splits": ("stocksplits", "split", "splits", "splitratio", "splitfactor", "splitcoefficient"),
}
_NAME_OF = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
REQUIRED = ("date", "open", "high", "low", "close", "volume")
MAX_LINE = 4_000  # characters of an unreadable line that are kept
# No bar's line is longer. What is cannot be split, so that memory is bounded whatever a file holds, or unpacks to.
LONGEST_LINE = 100_000  # characters
ROWS_A_BATCH = 50_000
CHARACTERS_A_BATCH = 10_000_000


class HeaderError(Exception):
    """A CSV file's header lacks columns or names one twice; the message lists the header and what is needed."""


def columns_of(header: Sequence[str]) -> dict[str, int]:
    """Where each of our columns stands in `header`. Raises HeaderError when a required one is missing or ambiguous."""
    found: dict[str, int] = {}
    for index, title in enumerate(header):
        plain = "".join(letter for letter in title.lower() if letter.isalnum())
        name = _NAME_OF.get(plain)
        if name is None:
            continue
        if name in found:
            raise HeaderError(f"two columns mean {name}: {header[found[name]]!r} and {title!r}")
        found[name] = index
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise HeaderError(f"no column for {', '.join(missing)} in the header {', '.join(map(repr, header))[:500]}")
    return found


def lines_of(text: TextIO) -> Iterator[str]:
    """The lines of `text`. One longer than LONGEST_LINE is cut, and still longer than that: a digest of the rest follows."""
    while line := text.readline(LONGEST_LINE + 1):
        if len(line) <= LONGEST_LINE or line.endswith(("\n", "\r")):
            yield line
            continue
        digest = hashlib.sha256()
        rest = line
        while rest and not rest.endswith(("\n", "\r")):
            rest = text.readline(LONGEST_LINE)
            digest.update(rest.rstrip("\r\n").encode())
        yield f"{line}… sha256 {digest.hexdigest()}"


def read_rows(text: Iterable[str], name: str, file_ticker: str | None, tickers: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a CSV file, given as its lines, in batches of tables of `DELIVERED_COLUMNS`.

    `file_ticker` is the ticker of every row, or None where the symbol column says it; `tickers` are those asked for: a symbol
    is matched to them without case. A line that cannot be split into the header's columns becomes a row with `problem`
    (`name`, line number, reason) and its text. Raises HeaderError; what reading the lines raises passes through, after
    the rows before it.
    """
    lines = iter(text)
    header = _split(next(lines, "").removeprefix("\ufeff"))
    if isinstance(header, str) or not header:
        raise HeaderError("the file is empty or has no header")
    where = columns_of(header)
    asked = {ticker.upper(): ticker for ticker in tickers}
    batch = _Batch()
    number = 1
    try:
        for line in lines:
            number += 1
            fields = _split(line)
            if isinstance(fields, list) and len(fields) == len(header):
                values = {column: fields[index] for column, index in where.items()}
                symbol = values.get("symbol", "").strip().upper()
                ticker = file_ticker or asked.get(symbol) or (symbol if TICKER.fullmatch(symbol) else None)
                batch.add(ticker, values)
            elif fields:
                reason = (
                    fields if isinstance(fields, str) else f"{len(fields)} fields where the header has {len(header)}"
                )
                batch.add_unreadable(file_ticker, f"{name} line {number}: {reason}", line)
            if batch.is_full:
                yield batch.take()
    except (EOFError, OSError, zlib.error):  # a file that breaks off
        yield batch.take()
        raise
    yield batch.take()


def _split(line: str) -> list[str] | str:
    """The fields of one line, none if it is empty; text says why it cannot be split.

    Line by line, not the whole file at once: a quote left open would otherwise swallow every row after it.
    """
    line = line.rstrip("\r\n")
    if not line.strip():
        return []
    if len(line) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE:,} characters"
    if "\0" in line:
        return "a NUL character"
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        return str(error)


class _Batch:
    def __init__(self) -> None:
        self._rows: list[dict[str, str | None]] = []
        self._characters = 0

    @property
    def is_full(self) -> bool:
        return len(self._rows) >= ROWS_A_BATCH or self._characters >= CHARACTERS_A_BATCH

    def add(self, ticker: str | None, values: dict[str, str]) -> None:
        self._rows.append({"ticker": ticker, **values})
        self._characters += sum(map(len, values.values()))

    def add_unreadable(self, ticker: str | None, problem: str, line: str) -> None:
        line = line.rstrip("\r\n").replace("\0", "\\0")
        if len(line) > MAX_LINE:  # cut, but still its own: landing knows such a line again by its text
            line = f"{line[:MAX_LINE]}… sha256 {hashlib.sha256(line.encode()).hexdigest()}"
        self._rows.append({"ticker": ticker, "problem": problem, "line": line})
        self._characters += len(line)

    def take(self) -> pa.Table:
        rows, self._rows, self._characters = self._rows, [], 0
        return delivered_table({name: [row.get(name) for row in rows] for name in DELIVERED_COLUMNS})
