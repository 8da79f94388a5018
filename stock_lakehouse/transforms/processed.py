"""From delivered text to typed bars: what each row means, and whether it is valid.

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
# A price of 0, or a missing one, is unknown here. Only the close and the volume are used in computations.
OPTIONAL = ("open", "high", "low")
AMOUNTS = ("dividends", "capital_gains")
NUMBERS = (*PRICES, "adj_close", "volume", *AMOUNTS)
# Year 0 does not exist. JVM Spark reads it nevertheless, and Python cannot represent it.
DAY_PATTERN = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-[0-9]{2}-[0-9]{2}"
# A date, alone or at the start of a timestamp in exchange-local time.
DATE = rf"^{DAY_PATTERN}([T ]|\z)"
# The form that raw/ writes. Engines differ in what else they read as a time ("99999-01-01").
LANDED = rf"^{DAY_PATTERN}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}[.][0-9]+Z\z"
MAX_SPLIT = 10_000.0  # new shares for one old share, or the reverse; a split applies to the whole history before it
# No real price is outside these bounds: eight reverse splits of 1 for 25 to 1 for 250 turn a dollar into 3e14. A price of 1e308
# would make its ticker's indicators infinite, and then no feature of any ticker could be published.
MIN_PRICE, MAX_PRICE = 1e-12, 1e18
MAX_VOLUME = 2.0**53  # above it a double cannot represent single shares, and vendors' files pass through doubles


def classify(raw: DataFrame, days: DataFrame, price_tolerance: float) -> DataFrame:
    """Every row of `raw`, typed, with its `reasons`: a row is valid if it has none.

    - `raw`: has the columns of the raw schema.
    - `days`: one row a calendar day, with `date` and `session`, the session on that day or the next one after it.
    - `price_tolerance`: how far, as a fraction, open and close may lie outside low…high (vendors round).

    Returns one row for each row of `raw`: the processed columns, and `reasons` (array<string>); for `superseded`, `row`, a number
    that no other row of the ticker has; for `quarantined`, the raw columns as `raw_*`, null if the row is valid; and for
    `delivered_actions`, `counts_on` and what the row says about each kind of action. Stage the result: the numbers of its rows
    differ from one computation to the next.
    """
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
    is_valid = F.size("reasons") == 0
    return judged.select(
        # The delivered text of a valid row is not needed any more. Without it the rows are a third as wide.
        *(F.when(~is_valid, F.col(f"raw_{name}")).alias(f"raw_{name}") for name in raw.columns),
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
        F.monotonically_increasing_id().alias("row"),
        "counts_on",
        *(_said(kind).alias(f"said_{kind.replace(' ', '_')}") for kind in schema.KINDS),
    )


def superseded(classified: DataFrame) -> DataFrame:
    """`ticker` and `row` of the valid rows of `classify` of whose ticker and session there is a newer valid delivery."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # Few rows are of a session that was delivered several times, and only these need to be sorted.
    valid = classified.where(F.size("reasons") == 0).select("ticker", "date", "ingested_at", "row")
    several = valid.groupBy("ticker", "date").agg(F.count("row").alias("deliveries")).where("deliveries > 1")
    newest_first = Window.partitionBy("ticker", "date").orderBy(F.col("ingested_at").desc(), "row")
    ranked = valid.join(several, ["ticker", "date"], "left_semi").withColumn("rank", F.row_number().over(newest_first))
    return ranked.where("rank > 1").select("ticker", "row")


def processed_bars(classified: DataFrame, superseded: DataFrame | None = None) -> DataFrame:
    """The rows of `classify` that become processed bars, with the columns of the processed schema: the valid ones that are not
    among the `superseded` (None: there are none)."""
    from pyspark.sql import functions as F

    valid = classified.where(F.size("reasons") == 0)
    newest = valid if superseded is None else valid.join(superseded, ["ticker", "row"], "left_anti")
    return newest.select(*(column.name for column in schema.COLUMNS))


def delivered_actions(classified: DataFrame) -> DataFrame:
    """What the rows of `classify` say about splits and dividends, valid or not, with the columns of the schema.

    For each ticker, day and kind of which a delivery names an action, there is a line for each value that deliveries gave, one
    after another.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    names = {kind: f"said_{kind.replace(' ', '_')}" for kind in schema.KINDS}
    neutral = {kind: 1.0 if kind == schema.SPLIT else 0.0 for kind in schema.KINDS}
    key = ["ticker", "date"]
    rows = classified.select(*key, "counts_on", "ingested_at", "adjusted_to", *names.values())
    with_action = rows.where(
        F.greatest(*(F.coalesce((F.col(name) != neutral[kind]).cast("int"), F.lit(0)) for kind, name in names.items()))
        > 0
    )
    of_action_days = rows.join(F.broadcast(with_action.select(*key).distinct()), key, "left_semi")
    by_kind = [
        of_action_days.where(F.col(name).isNotNull()).select(
            *key, F.col("counts_on").alias("session"), F.lit(kind).alias("kind"), F.col(name).alias("value"),
            F.col("ingested_at").alias("first_seen"), "adjusted_to", (F.col(name) != neutral[kind]).cast("int").alias("acts"),
        )
        for kind, name in names.items()
    ]  # fmt: skip
    values = by_kind[0].unionByName(by_kind[1]).unionByName(by_kind[2])
    of_kind = Window.partitionBy(*key, "kind")
    in_order = of_kind.orderBy("first_seen")
    changes = (
        values.withColumns(
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
        *(column.name for column in schema.ACTION_COLUMNS if column.name != "year"), F.year("date").alias("year")
    )


def quarantined(classified: DataFrame) -> DataFrame:
    """The invalid rows of `classify`, as delivered, with the columns of the quarantine schema."""
    from pyspark.sql import functions as F

    return classified.where(F.size("reasons") > 0).select(
        *(
            F.col(column.name if column.name == "reasons" else f"raw_{column.name}").alias(column.name)
            for column in schema.QUARANTINE_COLUMNS
        )
    )


def with_plain_numbers(text: DataFrame, names: Sequence[str]) -> DataFrame:
    """`text` with `plain_<name>` for each `raw_<name>`: `forms.plain_numbers` in Spark.

    A word for a missing value becomes null; a split of the form 4:1 is unchanged. The work is done in steps, since one expression
    for all of it has a thousand parts, which takes an engine seconds to plan. Each step only handles texts that are not plain
    numbers yet.
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

    def without_symbol(name: str) -> Column:
        parts = (F.coalesce(F.regexp_extract(odd(name), forms.MONEY, group), F.lit("")) for group in (1, 2))
        has_symbol = odd(name).rlike(f"[{forms.CURRENCY}]") & odd(name).rlike(forms.MONEY)
        return F.when(has_symbol, F.concat(*parts)).otherwise(odd(name))

    frame = frame.withColumns(
        {f"odd_{name}": F.when(~F.lower(odd(name)).isin(list(forms.MISSING)), without_symbol(name)) for name in names}
    )

    def without_suffix(name: str) -> Column:
        suffix = F.upper(F.substring(odd(name), -1, 1))
        exponent = F.translate(suffix, "KMBT", "3692")
        number = F.concat(
            F.trim(F.regexp_extract(odd(name), forms.SUFFIXED, 1)),
            F.lit("E"),
            F.when(suffix == "T", "12").otherwise(exponent),
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
    """The double that plain text means; null where it is not a number, or infinite."""
    from pyspark.sql import functions as F

    value = F.when(F.col(name).rlike(forms.NUMBER), F.col(name)).try_cast("double")
    # -0.0 becomes 0.0: engines do not agree on whether the two are equal.
    return F.when(F.abs(value) < F.lit(float("inf")), value + F.lit(0.0))


def _ratio(name: str) -> Column:
    """New shares for one old share; 0 where the text says 0; null where it cannot be read."""
    from pyspark.sql import functions as F

    lower = F.lower(F.col(name))
    new, old = (F.regexp_extract(lower, forms.RATIO, group).try_cast("double") for group in (1, 2))
    return F.when(lower.rlike(forms.RATIO), F.when((old > 0) & (new > 0), new / old)).otherwise(_number(name))


def _date(name: str) -> Column:
    from pyspark.sql import functions as F

    text = F.trim(F.col(name))
    return F.when(text.rlike(DATE), F.substring(text, 1, 10)).try_cast("date")


def _session() -> Column:
    """The day that the source read. For older rows without it, and for sources that deliver ISO dates, the day in the text."""
    from pyspark.sql import functions as F

    readable = F.col("raw_problem").isNull()
    return F.when(readable | F.col("raw_session").isNotNull(), F.coalesce(_date("raw_session"), _date("raw_date")))


def _says(actions: str) -> Column:
    """Whether the delivery says which dividend, or split, a session has: its file has the column, or the row has a text."""
    from pyspark.sql import functions as F

    texts = {"dividends": "raw_dividends", "splits": "raw_stock_splits"}
    return F.coalesce(F.col("raw_says").contains(actions), F.lit(False)) | F.coalesce(
        F.trim(F.col(texts[actions])) != "", F.lit(False)
    )


def _said(kind: str) -> Column:
    """The amount or ratio of an action on the row's day: 0 or 1 for no action; null if the row says nothing that can be read."""
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
    """Whether the row names a ticker other than that of its file. BRK.B and BRK/B are BRK-B, AAPL.US is AAPL."""
    from pyspark.sql import functions as F

    symbol = F.regexp_replace(F.upper(_trimmed(F.col("raw_symbol"))), "[./ ]", "-")
    ticker = F.regexp_replace(F.upper(F.col("raw_ticker")), "[./ ]", "-")
    return F.coalesce((symbol != "") & (symbol != ticker) & (symbol != F.concat(ticker, F.lit("-US"))), F.lit(False))


def _reasons(price_tolerance: float) -> Column:
    """The reasons why a row of `classify` is invalid, as an array of text; for a row that cannot be read, its `problem`."""
    from pyspark.sql import functions as F

    rules: list[tuple[str, Column]] = [
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
        rules.append((f"{name} is not finite", unread & not_finite))
        rules.append((f"{name} cannot be read", unread & ~not_finite))
    rules.append(("close is missing", F.col("plain_close").isNull()))
    for name in (*PRICES, "adj_close"):
        value = F.col(f"number_{name}")
        rules.append((f"{name} is not positive", value < 0 if name in OPTIONAL else value <= 0))
        beyond = (value > MAX_PRICE) | ((value > 0) & (value < MIN_PRICE))
        rules.append((f"{name} is beyond any price", beyond))
    volume, splits = F.col("number_volume"), F.col("number_stock_splits")
    rules += [
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
    reasons = F.array(*(F.when(condition, F.lit(reason)) for reason, condition in rules))
    return F.when(F.col("raw_problem").isNotNull(), F.array("raw_problem")).otherwise(F.array_compact(reasons))


def _outside(name: str, tolerance: float) -> Column:
    """Whether a known price lies outside low…high, where these are known."""
    from pyspark.sql import functions as F

    value, low, high = (F.col(f"number_{column}") for column in (name, "low", "high"))
    return (value > 0) & (((high > 0) & (value > high * (1 + tolerance))) | (value < low * (1 - tolerance)))
