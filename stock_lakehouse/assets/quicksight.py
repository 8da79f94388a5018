"""quicksight_dashboard: the dashboard on Amazon QuickSight, with its data. Defined only with `dashboard = "quicksight"`."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from stock_lakehouse.automation.jobs import CATALOG, GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.resources.quicksight import QuickSightResource

NAME = "quicksight_dashboard"


def quicksight_dashboard(after: Sequence[str] = (CATALOG,)) -> dg.AssetsDefinition:
    """The asset. `after`: the assets that make what QuickSight reads."""

    @dg.asset(
        name=NAME,
        deps=list(after),
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
