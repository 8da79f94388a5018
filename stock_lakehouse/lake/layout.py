"""Moving a lake's tables to the layout that its options name: a file for each ticker-year, or for each year.

The rows stay the same, bit for bit. Each table is moved by one write, so after a kill a table has been moved or not, and running
the move again completes it. Not here: the layouts (tables.py), and the files of a Parquet table (parquet_table.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable, adds_of, partition_columns
from stock_lakehouse.lake.ledger import Ledger
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.storage import named
from stock_lakehouse.tables import LAYOUTS, TABLES

if TYPE_CHECKING:
    import deltalake


def move(lake: Lake, say: Callable[[str], None] = lambda line: None) -> None:
    """Move every table to the layout of the lake's options. `say` is called with a line for each table.

    A table waits for its lock, as every writer does; readers never wait. Needs no engine.

    Raises PublishError if rows were lost, which is found before a Parquet table is moved; StorageError; TableBusyError.
    """
    for table in TABLES:
        if table.partition_by != LAYOUTS["ticker_year"]:
            continue
        files = len(lake.stored(table.name).paths())
        delta = lake.delta.get(table.name)
        rows = lake.parquet[table.name].move() if delta is None else _move_delta(delta, lake.ledger)
        if rows is None:
            say(f'{table.name}: has layout "{lake.options.layout}", or no rows')
        else:
            say(f"{table.name}: {rows:,} rows moved, from {files:,} files to {len(lake.stored(table.name).paths()):,}")


def _move_delta(table: DeltaTable, ledger: Ledger) -> int | None:
    """Move a Delta table; return its number of rows, or None if there is nothing to do.

    The move is one commit on the same table, which replaces all files and the partition columns. So earlier versions can still
    be read, and the ledger's lines stay valid: they name the table's ID, which stays, and versions before this one.
    """
    name, columns = table.table.name, table.table.partition_by
    with named(name), one_writer(table.lake_root, name):
        if not table.exists() or partition_columns(table.open()) == columns:
            return None
        before = table.open()
        # Before the commit, because an orphaned line would count once the table is past the version that it names.
        ledger.drop_orphans(name, before)
        confirm(table.lake_root)
        years, version = _rows_by_year(before), before.version()
        table.rewrite(before, sorted(years), predicate=None, partition_by=columns)
        if _rows_by_year(table.open()) != years:
            raise PublishError(
                f"{name}: the version after {version} has another number of rows than version {version}, from which it was "
                "moved and which can still be read; please report it"
            )
        return years.total()


def _rows_by_year(opened: deltalake.DeltaTable) -> Counter[int]:
    rows: Counter[int] = Counter()
    for add in adds_of(opened):
        rows[add["partition.year"]] += add["num_records"]
    return rows
