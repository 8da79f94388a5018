"""A Parquet table of the lake: one file per ticker and year, replaced atomically, and only when its rows changed.

The engine writes the new files beside the table. One atomic step moves each to its place: a rename in a folder; in a bucket a
conditional write, which fails if the file has changed since it was compared. Not here: what the rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import (
    Partition,
    Published,
    PublishError,
    chunks,
    differing_partitions,
    of_tickers,
    partition_folder,
    partition_of,
    partition_predicate,
    publishable,
)
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import ChangedError, File, LakeRoot, storage_at, under
from stock_lakehouse.lake.stored import Damage, rows_or_reason
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FILE = "data.parquet"


class ParquetTable:
    """A Parquet table of a lake.

    `options`: the lake's options; or only its root, which then has the defaults. `bars_per_chunk` limits the rows that a publish
    compares row by row at a time. `partitions_per_write` limits the engine's open files, which take 2 MB of memory per ticker
    and year.
    """

    def __init__(self, options: LakeOptions | LakeRoot, table: Table) -> None:
        options = LakeOptions.of(options)
        self.table = table
        self.root = under(options.lake_root, table.path)
        self.lake_root = options.lake_root
        self._storage = storage_at(options.lake_root)
        self._bars_per_chunk = options.bars_per_chunk
        self._partitions_per_write = options.partitions_per_write

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int | str] | None = None
    ) -> DataFrame:
        """The table's rows of `tickers` and `years` (None: all)."""
        from pyspark.sql import functions as F

        if next(self._walk(), None) is None:
            return spark.createDataFrame([], self.table.ddl)
        frame = spark.read.schema(self.table.ddl).parquet(str(self.root))
        if tickers is not None:
            frame = of_tickers(frame, tickers)
        if years is not None:
            frame = frame.where(F.col("year").isin(list(years)))
        return frame

    @property
    def location(self) -> str:
        return str(self.root)

    def files(self) -> list[File]:
        """The table's files, one per ticker and year."""
        return sorted(self._walk(), key=lambda file: file.path)

    def paths(self) -> list[str]:
        return [file.path for file in self.files()]

    def sizes(self) -> list[int]:
        return [file.size for file in self.files()]

    def version(self) -> None:
        """None: Parquet files have no version."""
        return None

    def state(self, tickers: Sequence[str]) -> frozenset[tuple[str, str]]:
        """Path and version tag of each file of `tickers`."""
        wanted = set(tickers)
        return frozenset((file.path, file.version_tag) for file in self._walk() if partition_of(file.path)[0] in wanted)

    def damages(self) -> list[Damage]:
        """The files that cannot be read with the table's schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = {
            field.name: field.type for field in self.table.arrow_schema if field.name not in self.table.partition_by
        }

        def rows_in(file: File) -> int:
            rows = pq.ParquetFile(self._storage.source(file.path)).read()
            # A file that was written before a column was added lacks the column, and is read with nulls.
            actual = {name: rows.schema.field(name).type for name in rows.column_names}
            if differing := sorted(name for name, kind in wanted.items() if actual.get(name, kind) != kind):
                raise pa.ArrowInvalid(f"{', '.join(differing)} not as in its schema")
            return int(rows.num_rows)

        def look(file: File) -> Damage | None:
            rows = rows_or_reason(lambda: rows_in(file))
            return Damage(file.path, rows) if isinstance(rows, str) else None

        return [damage for damage in self._storage.map(look, self.files()) if damage is not None]

    def years(self) -> set[int]:
        """The years that have a file."""
        return {year for _, year in self.ticker_years()}

    def ticker_years(self) -> set[tuple[str, int]]:
        """The ticker-years that have a file, without the partition of rows whose year could not be read."""
        pairs = (partition_of(file.path) for file in self._walk())
        return {(ticker, int(year)) for ticker, year in pairs if year.isdigit()}

    def _walk(self) -> Iterator[File]:
        return (file for file in self._storage.walk(self.table.path) if file.name == FILE)

    def publish(
        self,
        computed: DataFrame,
        tickers: Sequence[str],
        years: Sequence[int | str],
        staging: Staging,
        rectangle: Rectangle | None = None,
    ) -> Published:
        """Make the ticker-years `tickers` × `years` equal to `computed`; with `rectangle`, to what a run for it may publish.

        Ticker-years that are equal already are not written. The publish can be killed and repeated at any point: each rename
        completes one ticker-year. Raises PublishError if the engine wrote other rows than computed, or another writer changed a
        file meanwhile.
        """
        spark = computed.sparkSession
        with one_writer(self.lake_root, self.table.name):
            files = self._storage.compared(self.table.path)
            published = self.read(spark, tickers, years)
            wanted = publishable(self.table, computed, published, rectangle) if rectangle else computed
            wanted = staging.stage(wanted.select(*self.table.column_names))
            changed: dict[Partition, _Difference] = {}
            for pairs in chunks(self.table, differing_partitions(wanted, published), self._bars_per_chunk):
                predicate = partition_predicate(pairs)
                changed |= _differing(wanted.where(predicate), published.where(predicate))
            names = sorted(changed)
            for start in range(0, len(names), self._partitions_per_write):
                batch = names[start : start + self._partitions_per_write]
                self._replace(wanted, {pair: changed[pair].rows for pair in batch}, staging, files)
        return Published(
            rows=sum(difference.rows for difference in changed.values()),
            partitions=len(changed),
            added=sum(max(difference.new - difference.gone, 0) for difference in changed.values()),
            corrected=sum(min(difference.new, difference.gone) for difference in changed.values()),
            withdrawn=sum(max(difference.gone - difference.new, 0) for difference in changed.values()),
        )

    def _replace(
        self,
        wanted: DataFrame,
        rows: Mapping[Partition, int],
        staging: Staging,
        compared: Mapping[str, File],
    ) -> None:
        """Write the ticker-years of `rows` beside the table, check their row counts, then move each file to its place.

        `rows`: the expected rows of each ticker-year.
        `compared`: the table's files as they were before the comparison.
        """
        import pyarrow.parquet as pq

        folder = staging.new_path()
        order = [name for name in ("ticker", "year", "date", "ingested_at") if name in self.table.column_names]
        frame = wanted.where(partition_predicate(rows)).coalesce(1).sortWithinPartitions(*order)
        frame.write.partitionBy(*self.table.partition_by).parquet(staging.storage.uri(folder))
        written: dict[tuple[str, str], list[str]] = {}
        for file in staging.storage.walk(folder):
            if file.name.endswith(".parquet"):
                written.setdefault(partition_of(file.path), []).append(file.path)

        def count(paths: list[str]) -> int:
            return sum(pq.read_metadata(staging.storage.source(path)).num_rows for path in paths)

        sources = [written.get((ticker, str(year)), []) for ticker, year in rows]
        counts = self._storage.map(count, sources)
        moves, removals = [], []
        for ((ticker, year), expected), paths, actual in zip(rows.items(), sources, counts, strict=True):
            place = partition_folder(ticker, year)
            if actual != expected or len(paths) > 1:
                raise PublishError(
                    f"{self.table.name}: {actual} rows in {len(paths)} files were written for {place}, not {expected} in "
                    "one; nothing of this batch was published, run it again"
                )
            target = f"{self.table.path}/{place}/{FILE}"
            if paths:
                moves.append((paths[0], target, compared.get(target)))
            else:
                removals.append(target)
        confirm(self.lake_root)
        try:
            for _ in self._storage.map(lambda move: self._storage.take(staging.storage, *move), moves):
                pass
        except ChangedError as error:
            raise PublishError(
                f"{self.table.name}: another writer changed {error} while this run compared; run it again"
            ) from None
        self._storage.delete(removals)


@dataclass(frozen=True)
class _Difference:
    """The difference of a ticker-year between what was computed and what is published.

    `rows`: rows that were computed.
    `new`: rows of them that are not published.
    `gone`: rows that are published but were not computed.
    """

    rows: int
    new: int
    gone: int


def _differing(wanted: DataFrame, published: DataFrame) -> dict[Partition, _Difference]:
    """The ticker-years in which the two frames do not hold the same rows. All columns are compared; rows may repeat."""
    from pyspark.sql import functions as F

    both = wanted.withColumn("side", F.lit(1)).unionByName(published.withColumn("side", F.lit(-1)))
    per_row = both.groupBy(*wanted.columns).agg(
        F.sum("side").alias("balance"), F.sum(F.when(F.col("side") == 1, 1).otherwise(0)).alias("rows")
    )
    per_partition = per_row.groupBy("ticker", "year").agg(
        F.sum("rows").alias("rows"),
        F.sum(F.greatest("balance", F.lit(0))).alias("new"),
        F.sum(F.greatest(-F.col("balance"), F.lit(0))).alias("gone"),
    )
    return {
        (row["ticker"], row["year"]): _Difference(row["rows"], row["new"], row["gone"])
        for row in per_partition.where("new > 0 OR gone > 0").collect()
    }
