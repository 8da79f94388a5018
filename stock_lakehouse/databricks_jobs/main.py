"""A job from end to end. Dagster Pipes delivers the order and takes back logs, check results and metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.engines import apply_settings, spark_session
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.layers import run
from stock_lakehouse.layers.step import BLOCKED, CheckResult, Step
from stock_lakehouse.streams import order as stream_order

if TYPE_CHECKING:
    import dagster_pipes
    from pyspark.sql import SparkSession

MESSAGE_SECONDS = 5.0


def main() -> None:
    """Execute Dagster's order: a layer for a rectangle, or the stream.

    If a check blocks a publish, the job ends with success but reports no materialization.
    """
    import dagster_pipes

    params: dagster_pipes.PipesParamsLoader = dagster_pipes.PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    if not params.is_dagster_pipes_process():  # a new cluster gets the parameters in its environment
        params = dagster_pipes.PipesEnvVarParamsLoader()  # type: ignore[no-untyped-call]
    with (
        dagster_pipes.open_dagster_pipes(params_loader=params, **_exchange(params)) as pipes,
        job_session() as spark,
    ):
        if pipes.extras.get("kind") == stream_order.KIND:
            from stock_lakehouse.databricks_jobs.stream import read_stream

            order = stream_order.StreamOrder.of(pipes.extras)
            pipes.log.info(f"{order.name}: {order.source}, Spark {spark.version}")
            pipes.report_custom_message(read_stream(order, spark, pipes.log.info))
        else:
            _publish(Order.of(pipes.extras), spark, pipes)


def _publish(order: Order, spark: SparkSession, pipes: dagster_pipes.PipesContext) -> None:
    def tell(result: CheckResult) -> None:
        pipes.report_asset_check(result.name, result.passed, result.severity, result.facts, result.table.name)

    pipes.log.info(
        f"{order.name}: {len(order.tickers)} tickers × {len(order.sessions):,} sessions, Spark {spark.version}"
    )
    try:
        metadata = publish(order, spark, tell, pipes.log.info)
    except BLOCKED as error:
        pipes.log.error(f"{error}; nothing was published")
        return
    pipes.log.info(
        f"{order.name}: {metadata['added']:,} rows added, {metadata['corrected']:,} corrected, "
        f"{metadata['withdrawn']:,} withdrawn"
    )
    pipes.report_asset_materialization(asset_key=order.name, metadata=metadata)


def publish(
    order: Order,
    spark: SparkSession,
    tell: Callable[[CheckResult], None],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run the step of the table that `order` names; return its metadata by name. Raises one of BLOCKED."""
    lake = Lake(order.lake_options, order.own_source)
    staging = Staging(lake.root)
    step = Step(lake, spark, staging, order.rectangle, order.run_id, order.ordered_at, tell, say, order.serves)
    try:
        return run(step, order.table)
    finally:
        staging.clear()


@contextmanager
def job_session() -> Iterator[SparkSession]:
    """The cluster's Spark session with this package's settings; outside Databricks, a session on the embedded engine."""
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        with spark_session("embedded") as spark:
            yield spark
        return
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.getOrCreate()
    apply_settings(spark)
    yield spark


def _exchange(params: dagster_pipes.PipesParamsLoader) -> dict[str, Any]:
    """The loader of the context and the writer of messages: on S3 if Dagster names a bucket, else in the folder of a volume."""
    import dagster_pipes

    if "bucket" not in params.load_messages_params():
        return {
            "context_loader": dagster_pipes.PipesUnityCatalogVolumesContextLoader(),
            "message_writer": dagster_pipes.PipesUnityCatalogVolumesMessageWriter(interval=MESSAGE_SECONDS),
        }
    import boto3

    client = boto3.client("s3")
    return {
        "context_loader": dagster_pipes.PipesS3ContextLoader(client),
        "message_writer": dagster_pipes.PipesS3MessageWriter(client, interval=MESSAGE_SECONDS),
    }
