"""Staged frames: a computed frame is written once, so that audit, comparison and publish read the same rows.

A lazy frame with three readers would be computed three times, applyInArrow included. Not here: what the readers do.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.lake.lease import FOLDER as LOCKS
from stock_lakehouse.lake.storage import Folder, LakeRoot, Storage, storage_at
from stock_lakehouse.tables import SESSIONS_A_YEAR

if TYPE_CHECKING:
    import pyarrow as pa
    from filelock import BaseFileLock
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


FOLDER = ".staging"


class Staging:
    """A run's folder for staged frames under `root`. `clear` removes it at the end of the run.

    `root`: the lake's root, or another place that engine and program both reach.

    Leftovers of a killed run are removed once they are KEEP_SECONDS older than the current run's newest file. File times are
    compared with each other, never with this machine's clock, which may jump. In a folder, a lock tells that a run is alive.
    """

    KEEP_SECONDS = 24 * 3600.0

    def __init__(self, root: LakeRoot) -> None:
        self.storage = storage_at(root)
        self.folder = f"{FOLDER}/{uuid.uuid4().hex}"
        self._alive = _lock_of(self.storage, self.folder)

    def stage(self, frame: DataFrame, *more: DataFrame) -> DataFrame:
        """Compute `frame`, and `more` frames of the same schema, into files; return a frame that reads all their rows.

        The frames are computed one after the other, so that the engine holds only one of them in memory.
        """
        path = self.new_path()
        uri = self.storage.uri(path)
        for part in (frame, *more):
            # Staged files are read once or twice and then removed, so a stronger compression would not pay.
            part.write.mode("append").option("compression", "snappy").parquet(uri)
        self.storage.check_readable(path)
        return frame.sparkSession.read.schema(_nullable(frame.schema)).parquet(uri)

    def rows_of(self, frame: DataFrame) -> pa.Table:
        """The rows of `frame` in memory, in any order, by files: Spark Connect's own way takes twice the processor time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.new_path()
        frame.write.option("compression", "snappy").parquet(self.storage.uri(path))
        files = [file.path for file in self.storage.walk(path) if file.name.endswith(".parquet")]

        def read(file: str) -> pa.Table:
            return pq.ParquetFile(self.storage.source(file)).read()

        tables = list(self.storage.map(read, files))
        self.storage.delete_folder(path)
        return pa.concat_tables(tables) if tables else pa.table({})

    def by_ticker(
        self,
        transform: Callable[[DataFrame], DataFrame],
        frame: DataFrame,
        tickers: Sequence[str],
        years: int,
        bars_per_chunk: int,
    ) -> DataFrame:
        """`transform(frame)`, staged, computed about `bars_per_chunk` bars at a time: memory does not grow with tickers.

        `transform`: its rows of a ticker must depend only on that ticker's rows.
        `tickers`: the tickers of `frame`.
        `years`: about how many years of bars each ticker has.
        """
        from pyspark.sql import functions as F

        size = max(bars_per_chunk // (years * SESSIONS_A_YEAR), 1)
        firsts = sorted(tickers)[::size]
        # The ranges have no gaps and are open at both ends, so every row is in exactly one of them, whatever its ticker.
        parts = []
        for first, following in zip(firsts, [*firsts[1:], None], strict=True):
            part = frame if first == firsts[0] else frame.where(F.col("ticker") >= first)
            parts.append(transform(part if following is None else part.where(F.col("ticker") < following)))
        return self.stage(*parts)

    def new_path(self) -> str:
        """A new, unused path under `root`."""
        if self._alive is not None and not self._alive.is_locked:
            self._alive.acquire()
        return f"{self.folder}/{uuid.uuid4().hex}"

    def clear(self) -> None:
        """Remove this run's folder, and the folders of runs that were killed long ago."""
        now = max((file.changed for file in self.storage.walk(self.folder)), default=None)
        if self._alive is not None:
            self._alive.release(force=True)
        _remove(self.storage, self.folder)
        if now is not None:
            clear_abandoned(self.storage, now)


def clear_abandoned(storage: Storage, now: float | None = None) -> int:
    """Remove folders of killed runs that are KEEP_SECONDS older than `now` (seconds; None: the current time); return how many."""
    from stock_lakehouse.market_calendar import utc_now

    newest: dict[str, float] = {}
    for file in storage.walk(FOLDER):
        folder = "/".join(file.path.split("/")[:2])
        newest[folder] = max(newest.get(folder, 0.0), file.changed)
    present = utc_now().timestamp() if now is None else now
    old = [folder for folder, changed in newest.items() if present - changed > Staging.KEEP_SECONDS]
    abandoned = [folder for folder in old if not _is_in_use(storage, folder)]
    for folder in abandoned:
        _remove(storage, folder)
    return len(abandoned)


def _remove(storage: Storage, folder: str) -> None:
    storage.delete_folder(folder)
    if isinstance(storage, Folder):
        storage.delete([_lock_path(folder)])


def _is_in_use(storage: Storage, folder: str) -> bool:
    """Whether the run that stages in `folder` is alive. Always False in a bucket, where it is not known."""
    from filelock import Timeout

    lock = _lock_of(storage, folder)
    try:
        with lock.acquire(timeout=0) if lock is not None else nullcontext():
            return False
    except Timeout:
        return True


def _lock_of(storage: Storage, folder: str) -> BaseFileLock | None:
    """The lock of the run that stages in `folder`, which ends with the run's process; None in a bucket."""
    from filelock import FileLock

    if not isinstance(storage, Folder):
        return None
    path = Path(storage.uri(_lock_path(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, thread_local=False)


def _lock_path(folder: str) -> str:
    return f"{LOCKS}/{folder.replace('/', '-').lstrip('.')}.lock"


def _nullable(schema: StructType) -> StructType:
    """`schema` with every field nullable: Sail cannot read struct fields declared not null ("Cannot cast struct field")."""
    from pyspark.sql.types import StructType

    text = (
        schema.json()
        .replace('"nullable":false', '"nullable":true')
        .replace('"containsNull":false', '"containsNull":true')
    )
    return StructType.fromJson(json.loads(text))
