"""The stream as a Dagster resource: where its messages come from, and how it is read. Not here: the work itself (streams/)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import SecretStr

from stock_lakehouse.aws import Right, arn
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Databricks, Stream, variable_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stock_lakehouse.lake.bar_table import BarTable
    from stock_lakehouse.lake.tick_table import TickTable
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.streams import StreamSource
    from stock_lakehouse.streams.runner import Runner
    from stock_lakehouse.streams.status import StreamStatus


class StreamResource(dg.ConfigurableResource[Any]):
    """The stream of the lake; its source is off if the lake has none.

    `stream`: the settings of the group `stream` that differ from their defaults, without the password, which Dagster would show.
    """

    lakehouse: LakehouseResource
    stream: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings, lakehouse: LakehouseResource) -> StreamResource:
        """The resource that `settings` describe."""
        given = settings.stream.model_dump(mode="json", exclude_defaults=True, exclude={"password"})
        return cls(lakehouse=lakehouse, stream=given)

    @property
    def settings(self) -> Stream:
        password = os.environ.get(variable_of(("stream", "password")))
        return Stream(**self.stream, password=None if password is None else SecretStr(password))

    @property
    def kept_hours(self) -> int | None:
        """How long upkeep keeps versions of the stream's tables; None: there is no stream, so it leaves them alone."""
        settings = self.settings
        return None if settings.source == "off" else settings.versions_hours

    def rights(self) -> Sequence[Right]:
        """What reading the stream, and asking where it stands, need."""
        if self.settings.source != "kinesis":
            return ()
        actions = (
            "kinesis:DescribeStreamSummary",
            "kinesis:ListShards",
            "kinesis:GetShardIterator",
            "kinesis:GetRecords",
        )
        return (Right("Stream", actions, (arn("kinesis", f"stream/{self.settings.name}"),)),)

    def source(self) -> StreamSource:
        """The source of messages. Nothing is contacted."""
        from stock_lakehouse.streams.sources import source_of

        return source_of(self.settings, self.lakehouse.now)

    @contextmanager
    def session(self) -> Iterator[SparkSession]:
        """The embedded engine, whatever the setting `engine`: a batch is small, and its way to a remote engine is long."""
        from stock_lakehouse.engines import spark_session

        if self.lakehouse.spark.engine == "embedded":
            yield self.lakehouse.session
        else:
            with spark_session("embedded") as spark:
                yield spark

    @property
    def is_job(self) -> bool:
        """Whether a Databricks job reads the stream."""
        return self.settings.runner == "structured_streaming" and self.lakehouse.spark.engine == "databricks"

    @contextmanager
    def running(self) -> Iterator[Runner]:
        """The one runner, started; not where `is_job`. Raises what `runner` and `structured_runner` do."""
        from stock_lakehouse.streams.runner import runner
        from stock_lakehouse.streams.structured import structured_runner

        house, source = self.lakehouse, self.source()
        if self.settings.runner == "structured_streaming":
            with structured_runner(house.lake_options, self.settings, source, house.session, house.now) as started:
                yield started
            return
        with (
            self.session() as spark,
            runner(house.lake_options, self.settings, source, spark, house.now) as embedded,
        ):
            yield embedded

    def by_job(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        accept_loss: str | None = None,
        take_over: bool = False,
        rebuild: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """Read the stream by a Databricks job; return its summary. `more`: fields of the order.

        Raises JobError, and the errors of `structured_runner`.
        """
        from stock_lakehouse.lake.lock import one_writer
        from stock_lakehouse.lake.stream_table import LOCK
        from stock_lakehouse.resources.databricks_jobs import stream_by_job
        from stock_lakehouse.streams.runner import BUSY_SECONDS
        from stock_lakehouse.streams.structured import StreamQueryError, check_source, ordered

        house, source = self.lakehouse, self.source()
        more |= {"run_id": context.run_id, "own_source": house.lake.own_source}
        try:
            with one_writer(house.lake_options.lake_root, LOCK, BUSY_SECONDS):
                order = ordered(
                    *(house.lake_options, self.settings, source, house.now, accept_loss, take_over, rebuild), **more
                )
            try:
                return stream_by_job(context, order, Databricks(**house.spark.databricks))
            except StreamQueryError:
                check_source(source, house.lake_options, self.settings.versions_hours)
                raise
        finally:
            source.close()

    @contextmanager
    def tables(self) -> Iterator[tuple[TickTable, BarTable]]:
        """The opened tables, under the stream's lock, so that no runner is between ticks and bars. Raises TableBusyError."""
        from stock_lakehouse.lake.bar_table import BarTable
        from stock_lakehouse.lake.lock import one_writer
        from stock_lakehouse.lake.stream_table import LOCK
        from stock_lakehouse.lake.tick_table import TickTable
        from stock_lakehouse.streams.runner import BUSY_SECONDS

        options, hours = self.lakehouse.lake_options, self.settings.versions_hours
        ticks, bars = TickTable(options, hours), BarTable(options, hours)
        with one_writer(options.lake_root, LOCK, BUSY_SECONDS):
            ticks.begin()
            bars.begin()
            yield ticks, bars

    def status(self, days: int) -> StreamStatus:
        """How the stream stands. Raises StorageError, SourceError, SourceUnavailableError."""
        from stock_lakehouse.streams.status import status_of

        settings = self.settings
        return status_of(self.lakehouse.lake_options, settings.versions_hours, self.source(), days, settings.runner)
