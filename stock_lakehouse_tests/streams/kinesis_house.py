"""A data stream of the emulator of Kinesis and its tables in a temporary folder, and their comparison with the truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from stock_lakehouse.market_calendar import market_calendar, utc_now
from stock_lakehouse.settings import Stream
from stock_lakehouse.streams import replay
from stock_lakehouse_tests.kinesis_server import Edge
from stock_lakehouse_tests.streams.house import NEVER, SESSION, StreamHouse

KEYS = 1 << 128  # hash keys of all shards together


@dataclass
class KinesisHouse(StreamHouse):
    """A StreamHouse whose messages are in the data stream `settings.name`. `ahead`: how far its clock is ahead."""

    edge: Edge | None = None
    ahead: timedelta = timedelta(0)

    @classmethod
    def at(cls, tmp: Path, spark: SparkSession, edge: Edge, name: str, shards: int, **settings: Any) -> KinesisHouse:
        """A stream with a new data stream."""
        given = {"source": "kinesis", "name": name, "idle_seconds": NEVER, **settings}
        house = cls(tmp, spark, tmp / "lake", Stream(**given), edge=edge)
        house.create(shards)
        return house

    def clock(self) -> datetime:
        return utc_now() + self.ahead

    @cached_property
    def client(self) -> Any:
        assert self.edge is not None
        return self.edge.client()

    def create(self, shards: int) -> None:
        self.client.create_stream(StreamName=self.settings.name, ShardCount=shards)
        self.wait()

    def delete(self) -> None:
        self.client.delete_stream(StreamName=self.settings.name)
        deadline = time.monotonic() + 20
        while self.settings.name in self.client.list_streams()["StreamNames"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait(self) -> None:
        """Until the stream is active."""
        deadline = time.monotonic() + 20
        while self.client.describe_stream_summary(StreamName=self.settings.name)["StreamDescriptionSummary"][
            "StreamStatus"
        ] not in ("ACTIVE",):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def shards(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.list_shards(StreamName=self.settings.name)["Shards"]
        return sorted(found, key=lambda shard: shard["ShardId"])

    def split(self, number: int) -> None:
        """Split the shard with this number in the middle of its hash keys."""
        shard = self.shards()[number]
        first, last = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        self.client.split_shard(
            StreamName=self.settings.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((first + last) // 2)
        )
        self.wait()

    def merge(self, one: int, other: int) -> None:
        shards = self.shards()
        self.client.merge_shards(
            StreamName=self.settings.name,
            ShardToMerge=shards[one]["ShardId"],
            AdjacentShardToMerge=shards[other]["ShardId"],
        )
        self.wait()

    def send(self, *messages: bytes, place: float = 0.0) -> None:
        """Put `messages` into the shard that has the hash key at `place`, from 0 to 1."""
        key = str(int(place * (KEYS - 1)))
        records = [{"Data": message, "PartitionKey": "test", "ExplicitHashKey": key} for message in messages]
        for start in range(0, len(records), 500):
            answer = self.client.put_records(StreamName=self.settings.name, Records=records[start : start + 500])
            assert answer["FailedRecordCount"] == 0

    def walks(
        self,
        tickers: Sequence[str],
        every_seconds: float = 60,
        faults: replay.Faults | None = None,
        session: date = SESSION,
    ) -> list[list[bytes]]:
        """The walk of each of `tickers`."""
        calendar = market_calendar(session)
        return [
            list(
                replay.walk_messages(
                    replay.sample_bars([ticker], session, session), calendar, every_seconds, faults or replay.Faults()
                )
            )
            for ticker in tickers
        ]

    def records(self) -> dict[tuple[str, str], tuple[bytes, datetime]]:
        """What the stream has, by shard and sequence number, and when it arrived."""
        found = {}
        for shard in self.shards():
            iterator = self.client.get_shard_iterator(
                StreamName=self.settings.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while iterator:
                answer = self.client.get_records(ShardIterator=iterator, Limit=10_000)
                for record in answer["Records"]:
                    place = (shard["ShardId"], record["SequenceNumber"].zfill(56))
                    found[place] = (record["Data"], record["ApproximateArrivalTimestamp"].astimezone(UTC))
                iterator = answer.get("NextShardIterator") if answer["Records"] else None
        return found

    def messages(self) -> dict[tuple[str, str], bytes]:
        return {place: value for place, (value, _) in self.records().items()}

    def parents(self) -> dict[str, list[str]]:
        return {
            shard["ShardId"]: [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name)]
            for shard in self.shards()
        }
