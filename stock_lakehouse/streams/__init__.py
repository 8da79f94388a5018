"""Streams: sources of messages, and the runner that brings them into the tables exactly once.

Here: what a source is, and the errors of a source whose messages are gone. Not here: the tables (lake/tick_table.py and beside
it), what a message means (transforms/ticks.py), and Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.lake.stream_table import StreamRefusedError
from stock_lakehouse.lake.tick_table import GIVEN_UP, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Loss:
    """Messages of a partition that cannot be read any more.

    - first: position of the first one
    - end: position behind the last one (None: nobody knows)
    - cause: what was found
    - go_on: how far the partition counts as read once the loss is accepted
    """

    partition: str
    first: int
    end: int | None
    cause: str
    go_on: Progress


class LossError(StreamRefusedError):
    """Messages that were not read yet are gone. The message says how to go on without them.

    - source: the stream that had them
    - losses: what is gone, of each partition
    - advice: what can be done before the command that accepts the loss
    """

    def __init__(
        self,
        source: str,
        losses: Sequence[Loss],
        advice: str = "Put back what is missing and run the same again; or go on without it",
    ) -> None:
        self.source, self.losses = source, tuple(losses)
        more = f" (and {len(losses) - 1} more)" if len(losses) > 1 else ""
        super().__init__(
            f'{source}: {losses[0].cause}{more}. {advice}: stock-lakehouse stream drain --accept-loss "why"'
        )


class ExpiredError(LossError):
    """A partition, or the messages at its position, are no longer there."""


class ReplacedError(LossError):
    """A partition is shorter than its position, or has another beginning."""


class RecreatedError(LossError):
    """The stream was deleted and made anew under its name, so its positions are those of another one."""


class SourceError(StreamRefusedError):
    """The source cannot be read. The message says what to change."""


class SourceUnavailableError(LakeError):
    """The source does not answer, also after every retry. Nothing is half-made; the same may work later."""


@dataclass(frozen=True)
class End:
    """Where a partition ends now.

    - position: behind its last message (None: the source cannot say; it is read to its end once `poll` says `at_end`)
    - newest: when something came last (None: unknown)
    - waiting_since: when the first message arrived that was not read yet (None: there is none, or it is unknown)
    - later: where to begin to read only what comes from now on, where that is not `position`
    """

    position: int | None
    newest: datetime | None
    waiting_since: datetime | None = None
    later: int | None = None


@dataclass(frozen=True)
class Messages:
    """Messages of one batch, of each partition in the order of their positions.

    - rows: partition, offset, arrival_time, value
    - positions: where each partition goes on after them
    - at_end: the partitions of the source that have no further message now
    - ended: those of them that will not get another one, as far as the source can tell
    - unread: the partitions that have further messages now, also those of which none was ever read
    - seen: until when everything was read that had arrived, for a source whose messages expire
    - parents: of a partition that goes on others, which were read to their end: these
    """

    rows: pa.Table
    positions: Mapping[str, int]
    at_end: frozenset[str]
    ended: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    seen: Mapping[str, datetime] = field(default_factory=dict)
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Batch:
    """The messages that a source has gathered so far, one entry a message in each list.

    - offsets: as text that sorts
    - arrivals: times, or whole numbers of `arrival_unit` since the epoch
    - size: bytes
    """

    arrival_unit: Literal["us", "ms"] = "us"
    partitions: list[str] = field(default_factory=list)
    offsets: list[str] = field(default_factory=list)
    arrivals: list[Any] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    size: int = 0

    def rows(self) -> pa.Table:
        """The rows of `Messages`."""
        import pyarrow as pa

        arrivals = pa.array(self.arrivals, pa.timestamp(self.arrival_unit, "UTC"))
        return pa.table(
            {
                "partition": pa.array(self.partitions, pa.string()),
                "offset": pa.array(self.offsets, pa.string()),
                "arrival_time": arrivals.cast(pa.timestamp("us", "UTC")),
                "value": pa.array(self.values, pa.binary()),
            }
        )


class StreamSource(Protocol):
    """Where messages come from.

    - name: identity of the stream, as in the column `source`: KIND:NAME, and @INCARNATION where a stream can be made anew under
      its name. Asking for it may ask the server: SourceError, SourceUnavailableError.
    - unit: what a position counts, in the plural: bytes, messages
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def positions(self) -> Mapping[str, int]:
        """Where each partition goes on, once it is open."""

    def open(self, known: Mapping[str, Progress]) -> None:
        """Go on from the positions in `known`; partitions that are not in it begin at their start.

        Raises LossError if that is not possible without a loss, SourceError if the source cannot be read,
        SourceUnavailableError.
        """

    def ends(self) -> Mapping[str, End]:
        """The partitions that the source has now, and where they end."""

    def poll(self, messages: int, size: int, seconds: float) -> Messages:
        """The next messages: at most `messages`, of about `size` bytes, after at most `seconds`; perhaps none.

        With `seconds` = 0 a source that has messages gives some, as soon as they come from its server.
        Raises LossError if messages were lost since the last call, SourceUnavailableError.
        """

    def next_offsets(self, offsets: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any] | None:
        """The smallest offset that a message behind each of those at `offsets` can have. `sizes`: their bytes.

        None if offsets are not counted, so that a gap between two of them says nothing.
        """

    def close(self) -> None:
        """Give back connections and threads. `open` may follow."""


def recreated(name: str, known: Mapping[str, Mapping[str, Progress]]) -> RecreatedError | None:
    """The refusal if another incarnation of the stream `name` was read; None if not, or if its end was accepted.

    `known`: the partitions of each stream that was read, by the stream's name and the partition's.
    """
    stream = name.partition("@")[0]
    for former, partitions in known.items():
        read = {partition: progress for partition, progress in partitions.items() if progress.ended != GIVEN_UP}
        if former != name and former.partition("@")[0] == stream and read:
            return made_anew(former, name, read)
    return None


def made_anew(former: str, name: str, read: Mapping[str, Progress]) -> RecreatedError:
    """The refusal if `name` stands where `former` stood, whose partitions were read up to `read`."""
    losses = [
        Loss(
            partition,
            progress.position,
            None,
            f"it was deleted and made anew, or is on another server: {name} is there now. What came after position "
            f"{progress.position:,} of its partition {partition} cannot be read any more",
            Progress(progress.position, progress.high, progress.arrived, GIVEN_UP),
        )
        for partition, progress in sorted(read.items())
    ]
    return RecreatedError(former, losses, "Read the new one from its beginning")
