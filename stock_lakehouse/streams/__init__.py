"""Streams: sources of messages, and the runner that brings them into the tables exactly once.

Here: what a source is, and the errors of a source whose messages are gone. Not here: the tables (lake/tick_table.py and beside
it), what a message means (transforms/ticks.py), and Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from stock_lakehouse.lake.stream_table import StreamRefusedError
from stock_lakehouse.lake.tick_table import Progress

if TYPE_CHECKING:
    import pyarrow as pa


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
    """Messages that were not read yet are gone. `losses` lists them; the message says how to go on without them."""

    def __init__(self, source: str, losses: Sequence[Loss]) -> None:
        self.losses = tuple(losses)
        more = f" (and {len(losses) - 1} more)" if len(losses) > 1 else ""
        super().__init__(
            f"{source}: {losses[0].cause}{more}. Put back what is missing and run the same again; or go on without it: "
            'stock-lakehouse stream drain --accept-loss "why"'
        )


class ExpiredError(LossError):
    """A partition, or the messages at its position, are no longer there."""


class ReplacedError(LossError):
    """A file is shorter than its position, or has another beginning."""


class SourceError(StreamRefusedError):
    """The source cannot be read. The message says what to change."""


@dataclass(frozen=True)
class End:
    """Where a partition ends now.

    - position: behind its last message
    - newest: when something came last (None: unknown)
    """

    position: int
    newest: datetime | None


@dataclass(frozen=True)
class Messages:
    """Messages of one batch, of each partition in the order of their positions.

    - rows: partition, offset, arrival_time, value
    - positions: where each partition goes on after them
    - at_end: the partitions of the source that have no further message now
    - ended: those of them that will not get another one, as far as the source can tell
    - unread: the partitions that have further messages now, also those of which none was ever read
    """

    rows: pa.Table
    positions: Mapping[str, int]
    at_end: frozenset[str]
    ended: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


class StreamSource(Protocol):
    """Where messages come from.

    - name: identity of the stream, as in the column `source`
    - unit: what a position counts, in the plural: bytes, messages
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def open(self, known: Mapping[str, Progress]) -> None:
        """Go on from the positions in `known`; partitions that are not in it begin at their start.

        Raises LossError if that is not possible without a loss, SourceError if the source cannot be read.
        """

    def ends(self) -> Mapping[str, End]:
        """The partitions that the source has now, and where they end."""

    def poll(self, messages: int, size: int, seconds: float) -> Messages:
        """The next messages: at most `messages`, of about `size` bytes, after at most `seconds`; perhaps none.

        Raises LossError if messages were lost since the last call.
        """
