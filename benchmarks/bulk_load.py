"""A whole history through all four layers in one Dagster run, then the daily increment: one more session, one more run.

Belongs here: seconds a layer, peak memory, and whether every row arrived. Each run is a process of its own, on the csv
source, `partition_by = "session"` and the embedded engine; the lake is in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import market
from benchmarks.figures import Figure, print_figures, print_table
from benchmarks.process import Measured, measure, module

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import File

LAYERS = ("raw_stocks_daily", "processed_stocks_daily", "curated_stocks_daily", "stocks_features")
MAX_GB = 2.5
MAX_INCREMENT_SECONDS = 30.0
CONFIG, HISTORY, LAST_DAY = "lakehouse.toml", "history", "last_day"  # in the folder of a market
RUN = "--one-run"  # how this module starts itself: FROM TO TICKER…; no ticker: all

Known = dict[tuple[str, str], int]  # rows of data files, by `file_key`


def one_run(first: date, last: date, tickers: Sequence[str]) -> dict[str, Any]:
    """The sessions from `first` to `last` of `tickers` (none: all) in one Dagster run in this process, on the settings in force.

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
    rectangle = PartitionScheme(settings, calendar).request(tickers or None, first, last, newest)
    report = run_rectangle(settings, rectangle, progress=progress)
    # A bulk load ends before the newest session, so its tickers are stale; nothing else may be red.
    red = [str(finding) for finding in report.red if finding.check != "stale_tickers"]
    if not report.success or red:
        raise RuntimeError(f"the run failed: {report.failures} {red}")
    return {"run": time.perf_counter() - started, "steps": dict(report.seconds)}


def write_market(folder: Path, tickers: int, sessions: Sequence[date]) -> None:
    """Write into `folder` the settings of a lake of `tickers` × `sessions`, and the CSV files of its history and last session."""
    market.write_csv(folder / HISTORY, tickers, sessions)
    market.write_last_session(folder / LAST_DAY / f"{sessions[-1]}.csv", tickers, sessions)
    lines = {
        "tickers": list(market.ticker_names(tickers)),
        "source": "csv",
        "partition_by": "session",
        "engine": "embedded",
        "lake_root": "lake",
    }
    dates = f"first_date = {sessions[0]}\nlast_date = {sessions[-1]}\n"
    (folder / CONFIG).write_text(dates + "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()))


def variables(folder: Path, source: str) -> dict[str, str]:
    """The variables of a process on the market in `folder`, to which its folder `source` is delivered."""
    return {
        "STOCK_LAKEHOUSE_CONFIG": str(folder / CONFIG),
        "STOCK_LAKEHOUSE_CSV_FOLDER": str(folder / source),
        "DAGSTER_HOME": "",
    }


def measure_run(
    env: Mapping[str, str], cwd: Path, first: date, last: date, tickers: Sequence[str] = (), *, quiet: bool
) -> Measured:
    """`one_run` in a process of its own, with `env` as `variables` returns it."""
    return measure(module("bulk_load", RUN, first, last, *tickers), env=env, cwd=cwd, quiet=quiet)


def measure_loads(folder: Path, tickers: int, years: int, quiet: bool) -> dict[str, Any]:
    """Bulk load and increment of `tickers` × `years`, in `folder`; the rows are compared with what was generated."""
    from stock_lakehouse.lake import Lake

    sessions = market.sessions_until(market.LAST_SESSION, years)
    write_market(folder, tickers, sessions)
    loads = {}
    for name, source, first, last, end in (
        ("bulk load", HISTORY, sessions[0], sessions[-2], len(sessions) - 1),
        ("daily increment", LAST_DAY, sessions[-1], sessions[-1], len(sessions)),
    ):
        measured = measure_run(variables(folder, source), folder, first, last, quiet=quiet)
        lake = Lake(folder / "lake")
        rows, sizes = check_rows(lake, dict.fromkeys(LAYERS, tickers * end)), sizes_of(lake)
        loads[name] = {
            "seconds": measured.seconds,
            "cpu_seconds": measured.cpu_seconds,
            "peak_gb": measured.peak_gb,
            "steps": measured.answer["steps"],
            "tables": {
                layer: {"rows": rows[layer], "files": len(sizes[layer]), "bytes": sum(sizes[layer])} for layer in LAYERS
            },
        }
    return loads


def check_rows(lake: Lake, expected: Mapping[str, int], known: Known | None = None) -> dict[str, int]:
    """Rows of each layer. Raises RuntimeError unless they are as `expected`, and quarantine has none.

    `known`: the rows of files that an earlier call counted; files that this call counts are added to it.
    """
    import pyarrow.parquet as pq

    storage, known = lake.storage, {} if known is None else known

    def rows_in(files: Collection[File], count: Callable[[str], int]) -> int:
        for file in files:
            if file_key(file) not in known:
                known[file_key(file)] = count(file.path)
        return sum(known[file_key(file)] for file in files)

    rows = {
        LAYERS[0]: rows_in(lake.raw.files(), lambda path: storage.read(path).count(b"\n") - 1),
        LAYERS[1]: rows_in(lake.processed.files(), lambda path: int(pq.read_metadata(storage.ranged(path)).num_rows)),
        LAYERS[2]: lake.curated.open().count(),
        LAYERS[3]: lake.features.open().count(),
    }
    if rows != expected or lake.quarantine.files():
        raise RuntimeError(f"{dict(expected)} rows were expected, not {rows}; quarantine: {lake.quarantine.files()}")
    return rows


def file_key(file: File) -> tuple[str, str]:
    """The key of a file among those that are known: a change of its content changes the key."""
    return file.path, file.version_tag


def sizes_of(lake: Lake) -> dict[str, list[int]]:
    """Bytes of each data file, by layer."""
    return {layer: lake.stored(layer).sizes() for layer in LAYERS}


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
    parser.add_argument(RUN, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_run:
        first, last, *tickers = options.one_run
        print(json.dumps(one_run(date.fromisoformat(first), date.fromisoformat(last), tickers)))
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
