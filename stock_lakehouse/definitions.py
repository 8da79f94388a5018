"""The code location: assembles settings, assets, checks, resources and jobs. It does nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from stock_lakehouse.assets import all_assets
from stock_lakehouse.automation.jobs import PROGRESS, lakehouse_job, progress_logger
from stock_lakehouse.checks.market import market_checks
from stock_lakehouse.event_storage import batch_events
from stock_lakehouse.io_managers import DeltaIOManager, ParquetIOManager, RawCsvIOManager
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Settings, load_settings
from stock_lakehouse.sources.choose import source_of


def build_definitions(settings: Settings, ticker_order: Sequence[str] | None = None) -> dg.Definitions:
    """The code location that `settings` describe; `ticker_order` as in `PartitionScheme.definition`."""
    scheme = PartitionScheme(settings, market_calendar(settings.first_date))
    lakehouse = LakehouseResource.of(settings)
    return dg.Definitions(
        assets=all_assets(scheme.definition(ticker_order)),
        asset_checks=[market_checks],
        jobs=[lakehouse_job],
        resources={
            "lakehouse": lakehouse,
            "spark": lakehouse.spark,
            "source": source_of(settings),
            "raw_csv": RawCsvIOManager(lakehouse=lakehouse),
            "parquet": ParquetIOManager(lakehouse=lakehouse),
            "delta": DeltaIOManager(lakehouse=lakehouse),
        },
        executor=dg.in_process_executor,
        loggers={"console": dg.colored_console_logger, PROGRESS: progress_logger},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    batch_events()
    return build_definitions(load_settings())
