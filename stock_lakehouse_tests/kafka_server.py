"""A Kafka broker in a process of its own, on loopback, and what a test does to it: topics, messages, transactions, retention.

Here: fetching Kafka's jars, starting, waiting, stopping. Not here: anything a test expects.

The jars (43 MB) come once by Maven into a cache folder of the user that all tests share. Where they or Java cannot be had,
`NotRunError` says why.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from filelock import FileLock

from stock_lakehouse_tests.engines.servers import JAVA, java
from stock_lakehouse_tests.not_run import NotRunError
from stock_lakehouse_tests.s3 import _free_ports

VERSION = "4.1.0"
ARTIFACT = "kafka_2.13"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"  # 16 bytes in base64, any
START_SECONDS = 60.0
STOP_SECONDS = 20.0
REQUEST_SECONDS = 20.0
FETCH_SECONDS = 600.0

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>{ARTIFACT}</artifactId><version>{VERSION}</version>
  </dependency></dependencies>
</project>
"""


@dataclass
class Kafka:
    """A broker: its folder, its port on 127.0.0.1, and its process.

    `stop` and `start` are for tests of a broker that goes away and comes back with all it had.
    """

    folder: Path
    port: int
    heap: str
    process: subprocess.Popen[bytes] | None = None
    client: dict[str, str] = field(default_factory=dict)  # more settings of the clients of this class

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the broker and return when it answers. Raises AssertionError with the end of its log if it does not."""
        command = [*_java(self.heap), "kafka.Kafka", str(self.folder / "server.properties")]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=_environment())
        self._wait()

    def stop(self) -> None:
        """Stop the broker; a broker that does not stop in time is killed."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the broker at once, for the end of a test."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def topic(self, name: str, partitions: int = 1, **settings: Any) -> None:
        """Create a topic; `settings` with _ for the dots of their names."""
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        admin = self._admin()
        self._done(admin.create_topics([NewTopic(name, partitions, 1, config=config)]))
        self._until(lambda: len(admin.list_topics(name, 5).topics[name].partitions) == partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and return when it is gone."""
        admin = self._admin()
        self._done(admin.delete_topics([name]))
        self._until(lambda: name not in admin.list_topics(timeout=5).topics)

    def add_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, `total` in all."""
        admin = self._admin()
        self._done(admin.create_partitions([NewPartitions(name, total)]))
        self._until(lambda: len(admin.list_topics(name, 5).topics[name].partitions) == total)

    def produce(
        self,
        topic: str,
        messages: Iterable[bytes] | Mapping[int, Sequence[bytes]],
        transactional: str | None = None,
        commit: bool = True,
    ) -> None:
        """Send `messages`, by partition or in turn to partition 0, each acknowledged; in a transaction of the id `transactional`
        if that is given, which is committed or aborted."""
        by_partition = messages if isinstance(messages, Mapping) else {0: list(messages)}
        settings = {"transactional.id": transactional} if transactional else {}
        producer = Producer(self._client(**{"linger.ms": 5, **settings}))
        failed: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        if transactional:
            producer.init_transactions(REQUEST_SECONDS)
            producer.begin_transaction()
        for partition, values in by_partition.items():
            for value in values:
                while True:
                    try:
                        producer.produce(topic, value, partition=partition, on_delivery=delivered)
                        break
                    except BufferError:
                        producer.poll(0.1)
                producer.poll(0)
        left = producer.flush(REQUEST_SECONDS)
        assert not left, f"{left} messages were not delivered"
        assert not failed, failed[0]
        if transactional and commit:
            producer.commit_transaction(REQUEST_SECONDS)
        elif transactional:
            producer.abort_transaction(REQUEST_SECONDS)

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Remove the messages before an offset of each partition, as the topic's retention does."""
        places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        admin = self._admin()  # by a name: the answers of a client that is collected fail
        self._done(admin.delete_records(places))

    def allow(self, user: str, topic: str) -> None:
        """Give a user the rights Describe and Read on a topic."""
        bindings = [
            AclBinding(
                *(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL),
                *(f"User:{user}", "*", operation, AclPermissionType.ALLOW),
            )
            for operation in (AclOperation.DESCRIBE, AclOperation.READ)
        ]
        admin = self._admin()
        self._done(admin.create_acls(bindings))

    def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """The first offset of each partition, and the one behind its last message (transactions that are open left out)."""
        consumer = Consumer(self._client(**{"group.id": "tests", "isolation.level": "read_committed"}))
        try:
            partitions = consumer.list_topics(topic, REQUEST_SECONDS).topics[topic].partitions
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), REQUEST_SECONDS)
                for number in partitions
            }
        finally:
            consumer.close()

    def messages(self, topic: str) -> dict[tuple[int, int], tuple[bytes, int]]:
        """All committed messages that are there: value and time in milliseconds, by partition and offset."""
        ends = self.ends(topic)
        consumer = Consumer(
            self._client(
                **{
                    "group.id": "tests",
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                }
            )
        )
        found: dict[tuple[int, int], tuple[bytes, int]] = {}
        try:
            consumer.assign([TopicPartition(topic, number, first) for number, (first, _) in ends.items()])
            waiting, until = {number for number, (first, end) in ends.items() if end > first}, time.monotonic() + 60
            while waiting:
                assert time.monotonic() < until, f"partitions {waiting} have not been read to their ends"
                for message in consumer.consume(10_000, 0.2):
                    if (error := message.error()) is None:
                        found[message.partition(), message.offset()] = (message.value(), message.timestamp()[1])
                    elif error.name() == "_PARTITION_EOF":
                        waiting.discard(message.partition())
                    else:
                        raise KafkaException(error)
        finally:
            consumer.close()
        return found

    def _client(self, **settings: Any) -> dict[str, Any]:
        return {"bootstrap.servers": self.servers, "log_level": 2, **self.client, **settings}

    def _admin(self) -> AdminClient:
        return AdminClient(self._client())

    def _done(self, futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            future.result(REQUEST_SECONDS)

    def _until(self, holds: Any) -> None:
        until = time.monotonic() + REQUEST_SECONDS
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.02)

    def _wait(self) -> None:
        """Return when a topic can be created: a port that answers is no broker that is ready."""
        until, admin = time.monotonic() + START_SECONDS, self._admin()
        assert self.process is not None
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if admin.list_topics(timeout=1).brokers:
                    future = admin.create_topics([NewTopic("ready", 1, 1)], request_timeout=2)["ready"]
                    future.result(3)
                    return
            except KafkaException as error:
                if error.args[0].name() == "TOPIC_ALREADY_EXISTS":
                    return
            except TimeoutError:
                pass
            time.sleep(0.1)
        self.kill()
        end = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")[-4000:]
        raise AssertionError(f"Kafka did not start within {START_SECONDS:.0f} s:\n{end}")


def jars() -> Path:
    """The folder with Kafka's jars, fetched if it is not there. Raises NotRunError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stock_lakehouse_tests"
    folder = cache / f"kafka-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".kafka.lock"):
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    """Fetch beside `folder` and rename, so that a killed fetch leaves no half of them under the name."""
    if shutil.which("mvn") is None:
        raise NotRunError(f"the jars of Kafka {VERSION} are not there, and there is no program `mvn` to fetch them")
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        Path(beside, "pom.xml").write_text(POM, encoding="utf-8")
        command = [
            "mvn",
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            "-DoutputDirectory=jars",
        ]
        try:
            fetched = subprocess.run(
                command, cwd=beside, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise NotRunError(f"the jars of Kafka {VERSION} did not come within {FETCH_SECONDS:.0f} s") from None
        if fetched.returncode:
            reason = (fetched.stdout + fetched.stderr).strip().splitlines() or [
                f"`mvn` ended with {fetched.returncode}"
            ]
            raise NotRunError(f"the jars of Kafka {VERSION} cannot be had: {reason[0]}")
        Path(beside, "jars").rename(folder)


@contextmanager
def kafka_server(
    folder: Path, heap: str = "384m", settings: Mapping[str, str] | None = None, client: Mapping[str, str] | None = None
) -> Iterator[Kafka]:
    """A new broker on 127.0.0.1; its files go to `folder`. Topics are made by `Kafka.topic` alone. Raises NotRunError.

    - settings: more lines of server.properties
    - client: settings that the clients of `Kafka` need with them
    """
    jars()
    port, controller = _free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
    for name, value in (settings or {}).items():
        properties[name] = value.replace("{port}", str(port)).replace("{controller}", str(controller))
    (folder / "server.properties").write_text(
        "".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8"
    )
    formatting = [*_java("128m"), "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties"]
    done = subprocess.run(formatting, cwd=folder, capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    kafka = Kafka(folder, port, heap, client=dict(client or {}))
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.kill()


def _java(heap: str) -> list[str]:
    program = java()
    if program is None:
        raise NotRunError(f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")
    # A broker of tests lives for minutes: the second compiler would never earn its time.
    return [program, f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*"]


def _environment() -> dict[str, str]:
    """The environment without what another Kafka on this machine may be told by."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "LOG_DIR"))}
