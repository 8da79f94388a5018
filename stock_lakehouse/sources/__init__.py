"""The protocol of a source of bars. A source delivers text, exactly as the vendor wrote it.

Here: the protocol and its records. Not here: how one vendor is read (a module each) and the validation of values, which
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


# The columns of a delivered row, all text, in order. `schemas/raw.py` describes each of them.
# - `ticker`: the requested ticker, or the ticker that the file is named after; null if neither is known.
# - `symbol`: the ticker as the row itself gives it.
# - `problem`: for a row that cannot be read as a whole, a sentence that says why and what to change.
# - `line`: the text of a row that could not be split into columns; such a row has no delivered columns.
# The columns from `adjusted_to` on are not delivered. They hold what the source knows about the delivery:
# - `adjusted_to`: the day of the newest valid bar that the vendor had of the ticker; of an as-traded bar, its own day; null if
#   unknown.
# - `session`: the day that the date means.
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
# What open to close may be adjusted for:
# - split_adjusted: the splits until the delivery.
# - as_traded: nothing.
# - as_traded_adjusted_close: nothing, with an adjusted close as of the download (Quandl, Tiingo, Alpha Vantage, EODHD).
# - total_return: the splits and dividends until the delivery (`yfinance.Ticker.history()`).
PRICE_FORMS = (SPLIT_ADJUSTED, AS_TRADED, AS_TRADED_ADJUSTED_CLOSE, TOTAL_RETURN)


class UnusedColumn(str):
    """A note of a delivery: a column is not used that perhaps should have been read."""


class SourceError(Exception):
    """A source cannot deliver anything; the message says what to change."""


class FailureKind(StrEnum):
    """Why a ticker could not be delivered."""

    UNKNOWN_TICKER = "unknown ticker"  # the source says that it has no such ticker
    UNAVAILABLE = "unavailable"  # no usable answer after every retry
    WITHHELD = "withheld"  # delivered, but it is unknown what its prices are adjusted for


@dataclass(frozen=True)
class DeliveryFailure:
    """Why one ticker could not be delivered.

    - `kind`: for programs.
    - `reason`: in words, for people.
    """

    kind: FailureKind
    reason: str


@dataclass(frozen=True)
class Delivery:
    """The result of one request or one file.

    - `rows`: `DELIVERED_COLUMNS`, all text and nullable, in the order delivered.
    - `failed`: the failure of each ticker that could not be delivered after every retry. A ticker that answered "no bars in this
      range" has not failed.
    - `notes`: by file, what its reader decided about the file as a whole: which form it recognised, which of two columns it read,
      which column it left out (an UnusedColumn: the check `files_read` is then red). A file without rows is listed too, even if
      it has no note.
    """

    rows: pa.Table
    failed: Mapping[str, DeliveryFailure] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contradiction:
    """Several different rows of one ticker and session in one download. The last row counts."""

    ticker: str
    session: str
    rows: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Landing:
    """What the raw layer did with delivered rows: `delivered` = `landed` + `repeated` + `outside` + `withheld`.

    - repeated: rows with the same text as the newest landed row of the ticker and session
    - outside: rows of other tickers or sessions than requested
    - withheld: rows of prices whose split adjustment is unknown; `unknown` has the reason by ticker
    - readjusted: by ticker, the factor by which the vendor has since readjusted older prices that landed before and that this
      request does not include
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
        """The number of rows for each of `COUNTS`."""
        return {name: getattr(self, name) for name in COUNTS}


COUNTS = ("delivered", "landed", "repeated", "outside", "withheld")


class Source(Protocol):
    """A provider of bars."""

    @property
    def name(self) -> str:
        """The name in the settings and in raw's column `source`."""
        ...

    @property
    def interval(self) -> str:
        """Length of a bar, such as 1d."""
        ...

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield what the source has for `tickers` from `first` to `last`, both included, a batch at a time.

        A source may deliver more than was requested; the raw layer counts what is outside the request and does not land it.
        Raises SourceError when no request is possible (a missing folder, an invalid setting).
        """
        ...


def delivered_table(columns: Mapping[str, Sequence[str | None]]) -> pa.Table:
    """A table of `DELIVERED_COLUMNS` from some of them; the others are null. All columns must have the same length."""
    import pyarrow as pa

    length = len(next(iter(columns.values()), ()))
    nulls = pa.nulls(length, pa.string())
    arrays = [pa.array(columns[name], pa.string()) if name in columns else nulls for name in DELIVERED_COLUMNS]
    return pa.table(arrays, names=list(DELIVERED_COLUMNS))


def printable(text: str) -> str:
    """Delivered text, or a file's name, safe to print: control characters, line ends and invalid UTF-8 are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
