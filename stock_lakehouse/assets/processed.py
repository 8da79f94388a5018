"""processed: type what was delivered; the impossible goes to the quarantine, in the same step."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame  # at runtime: Dagster reads annotations

from stock_lakehouse.checks import ROWS_CONSERVED, audit_spec, audited, rows_conserved
from stock_lakehouse.checks.files import QUARANTINED, quarantine_grew
from stock_lakehouse.lake.status import new_in_quarantine
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import PROCESSED, PROCESSED_ACTIONS, QUARANTINE
from stock_lakehouse.transforms.processed import classify, delivered_actions, processed_bars, quarantined


@dg.asset(
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="parquet",
    pool=PROCESSED.name,
    check_specs=[
        ROWS_CONSERVED,
        audit_spec(PROCESSED),
        audit_spec(QUARANTINE, PROCESSED),
        audit_spec(PROCESSED_ACTIONS, PROCESSED),
        QUARANTINED,
    ],
)
def processed_stocks_daily(
    context: dg.AssetExecutionContext, raw_stocks_daily: DataFrame | None, lakehouse: LakehouseResource
) -> Iterator[Any]:
    if raw_stocks_daily is None:  # the run is a job on Databricks
        yield from lakehouse.publish_by_job(context, PROCESSED)
        return
    asked, days = lakehouse.rectangle(context.partition_keys), lakehouse.days
    rows = lakehouse.stage_by_ticker(
        lambda raw: classify(raw, days, lakehouse.price_tolerance),
        raw_stocks_daily,
        asked.tickers,
        len(asked.read_years),
    )
    delivered = raw_stocks_daily.count()
    fates = {row["fate"]: row["count"] for row in rows.groupBy("fate").count().collect()}
    yield from rows_conserved(delivered, fates)
    frames = {
        PROCESSED.name: processed_bars(rows),
        QUARANTINE.name: quarantined(rows),
        PROCESSED_ACTIONS.name: delivered_actions(rows),
    }
    yield from audited(frames[PROCESSED.name], PROCESSED)
    yield from audited(frames[QUARANTINE.name], QUARANTINE, PROCESSED)
    yield from audited(frames[PROCESSED_ACTIONS.name], PROCESSED_ACTIONS, PROCESSED)
    # Before they are published: a run that is killed now has told of them, and the next one tells again.
    rejected = frames[QUARANTINE.name]
    new = new_in_quarantine(rejected, lakehouse.lake, lakehouse.session, asked, fates.get("quarantined", 0))
    yield quarantine_grew(new)
    yield dg.Output(frames)


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
