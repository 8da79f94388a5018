"""Databricks jobs through Dagster Pipes, for a layer or the stream: what is submitted, and what is reported back.

Here: Dagster's side. Not here: what the job does (databricks_jobs/), and whether a run uses jobs (resources/lakehouse.py).
"""

from __future__ import annotations

import base64
import importlib.resources
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse import __version__
from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.engines import EngineError
from stock_lakehouse.engines.databricks import SERVERLESS_VERSION, workspace
from stock_lakehouse.lake.stream_table import StreamRefusedError
from stock_lakehouse.streams.order import StreamOrder
from stock_lakehouse.streams.structured import NAMED, StreamQueryError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service import jobs

    from stock_lakehouse.settings import Databricks

SERVERLESS = "serverless compute"
SCRIPT = "publish_layer.py"
ENVIRONMENT = "stock_lakehouse"
POLL_SECONDS = 5.0
READ_SECONDS = 5.0


class JobError(EngineError):
    """A Databricks job was rejected or failed. The message repeats the workspace's reason."""


def publish_by_job(context: dg.AssetExecutionContext, order: Order, databricks: Databricks) -> Iterator[Any]:
    """Run `order` as a Databricks job and wait for it; yield its check results and its materialization.

    Cancelling the run cancels the job. Raises JobError when the job fails, dg.Failure when a check blocked the publish.
    """
    published = False
    for result in _run(context, order, databricks).get_results(implicit_materializations=False):
        published = published or isinstance(result, dg.MaterializeResult)
        yield result
    if not published:
        raise dg.Failure(
            f"{order.name}: the job published nothing; its log and the failed check give the reason",
            allow_retries=False,
        )


def stream_by_job(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, order: StreamOrder, databricks: Databricks
) -> dict[str, Any]:
    """Run `order` as a Databricks job and wait for it; return its summary. Cancelling the run cancels the job.

    Raises the error of the stream by which the job ended, and JobError when the job fails.
    """
    if order.follows and databricks.job_compute == SERVERLESS:
        raise StreamQueryError(
            "databricks: serverless compute knows no query that stays; set databricks.job_cluster or databricks.cluster_id, or "
            "use `stream drain`"
        )
    for message in _run(context, order, databricks).get_custom_messages():
        if "done" in message:
            summary: dict[str, Any] = message["done"]
            return summary
        kind = "refused" if "refused" in message else "failed"
        name, text = message[kind]
        raise NAMED.get(name, StreamRefusedError if kind == "refused" else StreamQueryError)(text)
    raise JobError(f"{order.name}: the job ended without a word; its log in the workspace gives the reason")


def _run(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, order: Order | StreamOrder, databricks: Databricks
) -> Any:
    """Submit `order` and wait for the end of its job; return what it reported. Raises JobError."""
    from dagster._core.errors import DagsterPipesExecutionError
    from databricks.sdk.errors.base import DatabricksError

    client = workspace(databricks)
    try:
        task, arguments = _task(order, databricks, _put_script(client, databricks.workspace_folder))
        with warnings.catch_warnings():
            # After a cancelled job `run` continues as if it had succeeded; `run_multi_task`, a preview, raises.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return _pipes_client(client, databricks).run_multi_task(
                context=context, extras=order.extras(), tasks=[task], submit_args=arguments
            )
    except (DatabricksError, DagsterPipesExecutionError) as error:
        raise JobError(
            f"{order.name}: the Databricks job failed: {error}; the run's log has the job's output"
        ) from error


def _put_script(client: WorkspaceClient, folder: str) -> str:
    """Upload the job's script to `folder` of the workspace; return its path."""
    from databricks.sdk.service.workspace import ImportFormat

    path = f"{folder}/{SCRIPT.removesuffix('.py')}_{__version__}.py"
    script = importlib.resources.files("stock_lakehouse.databricks_jobs").joinpath(SCRIPT).read_bytes()
    client.workspace.mkdirs(folder)
    client.workspace.import_(path, content=base64.b64encode(script).decode(), format=ImportFormat.AUTO, overwrite=True)
    return path


def _task(order: Order | StreamOrder, databricks: Databricks, script: str) -> tuple[jobs.SubmitTask, dict[str, Any]]:
    """The task and the other arguments of the submission: for a new cluster, the cluster of the settings, or serverless."""
    from databricks.sdk.service import compute, jobs

    # 0: a job that follows the stream ends when it is cancelled.
    seconds = 0 if isinstance(order, StreamOrder) and order.follows else int(databricks.job_minutes * 60)
    task: dict[str, Any] = {
        "task_key": order.name,
        "spark_python_task": jobs.SparkPythonTask(python_file=script, source=jobs.Source.WORKSPACE),
        "timeout_seconds": seconds,
    }
    arguments: dict[str, Any] = {"run_name": f"{ENVIRONMENT} {order.name} {order.run_id}", "timeout_seconds": seconds}
    if databricks.job_cluster or databricks.cluster_id:
        if databricks.job_cluster:
            task["new_cluster"] = compute.ClusterSpec.from_dict(databricks.job_cluster)
        else:
            task["existing_cluster_id"] = databricks.cluster_id
        if databricks.wheel:
            task["libraries"] = [compute.Library(whl=databricks.wheel)]
    else:
        task["environment_key"] = ENVIRONMENT
        spec = compute.Environment(environment_version=SERVERLESS_VERSION, dependencies=[databricks.wheel or ""])
        arguments["environments"] = [jobs.JobEnvironment(ENVIRONMENT, spec=spec)]
    return jobs.SubmitTask(**task), arguments


def _pipes_client(client: WorkspaceClient, databricks: Databricks) -> Any:
    from dagster_databricks import PipesDatabricksClient
    from dagster_databricks.pipes import (
        PipesDatabricksServerlessClient,
        PipesUnityCatalogVolumesContextInjector,
        PipesUnityCatalogVolumesMessageReader,
    )

    messages = databricks.messages or ""
    exchange: dict[str, Any]
    if messages.startswith("s3://"):
        import boto3
        from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

        bucket, s3 = messages.removeprefix("s3://").rstrip("/"), boto3.client("s3")
        exchange = {
            "context_injector": PipesS3ContextInjector(bucket=bucket, client=s3),
            "message_reader": PipesS3MessageReader(
                bucket=bucket, client=s3, interval=READ_SECONDS, include_stdio_in_messages=True
            ),
        }
    else:
        exchange = {
            "context_injector": PipesUnityCatalogVolumesContextInjector(client=client, volume_path=messages),
            "message_reader": PipesUnityCatalogVolumesMessageReader(
                client=client, volume_path=messages, interval=READ_SECONDS
            ),
        }
    if databricks.job_cluster or databricks.cluster_id:
        return PipesDatabricksClient(client=client, poll_interval_seconds=POLL_SECONDS, **exchange)
    return PipesDatabricksServerlessClient(
        client=client, volume_path=messages, poll_interval_seconds=POLL_SECONDS, **exchange
    )
