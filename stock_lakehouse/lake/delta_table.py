"""A Delta table of the lake as it is stored: creation, schema evolution, reading, and commits that can be killed.

Not here: which rows a publish writes (delta_publish.py), history and maintenance (history.py, maintenance.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from stock_lakehouse.lake.lock import confirm
from stock_lakehouse.lake.publish import (
    Partition,
    PublishError,
)
from stock_lakehouse.lake.storage import LakeRoot, named, storage_at, under
from stock_lakehouse.lake.stored import Damage, rows_or_reason
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


# Statistics only where JSON holds a value exactly. DataFusion reads a column whose minimum and maximum agree from
# the log instead of the file, and a double can come back one bit off (18 % of files with one row), a timestamp cut to
# milliseconds.
EXACT_IN_JSON = ("date", "int", "bigint")


class SchemaEvolutionError(Exception):
    """The table on disk has columns that the program does not compute; the message says what to do."""


class DeltaTable:
    """`table` of the lake that `options` describe, or at that root with the defaults. `bars_per_chunk` bounds how many rows a
    publish compares one by one at a time. Versions of the last `retention_days` are kept."""

    def __init__(self, options: LakeOptions | LakeRoot, table: Table) -> None:
        options = LakeOptions.of(options)
        self.table = table
        self.retention_days = options.retention_days
        self.path = under(options.lake_root, table.path)
        self.lake_root = options.lake_root
        self.bars_per_chunk = options.bars_per_chunk

    def exists(self) -> bool:
        import deltalake

        with named(self.table.name):
            return deltalake.DeltaTable.is_deltatable(str(self.path))

    def open(self) -> deltalake.DeltaTable:
        import deltalake

        with named(self.table.name):
            return deltalake.DeltaTable(str(self.path))

    def version(self) -> int | None:
        """The table's version, None before its first publish."""
        return self.open().version() if self.exists() else None

    @property
    def location(self) -> str:
        return str(self.path)

    def paths(self) -> list[str]:
        """The files of the present version, under the lake's root."""
        return [self._path_of(add) for add in self._adds()]

    def sizes(self) -> list[int]:
        """Bytes of each file of the present version."""
        return [add["size_bytes"] for add in self._adds()]

    def state(self, tickers: Sequence[str]) -> Hashable:
        """The files of `tickers`; of a table without partitions by ticker, which is small, its rows of `tickers`."""
        import pyarrow.compute as pc

        asked = set(tickers)
        if "ticker" in self.table.partition_by:
            return frozenset(add["path"] for add in self._adds() if add["partition.ticker"] in asked)
        if not self.exists():
            return None
        own = pc.field("ticker").isin(sorted(asked))
        return tuple(rows_in_order(self.open().to_pyarrow_dataset().to_table(filter=own)))

    def damages(self) -> list[Damage]:
        """The files of the present version that are missing, cannot be read, or hold other rows than the log says.

        By size and Parquet footer: two small reads a file.
        """
        import pyarrow.parquet as pq

        storage = storage_at(self.lake_root)
        there = {file.path: file for file in storage.walk(self.table.path)}

        def look(add: dict[str, Any]) -> Damage | None:
            path = self._path_of(add)
            if path not in there:
                return Damage(path, "is missing")
            size = there[path].size
            if size != add["size_bytes"]:
                return Damage(path, f"has {size:,} bytes, its log says {add['size_bytes']:,}")
            rows = rows_or_reason(lambda: int(pq.read_metadata(storage.source(path)).num_rows))
            if isinstance(rows, str):
                return Damage(path, rows)
            if rows != add["num_records"]:
                return Damage(path, f"holds {rows:,} rows, its log says {add['num_records']:,}")
            return None

        return [damage for damage in storage.map(look, self._adds()) if damage is not None]

    def _adds(self) -> list[dict[str, Any]]:
        """The add actions of the present version; none where there is no table yet."""
        return adds_of(self.open()) if self.exists() else []

    def _path_of(self, add: Mapping[str, Any]) -> str:
        """The path under the lake's root of a file that the log names, as a URI."""
        return f"{self.table.path}/{unquote(add['path'])}"

    def ticker_years(self) -> set[tuple[str, int]]:
        """The ticker-years that hold rows, by the log; of a table by ticker and year."""
        return (
            {(ticker, int(year)) for (ticker, year), rows in rows_of(self.open()).items() if rows}
            if self.exists()
            else set()
        )

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> DataFrame:
        """The table's rows, of all tickers and years or of some, in the order of columns of its schema."""
        from pyspark.sql import functions as F

        if not self.exists():
            return spark.createDataFrame([], self.table.ddl)
        frame = spark.read.format("delta").load(str(self.path))
        if tickers is not None:
            frame = frame.where(F.col("ticker").isin(list(tickers)))
        if years is not None:
            frame = frame.where(F.col("year").isin(list(years)))
        # A column that the next publish will add is not there yet.
        types = {one.name: one.type for one in self.table.columns}
        return frame.select(
            *(
                F.col(name) if name in frame.columns else F.lit(None).cast(types[name]).alias(name)
                for name in self.table.column_names
            )
        )

    def prepare(self) -> None:
        """Create the table if it is not there; add the columns that it lacks. Old files stay readable, new columns null.

        Raises SchemaEvolutionError for a column that the table has and the program lacks, or has with another type.
        """
        import deltalake

        wanted = _delta_schema(self.table)
        if not self.exists():
            deltalake.DeltaTable.create(
                str(self.path),
                schema=wanted,
                partition_by=list(self.table.partition_by),
                configuration=self.properties,
                mode="ignore",
            )
            return
        self.set_properties()
        there = {one.name: one for one in self.open().schema().fields}
        types = {one.name: one.type for one in wanted.fields}
        foreign = [name for name, one in there.items() if name not in types or types[name] != one.type]
        if foreign:
            raise SchemaEvolutionError(
                f"{self.table.name}: the table at {self.path} has {', '.join(foreign)}, which this program does not compute "
                "or computes as another type; move that folder away and run again: the table is a function of the "
                "layer above"
            )
        missing = [one for one in wanted.fields if one.name not in there]
        if missing:
            self.open().alter.add_columns(missing)

    @property
    def properties(self) -> dict[str, str]:
        """The table's properties in its log: of which columns files have statistics, and for how long versions are kept.

        Every engine would remove the log of 30 days ago when it writes a checkpoint, Sail at each tenth commit, and with any
        retention the version that was still the newest at its end; so only upkeep removes (lake/maintenance.py).
        """
        exact = [one.name for one in self.table.columns if one.type in EXACT_IN_JSON]
        return {
            "delta.dataSkippingStatsColumns": ",".join(name for name in exact if name not in self.table.partition_by),
            "delta.logRetentionDuration": f"interval {self.retention_days} days",
            "delta.deletedFileRetentionDuration": f"interval {self.retention_days} days",
            "delta.enableExpiredLogCleanup": "false",
        }

    def set_properties(self) -> None:
        """Give a table that is there the properties that it lacks: one commit, or none."""
        opened = self.open()
        there = opened.metadata().configuration
        lacking = {name: value for name, value in self.properties.items() if there.get(name) != value}
        if lacking:
            opened.alter.set_table_properties(lacking, raise_if_not_exists=False)

    def overwrite(self, wanted: DataFrame, predicate: str, version: int, retract: Callable[[], None]) -> bool:
        """Replace the rows of `predicate` by `wanted` in one commit on top of `version`; False if that is not the latest."""
        from pyspark.errors import PySparkException

        confirm(self.lake_root)
        if self.version() != version:
            return False
        mark = uuid.uuid4().hex
        writer = wanted.write.format("delta").mode("overwrite").option("replaceWhere", predicate)
        try:
            writer.option("userMetadata", mark).save(str(self.path))
        except PySparkException as error:
            opened = self.open()
            if opened.version() == version:
                raise PublishError(f"{self.table.name}: nothing was committed: {error}") from error
            # Of a commit whose answer was lost the engine says that another came first, when it has sent it again.
            return self._is_next(opened, mark, version, retract)
        opened = self.open()
        return opened.version() == version + 1 or self._is_next(opened, mark, version, retract)

    def append(self, rows: DataFrame) -> None:
        """Add `rows` in one commit. Raises PublishError when it did not come. Only for the one writer of the table."""
        from pyspark.errors import PySparkException

        mark, version = uuid.uuid4().hex, self.open().version()
        failed: PySparkException | None = None
        try:
            rows.write.format("delta").mode("append").option("userMetadata", mark).save(str(self.path))
        except PySparkException as error:
            failed = error
        opened = self.open()
        if failed or opened.version() != version + 1:
            # Of a commit whose answer was lost an engine may say that it failed, or make it once more.
            mine = _commits_of(mark, opened, version)
            if failed and not mine:  # of no rows an engine makes no commit
                raise PublishError(f"{self.table.name}: nothing was committed, run it again: {failed}") from failed
            if len(mine) > 1:
                opened.restore(mine[0])

    def _is_next(self, opened: deltalake.DeltaTable, mark: str, version: int, retract: Callable[[], None]) -> bool:
        """Whether the commit of `mark` follows `version`. If another came between, of which the comparison knew nothing,
        while the engine planned the write, take it back where it is still the latest."""
        mine = _commits_of(mark, opened, version)
        if version + 1 in mine:  # made once more when its answer was lost, it says the same
            return True
        if mine and mine == list(range(mine[0], opened.version() + 1)):
            retract()
            opened.restore(mine[0] - 1)
        return False


def rows_in_order(table: pa.Table) -> list[tuple[object, ...]]:
    """The rows of a small table, in an order that is the same for the same rows."""
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True), key=repr)


def _commits_of(mark: str, opened: deltalake.DeltaTable, version: int) -> list[int]:
    """The versions after `version` that a write with `mark` committed, in order."""
    since = opened.version() - version
    commits = opened.history(since) if since else []
    return sorted(one["version"] for one in commits if one.get("userMetadata") == mark)


def _delta_schema(table: Table) -> deltalake.Schema:
    from deltalake import Schema

    return Schema.from_arrow(table.arrow_schema)


def adds_of(opened: deltalake.DeltaTable) -> list[dict[str, Any]]:
    """The add actions of the version opened, flattened: num_records, partition.*, min.*, max.*."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = pa.table(opened.get_add_actions(flatten=True)).to_pylist()
    return rows


def rows_of(opened: deltalake.DeltaTable) -> dict[Partition, int]:
    """Rows of each (ticker, year) by the log."""
    rows: dict[Partition, int] = {}
    for add in adds_of(opened):
        pair = (add["partition.ticker"], add["partition.year"])
        rows[pair] = rows.get(pair, 0) + add["num_records"]
    return rows
