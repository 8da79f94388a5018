"""Frames on their way into a table, written once so that an audit, a comparison and a write read what was computed.

A lazy frame that three readers use would be computed three times (applyInArrow included). Not here: what the readers do.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.lake.storage import Folder, LakeRoot, Storage, storage_at
from stock_lakehouse.tables import SESSIONS_A_YEAR

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


FOLDER = ".staging"


class Staging:
    """A folder of one run under `root`: the lake's, or another place that engine and program both reach. `clear` when the run
    ends. What a killed run leaves, a later one removes when it is KEEP_SECONDS older than what that one staged: no clock of this
    machine is asked, which may jump. In a folder a lock says that a run lives."""

    KEEP_SECONDS = 24 * 3600.0

    def __init__(self, root: LakeRoot) -> None:
        self.storage = storage_at(root)
        self.folder = f"{FOLDER}/{uuid.uuid4().hex}"
        self._alive = _lock_of(self.storage, self.folder)

    def stage(self, frame: DataFrame, *more: DataFrame) -> DataFrame:
        """`frame` computed, and after it `more` of the same schema: their rows, read from files.

        Frames are computed one after the other, so that the engine holds one of them in memory.
        """
        uri = self.storage.uri(self.new_path())
        for one in (frame, *more):
            # Read once or twice and removed: the time of a better compression would never come back.
            one.write.mode("append").option("compression", "snappy").parquet(uri)
        return frame.sparkSession.read.schema(_nullable(frame.schema)).parquet(uri)

    def by_ticker(
        self,
        transform: Callable[[DataFrame], DataFrame],
        frame: DataFrame,
        tickers: Sequence[str],
        years: int,
        bars_per_chunk: int,
    ) -> DataFrame:
        """`transform(frame)` computed once, about `bars_per_chunk` bars at a time, so that memory does not grow with tickers.

        The rows that `transform` gives for a ticker must depend on that ticker's rows alone. `tickers` are the frame's, each with
        about `years` years of bars.
        """
        from pyspark.sql import functions as F

        size = max(bars_per_chunk // (years * SESSIONS_A_YEAR), 1)
        firsts = sorted(tickers)[::size]
        # Ranges without a gap, open at both ends: every row is in one of them, whatever its ticker.
        parts = []
        for first, following in zip(firsts, [*firsts[1:], None], strict=True):
            part = frame if first == firsts[0] else frame.where(F.col("ticker") >= first)
            parts.append(transform(part if following is None else part.where(F.col("ticker") < following)))
        return self.stage(*parts)

    def new_path(self) -> str:
        """A path under `root` that nothing is at yet."""
        if self._alive is not None and not self._alive.is_locked:
            self._alive.acquire()
        return f"{self.folder}/{uuid.uuid4().hex}"

    def clear(self) -> None:
        """Remove the folder, and those of runs that were killed long ago."""
        now = max((file.changed for file in self.storage.walk(self.folder)), default=None)
        if self._alive is not None:
            self._alive.release(force=True)
        _remove(self.storage, self.folder)
        if now is not None:
            clear_abandoned(self.storage, now)


def clear_abandoned(storage: Storage, now: float | None = None) -> int:
    """Remove the folders of runs that were killed more than KEEP_SECONDS before `now`, or if it is None this moment; how many."""
    from stock_lakehouse.market_calendar import utc_now

    newest: dict[str, float] = {}
    for file in storage.walk(FOLDER):
        folder = "/".join(file.path.split("/")[:2])
        newest[folder] = max(newest.get(folder, 0.0), file.changed)
    present = utc_now().timestamp() if now is None else now
    old = [folder for folder, changed in newest.items() if present - changed > Staging.KEEP_SECONDS]
    gone = [folder for folder in old if not _is_in_use(storage, folder)]
    for folder in gone:
        _remove(storage, folder)
    return len(gone)


def _remove(storage: Storage, folder: str) -> None:
    storage.delete_folder(folder)
    if isinstance(storage, Folder):
        storage.delete([_lock_path(folder)])


def _is_in_use(storage: Storage, folder: str) -> bool:
    """Whether the run that staged there lives; in a bucket that is not known."""
    from filelock import Timeout

    lock = _lock_of(storage, folder)
    try:
        with lock.acquire(timeout=0) if lock is not None else nullcontext():
            return False
    except Timeout:
        return True


def _lock_of(storage: Storage, folder: str) -> BaseFileLock | None:
    """The lock that the run holds which stages in `folder`; it dies with its process."""
    from filelock import FileLock

    if not isinstance(storage, Folder):
        return None
    path = Path(storage.uri(_lock_path(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, thread_local=False)


def _lock_path(folder: str) -> str:
    return f".locks/{folder.replace('/', '-').lstrip('.')}.lock"


def _nullable(schema: StructType) -> StructType:
    """`schema` with every field nullable: Sail reads no struct field declared not null ("Cannot cast struct field")."""
    from pyspark.sql.types import StructType

    text = (
        schema.json()
        .replace('"nullable":false', '"nullable":true')
        .replace('"containsNull":false', '"containsNull":true')
    )
    return StructType.fromJson(json.loads(text))
