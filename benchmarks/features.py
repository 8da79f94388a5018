"""Features by our kernel (TA-Lib through embedded Sail) against plain window functions on JVM Spark, on the same Parquet.

Belongs here: both versions, each in a process of its own, timed from read to written with the engine already up. The
indicators themselves are in the package. What the baseline leaves out is written in `window_features`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import market
from benchmarks.figures import Figure, print_figures, print_table
from benchmarks.process import cpu_seconds, measure, module

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

CORES = 2
TICKERS_A_FILE = 25
MIN_RATIO, MIN_PUBLISHED_RATIO, MAX_GB = 8.0, 3.0, 2.5
KERNEL, EMPTY, REPEATED = "features to Parquet", "features, publish to an empty table", "features, publish unchanged"
ENGINE = "--engine"  # how this module starts itself


def write_bars(folder: Path, tickers: int, years: int) -> int:
    """Curated bars of generated tickers as Parquet, some tickers a file; return the number of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    sessions = market.sessions_until(market.LAST_SESSION, years)
    names = market.ticker_names(tickers)
    folder.mkdir(parents=True)
    for start in range(0, tickers, TICKERS_A_FILE):
        tables = []
        for number in range(start, min(start + TICKERS_A_FILE, tickers)):
            bars = market.bars(number, sessions)
            columns = {
                "ticker": pa.array([names[number]] * len(bars)),
                "date": bars["Date"],
                "close": bars["Close"],
                "adj_close": bars["Adj Close"],
                "dividend": bars["Dividends"],
                "volume": bars["Volume"],
                "price_basis": pa.array(["total_return"] * len(bars)),
                "year": pc.year(bars["Date"]).cast(pa.int32()),
            }
            tables.append(pa.table(columns))
        pq.write_table(pa.concat_tables(tables), folder / f"bars_{start:04}.parquet")
    return tickers * len(sessions)


def window_features(bars: DataFrame, with_ema: bool) -> DataFrame:
    """What window functions express of our features.

    RSI is Cutler's (plain averages): Wilder's smoothing never forgets, so no window holds it. Without `with_ema` the five
    columns of EMA and MACD are left out, which favours this version; with it they are weighted sums over the last rows that
    hold 99.9 % of the weight. `tradable_from` and `indicator_spec` are left out too.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    history = Window.partitionBy("ticker").orderBy("date")

    def last(rows: int) -> Any:
        return history.rowsBetween(1 - rows, 0)

    def full(rows: int, value: Any) -> Any:
        return F.when(F.col("n") >= rows, value)

    def ema(source: str, span: int, warm_up: int) -> Any:
        # Oldest first: e = e + alpha * (x - e) over the last rows, from the first of them.
        alpha, rows = 2 / (span + 1), round(3.45 * (span + 1))
        values = F.collect_list(source).over(last(rows))
        return full(warm_up, F.aggregate(values, F.element_at(values, 1), lambda e, x: e + alpha * (x - e)))

    rows = bars.withColumn("n", F.row_number().over(history)).withColumns(
        {
            "change": F.col("close") - F.lag("close").over(history),
            "return_1d": F.col("adj_close") / F.lag("adj_close").over(history) - 1,
        }
    )
    rows = rows.withColumns(
        {"gain": F.greatest("change", F.lit(0.0)), "loss": F.greatest(-F.col("change"), F.lit(0.0))}
    )
    rows = rows.withColumns(
        {
            **{f"sma_{size}": full(size, F.avg("close").over(last(size))) for size in (20, 50, 200)},
            **{f"volume_sma_{size}": full(size, F.avg("volume").over(last(size))) for size in (20, 50)},
            "deviation": full(20, F.stddev_pop("close").over(last(20))),
            "volatility_20": full(21, F.stddev_samp("return_1d").over(last(20))),
            "up": full(15, F.avg("gain").over(last(14))),
            "down": full(15, F.avg("loss").over(last(14))),
        }
    )
    emas = []
    if with_ema:
        rows = rows.withColumns({"ema_12": ema("close", 12, 12), "ema_26": ema("close", 26, 26)})
        rows = rows.withColumn("macd", F.col("ema_12") - F.col("ema_26"))
        rows = rows.withColumn("macd_signal", ema("macd", 9, 34))
        rows = rows.withColumn("macd_hist", F.col("macd") - F.col("macd_signal"))
        emas = ["ema_12", "ema_26", "macd", "macd_signal", "macd_hist"]
    rows = rows.withColumns(
        {
            "rsi_14": F.when(F.col("up") + F.col("down") > 0, 100 * F.col("up") / (F.col("up") + F.col("down"))).when(
                F.col("up").isNotNull(), 0.0
            ),
            "bb_upper": F.col("sma_20") + 2 * F.col("deviation"),
            "bb_mid": F.col("sma_20"),
            "bb_lower": F.col("sma_20") - 2 * F.col("deviation"),
            "spread": F.col("sma_50") - F.col("sma_200"),
        }
    ).withColumn("spread_before", F.lag("spread").over(history))
    flags = {
        "buy_signal": (F.col("sma_20") > F.col("sma_50")) & (F.col("rsi_14") < 30),
        "sell_signal": (F.col("sma_20") < F.col("sma_50")) & (F.col("rsi_14") > 70),
        "golden_cross": (F.col("spread") > 0) & (F.col("spread_before") <= 0),
        "death_cross": (F.col("spread") < 0) & (F.col("spread_before") >= 0),
    }
    names = ["sma_20", "sma_50", "sma_200", *emas, "rsi_14", "bb_upper", "bb_mid", "bb_lower"]
    names += ["volume_sma_20", "volume_sma_50", "return_1d", "volatility_20"]
    chosen = [F.coalesce(flag, F.lit(False)).alias(name) for name, flag in flags.items()]
    return rows.select("ticker", "date", *names, *chosen, "price_basis", "year")


def timed(work: Callable[[], None], repeats: int) -> dict[str, float]:
    """The best of `repeats`, by the clock and in processor time."""
    clock, processor = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), cpu_seconds()
        work()
        clock.append(time.perf_counter() - started)
        processor.append(cpu_seconds() - used)
    return {"seconds": min(clock), "cpu_seconds": min(processor)}


def measure_ours(bars: Path, out: Path, repeats: int) -> dict[str, dict[str, float]]:
    """The kernel to Parquet; the same as a run does it, staged and published to an empty table; and published again."""
    from datetime import UTC, date, datetime

    import pyarrow.dataset as ds

    from stock_lakehouse.engines import spark_session
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.delta_publish import publish as publish_delta
    from stock_lakehouse.lake.staging import Staging
    from stock_lakehouse.lake_options import LakeOptions
    from stock_lakehouse.market_calendar import market_calendar
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.transforms.features import features

    stored = ds.dataset(bars)
    keys = stored.to_table(columns=["ticker", "date"])
    days: list[date] = sorted(keys["date"].unique().to_pylist())
    rectangle = Rectangle(tuple(days), tuple(sorted(keys["ticker"].unique().to_pylist())))
    table = market_calendar(days[0]).table(LakeOptions().grace)
    with spark_session("embedded") as spark:
        sessions = spark.createDataFrame(table)
        spark.read.parquet(str(bars)).count()  # the engine is up, and the input in the page cache

        def computed() -> DataFrame:
            return features(spark.read.parquet(str(bars)), sessions)

        def to_parquet() -> None:
            shutil.rmtree(out / "parquet", ignore_errors=True)
            # As a run stages it, and as JVM Spark compresses by default.
            computed().write.option("compression", "snappy").parquet(str(out / "parquet"))

        def publish() -> int:
            lake, staging = Lake(out / "lake"), Staging(out / "lake")
            try:
                rows = staging.stage(computed())
                done = publish_delta(
                    lake.features, rows, rectangle, staging, lake.ledger, run_id="benchmark", now=datetime.now(UTC)
                )
                return done.added
            finally:
                staging.clear()

        def publish_to_empty() -> None:
            shutil.rmtree(out / "lake", ignore_errors=True)
            if publish() != keys.num_rows:
                raise RuntimeError("the publish did not add every row")

        def publish_again() -> None:
            if publish():
                raise RuntimeError("the second publish of the same features wrote rows")

        return {
            KERNEL: timed(to_parquet, repeats),
            EMPTY: timed(publish_to_empty, repeats),
            REPEATED: timed(publish_again, repeats),
        }


def measure_windows(bars: Path, out: Path, repeats: int, with_ema: bool) -> dict[str, dict[str, float]]:
    """`window_features` on JVM Spark, Parquet to Parquet."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{CORES}]").appName("window functions")
    settings = {
        "spark.driver.memory": "4g",
        "spark.ui.enabled": "false",
        # One task a core and some: the default of 200 only adds overhead at this size.
        "spark.sql.shuffle.partitions": str(4 * CORES),
        "spark.sql.session.timeZone": "UTC",
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        spark.sparkContext.setLogLevel("ERROR")
        spark.read.parquet(str(bars)).count()

        def to_parquet() -> None:
            rows = window_features(spark.read.parquet(str(bars)), with_ema)
            rows.write.mode("overwrite").parquet(str(out / f"windows_{with_ema}"))

        return {_window_name(with_ema): timed(to_parquet, repeats)}
    finally:
        spark.stop()


def _window_name(with_ema: bool) -> str:
    return "window functions on JVM Spark" + (", EMA and MACD too" if with_ema else "")


def java_is_there() -> bool:
    """Whether JVM Spark can start: a Java on PATH or in JAVA_HOME, and the jars in the installed PySpark."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java") or (home and shutil.which("java", path=str(Path(home, "bin"))))
    spec = importlib.util.find_spec("pyspark")
    return bool(java) and spec is not None and any(Path(str(spec.origin)).parent.glob("jars/spark-sql_*.jar"))


def _agree(out: Path, tickers: int) -> None:
    """Raise RuntimeError unless both versions gave the same rows, averages and crosses: that they did the same work."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    names = ["sma_200", "bb_upper", "volume_sma_50", "return_1d", "volatility_20", "golden_cross", "death_cross"]
    ours, theirs = (
        ds.dataset(out / one, format="parquet").to_table(columns=names) for one in ("parquet", "windows_False")
    )
    if len(ours) != len(theirs):
        raise RuntimeError(f"{len(ours)} rows by our kernel, {len(theirs)} by window functions")
    for name in names:
        one, other = (float(pc.sum(table[name]).as_py() or 0) for table in (ours, theirs))
        if abs(one - other) > 1e-6 * max(abs(one), 1):
            raise RuntimeError(f"{name}: the sum is {one} by our kernel and {other} by window functions")
        if ours[name].null_count != theirs[name].null_count:
            raise RuntimeError(f"{name}: {ours[name].null_count} and {theirs[name].null_count} nulls")


def compare(folder: Path, tickers: int, years: int, repeats: int, with_ema: bool) -> dict[str, Any]:
    """Both versions on the same generated bars, one process each, one after the other."""
    bars, out = folder / "bars", folder / "out"
    rows = write_bars(bars, tickers, years)
    out.mkdir()
    shared = ("--bars", bars, "--out", out, "--repeats")
    ours = measure(module("features", ENGINE, "ours", *shared, repeats))
    result: dict[str, Any] = {"rows": rows, "peak_gb": ours.peak_gb, "timings": ours.answer, "java": java_is_there()}
    if not result["java"]:
        return result
    # With EMA it takes minutes, so once.
    for extra in [[repeats], [1, "--with-ema"]] if with_ema else [[repeats]]:
        windows = measure(module("features", ENGINE, "windows", *shared, *extra), env={"SPARK_API_MODE": "classic"})
        result["timings"].update(windows.answer)
        result["jvm_peak_gb"] = windows.peak_gb
    _agree(out, tickers)
    return result


def figures(result: dict[str, Any]) -> list[Figure]:
    """The figures of `compare` beside their targets."""
    timings = result["timings"]
    found = [Figure("features, peak memory", result["peak_gb"], "GB", MAX_GB)]
    if not result["java"]:
        return found
    plain = timings[_window_name(False)]
    for name, target in ((KERNEL, MIN_RATIO), (EMPTY, MIN_PUBLISHED_RATIO), (REPEATED, MIN_PUBLISHED_RATIO)):
        ratio = plain["seconds"] / timings[name]["seconds"]
        found.append(Figure(f"{name}: window functions take", ratio, "×", target, at_least=True))
    if _window_name(True) in timings:
        ratio = timings[_window_name(True)]["seconds"] / timings[KERNEL]["seconds"]
        found.append(Figure(f"{KERNEL}: window functions with EMA, MACD take", ratio, "×"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--repeats", type=int, default=3, help="the best of them counts, for both versions")
    parser.add_argument(
        "--with-ema", action="store_true", help="also window functions that include EMA and MACD (slow)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument(ENGINE, choices=["ours", "windows"], help=argparse.SUPPRESS)
    parser.add_argument("--bars", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine == "ours":
        print(json.dumps(measure_ours(options.bars, options.out, options.repeats)))
        return
    if options.engine == "windows":
        print(json.dumps(measure_windows(options.bars, options.out, options.repeats, options.with_ema)))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), options.tickers, options.years, options.repeats, options.with_ema)
    found = figures(result)
    if options.json:
        print(json.dumps({"figures": [one.as_json() for one in found], **result}))
        return
    rows = [(name, one["seconds"], one["cpu_seconds"]) for name, one in result["timings"].items()]
    print_table((f"{result['rows']:,} rows", "seconds", "CPU seconds"), rows)
    print_figures(found)
    if not result["java"]:
        print("There is no Java on PATH or in JAVA_HOME, so nothing was compared.", file=sys.stderr)


if __name__ == "__main__":
    main()
