"""Landing and classifying against the floor: the same CSV files read, typed, validated and written as Parquet by polars.

Both do it in a process of their own, one after the other, in the same run; the ratio is what counts. The floor keeps no text, no
provenance and no rejected row, and compares nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import market
from benchmarks.figures import Figure, print_figures
from benchmarks.process import measure, module

MOST = 4.0
OURS, FLOOR = "--ours", "--floor"  # how this module starts itself: FOLDER


def ours(folder: Path) -> dict[str, Any]:
    """Land the CSV files of `folder` and do the step of processed, without Dagster; rows and seconds of each."""
    from stock_lakehouse.engines import spark_session
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.staging import Staging
    from stock_lakehouse.layers import run
    from stock_lakehouse.layers.raw import land
    from stock_lakehouse.layers.step import Step
    from stock_lakehouse.market_calendar import CalendarError, utc_now
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.sources.choose import csv_source
    from stock_lakehouse.sources.download import Download
    from stock_lakehouse.tables import PROCESSED

    tickers = tuple(sorted(path.stem for path in (folder / "csv").glob("*.csv")))
    first, last = _span(folder)
    shutil.rmtree(folder / "lake", ignore_errors=True)
    settings = Settings(
        lake_root=folder / "lake", tickers=tickers, source="csv", csv_folder=folder / "csv", first_date=first, last_date=last,
        partition_by="session",
    )  # fmt: skip
    calendar, lake, now = settings.calendar, Lake(settings.lake_options), utc_now()
    asked = Rectangle(calendar.between(first, last), tickers)

    def final_at(day: Any) -> Any:
        try:
            return calendar.close(day) + settings.grace
        except CalendarError:
            return None

    began = time.perf_counter()
    download = Download(csv_source(settings), tickers, first, last, tickers)
    land(download, lake.raw, asked, run_id="0" * 8, now=now, final_at=final_at, say=lambda line: None)
    landed = time.perf_counter()
    staging = Staging(lake.root)
    with spark_session("embedded") as spark:
        facts = run(Step(lake, spark, staging, asked, "0" * 8, now, lambda result: None), PROCESSED)
        staging.clear()
    done = time.perf_counter()
    return {"rows": facts["dagster/row_count"], "landing": landed - began, "classifying": done - landed}


def floor(folder: Path) -> dict[str, Any]:
    """What a person would write in polars for these files alone."""
    import polars as pl

    shutil.rmtree(folder / "floor", ignore_errors=True)
    began, rows = time.perf_counter(), 0
    prices = ["Open", "High", "Low", "Close", "Adj Close"]
    for path in sorted((folder / "csv").glob("*.csv")):
        text = pl.read_csv(path, infer_schema=False)
        typed = text.with_columns(
            pl.col("Date").str.to_date(),
            pl.col(*prices, "Dividends", "Stock Splits").cast(pl.Float64),
            pl.col("Volume").cast(pl.Int64),
        ).with_columns(pl.lit(path.stem).alias("ticker"), pl.col("Date").dt.year().alias("year"))
        low, high = pl.col("Low"), pl.col("High")
        is_valid = pl.all_horizontal(
            *(pl.col(name) > 0 for name in prices), pl.col("Volume") >= 0, low <= high,
            pl.col("Open").is_between(low, high), pl.col("Close").is_between(low, high),
        )  # fmt: skip
        valid = typed.filter(is_valid).unique("Date", keep="last").sort("Date")
        rows += valid.height
        for (year,), own in valid.partition_by("year", as_dict=True, include_key=False).items():
            place = folder / "floor" / f"ticker={path.stem}" / f"year={year}"
            place.mkdir(parents=True)
            own.drop("ticker").write_parquet(place / "data.parquet", compression="snappy")
    return {"rows": rows, "seconds": time.perf_counter() - began}


def _span(folder: Path) -> tuple[Any, Any]:
    import pyarrow.compute as pc
    from pyarrow import csv

    days = csv.read_csv(next(iter(sorted((folder / "csv").glob("*.csv")))))["Date"]
    return pc.min(days).as_py(), pc.max(days).as_py()


def measure_both(folder: Path, tickers: int, years: int, repeats: int) -> dict[str, Any]:
    """Wall and processor seconds of both, the best of `repeats`, and their ratios. Raises RuntimeError if the rows differ."""
    market.write_csv(folder / "csv", tickers, market.sessions_until(market.LAST_SESSION, years), held_back=0)
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], FLOOR: []}
    for _ in range(repeats):
        for which, done in runs.items():
            measured = measure(module("floor", which, folder))
            done.append({**measured.answer, "cpu_seconds": measured.cpu_seconds, "peak_gb": measured.peak_gb})
    rows = {answer["rows"] for done in runs.values() for answer in done}
    if rows != {tickers * years * market.SESSIONS_A_YEAR}:
        raise RuntimeError(f"rows: {sorted(rows)}")
    our_wall = min(answer["landing"] + answer["classifying"] for answer in runs[OURS])
    floor_wall = min(answer["seconds"] for answer in runs[FLOOR])
    our_cpu, floor_cpu = (min(answer["cpu_seconds"] for answer in done) for done in runs.values())
    return {
        "rows": rows.pop(),
        "landing": min(answer["landing"] for answer in runs[OURS]),
        "classifying": min(answer["classifying"] for answer in runs[OURS]),
        "floor": floor_wall,
        "wall_ratio": our_wall / floor_wall,
        "cpu_ratio": our_cpu / floor_cpu,
        "peak_gb": max(answer["peak_gb"] for answer in runs[OURS]),
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """The figures of `measure_both` beside their targets."""
    return [
        Figure("landing", found["landing"], "s"),
        Figure("classifying", found["classifying"], "s"),
        Figure("the same CSV to Parquet by polars", found["floor"], "s"),
        Figure("landing and classifying against polars", found["wall_ratio"], "x", MOST),
        Figure("landing and classifying against polars, processor time", found["cpu_ratio"], "x"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument(OURS, type=Path, help=argparse.SUPPRESS)
    parser.add_argument(FLOOR, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours or options.floor:
        print(json.dumps(ours(options.ours) if options.ours else floor(options.floor)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure_both(Path(folder), options.tickers, options.years, options.repeats)
    if options.json:
        print(json.dumps({**found, "figures": [figure.as_json() for figure in figures(found)]}))
        return
    print(f"{found['rows']:,} rows\n", file=sys.stderr)
    print_figures(figures(found))


if __name__ == "__main__":
    main()
