"""The statements of a load on Redshift, and of what a load and a comparison read.

Here: SQL text. Not here: definitions of tables and views (tables.py), and when what is run (load.py, agreement.py).

A load stages the rows of changed ticker-years in temporary tables, and replaces them in one transaction. Rows are selected with
constants, so that Spectrum reads only the partitions of their years.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from stock_lakehouse.lake.publish import partition_predicate
from stock_lakehouse.lake_options import TICKER
from stock_lakehouse.sql.data_api import LONGEST_STATEMENT, WarehouseError
from stock_lakehouse.sql.typed import quoted
from stock_lakehouse.warehouse.changes import Change
from stock_lakehouse.warehouse.checksum import REDSHIFT, checksums_sql
from stock_lakehouse.warehouse.tables import LOADED_COLUMNS, LOADED_YEARS, VARCHAR, Names, NativeTable, literal, sql

LONGEST = LONGEST_STATEMENT - 10_000  # bytes of a statement of a load

Item = TypeVar("Item")


class TickerNameError(WarehouseError):
    """The lake has a ticker whose name is no ticker's. It is not sent to Redshift as SQL."""


def stage(names: Names, table: NativeTable, changed: Sequence[Change]) -> list[str]:
    """The statements that stage the changed ticker-years of `table` in temporary tables of a session.

    - new_…: their rows, as the serving copy has them
    - changed_…: the ticker-years, with their files; null for those that the lake has no longer
    """
    for change in changed:
        if not TICKER.fullmatch(change.ticker):
            raise TickerNameError(
                f"{table.source.name} has the ticker {change.ticker!r}, which cannot be one (^{TICKER.pattern}$), so nothing was "
                "loaded; `stock-lakehouse upkeep` looks at the table"
            )
    wanted = [change.pair for change in changed if change.files is not None]
    columns = table.column_list
    return [
        sql("CREATE TEMP TABLE", _new(table), f"(LIKE {names.native(table.name)})"),
        sql("CREATE TEMP TABLE", _changed(table), f"(ticker {VARCHAR}, year INTEGER, files VARCHAR(64))"),
        *in_statements(
            wanted,
            lambda pairs: sql(
                "INSERT INTO", _new(table), f"({columns})", "SELECT", columns, "FROM", names.served(table.source),
                "WHERE", partition_predicate(pairs),
            ),
        ),
        *in_statements(
            changed,
            lambda some: sql("INSERT INTO", _changed(table), "(ticker, year, files) VALUES", ", ".join(map(_row, some))),
        ),
    ]  # fmt: skip


def replace(names: Names, versions: Sequence[tuple[NativeTable, int]], load_id: str) -> list[str]:
    """The nine statements that replace the staged ticker-years, whatever has changed; to be run in one transaction.

    `versions`: each table with the version of the lake's table that was staged. The first is the lock, which makes a second load
    wait until the first has committed; readers do not wait for it. With each ticker-year the checksum of its new rows is noted,
    as Redshift has them.
    """
    noted = names.native(LOADED_YEARS)
    statements = [sql("LOCK TABLE", noted)]
    for table, version in versions:
        native, staged, changed = names.native(table.name), _new(table), _changed(table)
        sums = checksums_sql(table.columns, staged, REDSHIFT)
        values = ", ".join(
            (literal(table.name), "c.ticker", "c.year", "c.files", "s.row_count", "s.checksum_1", "s.checksum_2")
        )
        statements += [
            sql("DELETE FROM", native, "USING", changed, "WHERE", _same_year(table.name, changed)),
            sql("DELETE FROM", noted, "USING", changed, "WHERE", _same_year(LOADED_YEARS, changed),
                f"AND {LOADED_YEARS}.table_name = {literal(table.name)}"),
            sql("INSERT INTO", native, f"({table.column_list})", "SELECT", table.column_list, "FROM", staged),
            sql("INSERT INTO", noted, f"({', '.join(LOADED_COLUMNS)})", "SELECT", values,
                f", {version}, {literal(load_id)}, FALSE FROM", changed, "AS c JOIN", f"({sums}) AS s",
                "ON c.ticker = s.ticker AND c.year = s.year WHERE c.files IS NOT NULL"),
        ]  # fmt: skip
    if too_long := next((text for text in statements if len(text.encode()) > LONGEST_STATEMENT), None):
        raise WarehouseError(
            f"the checksum of a table with so many columns is SQL of {len(too_long.encode()):,} bytes, and the Data API takes "
            f"{LONGEST_STATEMENT:,}; take indicators out of the file that the setting `indicators` names"
        )
    return statements


def read_columns(names: Names) -> str:
    """A SELECT of table_name and column_name of the tables that are there."""
    return sql(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema =", literal(names.schema)
    )


def read_definitions(names: Names, name: str) -> str:
    """A SELECT of name and digest of what is defined."""
    return sql("SELECT name, digest FROM", names.native(name))


def read_loaded(names: Names) -> str:
    """A SELECT of all of `loaded_years`."""
    return sql("SELECT", ", ".join(LOADED_COLUMNS), "FROM", names.native(LOADED_YEARS))


def read_counts(names: Names, table: NativeTable) -> str:
    """A SELECT of ticker, year and row_count of the rows themselves."""
    return sql("SELECT ticker, year, COUNT(*) AS row_count FROM", names.native(table.name), "GROUP BY ticker, year")


def read_checksums(names: Names, table: NativeTable) -> str:
    """A SELECT of ticker, year, row_count, checksum_1 and checksum_2 of the rows themselves."""
    return checksums_sql(table.columns, names.native(table.name), REDSHIFT)


def read_duplicates(names: Names, table: NativeTable) -> str:
    """A SELECT of the keys that more than one row has.

    They are grouped by expressions: the planner believes that the declared key is unique.
    """
    key = [quoted(name) for name in table.source.key]
    masked = ", ".join(f"{name} || ''" if name == quoted("ticker") else f"{name} + 0" for name in key)
    return sql(
        "SELECT", f"{', '.join(f'MIN({name}) AS {name}' for name in key)}, COUNT(*) AS row_count", "FROM",
        names.native(table.name), "GROUP BY", masked, "HAVING COUNT(*) > 1 ORDER BY 1, 2",
    )  # fmt: skip


def note_agreement(names: Names, table: NativeTable, load_ids: Sequence[str]) -> str:
    """The statement that notes that the ticker-years of these loads are equal to the lake's."""
    listed = ", ".join(map(literal, load_ids))
    return sql(
        "UPDATE", names.native(LOADED_YEARS), "SET agreed = TRUE WHERE table_name =", literal(table.name),
        f"AND load_id IN ({listed}) AND NOT agreed",
    )  # fmt: skip


def in_statements(items: Sequence[Item], written: Callable[[Sequence[Item]], str]) -> list[str]:
    """`items` in as many statements as keep each under LONGEST bytes."""
    if not items:
        return []
    text = written(items)
    if len(text.encode()) <= LONGEST or len(items) == 1:
        return [text]
    middle = len(items) // 2
    return in_statements(items[:middle], written) + in_statements(items[middle:], written)


def _same_year(left: str, right: str) -> str:
    return f"{left}.ticker = {right}.ticker AND {left}.year = {right}.year"


def _new(table: NativeTable) -> str:
    return f"new_{table.name}"


def _changed(table: NativeTable) -> str:
    return f"changed_{table.name}"


def _row(change: Change) -> str:
    files = "NULL" if change.files is None else literal(change.files)
    return f"({literal(change.ticker)}, {change.year}, {files})"
