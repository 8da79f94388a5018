"""Jobs: the selections of assets that are launched together, and how their runs speak."""

import logging

import dagster as dg

from stock_lakehouse.tables import TABLES

LAKEHOUSE_JOB = "stock_lakehouse"
PROGRESS = "progress"  # the logger's name in run config
PROGRESS_LOGGER = "stock_lakehouse.progress"


@dg.logger(None, description="What the assets say, without Dagster's own events; the program prints it as progress.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """Dagster sends every event of a run to every logger, so the level is checked first: INFO is what assets say."""
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


GROUPS = tuple(dict.fromkeys(table.layer for table in TABLES))

# Every asset and check of the tables of the lake, in one run and one process. What else stands in the graph has
# jobs of its own.
lakehouse_job = dg.define_asset_job(
    LAKEHOUSE_JOB,
    selection=dg.AssetSelection.groups(*GROUPS),
    executor_def=dg.in_process_executor,
    description="The whole graph: raw, processed, curated, features and what stands beside them.",
)
