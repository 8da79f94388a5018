"""The ledger: published values that later changed."""

from stock_lakehouse.schemas import Column

COLUMNS = (
    Column("table_name", "string", "Table whose published values changed", nullable=False),
    Column("ticker", "string", "Ticker", nullable=False),
    Column(
        "date",
        "date",
        "Session of the value; in a line for several rows, the first session that changed",
        nullable=False,
    ),
    Column(
        "columns",
        "string",
        "The column that changed; in a features line all changed columns, separated by commas",
        nullable=False,
    ),
    Column("old", "string", "The value published before on that session", null="a features line"),
    Column("new", "string", "The value published now", null="a features line, or the bar was withdrawn"),
    Column("rows", "bigint", "Rows that changed", nullable=False, minimum=1, unit="rows"),
    Column(
        "cause",
        "string",
        "split, dividend, vendor edit, late bar, withdrawn or formula change; in a features line all causes, separated by commas",
        null="the line was written before this column existed",
    ),
    Column("run_id", "string", "Dagster run that changed it", nullable=False),
    Column("restated_at", "timestamp", "When it was changed", nullable=False, unit="UTC"),
    Column("table_id", "string", "Delta id of the table; it changes if the table is rebuilt", nullable=False),
    Column("from_version", "bigint", "Table version that still holds the old value", nullable=False, minimum=0),
)
