"""The serving copy: the rows of curated bars and of features again, in one Parquet file per year, for readers of many tickers.

The tables have a file per ticker and year, and opening 10,500 files takes longer than reading their rows. A file of the copy is
named by what it holds: its folder is a digest of the year's data files. So it is never stale and never changed, readers and
writers need no lock, and whoever misses a file writes it.

Here: the names, contents and removal of these files. Not here: which step makes them (layers/serving.py), SQL on them (sql/),
their registration in a catalog (catalog/).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from stock_lakehouse.lake.delta_table import DeltaTable, add_actions, partition_columns
from stock_lakehouse.lake.history import file_name
from stock_lakehouse.lake.storage import (
    File,
    Folder,
    LakeError,
    Storage,
    StorageError,
    named,
    storage_at,
    storage_error,
)
from stock_lakehouse.lake.storage.messages import first_line
from stock_lakehouse.lake.stored import Damage, groups_with, rows_or_reason
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.tables import CURATED, FEATURES, Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.lake import Lake

SERVED = (CURATED, FEATURES)
FOLDER = "serving"
FILE = "data.parquet"
FORM = 1  # the form of the files; a change of the number makes all of them anew
ORDER = ("ticker", "date")
# A reader of one ticker decodes one row group of a year. Smaller groups compress worse.
ROWS_A_GROUP = 20_000
DIGEST_LENGTH = 24
# Years that are made at once: most of the time goes to code that needs no lock of the interpreter.
WRITES_AT_ONCE = 2
# Readers of a file that was replaced may go on for this time.
GRACE_SECONDS = 24 * 3600.0
# A reader's own folder keeps a file for this time after its last use.
UNUSED_SECONDS = 7 * 24 * 3600.0
# What `_years_of` found, by the id of the handle while that lives, with the version that the handle had. A handle has no hash.
_known_years: dict[int, tuple[int, list[tuple[int, str, list[dict[str, Any]]]]]] = {}


class UnservedError(LakeError):
    """The serving copy of a table cannot be made. The message says why and what to do."""


def served_name(table: Table) -> str:
    """The name under which a catalog has the serving copy of `table`."""
    return f"{table.name}_served"


@dataclass(frozen=True)
class ServedYear:
    """What a file of the serving copy holds.

    - year
    - path: of the file, under the folder of the copy
    - data: the data files of the table whose rows it has, as their table's log has them
    """

    year: int
    path: str
    data: Sequence[dict[str, Any]]

    @property
    def rows(self) -> int:
        """The number of rows, by the table's log."""
        return sum(add["num_records"] for add in self.data)


def reading_copy(lake: Lake, cache: Path | None, tell: Callable[[str], None] = lambda line: None) -> ServingCopy:
    """The serving copy of which a reader on this machine uses the files, as paths.

    `cache`: the setting `serving_cache`. None: the lake's own copy; of a lake on S3, the user's cache folder.
    """
    if cache is None and not isinstance(lake.root, Path):
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("stock_lakehouse"), FOLDER)
    return ServingCopy(lake, cache, tell)


class ServingCopy:
    """The serving copy of one lake.

    - folder: where a reader of a lake on S3 keeps its files; None: the lake's own copy, `serving/` under its root
    - tell: called with a line of text before files are written, which takes about a second for 500 tickers and a year

    The columns of a file are those of the table's version, in the order of the version's schema.
    """

    def __init__(self, lake: Lake, folder: Path | None = None, tell: Callable[[str], None] = lambda line: None) -> None:
        self.lake = lake
        self._tell = tell
        self.storage: Storage = lake.storage if folder is None else storage_at(folder)
        self._is_own = folder is None

    def refresh(self, table: Table, years: Iterable[int] | None = None) -> list[str]:
        """Write the files of the present version of `table` that are missing; return their paths or URIs.

        `years`: only files of these years (None: of all). None if there is no table. Raises StorageError, UnservedError.
        """
        stored = self.lake.delta[table.name]
        if not stored.exists():
            return []
        opened = stored.snapshot()
        return self._make(stored, opened, self.served(table, opened), years)

    def files(self, table: Table, opened: deltalake.DeltaTable) -> dict[int, str]:
        """The path or URI of the file of each year of the version `opened` of `table`, written if it is missing.

        Empty if the version has no rows. A version of any age is served; its files stay for a day after their last use. Raises
        StorageError, UnservedError.
        """
        served = self.served(table, opened)
        self._make(self.lake.delta[table.name], opened, served, None)
        return {year.year: self.storage.uri(year.path) for year in served}

    def present(self, table: Table, opened: deltalake.DeltaTable) -> dict[int, str | None]:
        """The path or URI of the file of each year of the version `opened`; None where it is missing. Writes nothing."""
        there = self._there(table)
        return {
            served.year: self.storage.uri(served.path) if served.path in there else None
            for served in self.served(table, opened)
        }

    def served(self, table: Table, opened: deltalake.DeltaTable) -> list[ServedYear]:
        """What the file of each year of the version `opened` of `table` holds, ascending. Only the log is read."""
        return [
            ServedYear(year, f"{self._folder_of(table)}/year={year}/{digest}/{FILE}", data)
            for year, digest, data in _years_of(opened)
        ]

    def rows(
        self,
        table: Table,
        opened: deltalake.DeltaTable,
        columns: Sequence[str],
        years: Collection[int] | None = None,
        tickers: Collection[str] | None = None,
    ) -> pa.Table | None:
        """`columns` of the rows of `years` and `tickers` (None: all), sorted by ticker and date within each year.

        None if a file is missing or cannot be read: the caller then reads the table itself, which has the same rows. Of `columns`
        those that the version has. Writes nothing.
        """
        served = [year for year in self.served(table, opened) if years is None or year.year in years]
        try:
            return self.rows_of(served, columns, tickers) if self._has_all(table, served) else None
        # pyarrow raises the first two for a file that was removed or damaged; the last is raised where rights are given by path.
        except (OSError, ValueError, StorageError):
            return None

    def rows_of(
        self, served: Sequence[ServedYear], columns: Sequence[str], tickers: Collection[str] | None = None
    ) -> pa.Table:
        """Those of `columns` that the files have, of the rows of `tickers` (None: all) in the files `served`, at least one.

        Raises OSError or ValueError, as pyarrow does, if a file is missing or damaged; StorageError.
        """
        import pyarrow as pa

        return pa.concat_tables(self.storage.map(lambda year: _read(self.storage, year.path, columns, tickers), served))

    def frame(
        self, spark: SparkSession, table: Table, opened: deltalake.DeltaTable, tickers: Sequence[str]
    ) -> DataFrame | None:
        """The rows of `tickers` in the version `opened`, for an engine that reads the lake's own copy.

        None if a file is missing, cannot be read or holds another number of rows than the log says: the caller then reads the
        table itself, which has the same rows. Writes nothing.
        """
        import pyarrow.parquet as pq
        from pyspark.sql import functions as F

        served = self.served(table, opened)
        try:
            if not self._has_all(table, served):
                return None
            footers = self.storage.map(lambda year: pq.read_metadata(self.storage.ranged(year.path)), served)
            if [footer.num_rows for footer in footers] != [year.rows for year in served]:
                return None
        except (OSError, ValueError, StorageError):  # as in `rows`
            return None
        paths = [self.storage.uri(year.path) for year in served]
        return spark.read.schema(table.ddl).parquet(*paths).where(F.col("ticker").isin(list(tickers)))

    def damages(self, table: Table) -> list[Damage]:
        """The files of the present version that cannot be read, or hold another number of rows than the log says."""
        import pyarrow.parquet as pq

        stored = self.lake.delta[table.name]
        there = self._there(table)
        found = []
        for served in self.served(table, stored.snapshot()) if stored.exists() else ():
            if served.path not in there:
                continue
            rows = rows_or_reason(lambda path=served.path: int(pq.read_metadata(self.storage.ranged(path)).num_rows))  # type: ignore[misc]
            if isinstance(rows, str):
                found.append(Damage(served.path, rows))
            elif rows != served.rows:
                found.append(Damage(served.path, f"holds {rows:,} rows, the table's log says {served.rows:,}"))
        return found

    def remove_replaced(self) -> list[File]:
        """Remove the files that no present version names, GRACE_SECONDS after they were replaced or last used; return them.

        With them go temporary files of killed writers and empty folders. File times are compared with each other, never with this
        machine's clock.
        """
        removed = []
        for table in SERVED:
            files = list(self._there(table).values())
            newest = max((file.changed for file in files), default=0.0)
            stored = self.lake.delta[table.name]
            named_now = {year.path for year in self.served(table, stored.snapshot())} if stored.exists() else set()
            # A publish has replaced the file of such a year, and its serving copy is yet to come.
            unmade = {_year_of(path) for path in named_now - {file.path for file in files}}
            removed += [
                file
                for file in files
                if file.path not in named_now
                and newest - max(_replaced_at(file, files, unmade), self._last_used(file)) > GRACE_SECONDS
            ]
            if isinstance(self.storage, Folder):
                _remove_empty(Path(self.storage.uri(self._folder_of(table))), newest - GRACE_SECONDS)
        # A file beside the folders of the tables was left by a killed writer of lakehouse.duckdb.
        files = list(self.storage.walk(FOLDER)) if self._is_own else []
        newest = max((file.changed for file in files), default=0.0)
        removed += [file for file in files if file.path.count("/") == 1 and newest - file.changed > GRACE_SECONDS]
        if removed:
            self.storage.delete([file.path for file in removed])
        return removed

    def _folder_of(self, table: Table) -> str:
        return f"{FOLDER}/{table.name}" if self._is_own else table.name

    def _there(self, table: Table) -> dict[str, File]:
        return {file.path: file for file in self.storage.walk(self._folder_of(table))}

    def _has_all(self, table: Table, served: Sequence[ServedYear]) -> bool:
        """Whether there are years, and the file of each."""
        there = self._there(table)
        return bool(served) and all(year.path in there for year in served)

    def _make(
        self,
        stored: DeltaTable,
        opened: deltalake.DeltaTable,
        wanted: Sequence[ServedYear],
        years: Iterable[int] | None,
    ) -> list[str]:
        table, of_years = stored.table, None if years is None else set(years)
        there = self._there(table)
        missing = []
        for served in wanted:
            if served.path in there:
                self._used(there[served.path])
            elif of_years is None or served.year in of_years:
                missing.append(served)
        if not missing:
            return []
        self._tell(f"serving copy of {table.name}: years to be written: {len(missing)}, from {missing[0].year} on")
        earlier = self._of_version_before(stored, opened, there) if self._is_own else {}

        def make(served: ServedYear) -> None:
            self._write(served.path, self._content(stored, opened, served, earlier.get(served.year)))

        with named(served_name(table)), ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            for _ in pool.map(make, missing):
                pass
            if not self._is_own:
                self._remove_unused(table)
        return [self.storage.uri(served.path) for served in missing]

    def _of_version_before(
        self, stored: DeltaTable, opened: deltalake.DeltaTable, there: Mapping[str, File]
    ) -> dict[int, ServedYear]:
        """By year, the file of the version before `opened` that is there and has the same columns.

        Empty for the layout by year, in which a change of any ticker replaces the year's data files.
        """
        import deltalake
        from deltalake.exceptions import DeltaError

        if "ticker" not in partition_columns(opened) or not opened.version():
            return {}
        try:
            before = deltalake.DeltaTable(str(stored.path), version=opened.version() - 1)
        except DeltaError:  # upkeep removed it from the log
            return {}
        if _columns_of(before) != _columns_of(opened):
            return {}
        return {served.year: served for served in self.served(stored.table, before) if served.path in there}

    def _content(
        self, stored: DeltaTable, opened: deltalake.DeltaTable, served: ServedYear, earlier: ServedYear | None
    ) -> bytes:
        if not self._is_own:
            with contextlib.suppress(FileNotFoundError):  # the publish has not made it, or its age took it away
                return self.lake.storage.read(f"{FOLDER}/{served.path}")
        return _as_parquet(stored, opened, served, earlier)

    def _write(self, path: str, content: bytes) -> None:
        try:
            self.storage.create(path, content)
        except FileExistsError:
            return  # another process wrote the same rows meanwhile
        except PermissionError as error:
            raise UnservedError(
                f"{self.storage.uri(path)}: may not be written ({error.strerror}); set serving_cache to a folder of your own"
            ) from None

    def _used(self, file: File) -> None:
        """Set the time of a file's last use, at most twice a day, so that it stays. A bucket's files have no such time.

        The access time is set, because a file system may not do so itself (noatime). The modification time stays: it tells when
        the file replaced another.
        """
        now = utc_now().timestamp()
        if isinstance(self.storage, Folder) and now - self._last_used(file) > GRACE_SECONDS / 2:
            with contextlib.suppress(OSError):  # removed meanwhile, or another user's: its time then stays as it is
                os.utime(self.storage.uri(file.path), (now, file.changed))

    def _last_used(self, file: File) -> float:
        """When a file was written or last used, whichever is later."""
        if isinstance(self.storage, Folder):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                return max(file.changed, os.stat(self.storage.uri(file.path)).st_atime)
        return file.changed

    def _remove_unused(self, table: Table) -> None:
        files = list(self._there(table).values())
        newest = max(file.changed for file in files)
        self.storage.delete([file.path for file in files if newest - self._last_used(file) > UNUSED_SECONDS])


def _years_of(opened: deltalake.DeltaTable) -> list[tuple[int, str, list[dict[str, Any]]]]:
    """The years of the version `opened`, ascending: each with its digest and its data files.

    They are kept as long as the handle `opened` has this version: of 10,500 files they take 20 ms, and a run needs them 25 times.
    """
    version, known = _known_years.get(id(opened), (None, []))
    if version == opened.version():
        return known
    if version is None:
        finalize(opened, _known_years.pop, id(opened), None)
    needed = ["path", "num_records", *(f"partition.{name}" for name in partition_columns(opened))]
    years: dict[int, list[dict[str, Any]]] = {}
    for add in add_actions(opened).select(needed).to_pylist():
        if add["num_records"]:
            years.setdefault(add["partition.year"], []).append(add)
    found = [(year, _digest(opened, data), data) for year, data in sorted(years.items())]
    _known_years[id(opened)] = opened.version(), found
    return found


def _digest(opened: deltalake.DeltaTable, data: Iterable[dict[str, Any]]) -> str:
    """The name of what a file holds: the table, its columns and the data files of the year."""
    content = json.dumps([FORM, str(opened.metadata().id), _columns_of(opened), sorted(add["path"] for add in data)])
    return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]


def _columns_of(opened: deltalake.DeltaTable) -> list[tuple[str, Any]]:
    return [(field["name"], field["type"]) for field in json.loads(opened.schema().to_json())["fields"]]


def _as_parquet(
    stored: DeltaTable, opened: deltalake.DeltaTable, served: ServedYear, earlier: ServedYear | None = None
) -> bytes:
    """The file of a year. `bars_per_chunk` bounds the rows in memory, beside the bytes of the file.

    `earlier`: the file of the version before, from which the rows of unchanged tickers are taken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    version = opened.protocol().min_reader_version
    if version > 1:
        raise UnservedError(
            f"{stored.table.name}: another program gave the table reader version {version}, whose deleted rows or renamed "
            "columns the serving copy would get wrong; turn off its deletion vectors and column mapping"
        )
    # Without the columns' comments, which do not change a file's name.
    schema = pa.schema([(field.name, field.type) for field in pa.schema(opened.schema().to_arrow())])
    texts = [field.name for field in schema if field.type == pa.string()]
    content, rows = BytesIO(), 0
    # Doubles hardly repeat: a dictionary of them makes the file a quarter larger.
    with pq.ParquetWriter(
        content, schema, compression="zstd", use_dictionary=texts, write_page_checksum=True
    ) as writer:
        reused = None if earlier is None else _with_earlier(stored, opened, served, schema, earlier)
        for part in parts_of_year(stored, opened, served, schema) if reused is None else [reused]:
            writer.write_table(part.sort_by([(name, "ascending") for name in ORDER]), row_group_size=ROWS_A_GROUP)
            rows += part.num_rows
    if rows != served.rows:
        raise UnservedError(
            f"{stored.table.name}: the files of {served.year} hold {rows:,} rows, its log says {served.rows:,}; "
            "`stock-lakehouse upkeep` names the damaged files"
        )
    return content.getvalue()


def parts_of_year(
    stored: DeltaTable, opened: deltalake.DeltaTable, served: ServedYear, schema: pa.Schema
) -> Iterator[pa.Table]:
    """The rows of a year in parts of about `bars_per_chunk` rows, the tickers ascending from part to part.

    A ticker's rows are in one part. Read from the table's data files. Raises StorageError, UnservedError.
    """

    storage = storage_at(stored.lake_root)

    def read(adds: Iterable[dict[str, Any]], tickers: Collection[str] | None = None) -> pa.Table:
        return _read_data(stored, opened, schema, adds, tickers)

    if "ticker" in partition_columns(opened):
        data = sorted(served.data, key=lambda add: str(add["partition.ticker"]))
        sizes = [add["num_records"] for add in data]
        same = [add["partition.ticker"] for add in data]
        for start, end in _chunks(same, sizes, stored.bars_per_chunk):
            yield read(data[start:end])
        return
    if served.rows <= stored.bars_per_chunk:
        yield read(served.data)
        return
    counts: Counter[str] = Counter()
    paths = [f"{stored.table.path}/{file_name(add['path'])}" for add in served.data]
    for names in storage.map(lambda path: _read(storage, path, ["ticker"], None)["ticker"], paths):
        counts.update({entry["values"]: entry["counts"] for entry in names.value_counts().to_pylist()})
    tickers = sorted(counts)
    for start, end in _chunks(tickers, [counts[ticker] for ticker in tickers], stored.bars_per_chunk):
        yield read(served.data, tickers[start:end])


def _read_data(
    stored: DeltaTable,
    opened: deltalake.DeltaTable,
    schema: pa.Schema,
    adds: Iterable[dict[str, Any]],
    tickers: Collection[str] | None = None,
) -> pa.Table:
    """The rows of `tickers` (None: all) in the data files `adds` of the table. Raises StorageError, UnservedError."""
    import numpy as np
    import pyarrow as pa

    storage, partition_by, adds = storage_at(stored.lake_root), partition_columns(opened), list(adds)
    stored_schema = pa.schema([field for field in schema if field.name not in partition_by])

    def read(add: dict[str, Any]) -> pa.Table:
        path = f"{stored.table.path}/{file_name(add['path'])}"
        try:
            rows = _read(storage, path, None, tickers)
        except (OSError, ValueError) as error:  # pyarrow raises both; StorageError is neither
            if failure := storage_error(path, error):
                raise failure from error
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {first_line(error)}"
            raise UnservedError(f"{path} {what}; `stock-lakehouse upkeep` names the damaged files") from error
        return rows if rows.schema == stored_schema else _with_schema(rows, stored_schema)

    # Read file by file: for such small files, pyarrow's dataset and DuckDB take 1.5 and 2 times as long (processor), and
    # DataFusion as long. Polars takes a sixth less, and 180 MB in every environment that computes a layer.
    parts = list(storage.map(read, adds))
    rows = pa.concat_tables(parts).combine_chunks()
    # A partition column is made once for all files: of 500 files, that is as much work as of one.
    file_of_row = pa.array(np.repeat(np.arange(len(parts)), [part.num_rows for part in parts]))

    def values(name: str) -> pa.Array:
        return pa.array([add[f"partition.{name}"] for add in adds], schema.field(name).type).take(file_of_row)

    return _with_schema(rows, schema, {name: values(name) for name in partition_by})


def _with_earlier(
    stored: DeltaTable, opened: deltalake.DeltaTable, served: ServedYear, schema: pa.Schema, earlier: ServedYear
) -> pa.Table | None:
    """The rows of a year: those of unchanged tickers from the file `earlier`, the others from the table's data files.

    None if all of its data files are new, `earlier` is damaged, or the year has more than `bars_per_chunk` rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    kept = {add["path"] for add in earlier.data} & {add["path"] for add in served.data}
    if not kept or served.rows > stored.bars_per_chunk:
        return None
    try:
        with pq.ParquetFile(storage_at(stored.lake_root).source(earlier.path), page_checksum_verification=True) as file:
            rows = file.read(use_threads=False)
    except (OSError, ValueError):  # pyarrow raises both, also where a checksum of a page is wrong
        return None
    if rows.num_rows != earlier.rows:
        return None
    changed = {add["partition.ticker"] for add in (*earlier.data, *served.data) if add["path"] not in kept}
    is_changed = pc.is_in(rows["ticker"], pa.array(sorted(changed), pa.string()))
    unchanged = _with_schema(rows.filter(pc.invert(is_changed)), schema)
    new = [add for add in served.data if add["partition.ticker"] in changed]
    return pa.concat_tables([unchanged, _read_data(stored, opened, schema, new)]) if new else unchanged


def _chunks(tickers: Sequence[str], rows: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of the sorted list `tickers` with about `size` rows each; equal tickers are in one range."""
    start = held = 0
    for place, ticker in enumerate(tickers):
        if held and held + rows[place] > size and ticker != tickers[place - 1]:
            yield start, place
            start, held = place, 0
        held += rows[place]
    if len(tickers) > start:
        yield start, len(tickers)


def _read(storage: Storage, path: str, columns: Sequence[str] | None, tickers: Collection[str] | None) -> pa.Table:
    """Those of `columns` (None: all) that a Parquet file has, of the rows of `tickers` (None: all)."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if columns is None and tickers is None:
        # From memory, a small file is read in nine tenths of the time that pyarrow takes by its path.
        with pq.ParquetFile(pa.BufferReader(storage.read(path))) as file:
            return file.read(use_threads=False)
    # A whole file is one request to a bucket.
    with pq.ParquetFile(storage.source(path) if tickers is None else storage.ranged(path)) as file:
        names = file.schema_arrow.names
        present = [name for name in (names if columns is None else columns) if name in names]
        if tickers is None:
            return file.read(present, use_threads=False)
        wanted = [*present, *({"ticker"} - {*present})]
        rows = file.read_row_groups(groups_with(file.metadata, tickers), wanted)
    return rows.filter(pc.is_in(rows["ticker"], pa.array(sorted(tickers), pa.string()))).select(present)


def _with_schema(rows: pa.Table, schema: pa.Schema, values: Mapping[str, pa.Array] | None = None) -> pa.Table:
    """`rows` with the columns of `schema`, of which some are in `values`. A column in neither is null."""
    import pyarrow as pa

    def column(field: pa.Field) -> Any:
        if values is not None and field.name in values:
            return values[field.name]
        if field.name in rows.column_names:
            stored = rows[field.name]
            return stored if stored.type == field.type else stored.cast(field.type)
        return pa.nulls(rows.num_rows, field.type)

    return pa.table([column(field) for field in schema], schema=schema)


def _year_of(path: str) -> str:
    """The folder of the year of a file of the copy."""
    return path.rsplit("/", 2)[0]


def _replaced_at(file: File, files: Iterable[File], unmade: Collection[str]) -> float:
    """When the next file of the same year was written. If there is none: never for a year in `unmade`, else with the file itself.

    The last case is a file of an earlier version, written for a reader.
    """
    year = _year_of(file.path)
    later = [other.changed for other in files if other.changed > file.changed and _year_of(other.path) == year]
    return min(later, default=math.inf if year in unmade else file.changed)


def _remove_empty(folder: Path, before: float) -> None:
    """Remove the empty folders below `folder` that have not changed since `before`."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # it is not empty, or another process removed it
            if os.stat(path).st_mtime < before:
                os.rmdir(path)
