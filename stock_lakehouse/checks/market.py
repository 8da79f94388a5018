"""Market checks: whether the published bars are plausible. They report and do not block.

Here: checks that read the curated table. Not here: checks before a publish.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.checks import warning
from stock_lakehouse.lake.serving import ServingCopy
from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from stock_lakehouse.lake import Lake

Condition = dg.AutomationCondition[dg.AssetCheckKey]
TICKERS_AT_ONCE = 250  # whose bars are in memory: of 20 years 200 MB
JUMP_WINDOW = 60  # sessions over which the usual move is measured
SMALL_MOVE = 0.05  # log return
SMALLEST_SPLIT = math.log(1.02)  # any day's move would be near the ratio of a smaller stock dividend
SMALL_CHANGE = 1e-6  # of a factor; a smaller one is rounding
SURE = 4.0  # standard errors
LOOKED_AT = (
    "ticker", "date", "open", "high", "low", "close", "adj_close", "volume", "dividend", "split_ratio", "basis_factor",
    "adj_close_deviation", "price_basis",
)  # fmt: skip

SPECS = [
    dg.AssetCheckSpec(
        "missing_sessions",
        asset=CURATED.name,
        description="No session is missing between a ticker's first and last bar.",
    ),
    dg.AssetCheckSpec(
        "stale_tickers",
        asset=CURATED.name,
        description="Every ticker of the settings has a bar of the last finished session.",
    ),
    dg.AssetCheckSpec(
        "price_jumps",
        asset=CURATED.name,
        description="No close moves by more than jump_deviations standard deviations of the log returns of the "
        f"{JUMP_WINDOW} sessions before. A jump is often a split that the vendor does not name, or names but has not applied.",
    ),
    dg.AssetCheckSpec(
        "adjusted_close",
        asset=CURATED.name,
        description="The delivered adj_close equals the one derived from splits and dividends, within adj_close_tolerance.",
    ),
    dg.AssetCheckSpec(
        "split_moves",
        asset=CURATED.name,
        description="No published close moves by a split's ratio or its inverse on the ex-date, or where one delivery ends and "
        "another begins. Such a move means that the split is not applied, or is applied twice.",
    ),
    dg.AssetCheckSpec(
        "price_form",
        asset=CURATED.name,
        description="The moves of the close on ex-dates and the delivered adj_close fit the form of prices that is set "
        "(csv_prices).",
    ),
    dg.AssetCheckSpec(
        "one_price_basis",
        asset=CURATED.name,
        description="The adj_close of all bars of a ticker has the same basis: either the dividends are named for all bars, or "
        "all bars have an adjusted close of the same day.",
    ),
    dg.AssetCheckSpec(
        "unusable_actions",
        asset=CURATED.name,
        description="Every dividend is below the close before its ex-date (otherwise it is not applied), and no two days name an "
        "action of the same session.",
    ),
    dg.AssetCheckSpec(
        "incomplete_bars",
        asset=CURATED.name,
        description="Every bar has open, high and low, and also a volume if other bars of its ticker have one. An incomplete bar "
        "is kept, with null for what is not known.",
    ),
    dg.AssetCheckSpec("duplicate_keys", asset=CURATED.name, description="There is one bar for a ticker and session."),
]


def market_checks(condition: Condition | None = None) -> dg.AssetChecksDefinition:
    """The checks of SPECS; `condition` decides when Dagster evaluates them by itself."""
    specs = [spec._replace(automation_condition=condition) for spec in SPECS]
    return dg.multi_asset_check(specs=specs, name="market_checks")(_results)


def _results(lakehouse: LakehouseResource) -> Iterator[dg.AssetCheckResult]:
    """The results of the checks of SPECS on the curated bars."""
    lake, spark, options = lakehouse.lake, lakehouse.session, lakehouse.lake_options
    bars = lake.curated.read(spark).select(*LOOKED_AT)
    looks = look_at_served(lake, options.jump_deviations, options.adj_close_tolerance)
    if looks is None:
        looks = look_at(bars, options.jump_deviations, options.adj_close_tolerance)
    missing = {}
    for ticker, look in looks.items():
        expected = lakehouse.calendar.between(look.first, look.last)
        if look.sessions != len(expected):
            held = {row["date"] for row in bars.where(bars["ticker"] == ticker).select("date").collect()}
            missing[ticker] = [day for day in expected if day not in held]
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
            for ticker in sorted(options.tickers)
            if ticker not in looks or looks[ticker].last < expected_last
        ],
        expected_last=str(expected_last),
        kept_without_a_place_in_the_settings=", ".join(sorted(set(looks) - set(options.tickers))) or "none",
    )
    yield _warn("price_jumps", [jump for _, look in sorted(looks.items()) for jump in look.jumps])
    yield _warn("adjusted_close", [look.off for _, look in sorted(looks.items()) if look.off])
    yield _warn("split_moves", [move for _, look in sorted(looks.items()) for move in look.split_moves])
    yield _warn("price_form", _forms(looks, lake, spark))
    yield _warn("one_price_basis", _bases(looks, lake, spark))
    yield _warn("unusable_actions", _unusable(looks, lake, spark))
    yield _warn("incomplete_bars", [part for _, look in sorted(looks.items()) for part in look.incomplete])
    twice = [ticker for ticker, look in looks.items() if look.bars != look.sessions]
    yield _warn("duplicate_keys", duplicate_keys(bars.where(bars["ticker"].isin(twice))) if twice else [])


@dataclass(frozen=True)
class TickerAnomalies:
    """The anomalies in a ticker's bars.

    - `first`, `last`: the first and last session.
    - `sessions`, `bars`: how many different sessions, and how many bars.
    - `jumps`: sessions whose log return is larger than a number of deviations of the JUMP_WINDOW returns before. A move smaller
      than SMALL_MOVE is no jump: after a flat stretch any move is many deviations.
    - `split_moves`: moves near the ratio of a split, see `near_ratio`.
    - `incomplete`: each price or volume that is unknown, for how many bars, from when to when.
    - `off`: for how many bars the delivered adj_close is off, and by how much at most; None if for no bar.
    - `seems`: the form that the prices seem to have, and why; None if it is the form they are taken for, or cannot be told.
    - `bases`: the price basis of the first bar, and each session at which the basis changes.
    """

    first: date
    last: date
    sessions: int
    bars: int
    jumps: tuple[dict[str, Any], ...]
    split_moves: tuple[dict[str, Any], ...]
    incomplete: tuple[dict[str, Any], ...]
    off: dict[str, Any] | None
    seems: tuple[str, str] | None
    bases: tuple[dict[str, Any], ...]


def look_at(bars: "DataFrame", deviations: float, tolerance: float) -> dict[str, TickerAnomalies]:
    """By ticker, the anomalies in `bars`, which have the columns LOOKED_AT.

    - `deviations`: a larger move is a jump, in deviations of the moves before.
    - `tolerance`: a larger deviation of the delivered adj_close is reported, as a share of the derived one.

    Computed in one pass and in numpy: window functions and distinct counts over all rows take ten times as long.
    """
    looks = bars.groupBy("ticker").applyInArrow(
        _looker(deviations, tolerance),
        "ticker string, first date, last date, sessions bigint, bars bigint, "
        "jumps array<struct<session: date, move: double, usual: double>>, "
        "split_moves array<struct<session: date, ratio: double, move: double>>, "
        "incomplete array<struct<unknown: string, bars: bigint, first: date, last: date>>, "
        "off bigint, most_off double, seems string, why string, bases array<struct<session: date, basis: string>>",
    )
    return {row["ticker"]: _look(row) for row in looks.collect()}


def look_at_served(lake: "Lake", deviations: float, tolerance: float) -> dict[str, TickerAnomalies] | None:
    """`look_at` the rows of the serving copy, which are those of the table; None if the copy lacks a file.

    Without an engine: of 10,500 files and 500 tickers most of an engine's time would go to opening files and calling the kernel.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not lake.curated.exists():
        return None
    opened, copy, kernel = lake.curated.snapshot(), ServingCopy(lake), _looker(deviations, tolerance)
    tickers = sorted({ticker for ticker, _ in lake.curated.ticker_years(opened=opened)})
    found: dict[str, TickerAnomalies] = {}
    for start in range(0, len(tickers), TICKERS_AT_ONCE):
        rows = copy.rows(CURATED, opened, LOOKED_AT, tickers=tickers[start : start + TICKERS_AT_ONCE])
        if rows is None:
            return None
        # Each year is sorted by ticker and date, so a ticker's rows are one slice of each year, in order.
        of_ticker: dict[str, list[pa.Table]] = {}
        runs = pc.run_end_encode(rows["ticker"].combine_chunks())
        for ticker, (first, end) in zip(
            runs.values.to_pylist(), pairwise([0, *runs.run_ends.to_pylist()]), strict=True
        ):
            of_ticker.setdefault(ticker, []).append(rows.slice(first, end - first))
        for ticker, parts in of_ticker.items():
            [row] = kernel(pa.concat_tables(parts).combine_chunks()).to_pylist()
            found[ticker] = _look(row)
    return found


def _look(row: Any) -> TickerAnomalies:
    ticker = {"ticker": row["ticker"]}
    return TickerAnomalies(
        row["first"],
        row["last"],
        row["sessions"],
        row["bars"],
        tuple(
            {**ticker, "session": str(jump["session"]), "log move": jump["move"], "usual": jump["usual"]}
            for jump in row["jumps"]
        ),
        tuple(
            {
                **ticker,
                "session": str(move["session"]),
                "split": move["ratio"],
                "close before / close": move["move"],
                "looks": "not applied" if (move["move"] > 1) == (move["ratio"] > 1) else "applied twice",
            }
            for move in row["split_moves"]
        ),
        tuple(
            {
                **ticker,
                "unknown": column["unknown"],
                "bars": column["bars"],
                "session": str(column["first"]),
                "last": str(column["last"]),
            }
            for column in row["incomplete"]
        ),
        {**ticker, "bars": row["off"], "most": row["most_off"]} if row["off"] else None,
        (row["seems"], row["why"]) if row["seems"] else None,
        tuple({**ticker, "session": str(basis["session"]), "basis": basis["basis"]} for basis in row["bases"]),
    )


def near_ratio(move: float, ratio: float) -> bool:
    """True if a move (close before / close) is near the ratio of a split or its inverse, whatever the ticker's usual moves are.

    Near means that the logarithms differ by at most a quarter of the ratio's; or, if that is more, by log(1.15) but no more than
    a third of the ratio's.
    """
    size = abs(math.log(ratio))
    allowed = max(size / 4, min(math.log(1.15), size / 3))
    return size > SMALLEST_SPLIT and abs(abs(math.log(move)) - size) <= allowed


def _looker(deviations: float, tolerance: float):  # type: ignore[no-untyped-def]  # PySpark inspects the signature
    """A function that takes the bars of one ticker and returns the row of its `TickerAnomalies`."""

    def kernel(bars: "pa.Table") -> "pa.Table":
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        days = bars["date"].to_numpy()
        ordered = bars if (days[1:] >= days[:-1]).all() else bars.sort_by("date")
        close = ordered["close"].to_numpy()
        moves = np.diff(np.log(close), prepend=np.nan)
        days = ordered["date"]
        jumps = [
            {"session": days[at].as_py(), "move": moves[at], "usual": usual}
            for at, usual in _jumps(moves, deviations)[:LISTED]
        ]
        split_moves = _split_moves(ordered, close)
        away = pc.abs(ordered["adj_close_deviation"])
        off = pc.sum(pc.greater(away, tolerance)).as_py() or 0
        seems, why = _seeming(ordered, close, moves, split_moves) or (None, None)
        day, double, whole = pa.date32(), pa.float64(), pa.int64()
        jump = pa.struct([("session", day), ("move", double), ("usual", double)])
        moved = pa.struct([("session", day), ("ratio", double), ("move", double)])
        based = pa.struct([("session", day), ("basis", pa.string())])
        part = pa.struct([("unknown", pa.string()), ("bars", whole), ("first", day), ("last", day)])
        return pa.table(
            {
                "ticker": ordered["ticker"][:1],
                "first": days[:1],
                "last": days[-1:],
                "sessions": pa.array([pc.count_distinct(days).as_py()], whole),
                "bars": pa.array([len(days)], whole),
                "jumps": pa.array([jumps], pa.list_(jump)),
                "split_moves": pa.array([split_moves[:LISTED]], pa.list_(moved)),
                "incomplete": pa.array([_incomplete(ordered)], pa.list_(part)),
                "off": pa.array([off], whole),
                "most_off": pa.array([pc.max(away).as_py()], double),
                "seems": pa.array([seems], pa.string()),
                "why": pa.array([why], pa.string()),
                "bases": pa.array([_basis_changes(ordered)[:LISTED]], pa.list_(based)),
            }
        )

    return kernel


def _jumps(moves: Any, deviations: float) -> list[tuple[int, float]]:
    """The places of the moves that are jumps, ascending, and the deviation of the JUMP_WINDOW moves before each."""
    import numpy as np

    from stock_lakehouse.indicators.kernel import deviations_of

    large = (np.abs(moves) > SMALL_MOVE).nonzero()[0]
    large = large[large >= JUMP_WINDOW]
    if not large.size:
        return []
    # Only of large moves: the deviations of all windows take most of the time of a look.
    usual = deviations_of(np.lib.stride_tricks.sliding_window_view(moves, JUMP_WINDOW)[large - JUMP_WINDOW], ddof=1)
    jumped = np.abs(moves[large]) > deviations * usual
    return list(zip(large[jumped].tolist(), usual[jumped].tolist(), strict=True))


def _split_moves(bars: "pa.Table", close: Any) -> list[dict[str, Any]]:
    """The sessions whose move is near the ratio of their split, or near the change of the factor that bars are divided by."""
    import numpy as np
    import pyarrow.compute as pc

    ratios = bars["split_ratio"].to_numpy().copy()
    factors = pc.fill_null(bars["basis_factor"], 1.0).to_numpy()
    change = np.ones(len(close))
    change[1:] = factors[:-1] / factors[1:]
    found = []
    for at in ((ratios != 1) | (np.abs(change - 1) > SMALL_CHANGE)).nonzero()[0]:
        if not at:
            continue
        move = close[at - 1] / close[at]
        for ratio in {float(ratios[at]), float(change[at])} - {1.0}:
            if near_ratio(move, ratio):
                found.append({"session": bars["date"][int(at)].as_py(), "ratio": ratio, "move": float(move)})
                break
    return found


def _basis_changes(bars: "pa.Table") -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    runs = pc.run_end_encode(bars["price_basis"].combine_chunks())
    begins = [0, *runs.run_ends.to_pylist()[:-1]]
    return [
        {"session": bars["date"][at].as_py(), "basis": str(basis)}
        for at, basis in zip(begins, runs.values.to_pylist(), strict=True)
    ]


def _incomplete(bars: "pa.Table") -> list[dict[str, Any]]:
    """The columns that are unknown for some bars: prices, and the volume unless no bar has one."""
    import pyarrow.compute as pc

    found = []
    for name in ("open", "high", "low", "volume"):
        column = bars[name]
        if column.null_count == 0 or (name == "volume" and column.null_count == len(column)):
            continue
        days = bars["date"].filter(pc.is_null(column))
        found.append({"unknown": name, "bars": len(days), "first": days[0].as_py(), "last": days[-1].as_py()})
    return found


def _seeming(bars: "pa.Table", close: Any, moves: Any, split_moves: list[dict[str, Any]]) -> tuple[str, str] | None:
    """The form that a ticker's prices seem to have if it is not the one they are taken for, and the evidence.

    If prices are not adjusted for dividends, the close falls by the dividend on an ex-date, on the average of many: it falls by a
    share of 1 of the dividend. The share is 0 if adjusted prices are taken for unadjusted ones, and 2 if unadjusted prices are
    taken for adjusted ones. It is computed as a weighted mean over the ex-dates, each weighted by the inverse of its variance,
    and must be SURE standard errors away from 1.
    """
    import numpy as np

    near_splits = [move for move in split_moves if near_ratio(move["move"], move["ratio"])]
    if near_splits:
        move = near_splits[0]
        unapplied = (move["move"] > 1) == (move["ratio"] > 1)
        seems = "as_traded" if unapplied else "split_adjusted"
        return (
            seems,
            f"the close moves by {move['move']:.4g} on {move['session']}, where the split is {move['ratio']:.6g}",
        )
    adj_close = bars["adj_close"].to_numpy()
    delivered = (1 + bars["adj_close_deviation"].to_numpy()) * adj_close
    dividend = bars["dividend"].to_numpy()
    known = ~np.isnan(delivered) & (np.abs(adj_close / close - 1) > SMALL_CHANGE)
    if known.any() and (np.abs(delivered[known] / close[known] - 1) < SMALL_CHANGE).all():
        return "total_return", "the delivered adj_close is the close itself, though dividends follow"
    ex = (dividend[1:] > 0) & (dividend[1:] < close[:-1])
    ex &= bars["split_ratio"].to_numpy()[1:] == 1
    if not ex.any() or len(close) < JUMP_WINDOW:
        return None
    usual = np.nanmedian(np.abs(moves)) / 0.6745  # the standard deviation, if the moves are normally distributed
    if not usual > 0:
        return None
    share = (close[:-1][ex] - close[1:][ex]) / dividend[1:][ex]
    weight = (dividend[1:][ex] / (usual * close[:-1][ex])) ** 2
    mean, error = float((share * weight).sum() / weight.sum()), float(weight.sum() ** -0.5)
    if abs(mean - 1) < SURE * error or abs(mean - 1) < 0.5:
        return None
    evidence = f"on {int(ex.sum())} ex-dates the close falls by {mean:.2f} of the dividend (standard error {error:.2f})"
    return ("total_return" if mean < 1 else "split_adjusted"), evidence


def _forms(looks: Mapping[str, TickerAnomalies], lake: "Lake", spark: "SparkSession") -> list[dict[str, Any]]:
    """The tickers whose prices contradict the form they are taken for."""
    seeming = {ticker: look.seems for ticker, look in sorted(looks.items()) if look.seems}
    if not seeming:
        return []
    rows = lake.processed.read(spark, list(seeming)).select("ticker", "basis").distinct().collect()
    taken: dict[str, list[str]] = {}
    for row in rows:
        taken.setdefault(row["ticker"], []).append(str(row["basis"]))
    return [
        {"ticker": ticker, "set": ", ".join(sorted(taken.get(ticker, []))), "seems": seems[0], "why": seems[1]}
        for ticker, seems in seeming.items()
        if seems[0] not in taken.get(ticker, [])
    ]


def _bases(looks: Mapping[str, TickerAnomalies], lake: "Lake", spark: "SparkSession") -> list[dict[str, Any]]:
    """The sessions at which a ticker's price basis changes, and tickers with adjusted closes of several days in one download."""
    from pyspark.sql import functions as F

    found = [
        {**later, "basis": later["basis"], "before": earlier["basis"]}
        for _, look in sorted(looks.items())
        for earlier, later in pairwise(look.bases)
    ]
    delivered = sorted(ticker for ticker, look in looks.items() if look.bases[0]["basis"] == "total_return_delivered")
    if delivered:
        bars = lake.processed.read(spark, delivered).where("NOT dividends_delivered")
        as_of = F.coalesce("adj_close_as_of", "adjusted_to")
        days = bars.groupBy("ticker", "ingested_at").agg(F.min(as_of).alias("first"), F.max(as_of).alias("last"))
        for row in days.where("first < last").orderBy("ticker").collect():
            key = {"ticker": row["ticker"], "session": str(row["first"])}
            found.append({**key, "basis": f"adjusted closes of {row['last']}", "before": f"of {row['first']}"})
    paid = lake.processed_actions.read(spark).where("kind <> 'split' AND value > 0")
    newest = paid.groupBy("ticker").agg(F.max("session").alias("session")).collect()
    later = {
        row["ticker"]: row["session"]
        for row in newest
        if row["ticker"] in looks and row["session"] > looks[row["ticker"]].last
    }
    if later:  # the unadjusted price before such a dividend follows from the close before it, which the lake lacks
        bars = lake.processed.read(spark, sorted(later)).where("basis = 'total_return' AND adjusted_to > date")
        until = bars.groupBy("ticker").agg(F.max("adjusted_to").alias("until")).collect()
        found += [
            {
                "ticker": row["ticker"],
                "session": str(later[row["ticker"]]),
                "basis": "total_return, adjusted for a dividend after the last bar: closes are approximate",
            }
            for row in sorted(until)
            if row["until"] >= later[row["ticker"]]
        ]
    return found


def _unusable(looks: Mapping[str, TickerAnomalies], lake: "Lake", spark: "SparkSession") -> list[dict[str, Any]]:
    """Dividends that are not applied because they are not below the close before, and sessions with an action from two days."""
    from pyspark.sql import functions as F

    actions = lake.corporate_actions.read(spark).where("kind <> 'split' AND price_factor IS NULL").collect()
    found = []
    for row in sorted(actions, key=lambda row: (row["ticker"], row["ex_date"])):
        if row["ticker"] not in looks or row["ex_date"] <= looks[row["ticker"]].first:
            continue  # the lake has no bar before the ex-date
        earlier = lake.curated.read(spark, [row["ticker"]]).where(F.col("date") < row["ex_date"])
        before = earlier.orderBy(F.col("date").desc()).limit(1).collect()
        found.append(
            {
                "ticker": row["ticker"],
                "session": str(row["ex_date"]),
                "kind": row["kind"],
                "value": row["value"],
                "close before": before[0]["close"] if before else None,
                "why": "not below the close before: not applied",
            }
        )
    twice = (
        lake.processed_actions.read(spark)
        .where("(kind = 'split' AND value <> 1) OR (kind <> 'split' AND value > 0)")
        .groupBy("ticker", "session", "kind")
        .agg(F.min("date").alias("first"), F.max("date").alias("last"))
    )
    for row in twice.where("first < last").orderBy("ticker", "session").collect():
        key = {"ticker": row["ticker"], "session": str(row["session"]), "kind": row["kind"]}
        found.append({**key, "why": f"named for {row['first']} and for {row['last']}: if they differ, both count"})
    return found


def duplicate_keys(bars: "DataFrame") -> list[dict[str, Any]]:
    """The ticker-sessions with more than one bar."""
    counts = bars.groupBy("ticker", "date").count().where("count > 1").orderBy("ticker", "date").limit(LISTED)
    return [{"ticker": row["ticker"], "session": str(row["date"]), "bars": row["count"]} for row in counts.collect()]


TO_DO = {
    "split_moves": "set csv_prices to the form that the check price_form names; if files were split by year and downloaded "
    "together, set csv_adjusted_to to the day of the download; then run the ticker's whole history again",
    "price_form": "set csv_prices to the form that the prices seem to have, then run the ticker's whole history again",
    "one_price_basis": "run the whole history of the ticker again from one download, or deliver its dividends; until then "
    "adj_close before and after that session may differ by the dividends between. If the lake ends before its files: set a later "
    "last_date",
    "unusable_actions": "compare the amount with a second source: a wrong unit or currency, or a liquidation",
    "incomplete_bars": "nothing, if the vendor has no more: an unknown value is null, and so is what is computed from it",
    "price_jumps": "look at the bars and at `stock-lakehouse show corporate_actions TICKER`; deliver a split that no delivery "
    "names in a column Stock Splits",
}


def _warn(name: str, found: list[dict[str, Any]], **facts: str) -> dg.AssetCheckResult:
    return warning(CURATED, name, found, TO_DO.get(name, ""), **facts)
