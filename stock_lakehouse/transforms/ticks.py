"""Messages become ticks: one tick for each message, a dead letter with a reason where the message cannot be used.

Pure PySpark, the same on embedded Sail, in `foreachBatch` and on Databricks. Not here: where messages come from, and storage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake_options import TICKER
from stock_lakehouse.schemas.ticks import PRICE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# ISO 8601 with an offset: a local time without one would be hours off, and nobody would see it. Sail reads none without seconds.
INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})\z"
# Spark on the JVM reads a date out of a longer text, Sail does not. Python knows no year 0, and one such date in a table would
# stop all readers through deltalake.
DAY = r"^(19|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}\z"
BELOW = 1e9  # prices: with six decimals 15 digits, because the JVM's get_json_object passes numbers through a double
# What follows the message in an array of the two. An engine that finds it has read the whole message as one JSON value. Asked for
# a key alone, it would not see what stands behind the object, like a second message on the same line, which would be lost.
END = "end of message"
BEHIND = f"""get_json_object(concat('[', text, ', "{END}"]'), '$[1]')"""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TickRules:
    """What decides whether a message is a good tick, and whether it is late.

    - time_zone: IANA name of the exchange's time zone, in which a tick's `trade_date` is
    - late_seconds, ahead_seconds: as in the settings of the stream
    - first_date: first day of the lake; earlier events are dead letters
    - first_kept: first day whose ticks are still there (None: all); events of earlier days are dead letters
    - price_tolerance: how far open and close may lie outside low…high, as a share of the price
    """

    time_zone: str
    late_seconds: int
    ahead_seconds: int
    first_date: date
    first_kept: date | None
    price_tolerance: float


def ticks_of(messages: DataFrame, rules: TickRules, watermark: datetime | None) -> DataFrame:
    """A tick for each message, with the columns of `raw_ticks` but `batch`.

    `messages`: source, partition, offset (text that sorts), arrival_time, value (binary), text (the value as UTF-8, null if it
    is not UTF-8), high (newest event time of good ticks of the partition before this batch, null if there is none).
    `watermark`: minutes that end until then are final; None: no minute is.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # Where a message is no JSON object nothing is read from it: engines read on to where it breaks.
    whole = F.col("text").rlike(r"^\s*\{") & (F.expr(BEHIND) == END)
    read = messages.withColumns(
        {
            "is_text": F.col("text").isNotNull(),
            "text": F.when(F.coalesce(whole, F.lit(False)), F.col("text")),
        }
    )
    read = read.withColumns(
        {
            "ticker": _text("ticker"),
            "event_id": F.coalesce(_text("event_id"), F.sha2("value", 256)),  # a producer's retry repeats its bytes
            "event_time": F.when(_text("timestamp").rlike(INSTANT), F.expr(f"try_to_timestamp({_json('timestamp')})")),
            "quote_date": F.when(_text("date").rlike(DAY), F.expr(f"try_cast({_json('date')} AS date)")),
            "close": _number(f"coalesce({_json('close')}, {_json('price')})", PRICE),
            "is_replay": F.coalesce(_text("replay") == "true", F.lit(False)),
            "amount": _number(f"coalesce({_json('volume')}, {_json('size')}, '0')", "decimal(24,6)"),  # pandas: 100.0
        }
    )
    # An event has one price unless its message says more.
    edges = {
        f"own_{name}": F.when(_text(name).isNull(), F.col("close")).otherwise(_number(_json(name), PRICE))
        for name in ("open", "high", "low")
    }
    read = read.withColumns({**edges, "shares": F.expr("try_cast(amount AS bigint)")})
    read = read.withColumn("day", F.to_date(F.from_utc_timestamp("event_time", rules.time_zone)))
    read = read.withColumn("reason", _reason(rules))
    is_good = F.col("reason").isNull()
    # Only good ticks move the newest time of a partition, and none from the future: one wrong clock would make all others late.
    event_time = F.when(is_good, F.col("event_time"))
    earlier = Window.partitionBy("source", "partition").orderBy("offset").rowsBetween(Window.unboundedPreceding, -1)
    newest = F.greatest(F.max(event_time).over(earlier), F.col("high"))
    minute = F.date_trunc("minute", event_time)
    closed = F.lit(watermark if watermark is not None else EARLIEST)
    is_late = F.coalesce(event_time < newest - F.expr(f"interval {rules.late_seconds} seconds"), F.lit(False))
    is_closed = F.coalesce(minute + F.expr("interval 1 minute") <= closed, F.lit(False))
    arrival_day = F.to_date(F.from_utc_timestamp("arrival_time", rules.time_zone))
    return read.select(
        "source",
        "partition",
        "offset",
        "arrival_time",
        "value",
        F.when(is_good, F.col("ticker")).alias("ticker"),
        event_time.alias("event_time"),
        "event_id",
        F.when(is_good, F.col("quote_date")).alias("quote_date"),
        *(F.when(is_good, F.col(f"own_{name}")).alias(name) for name in ("open", "high", "low")),
        F.when(is_good, F.col("close")).alias("close"),
        F.when(is_good, F.col("shares")).alias("volume"),
        "is_replay",
        "reason",
        (is_late | is_closed).alias("late"),
        minute.alias("minute"),
        F.when(is_good, F.col("day")).otherwise(arrival_day).alias("trade_date"),
    )


def _reason(rules: TickRules) -> Column:
    """Why a message is a dead letter, the first of `schemas.ticks.REASONS` that applies; null for a good tick."""
    from pyspark.sql import functions as F

    prices = [F.col(name) for name in ("own_open", "own_high", "own_low", "close")]
    slack = F.col("close").cast("double") * rules.price_tolerance
    above = F.col("own_high").cast("double") + slack < F.greatest("own_open", "close").cast("double")
    below = F.col("own_low").cast("double") - slack > F.least("own_open", "close").cast("double")
    too_old = F.lit(False) if rules.first_kept is None else F.col("day") < F.lit(rules.first_kept)
    return F.coalesce(
        F.when(~F.col("is_text"), "not UTF-8"),
        F.when(F.col("text").isNull(), "not JSON"),
        F.when(~F.coalesce(F.col("ticker").rlike(rf"^{TICKER.pattern}\z"), F.lit(False)), "bad ticker"),
        F.when(F.col("event_time").isNull(), "bad timestamp"),
        F.when(
            F.col("event_time") > F.col("arrival_time") + F.expr(f"interval {rules.ahead_seconds} seconds"),
            "from the future",
        ),
        F.when(F.col("day") < F.lit(rules.first_date), "before the first day"),
        F.when(too_old, "too old"),
        F.when(_any(price.isNull() | (price <= 0) | (price >= BELOW) for price in prices), "bad price"),
        F.when(above | below, "impossible prices"),
        F.when(
            _any([F.col("shares").isNull() | (F.col("shares") < 0) | (F.col("shares") != F.col("amount"))]),
            "bad volume",
        ),
    )


def _json(key: str) -> str:
    return f"get_json_object(text, '$.{key}')"


def _text(key: str) -> Column:
    from pyspark.sql import functions as F

    return F.expr(_json(key))


def _number(text: str, kind: str) -> Column:
    """`text` as a decimal, null if it is none. Sail's cast to decimal does not read 1e-05, which JSON may say; the JVM's does."""
    from pyspark.sql import functions as F

    by_double = f"try_cast(try_cast({text} AS double) AS {kind})"
    return F.expr(f"CASE WHEN {text} RLIKE '[eE]' THEN {by_double} ELSE try_cast({text} AS {kind}) END")


def _any(conditions: Iterable[Column]) -> Column:
    """Whether any condition holds; an unknown one counts as true."""
    from pyspark.sql import functions as F

    either = F.lit(False)
    for condition in conditions:
        either = either | F.coalesce(condition, F.lit(True))
    return either
