"""The assets of the stream: ticks and minute bars in one step, live features, reconciliation, losses. None has partitions.

Here: what the steps report. Not here: the work (streams/), and when they run (automation/stream.py).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.assets.reports import ROWS_SHOWN, as_table
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
# The columns of the rows that the UI shows.
BAR_COLUMNS = ("ticker", "minute", "open", "high", "low", "close", "volume", "events", "late_events", "state")
LIVE_COLUMNS = ("ticker", "close", "return_1d", "rsi_14", "sma_20", "sma_50", "as_of", "bar_state", "doubt")
COMPARED_COLUMNS = ("ticker", "date", "verdict", "minutes_present", "close_difference", "volume_ratio", "bar_status")


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
    from stock_lakehouse.streams.status import lag_of, newest_bars, waited_longest

    before = stream_service.status(0)
    if stream_service.is_job:
        counts = Counts.of(stream_service.by_job(context, minutes=DRAIN_MINUTES))
        with stream_service.tables() as (ticks, bars):
            checks, facts, rows = _facts_of(ticks, bars)
    else:
        with stream_service.running() as started:
            started.drain(DRAIN_MINUTES)
            counts = started.counts
            # Under the lock, so that no other runner is between ticks and bars.
            checks, facts, rows = _facts_of(started.ticks, started.bars)
    yield from checks
    after = stream_service.status(0)
    metadata: dict[str, Any] = {
        **counts.as_metadata(),
        **facts,
        "lag before": lag_of(before),
        "lag after": lag_of(after),
    }
    settings = stream_service.settings
    newest = newest_bars(stream_service.lakehouse.lake_options, settings.versions_hours, None, None, ROWS_SHOWN)
    shown = {"newest bars": as_table(newest.select(BAR_COLUMNS).to_pylist())} if newest.num_rows else {}
    yield dg.MaterializeResult(asset_key=RAW_TICKS.name, metadata={"dagster/row_count": rows, **metadata})
    yield dg.MaterializeResult(asset_key=MINUTE_BARS.name, metadata={**shown, **metadata})
    waited = waited_longest(after, stream_service.lakehouse.now())
    if waited > timedelta(seconds=stream_service.settings.lag_alert_seconds):
        raise dg.Failure(
            f"{after.source}: messages have been waiting for {waited.total_seconds():,.0f} s after the drain, more than "
            "lag_alert_seconds: they come faster than they are read; `stock-lakehouse stream status` shows where",
            allow_retries=False,
        )


def _facts_of(ticks: "TickTable", bars: "BarTable") -> tuple[list[dg.AssetCheckResult], dict[str, Any], int]:
    """The checks of the step, what the tables say after it, and the number of ticks, as of the handles."""
    watermark = ticks.watermark
    facts = {"open bars": bars.open_bars(), "watermark": "none" if watermark is None else watermark.isoformat()}
    return [conservation_of(ticks, bars), positions_of(ticks)], facts, ticks.row_count()


@dg.asset(name=LIVE_FEATURES.name, deps=[MINUTE_BARS.name, CURATED.name], pool=POOL)
def live_features(lakehouse: LakehouseResource, stream_service: StreamResource) -> dg.MaterializeResult[Any]:
    from stock_lakehouse.streams.live import update_live

    with stream_service.session() as spark:
        rows = update_live(lakehouse.lake, stream_service.settings.versions_hours, spark, lakehouse.now())
    states = rows["bar_state"].to_pylist()
    counts = {f"{state} bars": states.count(state) for state in sorted(set(states))}
    shown = {"rows": as_table(rows.select(LIVE_COLUMNS).slice(0, ROWS_SHOWN).to_pylist())} if rows.num_rows else {}
    return dg.MaterializeResult(metadata={**shown, "dagster/row_count": rows.num_rows, **counts})


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
    newest: dict[str, Any] = {}
    if sessions:
        of_newest = [row for row in rows.select(COMPARED_COLUMNS).to_pylist() if row["date"] == sessions[-1]]
        newest = {"newest session": str(sessions[-1]), "its rows": as_table(of_newest[:ROWS_SHOWN])}
    yield reconciled_of(rows.to_pylist())
    yield dg.MaterializeResult(metadata={**newest, "compared": rows.num_rows, "sessions": len(sessions), **counts})
