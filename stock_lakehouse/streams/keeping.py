"""Upkeep of the stream's tables beside the runner's own: small files, old versions, damaged files.

Everything that writes does so under the stream's lock; beside a runner, which does the same itself, nothing is done. Not here:
what a finding says (stock_lakehouse/upkeep.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.lake.delta_table import DeltaTable, adds_of
from stock_lakehouse.lake.lock import TableBusyError, one_writer
from stock_lakehouse.lake.maintenance import drop
from stock_lakehouse.lake.stored import Damage
from stock_lakehouse.lake.stream_table import LOCK, StreamTable
from stock_lakehouse.lake.tick_table import TickTable
from stock_lakehouse.tables import MINUTE_BARS, STREAM_TABLES


def damages_of_stream(lake: Lake) -> dict[str, list[Damage]]:
    """The missing or damaged files of each stream table that exists."""
    tables = {table.name: DeltaTable(lake.options, table) for table in STREAM_TABLES}
    return {name: table.damages() for name, table in tables.items() if table.exists()}


def tend_stream(lake: Lake, versions_hours: int, now: datetime) -> bool:
    """Join small files of ticks and bars, and remove old versions; False, and nothing is done, beside a runner."""
    try:
        with one_writer(lake.root, LOCK, wait_seconds=0):
            tables: Sequence[StreamTable] = (
                TickTable(lake.options, versions_hours),
                BarTable(lake.options, versions_hours),
            )
            for table in tables:
                if table.exists():
                    table.begin()
                    days = sorted({str(add["partition.trade_date"]) for add in adds_of(table.handle)})
                    if days:
                        table.join_files([("trade_date", "in", days)])
                    table.remove_old(now)
    except TableBusyError:
        return False
    return True


def drop_damaged_bars(lake: Lake) -> int:
    """Take damaged files out of minute_bars, under the stream's lock; return their number. Raises TableBusyError."""
    with one_writer(lake.root, LOCK, wait_seconds=0):
        damages = damages_of_stream(lake).get(MINUTE_BARS.name, [])
        if damages:
            drop(lake, MINUTE_BARS, damages)
        return len(damages)
