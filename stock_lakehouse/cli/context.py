"""The start of every command: settings, the requested rectangle, an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stock_lakehouse.cli.interrupt import REMOTE_GRACE_SECONDS, ctrl_c
from stock_lakehouse.cli.printing import fail

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.settings import Settings


def settings_of_process() -> Settings:
    from stock_lakehouse.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error))
    if settings.engine != "embedded" or isinstance(settings.lake_root, str) or settings.trino.url is not None:
        ctrl_c.grace = REMOTE_GRACE_SECONDS
    return settings


def nearest_existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))


def why_unwritable(folder: Path) -> str | None:
    """Why nothing can be written to `folder`, or why it cannot be created. None if it can; nothing is tried."""
    nearest = nearest_existing(folder)
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written"


def check_output(target: Path, force: bool) -> None:
    """Exit with a line if the file `target` cannot be written, or exists and is not to be replaced (`force`)."""
    if target.is_dir():
        fail(f"--output: {target} is a folder; name a file")
    if target.exists() and not force:
        fail(f"--output: {target} exists; --force replaces it, and --output names another file")
    if reason := why_unwritable(target.parent):
        fail(f"--output: {reason}; name a file in a folder that you may write")


def check_lake_root(settings: Settings) -> None:
    """Exit with a line if the lake's folder cannot be written. A bucket is checked when it is used."""
    if isinstance(settings.lake_root, Path) and (reason := why_unwritable(settings.lake_root)):
        fail(f"lake_root: {reason}; set lake_root to a folder that you may write")


def check_instance(settings: Settings) -> None:
    """Exit with a line if Dagster's folder cannot be written, or its database does not answer."""
    from stock_lakehouse.instance.database import InstanceError, check_database
    from stock_lakehouse.instance.home import dagster_folder

    home = dagster_folder(settings)
    if reason := why_unwritable(home):
        fail(f"DAGSTER_HOME: {reason}; set DAGSTER_HOME to a folder that you may write")
    try:
        check_database(home)
    except InstanceError as error:
        fail(str(error))


def existing_lake(settings: Settings, *tables: str) -> Lake:
    """The lake. Exit with a line if there is none yet, or if one of `tables`, those to be read (none: all), may not be listed."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.reading import NoLakeError, check_lake
    from stock_lakehouse.lake.storage import StorageError

    lake = Lake(settings.lake_options)
    try:
        lake.check(*tables)
        check_lake(lake, tables)
        return lake
    except NoLakeError:
        pass
    except StorageError as error:
        fail(str(error))
    fail(
        f"there is no lake in {settings.lake_root} yet; `stock-lakehouse demo` loads what the settings name. For a lake "
        "elsewhere, call the program in the folder of its lakehouse.toml, or set lake_root"
    )


def check_partitions(settings: Settings) -> None:
    asked_rectangle(settings, None, None, None)


def asked_rectangle(
    settings: Settings, tickers: str | None, first: datetime | None, last: datetime | None
) -> Rectangle:
    from stock_lakehouse.clock import ClockError, clock_of
    from stock_lakehouse.market_calendar import CalendarError
    from stock_lakehouse.partitions import PartitionError, PartitionScheme

    try:
        calendar = settings.calendar
        scheme = PartitionScheme(settings, calendar)
        requested = None if tickers is None else tickers_in(tickers)
        newest = calendar.latest_finished(clock_of(settings.simulated_clock)(), settings.grace)
        return scheme.request(requested, day_of(first), day_of(last), newest)
    except (PartitionError, CalendarError, ClockError, ValueError) as error:
        fail(str(error))


def tickers_in(text: str) -> tuple[str, ...]:
    """The tickers of an option, in any case. Raises ValueError for a wrong one, for one named twice and for none."""
    from stock_lakehouse.lake_options import check_tickers, in_upper_case

    return check_tickers(tuple(map(in_upper_case, names_in("--tickers", text))))


def names_in(option: str, text: str) -> list[str]:
    """The names in an option's value, separated by commas. Raises ValueError if there is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"{option}: is empty; name at least one, or leave {option} out for all")
    return names


def selected(text: str | None) -> list[str] | None:
    """The assets of the option --select; None for all. Exits with a line if it is empty."""
    try:
        return None if text is None else names_in("--select", text)
    except ValueError as error:
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
