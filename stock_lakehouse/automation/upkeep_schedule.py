"""The weekly upkeep of the lake, as a job and its schedule.

Here: when it runs, and what it reports to Dagster. Not here: what upkeep does (stock_lakehouse/upkeep.py).
"""

from typing import Any

import dagster as dg

from stock_lakehouse.automation.jobs import role_tags
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.stream import StreamResource
from stock_lakehouse.resources.warehouse import WarehouseResource
from stock_lakehouse.upkeep import SAMPLE, Upkeep, facts, keep_up

JOB = "upkeep"
SCHEDULE = "upkeep_schedule"
SUNDAY_MORNING = "0 6 * * 0"  # most exchanges have no session then, nor for hours before and after


class UpkeepConfig(dg.Config):
    """The run config of the job; the defaults are those of the weekly run.

    - `check_only`: True checks the tables and changes nothing.
    - `sample`: the number of tickers whose figures are computed again and compared.
    """

    check_only: bool = False
    sample: int = SAMPLE


@dg.op(
    name="keep_up",
    out=dg.Out(dg.Nothing),
    description="Joins small files, writes checkpoints, removes versions beyond retention_days, and checks every table against "
    "its files, its schema and what is computed now; of a warehouse all rows are compared with the lake's. Fails if there are "
    "findings; each finding says what to do.",
)
def keep_up_op(
    context: dg.OpExecutionContext,
    config: UpkeepConfig,
    lakehouse: LakehouseResource,
    warehouse_service: WarehouseResource,
    stream_service: StreamResource,
) -> None:
    done = keep_up(
        lakehouse.lake,
        lakehouse.session,
        lakehouse.sessions,
        check_only=config.check_only,
        sample=config.sample,
        progress=context.log.info,
        warehouse=warehouse_service.warehouse,
        stream_hours=stream_service.kept_hours,
    )
    tell(context, done)


def tell(context: dg.OpExecutionContext, done: Upkeep) -> None:
    """Log an observation of each table with its figures and findings. Raises dg.Failure if there are findings."""
    for upkeep in done.tables:
        records = [dg.TableRecord({"what": finding.what, "to do": finding.todo}) for finding in upkeep.findings]
        found: dict[str, Any] = {"found": dg.MetadataValue.table(records)} if records else {}
        context.log_event(dg.AssetObservation(dg.AssetKey(upkeep.table), metadata={**facts(upkeep), **found}))
    if done.findings:
        lines = [f"{finding.table}: {finding.what}. To do: {finding.todo}" for finding in done.findings]
        raise dg.Failure("\n".join(lines), metadata={"findings": len(lines)}, allow_retries=False)


@dg.job(
    name=JOB,
    executor_def=dg.in_process_executor,
    tags=role_tags("upkeep"),
    description="The weekly upkeep of the lake.",
)
def upkeep_job() -> None:
    keep_up_op()


def upkeep_schedule(calendar: MarketCalendar) -> dg.ScheduleDefinition:
    """The schedule of the job: each Sunday morning in the exchange's time zone."""
    return dg.ScheduleDefinition(
        name=SCHEDULE,
        job=upkeep_job,
        cron_schedule=SUNDAY_MORNING,
        execution_timezone=calendar.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Runs the upkeep of the lake each Sunday morning.",
    )
