"""restatements: published values that this and earlier runs changed. The publish itself writes the lines; this asset reports."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from stock_lakehouse.assets.curated import curated_stocks_daily
from stock_lakehouse.assets.features import stocks_features
from stock_lakehouse.checks import RESTATED_SHARE, restated_share
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import RESTATEMENTS

NEWEST = 10


@dg.asset(deps=[curated_stocks_daily, stocks_features], check_specs=[RESTATED_SHARE])
def restatements(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[Any]:
    from pyspark.sql import functions as F

    lines = lakehouse.lake.restatements(lakehouse.session)
    newest = lines.orderBy(F.col("restated_at").desc(), "ticker", "date").limit(NEWEST).collect()
    records = [dg.TableRecord({name: str(row[name]) for name in RESTATEMENTS.column_names}) for row in newest]
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": lines.count(),
            "lines of this run": lines.where(F.col("run_id") == context.run_id).count(),
            "newest": dg.MetadataValue.table(records) if records else "none",
        },
        check_results=[
            restated_share(
                lines,
                lakehouse.lake.curated.read(lakehouse.session),
                lakehouse.now(),
                lakehouse.lake_options.restated_share,
            )
        ],
    )
