"""`python -m benchmarks`: every benchmark, one after another, and one table of their figures beside the targets.

Belongs here: which benchmarks there are, and their sizes. What each measures is in its module.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from benchmarks.figures import Figure, print_figures
from benchmarks.process import measure, module

# Per module: arguments of the full and of the small size.
BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "demo": ([], ["--tickers", "2", "--years", "2", "--repeats", "1"]),
    "event_log": ([], ["--keys", "1200", "--stock-keys", "60"]),
    "features": ([], ["--tickers", "50", "--years", "10", "--repeats", "1"]),
    "floor": ([], ["--tickers", "20", "--years", "5"]),
    "bulk_load": ([], ["--tickers", "10", "--years", "2"]),
    "engines": (["--chart"], ["--tickers", "5", "10", "--years", "4", "--repeats", "1"]),
    "backfill": ([], ["--tickers", "6", "--years", "2", "--chunk", "1000"]),
    "aging": ([], ["--tickers", "20", "--years", "2", "--days", "60"]),
    "catalog": ([], ["--tickers", "50"]),
    "serving": ([], ["--tickers", "50", "--years", "5"]),
    "reports": ([], ["--tickers", "50", "--years", "10"]),
    "dashboard": ([], ["--tickers", "10", "--years", "5"]),
    "stream": ([], ["--messages", "20000", "--seconds", "10", "--batches", "50"]),
    "growth": (["--chart"], ["--tickers", "10", "20", "--years", "2"]),
    "layouts": ([], ["--tickers", "10", "--years", "2"]),
}
LONG = ("aging", "growth", "layouts")  # an hour or more each at full size: only where they are named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="minutes, not half an hour; the targets are for full size")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="one of them; may be given again")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    answers, figures = {}, []
    for name in options.only or [name for name in BENCHMARKS if name not in LONG]:
        started = time.monotonic()
        answer = measure(module(name, "--json", *BENCHMARKS[name][options.small])).answer
        answers[name] = answer
        stored = [{key: value for key, value in one.items() if key != "met"} for one in answer["figures"]]
        figures += [Figure(**one) for one in stored]
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    if options.json:
        print(json.dumps({"cores": os.cpu_count(), "load": load, "small": options.small, **answers}))
        return
    print(
        f"{os.cpu_count()} cores, load {load:.1f} at the end",
        "(small: targets are for full size)" * options.small,
        "\n",
    )
    print_figures(figures)
    if "features" in answers and not answers["features"]["java"]:
        print("Left out: the features ratio. There is no Java on PATH or in JAVA_HOME.")


if __name__ == "__main__":
    main()
