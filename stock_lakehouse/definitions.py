"""The code location: assembles settings, assets, checks, resources, jobs and automation. It does nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from stock_lakehouse.assets import all_assets
from stock_lakehouse.assets.raw import NETWORK_RETRIES
from stock_lakehouse.automation.choose import automated, automation_of
from stock_lakehouse.automation.jobs import PROGRESS, lakehouse_job, progress_logger
from stock_lakehouse.automation.upkeep_schedule import upkeep_job
from stock_lakehouse.checks.catalog import catalog_agrees
from stock_lakehouse.checks.gaps import gap_diagnosis
from stock_lakehouse.checks.market import market_checks
from stock_lakehouse.instance.event_log import batch_events
from stock_lakehouse.io_managers.raw_csv import RawCsvIOManager
from stock_lakehouse.io_managers.table import TableIOManager
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.resources.catalog import CatalogResource
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.query import QueryResource
from stock_lakehouse.resources.quicksight import QuickSightResource
from stock_lakehouse.resources.stream import StreamResource
from stock_lakehouse.resources.warehouse import WarehouseResource
from stock_lakehouse.settings import Settings, load_settings
from stock_lakehouse.sources import Source
from stock_lakehouse.sources.choose import source_of

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def build_definitions(
    settings: Settings, ticker_order: Sequence[str] | None = None, source: Source | None = None
) -> dg.Definitions:
    """The code location for `settings`.

    - `ticker_order`: the order of tickers in `PartitionScheme.definition`.
    - `source`: None for the one that the settings name.
    """
    calendar = settings.calendar
    scheme = PartitionScheme(settings, calendar)
    lakehouse = LakehouseResource.of(settings)
    automation = automation_of(settings, calendar)
    stream = _stream(settings)
    retries = NETWORK_RETRIES if settings.source == "yfinance" else None
    return dg.Definitions(
        assets=automated(
            all_assets(scheme.definition(ticker_order), settings, retries, lakehouse.lake.indicators),
            settings,
            calendar,
        ),
        asset_checks=[
            *(check(automation.check_condition) for check in (market_checks, gap_diagnosis, catalog_agrees)),
            *stream.asset_checks,
        ],
        jobs=[lakehouse_job, upkeep_job, *stream.jobs],
        sensors=[*automation.sensors, *stream.sensors],
        schedules=automation.schedules,
        resources={
            "lakehouse": lakehouse,
            "spark": lakehouse.spark,
            "catalog_service": CatalogResource.of(settings),
            "query": QueryResource.of(settings, lakehouse),
            "quicksight": QuickSightResource.of(settings, lakehouse),
            "warehouse_service": WarehouseResource.of(settings, lakehouse),
            "stream_service": StreamResource.of(settings, lakehouse),
            "source": source or source_of(settings),
            "raw_csv": RawCsvIOManager(lakehouse=lakehouse),
            "parquet": TableIOManager(lakehouse=lakehouse),
            "delta": TableIOManager(lakehouse=lakehouse),
        },
        executor=dg.in_process_executor,
        loggers={"console": dg.colored_console_logger, PROGRESS: progress_logger},
    )


@dataclass(frozen=True)
class _Stream:
    """What the stream adds to the definitions; nothing while it is off."""

    asset_checks: Sequence[dg.AssetChecksDefinition] = ()
    jobs: Sequence[UnresolvedAssetJobDefinition] = ()
    sensors: Sequence[dg.SensorDefinition] = ()


def _stream(settings: Settings) -> _Stream:
    if settings.stream.source == "off":
        return _Stream()
    from stock_lakehouse.automation.stream import stream_jobs, stream_sensors
    from stock_lakehouse.checks.stream import stream_checks

    return _Stream((stream_checks(),), stream_jobs(), () if settings.automation == "off" else stream_sensors(settings))


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions that Dagster loads."""
    batch_events()
    return build_definitions(load_settings())
