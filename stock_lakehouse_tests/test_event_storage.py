"""The batched event log answers as the stock one does, keeps every line through faults, and is cheap.

Belongs here: writes compared with the stock storage's in fresh directories, faults, concurrency, the guard on
Dagster's private API. Timings belong to `benchmarks/event_log.py`.
"""

import gc
import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._serdes import deserialize_value, serialize_value
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stock_lakehouse.instance import event_log as event_storage
from stock_lakehouse.instance.event_log import (
    BULK_ENVIRONMENT,
    BatchedSqliteEventLogStorage,
    bulk_run_environment,
    private_api_differences,
)

# One logger, and a quiet one: every event passes through every logger of a run.
QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
RUN_ID = "11111111-2222-3333-4444-555555555555"
DATES = ("2024-01-02", "2024-01-03", "2024-01-04")
TICKERS = ("AAPL", "MSFT")
KEYS = [f"{date}|{ticker}" for date in DATES for ticker in TICKERS]
BASE_TIME = 1_700_000_000.0

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


# --- events ------------------------------------------------------------------------------------------------


def entry(
    kind: dg.DagsterEventType,
    number: int,
    asset: str | None = None,
    partition: str | None = None,
    run_id: str = RUN_ID,
) -> dg.EventLogEntry:
    """An event as a step of a run writes it; `number` sets its time, in milliseconds after the first."""
    key = dg.AssetKey(asset) if asset else None
    tags = {"dagster/data_version": f"v{number}", "not/indexed": "x"}
    if partition:
        date, ticker = partition.split("|")
        tags |= {"dagster/partition/date": date, "dagster/partition/ticker": ticker}
    data: Any = None
    if kind == dg.DagsterEventType.ASSET_MATERIALIZATION:
        data = StepMaterializationData(dg.AssetMaterialization(key, partition=partition, tags=tags))
    elif kind == dg.DagsterEventType.ASSET_OBSERVATION:
        data = AssetObservationData(dg.AssetObservation(key, partition=partition, tags=tags))
    elif kind == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
        data = AssetMaterializationPlannedData(key, partition=partition)
    elif kind == dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
        data = AssetCheckEvaluationPlanned(asset_key=key, check_name=f"check_{number}")
    return dg.EventLogEntry(
        error_info=None,
        level=10,
        user_message=f"line {number}",
        run_id=run_id,
        timestamp=BASE_TIME + number / 1000,
        job_name="job",
        step_key=asset,
        dagster_event=DagsterEvent(kind.value, "job", event_specific_data=data, step_key=asset, pid=7),
    )


def materializations(count: int, run_id: str = RUN_ID, first: int = 0) -> list[dg.EventLogEntry]:
    return [
        entry(dg.DagsterEventType.ASSET_MATERIALIZATION, number, "prices", KEYS[number % len(KEYS)], run_id)
        for number in range(first, first + count)
    ]


# --- what a storage holds ----------------------------------------------------------------------------------


INSERTION_TIMES = ("create_timestamp", "migration_completed")


def rows_of(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of one SQLite file, without the times of insertion."""
    held = {}
    with sqlite3.connect(database) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(f'"{name}"' for name in columns if name not in INSERTION_TIMES)
            held[table] = connection.execute(f"SELECT {kept} FROM {table} ORDER BY 1").fetchall()  # noqa: S608
    connection.close()
    return held


def files_of(base: Path) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
    return {path.name: rows_of(path) for path in sorted(base.glob("*.db"))}


def lines(base: Path, database: str = f"{RUN_ID}.db") -> list[str]:
    """The JSON of the asset events in one file of a storage, in their order; none when there is no file."""
    path = base / database
    return [row[2] for row in rows_of(path)["event_logs"] if row[6]] if path.exists() else []


def json_of(events: Sequence[dg.EventLogEntry]) -> list[str]:
    return [serialize_value(event) for event in events]


def answers(storage: SqliteEventLogStorage, assets: Sequence[str], check: str = "is_fine") -> dict[str, str]:
    """What the storage's readers return, as text without what differs between two runs of the same job."""
    found: dict[str, Any] = {
        "records": storage.get_records_for_run(RUN_ID).records,
        "page": storage.get_records_for_run(RUN_ID, limit=5, ascending=False),
        "logs of a type": storage.get_logs_for_run(RUN_ID, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION),
        "run": storage.get_stats_for_run(RUN_ID),
        "steps": storage.get_step_stats_for_run(RUN_ID),
        "partitions of the run": sorted(
            (key, sorted(map(str, keys))) for key, keys in storage.get_asset_partitions_for_run(RUN_ID).items()
        ),
        "asset keys": sorted(storage.all_asset_keys()),
    }
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations
    for name in assets:
        key = dg.AssetKey(name)
        materialized = dg.DagsterEventType.ASSET_MATERIALIZATION
        found |= {
            f"{name} record": storage.get_asset_records([key]),
            f"{name} latest": storage.get_latest_materialization_events([key]),
            f"{name} materialized": sorted(storage.get_materialized_partitions(key)),
            f"{name} ids": sorted(storage.get_latest_storage_id_by_partition(key, materialized).items()),
            f"{name} materializations": storage.fetch_materializations(key, limit=1000),
            f"{name} observations": storage.fetch_observations(key, limit=1000),
            f"{name} planned": storage.get_latest_planned_materialization_info(key),
            f"{name} attempts": attempts(key),
            f"{name} tags": storage.get_event_tags_for_asset(key),
            f"{name} tags of a key": storage.get_event_tags_for_asset(
                key, filter_tags={"dagster/partition/ticker": "MSFT"}
            ),
            f"{name} latest tags": sorted(
                storage.get_latest_tags_by_partition(key, materialized, ["dagster/data_version"]).items()
            ),
            f"{name} checks": storage.get_asset_check_execution_history(dg.AssetCheckKey(key, check), limit=9),
        }
    return {question: same_in_every_run(repr(answer)) for question, answer in found.items()}


def same_in_every_run(text: str) -> str:
    text = re.sub(r"file_key='[a-z]+'", "file_key=RANDOM", text)
    text = re.sub(r"\b1[0-9]{9}\.[0-9]+", "TIME", text)
    text = re.sub(r"datetime\.datetime\([^)]*\)", "TIME", text)
    text = re.sub(r"\b[0-9.]+ ?m?s\b", "DURATION", text)
    return re.sub(r"(duration_ms|create_timestamp)=[0-9.]+", r"\1=DURATION", text)


# --- one real job ------------------------------------------------------------------------------------------

PARTITIONS = dg.MultiPartitionsDefinition(
    {
        "date": dg.DailyPartitionsDefinition(DATES[0], end_date="2024-02-01"),
        "ticker": dg.StaticPartitionsDefinition(list(TICKERS)),
    }
)


class NoIO(dg.IOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        context.add_output_metadata({"rows": 1})

    def load_input(self, context: dg.InputContext) -> None:
        """Nothing is ever loaded."""


def job_assets(fails: bool) -> list[dg.AssetsDefinition]:
    shared: dict[str, Any] = {
        "partitions_def": PARTITIONS,
        "backfill_policy": dg.BackfillPolicy.single_run(),
    }

    @dg.asset(**shared)
    def prices(context: dg.AssetExecutionContext) -> None:
        context.log.info("a line of the author's")
        context.log_event(dg.AssetObservation("prices", partition=KEYS[0], metadata={"seen": 1}))
        for key in context.partition_keys:
            context.add_asset_metadata({"key": str(key)}, asset_key="prices", partition_key=key)

    @dg.asset_check(asset=prices)
    def is_fine() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True, metadata={"rows": 6})

    @dg.asset(deps=[prices], **shared)
    def features() -> None:
        if fails:
            raise ValueError("no features today")

    return [prices, is_fine, features]


@contextmanager
def instance_on(storage: type[SqliteEventLogStorage], home: Path) -> Iterator[dg.DagsterInstance]:
    home.mkdir()
    config = {
        "event_log_storage": {
            "module": storage.__module__,
            "class": storage.__name__,
            "config": {"base_dir": str(home / "events")},
        },
        "telemetry": {"enabled": False},
    }
    (home / "dagster.yaml").write_text(json.dumps(config))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.event_log_storage) is storage
        yield instance


def run_job(instance: dg.DagsterInstance, fails: bool) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(job_assets(fails), resources={"io_manager": NoIO()})
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        run_config=QUIET,
        tags={
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        },
        run_id=RUN_ID,
        raise_on_error=False,
    )


# --- parity ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("bulk", [True, False], ids=["bulk environment", "default environment"])
@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_a_job_leaves_the_answers_that_the_stock_storage_gives(tmp_path: Path, bulk: bool, fails: bool) -> None:
    given_answers = []
    for storage in (SqliteEventLogStorage, BatchedSqliteEventLogStorage):
        with instance_on(storage, tmp_path / storage.__name__) as instance:
            with bulk_run_environment() if bulk else nullcontext():
                assert run_job(instance, fails).success is not fails
            given_answers.append(answers(instance.event_log_storage, ["prices", "features"]))
            assert instance.get_materialized_partitions(dg.AssetKey("prices")) == set(KEYS)
    stock, ours = given_answers
    for question, answer in stock.items():
        assert ours[question] == answer, question
    assert "ASSET_CHECK_EVALUATION" in ours["records"]
    assert "is_fine" in ours["prices checks"]


@pytest.mark.slow
def test_the_events_of_a_real_run_fill_the_files_exactly_as_in_the_stock_storage(tmp_path: Path) -> None:
    with instance_on(SqliteEventLogStorage, tmp_path / "home") as instance:
        run_job(instance, fails=True)
        events = [record.event_log_entry for record in instance.event_log_storage.get_records_for_run(RUN_ID).records]
    stock, ours = (
        SqliteEventLogStorage(str(tmp_path / "stock")),
        BatchedSqliteEventLogStorage(str(tmp_path / "ours")),
    )
    for storage in (stock, ours):
        for start in range(0, len(events), 7):
            storage.store_event_batch(events[start : start + 7])
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "stock")


KINDS = st.sampled_from(
    [
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
        dg.DagsterEventType.STEP_START,
    ]
)
EVENTS = st.lists(
    st.tuples(
        KINDS,
        st.sampled_from(["prices", "features"]),
        st.sampled_from([None, *KEYS[:3]]),
        st.sampled_from([RUN_ID, "another-run"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


# No shrinking: an example writes ten SQLite files, and a failure would take minutes to report.
@pytest.mark.slow
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate], database=None)
@given(drawn=EVENTS)
def test_any_mix_of_events_in_any_batches_fills_the_files_as_in_the_stock_storage(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]
) -> None:
    base = tmp_path_factory.mktemp("mix")
    batches: list[list[dg.EventLogEntry]] = [[]]
    for number, (kind, asset, partition, run_id, cut) in enumerate(drawn):
        batches[-1].append(entry(kind, number, asset, partition, run_id))
        if cut:
            batches.append([])
    stock, ours = SqliteEventLogStorage(str(base / "stock")), BatchedSqliteEventLogStorage(str(base / "ours"))
    for batch in batches:
        stock.store_event_batch(batch)
        ours.store_event_batch(batch)
    assert files_of(base / "ours") == files_of(base / "stock")


def test_a_batch_takes_the_same_number_of_statements_however_many_events_it_holds(tmp_path: Path) -> None:
    storage = BatchedSqliteEventLogStorage(str(tmp_path))
    storage.store_event_batch(materializations(1))
    counts = []
    statements: list[str] = []

    def note(*call: Any) -> None:
        statements.append(call[2])

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        for first, size in ((1, 2), (3, 500)):
            statements.clear()
            storage.store_event_batch(materializations(size, first=first))
            counts.append(len(statements))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert counts[0] == counts[1]


# --- faults ------------------------------------------------------------------------------------------------


class FaultError(Exception):
    pass


def raise_once(storage: BatchedSqliteEventLogStorage, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Make the storage fail once between its two writes, or after both and before the commit."""
    copy = storage._copy_to_shard

    def fail(*arguments: Any) -> None:
        monkeypatch.setattr(storage, "_copy_to_shard", copy)
        if after:
            copy(*arguments)
        raise FaultError

    monkeypatch.setattr(storage, "_copy_to_shard", fail)


@pytest.mark.parametrize("after", [False, True], ids=["between the writes", "before the commit"])
def test_a_fault_in_a_batch_stores_none_of_it_and_a_retry_stores_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    events = materializations(10)
    storage = BatchedSqliteEventLogStorage(str(tmp_path / "faulty"))
    storage.store_event_batch(events[:4])
    raise_once(storage, monkeypatch, after)
    with pytest.raises(FaultError):
        storage.store_event_batch(events[4:])
    assert lines(tmp_path / "faulty", "index.db") == lines(tmp_path / "faulty") == json_of(events[:4])

    storage.store_event_batch(events[4:])
    SqliteEventLogStorage(str(tmp_path / "stock")).store_event_batch(events)
    assert files_of(tmp_path / "faulty") == files_of(tmp_path / "stock")


def test_when_a_batch_fails_in_a_run_dagster_s_own_retry_leaves_the_answers_of_the_stock_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given_answers = []
    for storage in (SqliteEventLogStorage, BatchedSqliteEventLogStorage):
        with instance_on(storage, tmp_path / storage.__name__) as instance, bulk_run_environment():
            if isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage):
                raise_once(instance.event_log_storage, monkeypatch, after=False)
            assert run_job(instance, fails=False).success
            given_answers.append(answers(instance.event_log_storage, ["prices", "features"]))
    assert "Falling back to storing multiple single-event" in capfd.readouterr().err
    assert given_answers[0] == given_answers[1]


def store_and_close(folder: Path, events: list[dg.EventLogEntry]) -> None:
    """Store `events` and close the files, which are whole only then: open ones have a write-ahead log beside them."""
    storage = BatchedSqliteEventLogStorage(str(folder))
    storage.store_event_batch(events)
    storage.dispose()


RETRIES: dict[str, Callable[[SqliteEventLogStorage, list[dg.EventLogEntry]], None]] = {
    "as one batch": lambda storage, events: storage.store_event_batch(events),
    "one by one": lambda storage, events: [storage.store_event(event) for event in events] and None,
    "in other batches": lambda storage, events: (
        [storage.store_event_batch(events[start : start + 3]) for start in range(0, len(events), 3)] and None
    ),
}


@pytest.mark.slow
@pytest.mark.slice(3)
@pytest.mark.parametrize("lost", [f"{RUN_ID}.db", "index.db"], ids=["index only", "shard only"])
@pytest.mark.parametrize("retry", RETRIES.values(), ids=RETRIES.keys())
def test_a_retry_completes_a_batch_that_reached_one_file_only(
    tmp_path: Path, lost: str, retry: Callable[[SqliteEventLogStorage, list[dg.EventLogEntry]], None]
) -> None:
    # The state that a kill between the commits of the two files leaves: the stored batch is in one of them.
    events = materializations(10)
    half, whole = tmp_path / "half", tmp_path / "whole"
    store_and_close(half, events[:4])
    early = half / lost
    shutil.copy(early, tmp_path / "before")
    store_and_close(half, events[4:])
    shutil.copy(tmp_path / "before", early)
    SqliteEventLogStorage(str(whole)).store_event_batch(events)
    assert files_of(half) != files_of(whole)

    retry(BatchedSqliteEventLogStorage(str(half)), events[4:])
    assert files_of(half) == files_of(whole)


@pytest.mark.parametrize("end", [dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED])
def test_the_end_of_a_killed_run_brings_the_lines_that_only_the_index_holds(
    tmp_path: Path, end: dg.DagsterEventType
) -> None:
    events = [*materializations(10), entry(end, 99)]
    BatchedSqliteEventLogStorage(str(tmp_path / "half")).store_event_batch(events[:-1])
    (tmp_path / "half" / f"{RUN_ID}.db").unlink()

    BatchedSqliteEventLogStorage(str(tmp_path / "half")).store_event(events[-1])
    SqliteEventLogStorage(str(tmp_path / "whole")).store_event_batch(events)
    assert files_of(tmp_path / "half") == files_of(tmp_path / "whole")


# --- other processes ---------------------------------------------------------------------------------------

WRITER = """
import os, signal, sys, time
from pathlib import Path
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import deserialize_value
from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage

base, source, size, kill_in_batch, kind = sys.argv[1:]
storage = {"stock": SqliteEventLogStorage, "batched": BatchedSqliteEventLogStorage}[kind](base)
events = [deserialize_value(line, EventLogEntry) for line in Path(source).read_text().splitlines()]
Path(source + ".ready").touch()
while not Path(base, "go").exists():
    time.sleep(0.005)
for number, start in enumerate(range(0, len(events), int(size))):
    if number == int(kill_in_batch):
        storage._copy_to_shard = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    storage.store_event_batch(events[start:start + int(size)])
"""


def start_writer(
    base: Path,
    source: Path,
    events: Sequence[dg.EventLogEntry],
    size: int,
    *,
    kill_in_batch: int = -1,
    kind: str = "batched",
) -> subprocess.Popen[bytes]:
    source.write_text("\n".join(json_of(events)))
    root = str(Path(event_storage.__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    arguments = [sys.executable, "-c", WRITER, str(base), str(source), str(size), str(kill_in_batch), kind]
    return subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.slow
def test_a_kill_between_the_writes_of_a_batch_loses_no_stored_line_and_a_retry_repeats_none(
    tmp_path: Path,
) -> None:
    events = materializations(30)
    base = tmp_path / "killed"
    base.mkdir()
    (base / "go").touch()
    writer = start_writer(base, tmp_path / "events", events, size=10, kill_in_batch=2)
    assert writer.wait(timeout=60) == -signal.SIGKILL
    assert lines(base, "index.db") == lines(base) == json_of(events[:20])

    BatchedSqliteEventLogStorage(str(base)).store_event_batch(events)
    SqliteEventLogStorage(str(tmp_path / "stock")).store_event_batch(events)
    assert files_of(base) == files_of(tmp_path / "stock")


@pytest.mark.slow
def test_writers_in_several_processes_lose_and_confuse_nothing(tmp_path: Path) -> None:
    base = tmp_path / "shared"
    SqliteEventLogStorage(str(base))
    runs = {"run-a": ("batched", 40, 600), "run-b": ("batched", 25, 600), "run-c": ("stock", 5, 40)}
    written = {run: materializations(count, run) for run, (_, _, count) in runs.items()}
    writers = [
        start_writer(base, tmp_path / run, written[run], size, kind=kind) for run, (kind, size, _) in runs.items()
    ]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"{run}.ready").exists() for run in runs) and time.monotonic() < deadline:
        time.sleep(0.01)
    (base / "go").touch()
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]

    index = rows_of(base / "index.db")
    for run, events in written.items():
        assert lines(base, f"{run}.db") == json_of(events)
        assert [row[2] for row in index["event_logs"] if row[1] == run] == json_of(events)
    by_id = {row[0]: row for row in index["event_logs"]}
    assert len(index["asset_event_tags"]) == 3 * len(by_id)
    for _, event_id, _, key, value, _ in index["asset_event_tags"]:
        stored = deserialize_value(by_id[event_id][2], dg.EventLogEntry)
        assert stored.asset_materialization.tags[key] == value
    storage = BatchedSqliteEventLogStorage(str(base))
    latest = storage.get_latest_materialization_events([dg.AssetKey("prices")])[dg.AssetKey("prices")]
    assert serialize_value(latest) == by_id[max(by_id)][2]


# --- the guard on Dagster's private API --------------------------------------------------------------------


def test_the_installed_dagster_has_the_private_api_that_the_storage_was_written_for() -> None:
    assert private_api_differences() == []
    assert not ASSET_EVENTS & (ASSET_CHECK_EVENTS | set(EVENT_TYPE_TO_PIPELINE_RUN_STATUS))


@pytest.mark.parametrize(
    ("mirrored", "known"),
    [
        (SqliteEventLogStorage.store_event, "974a098a439ef913"),
        (SqlEventLogStorage._store_asset_event_tags, "8817d2e693c4a4db"),
    ],
)
def test_the_stock_code_that_the_storage_mirrors_has_not_changed(mirrored: Callable[..., Any], known: str) -> None:
    """On a failure: read the new code, bring `event_storage` in line with it, then put the new hash here."""
    source = " ".join(inspect.getsource(mirrored).split())
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == known


@pytest.mark.parametrize(
    ("requirement", "changed"),
    [
        ("_METHODS", {"_no_such_method": ("self",)}),
        ("_METHODS", {"_event_to_row": ("self", "event", "extra")}),
        ("_TABLES", {"event_logs": ("id", "event")}),
        ("_TABLES", {"no_such_table": ("id",)}),
    ],
)
def test_with_another_private_api_it_warns_once_and_writes_as_the_stock_storage_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    requirement: str,
    changed: dict[str, tuple[str, ...]],
) -> None:
    monkeypatch.setattr(event_storage, requirement, changed)
    events = [*materializations(3), entry(dg.DagsterEventType.RUN_FAILURE, 9)]
    with caplog.at_level(logging.WARNING, logger=event_storage.__name__):
        storage = BatchedSqliteEventLogStorage(str(tmp_path / "ours"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert next(iter(changed)) in caplog.text
    monkeypatch.setattr(storage, "_index_and_shard", None)
    storage.store_event_batch(events)
    SqliteEventLogStorage(str(tmp_path / "stock")).store_event_batch(events)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "stock")


# --- the environment of a bulk run -------------------------------------------------------------------------


def test_a_bulk_run_writes_batches_and_one_planned_event_an_asset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    with instance_on(BatchedSqliteEventLogStorage, tmp_path / "home") as instance:
        store = instance.event_log_storage.store_event_batch

        def note(events: Sequence[dg.EventLogEntry]) -> None:
            sizes.append(len(events))
            store(events)

        monkeypatch.setattr(instance.event_log_storage, "store_event_batch", note)
        with bulk_run_environment():
            run_job(instance, fails=False)
        planned = instance.event_log_storage.get_logs_for_run(
            RUN_ID, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        )
        stored = instance.get_run_by_id(RUN_ID)
    assert sizes.count(len(KEYS)) == 2
    assert len(planned) == 2
    assert stored is not None
    assert stored.status == dg.DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("error", [None, FaultError])
def test_the_process_is_as_before_after_a_bulk_run(
    monkeypatch: pytest.MonkeyPatch, collecting: bool, error: type[Exception] | None
) -> None:
    first, second = BULK_ENVIRONMENT
    monkeypatch.setenv(first, "7")
    monkeypatch.delenv(second, raising=False)
    was_collecting = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(error) if error else nullcontext(), bulk_run_environment():
            assert {name: os.environ[name] for name in BULK_ENVIRONMENT} == dict(BULK_ENVIRONMENT)
            assert not gc.isenabled()
            if error:
                raise error
        assert os.environ[first] == "7"
        assert second not in os.environ
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if was_collecting else gc.disable)()
