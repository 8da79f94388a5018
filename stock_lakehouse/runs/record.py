"""Which bars of a rectangle the lake's tables hold, and recording them in Dagster.

Here: what is done, read from the lake itself. Not here: what to do about a missing bar (backfill.py).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import FEATURES, LAYERS, Table

if TYPE_CHECKING:
    import dagster as dg
    from pyspark.sql import SparkSession

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import Cells, PartitionScheme


def held_cells(lake: Lake, spark: SparkSession, requested: Rectangle, table: Table) -> Cells:
    """Which bars of `requested` the table has, as a tickers × sessions array of bool.

    Rows of features that were computed with older formulas do not count.
    """
    import numpy as np
    import pyarrow as pa
    from pyspark.sql import functions as F

    from stock_lakehouse.lake.status import session_of

    frame = lake.read(table.name, spark)
    if table == FEATURES:
        frame = frame.where(F.col("indicator_spec") == lake.indicator_spec)
    frame = frame.select("ticker", session_of(table).alias("session"))
    rows = frame.where(F.col("session").between(requested.first, requested.last)).toArrow()
    tickers = pa.compute.index_in(rows["ticker"], pa.array(requested.tickers, pa.string())).to_numpy(
        zero_copy_only=False
    )
    sessions = pa.compute.index_in(rows["session"], pa.array(requested.sessions, pa.date32()))
    sessions = sessions.to_numpy(zero_copy_only=False)
    inside = ~(np.isnan(tickers.astype(float)) | np.isnan(sessions.astype(float)))
    cells = np.zeros((len(requested.tickers), len(requested.sessions)), dtype=bool)
    cells[tickers[inside].astype(int), sessions[inside].astype(int)] = True
    return cells


def record_held(
    instance: dg.DagsterInstance, scheme: PartitionScheme, lake: Lake, spark: SparkSession, requested: Rectangle
) -> dict[str, int]:
    """Mark as materialized the partitions of `requested` that a layer holds and Dagster does not know of; return counts by layer.

    This is for a lake that was filled under another partition scheme or another instance, and for what a killed run published
    but did not record. If a partition is a session, it is held if any ticker's bar is. After a kill, a further call completes it.
    """
    import dagster as dg

    counts = {}
    for table in LAYERS:
        key = dg.AssetKey(table.name)
        known = instance.get_materialized_partitions(key)
        new = [
            partition
            for partition in scheme.keys_of(requested, held_cells(lake, spark, requested, table))
            if partition not in known
        ]
        _record(instance, key, new)
        counts[table.name] = len(new)
    return counts


def _record(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: list[str]) -> None:
    """Do what `DagsterInstance.report_runless_asset_event` does for each partition, but write in batches, or all at once."""
    import dagster as dg
    from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata, DagsterEventType, StepMaterializationData
    from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

    from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage

    batch, storage = str(uuid.uuid4()), instance.event_log_storage
    if partitions and isinstance(storage, BatchedSqliteEventLogStorage):
        *others, last = sorted(partitions)
        if storage.with_keys(RUNLESS_RUN_ID, key, last, dict.fromkeys(others)):
            partitions = [last]
    for number, partition in enumerate(partitions, start=1):
        event = dg.AssetMaterialization(key, partition=partition, description="Held by the lake already.")
        instance.report_dagster_event(
            DagsterEvent(
                event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
                event_specific_data=StepMaterializationData(event),
                job_name=RUNLESS_JOB_NAME,
            ),
            run_id=RUNLESS_RUN_ID,
            batch_metadata=DagsterEventBatchMetadata(batch, number == len(partitions)),
        )
