"""Upkeeps, and moves to another layout, that kill themselves with SIGKILL at a chosen write: a program that tests start.

As reliability/killed_runs.py, with the same points: it reads `<work> <lake root> <point> <file for the points>` a line, forks a
child that does the work, and answers with the child's wait status. `<work>` is `upkeep`, which repairs and tends the lake, or
the layout to move it to. No engine starts: these write without one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.layout import move
from stock_lakehouse.lake.maintenance import maintain_table
from stock_lakehouse.lake.staging import clear_abandoned
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import RESTATEMENTS, TABLES
from stock_lakehouse.upkeep import repair
from stock_lakehouse_tests.reliability.scenario import Points

RETENTION_DAYS = 100


def maintain(root: Path | str) -> None:
    """Every write of `stock-lakehouse upkeep --repair` but those of its run."""
    lake = Lake(LakeOptions(lake_root=root, retention_days=RETENTION_DAYS))
    repair(lake)
    for table in TABLES:
        stored = lake.stored(table.name)
        if isinstance(stored, DeltaTable):
            maintain_table(stored, None if table == RESTATEMENTS else lake.ledger)
    clear_abandoned(lake.storage)


def moved(root: Path | str, layout: Any) -> None:
    """`stock-lakehouse layout`."""
    move(Lake(LakeOptions(lake_root=root, layout=layout)))


class Program:
    """This program, started. What its children meet is written to `points_file`."""

    def __init__(self, points_file: Path) -> None:
        self.points_file = points_file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stock_lakehouse_tests.lake.killed_upkeep"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def do(self, work: str, root: Path, point: str) -> int:
        """The wait status of a child that does `work` and dies at `point`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{work} {root} {point} {self.points_file}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    @property
    def points(self) -> list[str]:
        """The points that the last child passed which was not killed."""
        points: list[str] = json.loads(self.points_file.read_text(encoding="utf-8"))
        return points

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def main() -> None:
    for line in sys.stdin:
        work, root, point, points_file = line.split()
        process = os.fork()
        if process == 0:
            code = 1
            try:
                points = Points(root, int(point) if point.isdigit() else None)
                points.install()
                maintain(root) if work == "upkeep" else moved(root, work)
                Path(points_file).write_text(json.dumps(points.seen), encoding="utf-8")
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
