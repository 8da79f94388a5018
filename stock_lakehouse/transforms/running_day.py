"""Minutes of the running session become its daily bar, and the bar the last one of a history. Pure PySpark.

Here: the bar, and whether it may follow its history. Not here: indicators (transforms/features.py, unchanged), and storage.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# A close further away from the one before than this, as a fraction, is rather a split that was not delivered yet.
JUMP = 0.35
BAR = ("open", "high", "low", "close")


def running_bars(minutes: DataFrame, session: date, opened: datetime, closed: datetime) -> DataFrame:
    """The bar of `session` so far, one row a ticker: ticker, date, open, high, low, close, volume, as_of.

    `minutes`: minute_bars. `opened`, `closed`: of the session. Auctions print in the minute of the close, so it belongs to it.
    Minutes that replay another session are left out.
    """
    from pyspark.sql import functions as F

    is_moved = F.col("is_replay") & (F.coalesce("quote_date", "trade_date") != F.col("trade_date"))
    inside = minutes.where(
        (F.col("trade_date") == F.lit(session))
        & (F.col("minute") >= F.date_trunc("minute", F.lit(opened)))
        & (F.col("minute") <= F.date_trunc("minute", F.lit(closed)))
        & ~is_moved
    )
    return inside.groupBy("ticker").agg(
        F.lit(session).alias("date"),
        F.min_by("open", "minute").cast("double").alias("open"),
        F.max("high").cast("double").alias("high"),
        F.min("low").cast("double").alias("low"),
        F.max_by("close", "minute").cast("double").alias("close"),
        F.sum("volume").cast("bigint").alias("volume"),
        F.max("last_event").alias("as_of"),
    )


def following(bars: DataFrame, history: DataFrame, before: date | None) -> DataFrame:
    """`bars` with what they take over from the newest bar of their history: adj_close, dividend, price_basis, and their `doubt`.

    `history`: curated bars of earlier sessions. `before`: the session before (None: there is none).

    adj_close carries the factor of the bar before; the dividend of today is not known, so it is 0. `doubt` is null where the bar
    may follow its history.
    """
    from pyspark.sql import functions as F

    newest = history.groupBy("ticker").agg(
        F.max("date").alias("date_before"),
        F.max_by("close", "date").alias("close_before"),
        F.max_by("adj_close", "date").alias("adj_close_before"),
        F.max_by("price_basis", "date").alias("price_basis"),
    )
    both = bars.join(newest, "ticker", "left")
    ratio = F.col("close") / F.col("close_before")
    text = F.concat(
        F.lit("the close is "),
        F.format_string("%.4f", ratio),
        F.lit(" times the one before, as after a split that was not delivered yet"),
    )
    is_stale = F.lit(before is None) | (F.col("date_before") != F.lit(before))
    doubt = (
        F.when(F.col("date_before").isNull(), "there is no daily bar before it")
        .when(is_stale, F.concat(F.lit("the newest daily bar before it is of "), F.col("date_before").cast("string")))
        .when(F.col("close_before").isNull(), "the close before it is not known")
        .when(F.abs(ratio - 1) > JUMP, text)
    )
    # Where both are equal the factor is 1, and a close times 1 is that close, to the bit.
    factor = F.coalesce(F.col("adj_close_before") / F.col("close_before"), F.lit(1.0))
    return both.select(
        *(bars[name] for name in ("ticker", "date", *BAR, "volume", "as_of")),
        (F.col("close") * factor).alias("adj_close"),
        F.lit(0.0).alias("dividend"),
        F.coalesce("price_basis", F.lit("price_return")).alias("price_basis"),
        F.year("date").alias("year"),
        doubt.alias("doubt"),
    )
