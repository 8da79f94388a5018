"""The lake as Dagster's resources see it: tables, engine, calendar and staging of one run, behind one object.

Here: what assets, checks and IO managers share. Not here: how a table is read or published (lake/).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from stock_lakehouse.clock import clock_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import Turns
from stock_lakehouse.lake.publish import SESSIONS_A_YEAR
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.market_calendar import CalendarError, MarketCalendar, market_calendar
from stock_lakehouse.partitions import Rectangle, rectangle_of
from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse.tables import LAYERS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.settings import Settings


class LakehouseResource(dg.ConfigurableResource[Any]):
    """The lake at `root` and the engine of the run. Staged frames live as long as the run."""

    spark: SparkResource
    root: str
    tickers: list[str]
    first_date: str
    last_date: str | None
    bars_per_chunk: int
    partitions_per_write: int
    close_grace_minutes: int
    price_tolerance: float
    jump_deviations: float
    simulated_clock: str | None = None
    _staging: Staging | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings) -> LakehouseResource:
        """The resource that `settings` describe."""
        return cls(
            spark=SparkResource(engine=settings.engine),
            root=str(settings.lake_root),
            tickers=list(settings.tickers),
            first_date=settings.first_date.isoformat(),
            last_date=settings.last_date.isoformat() if settings.last_date else None,
            bars_per_chunk=settings.bars_per_chunk,
            partitions_per_write=settings.partitions_per_write,
            close_grace_minutes=settings.close_grace_minutes,
            price_tolerance=settings.price_tolerance,
            jump_deviations=settings.jump_deviations,
            simulated_clock=str(settings.simulated_clock) if settings.simulated_clock else None,
        )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self.staging.clear()
        _turns().end(Path(self.root))

    def take_turn(self, above: str) -> None:
        """Wait until no other run is between reading the layer `above` and publishing the one below it."""
        names = [table.name for table in LAYERS]
        _turns().take(Path(self.root), names[names.index(above) + 1])

    def end_turn(self, table: str) -> None:
        """Let the next run read for `table`."""
        _turns().end(Path(self.root), table)

    @property
    def lake(self) -> Lake:
        return Lake(Path(self.root), self.bars_per_chunk, self.partitions_per_write)

    @property
    def session(self) -> SparkSession:
        return self.spark.session

    @property
    def staging(self) -> Staging:
        if self._staging is None:
            self._staging = Staging(Path(self.root))
        return self._staging

    @property
    def calendar(self) -> MarketCalendar:
        return market_calendar(date.fromisoformat(self.first_date))

    @property
    def grace(self) -> timedelta:
        return timedelta(minutes=self.close_grace_minutes)

    @property
    def sessions(self) -> DataFrame:
        """A row a session: date, final_at, next_session."""
        return self.session.createDataFrame(self.calendar.table(self.grace))

    def years_until(self, day: date) -> int:
        """How many years of the lake lie before the end of `day`'s."""
        return day.year - date.fromisoformat(self.first_date).year + 1

    def now(self) -> datetime:
        return clock_of(Path(self.simulated_clock) if self.simulated_clock else None)()

    def final_at(self, day: date) -> datetime | None:
        """When a bar of `day` becomes final; None if `day` is no session."""
        try:
            return self.calendar.close(day) + self.grace
        except CalendarError:
            return None

    def expected_last_session(self) -> date:
        """The last session that the lake should hold by now."""
        finished = self.calendar.latest_finished(self.now(), self.grace)
        if self.last_date is None:
            return finished
        return self.calendar.between(self.calendar.sessions[0], min(finished, date.fromisoformat(self.last_date)))[-1]

    def stage(self, frame: DataFrame) -> DataFrame:
        """`frame` computed once, for the audit, the comparison and the write to read."""
        return self.staging.stage(frame)

    def stage_by_ticker(
        self, transform: Callable[[DataFrame], DataFrame], frame: DataFrame, tickers: Sequence[str], years: int
    ) -> DataFrame:
        """`transform(frame)` computed once, some tickers at a time, so that memory does not grow with their number.

        The rows that `transform` gives for a ticker must depend on that ticker's rows alone. `tickers` are the frame's, each with
        about `years` years of bars.
        """
        from pyspark.sql import functions as F

        size = max(self.bars_per_chunk // (years * SESSIONS_A_YEAR), 1)
        firsts = sorted(tickers)[::size]
        # Ranges without a gap, open at both ends: every row is in one of them, whatever its ticker.
        parts = []
        for first, following in zip(firsts, [*firsts[1:], None], strict=True):
            part = frame if first == firsts[0] else frame.where(F.col("ticker") >= first)
            parts.append(transform(part if following is None else part.where(F.col("ticker") < following)))
        return self.staging.stage(*parts)

    def rectangle(self, keys: Iterable[str]) -> Rectangle:
        """The rectangle that a run's partition keys form."""
        return rectangle_of(keys, self.tickers)


_of_thread = threading.local()  # a run's steps are in one thread; Dagster copies the resource, so it cannot keep them


def _turns() -> Turns:
    if not hasattr(_of_thread, "turns"):
        _of_thread.turns = Turns()
    turns: Turns = _of_thread.turns
    return turns
