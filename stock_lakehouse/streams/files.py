"""A stream of files: every `*.jsonl` in a folder is a partition that grows, and every line is a message.

A partition is named after its file and the digest of the file's first line, so a file that was replaced is another partition. A
line counts once its line end is there. Blank lines are no messages.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stock_lakehouse.clock import Clock
from stock_lakehouse.lake.tick_table import GIVEN_UP, READ_TO_END, READING, Progress
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.streams import Batch, End, ExpiredError, Loss, LossError, Messages, ReplacedError, SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATTERN = "*.jsonl"
OFFSET_DIGITS = 20
HEAD_BYTES = 4096  # of the first line, whose digest identifies a file
LONGEST_LINE = 1_000_000  # bytes; a longer line is cut there, which makes it a dead letter
BLOCK = 1 << 16
LOOK_SECONDS = 0.1  # between two looks at the folder
# A file that was read to its end and did not change for so long may be removed without a loss.
QUIET = timedelta(hours=1)


Signature = tuple[int, int, int]  # inode, size and time of change of a file


@dataclass(frozen=True)
class _File:
    """A file as it was when it was looked at: `size` in bytes, `changed` in seconds of the epoch."""

    path: Path
    size: int
    changed: float
    signature: Signature


class FilesSource:
    """The files of `folder` as the stream `name`. A message arrives when it is read, by `clock`."""

    unit = "bytes"

    def __init__(self, folder: Path, name: str, clock: Clock = utc_now) -> None:
        self.folder, self.name, self.clock = folder, f"files:{name}", clock
        self._known: dict[str, Progress] = {}
        self._positions: dict[str, int] = {}
        self._unread: set[str] = set()
        # What was found of a file stays true while its signature is the same: the beginning of each file by its name, and the
        # position up to which each partition was found whole.
        self._heads: dict[str, tuple[Signature, bytes]] = {}
        self._checked: dict[str, tuple[Signature, int]] = {}

    @property
    def positions(self) -> dict[str, int]:
        """Where each file goes on."""
        return dict(self._positions)

    def open(self, known: Mapping[str, Progress]) -> None:
        """Go on from `known`; see `StreamSource`."""
        if not self.folder.is_dir():
            raise SourceError(
                f"{self.name}: there is no folder {self.folder}; create it, or set stream.folder to the folder in which files "
                f"{PATTERN} grow"
            )
        self._known = dict(known)
        self._positions = {name: progress.position for name, progress in known.items() if progress.ended != GIVEN_UP}
        self._checked = {}
        self._check(self._present())

    def ends(self) -> dict[str, End]:
        """The present files, and where their last whole lines end."""
        found = {}
        for partition, present in self._present().items():
            with present.path.open("rb") as file:
                end = _whole_lines(file, present.size)
            found[partition] = End(end, datetime.fromtimestamp(present.changed, UTC))
        return found

    def poll(self, messages: int, size: int, seconds: float) -> Messages:
        """The next lines of all files; see `StreamSource`."""
        deadline, batch, before = time.monotonic() + seconds, Batch(), dict(self._positions)
        while True:
            present = self._present()
            self._check(present)
            self._gather(batch, present, messages, size)
            left = deadline - time.monotonic()
            if len(batch.values) >= messages or batch.size >= size or left <= 0:
                break
            time.sleep(min(LOOK_SECONDS, left))
        moved = {name: place for name, place in self._positions.items() if before.get(name) != place}
        quiet = (self.clock() - QUIET).timestamp()
        at_end = present.keys() - self._unread
        ended = {name for name in at_end if present[name].changed < quiet}
        return Messages(batch.rows(), moved, frozenset(at_end), frozenset(ended), frozenset(self._unread))

    def next_offsets(self, offsets: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any]:
        """Behind the line end; where blank lines or a cut line follow, it is further; see `StreamSource`."""
        ends: NDArray[Any] = offsets + sizes + 1
        return ends

    def close(self) -> None:
        """Nothing is held open."""

    def _present(self) -> dict[str, _File]:
        """The partitions that are there now. A file without a whole first line is none yet."""
        # A file that was truncated and has its old first line again is read from its start, as another partition.
        given_up = Counter(_first(name) for name, known in self._known.items() if known.ended == GIVEN_UP)
        found = {}
        for path in sorted(self.folder.glob(PATTERN)):
            try:
                status = path.stat()
                signature = (status.st_ino, status.st_size, status.st_mtime_ns)
                seen = self._heads.get(path.name)
                if seen is None or seen[0] != signature:
                    with path.open("rb") as file:
                        seen = self._heads[path.name] = (signature, file.readline(HEAD_BYTES))
            except FileNotFoundError:  # removed in between, which the next look finds
                continue
            except OSError as error:
                raise SourceError(
                    f"{self.name}: {path} cannot be read: {error.strerror}; change its permissions"
                ) from None
            head = seen[1]
            if len(head) < HEAD_BYTES and not head.endswith(b"\n"):
                continue
            name = f"{path.name}@{hashlib.sha256(head).hexdigest()[:12]}"
            partition = f"{name}~{given_up[name]}" if given_up[name] else name
            found[partition] = _File(path, status.st_size, status.st_mtime, signature)
        return found

    def _check(self, present: Mapping[str, _File]) -> None:
        """Raise ReplacedError or ExpiredError if a partition cannot be read on from its position."""
        losses: list[tuple[type[LossError], Loss]] = []
        for partition, position in self._positions.items():
            known = self._known.get(partition, Progress(position))
            file = present.get(partition)
            if file is not None and self._checked.get(partition) == (file.signature, position):
                continue
            path = self.folder / partition.rpartition("@")[0]
            if file is not None:
                found = _why_not(path, position)
                if found is None:
                    self._checked[partition] = (file.signature, position)
            elif path.exists():
                found = None if known.ended == READ_TO_END else "was replaced by a file with another beginning"
            else:
                found = None if known.ended == READ_TO_END else ""
            if found is None:
                continue
            error = ReplacedError if found else ExpiredError
            cause = f"{path.name} {found or 'is no longer there'}; it was read up to byte {position:,}"
            go_on = Progress(position, known.high, known.arrived, GIVEN_UP)
            losses.append((error, Loss(partition, position, None, cause, go_on)))
        if losses:
            raise losses[0][0](self.name, [loss for _, loss in losses])

    def _gather(self, batch: Batch, present: Mapping[str, _File], messages: int, size: int) -> None:
        """Add lines of all files to `batch`, of each its share, until it is full or nothing is left."""
        unread = [(name, file.path) for name, file in present.items() if file.size > self._positions.get(name, 0)]
        arrived = self.clock()
        while unread and len(batch.values) < messages and batch.size < size:
            share = max(1, (messages - len(batch.values)) // len(unread))
            room = max(1, (size - batch.size) // len(unread))
            left = []
            for name, path in unread:
                if len(batch.values) < messages and batch.size < size:
                    at_end = self._read(batch, name, path, share, room, arrived)
                    left += [] if at_end else [(name, path)]
                else:
                    left.append((name, path))
            unread = left
        self._unread = {name for name, _ in unread}

    def _read(self, batch: Batch, partition: str, path: Path, messages: int, size: int, arrived: datetime) -> bool:
        """Add at most `messages` lines of about `size` bytes to `batch`; whether no whole line is left."""
        count, taken, position = 0, 0, self._positions.get(partition, 0)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return True
        with file:
            if file.readline(HEAD_BYTES) != self._heads[path.name][1]:
                return True  # replaced since it was looked at, like a file that was removed: the next look finds it
            file.seek(position)
            while count < messages and taken < size:
                line, length = _line(file)
                if not length:
                    break
                if line.strip():
                    batch.partitions.append(partition)
                    batch.offsets.append(f"{position:0{OFFSET_DIGITS}}")
                    batch.arrivals.append(arrived)
                    batch.values.append(line)
                    count, taken = count + 1, taken + len(line)
                position += length
            else:
                length = 1 if _whole_lines(file, os.fstat(file.fileno()).st_size) > position else 0
        self._positions[partition] = position
        self._known.setdefault(partition, Progress(position))
        if self._known[partition].ended == READ_TO_END:
            self._known[partition] = Progress(position, ended=READING)
        batch.size += taken
        return not length


def _line(file: BinaryIO) -> tuple[bytes, int]:
    """The next line without its end, cut to LONGEST_LINE, and its length in the file; length 0 if it is not whole yet."""
    line = file.readline(LONGEST_LINE + 1)
    length, last = len(line), line
    while last and not last.endswith(b"\n"):
        last = file.readline(BLOCK)
        length += len(last)
    return (line.removesuffix(b"\n")[:LONGEST_LINE], length) if last else (b"", 0)


def _first(partition: str) -> str:
    """The name of the first partition of the same file and first line."""
    file, _, digest = partition.rpartition("@")
    return f"{file}@{digest.partition('~')[0]}"


def _why_not(path: Path, position: int) -> str | None:
    """Why the file cannot be read on from `position`, the start of a line; None if it can."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < position:
                return f"was cut to {size:,} bytes"
            file.seek(max(0, position - 1))
            if position and file.read(1) != b"\n":
                return "was overwritten"
    except FileNotFoundError:  # removed in between, which the next look finds
        return None
    return None


def _whole_lines(file: BinaryIO, size: int) -> int:
    """The position behind the last line end of the first `size` bytes of `file`."""
    while size > 0:
        start = max(0, size - BLOCK)
        file.seek(start)
        if (found := file.read(size - start).rfind(b"\n")) >= 0:
            return start + found + 1
        size = start
    return 0
