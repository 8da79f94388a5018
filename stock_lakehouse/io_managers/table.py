"""The IO manager of the Parquet and Delta tables: it loads and publishes PySpark DataFrames.

Here: the calls from Dagster. Not here: what a publish writes (layers/step.py, lake/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from stock_lakehouse.io_managers.metadata import blocked, computed_anew, lineage_of, pictures, preview
from stock_lakehouse.io_managers.records import counts_in, record, rows_of_partitions
from stock_lakehouse.layers import COMPUTED, read
from stock_lakehouse.layers.step import Computed, InputMovedError, Rows, facts_of
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.schemas.audit import AuditError
from stock_lakehouse.tables import BY_NAME, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.partitions import Rectangle


@dataclass(frozen=True)
class ReadByJob:
    """Placeholder for the input of a layer that a Databricks job computes: the job reads its rows itself."""


def _is_frame(_: object, value: object) -> bool:
    from pyspark.sql import DataFrame

    return isinstance(value, DataFrame | ReadByJob)


# The input type of a layer's asset. Dagster has no type for a union.
FRAME = dg.DagsterType(
    _is_frame, name="PySparkDataFrame", description="Rows of the layer upstream, of the run's tickers."
)


class TableIOManager(dg.ConfigurableIOManager):
    """Loads the rows of the run's tickers from a table, and publishes a frame, or the result of a layer's step, to it.

    The table is the one in tables.py with the asset's name. A loaded frame has all years. A published frame must have all rows of
    the run's tickers: rows of the run's keys are added, published rows are corrected or withdrawn, and ticker-years without a
    difference are not written.
    """

    lakehouse: LakehouseResource

    def handle_output(self, context: dg.OutputContext, obj: DataFrame | Computed) -> None:
        from pyspark.sql import DataFrame

        house, table = self.lakehouse, table_of(context.asset_key)
        rectangle = house.rectangle(context.asset_partition_keys)
        step = house.step(rectangle, context.run_id)
        is_own = isinstance(obj, DataFrame)  # of a user's asset: a lazy frame, which each reader computes again
        computed = Rows(table, obj) if isinstance(obj, DataFrame) else obj
        try:
            published = computed.publish(step)
        except AuditError as error:  # of the ledger's lines, which are known only after the comparison
            raise blocked(error) from error
        except InputMovedError as error:
            raise computed_anew(context, error) from error
        facts = facts_of(step, table, published)
        keys, stored = context.asset_partition_keys, step.lake.stored(table.name)
        # Inside the run's keys the table now holds what was computed, and staged files are read sooner than the table's.
        held = stored.read(house.session, rectangle.tickers, rectangle.read_years) if is_own else computed.frame
        recorded = record(
            context,
            {
                **facts,
                "location": dg.MetadataValue.path(facts["location"]),
                **pictures(step.lake, table, rectangle),
                "preview": preview(stored.read_arrow(rectangle.tickers[:1], rectangle.years[-2:])),
                "dagster/column_lineage": lineage_of(stored.table, step.lake.indicators),
            },
            rows_of_partitions(house, counts_in(held, table, rectangle), keys),
            published.changed,
        )
        context.log.info(
            f"{table.name}: {published.added:,} rows added, {published.corrected:,} corrected, "
            f"{published.withdrawn:,} withdrawn; {recorded:,} partitions recorded"
        )

    def load_input(self, context: dg.InputContext) -> DataFrame | ReadByJob:
        house, table = self.lakehouse, table_of(context.asset_key)
        stored = house.lake.stored(table.name)
        if not context.has_asset_partitions:
            return stored.read(house.session)
        rectangle = house.rectangle(context.asset_partition_keys)
        if (layer := layer_of(context)) is not None:
            return rows_for(layer, house, rectangle)
        return stored.read(house.session, rectangle.tickers)


def table_of(key: dg.AssetKey) -> Table:
    """The table of an asset. Raises dg.DagsterInvariantViolationError for an asset without a table."""
    name = key.path[-1]
    if name not in BY_NAME:
        raise dg.DagsterInvariantViolationError(
            f"{name}: no table of that name in stock_lakehouse/tables.py; add one, or give the asset another IO manager"
        )
    return BY_NAME[name]


def layer_of(context: dg.InputContext) -> Table | None:
    """The layer whose asset loads the input; None for any other asset."""
    name = context.op_def.name if context.op_def is not None else None
    return BY_NAME[name] if name in COMPUTED else None


def rows_for(layer: Table, house: LakehouseResource, rectangle: Rectangle) -> DataFrame | ReadByJob:
    """The upstream rows for the step of `layer`; a placeholder if a Databricks job runs the step."""
    return ReadByJob() if house.is_job(rectangle) else read(house.lake, house.session, layer, rectangle)
