"""curated: one bar per ticker and session, and the corporate actions that adjust it, in the same step."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame  # at runtime: Dagster reads annotations

from stock_lakehouse.assets.layer import layer_step
from stock_lakehouse.checks import audit_spec, serving_spec
from stock_lakehouse.io_managers.table import FRAME, ReadByJob
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED

NEWEST = 10


@dg.asset(
    ins={"processed_stocks_daily": dg.AssetIn(dagster_type=FRAME)},
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="delta",
    pool=CURATED.name,
    check_specs=[audit_spec(CURATED), audit_spec(CORPORATE_ACTIONS, CURATED), serving_spec(CURATED)],
)
def curated_stocks_daily(
    context: dg.AssetExecutionContext, processed_stocks_daily: DataFrame | ReadByJob, lakehouse: LakehouseResource
) -> Iterator[Any]:
    yield from layer_step(CURATED, context, processed_stocks_daily, lakehouse)


@dg.asset(deps=[curated_stocks_daily])
def corporate_actions(lakehouse: LakehouseResource) -> dg.MaterializeResult[Any]:
    from pyspark.sql import functions as F

    actions = lakehouse.lake.corporate_actions.read(lakehouse.session)
    newest = actions.orderBy(F.col("ex_date").desc(), "ticker", "kind").limit(NEWEST).collect()
    records = [dg.TableRecord({name: str(row[name]) for name in CORPORATE_ACTIONS.column_names}) for row in newest]
    by_kind = {row["kind"]: row["count"] for row in actions.groupBy("kind").count().collect()}
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(by_kind.values()),
            "splits": by_kind.get("split", 0),
            "dividends": by_kind.get("dividend", 0),
            "capital gains": by_kind.get("capital gain", 0),
            "newest": dg.MetadataValue.table(records) if records else "none",
        }
    )
