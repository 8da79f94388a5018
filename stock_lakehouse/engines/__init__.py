"""Engines: a Spark session on embedded Sail, on a Spark Connect server or on Databricks, with the same settings everywhere.

Here: the choice of the engine, and the start of the embedded one. No Dagster is imported, because a Databricks job does not
have it. Not here: anything done with a session.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.engines.connect import SESSION_SETTINGS, Say, apply_settings, connected, logger
from stock_lakehouse.engines.errors import EngineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stock_lakehouse.settings import Databricks

__all__ = ["SESSION_SETTINGS", "EngineError", "apply_settings", "spark_session"]

REMOTE_VARIABLE = "STOCK_LAKEHOUSE_SPARK_REMOTE"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# Sail ends a session without requests after 15 minutes. A stream has longer pauses every night, and so may a large run.
IDLE_SECONDS = 366 * 24 * 3600
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def spark_session(
    engine: str, remote: str | None = None, databricks: Databricks | None = None, say: Say = logger.info
) -> AbstractContextManager[SparkSession]:
    """A Spark session on `engine`, which is stopped at the end of the `with` block.

    `engine`: `embedded`, `spark_connect` or `databricks`.
    `remote`: address of the server for `spark_connect`, like sc://host:port.
    `databricks`: the settings for `databricks`.
    `say`: called with a line of text when a long wait begins.

    Raises EngineError when the engine does not start, or when its results would differ from those of other engines.
    """
    if engine == "embedded":
        return _embedded()
    if engine == "databricks":
        from stock_lakehouse.engines.databricks import databricks_session

        if databricks is None:
            raise EngineError("databricks: needed with engine = 'databricks'")
        return databricks_session(databricks, say)
    return _spark_connect(remote)


@contextmanager
def _embedded() -> Iterator[SparkSession]:
    from pyspark.sql.connect.client import DefaultChannelBuilder

    ask_doctor = "`stock-lakehouse doctor` looks at the installation"
    # PySpark walks the stack at every call to tell the server where it comes from, an eighth of a small run; Sail ignores it.
    options = {"spark.python.sql.dataFrameDebugging.enabled": "false"}
    with _embedded_server() as address, connected(DefaultChannelBuilder(address), ask_doctor, options) as spark:
        yield spark


@contextmanager
def _spark_connect(remote: str | None) -> Iterator[SparkSession]:
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import DefaultChannelBuilder

    from stock_lakehouse.engines.workers import check_workers

    if not remote:
        raise EngineError(f"{REMOTE_VARIABLE} is not set; set it to the address of a server, like sc://localhost:15002")
    try:
        builder = DefaultChannelBuilder(remote)
    except PySparkException as error:
        raise EngineError(
            f"{REMOTE_VARIABLE} is not an address like sc://host:15002 ({error.getCondition()})"
        ) from None
    with connected(builder, f"check {REMOTE_VARIABLE} and the network") as spark:
        check_workers(spark, "install the wheel of this package in the Python that the server's workers run")
        yield spark


@contextmanager
def _embedded_server() -> Iterator[str]:
    # Sail logs the start of its server and every session to stderr at lower levels.
    os.environ.setdefault("RUST_LOG", "error")
    # Sail's allocator keeps what it frees: a bulk load of 2.5 million bars grew to 3.9 GB, and to 2.5 GB with this. It costs a
    # third more time where files are written, and none elsewhere.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "0")
    # Of Parquet files it writes only staged frames by these, and those hold numbers that hardly repeat: without dictionaries and
    # statistics of pages, writing takes three fifths of the processor time. Its Delta files are not written by these.
    os.environ.setdefault("SAIL_PARQUET__DICTIONARY_ENABLED", "false")
    os.environ.setdefault("SAIL_PARQUET__STATISTICS_ENABLED", "chunk")
    # By itself it makes a partition for each core. With a single one it holds all rows that it reads: 3.5 GB to classify 2.5
    # million bars, and 0.6 GB with two partitions, in the same time.
    os.environ.setdefault("SAIL_EXECUTION__DEFAULT_PARALLELISM", str(max(cores(), 2)))
    os.environ.setdefault("SAIL_SPARK__SESSION_TIMEOUT_SECS", str(IDLE_SECONDS))
    _keep_freed_memory()
    from pysail.spark import SparkConnectServer

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    try:
        # The server stops when its object is garbage-collected, so this frame keeps a reference.
        ip, port = server.listening_address
        yield f"sc://{ip}:{port}"
    finally:
        server.stop()


def cores(quota_file: Path = QUOTA) -> int:
    """The number of cores that this process may use: those that it may run on, and no more than its container's quota allows.

    `quota_file`: "max" or the microseconds of processor time in a period, and the period (cgroup v2).
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, ZeroDivisionError):  # there is no quota, or another system
        quota, period = map(int, quota_file.read_text(encoding="ascii").split())
        found = min(found, max(quota // period, 1))
    return found


def _keep_freed_memory() -> None:
    """Let glibc keep up to 128 MB of freed memory for the next allocation, unless a variable says otherwise.

    By default it gives a block above 128 KB back when it is freed, so every temporary array of numpy is paid for by page faults:
    they were a third of the processor time of the market checks. Other C libraries do not have `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest value that is allowed
        mallopt(M_TRIM_THRESHOLD, 128 << 20)
