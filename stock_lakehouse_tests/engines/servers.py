"""Spark Connect servers in processes of their own, on loopback: JVM Spark with Delta, and Sail.

Here: starting, waiting, stopping, killing. Not here: anything a test does with one.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from stock_lakehouse.streams.local_kafka import JAVA, java

__all__ = ["DELTA", "FOR_SMALL_QUERIES", "IN_PYSPARK", "JAVA", "Server", "java", "jvm_server", "sail_server"]

DELTA = "io.delta:delta-spark_2.13:4.3.0"
KAFKA = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"  # of PySpark's version
# What Delta asks for and PySpark's own jars have already, 80 MB of it Hadoop.
IN_PYSPARK = (
    "org.apache.hadoop:*",
    "org.apache.parquet:*",
    "org.apache.logging.log4j:*",
    "org.slf4j:*",
    "com.fasterxml.jackson.core:*",
    "com.fasterxml.jackson.datatype:*",
    "commons-logging:*",
    "com.github.luben:*",
    "org.xerial.snappy:*",
    "org.roaringbitmap:*",
)
# Thousands of small queries: the second compiler would never earn its time.
FOR_SMALL_QUERIES = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# The first start on a machine fetches the jars.
START_SECONDS = 240.0
STOP_SECONDS = 20.0

# Warnings, and the one line that says where the server listens.
LOG = """\
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c{1}: %m%n%ex
logger.server.name = org.apache.spark.sql.connect.service.SparkConnectServer
logger.server.level = info
"""

SAIL = """
import os, sys
{preamble}
from pysail.spark import SparkConnectServer
server = SparkConnectServer(ip="127.0.0.1", port=0)
server.start(background=True)
print("started at", "127.0.0.1:%s" % server.listening_address[1], flush=True)
sys.stdin.read()
os._exit(0)
"""


@dataclass(frozen=True)
class Server:
    """A running server: its address, and its process."""

    address: str
    process: subprocess.Popen[str]

    @property
    def host_and_port(self) -> str:
        return self.address.removeprefix("sc://")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(timeout=STOP_SECONDS)


@contextmanager
def jvm_server(
    folder: Path,
    memory: str = "2g",
    java_options: str = FOR_SMALL_QUERIES,
    shuffle_partitions: int = 2,
    packages: Sequence[str] = (DELTA,),
    excluded: Sequence[str] = IN_PYSPARK,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """JVM Spark Connect with Delta on `local[2]`, its scratch files in `folder`. The defaults are for small tables.
    `settings` are Spark's, beside those that the server needs.

    Its Python workers are this interpreter, so they have the package and TA-Lib.
    """
    configuration = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Of small tables Spark's default of 200 tasks a shuffle would be most of the work.
        "spark.sql.shuffle.partitions": str(shuffle_partitions),
        "spark.databricks.delta.snapshotPartitions": "1",
        **settings,
    }
    log = folder / "log4j2.properties"
    log.write_text(LOG, encoding="utf-8")
    submit = Path(sysconfig.get_path("scripts"), "spark-submit")
    command = [
        str(submit),
        *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
        *("--master", "local[2]", "--driver-memory", memory),
        *("--driver-java-options", f"{java_options} -Dlog4j.configurationFile={log}"),
        *("--packages", ",".join(packages), "--exclude-packages", ",".join(excluded)),
        *(part for name, value in configuration.items() for part in ("--conf", f"{name}={value}")),
        "spark-internal",
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))},
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    with _running(command, environment) as server:
        yield server


@contextmanager
def sail_server(preamble: str = "") -> Iterator[Server]:
    """Sail in a process of its own, in which `preamble` ran first."""
    with _running(
        [sys.executable, "-c", SAIL.format(preamble=preamble)], {**os.environ, "RUST_LOG": "error"}
    ) as server:
        yield server


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Server]:
    """The server that `command` starts, once it says where it `started at`; stopped at the end, whatever happens."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
    )
    try:
        yield Server(f"sc://{_address(process)}", process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=STOP_SECONDS)


def _address(process: subprocess.Popen[str]) -> str:
    """The host and port that the server says, while its output is read on in the background so that it never blocks."""
    found: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            del said[:-40]
            said.append(line)
            if match := re.search(r"started at:? (\S+:\d+)\s*$", line):
                found.put(match[1])
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        address = found.get(timeout=START_SECONDS)
    except queue.Empty:
        address = None
    if address is None:
        raise RuntimeError(f"no server within {START_SECONDS:.0f} s; it said last:\n{''.join(said)}")
    return address
