"""Market checks: whether the published bars look like a market's. They report and do not block.

Here: questions asked of the curated table. Not here: anything decided before a publish.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.checks import LISTED
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

JUMP_WINDOW = 60  # sessions over which the usual move is measured
SMALL_MOVE = 0.05

SPECS = [
    dg.AssetCheckSpec(
        "missing_sessions",
        asset=CURATED.name,
        description="No session is missing between a ticker's first and last bar.",
    ),
    dg.AssetCheckSpec(
        "stale_tickers", asset=CURATED.name, description="Every ticker of the settings has the last finished session."
    ),
    dg.AssetCheckSpec(
        "price_jumps",
        asset=CURATED.name,
        description=f"No close moves by more than jump_deviations usual moves (deviation of {JUMP_WINDOW} sessions before) "
        "without a split: often a split that the vendor has not applied.",
    ),
    dg.AssetCheckSpec("duplicate_keys", asset=CURATED.name, description="There is one bar for a ticker and session."),
]


@dg.multi_asset_check(specs=SPECS, name="market_checks")
def market_checks(lakehouse: LakehouseResource) -> Iterator[dg.AssetCheckResult]:
    """Missing sessions, stale tickers, price jumps and duplicate keys of the curated bars."""
    bars = lakehouse.lake.curated.read(lakehouse.session).select("ticker", "date", "close", "split_ratio")
    spans = bar_spans(bars)
    missing = {}
    for ticker, span in spans.items():
        expected = lakehouse.calendar.between(span.first, span.last)
        if span.sessions != len(expected):
            there = {row["date"] for row in bars.where(bars["ticker"] == ticker).select("date").collect()}
            missing[ticker] = [day for day in expected if day not in there]
    yield _warn(
        "missing_sessions",
        [
            {"ticker": ticker, "missing": len(days), "sessions": ", ".join(map(str, days[:LISTED]))}
            for ticker, days in sorted(missing.items())
            if days
        ],
    )
    expected_last = lakehouse.expected_last_session()
    yield _warn(
        "stale_tickers",
        [
            {"ticker": ticker, "last session": str(spans[ticker].last) if ticker in spans else "none"}
            for ticker in sorted(lakehouse.tickers)
            if ticker not in spans or spans[ticker].last < expected_last
        ],
        expected_last=str(expected_last),
        kept_without_a_place_in_the_settings=", ".join(sorted(set(spans) - set(lakehouse.tickers))) or "none",
    )
    yield _warn("price_jumps", price_jumps(bars, lakehouse.jump_deviations))
    twice = [ticker for ticker, span in spans.items() if span.bars != span.sessions]
    yield _warn("duplicate_keys", duplicate_keys(bars.where(bars["ticker"].isin(twice))) if twice else [])


@dataclass(frozen=True)
class Span:
    """A ticker's bars: the first and last session, how many different sessions and how many bars."""

    first: date
    last: date
    sessions: int
    bars: int


def bar_spans(bars: "DataFrame") -> dict[str, Span]:
    """The span of each ticker of `bars` (ticker, date, …)."""
    from pyspark.sql import functions as F

    # The set of a ticker's dates, not `distinct` over all rows: 500 groups in place of millions.
    spans = bars.groupBy("ticker").agg(
        F.min("date").alias("first"),
        F.max("date").alias("last"),
        F.size(F.collect_set("date")).alias("sessions"),
        F.count("date").alias("bars"),
    )
    return {row["ticker"]: Span(row["first"], row["last"], row["sessions"], row["bars"]) for row in spans.collect()}


def price_jumps(bars: "DataFrame", deviations: float) -> list[dict[str, Any]]:
    """Sessions whose log return is beyond `deviations` deviations of the JUMP_WINDOW returns before it, and not a split's.

    `bars` has ticker, date, close and split_ratio. A move of less than SMALL_MOVE is none: after a flat stretch any move is
    many deviations.
    """
    jumps = (
        bars.select("ticker", "date", "close", "split_ratio")
        .groupBy("ticker")
        .applyInArrow(_jumps_of(deviations), "ticker string, date date, move double, usual double")
    )
    rows = jumps.orderBy("ticker", "date").limit(LISTED).collect()
    return [
        {"ticker": row["ticker"], "session": str(row["date"]), "log move": row["move"], "usual": row["usual"]}
        for row in rows
    ]


def _jumps_of(deviations: float):  # type: ignore[no-untyped-def]  # PySpark inspects the signature
    """A function of one ticker's bars that gives its jumps. In numpy: window functions take ten times as long."""

    def kernel(bars: "pa.Table") -> "pa.Table":
        import numpy as np
        import pyarrow as pa

        from stock_lakehouse.transforms.indicators import rolling_deviation

        ordered = bars.sort_by("date")
        closes = ordered["close"].to_numpy()
        moves = np.diff(np.log(closes), prepend=np.nan)
        usual = np.full(len(moves), np.nan)
        usual[1:] = rolling_deviation(moves, JUMP_WINDOW, ddof=1)[:-1]
        jumped = (np.abs(moves) > deviations * usual) & (np.abs(moves) > SMALL_MOVE)
        jumped &= ordered["split_ratio"].to_numpy() == 1
        chosen = ordered.select(["ticker", "date"]).filter(pa.array(jumped))
        return chosen.append_column("move", pa.array(moves[jumped])).append_column("usual", pa.array(usual[jumped]))

    return kernel


def duplicate_keys(bars: "DataFrame") -> list[dict[str, Any]]:
    """Ticker-sessions with more than one bar."""
    counts = bars.groupBy("ticker", "date").count().where("count > 1").orderBy("ticker", "date").limit(LISTED)
    return [{"ticker": row["ticker"], "session": str(row["date"]), "bars": row["count"]} for row in counts.collect()]


def _warn(name: str, found: list[dict[str, Any]], **facts: str) -> dg.AssetCheckResult:
    records = [dg.TableRecord(one) for one in found]
    return dg.AssetCheckResult(
        asset_key=CURATED.name,
        check_name=name,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "found": len(found),
            **facts,
            **({"rows": dg.MetadataValue.table(records[:LISTED])} if records else {}),
        },
    )
