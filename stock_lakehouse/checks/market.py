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
    bars = lakehouse.lake.curated.read(lakehouse.session).select("ticker", "date", "close", "adj_close_deviation")
    looks = look_at(bars, lakehouse.jump_deviations, lakehouse.adj_close_tolerance)
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
    yield _warn("adjusted_close", [look.off for _, look in sorted(looks.items()) if look.off])
    twice = [ticker for ticker, look in looks.items() if look.bars != look.sessions]
    yield _warn("duplicate_keys", duplicate_keys(bars.where(bars["ticker"].isin(twice))) if twice else [])


@dataclass(frozen=True)
class Look:
    """A ticker's bars: the first and last session, how many different sessions and how many bars, and its jumps.

    A jump is a session whose log return is beyond a number of deviations of the JUMP_WINDOW returns before it. A move of less
    than SMALL_MOVE is none: after a flat stretch any move is many deviations. `off` says of how many bars the delivered adj_close
    is off, and how far the worst; None if of none.
    """

    first: date
    last: date
    sessions: int
    bars: int
    jumps: tuple[dict[str, Any], ...]
    off: dict[str, Any] | None


def look_at(bars: "DataFrame", deviations: float, tolerance: float) -> dict[str, Look]:
    """A look at each ticker of `bars` (ticker, date, close, adj_close_deviation); a jump is beyond `deviations` deviations, a
    delivered adj_close off by more than `tolerance`.

    In one pass and in numpy: window functions and distinct counts over all rows take ten times as long.
    """
    looks = bars.groupBy("ticker").applyInArrow(
        _looker(deviations, tolerance),
        "ticker string, first date, last date, sessions bigint, bars bigint, "
        "jumps array<struct<session: date, move: double, usual: double>>, off bigint, most_off double",
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
            {"ticker": row["ticker"], "bars": row["off"], "most": row["most_off"]} if row["off"] else None,
        )
        for row in looks.collect()
    }


def _looker(deviations: float, tolerance: float):  # type: ignore[no-untyped-def]  # PySpark inspects the signature
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
        away = pc.abs(ordered["adj_close_deviation"])
        off = pc.sum(pc.greater(away, tolerance)).as_py() or 0
        jump = pa.struct([("session", pa.date32()), ("move", pa.float64()), ("usual", pa.float64())])
        return pa.table(
            {
                "ticker": ordered["ticker"][:1],
                "first": days[:1],
                "last": days[-1:],
                "sessions": pa.array([pc.count_distinct(days).as_py()], pa.int64()),
                "bars": pa.array([len(days)], pa.int64()),
                "jumps": pa.array([jumps], pa.list_(jump)),
                "off": pa.array([off], pa.int64()),
                "most_off": pa.array([pc.max(away).as_py()], pa.float64()),
            }
        )

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
