"""The interface of a stored table, whatever its format, and the damage that its files may have.

Readers, upkeep and steps use this interface. Not here: the formats (raw_csv.py, parquet_table.py, delta_table.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from stock_lakehouse.lake.storage import LakeRoot, storage_at
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import DataFrame, SparkSession

TickerYear = tuple[str, int]

# Rows of a row group: a reader of one ticker decodes only the row groups in which the ticker's rows are.
GROUP_ROWS = 16_384


@dataclass(frozen=True)
class Damage:
    """A damaged or missing file.

    - path: its path under the lake's root
    - reason: what is wrong with it
    """

    path: str
    reason: str


class StoredTable(Protocol):
    """A stored table of the lake."""

    @property
    def table(self) -> Table:
        """The table, with the layout that it has on disk if its folder depends on that."""
        ...

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

    def read_arrow(self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None) -> pa.Table:
        """The same rows without an engine, in no particular order."""
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

    def ticker_years(self, skip_damaged: bool = False) -> set[TickerYear]:
        """The ticker-years that have rows, without rows whose year could not be read.

        `skip_damaged`: leave out what only a damaged file could tell, instead of raising its error.
        """
        ...

    def state(self, tickers: Sequence[str]) -> Hashable:
        """The state of the rows of `tickers`: a value that changes as soon as one of these rows changes."""
        ...

    def damages(self) -> list[Damage]:
        """The data files that are missing, or that are not as they were written."""
        ...


def conformed(rows: pa.Table, table: Table) -> pa.Table:
    """`rows` with the columns of `table`, in their order and types. A column that they lack is null."""
    import pyarrow as pa

    schema = table.arrow_schema
    columns: list[Any] = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


@lru_cache(maxsize=4096)
def tickers_in(lake_root: LakeRoot, path: str, version_tag: str) -> frozenset[str]:
    """The tickers that a Parquet file holds, read from that column alone.

    `version_tag`: identity of the content; empty for a file whose path is never written twice, like those of a Delta table.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(storage_at(lake_root).ranged(path)) as file:
        return frozenset(file.read(["ticker"])["ticker"].unique().to_pylist())


def tickers_of(lake_root: LakeRoot, path: str, version_tag: str, skip_damaged: bool) -> frozenset[str]:
    """`tickers_in`; none for a damaged or missing file with `skip_damaged`."""
    try:
        return tickers_in(lake_root, path, version_tag)
    except (OSError, ValueError):  # pyarrow raises both; StorageError is neither
        if not skip_damaged:
            raise
        return frozenset()


def groups_with(metadata: pq.FileMetaData, tickers: Collection[str]) -> list[int]:
    """The row groups of a file that may hold rows of `tickers`, by the statistics of its column `ticker`."""
    bounds = _ticker_bounds(metadata)
    return [
        group
        for group, span in enumerate(bounds)
        if span is None or any(span[0] <= ticker <= span[1] for ticker in tickers)
    ]


def is_sorted(metadata: pq.FileMetaData) -> bool:
    """Whether a reader of one ticker can skip most row groups: none is large, and their tickers ascend."""
    bounds = _ticker_bounds(metadata)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return max(sizes, default=0) <= GROUP_ROWS and all(
        span is not None and following is not None and span[1] <= following[0] for span, following in pairwise(bounds)
    )


def _ticker_bounds(metadata: pq.FileMetaData) -> list[tuple[str, str] | None]:
    """The first and last ticker of each row group; None where the file does not say."""
    column = metadata.schema.names.index("ticker")
    found: list[tuple[str, str] | None] = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(column).statistics
        known = statistics is not None and statistics.has_min_max
        found.append((statistics.min, statistics.max) if known else None)
    return found


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
