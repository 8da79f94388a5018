"""Whether Delta logs, files, serving copy and catalog of a lake agree on columns, files, partitions and rows.

Each difference is a record that names its column or folder. Not here: repairing one, which the next registration does (glue.py),
and the content of data files, which upkeep checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stock_lakehouse.catalog.entries import log_columns
from stock_lakehouse.catalog.glue import PARTITIONS, STORAGE, GlueCatalog, columns_of
from stock_lakehouse.catalog.registration import Registration, Values, registrations_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable, add_actions
from stock_lakehouse.lake.history import file_name
from stock_lakehouse.lake.parquet_table import FILE
from stock_lakehouse.lake.publish import partition_of
from stock_lakehouse.lake.raw_files import raw_file
from stock_lakehouse.lake.serving import SERVED, ServedYear, ServingCopy, served_name
from stock_lakehouse.lake.stored import rows_or_reason
from stock_lakehouse.tables import RAW, TABLES, Table

NONE = "-"
LOG, FILES, SERVING, GLUE = "Delta log", "files", "serving copy", "Glue"  # what differs from the lake
TO_DO = {
    LOG: "the next publish adds a column that a table lacks",
    FILES: "`stock-lakehouse upkeep --repair` replaces data files that are missing or damaged; move files that the lake does "
    "not know out of the folders of its tables",
    SERVING: "`stock-lakehouse upkeep` writes serving files that are missing or damaged",
    GLUE: "`stock-lakehouse materialize --select catalog` registers what differs; after this check failed it compares every "
    "partition",
}


@dataclass(frozen=True)
class Drift:
    """One difference.

    - table: the table, by its name in the catalog
    - kind: table, column, partition, file or rows
    - what: which column, folder or file
    - lake: what the lake has; "-" if it does not have it
    - found: what the catalog, or the serving copy, has; "-" if it does not have it
    - where: what differs from the lake: LOG, FILES, SERVING or GLUE
    """

    table: str
    kind: str
    what: str
    lake: str
    found: str
    where: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def to_do(found: Sequence[Drift]) -> str:
    """What to do about `found`; empty for none."""
    return "; ".join(TO_DO[where] for where in dict.fromkeys(drift.where for drift in found))


def drift_of(lake: Lake, catalog: GlueCatalog | None, crawled: bool = False) -> list[Drift]:
    """Every difference in `lake`, and between it and `catalog` (None: there is none but the lake itself).

    `crawled`: crawlers register the partitions of the tables of plain files, and leave no digest of them.

    Lists the lake's files, reads logs and the footers of the serving copy, and with `catalog` its tables and partitions. Raises
    StorageError, CatalogError, PermissionMissingError.
    """
    found = [drift for stored in (*lake.delta.values(), *lake.stream.values()) for drift in _in_log(lake, stored)]
    found += [drift for table in SERVED for drift in _in_serving_copy(lake, table)]
    if catalog is not None:
        found += [drift for table in TABLES if table.format != "delta" for drift in _unknown_files(lake, table)]
        registered = catalog.tables()
        for registration in registrations_of(lake):
            found += _in_glue(catalog, registration, registered.get(registration.name), crawled)
    return found


def _unknown_files(lake: Lake, table: Table) -> Iterator[Drift]:
    """The files in folders of partitions that engines read and the lake does not: engines know nothing of file names.

    They skip hidden files, whose names begin with a point or an underscore.
    """
    stored = lake.stored(table.name)
    keys = len(stored.table.partition_by)
    for file in sorted(lake.storage.walk(stored.table.path), key=lambda file: file.path):
        is_known = raw_file(file) is not None if table.name == RAW.name else file.name == FILE
        if not is_known and len(partition_of(file.path)) == keys and not file.name.startswith((".", "_")):
            yield Drift(table.name, "file", file.path, NONE, "read by SQL engines, not by the lake", FILES)


def _in_log(lake: Lake, stored: DeltaTable) -> Iterator[Drift]:
    if not stored.exists():
        return
    opened, table = stored.snapshot(), stored.table
    adds = {
        f"{table.path}/{file_name(path)}": size
        for path, size in zip(*(add_actions(opened)[name].to_pylist() for name in ("path", "size_bytes")), strict=True)
    }
    # Looked at after the log was opened: files that it names are kept for a day, of the stream's tables for an hour at least,
    # also where another run replaces them now.
    files = lake.storage.present(table.path, adds)
    yield from _in_columns(table.name, {column.name: column.type for column in table.columns}, log_columns(opened), LOG)
    for path, size in adds.items():
        if path not in files:
            yield Drift(table.name, "file", path, f"{size:,} bytes", NONE, FILES)
        elif files[path].size != size:
            yield Drift(table.name, "file", path, f"{size:,} bytes", f"{files[path].size:,} bytes", FILES)


def _in_serving_copy(lake: Lake, table: Table) -> Iterator[Drift]:
    import pyarrow.parquet as pq

    stored, name = lake.delta[table.name], served_name(table)
    if not stored.exists():
        return
    opened, copy = stored.snapshot(), ServingCopy(lake)
    present = copy.present(table, opened)
    columns = log_columns(opened)
    served = copy.served(table, opened)

    def look(year: ServedYear) -> list[Drift]:
        folder = year.path.rpartition("/")[0]
        if present[year.year] is None:
            return [Drift(name, "partition", folder, f"{year.rows:,} rows", NONE, SERVING)]
        found: dict[str, str] = {}

        def rows_in() -> int:
            with pq.ParquetFile(lake.storage.ranged(year.path)) as file:
                found.update({field.name: _spark_type(str(field.type)) for field in file.schema_arrow})
                return int(file.metadata.num_rows)

        rows = rows_or_reason(rows_in)
        if isinstance(rows, str):
            return [Drift(name, "file", year.path, f"{year.rows:,} rows", rows, SERVING)]
        drifts = list(_in_columns(name, columns, found, SERVING, f"{folder}: "))
        if rows != year.rows:
            drifts.append(Drift(name, "rows", year.path, f"{year.rows:,} rows", f"{rows:,} rows", SERVING))
        return drifts

    for drifts in lake.storage.map(look, served):
        yield from drifts


def _in_glue(
    catalog: GlueCatalog, registration: Registration, present: Mapping[str, Any] | None, crawled: bool
) -> Iterator[Drift]:
    name, wanted = registration.name, registration.wanted
    if present is None:
        yield Drift(name, "table", f"{catalog.database}.{name}", "exists", NONE, GLUE)
        return
    yield from _in_columns(name, columns_of(wanted), columns_of(present), GLUE)
    yield from _in_comments(name, wanted, present)
    place, found = str(wanted["StorageDescriptor"]["Location"]), str(present["StorageDescriptor"].get("Location", ""))
    if found.rstrip("/") != place:
        yield Drift(name, "table", "location", place, found or NONE, GLUE)
    for parameter, value in wanted["Parameters"].items():
        said = present.get("Parameters", {}).get(parameter)
        if parameter != "comment" and said != value:
            yield Drift(name, "table", f"parameter {parameter}", value, said or NONE, GLUE)
    if registration.partitions is not None:
        yield from _in_partitions(registration, catalog.partitions(name))
        by_crawler = crawled and not registration.is_serving_copy
        if PARTITIONS not in present.get("Parameters", {}) and not by_crawler:
            yield Drift(name, "table", "registration", "complete", "ended before its last partition", GLUE)


def _in_partitions(registration: Registration, found: Mapping[Values, Mapping[str, Any]]) -> Iterator[Drift]:
    wanted, keys = registration.partitions or {}, registration.wanted["PartitionKeys"]

    def folder(values: Values) -> str:
        return "/".join(f"{key['Name']}={value}" for key, value in zip(keys, values, strict=False))

    for values in sorted(wanted.keys() | found.keys()):
        place = found.get(values, {}).get("Location", NONE).rstrip("/")
        expected = wanted.get(values, NONE)
        if place != expected:
            yield Drift(registration.name, "partition", folder(values), expected, place, GLUE)
        elif found[values]["Parameters"].get(STORAGE, registration.storage_digest) != registration.storage_digest:
            yield Drift(registration.name, "partition", folder(values), "present columns", "other columns", GLUE)


def _in_columns(
    name: str, wanted: Mapping[str, str], found: Mapping[str, str], where: str, folder: str = ""
) -> Iterator[Drift]:
    for column in [*wanted, *(column for column in found if column not in wanted)]:
        expected, kind = wanted.get(column, NONE), found.get(column, NONE)
        if expected != kind:
            yield Drift(name, "column", f"{folder}{column}", expected, kind, where)


def _in_comments(name: str, wanted: Mapping[str, Any], present: Mapping[str, Any]) -> Iterator[Drift]:
    found = _comments(present)
    for column, comment in _comments(wanted).items():
        if column in found and found[column] != comment:
            yield Drift(name, "column", f"comment of {column}", comment, found[column] or NONE, GLUE)


def _comments(table: Mapping[str, Any]) -> dict[str, str]:
    columns = (*table["StorageDescriptor"].get("Columns", ()), *table.get("PartitionKeys", ()))
    return {column["Name"]: column.get("Comment", "") for column in columns}


def _spark_type(arrow: str) -> str:
    """The Spark SQL type of an Arrow type by its text."""
    if arrow.startswith("list<"):
        return "array<string>"
    if arrow.startswith("timestamp"):
        return "timestamp"
    names = {"int32": "int", "int64": "bigint", "bool": "boolean", "date32[day]": "date", "large_string": "string"}
    return names.get(arrow, arrow)
