"""The commands that say what the tables are: `tables` lists them, `describe` has the columns of one.

Dagster's open-source UI shows the columns of an asset and does not draw their lineage, so `describe` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_lakehouse.cli.context import existing_lake, settings_of_process
from stock_lakehouse.cli.printing import aside, fail, print_table, say, size, wrapped
from stock_lakehouse.cli.program import TableName, app

if TYPE_CHECKING:
    from stock_lakehouse.catalog.entries import Entry, State
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.tables import Table

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
FORMATS = {"csv": "CSV", "parquet": "Parquet", "delta": "Delta"}


@app.command()
def tables(as_json: AsJson = False) -> None:
    """The tables of the lake: rows, partitions, bytes, version, and where they are registered.

    Rows are those that logs and file footers tell; `status` counts the rows of every table.
    """
    from stock_lakehouse.catalog.entries import entries_of
    from stock_lakehouse.lake.storage import LakeError

    settings = settings_of_process()
    lake = existing_lake(settings)
    try:
        entries = entries_of(lake)
        registered = _registered(settings, lake)
    except LakeError as error:
        fail(str(error))
    if as_json:
        found = [{**entry.as_json(), "registered": registered.get(entry.table.name, [])} for entry in entries]
        typer.echo(json.dumps(found, indent=2))
        return
    names = ("table", "rows", "partitions", "files", "size", "version")
    print_table(names, [_line(entry) for entry in entries])
    say(f"In {settings.lake_root}; {_where_registered(settings, registered)}.")


@app.command()
def describe(table: TableName, as_json: AsJson = False) -> None:
    """Describe a table: its columns with types and meanings, the columns that each is made of, and what it holds."""
    from stock_lakehouse.catalog.entries import entry_of, state_of
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import LakeError

    settings = settings_of_process()
    lake = Lake(settings.lake_options)
    try:
        entry = entry_of(lake, table)
    except LakeError as error:
        fail(str(error))
    registered: list[str] = []
    try:
        if entry.location:
            entry = entry.with_state(state_of(lake, table, count_rows=True))
            registered = _registered(settings, lake).get(table, [])
    except LakeError as error:  # what a column means does not depend on it
        aside(f"what {table} holds is unknown: {error}")
    if as_json:
        typer.echo(json.dumps({**entry.as_json(), "registered": registered}, indent=2))
        return
    for line in (*head_lines(entry, registered), *column_lines(entry)):
        typer.echo(line)


def head_lines(entry: Entry, registered: Sequence[str]) -> Iterator[str]:
    """The first block of `describe`: name, meaning, key, what the table holds and where."""
    table = entry.table
    yield table.name
    yield from wrapped(table.description)
    if table.key:
        yield from wrapped(f"One row per {', '.join(table.key)}.")
    if entry.state is not None:
        yield from wrapped(_in_words(table, entry.state))
        places = f"; in Glue as {', '.join(registered)}" if registered else ""
        yield from wrapped(f"In {entry.location}{places}.")


def column_lines(entry: Entry) -> Iterator[str]:
    """A block for each column: type, unit, meaning, what a null means, what it is made of."""
    for column in entry.table.columns:
        yield ""
        unit = f", {column.unit}" if column.unit else ""
        yield f"{column.name}  {column.type}{unit}{'' if column.nullable else ', never null'}"
        yield from wrapped(column.description)
        if column.null:
            yield from wrapped(f"null: {column.null}")
        if column.name in entry.made_of:
            yield from wrapped(f"made of {_sources_in_words(entry.made_of[column.name])}")


def _in_words(table: Table, state: State) -> str:
    if not state.files:
        return f"{FORMATS[table.format]}; no rows yet."
    by = f" by {' and '.join(table.partition_by)}" if table.partition_by else ""
    partitions = f"{_counted(state.partitions, 'partition')}{by}, " if state.partitions is not None else ""
    version = f", version {state.version}" if state.version is not None else ""
    rows = f"{_counted(state.rows, 'row')}, " if state.rows is not None else ""
    return f"{FORMATS[table.format]}{version}: {rows}{partitions}{_counted(state.files, 'file')}, {size(state.bytes)}."


def _counted(count: int | None, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _line(entry: Entry) -> list[str]:
    state: Any = entry.state
    counts = [state.rows, state.partitions, state.files]
    numbers = ["-" if count is None else f"{count:,}" for count in counts]
    return [entry.table.name, *numbers, size(state.bytes), "-" if state.version is None else str(state.version)]


def _registered(settings: Settings, lake: Lake) -> dict[str, list[str]]:
    """The names in Glue of each table that is registered there, its serving copy last. Raises an error of the catalog."""
    if settings.catalog != "glue":
        return {}
    from stock_lakehouse.catalog.entries import tables_in
    from stock_lakehouse.catalog.glue import GlueCatalog
    from stock_lakehouse.lake.serving import SERVED, served_name

    database = settings.aws.glue_database
    there = GlueCatalog(database, str(lake.root)).tables()
    names = {table.name: [table.name, *([served_name(table)] if table in SERVED else [])] for table in tables_in(lake)}
    return {table: [f"{database}.{name}" for name in of_table if name in there] for table, of_table in names.items()}


def _where_registered(settings: Settings, registered: dict[str, list[str]]) -> str:
    if settings.catalog != "glue":
        return 'registered nowhere else (catalog = "local")'
    missing = [table for table, names in registered.items() if not names]
    if not missing:
        return f"all registered in the Glue database {settings.aws.glue_database}"
    return (
        f"not registered in the Glue database {settings.aws.glue_database}: {', '.join(missing)}; `stock-lakehouse "
        "materialize --select catalog` registers them"
    )


def _sources_in_words(sources: Sequence[tuple[str, str]]) -> str:
    """`sources`, pairs of table and column, as text: each table once, with its columns."""
    by_table = groupby(sorted(sources), key=lambda source: source[0])
    return "; ".join(f"{name}: {', '.join(column for _, column in columns)}" for name, columns in by_table)
