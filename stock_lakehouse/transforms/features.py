"""From curated bars to features: the registry of indicators, applied to each ticker's whole history.

Pure Spark around the numpy kernel. Not here: formulas (indicators/kernel.py) and which rows a run may publish.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import TYPE_CHECKING

from stock_lakehouse.indicators.registry import INDICATORS, Indicator, compute, indicator_spec
from stock_lakehouse.transforms.tickers import by_ticker_and_date, in_groups

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

INPUTS = ("ticker", "date", "close", "adj_close", "volume", "dividend", "price_basis", "year")
# They are read only if an indicator reads them: those of the package do not.
OTHER_PRICES = ("open", "high", "low")
IDENTITY = ("ticker", "date", "price_basis", "year")
ALL_YEARS = 0


def features(
    bars: DataFrame,
    sessions: DataFrame,
    indicators: tuple[Indicator, ...] = INDICATORS,
    since: int = ALL_YEARS,
    whole: Collection[str] = (),
) -> DataFrame:
    """One row of features for each curated bar of the year `since` and later, and for each bar of the tickers `whole`.

    - `bars`: the whole history of every ticker in it. An exponential average depends on all earlier values, so features of a part
      of a history would be different numbers.
    - `sessions`: has `date` and `next_session`.
    """
    from pyspark.sql import functions as F

    types = ", ".join(f"{indicator.name} {indicator.type}" for indicator in indicators)
    computed = in_groups(bars.select(*INPUTS, *_other_prices(indicators))).applyInArrow(
        _kernel(indicators, since, frozenset(whole)), f"ticker string, date date, price_basis string, year int, {types}"
    )
    following = sessions.select("date", F.col("next_session").alias("tradable_from"))
    return computed.join(F.broadcast(following), "date", "left").select(
        "ticker",
        "date",
        *(indicator.name for indicator in indicators),
        "tradable_from",
        "price_basis",
        F.lit(indicator_spec(indicators)).alias("indicator_spec"),
        "year",
    )


def _other_prices(indicators: tuple[Indicator, ...]) -> list[str]:
    """The columns of OTHER_PRICES that one of `indicators` reads."""
    return [name for name in OTHER_PRICES if any(name in indicator.reads for indicator in indicators)]


# PySpark inspects the signature of the function.
def _kernel(indicators: tuple[Indicator, ...], since: int, whole: frozenset[str]):  # type: ignore[no-untyped-def]
    """A function from the bars of some tickers, in any order, to their features, by ticker in ascending order of session.

    Of the year `since` and later years; of a ticker of `whole`, of all years.
    """
    numbers = ("close", "adj_close", "volume", *_other_prices(indicators))

    def kernel(bars: pa.Table) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        ordered, bounds = by_ticker_and_date(bars)
        columns = {name: ordered[name].to_numpy().astype(np.float64) for name in numbers}
        basis = np.asarray(ordered["price_basis"])
        columns["total_return"] = basis == "total_return_delivered"
        # A known dividend counts, whatever the delivery of its bar says. A dividend of 0 counts only if the delivery says so.
        dividend = ordered["dividend"].to_numpy()
        columns["dividend"] = np.where((basis == "total_return") | (dividend > 0), dividend, np.nan)
        year = ordered["year"].to_numpy()
        parts, kept = [], []
        for first, end in pairwise(bounds):
            is_whole = ordered["ticker"][first].as_py() in whole
            start = 0 if is_whole else int(np.searchsorted(year[first:end], since))
            parts.append(compute({name: values[first:end] for name, values in columns.items()}, indicators, start))
            kept.append(ordered.select(list(IDENTITY)).slice(first + start, end - first - start))
        out = pa.concat_tables(kept)
        for indicator in indicators:
            value = np.concatenate([part[indicator.name] for part in parts])
            # NaN, as in the warm-up, becomes null. -0.0 becomes 0.0: engines do not agree on whether the two are equal.
            value = value if indicator.type == "boolean" else value + 0.0
            out = out.append_column(indicator.name, pa.array(value, from_pandas=True))
        return out

    return kernel
