"""A topic of Kafka as a stream: its partitions are read from the positions in our table, without a consumer group.

Here: the source, and a producer for `stream produce`. Not here: what a message means.

The stream's name has the topic's id, which a topic that is made anew under its name does not share. The id is asked for after
messages were fetched and before they are handed out: a consumer itself goes on in the new topic without a word. Messages of
aborted transactions are left out; a position passes the records that end a transaction.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stock_lakehouse.clock import Clock
from stock_lakehouse.lake.tick_table import Progress
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.streams import (
    Batch,
    End,
    ExpiredError,
    Loss,
    Messages,
    ReplacedError,
    SourceError,
    SourceUnavailableError,
    made_anew,
)
from stock_lakehouse.streams.replay import ticker_of

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer
    from confluent_kafka.admin import AdminClient
    from numpy.typing import NDArray
    from pydantic import SecretStr

OFFSET_DIGITS = 20
ID_DIGITS = 12  # of the topic's id in the name of the stream
REQUEST_SECONDS = 10.0  # for an answer to one request
AWAY_SECONDS = 30.0  # of retries, after which the brokers count as unavailable
MISSING_SECONDS = 3.0  # of retries for a topic: a broker that has just started does not know all of them
PAUSE_SECONDS, LONGEST_PAUSE = 0.1, 3.0  # before the first retry; it doubles up to the longest
LOOK_SECONDS = 5.0  # between two looks for new partitions while no messages come
SLICE_SECONDS = 0.1  # of waiting for messages at a time
FIRST_SECONDS = 1.0  # how long a batch that need not wait is filled
PEEK_SECONDS = 3.0
QUEUE_KILOBYTES = 32_000  # fetched ahead
LARGEST_MESSAGE = 1_000_000  # bytes; what most topics allow
END_WAIT_MILLISECONDS = 100  # a broker tells the end of a partition so late
DELIVERY_SECONDS = 30.0

# Errors by the names of librdkafka's codes.
MISSING = {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_ID"}
# Not GROUP_AUTHORIZATION_FAILED: the client looks for a coordinator of its group, which reading does not need.
FORBIDDEN = {"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"}
NOT_KNOWN = {"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL"}


class KafkaSettings(Protocol):
    """The settings under [stream] that Kafka needs."""

    @property
    def name(self) -> str: ...
    @property
    def servers(self) -> str | None: ...
    @property
    def security(self) -> str: ...
    @property
    def mechanism(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> SecretStr | None: ...
    @property
    def ca_file(self) -> Path | None: ...


@dataclass(frozen=True)
class Topic:
    """A topic as it is now: its id, and the numbers of its partitions."""

    id: str
    partitions: tuple[int, ...]


class Brokers:
    """Requests about one topic, each bounded and retried with growing pauses.

    Raises SourceError where something must be changed (settings, rights, the topic), else SourceUnavailableError.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        if importlib.util.find_spec("confluent_kafka") is None:
            raise SourceError(
                "stream.source: Kafka needs its client, confluent-kafka; install it: pip install 'stock-lakehouse[stream]'"
            )
        self.settings = settings
        self._admin: AdminClient | None = None
        self._last_error = ""
        self._refused = ""

    def topic(self) -> Topic:
        """The topic as it is now."""
        from confluent_kafka import TopicCollection

        names = TopicCollection([self.settings.name])
        (found,) = self._ask(lambda admin: admin.describe_topics(names, request_timeout=REQUEST_SECONDS)).values()
        number = found.topic_id.get_most_significant_bits() % (1 << 64)
        return Topic(f"{number:016x}"[:ID_DIGITS], tuple(sorted(part.id for part in found.partitions)))

    def firsts(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset of the first message that is still there, of each of `partitions`."""
        return self._offsets(partitions, "earliest", committed=True)

    def ends(self, partitions: Iterable[int], *, committed: bool = True) -> dict[int, int]:
        """The offset behind the last message of each of `partitions`: of the last one before a transaction that is open, if
        `committed`."""
        return self._offsets(partitions, "latest", committed=committed)

    def client(self, **more: Any) -> dict[str, Any]:
        """Settings of a client, with the password. Errors of its connections are kept for the message of a named error."""
        settings = self.settings
        found: dict[str, Any] = {
            "bootstrap.servers": settings.servers,
            "client.id": "stock_lakehouse",
            "security.protocol": settings.security,
            "socket.timeout.ms": int(REQUEST_SECONDS * 1000),
            "reconnect.backoff.max.ms": 2000,
            "log_level": 0,  # its lines on stderr; what matters comes to `error_cb`
            "error_cb": self._note,
        }
        if settings.ca_file is not None and settings.security != "plaintext":
            found["ssl.ca.location"] = str(settings.ca_file)
        if settings.security == "sasl_ssl" and settings.password is not None:
            found |= {
                "sasl.mechanism": settings.mechanism,
                "sasl.username": settings.user,
                "sasl.password": settings.password.get_secret_value(),
            }
        return found | more

    @contextmanager
    def making_client(self) -> Iterator[None]:
        """Names what a client says about its settings, and a client that is not installed."""
        from confluent_kafka import KafkaException

        try:
            yield
        except KafkaException as error:
            raise SourceError(f"{self}: {_text(error)}; check the settings under [stream]") from None

    def close(self) -> None:
        self._admin = None

    def check_refusal(self) -> None:
        """Raise SourceError if the brokers have refused the user or the connection's encryption."""
        if self._refused:
            raise SourceError(
                f"{self}: the brokers do not take the connection: {self._refused}; check stream.security, stream.user, "
                "stream.mechanism, stream.ca_file and the variable STOCK_LAKEHOUSE_STREAM_PASSWORD"
            )

    def refusal(self, code: str) -> SourceError | None:
        """The error for a code that only a change of the topic or of rights makes go away."""
        name = self.settings.name
        if code in MISSING:
            return SourceError(
                f"{self}: there is no topic {name}; create it (kafka-topics.sh --create --topic {name} --partitions 4), or set "
                "stream.name to the topic that has the messages"
            )
        if code in FORBIDDEN:
            who = f"user {self.settings.user}" if self.settings.user else "this client"
            return SourceError(f"{self}: {who} may not read the topic; it needs the rights Describe and Read on it")
        return None

    def __str__(self) -> str:
        return f"kafka:{self.settings.name} on {self.settings.servers}"

    def _note(self, error: KafkaError) -> None:
        self._last_error = str(error.str())
        if error.name() in NOT_KNOWN:
            self._refused = str(error.str())

    def _offsets(self, partitions: Iterable[int], which: str, *, committed: bool) -> dict[int, int]:
        from confluent_kafka import IsolationLevel, TopicPartition, admin

        specs: Any = admin  # whose type information leaves OffsetSpec out
        wanted = {
            TopicPartition(self.settings.name, number): getattr(specs.OffsetSpec, which)() for number in partitions
        }
        if not wanted:
            return {}
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        answers = self._ask(
            lambda admin: admin.list_offsets(wanted, isolation_level=level, request_timeout=REQUEST_SECONDS)
        )
        return {place.partition: answer.offset for place, answer in answers.items()}

    def _ask(self, request: Callable[[AdminClient], Mapping[Any, Future[Any]]]) -> dict[Any, Any]:
        """The results of `request`. It is repeated until AWAY_SECONDS are over."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        began, pause, self._refused = time.monotonic(), PAUSE_SECONDS, ""
        if self._admin is None:
            with self.making_client():
                self._admin = AdminClient(self.client())
        while True:
            try:
                return {key: self._result(future) for key, future in request(self._admin).items()}
            except KafkaException as error:
                code, text = error.args[0].name(), _text(error)
            except TimeoutError:
                code, text = "_TIMED_OUT", "no answer"
            waited = time.monotonic() - began
            refusal = self.refusal(code)
            if refusal is not None and (code not in MISSING or waited > MISSING_SECONDS):
                raise refusal
            if waited + pause > AWAY_SECONDS:
                raise SourceUnavailableError(
                    f"{self}: the brokers did not answer in {waited:.0f} s ({self._last_error or text}). What was read stays; "
                    "run the same again when they do, or correct stream.servers"
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _result(self, future: Future[Any]) -> Any:
        """The result of `future`, within REQUEST_SECONDS. Ends at once if the brokers refuse the connection."""
        assert self._admin is not None
        until = time.monotonic() + REQUEST_SECONDS + 1
        while not wait([future], SLICE_SECONDS).done and time.monotonic() < until:
            self._admin.poll(0)  # errors of its connections
            self.check_refusal()
        return future.result(0)


class KafkaSource:
    """The topic `settings.name`. `clock`: bounds the times of messages that their producers gave."""

    unit = "messages"

    def __init__(self, settings: KafkaSettings, clock: Clock = utc_now) -> None:
        self.settings, self.clock = settings, clock
        self.brokers = Brokers(settings)
        self._id: str | None = None
        self._known: dict[str, Progress] = {}
        self._positions: dict[int, int] = {}  # where each partition goes on after what was fetched
        self._given: dict[int, int] = {}  # the same after what was handed out
        self._at_end: set[int] = set()
        self._consumer: Consumer | None = None
        self._looked = 0.0

    @property
    def name(self) -> str:
        """kafka:TOPIC@ID; the topic's id is asked for once."""
        if self._id is None:
            self._id = self.brokers.topic().id
        return self._name(self._id)

    @property
    def positions(self) -> dict[str, int]:
        """Where each partition goes on."""
        return {str(number): position for number, position in self._positions.items()}

    def open(self, known: Mapping[str, Progress]) -> None:
        """Go on from `known`; see `StreamSource`."""
        self._stop()
        self._known = dict(known)
        self._positions = {int(name): progress.position for name, progress in known.items()}
        self._given = dict(self._positions)
        self._at_end = set()
        topic = self._topic()
        self._check(number for number in self._positions if number in topic.partitions)
        self._begin(topic)

    def ends(self) -> dict[str, End]:
        """The partitions of the topic, where their committed messages end, and since when unread ones have been waiting."""
        topic = self._topic()
        ends = self.brokers.ends(topic.partitions)
        begins = {number: self._given.get(number, self._positions.get(number, 0)) for number in ends}
        unread = {number: begin for number, begin in begins.items() if ends[number] > begin}
        waiting = {} if self._consumer is not None else self._peek(unread)
        return {str(number): End(end, None, waiting.get(number)) for number, end in ends.items()}

    def poll(self, messages: int, size: int, seconds: float) -> Messages:
        """The next messages of all partitions; see `StreamSource`."""
        batch, until, doubtful = Batch(arrival_unit="ms"), time.monotonic() + (seconds or FIRST_SECONDS), set[int]()
        consumer = self._consuming()
        while (count := len(batch.values)) < messages and batch.size < size:
            left = until - time.monotonic()
            if left <= 0 or doubtful or (not seconds and self._at_end >= self._positions.keys()):
                break
            # So many that they fit if they are like those before; the queue of the consumer bounds the rest.
            likely = batch.size // count if count else LARGEST_MESSAGE
            room = max(1, (size - batch.size) // max(1, likely))
            for message in consumer.consume(min(messages - count, room), min(SLICE_SECONDS, left)):
                if message.error() is None:
                    self._add(batch, message)
                else:
                    doubtful |= self._event(message)
        if batch.values or doubtful or time.monotonic() > self._looked + LOOK_SECONDS:
            self._look(doubtful)
        # With partitions of which nothing came yet: they hold back the minutes that they may have events of.
        moved = {
            str(number): position for number, position in self._positions.items() if position != self._given.get(number)
        }
        self._given = dict(self._positions)
        unread = map(str, self._positions.keys() - self._at_end)
        return Messages(batch.rows(), moved, frozenset(map(str, self._at_end)), unread=frozenset(unread))

    def next_offsets(self, offsets: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any]:
        """One more each; the records that end transactions leave gaps too; see `StreamSource`."""
        return offsets + 1

    def close(self) -> None:
        """Leave the brokers; see `StreamSource`."""
        self._stop()
        self.brokers.close()

    def _name(self, topic_id: str) -> str:
        return f"kafka:{self.settings.name}@{topic_id}"

    def _topic(self) -> Topic:
        """The topic as it is now. Raises RecreatedError if it is another one than before."""
        topic = self.brokers.topic()
        if self._id is None:
            self._id = topic.id
        if topic.id != self._id:
            read = {str(number): Progress(position) for number, position in self._given.items()}
            raise made_anew(self._name(self._id), self._name(topic.id), read)
        self._looked = time.monotonic()
        return topic

    def _check(self, partitions: Iterable[int]) -> None:
        """Raise ExpiredError or ReplacedError if a partition cannot be read on from its position."""
        wanted = list(partitions)
        firsts, ends = self.brokers.firsts(wanted), self.brokers.ends(wanted, committed=False)
        expired, shorter = [], []
        for number in wanted:
            position, first, end = self._positions[number], firsts[number], ends[number]
            if position < first:
                expired.append(self._expired(number, position, first))
            elif position > end:
                cause = (
                    f"partition {number} ends at offset {end:,} and was read up to {position:,}: its brokers lost messages, and "
                    "others get their offsets"
                )
                shorter.append(Loss(str(number), end, position, cause, self._at(number, end)))
        if expired:
            raise ExpiredError(self.name, expired, f"Go on from {expired[0].go_on.position:,} with")
        if shorter:
            raise ReplacedError(self.name, shorter, f"Go on from {shorter[0].go_on.position:,} with")

    def _expired(self, number: int, position: int, first: int) -> Loss:
        cause = (
            f"partition {number}: offsets {position:,} to {first - 1:,} are no longer there (at most {first - position:,} "
            "messages): the topic's retention is shorter than the pause"
        )
        return Loss(str(number), position, first, cause, self._at(number, first))

    def _at(self, number: int, position: int) -> Progress:
        known = self._known.get(str(number), Progress(0))
        return Progress(position, known.high, known.arrived)

    def _begin(self, topic: Topic) -> list[int]:
        """Let the partitions that are new begin at their first message; return them.

        Raises ExpiredError if a partition appeared since the topic was first read, and its first messages are gone already.
        """
        new = [number for number in topic.partitions if number not in self._positions]
        firsts = self.brokers.firsts(new)
        expired = [self._expired(number, 0, first) for number, first in firsts.items() if first and self._given]
        if expired:
            raise ExpiredError(self.name, expired, f"Go on from {expired[0].go_on.position:,} with")
        self._positions |= firsts
        return new

    def _look(self, doubtful: set[int]) -> None:
        """Make sure that the topic is still the same, find new partitions, and go on in those that gave an error."""
        from confluent_kafka import TopicPartition

        topic = self._topic()
        self._check(doubtful)
        name, new = self.settings.name, self._begin(topic)
        if self._consumer is not None:
            if doubtful:
                self._consumer.incremental_unassign([TopicPartition(name, number) for number in doubtful])
            if doubtful or new:
                again = [TopicPartition(name, number, self._positions[number]) for number in {*doubtful, *new}]
                self._consumer.incremental_assign(again)
        self._at_end -= doubtful
        if doubtful:  # nothing is lost, so the brokers were in the middle of a change
            time.sleep(PAUSE_SECONDS)

    def _consuming(self) -> Consumer:
        """The consumer, which reads all partitions from their positions."""
        if self._consumer is None:
            self._consumer = self._reading(self._positions)
        return self._consumer

    def _reading(self, positions: Mapping[int, int], **more: Any) -> Consumer:
        from confluent_kafka import Consumer, TopicPartition

        settings = {
            "group.id": "stock_lakehouse",  # the client wants one; no group is joined, and nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": END_WAIT_MILLISECONDS,
            "queued.max.messages.kbytes": QUEUE_KILOBYTES,
            **more,
        }
        with self.brokers.making_client():
            consumer = Consumer(self.brokers.client(**settings))
            consumer.assign([TopicPartition(self.settings.name, *place) for place in positions.items()])
        return consumer

    # Not Message: its type information allows messages without a partition, which no topic gives.
    def _add(self, batch: Batch, message: Any) -> None:
        from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

        number, offset, value = message.partition(), message.offset(), message.value() or b""
        kind, arrived = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            # The producer's clock. If it is ahead, so are its events, which must not pass for ones of the present.
            now = int(self.clock().timestamp() * 1000)
            arrived = min(arrived, now) if arrived > 0 else now
        batch.partitions.append(str(number))
        batch.offsets.append(f"{offset:0{OFFSET_DIGITS}}")
        batch.arrivals.append(arrived)
        batch.values.append(value)
        batch.size += len(value)
        self._positions[number] = offset + 1
        self._at_end.discard(number)

    def _event(self, message: Any) -> set[int]:
        """Take note of an end of partition; the partitions that gave an error."""
        error, number = message.error(), message.partition()
        code = error.name()
        if code == "_PARTITION_EOF":
            # Behind the last message may be the records that end a transaction.
            self._positions[number] = max(self._positions[number], message.offset())
            self._at_end.add(number)
            return set()
        if code in FORBIDDEN and (refusal := self.brokers.refusal(code)) is not None:
            raise refusal
        return {number} & self._positions.keys()

    def _peek(self, positions: Mapping[int, int]) -> dict[int, datetime]:
        """When the first messages at `positions` arrived; of partitions that do not answer in time, nothing."""
        if not positions:
            return {}
        # One message each, of little more than a batch as its producer sent it.
        consumer = self._reading(positions, **{"queued.min.messages": 1, "max.partition.fetch.bytes": 1024})
        found: dict[int, datetime] = {}
        waiting, until = set(positions), time.monotonic() + PEEK_SECONDS
        try:
            while waiting and (left := until - time.monotonic()) > 0:
                message = consumer.poll(min(SLICE_SECONDS, left))
                if message is None:
                    continue
                number = message.partition()
                if message.error() is None and number in waiting:
                    found[number] = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
                waiting.discard(number)
        finally:
            consumer.close()
        return found

    def _stop(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def produce(settings: KafkaSettings, groups: Iterable[list[bytes]]) -> int:
    """Send the messages of `groups` to the topic, each ticker to one partition; return the number that the brokers have.

    Raises SourceError, SourceUnavailableError.
    """
    from confluent_kafka import Producer

    brokers = Brokers(settings)
    brokers.topic()  # a named error if it is not there
    with brokers.making_client():
        producer = Producer(
            brokers.client(
                **{
                    "enable.idempotence": True,
                    "linger.ms": 20,
                    "compression.type": "zstd",
                    "message.timeout.ms": int(DELIVERY_SECONDS * 1000),
                }
            )
        )
    delivered, failed = 0, ""

    def report(error: KafkaError | None, _: Message) -> None:
        nonlocal delivered, failed
        if error is None:
            delivered += 1
        else:
            failed = str(error.str())

    for group in groups:
        for message in group:
            _send(producer, settings.name, message, report)
        producer.poll(0)
        if failed:
            break
    left = producer.flush(DELIVERY_SECONDS + REQUEST_SECONDS)
    brokers.check_refusal()
    if failed or left:
        raise SourceUnavailableError(
            f"{brokers}: {failed or 'no answer'}; {delivered:,} messages were delivered, and others may have been. Run the same "
            "again when the brokers answer: messages with the same event_id count once"
        )
    return delivered


def _send(producer: Producer, topic: str, message: bytes, report: Callable[[KafkaError | None, Message], None]) -> None:
    """Put `message` into the producer's queue, and wait while that is full: each message leaves it after DELIVERY_SECONDS."""
    key = ticker_of(message)
    while True:
        try:
            producer.produce(topic, message, key=key, on_delivery=report)
        except BufferError:
            producer.poll(SLICE_SECONDS)
        else:
            return


def _text(error: Exception) -> str:
    """What librdkafka says, without its form."""
    cause = error.args[0]
    return str(cause.str()) if hasattr(cause, "str") else str(cause)
