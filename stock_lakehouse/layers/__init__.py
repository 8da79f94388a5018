"""What the step of a layer does, once: read, compute, audit, publish, check. No Dagster here.

An asset takes these apart, since its frames come from an IO manager and go to one; a job on Databricks runs them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.layers import curated, features, processed
from stock_lakehouse.layers.step import INPUT_ATTEMPTS, Computed, InputMovedError, Step, facts_of
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, Table, upstream

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Layer:
    """How a layer is computed, from the rows upstream of the run's tickers: of the years that it reads, or of all years; and
    what is checked of the published table."""

    compute: Callable[[Step, DataFrame], Computed]
    reads_all_years: bool = True
    check_published: Callable[[Step], None] = lambda _: None


COMPUTED = {
    PROCESSED.name: Layer(processed.compute, reads_all_years=False),
    CURATED.name: Layer(curated.compute),
    FEATURES.name: Layer(features.compute, check_published=features.check_published),
}


def run(step: Step, table: Table) -> dict[str, Any]:
    """The whole step of `table`; what it did, by name. Raises one of BLOCKED, or InputMovedError after INPUT_ATTEMPTS."""
    layer = COMPUTED[table.name]
    attempt = 1
    while True:
        try:
            published = layer.compute(step, read(step, table)).publish(step)
        except InputMovedError:
            if attempt == INPUT_ATTEMPTS:
                raise
            attempt += 1
        else:
            layer.check_published(step)
            return facts_of(step, table, published)


def read(step: Step, table: Table) -> DataFrame:
    """The rows that the step of `table` computes from."""
    source = next(one for one in upstream(table) if one.has_step)
    years = None if COMPUTED[table.name].reads_all_years else step.asked.read_years
    return step.lake.stored(source.name).read(step.spark, step.asked.tickers, years)
