"""The stream by Structured Streaming: an order, the query that carries it out, and what is done between its batches.

Here: the program's side and the job's, which hold the stream's lock. Not here: what a batch writes (batches.py), and how an
order gets to Databricks (resources/databricks_jobs.py).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.clock import Clock
from stock_lakehouse.engines import EngineError, spark_session
from stock_lakehouse.lake.links import engine_path
from stock_lakehouse.lake.lock import TableBusyError, confirm, one_writer, sign
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.storage import LakeError, StorageError, storage_at
from stock_lakehouse.lake.stream_table import LOCK, WRITING, FencedError
from stock_lakehouse.lake.tick_table import CHECKPOINT, EPOCH, LIMB_BITS, READING, STRUCTURED, Progress, TickTable
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.schemas.audit import AuditError
from stock_lakehouse.streams import Messages, StreamSource
from stock_lakehouse.streams.batches import (
    WRITING_SECONDS,
    Batches,
    CheckpointLostError,
    OrderedSource,
    check_owner,
    update_bars,
)
from stock_lakehouse.streams.kinesis import FIRST_NUMBER, MILLISECOND, KinesisSource
from stock_lakehouse.streams.order import CHECKPOINTS, StreamOrder
from stock_lakehouse.streams.runner import BUSY_SECONDS, Counts, Runner, StreamTimeoutError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from stock_lakehouse.lake_options import LakeOptions
    from stock_lakehouse.settings import Stream

POLL_SECONDS = 1.0  # between two looks at the query
SETTLE_SECONDS = 5.0  # between two looks whether minutes become final while nothing comes
CONFIRM_SECONDS = 10.0  # between two looks whether the stream's lease is still held
COUNT_SECONDS = 30.0  # between two counts of what came
PASSWORD = "STOCK_LAKEHOUSE_STREAM_PASSWORD"
LOGIN = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
# Options of sources that the engine shows as *** in plans and its UI.
HIDDEN = "(?i)url|jaas|password"
KAFKA_PACKAGE = "org.apache.spark:spark-sql-kafka-0-10_2.13"
LONGEST_REASON = 400  # characters of an engine's message in an error

# Errors that a batch raises in the engine's Python, by the names under which they come back in the text of the query's error.
NAMED: Mapping[str, type[Exception]] = {
    error.__name__: error
    for error in (CheckpointLostError, FencedError, PublishError, StorageError, StreamTimeoutError, TableBusyError)
} | {AuditError.__name__: PublishError}
OF_BATCH = re.compile(rf"\b({'|'.join(NAMED)}): (.+)")


class StreamQueryError(LakeError):
    """The query of Structured Streaming failed. What its batches wrote stays, and the next one goes on."""


class StructuredRunner(Runner):
    """A query of Structured Streaming, with the interface of a runner; made by `structured_runner`, or by a job.

    `source`: the stream, or its name alone where there is no client of it. `password`: of Kafka's user.
    """

    def __init__(
        self, order: StreamOrder, source: StreamSource, spark: SparkSession, clock: Clock, password: str | None = None
    ) -> None:
        super().__init__(order.lake_options, order.stream_settings, source, spark, clock, STRUCTURED)
        self.order, self._password = order, password
        self._query: StreamingQuery | None = None
        self._settled = self._counted = self._confirmed = 0.0
        self._before = self._counted_batch = 0  # the newest batch at the start, and of those that were counted

    def begin(self) -> None:
        """Open the tables, and compute the bars that a killed query left."""
        self.ticks.begin()
        check_owner(self.ticks, self.order)
        self._before = self._counted_batch = self.ticks.batch
        with one_writer(self.options.lake_root, WRITING, WRITING_SECONDS):
            self.ticks.begin()
            update_bars(self)
        self.counts, self._counted = Counts(self.ticks.batch), time.monotonic()

    def drain(self, minutes: float, report: Callable[[], None] = lambda: None) -> None:
        """Read to the ends of the partitions as they are now; see `Runner.drain`. `report` is called every COUNT_SECONDS."""
        deadline, began = time.monotonic() + minutes * 60, self.clock()
        self.quiet_clock = lambda: began  # what came later was not read, so no partition has been silent since
        self._start({"availableNow": True}, began)
        while not self._has_ended(POLL_SECONDS):
            if time.monotonic() > deadline:
                self.stop()
                self._count_all()
                raise StreamTimeoutError(
                    f"{self.order.source}: not at its ends after {minutes:g} minutes; what was read stays: "
                    f"{self.counts.messages:,} messages. Run the same again to go on, or give it more time with --minutes"
                )
            if self._is_count_due():
                self._count_all()
                report()
        self._settle()
        self._count_all()
        self.tend()

    def step(self, seconds: float) -> Messages:
        """Let the query work for `seconds`, and minutes become final while nothing comes."""
        if self._query is None:
            self._start({"processingTime": f"{self.settings.trigger_seconds} seconds"}, None)
        assert self._query is not None
        if self._has_ended(seconds):
            raise StreamQueryError(f"{self.order.source}: the query was stopped by somebody else; run the same again")
        status = self._query.status
        is_idle = not status["isTriggerActive"] and not status["isDataAvailable"]
        if is_idle and time.monotonic() > self._settled + SETTLE_SECONDS:
            self._settle()
        if self._is_count_due():
            self._count_all()
        return Messages(self.ticks.no_rows(), {}, frozenset())

    def tend(self) -> None:
        """Remove old versions, ticks and checkpoints; see `Runner.tend`."""
        if not self.is_tending_due():
            return
        with one_writer(self.options.lake_root, WRITING, WRITING_SECONDS):
            self.ticks.begin()
            super().tend()
            _remove_checkpoints(self.ticks)

    def stop(self) -> None:
        """End the query. A batch in the middle of its work may be cut off, and is done by the next query."""
        query, self._query = self._query, None
        if query is not None:
            with suppress(EngineError):  # the engine has died, and the query with it
                query.stop()

    def _start(self, trigger: Mapping[str, Any], as_of: datetime | None) -> None:
        from pyspark.errors import PySparkException

        with suppress(PySparkException):  # Databricks serverless lets nobody set it, and hides secrets by itself
            self.spark.conf.set("spark.sql.redaction.options.regex", HIDDEN)
        options = source_options(self.order, self._password, is_databricks="DATABRICKS_RUNTIME_VERSION" in os.environ)
        reader = self.spark.readStream.format(self.order.settings["source"]).options(**options)
        try:
            writer = reader.load().writeStream.foreachBatch(Batches(self.order, as_of)).queryName(self.order.name)
            writer = writer.option("checkpointLocation", engine_path(self.options.lake_root, self.order.folder))
            self._query = writer.trigger(**trigger).start()
        except PySparkException as error:
            raise self._named(error) from None

    def _has_ended(self, seconds: float) -> bool:
        """Whether the query has ended, after at most `seconds`. Raises the named error if it failed."""
        from pyspark.errors import PySparkException

        assert self._query is not None
        if time.monotonic() > self._confirmed + CONFIRM_SECONDS:
            confirm(self.options.lake_root)
            self._confirmed = time.monotonic()
        try:
            ended = bool(self._query.awaitTermination(seconds))  # type: ignore[arg-type]  # it takes fractions too
            failure: Exception | None = self._query.exception() if ended else None
        except PySparkException as error:
            ended, failure = True, error
        if failure is not None:
            self._query = None
            raise self._named(failure) from None
        return ended

    def _named(self, error: Exception) -> Exception:
        """The named error of a failed query: of its batch, of the source, else a StreamQueryError."""
        text = str(error)
        if (of_batch := OF_BATCH.search(text)) is not None:
            return NAMED[of_batch[1]](of_batch[2])
        if "Failed to find data source" in text or "DATA_SOURCE_NOT_FOUND" in text:
            source = self.order.settings["source"]
            return StreamQueryError(
                f"{self.order.source}: the engine has no source {source}; start the Spark Connect server with "
                f"--packages {KAFKA_PACKAGE} in its own version of Spark"
            )
        # What Spark says about lost messages names no range.
        try:
            check_source(self.source, self.options, self.settings.versions_hours)
        except LakeError as refusal:
            return refusal
        first = " ".join(text.split())[:LONGEST_REASON]
        return StreamQueryError(
            f"{self.order.source}: the query failed: {first}. What its batches wrote stays; run the same again"
        )

    def _settle(self) -> None:
        """Compute bars that are due, note positions behind the last messages, and let minutes become final."""
        self._settled = time.monotonic()
        with one_writer(self.options.lake_root, WRITING, WRITING_SECONDS):
            self.ticks.begin()
            check_owner(self.ticks, self.order)
            update_bars(self)
            self.partitions = self.ticks.partitions(self.order.source)
            ends = self._ends()
            seen = {}
            if self.order.settings["source"] == "kinesis":  # whose messages expire
                seen = {name: self.quiet_clock() for name in self.partitions}
            self.idle(Messages(self.ticks.no_rows(), ends, frozenset({*self.partitions, *ends}), seen=seen))

    def _ends(self) -> dict[str, int]:
        """Where partitions of Kafka go on after the query's newest batch: behind records that end a transaction, and those of
        which nothing came."""
        progress = None if self._query is None else self._query.lastProgress
        if (
            progress is None
            or self.order.settings["source"] != "kafka"
            or progress.batchId != self.ticks.spark_batch(self.order.checkpoint)
        ):
            return {}
        ends = json.loads(progress.sources[0].endOffset)[self.order.settings["name"]]
        return {name: end for name, end in ends.items() if name not in self.partitions or end > self.position(name)}

    def _is_count_due(self) -> bool:
        return time.monotonic() > self._counted + COUNT_SECONDS

    def _count_all(self) -> None:
        """Count in the tables what came since the start."""
        self._counted = time.monotonic()
        self.ticks.begin()
        if self.ticks.batch > self._counted_batch:
            self.counts = counts_since(self.spark, self.ticks, self._before)
            self._counted_batch = self.ticks.batch


@contextmanager
def structured_runner(
    options: LakeOptions,
    settings: Stream,
    source: StreamSource,
    spark: SparkSession,
    clock: Clock,
    accept_loss: str | None = None,
    take_over: bool = False,
    rebuild: bool = False,
) -> Iterator[StructuredRunner]:
    """The one runner of the lake's stream, by a query on `spark`, ready to start, for the `with` block.

    The arguments and errors are those of `runner`; `rebuild`: begin a new checkpoint. Raises CheckpointLostError too.
    """
    with one_writer(options.lake_root, LOCK, wait_seconds=BUSY_SECONDS):
        sign(options.lake_root, LOCK, utc_now())
        try:
            order = ordered(options, settings, source, clock, accept_loss, take_over, rebuild)
            password = None if settings.password is None else settings.password.get_secret_value()
            with _begun(StructuredRunner(order, source, spark, clock, password)) as started:
                yield started
        finally:
            source.close()


@contextmanager
def ordered_runner(order: StreamOrder, spark: SparkSession, clock: Clock) -> Iterator[StructuredRunner]:
    """The same from an order, in a job, where there is no client of the source."""
    root = order.lake_options.lake_root
    if order.settings["security"] == "sasl_ssl" and PASSWORD not in os.environ:
        raise StreamQueryError(
            f"the cluster has no variable {PASSWORD}; give it in databricks.job_cluster under spark_env_vars, as "
            "{{secrets/SCOPE/KEY}}"
        )
    with one_writer(root, LOCK, wait_seconds=BUSY_SECONDS):
        sign(root, LOCK, utc_now())
        runner = StructuredRunner(order, OrderedSource(order.source), spark, clock, os.environ.get(PASSWORD))
        with _begun(runner) as started:
            yield started


@contextmanager
def _begun(runner: StructuredRunner) -> Iterator[StructuredRunner]:
    """`runner`, ready to start, for the `with` block; its query is stopped in the end."""
    runner.begin()
    try:
        yield runner
    finally:
        runner.stop()


def ordered(
    options: LakeOptions,
    settings: Stream,
    source: StreamSource,
    clock: Clock,
    accept_loss: str | None = None,
    take_over: bool = False,
    rebuild: bool = False,
    **more: Any,
) -> StreamOrder:
    """The order that goes on from the tables, which are made ready for it. Needs no engine; the caller holds the stream's lock.

    `rebuild`: begin a new checkpoint. `more`: further fields of the order.
    Raises CheckpointLostError, EngineError, and what `Runner.go_on` does: StreamRefusedError, SourceUnavailableError,
    StorageError.
    """
    fresh = secrets.randbits(LIMB_BITS)
    runner = Runner(options, settings, source, None, clock, STRUCTURED)  # type: ignore[arg-type]  # no engine
    # Whatever moves the positions without Spark also begins a new checkpoint, in one commit: the former one is behind.
    runner.on_start = {f"{CHECKPOINT}/{source.name}": fresh}
    # The bars of rows that are given up are computed anew.
    with nullcontext() if accept_loss is None else spark_session("embedded") as engine:
        runner.spark = engine  # type: ignore[assignment]  # none without a loss
        runner.go_on(accept_loss, take_over)
    checkpoint = runner.ticks.checkpoint(source.name)
    if checkpoint is None or rebuild:
        runner.commit_start()
    elif checkpoint != f"{fresh:016x}":
        check_checkpoint(runner.ticks, source.name, checkpoint)
    found = runner.ticks.checkpoint(source.name)
    assert found is not None
    if isinstance(source, KinesisSource):
        more |= {"since": _since(source.positions, runner.partitions), "region": source.stream.region}
    return StreamOrder(
        source=source.name,
        checkpoint=found,
        starts=dict(source.positions),
        options=options.as_json(),
        settings=settings.model_dump(mode="json", exclude={"password"}),
        authority=None if settings.ca_file is None else settings.ca_file.read_text(encoding="ascii"),
        **more,
    )


def check_checkpoint(ticks: TickTable, source: str, checkpoint: str) -> None:
    """Raise CheckpointLostError unless Spark goes on behind the newest batch that is in the tables."""
    folder, done = f"{CHECKPOINTS}/{checkpoint}/offsets", ticks.spark_batch(checkpoint)
    files = storage_at(ticks.lake_root).walk(folder)
    newest = max((int(file.name) for file in files if file.name.isdigit()), default=-1)
    if newest not in (done, done + 1):
        has = "is gone" if newest < 0 else f"is at batch {newest:,}"
        raise CheckpointLostError.of(
            f"{source}: the checkpoint {CHECKPOINTS}/{checkpoint} {has}, and raw_ticks has its batch {done:,}"
        )


def check_source(source: StreamSource, options: LakeOptions, versions_hours: int) -> None:
    """Raise the error by which `source` refuses to go on from the positions of the tables."""
    ticks = TickTable(options, versions_hours)
    ticks.begin()
    source.open(ticks.partitions(source.name))


def source_options(order: StreamOrder, password: str | None, *, is_databricks: bool) -> dict[str, str]:
    """The options of Spark's source. Where to begin counts for a new checkpoint alone."""
    settings = order.stream_settings
    if settings.source == "kinesis":
        start = "TRIM_HORIZON"
        if order.since is not None:
            since = f"{datetime.fromisoformat(order.since):%m/%d/%Y %H:%M:%S} UTC"
            start = json.dumps({"at_timestamp": since, "format": "MM/dd/yyyy HH:mm:ss ZZZ"})
        return {"streamName": settings.name, "region": str(order.region), "initialPosition": start}
    options = {
        "kafka.bootstrap.servers": settings.servers,
        "subscribe": settings.name,
        "startingOffsets": json.dumps({settings.name: order.starts}),
        "failOnDataLoss": "true",
        "kafka.isolation.level": "read_committed",
        "maxOffsetsPerTrigger": str(settings.batch_messages),
        "kafka.security.protocol": settings.security.upper(),
    }
    if settings.security == "sasl_ssl":
        options["kafka.sasl.mechanism"] = settings.mechanism
        module = ("kafkashaded." if is_databricks else "") + LOGIN[settings.mechanism]
        user, word = _quoted(settings.user), _quoted(password or "")
        options["kafka.sasl.jaas.config"] = f"{module} required username={user} password={word};"
    if order.authority is not None and settings.security != "plaintext":
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.certificates": order.authority}
    return options


def counts_since(spark: SparkSession, ticks: TickTable, before: int) -> Counts:
    """What came in the batches after `before`, by the tables."""
    from pyspark.sql import functions as F

    counts = Counts(ticks.batch)
    raw = spark.read.format("delta").load(engine_path(ticks.lake_root, ticks.table.path))
    came = raw.where(F.col("batch") > before)
    late = F.sum(F.col("late").cast("int"))
    for row in came.groupBy("reason").agg(F.count("*").alias("rows"), late.alias("late")).collect():
        counts.messages += row["rows"]
        counts.late += row["late"]
        if row["reason"] is not None:
            counts.reasons[row["reason"]] += row["rows"]
    key = ["ticker", "trade_date", "minute"]
    touched = came.where(F.col("minute").isNotNull()).select(*key).distinct()
    events = raw.join(touched, key, "left_semi").groupBy(*key, "event_id").agg(F.min("batch").alias("first"))
    is_new = F.col("first") > before
    minutes = events.groupBy(*key).agg(
        F.sum(is_new.cast("int")).alias("events"), F.min("first").alias("first"), F.count("*").alias("all")
    )
    [row] = minutes.agg(
        F.sum("events").alias("events"), F.count("*").alias("bars"), F.sum(is_new.cast("int")).alias("new_bars")
    ).collect()
    counts.events, counts.bars, counts.new_bars = row["events"] or 0, row["bars"], row["new_bars"] or 0
    counts.duplicates = counts.messages - counts.dead - counts.events
    return counts


def _remove_checkpoints(ticks: TickTable) -> None:
    """Remove the folders of checkpoints that the tables have replaced."""
    storage = storage_at(ticks.lake_root)
    named = {f"{value:016x}" for name, value in ticks.numbers().items() if name.startswith(f"{CHECKPOINT}/")}
    depth = CHECKPOINTS.count("/") + 1
    there = {file.path.split("/")[depth] for file in storage.walk(CHECKPOINTS)}
    for checkpoint in sorted(there - named):
        storage.delete_folder(f"{CHECKPOINTS}/{checkpoint}")


def _since(positions: Mapping[str, int], partitions: Mapping[str, Progress]) -> str | None:
    """The time from which Kinesis' source reads everything that was not read yet; None: from the oldest message."""
    times = []
    for name, position in positions.items():
        known = partitions.get(name, Progress(position))
        if known.ended != READING:
            continue
        time_of = known.seen or known.arrived
        if time_of is None and 0 < position < FIRST_NUMBER:
            time_of = EPOCH + position * MILLISECOND
        if time_of is None:
            return None
        times.append(time_of)
    return None if not times else (min(times) - timedelta(seconds=1)).isoformat()


def _quoted(text: str) -> str:
    """A value in the configuration of JAAS."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
