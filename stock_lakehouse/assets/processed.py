"""processed: delivered rows are typed, and impossible rows go to the quarantine, in the same step."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame  # at runtime: Dagster reads annotations

from stock_lakehouse.assets.layer import layer_step
from stock_lakehouse.checks import ROWS_CONSERVED, audit_spec
from stock_lakehouse.checks.files import QUARANTINED
from stock_lakehouse.io_managers.table import FRAME, ReadByJob
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import PROCESSED, written_in_step


@dg.asset(
    ins={"raw_stocks_daily": dg.AssetIn(dagster_type=FRAME)},
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="parquet",
    pool=PROCESSED.name,
    check_specs=[
        ROWS_CONSERVED,
        *(audit_spec(table, PROCESSED) for table in written_in_step(PROCESSED)),
        QUARANTINED,
    ],
)
def processed_stocks_daily(
    context: dg.AssetExecutionContext, raw_stocks_daily: DataFrame | ReadByJob, lakehouse: LakehouseResource
) -> Iterator[Any]:
    yield from layer_step(PROCESSED, context, raw_stocks_daily, lakehouse)


@dg.asset(deps=[processed_stocks_daily])
def processed_actions(lakehouse: LakehouseResource) -> dg.MaterializeResult[Any]:
    actions = lakehouse.lake.processed_actions.read(lakehouse.session)
    by_kind = {row["kind"]: row["count"] for row in actions.groupBy("kind").count().collect()}
    return dg.MaterializeResult(metadata={"dagster/row_count": sum(by_kind.values()), **by_kind})


@dg.asset(deps=[processed_stocks_daily])
def processed_quarantine(lakehouse: LakehouseResource) -> dg.MaterializeResult[Any]:
    from pyspark.sql import functions as F

    rows = lakehouse.lake.quarantine.read(lakehouse.session)
    by_reason = rows.select(F.explode("reasons").alias("reason")).groupBy("reason").count().orderBy("reason").collect()
    records = [dg.TableRecord({"reason": row["reason"], "rows": row["count"]}) for row in by_reason]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows.count(),
            "by reason": dg.MetadataValue.table(records) if records else "none",
            "location": dg.MetadataValue.path(str(lakehouse.lake.quarantine.root)),
        }
    )
