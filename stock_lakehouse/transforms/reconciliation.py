"""The minutes of sessions beside the official daily bars. Pure PySpark. Not here: which sessions are compared, and storage."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COMPLETE = 0.95  # share of the session's minutes from which on the stream counts as there
PRICES = ("open", "high", "low", "close")


def reconciled(
    bars: DataFrame,
    official: DataFrame,
    sessions: DataFrame,
    price_tolerance: float,
    volume_tolerance: float | None,
    now: datetime,
) -> DataFrame:
    """A row for each ticker and session that has minutes or an official bar, with the columns of `minute_reconciliation`.

    `bars`: minute_bars. `official`: curated_stocks_daily. `sessions`: date, open, close (instants); only these are compared.
    `price_tolerance`, `volume_tolerance` (None: volume is not judged): how far the two may differ, as a fraction.

    Auctions print in the minute of the close, so it belongs to the session.
    """
    from pyspark.sql import functions as F

    of_sessions = bars.join(sessions, bars["trade_date"] == sessions["date"]).where(
        (F.col("minute") >= F.date_trunc("minute", sessions["open"]))
        & (F.col("minute") <= F.date_trunc("minute", sessions["close"]))
    )
    of_sessions = of_sessions.drop(sessions["open"], sessions["close"])
    minutes = of_sessions.groupBy("ticker", "date").agg(
        F.min_by("open", "minute").cast("double").alias("open_seen"),
        F.max("high").cast("double").alias("high_seen"),
        F.min("low").cast("double").alias("low_seen"),
        F.max_by("close", "minute").cast("double").alias("close_seen"),
        F.sum("volume").cast("double").alias("volume_seen"),
        F.count("minute").alias("minutes_present"),
        F.sum("events").cast("bigint").alias("events"),
        F.sum("late_events").cast("bigint").alias("late_events"),
        F.max(F.col("is_replay") & (F.col("quote_date") != F.col("trade_date"))).alias("is_moved"),
    )
    of_stream = of_sessions.select("date", "minute").distinct().groupBy("date")
    expected = sessions.select(
        "date",
        (F.unix_timestamp(F.date_trunc("minute", "close")) - F.unix_timestamp(F.date_trunc("minute", "open"))).alias(
            "span"
        ),
    ).select("date", (F.floor(F.col("span") / 60) + 1).cast("bigint").alias("minutes_expected"))
    traded = [(F.col(name) * F.col("split_factor")).alias(name) for name in PRICES]
    daily = official.select(
        "ticker", "date", *traded, (F.col("volume") / F.col("split_factor")).alias("volume"), "bar_status"
    )
    both = (
        minutes.join(daily.join(sessions.select("date"), "date"), ["ticker", "date"], "full")
        .join(expected, "date")
        .join(of_stream.agg(F.count("minute").alias("stream_minutes")), "date", "left")
    )
    differences = {name: F.col(f"{name}_seen") / F.col(name) - 1 for name in PRICES}
    ratio = F.when(F.col("volume") > 0, F.col("volume_seen") / F.col("volume"))
    both = both.withColumns(
        {
            **{f"{name}_difference": difference for name, difference in differences.items()},
            "volume_ratio": ratio,
            "stream_minutes": F.coalesce("stream_minutes", F.lit(0)),
        }
    )
    wrong = [F.coalesce(F.abs(f"{name}_difference") > price_tolerance, F.lit(False)) for name in PRICES]
    differs = wrong[0] | wrong[1] | wrong[2] | wrong[3]
    if volume_tolerance is not None:
        differs = differs | F.coalesce(F.abs(F.col("volume_ratio") - 1) > volume_tolerance, F.lit(False))
    verdict = (
        F.when(F.coalesce("is_moved", F.lit(False)), "replay")
        .when(F.col("bar_status").isNull(), "no official bar")
        .when(F.col("minutes_present").isNull(), "no minutes")
        .when(F.col("stream_minutes") < F.col("minutes_expected") * COMPLETE, "partial")
        .when(differs, "differs")
        .otherwise("match")
    )
    return both.select(
        "ticker",
        "date",
        "minutes_expected",
        F.coalesce("minutes_present", F.lit(0)).cast("bigint").alias("minutes_present"),
        F.col("stream_minutes").cast("bigint").alias("stream_minutes"),
        *(f"{name}_difference" for name in PRICES),
        "volume_ratio",
        F.coalesce("events", F.lit(0)).cast("bigint").alias("events"),
        F.coalesce("late_events", F.lit(0)).cast("bigint").alias("late_events"),
        "bar_status",
        F.lit(now).cast("timestamp").alias("compared_at"),
        verdict.alias("verdict"),
    )
