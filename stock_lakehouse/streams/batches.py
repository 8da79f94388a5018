"""A batch of Structured Streaming, as `foreachBatch` calls for it: ticks, then their positions, then the bars of their minutes.

It runs in a Python process of the engine, which may die at any step and outlives the program that started the query. So what was
done is read from the tables at each step. Not here: the query, and the program's side (structured.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.clock import Clock, clock_of
from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.lake.links import engine_path
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.stream_table import WRITING, FencedError, StreamRefusedError
from stock_lakehouse.lake.tick_table import EPOCH, OWNER, SPARK, STRUCTURED, Progress, TickTable, Written
from stock_lakehouse.schemas.audit import audit
from stock_lakehouse.streams import End, Messages
from stock_lakehouse.streams.kafka import OFFSET_DIGITS as KAFKA_DIGITS
from stock_lakehouse.streams.kinesis import OFFSET_DIGITS as KINESIS_DIGITS
from stock_lakehouse.streams.order import StreamOrder
from stock_lakehouse.streams.runner import Runner
from stock_lakehouse.tables import MINUTE_BARS, RAW_TICKS
from stock_lakehouse.transforms.minute_bars import READ, minute_bars_of
from stock_lakehouse.transforms.ticks import ticks_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame, SparkSession

WRITING_SECONDS = 600.0  # for which a batch and what the program writes between two batches wait for each other
LOG_APPEND_TIME = 1  # value of Kafka's timestampType


class CheckpointLostError(StreamRefusedError):
    """The checkpoint of Structured Streaming is gone, or is behind or ahead of the tables."""

    @classmethod
    def of(cls, what: str) -> CheckpointLostError:
        return cls(
            f"{what}. Put the checkpoint back as it was; or begin a new one at the positions of raw_ticks, by which nothing is "
            "lost or doubled: stock-lakehouse stream drain --rebuild-checkpoint"
        )


class OrderedSource:
    """The stream of an order: its name alone, for a process that has no client of the source."""

    unit = "messages"

    def __init__(self, name: str) -> None:
        self.name = name
        self.positions: Mapping[str, int] = {}

    def open(self, known: Mapping[str, Progress]) -> None:
        """Spark reads, from its checkpoint."""

    def ends(self) -> Mapping[str, End]:
        return {}

    def poll(self, messages: int, size: int, seconds: float) -> Messages:
        raise NotImplementedError("Spark reads the stream")

    def next_offsets(self, offsets: NDArray[Any], sizes: NDArray[Any]) -> None:
        """Only who has a client of the source can tell."""

    def close(self) -> None:
        """Nothing is open."""


class Batches:
    """What `foreachBatch` calls. It is pickled, and the engine's Python imports this package.

    `as_of`: when the drain began, whose ends are those of then; None: the query follows the stream.
    """

    def __init__(self, order: StreamOrder, as_of: datetime | None) -> None:
        self.order, self.as_of = order, as_of
        self._runner: Runner | None = None  # of the process that calls

    def __call__(self, frame: DataFrame, number: int) -> None:
        runner = self._started(frame.sparkSession)
        # The program holds the stream's lock, and may have died: until this is over, no runner takes over.
        with one_writer(runner.options.lake_root, WRITING, WRITING_SECONDS):
            self.write_ticks(runner, frame, number)
            update_bars(runner)
            if runner.has_small_files:
                runner.join_files()

    def write_ticks(self, runner: Runner, frame: DataFrame, number: int) -> None:
        """Bring in the ticks of Spark's batch `number`, and move the positions past them, each unless it was done before.

        Raises CheckpointLostError if the batch is not the next one or the last one, FencedError if the tables belong to another
        checkpoint or runner, PublishError if rows are missing after the write.
        """
        ticks, name = runner.ticks, f"{SPARK}/{self.order.checkpoint}"
        ticks.begin()
        check_owner(ticks, self.order)
        done = ticks.spark_batch(self.order.checkpoint)
        # Spark's writer skips a batch whose number is not above the one in the table, and says nothing.
        if number not in (done, done + 1):
            raise CheckpointLostError.of(
                f"{self.order.source}: Spark goes on with batch {number:,} of its checkpoint, and batch {done:,} is the newest "
                "in raw_ticks: the checkpoint was removed or restored"
            )
        known = ticks.partitions(self.order.source)
        messages = messages_of(frame, self.order, known, runner.clock())
        came = _counted(messages)
        is_over = number == done and not ticks.unfinished()
        # A checkpoint that begins anew may come to the number of a batch that is there, with other messages.
        for partition, (_, first, last) in came.items():
            position = known.get(partition, Progress(0)).position
            if (last >= position) if is_over else (first < position):
                raise CheckpointLostError.of(
                    f"{self.order.source}: Spark's batch {number:,} has offsets {first:,} to {last:,} of partition {partition}, "
                    f"and raw_ticks goes on at {position:,}: the checkpoint was removed or restored"
                )
        if is_over:
            return
        if number > done and not came:  # transactions that were aborted, or what was read before
            ticks.append_batch(
                ticks.no_rows().drop_columns(["batch"]), self.order.source, {}, None, more={name: number}
            )
            return
        staging = Staging(runner.options.lake_root)
        try:
            if number > done:
                found = ticks_of(with_highs(messages, known), runner.rules(), ticks.watermark)
                self.append(_as_table(found, ticks), number, ticks, staging)
                ticks.begin()
            written = ticks.unfinished()
            if (there := {partition: _range(rows) for (_, partition), rows in written.items()}) != came:
                raise PublishError(
                    f"raw_ticks: {sum(count for count, *_ in there.values()):,} rows of batch {ticks.batch + 1} are there, and "
                    f"{sum(count for count, *_ in came.values()):,} messages came, or other ones. Nothing more is written; "
                    "`stock-lakehouse upkeep` names missing files"
                )
        finally:
            staging.clear()
        runner.partitions = known

        def watermark(moved: Mapping[str, Progress]) -> datetime | None:
            # Spark gives each partition with unread messages a share of a batch: the others were at their ends.
            runner.partitions = {**known, **moved}
            at_end = frozenset(runner.partitions.keys() - moved.keys())
            return runner.watermark_after(Messages(ticks.no_rows(), {}, at_end, unread=frozenset(moved)))

        ticks.finish_batch(written, watermark)
        runner.note_batch({day for rows in written.values() for day in rows.days})

    def append(self, found: DataFrame, number: int, ticks: TickTable, staging: Staging) -> None:
        """Append the ticks `found`, audited, as the next batch, with Spark's number of the batch in the same commit."""
        staged = staging.stage(found)
        audit(staged, RAW_TICKS)
        writer = staged.write.format("delta").mode("append")
        writer = writer.option("txnAppId", f"{SPARK}/{self.order.checkpoint}").option("txnVersion", number)
        writer.save(engine_path(ticks.lake_root, ticks.table.path))

    def _started(self, spark: SparkSession) -> Runner:
        from pyspark.sql.utils import is_remote

        if self._runner is None:
            if is_remote():
                from stock_lakehouse.engines.loss import BoundedRetryPolicy

                # This process holds the batch's lock. When the engine dies, PySpark itself would try for ten minutes.
                spark.client.set_retry_policies([BoundedRetryPolicy()])
            options, settings = self.order.lake_options, self.order.stream_settings
            clock: Clock = clock_of(options.simulated_clock)
            self._runner = Runner(options, settings, OrderedSource(self.order.source), spark, clock, STRUCTURED)
            if (as_of := self.as_of) is not None:
                self._runner.quiet_clock = lambda: as_of
        self._runner.spark = spark
        return self._runner

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_runner": None}


def check_owner(ticks: TickTable, order: StreamOrder) -> None:
    """Raise FencedError if the tables belong to another runner or checkpoint than that of `order`."""
    if ticks.number(OWNER) != STRUCTURED or ticks.checkpoint(order.source) != order.checkpoint:
        raise FencedError(
            f"raw_ticks: another runner took over from this query of {order.source}, so nothing more was written; "
            "`stock-lakehouse stream status` names the runner"
        )


def update_bars(runner: Runner) -> None:
    """Compute the bars that are due by the engine, and merge them. The ticks do not leave the engine."""
    ticks, bars = runner.ticks, runner.bars
    bars.begin()
    if bars.batch >= ticks.batch:
        return
    minutes = bars.due(ticks, bars.batch)
    rows = bars_of_minutes(runner.spark, ticks, bars, minutes) if minutes.num_rows else bars.no_rows()
    bars.put(rows, minutes.num_rows, ticks)


def bars_of_minutes(spark: SparkSession, ticks: TickTable, bars: BarTable, minutes: pa.Table) -> pa.Table:
    """The bars of the ticker-minutes `minutes`, audited."""
    import pyarrow.compute as pc
    from pyspark.sql import functions as F

    from stock_lakehouse.schemas.audit import audit_rows

    raw = spark.read.format("delta").load(engine_path(ticks.lake_root, ticks.table.path))
    # The bounds skip files and row groups, which a join does not.
    days, starts = pc.unique(minutes["trade_date"]).to_pylist(), minutes["minute"]
    wanted = F.col("trade_date").isin(days) & F.col("minute").between(pc.min(starts).as_py(), pc.max(starts).as_py())
    of_minutes = raw.where(wanted).join(spark.createDataFrame(minutes), ["ticker", "trade_date", "minute"], "left_semi")
    found = minute_bars_of(of_minutes.select(*READ), ticks.watermark or EPOCH).toArrow().cast(bars.table.arrow_schema)
    audit_rows(found, MINUTE_BARS)
    return found


def messages_of(frame: DataFrame, order: StreamOrder, known: Mapping[str, Progress], now: datetime) -> DataFrame:
    """The rows of Spark's source as messages: source, partition, offset, arrival_time, value.

    `known`: how far the partitions were read. Of Kinesis' source, which begins at a time, messages before that are left out.
    """
    from pyspark.sql import functions as F

    if order.settings["source"] == "kinesis":
        offset = F.lpad(F.col("sequenceNumber"), KINESIS_DIGITS, "0")
        places = {name: f"{progress.position:0{KINESIS_DIGITS}}" for name, progress in known.items()}
        messages = frame.select(
            F.lit(order.source).alias("source"),
            F.col("shardId").alias("partition"),
            offset.alias("offset"),
            F.col("approximateArrivalTimestamp").cast("timestamp").alias("arrival_time"),
            F.coalesce("data", F.lit(b"")).alias("value"),
        )
        return messages.where(F.col("offset") >= F.coalesce(_of_partition(places), F.lit("")))
    # A producer's clock may be ahead, and then its events would be, too.
    bounded = F.when(F.col("timestamp") > EPOCH, F.least("timestamp", F.lit(now))).otherwise(F.lit(now))
    return frame.select(
        F.lit(order.source).alias("source"),
        F.col("partition").cast("string").alias("partition"),
        F.lpad(F.col("offset").cast("string"), KAFKA_DIGITS, "0").alias("offset"),
        F.when(F.col("timestampType") == LOG_APPEND_TIME, F.col("timestamp")).otherwise(bounded).alias("arrival_time"),
        F.coalesce("value", F.lit(b"")).alias("value"),
    )


def with_highs(messages: DataFrame, known: Mapping[str, Progress]) -> DataFrame:
    """`messages` with the columns `text` and `high` that `ticks_of` needs."""
    from pyspark.sql import functions as F

    highs = {name: progress.high for name, progress in known.items() if progress.high is not None}
    # The JVM's cast keeps bytes that are no UTF-8.
    text = F.expr("try_validate_utf8(cast(value AS string))")
    return messages.withColumns({"text": text, "high": _of_partition(highs).cast("timestamp")})


def _of_partition(values: Mapping[str, Any]) -> Column:
    """The value of the row's partition; null if it has none."""
    from pyspark.sql import functions as F

    if not values:
        return F.lit(None)
    pairs = [F.lit(part) for pair in values.items() for part in pair]
    return F.try_element_at(F.create_map(*pairs), F.col("partition"))


def _as_table(found: DataFrame, ticks: TickTable) -> DataFrame:
    """`found` as rows of the next batch, with the names, types and order of the table's columns."""
    from pyspark.sql import functions as F

    numbered = found.withColumn("batch", F.lit(ticks.batch + 1))
    return numbered.select(*(F.col(column.name).cast(column.type) for column in ticks.table.columns))


def _counted(messages: DataFrame) -> dict[str, tuple[int, int, int]]:
    """Of each partition: how many messages came, and the first and last of their positions."""
    from pyspark.sql import functions as F

    figures = messages.groupBy("partition").agg(
        F.count("*").alias("rows"), F.min("offset").alias("first"), F.max("offset").alias("last")
    )
    return {row["partition"]: (row["rows"], int(row["first"]), int(row["last"])) for row in figures.collect()}


def _range(written: Written) -> tuple[int, int, int]:
    return written.rows, written.first, written.last
