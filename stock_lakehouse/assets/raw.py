"""raw: requests rows from the source and lands new ones. Only this step can fail by the network, so only it is retried."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from stock_lakehouse.checks import (
    DELIVERY_CONSERVED,
    FILE_NAMES,
    ONE_ROW_A_SESSION,
    READJUSTED,
    SOURCE_COMPLETE,
    delivery_checks,
)
from stock_lakehouse.checks.files import FILES_READ, files_read
from stock_lakehouse.layers.raw import land
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.sources import Source
from stock_lakehouse.sources.download import Download
from stock_lakehouse.sources.file_report import file_lines
from stock_lakehouse.tables import RAW

# For a download in which every ticker failed. The source has retried each ticker several times before.
NETWORK_RETRIES = dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def raw_stocks_daily(retries: dg.RetryPolicy | None = None) -> dg.AssetsDefinition:
    """The asset. `retries`: its retry policy, if its source is behind a network."""

    @dg.asset(
        name=RAW.name,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="raw_csv",
        pool="source",  # each process counts the source's rate limit by itself, so one run at a time
        check_specs=[DELIVERY_CONSERVED, SOURCE_COMPLETE, ONE_ROW_A_SESSION, READJUSTED, FILE_NAMES, FILES_READ],
        retry_policy=retries,
    )
    def raw(
        context: dg.AssetExecutionContext, source: dg.ResourceParam[Source], lakehouse: LakehouseResource
    ) -> Iterator[Any]:
        asked = lakehouse.rectangle(context.partition_keys)
        download = Download(source, asked.tickers, asked.first, asked.last, lakehouse.lake_options.tickers)
        land(
            download,
            lakehouse.lake.raw,
            asked,
            run_id=context.run_id,
            now=lakehouse.now(),
            final_at=lakehouse.final_at,
            say=context.log.info,
        )
        for line in file_lines(download.files.values(), download.landing.by_file, download.known):
            context.log.info(line)
        yield dg.Output(download)
        yield from delivery_checks(download, lakehouse.lake.raw.strangers(in_flight=False))
        yield files_read(download)

    return raw
