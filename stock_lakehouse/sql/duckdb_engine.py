"""SQL on DuckDB in this process, over the lake's tables: of the serving copy's files where there is one, else of Arrow tables.

A query has a database of its own in memory, which sees the tables that its SQL names, may open their files and nothing else, and
cannot be configured. So any number run at once, none writes, and none can read a file that is no table of the lake.

Here: the tables of a query, its limits and its result. Not here: the translation (dialect.py), and the files (lake/serving.py).
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import add_actions
from stock_lakehouse.lake.history import snapshot_at
from stock_lakehouse.lake.reading import NAMES, STREAM_NAMES, has_rows_at, names_of, rows_as_of, table_of
from stock_lakehouse.lake.serving import SERVED, ServingCopy, served_name
from stock_lakehouse.sql.dialect import Translation, translate
from stock_lakehouse.sql.engine import (
    Parameter,
    QueryError,
    QueryFailedError,
    QueryResult,
    QuerySyntaxError,
    QueryTimeoutError,
)
from stock_lakehouse.sql.parsing import place_of
from stock_lakehouse.sql.typed import quoted, text_literal
from stock_lakehouse.sql.values import arrow_type, literals, plain
from stock_lakehouse.sql.values import table_of as arrow_table
from stock_lakehouse.tables import BARS_WITH_FEATURES, BY_NAME, CURATED, FEATURES, Table

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SERVED_TABLES = {served_name(table): table.name for table in SERVED}
MEMORY_SHARE = 0.6  # of the machine's memory; what goes beyond is written to a temporary folder
MADE_UP = re.compile(r"Could not convert string '(.*)' to INT32", re.DOTALL)
NAMED_COLUMN = re.compile(r'[Cc]olumn "([^"]+)"')
# The types of Spark SQL that a column may have which no published file has yet.
DUCKDB_TYPES = {
    "string": "VARCHAR",
    "double": "DOUBLE",
    "bigint": "BIGINT",
    "int": "INTEGER",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
}


class LakeTables(Mapping[str, Table]):
    """The tables and views of a lake by name, with the columns that they have in it. Each is looked at when it is asked for.

    A table of the stream is there once it exists.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._found: dict[str, Table] = {}

    def __getitem__(self, name: str) -> Table:
        if name not in self:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = in_sql(table_of(self.lake, SERVED_TABLES.get(name, name)))
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        if name in STREAM_NAMES:
            return self.lake.stream[str(name)].exists()
        return name in NAMES or name in SERVED_TABLES

    def __iter__(self) -> Iterator[str]:
        return iter(names_of(self.lake))  # the served tables are other names of the same rows

    def __len__(self) -> int:
        return len(names_of(self.lake))


def in_sql(table: Table) -> Table:
    """`table` as SQL sees it: prices of the stream as doubles, which hold their 15 digits, and its messages as text."""
    others = {"decimal(18,6)": "double", "binary": "string"}
    return replace(table, columns=tuple(replace(it, type=others.get(it.type, it.type)) for it in table.columns))


class DuckDBEngine:
    """DuckDB over one lake.

    - lake
    - minutes: after this time a query is stopped
    - serving: the serving copy whose files it reads; they are in a folder of this machine
    - views: queries that SQL may name like tables
    """

    name = "duckdb"

    def __init__(
        self,
        lake: Lake,
        serving: ServingCopy,
        minutes: float,
        views: Mapping[str, str] | None = None,
    ) -> None:
        self.lake = lake
        self.serving = serving
        self.minutes = minutes
        self.views = {} if views is None else views

    def run(self, sql: str, parameters: Sequence[Parameter] = (), as_of: datetime | None = None) -> QueryResult:
        """The result of one SELECT; see QueryEngine.run.

        `as_of`: Delta tables as of that version, raw by landing time. Raises NoVersionError, NoHistoryError, StorageError too.
        """
        began = time.monotonic()
        literals(parameters)  # refuses a value that no engine takes
        tables = LakeTables(self.lake)
        translation = translate(sql, tables, parameters, self.views)
        self.lake.check(*self._stored(translation))
        with self._database() as database:
            files = self._show(database, translation, tables, as_of)
            self._lock(database, files)
            with self._limited(database), _named(sql):
                given = {str(place): value for place, value in enumerate(parameters, start=1)}
                found = database.execute(translation.sql, given).to_arrow_table()
                scanned = _scanned(database) if files else None
        return QueryResult(_typed(found, translation), self.name, None, scanned, time.monotonic() - began)

    def _stored(self, translation: Translation) -> list[str]:
        """The stored tables that a query reads."""
        names: dict[str, None] = {}
        for name in translation.tables:
            real = SERVED_TABLES.get(name, name)
            names |= dict.fromkeys((CURATED.name, FEATURES.name) if real == BARS_WITH_FEATURES else (real,))
        return list(names)

    @contextmanager
    def _database(self) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
        with tempfile.TemporaryDirectory(prefix="stock_lakehouse-sql-") as spilled:
            database = duckdb.connect(config={"memory_limit": f"{memory >> 20}MiB", "temp_directory": spilled})
            try:
                database.execute("SET TimeZone = 'UTC'")
                yield database
            finally:
                database.close()

    def _show(
        self,
        database: duckdb.DuckDBPyConnection,
        translation: Translation,
        tables: Mapping[str, Table],
        as_of: datetime | None,
    ) -> list[str]:
        """Make a view of each table that the query names; return the files behind them."""
        opened: dict[str, list[str]] = {}
        for name in translation.tables:
            real = SERVED_TABLES.get(name, name)
            if real == BARS_WITH_FEATURES:
                for part in (CURATED.name, FEATURES.name):
                    if part not in opened:
                        opened[part] = self._show_served(database, f"{part} of the view", tables[part], as_of)
                    database.execute(f"CREATE OR REPLACE VIEW {quoted(f'_{part}')} AS {_all(f'{part} of the view')}")
                _join(database, tables[name], tables[CURATED.name])
            elif real in (CURATED.name, FEATURES.name):
                opened[name] = self._show_served(database, name, tables[name], as_of)
            else:
                database.register(name, plain(rows_as_of(self.lake, real, as_of)))
        return [file for files in opened.values() for file in files]

    def _show_served(
        self, database: duckdb.DuckDBPyConnection, name: str, table: Table, as_of: datetime | None
    ) -> list[str]:
        """Make the view `name` of the files of the serving copy; return them."""
        stored = self.lake.delta[table.name]
        if not has_rows_at(self.lake, table.name, as_of):
            database.register(name, table.arrow_schema.empty_table())
            return []
        version = snapshot_at(stored, as_of)
        files = list(self.serving.files(BY_NAME[table.name], version).values())
        if not files:
            database.register(name, table.arrow_schema.empty_table())
            return []
        published = {field.name for field in version.schema().fields}
        columns = ", ".join(
            quoted(column.name)
            if column.name in published
            else f"CAST(NULL AS {DUCKDB_TYPES[column.type]}) AS {quoted(column.name)}"
            for column in table.columns
        )
        paths = ", ".join(text_literal(file) for file in files)
        # The folder is named year=…, and the file has the column too. DuckDB would guess the number of rows by the file of the
        # first year, and would sort a wide result whole of which only the first rows are wanted.
        rows = sum(add_actions(version)["num_records"].to_pylist())
        source = f"read_parquet([{paths}], hive_partitioning = false, explicit_cardinality = {rows})"
        database.execute(" ".join((f"CREATE VIEW {quoted(name)} AS SELECT", columns, "FROM", source)))
        return files

    def _lock(self, database: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
        """Leave the database nothing but `files`, for good."""
        database.execute(f"SET allowed_paths = [{', '.join(text_literal(file) for file in files)}]")
        database.execute("SET python_enable_replacements = false")
        database.execute("""SET custom_profiling_settings = '{"TOTAL_BYTES_READ": "true"}'""")
        database.execute("PRAGMA enable_profiling = 'no_output'")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")

    @contextmanager
    def _limited(self, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Stop the query after `minutes`. Raises QueryTimeoutError then."""
        import duckdb

        late = threading.Event()

        def stop() -> None:
            late.set()
            database.interrupt()

        timer = threading.Timer(self.minutes * 60, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except duckdb.InterruptException:
            if not late.is_set():
                raise KeyboardInterrupt from None
            raise QueryTimeoutError(
                f"the query took longer than {self.minutes:g} minutes (query_minutes) and was stopped; name fewer tickers or days"
            ) from None
        finally:
            timer.cancel()


def _all(name: str) -> str:
    return " ".join(("SELECT * FROM", quoted(name)))


def _join(database: duckdb.DuckDBPyConnection, view: Table, bars: Table) -> None:
    """Make the view of bars and features."""
    columns = ", ".join(
        f"{'b' if column.name in bars.column_names else 'f'}.{quoted(column.name)}" for column in view.columns
    )
    on = " AND ".join(f"b.{quoted(name)} = f.{quoted(name)}" for name in bars.key)
    source = f"{quoted(f'_{CURATED.name}')} AS b LEFT JOIN {quoted(f'_{FEATURES.name}')} AS f ON {on}"
    database.execute(" ".join((f"CREATE VIEW {quoted(view.name)} AS SELECT", columns, "FROM", source)))


def _scanned(database: duckdb.DuckDBPyConnection) -> int | None:
    """Bytes that the last query read from files."""
    import json

    profile: dict[str, Any] = json.loads(database.get_profiling_information(format="json"))
    read = profile.get("total_bytes_read")
    return None if read is None else int(read)


def _typed(found: pa.Table, translation: Translation) -> pa.Table:
    """`found` with the names and types that Athena gives."""
    import pyarrow as pa

    columns = []
    for place, column in enumerate(translation.columns):
        kind = arrow_type(column.type)
        columns.append(pa.nulls(found.num_rows, kind) if pa.types.is_null(kind) else found.column(place).cast(kind))
    return arrow_table([column.name for column in translation.columns], columns)


@contextmanager
def _named(sql: str) -> Iterator[None]:
    """Raise DuckDB's errors as errors of engine.py."""
    import duckdb

    try:
        yield
    except (duckdb.InterruptException, QueryError):
        raise
    except (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException) as error:
        reason = _first_line(error)
        raise QuerySyntaxError(reason, sql, *_place(sql, reason)) from None
    except duckdb.OutOfMemoryException as error:
        raise QueryFailedError(f"{_first_line(error)}; name fewer tickers, days or columns") from None
    except duckdb.Error as error:
        reason = _first_line(error)
        made_up = MADE_UP.search(reason)  # of casts.failing
        raise QueryFailedError(made_up[1] if made_up else reason) from None


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].split(": ", 1)[-1]


def _place(sql: str, reason: str) -> tuple[int, int] | tuple[None, None]:
    """The place of the column that `reason` names; (None, None) if it is not one word of the query."""
    if (named := NAMED_COLUMN.search(reason)) is None:
        return None, None
    places = [match.start() for match in re.finditer(rf"\b{re.escape(named[1])}\b", sql, re.IGNORECASE)]
    return place_of(sql, places[0]) if places else (None, None)
