"""What a lake has: its tables, and the columns of a table, as pandas frames to look at.

Not here: rows (reading.py), and docs/tables.md, which is written from the same schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import TableName, names_of, opened_lake, table_of
from stock_lakehouse.lake.storage import DeniedError, LakeRoot
from stock_lakehouse.tables import BARS_WITH_FEATURES, CURATED, RESTATEMENTS

if TYPE_CHECKING:
    import pandas as pd


def list_tables(lake_root: LakeRoot | None = None) -> pd.DataFrame:
    """The tables and the view of a lake, by name: layer, rows, key, columns, description; those of a stream if it has them.

    - rows: the number of rows, where the log of the table tells it and may be read; else missing
    - lake_root: a folder or s3://bucket/prefix (None: that of the settings)

    Raises NoLakeError, StorageError, MissingPackageError or SettingsError.
    """
    import pandas as pd

    lake = opened_lake(lake_root)
    names = names_of(lake)
    tables = [table_of(lake, name) for name in names]
    return pd.DataFrame(
        {
            "layer": [table.layer for table in tables],
            "rows": pd.array([_rows(lake, name) for name in names], "Int64"),
            "key": [", ".join(table.key) for table in tables],
            "columns": [", ".join(table.column_names) for table in tables],
            "description": [table.description for table in tables],
        },
        index=pd.Index(names, name="name"),
    )


def describe(name: TableName | str, lake_root: LakeRoot | None = None) -> pd.DataFrame:
    """The columns of a table, by name: type (in Spark SQL), unit, null (what a null means), description.

    `lake_root`: a folder or s3://bucket/prefix (None: that of the settings). Raises UnknownTableError, or an error of
    `list_tables`.
    """
    import pandas as pd

    columns = table_of(opened_lake(lake_root), name).columns
    return pd.DataFrame(
        {fact: [getattr(column, fact) for column in columns] for fact in ("type", "unit", "null", "description")},
        index=pd.Index([column.name for column in columns], name="column"),
    )


def _rows(lake: Lake, name: str) -> int | None:
    """The number of rows by the log of a Delta table. The log of the ledger counts orphaned lines too, so it does not tell."""
    stored = lake.stream.get(name) or lake.delta.get(CURATED.name if name == BARS_WITH_FEATURES else name)
    if stored is None or name == RESTATEMENTS.name:
        return None
    try:
        return stored.row_count()
    except DeniedError:
        return None
