"""Structured Streaming on JVM Spark Connect with a real Kafka, and as a Databricks job: the same tables as the embedded runner's.

Every message once, whatever dies, and a named refusal where something is gone.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.engines import EngineError, spark_session
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.stream_table import FencedError
from stock_lakehouse.lake.tick_table import OwnerError, TickTable
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.settings import Databricks, Settings
from stock_lakehouse.streams import ExpiredError, RecreatedError, status, structured
from stock_lakehouse.streams.batches import CheckpointLostError
from stock_lakehouse.streams.order import CHECKPOINTS
from stock_lakehouse.streams.replay import Faults
from stock_lakehouse.streams.runner import Runner
from stock_lakehouse.streams.structured import StreamQueryError
from stock_lakehouse_tests.engines.minilake import Minilake, minilake_server
from stock_lakehouse_tests.engines.servers import DELTA, FOR_SMALL_QUERIES, KAFKA, Server, jvm_server
from stock_lakehouse_tests.kafka_server import Kafka, kafka_server
from stock_lakehouse_tests.not_run import or_skipped
from stock_lakehouse_tests.s3 import environment, make_bucket, moto, variables
from stock_lakehouse_tests.streams.house import event
from stock_lakehouse_tests.streams.kafka_house import KafkaHouse
from stock_lakehouse_tests.streams.structured_house import (
    STEPS,
    StructuredHouse,
    acting,
    claim,
    kill_engine,
    kill_worker,
)

pytestmark = pytest.mark.engines

BUCKET = "messages"
FAULTS = Faults(late=0.02, duplicate=0.02, poison=0.02, seed=7)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with or_skipped("a real Kafka", kafka_server(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


@pytest.fixture(scope="module")
def server(needs_java: None, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JVM Spark Connect with Delta and the source of Kafka."""
    with jvm_server(tmp_path_factory.mktemp("jvm"), java_options=FOR_SMALL_QUERIES, packages=(DELTA, KAFKA)) as there:
        yield there


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[SparkSession]:
    with spark_session("spark_connect", server.address) as session:
        yield session


@pytest.fixture
def house(tmp_path: Path, engine: SparkSession, kafka: Kafka, request: pytest.FixtureRequest) -> StructuredHouse:
    """A stream of three partitions in batches of 500 messages."""
    name = re.sub(r"\W+", "-", request.node.name)[:80]
    found = StructuredHouse.at(
        tmp_path, engine, kafka, name, 3, batch_messages=500, compact_batches=3, runner="structured_streaming"
    )
    assert isinstance(found, StructuredHouse)
    found.now = utc_now()
    return found


def cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the number of their batch: two runners divide the messages otherwise."""
    return [{name: value for name, value in row.items() if name != "batch"} for row in rows]


def twin(house: StructuredHouse, sail: SparkSession) -> KafkaHouse:
    """The embedded runner's tables of the same topic."""
    found = house.embedded(sail, "twin")
    found.now = utc_now()
    found.drain()
    return found


@pytest.mark.soak
def test_its_tables_are_the_truth_s_and_the_embedded_runner_s_also_after_a_kill_between_ticks_and_positions(
    house: StructuredHouse, spark: SparkSession
) -> None:
    count = house.walks(["NVDA", "AAPL"], 120, FAULTS)
    house.send(event(0, volume=1), event(86400 * 40_000, volume=2), b"", b"\xff", event(1, volume=3), partition=2)
    with acting("after ticks", kill_worker), pytest.raises(StreamQueryError, match="run the same again"):
        house.drain()
    counts = house.drain()
    house.check()
    assert counts.messages < count + 5  # those of the killed query were counted by nobody
    other = twin(house, spark)
    assert cells(house.ticks()) == cells(other.ticks())
    assert house.bars() == other.bars()
    assert [part.lag for part in status.status_of(house.options, 2, house.source(), 1, "structured_streaming").partitions] == [
        0, 0, 0,
    ]  # fmt: skip


@pytest.mark.soak
def test_kill_9_of_the_batch_at_every_step_in_turn(house: StructuredHouse, spark: SparkSession) -> None:
    for number, step in enumerate(STEPS):
        house.walks(["NVDA", "AAPL", "META"], 120 + number, FAULTS)
        with acting(step, kill_worker, 1 + number % 2), pytest.raises(StreamQueryError):
            house.drain()
    house.drain()
    house.check()
    other = twin(house, spark)
    assert cells(house.ticks()) == cells(other.ticks())
    assert house.bars() == other.bars()


@pytest.mark.soak
@pytest.mark.parametrize("step", ["before ticks", "after ticks", "after bars"])
def test_kill_9_of_the_engine(house: StructuredHouse, needs_java: None, tmp_path: Path, step: str) -> None:
    house.walks(["NVDA", "AAPL"], 120, FAULTS)
    (tmp_path / "jvm").mkdir()
    with jvm_server(tmp_path / "jvm", packages=(DELTA, KAFKA)) as doomed:

        def drain() -> None:
            with spark_session("spark_connect", doomed.address) as session, acting(step, kill_engine):
                replace(house, spark=session).drain()

        with pytest.raises((EngineError, StreamQueryError)):
            drain()
        assert doomed.process.wait(60) != 0
    house.drain()
    house.check()


@pytest.mark.soak
def test_a_lost_checkpoint_is_refused_and_a_new_one_begins_at_the_positions_of_the_table(
    house: StructuredHouse,
) -> None:
    house.walks(["NVDA", "AAPL"], 300, FAULTS)
    house.drain()
    (folder,) = (house.tmp / "lake" / CHECKPOINTS).iterdir()
    kept = house.tmp / "kept"
    shutil.copytree(folder, kept)
    house.walks(["META"], 300, FAULTS)
    house.drain()
    rows = len(house.ticks())

    shutil.rmtree(folder)
    with pytest.raises(CheckpointLostError, match=r"is gone, and raw_ticks has its batch 1\. .* --rebuild-checkpoint"):
        house.drain()
    shutil.copytree(kept, folder)  # from a backup: Delta would skip its next batches, and say nothing
    with pytest.raises(CheckpointLostError, match="is at batch 0, and raw_ticks has its batch 1"):
        house.drain()
    assert len(house.ticks()) == rows

    house.walks(["GOOG"], 300, FAULTS)
    with house.running(rebuild=True) as started:
        started.drain(5)
    house.check()
    assert house.drain().messages == 0
    assert [path.name for path in (house.tmp / "lake" / CHECKPOINTS).iterdir()] != [folder.name]  # the former one went


@pytest.mark.soak
def test_a_checkpoint_that_is_removed_under_a_query_ends_it_and_doubles_nothing(house: StructuredHouse) -> None:
    house.walks(["NVDA"], 300, FAULTS)
    house.drain()
    rows = len(house.ticks())
    house.walks(["AAPL"], 300, FAULTS)
    with house.running() as started:
        shutil.rmtree(house.tmp / "lake" / started.order.folder)
        # It begins anew, and its first batch has the number of the one that is there.
        with pytest.raises(CheckpointLostError, match="Spark's batch 0 has offsets"):
            started.drain(5)
    assert len(house.ticks()) == rows
    with house.running(rebuild=True) as started:
        started.drain(5)
    house.check()


@pytest.mark.soak
def test_a_write_that_delta_skips_without_a_word_is_noticed(house: StructuredHouse) -> None:
    house.walks(["NVDA"], 300, FAULTS)
    house.drain()
    house.walks(["AAPL"], 300, FAULTS)
    ticks = TickTable(house.options, 2)
    ticks.begin()
    checkpoint = ticks.checkpoint(house.source().name)
    assert checkpoint is not None
    # Between the look at the table and the write, its number of the batch is far ahead.
    ahead = partial(claim, house.options, checkpoint, 1000)
    with (
        acting("before ticks", ahead),
        pytest.raises(PublishError, match=r"0 rows of batch \d+ are there, and \d+ messages came"),
    ):
        house.drain()
    with pytest.raises(CheckpointLostError):
        house.drain()
    with house.running(rebuild=True) as started:
        started.drain(5)
    house.check()


@pytest.mark.soak
def test_tables_go_from_one_runner_to_the_other_and_back_at_their_positions(
    house: StructuredHouse, spark: SparkSession
) -> None:
    embedded = house.embedded(spark)
    house.walks(["NVDA", "AAPL"], 200, FAULTS)
    embedded.drain()
    house.walks(["META"], 200, FAULTS)
    with pytest.raises(OwnerError, match=r"written by the runner embedded; .* --take-over"):
        house.drain()
    assert "--take-over" in str(status.status_of(house.options, 2, house.source(), 1, "structured_streaming").refusal)
    # A kill between its ticks and their positions: who takes over next finishes that batch.
    with (
        acting("after ticks", kill_worker),
        pytest.raises(StreamQueryError),
        house.running(take_over=True) as started,
    ):
        started.drain(5)
    house.walks(["GOOG"], 200, FAULTS)
    with pytest.raises(OwnerError, match="written by the runner structured_streaming"):
        embedded.drain()
    with embedded.running(take_over=True) as taken:
        taken.drain(5)
    embedded.check()
    # Its former checkpoint is still there, and is not used.
    house.walks(["NVDA"], 250, FAULTS)
    with house.running(take_over=True) as started:
        started.drain(5)
    house.check()
    assert house.drain().messages == 0


@pytest.mark.soak
def test_a_query_from_which_another_runner_took_over_is_refused(house: StructuredHouse, spark: SparkSession) -> None:
    house.walks(["NVDA", "AAPL"], 200, FAULTS)
    embedded = house.embedded(spark)
    with house.running() as started:
        started.drain(5)
        started._start({"processingTime": "1 second"}, None)
        # The program's lock is gone: it was frozen, say. Its query is not.
        other = Runner(house.options, embedded.settings, embedded.source(), spark, house.clock)
        other.start(None, True)
        house.walks(["META"], 200, FAULTS)
        other.drain(5)
        other.source.close()
        with pytest.raises(FencedError, match="another runner took over"):
            started._has_ended(60)
    embedded.drain()
    embedded.check()


@pytest.mark.soak
def test_what_is_gone_is_named_as_by_the_embedded_runner(house: StructuredHouse) -> None:
    topic = house.settings.name
    house.send(*(event(n) for n in range(5)))
    house.drain()
    house.send(*(event(n) for n in range(5, 30)))
    house.server.delete_records(topic, {0: 20})
    with pytest.raises(ExpiredError, match=r"partition 0: offsets 5 to 19 are no longer there \(at most 15 messages\)"):
        house.drain()
    assert house.drain("a long weekend").messages == 10
    # While the query reads: what Spark says is named by the source.
    house.send(*(event(n) for n in range(30, 40)))
    with house.running() as started:
        house.server.delete_records(topic, {0: 38})
        with pytest.raises(ExpiredError, match=r"partition 0: offsets 30 to 37 are no longer there"):
            started.drain(5)
    assert house.drain("tested").messages == 2
    former = house.source().name
    house.server.delete_topic(topic)
    house.server.topic(topic, 3)
    house.send(*(event(n, event_id=f"new{n}") for n in range(6)))
    with pytest.raises(RecreatedError) as refused:
        house.drain()
    assert refused.value.source == former
    assert house.drain("moved").messages == 6
    assert [loss["why"] for loss in house.table("losses").to_pylist()].count("moved") == 3


@pytest.mark.soak
def test_a_query_that_stays_follows_the_topic_and_lets_minutes_become_final(house: StructuredHouse) -> None:
    house = house.again({"idle_seconds": 1, "trigger_seconds": 0.5})
    house.now = utc_now()
    house.clock = utc_now  # type: ignore[method-assign]
    house.send(event(0), event(61))
    with house.running() as started:
        deadline = datetime.now().timestamp() + 120

        def until(holds: Any) -> None:
            while not holds():
                started.step(0.5)
                assert datetime.now().timestamp() < deadline

        until(lambda: _states(house) == {"final"})
        house.server.add_partitions(house.settings.name, 4)
        house.send(event(125, "META"), partition=3)
        until(lambda: len(house.bars()) == 3 and _states(house) == {"final"})
        started._count_all()
        assert (started.counts.messages, started.counts.events, started.counts.new_bars) == (3, 3, 3)
    assert house.drain().messages == 0


def _states(house: StructuredHouse) -> set[str]:
    return {bar["state"] for bar in house.bars()}


@pytest.mark.soak
def test_positions_pass_the_records_that_end_transactions_and_aborted_messages_are_nowhere(
    house: StructuredHouse,
) -> None:
    topic = house.settings.name
    house.server.produce(topic, [event(60 * n, event_id=f"t{n}", close=2) for n in range(20)], "writer")
    house.server.produce(topic, [event(60 * n, event_id=f"a{n}", close=3) for n in range(20)], "writer", commit=False)
    assert house.drain().messages == 20
    house.check()
    found = status.status_of(house.options, 2, house.source(), 1, "structured_streaming")
    assert ([part.lag for part in found.partitions], found.refusal) == ([0, 0, 0], None)


@pytest.mark.soak
def test_an_engine_without_the_source_of_kafka_is_named(house: StructuredHouse, jvm: SparkSession) -> None:
    house.spark = jvm
    with pytest.raises(StreamQueryError, match=r"no source kafka; start the Spark Connect server with --packages"):
        house.drain()


@pytest.mark.soak
def test_the_commands_on_a_spark_connect_server(
    house: StructuredHouse, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOCK_LAKEHOUSE_SPARK_REMOTE", server.address)
    file = tmp_path / "lakehouse.toml"
    file.write_text(f'engine = "spark_connect"\nlake_root = "{house.options.lake_root}"\n{table_of(house)}')
    count = house.walks(["NVDA"], 600, FAULTS)
    drained = call("drain", "--json")
    assert drained.exit_code == 0, drained.output
    assert json.loads(drained.stdout)["messages"] == count
    (folder,) = (house.tmp / "lake" / CHECKPOINTS).iterdir()
    shutil.rmtree(folder)
    refused = call("drain")
    assert (refused.exit_code, "--rebuild-checkpoint" in refused.output) == (3, True), refused.output
    house.walks(["AAPL"], 600, FAULTS)
    assert call("drain", "--rebuild-checkpoint").exit_code == 0
    house.check()
    file.write_text(file.read_text().replace('runner = "structured_streaming"\n', ""))
    refused = call("drain")
    assert (refused.exit_code, "written by the runner structured_streaming" in refused.output) == (3, True), (
        refused.output
    )
    refused = call("drain", "--rebuild-checkpoint")
    assert (refused.exit_code, "the embedded runner has none" in refused.output) == (2, True), refused.output
    assert call("drain", "--take-over").exit_code == 0


def table_of(house: StructuredHouse) -> str:
    """The table [stream] of lakehouse.toml for the stream of `house`."""
    stream = house.settings
    return (
        f'[stream]\nsource = "kafka"\nrunner = "structured_streaming"\nname = "{stream.name}"\n'
        f'servers = "{stream.servers}"\nidle_seconds = {stream.idle_seconds}\n'
    )


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stream", *arguments])


# As a Databricks job


@pytest.fixture(scope="module")
def minilake(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minilake]:
    """A workspace whose jobs' session is that of the JVM server, as on serverless compute; messages go through moto's S3."""
    with moto() as endpoint, variables(environment(endpoint)):
        make_bucket(endpoint, BUCKET)
        of_jobs = {"DATABRICKS_RUNTIME_VERSION": "17.3", "SPARK_REMOTE": server.address}
        with minilake_server(tmp_path_factory.mktemp("minilake"), environment(endpoint) | of_jobs) as there:
            yield there


@pytest.fixture
def on_databricks(house: StructuredHouse, minilake: Minilake, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the stream of `house`, read by a job on an existing cluster."""
    monkeypatch.setenv("DATABRICKS_TOKEN", "of-the-test")
    monkeypatch.setattr("stock_lakehouse.resources.databricks_jobs.POLL_SECONDS", 0.2)
    monkeypatch.setattr("stock_lakehouse.resources.databricks_jobs.READ_SECONDS", 0.2)
    databricks = Databricks(
        host=minilake.host,
        cluster_id="1124-163500-abcdefgh",
        messages=f"s3://{BUCKET}",
        wheel="/Volumes/main/default/wheels/stock_lakehouse.whl",
    )
    return Settings(
        lake_root=house.options.lake_root, engine="databricks", databricks=databricks, stream=house.settings
    )


def drained(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """A run of the job `stream_drain`, without live features, which need a daily history."""
    return (
        build_definitions(settings)
        .resolve_job_def("stream_drain")
        .execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name) for name in ("raw_ticks", "minute_bars")],
            raise_on_error=False,
        )
    )


def test_a_drain_by_dagster_is_a_databricks_job_and_its_tables_are_the_truth_s(
    house: StructuredHouse, on_databricks: Settings, minilake: Minilake
) -> None:
    count = house.walks(["NVDA", "AAPL"], 200, FAULTS)
    with dg.DagsterInstance.ephemeral() as instance:
        done = drained(on_databricks, instance)
        assert done.success
    house.check()
    assert len(minilake.runs()) >= 1
    checks = {check.check_name: check.passed for check in done.get_asset_check_evaluations()}
    assert (checks["stream_conservation"], checks["stream_positions"], checks["stream_lag"]) == (True, True, True)
    facts = {
        name: fact.value for name, fact in done.asset_materializations_for_node("stream_batches")[-1].metadata.items()
    }
    assert facts["messages"] == facts["events"] + facts["duplicates"] + facts["dead letters"] == count
    assert (facts["new bars"], facts["lag after"]) == (len(house.bars()), "none")
    dead = [tick["reason"] for tick in house.ticks() if tick["reason"]]
    assert facts["dead letters"] == len(dead) > 0
    assert all(facts[f"dead letters, {reason}"] == dead.count(reason) for reason in dead)


@pytest.mark.soak
def test_the_commands_order_a_job_and_name_its_refusals(
    house: StructuredHouse, on_databricks: Settings, minilake: Minilake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databricks = on_databricks.databricks
    (tmp_path / "lakehouse.toml").write_text(
        f'engine = "databricks"\nlake_root = "{house.options.lake_root}"\n'
        f'[databricks]\nhost = "{minilake.host}"\ncluster_id = "{databricks.cluster_id}"\nmessages = "{databricks.messages}"\n'
        f'wheel = "{databricks.wheel}"\n{table_of(house)}'
    )
    monkeypatch.chdir(tmp_path)
    count = house.walks(["NVDA"], 600, FAULTS)
    answer = call("drain", "--json")
    assert answer.exit_code == 0, answer.output
    summary = json.loads(answer.stdout)
    assert (summary["messages"], summary["new_bars"]) == (count, len(house.bars()))
    house.check()
    stood = json.loads(call("status", "--json").stdout)
    assert ([part["lag"] for part in stood["partitions"]], stood["refusal"]) == ([0, 0, 0], None)
    # What only the job sees comes back as what it is: another runner began between its order and its start.
    house.walks(["AAPL"], 600, FAULTS)
    ordered = structured.ordered

    def then_another(*arguments: Any, **named: Any) -> Any:
        order = ordered(*arguments, **named)
        ordered(*arguments[:6], True)
        return order

    with monkeypatch.context() as patch:
        patch.setattr(structured, "ordered", then_another)
        refused = call("drain")
    assert (refused.exit_code, "another runner took over" in refused.output) == (3, True), refused.output
    # Dead letters are read again by the embedded engine; the tables stay this runner's.
    assert call("retry").exit_code == 0
    assert call("drain").exit_code == 0
    house.check()
