"""Market checks: whether the published bars look like a market's. They report and do not block.

Here: questions asked of the curated table. Not here: anything decided before a publish.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.checks import LISTED
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    from datetime import date

    from pyspark.sql import DataFrame

JUMP_WINDOW = 60  # sessions over which the usual move is measured

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
    sessions = lakehouse.calendar
    missing = {}
    for ticker, (first, last, count) in spans.items():
        expected = sessions.between(first, last)
        if count != len(expected):
            there = {row["date"] for row in bars.where(bars["ticker"] == ticker).select("date").distinct().collect()}
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
            {"ticker": ticker, "last session": str(spans[ticker][1]) if ticker in spans else "none"}
            for ticker in sorted(lakehouse.tickers)
            if ticker not in spans or spans[ticker][1] < expected_last
        ],
        expected_last=str(expected_last),
    )
    yield _warn("price_jumps", price_jumps(bars, lakehouse.jump_deviations))
    yield _warn("duplicate_keys", duplicate_keys(bars))


def bar_spans(bars: "DataFrame") -> dict[str, "tuple[date, date, int]"]:
    """First session, last session and number of different sessions of each ticker."""
    from pyspark.sql import functions as F

    keys = bars.select("ticker", "date").distinct()
    spans = keys.groupBy("ticker").agg(
        F.min("date").alias("first"), F.max("date").alias("last"), F.count("date").alias("n")
    )
    return {row["ticker"]: (row["first"], row["last"], row["n"]) for row in spans.collect()}


def price_jumps(bars: "DataFrame", deviations: float) -> list[dict[str, Any]]:
    """Sessions whose log return is beyond `deviations` deviations of the JUMP_WINDOW returns before it, and not a split's."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    history = Window.partitionBy("ticker").orderBy("date")
    returns = bars.withColumn("move", F.log(F.col("close") / F.lag("close").over(history)))
    before = history.rowsBetween(-JUMP_WINDOW, -1)
    usual = returns.withColumns({"usual": F.stddev_samp("move").over(before), "known": F.count("move").over(before)})
    jumps = usual.where(
        (F.col("known") == JUMP_WINDOW)
        & (F.abs("move") > deviations * F.col("usual"))
        & (F.col("split_ratio") == 1)
        & (F.abs("move") > 0.05)  # after a flat stretch every move is many deviations
    )
    rows = jumps.orderBy("ticker", "date").limit(LISTED).collect()
    return [
        {"ticker": row["ticker"], "session": str(row["date"]), "log move": row["move"], "usual": row["usual"]}
        for row in rows
    ]


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
