"""Engines: a Spark session on embedded Sail, on a Spark Connect server or on Databricks, with the same settings everywhere.

Here: how a session starts, what it must hold, how it ends. No Dagster, which a Databricks job does not have. Not here: anything
done with a session.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from stock_lakehouse import __version__

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stock_lakehouse.settings import Databricks

REMOTE_VARIABLE = "STOCK_LAKEHOUSE_SPARK_REMOTE"
PRODUCT = "stock_lakehouse"
USER_AGENT = f"{PRODUCT}/{__version__}"

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

Say = Callable[[str], None]
logger = logging.getLogger(__name__)


class EngineError(Exception):
    """The engine does not start or cannot be used; the message says what to change."""


def spark_session(
    engine: str, remote: str | None = None, databricks: Databricks | None = None, say: Say = logger.info
) -> AbstractContextManager[SparkSession]:
    """A session on `engine`, stopped at the end: `embedded`; `spark_connect` at the address `remote` (sc://host:port); or
    `databricks`, as the settings of that name say. `say` hears what a long wait waits for.

    Raises EngineError when there is none to be had, or one that would not give the same results.
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
    with _embedded_server() as address, connected(DefaultChannelBuilder(address), ask_doctor) as spark:
        yield spark


@contextmanager
def _spark_connect(remote: str | None) -> Iterator[SparkSession]:
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import DefaultChannelBuilder

    from stock_lakehouse.engines.workers import check_workers

    if not remote:
        raise EngineError(f"{REMOTE_VARIABLE} is not set: the address of a server, like sc://localhost:15002")
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
def connected(builder: Any, advice: str) -> Iterator[SparkSession]:
    """A session over the channel of `builder` (a PySpark ChannelBuilder) that holds SESSION_SETTINGS; stopped at the end.

    Raises EngineError, with `advice`, when no server answers.
    """
    from grpc import RpcError
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    from stock_lakehouse.engines.loss import AskAgain

    builder.set(builder.PARAM_USER_AGENT, USER_AGENT)
    _wait_for(builder, advice)
    # What SparkSession.builder.remote sets too: pyspark.sql.functions then make expressions of Spark Connect.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    with ExitStack() as stack:
        try:
            # `create`, where dagster_pyspark's resource has `getOrCreate`: that may hand out this process's session of another
            # server, and stopping it here would stop it there. It takes no channel builder either.
            session = cast("SparkSession", ConnectSession.builder.channelBuilder(builder).create())
            stack.callback(_stop, session)
            session.client.set_retry_policies([AskAgain()])
            apply_settings(session)
            session.range(1).count()
        except (PySparkException, RpcError) as error:
            # The address may hold a token, so neither it nor the client's message is repeated.
            raise EngineError(f"no Spark Connect server answers ({type(error).__name__}); {advice}") from None
        yield session


def apply_settings(session: SparkSession) -> None:
    """Set SESSION_SETTINGS; where the engine lets one not be set, as Databricks serverless does, hold what it has against it.

    Raises EngineError when it has another value: results would differ from other engines'.
    """
    from pyspark.errors import PySparkException

    for name, value in SESSION_SETTINGS.items():
        try:
            session.conf.set(name, value)
            continue
        except PySparkException as error:
            refusal = error.getCondition() or type(error).__name__
        try:
            found = session.conf.get(name)
        except PySparkException:
            logger.warning("%s can be neither set nor read on this engine (%s)", name, refusal)
            continue
        if str(found).lower() != value.lower():
            raise EngineError(
                f"the engine holds {name} = {found} and lets it not be set to {value} ({refusal}): its results would "
                "differ; have it set on the cluster or the server"
            )


def _wait_for(builder: Any, advice: str) -> None:
    """Return when a server answers. Raises EngineError after ANSWER_SECONDS: PySpark itself would ask again for ten minutes."""
    import grpc

    try:
        with builder.toChannel() as channel:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        # The address may hold a token, so it is not repeated.
        raise EngineError(f"no Spark Connect server answered within {ANSWER_SECONDS:.0f} s; {advice}") from None


def _stop(session: SparkSession) -> None:
    # The results of a query are released by a thread of their own, which after the stop finds no session; PySpark logs that
    # as a warning.
    logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.ERROR)
    session.stop()
