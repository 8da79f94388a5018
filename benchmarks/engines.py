"""Features of 10, 100 and 500 tickers × 20 years, Parquet to Parquet: the platform on embedded Sail and on JVM Spark, plain
window functions on JVM Spark, and a hand-written polars pipeline as the floor.
Belongs here: the four side by side, how each grows, and the chart of docs/engines.md. Each is a process of its own, engine up
before the clock starts; memory is of the process and its children, the JVM among them.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.features import CORES, java_is_there, measure_windows, timed, write_bars
from benchmarks.figures import print_table
from benchmarks.process import ROOT, measure, module

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIZES = (10, 100, 500)
ENGINE = "--engine"  # how this module starts itself
SAIL, JVM, WINDOWS, POLARS = "Sail (embedded)", "JVM Spark Connect", "window functions on JVM Spark", "polars"
CHART = ROOT / "docs" / "engines.svg"
JVM_MEMORY = "4g"


def measure_sail(bars: Path, out: Path, repeats: int) -> dict[str, float]:
    """The platform's own way, in chunks of tickers, on embedded Sail."""
    from stock_lakehouse.engines import spark_session

    with spark_session("embedded") as spark:
        return _platform(spark, bars, out, repeats)


def measure_jvm(bars: Path, out: Path, repeats: int) -> dict[str, float]:
    """The same on a JVM Spark Connect server of `local[2]`."""
    from stock_lakehouse.engines import spark_session
    from stock_lakehouse_tests.engines.servers import jvm_server

    with (
        tempfile.TemporaryDirectory() as scratch,
        jvm_server(Path(scratch), memory=JVM_MEMORY, java_options="", shuffle_partitions=4 * CORES) as server,
        spark_session("spark_connect", server.address) as spark,
    ):
        return _platform(spark, bars, out, repeats)


def _platform(spark: SparkSession, bars: Path, out: Path, repeats: int) -> dict[str, float]:
    from datetime import date

    import pyarrow.dataset as ds

    from stock_lakehouse.resources.lakehouse import LakehouseResource
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.transforms.features import features

    keys = ds.dataset(bars).to_table(columns=["ticker", "date"])
    days: list[date] = sorted(keys["date"].unique().to_pylist())
    tickers = tuple(sorted(keys["ticker"].unique().to_pylist()))
    house = LakehouseResource.of(Settings(lake_root=out, tickers=tickers, first_date=days[0], last_date=days[-1]))
    house.spark._session = spark
    sessions = house.sessions
    spark.read.parquet(str(bars)).count()  # the engine is up, and the input in the page cache

    def to_parquet() -> None:
        house.staging.clear()
        house.staging.by_ticker(
            lambda rows: features(rows, sessions),
            spark.read.parquet(str(bars)),
            tickers,
            days[-1].year - days[0].year + 1,
            house.lake_options.bars_per_chunk,
        )

    return timed(to_parquet, repeats)


def measure_polars(bars: Path, out: Path, repeats: int) -> dict[str, float]:
    """What a person would write in polars for these bars alone: no engine, no lake, no checks."""
    import polars as pl

    def to_parquet() -> None:
        _polars_features(pl.read_parquet(bars / "*.parquet")).write_parquet(out / "polars.parquet")

    to_parquet()  # the input is in the page cache
    return timed(to_parquet, repeats)


def _polars_features(bars: Any) -> Any:
    """The features of `bars`. Exponential averages start at the first value where TA-Lib's start at a simple average."""
    import polars as pl

    close, volume = pl.col("close"), pl.col("volume")

    def ema(source: Any, span: int, warm_up: int) -> Any:
        return source.ewm_mean(span=span, adjust=False, min_samples=warm_up)

    change = close.diff()
    gain, loss = change.clip(lower_bound=0), (-change).clip(lower_bound=0)
    up, down = (part.ewm_mean(alpha=1 / 14, adjust=False, min_samples=14) for part in (gain, loss))
    deviation = close.rolling_std(20, ddof=0)
    first: dict[str, Any] = {
        **{f"sma_{size}": close.rolling_mean(size) for size in (20, 50, 200)},
        "ema_12": ema(close, 12, 12),
        "ema_26": ema(close, 26, 26),
        "rsi_14": pl.when(up + down > 0).then(100 * up / (up + down)).otherwise(0.0),
        "macd": ema(close, 12, 12) - ema(close, 26, 26),
        "bb_upper": close.rolling_mean(20) + 2 * deviation,
        "bb_lower": close.rolling_mean(20) - 2 * deviation,
        **{f"volume_sma_{size}": volume.rolling_mean(size) for size in (20, 50)},
        "return_1d": pl.col("adj_close").pct_change(),
    }
    rows = bars.sort("ticker", "date").with_columns(**{name: one.over("ticker") for name, one in first.items()})
    spread = pl.col("sma_50") - pl.col("sma_200")
    second: dict[str, Any] = {
        "macd_signal": ema(pl.col("macd"), 9, 9),
        "volatility_20": pl.col("return_1d").rolling_std(20, ddof=1),
        "golden_cross": (spread > 0) & (spread.shift(1) <= 0),
        "death_cross": (spread < 0) & (spread.shift(1) >= 0),
    }
    rows = rows.with_columns(**{name: one.over("ticker") for name, one in second.items()})
    return rows.with_columns(
        bb_mid=pl.col("sma_20"),
        macd_hist=pl.col("macd") - pl.col("macd_signal"),
        buy_signal=((pl.col("sma_20") > pl.col("sma_50")) & (pl.col("rsi_14") < 30)).fill_null(False),
        sell_signal=((pl.col("sma_20") < pl.col("sma_50")) & (pl.col("rsi_14") > 70)).fill_null(False),
        golden_cross=pl.col("golden_cross").fill_null(False),
        death_cross=pl.col("death_cross").fill_null(False),
    ).drop("close", "adj_close", "volume")


def _measure_windows(bars: Path, out: Path, repeats: int) -> dict[str, float]:
    [timings] = measure_windows(bars, out, repeats, with_ema=False).values()
    return timings


MEASURES: dict[str, Callable[[Path, Path, int], dict[str, float]]] = {
    SAIL: measure_sail,
    JVM: measure_jvm,
    WINDOWS: _measure_windows,
    POLARS: measure_polars,
}


def compare(folder: Path, sizes: list[int], years: int, repeats: int) -> dict[str, list[dict[str, float]]]:
    """For each contender a record a size: rows, seconds, cpu_seconds, peak_gb, and seconds a million rows."""
    contenders = [name for name in MEASURES if java_is_there() or name in (SAIL, POLARS)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for tickers in sizes:
        bars = folder / "bars"
        rows = write_bars(bars, tickers, years)
        expected: tuple[float, ...] | None = None
        for name in contenders:
            out = folder / "out"
            out.mkdir()
            classic = {"SPARK_API_MODE": "classic"} if name == WINDOWS else {}
            command = module("engines", ENGINE, name, "--bars", bars, "--out", out, "--repeats", repeats)
            measured = measure(command, env=classic)
            timings = measured.answer
            found[name].append(
                {
                    "tickers": tickers,
                    "rows": rows,
                    **timings,
                    "peak_gb": measured.peak_gb,
                    "seconds_per_million": timings["seconds"] / rows * 1e6,
                }
            )
            sums = _sums(out)
            expected = expected or sums
            if not all(math.isclose(*pair, rel_tol=1e-6) for pair in zip(sums, expected, strict=True)):
                raise RuntimeError(f"{name} did other work than the first: {sums}, not {expected}")
            print(f"{name}, {tickers} tickers: {timings['seconds']:.1f} s", file=sys.stderr, flush=True)
            shutil.rmtree(out)
        shutil.rmtree(bars)
    return found


def _sums(out: Path) -> tuple[float, ...]:
    """Of the features that stand under `out`: rows, and sums of columns that all four define alike."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    names = ["sma_200", "bb_upper", "volume_sma_50", "volatility_20", "golden_cross", "death_cross"]
    rows = ds.dataset(sorted(map(str, out.rglob("*.parquet")))).to_table(columns=names)
    return (float(len(rows)), *(float(pc.sum(rows[name]).as_py() or 0) for name in names))


def growth(records: list[dict[str, float]], what: str) -> float:
    """The exponent of `what` against rows between the last two sizes: 1 is in proportion, less is better than that."""
    if len(records) < 2:
        return math.nan
    one, other = records[-2:]
    return math.log(other[what] / one[what]) / math.log(other["rows"] / one["rows"])


def draw(found: dict[str, list[dict[str, float]]], file: Path) -> None:
    """Seconds and peak memory against rows, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text as text and no date, so that the same figures give the same small file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "engines", "font.size": 10})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, (what, label) in zip(axes, (("seconds", "seconds"), ("peak_gb", "peak memory, GB")), strict=True):
        for name, records in found.items():
            axis.plot([one["rows"] for one in records], [one[what] for one in records], marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="bars", ylabel=label)
        axis.grid(visible=True, which="both", alpha=0.3)
    axes[0].legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, nargs="+", default=list(SIZES), help="ascending")
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--repeats", type=int, default=2, help="the best of them counts, for each")
    parser.add_argument("--chart", type=Path, nargs="?", const=CHART, help="draw the chart (docs/engines.svg)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument(ENGINE, choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--bars", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(MEASURES[options.engine](options.bars, options.out, options.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), options.tickers, options.years, options.repeats)
    if options.chart:
        draw(found, options.chart)
    if options.json:
        print(json.dumps({"figures": [], "java": java_is_there(), "engines": found}))
        return
    rows = [
        (
            name,
            f"{one['tickers']:,.0f} × {options.years} years",
            one["seconds"],
            one["cpu_seconds"],
            one["peak_gb"],
            one["seconds_per_million"],
        )
        for name, records in found.items()
        for one in records
    ]
    print_table(("engine", "tickers", "seconds", "CPU seconds", "peak GB", "s a million rows"), rows)
    print_table(
        ("grows with rows to the power of", "seconds", "peak GB"),
        [(name, growth(records, "seconds"), growth(records, "peak_gb")) for name, records in found.items()],
    )
    if JVM not in found:
        print("There is no Java on PATH or in JAVA_HOME, so the engines on the JVM are left out.", file=sys.stderr)


if __name__ == "__main__":
    main()
