"""Measure what the registration of many partitions in Glue costs: calls, and processor seconds of the client, against moto.

Belongs here: partitions by number, registered, looked at again, compared one by one, and extended by a year. That what is
registered is right is for the tests.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figure, print_figures, print_table
from stock_lakehouse.catalog.entries import Entry, State
from stock_lakehouse.catalog.glue import GlueCatalog
from stock_lakehouse.catalog.registration import Registration, Values, table_input
from stock_lakehouse.tables import PROCESSED
from stock_lakehouse_tests import s3

ROOT, DATABASE = "s3://bucket/lake", "bench"
LAST_YEAR = 2023
# Seconds of the client for 10,000 partitions: measured 2.0 and 1.6 when this was designed, with room for a busy machine.
FIRST, COMPARED = 4.0, 3.2


def registration(tickers: int, years: int, more: int = 0) -> Registration:
    """The processed table with a partition for each ticker and year; `more`: years after the last."""
    wanted = table_input(Entry(PROCESSED, f"{ROOT}/{PROCESSED.path}", {}))
    partitions: dict[Values, str] = {
        (f"T{ticker:05d}", str(year)): f"{ROOT}/{PROCESSED.path}/ticker=T{ticker:05d}/year={year}"
        for ticker in range(tickers)
        for year in range(LAST_YEAR - years + 1, LAST_YEAR + 1 + more)
    }
    return Registration(wanted, partitions, State(files=len(partitions), bytes=20_000 * len(partitions)))


def measure(tickers: int, years: int) -> list[dict[str, Any]]:
    """For each step its calls, write calls, and seconds of this process."""
    with s3.moto() as endpoint, s3.variables(s3.environment(endpoint)):
        catalog = GlueCatalog(DATABASE, ROOT, s3.client(endpoint, "glue"))
        whole, extended = registration(tickers, years), registration(tickers, years, more=1)

        def step(what: str, work: Callable[[], Any]) -> dict[str, Any]:
            catalog.calls.clear()
            started = time.process_time()
            work()
            seconds = time.process_time() - started
            return {
                "step": what,
                "calls": catalog.calls.total(),
                "writes": catalog.writes,
                "seconds": round(seconds, 2),
            }

        return [
            step("first", lambda: catalog.register([whole])),
            step("unchanged", lambda: catalog.register([whole])),
            step("unchanged, each compared", lambda: catalog.register([whole], verify=True)),
            step("a new year", lambda: catalog.register([extended])),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    steps = measure(options.tickers, options.years)
    share = options.tickers * options.years / 10_000
    by_step = {step["step"]: step for step in steps}
    figures = [
        Figure("calls, unchanged", by_step["unchanged"]["calls"], "calls", 1),
        Figure("write calls, unchanged", by_step["unchanged"]["writes"], "calls", 0),
        Figure("registered first", by_step["first"]["seconds"], "CPU s", FIRST * share),
        Figure("each compared", by_step["unchanged, each compared"]["seconds"], "CPU s", COMPARED * share),
    ]
    if options.json:
        print(json.dumps({"steps": steps, "figures": [figure.as_json() for figure in figures]}))
        return
    print(f"{options.tickers:,} tickers x {options.years} years\n")
    print_table(list(steps[0]), [list(step.values()) for step in steps])
    print_figures(figures)


if __name__ == "__main__":
    main()
