"""A stored Delta table of the lake: creation, schema evolution, reads, and commits that can be killed at any point.

Not here: which rows a publish writes (delta_publish.py), history and maintenance (history.py, maintenance.py).
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stock_lakehouse.lake.history import file_name
from stock_lakehouse.lake.links import engine_path
from stock_lakehouse.lake.lock import confirm
from stock_lakehouse.lake.publish import PublishError, check_layout, sort_columns
from stock_lakehouse.lake.storage import LakeRoot, named, storage_at, under
from stock_lakehouse.lake.stored import GROUP_ROWS, Damage, conformed, rows_or_reason, tickers_of
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import LAYOUTS, SESSIONS_A_YEAR, Table, laid_out

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


# Types with file statistics: only those that JSON represents exactly. DataFusion takes a column whose minimum and maximum are
# equal from the log instead of the file. A double can then be one bit off (18 % of files with one row), and a timestamp is cut
# to milliseconds.
EXACT_IN_JSON = ("date", "int", "bigint")


ONE_FILE = 1 << 40  # bytes: a partition that is rewritten becomes one file

# The last snapshots that this process read, by path, each with the identity of the commit that made it.
KEPT_SNAPSHOTS = 16
_snapshots: dict[str, tuple[Hashable, deltalake.DeltaTable]] = {}
_keeping = threading.Lock()


class SchemaEvolutionError(Exception):
    """The table on disk has columns that the program does not compute. The message says what to do."""


class DeltaTable:
    """A Delta table of a lake.

    `options`: the lake's options; or only its root, which then has the defaults. `bars_per_chunk` limits the rows that a publish
    compares row by row at a time. Versions of the last `retention_days` are kept.

    tombstones: how long a checkpoint names files that were replaced. An engine reads those names at each query, and a day of 500
    tickers adds 500 to them. Nothing here needs them. Another program's VACUUM removes what is not named any more.
    """

    tombstones: ClassVar[str] = "interval 7 days"

    def __init__(self, options: LakeOptions | LakeRoot, table: Table) -> None:
        options = LakeOptions.of(options)
        self.table = laid_out(table, options.layout)
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

    def snapshot(self) -> deltalake.DeltaTable:
        """The present version, for reading alone: the object is shared in this process until the table has another commit.

        Opening a table of 10,500 files takes 45 ms of processor time, and a run looks at its tables a hundred times. What commits
        to a table, or moves a handle to another version, must `open` one of its own. A table in a bucket is always opened.
        """
        if not isinstance(self.path, Path):
            return self.open()
        path = str(self.path)
        commit, kept = _snapshots.get(path, (None, None))
        if kept is not None and self._newest_commit(kept.version()) == commit:
            return kept
        opened = self.open()
        commit = self._newest_commit(opened.version())
        with _keeping:
            _snapshots.pop(path, None)
            if commit is not None:  # None: there is another commit already
                _snapshots[path] = commit, opened
            if len(_snapshots) > KEPT_SNAPSHOTS:
                del _snapshots[next(iter(_snapshots))]
        return opened

    def _newest_commit(self, version: int) -> Hashable:
        """The identity of the commit `version`, also if the folder is replaced; None if it is not the newest, or was removed."""
        log = f"{self.path}/_delta_log"
        if os.path.exists(f"{log}/{version + 1:020}.json"):
            return None
        try:
            stat = os.stat(f"{log}/{version:020}.json")
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def version(self) -> int | None:
        """The table's present version; None before its first publish."""
        return self.snapshot().version() if self.exists() else None

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def _engine_path(self) -> str:
        return engine_path(self.lake_root, self.table.path)

    def check_layout(self) -> None:
        """Raise LayoutError if the table on disk is partitioned otherwise than the options say."""
        if self.table.partition_by in LAYOUTS.values() and self.exists():
            check_layout(self.table, partition_columns(self.snapshot()), self.table.partition_by)

    def paths(self) -> list[str]:
        """The files of the present version, under the lake's root."""
        return [self._path_of(add) for add in self._adds()]

    def sizes(self) -> list[int]:
        """Bytes of each file of the present version."""
        sizes: list[int] = add_actions(self.snapshot())["size_bytes"].to_pylist() if self.exists() else []
        return sizes

    def row_count(self) -> int | None:
        """The number of rows of the present version, by its log; None if the log does not tell that of each file."""
        numbers = add_actions(self.snapshot())["num_records"].to_pylist() if self.exists() else []
        return None if None in numbers else sum(numbers)

    def state(self, tickers: Sequence[str]) -> Hashable:
        """The files that may hold rows of `tickers`; in a table without partitions, which is small, the rows of `tickers`."""
        import pyarrow.compute as pc

        wanted = set(tickers)
        if self.table.partition_by:
            adds = self._adds()
            return frozenset(add["path"] for add in adds if add.get("partition.ticker") in {None, *wanted})
        if not self.exists():
            return None
        of_tickers = pc.field("ticker").isin(sorted(wanted))
        rows = self.snapshot().to_pyarrow_dataset().to_table(filter=of_tickers)
        return _Rows(rows.sort_by([(name, "ascending") for name in self.table.key]))

    def damages(self, footers: bool = True) -> list[Damage]:
        """The files of the present version that are missing, cannot be read, or hold another number of rows than the log says.

        The check uses the size and the Parquet footer: two small reads per file. Without `footers`, the sizes alone: one listing.
        """
        import pyarrow.parquet as pq

        storage = storage_at(self.lake_root)
        adds = adds_of(self.open()) if self.exists() else []  # the log on disk, whatever this process has kept of it
        stored = storage.present(self.table.path, [self._path_of(add) for add in adds])

        def look(add: dict[str, Any]) -> Damage | None:
            path = self._path_of(add)
            if path not in stored:
                return Damage(path, "is missing")
            size = stored[path].size
            if size != add["size_bytes"]:
                return Damage(path, f"has {size:,} bytes, its log says {add['size_bytes']:,}")
            if not footers:
                return None
            rows = rows_or_reason(lambda: int(pq.read_metadata(storage.source(path)).num_rows))
            if isinstance(rows, str):
                return Damage(path, rows)
            if rows != add["num_records"]:
                return Damage(path, f"holds {rows:,} rows, its log says {add['num_records']:,}")
            return None

        return [damage for damage in storage.map(look, adds) if damage is not None]

    def _adds(self) -> list[dict[str, Any]]:
        """The add actions of the present version; none if there is no table yet."""
        return adds_of(self.snapshot()) if self.exists() else []

    def _path_of(self, add: Mapping[str, Any]) -> str:
        """The path under the lake's root of a file that the log names by a URI."""
        return f"{self.table.path}/{file_name(add['path'])}"

    def ticker_years(
        self, skip_damaged: bool = False, opened: deltalake.DeltaTable | None = None
    ) -> set[tuple[str, int]]:
        """The ticker-years that hold rows, by the log; where it knows the year alone, by the tickers in the files.

        Only for a table with partitions by year. `opened`: the version of the table; None: the present one.
        """
        import pyarrow.compute as pc

        if opened is None and not self.exists():
            return set()
        adds = add_actions(self.snapshot() if opened is None else opened)
        if "partition.ticker" in adds.column_names:
            held = adds.filter(pc.greater(adds["num_records"], 0))
            return set(zip(held["partition.ticker"].to_pylist(), held["partition.year"].to_pylist(), strict=True))

        def pairs_in(add: dict[str, Any]) -> set[tuple[str, int]]:
            tickers = tickers_of(self.lake_root, self._path_of(add), "", skip_damaged)
            return {(ticker, int(add["partition.year"])) for ticker in tickers}

        files = adds.select(["path", "partition.year"]).to_pylist()
        return set().union(*storage_at(self.lake_root).map(pairs_in, files))

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> DataFrame:
        """The table's rows of `tickers` and `years` (None: all), with the columns in the order of its schema."""
        from pyspark.sql import functions as F

        if not self.exists():
            return spark.createDataFrame([], self.table.ddl)
        frame = spark.read.format("delta").load(self._engine_path)
        if tickers is not None:
            frame = frame.where(F.col("ticker").isin(list(tickers)))
        if years is not None:
            frame = frame.where(F.col("year").isin(list(years)))
        # The table lacks a column that the next publish will add.
        types = {column.name: column.type for column in self.table.columns}
        return frame.select(
            *(
                F.col(name) if name in frame.columns else F.lit(None).cast(types[name]).alias(name)
                for name in self.table.column_names
            )
        )

    def read_arrow(self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None) -> pa.Table:
        """The rows of `tickers` and `years` (None: all) without an engine, in no particular order.

        Only files that may hold some are opened. Raises StorageError.
        """
        import pyarrow.compute as pc

        if not self.exists():
            return self.table.arrow_schema.empty_table()
        opened, wanted = self.snapshot(), pc.scalar(True)
        by_partition: list[tuple[str, str, Any]] = []
        for name, values in (("ticker", tickers), ("year", years)):
            if values is not None:
                wanted = wanted & pc.field(name).isin(list(values))
                if name in partition_columns(opened):
                    by_partition.append((name, "in", list(values)))
        dataset = opened.to_pyarrow_dataset(file_pruning_predicate=by_partition or None)
        return conformed(dataset.to_table(filter=wanted), self.table)

    def prepare(self) -> None:
        """Create the table if it does not exist; add columns, comments and properties that it lacks, in one commit each.

        Old files stay readable, with nulls in new columns. The comments of the columns and the description of the table are those
        of the schema: Spark, Trino and Databricks show them from the log.

        Raises SchemaEvolutionError if the table has a column that the program does not compute, or computes as another type;
        LayoutError if it has another layout.
        """
        import deltalake

        wanted = _delta_schema(self.table)
        if not self.exists():
            deltalake.DeltaTable.create(
                str(self.path),
                schema=wanted,
                partition_by=list(self.table.partition_by),
                description=self.table.description,
                configuration=self.properties,
                mode="ignore",
            )
            return
        self.check_layout()
        self.set_properties()
        opened = self.open()
        present = {field.name: field for field in opened.schema().fields}
        types = {field.name: field.type for field in wanted.fields}
        foreign = [name for name, field in present.items() if name not in types or types[name] != field.type]
        if foreign:
            raise SchemaEvolutionError(
                f"{self.table.name}: the table at {self.path} has {', '.join(foreign)}, which this program does not compute "
                "or computes as another type; put the indicators back into the file that the setting `indicators` names, or "
                "move that folder away and run again: the table is a function of the layer above"
            )
        comments = {name: _comment_of(field) for name, field in present.items()}
        lacking = [field for field in wanted.fields if comments.get(field.name) is None]
        if lacking:
            opened.alter.add_columns(lacking)  # a column that exists gets its comment
        # deltalake gives comments to any number of columns in one commit, but replaces one at a time.
        for field in wanted.fields:
            if field not in lacking and comments[field.name] != _comment_of(field):
                opened.alter.set_column_metadata(field.name, field.metadata)
        if opened.metadata().description != self.table.description:
            opened.alter.set_table_description(self.table.description)

    @property
    def properties(self) -> dict[str, str]:
        """The table's properties in its log: the columns with file statistics, how long versions are kept, and how often a
        checkpoint is written.

        Log cleanup is off, so that only upkeep removes versions (lake/maintenance.py). With cleanup, every engine would remove
        the log older than 30 days when it writes a checkpoint, Sail at each tenth commit; and with any retention also the
        version that was still the newest at its end.
        """
        exact = [column.name for column in self.table.columns if column.type in EXACT_IN_JSON]
        return {
            "delta.dataSkippingStatsColumns": ",".join(name for name in exact if name not in self.table.partition_by),
            "delta.logRetentionDuration": f"interval {self.retention_days} days",
            "delta.deletedFileRetentionDuration": self.tombstones,
            "delta.enableExpiredLogCleanup": "false",
            # deltalake's default is 100: a table that it writes each day would be opened from up to a hundred files.
            "delta.checkpointInterval": "10",
        }

    def set_properties(self) -> None:
        """Set the properties that the existing table lacks, in one commit; no commit if it has them all."""
        opened = self.open()
        present = opened.metadata().configuration
        lacking = {name: value for name, value in self.properties.items() if present.get(name) != value}
        if lacking:
            opened.alter.set_table_properties(lacking, raise_if_not_exists=False)

    def overwrite(
        self, wanted: DataFrame, predicate: str, version: int, withdraw: Callable[[], None], note: str = ""
    ) -> bool:
        """Replace the rows that match `predicate` by `wanted`, in one commit on top of `version`.

        `withdraw`: removes the ledger's lines for this commit; called before a commit that came too late is reverted.
        `note`: text that the commit's metadata has after the write's identifier.
        False if `version` is not the latest any more. Raises PublishError if the commit fails.
        """
        from pyspark.errors import PySparkException

        confirm(self.lake_root)
        if self.version() != version:
            return False
        write_id = uuid.uuid4().hex
        writer = wanted.write.format("delta").mode("overwrite").option("replaceWhere", predicate)
        try:
            writer.option("userMetadata", f"{write_id} {note}".rstrip()).save(self._engine_path)
        except PySparkException as error:
            opened = self.open()
            if opened.version() == version:
                raise PublishError(f"{self.table.name}: nothing was committed: {error}") from error
            # When the answer to a commit was lost, the engine's retry conflicts with that commit and reports another writer.
            return self._is_next(opened, write_id, version, withdraw)
        opened = self.open()
        return opened.version() == version + 1 or self._is_next(opened, write_id, version, withdraw)

    def rewrite(
        self, opened: deltalake.DeltaTable, years: Sequence[int], *, predicate: str | None, partition_by: Sequence[str]
    ) -> None:
        """Write the rows of `years` of the version `opened` anew, sorted by ticker, in one commit on top of it.

        The commit replaces the rows of `predicate`; None: all, and with them the partition columns by `partition_by`. Only for a
        table with partitions by year. A year at a time is in memory.
        """
        import deltalake
        import pyarrow as pa
        import pyarrow.compute as pc

        schema, dataset = pa.schema(opened.schema().to_arrow()), opened.to_pyarrow_dataset()
        order = [(name, "ascending") for name in sort_columns(self.table)]
        # deltalake takes the batches in a thread in which its own reader panics: "Cannot start a runtime from within a runtime".
        with ThreadPoolExecutor(1) as reader:

            def batches() -> Iterator[pa.RecordBatch]:
                for year in years:
                    rows = reader.submit(dataset.to_table, filter=pc.field("year") == year).result()
                    # One batch a year: deltalake hands batches to several writers, so that only the order in a batch stays.
                    yield from rows.sort_by(order).cast(schema).combine_chunks().to_batches()

            deltalake.write_deltalake(
                opened,
                pa.RecordBatchReader.from_batches(schema, batches()),
                mode="overwrite",
                predicate=predicate,
                schema_mode="overwrite" if predicate is None else None,
                partition_by=list(partition_by),
                target_file_size=ONE_FILE,
                writer_properties=_writer_properties("ticker" in partition_by),
            )

    def append(self, rows: DataFrame) -> None:
        """Add `rows` in one commit. The caller must hold the table's lock. Raises PublishError if the commit fails."""
        from pyspark.errors import PySparkException

        write_id, version = uuid.uuid4().hex, self.open().version()
        failed: PySparkException | None = None
        try:
            rows.write.format("delta").mode("append").option("userMetadata", write_id).save(self._engine_path)
        except PySparkException as error:
            failed = error
        opened = self.open()
        if failed or opened.version() != version + 1:
            # When the answer to a commit was lost, an engine may report a failure, or commit the rows a second time.
            committed = _commits_of(write_id, opened, version)
            if failed and not committed:  # without a failure there were no rows: an engine then makes no commit
                raise PublishError(f"{self.table.name}: nothing was committed, run it again: {failed}") from failed
            if len(committed) > 1:
                opened.restore(committed[0])

    def _is_next(self, opened: deltalake.DeltaTable, write_id: str, version: int, withdraw: Callable[[], None]) -> bool:
        """Whether the commit of the write `write_id` directly follows `version`.

        If another commit, which the comparison has not seen, came in between while the engine planned the write, the write is
        reverted, unless a later commit follows it.
        """
        committed = _commits_of(write_id, opened, version)
        if version + 1 in committed:  # a second commit, made after the first answer was lost, has the same content
            return True
        if committed and committed == list(range(committed[0], opened.version() + 1)):
            withdraw()
            opened.restore(committed[0] - 1)
        return False


def _writer_properties(by_ticker: bool) -> deltalake.WriterProperties:
    """How `rewrite` writes Parquet. Files `by_ticker` are open all at once: smaller buffers take 0.25 MB each, not 1.6 MB."""
    import deltalake

    if by_ticker:
        plain = deltalake.ColumnProperties(dictionary_enabled=False)
        return deltalake.WriterProperties(
            compression="SNAPPY", write_batch_size=SESSIONS_A_YEAR, default_column_properties=plain
        )
    return deltalake.WriterProperties(compression="SNAPPY", max_row_group_size=GROUP_ROWS)


class _Rows:
    """Rows of a small table in the order of its key. Equal if all rows are."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rows) and bool(self._rows.equals(other._rows))

    def __hash__(self) -> int:
        return hash(self._rows.num_rows)


def _commits_of(write_id: str, opened: deltalake.DeltaTable, version: int) -> list[int]:
    """The versions after `version` that the write `write_id` committed, ascending."""
    since = opened.version() - version
    commits = opened.history(since) if since else []
    return sorted(commit["version"] for commit in commits if (commit.get("userMetadata") or "").startswith(write_id))


def _delta_schema(table: Table) -> deltalake.Schema:
    """The columns of `table`, each with its documentation as a comment."""
    import pyarrow as pa
    from deltalake import Schema

    comments = {column.name: column.documentation for column in table.columns}
    return Schema.from_arrow(
        pa.schema([field.with_metadata({"comment": comments[field.name]}) for field in table.arrow_schema])
    )


def _comment_of(field: deltalake.Field) -> str | None:
    comment: str | None = field.metadata.get("comment")
    return comment


def adds_of(opened: deltalake.DeltaTable) -> list[dict[str, Any]]:
    """The rows of `add_actions`."""
    rows: list[dict[str, Any]] = add_actions(opened).to_pylist()
    return rows


def add_actions(opened: deltalake.DeltaTable) -> pa.Table:
    """The add actions of the version `opened`, flattened: num_records, partition.*, min.*, max.*."""
    import pyarrow as pa

    # Read as a stream: `pa.table` of an object of another library imports pandas first, which takes a second.
    return pa.RecordBatchReader.from_stream(opened.get_add_actions(flatten=True)).read_all()


def partition_columns(opened: deltalake.DeltaTable) -> tuple[str, ...]:
    """The columns by which the version `opened` is partitioned."""
    return tuple(opened.metadata().partition_columns)


def rows_of(opened: deltalake.DeltaTable) -> dict[tuple[Any, ...], int]:
    """The number of rows of each partition, by the log."""
    rows: dict[tuple[Any, ...], int] = {}
    columns = partition_columns(opened)
    for add in adds_of(opened):
        values = tuple(add[f"partition.{name}"] for name in columns)
        rows[values] = rows.get(values, 0) + add["num_records"]
    return rows
