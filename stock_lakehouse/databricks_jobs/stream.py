"""The job that reads the stream by Structured Streaming. Dagster Pipes delivers the order, and takes back what became of it.

Not here: the query and its batches (streams/), which are the same on a Spark Connect server.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stock_lakehouse.clock import clock_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import TableBusyError
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.lake.stream_table import StreamRefusedError
from stock_lakehouse.streams.live import update_live
from stock_lakehouse.streams.order import StreamOrder
from stock_lakehouse.streams.runner import StreamTimeoutError, run, summary_of
from stock_lakehouse.streams.structured import StructuredRunner, ordered_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

REFUSED, FAILED, DONE = "refused", "failed", "done"  # keys of what the job says at its end


def read_stream(order: StreamOrder, spark: SparkSession, say: Callable[[str], None]) -> dict[str, Any]:
    """Carry out `order`; return what became of it: DONE with a summary, or REFUSED or FAILED with the error's name and text.

    An order that follows the stream ends with its job.
    """
    began = time.monotonic()
    try:
        with ordered_runner(order, spark, clock_of(order.lake_options.simulated_clock)) as started:
            if order.follows:
                run(started, order.stream_settings.trigger_seconds, lambda: False, _reports(started, order, say))
            else:
                started.drain(order.minutes)
                if order.live:
                    _update_live(started, order)
            return {DONE: summary_of(started, time.monotonic() - began)}
    except StreamRefusedError as error:
        return {REFUSED: [type(error).__name__, str(error)]}
    except (LakeError, TableBusyError, PublishError, StreamTimeoutError) as error:
        return {FAILED: [type(error).__name__, str(error)]}


def _reports(started: StructuredRunner, order: StreamOrder, say: Callable[[str], None]) -> Callable[[], None]:
    """What is done beside the query: a line every `report_seconds`, live features every `live_seconds`."""
    settings, began = order.stream_settings, time.monotonic()
    next_line, next_live = began + settings.report_seconds, began + settings.live_seconds

    def report() -> None:
        nonlocal next_line, next_live
        if settings.live_seconds and time.monotonic() >= next_live:
            next_live = time.monotonic() + settings.live_seconds
            _update_live(started, order)
        if time.monotonic() >= next_line:
            next_line += settings.report_seconds
            say(f"{order.source}: {summary_of(started, time.monotonic() - began)}")

    return report


def _update_live(started: StructuredRunner, order: StreamOrder) -> None:
    lake = Lake(order.lake_options, order.own_source)
    update_live(lake, order.stream_settings.versions_hours, started.spark, started.clock())
