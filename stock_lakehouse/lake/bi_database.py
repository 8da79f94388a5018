"""`lakehouse.duckdb`: a DuckDB file of a lake in a folder, which BI tools open. Its views read the files of the serving copy.

Here: what the file has, and when it is replaced. Not here: the serving copy (serving.py), and SQL of the program (sql/), which
does not use this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.lake.serving import FOLDER, SERVED, ServingCopy, UnservedError
from stock_lakehouse.lake.storage import LakeError, named
from stock_lakehouse.lake.storage.messages import first_line
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, FEATURES, RESTATEMENTS, Table, bars_with_features

if TYPE_CHECKING:
    import duckdb

    from stock_lakehouse.lake import Lake

NAME = "lakehouse.duckdb"
# Small tables, of which the file holds the rows: which lines of the ledger count is not known to SQL.
COPIED = (CORPORATE_ACTIONS, RESTATEMENTS)


@dataclass(frozen=True)
class _Content:
    """What the file has of a table.

    - table: with the columns of its version
    - version: of the Delta table
    - files: those that a view reads; empty for a table that is copied
    """

    table: Table
    version: int
    files: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        columns = [(column.name, column.type, column.documentation) for column in self.table.columns]
        text = json.dumps([self.table.description, columns, self.version, self.files])
        return hashlib.sha256(text.encode()).hexdigest()


def renew(lake: Lake) -> bool:
    """Replace the lake's `lakehouse.duckdb` if its tables have changed; return whether it was replaced.

    The file has views `curated_stocks_daily`, `stocks_features` and `bars_with_features` on the serving copy, the rows of
    `corporate_actions` and `restatements`, and `lake_versions`: the Delta version of each. It is written beside and moved, so
    a program that has it open keeps what it opened. No file for a lake on S3, without DuckDB, or while a file of the serving copy
    is missing. Raises StorageError, UnservedError.
    """
    if not isinstance(lake.root, Path) or importlib.util.find_spec("duckdb") is None:
        return False
    contents = _contents(lake)
    path = lake.root / NAME
    if contents is None or _digests(path) == {content.table.name: content.digest for content in contents}:
        return False
    import duckdb

    hidden = lake.root / FOLDER / f".{NAME}.{uuid.uuid4().hex[:8]}.tmp"
    with named(str(path)):
        hidden.parent.mkdir(exist_ok=True)
        try:
            with duckdb.connect(str(hidden)) as connection:
                connection.execute("BEGIN")
                _fill(connection, lake, contents)
                connection.execute("COMMIT")
            os.replace(hidden, path)
        except duckdb.Error as error:
            raise UnservedError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error
        finally:
            hidden.unlink(missing_ok=True)
    return True


def _contents(lake: Lake) -> list[_Content] | None:
    """What the file should have; None if there is nothing to serve or a file of the serving copy is missing."""
    contents, copy = [], ServingCopy(lake)
    for table in SERVED:
        stored = lake.delta[table.name]
        if not stored.exists():
            continue
        opened = stored.snapshot()
        files = copy.present(table, opened)
        if None in files.values():
            return None
        if files:
            names = {field.name for field in opened.schema().fields}
            contents.append(
                _Content(_with_columns(stored.table, names), opened.version(), tuple(map(str, files.values())))
            )
    if not contents:
        return None
    for table in COPIED:
        stored = lake.delta[table.name]
        if stored.exists():
            contents.append(_Content(table, stored.snapshot().version()))
    return contents


def _with_columns(table: Table, names: set[str]) -> Table:
    """`table` with those of its columns that its version has."""
    return replace(table, columns=tuple(column for column in table.columns if column.name in names))


def _digests(path: Path) -> dict[str, str] | None:
    """The digest of each table in the file at `path`; None if there is no file, or none that can be read."""
    import duckdb

    if not path.exists():
        return None
    with contextlib.suppress(duckdb.Error), duckdb.connect(str(path), read_only=True) as connection:
        return dict(connection.execute("SELECT table_name, content FROM lake_versions").fetchall())
    return None


def _fill(connection: duckdb.DuckDBPyConnection, lake: Lake, contents: list[_Content]) -> None:
    from stock_lakehouse.lake.reading import read_table

    for content in contents:
        table = content.table
        if content.files:
            columns = ", ".join(f'"{column.name}"' for column in table.columns)
            files = ", ".join(map(_literal, content.files))
            # All names are of tables.py and of the program's own files; a path is a literal.
            select = f"SELECT {columns} FROM read_parquet([{files}], hive_partitioning = false)"  # noqa: S608
            connection.execute(f'CREATE VIEW "{table.name}" AS {select}')
        else:
            try:
                rows = read_table(table.name, lake_root=lake.root)
            except LakeError:
                raise
            except (OSError, ValueError) as error:  # pyarrow raises both for a damaged file
                raise UnservedError(
                    f"{table.name} cannot be read: {first_line(error)}; `stock-lakehouse upkeep` names the damaged files"
                ) from error
            connection.register("rows_of_table", rows)
            connection.execute(f'CREATE TABLE "{table.name}" AS FROM rows_of_table')
            connection.unregister("rows_of_table")
        _comment(connection, table, "VIEW" if content.files else "TABLE")
    by_name = {content.table.name: content.table for content in contents}
    if CURATED.name in by_name and FEATURES.name in by_name:
        _join(connection, by_name[FEATURES.name])
    connection.execute("CREATE TABLE lake_versions (table_name VARCHAR, version BIGINT, content VARCHAR)")
    for content in contents:
        connection.execute(
            "INSERT INTO lake_versions VALUES (?, ?, ?)", [content.table.name, content.version, content.digest]
        )
    connection.execute("COMMENT ON TABLE lake_versions IS 'The version of each Delta table that this file shows'")


def _join(connection: duckdb.DuckDBPyConnection, features: Table) -> None:
    view = bars_with_features(features)
    added = [column.name for column in view.columns if column.name not in CURATED.column_names]
    columns = ", ".join(f'features."{name}"' for name in added)
    bars = f'SELECT bars.*, {columns} FROM "{CURATED.name}" AS bars'  # noqa: S608
    connection.execute(
        f'CREATE VIEW "{view.name}" AS {bars} LEFT JOIN "{FEATURES.name}" AS features USING (ticker, date)'
    )
    _comment(connection, view, "VIEW")


def _comment(connection: duckdb.DuckDBPyConnection, table: Table, kind: str) -> None:
    connection.execute(f'COMMENT ON {kind} "{table.name}" IS {_literal(table.description)}')
    for column in table.columns:
        connection.execute(f'COMMENT ON COLUMN "{table.name}"."{column.name}" IS {_literal(column.documentation)}')


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
