"""One run of the graph over a rectangle, in this process.

Not here: what a run does (assets/), and the commands that start it (cli/).
"""

from __future__ import annotations

import logging
import platform
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB, PROGRESS, PROGRESS_LOGGER
from stock_lakehouse.instance.home import CODE_LOCATION, CODE_MODULE, ensure_dagster_home, open_instance
from stock_lakehouse.instance.run_record import CheckFinding, expectations, finding_of
from stock_lakehouse.instance.run_tags import PROGRAM_TAG, SUMMARY, summary_of
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import Source

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.remote_origin import RemoteJobOrigin
    from pyspark.sql import SparkSession

ERROR = "ERROR"  # severity of a check


@dataclass(frozen=True)
class RunReport:
    """The result of a run.

    - `run_id`: the run in Dagster's instance.
    - `success`: True if no step failed.
    - `failures`: the messages of the steps that failed.
    - `red`: the checks that did not pass.
    - `seconds`: the duration of each step, including the time to write the events of its partitions.
    """

    run_id: str
    success: bool
    failures: tuple[str, ...]
    red: tuple[CheckFinding, ...]
    seconds: Mapping[str, float]

    @property
    def is_sound(self) -> bool:
        """True if the run succeeded and every check of severity ERROR passed."""
        return self.success and all(finding.severity != ERROR for finding in self.red)


def run_rectangle(
    settings: Settings,
    rectangle: Rectangle,
    select: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    tags: Mapping[str, str] | None = None,
    source: Source | None = None,
) -> RunReport:
    """Materialize `rectangle` in one Dagster run in this process, recorded in the lake's instance.

    - `select`: the names of the assets to run; None runs the whole graph with its checks.
    - `progress`: called with each line that the assets log.
    - `tags`: further tags of the run.
    - `source`: where prices come from; None: from the source that the settings name.

    Raises ValueError for an asset that does not exist.
    """
    import dagster as dg

    from stock_lakehouse.definitions import build_definitions
    from stock_lakehouse.instance.event_log import bulk_run_environment
    from stock_lakehouse.partitions import PartitionScheme

    check_select(settings, select)
    scheme = PartitionScheme(settings, settings.calendar)
    home = ensure_dagster_home(settings)
    job = build_definitions(settings, scheme.ticker_order(rectangle), source).resolve_job_def(LAKEHOUSE_JOB)
    with ExitStack() as stack:
        stack.enter_context(bulk_run_environment())
        stack.enter_context(listening(progress))
        instance = stack.enter_context(open_instance(home))
        end_dead_runs(instance, home)
        run_id = str(uuid.uuid4())
        stack.enter_context(_alive(home, run_id))
        # `execute_in_process` has no argument for the origin, without which the UI's timeline and the job's page omit the run.
        instance.create_run_for_job = partial(instance.create_run_for_job, remote_job_origin=_job_of_ui())  # type: ignore[method-assign]
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            run_config={"loggers": {PROGRESS: {}}},  # a single logger, because every event passes through each
            tags={
                **scheme.range_tags(rectangle),
                PROGRAM_TAG: platform.node(),
                SUMMARY: summary_of(rectangle),
                **(tags or {}),
            },
            asset_selection=[dg.AssetKey.from_user_string(name) for name in select] if select else None,
            raise_on_error=False,
        )
        return _report(result, instance, job)


def record_rectangle(settings: Settings, rectangle: Rectangle, spark: SparkSession) -> dict[str, int]:
    """Call `record.record_held` with the lake's instance; return its counts by layer."""
    from stock_lakehouse.instance.event_log import bulk_run_environment
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import PartitionScheme
    from stock_lakehouse.runs.record import record_held

    scheme = PartitionScheme(settings, settings.calendar)
    home = ensure_dagster_home(settings)
    with bulk_run_environment(), open_instance(home) as instance:
        end_dead_runs(instance, home)
        return record_held(instance, scheme, Lake(settings.lake_options), spark, rectangle)


def prune_runs(settings: Settings, ended_before: datetime) -> int:
    """Delete the runs that ended before `ended_before`, with their events; return their number.

    The events of a run record which partitions are materialized. Call `record_rectangle` afterwards to mark again what the lake
    holds.
    """
    import dagster as dg

    from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage

    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    with open_instance(ensure_dagster_home(settings)) as instance:
        runs = instance.get_run_records(dg.RunsFilter(statuses=ended, updated_before=ended_before))
        for record in runs:
            instance.delete_run(record.dagster_run.run_id)
        storage = instance.event_log_storage
        if runs and isinstance(storage, BatchedSqliteEventLogStorage):
            storage.give_back_space()
        return len(runs)


def _job_of_ui() -> RemoteJobOrigin:
    """The job as Dagster's webserver and daemon know it."""
    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    loaded = LoadableTargetOrigin(executable_path=sys.executable, module_name=CODE_MODULE)
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loaded, CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), LAKEHOUSE_JOB)


def check_select(settings: Settings, select: Sequence[str] | None) -> None:
    """Raise ValueError for an asset that does not exist with `settings`."""
    import dagster as dg

    from stock_lakehouse.assets import all_assets

    if select is None:
        return
    assets = all_assets(dg.StaticPartitionsDefinition(["any"]), settings)
    names = [key.to_user_string() for asset in assets for key in asset.keys]
    if unknown := sorted(set(select) - set(names)):
        raise ValueError(f"select: no asset {', '.join(unknown)}; allowed: {', '.join(names)}")


def end_dead_runs(instance: dg.DagsterInstance, home: Path) -> list[str]:
    """Mark as failed the runs of this program on this machine whose process has ended; return their ids.

    No daemon monitors a run in the program's process, so after a kill the run would stay in progress for ever.
    """
    import dagster as dg
    from filelock import Timeout

    in_progress = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    dead = []
    for run in instance.get_runs(in_progress):
        if run.tags.get(PROGRAM_TAG) != platform.node():
            continue
        try:
            with _alive(home, run.run_id):
                instance.report_run_failed(run, "The program ended before its run did. Start the run again.")
                dead.append(run.run_id)
        except Timeout:
            continue  # its process is alive
    return dead


@contextmanager
def _alive(home: Path, run_id: str) -> Iterator[None]:
    """Hold the lock that shows that the run's process is alive; the operating system releases it when the process ends."""
    from filelock import FileLock

    path = home / "program_runs" / f"{run_id}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=0):
        yield
    path.unlink(missing_ok=True)


def _report(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance, job: dg.JobDefinition) -> RunReport:
    failures = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            failures.append(f"{event.step_key}: {error.message.strip() if error else event.message}")
    expected = expectations(job)
    findings = [finding_of(evaluation, expected) for evaluation in result.get_asset_check_evaluations()]
    red = tuple(finding for finding in findings if not finding.passed)
    return RunReport(result.run_id, result.success, tuple(failures), red, _seconds(instance, result.run_id))


def _seconds(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """By step, the seconds from its start to its end.

    `get_run_step_stats` is not used because it reads every event of the run, which takes 8 s for the sample.
    """
    import dagster as dg

    moments = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}
    spans: dict[str, list[float]] = {}
    for record in instance.get_records_for_run(run_id, of_type=moments).records:
        entry = record.event_log_entry
        spans.setdefault(str(entry.step_key), []).append(entry.timestamp)
    return {step: max(span) - min(span) for step, span in spans.items()}


class _Listener(logging.Handler):
    def __init__(self, progress: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        meta: Any = getattr(record, "dagster_meta", {})
        # The lines that assets log. Dagster's own events and the stack traces of failures are in its UI.
        if record.levelno <= logging.WARNING and meta.get("dagster_event") is None:
            self._progress(str(meta.get("orig_message") or record.getMessage()))


@contextmanager
def listening(progress: Callable[[str], None] | None) -> Iterator[None]:
    """Call `progress` with every line that the run's progress logger writes."""
    handler: logging.Handler = _Listener(progress) if progress else logging.NullHandler()
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
