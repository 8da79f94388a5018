"""A topic of a real Kafka: every message once, whatever dies, and a named refusal where messages are gone."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import trustme
from pydantic import SecretStr, ValidationError
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app, doctor
from stock_lakehouse.lake import stream_table
from stock_lakehouse.lake.stream_table import FencedError
from stock_lakehouse.lake.tick_table import GIVEN_UP, LostRowsError, Progress
from stock_lakehouse.settings import SettingsError, Stream, load_settings
from stock_lakehouse.streams import (
    ExpiredError,
    RecreatedError,
    ReplacedError,
    SourceError,
    SourceUnavailableError,
    recreated,
    status,
)
from stock_lakehouse.streams import kafka as kafka_source
from stock_lakehouse.streams.kafka import KafkaSource
from stock_lakehouse.streams.replay import Faults
from stock_lakehouse.streams.runner import Runner
from stock_lakehouse_tests.kafka_server import Kafka, kafka_server
from stock_lakehouse_tests.not_run import or_skipped
from stock_lakehouse_tests.s3 import _free_ports
from stock_lakehouse_tests.streams import killed
from stock_lakehouse_tests.streams.house import event
from stock_lakehouse_tests.streams.kafka_house import KafkaHouse
from stock_lakehouse_tests.streams.test_exactly_once import CRASHES, _state, crashing

FAULTS = Faults(late=0.02, duplicate=0.02, poison=0.02, seed=7)


engines = pytest.mark.engines  # needs Java 17


def soak(test: Any) -> Any:
    """Needs Java 17, and CI has no time for it."""
    return pytest.mark.engines(pytest.mark.soak(test))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with or_skipped("a real Kafka", kafka_server(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


@pytest.fixture
def house(
    tmp_path: Path,
    spark: SparkSession,
    kafka: Kafka,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> KafkaHouse:
    """A stream of three partitions in batches of 300 messages."""
    monkeypatch.setattr(stream_table, "PAUSE_SECONDS", 0.0)
    name = re.sub(r"\W+", "-", request.node.name)[:80]
    return KafkaHouse.at(tmp_path, spark, kafka, name, 3, batch_messages=300, compact_batches=3)


def losses(house: KafkaHouse) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.table("losses").to_pylist()
    return found


def step_for(started: Runner, seconds: float) -> None:
    """Let the runner work, for at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started.step(0.3)


# Exactness


@engines
def test_a_session_with_faults_and_transactions_is_read_to_the_last_cell(house: KafkaHouse) -> None:
    topic = house.settings.name
    count = house.walks(["NVDA", "AAPL", "META"], 60, FAULTS)
    house.server.produce(topic, [event(60 * n, event_id=f"t{n}", close=2) for n in range(20)], "writer")
    house.server.produce(topic, [event(60 * n, event_id=f"a{n}", close=3) for n in range(20)], "writer", commit=False)
    house.send(event(0, volume=1), event(86400 * 40, volume=2), b"", event(1, volume=3), partition=1)
    counts = house.drain()
    house.check()
    assert counts.messages == counts.events + counts.duplicates + counts.dead == count + 20 + 4
    assert min(counts.late, counts.duplicates, counts.dead) > 0
    assert counts.batch >= 4
    # The event of the future is a dead letter and makes none late; what an aborted transaction brought is nowhere.
    reasons = [tick["reason"] for tick in house.ticks() if tick["partition"] == "1"][-4:]
    assert reasons == [None, "from the future", "not JSON", None]
    assert not [tick for tick in house.ticks() if tick["close"] == 3]
    # The positions are behind the records that end transactions, so nothing waits.
    found = status.status_of(house.options, 2, house.source(), 1)
    assert found.source.startswith(f"kafka:{topic}@")
    assert [(part.partition, part.lag, part.waiting_since) for part in found.partitions] == [
        ("0", 0, None),
        ("1", 0, None),
        ("2", 0, None),
    ]
    assert house.drain().messages == 0


@soak
def test_the_time_of_arrival_is_the_broker_s_and_a_producer_s_only_up_to_now(house: KafkaHouse) -> None:
    house.server.topic("appended", message_timestamp_type="LogAppendTime")
    appended = KafkaHouse(house.tmp, house.spark, house.root, house.settings.model_copy(update={"name": "appended"}))
    house.send(event(0))
    house.server.produce("appended", [event(0)])
    ((_, broker),) = house.server.messages("appended").values()
    for stream, expected in ((house, house.now), (appended, None)):
        with closing(stream.source()) as source:
            source.open({})
            (arrived,) = source.poll(10, 10**6, 0).rows["arrival_time"].to_pylist()
        assert arrived == expected if expected else int(arrived.timestamp() * 1000) == broker


@soak
def test_messages_of_an_open_transaction_are_read_once_it_is_committed(house: KafkaHouse) -> None:
    from confluent_kafka import Producer

    house.send(event(0))
    producer = Producer({"bootstrap.servers": house.server.servers, "transactional.id": "open"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(house.settings.name, event(1), partition=0)
    producer.flush(20)
    house.send(event(2))
    assert house.drain().messages == 1
    (lag,) = [part.lag for part in status.status_of(house.options, 2, house.source(), 1).partitions if part.lag] or [0]
    assert lag == 0  # nothing that can be read is waiting
    producer.commit_transaction(20)
    assert house.drain().messages == 2
    house.check()


@soak
def test_a_batch_is_about_as_large_as_the_settings_say(house: KafkaHouse) -> None:
    # 24 messages of 0.9 MB, which are no good ticks.
    for number in range(3):
        house.send(*[b"x" * 900_000] * 8, partition=number)
    with closing(house.source()) as source:
        source.open({})
        sizes = []
        while sum(sizes) < 24 * 900_000:
            values = source.poll(300, 4_000_000, 1.0).rows["value"].to_pylist()
            assert values
            sizes.append(sum(map(len, values)))
    assert max(sizes) <= 4_900_000


@soak
def test_a_first_run_from_the_latest_leaves_out_what_was_there_and_reads_later_partitions_from_their_start(
    house: KafkaHouse,
) -> None:
    house.settings = house.settings.model_copy(update={"start": "latest"})
    house.send(event(0), event(1))
    assert house.drain().messages == 0
    house.send(event(2))
    house.server.add_partitions(house.settings.name, 4)
    house.send(event(3), partition=3)
    assert house.drain().messages == 2


# Whatever dies


@engines
@pytest.mark.slice(1)
@pytest.mark.parametrize("steps", [["after ticks"], CRASHES], ids=["one", "each"])
def test_kill_9_at_steps_in_turn(house: KafkaHouse, steps: list[str]) -> None:
    for number, step in enumerate(steps):
        house.walks(["NVDA", "AAPL", "META"], 60 + number, FAULTS)
        assert killed.start(house, step, 1 + number % 2).wait(120) == -signal.SIGKILL
    house.drain()
    house.check()


@soak
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_at_random(house: KafkaHouse, seed: int) -> None:
    dice = random.Random(seed)
    kills = 0
    while kills < 10:
        house.walks(dice.sample(["NVDA", "AAPL", "META", "GOOG"], 3), 10, FAULTS)
        kills += killed.killed_at_random(house, dice)
    house.drain()
    house.check()


@soak
@pytest.mark.parametrize("frozen", CRASHES)
def test_a_runner_that_was_frozen_while_another_took_over_is_refused(
    house: KafkaHouse, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    house.walks(["NVDA"], 60, FAULTS)
    first = house.runner_without_lock()

    def another() -> None:
        second = house.runner_without_lock()
        second.drain(5)
        second.source.close()
        house.send(event(0, event_id="new", close=1))

    with monkeypatch.context() as patched, closing(first.source):
        crashing(patched, frozen, 1, another)
        # After its own bars the first one is refused at its next commit; everywhere else at once.
        with pytest.raises(FencedError, match="another runner"):
            step_for(first, 30)
    house.drain()
    house.check()


@soak
def test_of_two_runners_at_once_one_is_refused_and_the_tables_are_right(house: KafkaHouse) -> None:
    house.walks(["NVDA", "AAPL"], 60, FAULTS)
    first, second = house.runner_without_lock(), house.runner_without_lock()
    with closing(first.source), closing(second.source):
        first.step(0)
        with pytest.raises(FencedError):
            second.step(0)
        first.step(0)
    house.drain()
    house.check()


@soak
def test_a_process_that_was_stopped_without_a_lock(house: KafkaHouse) -> None:
    house.walks(["NVDA"], 60, FAULTS)
    process = killed.start(house, "stop after ticks")
    try:
        deadline = time.monotonic() + 60
        while _state(process.pid) != "T":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        house.drain()
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "FencedError\n"
    finally:
        process.kill()
        process.wait()
    house.check()


# What is gone is named


@engines
def test_offsets_that_expired_before_a_run_are_refused_with_their_bounds(house: KafkaHouse) -> None:
    topic = house.settings.name
    house.send(*(event(n) for n in range(5)))
    house.drain()
    house.send(*(event(n) for n in range(5, 30)))
    house.send(event(9), partition=1)
    house.server.delete_records(topic, {0: 20})
    with pytest.raises(ExpiredError) as refused:
        house.drain()
    assert re.fullmatch(
        rf"kafka:{topic}@[0-9a-f]{{12}}: partition 0: offsets 5 to 19 are no longer there \(at most 15 messages\): the topic's "
        r"retention is shorter than the pause\. Go on from 20 with: stock-lakehouse stream drain --accept-loss \"why\"",
        str(refused.value),
    )
    assert status.status_of(house.options, 2, house.source(), 1).refusal == str(refused.value)
    assert len(house.ticks()) == 5  # and nothing was read beside it
    # A kill between the two writes of the acceptance leaves no silent loss.
    process = killed.start(house, "after the loss is written", accept_loss="a long weekend")
    assert process.wait(120) == -signal.SIGKILL
    with pytest.raises(ExpiredError):
        house.drain()
    assert house.drain("a long weekend").messages == 11
    (loss,) = losses(house)
    assert (loss["source"], loss["partition"], loss["why"]) == (refused.value.source, "0", "a long weekend")
    assert (int(loss["from_offset"]), int(loss["to_offset"])) == (5, 20)
    offsets = [int(tick["offset"]) for tick in house.ticks() if tick["partition"] == "0"]
    assert offsets == [*range(5), *range(20, 30)]


@soak
def test_offsets_that_expire_while_a_runner_is_at_work_are_refused(
    house: KafkaHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "QUEUE_KILOBYTES", 1)  # so that not all is fetched ahead
    filler = "x" * 2000
    house.send(*(event(n, filler=filler) for n in range(3000)))
    with house.running() as started:
        read = started.step(0).rows.num_rows
        assert 0 < read <= 300
        house.server.delete_records(house.settings.name, {0: 2990})
        with pytest.raises(ExpiredError, match=r"to 2,989 are no longer there") as refused:
            step_for(started, 30)
    (loss,) = refused.value.losses
    assert loss.first == len(house.ticks()) < loss.end == 2990
    house.drain("tested")
    assert [int(tick["offset"]) for tick in house.ticks()] == [*range(loss.first), *range(2990, 3000)]


@engines
def test_a_topic_that_was_made_anew_is_refused_before_a_run_and_its_new_messages_are_read_once_accepted(
    house: KafkaHouse,
) -> None:
    topic = house.settings.name
    house.send(*(event(n) for n in range(4)))
    house.drain()
    former = house.source().name
    house.server.delete_topic(topic)
    house.server.topic(topic, 3)
    house.send(
        *(event(n, event_id=f"new{n}") for n in range(6))
    )  # more than before: by its number alone position 4 is there
    with pytest.raises(RecreatedError, match=r"it was deleted and made anew, or is on another server") as refused:
        house.drain()
    assert refused.value.source == former
    assert status.status_of(house.options, 2, house.source(), 1).refusal == str(refused.value)
    assert house.drain("moved").messages == 6
    assert {
        (loss["source"], loss["partition"], int(loss["from_offset"]), loss["to_offset"]) for loss in losses(house)
    } == {(former, str(number), 4 if number == 0 else 0, None) for number in range(3)}
    # The tables keep both, and it is not asked again.
    assert sorted(tick["source"] == former for tick in house.ticks()) == [False] * 6 + [True] * 4
    house.send(event(9))
    assert house.drain().messages == 1


@soak
def test_a_topic_that_is_made_anew_under_a_runner_s_feet_is_refused(house: KafkaHouse) -> None:
    topic = house.settings.name
    house.send(*(event(n) for n in range(4)))
    with house.running() as started:
        assert started.step(0).rows.num_rows == 4
        house.server.delete_topic(topic)
        house.server.topic(topic, 3)
        house.send(*(event(n, event_id=f"new{n}") for n in range(9)))
        with pytest.raises(RecreatedError, match="partition 0"):
            step_for(started, 30)
    assert len(house.ticks()) == 4


@engines
def test_a_partition_that_is_added_is_read_from_its_start_while_running(
    house: KafkaHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "LOOK_SECONDS", 0.2)
    house.send(event(0), event(60))
    house.send(event(0, "AAPL"), event(60, "AAPL"), partition=1)
    with house.running() as started:
        assert started.step(0).rows.num_rows == 4
        house.server.add_partitions(house.settings.name, 5)
        house.send(event(61, "META"), event(62, "META"), partition=4)
        deadline = time.monotonic() + 20
        while not started.step(0.2).rows.num_rows:
            assert time.monotonic() < deadline
        started.drain(1)
    house.check()
    # One whose first messages expired before anybody saw it is a loss.
    house.server.add_partitions(house.settings.name, 6)
    house.send(event(63), event(64), partition=5)
    house.server.delete_records(house.settings.name, {5: 1})
    with pytest.raises(ExpiredError, match="partition 5: offsets 0 to 0 are no longer there"):
        house.drain()


@soak
def test_a_partition_that_is_shorter_than_its_position_is_refused(house: KafkaHouse) -> None:
    house.send(event(0), event(1))
    with closing(house.source()) as source:
        source.open({"0": Progress(2), "1": Progress(0)})
        with pytest.raises(ReplacedError, match="partition 0 ends at offset 2 and was read up to 7") as refused:
            source.open({"0": Progress(7), "1": Progress(0)})
        assert refused.value.losses[0].go_on.position == 2


def test_another_incarnation_is_refused_until_its_end_was_accepted() -> None:
    known = {"kafka:s@aa": {"0": Progress(7)}, "kafka:other@bb": {"0": Progress(1)}, "files:s": {"a": Progress(1)}}
    refusal = recreated("kafka:s@cc", known)
    assert refusal is not None
    assert (refusal.source, refusal.losses[0].first, refusal.losses[0].go_on) == (
        "kafka:s@aa",
        7,
        Progress(7, ended=GIVEN_UP),
    )
    assert recreated("kafka:s@aa", known) is None
    assert recreated("kafka:s@cc", {"kafka:s@aa": {"0": Progress(7, ended=GIVEN_UP)}}) is None
    assert recreated("files:s", known) is None


@engines
def test_a_restored_table_gets_its_rows_back_as_far_as_the_topic_has_them(house: KafkaHouse) -> None:
    topic = house.settings.name
    house.walks(["NVDA", "AAPL", "META"], 60, FAULTS)
    house.server.produce(topic, [event(60 * n, event_id=f"t{n}", close=2) for n in range(20)], "writer")
    house.drain()
    ticks, bars = house.ticks(), house.bars()
    house.restore_ticks(600)
    with pytest.raises(LostRowsError, match=r"has 600 rows, .* stream refill"):
        house.drain()
    done = house.refill()
    assert (done.found, done.read_again, done.lost) == (600, len(ticks) - 600, 0)
    house.check()
    assert [{**tick, "batch": 0} for tick in house.ticks()] == [{**tick, "batch": 0} for tick in ticks]
    assert house.bars() == bars
    # A lost file, of messages that the topic has, and of some that it does not have any more.
    house.tick_files()[0].unlink()
    kept = {(tick["partition"], int(tick["offset"])) for tick in _readable(house)}
    house.server.delete_records(topic, {0: 50, 1: 100})
    expired = {("0", offset) for offset in range(50)} | {("1", offset) for offset in range(100)}
    every = {(tick["partition"], int(tick["offset"])) for tick in ticks}
    gone = (every - kept) & expired
    assert gone
    done = house.refill()
    assert (done.damaged_files, done.lost) == (1, len(gone))
    assert {(tick["partition"], int(tick["offset"])) for tick in house.ticks()} == every - gone
    named = {
        (loss["partition"], offset)
        for loss in losses(house)
        for offset in range(int(loss["from_offset"]), int(loss["to_offset"]))
    }
    assert named == gone
    assert house.drain().messages == 0


def _readable(house: KafkaHouse) -> list[dict[str, Any]]:
    """The ticks of the files that are there."""
    found: list[dict[str, Any]] = []
    for path in house.tick_files():
        found += pq.read_table(path, columns=["partition", "offset"]).to_pylist()
    return found


# Brokers


def test_brokers_that_are_not_there_are_named_after_bounded_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "AWAY_SECONDS", 0.5)
    monkeypatch.setattr(kafka_source, "REQUEST_SECONDS", 1.0)
    (port,) = _free_ports(1)
    began = time.monotonic()
    with (
        closing(KafkaSource(Stream(source="kafka", servers=f"127.0.0.1:{port}"))) as source,
        pytest.raises(SourceUnavailableError, match=rf"kafka:stock_ticks on 127\.0\.0\.1:{port}: .*did not answer"),
    ):
        source.open({})
    assert time.monotonic() - began < 10


@soak
def test_a_topic_that_is_not_there_is_named_with_what_to_do(house: KafkaHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "MISSING_SECONDS", 0.3)
    asked = 0
    ask = kafka_source.Brokers._result

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask(*arguments)

    monkeypatch.setattr(kafka_source.Brokers, "_result", counted)
    house.settings = house.settings.model_copy(update={"name": "nowhere"})
    with pytest.raises(SourceError, match=r"there is no topic nowhere; create it .* or set stream\.name"):
        house.drain()
    assert 1 < asked < 6
    with pytest.raises(SourceError, match="there is no topic nowhere"):
        kafka_source.produce(house.settings, iter([[b"x"]]))


@soak
def test_a_broker_that_goes_away_and_comes_back(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "LOOK_SECONDS", 0.2)
    with or_skipped("a real Kafka", kafka_server(tmp_path / "kafka")) as kafka:
        house = KafkaHouse.at(tmp_path, spark, kafka, "away", 1, batch_messages=300)
        house.walks(["NVDA"], 120)
        with house.running() as started:
            started.step(0)
            kafka.stop()
            with monkeypatch.context() as patched:
                patched.setattr(kafka_source, "AWAY_SECONDS", 1.0)
                patched.setattr(kafka_source, "REQUEST_SECONDS", 1.0)
                with pytest.raises(SourceUnavailableError, match="What was read stays"):
                    step_for(started, 30)
                with pytest.raises(SourceUnavailableError, match="did not answer"):
                    kafka_source.produce(house.settings, iter([[event(0)]]))
            kafka.start()
            # The same runner goes on: the client has found its way back.
            started.drain(2)
        house.walks(["NVDA"], 90)
        house.drain()
        house.check()


# Security


def certificates(folder: Path) -> Path:
    """Make a certificate of an authority and one of 127.0.0.1 that it signed; return the file of the authority."""
    from cryptography.hazmat.primitives import serialization

    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    # Kafka reads keys in PKCS 8 alone.
    key = serialization.load_pem_private_key(server.private_key_pem.bytes(), None)
    encodings = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = b"".join(pem.bytes() for pem in server.cert_chain_pems)
    folder.mkdir()
    (folder / "server.pem").write_bytes(key.private_bytes(*encodings) + chain)
    (folder / "authority.pem").write_bytes(authority.cert_pem.bytes())
    return folder / "authority.pem"


@soak
def test_user_password_certificates_and_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "AWAY_SECONDS", 3.0)
    authority = certificates(tmp_path / "certificates")
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = " ".join(f'user_{name}="{name}-word"' for name in ("admin", "reader", "nobody"))
    settings = {
        "listeners": "SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": "SASL_SSL://127.0.0.1:{port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{plain} username="admin" password="admin-word" {users};',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "certificates" / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
    }
    client = {
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": str(authority),
        "sasl.mechanism": "PLAIN",
        "sasl.username": "admin",
        "sasl.password": "admin-word",
    }

    def source(user: str, password: str, ca_file: Path | None = authority) -> KafkaSource:
        given = Stream(
            source="kafka",
            servers=kafka.servers,
            security="sasl_ssl",
            mechanism="PLAIN",
            user=user,
            password=SecretStr(password),
            ca_file=ca_file,
        )
        return KafkaSource(given)

    with or_skipped("a real Kafka", kafka_server(tmp_path / "kafka", settings=settings, client=client)) as kafka:
        kafka.topic("stock_ticks", 1)
        kafka.produce("stock_ticks", [event(0)])
        kafka.allow("reader", "stock_ticks")
        # Describe and Read on the topic are enough: none is needed on a group.
        with closing(source("reader", "reader-word")) as good:
            good.open({})
            assert good.poll(10, 10**6, 0).rows.num_rows == 1
            assert good.ends()["0"].position == 1
        for refused, message in (
            (source("reader", "wrong-word"), "the brokers do not take the connection: .*uthentication"),
            (source("reader", "reader-word", None), "the brokers do not take the connection: .*certificate"),
            (
                source("nobody", "nobody-word"),
                "user nobody may not read the topic; it needs the rights|there is no topic",
            ),
        ):
            with closing(refused), pytest.raises(SourceError, match=message) as error:
                refused.open({})
            assert "-word" not in str(error.value)


def test_settings_of_kafka_are_checked_together_and_the_password_is_a_variable_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, message in (
        ({}, "servers: needed"),
        ({"servers": "broker"}, "servers"),
        ({"servers": "broker:9092", "security": "sasl_ssl"}, "user: security = 'sasl_ssl' needs a user"),
        ({"servers": "broker:9092", "password": "x"}, "security: 'plaintext' uses no password"),
    ):
        with pytest.raises(ValidationError, match=message):
            Stream(source="kafka", **given)
    file = tmp_path / "lakehouse.toml"
    table = '[stream]\nsource = "kafka"\nservers = "a:1,b:2"\nsecurity = "sasl_ssl"\nuser = "u"\nca_file = "ca.pem"\n'
    file.write_text(f'{table}password = "secret"\n')
    with pytest.raises(SettingsError, match="STOCK_LAKEHOUSE_STREAM_PASSWORD"):
        load_settings()
    file.write_text(table)
    monkeypatch.setenv("STOCK_LAKEHOUSE_STREAM_PASSWORD", "kept-apart")
    settings = load_settings()
    assert settings.stream.ca_file == tmp_path / "ca.pem"
    assert "kept-apart" in settings.secrets()
    assert "kept-apart" not in repr(settings) + settings.model_dump_json()
    assert KafkaSource(settings.stream).brokers.client()["sasl.password"] == "kept-apart"
    monkeypatch.setenv("STOCK_LAKEHOUSE_SIMULATED_CLOCK", str(tmp_path / "now"))
    with pytest.raises(SettingsError, match="simulated_clock: brokers of Kafka need the real time"):
        load_settings()


# Commands


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stream", *arguments])


@soak
def test_a_newcomer_produces_to_a_topic_drains_and_sees_how_it_stands(
    tmp_path: Path, spark: SparkSession, kafka: Kafka
) -> None:
    kafka.topic("newcomer", 3)
    (tmp_path / "lakehouse.toml").write_text(
        f'[stream]\nsource = "kafka"\nname = "newcomer"\nservers = "{kafka.servers}"\n'
    )
    produced = call("produce", "--tickers", "NVDA,AAPL", "--every", "60", "--duplicate", "0.05", "--json")
    assert produced.exit_code == 0, produced.output
    sent = json.loads(produced.stdout)
    assert sent["topic"] == "newcomer"
    found = doctor._stream(load_settings())
    assert (found.state, found.detail.endswith(" has 3 partitions")) == ("ok", True), found
    # A ticker is in one partition, in order.
    places: dict[str, set[int]] = {}
    for (number, _), (value, _) in kafka.messages("newcomer").items():
        places.setdefault(json.loads(value)["ticker"], set()).add(number)
    assert {ticker: len(numbers) for ticker, numbers in places.items()} == {"NVDA": 1, "AAPL": 1}
    behind = json.loads(call("status", "--json").stdout)
    assert sum(part["lag"] for part in behind["partitions"]) == sent["messages"]
    assert all(part["waiting_since"] for part in behind["partitions"] if part["lag"])
    drained = call("drain", "--json")
    assert drained.exit_code == 0, drained.output
    counts = json.loads(drained.stdout)
    assert counts["messages"] == counts["events"] + counts["duplicates"] == sent["messages"]
    assert (counts["events"], counts["late"]) == (2 * 390, 0)
    after = json.loads(call("status", "--json").stdout)
    assert [part["lag"] for part in after["partitions"]] == [0, 0, 0]
    # Refusals have their exit codes.
    kafka.produce("newcomer", {number: [event(0)] * 3 for number in range(3)})
    ends = {number: end for number, (_, end) in kafka.ends("newcomer").items()}
    kafka.delete_records("newcomer", ends)
    refused = call("drain")
    assert refused.exit_code == 3
    assert "are no longer there (at most 3 messages)" in refused.output
    assert "(and 2 more)" in refused.output
    assert call("status").exit_code == 3
    assert call("drain", "--accept-loss", "tested").exit_code == 0
    lost = json.loads(call("status", "--json").stdout)
    assert (lost["refusal"], len(lost["losses"])) == (None, 3)


def test_brokers_that_are_away_end_a_command_with_a_line_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(kafka_source, "REQUEST_SECONDS", 0.5)
    (port,) = _free_ports(1)
    (tmp_path / "lakehouse.toml").write_text(f'[stream]\nsource = "kafka"\nservers = "127.0.0.1:{port}"\n')
    for command in ("status", "produce"):
        answer = call(command)
        assert (answer.exit_code, len(answer.output.strip().splitlines())) == (1, 1)
        assert "the brokers did not answer" in answer.output
    found = doctor._stream(load_settings())
    assert found.state == "broken"
    assert "the brokers did not answer" in found.detail
