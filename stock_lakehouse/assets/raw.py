"""raw: ask the source, land what is new."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from stock_lakehouse.checks import DELIVERY_CONSERVED, FILE_NAMES, SOURCE_COMPLETE, delivery_checks
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.sources import Download, Source


@dg.asset(
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="raw_csv",
    pool="source",  # its rate limit is a process's own, so one run at a time
    check_specs=[DELIVERY_CONSERVED, SOURCE_COMPLETE, FILE_NAMES],
)
def raw_stocks_daily(
    context: dg.AssetExecutionContext, source: dg.ResourceParam[Source], lakehouse: LakehouseResource
) -> Iterator[Any]:
    asked = lakehouse.rectangle(context.partition_keys)
    download = Download(source, asked.tickers, asked.first, asked.last)
    yield dg.Output(download)
    yield from delivery_checks(download, lakehouse.lake.raw.strangers())
