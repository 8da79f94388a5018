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
    ins={"curated_stocks_daily": dg.AssetIn(metadata={"whole_history": True})},
    check_specs=[audit_spec(FEATURES), PRESENT_FORMULAS],
)
def stocks_features(curated_stocks_daily: DataFrame, lakehouse: LakehouseResource) -> Iterator[Any]:
    rows = lakehouse.stage(features(curated_stocks_daily, lakehouse.sessions))
    yield from audited(rows, FEATURES)
    yield dg.Output(rows)
    yield present_formulas(lakehouse.lake.features.read(lakehouse.session))
