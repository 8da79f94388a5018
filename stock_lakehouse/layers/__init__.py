"""The step of a layer, written once and without Dagster: read, compute, audit, publish, check.

An asset calls these parts one by one, because its frames come from an IO manager and go to one. A Databricks job calls `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.publish import LONG_LIST
from stock_lakehouse.lake.serving import SERVED, ServingCopy
from stock_lakehouse.layers import curated, features, processed
from stock_lakehouse.layers.serving import serve
from stock_lakehouse.layers.step import (
    INPUT_ATTEMPTS,
    Computed,
    InputMovedError,
    Step,
    facts_of,
    read_inputs,
    remember_inputs,
)
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, UNREADABLE, Table, upstream, written_in_step

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import Rectangle


@dataclass(frozen=True)
class Layer:
    """How a layer is computed from the upstream rows of the run's tickers.

    - compute: computes and audits the rows
    - reads: the tables from which the rows are computed
    - reads_all_years: True to read the upstream rows of all years; False to read those of the run's `read_years`
    - check_published: writes the serving copy of the published table, checks the table, and reports the results
    """

    compute: Callable[[Step, DataFrame], Computed]
    reads: tuple[Table, ...]
    reads_all_years: bool = True
    check_published: Callable[[Step], None] = lambda _: None


def _serve_curated(step: Step) -> None:
    serve(step, CURATED)


def _serve_and_check_features(step: Step) -> None:
    serve(step, FEATURES)
    features.check_published(step)


COMPUTED = {
    PROCESSED.name: Layer(processed.compute, processed.READS, reads_all_years=False),
    CURATED.name: Layer(curated.compute, curated.READS, check_published=_serve_curated),
    FEATURES.name: Layer(features.compute, features.READS, check_published=_serve_and_check_features),
}


def run(step: Step, table: Table) -> dict[str, Any]:
    """Run the whole step of `table`; return `facts_of` it. Raises one of BLOCKED, or InputMovedError after INPUT_ATTEMPTS."""
    layer = COMPUTED[table.name]
    attempt = 1
    while True:
        try:
            published = compute(step, table, read(step.lake, step.spark, table, step.asked)).publish(step)
        except InputMovedError:
            if attempt == INPUT_ATTEMPTS:
                raise
            attempt += 1
        else:
            layer.check_published(step)
            return facts_of(step, table, published)


def compute(step: Step, table: Table, frame: DataFrame) -> Computed:
    """Compute the step of `table` from `frame`, the upstream rows.

    Raises one of BLOCKED; and InputMovedError if a table that the step reads has changed meanwhile. An engine that reads a
    Parquet file while another run replaces it may also fail: its error then has the same cause.
    """
    from pyspark.errors import PySparkException

    layer = COMPUTED[table.name]
    inputs, tickers = step.inputs_of(frame, *layer.reads), [*step.asked.tickers, UNREADABLE]
    others = written_in_step(table)[1:]  # the step reads what they hold already; its own table only its publish reads
    beside = [step.lake.stored(written.name) for written in others if written.format == "parquet"]
    before = [stored.state(tickers) for stored in beside]
    try:
        return layer.compute(step, frame)
    except PySparkException as error:
        step.confirm(inputs)
        if [stored.state(tickers) for stored in beside] != before:
            raise InputMovedError(f"{table.name}: another run replaced files while they were read") from error
        raise


def read(lake: Lake, spark: SparkSession, table: Table, asked: Rectangle) -> DataFrame:
    """The upstream rows for the step of `table` in a run for `asked`. The state that they were read from is remembered."""
    layer = COMPUTED[table.name]
    inputs = read_inputs(lake, layer.reads, asked.tickers)
    layer_upstream = next(source for source in upstream(table) if source.has_step)
    frame = _served(lake, spark, layer_upstream, asked) if layer.reads_all_years else None
    if frame is None:
        years = None if layer.reads_all_years else asked.read_years
        frame = lake.stored(layer_upstream.name).read(spark, asked.tickers, years)
    remember_inputs(frame, inputs)
    return frame


def _served(lake: Lake, spark: SparkSession, table: Table, asked: Rectangle) -> DataFrame | None:
    """All rows of the run's tickers in the serving copy of `table`; None if there is none of the present version.

    It has a file per year, and the table one per ticker and year: for hundreds of tickers, opening these takes longer than all
    arithmetic on their rows. For few tickers the table has few files.
    """
    if table not in SERVED or len(asked.tickers) <= LONG_LIST or not lake.delta[table.name].exists():
        return None
    return ServingCopy(lake).frame(spark, table, lake.delta[table.name].snapshot(), asked.tickers)
