"""The IO manager of raw: landed rows, loaded as a DataFrame of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.io_managers.metadata import files_read, preview
from stock_lakehouse.io_managers.records import raw_counts, record, rows_of_partitions
from stock_lakehouse.io_managers.table import ReadByJob, layer_of, rows_for
from stock_lakehouse.resources.lakehouse import LakehouseResource

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.sources.download import Download


class RawCsvIOManager(dg.ConfigurableIOManager):
    """Loads the landed rows of the run's tickers and years as a DataFrame of text.

    The rows of a `Download` land in the step itself (layers/raw.py). `handle_output` only records metadata of the landing.
    """

    lakehouse: LakehouseResource

    def handle_output(self, context: dg.OutputContext, obj: Download) -> None:
        house, landing = self.lakehouse, obj.landing
        keys = context.asset_partition_keys
        rectangle, stored = house.rectangle(keys), house.lake.raw
        sizes = stored.sizes()
        facts: dict[str, Any] = {
            "bytes": sum(sizes),
            "files": len(sizes),
            "location": dg.MetadataValue.path(stored.location),
            **landing.counts,
            "landed files": landing.files,
        }
        if obj.files:
            facts["files read"] = files_read(obj)
        rows = None
        if not house.is_job(rectangle):  # a run of jobs opens no session here
            facts["preview"] = preview(stored.read_arrow(rectangle.tickers[:1], rectangle.years[-1:]))
            rows = rows_of_partitions(house, raw_counts(house, rectangle), keys)
        record(context, facts, rows, landing.landed > 0)

    def load_input(self, context: dg.InputContext) -> DataFrame | ReadByJob:
        house = self.lakehouse
        if not context.has_asset_partitions:
            return house.lake.raw.read(house.session)
        rectangle = house.rectangle(context.asset_partition_keys)
        if (layer := layer_of(context)) is not None:
            return rows_for(layer, house, rectangle)
        return house.lake.raw.read(house.session, rectangle.tickers, rectangle.read_years)
