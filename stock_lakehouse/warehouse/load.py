"""The warehouse of a lake on Redshift: brought to what the lake has, and compared with it.

Here: what is read, decided and run, in which order. Not here: SQL (redshift.py, tables.py), what has changed (changes.py), and
what a comparison compares (agreement.py).

A load can be killed at any point and run again: definitions are idempotent, staged rows are temporary, and all ticker-years are
replaced in one transaction. One load runs at a time, by a lease in the lake's bucket; the transaction's lock holds for others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stock_lakehouse.catalog.glue import GlueCatalog
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.serving import ServingCopy, served_name
from stock_lakehouse.lake.stored import TickerYear
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.data_api import MOST_STATEMENTS, DataApi, Rows, StatementError, WarehouseError
from stock_lakehouse.sql.typed import quoted
from stock_lakehouse.tables import BY_NAME, CURATED
from stock_lakehouse.warehouse import redshift as statements
from stock_lakehouse.warehouse.agreement import Comparison, compare
from stock_lakehouse.warehouse.changes import Change, LoadedYear, Version, changes
from stock_lakehouse.warehouse.checksum import Checksum
from stock_lakehouse.warehouse.tables import (
    DEFINITIONS,
    LOADED_YEARS,
    Definition,
    Names,
    NativeTable,
    comments,
    literal,
    missing_tables,
    native_tables,
    revoked,
    schemas,
    sql,
    views,
)

LEASE = "warehouse"
SESSION_SECONDS = 600  # that a session waits for the next statement of a load; then its temporary tables are gone
LOOKS = 5  # of a comparison whose lake or warehouse moves meanwhile, and of a load whose lake does
PAUSE_SECONDS = 3.0
READER = "reader "  # begins the name under which `definitions` has a reader

Tell = Callable[[str], None]
Pairs = Mapping[str, Collection[TickerYear]]


class CatalogBehindError(WarehouseError):
    """Glue's partitions of the serving copy are of another version than the lake's. Nothing was loaded."""


@dataclass
class TableLoad:
    """What a load did to a native table.

    - ticker_years: that were loaded; withdrawn: that were removed, as the lake has them no longer, or as they grew cold
    - rows: of the loaded ticker-years
    - version: of the lake's table
    """

    table: NativeTable
    version: int
    ticker_years: int = 0
    withdrawn: int = 0
    rows: int = 0


@dataclass
class LoadOutcome:
    """What a load did.

    - tables: in the order of `native_tables`
    - defined: parts of the definitions that were written: schemas, tables, comments, views
    - statements: that were sent to load rows; 0 if nothing had changed
    """

    tables: list[TableLoad]
    defined: list[str] = field(default_factory=list)
    statements: int = 0
    seconds: float = 0.0

    @property
    def has_loaded(self) -> bool:
        return self.statements > 0


@dataclass(frozen=True)
class TableState:
    """What a native table holds.

    - ticker_years, rows: that were loaded
    - version: the newest version of the lake's table of which some were loaded; None if none were
    - behind: ticker-years that the next load brings or removes
    """

    table: NativeTable
    ticker_years: int
    rows: int
    version: int | None
    behind: int


@dataclass
class _Plan:
    """What is to be done, decided from one look at lake and warehouse."""

    versions: dict[str, Version]
    changed: dict[str, list[Change]]
    missing: dict[str, list[str]]
    definitions: list[Definition]
    known: dict[str, str]

    @property
    def is_empty(self) -> bool:
        return not (any(self.changed.values()) or self.missing or self.definitions)


def warehouse_of(lake: Lake, redshift: Redshift, glue_database: str) -> Warehouse:
    """The warehouse of `lake`, with clients by boto3's variables and profiles. Nothing is contacted."""
    return Warehouse(lake, DataApi(redshift, redshift.statement_minutes), GlueCatalog(glue_database, str(lake.root)))


class Warehouse:
    """The native tables of one lake on Redshift.

    - lake: on S3
    - api: the Data API of the workgroup or cluster
    - catalog: the Glue database of the lake, over which the external schema lies

    Every method raises the errors of `DataApi`, StorageError, and CatalogError or PermissionMissingError of Glue.
    """

    def __init__(self, lake: Lake, api: DataApi, catalog: GlueCatalog) -> None:
        self.lake, self.api, self.catalog = lake, api, catalog
        self.settings: Redshift = api.redshift
        self.names = Names.of(self.settings)
        self.pause_seconds = PAUSE_SECONDS

    @cached_property
    def tables(self) -> tuple[NativeTable, ...]:
        """The native tables, with the columns that the lake's tables have."""
        return native_tables({name: stored.table for name, stored in self.lake.delta.items()})

    def load(self, tell: Tell = lambda line: None, again: Pairs | None = None) -> LoadOutcome:
        """Bring the warehouse to the present versions of the lake; nothing is written if it is there already.

        - tell: called with a line of text as the load goes on
        - again: ticker-years of native tables, by the tables' names, that are loaded although their files are the same; with it
          everything is defined again

        Raises CatalogBehindError, TickerNameError, LeaseLostError besides, and TableBusyError if another load of this lake runs
        for an hour.
        """
        began = time.monotonic()
        plan = self._plan(again)
        if plan.is_empty:
            return self._outcome(plan, began)
        with one_writer(self.lake.root, LEASE):
            for look in range(LOOKS):
                plan = self._plan(again)  # another load may have done it meanwhile
                behind = self._behind(plan)
                if behind is None:
                    break
                if look == LOOKS - 1 or not any(version.has_moved for version in plan.versions.values()):
                    raise CatalogBehindError(behind)
            outcome = self._outcome(plan, began)
            self._define(plan, outcome, tell)
            self._replace(plan, outcome, tell)
        outcome.seconds = time.monotonic() - began
        return outcome

    def compare(self, full: bool = False) -> list[Comparison]:
        """Compare each native table with the lake: files and rows of every ticker-year, and checksums.

        - full: compute the checksums of all rows. Otherwise those that Redshift computed when it loaded them are compared, of the
          ticker-years that have not been found equal since.

        If lake or warehouse move meanwhile it compares again, LOOKS times in all. Writes nothing.
        """
        found: list[Comparison] = []
        for look in range(LOOKS):
            if look:
                time.sleep(self.pause_seconds)
            versions, columns = self._versions(), self._columns()
            loaded = self._loaded() if LOADED_YEARS in columns else {}
            found = [self._compared(table, versions[table.name], loaded, columns, full) for table in self.tables]
            if not any(comparison.drifts for comparison in found):
                break
            has_moved = any(version.has_moved for version in versions.values())
            if not has_moved and (LOADED_YEARS not in columns or self._loaded() == loaded):
                break
        return found

    def _compared(
        self,
        table: NativeTable,
        version: Version,
        loaded: Mapping[str, Mapping[TickerYear, LoadedYear]],
        columns: Mapping[str, frozenset[str]],
        full: bool,
    ) -> Comparison:
        counts = self._counts(table) if table.name in columns else {}
        if not columns.get(table.name, frozenset()) >= {column.name for column in table.columns}:
            return compare(table, version, {}, counts, None)  # it is to be loaded in full
        return compare(table, version, loaded.get(table.name, {}), counts, self._checksums(table) if full else None)

    def note(self, found: Sequence[Comparison]) -> None:
        """Note which loads were found equal to the lake, so that later comparisons need not look at them."""
        for comparison in found:
            if comparison.settled:
                self.api.run(statements.note_agreement(self.names, comparison.table, comparison.settled))

    def duplicates(self, table: NativeTable) -> list[dict[str, Any]]:
        """The keys that more than one row of a native table has, each with its rows."""
        rows = self.api.run(statements.read_duplicates(self.names, table))
        return [dict(zip(rows.names, row, strict=True)) for row in rows.values]

    def behind(self) -> dict[str, int]:
        """How many ticker-years of each native table are to be loaded or removed, by its name. Writes nothing."""
        return {name: len(changed) for name, changed in self._plan(None).changed.items()}

    def state(self) -> list[TableState]:
        """What each native table holds by `loaded_years`, in the order of `native_tables`. Writes nothing."""
        loaded = self._loaded() if LOADED_YEARS in self._columns() else {}
        behind = self.behind()
        found = []
        for table in self.tables:
            years = loaded.get(table.name, {}).values()
            rows = sum(year.checksum.rows for year in years)
            newest = max((year.version for year in years), default=None)
            found.append(TableState(table, len(years), rows, newest, behind[table.name]))
        return found

    # What is read.

    def _plan(self, again: Pairs | None) -> _Plan:
        columns = self._columns()
        known = self._known() if DEFINITIONS in columns else {}
        missing = missing_tables(self.names, self.tables, columns)
        loaded = self._loaded() if LOADED_YEARS in columns else {}
        versions = self._versions()
        changed = {}
        for table in self.tables:
            # A table that is made anew is empty, whatever is noted.
            of_table = {} if table.name in missing or LOADED_YEARS in missing else loaded.get(table.name, {})
            changed[table.name] = changes(versions[table.name], of_table, (again or {}).get(table.name, ()))
        definitions = [
            definition
            for definition in self._definitions(versions)
            if known.get(definition.name) != definition.digest
            or again is not None
            or (definition.name in ("comments", "views") and missing)
        ]
        return _Plan(versions, changed, missing, definitions, known)

    def _definitions(self, versions: Mapping[str, Version]) -> list[Definition]:
        return [
            schemas(self.names, self.settings, self.catalog.database),
            comments(self.names, self.tables),
            views(self.names, self.tables, self._first_year(versions), self.settings.readers),
        ]

    def _first_year(self, versions: Mapping[str, Version]) -> int | None:
        """The first year that is loaded; None if all are."""
        [newest] = [
            max(versions[table.name].years, default=0) for table in self.tables if table.source.name == CURATED.name
        ]
        return None if self.settings.hot_years is None or not newest else newest - self.settings.hot_years + 1

    def _versions(self) -> dict[str, Version]:
        """The present version of the lake's table of each native table, without years that are not loaded."""
        versions = {table.name: Version(self.lake.delta[table.source.name]) for table in self.tables}
        first = self._first_year(versions)
        if first is not None:
            for version in versions.values():
                version.without_years_before(first)
        return versions

    def _columns(self) -> dict[str, frozenset[str]]:
        """The columns of the tables that are there."""
        found: dict[str, set[str]] = {}
        for table, column in self.api.run(statements.read_columns(self.names)).values:
            found.setdefault(str(table), set()).add(str(column))
        return {table: frozenset(columns) for table, columns in found.items()}

    def _known(self) -> dict[str, str]:
        return dict(self._pairs(self.api.run(statements.read_definitions(self.names, DEFINITIONS))))

    @staticmethod
    def _pairs(rows: Rows) -> list[tuple[str, str]]:
        return [(str(name), str(digest)) for name, digest in rows.values]

    def _loaded(self) -> dict[str, dict[TickerYear, LoadedYear]]:
        """`loaded_years`, by table."""
        found: dict[str, dict[TickerYear, LoadedYear]] = {}
        for table, ticker, year, files, rows, first, second, version, load_id, agreed in self.api.run(
            statements.read_loaded(self.names)
        ).values:
            checksum = Checksum(_whole(rows), _whole(first), _whole(second))
            found.setdefault(str(table), {})[str(ticker), _whole(year)] = LoadedYear(
                str(files), checksum, _whole(version), str(load_id), bool(agreed)
            )
        return found

    def _counts(self, table: NativeTable) -> dict[TickerYear, int]:
        rows = self.api.run(statements.read_counts(self.names, table))
        return {(str(ticker), _whole(year)): _whole(count) for ticker, year, count in rows.values}

    def _checksums(self, table: NativeTable) -> dict[TickerYear, Checksum]:
        rows = self.api.run(statements.read_checksums(self.names, table))
        return {
            (str(ticker), _whole(year)): Checksum(_whole(count), _whole(first), _whole(second))
            for ticker, year, count, first, second in rows.values
        }

    def _behind(self, plan: _Plan) -> str | None:
        """What Glue has of other files than the versions that are to be loaded; None if nothing.

        Spectrum reads what Glue says: rows of other files would be noted under these files' digest.
        """
        copy = ServingCopy(self.lake)
        for table in self.tables:
            version = plan.versions[table.name]
            years = {change.year for change in plan.changed[table.name] if change.files is not None}
            if not years or version.opened is None:
                continue
            name = served_name(table.source)
            found = self.catalog.partitions(name)
            for served in copy.served(BY_NAME[table.source.name], version.opened):
                place = found.get((str(served.year),), {}).get("Location", "").rstrip("/")
                if served.year in years and place != self.lake.storage.uri(served.path.rpartition("/")[0]):
                    return (
                        f"Glue's {self.catalog.database}.{name} has other files of {served.year} than version "
                        f"{version.number} of {table.source.name}, so nothing was loaded; `stock-lakehouse materialize --select "
                        "catalog` registers them, or `stock-lakehouse warehouse` does both"
                    )
        return None

    # What is written.

    def _define(self, plan: _Plan, outcome: LoadOutcome, tell: Tell) -> None:
        """Write the definitions that differ, but views, which come with the rows."""
        by_name = {definition.name: definition for definition in plan.definitions}
        of_schemas = by_name.get("schemas")
        if of_schemas is not None:
            tell(f"Redshift: schemas {self.names.schema} and {self.names.external}")
            if "schemas" in plan.known and plan.known["schemas"] != of_schemas.digest:
                # Over another database or with another role; the tables in Glue stay.
                self.api.run(sql("DROP SCHEMA IF EXISTS", quoted(self.names.external)))
            for statement in of_schemas.statements:
                self.api.run(statement)
            outcome.defined.append("schemas")
        if plan.missing:
            tell(f"Redshift: tables {', '.join(plan.missing)}")
            # The table in which the others are noted comes first.
            self._run_all([statement for of_table in plan.missing.values() for statement in of_table])
            outcome.defined.append("tables")
        if of_schemas is not None:
            self._run_all(of_schemas.noted(self.names))
        if (of_comments := by_name.get("comments")) is not None:
            self._run_all([*of_comments.statements, *of_comments.noted(self.names)])
            outcome.defined.append("comments")

    def _replace(self, plan: _Plan, outcome: LoadOutcome, tell: Tell) -> None:
        """Stage and replace what has changed, and with it the views if they differ, in one transaction."""
        of_views: list[str] = []
        for definition in plan.definitions:
            if definition.name == "views":
                of_views = self._noted_views(definition, plan.known)
                outcome.defined.append("views")
        if not any(plan.changed.values()):
            if of_views:
                self._run_all(of_views)
            return
        load_id = uuid.uuid4().hex
        staging = [
            statement
            for table in self.tables
            for statement in statements.stage(self.names, table, plan.changed[table.name])
        ]
        versions = [(table, plan.versions[table.name].number) for table in self.tables]
        replacing = statements.replace(self.names, versions, load_id)
        lock, rest = replacing[0], [*replacing[1:], *of_views]
        for of_table in outcome.tables:
            tell(
                f"{of_table.table.name}: {of_table.ticker_years:,} ticker-years to load, {of_table.withdrawn:,} to remove"
            )
        # The lock comes first: what is read before it is the state from before another load that it waits for.
        confirm(self.lake.root)
        if 1 + len(staging) + len(rest) <= MOST_STATEMENTS:
            affected = self.api.transaction([lock, *staging, *rest], load_id)[1 + len(staging) :]
        else:
            session = self.api.session(SESSION_SECONDS)
            for start in range(0, len(staging), MOST_STATEMENTS):
                part = staging[start : start + MOST_STATEMENTS]
                self.api.transaction(part, f"{load_id} {start}", session)
                tell(f"Redshift: statement {start + len(part):,} of {1 + len(staging) + len(rest):,}")
            confirm(self.lake.root)
            affected = self.api.transaction([lock, *rest], load_id, session)[1:]
        outcome.statements = 1 + len(staging) + len(rest)
        for of_table in outcome.tables:
            into = sql("INSERT INTO", self.names.native(of_table.table.name), "(")
            [rows] = [count for statement, count in zip(rest, affected, strict=True) if statement.startswith(into)]
            of_table.rows = rows or 0

    def _noted_views(self, definition: Definition, known: Mapping[str, str]) -> list[str]:
        """The statements of the views and rights, and those that note them and whose the rights are.

        The rights of former readers are taken first. Others than those that this program gave are not touched.
        """
        listed = sorted(f"{READER}{reader}" for reader in self.settings.readers)
        for name in known:
            if name.startswith(READER) and name not in listed:
                self._revoke(name.removeprefix(READER))
        noted = self.names.native(DEFINITIONS)
        rows = ", ".join(f"({literal(name)}, '')" for name in listed)
        return [
            *definition.statements,
            *definition.noted(self.names),
            sql("DELETE FROM", noted, "WHERE name LIKE", literal(f"{READER}%")),
            *([sql("INSERT INTO", noted, "(name, digest) VALUES", rows)] if rows else []),
        ]

    def _revoke(self, reader: str) -> None:
        try:
            for statement in revoked(self.names, self.tables, reader):
                self.api.run(statement)
        except StatementError as error:
            if "does not exist" not in error.reason:  # the reader itself, or what it had rights on, is gone
                raise

    def _outcome(self, plan: _Plan, began: float) -> LoadOutcome:
        found = []
        for table in self.tables:
            changed = plan.changed[table.name]
            withdrawn = sum(change.files is None for change in changed)
            number = plan.versions[table.name].number
            found.append(TableLoad(table, number, len(changed) - withdrawn, withdrawn))
        return LoadOutcome(found, seconds=time.monotonic() - began)

    def _run_all(self, all_statements: Sequence[str]) -> None:
        """Run idempotent statements, in as few transactions as the Data API takes."""
        key = uuid.uuid4().hex
        for start in range(0, len(all_statements), MOST_STATEMENTS):
            self.api.transaction(all_statements[start : start + MOST_STATEMENTS], f"{key} {start}")


def _whole(value: object) -> int:
    """A number of an answer, in which a large one may be text."""
    return int(str(value))
