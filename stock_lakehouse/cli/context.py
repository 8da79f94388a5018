"""The start of every command: settings, the requested rectangle, an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import typer

from stock_lakehouse.cli.printing import fail

if TYPE_CHECKING:
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.settings import Settings


def settings_of_process() -> Settings:
    from stock_lakehouse.settings import SettingsError, load_settings

    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error))


def check_partitions(settings: Settings) -> None:
    asked_rectangle(settings, None, None, None)


def asked_rectangle(
    settings: Settings, tickers: str | None, first: datetime | None, last: datetime | None
) -> Rectangle:
    from stock_lakehouse.clock import ClockError, clock_of
    from stock_lakehouse.lake_options import check_tickers
    from stock_lakehouse.market_calendar import CalendarError
    from stock_lakehouse.partitions import PartitionError, PartitionScheme

    try:
        calendar = settings.calendar
        scheme = PartitionScheme(settings, calendar)
        requested = check_tickers(tuple(ticker.strip() for ticker in tickers.split(","))) if tickers else None
        newest = calendar.latest_finished(clock_of(settings.simulated_clock)(), settings.grace)
        return scheme.request(requested, day_of(first), day_of(last), newest)
    except (PartitionError, CalendarError, ClockError, ValueError) as error:
        fail(str(error))


def check_layout(settings: Settings) -> None:
    """Exit with a line that names the command if the lake's tables have another layout than the settings say."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.publish import LayoutError
    from stock_lakehouse.lake.storage import StorageError

    try:
        Lake(settings.lake_options).check_layout()
    except (LayoutError, StorageError) as error:
        fail(str(error))


def day_of(value: datetime | None) -> date | None:
    return value.date() if value else None


@contextmanager
def engine(settings: Settings, *tables: str) -> Iterator[Any]:
    """A Spark session. Before it starts, the lake is checked: the `tables` to be read (none: all) must be listable."""
    from stock_lakehouse.engines import EngineError, spark_session
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import StorageError

    remote = settings.spark_remote.get_secret_value() if settings.spark_remote else None
    try:
        Lake(settings.lake_root).check(*tables)
        with spark_session(
            settings.engine, remote, settings.databricks, lambda line: typer.echo(line, err=True)
        ) as spark:
            yield spark
    except (EngineError, StorageError) as error:
        fail(str(error))


def data_files(settings: Settings) -> set[tuple[str, str]]:
    """Path and version tag of every data file of the lake. If the set has not changed, nothing was written."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import StorageError

    try:
        return Lake(settings.lake_options).version_tags()
    except StorageError as error:
        fail(str(error))
