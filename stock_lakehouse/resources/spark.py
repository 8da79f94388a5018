"""The engine: a Spark Connect session on embedded Sail or on a server, with the same settings everywhere.

Here: how a session starts and stops. Not here: anything done with one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REMOTE_VARIABLE = "STOCK_LAKEHOUSE_SPARK_REMOTE"

ANSWER_SECONDS = 30.0

# Settings that change results, equal on every engine; a server may start with others.
SESSION_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Spark's own default is INT96, which other readers take for nanoseconds without a zone.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Days before 1582 are what they say, written and read; staged rows can hold any that was delivered.
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    # With dynamic overwriting Delta refuses replaceWhere.
    "spark.sql.sources.partitionOverwriteMode": "STATIC",
    # A column comes by `DeltaTable.prepare` alone; a commit is one commit; rows outside a predicate are an error.
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.databricks.delta.autoCompact.enabled": "false",
    # One file a ticker and year, as Sail writes; else one a task.
    "spark.databricks.delta.optimizeWrite.enabled": "true",
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "true",
}


class EngineError(Exception):
    """The engine does not start or cannot be reached; the message says what to change."""


@contextmanager
def spark_session(engine: str, remote: str | None = None) -> Iterator[SparkSession]:
    """A session on `engine`, stopped at the end: `embedded`, or `spark_connect` at the address `remote` (sc://host:port).

    Raises EngineError when there is none to be had.
    """
    if engine == "embedded":
        with _embedded_server() as address, _connected(address) as spark:
            yield spark
    else:
        if not remote:
            raise EngineError(f"{REMOTE_VARIABLE} is not set: the address of a server, like sc://localhost:15002")
        with _connected(remote) as spark:
            yield spark


@contextmanager
def _embedded_server() -> Iterator[str]:
    # Sail logs its server's start and every session to stderr; warnings stay.
    os.environ.setdefault("RUST_LOG", "error")
    from pysail.spark import SparkConnectServer

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    try:
        # The server stops when its object is collected, so this frame keeps it.
        ip, port = server.listening_address
        yield f"sc://{ip}:{port}"
    finally:
        server.stop()


@contextmanager
def _connected(address: str) -> Iterator[SparkSession]:
    from grpc import RpcError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    from stock_lakehouse.resources.engine_loss import AskAgain

    _wait_for(address)
    # `create`, where dagster_pyspark's resource has `getOrCreate`: that may hand out this process's session of another
    # server, and stopping it here would stop it there.
    try:
        session = SparkSession.builder.remote(address).create()
        session.client.set_retry_policies([AskAgain()])
        for name, value in SESSION_SETTINGS.items():
            session.conf.set(name, value)
        session.range(1).count()
    except (PySparkException, RpcError) as error:
        # The address may hold a token, so neither it nor the client's message is repeated.
        raise EngineError(
            f"no Spark Connect server answers ({type(error).__name__}); check {REMOTE_VARIABLE} and the network"
        ) from None
    try:
        yield session
    finally:
        session.stop()


def _wait_for(address: str) -> None:
    """Return when a server answers at `address`. Raises EngineError after ANSWER_SECONDS: PySpark itself would ask again for
    ten minutes."""
    import grpc
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import DefaultChannelBuilder

    try:
        with DefaultChannelBuilder(address).toChannel() as channel:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        # The address may hold a token, so it is not repeated.
        raise EngineError(
            f"no Spark Connect server answered within {ANSWER_SECONDS:.0f} s; check {REMOTE_VARIABLE} and the network"
        ) from None
    except PySparkException as error:
        raise EngineError(
            f"{REMOTE_VARIABLE} is not an address like sc://host:15002 ({error.getCondition()})"
        ) from None


@dataclass
class _Shared:
    """The session of this process for one engine, and how many resources use it."""

    stack: ExitStack
    session: SparkSession
    users: int = 0


_shared: dict[str, _Shared] = {}
_lock = threading.Lock()


class SparkResource(dg.ConfigurableResource[Any]):
    """The engine of a run: one session, started at its first use, stopped with the run.

    Dagster copies a resource for each resource it is nested in; the copies share one session of the process, since frames of
    different sessions cannot be joined.
    """

    engine: str
    _session: Any = PrivateAttr(default=None)

    @property
    def session(self) -> SparkSession:
        """The session. Raises EngineError when the engine does not start."""
        if self._session is None:
            with _lock:
                if self.engine not in _shared:
                    stack = ExitStack()
                    # Read here and not from a resource's config, which the UI shows: the address may hold a token.
                    remote = os.environ.get(REMOTE_VARIABLE)
                    _shared[self.engine] = _Shared(stack, stack.enter_context(spark_session(self.engine, remote)))
                _shared[self.engine].users += 1
                self._session = _shared[self.engine].session
        session: SparkSession = self._session
        return session

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._session is None:
            return
        self._session = None
        with _lock:
            shared = _shared[self.engine]
            shared.users -= 1
            if shared.users == 0:
                del _shared[self.engine]
                shared.stack.close()
