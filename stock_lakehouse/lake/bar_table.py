"""minute_bars: kept equal to what the ticks say, minute by minute.

Here: which minutes are computed anew after a batch, and the merge of their bars. Not here: what a bar is
(transforms/minute_bars.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_table import adds_of
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.lake.stream_table import FencedError, StreamTable
from stock_lakehouse.lake.tick_table import (
    EPOCH,
    KEY,
    TickTable,
    instant_of,
    microseconds_of,
    minutes_in,
)
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import MINUTE_BARS

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa

    Compute = Callable[[pa.Table, datetime], pa.Table]  # ticks, watermark → bars

BARS, FINAL = "bars", "final"  # numbers of the log: the newest batch that is in, and the watermark of then
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class BarUpdate:
    """What an update did.

    - computed: bars that were computed anew
    - inserted: bars of minutes that had none
    - events, duplicates: of the ticks of the batches that came in
    """

    computed: int = 0
    inserted: int = 0
    events: int = 0
    duplicates: int = 0


class BarTable(StreamTable):
    """The table minute_bars."""

    def __init__(self, options: LakeOptions | LakeRoot, versions_hours: int) -> None:
        super().__init__(options, MINUTE_BARS, versions_hours, BARS)

    @property
    def batch(self) -> int:
        """The newest batch whose ticks are in the bars; 0 before the first."""
        return self.number(BARS) or 0

    def update(self, ticks: TickTable, after: int, compute: Compute, touched: pa.Table | None = None) -> BarUpdate:
        """Compute anew the minutes of the batches after `after`, and those that become final, from all their ticks.

        `touched`: the rows of these batches, if the caller has them. Raises FencedError if another runner's bars came in between,
        StorageError, and PublishError if `compute` gives another number of bars than there are minutes.
        """
        minutes = self.due(ticks, after, touched)
        if not minutes.num_rows:
            self.put(self.no_rows(), 0, ticks)
            return BarUpdate()
        found = ticks.ticks_of(minutes)
        bars = compute(found, ticks.watermark or EPOCH)
        inserted = self.put(bars, minutes.num_rows, ticks)
        return BarUpdate(bars.num_rows, inserted, *_events_since(found, after))

    def due(self, ticks: TickTable, after: int, touched: pa.Table | None = None) -> pa.Table:
        """The ticker-minutes (KEY) whose bars `update` computes anew. Raises FencedError as `update` does."""
        # Before the ticks are read: bars that are merged from now on make this merge fail, and earlier ones show here. Without
        # this, a runner that was frozen between ticks and bars would lay old values over new ones.
        self.begin()
        if self.batch > after:
            raise FencedError(
                f"minute_bars: batch {after + 1} is in already, so another runner is at work and nothing was written; "
                "`stock-lakehouse stream status` names it"
            )
        return self._minutes(ticks, after, ticks.watermark or EPOCH, touched)

    def put(self, bars: pa.Table, expected: int, ticks: TickTable) -> int:
        """Merge `bars`, all that are due as of `ticks`; return the number of those whose minute had none.

        Raises PublishError if they are not `expected` bars, FencedError, StorageError.
        """
        if bars.num_rows != expected:
            raise PublishError(
                f"minute_bars: {bars.num_rows:,} bars were computed of {expected:,} minutes, so none was written; please report "
                "it"
            )
        moved = {BARS: ticks.batch, FINAL: microseconds_of(ticks.watermark or EPOCH)}
        inserted = self._merge(bars, moved) if bars.num_rows else 0
        if self.batch != ticks.batch:  # there was nothing to merge, or the MERGE changed nothing, and so made no commit
            self.commit(self.append_to(self.no_rows()), moved)
        return inserted

    def days(self) -> list[date]:
        """The days that have bars, as of `handle`."""
        return sorted({date.fromisoformat(str(add["partition.trade_date"])) for add in adds_of(self.handle)})

    def ticks_by_day(self) -> dict[date, int]:
        """Of how many ticks the bars of each day were made, as of `handle`."""
        rows = self.handle.to_pyarrow_dataset().to_table(["trade_date", "events", "duplicates"])
        sums = rows.group_by("trade_date").aggregate([("events", "sum"), ("duplicates", "sum")]).to_pylist()
        return {row["trade_date"]: row["events_sum"] + row["duplicates_sum"] for row in sums}

    def open_bars(self) -> int:
        """How many bars may still change, as of `handle`."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.dataset as ds

        ended = instant_of(self.number(FINAL)) or EPOCH
        since = ds.field("minute") > pa.scalar(ended - MINUTE, pa.timestamp("us", "UTC"))
        states = self.handle.to_pyarrow_dataset().to_table(["state"], filter=since)["state"].cast(pa.string())
        return int(pc.sum(pc.equal(states, "open")).as_py() or 0)

    def _minutes(self, ticks: TickTable, after: int, watermark: datetime, touched: pa.Table | None) -> pa.Table:
        """The ticker-minutes (KEY) to compute: those of the batches after `after`, and those that become final."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.dataset as ds

        minutes = ticks.minutes_since(after) if touched is None else minutes_in(touched)
        ended, until = instant_of(self.number(FINAL)) or EPOCH, _floor(watermark) - MINUTE
        if watermark <= ended:
            return minutes
        # Minutes that ended until the last watermark are final already. By day as well, which skips files.
        micros = pa.timestamp("us", "UTC")
        passed = (ds.field("minute") > pa.scalar(ended - MINUTE, micros)) & (
            ds.field("minute") <= pa.scalar(until, micros)
        )
        if ended > EPOCH:
            passed &= ds.field("trade_date") >= pa.scalar((ended - DAY).date())
        first_kept = ticks.first_kept
        stored = self.handle.to_pyarrow_dataset().to_table([*KEY, "state"], filter=passed)
        is_open = pc.equal(stored["state"].cast(pa.string()), "open")
        if first_kept is not None:  # a minute whose ticks were removed cannot be computed again
            is_open = pc.and_(is_open, pc.greater_equal(stored["trade_date"], pa.scalar(first_kept)))
        becoming = stored.filter(is_open).select([*KEY]).cast(minutes.schema)
        return pa.concat_tables([minutes, becoming]).group_by([*KEY]).aggregate([])

    def _merge(self, bars: pa.Table, moved: dict[str, int]) -> int:
        """Write `bars`, each in the place of the one of its ticker and minute; return the number of those that had none."""
        import pyarrow.compute as pc

        # A MERGE writes anew every file that it touches; of a day alone that would be all bars since the opening.
        days = ", ".join(f"DATE '{day}'" for day in sorted(pc.unique(bars["trade_date"]).to_pylist()))
        hours = ", ".join(str(hour) for hour in sorted(pc.unique(bars["hour"]).to_pylist()))
        same = (
            "t.trade_date = s.trade_date AND t.hour = s.hour AND t.ticker = s.ticker AND t.minute = s.minute "
            f"AND t.trade_date IN ({days}) AND t.hour IN ({hours})"
        )
        inserted = 0

        def act(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
            nonlocal inserted
            merge = handle.merge(bars, same, source_alias="s", target_alias="t", commit_properties=properties)
            metrics = merge.when_matched_update_all().when_not_matched_insert_all().execute()
            inserted = int(metrics["num_target_rows_inserted"])

        self.commit(act, moved)
        return inserted


def _floor(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)


def _events_since(ticks: pa.Table, after: int) -> tuple[int, int]:
    """Of the ticks of batches after `after`: how many are events that no earlier batch has, and how many repeat one."""
    import pyarrow.compute as pc

    first = ticks.group_by(["ticker", "minute", "event_id"]).aggregate([("batch", "min")])["batch_min"]
    events = pc.sum(pc.greater(first, after)).as_py() or 0
    return events, (pc.sum(pc.greater(ticks["batch"], after)).as_py() or 0) - events
