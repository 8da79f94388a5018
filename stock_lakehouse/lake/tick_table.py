"""raw_ticks: the messages of a stream with the positions up to which its partitions were read, in one commit.

Here: what the table's log says about partitions, and the commits that move it. Not here: how messages are read (streams/) and
typed (transforms/ticks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_table import adds_of
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.lake.stored import Damage
from stock_lakehouse.lake.stream_table import StreamRefusedError, StreamTable
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import RAW_TICKS
from stock_lakehouse.transforms.minute_bars import READ

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    import pyarrow.compute as pc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND, MILLISECOND = timedelta(microseconds=1), timedelta(milliseconds=1)
LIMB_BITS = 62  # a number of the log is a signed integer of 64 bits; a position may have more
# Names of numbers in the log. Those of a partition are SOURCE/PARTITION#LIMB for its position, and with these endings.
BATCH, WATERMARK, ROWS, OWNER = "stream/batch", "stream/watermark", "stream/rows", "stream/owner"
FIRST_KEPT = "stream/first_kept"  # days since the epoch: ticks of earlier days were removed
HIGH, ARRIVED, ENDED, SEEN = "high", "arrived", "ended", "seen"
BEGIN = "begin"  # with a limb behind it
READING, READ_TO_END, GIVEN_UP = 0, 1, 2  # values of ENDED
EMBEDDED, STRUCTURED = 1, 2  # values of OWNER: the runner of this package, and Structured Streaming
OWNERS = {"embedded": EMBEDDED, "structured_streaming": STRUCTURED}  # by the setting `stream.runner`
CHECKPOINT = "stream/checkpoint"  # CHECKPOINT/SOURCE: the id of the checkpoint of Structured Streaming
SPARK = "stream/spark"  # SPARK/ID: the newest batch of the checkpoint ID whose ticks are there, by Spark's own number
KEY = ("ticker", "trade_date", "minute")
REFILL = "stock-lakehouse stream refill"
ACCEPT = 'stock-lakehouse stream drain --accept-loss "why"'
GO_ON = f"read the messages again, as far as the stream still has them: {REFILL}; or go on without these rows: {ACCEPT}"


class OwnerError(StreamRefusedError):
    """Another kind of runner writes the tables."""

    def __init__(self, owner: int) -> None:
        names = {number: name for name, number in OWNERS.items()}
        super().__init__(
            f"raw_ticks is written by the runner {names.get(owner, 'of a newer version')}; set stream.runner to that one, or "
            "stop it and hand the table over at its positions: stock-lakehouse stream drain --take-over"
        )


class LostRowsError(StreamRefusedError):
    """The table has another number of rows than its positions stand for."""

    def __init__(self, rows: int, expected: int) -> None:
        self.rows, self.expected = rows, expected
        found = f"raw_ticks has {rows:,} rows, and its positions stand for {expected:,}: "
        if rows < expected:
            found += (
                f"it was restored to an earlier version, or rows were deleted. Restore the newest version; or {GO_ON}"
            )
        else:
            found += (
                "it was restored to a version that still has days which were removed since, or another program added rows. "
                f"Remove such days again: {REFILL}; or go on with these rows: {ACCEPT}"
            )
        super().__init__(found)


class LostFilesError(StreamRefusedError):
    """Data files of the table are missing or cut.

    - damages: these files
    """

    def __init__(self, damages: Sequence[Damage]) -> None:
        self.damages = tuple(damages)
        more = f" (and {len(damages) - 1:,} more)" if len(damages) > 1 else ""
        super().__init__(
            f"raw_ticks: {damages[0].path} {damages[0].reason}{more}. Bring the file back from a backup; or {GO_ON}"
        )


@dataclass(frozen=True)
class Progress:
    """How far a partition was read.

    - position: where to go on, in the units of its source
    - high: newest event time of its good ticks (None: it has none)
    - arrived: when its newest message arrived (None: none did)
    - ended: READING; READ_TO_END: it may disappear; GIVEN_UP: the rest was lost, and somebody accepted that
    - seen: until when everything was read that had arrived (None: unknown, or the source's messages do not expire)
    - begin: offset of the first message that was ever read (None: none was, or a program wrote this that does not say it)
    """

    position: int
    high: datetime | None = None
    arrived: datetime | None = None
    ended: int = READING
    seen: datetime | None = None
    begin: int | None = None


@dataclass(frozen=True)
class Written:
    """The rows of one partition in a batch.

    - rows: their number
    - first, last: their first and last position
    - event: newest event time of the good ticks among them (None: there is none)
    - arrived: when the newest one arrived
    - days: their trade_date
    """

    rows: int
    first: int
    last: int
    event: datetime | None
    arrived: datetime
    days: tuple[date, ...]


class TickTable(StreamTable):
    """The table raw_ticks.

    `owner`: the kind of runner that writes, EMBEDDED or STRUCTURED.

    The embedded runner moves rows and positions in one commit. Spark's writer can move one number beside its rows, that of its
    batch (SPARK); the positions follow in a commit of their own, which is computed from the rows (`finish_batch`), so that
    anybody can make it after a kill.
    """

    def __init__(self, options: LakeOptions | LakeRoot, versions_hours: int, owner: int = EMBEDDED) -> None:
        super().__init__(options, RAW_TICKS, versions_hours, BATCH)
        self.owner = owner

    @property
    def batch(self) -> int:
        """The number of the newest batch; 0 before the first."""
        return self.number(BATCH) or 0

    @property
    def watermark(self) -> datetime | None:
        """Minutes that end until then are final. It never goes back."""
        return instant_of(self.number(WATERMARK))

    @property
    def first_kept(self) -> date | None:
        """The first day whose ticks are still there; None: all are."""
        days = self.number(FIRST_KEPT)
        return None if days is None else (EPOCH + timedelta(days=days)).date()

    def partitions(self, source: str) -> dict[str, Progress]:
        """The partitions of `source` that have been read, by name."""
        return self.sources().get(source, {})

    def sources(self) -> dict[str, dict[str, Progress]]:
        """The partitions that have been read, by source and name."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for name, value in self.numbers().items():
            prefix, hash_, ending = name.rpartition("#")
            if hash_:
                source, _, partition = prefix.partition("/")
                found.setdefault(source, {}).setdefault(partition, {})[ending] = value
        return {
            source: {name: _progress(values) for name, values in partitions.items()}
            for source, partitions in found.items()
        }

    def check(self, take_over: bool = False) -> None:
        """Raise an error if a runner may not go on from the positions of `handle`.

        OwnerError (not with `take_over`), LostFilesError, LostRowsError.
        """
        self.check_owner(take_over)
        if damages := self.damages(footers=False):
            raise LostFilesError(damages)
        rows, expected = self.row_count(), self.expected_rows
        if rows != expected + sum(written.rows for written in self.unfinished().values()):
            raise LostRowsError(rows, expected)

    def check_owner(self, take_over: bool = False) -> None:
        """Raise OwnerError if another kind of runner writes the table, and it is not to be taken over."""
        owner = self.number(OWNER)
        if owner not in (None, self.owner) and not take_over:
            raise OwnerError(owner or 0)

    @property
    def expected_rows(self) -> int:
        """The number of rows that the positions stand for."""
        return self.number(ROWS) or 0

    def checkpoint(self, source: str) -> str | None:
        """The id of the checkpoint of Structured Streaming for `source`; None before the first."""
        number = self.number(f"{CHECKPOINT}/{source}")
        return None if number is None else f"{number:016x}"

    def spark_batch(self, checkpoint: str) -> int:
        """The newest batch of `checkpoint` whose ticks are in the table, by Spark's own number; -1 before the first."""
        number = self.number(f"{SPARK}/{checkpoint}")
        return -1 if number is None else number

    def unfinished(self) -> dict[tuple[str, str], Written]:
        """The rows of a batch by Spark whose positions are not in the log yet, by source and partition; usually none."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        if self.number(OWNER) != STRUCTURED or self.row_count() <= self.expected_rows:
            return {}
        columns = ["source", "partition", "offset", "event_time", "arrival_time", "trade_date"]
        schema = pa.schema([self.table.arrow_schema.field(name) for name in columns])
        newest = ds.field("batch") == self.batch + 1
        rows = self.handle.to_pyarrow_dataset().to_table(columns, filter=newest).cast(schema)
        figures = [("offset", "count"), ("offset", "min"), ("offset", "max")]
        figures += [("event_time", "max"), ("arrival_time", "max"), ("trade_date", "distinct")]
        return {
            (row["source"], row["partition"]): Written(
                row["offset_count"],
                int(row["offset_min"]),
                int(row["offset_max"]),
                row["event_time_max"],
                row["arrival_time_max"],
                tuple(row["trade_date_distinct"]),
            )
            for row in rows.group_by(["source", "partition"]).aggregate(figures).to_pylist()
        }

    def finish_batch(
        self,
        written: Mapping[tuple[str, str], Written],
        watermark_of: Callable[[Mapping[str, Progress]], datetime | None] = lambda moved: None,
    ) -> None:
        """Commit the positions after the rows of `unfinished`, and the watermark after them. Without rows nothing is done.

        `watermark_of`: the watermark once the partitions are where its argument says; None: it stays. Raises FencedError,
        StorageError.
        """
        if not written:
            return
        known = self.sources()
        moved: dict[str, Progress] = {}
        numbers: dict[str, int] = {}
        for (source, partition), rows in written.items():
            before = known.get(source, {}).get(partition, Progress(0))
            high = max((at for at in (before.high, rows.event) if at is not None), default=None)
            seen = None if before.seen is None else max(before.seen, rows.arrived)
            begin = rows.first if before.begin is None else before.begin
            arrived = max(before.arrived or EPOCH, rows.arrived)
            moved[partition] = Progress(rows.last + 1, high, arrived, READING, seen, begin)
            numbers |= _named_numbers(source, {partition: moved[partition]})
        total = self.expected_rows + sum(rows.rows for rows in written.values())
        numbers |= {ROWS: total, **_watermark(watermark_of(moved))}
        self.commit(self.append_to(self.no_rows()), {BATCH: self.batch + 1, **numbers})

    def row_count(self) -> int:
        """The number of rows by the log."""
        return int(sum(add["num_records"] for add in adds_of(self.handle)))

    def append_batch(
        self,
        rows: pa.Table,
        source: str,
        progress: Mapping[str, Progress],
        watermark: datetime | None,
        expected_rows: int | None = None,
        more: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Commit the next batch: append `rows`, and move the partitions in `progress` and the watermark, or nothing of these.

        `rows`: the columns of raw_ticks without `batch`. `expected_rows`: the number of rows that the positions stand for after
        it (None: so many more as `rows` has). `more`: further numbers. Raises FencedError, StorageError.
        """
        import pyarrow as pa

        batch = self.batch + 1
        numbered = rows.append_column("batch", pa.array([batch] * rows.num_rows, pa.int64()))
        expected = self.expected_rows + rows.num_rows if expected_rows is None else expected_rows
        moved = {ROWS: expected, OWNER: self.owner, **_watermark(watermark), **more}
        moved |= _named_numbers(source, progress)
        self.commit(self.append_to(numbered), {BATCH: batch, **moved})

    def replace_rows(self, rows: pa.Table, days: Collection[date]) -> None:
        """Commit the next batch: put each of `rows` in the place of the row with its key. Raises FencedError, StorageError.

        `rows`: the columns of raw_ticks without `batch`, which becomes the new one, so that the bars of their minutes follow.
        `days`: the trade_date of the rows to be replaced.
        """
        import pyarrow as pa

        batch = self.batch + 1
        numbered = rows.append_column("batch", pa.array([batch] * rows.num_rows, pa.int64()))
        same = " AND ".join(f"t.{name} = s.{name}" for name in self.table.key)
        same += " AND t.trade_date IN (" + ", ".join(f"DATE '{day}'" for day in sorted(days)) + ")"

        def act(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
            merge = handle.merge(numbered, same, source_alias="s", target_alias="t", commit_properties=properties)
            merge.when_matched_update_all().execute()

        self.commit(act, {BATCH: batch, ROWS: self.expected_rows, OWNER: self.owner})

    def remove_days_before(self, first: date, expected_rows: int | None = None) -> int:
        """Commit the next batch: delete the ticks of days before `first`; return their number. Positions stay.

        `expected_rows`: as for `append_batch`.
        """
        gone = int(
            sum(
                add["num_records"]
                for add in adds_of(self.handle)
                if str(add["partition.trade_date"]) < first.isoformat()
            )
        )
        moved = {
            BATCH: self.batch + 1,
            ROWS: self.expected_rows - gone if expected_rows is None else expected_rows,
            FIRST_KEPT: (first - EPOCH.date()).days,
            OWNER: self.owner,
        }

        def act(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
            handle.delete(f"trade_date < DATE '{first}'", commit_properties=properties)

        self.commit(act if gone else self.append_to(self.no_rows()), moved)
        return gone

    def minutes_since(self, batch: int) -> pa.Table:
        """The ticker-minutes, with the columns KEY, in which good ticks of batches after `batch` are."""
        import pyarrow.dataset as ds

        return minutes_in(self._rows(KEY, ds.field("batch") > batch))

    def ticks_of(self, minutes: pa.Table) -> pa.Table:
        """All ticks of the ticker-minutes in `minutes` (KEY), with the columns that bars are computed from, and `batch`."""
        import pyarrow.compute as pc
        import pyarrow.dataset as ds

        starts = pc.unique(minutes["minute"])
        wanted = ds.field("trade_date").isin(pc.unique(minutes["trade_date"])) & ds.field("minute").isin(starts)
        # The bounds skip row groups, which `isin` alone does not.
        wanted &= (ds.field("minute") >= pc.min(starts)) & (ds.field("minute") <= pc.max(starts))
        # Text is compared after reading: a MERGE writes it as string_view, which pyarrow's filters on files do not know.
        found = self._rows([*READ, "batch"], wanted)
        return found.join(minutes.select(["ticker", "minute"]), ["ticker", "minute"], join_type="left semi")

    def newest_days(self, count: int) -> list[date]:
        """The newest `count` days of which ticks are there, the newest first."""
        days = {str(add["partition.trade_date"]) for add in adds_of(self.handle)}
        return [date.fromisoformat(day) for day in sorted(days, reverse=True)[:count]]

    def newest_offsets(self, days: Collection[date]) -> dict[tuple[str, str], int]:
        """The greatest offset of each source and partition among the ticks of `days`."""
        import pyarrow.dataset as ds

        rows = self._rows(["source", "partition", "offset"], ds.field("trade_date").isin(sorted(days)))
        greatest = rows.group_by(["source", "partition"]).aggregate([("offset", "max")])
        return {(row["source"], row["partition"]): int(row["offset_max"]) for row in greatest.to_pylist()}

    def places_of(self, source: str) -> dict[str, pa.Table]:
        """The rows of `source` by partition, in no order: offset, event_time, and size, the bytes of the message."""
        import pyarrow as pa
        import pyarrow.compute as pc

        columns = ["source", "partition", "offset", "event_time", "value"]
        found: dict[str, list[pa.Table]] = {}
        # File by file: together, the messages may be larger than the memory.
        for batch in self.handle.to_pyarrow_dataset().to_batches(columns=columns):
            rows = pa.Table.from_batches([batch]).cast(self._schema_of(columns))
            rows = rows.filter(pc.equal(rows["source"], source))
            rows = rows.append_column("size", pc.binary_length(rows["value"]).cast(pa.int64()))
            for partition in pc.unique(rows["partition"]).to_pylist():
                of_partition = rows.filter(pc.equal(rows["partition"], partition))
                found.setdefault(partition, []).append(of_partition.select(["offset", "event_time", "size"]))
        return {partition: pa.concat_tables(parts) for partition, parts in found.items()}

    def ticks_by_day(self) -> dict[date, int]:
        """How many good ticks each day has."""
        rows = self._rows(["trade_date", "minute"])
        counts = rows.group_by("trade_date").aggregate([("minute", "count")]).to_pylist()
        return {row["trade_date"]: row["minute_count"] for row in counts if row["minute_count"]}

    def dead_letters(self) -> pa.Table:
        """All dead letters, with all columns."""
        import pyarrow.dataset as ds

        return self._rows(self.table.column_names, ds.field("minute").is_null())

    def _rows(self, columns: Sequence[str], wanted: pc.Expression | None = None) -> pa.Table:
        """`columns` of the rows of `handle` that are `wanted`. Raises LostFilesError if a file is not there any more."""
        try:
            rows = self.handle.to_pyarrow_dataset().to_table([*columns], filter=wanted)
        except OSError as error:
            if damages := self.damages():
                raise LostFilesError(damages) from error
            raise
        return rows.cast(self._schema_of(columns))

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([self.table.arrow_schema.field(name) for name in columns])


def minutes_in(ticks: pa.Table) -> pa.Table:
    """The ticker-minutes (KEY) of the good ticks among `ticks`, each once."""
    import pyarrow.compute as pc

    schema = _key_schema()
    return ticks.filter(pc.is_valid(ticks["minute"])).select([*KEY]).cast(schema).group_by([*KEY]).aggregate([])


def instant_of(microseconds: int | None) -> datetime | None:
    """The instant of a number of the log; None stays None."""
    return None if microseconds is None else EPOCH + microseconds * MICROSECOND


def microseconds_of(instant: datetime) -> int:
    """`instant` as a number of the log."""
    return (instant - EPOCH) // MICROSECOND


def _key_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([RAW_TICKS.arrow_schema.field(name) for name in KEY])


def _watermark(watermark: datetime | None) -> dict[str, int]:
    return {} if watermark is None else {WATERMARK: microseconds_of(watermark)}


def _named_numbers(source: str, progress: Mapping[str, Progress]) -> dict[str, int]:
    """The numbers of partitions of `source`, by their names in the log."""
    return {
        f"{source}/{name}#{ending}": value
        for name, partition in progress.items()
        for ending, value in _numbers(partition).items()
    }


def _numbers(progress: Progress) -> dict[str, int]:
    """The numbers of a partition, by the ending of their names."""
    numbers = {**_limbs("", progress.position), ENDED: progress.ended}
    if progress.begin is not None:
        numbers |= _limbs(BEGIN, progress.begin)
    if progress.high is not None:
        numbers[HIGH] = microseconds_of(progress.high)
    if progress.arrived is not None:
        numbers[ARRIVED] = (progress.arrived - EPOCH) // MILLISECOND
    if progress.seen is not None:
        numbers[SEEN] = (progress.seen - EPOCH) // MILLISECOND
    return numbers


def _limbs(name: str, value: int) -> dict[str, int]:
    """`value` in parts of LIMB_BITS, by `name` and the number of the part."""
    count = max(1, -(-value.bit_length() // LIMB_BITS))
    return {f"{name}{n}": (value >> (LIMB_BITS * n)) & ((1 << LIMB_BITS) - 1) for n in range(count)}


def _joined(name: str, numbers: Mapping[str, int]) -> int | None:
    """The value of `_limbs`; None if it is not there."""
    limbs = {ending.removeprefix(name): value for ending, value in numbers.items() if ending.startswith(name)}
    parts = [value << (LIMB_BITS * int(limb)) for limb, value in limbs.items() if limb.isdigit()]
    return sum(parts) if parts else None


def _progress(numbers: Mapping[str, int]) -> Progress:
    arrived, seen = numbers.get(ARRIVED), numbers.get(SEEN)
    return Progress(
        _joined("", numbers) or 0,
        instant_of(numbers.get(HIGH)),
        None if arrived is None else EPOCH + arrived * MILLISECOND,
        numbers.get(ENDED, READING),
        None if seen is None else EPOCH + seen * MILLISECOND,
        _joined(BEGIN, numbers),
    )
