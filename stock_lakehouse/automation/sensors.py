"""Sensors: each reads, lets decisions.py decide, and acts. A failed read fails the tick; it is never an empty result.

Here: what the sensors and the schedule share, and the two sensors that request sessions. Not here: the decisions
(decisions.py), CSV files (csv_files.py) and messages about failures (failures.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.automation.decisions import Asked, Decision, Plan, gaps, new_market_days
from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB, lakehouse_job
from stock_lakehouse.clock import clock_of
from stock_lakehouse.instance.run_tags import ASKED_BY, RunCoverage, run_coverage
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.coverage import CoverageError, TickerCoverage, read_coverage
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import FEATURES

if TYPE_CHECKING:
    from stock_lakehouse.partitions import Rectangle

# Dagster logs its own events, at least one for each key, at DEBUG. Its event log holds them anyway.
QUIET = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}
Decide = Callable[
    [datetime, MarketCalendar, Mapping[str, TickerCoverage], Sequence[RunCoverage], Mapping[str, Asked], Plan], Decision
]


class Situation:
    """The situation in which a decision is made: the time, what the lake holds, and the runs in flight. Each is read on call."""

    def __init__(self, settings: Settings) -> None:
        self.now = clock_of(settings.simulated_clock)
        self.plan = Plan(
            tickers=settings.tickers,
            first=settings.first_date,
            last=settings.last_date,
            grace=settings.grace,
            session_attempts=settings.session_attempts,
            session_pause=timedelta(minutes=settings.session_retry_minutes),
            gap_attempts=settings.gap_attempts,
            by_session=settings.partition_by == "session",
            # Files may arrive in the folder at any time, not only after a close: csv_folder_sensor requests their sessions.
            new_sessions=not (settings.source == "csv" and settings.automation == "sensor"),
        )
        self._settings = settings

    @property
    def calendar(self) -> MarketCalendar:
        return self._settings.calendar

    def holdings(self, instance: dg.DagsterInstance) -> dict[str, TickerCoverage]:
        """What the lake holds of each ticker. Raises CoverageError if that cannot be read, or if a materialized table is gone."""
        lake = Lake(self._settings.lake_options)
        held = read_coverage(lake.features, lake.curated, self.calendar)
        if not held and instance.get_latest_materialization_event(dg.AssetKey(FEATURES.name)) is not None:
            raise CoverageError(
                f"{FEATURES.name} has been materialized, but there is no table at {lake.features.path}: is its disk mounted? If "
                "the table was moved away on purpose, run `stock-lakehouse materialize` once"
            )
        return held

    def in_flight(self, instance: dg.DagsterInstance) -> list[RunCoverage]:
        """The coverage of the queued and running runs that take bars through every layer, and of backfills without runs."""
        from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

        runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        coverages = (run_coverage(run, self.plan.tickers) for run in runs)
        return [
            *(coverage for coverage in coverages if coverage is not None),
            *self._backfills_without_runs(instance),
        ]

    def _backfills_without_runs(self, instance: dg.DagsterInstance) -> list[RunCoverage]:
        """Backfills of the UI that the daemon has not cut into runs yet. Such a backfill may cover any session and ticker."""
        from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
        from dagster._core.storage.tags import BACKFILL_ID_TAG

        requested = instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))
        return [
            RunCoverage(backfill.backfill_id, date.min, date.max, frozenset(self.plan.tickers))
            for backfill in requested
            if not instance.get_runs_count(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id}))
        ]

    def decide(self, decide: Decide, instance: dg.DagsterInstance, asked: Mapping[str, Asked]) -> Decision:
        """The decision of `decide` for the present situation."""
        return decide(self.now(), self.calendar, self.holdings(instance), self.in_flight(instance), asked, self.plan)

    def request(self, rectangle: Rectangle, by: str, run_key: str | None = None) -> dg.RunRequest:
        """The request of the sensor or schedule `by` for one run of `rectangle`, whose tickers are neighbours in the settings."""
        scheme = PartitionScheme(self._settings, self.calendar)
        return dg.RunRequest(
            run_key=run_key,
            run_config=QUIET,
            job_name=LAKEHOUSE_JOB,
            tags={**scheme.range_tags(rectangle), ASKED_BY: by},
        )


def asked_sensor(name: str, decide: Decide, settings: Settings, description: str) -> dg.SensorDefinition:
    """A sensor that requests the runs that `decide` returns, and remembers its requests in the cursor."""

    @dg.sensor(
        name=name,
        job=lakehouse_job,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        situation = Situation(settings)
        decision = situation.decide(decide, context.instance, asked_from(context.cursor))
        cursor = asked_text(decision.asked)
        if not decision.ask:
            return dg.SensorResult(skip_reason=decision.reason, cursor=cursor)
        context.log.info(decision.reason)
        return dg.SensorResult(
            run_requests=[situation.request(rectangle, name) for rectangle in decision.ask], cursor=cursor
        )

    return tick


def new_market_day_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that requests each session after its close."""
    return asked_sensor(
        "new_market_day_sensor",
        new_market_days,
        settings,
        "After each session's close and the grace, requests the sessions that the lake lacks, and provisional bars until they "
        "are final. Reset the cursor to request again what was given up.",
    )


def gap_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that requests sessions missing after a ticker's first bar."""
    return asked_sensor(
        "gap_sensor",
        gaps,
        settings,
        "Requests sessions missing after a ticker's first bar, a bounded number of times spread over days. The check "
        "gap_diagnosis says what each gap looks like. Reset the cursor to request again what was given up.",
    )


def asked_text(asked: Mapping[str, Asked]) -> str:
    """`asked` as a cursor."""
    return json.dumps(
        {
            key: [request.times, request.at.isoformat(), *([request.through.isoformat()] if request.through else [])]
            for key, request in sorted(asked.items())
        }
    )


def asked_from(cursor: str | None) -> dict[str, Asked]:
    """The requests in a cursor that `asked_text` wrote; none if it is empty. Raises ValueError for any other text."""
    if not cursor:
        return {}
    read: dict[str, list[Any]] = json.loads(cursor)
    try:
        return {
            key: Asked(int(times), datetime.fromisoformat(at), date.fromisoformat(through[0]) if through else None)
            for key, (times, at, *through) in read.items()
        }
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the cursor is not this sensor's: {error}; reset it in the UI") from None
