"""Ticks become minute bars. A bar is a function of the ticks of its ticker and minute and of the watermark alone.

So it may be computed again whenever one of its ticks came, in any order and any number of times. Pure PySpark. Not here: which
minutes are computed (lake/bar_table.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from stock_lakehouse.schemas.ticks import PRICE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# The columns of raw_ticks that bars are computed from.
READ = (
    "ticker",
    "trade_date",
    "minute",
    "event_time",
    "event_id",
    "arrival_time",
    "partition",
    "offset",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_date",
    "is_replay",
    "late",
)


def minute_bars_of(ticks: DataFrame, watermark: datetime) -> DataFrame:
    """The bars of the minutes in `ticks`, with the columns of `minute_bars`.

    `ticks`: all good ticks of each of the ticker-minutes in it, with the columns READ.
    `watermark`: every partition that is not idle has been seen up to there; minutes that end until then are final.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # Within the minute: across minutes the answer would depend on which minutes are computed together.
    repeats = Window.partitionBy("ticker", "minute", "event_id").orderBy("partition", "offset")
    numbered = ticks.withColumn("n", F.row_number().over(repeats))
    is_first = F.col("n") == 1
    by_time = F.when(is_first, F.struct("event_time", "event_id"))
    by_arrival = F.when(is_first, F.struct("arrival_time", "partition", "offset"))
    worth = (F.col("close") * F.col("volume")).cast("decimal(38,6)")

    def of(value: Column) -> Column:
        """`value` of an event's first tick; null of those that repeat it."""
        return F.when(is_first, value)

    def number(condition: Column) -> Column:
        return F.sum(F.when(condition, 1).otherwise(0)).cast("bigint")

    bars = numbered.groupBy("ticker", "trade_date", "minute").agg(
        F.min_by("open", by_time).alias("open"),
        F.max(of(F.col("high"))).alias("high"),
        F.min(of(F.col("low"))).alias("low"),
        F.max_by("close", by_time).alias("close"),
        F.max_by("close", by_arrival).alias("latest_close"),
        F.max_by("quote_date", by_time).alias("quote_date"),
        F.sum(of(F.col("volume"))).cast("bigint").alias("volume"),
        F.sum(of(worth)).alias("worth"),
        F.sum(of(F.col("close"))).alias("closes"),
        number(is_first).alias("events"),
        number(~is_first).alias("duplicates"),
        number(is_first & F.col("late")).alias("late_events"),
        F.min(of(F.col("event_time"))).alias("first_event"),
        F.max(of(F.col("event_time"))).alias("last_event"),
        F.max("is_replay").alias("is_replay"),
    )
    is_open = F.col("minute") + F.expr("interval 1 minute") > F.lit(watermark)
    state = F.when(is_open, "open").when(F.col("late_events") > 0, "amended").otherwise("final")
    mean = F.col("closes").cast("double") / F.col("events").cast("double")
    vwap = F.when(F.col("volume") > 0, F.col("worth").cast("double") / F.col("volume").cast("double"))
    return bars.select(
        "ticker",
        "trade_date",
        F.hour("minute").alias("hour"),
        "minute",
        *(F.col(name).cast(PRICE).alias(name) for name in ("open", "high", "low", "close", "latest_close")),
        "volume",
        vwap.alias("vwap"),
        mean.alias("avg_close"),
        "events",
        "duplicates",
        "late_events",
        "first_event",
        "last_event",
        "quote_date",
        "is_replay",
        state.alias("state"),
    )
