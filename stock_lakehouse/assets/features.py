"""features: indicators and signals over each ticker's whole history."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame  # at runtime: Dagster reads annotations

from stock_lakehouse.checks import PRESENT_FORMULAS, audit_spec, audited, present_formulas
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import FEATURES
from stock_lakehouse.transforms.features import features


@dg.asset(
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="delta",
    pool=FEATURES.name,
    check_specs=[audit_spec(FEATURES), PRESENT_FORMULAS],
)
def stocks_features(
    context: dg.AssetExecutionContext, curated_stocks_daily: DataFrame | None, lakehouse: LakehouseResource
) -> Iterator[Any]:
    if curated_stocks_daily is None:  # the run is a job on Databricks
        yield from lakehouse.publish_by_job(context, FEATURES)
        return
    asked, sessions = lakehouse.rectangle(context.partition_keys), lakehouse.sessions
    rows = lakehouse.stage_by_ticker(
        lambda bars: features(bars, sessions), curated_stocks_daily, asked.tickers, lakehouse.years_until(asked.last)
    )
    yield from audited(rows, FEATURES)
    yield dg.Output(rows)
    yield present_formulas(lakehouse.lake.features.read(lakehouse.session))
