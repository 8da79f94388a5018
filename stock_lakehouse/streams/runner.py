"""The runner: batches of messages into ticks with their positions, then the bars of their minutes, one runner at a time.

What makes it exactly once is in the tables: rows and positions are one commit (lake/tick_table.py), and bars are a function of
ticks (lake/bar_table.py). So the runner may be killed anywhere, and the next one goes on. Not here: what a command prints.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from stock_lakehouse.clock import Clock
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.bar_table import BarTable, BarUpdate
from stock_lakehouse.lake.lock import one_writer, sign
from stock_lakehouse.lake.loss_table import LossTable
from stock_lakehouse.lake.maintenance import drop
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.stream_table import LOCK, WRITING
from stock_lakehouse.lake.tick_table import (
    EMBEDDED,
    EPOCH,
    GIVEN_UP,
    OWNER,
    READ_TO_END,
    READING,
    STRUCTURED,
    LostFilesError,
    LostRowsError,
    Progress,
    TickTable,
)
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.schemas.audit import audit_rows
from stock_lakehouse.streams import Loss, LossError, Messages, StreamSource, recreated
from stock_lakehouse.streams.rebuild import differing_days, rebuild_bars
from stock_lakehouse.transforms.minute_bars import READ, minute_bars_of
from stock_lakehouse.transforms.ticks import TickRules, ticks_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

MINUTE = timedelta(minutes=1)
SEEN_SECONDS = 3600.0  # between two commits that only say that a silent partition was read
TEND_SECONDS = 3600.0  # between two removals of old versions and ticks
BATCH_SECONDS = 120.0  # for which a start waits for a batch whose program died
BUSY_SECONDS = 2.0  # `stream status` holds the lock for an instant to see whether it is held
TICKS_A_PART = 150_000  # of bars that are computed at a time: the engine's client sends 128 MB at most
MEGABYTE = 1_000_000
ALL_PARTITIONS = "*"  # the partition of a loss of rows of the table


class StreamSettings(Protocol):
    """The settings under [stream] that the runner needs."""

    @property
    def start(self) -> str: ...
    @property
    def batch_messages(self) -> int: ...
    @property
    def batch_megabytes(self) -> int: ...
    @property
    def trigger_seconds(self) -> float: ...
    @property
    def late_seconds(self) -> int: ...
    @property
    def ahead_seconds(self) -> int: ...
    @property
    def idle_seconds(self) -> int: ...
    @property
    def keep_ticks_days(self) -> int | None: ...
    @property
    def versions_hours(self) -> int: ...
    @property
    def compact_batches(self) -> int: ...


class StreamTimeoutError(Exception):
    """A drain did not reach the ends of the partitions in time. What it read stays; the next one goes on."""


@dataclass
class Counts:
    """What a runner has done since it started.

    - batch: the number of the newest batch in the table
    - messages: messages that were read
    - events, duplicates, dead: messages = events + duplicates + dead letters
    - reasons: dead letters by reason
    - late: events and duplicates that came late
    - bars, new_bars: bars that were computed, and bars of minutes that had none
    """

    batch: int = 0
    messages: int = 0
    events: int = 0
    duplicates: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    late: int = 0
    bars: int = 0
    new_bars: int = 0

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Counts:
        """The counts of a summary, as `summary_of` gives it."""
        names = ("batch", "messages", "events", "duplicates", "late", "new_bars")
        return cls(**{name: summary[name] for name in names}, reasons=Counter(summary["reasons"]))

    @property
    def dead(self) -> int:
        return self.reasons.total()

    def as_metadata(self) -> dict[str, int]:
        """The counts, for Dagster."""
        return {
            "batch": self.batch,
            "messages": self.messages,
            "events": self.events,
            "duplicates": self.duplicates,
            "dead letters": self.dead,
            **{f"dead letters, {reason}": count for reason, count in sorted(self.reasons.items())},
            "late": self.late,
            "new bars": self.new_bars,
        }


def accepted_by() -> str:
    """Who runs this process, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name in the system's list of users
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


class Runner:
    """A runner that holds the stream's lock; made by `runner`. `owner`: the kind of runner for which it writes."""

    def __init__(
        self,
        options: LakeOptions,
        settings: StreamSettings,
        source: StreamSource,
        spark: SparkSession,
        clock: Clock,
        owner: int = EMBEDDED,
    ) -> None:
        self.options, self.settings, self.source, self.spark, self.clock = options, settings, source, spark, clock
        self.ticks = TickTable(options, settings.versions_hours, owner)
        self.bars = BarTable(options, settings.versions_hours)
        self.losses = LossTable(options, settings.versions_hours)
        self.counts = Counts()
        self.partitions: dict[str, Progress] = {}
        self.quiet_clock = clock  # by which a partition is idle
        self.on_start: Mapping[str, int] = {}  # numbers of the commits by which `go_on` decides where to go on
        self._since_joined = 0
        self._days: set[str] = set()  # days written since files were joined
        self._tended: float | None = None

    def start(self, accept_loss: str | None, take_over: bool) -> None:
        """Make the tables ready, go on from their positions, and do the bars that a killed runner left."""
        self.go_on(accept_loss, take_over)
        self.catch_up()
        self.counts.batch = self.ticks.batch

    def go_on(self, accept_loss: str | None, take_over: bool) -> None:
        """Make the tables ready, and let the source go on from their positions. Needs an engine with `accept_loss` alone."""
        self.prepare()
        with self.writing_alone():
            try:
                self.ticks.check(take_over)
            except (LostRowsError, LostFilesError):
                if accept_loss is None:
                    raise
                self.take_out_damaged()
                self.ticks.finish_batch(self.ticks.unfinished())
                self.catch_up()
                self.accept_lost_rows(accept_loss)
            self.ticks.finish_batch(self.ticks.unfinished())
            if self.ticks.number(OWNER) not in (None, self.ticks.owner):
                self._commit(self.ticks.no_rows(), {}, more=self.on_start)
        known = self.ticks.sources()
        self.partitions = known.get(self.source.name, {})
        if (refusal := recreated(self.source.name, known)) is not None:
            if accept_loss is None:
                raise refusal
            self._accept(refusal, accept_loss)
        try:
            self.source.open(self.partitions)
        except LossError as error:
            if accept_loss is None:
                raise
            self._accept(error, accept_loss)
            self.source.open(self.partitions)
        if self.settings.start == "latest" and self.ticks.batch == 0:
            # Committed before anything is read, so that a kill does not move the beginning.
            self._commit(
                self.ticks.no_rows(),
                {name: Progress(end.position or end.later or 0) for name, end in self.source.ends().items()},
                more=self.on_start,
            )
            self.source.open(self.partitions)

    def commit_start(self) -> None:
        """Write down the numbers of `on_start`."""
        with self.writing_alone():
            self._commit(self.ticks.no_rows(), {}, more=self.on_start)

    @contextmanager
    def writing_alone(self) -> Iterator[None]:
        """Keep a batch of Structured Streaming from being written: it is by another process, which outlives its program.

        A batch that comes later finds another owner, or another number of its own, and is refused.
        """
        if self.ticks.number(OWNER) != STRUCTURED:
            yield
            return
        with one_writer(self.options.lake_root, WRITING, BATCH_SECONDS):
            self.ticks.begin()
            yield

    def prepare(self) -> None:
        """Make the tables ready, and open them."""
        self.ticks.prepare()
        self.bars.prepare()
        self.ticks.begin()

    def catch_up(self) -> None:
        """Do the bars of the batches that a killed runner left."""
        self.bars.begin()
        if self.bars.batch < self.ticks.batch:
            # Not counted here: the runner that read these messages has counted them.
            self.bars.update(self.ticks, self.bars.batch, self.bars_of)

    def take_out_damaged(self) -> int:
        """Take missing and damaged files out of raw_ticks, whose rows are lost then; return their number."""
        damages = self.ticks.damages()
        if damages:
            drop(Lake(self.options), self.ticks.table, damages)
            self.ticks.begin()
        return len(damages)

    def accept_lost_rows(self, why: str, losses: Sequence[Loss] | None = None) -> int:
        """Let the positions stand for the rows that are there; return the number of bars that were computed anew for that.

        Before that the bars become what these rows say, and `losses` are written down (None: one, which has only the number of
        rows): as long as the last commit did not come, the table is refused, and the same is done again.
        """
        rows, expected = self.ticks.row_count(), self.ticks.expected_rows
        if rows == expected:
            return 0
        bars = rebuild_bars(self.ticks, self.bars, self.bars_of, differing_days(self.ticks, self.bars))
        if losses is None:
            cause = f"raw_ticks has {rows:,} rows, and its positions stood for {expected:,}"
            # With the batch, because a table may be restored to the same number of rows more than once.
            lost = f"{ALL_PARTITIONS} after batch {self.ticks.batch}"
            losses = (Loss(lost, min(rows, expected), max(rows, expected), cause, Progress(0)),)
        self._write_losses(self.source.name, losses, why)
        self.ticks.append_batch(self._without_batch(), self.source.name, {}, None, rows, self.on_start)
        self.catch_up()
        return bars

    def step(self, seconds: float) -> Messages:
        """Poll once for at most `seconds`, and bring in what came; without messages, let minutes become final."""
        messages = self.source.poll(self.settings.batch_messages, self.settings.batch_megabytes * MEGABYTE, seconds)
        if messages.rows.num_rows:
            self._batch(messages)
        else:
            self.idle(messages)
        if self.has_small_files:
            self.join_files()
        return messages

    @property
    def has_small_files(self) -> bool:
        """Whether so many batches were written that their files are to be joined."""
        return self._since_joined >= self.settings.compact_batches

    def note_batch(self, days: Iterable[date]) -> None:
        """Count a batch that was written without `step`, with rows of `days`."""
        self._since_joined += 1
        self._days |= {str(day) for day in days}

    def drain(self, minutes: float, report: Callable[[], None] = lambda: None) -> None:
        """Read to the ends of the partitions as they are now. Raises StreamTimeoutError after `minutes`.

        `report` is called after each batch.
        """
        deadline, ends = time.monotonic() + minutes * 60, self.source.ends()
        at_end: set[str] = set()  # since then
        while any(
            name not in at_end if end.position is None else self.position(name) < end.position
            for name, end in ends.items()
        ):
            if time.monotonic() > deadline:
                raise StreamTimeoutError(
                    f"{self.source.name}: not at its ends after {minutes:g} minutes; what was read stays: "
                    f"{self.counts.messages:,} messages. Run the same again to go on, or give it more time with --minutes"
                )
            at_end |= self.step(0).at_end
            report()
        self.step(0)  # without messages, minutes become final
        self.tend()

    def position(self, partition: str) -> int:
        """Where `partition` goes on."""
        progress = self.partitions.get(partition)
        return 0 if progress is None else progress.position

    def idle(self, messages: Messages) -> None:
        """Let minutes become final that no partition holds back any more, and note partitions that have ended."""
        moved = {
            name: replace(self._progress(name, messages), position=position)
            for name, position in messages.positions.items()
            if name not in self.partitions or position > self.position(name)
        }
        moved |= self._ended(moved, messages)
        moved |= self._seen(moved, messages)
        watermark, present = self.watermark_after(messages), self.ticks.watermark
        if moved or (watermark is not None and (present is None or _minute(watermark) > _minute(present))):
            self._commit(self.ticks.no_rows(), moved, watermark)
            self._count(self.bars.update(self.ticks, self.ticks.batch - 1, self.bars_of, self.ticks.no_rows()))

    def retry(self, report: Callable[[int], None] = lambda count: None) -> tuple[int, int]:
        """Read the dead letters again by the present rules; return their number, and how many changed.

        A letter that is a good tick now gets the place of its dead letter in one commit; then the bars of its minute follow. It
        is late if its minute is final. `report` is called with the number of letters that were read so far.
        """
        letters = self.ticks.dead_letters()
        if not letters.num_rows:
            return 0, 0
        import pyarrow as pa
        import pyarrow.compute as pc

        given = letters.select(["source", "partition", "offset", "arrival_time", "value"])
        parts: list[pa.Table] = []
        for part in _sized(given, self.settings.batch_messages, self.settings.batch_megabytes * MEGABYTE):
            parts.append(self.ticks_of(part, pa.nulls(part.num_rows, pa.timestamp("us", "UTC"))))
            report(sum(read.num_rows for read in parts))
        found = pa.concat_tables(parts)
        key = ["source", "partition", "offset"]
        before = letters.select([*key, "reason"]).rename_columns([*key, "before"])
        both = found.join(before, key)
        changed = both.filter(pc.fill_null(pc.not_equal(both["reason"], both["before"]), True)).drop_columns(["before"])
        if changed.num_rows:
            names = [name for name in self.ticks.table.column_names if name != "batch"]
            self.ticks.replace_rows(changed.select(names), set(pc.unique(letters["trade_date"]).to_pylist()))
            good = changed.filter(pc.is_null(changed["reason"]))
            self._count(self.bars.update(self.ticks, self.ticks.batch - 1, self.bars_of, good))
        return letters.num_rows, changed.num_rows

    def join_files(self) -> None:
        """Join the small files of the days that were written since the last time."""
        if self._days:
            days = [("trade_date", "in", sorted(self._days))]
            self.ticks.join_files(days)
            self.bars.join_files(days)
        self._since_joined, self._days = 0, set()

    def tend(self) -> None:
        """Remove old versions, and ticks beyond `keep_ticks_days`; at most once in TEND_SECONDS."""
        if not self.is_tending_due():
            return
        self._tended = time.monotonic()
        keep = self.settings.keep_ticks_days
        newest = max((progress.high for progress in self.partitions.values() if progress.high), default=None)
        if keep is not None and newest is not None:
            # The newest event and not the clock decides, so that a clock that jumped ahead removes nothing.
            first = min(newest, self.clock()).date() - timedelta(days=keep)
            if self.ticks.first_kept is None or first > self.ticks.first_kept:
                self.ticks.remove_days_before(first)
                self._count(self.bars.update(self.ticks, self.ticks.batch - 1, self.bars_of, self.ticks.no_rows()))
        for table in (self.ticks, self.bars):
            table.remove_old(self.clock())

    def is_tending_due(self) -> bool:
        """Whether `tend` has something to do."""
        return self._tended is None or time.monotonic() >= self._tended + TEND_SECONDS

    def _batch(self, messages: Messages) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        highs = [self._progress(name, messages).high for name in messages.rows["partition"].to_pylist()]
        sources = pa.array([self.source.name] * messages.rows.num_rows, pa.string())
        rows = self.ticks_of(messages.rows.add_column(0, "source", sources), pa.array(highs, pa.timestamp("us", "UTC")))
        moved = {name: replace(self._progress(name, messages), position=at) for name, at in messages.positions.items()}
        newest = rows.group_by("partition").aggregate(
            [("event_time", "max"), ("arrival_time", "max"), ("offset", "min")]
        )
        for row in newest.to_pylist():
            before = moved[row["partition"]]
            high = max((at for at in (before.high, row["event_time_max"]) if at is not None), default=None)
            arrived = max(before.arrived or EPOCH, row["arrival_time_max"])
            begin = int(row["offset_min"]) if before.begin is None else before.begin
            moved[row["partition"]] = replace(before, high=high, arrived=arrived, ended=READING, begin=begin)
        moved |= self._ended(moved, messages)
        moved |= self._seen(moved, messages)
        self.partitions |= moved
        self._commit(rows, moved, self.watermark_after(messages))
        self._follow(rows)
        self.counts.messages += rows.num_rows
        self.counts.reasons.update(pc.drop_null(rows["reason"]).to_pylist())
        self.counts.late += pc.sum(rows["late"]).as_py() or 0

    def bring_back(self, rows: pa.Table) -> None:
        """Commit ticks for which the positions stand, but which raw_ticks has lost, and do their bars."""
        self.ticks.append_batch(rows, self.source.name, {}, None, expected_rows=self.ticks.expected_rows)
        self._since_joined += 1
        self._follow(rows)
        if self.has_small_files:
            self.join_files()

    def _follow(self, rows: pa.Table) -> None:
        """Do the bars of the batch that was committed now."""
        import pyarrow.compute as pc

        self._count(self.bars.update(self.ticks, self.ticks.batch - 1, self.bars_of, rows))
        self._days |= {str(day) for day in pc.unique(rows["trade_date"]).to_pylist()}

    def _commit(
        self,
        rows: pa.Table,
        moved: Mapping[str, Progress],
        watermark: datetime | None = None,
        more: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        names = [name for name in rows.column_names if name != "batch"]
        self.ticks.append_batch(rows.select(names), self.source.name, moved, watermark, more=more)
        self.partitions |= moved
        self._since_joined += 1

    def _progress(self, partition: str, messages: Messages) -> Progress:
        """How far `partition` was read. One that goes on others begins with what they know about times."""
        known = self.partitions.get(partition)
        if known is not None:
            return known
        parents = [self.partitions[name] for name in messages.parents.get(partition, ()) if name in self.partitions]
        return Progress(
            0,
            max((parent.high for parent in parents if parent.high is not None), default=None),
            max((parent.arrived for parent in parents if parent.arrived is not None), default=None),
        )

    def _ended(self, moved: Mapping[str, Progress], messages: Messages) -> dict[str, Progress]:
        """The partitions that have been read to their end now."""
        known = {**self.partitions, **moved}
        return {
            name: replace(known[name], ended=READ_TO_END)
            for name in messages.ended & known.keys()
            if known[name].ended == READING
        }

    def _seen(self, moved: Mapping[str, Progress], messages: Messages) -> dict[str, Progress]:
        """The partitions whose `seen` has to be written: of those in `moved` in any case, of a silent one sometimes."""
        found = {}
        for name, seen in messages.seen.items():
            progress = moved.get(name) or self.partitions.get(name)
            if progress is not None and (
                name in moved or progress.seen is None or seen > progress.seen + timedelta(seconds=SEEN_SECONDS)
            ):
                found[name] = replace(progress, seen=seen)
        return found

    def watermark_after(self, messages: Messages) -> datetime | None:
        """Up to which instant every partition that is not idle has been seen; never before the watermark of the table.

        A partition with further messages, or with one in the last `idle_seconds`, holds back the minutes after its newest event
        less `late_seconds`. If no partition does, the minute of the newest event ends.
        """
        present = self.ticks.watermark
        reading = {name for name, progress in self.partitions.items() if progress.ended == READING}
        unread = (reading - messages.at_end) | messages.unread
        highs = {
            name: progress.high
            for name, progress in self.partitions.items()
            if progress.ended != GIVEN_UP and progress.high is not None
        }
        if not highs or unread - highs.keys():  # nobody knows yet what is in these
            return present
        quiet = self.quiet_clock() - timedelta(seconds=self.settings.idle_seconds)
        holding = [high for name, high in highs.items() if name in unread or self._is_active(name, quiet)]
        late = timedelta(seconds=self.settings.late_seconds)
        found = min(holding) - late if holding else _minute(max(highs.values())) + MINUTE
        return found if present is None else max(found, present)

    def _is_active(self, partition: str, quiet: datetime) -> bool:
        """Whether a message of `partition` has arrived after `quiet`, and others may follow."""
        progress = self.partitions[partition]
        return progress.ended == READING and progress.arrived is not None and progress.arrived > quiet

    def rules(self, *, as_first_read: bool = False) -> TickRules:
        """What decides about ticks. `as_first_read`: whether the ticks of a day were removed does not count."""
        return TickRules(
            self.options.calendar.time_zone,
            self.settings.late_seconds,
            self.settings.ahead_seconds,
            self.options.first_date,
            None if as_first_read else self.ticks.first_kept,
            self.options.price_tolerance,
        )

    def ticks_of(self, messages: pa.Table, highs: pa.Array, *, as_first_read: bool = False) -> pa.Table:
        """A tick for each of `messages` (source, partition, offset, arrival_time, value), audited; without `batch`.

        - highs: newest event time of good ticks of the partition before each message
        - as_first_read: whether a minute is final, or the ticks of a day were removed, does not count
        """
        import pyarrow as pa

        texts = pa.array(map(_text, messages["value"].to_pylist()), pa.string())
        given = messages.append_column("text", texts).append_column("high", highs)
        watermark = None if as_first_read else self.ticks.watermark
        found = ticks_of(
            self.spark.createDataFrame(given), self.rules(as_first_read=as_first_read), watermark
        ).toArrow()
        schema = self.ticks.table.arrow_schema
        found = found.cast(pa.schema([schema.field(name) for name in found.column_names]))
        audit_rows(self._numbered(found), self.ticks.table)
        key = ["source", "partition", "offset"]
        if found.num_rows != messages.num_rows or found.join(messages.select(key), key, join_type="left anti").num_rows:
            raise PublishError(
                f"raw_ticks: the engine gave {found.num_rows:,} ticks for {messages.num_rows:,} messages, or other ones, so "
                "nothing was written; please report it"
            )
        return found

    def _numbered(self, rows: pa.Table) -> pa.Table:
        """`rows` with the column `batch`, as the next batch."""
        import pyarrow as pa

        return rows.append_column("batch", pa.array([self.ticks.batch + 1] * rows.num_rows, pa.int64()))

    def bars_of(self, ticks: pa.Table, watermark: datetime) -> pa.Table:
        """The bars of `ticks`, audited, computed in parts of about TICKS_A_PART ticks."""
        import pyarrow as pa

        schema = self.bars.table.arrow_schema
        parts = [
            minute_bars_of(self.spark.createDataFrame(part), watermark).toArrow().cast(schema)
            for part in _parts(ticks.select(READ))
        ]
        bars = pa.concat_tables(parts)
        audit_rows(bars, self.bars.table)
        return bars

    def _count(self, update: BarUpdate) -> None:
        self.counts.batch = self.ticks.batch
        self.counts.events += update.events
        self.counts.duplicates += update.duplicates
        self.counts.bars += update.computed
        self.counts.new_bars += update.inserted

    def _accept(self, error: LossError, why: str) -> None:
        """Write losses down, then move the positions past them. In this order, so that a kill leaves no silent loss."""
        self._write_losses(error.source, error.losses, why)
        begins = {name: progress.begin for name, progress in self.partitions.items()}
        moved = {loss.partition: replace(loss.go_on, begin=begins.get(loss.partition)) for loss in error.losses}
        if error.source == self.source.name:
            self._commit(self.ticks.no_rows(), moved, more=self.on_start)
        else:  # the former incarnation of the stream
            self.ticks.append_batch(self._without_batch(), error.source, moved, None, more=self.on_start)

    def _without_batch(self) -> pa.Table:
        return self.ticks.no_rows().drop_columns(["batch"])

    def _write_losses(self, source: str, losses: Sequence[Loss], why: str) -> None:
        import pyarrow as pa

        lines: list[dict[str, Any]] = [
            {
                "source": source,
                "partition": loss.partition,
                "from_offset": f"{loss.first:020}",
                "to_offset": None if loss.end is None else f"{loss.end:020}",
                "cause": loss.cause,
                "why": why,
                "accepted_by": accepted_by(),
                "accepted_at": self.clock(),
            }
            for loss in losses
        ]
        self.losses.add(pa.Table.from_pylist(lines, self.losses.table.arrow_schema))


@contextmanager
def only_runner(
    options: LakeOptions,
    settings: StreamSettings,
    source: StreamSource,
    spark: SparkSession,
    clock: Clock,
    owner: int = EMBEDDED,
) -> Iterator[Runner]:
    """The one runner of the lake's stream, not started, for the `with` block. Raises TableBusyError beside another one.

    `owner`: the kind of runner for which it writes. The source is closed in the end.
    """
    with one_writer(options.lake_root, LOCK, wait_seconds=BUSY_SECONDS):
        sign(options.lake_root, LOCK, utc_now())
        try:
            yield Runner(options, settings, source, spark, clock, owner)
        finally:
            source.close()


@contextmanager
def runner(
    options: LakeOptions,
    settings: StreamSettings,
    source: StreamSource,
    spark: SparkSession,
    clock: Clock,
    accept_loss: str | None = None,
    take_over: bool = False,
    owner: int = EMBEDDED,
) -> Iterator[Runner]:
    """The one runner of the lake's stream, started, for the `with` block.

    `accept_loss`: go on although messages were lost, for this reason. `take_over`: from another kind of runner. `owner`: the kind
    of runner for which it writes.
    Raises TableBusyError beside another runner, StreamRefusedError if it cannot go on without a loss, StorageError,
    SourceUnavailableError. The source is closed in the end.
    """
    with only_runner(options, settings, source, spark, clock, owner) as started:
        started.start(accept_loss, take_over)
        yield started


def run(started: Runner, trigger_seconds: float, stopping: Callable[[], bool], report: Callable[[], None]) -> None:
    """Read until `stopping` says so, which is asked after each batch. `report` is called after each poll."""
    while not stopping():
        started.step(trigger_seconds)
        started.tend()
        report()


def summary_of(started: Runner, seconds: float) -> dict[str, Any]:
    """What `started` did in so many seconds, as plain values."""
    counts, watermark = started.counts, started.ticks.watermark
    return {
        "source": started.source.name,
        "batch": started.ticks.batch,
        "messages": counts.messages,
        "events": counts.events,
        "duplicates": counts.duplicates,
        "dead_letters": counts.dead,
        "reasons": dict(counts.reasons),
        "late": counts.late,
        "new_bars": counts.new_bars,
        "open_bars": started.bars.open_bars(),
        "watermark": None if watermark is None else watermark.isoformat(),
        "seconds": round(seconds, 1),
    }


def _parts(ticks: pa.Table) -> Iterator[pa.Table]:
    """`ticks` in parts of about TICKS_A_PART, each with all ticks of its minutes."""
    import pyarrow.compute as pc

    if ticks.num_rows <= TICKS_A_PART:
        yield ticks
        return
    ordered = ticks.sort_by("minute")
    start = 0
    while start < ordered.num_rows:
        end = min(start + TICKS_A_PART, ordered.num_rows)
        last = ordered["minute"][end - 1]
        while end < ordered.num_rows and ordered["minute"][end] == last:  # the rest of the last minute
            rest = ordered["minute"].slice(end)
            end += pc.sum(pc.equal(rest, last)).as_py()
        yield ordered.slice(start, end - start)
        start = end


def _sized(messages: pa.Table, count: int, size: int) -> Iterator[pa.Table]:
    """`messages` in parts of at most `count`, and of about `size` bytes."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(messages["value"]).to_pylist()
    start, taken = 0, 0
    for place, length in enumerate(lengths):
        if place > start and (place - start >= count or taken + length > size):
            yield messages.slice(start, place - start)
            start, taken = place, 0
        taken += length
    yield messages.slice(start)


def _text(value: bytes) -> str | None:
    """`value` as text, None if it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _minute(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)
