"""What each table of a lake is, as data: columns, comments, keys, lineage, place, partitions, version, rows and bytes.

The commands `tables` and `describe`, the catalog asset and the registration in Glue are made of it. Not here: how Glue stores an
entry (glue.py), and whether a catalog says the same as the lake (agreement.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable, add_actions, partition_columns
from stock_lakehouse.lake.publish import partition_of
from stock_lakehouse.lake.reading import table_of
from stock_lakehouse.lake.storage import File
from stock_lakehouse.schemas import Column
from stock_lakehouse.schemas.lineage import column_lineage
from stock_lakehouse.tables import BARS_WITH_FEATURES, RAW, RESTATEMENTS, TABLES, Table

if TYPE_CHECKING:
    import deltalake

OWNER = "market-data"


@dataclass(frozen=True)
class State:
    """What a table holds.

    - version: the Delta version; None for other formats, and before the first publish
    - rows: the number of rows, by the log of a Delta table or the footers of Parquet files; None where only reading all files
      would tell
    - files, bytes: of the present version
    - partitions: the number of partitions that have a file; None for a table without partitions
    """

    version: int | None = None
    rows: int | None = None
    files: int = 0
    bytes: int = 0
    partitions: int | None = None


@dataclass(frozen=True)
class Entry:
    """A table of a lake.

    - table: with the columns and the layout that it has in this lake
    - location: its folder or URI; empty for a view
    - made_of: the upstream columns, as (table, column), of each column that has some
    - state: what it holds; None if that was not asked for
    """

    table: Table
    location: str
    made_of: dict[str, list[tuple[str, str]]]
    state: State | None = None

    def with_state(self, state: State) -> Entry:
        """The entry with what its table holds."""
        return replace(self, state=state)

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`: facts, state and columns."""
        table, state = self.table, self.state or State()
        return {
            "name": table.name,
            "layer": table.layer,
            "format": "view" if table.layer == "view" else table.format,
            "description": table.description,
            "owner": OWNER,
            "key": list(table.key),
            "partition_by": list(table.partition_by),
            "made_from": list(table.made_from),
            "location": self.location,
            "version": state.version,
            "rows": state.rows,
            "files": state.files,
            "bytes": state.bytes,
            "partitions": state.partitions,
            "columns": [self._column_as_json(column) for column in table.columns],
        }

    def _column_as_json(self, column: Column) -> dict[str, Any]:
        made_of = [{"table": table, "column": name} for table, name in self.made_of.get(column.name, ())]
        return {
            "name": column.name,
            "type": column.type,
            "comment": column.description,
            "unit": column.unit or None,
            "nullable": column.nullable,
            "null": column.null or None,
            "made_of": made_of,
        }


def entry_of(lake: Lake, name: str) -> Entry:
    """The table or view `name` of `lake` without its state, for which no file is read. Raises UnknownTableError."""
    table, location = table_of(lake, name), ""
    if name != BARS_WITH_FEATURES:
        stored = lake.stored(name)
        table, location = stored.table, stored.location
    return Entry(table, location, column_lineage(table, lake.indicators))


def entries_of(lake: Lake) -> list[Entry]:
    """Every stored table of `lake` with its state, in the order of the flow. Raises StorageError."""
    return [entry_of(lake, table.name).with_state(state_of(lake, table.name)) for table in tables_in(lake)]


def tables_in(lake: Lake) -> tuple[Table, ...]:
    """The stored tables of `lake`, in the order of the flow: those of the stream where they exist. Raises StorageError."""
    return (*TABLES, *(stored.table for stored in lake.stream_tables()))


def state_of(lake: Lake, name: str, count_rows: bool = False) -> State:
    """What the stored table `name` holds.

    `count_rows`: read the footer of every file of a Parquet table, which has no log that tells its rows.
    Raises KeyError if there is no such table; StorageError.
    """
    stored = lake.stored(name)
    if isinstance(stored, DeltaTable):
        return _state_of_delta(lake, stored)
    files = files_of(lake, name)
    is_counted = count_rows and name != RAW.name
    return state_of_files(files, _rows_in_footers(lake, files) if is_counted else None)


def files_of(lake: Lake, name: str) -> list[File]:
    """The files of a table of plain files, raw or Parquet, by one listing. Raises KeyError for a Delta table."""
    return lake.raw.files() if name == RAW.name else lake.parquet[name].files()


def state_of_files(files: Sequence[File], rows: int | None = None) -> State:
    """What a table of plain files holds; `rows` if they were counted."""
    partitions = {partition_of(file.path) for file in files}
    return State(None, rows if files else 0, len(files), sum(file.size for file in files), len(partitions))


def _state_of_delta(lake: Lake, stored: DeltaTable) -> State:
    if not stored.exists():
        return State(rows=0, partitions=0 if stored.table.partition_by else None)
    opened = stored.snapshot()
    adds = add_actions(opened)
    columns = [f"partition.{name}" for name in partition_columns(opened)]
    rows = sum(adds["num_records"].to_pylist())
    if stored.table.name == RESTATEMENTS.name:
        rows -= sum(lake.ledger.orphans(table.table.name, table.snapshot()) for table in restated(lake))
    partitions = adds.group_by(columns).aggregate([]).num_rows if columns else None
    return State(opened.version(), rows, adds.num_rows, sum(adds["size_bytes"].to_pylist()), partitions)


def _rows_in_footers(lake: Lake, files: Sequence[File]) -> int:
    import pyarrow.parquet as pq

    return sum(lake.storage.map(lambda file: int(pq.read_metadata(lake.storage.ranged(file.path)).num_rows), files))


def restated(lake: Lake) -> list[DeltaTable]:
    """The published tables whose changes the ledger records."""
    return [lake.delta[table.name] for table in TABLES if table.ledger and lake.delta[table.name].exists()]


def log_columns(opened: deltalake.DeltaTable) -> dict[str, str]:
    """The columns of a version of a Delta table with their types in Spark SQL, in the order of its log."""
    return {field.name: _spark_type(field.type) for field in opened.schema().fields}


def _spark_type(kind: Any) -> str:
    if kind.type == "array":
        return f"array<{_spark_type(kind.element_type)}>"
    return {"long": "bigint", "integer": "int"}.get(kind.type, str(kind.type))
