"""Why a published value changed, as the ledger names it.

Here: the rules. Not here: how a change is found (delta_table.py) and where its line is kept.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

SPLIT, DIVIDEND, VENDOR_EDIT = "split", "dividend", "vendor edit"
LATE_BAR, WITHDRAWN, FORMULA_CHANGE = "late bar", "withdrawn", "formula change"
# These change whole histories by one rule: the ledger has a line a ticker and column of them, not one a value.
OF_HISTORIES = (SPLIT, DIVIDEND, FORMULA_CHANGE)
# Vendors round prices that they adjust.
AS_TRADED_WITHIN = 1e-4
PRICES = ("open", "high", "low", "close", "dividend")


def cause_of(name: str) -> Column:
    """The cause of a change of the curated column `name`, given the structs `old` and `new` of the bar and `is_computed`.

    A split or dividend, where the value is the same as traded, or nothing but adj_close is another; a late bar, where a final
    delivery took the place of a provisional one; a change of formula, where the delivery is the same; else the vendor's edit.
    """
    from pyspark.sql import functions as F

    def old(column: str) -> Column:
        return F.col(f"old.{column}")

    def new(column: str) -> Column:
        return F.col(f"new.{column}")

    def near(one: Column, other: Column) -> Column:
        return F.abs(one - other) <= AS_TRADED_WITHIN * F.abs(other)

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
    """The causes, by comma, of what changed of a ticker's features.

    `respecified`: rows went to other formulas. Values changed until `last_changed`; `first_added` and `first_withdrawn` are
    sessions that came and went at the same time, `of_bars` the causes for which the ledger says that its curated bars changed.
    """
    if respecified:
        return FORMULA_CHANGE
    causes = set(of_bars)
    if first_withdrawn is not None:
        causes.add(WITHDRAWN)
    if first_added is not None and first_added < last_changed:
        causes.add(LATE_BAR)
    # Of a dividend only features of rows before it was known could tell, and there are none: returns take it from its own bar.
    return ", ".join(sorted(causes - {DIVIDEND} or causes or {VENDOR_EDIT}))
