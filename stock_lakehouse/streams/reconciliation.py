"""The table minute_reconciliation: finished sessions of the stream beside their official bars.

Here: which sessions are compared, and how their rows are replaced. Not here: the comparison (transforms/reconciliation.py).
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.lake.delta_table import adds_of
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.stream_table import StreamTable
from stock_lakehouse.schemas.audit import audit_rows
from stock_lakehouse.tables import RECONCILIATION
from stock_lakehouse.transforms.reconciliation import reconciled

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import SparkSession

COMPARISONS = "comparisons"  # a number of the log, as its fence


class Tolerances(Protocol):
    """The settings under [stream] that a comparison needs."""

    @property
    def price_tolerance(self) -> float: ...
    @property
    def volume_tolerance(self) -> float | None: ...
    @property
    def versions_hours(self) -> int: ...


def reconcile(
    lake: Lake,
    settings: Tolerances,
    spark: SparkSession,
    now: datetime,
    first: date | None = None,
    last: date | None = None,
) -> pa.Table:
    """Compare the sessions with minutes from `first` to `last` that are final at `now`; return their rows, sorted.

    Rows of these sessions are replaced in one commit; equal ones stay, with the time at which they were first found. May be
    repeated at any time. Raises AuditError, StorageError, TableBusyError.
    """
    import pyarrow as pa

    options = lake.options
    table = StreamTable(options, RECONCILIATION, settings.versions_hours, COMPARISONS)
    bars = BarTable(options, settings.versions_hours)
    sessions = _sessions(lake, bars, now, first, last)
    if not sessions:
        return table.no_rows()
    with one_writer(options.lake_root, RECONCILIATION.name):
        table.prepare()
        table.begin()
        calendar = options.calendar
        instants = pa.timestamp("us", "UTC")
        frame = spark.createDataFrame(
            pa.table(
                {
                    "date": pa.array(sessions, pa.date32()),
                    "open": pa.array(map(calendar.open, sessions), instants),
                    "close": pa.array(map(calendar.close, sessions), instants),
                }
            )
        )
        rows = reconciled(
            bars.read(spark),
            lake.curated.read(spark, years=sorted({session.year for session in sessions})),
            frame,
            settings.price_tolerance,
            settings.volume_tolerance,
            now,
        )
        found = (
            rows.toArrow().cast(RECONCILIATION.arrow_schema).sort_by([("date", "ascending"), ("ticker", "ascending")])
        )
        audit_rows(found, RECONCILIATION)
        return _published(table, found, sessions)


def final_sessions(lake: Lake, versions_hours: int, now: datetime) -> list[date]:
    """The sessions that have minutes and are final at `now`, in ascending order."""
    return _sessions(lake, BarTable(lake.options, versions_hours), now, None, None)


def _sessions(lake: Lake, bars: BarTable, now: datetime, first: date | None, last: date | None) -> list[date]:
    """The sessions from `first` to `last` that have minutes and are final at `now`."""
    if not bars.exists():
        return []
    bars.begin()
    days = {date.fromisoformat(str(add["partition.trade_date"])) for add in adds_of(bars.handle)}
    calendar, grace = lake.options.calendar, lake.options.grace
    return [
        session
        for session in calendar.between(first or min(days), last or max(days))
        if session in days and calendar.close(session) + grace <= now
    ]


def _published(table: StreamTable, found: pa.Table, sessions: list[date]) -> pa.Table:
    """Make the rows of `sessions` equal to `found`, but for the times of rows that have not changed; return them."""
    import deltalake
    import pyarrow as pa
    import pyarrow.compute as pc

    stored = table.handle.to_pyarrow_dataset().to_table().cast(RECONCILIATION.arrow_schema)
    stored = stored.filter(pc.is_in(stored["date"], value_set=pa.array(sessions, pa.date32())))
    facts = [name for name in RECONCILIATION.column_names if name != "compared_at"]
    before = {tuple(row[name] for name in facts): row["compared_at"] for row in stored.to_pylist()}
    rows = found.to_pylist()
    for row in rows:
        row["compared_at"] = before.get(tuple(row[name] for name in facts), row["compared_at"])
    wanted = pa.Table.from_pylist(rows, RECONCILIATION.arrow_schema)
    if wanted.num_rows == stored.num_rows and all(tuple(row[name] for name in facts) in before for row in rows):
        return wanted
    days = ", ".join(f"DATE '{session}'" for session in sessions)

    def act(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
        deltalake.write_deltalake(
            handle, wanted, mode="overwrite", predicate=f"date IN ({days})", commit_properties=properties
        )

    table.commit(act, {COMPARISONS: (table.number(COMPARISONS) or 0) + 1})
    return wanted
