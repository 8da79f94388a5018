"""A topic of a real Kafka and its tables in a temporary folder, and their comparison with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.settings import Stream
from stock_lakehouse.streams import replay
from stock_lakehouse_tests.kafka_server import Kafka
from stock_lakehouse_tests.streams.house import NEVER, SESSION, StreamHouse


@dataclass
class KafkaHouse(StreamHouse):
    """A StreamHouse whose messages are in the topic `settings.name` of `kafka`."""

    kafka: Kafka | None = None

    @classmethod
    def at(
        cls, tmp: Path, spark: SparkSession, kafka: Kafka, topic: str, partitions: int, **settings: Any
    ) -> KafkaHouse:
        """A stream with a new topic."""
        kafka.topic(topic, partitions)
        given = {"source": "kafka", "servers": kafka.servers, "name": topic, "idle_seconds": NEVER, **settings}
        return cls(tmp, spark, tmp / "lake", Stream(**given), kafka=kafka)

    @property
    def server(self) -> Kafka:
        assert self.kafka is not None
        return self.kafka

    def messages(self) -> dict[tuple[str, str], bytes]:
        found = self.server.messages(self.settings.name)
        return {(str(number), f"{offset:020}"): value for (number, offset), (value, _) in found.items()}

    def send(self, *messages: bytes, partition: int = 0) -> None:
        self.server.produce(self.settings.name, {partition: messages})

    def walks(
        self,
        tickers: Sequence[str],
        every_seconds: float = 60,
        faults: replay.Faults | None = None,
        session: date = SESSION,
    ) -> int:
        """Send the walks of a session, a ticker to a partition; return the number of messages."""
        calendar, by_partition = market_calendar(session), {}
        for number, ticker in enumerate(tickers):
            bars = replay.sample_bars([ticker], session, session)
            by_partition[number] = list(replay.walk_messages(bars, calendar, every_seconds, faults or replay.Faults()))
        self.server.produce(self.settings.name, by_partition)
        return sum(map(len, by_partition.values()))
