"""A Delta table of the lake: published by comparison, one atomic commit, and announced to the ledger.

Here: creation, schema evolution, the comparison and the commit. Not here: the ledger's lines (ledger.py), what the rows mean.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.causes import cause_of
from stock_lakehouse.lake.lease import LeaseLostError
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import (
    BARS_PER_CHUNK,
    Partition,
    Published,
    PublishError,
    chunks,
    differing_partitions,
    in_keys,
    literals,
    partition_predicate,
    publishable,
)
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import LakeRoot, named, under
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CURATED, Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

    from stock_lakehouse.lake.ledger import Ledger

# Statistics only where JSON holds a value exactly. DataFusion reads a column whose minimum and maximum agree from
# the log instead of the file, and a double can come back one bit off (18 % of files with one row), a timestamp cut to
# milliseconds.
EXACT_IN_JSON = ("date", "int", "bigint")
# Provenance: a change of it alone is published, but restates nothing.
NOT_A_VALUE = ("ingested_at", "split_factor", "basis_factor", "adj_close_deviation")
COMMIT_ATTEMPTS = 5
RETENTION_DAYS = 365


class SchemaEvolutionError(Exception):
    """The table on disk has columns that the program does not compute; the message says what to do."""


class DeltaTable:
    """`table` under `lake_root`. `bars_per_chunk` bounds how many rows a publish compares one by one at a time. Versions of
    the last `retention_days` are kept."""

    def __init__(
        self,
        lake_root: LakeRoot,
        table: Table,
        bars_per_chunk: int = BARS_PER_CHUNK,
        retention_days: int = RETENTION_DAYS,
    ) -> None:
        self.table = table
        self.retention_days = retention_days
        self.path = under(lake_root, table.path)
        self._lake_root = lake_root
        self._bars_per_chunk = bars_per_chunk

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

    def sizes(self) -> list[int]:
        """Bytes of each file of the present version."""
        return [add["size_bytes"] for add in adds_of(self.open())] if self.exists() else []

    def ticker_years(self) -> set[tuple[str, int]]:
        """The ticker-years that hold rows, by the log; of a table by ticker and year."""
        return (
            {(ticker, int(year)) for (ticker, year), rows in _rows_of(self.open()).items() if rows}
            if self.exists()
            else set()
        )

    def read(self, spark: SparkSession, tickers: Sequence[str] | None = None) -> DataFrame:
        """The table's rows, of all tickers or of some, in the order of columns of its schema."""
        from pyspark.sql import functions as F

        if not self.exists():
            return spark.createDataFrame([], self.table.ddl)
        frame = spark.read.format("delta").load(str(self.path))
        if tickers is not None:
            frame = frame.where(F.col("ticker").isin(list(tickers)))
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
        retention the version that was still the newest at its end; so only upkeep removes (lake/upkeep.py).
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

    def publish(
        self,
        computed: DataFrame,
        rectangle: Rectangle,
        staging: Staging,
        ledger: Ledger,
        *,
        run_id: str,
        now: datetime,
        within: str | None = None,
    ) -> Published:
        """Bring the table to what a run for `rectangle` may publish of `computed`; write only ticker-years that differ.

        `computed` holds all rows of the rectangle's tickers, or those of the ticker-years of which the SQL `within` holds. One
        commit; before it, the ledger says what will change. Safe to kill and repeat at any point.
        Raises PublishError when another writer keeps winning, or the commit does not hold what was computed; AuditError when the
        ledger's lines break its schema; StorageError when the disk is full or the store fails.
        """
        spark = computed.sparkSession
        with named(self.table.name), one_writer(self._lake_root, self.table.name):
            if self.exists():
                # Before a column is added: that is a commit too, past which a line announced in vain would count.
                ledger.settle(self.table.name, self.open())
            self.prepare()
            for _ in range(COMMIT_ATTEMPTS):
                before = self.open()
                published = self.read(spark, rectangle.tickers).where(within or "true") if before.file_uris() else None
                changes = self._changes(computed, published, rectangle, staging)
                if changes is None:
                    return Published(version=before.version())
                kinds = {
                    (row["ticker"], row["year"], row["kind"]): row["count"]
                    for row in changes.groupBy("ticker", "year", "kind").count().collect()
                }
                pairs = sorted({(ticker, year) for ticker, year, _ in kinds})
                if not pairs:
                    return Published(version=before.version())
                if any(kind != "added" for _, _, kind in kinds):
                    ledger.announce(self.table, changes, staging, run_id=run_id, now=now, before=before)
                predicate = partition_predicate(pairs)
                # The predicate on both sides of the join inside: a year of the key says it of the other side too.
                there = published.where(predicate) if published is not None else None
                wanted = publishable(computed.where(predicate), there, rectangle).select(*self._columns(before))
                # Before a version is taken back, too: past that, a line of it would count.
                retract = partial(ledger.retract, run_id, before)
                try:
                    if self._commit(wanted, predicate, before.version(), retract):
                        return self._verify(pairs, kinds, before, retract)
                except (PublishError, LeaseLostError):
                    retract()
                    raise
                # A writer outside the lock (another machine) came first: compare again with what it left.
                retract()
        raise PublishError(
            f"{self.table.name}: another writer committed {COMMIT_ATTEMPTS} times while this run compared; "
            "run it again when the other has ended"
        )

    def replace(self, rows: pa.Table, tickers: Sequence[str], years: Sequence[int] | None = None) -> bool:
        """Make `rows` all that the table holds of `tickers`, in `years` if these are given; whether it was a change.

        One commit, or none. For tables of few rows without partitions. Raises PublishError.
        """
        import deltalake
        import deltalake.exceptions
        import pyarrow.compute as pc

        if not tickers:
            return False
        with named(self.table.name), one_writer(self._lake_root, self.table.name):
            self.prepare()
            confirm(self._lake_root)
            opened = self.open()
            mine, own = f"ticker IN ({literals(tickers)})", pc.field("ticker").isin(list(tickers))
            if years is not None:
                mine, own = f"{mine} AND year IN ({literals(years)})", own & pc.field("year").isin(list(years))
            names = [one.name for one in opened.schema().fields]
            new = rows.select(names)
            there = opened.to_pyarrow_dataset().to_table(columns=names, filter=own)
            if _rows(new) == _rows(there):
                return False
            try:
                deltalake.write_deltalake(opened, new, mode="overwrite", predicate=mine)
            except deltalake.exceptions.CommitFailedError as error:
                raise PublishError(f"{self.table.name}: another writer came first, run it again: {error}") from error
        return True

    def _commit(self, wanted: DataFrame, predicate: str, version: int, retract: Callable[[], None]) -> bool:
        """Replace the rows of `predicate` by `wanted` in one commit on top of `version`; False if that is not the latest."""
        from pyspark.errors import PySparkException

        confirm(self._lake_root)
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

    def _columns(self, opened: deltalake.DeltaTable) -> list[str]:
        """replaceWhere wants the table's columns in the table's order."""
        return [one.name for one in opened.schema().fields]

    def _changes(
        self, computed: DataFrame, published: DataFrame | None, rectangle: Rectangle, staging: Staging
    ) -> DataFrame | None:
        """A row for each row that differs, None if surely none does: ticker, year, date, kind (added, corrected, withdrawn)
        and what changed.

        `cells` holds (column, old, new, cause) of each value that changed; where the ledger keeps a line a ticker, names only.
        """
        from pyspark.sql import functions as F

        if published is None:  # nothing to compare with, and the rows are only counted
            inside = computed.where(in_keys(rectangle))
            return inside.select(*self.table.key, "year", F.lit("added").alias("kind"), _nothing().alias("cells"))
        pairs = differing_partitions(computed, published)
        compared = [
            self._compared(computed.where(predicate), published.where(predicate), rectangle)
            for predicate in map(partition_predicate, chunks(pairs, self._bars_per_chunk))
        ]
        return staging.stage(*compared) if compared else None

    def _compared(self, computed: DataFrame, published: DataFrame, rectangle: Rectangle) -> DataFrame:
        """`_changes` of the two frames, row by row."""
        from pyspark.sql import functions as F

        values = [name for name in self.table.column_names if name not in (*self.table.key, "year")]
        key = [*self.table.key, "year"]
        new = computed.select(*key, F.struct(*values).alias("new"), F.lit(True).alias("is_computed"))
        old = published.select(*key, F.struct(*values).alias("old"), F.lit(True).alias("is_published"))
        kind = (
            F.when(F.col("is_published").isNull(), "added")
            .when(F.col("is_computed").isNull(), "withdrawn")
            .otherwise("corrected")
        )
        differs = (
            F.col("is_published").isNull() | F.col("is_computed").isNull() | ~F.col("new").eqNullSafe(F.col("old"))
        )
        both = new.join(old, key, "full").where(differs).where(in_keys(rectangle) | F.col("is_published"))
        cells = F.array_compact(F.array(*(self._cell(name) for name in values if name not in NOT_A_VALUE)))
        return both.select(
            *key, kind.alias("kind"), F.when(F.col("is_published"), cells).otherwise(_nothing()).alias("cells")
        )

    def _cell(self, name: str) -> Column:
        from pyspark.sql import functions as F

        old, new = F.col(f"old.{name}"), F.col(f"new.{name}")
        said = (old, new, cause_of(name)) if self.table == CURATED else (F.lit(None),) * 3
        texts = (one.cast("string").alias(part) for one, part in zip(said, ("old", "new", "cause"), strict=True))
        cell = F.struct(F.lit(name).alias("column"), *texts)
        return F.when(~old.eqNullSafe(new), cell)

    def _verify(
        self,
        pairs: Sequence[Partition],
        kinds: dict[tuple[str, int | str, str], int],
        before: deltalake.DeltaTable,
        retract: Callable[[], None],
    ) -> Published:
        """Hold the commit's own row counts against what the comparison said: an engine that drops rows says nothing."""

        def count(kind: str) -> int:
            return sum(number for (_, _, one), number in kinds.items() if one == kind)

        after = self.open()
        version = after.version()
        rows_before, rows_after = _rows_of(before), _rows_of(after)
        for pair in pairs:
            expected = rows_before.get(pair, 0) + kinds.get((*pair, "added"), 0) - kinds.get((*pair, "withdrawn"), 0)
            if rows_after.get(pair, 0) != expected:
                retract()
                after.restore(before.version())
                raise PublishError(
                    f"{self.table.name}: version {version} holds {rows_after.get(pair, 0)} rows of {pair}, not "
                    f"{expected}; the table was put back to version {before.version()}, run it again"
                )
        return Published(
            rows=sum(rows_after.get(pair, 0) for pair in pairs),
            partitions=len(pairs),
            added=count("added"),
            corrected=count("corrected"),
            withdrawn=count("withdrawn"),
            version=version,
        )


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True), key=repr)


def _commits_of(mark: str, opened: deltalake.DeltaTable, version: int) -> list[int]:
    """The versions after `version` that a write with `mark` committed, in order."""
    since = opened.version() - version
    commits = opened.history(since) if since else []
    return sorted(one["version"] for one in commits if one.get("userMetadata") == mark)


def _nothing() -> Column:
    """The `cells` of a row of which no published value changed."""
    from pyspark.sql import functions as F

    return F.array().cast("array<struct<column:string,old:string,new:string,cause:string>>")


def _delta_schema(table: Table) -> deltalake.Schema:
    from deltalake import Schema

    return Schema.from_arrow(table.arrow_schema)


def adds_of(opened: deltalake.DeltaTable) -> list[dict[str, Any]]:
    """The add actions of the version opened, flattened: num_records, partition.*, min.*, max.*."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = pa.table(opened.get_add_actions(flatten=True)).to_pylist()
    return rows


def _rows_of(opened: deltalake.DeltaTable) -> dict[Partition, int]:
    """Rows of each (ticker, year) by the log."""
    rows: dict[Partition, int] = {}
    for add in adds_of(opened):
        pair = (add["partition.ticker"], add["partition.year"])
        rows[pair] = rows.get(pair, 0) + add["num_records"]
    return rows
