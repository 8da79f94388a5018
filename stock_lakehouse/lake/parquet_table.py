"""A Parquet table of the lake: one file per partition, replaced atomically, and only when its rows changed.

The engine writes the new files beside the table. One atomic step moves each to its place: a rename in a folder; in a bucket a
conditional write, which fails if the file has changed since it was compared.

A partition is a ticker-year, or with layout "year" a year of all tickers. Each layout has a folder of its own. Which of the two
counts is said by a mark in the folder of the layout "ticker_year": so a move is complete, or not made, at any moment.
Not here: what the rows mean.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import (
    Partition,
    Published,
    PublishError,
    check_layout,
    chunks,
    differing_partitions,
    of_tickers,
    partition_folder,
    partition_of,
    partition_predicate,
    partition_values,
    publishable,
    sort_columns,
)
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import ChangedError, File, LakeRoot, storage_at, under
from stock_lakehouse.lake.stored import GROUP_ROWS, Damage, conformed, groups_with, rows_or_reason, tickers_of
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import LAYOUTS, Table, laid_out

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

FILE = "data.parquet"
KEPT_SECONDS = 24 * 3600.0  # how long the files of the layout before are kept: a reader may have begun with them


class ParquetTable:
    """A Parquet table of a lake.

    `options`: the lake's options; or only its root, which then has the defaults. `bars_per_chunk` limits the rows that a publish
    compares row by row at a time. `partitions_per_write` limits the engine's open files, which take 2 MB of memory each.
    """

    def __init__(self, options: LakeOptions | LakeRoot, table: Table) -> None:
        options = LakeOptions.of(options)
        self.lake_root = options.lake_root
        self._forms = {layout: laid_out(table, layout) for layout in LAYOUTS}
        self._wanted = self._forms[options.layout]
        self._storage = storage_at(options.lake_root)
        self._bars_per_chunk = options.bars_per_chunk
        self._partitions_per_write = options.partitions_per_write

    @property
    def table(self) -> Table:
        """The table in the layout that it has on disk; before its first publish, in that of the options."""
        by_ticker, by_year = self._forms["ticker_year"], self._forms["year"]
        if self._is_marked() or (self._wanted == by_year and not self._has_files(by_ticker)):
            return by_year
        return by_ticker

    @property
    def root(self) -> LakeRoot:
        return under(self.lake_root, self.table.path)

    def check_layout(self) -> None:
        """Raise LayoutError if the table has another layout on disk than in the options."""
        check_layout(self._wanted, self.table.partition_by, self._wanted.partition_by)

    @property
    def _mark(self) -> str:
        """The path of the mark that says that the files of the layout "year" count; alone in its folder, so listed at once."""
        return f"{self._forms['ticker_year'].path}/_by_year/mark"

    def _set_mark(self) -> None:
        with contextlib.suppress(FileExistsError):
            self._storage.create(self._mark, b"")

    def _is_marked(self) -> bool:
        # By its path: a writer's temporary file may lie beside it.
        try:
            return any(file.path == self._mark for file in self._storage.walk(self._mark.rpartition("/")[0]))
        except NotADirectoryError:  # a file is in the place of a folder: the step that needs the folder fails
            return False

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int | str] | None = None
    ) -> DataFrame:
        """The table's rows of `tickers` and `years` (None: all)."""
        from pyspark.sql import functions as F

        table = self.table
        if not self._has_files(table):
            return spark.createDataFrame([], table.ddl)
        frame = spark.read.schema(table.ddl).parquet(str(under(self.lake_root, table.path)))
        if tickers is not None:
            frame = of_tickers(frame, tickers)
        if years is not None:
            frame = frame.where(F.col("year").isin(list(years)))
        return frame

    def read_arrow(self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None) -> pa.Table:
        """The rows of `tickers` and `years` (None: all) without an engine, in no particular order."""
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self.table
        named = None if tickers is None else pa.array(sorted(set(tickers)), pa.string())

        def rows_in(path: str) -> pa.Table:
            rows = self._rows_in(table, path, tickers)
            return rows if named is None else rows.filter(pc.is_in(rows["ticker"], named))

        wanted = None if years is None else set(map(str, years))
        paths = [path for path in self._paths_of(table, tickers) if wanted is None or partition_of(path)[-1] in wanted]
        return pa.concat_tables([table.arrow_schema.empty_table(), *self._storage.map(rows_in, paths)])

    @property
    def location(self) -> str:
        return str(self.root)

    def files(self) -> list[File]:
        """The table's files, one per partition."""
        return self._files_of(self.table)

    def paths(self) -> list[str]:
        return [file.path for file in self.files()]

    def sizes(self) -> list[int]:
        return [file.size for file in self.files()]

    def version(self) -> None:
        """None: Parquet files have no version."""
        return None

    def state(self, tickers: Sequence[str]) -> frozenset[tuple[str, str]]:
        """Path and version tag of each file that may hold rows of `tickers`."""
        return frozenset((file.path, file.version_tag) for file in self._files_of(self.table, tickers))

    def damages(self) -> list[Damage]:
        """The files that cannot be read with the table's schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = self.table
        wanted = {field.name: field.type for field in table.arrow_schema if field.name not in table.partition_by}

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
        return {int(year) for *_, year in (partition_of(path) for path in self.paths()) if year.isdigit()}

    def ticker_years(self, skip_damaged: bool = False) -> set[tuple[str, int]]:
        """The ticker-years that have rows, without the partition of rows whose year could not be read."""

        def pairs_in(file: File) -> set[tuple[str, int]]:
            *ticker, year = partition_of(file.path)
            tickers = ticker or tickers_of(self.lake_root, file.path, file.version_tag, skip_damaged)
            return {(name, int(year)) for name in tickers} if year.isdigit() else set()

        return set().union(*self._storage.map(pairs_in, self.files()))

    def _has_files(self, table: Table) -> bool:
        return any(file.name == FILE for file in self._storage.walk(table.path))

    def _files_of(self, table: Table, tickers: Sequence[str] | None = None) -> list[File]:
        """The files that may hold rows of `tickers` (None: any), by path."""
        folder, levels = table.path, len(table.partition_by)
        wanted = None if tickers is None or "ticker" not in table.partition_by else set(tickers)
        if wanted is not None and len(wanted) == 1:
            folder, levels = f"{folder}/{partition_folder(table, (*wanted, 0)).partition('/')[0]}", 1
        files = self._storage.walk_partitions(folder, levels, FILE)
        found = (file for file in files if wanted is None or partition_of(file.path)[0] in wanted)
        return sorted(found, key=lambda file: file.path)

    def _paths_of(self, table: Table, tickers: Sequence[str] | None) -> list[str]:
        """The files that may hold rows of `tickers` (None: any)."""
        return [file.path for file in self._files_of(table, tickers)]

    def _rows_in(self, table: Table, path: str, tickers: Sequence[str] | None = None) -> pa.Table:
        """The rows of a file, without row groups that by their statistics hold none of `tickers`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        in_file = tickers is not None and "ticker" not in table.partition_by
        source = self._storage.ranged(path) if in_file else self._storage.source(path)
        with pq.ParquetFile(source) as file:
            groups = groups_with(file.metadata, tickers or ()) if in_file else range(file.num_row_groups)
            rows = file.read_row_groups(list(groups))
        for name, value in zip(table.partition_by, partition_of(path), strict=True):
            kind = table.arrow_schema.field(name).type
            rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()).cast(kind))
        return conformed(rows, table)

    def publish(
        self,
        computed: DataFrame,
        tickers: Sequence[str],
        years: Sequence[int | str],
        staging: Staging,
        rectangle: Rectangle | None = None,
    ) -> Published:
        """Make the ticker-years `tickers` × `years` equal to `computed`; with `rectangle`, to what a run for it may publish.

        Partitions without a difference are not written; in a partition that is, rows of other tickers and years are kept. The
        publish can be killed and repeated at any point: each rename completes one partition. Raises PublishError if the engine
        wrote other rows than computed, another writer changed a file meanwhile, or the table has another layout.
        """
        spark, table = computed.sparkSession, self._wanted
        with one_writer(self.lake_root, table.name):
            self.check_layout()
            files = self._storage.compared(table.path)
            published = self.read(spark, tickers, years) if self._paths_of(table, tickers) else None
            wanted = publishable(table, computed, published, rectangle) if rectangle else computed
            wanted = staging.stage(wanted.select(*table.column_names))
            changed = {
                pair: _Difference(rows, new=rows, gone=gone)
                for pair, (rows, gone) in differing_partitions(wanted, published).items()
            }
            if published is not None:  # rows in both need a comparison; rows of a new or a withdrawn ticker-year do not
                in_both = [pair for pair, difference in changed.items() if difference.new and difference.gone]
                for pairs in chunks(table, in_both, self._bars_per_chunk):
                    predicate = partition_predicate(pairs)
                    changed |= _differing(wanted.where(predicate), published.where(predicate))
            if changed and table == self._forms["year"]:
                self._set_mark()
            for batch in self._batches(table, changed):
                self._replace(table, wanted, batch, staging, files)
        return Published(
            rows=sum(difference.rows for difference in changed.values()),
            partitions=len(changed),
            added=sum(max(difference.new - difference.gone, 0) for difference in changed.values()),
            corrected=sum(min(difference.new, difference.gone) for difference in changed.values()),
            withdrawn=sum(max(difference.gone - difference.new, 0) for difference in changed.values()),
        )

    def _batches(
        self, table: Table, changed: Mapping[Partition, _Difference]
    ) -> Iterator[dict[Partition, _Difference]]:
        """`changed` in groups of whole partitions: at most `partitions_per_write`, and about `bars_per_chunk` rows if several."""
        partitions: dict[tuple[int | str, ...], dict[Partition, _Difference]] = {}
        for pair in sorted(changed):
            partitions.setdefault(partition_values(table, pair), {})[pair] = changed[pair]
        batch: dict[Partition, _Difference] = {}
        count = rows = 0
        for values, pairs in sorted(partitions.items()):
            size = sum(difference.rows for difference in pairs.values())
            if "ticker" not in table.partition_by:
                size = max(size, self._rows_at(_place(table, values)))
            if batch and (count == self._partitions_per_write or rows + size > self._bars_per_chunk):
                yield batch
                batch, count, rows = {}, 0, 0
            batch, count, rows = {**batch, **pairs}, count + 1, rows + size
        if batch:
            yield batch

    def _replace(
        self,
        table: Table,
        wanted: DataFrame,
        changed: Mapping[Partition, _Difference],
        staging: Staging,
        compared: Mapping[str, File],
    ) -> None:
        """Write the partitions of `changed` beside the table, check their row counts, then move each file to its place.

        `changed`: the changed ticker-years; the other rows of their partitions are kept.
        `compared`: the table's files as they were before the comparison.
        """
        import pyarrow.parquet as pq

        folder, predicate = staging.new_path(), partition_predicate(changed)
        frame = wanted.where(predicate)
        has_others = "ticker" not in table.partition_by
        expected: Counter[tuple[int | str, ...]] = Counter()
        for pair, difference in changed.items():
            rows = difference.new - difference.gone if has_others else difference.rows
            expected[partition_values(table, pair)] += rows
        if has_others:
            years = sorted({year for _, year in changed}, key=str)
            frame = frame.unionByName(self.read(frame.sparkSession, years=years).where(f"NOT ({predicate})"))
            for values in expected:
                expected[values] += self._rows_at(_place(table, values))
        frame = frame.coalesce(1).sortWithinPartitions(*sort_columns(table))
        # Sail's options. A ticker-year is too small for dictionaries to pay: without them its file is an eighth smaller.
        writer = frame.write.partitionBy(*table.partition_by).option("max_row_group_size", GROUP_ROWS)
        writer = writer if has_others else writer.option("dictionary_enabled", "false")
        writer.parquet(staging.storage.uri(folder))
        written: dict[tuple[str, ...], list[str]] = {}
        for file in staging.storage.walk(folder):
            if file.name.endswith(".parquet"):
                written.setdefault(partition_of(file.path), []).append(file.path)

        def count(paths: list[str]) -> int:
            return sum(pq.read_metadata(staging.storage.source(path)).num_rows for path in paths)

        sources = [written.get(tuple(map(str, values)), []) for values in expected]
        counts = self._storage.map(count, sources)
        moves, removals = [], []
        for (values, rows), paths, actual in zip(expected.items(), sources, counts, strict=True):
            target = _place(table, values)
            if actual != rows or len(paths) > 1:
                raise PublishError(
                    f"{table.name}: {actual} rows in {len(paths)} files were written for "
                    f"{partition_folder(table, values)}, not {rows} in one; nothing of this batch was published, run it again"
                )
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
                f"{table.name}: another writer changed {error} while this run compared; run it again"
            ) from None
        self._storage.delete(removals)

    def _rows_at(self, path: str) -> int:
        """The number of rows of a file, by its footer; 0 if there is none."""
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(self._storage.ranged(path)).num_rows)
        except FileNotFoundError:
            return 0

    def move(self) -> int | None:
        """Move the table to the layout of the options; return its number of rows, or None if it has that layout.

        The files of the new layout are written beside those that count, and count once the mark says so: that is one write.
        Killed at any point, the table is as it was, or moved; repeated, it ends the same. Raises PublishError if the rows
        written are not as many as those read.
        """
        with one_writer(self.lake_root, self._wanted.name):
            source, target = self.table, self._wanted
            if source == target:
                return None
            # What a move left that was killed, or what one in the other direction left for its readers.
            self._storage.delete([file.path for file in self._files_of(target)])
            by_year: dict[str, list[str]] = {}
            for file in self._files_of(source):
                by_year.setdefault(partition_of(file.path)[-1], []).append(file.path)
            rows = sum(self._write_year(source, target, paths) for _, paths in sorted(by_year.items()))
            written = sum(self._storage.map(self._rows_at, [file.path for file in self._files_of(target)]))
            if written != rows:
                raise PublishError(f"{target.name}: {rows:,} rows were read and {written:,} written; nothing was moved")
            confirm(self.lake_root)
            if target == self._forms["year"]:
                self._set_mark()
            else:
                self._storage.delete([self._mark])
            return rows

    def _write_year(self, source: Table, target: Table, paths: Sequence[str]) -> int:
        """Write the rows of `paths`, the files of a year in the layout of `source`, as files of `target`; return their number."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.concat_tables(self._storage.map(lambda path: self._rows_in(source, path), paths))
        rows = rows.sort_by([(name, "ascending") for name in sort_columns(target)])
        in_file = [name for name in target.column_names if name not in target.partition_by]

        def write(part: tuple[tuple[int | str, ...], pa.Table]) -> None:
            values, own = part
            content = BytesIO()
            pq.write_table(own.select(in_file), content, row_group_size=GROUP_ROWS, compression="zstd")
            self._storage.create(_place(target, values), content.getvalue())

        for _ in self._storage.map(write, _parts(rows, target)):
            pass
        return int(rows.num_rows)

    def remove_replaced(self) -> list[File]:
        """Remove the files of the layout that does not count, a day after the last write to it; return them.

        File times are compared with each other, never with this machine's clock.
        """
        with one_writer(self.lake_root, self._wanted.name):
            counting = self.table
            newest = max((file.changed for file in self._files_of(counting)), default=0.0)
            replaced = [file for form in self._forms.values() if form != counting for file in self._files_of(form)]
            if not replaced or newest - max(file.changed for file in replaced) <= KEPT_SECONDS:
                return []
            confirm(self.lake_root)
            self._storage.delete([file.path for file in replaced])
            return replaced


def _place(table: Table, values: tuple[int | str, ...]) -> str:
    """The path of the file of a partition of `table`."""
    return f"{table.path}/{partition_folder(table, values)}/{FILE}"


def _parts(rows: pa.Table, table: Table) -> Iterator[tuple[tuple[int | str, ...], pa.Table]]:
    """The partition values of each partition of `table`, and its rows. `rows`: sorted by the partition columns."""
    keys = list(zip(*(rows[name].to_pylist() for name in table.partition_by), strict=True))
    starts = [at for at in range(len(keys)) if at == 0 or keys[at] != keys[at - 1]]
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        yield keys[start], rows.slice(start, end - start)


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
