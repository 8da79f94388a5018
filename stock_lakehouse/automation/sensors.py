"""Sensors: each reads, lets decisions.py decide, and acts. A failed read is an error of the tick, never an empty result.

Here: what sensors and the schedule share, and the two sensors that ask for sessions. Not here: what is decided, CSV files
(csv_files.py) and messages about failures (failures.py).
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
from stock_lakehouse.instance.run_tags import ASKED_BY, Bringing, bringing
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.coverage import Held, HoldingsError, read_holdings
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import FEATURES

if TYPE_CHECKING:
    from stock_lakehouse.partitions import Rectangle

# Dagster's own events, one a key and more, are DEBUG; they are in its event log anyway.
QUIET = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}
Decide = Callable[
    [datetime, MarketCalendar, Mapping[str, Held], Sequence[Bringing], Mapping[str, Asked], Plan], Decision
]


class Eyes:
    """What a decision needs to know, read when asked: the time, what the lake holds, what is in flight."""

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
            # A folder has no closing time: files come when they come, and csv_folder_sensor sees them.
            new_sessions=not (settings.source == "csv" and settings.automation == "sensor"),
        )
        self._settings = settings

    @property
    def calendar(self) -> MarketCalendar:
        return self._settings.calendar

    def holdings(self, instance: dg.DagsterInstance) -> dict[str, Held]:
        """What the lake holds. Raises HoldingsError if that cannot be read, or a table that was there is not."""
        lake = Lake(self._settings.lake_options)
        held = read_holdings(lake.features, lake.curated, self.calendar)
        if not held and instance.get_latest_materialization_event(dg.AssetKey(FEATURES.name)) is not None:
            raise HoldingsError(
                f"{FEATURES.name} has been materialized, but there is no table at {lake.features.path}: is its disk there? If it "
                "was moved away on purpose, run `stock-lakehouse materialize` once"
            )
        return held

    def in_flight(self, instance: dg.DagsterInstance) -> list[Bringing]:
        """The runs that are queued or running and bring bars through every layer, and backfills that have no run yet."""
        from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

        runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        found = (bringing(run, self.plan.tickers) for run in runs)
        return [*(one for one in found if one is not None), *self._backfills_without_runs(instance)]

    def _backfills_without_runs(self, instance: dg.DagsterInstance) -> list[Bringing]:
        """The daemon takes a moment to cut a backfill of the UI into runs. Until then it may bring anything."""
        from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
        from dagster._core.storage.tags import BACKFILL_ID_TAG

        requested = instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))
        return [
            Bringing(one.backfill_id, date.min, date.max, frozenset(self.plan.tickers))
            for one in requested
            if not instance.get_runs_count(dg.RunsFilter(tags={BACKFILL_ID_TAG: one.backfill_id}))
        ]

    def decide(self, decide: Decide, instance: dg.DagsterInstance, asked: Mapping[str, Asked]) -> Decision:
        """What `decide` says of the present."""
        return decide(self.now(), self.calendar, self.holdings(instance), self.in_flight(instance), asked, self.plan)

    def request(self, asked: Rectangle, by: str, run_key: str | None = None) -> dg.RunRequest:
        """The run that brings `asked`, whose tickers are neighbours in the settings."""
        scheme = PartitionScheme(self._settings, self.calendar)
        return dg.RunRequest(
            run_key=run_key,
            run_config=QUIET,
            job_name=LAKEHOUSE_JOB,
            tags={**scheme.range_tags(asked), ASKED_BY: by},
        )


def asked_sensor(name: str, decide: Decide, settings: Settings, description: str) -> dg.SensorDefinition:
    """A sensor that asks for what `decide` says, and remembers in its cursor what it asked for."""

    @dg.sensor(
        name=name,
        job=lakehouse_job,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        eyes = Eyes(settings)
        decision = eyes.decide(decide, context.instance, asked_from(context.cursor))
        cursor = asked_text(decision.asked)
        if not decision.ask:
            return dg.SensorResult(skip_reason=decision.reason, cursor=cursor)
        context.log.info(decision.reason)
        return dg.SensorResult(run_requests=[eyes.request(one, name) for one in decision.ask], cursor=cursor)

    return look


def new_market_day_sensor(settings: Settings) -> dg.SensorDefinition:
    """Asks for each session after its close."""
    return asked_sensor(
        "new_market_day_sensor",
        new_market_days,
        settings,
        "After each session's close and the grace asks for the sessions that the lake lacks, and for provisional bars until "
        "they are final. Reset the cursor to ask again for what was given up.",
    )


def gap_sensor(settings: Settings) -> dg.SensorDefinition:
    """Asks again for sessions missing inside a ticker's life."""
    return asked_sensor(
        "gap_sensor",
        gaps,
        settings,
        "Asks again for sessions missing inside a ticker's life, a bounded number of times spread over days; the check "
        "gap_diagnosis says what each gap looks like. Reset the cursor to ask again for what was given up.",
    )


def asked_text(asked: Mapping[str, Asked]) -> str:
    """`asked` as a cursor."""
    return json.dumps(
        {
            key: [one.times, one.at.isoformat(), *([one.through.isoformat()] if one.through else [])]
            for key, one in sorted(asked.items())
        }
    )


def asked_from(cursor: str | None) -> dict[str, Asked]:
    """What `asked_text` wrote; nothing from an empty cursor. Raises ValueError for any other text."""
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
