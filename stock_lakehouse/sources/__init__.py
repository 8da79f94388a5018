"""What every source of bars gives: deliveries of text, exactly as the vendor wrote them.

Here: the protocol and its records. Not here: one vendor's ways (a module each) and any judgement of the values, which
belongs to `transforms/processed.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


# The columns of a delivered row, all text, in order; what each means stands in `schemas/raw.py`. `ticker` is the ticker that was
# asked for, or the file's; null where neither is known. `symbol` is what the row itself says.
# A row that cannot be read as a whole has `problem`, a sentence that says why and what to change; one that could not be split
# into columns has its text in `line` and no delivered column.
# From `adjusted_to` on nothing is delivered; it is what the source knows of the delivery: `session` the day that the date means,
# `adjusted_to` the day of the newest valid bar that the vendor had of the ticker (of an as-traded bar its own day), null if
# unknown.
DELIVERED_COLUMNS = (
    "ticker",
    "symbol",
    "date",
    "open",
    "high",
    "low",
    "close",
    "adj_close",
    "volume",
    "dividends",
    "stock_splits",
    "capital_gains",
    "problem",
    "line",
    "adjusted_to",
    "file",
    "line_number",
    "session",
    "decimal",
    "basis",
    "adj_close_as_of",
    "says",
)
SPLIT_ADJUSTED, AS_TRADED = "split_adjusted", "as_traded"
AS_TRADED_ADJUSTED_CLOSE, TOTAL_RETURN = "as_traded_adjusted_close", "total_return"
# What open to close may be adjusted for: the splits until the delivery; nothing; nothing, beside an adjusted close of the day of
# the download (Quandl, Tiingo, Alpha Vantage, EODHD); splits and dividends until the delivery (`yfinance.Ticker.history()`).
PRICE_FORMS = (SPLIT_ADJUSTED, AS_TRADED, AS_TRADED_ADJUSTED_CLOSE, TOTAL_RETURN)


class UnusedColumn(str):
    """The note of a delivery that a column is left out which should perhaps have been read."""


class SourceError(Exception):
    """A source cannot deliver at all; the message says what to change."""


class FailureKind(StrEnum):
    """Why a ticker could not be had."""

    UNKNOWN_TICKER = "unknown ticker"  # the source says that it has no such ticker
    UNAVAILABLE = "unavailable"  # no usable answer after every retry
    WITHHELD = "withheld"  # delivered, but nobody can say what its prices are adjusted for


@dataclass(frozen=True)
class DeliveryFailure:
    """A ticker that could not be had: the kind, for programs, and the reason in words, for people."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True)
class Delivery:
    """What one request, or one file, brought.

    `rows` holds `DELIVERED_COLUMNS`, all text and nullable, in the order delivered. `failed` maps each ticker that could
    not be had, after every retry, to its failure; a ticker that answered "no bars in this range" has not failed. `notes` has by
    file what its reader says of the file as a whole: which form it recognised, which of two columns it took, which
    column is left out (an UnusedColumn: the check `files_read` is then red). A file without any row is named there too, be it
    without a note.
    """

    rows: pa.Table
    failed: Mapping[str, DeliveryFailure] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contradiction:
    """Several different rows of one ticker and session in one download: the last of them counts."""

    ticker: str
    session: str
    rows: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Landing:
    """What became of delivered rows in the raw layer: `delivered` = `landed` + `repeated` + `outside` + `withheld`.

    - repeated: the newest landed row of the ticker and session says the same
    - outside: of other tickers or sessions than asked
    - withheld: prices of which it is not known what splits they are adjusted for; `unknown` has the reason by ticker
    - readjusted: by ticker the factor by which its vendor has adjusted older prices anew that landed before and are not asked for
    - by_file: the counts of each file, where the source has files
    """

    delivered: int = 0
    landed: int = 0
    repeated: int = 0
    outside: int = 0
    withheld: int = 0
    files: int = 0
    unknown: Mapping[str, str] = field(default_factory=dict)
    readjusted: Mapping[str, float] = field(default_factory=dict)
    contradictions: tuple[Contradiction, ...] = ()
    by_file: Mapping[str, Landing] = field(default_factory=dict)

    def __add__(self, other: Landing) -> Landing:
        names = (*COUNTS, "files")
        by_file = dict(self.by_file)
        for name, landing in other.by_file.items():
            by_file[name] = by_file.get(name, Landing()) + landing
        return Landing(
            **{name: getattr(self, name) + getattr(other, name) for name in names},
            unknown={**self.unknown, **other.unknown},
            readjusted={**self.readjusted, **other.readjusted},
            contradictions=(*self.contradictions, *other.contradictions),
            by_file=by_file,
        )

    @property
    def counts(self) -> dict[str, int]:
        """Rows by what became of them, all of `COUNTS`."""
        return {name: getattr(self, name) for name in COUNTS}


COUNTS = ("delivered", "landed", "repeated", "outside", "withheld")


class Source(Protocol):
    """Somewhere that bars come from."""

    @property
    def name(self) -> str:
        """As in the settings and in raw's column `source`."""
        ...

    @property
    def interval(self) -> str:
        """Length of a bar, like 1d."""
        ...

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield what the source has for `tickers` from `first` to `last`, both included, a batch at a time.

        A source may bring more than was asked for; the raw layer counts what is outside and does not land it.
        Raises SourceError when nothing can be asked (a missing folder, an impossible setting).
        """
        ...


def delivered_table(columns: Mapping[str, Sequence[str | None]]) -> pa.Table:
    """A table of `DELIVERED_COLUMNS` from some of them; the others are null. All columns must be of one length."""
    import pyarrow as pa

    length = len(next(iter(columns.values()), ()))
    missing = pa.nulls(length, pa.string())
    arrays = [pa.array(columns[name], pa.string()) if name in columns else missing for name in DELIVERED_COLUMNS]
    return pa.table(arrays, names=list(DELIVERED_COLUMNS))


def printable(text: str) -> str:
    """Delivered text, or a file's name, for people: what steers a terminal, ends a line or is no UTF-8 stands as its code."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
