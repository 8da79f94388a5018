"""The command that describes a table: columns, types, meanings, and the columns that each is made of.

Dagster's open-source UI shows the columns of an asset and does not draw their lineage, so this command prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import typer

from stock_lakehouse.cli.context import settings_of_process
from stock_lakehouse.cli.printing import fail, wrapped
from stock_lakehouse.cli.program import TableName, app

if TYPE_CHECKING:
    from stock_lakehouse.tables import Table


@app.command()
def describe(table: TableName) -> None:
    """Describe a table: its columns with types and meanings, and the columns of other tables that each is made of."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.reading import table_of
    from stock_lakehouse.lake.storage import LakeError

    try:
        described = table_of(Lake(settings_of_process().lake_options), table)
    except LakeError as error:
        fail(str(error))
    for line in description_lines(described):
        typer.echo(line)


def description_lines(table: Table) -> Iterator[str]:
    """What `describe` prints of `table`."""
    from stock_lakehouse.schemas.lineage import column_lineage

    lineage = column_lineage(table)
    yield table.name
    yield from wrapped(table.description)
    if table.key:
        yield from wrapped(f"One row per {', '.join(table.key)}.")
    for column in table.columns:
        yield ""
        unit = f", {column.unit}" if column.unit else ""
        yield f"{column.name}  {column.type}{unit}{'' if column.nullable else ', never null'}"
        yield from wrapped(column.description)
        if column.null:
            yield from wrapped(f"null: {column.null}")
        if column.name in lineage:
            yield from wrapped(f"made of {_in_words(lineage[column.name])}")


def _in_words(sources: Sequence[tuple[str, str]]) -> str:
    """`sources`, pairs of table and column, as text: each table once, with its columns."""
    by_table = groupby(sorted(sources), key=lambda source: source[0])
    return "; ".join(f"{name}: {', '.join(column for _, column in columns)}" for name, columns in by_table)
