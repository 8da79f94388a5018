"""Which columns of the layer above a column is made of. Only differences from "the one of the same name" are listed."""

from __future__ import annotations

import dagster as dg

from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, FEATURES, PROCESSED, QUARANTINE, RAW, RESTATEMENTS, Table
from stock_lakehouse.transforms.indicators import INDICATORS

UPSTREAM = {
    PROCESSED: (RAW,),
    QUARANTINE: (RAW,),
    CURATED: (PROCESSED,),
    CORPORATE_ACTIONS: (PROCESSED,),
    FEATURES: (CURATED,),
    RESTATEMENTS: (),
}
SPLITS = ("adjusted_to", "ingested_at", "first_delivered_at", "split_first_seen", "split_ratio")
MADE_OF = {
    (PROCESSED, "dividend"): ("dividends",),
    (PROCESSED, "split_ratio"): ("stock_splits",),
    (QUARANTINE, "reasons"): tuple(name for name in RAW.column_names if name not in ("source", "interval")),
    **{(CURATED, name): (name, *SPLITS) for name in ("open", "high", "low", "close", "volume", "dividend")},
    (CURATED, "adj_close"): ("adj_close", "close", "dividend", "actions_delivered", *SPLITS),
    (CURATED, "price_basis"): ("adj_close", "actions_delivered"),
    (CURATED, "split_factor"): ("split_ratio",),
    (CURATED, "adj_close_deviation"): ("adj_close", "close", "dividend", *SPLITS),
    (CORPORATE_ACTIONS, "ex_date"): ("date",),
    (CORPORATE_ACTIONS, "kind"): ("dividend", "split_ratio"),
    (CORPORATE_ACTIONS, "value"): ("dividend", *SPLITS),
    (CORPORATE_ACTIONS, "price_factor"): ("close", "dividend", *SPLITS),
    (CORPORATE_ACTIONS, "first_seen"): ("dividend_first_seen", "split_first_seen"),
    (CORPORATE_ACTIONS, "late"): ("dividend_first_seen", "first_delivered_at", "split_first_seen"),
    (CURATED, "bar_status"): ("date", "ingested_at"),
    (FEATURES, "tradable_from"): ("date",),
}


def column_lineage(table: Table) -> dg.TableColumnLineage:
    """The lineage of every column of `table` that is made of columns above it."""
    found: dict[str, list[dg.TableColumnDep]] = {}
    for above in UPSTREAM.get(table, ()):
        for name in table.column_names:
            sources = MADE_OF.get((table, name), _inputs(name) if table == FEATURES else (name,))
            found[name] = [dg.TableColumnDep(above.name, source) for source in sources if source in above.column_names]
    return dg.TableColumnLineage({name: deps for name, deps in found.items() if deps})


def _inputs(name: str) -> tuple[str, ...]:
    """The columns of curated that an indicator reads, through other indicators if need be."""
    one = next((one for one in INDICATORS if one.name == name), None)
    if one is None:
        return (name,)
    read = {str(value) for value in one.parameters.values() if isinstance(value, str)}
    if name == "return_1d":
        read = {"adj_close", "close", "dividend", "price_basis"}
    elif name == "volatility_20":
        read = {"return_1d"}
    elif name.endswith("_signal") and "above" in one.parameters:
        read.add("rsi_14")
    return tuple(
        sorted({source for part in read for source in ((part,) if part in CURATED.column_names else _inputs(part))})
    )
