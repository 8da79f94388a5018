"""From curated bars to features: the registry of indicators, applied to each ticker's whole history.

Pure Spark around the numpy kernel. Not here: formulas (indicators.py) and which rows a run may publish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.indicators.registry import INDICATORS, Indicator, compute, indicator_spec

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

INPUTS = ("ticker", "date", "close", "adj_close", "volume", "dividend", "price_basis", "year")
IDENTITY = ("ticker", "date", "price_basis", "year")


def features(bars: DataFrame, sessions: DataFrame, indicators: tuple[Indicator, ...] = INDICATORS) -> DataFrame:
    """A row of features for each curated bar.

    `bars` must hold the whole history of every ticker in it: an exponential average never forgets, so features of part of
    a history would be different numbers. `sessions` has `date` and `next_session`.
    """
    from pyspark.sql import functions as F

    types = ", ".join(f"{one.name} {one.type}" for one in indicators)
    computed = (
        bars.select(*INPUTS)
        .groupBy("ticker")
        .applyInArrow(_kernel(indicators), f"ticker string, date date, price_basis string, year int, {types}")
    )
    following = sessions.select("date", F.col("next_session").alias("tradable_from"))
    return computed.join(F.broadcast(following), "date", "left").select(
        "ticker",
        "date",
        *(one.name for one in indicators),
        "tradable_from",
        "price_basis",
        F.lit(indicator_spec(indicators)).alias("indicator_spec"),
        "year",
    )


def _kernel(indicators: tuple[Indicator, ...]):  # type: ignore[no-untyped-def]  # PySpark inspects the signature
    """A function of one ticker's bars, in any order, that gives its features in ascending order of session."""

    def kernel(bars: pa.Table) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        ordered = bars.sort_by("date")
        columns = {name: ordered[name].to_numpy().astype(np.float64) for name in ("close", "adj_close", "volume")}
        basis = np.asarray(ordered["price_basis"])
        columns["total_return"] = basis == "total_return_delivered"
        # A dividend that is known counts, whatever the bar's own delivery says; no dividend only if the delivery says so.
        dividend = ordered["dividend"].to_numpy()
        columns["dividend"] = np.where((basis == "total_return") | (dividend > 0), dividend, np.nan)
        values = compute(columns, indicators)
        out = ordered.select(list(IDENTITY))
        for one in indicators:
            # nan, the warm-up, becomes null; -0.0 becomes 0.0, since engines do not agree on whether the two are equal.
            value = values[one.name] if one.type == "boolean" else values[one.name] + 0.0
            out = out.append_column(one.name, pa.array(value, from_pandas=True))
        return out

    return kernel
