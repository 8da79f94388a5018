"""`python -m stock_lakehouse_tests.table_documents`: writes docs/tables.md, the data dictionary, from the schemas.

Here: how a table and a column become Markdown. Not here: what they mean, which their schema says.
"""

from __future__ import annotations

from pathlib import Path

from stock_lakehouse.schemas import Column
from stock_lakehouse.tables import FEATURES, STREAM_TABLES, TABLES, Table, bars_with_features

DOCUMENT = Path(__file__).parents[1] / "docs" / "tables.md"
INTRODUCTION = """\
# Tables

What each table holds, column by column. `make docs` writes this page from the schemas in `stock_lakehouse/schemas/` and the
registry of indicators; edit them there. `stock_lakehouse.describe(name)` says the same in Python, with your own indicators
([python.md](python.md)). Each column of an Arrow table that `read_table` returns has it as the metadata of its field.

Types are those of Spark SQL. Timestamps are in microseconds, UTC; a session is a day of the exchange. Prices are in the currency
of the ticker. A column whose cell under "null" is empty has no nulls."""
HEAD = "| column | type | unit | what it is | null |\n|---|---|---|---|---|"
FORMATS = {"csv": "CSV", "parquet": "Parquet", "delta": "Delta"}


def written() -> str:
    """The text of the document."""
    tables = (*TABLES, bars_with_features(FEATURES), *STREAM_TABLES)
    overview = "\n".join(f"- [`{table.name}`](#{table.name}): {table.description}" for table in tables)
    return "\n\n".join([INTRODUCTION, overview, *map(section, tables)]) + "\n"


def section(table: Table) -> str:
    """The section of a table."""
    facts = [f"Layer: {table.layer}"]
    if table.path:
        facts.append(f"{FORMATS[table.format]} under `{table.path}/`")
    facts.append(f"key: {_names(table.key)}" if table.key else "no key")
    if table.partition_by:
        facts.append(f"partitions: {_names(table.partition_by)}")
    if table.made_from:
        facts.append(f"made from {_names(table.made_from)}")
    columns = "\n".join([HEAD, *map(line, table.columns)])
    return f"## {table.name}\n\n{table.description}\n\n{'; '.join(facts)}.\n\n{columns}"


def line(column: Column) -> str:
    """The line of a column."""
    cells = (f"`{column.name}`", column.type, column.unit, column.description, column.null)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    DOCUMENT.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
