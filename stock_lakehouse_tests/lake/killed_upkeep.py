"""Upkeeps that kill themselves with SIGKILL at a chosen write: a program that test_killed_upkeep.py starts.

As reliability/killed_runs.py, with the same points: it reads `<lake root> <point> <file for the points>` a line, forks a child
that repairs and tends the lake, and answers with the child's wait status. No engine starts: upkeep writes without one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.maintenance import tend
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
            tend(stored, None if table == RESTATEMENTS else lake.ledger)
    clear_abandoned(lake.storage)


def main() -> None:
    for line in sys.stdin:
        root, point, points_file = line.split()
        process = os.fork()
        if process == 0:
            code = 1
            try:
                points = Points(root, int(point) if point.isdigit() else None)
                points.install()
                maintain(root)
                Path(points_file).write_text(json.dumps(points.seen), encoding="utf-8")
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
