"""Rows that raw_ticks lost, read again from the stream; those that the stream no longer has become losses.

Positions outlive rows: a table that was restored, or lost a file, has the positions of its newest version. So the rows that are
there show which messages are missing. Not here: how a runner notices that (lake/tick_table.py), and what a batch is (runner.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.tick_table import GIVEN_UP, LostRowsError, Progress
from stock_lakehouse.streams import Loss, LossError, Messages, RecreatedError, StreamSource, recreated
from stock_lakehouse.streams.runner import MEGABYTE, Runner, StreamTimeoutError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

WHY = "stream refill: the stream no longer has these messages"
MOST_LINES = 20  # of losses a partition; the records that end transactions of Kafka leave gaps too
LINE_SECONDS = 5.0  # between two lines of progress
NEVER = -(1 << 63)  # the newest event of no tick, in microseconds


@dataclass(frozen=True)
class Refilled:
    """What a refill did.

    - expected, found: rows that the positions stood for, and rows that were there
    - damaged_files: files of ticks that were missing or damaged, and were taken out
    - read_again: messages that are rows again
    - lost: rows that did not come back, which are in stream_losses
    - bars: bars that were computed anew
    """

    expected: int
    found: int
    damaged_files: int
    read_again: int
    lost: int
    bars: int


@dataclass(frozen=True)
class Gap:
    """Positions of a partition from `first` up to `end`, at which raw_ticks has no row and a message may have been."""

    first: int
    end: int


class Rows:
    """The rows of a partition that raw_ticks has.

    - offsets: as in the table, sorted
    - highs: the newest event time up to each of them, in microseconds
    """

    def __init__(self, rows: pa.Table | None) -> None:
        import numpy as np
        import pyarrow as pa

        if rows is None:
            self.offsets, self.highs, self.sizes = np.array([], "S1"), np.array([], np.int64), np.array([], np.int64)
            return
        ordered = rows.sort_by("offset")
        self.offsets = np.array(ordered["offset"].to_pylist(), "S")
        self.highs = np.maximum.accumulate(ordered["event_time"].cast(pa.int64()).fill_null(NEVER).to_numpy())
        self.sizes = ordered["size"].to_numpy()

    def has(self, offsets: NDArray[Any]) -> NDArray[Any]:
        """Whether each of `offsets` is there."""
        import numpy as np

        places = np.searchsorted(self.offsets, offsets)
        found = np.zeros(len(offsets), bool)
        inside = places < len(self.offsets)
        found[inside] = self.offsets[places[inside]] == offsets[inside]
        return found

    def highs_before(self, offsets: NDArray[Any]) -> NDArray[Any]:
        """The newest event time before each of `offsets`; NEVER if there is none."""
        import numpy as np

        places = np.searchsorted(self.offsets, offsets)
        return np.concatenate([[NEVER], self.highs])[places]

    def gaps(self, begin: int, end: int, source: StreamSource) -> list[Gap]:
        """Where messages from `begin` up to `end` may be missing."""
        import numpy as np

        if not is_counted(source) or not len(self.offsets):
            return [Gap(begin, end)] if begin < end else []
        offsets = self.offsets.astype(np.int64)
        following = source.next_offsets(offsets, self.sizes)
        starts, ends = np.concatenate([[begin], following]), np.concatenate([offsets, [end]])
        is_gap = (starts < ends) & (ends > begin) & (starts < end)
        return [Gap(int(first), int(last)) for first, last in zip(starts[is_gap], ends[is_gap], strict=True)]


def is_counted(source: StreamSource) -> bool:
    """Whether the offsets of messages show where others are missing between them."""
    import numpy as np

    return source.next_offsets(np.array([0]), np.array([0])) is not None


def refill(started: Runner, minutes: float, progress: Callable[[str], None]) -> Refilled:
    """Bring back what raw_ticks lost, as far as the stream has it, with its bars; write the rest down as losses.

    `started` holds the stream's lock and was not started. May be killed at any step and run again: what came back stays, and the
    table is refused until all is done. Raises StreamTimeoutError after `minutes`; OwnerError, RecreatedError, LostRowsError if
    rows are too many, SourceError, SourceUnavailableError, StorageError.
    """
    ticks = started.ticks
    started.prepare()
    ticks.check_owner()
    known = ticks.sources()
    if (refusal := recreated(started.source.name, known)) is not None:
        raise refusal
    damaged = started.take_out_damaged()
    with started.writing_alone():
        ticks.finish_batch(ticks.unfinished())
    started.partitions = ticks.partitions(started.source.name)
    expected, found = ticks.expected_rows, ticks.row_count()
    started.catch_up()
    if found > expected and ticks.first_kept is not None:
        ticks.remove_days_before(ticks.first_kept, expected_rows=expected)
        started.catch_up()
        found = ticks.row_count()
    if found > expected:
        raise LostRowsError(found, expected)
    if found == expected:
        return Refilled(expected, found, damaged, 0, 0, 0)
    progress(f"raw_ticks has {found:,} rows, and its positions stand for {expected:,}")
    unreadable = _read_again(started, minutes, progress)
    rows = ticks.row_count()
    lost = max(0, expected - rows)
    # Without a range the number of rows is the loss; rows that were given up before and came back are none.
    losses = (_losses(started, unreadable, lost) or None) if lost else ()
    computed = started.accept_lost_rows(WHY, losses)
    started.join_files()
    return Refilled(expected, found, damaged, rows - found, lost, started.counts.bars + computed)


def _read_again(started: Runner, minutes: float, progress: Callable[[str], None]) -> dict[str, tuple[int, str]]:
    """Commit the missing messages that the source still has, with their bars.

    Return the partitions of which it has not all: up to which position, and why.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ticks = started.ticks
    present = _present(started)
    newest: dict[str, int] = {}  # event of the ticks that came back, in microseconds
    unreadable: dict[str, tuple[int, str]] = {}
    missing = _missing(started, present, unreadable, time.monotonic() + 60 * minutes, progress)
    for messages in _joined(missing, started.settings.batch_messages):
        names = pa.array([started.source.name] * messages.num_rows, pa.string())
        given, highs = messages.add_column(0, "source", names), _highs(messages, present, newest)
        rows = started.ticks_of(given, highs, as_first_read=True)
        if ticks.first_kept is not None:  # what was removed with its day stays away
            rows = rows.filter(pc.greater_equal(rows["trade_date"], pa.scalar(ticks.first_kept)))
        if not rows.num_rows:
            continue
        started.bring_back(rows)
        events = rows.set_column(0, "event", rows["event_time"].cast(pa.int64()))
        for row in events.group_by("partition").aggregate([("event", "max")]).to_pylist():
            newest[row["partition"]] = max(newest.get(row["partition"], NEVER), row["event_max"] or NEVER)
    return unreadable


def _present(started: Runner) -> dict[str, Rows]:
    """The rows that the table has, of each partition of the source."""
    found = started.ticks.places_of(started.source.name)
    return {name: Rows(found.get(name)) for name in started.partitions}


def _highs(messages: pa.Table, present: Mapping[str, Rows], newest: Mapping[str, int]) -> pa.Array:
    """The newest event before each of `messages`, among rows that are there and those that came back."""
    import numpy as np
    import pyarrow as pa

    partitions = np.array(messages["partition"].to_pylist(), object)
    offsets, highs = np.array(messages["offset"].to_pylist(), "S"), np.full(messages.num_rows, NEVER)
    for name in set(partitions):
        mine = partitions == name
        highs[mine] = np.maximum(present[name].highs_before(offsets[mine]), newest.get(name, NEVER))
    return pa.array(highs, pa.int64(), mask=highs == NEVER).cast(pa.timestamp("us", "UTC"))


def _gaps(started: Runner, present: Mapping[str, Rows]) -> dict[str, list[Gap]]:
    """The gaps of each partition of the source that has any."""
    found = {}
    for name, progress in started.partitions.items():
        rows = present[name]
        first = int(rows.offsets[0]) if len(rows.offsets) else progress.position
        begin = first
        # Ticks that were removed with their days were the earlier ones; another kind of runner does not say where it began.
        if progress.begin is not None and started.ticks.first_kept is None:
            begin = min(progress.begin, first)
        if gaps := rows.gaps(begin, progress.position, started.source):
            found[name] = gaps
    return found


def _missing(
    started: Runner,
    present: Mapping[str, Rows],
    unreadable: dict[str, tuple[int, str]],
    deadline: float,
    progress: Callable[[str], None],
) -> Iterator[pa.Table]:
    """Read the source from the first gap of each partition to its last one; yield the messages that no row is of.

    What cannot be read is noted in `unreadable`, and the source is opened again behind it.
    """
    source, settings = started.source, started.settings
    gaps, known = _gaps(started, present), {name: _as_read(one) for name, one in started.partitions.items()}
    places: dict[str, int] = {}
    for name, of_partition in gaps.items():
        if started.partitions[name].ended == GIVEN_UP:
            unreadable[name] = (of_partition[-1].end, "its rest was given up before")
        else:  # an offset that is not counted may be none at which the source can begin
            places[name] = of_partition[0].first if is_counted(source) else 0
    read, next_line = 0, time.monotonic() + LINE_SECONDS
    while places:  # once more only behind a loss
        try:
            source.open({**known, **{name: Progress(at) for name, at in places.items()}})
            while places:
                if time.monotonic() > deadline:
                    raise StreamTimeoutError(
                        f"{source.name}: not at the end of what raw_ticks lost after the time that was given; what came back "
                        "stays. Run the same again to go on, or give it more time with --minutes"
                    )
                messages = source.poll(settings.batch_messages, settings.batch_megabytes * MEGABYTE, 0)
                yield from _without_row(messages.rows, {name: gaps[name] for name in places}, present)
                _advance(messages, places, gaps)
                read += messages.rows.num_rows
                if time.monotonic() > next_line:
                    next_line = time.monotonic() + LINE_SECONDS
                    progress(f"{read:,} messages read, {started.ticks.row_count():,} rows are there")
        except RecreatedError:
            raise
        except LossError as error:
            for loss in error.losses:
                known[loss.partition] = loss.go_on
                if loss.partition in places:
                    _leave_out(loss, places, gaps[loss.partition][-1].end, unreadable)


def _advance(messages: Messages, places: dict[str, int], gaps: Mapping[str, Sequence[Gap]]) -> None:
    """Note in `places` how far its partitions are read; those that are done leave it."""
    places |= {name: at for name, at in messages.positions.items() if name in places}
    for name in [*places]:
        if places[name] >= gaps[name][-1].end or name in messages.at_end:
            del places[name]


def _leave_out(loss: Loss, places: dict[str, int], until: int, unreadable: dict[str, tuple[int, str]]) -> None:
    """Go on behind `loss` in its partition, which is read up to `until`; if there is nothing, leave the partition out."""
    at = places.pop(loss.partition)
    if loss.go_on.ended != GIVEN_UP and at <= loss.go_on.position < until:
        until = places[loss.partition] = loss.go_on.position
    unreadable[loss.partition] = (until, loss.cause)


def _as_read(progress: Progress) -> Progress:
    """`progress` without the times that say what may have expired: nothing is read from there."""
    return Progress(progress.position, ended=progress.ended)


def _without_row(rows: pa.Table, gaps: Mapping[str, Sequence[Gap]], present: Mapping[str, Rows]) -> Iterator[pa.Table]:
    """Of the messages in `rows`, those between the first and the last of the `gaps` of a partition that have no row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in pc.unique(rows["partition"]).to_pylist():
        if name in gaps:
            of_partition = rows.filter(pc.equal(rows["partition"], name))
            offsets = of_partition["offset"].to_pylist()
            inside = np.array([gaps[name][0].first <= int(offset) < gaps[name][-1].end for offset in offsets])
            yield of_partition.filter(pa.array(inside & ~present[name].has(np.array(offsets, "S"))))


def _joined(parts: Iterator[pa.Table], count: int) -> Iterator[pa.Table]:
    """`parts` joined to tables of at least `count` rows; the last one may have fewer. None is without rows."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for part in parts:
        waiting += [part] if part.num_rows else []
        if sum(table.num_rows for table in waiting) >= count:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _losses(started: Runner, unreadable: Mapping[str, tuple[int, str]], lost: int) -> list[Loss]:
    """What the source does not have any more of the gaps that are left."""
    found = []
    for name, gaps in _gaps(started, _present(started)).items():
        until, cause = unreadable.get(name, (0, ""))
        gone = [Gap(gap.first, min(gap.end, until)) for gap in gaps if gap.first < until]
        if len(gone) > MOST_LINES:
            gone = [Gap(gone[0].first, gone[-1].end)]
        words = f"{cause}; raw_ticks lost {lost:,} rows in all that could not be read again"
        found += [Loss(name, gap.first, gap.end, words, started.partitions[name]) for gap in gone]
    return found
