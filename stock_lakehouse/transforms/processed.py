"""From delivered text to typed bars: what each row means, and whether it is possible.

Pure Spark, the same on every engine. Not here: reading raw files, writing tables, which rows a run may publish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stock_lakehouse.schemas import forms
from stock_lakehouse.schemas import processed as schema
from stock_lakehouse.tables import UNREADABLE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PRICES = ("open", "high", "low", "close")
OPTIONAL = (
    "open",
    "high",
    "low",
)  # a price of 0 or none is not known; nothing but the close and the volume is computed with
AMOUNTS = ("dividends", "capital_gains")
NUMBERS = (*PRICES, "adj_close", "volume", *AMOUNTS)
# There is no year 0: JVM Spark reads one all the same, and no Python can hold it.
DAY = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-[0-9]{2}-[0-9]{2}"
# A date, alone or at the head of a timestamp in exchange-local time.
DATE = rf"^{DAY}([T ]|\z)"
# As raw/ writes it: engines differ in what else they would read as a time ("99999-01-01").
LANDED = rf"^{DAY}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}[.][0-9]+Z\z"
MAX_SPLIT = 10_000.0  # new shares for one old one, or the reverse; it would be applied to the whole history before it
# No price is beyond these: eight reverse splits of 1 for 25 to 1 for 250 make a dollar 3e14. One of 1e308 would make its ticker's
# indicators infinite, and then no feature of any ticker could be published.
MIN_PRICE, MAX_PRICE = 1e-12, 1e18
MAX_VOLUME = 2.0**53  # beyond it a double, which vendors' files go through, no longer counts single shares


def classify(raw: DataFrame, days: DataFrame, price_tolerance: float) -> DataFrame:
    """Every row of `raw`, typed, with its `reasons` and its `fate`: processed, quarantined or superseded.

    `raw` has the columns of the raw schema; `days` a row a calendar day with `date` and `session`, the session on that day or
    next after it. `price_tolerance` is how far, relative, open and close may lie outside low…high (vendors round). Returns
    one row for each row of `raw`: the raw columns as `raw_*`, the processed columns, `reasons` (array<string>), `fate`, and for
    `delivered_actions` `counts_on` and what the row says of each kind of action. Superseded rows are valid ones with a newer
    valid delivery of the same ticker and session.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    text = raw.select(*(F.col(name).alias(f"raw_{name}") for name in raw.columns))
    read = with_plain_numbers(text, (*NUMBERS, "stock_splits")).select(
        "*",
        F.col("raw_ticker").alias("ticker"),
        _session().alias("date"),
        *(_number(f"plain_{name}").alias(f"number_{name}") for name in NUMBERS),
        _ratio("plain_stock_splits").alias("number_stock_splits"),
        _date("raw_adjusted_to").alias("adjusted_to"),
        _date("raw_adj_close_as_of").alias("adj_close_as_of"),
        F.when(F.col("raw_ingested_at").rlike(LANDED), F.col("raw_ingested_at"))
        .try_cast("timestamp")
        .alias("ingested_at"),
    )
    known = days.select("date", F.col("session").alias("counts_on"))
    judged = read.join(F.broadcast(known), "date", "left").withColumn("reasons", _reasons(price_tolerance))
    judged = judged.withColumn("valid", F.size("reasons") == 0)
    newest = Window.partitionBy("ticker", "date", "valid").orderBy(F.col("raw_ingested_at").desc())
    return judged.withColumn("rank", F.row_number().over(newest)).select(
        *(f"raw_{name}" for name in raw.columns),
        "ticker",
        "date",
        *(F.when(F.col(f"number_{name}") > 0, F.col(f"number_{name}")).alias(name) for name in PRICES),
        F.col("number_adj_close").alias("adj_close"),
        F.expr("try_cast(rint(number_volume) as bigint)").alias("volume"),
        _says("dividends").alias("dividends_delivered"),
        F.coalesce("raw_basis", F.lit("split_adjusted")).alias("basis"),
        F.col("raw_source").alias("source"),
        "ingested_at",
        "adjusted_to",
        "adj_close_as_of",
        F.year("date").alias("year"),
        "reasons",
        F.when(~F.col("valid"), "quarantined")
        .when(F.col("rank") == 1, "processed")
        .otherwise("superseded")
        .alias("fate"),
        "counts_on",
        *(_said(kind).alias(f"said_{kind.replace(' ', '_')}") for kind in schema.KINDS),
    )


def processed_bars(classified: DataFrame) -> DataFrame:
    """The rows of `classify` that become processed bars, with the columns of the processed schema."""
    return classified.where("fate = 'processed'").select(*(one.name for one in schema.COLUMNS))


def delivered_actions(classified: DataFrame) -> DataFrame:
    """What the rows of `classify` say of splits and dividends, whatever became of their bars, with the columns of the schema.

    A line for each thing that deliveries said one after another of a ticker, day and kind of which any of them names an action.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    names = {kind: f"said_{kind.replace(' ', '_')}" for kind in schema.KINDS}
    none = {kind: 1.0 if kind == schema.SPLIT else 0.0 for kind in schema.KINDS}
    key = ["ticker", "date"]
    said = classified.select(*key, "counts_on", "ingested_at", "adjusted_to", *names.values())
    acting = said.where(
        F.greatest(*(F.coalesce((F.col(name) != none[kind]).cast("int"), F.lit(0)) for kind, name in names.items())) > 0
    )
    few = said.join(F.broadcast(acting.select(*key).distinct()), key, "left_semi")
    each = [
        few.where(F.col(name).isNotNull()).select(
            *key, F.col("counts_on").alias("session"), F.lit(kind).alias("kind"), F.col(name).alias("value"),
            F.col("ingested_at").alias("first_seen"), "adjusted_to", (F.col(name) != none[kind]).cast("int").alias("acts"),
        )
        for kind, name in names.items()
    ]  # fmt: skip
    every = each[0].unionByName(each[1]).unionByName(each[2])
    of_kind = Window.partitionBy(*key, "kind")
    in_order = of_kind.orderBy("first_seen")
    changes = (
        every.withColumns(
            {
                "named": F.max("acts").over(of_kind),
                "before": F.lag("value").over(in_order),
                "adjusted_before": F.lag("adjusted_to").over(in_order),
            }
        )
        .where("named = 1")
        .where(
            ~(F.col("value").eqNullSafe(F.col("before")) & F.col("adjusted_to").eqNullSafe(F.col("adjusted_before")))
        )
    )
    return changes.select(
        *(one.name for one in schema.ACTION_COLUMNS if one.name != "year"), F.year("date").alias("year")
    )


def quarantined(classified: DataFrame) -> DataFrame:
    """The rows of `classify` that are impossible, as delivered, with the columns of the quarantine schema."""
    from pyspark.sql import functions as F

    return classified.where("fate = 'quarantined'").select(
        *(
            F.col(one.name if one.name == "reasons" else f"raw_{one.name}").alias(one.name)
            for one in schema.QUARANTINE_COLUMNS
        )
    )


def with_plain_numbers(text: DataFrame, names: Sequence[str]) -> DataFrame:
    """`text` with `plain_<name>` for each `raw_<name>`: the text as a plain number, see `forms.plain_numbers`, which this is
    in Spark.

    Null for a word for "missing"; a split of the form 4:1 stays as it is. Step by step, since one expression for all of it has a
    thousand parts, which takes an engine seconds to plan; each step looks at texts that are no plain number already.
    """
    from pyspark.sql import functions as F

    def odd(name: str) -> Column:
        return F.col(f"odd_{name}")

    decimal = F.col("raw_decimal")
    frame = text.withColumns(
        {
            f"odd_{name}": F.when(
                decimal.isNotNull() | ~F.col(f"raw_{name}").rlike(forms.NUMBER), _trimmed(F.col(f"raw_{name}"))
            )
            for name in names
        }
    )
    money = rf"^[{forms.CURRENCY}] ?[0-9.,]|^[+-][{forms.CURRENCY}][0-9.,]|[0-9.,] ?[{forms.CURRENCY}]\z"
    frame = frame.withColumns(
        {
            f"odd_{name}": F.when(
                ~F.lower(odd(name)).isin(list(forms.MISSING)),
                F.when(odd(name).rlike(money), F.trim(F.translate(odd(name), forms.CURRENCY, ""))).otherwise(odd(name)),
            )
            for name in names
        }
    )

    def without_suffix(name: str) -> Column:
        last = F.upper(F.substring(odd(name), -1, 1))
        exponent = F.translate(last, "KMBT", "3692")
        number = F.concat(
            F.trim(F.regexp_extract(odd(name), forms.SUFFIXED, 1)),
            F.lit("E"),
            F.when(last == "T", "12").otherwise(exponent),
        )
        return F.when(odd(name).rlike(forms.SUFFIXED), number).otherwise(odd(name))

    frame = frame.withColumns({f"odd_{name}": without_suffix(name) for name in names})
    comma = decimal == ","

    def plain(name: str) -> Column:
        return (
            F.when(
                odd(name).isNull(),
                F.when(decimal.isNull() & F.col(f"raw_{name}").rlike(forms.NUMBER), F.col(f"raw_{name}")),
            )
            .when(comma & odd(name).rlike(forms.GROUPED_COMMA), F.translate(odd(name), f",.{forms.SPACES}", "."))
            .when(comma & odd(name).rlike(forms.PLAIN_COMMA), F.translate(odd(name), ",", "."))
            .when(comma & odd(name).rlike(forms.NUMBER), F.concat(F.lit("?"), odd(name)))
            .when(
                ~comma.eqNullSafe(True) & odd(name).rlike(forms.GROUPED_POINT),
                F.translate(odd(name), f",{forms.SPACES}", ""),
            )
            .otherwise(odd(name))
        )

    return frame.withColumns({f"plain_{name}": plain(name) for name in names}).drop(*(f"odd_{name}" for name in names))


def _trimmed(text: Column) -> Column:
    from pyspark.sql import functions as F

    return F.regexp_replace(text, rf"^[{forms.BLANKS}]+|[{forms.BLANKS}]+\z", "")


def _number(name: str) -> Column:
    """The double that plain text means; null where it means none, or infinity."""
    from pyspark.sql import functions as F

    value = F.when(F.col(name).rlike(forms.NUMBER), F.col(name)).try_cast("double")
    # -0.0 becomes 0.0: engines do not agree on whether the two are equal.
    return F.when(F.abs(value) < F.lit(float("inf")), value + F.lit(0.0))


def _ratio(name: str) -> Column:
    """New shares for one old share; 0 where the text says so, null where it cannot be read."""
    from pyspark.sql import functions as F

    lower = F.lower(F.col(name))
    new, old = (F.regexp_extract(lower, forms.RATIO, group).try_cast("double") for group in (1, 2))
    return F.when(lower.rlike(forms.RATIO), F.when((old > 0) & (new > 0), new / old)).otherwise(_number(name))


def _date(name: str) -> Column:
    from pyspark.sql import functions as F

    text = F.trim(F.col(name))
    return F.when(text.rlike(DATE), F.substring(text, 1, 10)).try_cast("date")


def _session() -> Column:
    """The day that the source read; of rows from before it said so, and of sources that deliver ISO dates, that of the text."""
    from pyspark.sql import functions as F

    readable = F.col("raw_problem").isNull()
    return F.when(readable | F.col("raw_session").isNotNull(), F.coalesce(_date("raw_session"), _date("raw_date")))


def _says(actions: str) -> Column:
    """Whether the delivery says which dividend, or split, a session has: its file has the column, or the row a text."""
    from pyspark.sql import functions as F

    texts = {"dividends": "raw_dividends", "splits": "raw_stock_splits"}
    return F.coalesce(F.col("raw_says").contains(actions), F.lit(False)) | F.coalesce(
        F.trim(F.col(texts[actions])) != "", F.lit(False)
    )


def _said(kind: str) -> Column:
    """What a row says of an action of its day: amount or ratio, 0 or 1 for "none"; null if it says nothing that can be read."""
    from pyspark.sql import functions as F

    is_known = (
        F.col("raw_problem").isNull()
        & (F.col("raw_ticker") != UNREADABLE)
        & ~_is_other_ticker()
        & F.col("counts_on").isNotNull()
        & F.col("ingested_at").isNotNull()
    )
    if kind == schema.SPLIT:
        ratio = F.col("number_stock_splits")
        plausible = (ratio <= MAX_SPLIT) & (ratio >= 1 / MAX_SPLIT)
        says, missing = _says("splits"), F.col("plain_stock_splits").isNull()
        value = F.when(missing | (ratio == 0), F.lit(1.0)).when(plausible, ratio)
    else:
        name = "dividends" if kind == schema.DIVIDEND else "capital_gains"
        amount = F.col(f"number_{name}")
        says = _says("dividends") if kind == schema.DIVIDEND else F.col("raw_capital_gains").isNotNull()
        value = F.when(F.col(f"plain_{name}").isNull(), F.lit(0.0)).when((amount >= 0) & (amount <= MAX_PRICE), amount)
    return F.when(is_known & says, value)


def _is_other_ticker() -> Column:
    """Whether the row names another ticker than that of its file. BRK.B and BRK/B are BRK-B, AAPL.US is AAPL."""
    from pyspark.sql import functions as F

    symbol = F.regexp_replace(F.upper(_trimmed(F.col("raw_symbol"))), "[./ ]", "-")
    ticker = F.regexp_replace(F.upper(F.col("raw_ticker")), "[./ ]", "-")
    return F.coalesce((symbol != "") & (symbol != ticker) & (symbol != F.concat(ticker, F.lit("-US"))), F.lit(False))


def _reasons(price_tolerance: float) -> Column:
    """Everything that is wrong with a row of `classify`, as an array of text; of a row that cannot be read, why."""
    from pyspark.sql import functions as F

    wrong: list[tuple[str, Column]] = [
        ("ticker cannot be read", F.col("raw_ticker") == UNREADABLE),
        ("ticker is not the file's", _is_other_ticker()),
        ("date cannot be read", F.col("date").isNull()),
        ("date is not of its folder's year", F.col("raw_year") != F.year("date").cast("string")),
        ("not a session of the exchange", F.col("date").isNotNull() & ~F.col("date").eqNullSafe(F.col("counts_on"))),
        ("landing time cannot be read", F.col("ingested_at").isNull()),
    ]
    for name in (*NUMBERS, "stock_splits"):
        plain = F.col(f"plain_{name}")
        unread = plain.isNotNull() & F.col(f"number_{name}").isNull()
        not_finite = F.lower(plain).rlike(forms.INFINITE) | plain.rlike(forms.NUMBER)
        wrong.append((f"{name} is not finite", unread & not_finite))
        wrong.append((f"{name} cannot be read", unread & ~not_finite))
    wrong.append(("close is missing", F.col("plain_close").isNull()))
    for name in (*PRICES, "adj_close"):
        value = F.col(f"number_{name}")
        wrong.append((f"{name} is not positive", value < 0 if name in OPTIONAL else value <= 0))
        beyond = (value > MAX_PRICE) | ((value > 0) & (value < MIN_PRICE))
        wrong.append((f"{name} is beyond any price", beyond))
    volume, splits = F.col("number_volume"), F.col("number_stock_splits")
    wrong += [
        ("high is below low", (F.col("number_high") < F.col("number_low")) & (F.col("number_high") > 0)),
        *((f"{name} is outside low…high", _outside(name, price_tolerance)) for name in ("open", "close")),
        ("volume is negative", volume < 0),
        ("volume is beyond any count", volume > MAX_VOLUME),
        *((f"{name} is negative", F.col(f"number_{name}") < 0) for name in AMOUNTS),
        *((f"{name} is beyond any price", F.col(f"number_{name}") > MAX_PRICE) for name in AMOUNTS),
        ("stock_splits is negative", splits < 0),
        (
            "stock_splits is no plausible ratio",
            (splits > MAX_SPLIT) | ((splits > 0) & (splits < 1 / MAX_SPLIT)),
        ),
    ]
    named = F.array(*(F.when(condition, F.lit(reason)) for reason, condition in wrong))
    return F.when(F.col("raw_problem").isNotNull(), F.array("raw_problem")).otherwise(F.array_compact(named))


def _outside(name: str, tolerance: float) -> Column:
    """Whether a price that is known lies outside low…high, where these are known."""
    from pyspark.sql import functions as F

    value, low, high = (F.col(f"number_{one}") for one in (name, "low", "high"))
    return (value > 0) & (((high > 0) & (value > high * (1 + tolerance))) | (value < low * (1 - tolerance)))
