"""The lake as a Dagster resource: tables, engine, calendar and staging of one run, in one object.

Here: what assets, checks and IO managers share. Not here: how a table is read or published (lake/).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from stock_lakehouse.clock import clock_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.layers.step import CheckResult, Step
from stock_lakehouse.market_calendar import CalendarError, MarketCalendar
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
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.settings import Settings

# The tag of a run after which another run of the same backfill writes the serving copy.
SERVE_LATER_TAG = "stock_lakehouse/serve_later"
# The jobs that write none of the tables with a layout, and whose role may not look at them: a drain, a comparison.
STREAM_JOBS = ("stream_drain", "stream_reconcile")


class LakehouseResource(dg.ConfigurableResource[Any]):
    """The lake and the engine of the run. Staged frames live as long as the run.

    `options`: the lake's options in the form of `LakeOptions.as_json`; `lake_options` has them parsed.
    """

    spark: SparkResource
    options: dict[str, Any]
    _staging: Staging | None = PrivateAttr(default=None)
    _run_tags: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> LakehouseResource:
        """The resource that `settings` describe."""
        return cls(
            spark=SparkResource(
                engine=settings.engine, databricks=settings.databricks.model_dump(exclude_defaults=True)
            ),
            options=settings.lake_options.as_json(),
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._run_tags = context.run.tags if context.run else {}
        if context.run is None or context.run.job_name not in STREAM_JOBS:
            self.lake.check_layout()
        narrow_ranges(named_tickers(self._run_tags))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        narrow_ranges(None)
        self.staging.clear()

    @cached_property
    def lake_options(self) -> LakeOptions:
        return LakeOptions.model_validate(self.options)

    @property
    def lake(self) -> Lake:
        return Lake(self.lake_options)

    @property
    def session(self) -> SparkSession:
        return self.spark.session

    @property
    def staging(self) -> Staging:
        if self._staging is None:
            # The embedded engine stages locally: staged in the bucket, frames would cost hundreds of requests a run.
            root = self.lake_options.lake_root
            is_local = self.spark.engine == "embedded" and not isinstance(root, Path)
            self._staging = Staging(Path(tempfile.gettempdir(), f"stock_lakehouse-{os.getuid()}") if is_local else root)
        return self._staging

    @property
    def calendar(self) -> MarketCalendar:
        return self.lake_options.calendar

    @property
    def grace(self) -> timedelta:
        return self.lake_options.grace

    @property
    def sessions(self) -> DataFrame:
        """One row per session, with the columns date, final_at and next_session."""
        return self.session.createDataFrame(self.calendar.table(self.grace))

    def now(self) -> datetime:
        return clock_of(self.lake_options.simulated_clock)()

    def final_at(self, day: date) -> datetime | None:
        """When a bar of `day` becomes final; None if `day` is not a session."""
        try:
            return self.calendar.close(day) + self.grace
        except CalendarError:
            return None

    def expected_last_session(self) -> date:
        """The last session that the lake should hold by now."""
        finished = self.calendar.latest_finished(self.now(), self.grace)
        last = self.lake_options.last_date
        return finished if last is None else self.calendar.between(self.calendar.sessions[0], min(finished, last))[-1]

    def step(
        self,
        rectangle: Rectangle,
        run_id: str,
        tell: Callable[[CheckResult], None] = lambda result: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> Step:
        """The input of a layer's step in the run `run_id` for `rectangle`.

        `tell` is called with each check result, `say` with lines of text about long work.
        """
        return Step(self.lake, self.session, self.staging, rectangle, run_id, self.now(), tell, say, self._serves)

    @property
    def _serves(self) -> bool:
        return SERVE_LATER_TAG not in self._run_tags

    def is_job(self, rectangle: Rectangle) -> bool:
        """Whether Databricks jobs publish a run for `rectangle`; else the session of this process does."""
        databricks = Databricks(**self.spark.databricks)
        if self.spark.engine != "databricks" or databricks.work == "session" or databricks.messages is None:
            return False
        return databricks.work == "job" or len(rectangle.sessions) * len(rectangle.tickers) >= databricks.job_bars

    def publish_by_job(self, context: dg.AssetExecutionContext, table: Table) -> Iterator[Any]:
        """Publish `table` for the keys of `context` by a Databricks job; yield its check results and its materialization."""
        from stock_lakehouse.databricks_jobs.order import Order
        from stock_lakehouse.resources.databricks_jobs import publish_by_job

        rectangle = self.rectangle(context.partition_keys)
        order = Order(
            name=table.name,
            sessions=[session.isoformat() for session in rectangle.sessions],
            tickers=list(rectangle.tickers),
            run_id=context.run_id,
            now=self.now().isoformat(),
            options=self.options,
            own_source=self.lake.own_source,
            serves=self._serves,
        )
        yield from publish_by_job(context, order, Databricks(**self.spark.databricks))

    def rectangle(self, keys: Iterable[str]) -> Rectangle:
        """The rectangle of the run's partition keys, narrowed by its tags. Raises PartitionError if the two contradict."""
        run_tickers = tickers_of_run(self._run_tags, self.lake_options.tickers)
        rectangle = rectangle_of(keys, run_tickers, self.lake_options.exchange)
        if not set(rectangle.tickers) <= set(run_tickers):
            raise PartitionError(
                f"the run's keys are of {', '.join(rectangle.tickers)}, its tag {TICKERS_TAG} names "
                f"{', '.join(run_tickers)}; change one of them"
            )
        return rectangle
