"""Reports of delivered files: rows by ticker, rows that cannot be used and why, in counts and in words.

Here: counting deliveries, and one line a file for people. Not here: reading files (csv_folder.py) and what follows from a file
without a usable row (checks/files.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stock_lakehouse.sources import Delivery, Landing, UnusedColumn, printable

if TYPE_CHECKING:
    import pyarrow as pa

# Number of different symbols, and of different reasons, that are kept of a file. Rows of further ones are counted as MORE.
MOST_KINDS = 1_000
MORE = "more of other kinds"
SHOWN_SYMBOLS = 5
SHOWN_REASONS = 2
SHOWN_FILES = 20
LONGEST_TEXT = 60  # characters of delivered text in an example
LONGEST_REASON = 400
NO_TICKER = (
    "no column Symbol or Ticker, and the file is not named after a ticker: add the column, or name it like AAPL.csv"
)
NO_DATE = "the date cannot be read: write it like 2024-01-31"


@dataclass
class Refused:
    """Rows that cannot be read, for one reason.

    - `rows`: the number of rows.
    - `line_number`: the line number of the first row.
    - `example`: the text of that row, or its date.
    """

    rows: int = 0
    line_number: str | None = None
    example: str | None = None


@dataclass
class FileReport:
    """The rows of one file, by their use to a run.

    - `rows`: the number of all rows.
    - `tickers`: the number of readable rows, by ticker that the run requested.
    - `first`, `last`: the first and last session of those rows (ISO days).
    - `elsewhere`: the number of rows of tickers of the settings that the run did not request.
    - `others`: the number of rows of symbols that nobody asked for, by symbol as delivered.
    - `refused`: the rows that cannot be read, by reason.
    - `notes`: what the reader decided about the file as a whole.
    """

    file: str
    rows: int = 0
    tickers: Counter[str] = field(default_factory=Counter)
    elsewhere: int = 0
    others: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Refused] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None

    @property
    def gave(self) -> int:
        """The number of readable rows of tickers that the run requested."""
        return sum(self.tickers.values())

    @property
    def is_useless(self) -> bool:
        """Whether no row can be used, neither by this run nor by a run for other tickers of the settings."""
        return not self.tickers and not self.elsewhere

    @property
    def unused(self) -> tuple[str, ...]:
        """The notes that name a column that should have been used."""
        return tuple(note for note in self.notes if isinstance(note, UnusedColumn))

    @property
    def has_complaints(self) -> bool:
        """Whether some rows cannot be used or a column is not used."""
        return self.is_useless or bool(self.refused or self.others or self.unused)

    def add(self, group: Mapping[str, Any], requested: Collection[str], known: Collection[str]) -> None:
        """Count a group of rows that have the same ticker, symbol and problem."""
        rows, ticker, symbol, problem = (group[name] for name in ("rows", "ticker", "symbol", "problem"))
        self.rows += rows
        if ticker is not None and ticker not in known:
            _count(self.others, ticker, rows)
        elif ticker is None and symbol and not problem:
            _count(self.others, symbol, rows)
        elif problem or ticker is None or group["session"] is None:
            reason = problem or (NO_TICKER if ticker is None else NO_DATE)
            kind = reason if reason in self.refused or len(self.refused) < MOST_KINDS else MORE
            refused = self.refused.setdefault(kind, Refused(0, group["line_number"], group["line"] or group["date"]))
            refused.rows += rows
        elif ticker in requested:
            self.tickers[ticker] += rows
            self.first = min(self.first or group["session"], group["session"])
            self.last = max(self.last or group["last"], group["last"])
        else:
            self.elsewhere += rows


def collect(
    files: dict[str, FileReport], delivery: Delivery, requested: Collection[str], known: Collection[str]
) -> None:
    """Add `delivery` to the reports of its files, by name. Rows without a file name come from sources without files.

    - `requested`: the tickers of the run.
    - `known`: the tickers of the settings.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for file, notes in delivery.notes.items():
        report = files.setdefault(file, FileReport(file))
        report.notes = tuple(dict.fromkeys((*report.notes, *notes)))
    rows = delivery.rows.filter(pc.is_valid(delivery.rows["file"]))
    if not rows.num_rows:
        return
    null = pa.scalar(None, pa.string())
    symbols = pc.if_else(pc.is_null(rows["ticker"]), pc.utf8_trim_whitespace(rows["symbol"]), null)
    grouped = pa.table(
        {
            "unread": pc.is_null(rows["session"]),
            "symbol": symbols,
            **{name: rows[name] for name in ("file", "ticker", "problem", "session", "line_number", "line", "date")},
        }
    ).group_by(["file", "ticker", "symbol", "problem", "unread"], use_threads=False)  # "first" depends on the order
    figures = [("session", "min"), ("session", "max"), ([], "count_all")]
    examples = [(name, "first") for name in ("line_number", "line", "date")]
    for group in _plain(grouped.aggregate([*figures, *examples])):
        files.setdefault(group["file"], FileReport(group["file"])).add(group, requested, known)


def _plain(groups: pa.Table) -> Iterator[dict[str, Any]]:
    for group in groups.to_pylist():
        yield {
            **{name: group[name] for name in ("file", "ticker", "symbol", "problem")},
            **{name: group[f"{name}_first"] for name in ("line_number", "line", "date")},
            "session": group["session_min"],
            "last": group["session_max"],
            "rows": group["count_all"],
        }


def _count(counter: Counter[str], symbol: str, rows: int) -> None:
    counter[symbol if symbol in counter or len(counter) < MOST_KINDS else MORE] += rows


def file_lines(
    files: Iterable[FileReport], landings: Mapping[str, Landing], tickers: Collection[str] = ()
) -> Iterator[str]:
    """One line a file, for people. Of more than SHOWN_FILES files only those with complaints are shown, and the sum of the rest.

    - `landings`: what the raw layer did with each file's rows, where that is known.
    - `tickers`: the tickers of the settings.
    """
    shown, rest = most_telling(files)
    for report in shown:
        yield file_line(report, landings.get(report.file), tickers)
    if rest:
        landed = sum((landings[report.file] for report in rest if report.file in landings), Landing())
        yield rest_line(rest) + (f", {landed.landed:,} landed" if landings else "")


def most_telling(files: Iterable[FileReport]) -> tuple[list[FileReport], list[FileReport]]:
    """The files to show one by one, sorted by name, and the rest. Of more than SHOWN_FILES, those with complaints are shown."""
    reports = sorted(files, key=lambda report: report.file)
    if len(reports) <= SHOWN_FILES:
        return reports, []
    shown = [report for report in reports if report.has_complaints][:SHOWN_FILES]
    names = {report.file for report in shown}
    return shown, [report for report in reports if report.file not in names]


def rest_line(rest: Sequence[FileReport]) -> str:
    """The sum of files that are not shown."""
    complaining = sum(report.has_complaints for report in rest)
    more = f" ({complaining:,} of the files with rows refused or of other symbols)" if complaining else ""
    files = f"{len(rest):,} more file{'' if len(rest) == 1 else 's'}"
    return f"{files}: {rows_in_words(sum(report.rows for report in rest))}{more}"


def file_line(report: FileReport, landing: Landing | None = None, tickers: Collection[str] = ()) -> str:
    """The report of a file in one line: its rows, what happened to them, what was refused and why, and what to change."""
    parts = [rows_in_words(report.rows) if report.rows else "no row"]
    if landing is None and report.tickers:
        parts[0] += f", {report.gave:,} of {_names(report.tickers)} from {report.first} to {report.last}"
    if landing is not None:
        parts[0] += f", {landing.landed:,} landed"
        parts += [
            f"{count:,} {outcome}"
            for count, outcome in (
                (landing.repeated, "repeated"),
                (landing.outside, "outside what the run asked for"),
                (landing.withheld, "withheld"),
            )
            if count
        ]
    if report.is_useless:
        parts.append(f"nothing can be used: {why_useless(report, tickers)}")
    else:
        parts += complaints(report, tickers)
    parts += [printable(note) for note in report.notes]
    return f"{printable(report.file)}: " + "; ".join(parts)


def rows_in_words(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def complaints(report: FileReport, tickers: Collection[str] = ()) -> list[str]:
    """Why some rows of a file cannot be used: the most frequent reasons with an example each, and symbols nobody asked for."""
    by_rows = sorted(report.refused.items(), key=lambda item: -item[1].rows)
    texts = [
        f"{refused.rows:,} refused: {_cut(reason, LONGEST_REASON)}{_example(refused)}"
        for reason, refused in by_rows[:SHOWN_REASONS]
    ]
    if len(by_rows) > SHOWN_REASONS:
        rows = sum(refused.rows for _, refused in by_rows[SHOWN_REASONS:])
        texts.append(f"{rows:,} refused for {len(by_rows) - SHOWN_REASONS} more reasons")
    if report.others:
        texts.append(f"{sum(report.others.values()):,} of symbols that nobody asked for: {symbols_of(report, tickers)}")
    return texts


def why_useless(report: FileReport, tickers: Collection[str] = ()) -> str:
    """Why no row of a file can be used, and what to change."""
    if not report.rows:
        return "remove it, or export it again"
    return "; ".join(complaints(report, tickers)) or "it has no row of a ticker that this run asked for"


def symbols_of(report: FileReport, tickers: Collection[str] = ()) -> str:
    """The most frequent symbols that nobody asked for, and how to make their rows usable."""
    shown = report.others.most_common(SHOWN_SYMBOLS)
    names = ", ".join(f"{_cut(symbol)} {rows:,}" for symbol, rows in shown)
    more = f" and {len(report.others) - len(shown)} more symbols" if len(report.others) > len(shown) else ""
    alike = [(symbol, ticker) for symbol, _ in shown if (ticker := spelled_otherwise(symbol, tickers))]
    if alike:
        symbol, ticker = alike[0]
        return f"{names}{more} (if {_cut(symbol)} is {ticker}, write {ticker} in the file)"
    return f"{names}{more} (to load one, add it to `tickers`)"


def spelled_otherwise(symbol: str, tickers: Collection[str]) -> str | None:
    """The ticker that `symbol` seems to mean, or None: BRK.B is BRK-B; NASDAQ:AAPL, AAPL.US and AAPL US Equity are AAPL.

    With the suffix of another exchange, as in SAP.DE, it is another ticker.
    """
    bare = re.sub(r"[. ]US( EQUITY)?$", "", symbol.strip().upper().rpartition(":")[2])
    plain = re.sub("[^A-Z0-9]", "", bare)
    return next((ticker for ticker in tickers if plain and re.sub("[^A-Z0-9]", "", ticker) == plain), None)


def _names(tickers: Counter[str]) -> str:
    shown = sorted(tickers)[:SHOWN_SYMBOLS]
    return ", ".join(shown) + (f" and {len(tickers) - len(shown)} more tickers" if len(tickers) > len(shown) else "")


def _example(refused: Refused) -> str:
    if refused.line_number is None:
        return ""
    text = f": {_cut(refused.example)!r}" if refused.example else ""
    return f" (line {_cut(refused.line_number)}{text})"


def _cut(text: str, length: int = LONGEST_TEXT) -> str:
    text = printable(text)
    return text if len(text) <= length else text[:length] + "…"
