"""A Parquet table of the lake: one file per partition, replaced atomically, and only when its rows changed.

The program reads the computed rows from the engine, compares them with the published ones and writes the files that differ. One
atomic step replaces a file: a rename in a folder; in a bucket a conditional write, which fails if the file has changed since it
was compared.

A partition is a ticker-year, or with layout "year" a year of all tickers. Each layout has a folder of its own. Which of the two
counts is said by a mark in the folder of the layout "ticker_year": so a move is complete, or not made, at any moment.
Not here: what the rows mean.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.ahead import ahead
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import (
    Partition,
    Published,
    PublishError,
    check_layout,
    of_tickers,
    partition_folder,
    partition_of,
    partition_values,
    publishable_rows,
    sort_columns,
)
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import ChangedError, File, Identity, LakeRoot, storage_at, under
from stock_lakehouse.lake.storage.messages import first_line
from stock_lakehouse.lake.stored import GROUP_ROWS, Damage, conformed, groups_with, rows_or_reason, tickers_of
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import LAYOUTS, Table, laid_out

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

FILE = "data.parquet"
# How many rows each file has, for `row_count`. Engines skip a file of such a name.
COUNTS = "_row_counts"
WRITES_AT_ONCE = 16  # in a bucket a write waits for the network; of the folder's, two are encoded at a time
KEPT_SECONDS = 24 * 3600.0  # how long the files of the layout before are kept: a reader may have begun with them


class ParquetTable:
    """A Parquet table of a lake.

    `options`: the lake's options; or only its root, which then has the defaults. `bars_per_chunk` limits the rows that a publish
    holds in memory at a time.
    """

    def __init__(self, options: LakeOptions | LakeRoot, table: Table) -> None:
        options = LakeOptions.of(options)
        self.lake_root = options.lake_root
        self._forms = {layout: laid_out(table, layout) for layout in LAYOUTS}
        self._wanted = self._forms[options.layout]
        self._storage = storage_at(options.lake_root)
        self._bars_per_chunk = options.bars_per_chunk

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
        self._storage.check_readable(table.path)
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
        paths = [file.path for file in self._files_of(table, tickers)]
        paths = [path for path in paths if wanted is None or partition_of(path)[-1] in wanted]
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
        return frozenset(file.identity for file in self._files_of(self.table, tickers))

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

    def row_count(self) -> int:
        """The number of rows, by the footers of the files that were written since they were counted last.

        The counts lie beside the table's files, by path and version tag. Without them, or if they are damaged, every file is
        counted.
        """
        table = self.table
        place = f"{table.path}/{COUNTS}"
        known, files = self._counts_at(place), self._files_of(table)
        uncounted = [file for file in files if file.identity not in known]
        rows = self._storage.map(self._rows_at, [file.path for file in uncounted])
        counted = known | {file.identity: count for file, count in zip(uncounted, rows, strict=True)}
        counts = {file.identity: counted[file.identity] for file in files}
        if counts != known:
            self._storage.delete([place])
            # Those of another run may be there: each count is looked up by its file's version tag.
            if counts:
                with contextlib.suppress(FileExistsError):
                    self._storage.create(place, _as_counts(counts))
        return sum(counts.values())

    def _counts_at(self, place: str) -> dict[Identity, int]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            content = self._storage.read(place)
        except FileNotFoundError:
            return {}
        try:
            columns = pq.read_table(pa.BufferReader(content)).to_pydict()
            return dict(zip(zip(columns["path"], columns["version_tag"], strict=True), columns["rows"], strict=True))
        except (OSError, ValueError, KeyError):  # damaged: pyarrow raises the first two
            return {}

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

        Partitions without a difference are not written; in a partition that is, rows of other tickers and years are kept.
        `computed` is read in parts of about `bars_per_chunk` rows: stage it first if it takes long to compute.

        The publish can be killed and repeated at any point: each file that is replaced completes one partition. Raises
        PublishError if the engine returned other rows than it counted, another writer changed a file meanwhile, or the table has
        another layout.
        """
        table = self._wanted
        with one_writer(self.lake_root, table.name):
            self.check_layout()
            files = {partition_of(file.path): file for file in self._files_of(table)}
            changed: dict[Partition, _Difference] = {}
            scope = _Scope(frozenset(tickers), frozenset(map(str, years)))
            for rows, part in ahead(self._parts_of(table, computed.select(*table.column_names), files, scope, staging)):
                changed |= self._publish_part(table, rows, part, scope, rectangle, files, staging)
        return Published(
            rows=sum(difference.rows for difference in changed.values()),
            partitions=len(changed),
            added=sum(max(difference.new - difference.gone, 0) for difference in changed.values()),
            corrected=sum(min(difference.new, difference.gone) for difference in changed.values()),
            withdrawn=sum(max(difference.gone - difference.new, 0) for difference in changed.values()),
        )

    def _parts_of(
        self, table: Table, computed: DataFrame, files: Mapping[tuple[str, ...], File], scope: _Scope, staging: Staging
    ) -> Iterator[tuple[pa.Table, list[tuple[str, ...]]]]:
        """The rows of `computed` in parts of about `bars_per_chunk`, each with the partitions of `files` that it may replace.

        A part has all rows of some tickers; in the layout "year", of some years.
        """
        from pyspark.sql import functions as F

        counted = computed.groupBy("ticker", "year").count().toArrow()
        pairs = list(zip(counted["ticker"].to_pylist(), counted["year"].to_pylist(), strict=True))
        rows_of: Counter[int | str] = Counter()
        for pair, count in zip(pairs, counted["count"].to_pylist(), strict=True):
            rows_of[partition_values(table, pair)[0]] += count
        computed_partitions = {tuple(map(str, partition_values(table, pair))) for pair in pairs}
        by_text = {str(value): value for value in rows_of}
        partitions: dict[str, list[tuple[str, ...]]] = {text: [] for text in by_text}
        for values in sorted(files):
            if values in computed_partitions or scope.may_include(values):
                partitions.setdefault(values[0], []).append(values)

        def size(text: str) -> int:
            if "ticker" in table.partition_by:
                published = len(partitions[text]) * table.rows_a_partition
            else:
                published = sum(self._rows_at(files[values].path) for values in partitions[text])
            return max(rows_of[by_text[text]] if text in by_text else 0, published)

        for texts in _groups(sorted(partitions), size, self._bars_per_chunk):
            wanted = [by_text[text] for text in texts if text in by_text]
            part = computed
            if 0 < len(wanted) < len(by_text):
                # Not a list of values: an engine skips row groups by a range.
                unit = F.col(table.partition_by[0])
                part = part.where(unit.between(min(wanted), max(wanted)))
            rows = conformed(staging.rows_of(part), table) if wanted else table.arrow_schema.empty_table()
            if rows.num_rows != (expected := sum(rows_of[value] for value in wanted)):
                raise PublishError(
                    f"{table.name}: the engine counted {expected:,} rows of {texts[0]} to {texts[-1]} and returned "
                    f"{rows.num_rows:,}; they were not published, run it again"
                )
            yield rows, [partition for text in texts for partition in partitions[text]]

    def _publish_part(
        self,
        table: Table,
        computed: pa.Table,
        partitions: Sequence[tuple[str, ...]],
        scope: _Scope,
        rectangle: Rectangle | None,
        files: Mapping[tuple[str, ...], File],
        staging: Staging,
    ) -> dict[Partition, _Difference]:
        """Publish a part of the rows; return the changed ticker-years.

        `partitions`: the partitions on disk that the part may replace, of `files`, the table's files before the comparison.
        """
        import pyarrow as pa

        def read(values: tuple[str, ...]) -> pa.Table:
            path = files[values].path
            try:
                return self._rows_in(table, path)
            except (OSError, ValueError) as error:  # pyarrow raises both; StorageError is neither
                raise PublishError(
                    f"{self._storage.uri(path)} cannot be read ({first_line(error)}), so nothing was published in its place; "
                    "`stock-lakehouse upkeep --repair` removes damaged files and computes their rows again"
                ) from error

        published = pa.concat_tables([table.arrow_schema.empty_table(), *self._storage.map(read, partitions)])
        if rectangle is not None:
            computed = publishable_rows(table, computed, published, rectangle)
        new, old = dict(_ticker_years(computed, table)), dict(_ticker_years(published, table))
        compared = new.keys() | {pair for pair in old if scope.includes(pair)}
        changed = _differing(new, old, sorted(compared))
        if not changed:
            return {}
        contents: dict[tuple[int | str, ...], list[pa.Table]] = {partition_values(table, pair): [] for pair in changed}
        for pair in sorted(new.keys() | old.keys()):
            source = new if pair in compared else old
            if pair in source and (content := contents.get(partition_values(table, pair))) is not None:
                content.append(source[pair])
        confirm(self.lake_root)
        if table == self._forms["year"]:
            self._set_mark()

        def write(partition: tuple[tuple[int | str, ...], list[pa.Table]]) -> None:
            values, rows = partition
            if not rows:
                return
            expected, content = files.get(tuple(map(str, values))), _as_parquet(pa.concat_tables(rows), table)
            self._storage.replace(_place(table, values), content, expected, staging.new_path())

        try:
            with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
                for _ in pool.map(write, contents.items()):
                    pass
        except ChangedError as error:
            raise PublishError(
                f"{table.name}: another writer changed {error} while this run compared; run it again"
            ) from None
        self._storage.delete([_place(table, values) for values, rows in contents.items() if not rows])
        return changed

    def _rows_at(self, path: str) -> int:
        """The number of rows of a file, by its footer; 0 if there is none."""
        import pyarrow.parquet as pq

        # A file of a ticker-year is small: its footer alone would be three requests in place of one.
        is_small = len(partition_of(path)) > 1
        try:
            source = self._storage.source(path) if is_small else self._storage.ranged(path)
            return int(pq.read_metadata(source).num_rows)
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

        rows = pa.concat_tables(self._storage.map(lambda path: self._rows_in(source, path), paths))

        def write(part: tuple[tuple[int | str, ...], pa.Table]) -> None:
            values, own = part
            self._storage.create(_place(target, values), _as_parquet(own, target))

        for _ in self._storage.map(write, _parts(rows, target, target.partition_by)):
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


def _as_counts(counts: Mapping[Identity, int]) -> bytes:
    import pyarrow as pa

    paths, tags = zip(*counts, strict=True)
    return _content(pa.table({"path": paths, "version_tag": tags, "rows": [*counts.values()]}))


def _place(table: Table, values: tuple[int | str, ...]) -> str:
    """The path of the file of a partition of `table`."""
    return f"{table.path}/{partition_folder(table, values)}/{FILE}"


def _as_parquet(rows: pa.Table, table: Table) -> bytes:
    """The file of a partition of `table`, with `rows`, which are sorted."""
    return _content(
        rows.select([name for name in table.column_names if name not in table.partition_by]),
        row_group_size=GROUP_ROWS,
        # A ticker-year is too small for dictionaries to pay: without them its file is an eighth smaller.
        use_dictionary="ticker" not in table.partition_by,
    )


def _content(rows: pa.Table, **options: Any) -> bytes:
    """A Parquet file of `rows`; `options` as for `pyarrow.parquet.write_table`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd", **options)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def _ticker_years(rows: pa.Table, table: Table) -> Iterator[tuple[Partition, pa.Table]]:
    """The rows of each ticker-year in `rows`."""
    return _parts(rows, table, ("ticker", "year"))


def _parts(rows: pa.Table, table: Table, columns: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """For each combination of values in `columns`: these values, and its rows, sorted as in a file of `table`.

    `rows`: each combination's rows must be neighbours once they are sorted so.
    """
    import numpy as np

    if not rows.num_rows:
        return
    ordered = rows.sort_by([(name, "ascending") for name in sort_columns(table)]).combine_chunks()
    starts = np.zeros(len(ordered), dtype=bool)
    starts[0] = True
    for name in columns:
        codes = ordered[name].combine_chunks().dictionary_encode().indices.to_numpy()
        starts[1:] |= codes[1:] != codes[:-1]
    places = [*np.flatnonzero(starts).tolist(), len(ordered)]
    keys = zip(*(ordered[name].take(places[:-1]).to_pylist() for name in columns), strict=True)
    for key, start, end in zip(keys, places, places[1:], strict=False):
        yield key, ordered.slice(start, end - start)


def _groups(items: Sequence[str], size: Callable[[str], int], limit: int) -> Iterator[list[str]]:
    """`items` in groups of neighbours whose sizes are at most `limit` together, if a group has several."""
    group: list[str] = []
    total = 0
    for item in items:
        weight = size(item)
        if group and total + weight > limit:
            yield group
            group, total = [], 0
        group, total = [*group, item], total + weight
    if group:
        yield group


@dataclass(frozen=True)
class _Scope:
    """The ticker-years that a publish replaces: `tickers` × `years`, years as text."""

    tickers: frozenset[str]
    years: frozenset[str]

    def includes(self, pair: Partition) -> bool:
        ticker, year = pair
        return ticker in self.tickers and str(year) in self.years

    def may_include(self, values: tuple[str, ...]) -> bool:
        """Whether the partition of these values, (ticker, year) or (year,), may hold rows of the ticker-years."""
        *ticker, year = values
        return year in self.years and (not ticker or ticker[0] in self.tickers)


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


def _differing(
    new: Mapping[Partition, pa.Table], old: Mapping[Partition, pa.Table], pairs: Sequence[Partition]
) -> dict[Partition, _Difference]:
    """Those of `pairs` whose rows in `new` and `old` differ. All columns are compared; rows may repeat."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[Partition, _Difference] = {}
    in_both: list[Partition] = []
    for pair in pairs:
        if pair not in old:
            found[pair] = _Difference(new[pair].num_rows, new=new[pair].num_rows, gone=0)
        elif pair not in new:
            found[pair] = _Difference(0, new=0, gone=old[pair].num_rows)
        else:
            rows, published = new[pair], old[pair]
            length = min(len(rows), len(published))
            if not rows.slice(0, length).equals(published.slice(0, length)):
                in_both.append(pair)
            elif len(rows) != len(published):  # rows were appended, as on every day
                found[pair] = _Difference(len(rows), new=len(rows) - length, gone=len(published) - length)
    if not in_both:
        return found
    sides = []
    for by_pair, side in ((new, 1), (old, -1)):
        own = _groupable(pa.concat_tables([by_pair[pair] for pair in in_both]))
        sides.append(own.append_column("side", pa.array([side] * own.num_rows, pa.int64())))
    both = pa.concat_tables(sides)
    per_row = both.group_by(new[in_both[0]].column_names).aggregate([("side", "sum")])
    counts: dict[str, Counter[Partition]] = {}
    for kind, sign in (("new", 1), ("gone", -1)):
        balance = pc.multiply(per_row["side_sum"], sign)
        of_kind = per_row.select(["ticker", "year"]).append_column("rows", balance).filter(pc.greater(balance, 0))
        sums = of_kind.group_by(["ticker", "year"]).aggregate([("rows", "sum")]).to_pylist()
        counts[kind] = Counter({(row["ticker"], row["year"]): row["rows_sum"] for row in sums})
    for pair in in_both:
        difference = _Difference(new[pair].num_rows, new=counts["new"][pair], gone=counts["gone"][pair])
        if difference.new or difference.gone:  # else the same rows in another order
            found[pair] = difference
    return found


def _groupable(rows: pa.Table) -> pa.Table:
    """`rows` with text in place of lists and structs, by which Arrow cannot group."""
    import pyarrow as pa

    for at, field in enumerate(rows.schema):
        if pa.types.is_nested(field.type):
            rows = rows.set_column(at, field.name, pa.array(map(repr, rows[field.name].to_pylist()), pa.string()))
    return rows
