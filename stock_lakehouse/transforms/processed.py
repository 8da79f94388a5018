"""From delivered text to typed bars: what each row means, and whether it is possible.

Pure Spark, the same on every engine. Not here: reading raw files, writing tables, which rows a run may publish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.schemas import processed as schema
from stock_lakehouse.tables import UNREADABLE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PRICES = ("open", "high", "low", "close")
# Engines differ in what else they would read as a number ("1d", "0x10", "١"), so the form is fixed here. \z, not $, and no
# dot: in Java's expressions $ also stands before a last line's end, and a dot for fewer characters than elsewhere.
NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?\z"
NOT_FINITE = r"^[+-]?(nan|inf|infinity)\z"
# There is no year 0: JVM Spark reads one all the same, and no Python can hold it.
DAY = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-[0-9]{2}-[0-9]{2}"
# A date, alone or at the head of a timestamp in exchange-local time.
DATE = rf"^{DAY}([T ]|\z)"
# As raw/ writes it: engines differ in what else they would read as a time ("99999-01-01").
LANDED = rf"^{DAY}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}[.][0-9]+Z\z"
MAX_SPLIT = 10_000.0  # new shares for one old one, or the reverse; it would be applied to the whole history before it
# No price is beyond these, that of shares joined or split a billion times included. One of 1e308 would make its ticker's
# indicators infinite, and then no feature of any ticker could be published.
MIN_PRICE, MAX_PRICE = 1e-12, 1e15
MAX_VOLUME = 2.0**53  # beyond it a double, which vendors' files go through, no longer counts single shares


def classify(raw: DataFrame, sessions: DataFrame, price_tolerance: float) -> DataFrame:
    """Every row of `raw`, typed, with its `reasons` and its `fate`: processed, quarantined or superseded.

    `raw` has the columns of the raw schema; `sessions` a row a session with `date`. `price_tolerance` is how far,
    relative, open and close may lie outside low…high (vendors round). Returns one row for each row of `raw`:
    the raw columns as `raw_*`, the processed columns, `reasons` (array<string>) and `fate`. Superseded rows are valid
    ones with a newer valid delivery of the same ticker and session.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    text = raw.select(*(F.col(name).alias(f"raw_{name}") for name in raw.columns))
    read = text.select(
        "*",
        F.col("raw_ticker").alias("ticker"),
        _date("raw_date").alias("date"),
        *(_number(f"raw_{name}").alias(name) for name in (*PRICES, "adj_close")),
        _number("raw_volume").alias("exact_volume"),
        _number("raw_dividends").alias("dividends"),
        _number("raw_stock_splits").alias("splits"),
        (_text("raw_dividends").isNotNull() & _text("raw_stock_splits").isNotNull()).alias("actions_delivered"),
        _date("raw_adjusted_to").alias("adjusted_to"),
        F.when(F.col("raw_ingested_at").rlike(LANDED), F.col("raw_ingested_at"))
        .try_cast("timestamp")
        .alias("ingested_at"),
    )
    known = sessions.select("date", F.lit(True).alias("is_session"))
    judged = read.join(F.broadcast(known), "date", "left").withColumn("reasons", _reasons(price_tolerance))
    judged = judged.withColumns(
        {
            "valid": F.size("reasons") == 0,
            "dividend": F.coalesce("dividends", F.lit(0.0)),
            # Vendors write 0 for "no split".
            "split_ratio": F.when(F.col("splits") > 0, F.col("splits")).otherwise(F.lit(1.0)),
        }
    )
    newest = Window.partitionBy("ticker", "date", "valid").orderBy(F.col("raw_ingested_at").desc())
    return judged.withColumn("rank", F.row_number().over(newest)).select(
        *(f"raw_{name}" for name in raw.columns),
        "ticker",
        "date",
        *PRICES,
        "adj_close",
        F.expr("try_cast(exact_volume as bigint)").alias("volume"),
        "dividend",
        "split_ratio",
        "actions_delivered",
        F.col("raw_source").alias("source"),
        "ingested_at",
        "adjusted_to",
        F.year("date").alias("year"),
        "reasons",
        F.when(~F.col("valid"), "quarantined")
        .when(F.col("rank") == 1, "processed")
        .otherwise("superseded")
        .alias("fate"),
    )


def processed_bars(classified: DataFrame) -> DataFrame:
    """The rows of `classify` that become processed bars, with the columns of the processed schema.

    Where a bar has a dividend or a split, they say since when it is delivered, and since when with these.
    """
    from pyspark.sql import functions as F

    key = ["ticker", "date"]
    bars = classified.where("fate = 'processed'")
    acting = bars.where("dividend > 0 OR split_ratio <> 1").select(
        *key, F.col("dividend").alias("newest_dividend"), F.col("split_ratio").alias("newest_split_ratio")
    )

    def since(value: str) -> Column:
        return F.min(F.when(F.col(value) == F.col(f"newest_{value}"), F.col("ingested_at")))

    # Of the few bars with an action: windows over all deliveries take twice the time of everything else here.
    valid = classified.where("fate <> 'quarantined'").select(*key, "dividend", "split_ratio", "ingested_at")
    seen = (
        valid.join(F.broadcast(acting), key)
        .groupBy(*key)
        .agg(
            F.min("ingested_at").alias("first_delivered_at"),
            since("dividend").alias("dividend_first_seen"),
            since("split_ratio").alias("split_first_seen"),
        )
    )
    return bars.join(F.broadcast(seen), key, "left").select(*(one.name for one in schema.COLUMNS))


def quarantined(classified: DataFrame) -> DataFrame:
    """The rows of `classify` that are impossible, as delivered, with the columns of the quarantine schema."""
    from pyspark.sql import functions as F

    return classified.where("fate = 'quarantined'").select(
        *(
            F.col(one.name if one.name == "reasons" else f"raw_{one.name}").alias(one.name)
            for one in schema.QUARANTINE_COLUMNS
        )
    )


def _text(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.nullif(F.trim(F.col(name)), F.lit(""))


def _number(name: str) -> Column:
    """The double that the text means; null where it means none, nan or infinity."""
    from pyspark.sql import functions as F

    value = F.when(_text(name).rlike(NUMBER), _text(name)).try_cast("double")
    # -0.0 becomes 0.0: engines do not agree on whether the two are equal.
    return F.when(F.abs(value) < F.lit(float("inf")), value + F.lit(0.0))


def _date(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.when(_text(name).rlike(DATE), F.substring(_text(name), 1, 10)).try_cast("date")


def _reasons(price_tolerance: float) -> Column:
    """Everything that is wrong with a row of `classify`, as an array of text."""
    from pyspark.sql import functions as F

    wrong: list[tuple[str, Column]] = [
        ("could not be split into columns", F.col("raw_problem").isNotNull()),
        ("ticker cannot be read", F.col("raw_ticker") == UNREADABLE),
        ("ticker is not the file's", F.upper(_text("raw_symbol")) != F.col("raw_ticker")),
        ("date cannot be read", F.col("date").isNull()),
        ("date is not of its folder's year", F.col("raw_year") != F.year("date").cast("string")),
        ("not a session of the exchange", F.col("date").isNotNull() & F.col("is_session").isNull()),
        ("landing time cannot be read", F.col("ingested_at").isNull()),
    ]
    for name in (*PRICES, "adj_close", "volume", "dividends", "stock_splits"):
        text = _text(f"raw_{name}")
        not_finite = F.lower(text).rlike(NOT_FINITE) | (text.rlike(NUMBER) & _number(f"raw_{name}").isNull())
        wrong.append((f"{name} is not finite", not_finite))
        wrong.append((f"{name} cannot be read", ~text.rlike(NUMBER) & ~not_finite))
    for name in (*PRICES, "volume"):
        wrong.append((f"{name} is missing", _text(f"raw_{name}").isNull()))
    for name in (*PRICES, "adj_close"):
        wrong.append((f"{name} is not positive", F.col(name) <= 0))
        beyond = (F.col(name) > MAX_PRICE) | ((F.col(name) > 0) & (F.col(name) < MIN_PRICE))
        wrong.append((f"{name} is beyond any price", beyond))
    volume = F.col("exact_volume")
    wrong += [
        ("high is below low", F.col("high") < F.col("low")),
        *((f"{name} is outside low…high", _outside(name, price_tolerance)) for name in ("open", "close")),
        ("volume is negative", volume < 0),
        ("volume is not a whole number", (volume != F.floor(volume)) | (volume > MAX_VOLUME)),
        ("dividends is negative", F.col("dividends") < 0),
        ("dividends is beyond any price", F.col("dividends") > MAX_PRICE),
        ("stock_splits is negative", F.col("splits") < 0),
        (
            "stock_splits is no plausible ratio",
            (F.col("splits") > MAX_SPLIT) | ((F.col("splits") > 0) & (F.col("splits") < 1 / MAX_SPLIT)),
        ),
    ]
    named = F.array(*(F.when(condition, F.lit(reason)) for reason, condition in wrong))
    return F.array_compact(named)


def _outside(name: str, tolerance: float) -> Column:
    from pyspark.sql import functions as F

    return (F.col(name) > F.col("high") * (1 + tolerance)) | (F.col(name) < F.col("low") * (1 - tolerance))
