"""Jobs: the selections of assets that are launched together."""

from __future__ import annotations

import dagster as dg

LAKEHOUSE_JOB = "stock_lakehouse"


def all_jobs() -> list[dg.UnresolvedAssetJobDefinition]:
    """The one job: every asset and check, from raw to features, in one run and one process."""
    return [
        dg.define_asset_job(
            LAKEHOUSE_JOB,
            selection=dg.AssetSelection.all(),
            executor_def=dg.in_process_executor,
            description="The whole graph: raw, processed, curated, features and what stands beside them.",
        )
    ]
