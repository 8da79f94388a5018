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

Condition = dg.AutomationCondition[dg.AssetCheckKey]
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
        description=f"No close moves by more than jump_deviations usual moves (deviation of {JUMP_WINDOW} sessions before): "
        "often a split that the vendor does not name, or names and has not applied.",
    ),
    dg.AssetCheckSpec(
        "adjusted_close",
        asset=CURATED.name,
        description="The delivered adj_close is the one that follows from the splits and dividends, within adj_close_tolerance.",
    ),
    dg.AssetCheckSpec("duplicate_keys", asset=CURATED.name, description="There is one bar for a ticker and session."),
]


def market_checks(condition: Condition | None = None) -> dg.AssetChecksDefinition:
    """The checks of SPECS; `condition` says when Dagster evaluates them by itself."""
    specs = [spec._replace(automation_condition=condition) for spec in SPECS]
    return dg.multi_asset_check(specs=specs, name="market_checks")(_results)


def _results(lakehouse: LakehouseResource) -> Iterator[dg.AssetCheckResult]:
    """Missing sessions, stale tickers, price jumps and duplicate keys of the curated bars."""
    curated = lakehouse.lake.curated.read(lakehouse.session)
    bars = curated.select("ticker", "date", "close")
    looks = look_at(bars, lakehouse.jump_deviations)
    missing = {}
    for ticker, look in looks.items():
        expected = lakehouse.calendar.between(look.first, look.last)
        if look.sessions != len(expected):
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
            {"ticker": ticker, "last session": str(looks[ticker].last) if ticker in looks else "none"}
            for ticker in sorted(lakehouse.tickers)
            if ticker not in looks or looks[ticker].last < expected_last
        ],
        expected_last=str(expected_last),
        kept_without_a_place_in_the_settings=", ".join(sorted(set(looks) - set(lakehouse.tickers))) or "none",
    )
    yield _warn("price_jumps", [jump for _, look in sorted(looks.items()) for jump in look.jumps])
    yield _warn("adjusted_close", far_from_derived(curated, lakehouse.adj_close_tolerance))
    twice = [ticker for ticker, look in looks.items() if look.bars != look.sessions]
    yield _warn("duplicate_keys", duplicate_keys(bars.where(bars["ticker"].isin(twice))) if twice else [])


@dataclass(frozen=True)
class Look:
    """A ticker's bars: the first and last session, how many different sessions and how many bars, and its jumps.

    A jump is a session whose log return is beyond a number of deviations of the JUMP_WINDOW returns before it. A move of less
    than SMALL_MOVE is none: after a flat stretch any move is many deviations.
    """

    first: date
    last: date
    sessions: int
    bars: int
    jumps: tuple[dict[str, Any], ...]


def look_at(bars: "DataFrame", deviations: float) -> dict[str, Look]:
    """A look at each ticker of `bars` (ticker, date, close); a jump is beyond `deviations` deviations.

    In one pass and in numpy: window functions and distinct counts over all rows take ten times as long.
    """
    looks = bars.groupBy("ticker").applyInArrow(
        _looker(deviations),
        "ticker string, first date, last date, sessions bigint, bars bigint, "
        "jumps array<struct<session: date, move: double, usual: double>>",
    )
    return {
        row["ticker"]: Look(
            row["first"],
            row["last"],
            row["sessions"],
            row["bars"],
            tuple(
                {
                    "ticker": row["ticker"],
                    "session": str(one["session"]),
                    "log move": one["move"],
                    "usual": one["usual"],
                }
                for one in row["jumps"]
            ),
        )
        for row in looks.collect()
    }


def _looker(deviations: float):  # type: ignore[no-untyped-def]  # PySpark inspects the signature
    """A function of one ticker's bars that gives the row of its `Look`."""

    def kernel(bars: "pa.Table") -> "pa.Table":
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from stock_lakehouse.transforms.indicators import rolling_deviation

        ordered = bars.sort_by("date")
        moves = np.diff(np.log(ordered["close"].to_numpy()), prepend=np.nan)
        usual = np.full(len(moves), np.nan)
        usual[1:] = rolling_deviation(moves, JUMP_WINDOW, ddof=1)[:-1]
        jumped = (np.abs(moves) > deviations * usual) & (np.abs(moves) > SMALL_MOVE)
        days = ordered["date"]
        jumps = [
            {"session": days[at].as_py(), "move": moves[at], "usual": usual[at]} for at in jumped.nonzero()[0][:LISTED]
        ]
        jump = pa.struct([("session", pa.date32()), ("move", pa.float64()), ("usual", pa.float64())])
        return pa.table(
            {
                "ticker": ordered["ticker"][:1],
                "first": days[:1],
                "last": days[-1:],
                "sessions": pa.array([pc.count_distinct(days).as_py()], pa.int64()),
                "bars": pa.array([len(days)], pa.int64()),
                "jumps": pa.array([jumps], pa.list_(jump)),
            }
        )

    return kernel


def far_from_derived(bars: "DataFrame", tolerance: float) -> list[dict[str, Any]]:
    """Tickers whose delivered adj_close is off by more than `tolerance`, given `bars` (ticker, date, adj_close_deviation)."""
    from pyspark.sql import functions as F

    size = F.abs("adj_close_deviation")
    found = (
        bars.where(size > tolerance)
        .groupBy("ticker")
        .agg(
            F.count("date").alias("bars"),
            F.min("date").alias("first"),
            F.max("date").alias("last"),
            F.max(size).alias("most"),
        )
    )
    return [
        {
            "ticker": row["ticker"],
            "bars": row["bars"],
            "first": str(row["first"]),
            "last": str(row["last"]),
            "most": row["most"],
        }
        for row in found.orderBy("ticker").collect()
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
