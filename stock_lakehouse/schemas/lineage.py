"""Column lineage: the upstream columns that a column is made of. A column made of the one of the same name is not listed."""

from __future__ import annotations

from collections.abc import Mapping

from stock_lakehouse.indicators.registry import BAR_COLUMNS, INDICATORS, Indicator
from stock_lakehouse.tables import (
    BY_NAME,
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    LIVE_FEATURES,
    MINUTE_BARS,
    PROCESSED,
    PROCESSED_ACTIONS,
    QUARANTINE,
    RAW,
    RECONCILIATION,
    Table,
    upstream,
    with_indicators,
)

KNOWN = (
    "adjusted_to",
    "ingested_at",
    "session",
    "value",
    "first_seen",
    "kind",
)  # they decide which splits a delivery knew
TOTAL_RETURN = ("basis",)  # prices delivered on total return are converted back to the traded prices
SAME_EVENT = ("event_id", "partition", "offset")  # of ticks with one event_id, the first counts
EVENT = ("event_time", *SAME_EVENT)
MADE_OF = {
    (PROCESSED, "date"): ("session", "date"),
    (PROCESSED, "dividends_delivered"): ("says", "dividends"),
    **{(PROCESSED, name): (name, "decimal") for name in ("open", "high", "low", "close", "adj_close", "volume")},
    (PROCESSED_ACTIONS, "session"): ("session", "date"),
    (PROCESSED_ACTIONS, "date"): ("session", "date"),
    (PROCESSED_ACTIONS, "kind"): ("dividends", "capital_gains", "stock_splits"),
    (PROCESSED_ACTIONS, "value"): ("dividends", "capital_gains", "stock_splits", "says", "decimal"),
    (PROCESSED_ACTIONS, "first_seen"): ("ingested_at",),
    (QUARANTINE, "reasons"): tuple(name for name in RAW.column_names if name not in ("source", "interval")),
    **{(CURATED, name): (name, *KNOWN, *TOTAL_RETURN) for name in ("open", "high", "low", "close")},
    (CURATED, "volume"): ("volume", *KNOWN),
    (CURATED, "dividend"): KNOWN,
    (CURATED, "adj_close"): (
        "adj_close",
        "close",
        "dividends_delivered",
        "adj_close_as_of",
        *KNOWN,
        *TOTAL_RETURN,
    ),
    (CURATED, "price_basis"): ("adj_close", "dividends_delivered", "basis"),
    (CURATED, "split_ratio"): ("session", "value", "kind"),
    (CURATED, "split_factor"): ("session", "value", "kind"),
    (CURATED, "basis_factor"): KNOWN,
    (CURATED, "adj_close_deviation"): ("adj_close", "close", "adj_close_as_of", *KNOWN),
    (CORPORATE_ACTIONS, "ex_date"): ("session",),
    (CORPORATE_ACTIONS, "value"): ("value", "adjusted_to"),
    (CORPORATE_ACTIONS, "price_factor"): ("close", *KNOWN),
    (CORPORATE_ACTIONS, "late"): ("value", "first_seen"),
    (CURATED, "bar_status"): ("date", "ingested_at"),
    (FEATURES, "tradable_from"): ("date",),
    (MINUTE_BARS, "open"): ("open", *EVENT),
    (MINUTE_BARS, "high"): ("high", *SAME_EVENT),
    (MINUTE_BARS, "low"): ("low", *SAME_EVENT),
    (MINUTE_BARS, "close"): ("close", *EVENT),
    (MINUTE_BARS, "latest_close"): ("close", "arrival_time", *SAME_EVENT),
    (MINUTE_BARS, "volume"): ("volume", *SAME_EVENT),
    (MINUTE_BARS, "vwap"): ("close", "volume", *SAME_EVENT),
    (MINUTE_BARS, "avg_close"): ("close", *SAME_EVENT),
    (MINUTE_BARS, "hour"): ("minute",),
    (MINUTE_BARS, "events"): SAME_EVENT,
    (MINUTE_BARS, "duplicates"): SAME_EVENT,
    (MINUTE_BARS, "late_events"): ("late", *SAME_EVENT),
    (MINUTE_BARS, "first_event"): EVENT,
    (MINUTE_BARS, "last_event"): EVENT,
    (MINUTE_BARS, "quote_date"): ("quote_date", *EVENT),
    (MINUTE_BARS, "state"): ("minute", "late"),
    (RECONCILIATION, "date"): ("trade_date", "date"),
    **{
        (RECONCILIATION, f"{name}_difference"): (name, "minute", "split_factor")
        for name in ("open", "high", "low", "close")
    },
    (RECONCILIATION, "volume_ratio"): ("volume", "split_factor"),
    (RECONCILIATION, "minutes_present"): ("minute",),
    (RECONCILIATION, "stream_minutes"): ("minute",),
    (RECONCILIATION, "verdict"): (
        *("open", "high", "low", "close", "volume", "split_factor", "bar_status"),
        *("minute", "quote_date", "trade_date", "is_replay"),
    ),
    (LIVE_FEATURES, "date"): ("trade_date",),
    (LIVE_FEATURES, "year"): ("trade_date",),
    (LIVE_FEATURES, "tradable_from"): ("trade_date",),
    (LIVE_FEATURES, "open"): ("open", "minute"),
    (LIVE_FEATURES, "close"): ("close", "minute"),
    (LIVE_FEATURES, "as_of"): ("last_event",),
    (LIVE_FEATURES, "bar_state"): ("state", "minute", "close", "date"),
    (LIVE_FEATURES, "doubt"): ("minute", "close", "date"),
}


def column_lineage(table: Table, indicators: tuple[Indicator, ...] = INDICATORS) -> dict[str, list[tuple[str, str]]]:
    """The upstream columns, as (table, column), of each column of `table`. Columns without upstream columns are left out.

    `table`: as a lake with `indicators` has it, in any layout. The columns of a view are those of the same name of its tables.
    """
    known, by_name = BY_NAME.get(table.name, table), {indicator.name: indicator for indicator in indicators}
    lineage: dict[str, list[tuple[str, str]]] = {}
    for name in table.column_names:
        sources = MADE_OF.get((known, name), _inputs(name, by_name) if known in (FEATURES, LIVE_FEATURES) else (name,))
        for upstream_table in (with_indicators(source, indicators) for source in upstream(table)):
            lineage.setdefault(name, []).extend(
                (upstream_table.name, source) for source in sources if source in upstream_table.column_names
            )
    return {name: columns for name, columns in lineage.items() if columns}


def _inputs(name: str, by_name: Mapping[str, Indicator]) -> tuple[str, ...]:
    """The curated columns that a column of features is computed from, directly or through other indicators."""
    if name not in by_name:
        return (BAR_COLUMNS.get(name, name),)
    return tuple(sorted({source for read in by_name[name].reads for source in _inputs(read, by_name)}))
