"""A folder of CSV files as a source: one ticker a file, or several, plain or gzip."""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.sources import Delivery, SourceError, delivered_table, printable, with_adjusted_to
from stock_lakehouse.sources.csv_text import HeaderError, lines_of, read_rows

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".csv.gz")
ISO_DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"


@dataclass(frozen=True)
class CsvFolderSource:
    """Every `*.csv` and `*.csv.gz` directly in `folder`.

    A file named after an asked ticker (`AAPL.csv`, `brk-b.csv.gz`) holds that ticker; in any other a column Symbol or Ticker
    says which. A file named after another one of the lake's tickers, `known`, is left alone. A file that cannot be read at all
    (no usable header, broken gzip) is one unreadable row, so it reaches the quarantine with its reason. Prices are taken to be
    adjusted for the splits up to the newest bar that the file has of the ticker, or with `as_traded` for none. Tickers that no
    file mentions simply have no bars. A file that changed less than
    `settle_seconds` ago may be half written: it is left alone. Where that is not 0 a sensor watches the folder and asks for
    the file later.
    """

    folder: Path
    settle_seconds: int = 0
    as_traded: bool = False
    known: tuple[str, ...] = ()
    name: str = "csv"
    interval: str = "1d"

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield the rows of every file that can hold an asked ticker, whatever their date; see `Source`."""
        files = self.files()
        if not files:
            raise SourceError(f"csv_folder: no file *.csv or *.csv.gz in {self.folder}")
        others = set(self.known) - set(tickers)
        for path in files:
            if _stem(path) not in others and not self._may_be_half_written(path):
                yield from self.read(path, tickers)

    def files(self) -> list[Path]:
        """The files of the folder, by name. Raises SourceError if there is no folder."""
        if not self.folder.is_dir():
            raise SourceError(f"csv_folder: there is no folder {self.folder}")
        return sorted(path for path in self.folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file())

    def read(self, path: Path, tickers: Sequence[str], skip: int = 0) -> Iterator[Delivery]:
        """Yield the rows of one file; `skip` leaves out what stands in its first bytes, the header aside (plain files only)."""
        stem = _stem(path)
        file_ticker = stem if stem in tickers else None
        name = printable(path.name)
        try:
            with _open(path) as text:
                for rows in self._rows(lambda: read_rows(_lines(text, skip), name, file_ticker, tickers)):
                    yield Delivery(rows)
        except (HeaderError, EOFError, OSError, zlib.error) as error:
            rows = {"ticker": [file_ticker], "problem": [f"{name}: {error}"], "line": [f"the file {name}"]}
            yield Delivery(delivered_table(rows))

    def _rows(self, batches: Callable[[], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        """The batches of a file, with what the prices are adjusted to. One of several batches is read twice: its newest bars may
        stand at its end."""
        import pyarrow as pa

        newest: dict[str | None, str] = {}
        only: pa.Table | None = None
        if not self.as_traded:
            try:
                for number, rows in enumerate(batches()):
                    only = rows if number == 0 else None
                    for ticker, day in _newest(rows):
                        newest[ticker] = max(day, newest.get(ticker, ""))
            except (EOFError, OSError, zlib.error):
                only = None  # it breaks off, which reading it again will say
        for rows in batches() if only is None else [only]:
            days = (
                _days(rows)
                if self.as_traded
                else pa.array([newest.get(ticker) for ticker in rows["ticker"].to_pylist()], pa.string())
            )
            yield with_adjusted_to(rows, days)

    def _may_be_half_written(self, path: Path) -> bool:
        age = (
            utc_now().timestamp() - path.stat().st_mtime
        )  # a file's time is the real one, whatever clock a run goes by
        return 0 <= age < self.settle_seconds


def _stem(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".csv").upper()


def _days(rows: pa.Table) -> pa.ChunkedArray:
    """The day (ISO) that each row's date begins with; null where it begins with none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    days = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(rows["date"]), 0, 10)
    return pc.if_else(pc.match_substring_regex(days, ISO_DAY), days, pa.scalar(None, pa.string()))


def _newest(rows: pa.Table) -> Iterator[tuple[str | None, str]]:
    """The newest day of each ticker."""
    import pyarrow as pa

    found = pa.table({"ticker": rows["ticker"], "day": _days(rows)}).drop_null()
    newest = found.group_by("ticker").aggregate([("day", "max")])
    yield from zip(newest["ticker"].to_pylist(), newest["day_max"].to_pylist(), strict=True)


def _lines(text: io.TextIOWrapper, skip: int) -> Iterable[str]:
    """The lines of `text` from its beginning; of those behind the header only what stands behind the first `skip` bytes."""
    text.seek(0)
    lines = lines_of(text)
    return itertools.chain([next(lines, "")], _after(text, skip)) if skip else lines


def _after(text: io.TextIOWrapper, position: int) -> Iterator[str]:
    text.seek(position)
    yield from lines_of(text)


def _open(path: Path) -> io.TextIOWrapper:
    # Bytes that are no UTF-8 come through as \xNN, so nothing is lost and everything can be written again.
    file = gzip.GzipFile(path) if path.name.lower().endswith(".gz") else open(path, "rb")  # noqa: SIM115 - the wrapper closes it
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
