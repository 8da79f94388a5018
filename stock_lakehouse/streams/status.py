"""How a stream stands, as records: positions and ends, what came on its newest days, and who runs it. Needs no engine.

Not here: how the records are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.lake.lock import Holder, holder_of
from stock_lakehouse.lake.loss_table import LossTable
from stock_lakehouse.lake.stream_table import LOCK, StreamRefusedError
from stock_lakehouse.lake.tick_table import GIVEN_UP, OWNERS, LostFilesError, Progress, TickTable
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.streams import End, StreamSource, recreated

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PartitionStatus:
    """A partition.

    - position, end, lag: in the unit of the source; what lies between position and end was not read yet (None: unknown)
    - waiting_since: since when at least something has been waiting (None: nothing is, or it is unknown)
    - newest_event: newest event time of its good ticks
    - given_up: whether its rest was lost, and that was accepted
    """

    partition: str
    position: int
    end: int | None
    lag: int | None
    waiting_since: datetime | None
    newest_event: datetime | None
    given_up: bool

    @property
    def is_behind(self) -> bool:
        """Whether messages wait that were not read yet, as far as the source can say."""
        return bool(self.lag) or (self.lag is None and self.waiting_since is not None)


@dataclass(frozen=True)
class DayStatus:
    """What came on a day of trade_date: messages = events + duplicates + dead letters."""

    day: date
    messages: int
    events: int
    duplicates: int
    reasons: dict[str, int]
    late_events: int
    bars: dict[str, int]

    @property
    def dead(self) -> int:
        return sum(self.reasons.values())

    @property
    def dead_share(self) -> float:
        return self.dead / self.messages if self.messages else 0.0

    @property
    def late_share(self) -> float:
        return self.late_events / self.events if self.events else 0.0


@dataclass(frozen=True)
class StreamStatus:
    """A stream.

    - batch, bars_batch: the newest batch in raw_ticks and in minute_bars
    - watermark: minutes that end until then are final
    - refusal: why a runner would not go on; None: it would
    - losses: lines of stream_losses
    """

    source: str
    unit: str
    batch: int
    bars_batch: int
    watermark: datetime | None
    runner: Holder | None
    refusal: str | None
    partitions: list[PartitionStatus]
    days: list[DayStatus]
    losses: list[dict[str, Any]]


def status_of(
    options: LakeOptions, versions_hours: int, source: StreamSource, days: int, runner: str = "embedded"
) -> StreamStatus:
    """How the stream stands now, with its newest `days` days; the source is closed. `runner`: the setting of this name.

    Raises StorageError, SourceError, SourceUnavailableError.
    """
    ticks, bars = TickTable(options, versions_hours, OWNERS[runner]), BarTable(options, versions_hours)
    known: dict[str, Progress] = {}
    refusal, found, is_readable = None, [], True
    if ticks.exists():
        ticks.begin()
        sources = ticks.sources()
        known = sources.get(source.name, {})
        try:
            ticks.check()
        except StreamRefusedError as error:
            refusal, is_readable = str(error), not isinstance(error, LostFilesError)
        if refusal is None and (error_of_stream := recreated(source.name, sources)) is not None:
            refusal = str(error_of_stream)
    if bars.exists():
        bars.begin()
        found = days_of(ticks, bars, days) if is_readable else []
    try:
        try:
            source.open(known)
        except StreamRefusedError as error:
            refusal = refusal or str(error)
        ends = source.ends()
    finally:
        source.close()
    return StreamStatus(
        source.name,
        source.unit,
        ticks.batch if ticks.exists() else 0,
        bars.batch if bars.exists() else 0,
        ticks.watermark if ticks.exists() else None,
        holder_of(options.lake_root, LOCK),
        refusal,
        [_partition(name, known.get(name), ends.get(name)) for name in sorted({*known, *ends})],
        found,
        LossTable(options, versions_hours).rows().to_pylist(),
    )


def days_of(ticks: TickTable, bars: BarTable, days: int) -> list[DayStatus]:
    """What came on the newest `days` days, as of the handles of the tables."""
    return [_day(ticks, bars, day) for day in ticks.newest_days(days)]


def lag_of(status: StreamStatus) -> str:
    """The partitions with something that was not read yet, in words."""
    behind = [part for part in status.partitions if part.is_behind]
    lags = [f"{part.partition}: {'some' if part.lag is None else f'{part.lag:,}'} {status.unit}" for part in behind]
    return ", ".join(lags) or "none"


def waited_longest(status: StreamStatus, now: datetime) -> timedelta:
    """How long something that was not read yet has been waiting; 0 if nothing is, or if it is not known."""
    since = [part.waiting_since for part in status.partitions if part.is_behind and part.waiting_since is not None]
    return max((now - instant for instant in since), default=timedelta(0))


def dead_letters(options: LakeOptions, versions_hours: int, last: int) -> pa.Table:
    """The newest `last` dead letters by arrival: all columns of raw_ticks."""
    ticks = TickTable(options, versions_hours)
    if not ticks.exists():
        return ticks.no_rows()
    ticks.begin()
    newest = ticks.dead_letters().sort_by([(name, "descending") for name in ("arrival_time", "partition", "offset")])
    return newest.slice(0, last)


def newest_bars(
    options: LakeOptions, versions_hours: int, tickers: Sequence[str] | None, day: date | None, last: int
) -> pa.Table:
    """The last `last` minute bars of `tickers` (None: all) of `day` (None: the newest), by ticker and minute."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    bars = BarTable(options, versions_hours)
    days = []
    if bars.exists():
        bars.begin()
        days = bars.days()
    if not days:
        return bars.no_rows()
    of_day = ds.field("trade_date") == pa.scalar(day or days[-1])
    rows = bars.handle.to_pyarrow_dataset().to_table([*bars.table.column_names], filter=of_day)
    rows = rows.cast(bars.table.arrow_schema)
    if tickers is not None:
        rows = rows.filter(pc.is_in(rows["ticker"], value_set=pa.array(tickers, pa.string())))
    newest = rows.sort_by([("minute", "descending"), ("ticker", "ascending")]).slice(0, last)
    return newest.sort_by([("ticker", "ascending"), ("minute", "ascending")])


def _partition(name: str, progress: Progress | None, end: End | None) -> PartitionStatus:
    known = progress or Progress(0)
    given_up = known.ended == GIVEN_UP
    lag: int | None = 0
    if end is not None and not given_up:
        lag = None if end.position is None else max(0, end.position - known.position)
    waits = end is not None and not given_up and lag != 0
    return PartitionStatus(
        name,
        known.position,
        None if end is None else end.position,
        lag,
        end.waiting_since or end.newest if waits and end is not None else None,
        known.high,
        given_up,
    )


def _day(ticks: TickTable, bars: BarTable, day: date) -> DayStatus:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    of_day = ds.field("trade_date") == pa.scalar(day)
    reasons = ticks.handle.to_pyarrow_dataset().to_table(["reason"], filter=of_day)["reason"].cast(pa.string())
    columns = ["events", "duplicates", "late_events", "state"]
    stored = bars.handle.to_pyarrow_dataset().to_table(columns, filter=of_day)
    events, duplicates, late = ((pc.sum(stored[name]).as_py() or 0) for name in columns[:3])
    return DayStatus(
        day,
        len(reasons),
        events,
        duplicates,
        _counted(pc.drop_null(reasons)),
        late,
        _counted(stored["state"].cast(pa.string())),
    )


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    counts = {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()}
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
