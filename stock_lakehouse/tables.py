"""The lake's tables: name, layer, format, place, key, columns.

Here: facts about tables, as data. Not here: reading and writing them (lake/), producing them (assets/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stock_lakehouse.schemas import Column, corporate_actions, curated, features, processed, raw, restatements

if TYPE_CHECKING:
    import pyarrow as pa

UNREADABLE = "__unreadable__"  # stands for a ticker or a year that could not be read; no ticker can have this form


@dataclass(frozen=True)
class Table:
    """One table. `path` is under the lake root; `key` is unique, and empty where nothing is."""

    name: str
    layer: str
    format: Literal["csv", "parquet", "delta"]
    path: str
    columns: tuple[Column, ...]
    description: str
    partition_by: tuple[str, ...] = ("ticker", "year")
    key: tuple[str, ...] = ("ticker", "date")

    @property
    def ddl(self) -> str:
        """The columns as Spark SQL writes them: `ticker string, date date, …`."""
        return ", ".join(f"{one.name} {one.type}" for one in self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns as Arrow has them; times in microseconds, UTC."""
        import pyarrow as pa

        types = {
            "string": pa.string(),
            "double": pa.float64(),
            "bigint": pa.int64(),
            "int": pa.int32(),
            "boolean": pa.bool_(),
            "date": pa.date32(),
            "timestamp": pa.timestamp("us", "UTC"),
            "array<string>": pa.list_(pa.string()),
        }
        return pa.schema([(one.name, types[one.type]) for one in self.columns])


RAW = Table(
    "raw_stocks_daily",
    "raw",
    "csv",
    "raw/stocks_daily",
    raw.COLUMNS,
    "Bars as the source delivered them, every column text. Append-only: a row lands when it is new or differs from the "
    "newest landed row of its ticker and session, and is never changed.",
    partition_by=("year",),
    key=(),
)
PROCESSED = Table(
    "processed_stocks_daily",
    "processed",
    "parquet",
    "processed/stocks_daily",
    processed.COLUMNS,
    "The newest valid delivered bar of each ticker and session, typed.",
)
QUARANTINE = Table(
    "processed_quarantine",
    "processed",
    "parquet",
    "processed/quarantine",
    processed.QUARANTINE_COLUMNS,
    "Delivered rows that cannot be typed or are impossible, with every reason. Written by the step of "
    "processed_stocks_daily, since a row goes to exactly one of the two.",
    key=(),
)
PROCESSED_ACTIONS = Table(
    "processed_actions",
    "processed",
    "delta",
    "processed/actions",
    processed.ACTION_COLUMNS,
    "The splits and dividends that delivered rows name, whatever became of the rows' bars, with what each delivery said when. "
    "Written by the step of processed_stocks_daily.",
    partition_by=(),
    key=("ticker", "date", "kind", "first_seen"),
)
CURATED = Table(
    "curated_stocks_daily",
    "curated",
    "delta",
    "curated/stocks_daily",
    curated.COLUMNS,
    "The one bar of a ticker and session, on one named price basis.",
)
CORPORATE_ACTIONS = Table(
    "corporate_actions",
    "curated",
    "delta",
    "curated/corporate_actions",
    corporate_actions.COLUMNS,
    "The splits and dividends that count, on their sessions. Written by the step of curated_stocks_daily, whose bars are "
    "adjusted by them.",
    partition_by=(),
    key=("ticker", "ex_date", "kind"),
)
FEATURES = Table(
    "stocks_features",
    "features",
    "delta",
    "curated/stocks_features",
    features.COLUMNS,
    "Indicators and signals of a ticker and session, computed from the ticker's whole history.",
)
RESTATEMENTS = Table(
    "restatements",
    "ledger",
    "delta",
    "curated/restatements",
    restatements.COLUMNS,
    "Published values that later changed, and why: of curated bars a line a value, or a column where a split, a dividend or a "
    "formula changed the whole history; of features a line a ticker and run.",
    partition_by=("table_name",),
    key=(),
)

LAYERS = (RAW, PROCESSED, CURATED, FEATURES)
TABLES = (RAW, PROCESSED, QUARANTINE, PROCESSED_ACTIONS, CURATED, CORPORATE_ACTIONS, FEATURES, RESTATEMENTS)
BY_NAME = {table.name: table for table in TABLES}
