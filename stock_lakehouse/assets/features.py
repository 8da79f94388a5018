"""features: indicators and signals over each ticker's whole history."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame  # at runtime: Dagster reads annotations

from stock_lakehouse.assets.layer import layer_step
from stock_lakehouse.checks import PRESENT_FORMULAS, audit_spec, serving_spec
from stock_lakehouse.io_managers.table import FRAME, ReadByJob
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import FEATURES


@dg.asset(
    ins={"curated_stocks_daily": dg.AssetIn(dagster_type=FRAME)},
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="delta",
    pool=FEATURES.name,
    check_specs=[audit_spec(FEATURES), PRESENT_FORMULAS, serving_spec(FEATURES)],
)
def stocks_features(
    context: dg.AssetExecutionContext, curated_stocks_daily: DataFrame | ReadByJob, lakehouse: LakehouseResource
) -> Iterator[Any]:
    yield from layer_step(FEATURES, context, curated_stocks_daily, lakehouse)
