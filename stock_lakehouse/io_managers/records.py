"""Which partitions of a step Dagster records as materialized, and with which metadata.

Here: the rule. Not here: the figures (metadata.py), and how many keys are stored at once (instance/event_log.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.instance.event_log import FEW_KEYS, BatchedSqliteEventLogStorage
from stock_lakehouse.lake.status import session_of
from stock_lakehouse.partitions import LOOK_BACK, Rectangle, rows_by_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.resources.lakehouse import LakehouseResource
    from stock_lakehouse.tables import Table

Counts = Callable[..., list[dict[str, Any]]]  # counts rows by columns of `day` and `ticker`; these and `count`
NO_ROWS = "No rows: the source delivered no valid bar of this partition."
ROWS_OF_PARTITION = "dagster/partition_row_count"


@dataclass(frozen=True)
class _Emitted:
    """The partitions for which Dagster emits a materialization, in this order. It takes the place of a partitions subset."""

    keys: Sequence[str]

    def get_partition_keys(self) -> Sequence[str]:
        return self.keys


def rows_of_partitions(house: LakehouseResource, count_by: Counts, keys: Sequence[str]) -> Mapping[str, int]:
    """How many rows each of `keys`, the partitions of a run, has, as `count_by` counts them; a key without rows is missing."""

    def session_on_or_after(day: date) -> date | None:
        return house.calendar.on_or_after(day)

    return rows_by_key(keys, count_by, session_on_or_after)


def counts_in(frame: DataFrame, table: Table, rectangle: Rectangle) -> Counts:
    """Counts the rows of `frame`, which are of `table`, in `rectangle`."""
    from pyspark.sql import functions as F

    rows = frame.select(session_of(table).alias("day"), "ticker").where(
        F.col("day").between(rectangle.first - LOOK_BACK, rectangle.last)
        & F.col("ticker").isin(list(rectangle.tickers))
    )

    def count_by(*columns: str) -> list[dict[str, Any]]:
        counted: list[dict[str, Any]] = rows.groupBy(*columns).count().toArrow().to_pylist()
        return counted

    return count_by


def raw_counts(house: LakehouseResource, rectangle: Rectangle) -> Counts:
    """Counts the landed rows of `rectangle`, without the engine, which would parse every column of every file."""
    days = house.lake.raw.days(rectangle.tickers, rectangle.read_years)

    def count_by(*columns: str) -> list[dict[str, Any]]:
        sums = days.group_by(list(columns)).aggregate([("count", "sum")])
        counted: list[dict[str, Any]] = sums.rename_columns([*columns, "count"]).to_pylist()
        return counted

    return count_by


def record(context: dg.OutputContext, facts: Mapping[str, Any], rows: Mapping[str, int] | None, changed: bool) -> int:
    """Let Dagster record the partitions of the run, with `facts` as metadata; return their number.

    - rows: how many rows each partition holds; None if that is not known, as in a run of Databricks jobs
    - changed: whether the step changed the table

    With few keys, Dagster records each of them; one that holds no rows says so. With more than FEW_KEYS, these are recorded:

    - partitions that hold rows, if the step changed the table
    - partitions that hold rows and that Dagster does not know as materialized
    - partitions that Dagster expects, because it planned them one by one and has no materialization since. One that holds no
      rows says so.
    - the newest partition that holds rows. Its record is the asset's latest materialization, and alone has `facts`.

    So a bulk run that changes nothing writes one record for each step. If there is nothing to record, `facts` are an observation.
    """
    keys = context.asset_partition_keys
    if len(keys) <= FEW_KEYS:
        context.add_output_metadata(dict(facts))
        counts = {} if rows is None else {key: rows.get(key, 0) for key in keys}
        if len(set(counts.values())) == 1:  # as a rule; metadata of a single partition is slow to add
            context.add_output_metadata(_of_partition(counts[keys[0]]))
        else:
            for key, count in counts.items():
                _add_metadata(context, _of_partition(count), key)
        return len(keys)
    recorded = _many_to_record(context, keys, rows, changed)
    if not recorded:
        context.log_event(dg.AssetObservation(context.asset_key, metadata=facts))
        context._asset_key = None  # Dagster then emits no materialization, also none without a partition
        return 0
    (*others, last), run_id = recorded, context.run_id
    storage = context.step_context.instance.event_log_storage
    if isinstance(storage, BatchedSqliteEventLogStorage) and storage.with_keys(
        run_id, context.asset_key, last, {key: recorded[key] for key in others}
    ):
        others = []
    for key in others:
        if why := recorded[key]:
            _add_metadata(context, {"why": why}, key)
    of_last = {} if rows is None else _of_partition(rows.get(last, 0))
    _add_metadata(context, {**facts, **of_last}, last)
    context._asset_partitions_subset = _Emitted([*others, last])  # type: ignore[assignment]
    return len(recorded)


def _many_to_record(
    context: dg.OutputContext, keys: Sequence[str], rows: Mapping[str, int] | None, changed: bool
) -> dict[str, str | None]:
    """The partitions to record, the newest one that holds rows last, each with the reason why it holds no rows."""
    instance, asset_key = context.step_context.instance, context.asset_key
    held = sorted(key for key in keys if rows is None or key in rows)
    known = set() if changed else instance.get_materialized_partitions(asset_key)
    expected = instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        asset_key
    )
    without_rows = [] if rows is None else [key for key in keys if key in expected and key not in rows]
    with_rows = [key for key in held if key not in known or key in expected or key == held[-1]]
    return {**dict.fromkeys(without_rows, NO_ROWS), **dict.fromkeys(with_rows)}


def _of_partition(rows: int) -> dict[str, Any]:
    """The metadata of a partition with `rows` rows."""
    return {ROWS_OF_PARTITION: rows} if rows else {ROWS_OF_PARTITION: 0, "why": NO_ROWS}


def _add_metadata(context: dg.OutputContext, metadata: Mapping[str, Any], key: str) -> None:
    context.step_context.add_asset_metadata(metadata, context.asset_key, key)
