"""The native tables and views of the warehouse, as data and as Redshift's SQL that defines them.

Here: names, types, keys, comments, rights. Not here: which rows are loaded (changes.py, load.py), and how (redshift.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stock_lakehouse.lake.serving import served_name
from stock_lakehouse.schemas import Column
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.typed import quoted
from stock_lakehouse.tables import CURATED, FEATURES, Table

LOADED_YEARS = "loaded_years"
DEFINITIONS = "definitions"
VARCHAR = "VARCHAR(128)"  # bytes; a longer text fails the load
# Redshift's type of each type of Spark SQL, and its encoding. AZ64 takes no doubles, booleans and texts.
TYPES = {
    "string": (VARCHAR, "ZSTD"),
    "double": ("DOUBLE PRECISION", "ZSTD"),
    "boolean": ("BOOLEAN", "ZSTD"),
    "bigint": ("BIGINT", "AZ64"),
    "int": ("INTEGER", "AZ64"),
    "date": ("DATE", "AZ64"),
    "timestamp": ("TIMESTAMP", "AZ64"),  # in UTC
}
LOADED_COLUMNS = {
    "table_name": f"{VARCHAR} NOT NULL ENCODE ZSTD",
    "ticker": f"{VARCHAR} NOT NULL ENCODE ZSTD",
    "year": "INTEGER NOT NULL ENCODE AZ64",
    "files": "VARCHAR(64) NOT NULL ENCODE ZSTD",
    "row_count": "BIGINT NOT NULL ENCODE AZ64",
    "checksum_1": "BIGINT NOT NULL ENCODE AZ64",
    "checksum_2": "BIGINT NOT NULL ENCODE AZ64",
    "lake_version": "BIGINT NOT NULL ENCODE AZ64",
    "load_id": "VARCHAR(64) NOT NULL ENCODE ZSTD",
    "agreed": "BOOLEAN NOT NULL ENCODE ZSTD",
}
DEFINITION_COLUMNS = {
    "name": f"{VARCHAR} NOT NULL ENCODE ZSTD",
    "digest": "VARCHAR(64) NOT NULL ENCODE ZSTD",
}


def sql(*words: str) -> str:
    """SQL from its parts. What is not constant in them is a quoted name, a literal, or SQL itself."""
    return " ".join(words)


def literal(text: str) -> str:
    """`text` as Redshift's literal, in which a backslash begins an escape."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True)
class NativeTable:
    """A native table, which has all columns of a table of the lake.

    - name: without its schema
    - source: the lake's table, with the columns of its lake
    - everything: the view of all years, also of those that are not loaded
    """

    name: str
    source: Table
    everything: str

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.source.columns

    @property
    def column_list(self) -> str:
        """Its columns, quoted."""
        return ", ".join(quoted(column.name) for column in self.columns)

    @property
    def asset(self) -> str:
        """The name of its asset."""
        return f"warehouse_{self.name}"


STOCK_PRICES = NativeTable("stock_prices", CURATED, "all_prices")
STOCK_FEATURES = NativeTable("stock_features", FEATURES, "all_features")
NATIVE_TABLES = (STOCK_PRICES, STOCK_FEATURES)


def native_tables(tables: Mapping[str, Table]) -> tuple[NativeTable, ...]:
    """The native tables of a lake, whose tables with their columns are `tables`."""
    return tuple(NativeTable(table.name, tables[table.source.name], table.everything) for table in NATIVE_TABLES)


@dataclass(frozen=True)
class Names:
    """The names of the warehouse's objects, quoted.

    - schema, external: the schemas, as the settings name them
    """

    schema: str
    external: str

    @classmethod
    def of(cls, redshift: Redshift) -> Names:
        return cls(redshift.schema_name, redshift.external_schema)

    def native(self, name: str) -> str:
        """An object of the native schema."""
        return f"{quoted(self.schema)}.{quoted(name)}"

    def served(self, table: Table) -> str:
        """The serving copy of a table of the lake, in the external schema."""
        return f"{quoted(self.external)}.{quoted(served_name(table))}"


@dataclass(frozen=True)
class Definition:
    """A part of the warehouse that statements define, and that is defined again if their text has changed.

    - name: under which `definitions` has its digest
    - statements: idempotent
    - is_alone: each statement commits by itself, because Redshift runs it in no transaction
    """

    name: str
    statements: tuple[str, ...]
    is_alone: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join(self.statements).encode()).hexdigest()[:32]

    def noted(self, names: Names) -> tuple[str, str]:
        """The statements that note its digest."""
        table = names.native(DEFINITIONS)
        return (
            sql("DELETE FROM", table, "WHERE name =", literal(self.name)),
            sql("INSERT INTO", table, "(name, digest) VALUES", f"({literal(self.name)}, {literal(self.digest)})"),
        )


def schemas(names: Names, redshift: Redshift, glue_database: str) -> Definition:
    """Both schemas. A schema over another Glue database or with another role replaces the external one."""
    role = "DEFAULT" if redshift.iam_role == "default" else literal(redshift.iam_role)
    return Definition(
        "schemas",
        (
            sql("CREATE SCHEMA IF NOT EXISTS", quoted(names.schema)),
            sql(
                "CREATE EXTERNAL SCHEMA IF NOT EXISTS", quoted(names.external),
                "FROM DATA CATALOG DATABASE", literal(glue_database), "IAM_ROLE", role,
            ),
        ),
        is_alone=True,
    )  # fmt: skip


def missing_tables(
    names: Names, tables: Sequence[NativeTable], present: Mapping[str, frozenset[str]]
) -> dict[str, list[str]]:
    """The statements that make what is missing of each table, by its name.

    `present`: the columns of each table that is there. A table that is made, or gets a column, has no loaded ticker-year then, so
    that it is loaded in full. A column that the lake has no longer stays, and is null in rows that are loaded from then on.
    """
    found = {
        name: [sql("CREATE TABLE IF NOT EXISTS", names.native(name), f"({_listed(columns)})")]
        for name, columns in ((LOADED_YEARS, LOADED_COLUMNS), (DEFINITIONS, DEFINITION_COLUMNS))
        if name not in present
    }
    for table in tables:
        if table.name not in present:
            statements = [ddl(names, table)]
        else:
            lacking = [column for column in table.columns if column.name not in present[table.name]]
            statements = [_added(names, table, column) for column in lacking]
        if statements:
            forgotten = sql("DELETE FROM", names.native(LOADED_YEARS), "WHERE table_name =", literal(table.name))
            found[table.name] = [*statements, forgotten]
    return found


def ddl(names: Names, table: NativeTable) -> str:
    """A native table.

    - DISTKEY (ticker): a ticker's rows of both tables lie on one slice, so joins and windows by ticker need no network.
    - COMPOUND SORTKEY (date, ticker): the newest sessions are the newest blocks, and a daily load adds at the end.
    - PRIMARY KEY: the planner believes it and nobody enforces it; the check `warehouse_keys_unique` looks.
    """
    columns = [
        sql(
            quoted(column.name),
            _typed(column),
            *(() if column.nullable else ("NOT NULL",)),
            "ENCODE",
            _encoding(column),
        )
        for column in table.columns
    ]
    key = ", ".join(quoted(name) for name in table.source.key)
    return sql(
        "CREATE TABLE IF NOT EXISTS", names.native(table.name), f"({', '.join(columns)}, PRIMARY KEY ({key}))",
        'DISTSTYLE KEY DISTKEY ("ticker") COMPOUND SORTKEY ("date", "ticker")',
    )  # fmt: skip


def _added(names: Names, table: NativeTable, column: Column) -> str:
    return sql(
        "ALTER TABLE", names.native(table.name), "ADD COLUMN", quoted(column.name), _typed(column), "ENCODE",
        _encoding(column),
    )  # fmt: skip


def _typed(column: Column) -> str:
    return TYPES[column.type][0]


def _encoding(column: Column) -> str:
    return TYPES[column.type][1]


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def comments(names: Names, tables: Sequence[NativeTable]) -> Definition:
    """The descriptions of the tables and their columns."""
    statements = []
    for table in tables:
        place = names.native(table.name)
        statements.append(sql("COMMENT ON TABLE", place, "IS", literal(table.source.description)))
        statements += [
            sql("COMMENT ON COLUMN", f"{place}.{quoted(column.name)}", "IS", literal(column.documentation))
            for column in table.columns
        ]
    told = "Ticker-years that are loaded: of which files of the lake, with the checksums of their rows. Written by the load."
    statements.append(sql("COMMENT ON TABLE", names.native(LOADED_YEARS), "IS", literal(told)))
    return Definition("comments", tuple(statements))


VIEWS = {
    "all_prices": "Every curated bar: loaded years from stock_prices, earlier ones from the lake.",
    "all_features": "The features of every session: loaded years from stock_features, earlier ones from the lake.",
    "prices_with_features": "Each curated bar of all years beside the indicators and signals of its session.",
    "dashboard_daily": "What dashboards show: each bar of the loaded years with its features. is_newest: the ticker's newest "
    "session.",
}


def views(names: Names, tables: Sequence[NativeTable], first_year: int | None, readers: Sequence[str]) -> Definition:
    """The views, and the rights of readers on them and on the tables.

    `first_year`: the first that is loaded; None: all are, and the views read nothing of the lake.

    The views bind to no schema, so that a table can get a column. A view with other columns cannot be replaced in Redshift, so
    each is dropped and made; in one transaction, so no reader misses it. Readers get their rights in the same one.
    """
    bodies = _view_bodies(names, tables, first_year)
    statements = []
    for name, description in VIEWS.items():
        place = names.native(name)
        statements += [
            sql("DROP VIEW IF EXISTS", place),
            sql("CREATE VIEW", place, "AS", bodies[name], "WITH NO SCHEMA BINDING"),
            sql("COMMENT ON VIEW", place, "IS", literal(description)),
        ]
    return Definition("views", (*statements, *(_rights("GRANT", names, tables, readers) if readers else ())))


def revoked(names: Names, tables: Sequence[NativeTable], reader: str) -> tuple[str, str]:
    """The statements that take the rights of a reader."""
    return _rights("REVOKE", names, tables, [reader])


def _rights(verb: str, names: Names, tables: Sequence[NativeTable], readers: Sequence[str]) -> tuple[str, str]:
    """USAGE of both schemas, and SELECT on the tables and views; nothing on what the load keeps for itself."""
    readable = ", ".join(names.native(name) for name in (*(table.name for table in tables), *VIEWS))
    who = sql("TO" if verb == "GRANT" else "FROM", ", ".join(map(grantee, readers)))
    return (
        sql(verb, "USAGE ON SCHEMA", f"{quoted(names.schema)}, {quoted(names.external)}", who),
        sql(verb, "SELECT ON TABLE", readable, who),
    )


def grantee(reader: str) -> str:
    """A reader of the settings in SQL: `group NAME`, `role NAME`, or a user's name."""
    kind, _, name = reader.partition(" ")
    if name and kind.lower() in ("group", "role"):
        return f"{kind.upper()} {quoted(name.strip())}"
    return quoted(reader)


def _view_bodies(names: Names, tables: Sequence[NativeTable], first_year: int | None) -> dict[str, str]:
    prices, features = tables
    own = [column for column in features.columns if column.name not in {column.name for column in prices.columns}]
    of_prices = ", ".join(f"p.{quoted(column.name)}" for column in prices.columns)
    of_features = ", ".join(f"f.{quoted(column.name)}" for column in own)
    on = " AND ".join(f"p.{quoted(name)} = f.{quoted(name)}" for name in prices.source.key)

    def joined(left: str, right: str, more: str = "") -> str:
        source = sql(names.native(left), "AS p LEFT JOIN", names.native(right), "AS f ON", on)
        return sql("SELECT", f"{of_prices}, {of_features}{more}", "FROM", source)

    newest = ', p."date" = MAX(p."date") OVER (PARTITION BY p."ticker") AS "is_newest"'
    return {
        **{table.everything: _all_years(names, table, first_year) for table in tables},
        "prices_with_features": joined(prices.everything, features.everything),
        "dashboard_daily": joined(prices.name, features.name, newest),
    }


def _all_years(names: Names, table: NativeTable, first_year: int | None) -> str:
    hot = sql("SELECT", table.column_list, "FROM", names.native(table.name))
    if first_year is None:
        return hot
    cold = ", ".join(
        f"CAST({quoted(column.name)} AS {_typed(column)}) AS {quoted(column.name)}" for column in table.columns
    )
    return sql(hot, "UNION ALL SELECT", cold, "FROM", names.served(table.source), 'WHERE "year" <', str(first_year))
