"""The lake as Dagster's resources see it: tables, engine, calendar and staging of one run, behind one object.

Here: what assets, checks and IO managers share. Not here: how a table is read or published (lake/).
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from stock_lakehouse.clock import clock_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import Turns
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import LakeRoot, lake_root
from stock_lakehouse.market_calendar import CalendarError, MarketCalendar, market_calendar
from stock_lakehouse.partitions import (
    TICKERS_TAG,
    PartitionError,
    Rectangle,
    named_tickers,
    narrow_ranges,
    rectangle_of,
    tickers_of_run,
)
from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse.settings import Databricks
from stock_lakehouse.tables import LAYERS, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.settings import Settings


class LakehouseResource(dg.ConfigurableResource[Any]):
    """The lake at `root` and the engine of the run. Staged frames live as long as the run."""

    spark: SparkResource
    root: str
    tickers: list[str]
    exchange: str
    first_date: str
    last_date: str | None
    bars_per_chunk: int
    partitions_per_write: int
    retention_days: int
    close_grace_minutes: int
    price_tolerance: float
    jump_deviations: float
    adj_close_tolerance: float
    restated_share: float
    simulated_clock: str | None = None
    _staging: Staging | None = PrivateAttr(default=None)
    _run_tags: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> LakehouseResource:
        """The resource that `settings` describe."""
        return cls(
            spark=SparkResource(
                engine=settings.engine, databricks=settings.databricks.model_dump(exclude_defaults=True)
            ),
            root=str(settings.lake_root),
            tickers=list(settings.tickers),
            exchange=settings.exchange,
            first_date=settings.first_date.isoformat(),
            last_date=settings.last_date.isoformat() if settings.last_date else None,
            bars_per_chunk=settings.bars_per_chunk,
            partitions_per_write=settings.partitions_per_write,
            retention_days=settings.retention_days,
            close_grace_minutes=settings.close_grace_minutes,
            price_tolerance=settings.price_tolerance,
            jump_deviations=settings.jump_deviations,
            adj_close_tolerance=settings.adj_close_tolerance,
            restated_share=settings.restated_share,
            simulated_clock=str(settings.simulated_clock) if settings.simulated_clock else None,
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._run_tags = context.run.tags if context.run else {}
        narrow_ranges(named_tickers(self._run_tags))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        narrow_ranges(None)
        self.staging.clear()
        _turns().end(self.lake_root)

    def take_turn(self, above: str) -> None:
        """Wait until no other run is between reading the layer `above` and publishing the one below it."""
        names = [table.name for table in LAYERS]
        _turns().take(self.lake_root, names[names.index(above) + 1])

    def end_turn(self, table: str) -> None:
        """Let the next run read for `table`."""
        _turns().end(self.lake_root, table)

    @property
    def lake_root(self) -> LakeRoot:
        return lake_root(self.root)

    @property
    def lake(self) -> Lake:
        return Lake(self.lake_root, self.bars_per_chunk, self.partitions_per_write, self.retention_days)

    @property
    def session(self) -> SparkSession:
        return self.spark.session

    @property
    def staging(self) -> Staging:
        if self._staging is None:
            # Every look of the engine at a staged frame would be requests to the bucket, hundreds a run.
            near = self.spark.engine == "embedded" and not isinstance(self.lake_root, Path)
            self._staging = Staging(
                Path(tempfile.gettempdir(), f"stock_lakehouse-{os.getuid()}") if near else self.lake_root
            )
        return self._staging

    @property
    def calendar(self) -> MarketCalendar:
        return market_calendar(date.fromisoformat(self.first_date), self.exchange)

    @property
    def grace(self) -> timedelta:
        return timedelta(minutes=self.close_grace_minutes)

    @property
    def sessions(self) -> DataFrame:
        """A row a session: date, final_at, next_session."""
        return self.session.createDataFrame(self.calendar.table(self.grace))

    @property
    def days(self) -> DataFrame:
        """A row a calendar day: date, session on or after it."""
        return self.session.createDataFrame(self.calendar.days())

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

    def stage_by_ticker(
        self, transform: Callable[[DataFrame], DataFrame], frame: DataFrame, tickers: Sequence[str], years: int
    ) -> DataFrame:
        """`transform(frame)` computed once, some tickers at a time, so that memory does not grow with their number.

        The rows that `transform` gives for a ticker must depend on that ticker's rows alone. `tickers` are the frame's, each with
        about `years` years of bars.
        """
        return self.staging.by_ticker(transform, frame, tickers, years, self.bars_per_chunk)

    def is_job(self, asked: Rectangle) -> bool:
        """Whether a run for `asked` is published by Databricks jobs, or by the session that this process has."""
        databricks = Databricks(**self.spark.databricks)
        if self.spark.engine != "databricks" or databricks.work == "session" or databricks.messages is None:
            return False
        return databricks.work == "job" or len(asked.sessions) * len(asked.tickers) >= databricks.job_bars

    def publish_by_job(self, context: dg.AssetExecutionContext, table: Table) -> Iterator[Any]:
        """Have `table` published for the keys of `context` by a Databricks job; yield its check results and materialization."""
        from stock_lakehouse.databricks_jobs.order import Order
        from stock_lakehouse.resources.databricks_jobs import publish_by_job

        asked = self.rectangle(context.partition_keys)
        order = Order(
            name=table.name,
            root=self.root,
            sessions=[session.isoformat() for session in asked.sessions],
            tickers=list(asked.tickers),
            exchange=self.exchange,
            first_date=self.first_date,
            close_grace_minutes=self.close_grace_minutes,
            price_tolerance=self.price_tolerance,
            bars_per_chunk=self.bars_per_chunk,
            partitions_per_write=self.partitions_per_write,
            retention_days=self.retention_days,
            run_id=context.run_id,
            now=self.now().isoformat(),
        )
        yield from publish_by_job(context, order, Databricks(**self.spark.databricks))
        self.end_turn(table.name)

    def rectangle(self, keys: Iterable[str]) -> Rectangle:
        """The rectangle that the run's partition keys form, narrowed by its tags."""
        asked = tickers_of_run(self._run_tags, self.tickers)
        rectangle = rectangle_of(keys, asked, self.exchange)
        if not set(rectangle.tickers) <= set(asked):
            raise PartitionError(
                f"the run's keys are of {', '.join(rectangle.tickers)}, its tag {TICKERS_TAG} names {', '.join(asked)}; "
                "change one of them"
            )
        return rectangle


_of_thread = threading.local()  # a run's steps are in one thread; Dagster copies the resource, so it cannot keep them


def _turns() -> Turns:
    if not hasattr(_of_thread, "turns"):
        _of_thread.turns = Turns()
    turns: Turns = _of_thread.turns
    return turns
