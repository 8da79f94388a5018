"""A session over a Spark Connect channel: the settings that it must hold, how it starts and how it ends.

Not here: which server is behind the channel (__init__.py, databricks.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from stock_lakehouse import __version__
from stock_lakehouse.engines.errors import EngineError
from stock_lakehouse.engines.loss import AskAgain

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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


@contextmanager
def connected(builder: Any, advice: str) -> Iterator[SparkSession]:
    """A session over the channel of `builder` (a PySpark ChannelBuilder) that holds SESSION_SETTINGS; stopped at the end.

    Raises EngineError, with `advice`, when no server answers.
    """
    from grpc import RpcError
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.session import SparkSession as ConnectSession

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
