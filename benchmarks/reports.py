"""The reports on DuckDB: with the serving copy as `query` runs them, and the same SQL over the Delta tables' own files.

Belongs here: processor seconds, rows and the ratio of both ways in one run, each in a process of its own. The lake is that of
benchmarks/serving.py. Not here: what the serving copy itself costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, print_figures, print_table
from benchmarks.process import measure, module
from benchmarks.serving import FILL, lake_in

REPORT_SECONDS, TIMES_FASTER = 0.4, 15.0
ASK = "--ask"  # how this module starts itself: FOLDER
LATEST = "latest row of all tickers"
NEWEST_ROWS = """
SELECT f.* FROM stocks_features AS f
JOIN (SELECT ticker, max(date) AS date FROM stocks_features GROUP BY ticker) AS n ON n.ticker = f.ticker AND n.date = f.date
"""
# These have a row a session or a window over all bars, so the goal is not for them.
OF_ALL_BARS = ("comparative_performance", "dashboard_daily", "drawdown", "volume_spikes")


def questions() -> dict[str, str]:
    from stock_lakehouse.sql.reports import reports

    return {LATEST: NEWEST_ROWS, **{name: report.sql for name, report in reports().items()}}


def ask(folder: Path, on_copy: bool) -> dict[str, dict[str, float]]:
    """Processor seconds and rows of each question: parsing, opening the log and naming the files included, imports not."""
    from stock_lakehouse.sql.choose import local_engine

    lake = lake_in(folder)
    engine = local_engine(lake)
    engine.run("SELECT count(*) AS n FROM corporate_actions")
    found = {}
    for name, sql in questions().items():
        began = time.process_time()
        rows = engine.run(sql).rows.num_rows if on_copy else over_delta_files(lake, sql)
        found[name] = {"seconds": time.process_time() - began, "rows": rows}
    return found


def over_delta_files(lake: Any, sql: str) -> int:
    """The number of rows of a question over the files that the Delta log names."""
    import duckdb

    from stock_lakehouse.sql.dialect import translate
    from stock_lakehouse.tables import BY_NAME

    translation = translate(sql, BY_NAME)
    with duckdb.connect() as database:
        for name in translation.tables:
            files = lake.delta[name].open().file_uris()
            # A column that was added later is in some files only.
            database.read_parquet(files, hive_partitioning=True, union_by_name=True).create_view(name)
        return int(database.execute(translation.sql).to_arrow_table().num_rows)


def measure_all(folder: Path, tickers: int, years: int) -> dict[str, Any]:
    """All figures. Raises RuntimeError if the two ways give other numbers of rows."""
    measure(module("serving", FILL, folder, "--tickers", tickers, "--years", years))
    measure(module("reports", ASK, folder))  # makes the serving copy
    copy, delta = measure(module("reports", ASK, folder)), measure(module("reports", ASK, folder, "--delta"))
    for name in copy.answer:
        if copy.answer[name]["rows"] != delta.answer[name]["rows"]:
            raise RuntimeError(f"{name}: {copy.answer[name]} {delta.answer[name]}")
    return {"copy": copy.answer, "delta": delta.answer, "peak_gb": copy.peak_gb, "peak_gb_delta": delta.peak_gb}


def figures(found: dict[str, Any]) -> list[Figure]:
    """The figures of `measure_all` beside their targets, in processor seconds."""
    copy, delta = found["copy"], found["delta"]
    of_reports = [
        Figure(f"{name}, serving copy", copy[name]["seconds"], "s", None if name in OF_ALL_BARS else REPORT_SECONDS)
        for name in copy
    ]
    ratio = delta[LATEST]["seconds"] / copy[LATEST]["seconds"]
    return [
        *of_reports,
        Figure(f"{LATEST}: times faster than over the Delta files", ratio, "x", TIMES_FASTER, at_least=True),
        Figure("peak memory", found["peak_gb"], "GB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument(ASK, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--delta", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask(options.ask, on_copy=not options.delta)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure_all(Path(folder), options.tickers, options.years)
    if options.json:
        print(json.dumps({**found, "figures": [figure.as_json() for figure in figures(found)]}))
        return
    copy, delta = found["copy"], found["delta"]
    rows = [
        (
            *(name, f"{copy[name]['rows']:,}", f"{copy[name]['seconds']:.2f}", f"{delta[name]['seconds']:.2f}"),
            f"{delta[name]['seconds'] / copy[name]['seconds']:.1f}",
        )
        for name in copy
    ]
    print_table(("question", "rows", "serving copy, s", "Delta files, s", "times faster"), rows)
    print_figures(figures(found))


if __name__ == "__main__":
    main()
