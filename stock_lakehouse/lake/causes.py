"""The cause of a change of a published value, as the ledger names it.

Here: the rules. Not here: how a change is found (delta_publish.py), and where its line is kept (ledger.py).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

SPLIT, DIVIDEND, VENDOR_EDIT = "split", "dividend", "vendor edit"
LATE_BAR, WITHDRAWN, FORMULA_CHANGE = "late bar", "withdrawn", "formula change"
# These causes change whole histories by one rule, so the ledger has a line per ticker and column, not per value.
OF_HISTORIES = (SPLIT, DIVIDEND, FORMULA_CHANGE)
# Relative tolerance of as-traded prices: vendors round the prices that they adjust.
AS_TRADED_WITHIN = 1e-4
PRICES = ("open", "high", "low", "close", "dividend")


def cause_of(name: str) -> Column:
    """The cause of a change of the curated column `name`, given the structs `old` and `new` of the bar and `is_computed`.

    The first that applies:
    - withdrawn: the bar is no longer computed.
    - split: the value as traded is the same, or a split was added.
    - dividend: of the prices only adj_close has changed, or a dividend was added.
    - formula change: the delivery is the same.
    - late bar: a final delivery replaced a provisional one.
    - vendor edit: anything else.
    """
    from pyspark.sql import functions as F

    def old(column: str) -> Column:
        return F.col(f"old.{column}")

    def new(column: str) -> Column:
        return F.col(f"new.{column}")

    def near(value: Column, other: Column) -> Column:
        return F.abs(value - other) <= AS_TRADED_WITHIN * F.abs(other)

    is_split = is_dividend = F.lit(False)
    resplit = old("split_factor") != new("split_factor")
    if name in PRICES:
        is_split = resplit & near(old(name) * old("split_factor"), new(name) * new("split_factor"))
    elif name == "adj_close":
        is_split = resplit & near(old("close") * old("split_factor"), new("close") * new("split_factor"))
        derived = (new("price_basis") == "total_return") | (old("ingested_at") == new("ingested_at"))
        is_dividend = (old("close") == new("close")) & derived
    elif name == "volume":
        is_split = resplit & near(old(name) / old("split_factor"), new(name) / new("split_factor"))
    elif name == "split_ratio":
        is_split = old(name) == 1
    if name == "dividend":
        is_dividend = old(name) == 0
    return (
        F.when(F.col("is_computed").isNull(), WITHDRAWN)
        .when(is_split, SPLIT)
        .when(is_dividend, DIVIDEND)
        .when(old("ingested_at") == new("ingested_at"), FORMULA_CHANGE)
        .when(old("bar_status") == "provisional", LATE_BAR)
        .otherwise(VENDOR_EDIT)
    )


def causes_of_features(
    respecified: bool,
    last_changed: date,
    first_added: date | None,
    first_withdrawn: date | None,
    of_bars: Collection[str],
) -> str:
    """The causes of the changes of a ticker's features, separated by commas.

    `respecified`: whether rows were computed with other formulas.
    `last_changed`: the last session with a changed value.
    `first_added`, `first_withdrawn`: the first session that the same publish adds or withdraws, if any.
    `of_bars`: the causes for which the ticker's curated bars changed, by the ledger.
    """
    if respecified:
        return FORMULA_CHANGE
    causes = set(of_bars)
    if first_withdrawn is not None:
        causes.add(WITHDRAWN)
    if first_added is not None and first_added < last_changed:
        causes.add(LATE_BAR)
    # A new dividend does not change the features of earlier rows, because a return takes the dividend from its own bar. So it
    # is named only if there is no other cause.
    return ", ".join(sorted(causes - {DIVIDEND} or causes or {VENDOR_EDIT}))
