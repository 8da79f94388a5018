"""Frames on their way into a table, written once so that an audit, a comparison and a write read what was computed.

A lazy frame that three readers use would be computed three times (applyInArrow included). Not here: what the readers do.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stock_lakehouse.lake.publish import SESSIONS_A_YEAR
from stock_lakehouse.lake.storage import LakeRoot, Storage, storage_at

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


FOLDER = ".staging"


class Staging:
    """A folder of one run under `root`: the lake's, or another place that engine and program both reach. `clear` when the run
    ends. What a killed run leaves, the next one removes when it is older than KEEP_SECONDS."""

    KEEP_SECONDS = 24 * 3600.0

    def __init__(self, root: LakeRoot) -> None:
        self.storage = storage_at(root)
        self.folder = f"{FOLDER}/{uuid.uuid4().hex}"

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
        return f"{self.folder}/{uuid.uuid4().hex}"

    def clear(self) -> None:
        """Remove the folder, and those of runs that were killed long ago."""
        self.storage.delete_folder(self.folder)
        clear_abandoned(self.storage)


def clear_abandoned(storage: Storage) -> int:
    """Remove the folders of runs that were killed more than KEEP_SECONDS ago; how many."""
    from stock_lakehouse.market_calendar import utc_now

    newest: dict[str, float] = {}
    for file in storage.walk(FOLDER):
        folder = "/".join(file.path.split("/")[:2])
        newest[folder] = max(newest.get(folder, 0.0), file.changed)
    old = [folder for folder, changed in newest.items() if utc_now().timestamp() - changed > Staging.KEEP_SECONDS]
    for folder in old:
        storage.delete_folder(folder)
    return len(old)


def _nullable(schema: StructType) -> StructType:
    """`schema` with every field nullable: Sail reads no struct field declared not null ("Cannot cast struct field")."""
    from pyspark.sql.types import StructType

    text = (
        schema.json()
        .replace('"nullable":false', '"nullable":true')
        .replace('"containsNull":false', '"containsNull":true')
    )
    return StructType.fromJson(json.loads(text))
