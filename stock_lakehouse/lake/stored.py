"""The interface of a stored table, whatever its format, and the damage that its files may have.

Readers, upkeep and steps use this interface. Not here: the formats (raw_csv.py, parquet_table.py, delta_table.py).
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
    """A damaged or missing file. `path`: its path under the lake's root. `wrong`: what is wrong with it."""

    path: str
    wrong: str


class StoredTable(Protocol):
    """A stored table of the lake."""

    @property
    def table(self) -> Table: ...

    @property
    def lake_root(self) -> LakeRoot: ...

    @property
    def location(self) -> str:
        """The table's folder or URI."""
        ...

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> DataFrame:
        """The rows of `tickers` and `years` (None: all), with the columns of the schema; no rows if there is no table yet.

        The frame is lazy: every computation reads the table again.
        """
        ...

    def paths(self) -> list[str]:
        """The table's data files, as paths under the lake's root."""
        ...

    def sizes(self) -> list[int]:
        """The size of each data file in bytes."""
        ...

    def version(self) -> int | None:
        """The number of the present version; None for formats without versions, and before the first publish."""
        ...

    def ticker_years(self) -> set[TickerYear]:
        """The ticker-years that have rows, without rows whose year could not be read."""
        ...

    def state(self, tickers: Sequence[str]) -> Hashable:
        """The state of the rows of `tickers`: a value that changes as soon as one of these rows changes."""
        ...

    def damages(self) -> list[Damage]:
        """The data files that are missing, or that are not as they were written."""
        ...


def rows_or_reason(count: Callable[[], int]) -> int | str:
    """The number of rows that `count` returns for a file, or the reason why the file cannot be read.

    A StorageError is raised, because it tells nothing about the file.
    """
    try:
        return count()
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:  # pyarrow raises both; StorageError is neither
        return f"cannot be read: {str(error).splitlines()[0][:200]}"
