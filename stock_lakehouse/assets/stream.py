"""The assets of the stream: ticks and minute bars in one step, live features, reconciliation, losses. None has partitions.

Here: what the steps report. Not here: the work (streams/), and when they run (automation/stream.py).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.checks.stream import (
    CONSERVATION,
    POSITIONS,
    RECONCILED,
    conservation_of,
    positions_of,
    reconciled_of,
)
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.stream import StreamResource
from stock_lakehouse.tables import CURATED, LIVE_FEATURES, MINUTE_BARS, RAW_TICKS, RECONCILIATION, STREAM_LOSSES

if TYPE_CHECKING:
    from stock_lakehouse.lake.bar_table import BarTable
    from stock_lakehouse.lake.tick_table import TickTable

POOL = "stream"
DRAIN_MINUTES = 60.0
COMPARED_DAYS = 30  # a correction of an official bar that is older does not change its verdict


def stream_assets() -> list[dg.AssetsDefinition]:
    """The assets of the stream."""
    return [stream_batches, live_features, minute_reconciliation, stream_losses]


# No run writes it: somebody accepts a loss with `stream drain --accept-loss`.
stream_losses = dg.AssetsDefinition(specs=[dg.AssetSpec(STREAM_LOSSES.name)])


@dg.multi_asset(
    name="stream_batches",
    specs=[dg.AssetSpec(RAW_TICKS.name), dg.AssetSpec(MINUTE_BARS.name, deps=[RAW_TICKS.name])],
    check_specs=[CONSERVATION, POSITIONS],
    pool=POOL,
)
def stream_batches(context: dg.AssetExecutionContext, stream_service: StreamResource) -> Iterator[Any]:
    from stock_lakehouse.streams.runner import Counts
    from stock_lakehouse.streams.status import lag_of, waited_longest

    before = stream_service.status(0)
    if stream_service.is_job:
        counts = Counts.of(stream_service.by_job(context, minutes=DRAIN_MINUTES))
        with stream_service.tables() as (ticks, bars):
            checks, facts = _facts_of(ticks, bars)
    else:
        with stream_service.running() as started:
            started.drain(DRAIN_MINUTES)
            counts = started.counts
            # Under the lock, so that no other runner is between ticks and bars.
            checks, facts = _facts_of(started.ticks, started.bars)
    yield from checks
    after = stream_service.status(0)
    metadata: dict[str, Any] = {
        **counts.as_metadata(),
        **facts,
        "lag before": lag_of(before),
        "lag after": lag_of(after),
    }
    for table in (RAW_TICKS, MINUTE_BARS):
        yield dg.MaterializeResult(asset_key=table.name, metadata=metadata)
    waited = waited_longest(after, stream_service.lakehouse.now())
    if waited > timedelta(seconds=stream_service.settings.lag_alert_seconds):
        raise dg.Failure(
            f"{after.source}: messages have been waiting for {waited.total_seconds():,.0f} s after the drain, more than "
            "lag_alert_seconds: they come faster than they are read; `stock-lakehouse stream status` shows where",
            allow_retries=False,
        )


def _facts_of(ticks: "TickTable", bars: "BarTable") -> tuple[list[dg.AssetCheckResult], dict[str, Any]]:
    """The checks of the step, and what the tables say after it, as of their handles."""
    watermark = ticks.watermark
    facts = {"open bars": bars.open_bars(), "watermark": "none" if watermark is None else watermark.isoformat()}
    return [conservation_of(ticks, bars), positions_of(ticks)], facts


@dg.asset(name=LIVE_FEATURES.name, deps=[MINUTE_BARS.name, CURATED.name], pool=POOL)
def live_features(lakehouse: LakehouseResource, stream_service: StreamResource) -> dg.MaterializeResult[Any]:
    from stock_lakehouse.streams.live import update_live

    with stream_service.session() as spark:
        rows = update_live(lakehouse.lake, stream_service.settings.versions_hours, spark, lakehouse.now())
    states = rows["bar_state"].to_pylist()
    counts = {f"{state} bars": states.count(state) for state in sorted(set(states))}
    return dg.MaterializeResult(metadata={"dagster/row_count": rows.num_rows, **counts})


@dg.asset(name=RECONCILIATION.name, deps=[MINUTE_BARS.name, CURATED.name], pool=POOL, check_specs=[RECONCILED])
def minute_reconciliation(lakehouse: LakehouseResource, stream_service: StreamResource) -> Iterator[Any]:
    from stock_lakehouse.streams.reconciliation import reconcile

    now = lakehouse.now()
    first = (now - timedelta(days=COMPARED_DAYS)).date()
    with stream_service.session() as spark:
        rows = reconcile(lakehouse.lake, stream_service.settings, spark, now, first)
    verdicts = rows["verdict"].to_pylist()
    counts = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
    sessions = sorted(set(rows["date"].to_pylist()))
    newest = {"newest session": str(sessions[-1])} if sessions else {}
    yield reconciled_of(rows.to_pylist())
    yield dg.MaterializeResult(metadata={"compared": rows.num_rows, "sessions": len(sessions), **newest, **counts})
