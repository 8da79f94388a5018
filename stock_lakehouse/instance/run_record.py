"""What the Dagster instance recorded of a run, as plain values: its steps, its checks, and what its assets published.

Here: reading the instance. Not here: what the lake holds of the run (dashboards/run.py), and running (runs/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from stock_lakehouse.instance.run_tags import ASKED_BY, PROGRAM_TAG, SUMMARY, keys_of
from stock_lakehouse.tables import LAYERS

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.events.log import EventLogEntry

# Records of an asset that are searched for one of the run, newest first. Runs that publish the same asset take turns, but one
# that only reports on a table does not.
SEARCHED = 200
LAUNCHERS = {
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/backfill": "backfill",
    "dagster/parent_run_id": "run again, after run",
}
ROW_COUNT = "dagster/row_count"
CHANGES = ("landed", "added", "corrected", "withdrawn")  # figures of a layer

Outcome = Literal["succeeded", "failed", "cancelled", "in progress"]
OUTCOMES: Mapping[str, Outcome] = {"SUCCESS": "succeeded", "FAILURE": "failed", "CANCELED": "cancelled"}
StepStatus = Literal["succeeded", "failed", "skipped", "in progress", "not started"]


class UnknownRunError(Exception):
    """The instance has no such run. The message says how to find one."""


@dataclass(frozen=True)
class CheckFinding:
    """The result of a check.

    - `asset`, `check`: the names of the asset and the check.
    - `severity`: WARN or ERROR. With ERROR the program exits with 1 unless the check passed.
    - `description`: why the check did not pass, or what it expects.
    - `rows`: the findings, from the first table in its metadata.
    - `found`: the number of findings; `rows` may hold only the first of them. None if the metadata do not have it.
    - `to_do`: what to do about the findings; empty if the metadata do not say.
    - `facts`: all plain values of its metadata.
    """

    asset: str
    check: str
    severity: str
    description: str = ""
    rows: tuple[Mapping[str, Any], ...] = ()
    found: int | None = None
    to_do: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    passed: bool = False

    def __str__(self) -> str:
        return f"{self.asset}: {self.check} ({self.severity})"


@dataclass(frozen=True)
class StepRecord:
    """A step of a run.

    - `started`, `ended`: None if it has not.
    - `attempts`: how often it was started.
    - `error`: the message of the innermost error, if it failed.
    """

    name: str
    status: StepStatus
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True)
class AssetRecord:
    """What a run recorded of an asset.

    - `facts`: the plain values of its metadata.
    - `rows_before`: the rows that the record before this run counted; None if there is none, or it has no count.
    """

    name: str
    at: datetime
    facts: Mapping[str, Any]
    rows_before: int | None


@dataclass(frozen=True)
class RunRecord:
    """A run.

    - `status`: Dagster's word for it, as STARTED or FAILURE.
    - `covers`: its tickers and days, as text.
    - `launched_by`: what requested it, as text.
    - `started`, `ended`: None if it has not.
    - `error`: why the run failed, where no step tells it: a resource that could not be made, a process that ended.
    """

    run_id: str
    job: str
    status: str
    covers: str
    launched_by: str
    started: datetime | None
    ended: datetime | None
    error: str
    steps: tuple[StepRecord, ...]
    checks: tuple[CheckFinding, ...]
    assets: Mapping[str, AssetRecord]

    @property
    def outcome(self) -> Outcome:
        """How the run ended; of a run in progress whose steps have all ended, how these did."""
        if self.status in OUTCOMES:
            return OUTCOMES[self.status]
        states = {step.status for step in self.steps}
        if not states or states & {"in progress", "not started"}:
            return "in progress"
        return "failed" if "failed" in states else "succeeded"

    @property
    def changed_nothing(self) -> bool:
        """True if the run went through every layer, succeeded, and landed, added, corrected and withdrew no row."""
        layers = [self.assets.get(table.name) for table in LAYERS]
        counts = [
            [found.facts.get(name) for name in CHANGES if name in found.facts] for found in layers if found is not None
        ]
        return self.outcome == "succeeded" and len(counts) == len(LAYERS) and all(of and not any(of) for of in counts)

    def without(self, step: str) -> RunRecord:
        """The run without a step: the one that asks."""
        return replace(self, steps=tuple(found for found in self.steps if found.name != step))


def find_run(instance: dg.DagsterInstance, asked: str | None) -> str | None:
    """The id of the run whose id begins with `asked`; of the newest run if that is None; None if there is no run at all.

    Raises UnknownRunError if no run, or more than one, has such an id.
    """
    import dagster as dg

    if asked is None:
        newest = instance.get_run_records(limit=1)
        return newest[0].dagster_run.run_id if newest else None
    if instance.has_run(asked):
        return asked
    # The storage finds whole ids only. The ids alone are read, page by page.
    found, cursor = list[str](), None
    while page := instance.get_run_ids(dg.RunsFilter(), cursor=cursor, limit=1000):
        found += [run_id for run_id in page if run_id.startswith(asked)]
        cursor = page[-1]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownRunError(f"run {asked}: {len(found)} runs begin so; give more of the id")
    raise UnknownRunError(
        f"run {asked}: there is no such run in {instance.root_directory}; leave it out for the newest, or copy an id from the "
        "runs in Dagster's UI (`stock-lakehouse ui`)"
    )


def read_run(
    instance: dg.DagsterInstance, run_id: str, expected: Mapping[tuple[str, str], str] | None = None
) -> RunRecord:
    """What `instance` recorded of the run `run_id`, which may be in progress.

    `expected`: what the checks expect, by the names of asset and check, for those whose results do not say it. Raises
    UnknownRunError.
    """
    import dagster as dg

    records = instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
    if not records:
        raise UnknownRunError(f"run {run_id}: there is no such run in {instance.root_directory}")
    run, record = records[0].dagster_run, records[0]
    of = dg.DagsterEventType
    kinds = {
        *(of.STEP_START, of.STEP_SUCCESS, of.STEP_FAILURE, of.STEP_SKIPPED, of.STEP_RESTARTED, of.STEP_UP_FOR_RETRY),
        *(of.ASSET_CHECK_EVALUATION, of.RUN_FAILURE, of.RUN_CANCELED),
    }
    entries = [found.event_log_entry for found in instance.get_records_for_run(run_id, of_type=kinds).records]
    checks = [
        finding_of(entry.dagster_event.asset_check_evaluation_data, expected or {})
        for entry in entries
        if entry.dagster_event and entry.dagster_event.event_type == of.ASSET_CHECK_EVALUATION
    ]
    steps = _steps(instance, run, entries)
    started, ended = _moment(record.start_time), _moment(record.end_time)
    return RunRecord(
        run_id,
        run.job_name,
        run.status.value,
        run.tags.get(SUMMARY) or keys_of(run),
        _launched_by(run.tags),
        started,
        ended,
        "" if any(step.error for step in steps) else _error_of_run(entries),
        steps,
        tuple({(found.asset, found.check): found for found in checks}.values()),  # of a retried step the last
        _assets(instance, run, record.start_time, record.end_time),
    )


def expectations(job: dg.JobDefinition) -> dict[tuple[str, str], str]:
    """What the checks of `job` expect, by the names of asset and check."""
    graph = job.asset_layer.asset_graph
    return {
        (key.asset_key.to_user_string(), key.name): graph.get(key).description or "" for key in graph.asset_check_keys
    }


def finding_of(
    evaluation: dg.AssetCheckEvaluation, expected: Mapping[tuple[str, str], str] | None = None
) -> CheckFinding:
    """The result of a check, from its metadata. `expected`: as in `read_run`."""
    facts = {name: value.value for name, value in evaluation.metadata.items()}
    tables = [rows for value in evaluation.metadata.values() if (rows := _table_in(value))]
    asset, check = evaluation.asset_key.to_user_string(), evaluation.check_name
    expects = (expected or {}).get((asset, check), "")
    reason = facts.get("reason") or evaluation.description or (f"expected: {expects}" if expects else "")
    found = facts.get("found")
    return CheckFinding(
        asset=asset,
        check=check,
        severity=evaluation.severity.value,
        description=str(reason),
        rows=tables[0] if tables else (),
        found=found if isinstance(found, int) else None,
        to_do=str(facts.get("what to do") or ""),
        facts={name: value for name, value in facts.items() if isinstance(value, str | int | float | dict)},
        passed=evaluation.passed,
    )


def _table_in(value: dg.MetadataValue[Any]) -> tuple[Mapping[str, Any], ...]:
    """The rows of a table in a check's metadata; none if the value is no table. A job on Databricks sends a table as a list."""
    import dagster as dg

    if isinstance(value, dg.TableMetadataValue):
        return tuple(record.data for record in value.records)
    if isinstance(value, dg.JsonMetadataValue) and isinstance(value.value, list):
        return tuple(row for row in value.value if isinstance(row, dict))
    return ()


def _steps(
    instance: dg.DagsterInstance, run: dg.DagsterRun, entries: Sequence[EventLogEntry]
) -> tuple[StepRecord, ...]:
    """The steps in the order in which they began; those that have not begun, as planned."""
    of_step: dict[str, list[EventLogEntry]] = {name: [] for name in _planned(instance, run)}
    for entry in entries:
        if entry.step_key and entry.dagster_event and entry.dagster_event.is_step_event:
            of_step.setdefault(entry.step_key, []).append(entry)
    steps = [_step(name, events, run.is_finished) for name, events in of_step.items()]
    return tuple(sorted(steps, key=lambda step: (step.started is None, step.started or datetime.min)))


def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Sequence[str]:
    snapshot = run.execution_plan_snapshot_id
    if snapshot is None:
        return []
    return instance.get_execution_plan_snapshot(snapshot).step_keys_to_execute


def _step(name: str, events: Sequence[EventLogEntry], has_ended: bool) -> StepRecord:
    kinds = [entry.dagster_event.event_type_value for entry in events if entry.dagster_event]
    starts = [entry for entry, kind in zip(events, kinds, strict=True) if kind in ("STEP_START", "STEP_RESTARTED")]
    if not events:  # the in-process executor records nothing of the steps after one that failed
        return StepRecord(name, "skipped" if has_ended else "not started")
    if kinds[-1] == "STEP_SKIPPED":
        return StepRecord(name, "skipped")
    ended = {"STEP_SUCCESS": "succeeded", "STEP_FAILURE": "failed"}.get(kinds[-1])
    if ended is None and has_ended:
        ended = "failed"  # its process ended before it did
    failures = [entry for entry, kind in zip(events, kinds, strict=True) if kind == "STEP_FAILURE"]
    return StepRecord(
        name,
        ended or "in progress",  # type: ignore[arg-type]
        _moment(starts[0].timestamp) if starts else None,
        _moment(events[-1].timestamp) if ended else None,
        len(starts),
        _error_of(failures[-1].dagster_event.step_failure_data.error) if failures and ended == "failed" else "",  # type: ignore[union-attr]
    )


def _error_of(error: Any) -> str:
    """The message of the innermost cause, with its class."""
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else str(error.message).strip()


def _error_of_run(entries: Sequence[EventLogEntry]) -> str:
    for entry in entries:
        event = entry.dagster_event
        if event is not None and event.event_type_value in ("PIPELINE_FAILURE", "PIPELINE_CANCELED"):
            data = event.event_specific_data
            return _error_of(getattr(data, "error", None)) or str(event.message or "")
    return ""


def _launched_by(tags: Mapping[str, str]) -> str:
    if ASKED_BY in tags:
        return tags[ASKED_BY]
    launcher = next((f"{words} {tags[tag]}" for tag, words in LAUNCHERS.items() if tag in tags), None)
    if launcher:
        return launcher
    return f"the program, on {tags[PROGRAM_TAG]}" if PROGRAM_TAG in tags else "a person, in Dagster's UI"


def _assets(
    instance: dg.DagsterInstance, run: dg.DagsterRun, started: float | None, ended: float | None
) -> dict[str, AssetRecord]:
    """The newest record of each asset of the run, by name.

    Asked for by asset: of many partitions the last record alone has the figures, and other storages than the batched one keep a
    record for each partition in the log of the run.
    """
    import dagster as dg

    found = {}
    for key in sorted(_asset_keys(instance, run), key=str):
        records = []
        for fetch in (instance.fetch_materializations, instance.fetch_observations):
            # A record of the run's first moment may have the time of its start.
            of_asset = dg.AssetRecordsFilter(
                key, after_timestamp=(started or 0) - 1, before_timestamp=ended and ended + 1
            )
            for limit in (1, SEARCHED):
                page = fetch(of_asset, limit=limit).records
                if mine := next((record for record in page if record.run_id == run.run_id), None):
                    records.append(mine)
                if mine or len(page) < limit:
                    break
        if not records:
            continue
        newest = max(records, key=lambda record: record.timestamp)
        event = newest.asset_materialization or newest.event_log_entry.asset_observation
        before = instance.fetch_materializations(
            dg.AssetRecordsFilter(key, before_timestamp=(started or newest.timestamp) - 1e-6), limit=1
        ).records
        earlier = before[0].asset_materialization if before else None
        count = earlier.metadata.get(ROW_COUNT) if earlier else None
        at = _moment(newest.timestamp)
        assert event is not None
        assert at is not None
        found[key.to_user_string()] = AssetRecord(
            key.to_user_string(),
            at,
            {
                name: value.value
                for name, value in event.metadata.items()
                if isinstance(value.value, str | int | float) and not isinstance(value, dg.MarkdownMetadataValue)
            },
            count.value if count is not None and isinstance(count.value, int) else None,
        )
    return found


def _asset_keys(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    import dagster as dg

    planned = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    ).records
    events = (record.event_log_entry.dagster_event for record in planned)
    return {event.asset_key for event in events if event is not None and event.asset_key is not None}


def _moment(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
