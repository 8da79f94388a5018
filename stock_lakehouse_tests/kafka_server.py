"""What a test does to a real Kafka broker on loopback: topics, messages, transactions, retention, rights.

Here: the broker as tests use it. Not here: fetching, starting and stopping it (stock_lakehouse/streams/local_kafka.py), and
anything a test expects.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

from stock_lakehouse.streams.local_kafka import REQUEST_SECONDS, Broker, local_kafka


class Kafka(Broker):
    """A broker with what tests do to its topics."""

    def delete_topic(self, name: str) -> None:
        """Delete a topic and return when it is gone."""
        admin = self._admin()
        self._done(admin.delete_topics([name]))
        self._until(lambda: name not in admin.list_topics(timeout=5).topics)

    def add_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, `total` in all."""
        admin = self._admin()
        self._done(admin.create_partitions([NewPartitions(name, total)]))
        self._until(lambda: len(admin.list_topics(name, 5).topics[name].partitions) == total)

    def produce(
        self,
        topic: str,
        messages: Iterable[bytes] | Mapping[int, Sequence[bytes]],
        transactional: str | None = None,
        commit: bool = True,
    ) -> None:
        """Send `messages`, by partition or in turn to partition 0, each acknowledged; in a transaction of the id `transactional`
        if that is given, which is committed or aborted."""
        by_partition = messages if isinstance(messages, Mapping) else {0: list(messages)}
        settings = {"transactional.id": transactional} if transactional else {}
        producer = Producer(self._client(**{"linger.ms": 5, **settings}))
        failed: list[Any] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        if transactional:
            producer.init_transactions(REQUEST_SECONDS)
            producer.begin_transaction()
        for partition, values in by_partition.items():
            for value in values:
                while True:
                    try:
                        producer.produce(topic, value, partition=partition, on_delivery=delivered)
                        break
                    except BufferError:
                        producer.poll(0.1)
                producer.poll(0)
        left = producer.flush(REQUEST_SECONDS)
        assert not left, f"{left} messages were not delivered"
        assert not failed, failed[0]
        if transactional and commit:
            producer.commit_transaction(REQUEST_SECONDS)
        elif transactional:
            producer.abort_transaction(REQUEST_SECONDS)

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Remove the messages before an offset of each partition, as the topic's retention does."""
        places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        admin = self._admin()  # by a name: the answers of a client that is collected fail
        self._done(admin.delete_records(places))

    def allow(self, user: str, topic: str) -> None:
        """Give a user the rights Describe and Read on a topic."""
        bindings = [
            AclBinding(
                *(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL),
                *(f"User:{user}", "*", operation, AclPermissionType.ALLOW),
            )
            for operation in (AclOperation.DESCRIBE, AclOperation.READ)
        ]
        admin = self._admin()
        self._done(admin.create_acls(bindings))

    def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """The first offset of each partition, and the one behind its last message (transactions that are open left out)."""
        consumer = Consumer(self._client(**{"group.id": "tests", "isolation.level": "read_committed"}))
        try:
            partitions = consumer.list_topics(topic, REQUEST_SECONDS).topics[topic].partitions
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), REQUEST_SECONDS)
                for number in partitions
            }
        finally:
            consumer.close()

    def messages(self, topic: str) -> dict[tuple[int, int], tuple[bytes, int]]:
        """All committed messages that are there: value and time in milliseconds, by partition and offset."""
        ends = self.ends(topic)
        consumer = Consumer(
            self._client(
                **{
                    "group.id": "tests",
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                }
            )
        )
        found: dict[tuple[int, int], tuple[bytes, int]] = {}
        try:
            consumer.assign([TopicPartition(topic, number, first) for number, (first, _) in ends.items()])
            waiting, until = {number for number, (first, end) in ends.items() if end > first}, time.monotonic() + 60
            while waiting:
                assert time.monotonic() < until, f"partitions {waiting} have not been read to their ends"
                for message in consumer.consume(10_000, 0.2):
                    if (error := message.error()) is None:
                        found[message.partition(), message.offset()] = (message.value(), message.timestamp()[1])
                    elif error.name() == "_PARTITION_EOF":
                        waiting.discard(message.partition())
                    else:
                        raise KafkaException(error)
        finally:
            consumer.close()
        return found


@contextmanager
def kafka_server(
    folder: Path, heap: str = "384m", settings: Mapping[str, str] | None = None, client: Mapping[str, str] | None = None
) -> Iterator[Kafka]:
    """A new broker on 127.0.0.1; its files go to `folder`. See `local_kafka`. Raises NotRunError."""
    with local_kafka(folder, Kafka, heap, settings, client) as kafka:
        yield kafka
