"""The checks of `stock-lakehouse doctor`. Each finding names what was checked, its state, and how to repair it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stock_lakehouse.cli.context import nearest_existing, why_unwritable
from stock_lakehouse.cli.printing import size
from stock_lakehouse.diagnosis import Diagnosis
from stock_lakehouse.settings import Settings, SettingsError, config_file, load_settings

if TYPE_CHECKING:
    from stock_lakehouse.sources.csv_folder import CsvFolderSource
    from stock_lakehouse.sources.file_report import FileReport

# Some exchanges (Shanghai, Singapore, Mumbai) publish the holidays of a year only in the last weeks before it. For most of the
# year there is no newer calendar to upgrade to.
CALENDAR_NOTE_DAYS, CALENDAR_BROKEN_DAYS = 90, 14
JAVA = 17
SPACE_NOTE, SPACE_BROKEN = 5_000_000_000, 500_000_000  # bytes; the sample's records of a run take some 600 MB
SHOWN_TICKERS = 20
REDSHIFT_MINUTES = 5.0  # a paused workgroup starts within a few minutes


def examine(say: Callable[[str], None]) -> Iterator[Diagnosis]:
    """Check settings, lake, layout, serving copy, instance, disks, calendar, partitions, source, stream, engine, AWS, and Java.

    Without settings the checks end. Nothing is created.

    `say`: called with a line of text when a long wait begins, as for the start of a Databricks cluster.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Diagnosis("settings", "broken", str(error))
        return
    file = config_file()
    origin = str(file) if file.is_file() else f"defaults, because there is no {file}"
    yield Diagnosis("settings", "ok", f"{origin}: {len(settings.tickers)} tickers, source {settings.source}")
    lake = _lake(settings)
    yield lake
    if lake.state == "ok":
        yield _layout(settings)
        yield _serving(settings)
    yield _instance(settings)
    yield from _disks(settings)
    yield _calendar(settings)
    if settings.simulated_clock is not None:
        yield _clock(settings.simulated_clock)
    yield from _source(settings, say)
    if settings.stream.source != "off":
        yield _stream(settings)
    yield _engine(settings, say)
    if settings.engine == "databricks":
        yield _jobs(settings)
    if settings.warehouse == "redshift":
        answering = _redshift(settings)
        yield answering
        if answering.state == "ok" and lake.state == "ok":
            yield _warehouse(settings)
    if settings.dashboard == "quicksight":
        yield _quicksight(settings)
    yield _java()


def _lake(settings: Settings) -> Diagnosis:
    from stock_lakehouse.lake.serving import FOLDER
    from stock_lakehouse.tables import TABLES

    root = settings.lake_root
    if isinstance(root, str):
        return _bucket(root)
    folders = [root, root / ".locks", root / FOLDER, *(root / table.path for table in TABLES)]
    reason = next(filter(None, map(why_unwritable, folders)), None)
    if reason:
        return Diagnosis("lake", "broken", f"{reason}; set lake_root to a folder that you may write")
    state = "can be written" if root.is_dir() else "does not exist yet; the first run creates it"
    return Diagnosis("lake", "ok", f"{root} {state}")


def _instance(settings: Settings) -> Diagnosis:
    """Dagster's folder and database. Nothing is created: a new instance is created by the first run."""
    from stock_lakehouse.instance.database import InstanceError, check_database
    from stock_lakehouse.instance.home import dagster_folder

    home = dagster_folder(settings)
    if reason := why_unwritable(home):
        return Diagnosis("instance", "broken", f"{reason}; set DAGSTER_HOME to a folder that you may write")
    try:
        return Diagnosis("instance", "ok", f"Dagster's database: {check_database(home)}")
    except InstanceError as error:
        return Diagnosis("instance", "broken", str(error))


def _disks(settings: Settings) -> Iterator[Diagnosis]:
    """The free space of each disk that a run writes to: of the lake, of Dagster's records and of temporary files."""
    from stock_lakehouse.instance.home import dagster_folder

    wanted = {"Dagster's records": dagster_folder(settings), "temporary files": Path(tempfile.gettempdir())}
    if isinstance(settings.lake_root, Path):
        wanted = {"the lake": settings.lake_root, **wanted}
    uses: dict[int, tuple[Path, list[str]]] = {}
    for use, folder in wanted.items():
        existing = nearest_existing(folder)
        uses.setdefault(existing.stat().st_dev, (existing, []))[1].append(use)
    for folder, names in uses.values():
        free = shutil.disk_usage(folder).free
        state: Literal["ok", "note", "broken"] = (
            "ok" if free >= SPACE_NOTE else "note" if free >= SPACE_BROKEN else "broken"
        )
        advice = "" if state == "ok" else "; free some, or move them to another disk"
        yield Diagnosis("disk", state, f"{size(free)} free for {', '.join(names)}{advice}")


def _bucket(root: str) -> Diagnosis:
    """Try once what a run does: list, conditional write, read, delete."""
    from stock_lakehouse.lake.lease import TRIAL
    from stock_lakehouse.lake.storage import Bucket, ChangedError, StorageError
    from stock_lakehouse.tables import TABLES

    bucket, path = Bucket(root), f"{TRIAL}{uuid.uuid4().hex}"
    try:
        bucket.check(table.path for table in TABLES)
        bucket.put(path, b"", None)
        try:
            for tag in (None, '"not the tag"'):
                with contextlib.suppress(ChangedError):
                    bucket.put(path, b"", tag)
                    return Diagnosis(
                        "lake",
                        "broken",
                        f"{root}: this store ignores conditions on writes (If-None-Match, If-Match), so two writers would "
                        "overwrite each other's work; use a store that supports them, like S3",
                    )
            bucket.read(path)
        finally:
            bucket.delete([path])
    except StorageError as error:
        return Diagnosis("lake", "broken", str(error))
    return Diagnosis("lake", "ok", f"{root} can be listed, read and written, with conditional writes")


def _layout(settings: Settings) -> Diagnosis:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.publish import LayoutError
    from stock_lakehouse.lake.storage import StorageError

    try:
        Lake(settings.lake_options).check_layout()
    except (LayoutError, StorageError) as error:
        return Diagnosis("layout", "broken", str(error))
    return Diagnosis("layout", "ok", f'the tables have layout "{settings.layout}"')


def _serving(settings: Settings) -> Diagnosis:
    """How many files of the serving copy are there, of those that the present versions name."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.serving import SERVED, ServingCopy
    from stock_lakehouse.lake.storage import StorageError

    lake = Lake(settings.lake_options)
    copy, wanted, missing = ServingCopy(lake), 0, 0
    try:
        for table in SERVED:
            stored = lake.delta[table.name]
            files = list(copy.present(table, stored.snapshot()).values()) if stored.exists() else []
            wanted, missing = wanted + len(files), missing + files.count(None)
    except StorageError as error:
        return Diagnosis("serving", "note", f"the serving copy cannot be listed, so readers use the tables: {error}")
    if missing:
        return Diagnosis(
            "serving", "note", f"{missing:,} of {wanted:,} files of the serving copy are missing; the next run, query or upkeep "
            "writes them"
        )  # fmt: skip
    return Diagnosis("serving", "ok", f"the serving copy has all {wanted:,} files of the present versions")


def _calendar(settings: Settings) -> Diagnosis:
    from stock_lakehouse.market_calendar import CalendarError, utc_now
    from stock_lakehouse.partitions import PartitionError, PartitionScheme

    calendar = settings.calendar
    try:
        newest = calendar.latest_finished(utc_now(), settings.grace)
        PartitionScheme(settings, calendar).request(None, None, None, newest)
    except (PartitionError, CalendarError) as error:
        return Diagnosis("calendar", "broken", str(error))
    end = calendar.sessions[-1]
    ahead = (end - utc_now().date()).days
    if ahead < CALENDAR_NOTE_DAYS:
        state: Literal["note", "broken"] = "broken" if ahead < CALENDAR_BROKEN_DAYS else "note"
        known = f"the calendar of {settings.exchange} ends on {end}"
        return Diagnosis(
            "calendar", state, f"{known}; upgrade exchange_calendars and pandas_market_calendars before that day"
        )
    return Diagnosis("calendar", "ok", f"the calendar of {settings.exchange} ends on {end}")


def _clock(simulated: Path) -> Diagnosis:
    from stock_lakehouse.clock import ClockError, simulated_now

    try:
        return Diagnosis("clock", "note", f"simulated: {simulated_now(simulated):%Y-%m-%d %H:%M} UTC, from {simulated}")
    except ClockError as error:
        return Diagnosis("clock", "broken", str(error))


def _source(settings: Settings, say: Callable[[str], None]) -> Iterator[Diagnosis]:
    """The source; for a folder of CSV files also the content of each file, and what of it cannot be used."""
    from stock_lakehouse.sources import SourceError
    from stock_lakehouse.sources.choose import source_of
    from stock_lakehouse.sources.csv_folder import CsvFolderSource
    from stock_lakehouse.sources.file_report import file_line, most_telling, rest_line

    try:
        source = source_of(settings)
    except SourceError as error:
        yield Diagnosis("source", "broken", str(error))
        return
    if not isinstance(source, CsvFolderSource):
        yield Diagnosis("source", "ok", settings.source)
        return
    try:
        paths = source.files()
    except SourceError:
        yield Diagnosis("source", "broken", f"there is no folder {settings.csv_folder}; set csv_folder")
        return
    except PermissionError:
        yield Diagnosis("source", "broken", f"{settings.csv_folder} cannot be read; change its permissions")
        return
    if settings.automation != "off":
        yield _watched(settings, paths)
    if not paths:
        yield Diagnosis(
            "source", "broken", f"there is no file *.csv or *.csv.gz in {settings.csv_folder}; set csv_folder"
        )
        return
    say(f"reading {len(paths):,} files in {settings.csv_folder}")
    reports = _file_reports(source, paths, settings.tickers)
    yield _folder(settings, reports)
    shown, rest = most_telling(reports)
    for report in shown:
        has_problem = report.is_useless or report.refused or report.unused
        yield Diagnosis("file", "note" if has_problem else "ok", file_line(report, None, settings.tickers))
    if rest:
        yield Diagnosis("file", "note" if any(report.is_useless for report in rest) else "ok", rest_line(rest))


def _watched(settings: Settings, paths: Sequence[Path]) -> Diagnosis:
    """The folder as csv_folder_sensor sees it: files that changed a moment ago wait, files that cannot be read never load."""
    from stock_lakehouse.market_calendar import utc_now

    secret = [path.name for path in paths if not os.access(path, os.R_OK)]
    if secret:
        return Diagnosis(
            "folder", "broken", f"{settings.csv_folder}: {', '.join(secret[:SHOWN_TICKERS])} cannot be read"
        )
    now = utc_now().timestamp()  # times of files are by the real clock
    waiting = sum(now - path.stat().st_mtime < settings.csv_stable_seconds for path in paths)
    return Diagnosis(
        "folder",
        "ok",
        f"{settings.csv_folder} is watched for new and changed files: {len(paths):,} now, of which {waiting:,} changed less than "
        f"{settings.csv_stable_seconds} s ago and wait",
    )


def _file_reports(source: CsvFolderSource, paths: Sequence[Path], tickers: Sequence[str]) -> list[FileReport]:
    from stock_lakehouse.sources import printable
    from stock_lakehouse.sources.file_report import FileReport, collect

    reports: dict[str, FileReport] = {}
    for path in paths:
        known = len(reports)
        for delivery in source.read(path, tickers):
            collect(reports, delivery, set(tickers), set(tickers))
        if len(reports) == known:  # the file gave no delivery
            reports[printable(path.name)] = FileReport(printable(path.name))
    return list(reports.values())


def _folder(settings: Settings, reports: Sequence[FileReport]) -> Diagnosis:
    """The files as a whole: broken if no file has a row that can be used."""
    found = {ticker for report in reports for ticker in report.tickers}
    rows, gave = sum(report.rows for report in reports), sum(report.gave for report in reports)
    what = f"csv: files: {len(reports):,}, rows: {rows:,}, of use: {gave:,}, tickers of the settings: {len(found):,}"
    if not found:
        return Diagnosis("source", "broken", f"{what}; no row can be used, see why below")
    lacking = [ticker for ticker in settings.tickers if ticker not in found]
    names = ", ".join(lacking[:SHOWN_TICKERS]) + (" …" if len(lacking) > SHOWN_TICKERS else "")
    useless = sum(report.is_useless for report in reports)
    parts = [what]
    if lacking:
        parts.append(f"no row of {names}")
    if useless:
        parts.append(f"files that give nothing: {useless:,}")
    return Diagnosis("source", "note" if useless or lacking else "ok", "; ".join(parts))


def _stream(settings: Settings) -> Diagnosis:
    """Where the messages of the stream come from, and how many partitions that has. Nothing is read."""
    from stock_lakehouse.lake.storage import LakeError
    from stock_lakehouse.market_calendar import utc_now
    from stock_lakehouse.streams.sources import source_of

    try:
        with contextlib.closing(source_of(settings.stream, utc_now)) as source:
            source.open({})
            ends, name = source.ends(), source.name
    except LakeError as error:
        return Diagnosis("stream", "broken", str(error))
    newest = max((end.newest for end in ends.values() if end.newest), default=None)
    when = "" if newest is None else f", the newest message of {newest:%Y-%m-%d %H:%M} UTC"
    return Diagnosis("stream", "ok", f"{name} has {len(ends):,} partition{'' if len(ends) == 1 else 's'}{when}")


def _engine(settings: Settings, say: Callable[[str], None]) -> Diagnosis:
    from stock_lakehouse.engines import EngineError, spark_session

    remote = settings.spark_remote.get_secret_value() if settings.spark_remote else None
    try:
        with spark_session(settings.engine, remote, settings.databricks, say) as spark:
            version = spark.version
    except EngineError as error:
        return Diagnosis("engine", "broken", f"{settings.engine}: {error}")
    return Diagnosis("engine", "ok", f"{settings.engine} answers, Spark {version}")


def _jobs(settings: Settings) -> Diagnosis:
    databricks = settings.databricks
    if databricks.work == "session":
        return Diagnosis("jobs", "ok", "no run is a Databricks job: databricks.work is session")
    if databricks.messages is None:
        return Diagnosis(
            "jobs", "note", "no run is a Databricks job; for bulk loads set databricks.messages and .wheel"
        )
    runs = (
        "all runs are" if databricks.work == "job" else f"runs of {databricks.job_bars:,} ticker-sessions or more are"
    )
    return Diagnosis("jobs", "ok", f"{runs} Databricks jobs on {databricks.job_compute}")


def _redshift(settings: Settings) -> Diagnosis:
    """Whether the workgroup or cluster runs a statement."""
    from stock_lakehouse.sql.data_api import DataApi, WarehouseError

    api = DataApi(settings.redshift, REDSHIFT_MINUTES)
    try:
        found = api.run("SELECT 1 AS one")
    except WarehouseError as error:
        return Diagnosis("redshift", "broken", str(error))
    return Diagnosis(
        "redshift", "ok", f"{api.place} answers in {found.seconds:.1f} s, database {settings.redshift.database}"
    )


def _warehouse(settings: Settings) -> Diagnosis:
    """How far the native tables are behind the lake, by what they were loaded from."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import LakeError
    from stock_lakehouse.warehouse.load import warehouse_of

    try:
        behind = warehouse_of(Lake(settings.lake_options), settings.redshift, settings.aws.glue_database).behind()
    except LakeError as error:
        return Diagnosis("warehouse", "broken", str(error))
    if any(behind.values()):
        counts = ", ".join(f"{name} {count:,}" for name, count in behind.items())
        return Diagnosis(
            "warehouse", "note", f"ticker-years to be loaded: {counts}; the next run or `stock-lakehouse warehouse` does it"
        )  # fmt: skip
    return Diagnosis("warehouse", "ok", f"{' and '.join(behind)} were loaded from the lake's present files")


def _quicksight(settings: Settings) -> Diagnosis:
    """The edition of the account, and whether readers and authors exist."""
    from stock_lakehouse.dashboards.quicksight.client import QuickSight
    from stock_lakehouse.dashboards.quicksight.principals import check_edition, principals
    from stock_lakehouse.lake.storage import LakeError

    try:
        quicksight = QuickSight()
        edition = check_edition(quicksight)
        readers, authors = principals(quicksight, settings.quicksight)
    except LakeError as error:
        return Diagnosis("quicksight", "broken", str(error))
    known = "" if edition is None else f", edition {edition}"
    return Diagnosis(
        "quicksight",
        "ok",
        f"account {quicksight.account} in {quicksight.region}{known}; readers: {len(readers)}, authors: {len(authors)}, all "
        "known",
    )


def _java() -> Diagnosis:
    """Java. Only a Spark Connect server on this machine needs it; the embedded engine does not."""
    program = shutil.which("java")
    if program is None:
        return Diagnosis("java", "note", f"none, and none needed; a Spark Connect server of your own needs Java {JAVA}")
    try:
        answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        return Diagnosis("java", "note", f"{program} does not run ({error}); not needed by the embedded engine")
    return Diagnosis(
        "java", "ok", f"{(answer.splitlines() or ['?'])[0]} (only a Spark Connect server of your own needs it)"
    )
