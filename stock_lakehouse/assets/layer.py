"""The step of a layer in an asset: it is computed here, checked and passed to the IO manager, or run as a Databricks job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.checks import as_dagster
from stock_lakehouse.io_managers.metadata import blocked, computed_anew, lineage_of
from stock_lakehouse.io_managers.table import ReadByJob
from stock_lakehouse.layers import COMPUTED, compute
from stock_lakehouse.layers.step import BLOCKED, CheckResult, InputMovedError
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def layer_step(
    table: Table, context: dg.AssetExecutionContext, frame: DataFrame | ReadByJob, lakehouse: LakehouseResource
) -> Iterator[Any]:
    """Yield the check results and the output of the step of `table`, computed from `frame`, the rows of the upstream layer.

    Raises dg.Failure if a check blocks the publish. Then nothing is published, and nothing downstream runs.
    """
    if isinstance(frame, ReadByJob):
        lineage = lineage_of(lakehouse.lake.stored(table.name).table, lakehouse.lake.indicators)
        for result in lakehouse.publish_by_job(context, table):
            if isinstance(result, dg.MaterializeResult):
                yield result._replace(metadata={**(result.metadata or {}), "dagster/column_lineage": lineage})
            else:
                yield result
        return
    layer, results = COMPUTED[table.name], list[CheckResult]()
    step = lakehouse.step(lakehouse.rectangle(context.partition_keys), context.run_id, results.append, context.log.info)
    try:
        computed = compute(step, table, frame)
    except BLOCKED as error:
        yield from map(as_dagster, results)
        raise blocked(error) from None
    except InputMovedError as error:
        raise computed_anew(context, error) from error
    yield from map(as_dagster, results)
    yield dg.Output(computed)
    results.clear()
    layer.check_published(step)
    yield from map(as_dagster, results)
