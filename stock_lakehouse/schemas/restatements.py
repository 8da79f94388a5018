"""The ledger: published values that later changed."""

from stock_lakehouse.schemas import Column

COLUMNS = (
    Column("table_name", "string", "Table whose published values changed", nullable=False),
    Column("ticker", "string", "Ticker", nullable=False),
    Column("date", "date", "Session of the value; of a line of several rows, the first that changed", nullable=False),
    Column("columns", "string", "The column that changed; of a features line, all of them, by comma", nullable=False),
    Column("old", "string", "What was published on that session; null in a features line"),
    Column("new", "string", "What is published now; null in a features line, and where the bar was withdrawn"),
    Column("rows", "bigint", "Rows that changed", nullable=False, minimum=1),
    Column(
        "cause",
        "string",
        "split, dividend, vendor edit, late bar, withdrawn or formula change; of a features line all that there were, by comma",
    ),
    Column("run_id", "string", "Dagster run that changed it", nullable=False),
    Column("restated_at", "timestamp", "When, UTC", nullable=False),
    Column("table_id", "string", "Delta id of the table: another one if the table was ever built anew", nullable=False),
    Column("from_version", "bigint", "Table version that still holds the old value", nullable=False, minimum=0),
)
