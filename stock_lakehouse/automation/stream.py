"""The jobs of the stream, and the sensors that ask for them. A sensor reads positions and ends, and consumes nothing.

Here: when a drain and a comparison are asked for. Not here: the work (streams/), and its assets (assets/stream.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.automation.jobs import role_tags
from stock_lakehouse.automation.sensors import QUIET
from stock_lakehouse.clock import clock_of
from stock_lakehouse.resources.lakehouse import STREAM_JOBS
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import LIVE_FEATURES, MINUTE_BARS, RAW_TICKS, RECONCILIATION

if TYPE_CHECKING:
    from stock_lakehouse.streams.status import StreamStatus

DRAIN_JOB, RECONCILE_JOB = STREAM_JOBS
LEAST_SECONDS = 30  # each tick is a row of Dagster's database
OFFICIAL_HOURS = 24  # a session without official bars is compared after so long, which then says that there are none

drain_job = dg.define_asset_job(
    DRAIN_JOB,
    selection=dg.AssetSelection.assets(RAW_TICKS.name, MINUTE_BARS.name, LIVE_FEATURES.name),
    executor_def=dg.in_process_executor,
    tags=role_tags("stream"),
    description="Reads the stream to its ends as they are at the start, and brings minute bars and live features up to date.",
)
reconcile_job = dg.define_asset_job(
    RECONCILE_JOB,
    selection=dg.AssetSelection.assets(RECONCILIATION.name),
    executor_def=dg.in_process_executor,
    tags=role_tags("stream"),
    description="Compares the minutes of finished sessions with their official daily bars.",
)


def stream_jobs() -> Sequence[Any]:
    """The jobs of the stream."""
    return (drain_job, reconcile_job)


def stream_sensors(settings: Settings) -> Sequence[dg.SensorDefinition]:
    """The sensors of the stream."""
    return (stream_lag_sensor(settings), stream_reconcile_sensor(settings))


def stream_lag_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks for a drain once messages wait and nobody reads them."""

    @dg.sensor(
        name="stream_lag_sensor",
        job=drain_job,
        minimum_interval_seconds=max(LEAST_SECONDS, settings.sensor_interval_seconds),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for one drain once messages have waited for drain_after_seconds without a runner. It reads no message.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from stock_lakehouse.streams.sources import source_of
        from stock_lakehouse.streams.status import status_of

        clock = clock_of(settings.simulated_clock)
        stream = settings.stream
        status = status_of(settings.lake_options, stream.versions_hours, source_of(stream, clock), 0, stream.runner)
        seen = json.loads(context.cursor) if context.cursor else {}
        reason, waiting = decide(status, seen, clock(), timedelta(seconds=stream.drain_after_seconds))
        if reason is None and in_flight(context.instance, DRAIN_JOB):
            reason = "a drain is in flight"
        asked = seen.get("asked")
        if reason is None and asked is not None and asked["positions"] == positions_in(status):
            # The drain that was asked for has not moved the stream: it failed, and its message was posted.
            again = datetime.fromisoformat(asked["at"]) + timedelta(seconds=stream.lag_alert_seconds)
            if clock() < again:
                reason = f"the drain that was asked for moved nothing; the next one is asked for after {again:%H:%M:%S}"
        if reason is not None:
            cursor = json.dumps({"waiting": waiting, "asked": asked})
            return dg.SensorResult(skip_reason=reason, cursor=cursor)
        asked = {"positions": positions_in(status), "at": clock().isoformat()}
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_config=QUIET)], cursor=json.dumps({"waiting": waiting, "asked": asked})
        )

    return tick


def decide(
    status: StreamStatus, seen: dict[str, Any], now: datetime, after: timedelta
) -> tuple[str | None, dict[str, list[Any]]]:
    """Why no drain is needed (None: one is), and since when each partition has been waiting at its position.

    `seen`: the cursor. A source that cannot tell since when messages wait is watched: they wait at least since the tick that saw
    the position first.
    """
    before = seen.get("waiting", {})
    waiting: dict[str, list[Any]] = {}
    for part in status.partitions:
        if not part.is_behind:
            continue
        position, since = before.get(part.partition, [None, None])
        known = [datetime.fromisoformat(since)] if since and position == str(part.position) else []
        if part.waiting_since is not None:
            known.append(part.waiting_since)
        waiting[part.partition] = [str(part.position), min([*known, now]).isoformat()]
    if status.runner is not None:
        return f"a runner is at work on {status.runner.host}, process {status.runner.process}", waiting
    if not waiting:
        return "no message waits", waiting
    oldest = min(datetime.fromisoformat(since) for _, since in waiting.values())
    if now - oldest < after:
        return f"messages wait since {oldest:%H:%M:%S}, for less than drain_after_seconds", waiting
    return None, waiting


def positions_in(status: StreamStatus) -> dict[str, str]:
    """The positions of a status, as text."""
    return {part.partition: str(part.position) for part in status.partitions}


def in_flight(instance: dg.DagsterInstance, job: str) -> bool:
    """Whether a run of `job` has not finished."""
    from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

    return bool(instance.get_runs(dg.RunsFilter(job_name=job, statuses=NOT_FINISHED_STATUSES), limit=1))


def stream_reconcile_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks once for the comparison of each session that is final and has minutes."""

    @dg.sensor(
        name="stream_reconcile_sensor",
        job=reconcile_job,
        minimum_interval_seconds=max(LEAST_SECONDS, settings.sensor_interval_seconds),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks once for the comparison of a session with minutes: when its official bars are there, or a day later.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from stock_lakehouse.lake import Lake
        from stock_lakehouse.lake.coverage import read_coverage
        from stock_lakehouse.streams.reconciliation import final_sessions

        now, lake = clock_of(settings.simulated_clock)(), Lake(settings.lake_options)
        sessions = final_sessions(lake, settings.stream.versions_hours, now)
        if not sessions:
            return dg.SkipReason("no finished session has minutes")
        newest = sessions[-1]
        held = read_coverage(lake.features, lake.curated, settings.calendar)
        is_official = any(coverage.last is not None and coverage.last >= newest for coverage in held.values())
        ended = settings.calendar.close(newest) + settings.grace
        if not is_official and now < ended + timedelta(hours=OFFICIAL_HOURS):
            return dg.SkipReason(f"the official bars of {newest} are not there yet")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{newest}", run_config=QUIET)])

    return tick
