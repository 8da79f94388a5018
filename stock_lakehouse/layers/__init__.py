"""What the step of a layer does, once: read, compute, audit, publish, check. No Dagster here.

An asset takes these apart, since its frames come from an IO manager and go to one; a job on Databricks runs them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.layers import curated, features, processed
from stock_lakehouse.layers.step import (
    INPUT_ATTEMPTS,
    Computed,
    InputMovedError,
    Step,
    facts_of,
    read_inputs,
    remember_inputs,
)
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, Table, upstream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import Rectangle


@dataclass(frozen=True)
class Layer:
    """How a layer is computed from the rows upstream of the run's tickers.

    - reads: the tables that its rows are computed from
    - reads_all_years: or those of the run's years and the days before each session
    - check_published: tells the checks of the published table
    """

    compute: Callable[[Step, DataFrame], Computed]
    reads: tuple[Table, ...]
    reads_all_years: bool = True
    check_published: Callable[[Step], None] = lambda _: None


COMPUTED = {
    PROCESSED.name: Layer(processed.compute, processed.READS, reads_all_years=False),
    CURATED.name: Layer(curated.compute, curated.READS),
    FEATURES.name: Layer(features.compute, features.READS, check_published=features.check_published),
}


def run(step: Step, table: Table) -> dict[str, Any]:
    """The whole step of `table`; what it did, by name. Raises one of BLOCKED, or InputMovedError after INPUT_ATTEMPTS."""
    layer = COMPUTED[table.name]
    attempt = 1
    while True:
        try:
            published = layer.compute(step, read(step.lake, step.spark, table, step.asked)).publish(step)
        except InputMovedError:
            if attempt == INPUT_ATTEMPTS:
                raise
            attempt += 1
        else:
            layer.check_published(step)
            return facts_of(step, table, published)


def read(lake: Lake, spark: SparkSession, table: Table, asked: Rectangle) -> DataFrame:
    """The rows that the step of `table` computes from, in a run for `asked`; what they were read from is remembered."""
    layer = COMPUTED[table.name]
    inputs = read_inputs(lake, layer.reads, asked.tickers)
    source = next(source for source in upstream(table) if source.has_step)
    frame = lake.stored(source.name).read(spark, asked.tickers, None if layer.reads_all_years else asked.read_years)
    remember_inputs(frame, inputs)
    return frame
