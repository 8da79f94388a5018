"""The lake as Dagster's resources see it: tables, engine, calendar and staging of one run, behind one object.

Here: what assets, checks and IO managers share. Not here: how a table is read or published (lake/).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import Turns
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.market_calendar import CalendarError, MarketCalendar, market_calendar, utc_now
from stock_lakehouse.partitions import Rectangle, rectangle_of, tickers_of_run
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
    tickers_per_write: int
    close_grace_minutes: int
    price_tolerance: float
    jump_deviations: float
    _staging: Staging | None = PrivateAttr(default=None)
    _run_tags: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> LakehouseResource:
        """The resource that `settings` describe."""
        return cls(
            spark=SparkResource(engine=settings.engine),
            root=str(settings.lake_root),
            tickers=list(settings.tickers),
            first_date=settings.first_date.isoformat(),
            last_date=settings.last_date.isoformat() if settings.last_date else None,
            tickers_per_write=settings.tickers_per_write,
            close_grace_minutes=settings.close_grace_minutes,
            price_tolerance=settings.price_tolerance,
            jump_deviations=settings.jump_deviations,
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._run_tags = context.run.tags if context.run else {}

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
        return Lake(Path(self.root), self.tickers_per_write)

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

    def now(self) -> datetime:
        return utc_now()

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

    def rectangle(self, keys: Iterable[str]) -> Rectangle:
        """The rectangle that the run's partition keys form, narrowed by its tags."""
        return rectangle_of(keys, tickers_of_run(self._run_tags, self.tickers))


_of_thread = threading.local()  # a run's steps are in one thread; Dagster copies the resource, so it cannot keep them


def _turns() -> Turns:
    if not hasattr(_of_thread, "turns"):
        _of_thread.turns = Turns()
    turns: Turns = _of_thread.turns
    return turns
