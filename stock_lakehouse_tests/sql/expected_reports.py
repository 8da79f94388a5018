"""What each report must say, computed by polars from the rows of `read_table`. Not here: running the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from stock_lakehouse.lake.reading import read_table

BARS, FEATURES = "curated_stocks_daily", "stocks_features"
Tables = Mapping[str, pl.DataFrame]


def tables_of(root: Path, as_of: str | None = None) -> Tables:
    found = {name: read_table(name, as_of=as_of, lake_root=root) for name in (BARS, FEATURES)}
    return {name: pl.DataFrame(table) for name, table in found.items()}


def stock_summary(tables: Tables) -> pl.DataFrame:
    return (
        tables[BARS]
        .sort("date")
        .group_by("ticker")
        .agg(
            pl.col("date").first().alias("first_date"),
            pl.col("date").last().alias("last_date"),
            pl.len().cast(pl.Int64).alias("sessions"),
            pl.col("close").min().alias("min_close"),
            pl.col("close").max().alias("max_close"),
            pl.col("close").last().alias("last_close"),
        )
        .sort(["sessions", "ticker"], descending=[True, False])
    )


def golden_and_death_crosses(tables: Tables) -> pl.DataFrame:
    def days(column: str) -> pl.Expr:
        joined = pl.col("date").filter(pl.col(column)).dt.to_string("%Y-%m-%d").str.join(", ")
        return pl.when(pl.col(column).any()).then(joined).otherwise(None)

    return (
        tables[FEATURES]
        .sort("date")
        .group_by("ticker")
        .agg(
            pl.col("golden_cross").sum().cast(pl.Int64).alias("golden_crosses"),
            pl.col("death_cross").sum().cast(pl.Int64).alias("death_crosses"),
            (pl.col("golden_cross").sum() / pl.len() * 100).round(2).alias("golden_cross_pct"),
            days("golden_cross").alias("golden_cross_dates"),
            days("death_cross").alias("death_cross_dates"),
        )
        .sort(["golden_crosses", "ticker"], descending=[True, False])
    )


def rsi_extremes(tables: Tables) -> pl.DataFrame:
    newest = pl.col("date").max().dt.offset_by("-1mo")
    return (
        tables[FEATURES]
        .filter(pl.col("date") >= newest)
        .group_by("ticker")
        .agg(
            (pl.col("rsi_14") >= 70).sum().cast(pl.Int64).alias("overbought_days"),
            (pl.col("rsi_14") <= 30).sum().cast(pl.Int64).alias("oversold_days"),
            pl.len().cast(pl.Int64).alias("total_days"),
            ((pl.col("rsi_14") >= 70).sum() / pl.len() * 100).round(2).alias("pct_overbought"),
        )
        .sort(["pct_overbought", "ticker"], descending=[True, False])
    )


def volatility_ranking(tables: Tables) -> pl.DataFrame:
    recent = tables[FEATURES].filter(pl.col("date") >= pl.col("date").max().dt.offset_by("-1y"))
    return (
        recent.group_by("ticker")
        .agg(pl.col("volatility_20").mean().alias("average"), pl.col("volatility_20").max().alias("highest"))
        .select(
            "ticker",
            pl.col("average").round(4).alias("avg_volatility"),
            pl.col("highest").round(4).alias("max_volatility"),
            pl.col("average").rank("min", descending=True).cast(pl.Int64).alias("volatility_rank"),
        )
        .sort("volatility_rank", "ticker")
    )


def latest_signals(tables: Tables) -> pl.DataFrame:
    newest = tables[FEATURES].sort("date").group_by("ticker").last()
    close = tables[BARS].select("ticker", "date", "close")
    signals = ("buy_signal", "sell_signal", "golden_cross", "death_cross", "tradable_from")
    return (
        newest.join(close, on=["ticker", "date"])
        .select("ticker", "date", "close", "sma_50", "sma_200", "rsi_14", "macd_hist", "volatility_20", *signals)
        .sort("ticker")
    )


def comparative_performance(tables: Tables) -> pl.DataFrame:
    bars = tables[BARS]
    start = bars.group_by("ticker").agg(pl.col("date").min())["date"].max()
    return (
        bars.filter(pl.col("date") >= start)
        .sort("ticker", "date")
        .select(
            "ticker",
            "date",
            (pl.col("adj_close") / pl.col("adj_close").first().over("ticker") * 100).alias("indexed"),
        )
    )


def volume_spikes(tables: Tables) -> pl.DataFrame:
    before = pl.col("volume").cast(pl.Float64).shift(1).rolling_mean(20).over("ticker")
    return (
        tables[BARS]
        .sort("ticker", "date")
        .select("ticker", "date", "volume", before.alias("average_before"))
        .filter(pl.col("volume") > 3 * pl.col("average_before"))
        .with_columns((pl.col("volume") / pl.col("average_before")).alias("times"))
        .sort(["times", "ticker", "date"], descending=[True, False, False])
    )


def drawdown(tables: Tables) -> pl.DataFrame:
    falls = (
        tables[BARS]
        .sort("ticker", "date")
        .with_columns(pl.col("adj_close").cum_max().over("ticker").alias("peak"))
        .with_columns((pl.col("adj_close") / pl.col("peak") - 1).alias("fall"))
    )
    return (
        falls.group_by("ticker")
        .agg(
            pl.col("fall").min().alias("max_drawdown"),
            pl.col("date").get(pl.col("fall").arg_min()).alias("trough_date"),
            pl.col("peak").get(pl.col("fall").arg_min()).alias("peak_before"),
            pl.col("fall").last().alias("drawdown_now"),
        )
        .sort("max_drawdown", "ticker")
    )


def dashboard_daily(tables: Tables) -> pl.DataFrame:
    bars = (
        "ticker",
        "date",
        "open",
        "high",
        "low",
        "close",
        "adj_close",
        "volume",
        "dividend",
        "split_ratio",
        "price_basis",
        "bar_status",
        "year",
    )
    without = ("price_basis", "indicator_spec", "year")
    features = tables[FEATURES].select(pl.exclude(*without))
    joined = tables[BARS].select(*bars).join(features, on=["ticker", "date"], how="left").sort("ticker", "date")
    return joined.select(*(name for name in joined.columns if name != "year"), "year")


EXPECTED: dict[str, Callable[[Tables], pl.DataFrame]] = {
    function.__name__: function
    for function in (
        comparative_performance,
        dashboard_daily,
        drawdown,
        golden_and_death_crosses,
        latest_signals,
        rsi_extremes,
        stock_summary,
        volatility_ranking,
        volume_spikes,
    )
}
