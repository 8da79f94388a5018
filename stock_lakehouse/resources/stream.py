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
from stock_lakehouse.settings import Stream, variable_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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

    @contextmanager
    def running(self) -> Iterator[Runner]:
        """The one runner, started. Raises what `streams.runner.runner` does."""
        from stock_lakehouse.streams.runner import runner

        house = self.lakehouse
        with (
            self.session() as spark,
            runner(house.lake_options, self.settings, self.source(), spark, house.now) as started,
        ):
            yield started

    def status(self, days: int) -> StreamStatus:
        """How the stream stands. Raises StorageError, SourceError, SourceUnavailableError."""
        from stock_lakehouse.streams.status import status_of

        return status_of(self.lakehouse.lake_options, self.settings.versions_hours, self.source(), days)
