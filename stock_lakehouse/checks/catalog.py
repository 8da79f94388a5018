"""catalog_agrees: Delta logs, files, serving copy and catalog agree. It reports and does not block.

Here: its result. Not here: how they are compared (catalog/agreement.py).
"""

import dagster as dg

from stock_lakehouse.automation.jobs import CATALOG
from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.resources.catalog import CatalogResource
from stock_lakehouse.resources.lakehouse import LakehouseResource

CATALOG_AGREES = dg.AssetCheckKey(dg.AssetKey(CATALOG), "catalog_agrees")


def catalog_agrees(condition: dg.AutomationCondition[dg.AssetCheckKey] | None = None) -> dg.AssetChecksDefinition:
    """The check; `condition` decides when Dagster evaluates it by itself."""

    @dg.asset_check(
        asset=CATALOG,
        name=CATALOG_AGREES.name,
        description="Delta logs, files, serving copy and catalog agree on columns, files, partitions and rows.",
        automation_condition=condition,
    )
    def check(lakehouse: LakehouseResource, catalog_service: CatalogResource) -> dg.AssetCheckResult:
        from stock_lakehouse.catalog.agreement import drift_of, to_do

        lake = lakehouse.lake
        glue = catalog_service.glue(lake)
        found = drift_of(lake, glue, catalog_service.is_crawled)
        rows = [dg.TableRecord(drift.as_json()) for drift in found[:LISTED]]
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "found": len(found),
                "compared": "Delta logs, files, serving copy" + (f", Glue database {glue.database}" if glue else ""),
                **({"rows": dg.MetadataValue.table(rows), "what to do": to_do(found)} if rows else {}),
            },
        )

    return check
