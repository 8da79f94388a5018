"""What a newcomer waits for: `stock-lakehouse demo` in a fresh folder and again, `--help`, and loading the code location.

Belongs here: wall time of whole commands, each in a process of its own, in seconds and as a multiple of
`python -c "import dagster"` on the same machine. Installation is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, print_figures, print_table
from benchmarks.process import ROOT, Measured, measure

PROGRAM = [sys.executable, "-c", "from stock_lakehouse.cli import main; main()"]
CALIBRATION = [sys.executable, "-c", "import dagster"]
LOCATION = [sys.executable, "-c", "import stock_lakehouse.definitions as d; d.defs().get_repository_def()"]
MAX_DEMO, MAX_HELP, MAX_LOCATION, MAX_GB = 45.0, 0.5, 2.5, 2.5


def measure_commands(folder: Path, settings: dict[str, str], repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of each command, run in `folder` on the repository's lakehouse.toml and `settings`.

    The demo runs once in the fresh folder and once again; of the short commands the best of `repeats` counts.
    """
    shutil.copy(ROOT / "lakehouse.toml", folder)
    # Whatever this shell has set would otherwise choose another lake.
    chosen = [name for name in os.environ if name.startswith("STOCK_LAKEHOUSE_")]
    if chosen:
        raise RuntimeError(f"unset {', '.join(chosen)} first: the demo is measured on its defaults")
    env = {**settings, "DAGSTER_HOME": ""}

    def run(command: Sequence[str], times: int = 1) -> Measured:
        measured = [measure(command, env=env, cwd=folder) for _ in range(times)]
        return min(measured, key=lambda one: one.seconds)

    found = {
        "import dagster": run(CALIBRATION, repeats),
        "--help": run([*PROGRAM, "--help"], repeats),
        "code location": run(LOCATION, repeats),
        "first demo": run([*PROGRAM, "demo"]),
        "second demo": run([*PROGRAM, "demo"]),
    }
    said = {
        "first demo": "Nothing changed" in found["first demo"].out,
        "second demo": "Nothing changed" in found["second demo"].out,
    }
    if said != {"first demo": False, "second demo": True}:
        raise RuntimeError(f"whether a demo said that nothing changed: {said}")
    unit = found["import dagster"].seconds
    return {
        name: {
            "seconds": one.seconds,
            "cpu_seconds": one.cpu_seconds,
            "ratio": one.seconds / unit,
            "peak_gb": one.peak_gb,
        }
        for name, one in found.items()
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """The figures of `measure_commands` beside their targets."""
    limits = {"first demo": MAX_DEMO, "second demo": None, "--help": MAX_HELP, "code location": MAX_LOCATION}
    seconds = [Figure(name, found[name]["seconds"], "s", limit) for name, limit in limits.items()]
    return [*seconds, Figure("first demo, peak memory", found["first demo"]["peak_gb"], "GB", MAX_GB)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=6, help="the first of the sample's six")
    parser.add_argument("--years", type=int, help="the last of the sample; all if left out")
    parser.add_argument("--repeats", type=int, default=3, help="of the short commands; the best counts")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    options = parser.parse_args()

    from stock_lakehouse.sources.sample import TICKERS

    settings = {"STOCK_LAKEHOUSE_TICKERS": ",".join(TICKERS[: options.tickers])}
    if options.years:
        settings["STOCK_LAKEHOUSE_FIRST_DATE"] = f"{2023 - options.years}-09-21"
    with tempfile.TemporaryDirectory() as folder:
        found = measure_commands(Path(folder), settings, options.repeats)
    if options.json:
        print(json.dumps({"figures": [one.as_json() for one in figures(found)], "commands": found}))
        return
    rows = [(name, *map(float, one.values())) for name, one in found.items()]
    print_table(("command", "seconds", "CPU seconds", "× import dagster", "GB"), rows)
    print_figures(figures(found))


if __name__ == "__main__":
    main()
