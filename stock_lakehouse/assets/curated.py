"""curated: the one bar of a ticker and session."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame  # at runtime: Dagster reads annotations

from stock_lakehouse.checks import audit_spec, audited
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED
from stock_lakehouse.transforms.curated import curated_bars


@dg.asset(backfill_policy=dg.BackfillPolicy.single_run(), io_manager_key="delta", check_specs=[audit_spec(CURATED)])
def curated_stocks_daily(
    context: dg.AssetExecutionContext, processed_stocks_daily: DataFrame | None, lakehouse: LakehouseResource
) -> Iterator[Any]:
    if processed_stocks_daily is None:  # the run is a job on Databricks
        yield from lakehouse.publish_by_job(context, CURATED)
        return
    bars = lakehouse.stage(curated_bars(processed_stocks_daily, lakehouse.sessions))
    yield from audited(bars, CURATED)
    yield dg.Output(bars)
