"""Jobs: the selections of assets that are launched together, and the logger of their progress."""

import json
import logging
import os

import dagster as dg

from stock_lakehouse.instance.home import ROLES_VARIABLE

LAKEHOUSE_JOB = "stock_lakehouse"
PROGRESS = "progress"  # the logger's name in run config
PROGRESS_LOGGER = "stock_lakehouse.progress"


@dg.logger(
    None, description="Log lines of the assets, without Dagster's own events; the program prints them as progress."
)
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The level is INFO, that of the assets' own lines: Dagster sends every event of a run to every logger."""
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def role_tags(role: str) -> dict[str, str]:
    """The tags with which the runs of a job have `role` on ECS; none where ROLES_VARIABLE names no such role.

    Raises ValueError if the variable is not a JSON object.
    """
    text = os.environ.get(ROLES_VARIABLE)
    if not text:
        return {}
    try:
        arn = dict(json.loads(text)).get(role)
    except (TypeError, ValueError):
        raise ValueError(f"{ROLES_VARIABLE} is not a JSON object of names and ARNs of roles: {text}") from None
    return {"ecs/task_overrides": json.dumps({"taskRoleArn": arn})} if arn else {}


# One group: the UI's graph shows every asset of a single group, and of several groups only closed boxes. The layer of an asset
# is in its tags and its name.
GROUP = "lake"
LAYER_TAG = "layer"
# The layer of what is made of the published tables for those who read them: the catalog and the reports. They have no partitions.
SERVING_LAYER = "serving"
CATALOG = "catalog"  # the asset that registers the tables

# The layer of the stream's assets. They stand in the same graph, and have their own jobs and sensors.
STREAM_LAYER = "stream"
DAILY = dg.AssetSelection.groups(GROUP) - dg.AssetSelection.tag(LAYER_TAG, STREAM_LAYER)

# Every asset and check of the lake but those of the stream, in one run and one process.
lakehouse_job = dg.define_asset_job(
    LAKEHOUSE_JOB,
    selection=DAILY,
    executor_def=dg.in_process_executor,
    description="The tables of the lake: raw, processed, curated, features and the tables that their steps write; then what "
    "serves their readers.",
)
