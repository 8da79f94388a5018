"""quicksight_dashboard: the dashboard on Amazon QuickSight, with its data. Defined only with `dashboard = "quicksight"`."""

from typing import Any, Literal

import dagster as dg

from stock_lakehouse.automation.jobs import CATALOG, GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.resources.quicksight import QuickSightResource
from stock_lakehouse.warehouse.tables import NATIVE_TABLES

NAME = "quicksight_dashboard"


def quicksight_dashboard(source: Literal["athena", "redshift"]) -> dg.AssetsDefinition:
    """The asset. `source`: what QuickSight reads, which is up to date before: the catalog's tables, or also the warehouse's."""
    after = [CATALOG, *(table.asset for table in NATIVE_TABLES if source == "redshift")]

    @dg.asset(
        name=NAME,
        deps=after,
        group_name=GROUP,
        tags={LAYER_TAG: SERVING_LAYER},
        kinds={"quicksight"},
        pool=NAME,  # two at once would update the same data sets
        description="The dashboard on QuickSight: data source, data sets in SPICE, their refresh, and who may use them. Only "
        "what differs is written.",
    )
    def provisioned(context: dg.AssetExecutionContext, quicksight: QuickSightResource) -> dg.MaterializeResult[Any]:
        outcome = quicksight.provision(context.log.info)
        steps = [{"what": step.what, "action": step.action, "detail": step.detail or "-"} for step in outcome.steps]
        return dg.MaterializeResult(
            metadata={
                "dashboard": dg.MetadataValue.url(outcome.url),
                "version": outcome.version,
                "steps": dg.MetadataValue.table([dg.TableRecord(step) for step in steps]),
                "calls": outcome.calls,
                "write calls": outcome.writes,
            }
        )

    return provisioned
