"""A Kafka broker in a process of its own, on loopback: what the demonstration and the tests start where Java is there.

Here: fetching Kafka's jars, starting, waiting, stopping, creating a topic. Not here: the stream's client (kafka.py).

The jars (43 MB) come once by Maven into a cache folder of the user. Nothing listens on another address than 127.0.0.1.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

JAVA = 17
VERSION = "4.1.0"
ARTIFACT = "kafka_2.13"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"  # 16 bytes in base64, any
START_SECONDS = 60.0
STOP_SECONDS = 20.0
REQUEST_SECONDS = 20.0
FETCH_SECONDS = 180.0

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>stock_lakehouse</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>{ARTIFACT}</artifactId><version>{VERSION}</version>
  </dependency></dependencies>
</project>
"""
FETCH = ("mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars")


class NotRunError(Exception):
    """This machine cannot run a server. The message says what is missing."""


class BrokerError(Exception):
    """The broker did not start. The message has the end of its log."""


@dataclass
class Broker:
    """A broker: its folder, its port on 127.0.0.1, and its process.

    `stop` and `start` again: a broker that goes away and comes back with all it had.
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
        """Start the broker and return when it answers. Raises BrokerError if it does not."""
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
        """End the broker at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def topic(self, name: str, partitions: int = 1, **settings: Any) -> None:
        """Create a topic and return when it is there; `settings` with _ for the dots of their names."""
        from confluent_kafka.cimpl import NewTopic

        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        admin = self._admin()
        self._done(admin.create_topics([NewTopic(name, partitions, 1, config=config)]))
        self._until(lambda: len(admin.list_topics(name, 5).topics[name].partitions) == partitions)

    def _client(self, **settings: Any) -> dict[str, Any]:
        return {"bootstrap.servers": self.servers, "log_level": 2, **self.client, **settings}

    def _admin(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        return AdminClient(self._client())

    def _done(self, futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            future.result(REQUEST_SECONDS)

    def _until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + REQUEST_SECONDS
        while not holds():
            if time.monotonic() > until:
                raise BrokerError(
                    f"the broker on {self.servers} has not done what was asked within {REQUEST_SECONDS:.0f} s"
                )
            time.sleep(0.02)

    def _wait(self) -> None:
        """Return when a topic can be created: a port that answers is no broker that is ready."""
        from confluent_kafka import KafkaException
        from confluent_kafka.cimpl import NewTopic

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
        raise BrokerError(f"Kafka did not start within {START_SECONDS:.0f} s:\n{end}")


AnyBroker = TypeVar("AnyBroker", bound=Broker)


def java() -> str | None:
    """The `java` program of JAVA_HOME or on the path, if it is of version JAVA or newer."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r'version "(\d+)', said)
    return program if version and int(version[1]) >= JAVA else None


def jars() -> Path:
    """The folder with Kafka's jars, fetched if it is not there. Raises NotRunError."""
    import platformdirs
    from filelock import FileLock

    cache = Path(platformdirs.user_cache_dir("stock_lakehouse"))
    folder = cache / f"kafka-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".kafka.lock"):
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    """Fetch beside `folder` and rename, so that a killed fetch leaves no half of them under the name."""
    if shutil.which(FETCH[0]) is None:
        raise NotRunError(f"the jars of Kafka {VERSION} are not there, and there is no Maven (mvn) to fetch them")
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        Path(beside, "pom.xml").write_text(POM, encoding="utf-8")
        try:
            fetched = subprocess.run(
                FETCH, cwd=beside, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise NotRunError(f"the jars of Kafka {VERSION} did not come within {FETCH_SECONDS:.0f} s") from None
        if fetched.returncode:
            reason = (fetched.stdout + fetched.stderr).strip().splitlines() or [f"mvn ended with {fetched.returncode}"]
            raise NotRunError(f"Maven does not get the jars of Kafka {VERSION}: {reason[0]}")
        Path(beside, "jars").rename(folder)


@contextmanager
def local_kafka(
    folder: Path,
    kind: type[AnyBroker],
    heap: str = "384m",
    settings: Mapping[str, str] | None = None,
    client: Mapping[str, str] | None = None,
) -> Iterator[AnyBroker]:
    """A new broker on 127.0.0.1; its files go to `folder`. Topics are made by `Broker.topic` alone.

    - kind: the class of the broker
    - settings: more lines of server.properties
    - client: settings that the clients of `kind` need with them

    Raises NotRunError, BrokerError.
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
    if done.returncode:
        raise BrokerError(f"Kafka cannot format its folder: {(done.stdout + done.stderr)[-4000:]}")
    broker = kind(folder, port, heap, client=dict(client or {}))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def _java(heap: str) -> list[str]:
    program = java()
    if program is None:
        raise NotRunError(f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")
    # Such a broker lives for minutes: the second compiler would never earn its time.
    return [program, f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*"]


def _environment() -> dict[str, str]:
    """The environment without what another Kafka on this machine may be told by."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "LOG_DIR"))}


def _free_ports(number: int) -> list[int]:
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
