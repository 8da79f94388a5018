"""A whole history through all four layers in one Dagster run, then the daily increment: one more session, one more run.

Belongs here: seconds a layer, peak memory, and whether every row arrived. Each run is a process of its own, on the csv
source, `partition_by = "session"` and the embedded engine; the lake is in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import market
from benchmarks.figures import Figure, print_figures, print_table
from benchmarks.process import Measured, measure, module

LAYERS = ("raw_stocks_daily", "processed_stocks_daily", "curated_stocks_daily", "stocks_features")
MAX_GB = 2.5
MAX_INCREMENT_SECONDS = 30.0
RUN = "--one-run"  # how this module starts itself: FROM TO


def one_run(first: date, last: date) -> dict[str, Any]:
    """The sessions from `first` to `last` in one Dagster run in this process, on the settings in force.

    Progress goes to standard error. Raises RuntimeError when the run or a check of it fails.
    """
    from stock_lakehouse.market_calendar import utc_now
    from stock_lakehouse.partitions import PartitionScheme
    from stock_lakehouse.runs.run import run_rectangle
    from stock_lakehouse.settings import load_settings

    started = time.perf_counter()

    def progress(line: str) -> None:
        print(f"{time.perf_counter() - started:7.1f} s  {line}", file=sys.stderr, flush=True)

    settings = load_settings()
    calendar = settings.calendar
    newest = calendar.latest_finished(utc_now(), settings.grace)
    rectangle = PartitionScheme(settings, calendar).request(None, first, last, newest)
    report = run_rectangle(settings, rectangle, progress=progress)
    # A bulk load ends before the newest session, so its tickers are stale; nothing else may be red.
    red = [str(finding) for finding in report.red if finding.check != "stale_tickers"]
    if not report.success or red:
        raise RuntimeError(f"the run failed: {report.failures} {red}")
    return {"run": time.perf_counter() - started, "steps": dict(report.seconds)}


def measure_loads(folder: Path, tickers: int, years: int, quiet: bool) -> dict[str, Any]:
    """Bulk load and increment of `tickers` × `years`, in `folder`; the rows are compared with what was generated."""
    sessions = market.sessions_until(market.LAST_SESSION, years)
    history, increment = folder / "history", folder / "increment"
    market.write_csv(history, tickers, sessions)
    market.write_last_session(increment / f"{sessions[-1]}.csv", tickers, sessions)
    config = folder / "lakehouse.toml"
    lines = {
        "tickers": list(market.ticker_names(tickers)),
        "source": "csv",
        "partition_by": "session",
        "engine": "embedded",
        "lake_root": "lake",
    }
    dates = f"first_date = {sessions[0]}\nlast_date = {sessions[-1]}\n"
    config.write_text(dates + "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()))

    def run(source: Path, first: date, last: date) -> Measured:
        env = {"STOCK_LAKEHOUSE_CONFIG": str(config), "STOCK_LAKEHOUSE_CSV_FOLDER": str(source), "DAGSTER_HOME": ""}
        return measure(module("bulk_load", RUN, first, last), env=env, cwd=folder, quiet=quiet)

    loads = {}
    for name, source, first, last, end in (
        ("bulk load", history, sessions[0], sessions[-2], len(sessions) - 1),
        ("daily increment", increment, sessions[-1], sessions[-1], len(sessions)),
    ):
        measured = run(source, first, last)
        loads[name] = {
            "seconds": measured.seconds,
            "cpu_seconds": measured.cpu_seconds,
            "peak_gb": measured.peak_gb,
            "steps": measured.answer["steps"],
            "tables": _tables(config, tickers * end),
        }
    return loads


def _tables(config: Path, rows: int) -> dict[str, dict[str, int]]:
    """Rows, files and bytes of each layer. Raises RuntimeError unless each holds `rows` rows and quarantine holds none."""
    import deltalake
    import pyarrow.parquet as pq

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import load_settings

    with mock.patch.dict(os.environ, {"STOCK_LAKEHOUSE_CONFIG": str(config)}):
        options = load_settings(csv_folder=config.parent).lake_options
    lake, lake_root = Lake(options), config.parent / "lake"
    counted = {
        LAYERS[0]: sum((lake_root / file.path).read_bytes().count(b"\n") - 1 for file in lake.raw.files()),
        LAYERS[1]: sum(pq.read_metadata(lake_root / file.path).num_rows for file in lake.processed.files()),
        LAYERS[2]: deltalake.DeltaTable(lake.curated.path).count(),
        LAYERS[3]: deltalake.DeltaTable(lake.features.path).count(),
    }
    wrong = {name: number for name, number in counted.items() if number != rows}
    if wrong or lake.quarantine.files():
        raise RuntimeError(
            f"{rows} rows were generated, but: {wrong}, {len(lake.quarantine.files())} files in quarantine"
        )
    sizes = {name: lake.stored(name).sizes() for name in LAYERS}
    return {name: {"rows": counted[name], "files": len(sizes[name]), "bytes": sum(sizes[name])} for name in LAYERS}


def figures(loads: dict[str, Any]) -> list[Figure]:
    """The figures of `measure_loads` beside their targets."""
    bulk, increment = loads["bulk load"], loads["daily increment"]
    return [
        Figure("bulk load, one run", bulk["seconds"], "s"),
        Figure("bulk load, peak memory", bulk["peak_gb"], "GB", MAX_GB),
        Figure("daily increment, one run", increment["seconds"], "s", MAX_INCREMENT_SECONDS),
        Figure("daily increment, peak memory", increment["peak_gb"], "GB", MAX_GB),
    ]


def _print(loads: dict[str, Any]) -> None:
    for name, load in loads.items():
        steps = load["steps"]
        rows: list[Sequence[Any]] = [(layer, float(steps[layer]), *load["tables"][layer].values()) for layer in LAYERS]
        rows += [(step, float(seconds), "", "", "") for step, seconds in steps.items() if step not in LAYERS]
        rows.append(("process start, and between the steps", load["seconds"] - sum(steps.values()), "", "", ""))
        print_table((name, "seconds", "rows", "files", "bytes"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--progress", action="store_true", help="show what the runs say, with seconds")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in and to keep")
    parser.add_argument(RUN, nargs=2, type=date.fromisoformat, metavar=("FROM", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_run:
        print(json.dumps(one_run(*options.one_run)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        loads = measure_loads(folder.absolute(), options.tickers, options.years, quiet=not options.progress)
    found = figures(loads)
    if options.json:
        print(json.dumps({"figures": [one.as_json() for one in found], "loads": loads}))
        return
    _print(loads)
    print_figures(found)


if __name__ == "__main__":
    main()
