"""Frames on their way into a table, written once so that an audit, a comparison and a write read what was computed.

A lazy frame that three readers use would be computed three times (applyInArrow included). Not here: what the readers do.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.lake.publish import SESSIONS_A_YEAR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


class Staging:
    """A folder of one run under the lake root; `clear` when the run ends. What a killed run leaves, the next one removes
    when it is older than KEEP_SECONDS."""

    KEEP_SECONDS = 24 * 3600.0

    def __init__(self, lake_root: Path) -> None:
        self._parent = lake_root / ".staging"
        self.folder = self._parent / uuid.uuid4().hex

    def stage(self, frame: DataFrame, *more: DataFrame) -> DataFrame:
        """`frame` computed, and after it `more` of the same schema: their rows, read from files.

        Frames are computed one after the other, so that the engine holds one of them in memory.
        """
        path = self.new_path()
        for one in (frame, *more):
            # Read once or twice and removed: the time of a better compression would never come back.
            one.write.mode("append").option("compression", "snappy").parquet(str(path))
        return frame.sparkSession.read.schema(_nullable(frame.schema)).parquet(str(path))

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

    def new_path(self) -> Path:
        """A path in the folder that nothing is at yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / uuid.uuid4().hex

    def clear(self) -> None:
        """Remove the folder, and those of runs that were killed long ago."""
        import time

        shutil.rmtree(self.folder, ignore_errors=True)
        if self._parent.is_dir():
            for folder in self._parent.iterdir():
                if time.time() - folder.stat().st_mtime > self.KEEP_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


def _nullable(schema: StructType) -> StructType:
    """`schema` with every field nullable: Sail reads no struct field declared not null ("Cannot cast struct field")."""
    from pyspark.sql.types import StructType

    text = (
        schema.json()
        .replace('"nullable":false', '"nullable":true')
        .replace('"containsNull":false', '"containsNull":true')
    )
    return StructType.fromJson(json.loads(text))
