"""The stream by a Databricks job from a command: a small Dagster run in this process, which Pipes needs. It leaves no record.

Not here: the job (databricks_jobs/stream.py), and the commands (cli/stream.py).
"""

from collections.abc import Callable
from typing import Any

import dagster as dg

from stock_lakehouse.automation.jobs import PROGRESS, progress_logger
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.stream import StreamResource
from stock_lakehouse.runs.run import listening
from stock_lakehouse.settings import Settings


def stream_job_run(settings: Settings, progress: Callable[[str], None], **asked: Any) -> dict[str, Any]:
    """Read the stream by a Databricks job; return its summary. An interrupt cancels the job.

    `asked`: what `StreamResource.by_job` takes. `progress`: called with each line of the job. Raises the errors of `by_job`.
    """
    service = StreamResource.of(settings, LakehouseResource.of(settings))

    @dg.op
    def stream(context: dg.OpExecutionContext, stream_service: StreamResource) -> dict[str, Any]:
        return stream_service.by_job(context, **asked)

    @dg.job(
        resource_defs={"stream_service": service},
        logger_defs={PROGRESS: progress_logger},
        executor_def=dg.in_process_executor,
    )
    def stream_job() -> None:
        stream()

    with listening(progress), dg.DagsterInstance.ephemeral() as instance:
        result = stream_job.execute_in_process(instance=instance, run_config={"loggers": {PROGRESS: {}}})
        summary: dict[str, Any] = result.output_for_node("stream")
        return summary
