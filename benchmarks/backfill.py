"""`stock-lakehouse backfill` in chunks and in one run, and one more day: what stopping between runs costs.

Belongs here: seconds, processor time and peak memory of the program as a user starts it, on generated CSV files. Sizes
beyond 100,000 keys use `partition_by = "session"`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import market
from benchmarks.figures import Figure, print_figures
from benchmarks.process import Measured, measure
from stock_lakehouse.partitions import MAX_KEYS


def measure_backfills(folder: Path, tickers: int, years: int, chunk: int, quiet: bool) -> dict[str, Measured]:
    """A backfill of all but the last session in chunks, one in one run, and then the last session on the second lake."""
    sessions = market.sessions_until(market.LAST_SESSION, years)
    market.write_csv(folder / "history", tickers, sessions)
    market.write_last_session(folder / "history" / "last.csv", tickers, sessions)
    by = "session" if tickers * len(sessions) > MAX_KEYS else "date_ticker"
    (folder / "lakehouse.toml").write_text(
        f"tickers = {json.dumps(market.ticker_names(tickers))}\nfirst_date = {sessions[0]}\nlast_date = {sessions[-1]}\n"
        f'source = "csv"\ncsv_folder = "history"\npartition_by = "{by}"\n'
    )

    def backfill(lake: str, last: date, bars: int) -> Measured:
        env = {"STOCK_LAKEHOUSE_LAKE_ROOT": str(folder / lake), "DAGSTER_HOME": ""}
        program = [sys.executable, "-m", "stock_lakehouse.cli", "backfill", "--chunk", str(bars), "--to", str(last)]
        done = measure(program, env=env, cwd=folder, quiet=quiet)
        if "The lake holds all of it." not in done.out:
            raise RuntimeError(done.out)
        return done

    return {
        "in chunks": backfill("chunked", sessions[-2], chunk),
        "in one run": backfill("whole", sessions[-2], 0),
        "one more day": backfill("whole", sessions[-1], 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=100)
    parser.add_argument("--years", type=int, default=10, help="of 252 sessions")
    parser.add_argument("--chunk", type=int, default=50_000, help="bars a run")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument("--progress", action="store_true", help="show what the runs say, with seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure_backfills(
            Path(folder), options.tickers, options.years, options.chunk, quiet=not options.progress
        )
    bars = options.tickers * (options.years * 252 - 1)
    figures: list[Figure] = []
    for name, one in found.items():
        figures.append(Figure(f"backfill {name}", one.seconds, "s"))
        figures.append(Figure(f"backfill {name}, processor time", one.cpu_seconds, "s"))
        figures.append(Figure(f"backfill {name}, peak memory", one.peak_gb, "GB"))
    for name in ("in chunks", "in one run"):
        figures.append(Figure(f"backfill {name}, bars a second", bars / found[name].seconds, ""))
    if options.json:
        answer: dict[str, Any] = {"figures": [one.as_json() for one in figures], "bars": bars}
        print(json.dumps(answer))
        return
    print_figures(figures)


if __name__ == "__main__":
    main()
