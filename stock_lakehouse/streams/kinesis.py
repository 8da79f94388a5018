"""A data stream of Amazon Kinesis: its shards are read from the positions in our table, without the Kinesis Client Library.

Here: the source, and a producer for `stream produce`. Not here: what a message means.

A position is the sequence number of the last message plus one; 0 is the shard's first message that is still there, and a small
number the milliseconds since the epoch from which on it is read. The stream's name has its creation time, which a stream that is
made anew does not share. A shard begins once its parents are read to their end and that is committed. AWS goes on at the trim
horizon without a word where messages have expired, so the time up to which a shard was read is held against the retention.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stock_lakehouse import aws
from stock_lakehouse.clock import Clock
from stock_lakehouse.lake.tick_table import EPOCH, GIVEN_UP, READING, Progress
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.streams import (
    Batch,
    End,
    ExpiredError,
    Loss,
    Messages,
    SourceError,
    SourceUnavailableError,
    made_anew,
)
from stock_lakehouse.streams.replay import ticker_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

OFFSET_DIGITS = 56  # a sequence number has 186 bits
FIRST_NUMBER = 1 << 100  # no sequence number is smaller: a smaller position is a time
MILLISECOND = timedelta(milliseconds=1)
READ_SECONDS = 0.21  # between two reads of a shard, of which AWS allows five a second
LOOK_SECONDS = 5.0  # between two looks at the stream and its shards while no messages come
FIRST_SECONDS = 1.0  # how long a batch that need not wait is filled
MOST_RECORDS = 10_000  # that AWS gives at once
LIKELY_BYTES = 1_000  # of a message, before any came
RENEWALS = 5  # of an iterator in a row, before it counts as a failure
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
PUT_RECORDS, PUT_BYTES = 500, 4_000_000  # AWS takes 500 records and 5 MB in a request
PUT_ATTEMPTS = 8
LONGEST_KEY = 256
PAUSE_SECONDS, LONGEST_PAUSE = 0.1, 3.0  # before records that were not taken are sent again; it doubles

EXPIRED_ITERATOR = "ExpiredIteratorException"
MISSING = "ResourceNotFoundException"
MAY_PASS = (
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "KMSThrottlingException",
    *aws.THROTTLED,
)


@dataclass(frozen=True)
class Summary:
    """A stream as it is now: when it was made, and how long it keeps its messages."""

    created: datetime
    retention: timedelta


class DataStream:
    """Requests about one stream. boto3 repeats those that were throttled or not answered, about a minute in all.

    Raises SourceError where something must be changed (rights, credentials, the stream), else SourceUnavailableError.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def client(self) -> Any:
        with self._named():
            return aws.client("kinesis", connect_seconds=CONNECT_SECONDS, answer_seconds=ANSWER_SECONDS)

    @property
    def region(self) -> str:
        """The region of the stream."""
        return str(self.client.meta.region_name)

    def summary(self) -> Summary:
        """The stream as it is now."""
        found = self._ask("describe_stream_summary", StreamName=self.name)["StreamDescriptionSummary"]
        if found["StreamStatus"] == "DELETING":
            raise self._missing()
        if found["StreamStatus"] == "CREATING":
            raise SourceUnavailableError(f"{self}: the stream is being created; run the same again in a minute")
        created = found["StreamCreationTimestamp"].astimezone(UTC)
        return Summary(created, timedelta(hours=found["RetentionPeriodHours"]))

    def shards(self) -> dict[str, tuple[str, ...]]:
        """The shards that are listed, also closed ones: the names of their parents."""
        found: dict[str, tuple[str, ...]] = {}
        page: dict[str, Any] = {"StreamName": self.name}
        while page:
            answer = self._ask("list_shards", **page)
            for shard in answer["Shards"]:
                parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
                found[shard["ShardId"]] = tuple(parent for parent in parents if parent)
            page = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        return found

    def iterator(self, shard: str, position: int) -> str:
        """Where to read `shard` from `position`; it serves for five minutes."""
        given: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if position >= FIRST_NUMBER:
            given = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(position - 1)}
        elif position:
            given = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": EPOCH + position * MILLISECOND}
        return str(self._ask("get_shard_iterator", StreamName=self.name, ShardId=shard, **given)["ShardIterator"])

    def records(self, iterator: str, most: int) -> dict[str, Any] | None:
        """The next records, at most `most`, as boto3 gives them; None if the iterator has expired."""
        found: dict[str, Any] | None = self._ask(
            "get_records", expected=EXPIRED_ITERATOR, ShardIterator=iterator, Limit=most
        )
        return found

    def put(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What became of each of `records`."""
        found: list[dict[str, Any]] = self._ask("put_records", StreamName=self.name, Records=records)["Records"]
        return found

    def __str__(self) -> str:
        return f"kinesis:{self.name}"

    def _ask(self, operation: str, expected: str | None = None, **given: Any) -> Any:
        """The answer of `operation`; None if it is the error `expected`."""
        from botocore.exceptions import ClientError

        with self._named():
            try:
                return getattr(self.client, operation)(**given)
            except ClientError as error:
                if aws.code_of(error) == expected:
                    return None
                raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Names what AWS and boto3 say."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

        try:
            yield
        except ClientError as error:
            raise self._error(error) from None
        except (NoCredentialsError, NoRegionError) as error:
            raise SourceError(
                f"{self}: {error}; set the variables or the profile of AWS, see docs/streaming.md"
            ) from None
        except BotoCoreError as error:
            raise SourceUnavailableError(
                f"{self}: AWS does not answer ({error}). What was read stays; run the same again when it does, or correct the "
                "region"
            ) from None

    def _error(self, error: Exception) -> SourceError | SourceUnavailableError:
        code, said = aws.code_of(error), aws.message_of(error)
        if code == MISSING:
            return self._missing(said)
        if code in aws.DENIED or (code.startswith("KMS") and code not in MAY_PASS):
            right = aws.missing_right(said)
            return SourceError(f"{self}: the right {right} is missing" if right else f"{self}: {said}")
        if code in aws.REJECTED:
            return SourceError(f"{self}: AWS does not take the credentials: {said}")
        if code in MAY_PASS or int(getattr(error, "response", {})["ResponseMetadata"]["HTTPStatusCode"]) >= 500:
            return SourceUnavailableError(
                f"{self}: AWS refused the request after {aws.ATTEMPTS} attempts: {said or code}. What was read stays; run the "
                "same again, and see whether others read the stream too: a shard gives five reads a second to all together"
            )
        return SourceError(f"{self}: {code}: {said}")

    def _missing(self, said: str = "") -> SourceError:
        words = f" ({said})" if said else ""
        return SourceError(
            f"{self}: there is no such stream in {self.region}{words}; create it (aws kinesis create-stream --stream-name "
            f"{self.name} --shard-count 1), or correct stream.name or the region"
        )


class KinesisSource:
    """The data stream `name`. `clock`: the present time, against which the retention counts."""

    unit = "messages"

    def __init__(self, name: str, clock: Clock = utc_now) -> None:
        self.clock, self.stream = clock, DataStream(name)
        self._summary: Summary | None = None
        self._known: dict[str, Progress] = {}
        self._shards: dict[str, tuple[str, ...]] = {}
        self._positions: dict[str, int] = {}  # where each shard goes on after what was fetched
        self._given: dict[str, int] = {}  # the same after what was handed out
        self._seen: dict[str, datetime] = {}  # what arrived until then was read
        self._closed: set[str] = set()  # read to their end, and handed out
        self._closing: set[str] = set()  # read to their end
        self._at_end: set[str] = set()
        self._iterators: dict[str, str] = {}
        self._next_read: dict[str, float] = {}
        self._looked = 0.0
        self._likely = LIKELY_BYTES

    @property
    def name(self) -> str:
        """kinesis:STREAM@CREATED; the creation time is asked for once."""
        if self._summary is None:
            self._summary = self.stream.summary()
        return self._name(self._summary)

    @property
    def positions(self) -> dict[str, int]:
        """Where each shard goes on that was not read to its end."""
        return dict(self._positions)

    def open(self, known: Mapping[str, Progress]) -> None:
        """Go on from `known`; see `StreamSource`."""
        self._known = dict(known)
        reading = {name: progress for name, progress in known.items() if progress.ended == READING}
        self._positions = {name: progress.position for name, progress in reading.items()}
        self._given = dict(self._positions)
        self._seen = {name: seen for name, progress in known.items() if (seen := progress.seen or progress.arrived)}
        self._closed = known.keys() - reading.keys()
        self._closing, self._at_end, self._iterators = set(), set(), {}
        self._look()
        self._begin()

    def ends(self) -> dict[str, End]:
        """The shards that are listed, and since when unread messages have been waiting. AWS does not say where shards end."""
        self._shards = self.stream.shards()
        # What is read from now on: a message that arrives in this millisecond is.
        now = (self.clock() - EPOCH) // MILLISECOND
        waiting = {} if self._iterators else self._peek()
        return {name: End(None, None, waiting.get(name), now) for name in self._shards}

    def poll(self, messages: int, size: int, seconds: float) -> Messages:
        """The next messages of all shards; see `StreamSource`."""
        self._closed |= self._closing
        if time.monotonic() > self._looked + LOOK_SECONDS:
            self._look()
        self._begin()
        batch, until = Batch(), time.monotonic() + (seconds or FIRST_SECONDS)
        self._at_end &= self._closed
        while reading := self._reading():
            if len(batch.values) >= messages or batch.size >= size:
                break
            if not seconds and not reading - self._at_end:
                break
            shard = min(reading, key=lambda name: self._next_read.get(name, 0.0))
            wait = max(0.0, self._next_read.get(shard, 0.0) - time.monotonic())
            if time.monotonic() + wait > until:
                break
            time.sleep(wait)
            room = max(1, min(messages - len(batch.values), (size - batch.size) // self._likely, MOST_RECORDS))
            self._read(batch, shard, room)
        if not reading:
            time.sleep(max(0.0, min(until - time.monotonic(), seconds)))
        if batch.values:
            self._look()
        return self._handed_out(batch)

    def next_offsets(self, offsets: NDArray[Any], sizes: NDArray[Any]) -> None:
        """Sequence numbers are not counted; see `StreamSource`."""
        return None

    def close(self) -> None:
        """Nothing is open but connections of boto3, which are closed with it; see `StreamSource`."""
        self._iterators = {}
        if "client" in vars(self.stream):
            self.stream.client.close()
            del self.stream.client

    def _name(self, summary: Summary) -> str:
        return f"kinesis:{self.stream.name}@{summary.created:%Y%m%dT%H%M%S}{summary.created.microsecond // 1000:03d}"

    def _reading(self) -> set[str]:
        return self._positions.keys() - self._closing - self._closed

    def _handed_out(self, batch: Batch) -> Messages:
        # With shards of which nothing came yet: a shard of unknown parents is then no lost generation.
        moved = {name: place for name, place in self._positions.items() if place != self._given.get(name)}
        self._given = dict(self._positions)
        ended = self._closed | self._closing
        at_end = (self._at_end | ended) & {*self._shards, *self._positions}
        parents = {name: self._shards[name] for name in moved if name in self._shards}
        seen = {name: self._seen[name] for name in self._positions if name in self._seen}
        unread = self._shards.keys() - at_end
        return Messages(
            batch.rows(), moved, frozenset(at_end), frozenset(ended), frozenset(unread), seen=seen, parents=parents
        )

    def _look(self) -> None:
        """Make sure that the stream is the same, and that nothing unread is gone; find new shards."""
        summary = self.stream.summary()
        before, self._summary = self._summary or summary, summary
        if before.created != summary.created:
            self._summary = before
            read = {name: self._at(name) for name in self._given}
            raise made_anew(self._name(before), self._name(summary), read)
        self._shards, self._looked = self.stream.shards(), time.monotonic()
        losses = self._lost_shards() + self._expired(summary.retention)
        if losses:
            raise ExpiredError(self.name, losses, "Go on with what is still there")

    def _lost_shards(self) -> list[Loss]:
        """Shards that are not listed any more, and were not read to their end."""
        losses = []
        for name in sorted(self._reading() - self._shards.keys()):
            cause = f"{name} is no longer listed, and was not known to be read to its end: its messages have expired"
            losses.append(Loss(name, self._given.get(name, 0), None, cause, self._at(name, ended=True)))
        if not self._given and not self._closed:
            return losses  # nothing was read yet: the stream begins with what is there
        ours = {*self._shards, *self._positions, *self._closed}
        for name, parents in sorted(self._shards.items()):
            # Of shards whose children are read already, nobody asks.
            lost = (
                [] if name in self._positions or name in self._closed else [one for one in parents if one not in ours]
            )
            for parent in lost:
                cause = f"{parent}, of which {name} was made, is no longer listed and was never read: its messages have expired"
                losses.append(Loss(parent, 0, None, cause, self._at(parent, ended=True)))
            ours |= set(lost)
        return losses

    def _expired(self, retention: timedelta) -> list[Loss]:
        """Shards of which the messages after the last one that was read may have expired."""
        oldest = self.clock() - retention
        losses = []
        for name in sorted(self._shards.keys() - self._closed - self._closing):
            seen = self._seen.get(name)
            if seen is None and name not in self._positions:
                seen = min((self._seen[one] for one in self._shards[name] if one in self._seen), default=None)
            if seen is None or seen >= oldest:
                continue
            hours = retention / timedelta(hours=1)
            cause = (
                f"{name} was read up to what arrived until {seen:%Y-%m-%d %H:%M:%S} UTC, and the stream keeps messages for "
                f"{hours:g} hours: those that arrived between then and {oldest:%Y-%m-%d %H:%M:%S} are gone, if there were any"
            )
            losses.append(Loss(name, self._given.get(name, 0), None, cause, self._at(name)))
        return losses

    def _at(self, shard: str, *, ended: bool = False) -> Progress:
        """How far `shard` counts as read if its loss is accepted now."""
        known = self._known.get(shard) or Progress(0)
        place = self._given.get(shard, known.position)
        return Progress(place, known.high, known.arrived, GIVEN_UP if ended else READING, self.clock())

    def _begin(self) -> None:
        """Let the shards begin whose parents, as far as they are still there, were read to their end."""
        for name, parents in self._shards.items():
            if name in self._positions or name in self._closed:
                continue
            if all(parent in self._closed or parent not in {*self._shards, *self._positions} for parent in parents):
                self._positions[name] = 0

    def _read(self, batch: Batch, shard: str, most: int) -> None:
        """Add the next records of `shard` to `batch`."""
        for _ in range(RENEWALS):
            if shard not in self._iterators:
                self._iterators[shard] = self.stream.iterator(shard, self._positions[shard])
            now = self.clock()
            answer = self.stream.records(self._iterators[shard], most)
            self._next_read[shard] = time.monotonic() + READ_SECONDS
            if answer is not None:
                break
            # It was not used for five minutes: messages may have expired meanwhile.
            del self._iterators[shard]
            self._look()
            time.sleep(READ_SECONDS)
        else:
            raise SourceUnavailableError(
                f"{self.name}: the iterators of {shard} expired {RENEWALS} times in a row; what was read stays. Set the clock of "
                "this machine, and run the same again"
            )
        for record in answer["Records"]:
            number, value = int(record["SequenceNumber"]), record["Data"]
            batch.partitions.append(shard)
            batch.offsets.append(f"{number:0{OFFSET_DIGITS}}")
            batch.arrivals.append(record["ApproximateArrivalTimestamp"].astimezone(UTC))
            batch.values.append(value)
            batch.size += len(value)
            self._positions[shard] = number + 1
        if batch.values:
            self._likely = max(1, batch.size // len(batch.values))
        behind = timedelta(milliseconds=answer.get("MillisBehindLatest") or 0)
        if self._positions[shard] or not behind:
            self._seen[shard] = max(now - behind, self._seen.get(shard, EPOCH))
        following = answer.get("NextShardIterator")
        if not following:  # the shard was split or merged, and this was its last message
            del self._iterators[shard]
            self._closing.add(shard)
            return
        self._iterators[shard] = following
        # An answer may be empty before the end, and full at a moment that has more.
        if behind or answer["Records"]:
            self._at_end.discard(shard)
        else:
            self._at_end.add(shard)

    def _peek(self) -> dict[str, datetime]:
        """When the first messages arrived that were not read yet."""
        found = {}
        for shard in sorted(self._reading() & self._shards.keys()):
            iterator = self.stream.iterator(shard, self._positions[shard])
            now, answer = self.clock(), self.stream.records(iterator, 1)
            self._next_read[shard] = time.monotonic() + READ_SECONDS
            if answer is None:
                continue
            if answer["Records"]:
                found[shard] = answer["Records"][0]["ApproximateArrivalTimestamp"].astimezone(UTC)
            elif answer.get("MillisBehindLatest"):
                found[shard] = now - timedelta(milliseconds=answer["MillisBehindLatest"])
        return found


def produce(name: str, groups: Iterable[list[bytes]], sleep: Callable[[float], None] = time.sleep) -> int:
    """Put the messages of `groups` into the stream, each ticker into one shard; return the number that AWS has.

    Raises SourceError, SourceUnavailableError.
    """
    stream, delivered = DataStream(name), 0
    stream.summary()  # a named error if it is not there
    for group in groups:
        for records in _requests(group):
            left, pause, why = records, PAUSE_SECONDS, ""
            for attempt in range(PUT_ATTEMPTS):
                if attempt:
                    sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                answers = list(zip(left, stream.put(left), strict=True))
                left = [record for record, answer in answers if answer.get("ErrorCode")]
                if not left:
                    break
                why = next(answer["ErrorCode"] for _, answer in answers if answer.get("ErrorCode"))
            delivered += len(records) - len(left)
            if left:
                raise SourceUnavailableError(
                    f"{stream}: AWS did not take {len(left):,} messages in {PUT_ATTEMPTS} attempts ({why}); {delivered:,} were "
                    "delivered. Run the same again more slowly (--rate): messages with the same event_id count once"
                )
    return delivered


def _requests(messages: Sequence[bytes]) -> Iterator[list[dict[str, Any]]]:
    """`messages` as records of requests, within what a request may have."""
    records: list[dict[str, Any]] = []
    size = 0
    for message in messages:
        key = (ticker_of(message) or hashlib.sha256(message).hexdigest())[:LONGEST_KEY]
        if records and (len(records) >= PUT_RECORDS or size + len(message) + len(key) > PUT_BYTES):
            yield records
            records, size = [], 0
        records.append({"Data": message, "PartitionKey": key})
        size += len(message) + len(key)
    if records:
        yield records
