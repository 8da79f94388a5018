"""A session over a Spark Connect channel: its settings, its start and its end.

Not here: which server is behind the channel (__init__.py, databricks.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from stock_lakehouse import __version__
from stock_lakehouse.engines.errors import EngineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PRODUCT = "stock_lakehouse"
USER_AGENT = f"{PRODUCT}/{__version__}"

ANSWER_SECONDS = 30.0

# Settings that change results. Every session sets them, because a server may have other defaults.
SESSION_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Spark's default is INT96, which other readers interpret as nanoseconds without a time zone.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Dates before 1582 are written and read without rebasing. Staged rows can hold any date that was delivered.
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    # Delta refuses replaceWhere when partitions are overwritten dynamically.
    "spark.sql.sources.partitionOverwriteMode": "STATIC",
    # Only `DeltaTable.prepare` adds columns.
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    # A publish is exactly one commit; a compaction would add another.
    "spark.databricks.delta.autoCompact.enabled": "false",
    # Writes one file per ticker and year, as Sail does, instead of one per task.
    "spark.databricks.delta.optimizeWrite.enabled": "true",
    # Rows outside the predicate are an error.
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "true",
}

Say = Callable[[str], None]
logger = logging.getLogger(__name__)


@contextmanager
def connected(builder: Any, advice: str, options: Mapping[str, str] = MappingProxyType({})) -> Iterator[SparkSession]:
    """A session over the channel of `builder` (a PySpark ChannelBuilder) with SESSION_SETTINGS; it is stopped at the end.

    `options`: further settings of the session, from its start.

    Raises EngineError, with `advice` in its message, when no server answers.
    """
    from grpc import RpcError
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    # It imports PySpark's client, which with pandas is a third of what the code location takes to load.
    from stock_lakehouse.engines.loss import BoundedRetryPolicy

    builder.set(builder.PARAM_USER_AGENT, USER_AGENT)
    _wait_for(builder, advice)
    # SparkSession.builder.remote sets this too: pyspark.sql.functions then build Spark Connect expressions.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    with ExitStack() as stack:
        try:
            # `create`, unlike the `getOrCreate` of dagster_pyspark's resource, never returns a session of this process that
            # belongs to another server; stopping such a session here would stop it for its other users. The resource
            # does not accept a channel builder either.
            session = cast(
                "SparkSession", ConnectSession.builder.channelBuilder(builder).config(map=dict(options)).create()
            )
            stack.callback(_stop, session)
            session.client.set_retry_policies([BoundedRetryPolicy()])
            apply_settings(session)
            session.range(1).count()
        except (PySparkException, RpcError) as error:
            # The address and the client's message may contain a token, so neither is repeated.
            raise EngineError(f"no Spark Connect server answers ({type(error).__name__}); {advice}") from None
        yield session


def apply_settings(session: SparkSession) -> None:
    """Set SESSION_SETTINGS on `session`. A setting that the engine does not let be set, as on Databricks serverless, is read.

    Raises EngineError when such a setting has another value: results would differ from those of other engines.
    """
    from pyspark.errors import PySparkException

    for name, value in SESSION_SETTINGS.items():
        try:
            session.conf.set(name, value)
            continue
        except PySparkException as error:
            refusal = error.getCondition() or type(error).__name__
        try:
            actual = session.conf.get(name)
        except PySparkException:
            logger.warning("%s can be neither set nor read on this engine (%s)", name, refusal)
            continue
        if str(actual).lower() != value.lower():
            raise EngineError(
                f"the engine has {name} = {actual} and refuses {value} ({refusal}): its results would differ from "
                "those of other engines; set it on the cluster or the server"
            )


def _wait_for(builder: Any, advice: str) -> None:
    """Return when a server answers. Raises EngineError after ANSWER_SECONDS; PySpark itself would retry for ten minutes."""
    import grpc

    try:
        with builder.toChannel() as channel:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        # The address may contain a token, so it is not repeated.
        raise EngineError(f"no Spark Connect server answered within {ANSWER_SECONDS:.0f} s; {advice}") from None


def _stop(session: SparkSession) -> None:
    # PySpark releases the results of a query in a background thread. After the stop that thread finds no session, and
    # PySpark logs a warning.
    logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.ERROR)
    session.stop()
