"""From processed to curated bars: prices on one basis with all splits and dividends known now, and whether the bar is final.

Pure Spark around a numpy kernel. Not here: which of the rows a run may publish, and which bars it must look at (curation.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.schemas import curated as schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyspark.sql import DataFrame

    Array = np.ndarray[Any, np.dtype[Any]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KINDS = ("dividend", "split")
KNOWN = ["ex_date", "kind", "value", "price_factor", "first_seen", "late"]
PRICES = ("open", "high", "low", "close")
INPUTS = (
    "ticker", "date", *PRICES, "adj_close", "volume", "dividend", "split_ratio", "actions_delivered", "ingested_at",
    "adjusted_to", "first_delivered_at", "dividend_first_seen", "split_first_seen", "year",
)  # fmt: skip
# What a row says of the actions of its session, beside the curated columns.
ACTIONS = (
    "dividend_factor double, dividend_first_seen timestamp, split_first_seen timestamp, "
    "dividend_late boolean, split_late boolean"
)
ACTION_NAMES = tuple(part.split()[0] for part in ACTIONS.split(", "))


def adjusted_bars(
    processed: DataFrame, known: DataFrame, sessions: DataFrame, years: Collection[int] | None = None
) -> DataFrame:
    """One curated bar for each processed bar, with the columns of the curated schema and those of ACTIONS.

    `processed` has whole years of each of its tickers: `years`, or with None all of them. `known` has the published corporate
    actions of these tickers; those in `years` are taken from `processed` instead. `sessions` has `date` and `final_at`: a bar
    that landed before then is provisional.

    Splits: a delivery's prices are adjusted for the splits up to its `adjusted_to`. They are brought to the basis of all splits
    known now: divided, and volumes multiplied, by the ratios of the splits that the delivery did not know. Where the ex-date's
    bar had been delivered without the split at first, deliveries that landed before it appeared did not know it either.

    Dividends: `adj_close` is the close times, for each dividend that goes ex later, 1 - dividend / close of the bar before.
    That is Yahoo's definition of the adjusted close ("adjusted for both dividends and splits, adhering to CRSP standards":
    help.yahoo.com/kb/SLN28256), and CRSP's of a cash dividend's adjustment factor in total returns (CRSP US Stock Database
    Guide, "Factor to Adjust Price"). A bar whose delivery says nothing of actions keeps the delivered adj_close, times
    the dividends that it did not know, and without one gets its close; the price basis says which.
    """
    from pyspark.sql import functions as F

    types = {one.name: one.type for one in schema.COLUMNS}
    types.pop("bar_status")
    ddl = ", ".join(f"{name} {kind}" for name, kind in types.items())
    # Bars and actions in one frame, told apart by `kind`: Sail's cogroup takes no nulls.
    actions = [one for one in known.schema if one.name != "ticker"]
    bars = processed.select(*INPUTS, *(F.lit(None).cast(one.dataType).alias(one.name) for one in actions))
    none = [F.lit(None).cast(one.dataType).alias(one.name) for one in bars.schema if one.name not in known.columns]
    both = bars.unionByName(known.select("*", *none))
    computed = both.groupBy("ticker").applyInArrow(
        _kernel(None if years is None else frozenset(years)), f"{ddl}, {ACTIONS}"
    )
    final_at = sessions.select("date", "final_at")
    status = F.when(F.col("ingested_at") < F.col("final_at"), "provisional").otherwise("final")
    return (
        computed.join(F.broadcast(final_at), "date", "left")
        .withColumn("bar_status", status)
        .select(*(one.name for one in schema.COLUMNS), *ACTION_NAMES)
    )


def actions_in(bars: DataFrame) -> DataFrame:
    """The corporate actions of `adjusted_bars`, with the columns of their schema."""
    from pyspark.sql import functions as F

    def of(kind: str, present: str, value: str, factor: str) -> DataFrame:
        return bars.where(present).select(
            "ticker", F.col("date").alias("ex_date"), F.lit(kind).alias("kind"), F.col(value).alias("value"),
            F.expr(factor).alias("price_factor"), F.col(f"{kind}_first_seen").alias("first_seen"),
            F.col(f"{kind}_late").alias("late"),
        )  # fmt: skip

    return of("split", "split_ratio <> 1", "split_ratio", "1 / split_ratio").unionByName(
        of("dividend", "dividend > 0", "dividend", "dividend_factor")
    )


def _kernel(years: frozenset[int] | None) -> Callable[[pa.Table], pa.Table]:
    """A function of one ticker's processed bars and published actions that gives its adjusted bars, in ascending order."""

    def kernel(both: pa.Table) -> pa.Table:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        is_bar = pc.is_null(both["kind"])
        known = both.filter(pc.invert(is_bar)).select(KNOWN).to_pylist()
        one = _Ticker(both.filter(is_bar).sort_by("date"), known, years)
        split_factor, unknown = one.split_factors()
        prices = {name: one.values[name] / unknown for name in (*PRICES, "adj_close", "dividend")}
        close, dividend = prices["close"], prices["dividend"]
        factor = one.dividend_factors(close, dividend)
        following, known_then, since = one.products(np.flatnonzero(dividend > 0), factor)
        # The delivered adj_close is as of its delivery: held against what was known then, and brought to now.
        delivered = prices["adj_close"]
        has = ~np.isnan(delivered)
        basis = np.where(one.says, "total_return", np.where(has, "total_return_delivered", "price_return"))
        deviation = np.where(one.says & has, delivered / (close * known_then) - 1, np.nan)
        prices["adj_close"] = np.where(one.says, close * following, np.where(has, delivered * since, close))
        computed = {
            **{name: pa.array(value) for name, value in prices.items()},
            "volume": pa.array(one.volume(unknown)),
            "split_factor": pa.array(split_factor),
            "price_basis": pa.array(basis.tolist(), pa.string()),
            "adj_close_deviation": pa.array(deviation + 0.0, from_pandas=True),
            "dividend_factor": pa.array(factor, from_pandas=True),
            **{f"{kind}_first_seen": at.cast(one.bars["ingested_at"].type) for kind, at in one.first_seen.items()},
            **{f"{kind}_late": pa.array(late.tolist(), pa.bool_()) for kind, late in one.late.items()},
        }
        names = [*(column.name for column in schema.COLUMNS if column.name != "bar_status"), *ACTION_NAMES]
        return pa.table({name: computed[name] if name in computed else one.bars[name] for name in names})

    return kernel


@dataclass(frozen=True)
class _Action:
    """A split or dividend: day since 1970, ratio or price factor, and how deliveries knew of it, see `adjusted_bars`."""

    ex_date: int
    factor: float
    late: bool
    first_seen: int


class _Ticker:
    """One ticker's processed bars in ascending order, as arrays, and its published actions outside `years`."""

    def __init__(self, bars: pa.Table, known: Sequence[dict[str, Any]], years: frozenset[int] | None) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        self.bars, self._known, self._years = bars, known, years
        self.day = bars["date"].cast(pa.int32()).to_numpy()
        landed = bars["ingested_at"].cast(pa.timestamp("us"))
        self._landed = landed.cast(pa.int64()).to_numpy()
        # Rows from before these columns were there: adjusted until they landed, and always the same.
        self._adjusted_to = pc.coalesce(bars["adjusted_to"], landed.cast(pa.date32())).cast(pa.int32()).to_numpy()
        first = pc.coalesce(bars["first_delivered_at"].cast(pa.timestamp("us")), landed)
        self.first_seen = {
            kind: pc.coalesce(bars[f"{kind}_first_seen"].cast(pa.timestamp("us")), landed) for kind in KINDS
        }
        self.late = {kind: np.asarray(pc.greater(seen, first)) for kind, seen in self.first_seen.items()}
        self.says = np.asarray(pc.coalesce(bars["actions_delivered"], False))
        names = (*PRICES, "adj_close", "dividend", "split_ratio")
        self.values = {name: bars[name].to_numpy().astype(np.float64) for name in names}

    def split_factors(self) -> tuple[Array, Array]:
        """By bar: the product of the ratios of all later splits, and of those that its delivery did not know."""
        import numpy as np

        every, unknown = np.ones(len(self.day)), np.ones(len(self.day))
        ratios = self.values["split_ratio"]
        for split in self._actions("split", np.flatnonzero(ratios != 1), ratios):
            before = self.day < split.ex_date
            every[before] *= split.factor
            unknown[before & ~self._knew(split)] *= split.factor
        return every, unknown

    def dividend_factors(self, close: Array, dividend: Array) -> Array:
        """By bar: 1 - dividend / close of the bar before; nan without a dividend, a bar before, or where it is not below that."""
        import numpy as np

        before = np.concatenate([[np.nan], close])[:-1]
        with np.errstate(invalid="ignore"):
            factor: Array = np.where((dividend > 0) & (dividend < before), 1 - dividend / before, np.nan)
        if self._years is not None and len(dividend) and dividend[0] > 0:
            # The bar before is not among these years; the run that last looked at it wrote the factor down.
            this = (self.bars["date"][0].as_py(), "dividend", dividend[0])
            for row in self._known:
                if (row["ex_date"], row["kind"], row["value"]) == this and row["price_factor"] is not None:
                    factor[0] = row["price_factor"]
        return factor

    def products(self, places: Array, factors: Array) -> tuple[Array, Array, Array]:
        """By bar: the product of the factors of all later dividends, of those its delivery knew, and of those it did not."""
        import numpy as np

        dividends = self._actions("dividend", places, np.where(np.isnan(factors), 1.0, factors))
        ex_dates = np.array([one.ex_date for one in dividends], dtype=np.int64)
        from_each_on = np.concatenate([np.cumprod([one.factor for one in reversed(dividends)])[::-1], [1.0]])
        following = from_each_on[np.searchsorted(ex_dates, self.day, side="right")]
        knew, knew_not = np.ones(len(self.day)), np.ones(len(self.day))
        if not np.isnan(self.values["adj_close"]).all():  # else nobody asks
            for one in dividends:
                before, aware = self.day < one.ex_date, self._knew(one)
                knew[before & aware] *= one.factor
                knew_not[before & ~aware] *= one.factor
        return following, knew, knew_not

    def volume(self, ratio: Array) -> Array:
        """Shares, times `ratio` by bar, whole."""
        import numpy as np

        volume = self.bars["volume"].to_numpy()
        adjusted: Array = np.where(ratio == 1, volume, np.rint(volume * ratio)).astype(np.int64)
        return adjusted

    def _knew(self, action: _Action) -> Array:
        """By bar, whether its delivery's prices are adjusted for the action."""
        aware: Array = self._adjusted_to >= action.ex_date
        return aware & (self._landed >= action.first_seen) if action.late else aware

    def _actions(self, kind: str, places: Array, factors: Array) -> list[_Action]:
        """Those of the bars at `places`, and the published ones of other years, in ascending order."""
        import pyarrow as pa

        seen = self.first_seen[kind].cast(pa.int64()).to_numpy()
        late = self.late[kind]
        found = [_Action(int(self.day[at]), float(factors[at]), bool(late[at]), int(seen[at])) for at in places]
        for row in self._known:
            if row["kind"] == kind and self._years is not None and row["ex_date"].year not in self._years:
                factor = row["value"] if kind == "split" else row["price_factor"] or 1.0
                first_seen = (row["first_seen"] - EPOCH) // timedelta(microseconds=1)
                found.append(_Action((row["ex_date"] - EPOCH.date()).days, factor, row["late"], first_seen))
        return sorted(found, key=lambda one: one.ex_date)
