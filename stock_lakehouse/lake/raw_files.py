"""A raw file: its name and its text.

Here: names, seals and CSV of one file, in both layouts. Not here: which rows land (landing.py), where files are (raw_csv.py).
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake.landing import ANY, MEANING, VALUES
from stock_lakehouse.lake.publish import partition_of
from stock_lakehouse.lake.storage import File
from stock_lakehouse.schemas import raw as schema
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import RAW

if TYPE_CHECKING:
    import pyarrow as pa

# year=<year>/bars_<first session>_<last session>_<landing time>_<run>_<tickers>_<seal>.csv. Dates are zeros if none could be
# read. `tickers` is the fingerprint of the file's tickers: a list of them would not fit into a name of 255 bytes.
_TIME = r"bars_(\d{4}-\d{2}-\d{2})_(\d{4}-\d{2}-\d{2})_(\d{8}T\d{12}Z)_[0-9a-f]{8}"
NAME = re.compile(rf"{_TIME}_([0-9a-f]{{64}})_([0-9a-f]{{28}})\.csv")
# The layout until 0.1: ticker=<ticker>/year=<year>/, one file for each ticker. The oldest files have no seal.
NAME_BY_TICKER = re.compile(rf"{_TIME}(?:_([0-9a-f]{{28}}))?\.csv")
NO_DAY = "0000-00-00"

# The columns of a file, in this order. A column that is added later comes last: engines read CSV by position.
TEXT_COLUMNS = [
    column.name for column in (*schema.DELIVERED, *schema.PROVENANCE, schema.CAPITAL_GAINS, *schema.READING)
]
FILE_COLUMNS = [*(column.name for column in schema.PARTITION), *TEXT_COLUMNS]
FILE_DDL = ", ".join(f"{name} string" for name in FILE_COLUMNS)
CSV_ERRORS = (ValueError, KeyError)  # pyarrow's: ragged rows or text that is not UTF-8, and missing columns
LARGEST_ROW = 1 << 24  # bytes; pyarrow cannot read a row that is longer than its block size, which is 1 MB by default


@dataclass(frozen=True)
class RawFile:
    """A file of raw rows and what its name says.

    - year: the year of all of its rows, as text
    - ticker: the ticker of all of its rows in the layout by ticker; None if a column has it
    - first, last: its first and last session (ISO text); NO_DAY if none could be read
    - landed: landing time, as text that sorts by time
    - tickers: the fingerprint of its tickers; None if `ticker` is set
    - seal: size and digest; None in files from before there were seals
    """

    file: File
    year: str
    ticker: str | None
    first: str
    last: str
    landed: str
    tickers: int | None
    seal: str | None

    @property
    def place(self) -> str:
        """The path below the table's folder, which is unique in the table."""
        return "/".join(self.file.path.split("/")[-2 if self.ticker is None else -3 :])

    def may_hold_ticker(self, fingerprints: Collection[int], tickers: Collection[str]) -> bool:
        """Whether the file may hold rows of one of `tickers`. Never False if it does.

        `fingerprints`: the fingerprint of each of `tickers`.
        """
        if self.tickers is None:
            return self.ticker in tickers
        return any(bits & self.tickers == bits for bits in fingerprints)

    def may_hold_day(self, days: Sequence[str]) -> bool:
        """Whether the file may hold a row of one of `days` (ISO text, ascending)."""
        index = bisect_left(days, self.first)
        return self.first == NO_DAY or (index < len(days) and days[index] <= self.last)

    def damage(self, content: bytes | None = None) -> str | None:
        """What is wrong with the file's size and, if given, its `content`; None if nothing is."""
        if self.seal is not None and int(self.seal[:12], 16) != self.file.size:
            return f"{self.file.size:,} bytes instead of {int(self.seal[:12], 16):,}"
        if content is None:
            return None
        if self.seal is not None:
            name = "" if self.ticker is not None else self.place.rpartition("_")[0]
            return None if self.seal == _seal(name, content) else "content or name differs from what landed"
        try:
            compared_text(content)
        except CSV_ERRORS as error:
            return printable(str(error))[:200]
        return None


def raw_file(file: File) -> RawFile | None:
    """What the name of a file below the raw table's folder says; None if it is not the name of a landed file."""
    folders = file.path.removeprefix(f"{RAW.path}/").split("/")[:-1]
    if len(folders) == 1 and folders[0].startswith("year=") and (match := NAME.fullmatch(file.name)):
        first, last, landed, tickers, seal = match.groups()
        return RawFile(file, folders[0].removeprefix("year="), None, first, last, landed, int(tickers, 16), seal)
    by_ticker = len(folders) == 2 and folders[0].startswith("ticker=") and folders[1].startswith("year=")
    if by_ticker and (match := NAME_BY_TICKER.fullmatch(file.name)):
        ticker, year = partition_of(file.path)
        first, last, landed, seal = match.groups()
        return RawFile(file, year, ticker, first, last, landed, None, seal)
    return None


def fingerprint(tickers: Iterable[str]) -> int:
    """256 bits, two set for each ticker. The fingerprint of several tickers has every bit of the fingerprint of each of them."""
    bits = 0
    for ticker in tickers:
        digest = hashlib.sha256(ticker.encode()).digest()
        bits |= 1 << digest[0] | 1 << digest[1]
    return bits


def landing_name(year: str, days: Collection[str], now: datetime, run_id: str, tickers: Iterable[str]) -> str:
    """The path of a landed file below the table's folder, without its seal."""
    run = run_id.replace("-", "")[:8]
    if not re.fullmatch(
        "[0-9a-f]{8}", run
    ):  # a run id that the caller chose: with it in the name the file would not be read
        run = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    known = days or [NO_DAY]
    return f"year={year}/bars_{min(known)}_{max(known)}_{now:%Y%m%dT%H%M%S%f}Z_{run}_{fingerprint(tickers):064x}"


def sealed_name(name: str, content: bytes) -> str:
    """`name` with the seal: 12 hexadecimal digits of the content's size and 16 of the SHA-256 of name and content. A change of
    either is detected."""
    return f"{name}_{_seal(name, content)}.csv"


def _seal(name: str, content: bytes) -> str:
    digest = hashlib.sha256(name.encode())
    digest.update(content)
    return f"{len(content):012x}{digest.hexdigest()[:16]}"


def as_csv(rows: pa.Table) -> bytes:
    """`rows`, which has FILE_COLUMNS, as the CSV text of a file."""
    import pyarrow as pa
    from pyarrow import csv

    buffer = pa.BufferOutputStream()
    csv.write_csv(rows, buffer, csv.WriteOptions(quoting_style="all_valid"))
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def text_in(raw: RawFile, content: bytes, columns: Sequence[str], keep_blank: bool = False) -> pa.Table:
    """`columns` of the rows of a file, in this order, all text. A column that an older file lacks is null, and so is empty text
    unless `keep_blank`. Raises one of CSV_ERRORS if the content is not valid CSV."""
    import pyarrow as pa

    rows = _text(content, columns, keep_blank)
    if raw.ticker is not None:
        for name, value in (("ticker", raw.ticker), ("year", raw.year)):
            if name in columns:
                rows = rows.set_column(columns.index(name), name, pa.array([value] * rows.num_rows, pa.string()))
    return rows


def compared_text(content: bytes) -> pa.Table:
    """The columns of a landed file that landing compares: ticker and year if it has them, VALUES, MEANING and provenance.

    A column that an older file lacks is ANY if it is one of MEANING, else null. Raises one of CSV_ERRORS if the content is not
    valid CSV.
    """
    import pyarrow as pa

    rows = _text(content, ["ticker", "year", *VALUES, *MEANING, "ingested_at", "adjusted_to", "file", "problem"])
    if rows["ingested_at"].null_count or not rows["ingested_at"].type.equals(pa.string()):
        raise ValueError("a row has no landing time")
    header = content[: content.find(b"\n")].decode(errors="replace")
    if '"session"' not in header:
        for name in MEANING:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array([ANY] * rows.num_rows, pa.string()))
    return rows


def _text(content: bytes, columns: Sequence[str], keep_blank: bool = False) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    return csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(block_size=LARGEST_ROW),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in columns},
            include_columns=list(columns),
            include_missing_columns=True,
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=not keep_blank,
        ),
    )
