"""Runs of the scenario in processes of their own that kill themselves with SIGKILL at a chosen write: a program and its handle.

It reads a line a fault from standard input, `<lake root> <file for the points> <point> ...`, and forks a child a point that makes
the second run of the scenario: all of it if it is alone, else its share. It answers with the children's wait statuses; each
writes what it met into a file of its number. Everything
is imported once; the engine starts in the child, since a process with a running engine cannot fork. A point is `none` (the run is
not disturbed), `N` (die at the N-th point), its name with + for spaces (die at the first of it) or `after:SECONDS`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake import lease
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse_tests.graph import clocked
from stock_lakehouse_tests.reliability.scenario import ASKED, SHARES, Points, die, second_run

DEAD_AFTER_SECONDS = 2.0
LAYOUT = "KILLED_RUNS_LAYOUT"  # the variable with the layout of the runs' lakes


def child(root: LakeRoot, points_file: Path, point: str, asked: Rectangle, run_id: str) -> None:
    lease.SECONDS = DEAD_AFTER_SECONDS  # what a killed child holds is waited for by the next run

    def tell_and_die(place: str) -> None:
        points_file.write_text(json.dumps({"died": place}), encoding="utf-8")
        die(place)

    points = Points(root, int(point) if point.isdigit() else point.replace("+", " "), tell_and_die)
    with spark_session("embedded") as spark:
        points.install()
        if point.startswith("after:"):
            timer = threading.Timer(float(point.removeprefix("after:")), os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        began = time.monotonic()
        second_run(clocked(root, spark, layout=os.environ.get(LAYOUT, "ticker_year")), run_id, asked)
        facts = {"points": points.seen, "seconds": time.monotonic() - began}
        points_file.write_text(json.dumps(facts), encoding="utf-8")


def fork(root: LakeRoot, points_file: Path, point: str, asked: Rectangle, run_id: str) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            child(root, points_file, point, asked, run_id)
            code = 0
        finally:
            if code:
                traceback.print_exc()
                error = sys.exc_info()[1]
                kinds = [kind.__name__ for kind in type(error).__mro__]
                points_file.write_text(json.dumps({"failed": kinds, "said": str(error)}), encoding="utf-8")
            os._exit(code)
    return process


class Program:
    """This program, started. What its runs meet is written below `folder`; `variables` are added to its environment."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STOCK_LAKEHOUSE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stock_lakehouse_tests.reliability.killed_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**environment, **(variables or {})},
        )

    def second_run(self, root: LakeRoot, *points: str) -> list[int]:
        """The wait status of a second run at `root` that dies at its point, or of several at once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{root} {self.folder / 'points.json'} {' '.join(points)}\n")
        self._process.stdin.flush()
        return [int(status) for status in self._process.stdout.readline().split()]

    def facts(self, number: int = 0) -> dict[str, Any]:
        """What the child of that number met: `points` and `seconds`, or where it `died`, or what `failed`."""
        facts: dict[str, Any] = json.loads((self.folder / f"points.json.{number}").read_text(encoding="utf-8"))
        return facts

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def main() -> None:
    for line in sys.stdin:
        root, points_file, *points = line.split()
        shares = SHARES if len(points) > 1 else (ASKED,)
        children = [
            fork(
                LakeOptions.of(root).lake_root, Path(f"{points_file}.{number}"), point, share, f"ddddddd{number:x}-run"
            )
            for number, (point, share) in enumerate(zip(points, shares, strict=False))
        ]
        print(*(os.waitpid(process, 0)[1] for process in children), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
