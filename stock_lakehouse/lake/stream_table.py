"""What the tables of the stream share: what their log says, commits that move it, and versions that are kept for hours.

Here: a commit that carries positions, and the decision whether it came. Not here: which positions there are (tick_table.py), and
which rows are written (tick_table.py, bar_table.py, loss_table.py).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.history import CHECKPOINT, LOG
from stock_lakehouse.lake.lock import confirm
from stock_lakehouse.lake.maintenance import remove_old
from stock_lakehouse.lake.storage import LakeError, LakeRoot, StorageError, named, storage_at, storage_error
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa

    Act = Callable[[deltalake.DeltaTable, deltalake.CommitProperties], None]

LOCK = "stream"  # the one lock of all writers of stream tables
# Held while a batch of Structured Streaming is written, by whatever process that is. The program that holds LOCK may have died.
WRITING = "stream_batch"
ATTEMPTS = 5
PAUSE_SECONDS = 0.2  # before the second attempt; it doubles before each further one
MARK = "stock_lakehouse.mark"
# A file that no version names may belong to a commit in flight. No batch takes so long.
UNCOMMITTED = timedelta(hours=1)
# Small enough that joining the files of a running day does not write the whole day again each time.
FILE_BYTES = 8_000_000
# A row group is what a reader of some minutes decodes at least.
GROUP_ROWS = 50_000


class StreamRefusedError(LakeError):
    """The stream does not go on, because it would lose messages or count them twice. The message says what to do."""


class FencedError(StreamRefusedError):
    """Another runner has written since this one read its position. Nothing of this one's batch was written."""


class StreamTable(DeltaTable):
    """A Delta table of the stream.

    Its log has, besides rows, numbers by name (`txn` actions). A commit moves rows and numbers together or neither.

    - fence: the number that each of its writers moves, by which two of them notice each other
    - handle: the version on which the next commit is made. The numbers that decide about a commit are read from this handle, so
      a commit of another runner since then makes it fail.
    """

    # With the two hours of the versions the checkpoints of a running day have gigabytes, and each opening reads 15,000 names.
    tombstones: ClassVar[str] = "interval 5 minutes"
    handle: deltalake.DeltaTable

    def __init__(self, options: LakeOptions | LakeRoot, table: Table, versions_hours: int, fence: str) -> None:
        super().__init__(options, table)
        self.versions_hours, self.fence = versions_hours, fence
        self._expected: int | None = None

    @property
    def properties(self) -> dict[str, str]:
        return super().properties | {"delta.logRetentionDuration": f"interval {self.versions_hours} hours"}

    def begin(self) -> None:
        """Open the newest version as `handle`, to go on from its numbers."""
        self.handle = self.open()
        self._expected = self.number(self.fence)

    def number(self, name: str) -> int | None:
        """The number `name` as of `handle`; None if no commit has written it."""
        version: int | None = self.handle.transaction_version(name)
        return version

    def numbers(self) -> dict[str, int]:
        """All numbers as of `handle`. deltalake gives a number only by its name, so the log is read."""
        import pyarrow.parquet as pq

        storage, folder, version = storage_at(self.lake_root), f"{self.table.path}/{LOG}", self.handle.version()
        checkpoints: dict[int, list[str]] = {}
        for file in storage.walk(folder):
            if (match := CHECKPOINT.fullmatch(file.name)) and int(match[1]) <= version:
                checkpoints.setdefault(int(match[1]), []).append(file.path)
        start, found = max(checkpoints, default=-1), {}
        for path in checkpoints.get(start, []):
            for action in pq.read_table(storage.source(path), columns=["txn"])["txn"].to_pylist():
                if action is not None:
                    found[action["appId"]] = int(action["version"])
        logs = [f"{folder}/{number:020d}.json" for number in range(start + 1, version + 1)]
        for text in storage.map(storage.read, logs):
            for line in text.splitlines():
                if b'"txn"' in line and (action := json.loads(line).get("txn")):
                    found[action["appId"]] = int(action["version"])
        return found

    def commit(self, act: Act, moved: Mapping[str, int]) -> None:
        """Make one commit on `handle` by `act`, which also sets the numbers `moved`, among them the fence.

        Whether a failed commit came is decided by the table, not by the error. If it came, its answer was lost and all is well.
        If the fence moved, another runner is at work. Else (upkeep or a property came between, or the store failed) `act` is
        called again on the newest version, ATTEMPTS times in all.

        Raises FencedError, LeaseLostError, or StorageError if the store fails at every attempt.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import DeltaError

        mark = uuid.uuid4().hex
        # Undated: deltalake drops a dated number once delta.setTransactionRetentionDuration has passed.
        numbers = [Transaction(name, value, None) for name, value in moved.items()]
        properties = CommitProperties(custom_metadata={MARK: mark}, app_transactions=numbers)
        failed: Exception | None = None
        for attempt in range(ATTEMPTS + 1):  # the last one only looks whether the one before it came
            try:
                if failed is not None:
                    time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
                    before = self.handle.version()
                    self.handle = self.open()
                    since = self.handle.version() - before
                    if since and any(commit.get(MARK) == mark for commit in self.handle.history(since)):
                        break
                self._check_fence(failed)
                if attempt < ATTEMPTS:
                    confirm(self.lake_root)
                    act(self.handle, properties)
                    break
            except (DeltaError, OSError, StorageError) as error:
                failed = error
        else:
            assert failed is not None
            raise storage_error(self.table.name, failed) or failed
        self._expected = moved[self.fence]

    def _check_fence(self, cause: Exception | None = None) -> None:
        """Raise FencedError if `handle` has the commit of another writer: deltalake may have moved it to a newer version."""
        if self.number(self.fence) != self._expected:
            raise FencedError(
                f"{self.table.name}: another runner has written since this one read its position, so nothing of this batch was "
                "written; `stock-lakehouse stream status` names the runner"
            ) from cause

    def append_to(self, rows: pa.Table) -> Act:
        """The act that appends `rows`; of no rows a commit without files, which moves numbers too."""
        import deltalake

        def act(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
            deltalake.write_deltalake(
                handle, rows, mode="append", commit_properties=properties, writer_properties=_writer()
            )

        return act

    def no_rows(self) -> pa.Table:
        """A frame of this table without rows."""
        return self.table.arrow_schema.empty_table()

    def join_files(self, partitions: Sequence[tuple[str, str, list[str]]]) -> None:
        """Join the small files of `partitions`, a filter as deltalake takes it, in a commit that changes no row."""
        confirm(self.lake_root)
        with named(self.table.name):
            self.handle.optimize.compact(list(partitions), target_size=FILE_BYTES, writer_properties=_writer())
        self._check_fence()

    def remove_old(self, now: datetime) -> None:
        """Remove the versions that are older than `versions_hours`, and the files that only they have."""
        confirm(self.lake_root)
        with named(self.table.name):
            self.open().create_checkpoint()
        remove_old(self, now, timedelta(hours=self.versions_hours), UNCOMMITTED)


def _writer() -> deltalake.WriterProperties:
    import deltalake

    # With WriterProperties and no compression deltalake writes uncompressed files.
    return deltalake.WriterProperties(compression="ZSTD", max_row_group_size=GROUP_ROWS)
