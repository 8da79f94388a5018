"""What `stock-lakehouse doctor` looks at: each finding names a thing, its state, and how to mend it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stock_lakehouse.settings import Settings, SettingsError, config_file, load_settings

# Some exchanges publish the holidays of a year in the last weeks before it (Shanghai, Singapore, Mumbai), so there is no newer
# calendar to upgrade to for most of the year.
CALENDAR_NOTE_DAYS, CALENDAR_BROKEN_DAYS = 90, 14
JAVA = 17


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: `broken` stops runs, `note` does not."""

    what: str
    state: Literal["ok", "note", "broken"]
    detail: str


def examine(say: Callable[[str], None]) -> Iterator[Finding]:
    """Look at settings, lake, calendar, partitions, engine and Java, in this order; without settings nothing else can be.

    `say` hears what a long wait, for a Databricks cluster to start, waits for.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Finding("settings", "broken", str(error))
        return
    file = config_file()
    origin = str(file) if file.is_file() else f"defaults; there is no {file}"
    yield Finding("settings", "ok", f"{origin}: {len(settings.tickers)} tickers, source {settings.source}")
    yield _lake(settings)
    yield _calendar(settings)
    if settings.simulated_clock is not None:
        yield _clock(settings.simulated_clock)
    yield _source(settings)
    yield _engine(settings, say)
    if settings.engine == "databricks":
        yield _jobs(settings)
    yield _java()


def _lake(settings: Settings) -> Finding:
    root = settings.lake_root
    if isinstance(root, str):
        return _bucket(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root):
            pass
    except OSError as error:
        return Finding("lake", "broken", f"{root} cannot be written ({error}); set lake_root to a folder of yours")
    free = shutil.disk_usage(root).free
    return Finding("lake", "ok", f"{root} can be written, {free / 1e9:.0f} GB free")


def _bucket(root: str) -> Finding:
    """Do once what a run does: list, write on condition, read, delete."""
    from stock_lakehouse.lake.storage import Bucket, ChangedError, StorageError

    bucket, path = Bucket(root), f".locks/doctor-{uuid.uuid4().hex}"
    try:
        bucket.check()
        bucket.put(path, b"", None)
        try:
            for mark in (None, '"not the mark"'):
                with contextlib.suppress(ChangedError):
                    bucket.put(path, b"", mark)
                    return Finding(
                        "lake",
                        "broken",
                        f"{root}: this store takes no notice of conditions on writes (If-None-Match, If-Match), so two writers "
                        "would destroy each other's work; use one that does, like S3",
                    )
            bucket.read(path)
        finally:
            bucket.delete([path])
    except StorageError as error:
        return Finding("lake", "broken", str(error))
    return Finding("lake", "ok", f"{root} can be listed, read and written, on condition where that is needed")


def _calendar(settings: Settings) -> Finding:
    from stock_lakehouse.market_calendar import market_calendar, utc_now
    from stock_lakehouse.partitions import PartitionError, PartitionScheme

    calendar = market_calendar(settings.first_date, settings.exchange)
    try:
        PartitionScheme(settings, calendar)
    except PartitionError as error:
        return Finding("calendar", "broken", str(error))
    end = calendar.sessions[-1]
    ahead = (end - utc_now().date()).days
    if ahead < CALENDAR_NOTE_DAYS:
        state: Literal["note", "broken"] = "broken" if ahead < CALENDAR_BROKEN_DAYS else "note"
        known = f"{settings.exchange} is known to {end} only"
        return Finding(
            "calendar", state, f"{known}; upgrade exchange_calendars and pandas_market_calendars before that day"
        )
    return Finding("calendar", "ok", f"{settings.exchange} is known to {end}")


def _clock(simulated: Path) -> Finding:
    from stock_lakehouse.clock import ClockError, simulated_now

    try:
        return Finding("clock", "note", f"simulated: {simulated_now(simulated):%Y-%m-%d %H:%M} UTC, from {simulated}")
    except ClockError as error:
        return Finding("clock", "broken", str(error))


def _source(settings: Settings) -> Finding:
    if settings.source == "csv" and settings.csv_folder is not None and not settings.csv_folder.is_dir():
        return Finding("source", "broken", f"there is no folder {settings.csv_folder}; set csv_folder")
    return Finding("source", "ok", settings.source)


def _engine(settings: Settings, say: Callable[[str], None]) -> Finding:
    from stock_lakehouse.engines import EngineError, spark_session

    remote = settings.spark_remote.get_secret_value() if settings.spark_remote else None
    try:
        with spark_session(settings.engine, remote, settings.databricks, say) as spark:
            version = spark.version
    except EngineError as error:
        return Finding("engine", "broken", f"{settings.engine}: {error}")
    return Finding("engine", "ok", f"{settings.engine} answers, Spark {version}")


def _jobs(settings: Settings) -> Finding:
    chosen = settings.databricks
    if chosen.work == "session":
        return Finding("jobs", "ok", "no run is a Databricks job: databricks.work is session")
    if chosen.messages is None:
        return Finding("jobs", "note", "no run is a Databricks job; for bulk loads set databricks.messages and .wheel")
    which = "every run is" if chosen.work == "job" else f"runs from {chosen.job_bars:,} ticker-sessions on are"
    return Finding("jobs", "ok", f"{which} Databricks jobs on {chosen.job_compute}")


def _java() -> Finding:
    """Java is for a Spark Connect server of one's own; the embedded engine needs none."""
    program = shutil.which("java")
    if program is None:
        return Finding("java", "note", f"none, and none needed; a Spark Connect server of your own wants Java {JAVA}")
    try:
        answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("java", "note", f"{program} does not run ({error}); not needed by the embedded engine")
    return Finding(
        "java", "ok", f"{(answer.splitlines() or ['?'])[0]} (only a Spark Connect server of your own needs it)"
    )
