"""A folder of CSV files as a source: one or several tickers a file, plain or gzip."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.sources import Delivery, SourceError, delivered_table, printable
from stock_lakehouse.sources.csv_evidence import FileEvidence
from stock_lakehouse.sources.csv_header import SEARCHED, Header, HeaderError, find_header
from stock_lakehouse.sources.csv_rows import BREAKS, Batch, CsvRules, batches_of, width_of
from stock_lakehouse.sources.csv_text import lines_of, open_text
from stock_lakehouse.sources.tickers import Tickers

SUFFIXES = (".csv", ".csv.gz")
TEXT_SUFFIX = ".txt"  # the files of Stooq and MetaTrader have it, and many files that are not tables


@dataclass(frozen=True)
class CsvFolderSource:
    """Every `*.csv` and `*.csv.gz` directly in `folder`, and each `*.txt` that is named after a ticker or has a header of prices.

    A file named after a requested ticker (`AAPL.csv`, `brk-b.csv.gz`, `aapl.us.txt`) holds that ticker. In any other file a
    column Symbol or Ticker gives the ticker. A file named after another ticker in `known` is skipped. A file that cannot be read
    at all (no usable header, broken gzip) is delivered as one unreadable row, so it reaches the quarantine with its reason. A
    ticker that no file mentions has no bars. The file itself shows what its dates, numbers and prices mean; `rules` decide where
    it does not. A file that changed less than `settle_seconds` ago may be half written, so it is skipped. Where `settle_seconds`
    is not 0, a sensor watches the folder and requests the file later.
    """

    folder: Path
    settle_seconds: int = 0
    known: tuple[str, ...] = ()
    rules: CsvRules = field(default_factory=CsvRules)
    name: str = "csv"
    interval: str = "1d"

    def __post_init__(self) -> None:
        zone = self.rules.dates.zone
        try:
            ZoneInfo(zone or "UTC")
        except (ZoneInfoNotFoundError, ValueError):
            raise SourceError(f"csv_time_zone: there is no time zone {zone!r}; set one like Europe/Berlin") from None

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield the rows of every file that can hold a requested ticker, whatever their dates; see `Source`."""
        files = self.files()
        if not files:
            raise SourceError(f"csv_folder: no file *.csv or *.csv.gz in {self.folder}")
        requested, others = self._tickers(tickers), self._tickers(set(self.known) - set(tickers))
        for path in files:
            stem = _stem(path)
            if requested.of_file(stem) is None and others.of_file(stem) is not None:
                continue
            if not self._may_be_half_written(path):
                yield from self.read(path, tickers)

    def files(self) -> list[Path]:
        """The files of the folder, sorted by name. Raises SourceError if the folder does not exist."""
        if not self.folder.is_dir():
            raise SourceError(f"csv_folder: there is no folder {self.folder}")
        known = self._tickers(self.known)
        return sorted(path for path in self.folder.iterdir() if _may_be_table(path, known) and path.is_file())

    def read(self, path: Path, tickers: Sequence[str], skip: int = 0) -> Iterator[Delivery]:
        """Yield the rows of one file, without those in its first `skip` bytes. The header is read anyway (plain files only)."""
        names = self._tickers(tickers)
        name, ticker = printable(path.name), names.of_file(_stem(path))
        try:
            with open_text(path) as text:
                start = skip if text.encoding == "utf-8" else 0
                yield from deliveries_of(text, name, self.rules, names, ticker, start)
        except (HeaderError, *BREAKS) as error:
            line = f"the file {name}"
            rows: dict[str, list[str | None]] = {
                "ticker": [ticker],
                "problem": [str(error)],
                "line": [line],
                "file": [name],
            }
            yield Delivery(delivered_table(rows), notes={name: ()})

    def _tickers(self, tickers: Iterable[str]) -> Tickers:
        return _known_tickers(tuple(tickers), self.rules.country)

    def _may_be_half_written(self, path: Path) -> bool:
        # File times come from the real clock, whatever clock the run uses.
        age = utc_now().timestamp() - path.stat().st_mtime
        return 0 <= age < self.settle_seconds


@lru_cache(maxsize=8)
def _known_tickers(tickers: tuple[str, ...], country: str | None) -> Tickers:
    return Tickers(tickers, country)


def deliveries_of(
    text: TextIOWrapper, name: str, rules: CsvRules, tickers: Tickers, ticker: str | None = None, start: int = 0
) -> Iterator[Delivery]:
    """The rows of one file.

    - `ticker`: the ticker that the file is named after.
    - `start`: the byte to start at. The header is read anyway.

    A file of several batches is read twice, because its last lines may decide what its first lines mean. Raises HeaderError.
    Errors from reading the file pass through, after the rows before them.
    """
    header, width = _layout(text)

    def batches(at: int) -> Iterator[Batch]:
        return batches_of(_lines_below(text, header, at), header, width, None if at else header.lines + 1)

    evidence = FileEvidence(name, header, rules, tickers, ticker)
    only_batch = _show_batches(evidence, lambda: batches(start))
    if start and not evidence.is_clear:  # the lines before `start` are evidence too
        evidence = FileEvidence(name, header, rules, tickers, ticker)
        _show_batches(evidence, lambda: batches(0))
        only_batch = None
    notes = {name: evidence.notes}
    for batch in batches(start) if only_batch is None else [only_batch]:
        yield Delivery(evidence.rows(batch), notes=notes)
        notes = {}


def _show_batches(evidence: FileEvidence, batches: Callable[[], Iterator[Batch]]) -> Batch | None:
    """Show all batches to `evidence`. Returns the batch if the file has only one and does not break off."""
    only_batch = None
    for _ in range(2):
        try:
            for number, batch in enumerate(batches()):
                only_batch = batch if number == 0 else None
                evidence.see(batch)
        except BREAKS:
            only_batch = None  # the next read of the file raises the error again
        if evidence.is_settled:
            break
        evidence.forget_bars()
    return only_batch


def _layout(text: TextIOWrapper) -> tuple[Header, int]:
    """The header of a file, and the number of fields of its lines."""
    lines: list[str] = []
    read_error: BaseException | None = None
    try:
        for line in itertools.islice(lines_of(text), 2 * SEARCHED):
            lines.append(line.removeprefix("\ufeff") if not lines else line)
    except BREAKS as error:
        read_error = error
    try:
        header = find_header(lines)
    except HeaderError:
        if read_error is not None:
            raise read_error from None
        raise
    return header, width_of(header, lines[header.lines :])


def _lines_below(text: TextIOWrapper, header: Header, start: int) -> Iterator[str]:
    """The lines below the header; with `start`, the lines after that many bytes."""
    text.seek(start)
    lines = lines_of(text)
    return lines if start else itertools.islice(lines, header.lines, None)


def _stem(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return name.removesuffix(".csv").removesuffix(TEXT_SUFFIX).upper()


def _may_be_table(path: Path, known: Tickers) -> bool:
    name = path.name.lower()
    if name.endswith(SUFFIXES):
        return True
    if not name.endswith(TEXT_SUFFIX) or not path.is_file():
        return False
    if known.of_file(_stem(path)) is not None:
        return True
    try:
        with open_text(path) as text:
            _layout(text)
    except (HeaderError, *BREAKS):
        return False
    return True
