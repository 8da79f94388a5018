"""The lake's tables: name, layer, format, path, key, columns, upstream tables, and the steps that write each.

Here: facts about tables, as data, from which the flow of the lake is derived. Not here: reading and writing tables (lake/), and
computing them (layers/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse.schemas import (
    Column,
    corporate_actions,
    curated,
    features,
    live_features,
    minute_bars,
    processed,
    raw,
    reconciliation,
    restatements,
    stream_losses,
    ticks,
)

if TYPE_CHECKING:
    import pyarrow as pa

UNREADABLE = "__unreadable__"  # in place of a ticker or a year that could not be read; no ticker can have this form


SESSIONS_A_YEAR = 252


@dataclass(frozen=True)
class Table:
    """One table of the lake.

    - path: its folder under the lake's root
    - made_from: names of the tables from whose rows its rows are computed
    - written_by: names of the tables whose steps write it; empty if it has a step of its own
    - partition_by: the partition columns
    - key: the columns that identify a row; empty if none do
    - rows_a_partition: about how many rows a ticker-year has, to bound memory
    - provenance: columns with the origin of a value; a change in these alone is published and is no restatement
    - ledger: how the ledger records changes of published rows: "values" (a line per value), "tickers" (a line per ticker and
      run), or None (not at all)
    """

    name: str
    layer: str
    format: Literal["csv", "parquet", "delta"]
    path: str
    columns: tuple[Column, ...]
    description: str
    made_from: tuple[str, ...] = ()
    written_by: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ("ticker", "year")
    key: tuple[str, ...] = ("ticker", "date")
    rows_a_partition: int = SESSIONS_A_YEAR
    provenance: tuple[str, ...] = ()
    ledger: Literal["values", "tickers"] | None = None

    @property
    def has_step(self) -> bool:
        """True if the table has a step of its own. The asset of any other table only reports."""
        return not self.written_by

    @property
    def session(self) -> str:
        """The key column that has the session. Raises StopIteration for a table without one."""
        types = {column.name: column.type for column in self.columns}
        return next(name for name in self.key if types[name] == "date")

    @property
    def ddl(self) -> str:
        """The columns in Spark SQL: `ticker string, date date, …`."""
        return ", ".join(f"{column.name} {column.type}" for column in self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns as an Arrow schema; timestamps are in microseconds, UTC."""
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
            "binary": pa.binary(),
            "decimal(18,6)": pa.decimal128(18, 6),
        }
        return pa.schema([(column.name, types[column.type]) for column in self.columns])

    @property
    def documented_schema(self) -> pa.Schema:
        """`arrow_schema` with the description, the unit and the meaning of a null in the metadata of each field."""
        import pyarrow as pa

        fields = []
        for column, field in zip(self.columns, self.arrow_schema, strict=True):
            facts = {"description": column.description, "unit": column.unit, "null": column.null}
            fields.append(field.with_metadata({name: fact for name, fact in facts.items() if fact}))
        return pa.schema(fields, {"description": self.description})


RAW = Table(
    "raw_stocks_daily",
    "raw",
    "csv",
    "raw/stocks_daily",
    raw.COLUMNS,
    "Bars as the source delivered them; all columns are text. Append-only: a row lands if it is new or differs from the "
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
    made_from=("raw_stocks_daily",),
)
QUARANTINE = Table(
    "processed_quarantine",
    "processed",
    "parquet",
    "processed/quarantine",
    processed.QUARANTINE_COLUMNS,
    "Delivered rows that cannot be typed or are impossible, with every reason. A row goes to exactly one of "
    "processed_stocks_daily and this table.",
    key=(),
    made_from=("raw_stocks_daily",),
    written_by=("processed_stocks_daily",),
)
PROCESSED_ACTIONS = Table(
    "processed_actions",
    "processed",
    "delta",
    "processed/actions",
    processed.ACTION_COLUMNS,
    "The splits and dividends that delivered rows name, accepted or not, with the values of each delivery and their times.",
    partition_by=(),
    key=("ticker", "date", "kind", "first_seen"),
    made_from=("raw_stocks_daily",),
    written_by=("processed_stocks_daily",),
)
CURATED = Table(
    "curated_stocks_daily",
    "curated",
    "delta",
    "curated/stocks_daily",
    curated.COLUMNS,
    "One bar per ticker and session, on one named price basis.",
    made_from=("processed_stocks_daily", "processed_actions"),
    provenance=("ingested_at", "split_factor", "basis_factor", "adj_close_deviation"),
    ledger="values",
)
CORPORATE_ACTIONS = Table(
    "corporate_actions",
    "curated",
    "delta",
    "curated/corporate_actions",
    corporate_actions.COLUMNS,
    "The valid splits and dividends, on their sessions. The bars of curated_stocks_daily are adjusted by them.",
    partition_by=(),
    key=("ticker", "ex_date", "kind"),
    made_from=("processed_stocks_daily", "processed_actions"),
    written_by=("curated_stocks_daily",),
)
FEATURES = Table(
    "stocks_features",
    "features",
    "delta",
    "curated/stocks_features",
    features.COLUMNS,
    "Indicators and signals per ticker and session, computed from the ticker's whole history.",
    made_from=("curated_stocks_daily",),
    ledger="tickers",
)
RESTATEMENTS = Table(
    "restatements",
    "ledger",
    "delta",
    "curated/restatements",
    restatements.COLUMNS,
    "Published values that later changed, and why. Curated bars have a line per value, or per column if a split, a dividend "
    "or a formula changed the whole history; features have a line per ticker and run.",
    partition_by=("table_name",),
    key=(),
    written_by=("curated_stocks_daily", "stocks_features"),
)

TABLES = (RAW, PROCESSED, QUARANTINE, PROCESSED_ACTIONS, CURATED, CORPORATE_ACTIONS, FEATURES, RESTATEMENTS)
BY_NAME = {table.name: table for table in TABLES}
BARS_WITH_FEATURES = "bars_with_features"

# The tables of the stream stand beside TABLES: upkeep scans whole tables of the lake, and runs publish by ticker-years.
RAW_TICKS = Table(
    "raw_ticks",
    "stream",
    "delta",
    "stream/raw_ticks",
    ticks.COLUMNS,
    "Every message of the stream as it came, typed; unreadable ones are dead letters, with a reason. The table's log has the "
    "positions up to which partitions were read.",
    partition_by=("trade_date",),
    key=("source", "partition", "offset"),
)
MINUTE_BARS = Table(
    "minute_bars",
    "stream",
    "delta",
    "stream/minute_bars",
    minute_bars.COLUMNS,
    "One bar per ticker and minute, computed from the minute's ticks. Events that a producer sent twice count once.",
    made_from=("raw_ticks",),
    partition_by=("trade_date", "hour"),
    key=("ticker", "minute"),
)
STREAM_LOSSES = Table(
    "stream_losses",
    "stream",
    "delta",
    "stream/losses",
    stream_losses.COLUMNS,
    "Ranges of messages that could not be read any more, and who went on without them.",
    written_by=("raw_ticks",),
    partition_by=(),
    key=("source", "partition", "from_offset"),
)
RECONCILIATION = Table(
    "minute_reconciliation",
    "stream",
    "delta",
    "stream/reconciliation",
    reconciliation.COLUMNS,
    "The minutes of each session beside its official daily bar, and whether the two agree. The daily bar stays as it is.",
    made_from=("minute_bars", "curated_stocks_daily"),
    partition_by=(),
)
LIVE_FEATURES = Table(
    "live_features",
    "stream",
    "delta",
    "stream/live_features",
    live_features.COLUMNS,
    "Indicators of the running session: the registry over the daily history and the bar of the session so far. One row a ticker "
    "whose session has no final daily bar yet.",
    made_from=("minute_bars", "curated_stocks_daily"),
    partition_by=(),
    key=("ticker",),
)
STREAM_TABLES = (RAW_TICKS, MINUTE_BARS, RECONCILIATION, LIVE_FEATURES, STREAM_LOSSES)
STREAM_BY_NAME = {table.name: table for table in STREAM_TABLES}
ANY_BY_NAME = BY_NAME | STREAM_BY_NAME
LAYERS = tuple(
    table for table in TABLES if table.has_step
)  # in the order of the flow; each partitioned by the run's keys


# The partition columns of tables by ticker and year, by the setting `layout`.
LAYOUTS = {"ticker_year": ("ticker", "year"), "year": ("year",)}


def laid_out(table: Table, layout: str) -> Table:
    """`table` as a lake with `layout` stores it. A table that is not by ticker and year is the same in every layout."""
    if table.partition_by != LAYOUTS["ticker_year"] or layout == "ticker_year":
        return table
    # A Parquet table has no log that names its valid files, so each layout has its own folder.
    path = f"{table.path}_by_{layout}" if table.format == "parquet" else table.path
    return replace(table, path=path, partition_by=LAYOUTS[layout])


def with_indicators(table: Table, indicators: tuple[Indicator, ...]) -> Table:
    """`table` as a lake with `indicators` has it: features have a column for each; other tables are the same."""
    columns_of = {FEATURES.name: features.columns_of, LIVE_FEATURES.name: live_features.columns_of}.get(table.name)
    return table if columns_of is None or indicators == INDICATORS else replace(table, columns=columns_of(indicators))


def bars_with_features(features: Table) -> Table:
    """The view that joins each curated bar with the features of its session. It is read, and not stored.

    `features`: the table of features, with the columns of its lake.
    """
    missing = "the bar has no features yet"
    of_features = tuple(
        replace(column, nullable=True, null=f"{missing}; or {column.null}" if column.null else missing)
        for column in features.columns
        if column.name not in CURATED.column_names
    )
    return Table(
        BARS_WITH_FEATURES,
        "view",
        "delta",
        "",
        (*CURATED.columns, *of_features),
        "Each curated bar beside the indicators and signals of its session. A view: it is joined when it is read.",
        made_from=(CURATED.name, FEATURES.name),
        partition_by=(),
    )


def layout_named(columns: tuple[str, ...]) -> str:
    """The layout with the partition columns `columns`; the columns as text if no layout has them."""
    return next((layout for layout, partition_by in LAYOUTS.items() if partition_by == columns), ", ".join(columns))


def upstream(table: Table) -> tuple[Table, ...]:
    """The tables that `table` is made from."""
    return tuple(ANY_BY_NAME[name] for name in table.made_from)


def written_in_step(layer: Table) -> tuple[Table, ...]:
    """The tables that the step of `layer` writes, `layer` first."""
    return (layer, *(table for table in TABLES if layer.name in table.written_by))


def adjacent_layers() -> tuple[tuple[Table, Table], ...]:
    """The pairs (upstream, downstream) of layers where the downstream layer is made from the upstream one."""
    return tuple((source, layer) for layer in LAYERS for source in upstream(layer) if source.has_step)
