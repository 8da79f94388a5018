"""What every stored table offers, whatever its format; and what its files may suffer.

Here: the interface that readers, upkeep and steps use. Not here: a format (raw_csv.py, parquet_table.py, delta_table.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TickerYear = tuple[str, int]


@dataclass(frozen=True)
class Damage:
    """A file that is not as its table says: its path under the lake's root, and what is wrong."""

    path: str
    wrong: str


class StoredTable(Protocol):
    """A table of the lake as it is stored."""

    @property
    def table(self) -> Table: ...

    @property
    def lake_root(self) -> LakeRoot: ...

    @property
    def location(self) -> str:
        """Its folder or URI."""
        ...

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> DataFrame:
        """Its rows of `tickers` and `years` (None: all), with the columns of its schema; no rows where there is no table yet.

        The frame is lazy: it is read when it is computed, each time anew.
        """
        ...

    def paths(self) -> list[str]:
        """Its data files, under the lake's root."""
        ...

    def sizes(self) -> list[int]:
        """Bytes of each of its data files."""
        ...

    def version(self) -> int | None:
        """The number of its present version; None for formats without versions, and before its first publish."""
        ...

    def ticker_years(self) -> set[TickerYear]:
        """The ticker-years that have rows, without a year that could not be read."""
        ...

    def state(self, tickers: Sequence[str]) -> Hashable:
        """What it holds of `tickers` now: another value as soon as a row of theirs changes."""
        ...

    def damages(self) -> list[Damage]:
        """Its files that are missing, or not what was written."""
        ...


def rows_or_reason(count: Callable[[], int]) -> int | str:
    """The rows that `count` finds in a file, or why it cannot be read. An error of the storage itself is raised."""
    try:
        return count()
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:  # pyarrow's errors are both; StorageError is neither
        return f"cannot be read: {str(error).splitlines()[0][:200]}"
