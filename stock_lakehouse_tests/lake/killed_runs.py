"""Runs that kill themselves with SIGKILL at a chosen write: a program that test_kill.py starts.

It reads a line a run from standard input, `<lake root> <point> <file for the points>`, forks a child that makes the second run
of the scenario, and answers with the child's wait status. Everything is imported once; the engine starts in the child, since
a process with a running engine cannot fork. `point` is `none` (the run is not disturbed), `N` (die at the N-th point) or
`after:SECONDS`. Points are counted around every call that can change a lake, without a change in the product.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import deltalake
import deltalake.table
from pyspark.sql.connect.readwriter import DataFrameWriter

from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake import lease
from stock_lakehouse.lake.storage import Bucket, LakeRoot, lake_root
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse_tests.graph import (
    NOW,
    TICKERS,
    Bars,
    Clocked,
    clocked,
    edited,
    history,
    rectangle,
    run,
    year_boundary,
)

SECOND = NOW + timedelta(days=1)
SESSIONS = year_boundary(40, 21)
DAYS, NEW_SESSION = SESSIONS[:-1], SESSIONS[-1]
DEAD_AFTER_SECONDS = 2.0
WITHDRAWN_RUN = "cccccccc-run"


def first_deliveries() -> tuple[Bars, Bars]:
    """What the first run lands; and what a run beside it lands whose files an operator removes before the second run."""
    bars = history(TICKERS, DAYS)
    bars["BBB", DAYS[3]]["volume"] = "-1"  # quarantined for good
    removed = {key: bars.pop(key) for key in list(bars) if key[0] == "CCC" and key[1].year == 2020}
    return bars, removed


def second_delivery() -> list[dict[str, str | None]]:
    """A correction in each of two tickers, a new session, and rows that end in the quarantine."""
    bars = history(TICKERS, SESSIONS)
    price = repr(float(bars["AAA", DAYS[15]]["close"] or 0) * 1.002)
    changed = edited(edited(bars, ("AAA", DAYS[15]), close=price), ("BBB", DAYS[45]), volume="99")
    new = [changed["AAA", DAYS[15]], changed["BBB", DAYS[45]], bars["AAA", NEW_SESSION], bars["BBB", NEW_SESSION]]
    bad: list[dict[str, str | None]] = [
        {**bars["AAA", DAYS[20]], "close": None},
        {**bars["AAA", DAYS[50]], "high": "0.01"},
        {**bars["BBB", DAYS[5]], "open": "n/a"},
        {"ticker": None, "problem": "file.csv, line 7: 3 fields", "line": "a,b,c"},
    ]
    return new + bad


def asked() -> Rectangle:
    return rectangle(SESSIONS, TICKERS)


def prepare(house: Clocked) -> None:
    """The lake as it stands before the second run."""
    bars, removed = first_deliveries()
    run(house, rectangle(DAYS, TICKERS), bars.values(), "11111111-run")
    run(house, rectangle([day for _, day in removed], ["CCC"]), removed.values(), WITHDRAWN_RUN)
    house.lake.storage.delete(file.path for file in house.lake.raw.files() if "_cccccccc.csv" in file.name)


def second_run(house: Clocked, run_id: str) -> None:
    house._at = SECOND
    run(house, asked(), second_delivery(), run_id)


class Points:
    """Counts the moments before and after each write below `root`, and dies at the one of number `at`."""

    def __init__(self, root: LakeRoot, at: int | None) -> None:
        self.root = f"{root}/"
        self.at = at
        self.seen: list[str] = []

    def reach(self, name: str) -> None:
        if self.at == len(self.seen):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        self.seen.append(name)

    def around(self, owner: Any, name: str, place: Callable[..., Any]) -> None:
        """Make points before and after `owner.name`; `place` gives the path it writes from the call's arguments."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            path = str(place(*args, **kwargs))
            parts = path.removeprefix(self.root).split("/")
            # Leases are renewed by a clock: their points would not be the same in every run.
            if not path.startswith(self.root) or parts[0] == ".locks":
                return original(*args, **kwargs)
            where = ".staging" if parts[0] == ".staging" else "/".join(parts[:2])
            self.reach(f"before {name} {where}")
            result = original(*args, **kwargs)
            self.reach(f"after {name} {where}")
            return result

        setattr(owner, name, wrapped)

    def install(self) -> None:
        self.around(os, "replace", lambda source, target: target)
        self.around(pathlib.Path, "unlink", lambda path, missing_ok=False: path)
        self.around(pathlib.Path, "write_bytes", lambda path, content: path)
        self.around(Bucket, "put", lambda bucket, path, content, there: bucket.uri(path))
        self.around(Bucket, "delete", lambda bucket, paths: bucket.uri(next(iter(paths), ".locks/none")))
        self.around(DataFrameWriter, "save", lambda writer, path, *args, **kwargs: path)
        self.around(deltalake.DeltaTable, "create", lambda path, *args, **kwargs: path)
        self.around(deltalake.DeltaTable, "delete", lambda table, *args: table.table_uri.removeprefix("file://"))
        self.around(deltalake.DeltaTable, "restore", lambda table, *args: table.table_uri.removeprefix("file://"))
        for name in ("repair", "create_checkpoint"):
            self.around(deltalake.DeltaTable, name, lambda table, *args: table.table_uri.removeprefix("file://"))
        for owner, names in (
            (deltalake.table.TableAlterer, ("add_columns", "set_table_properties")),
            (deltalake.table.TableOptimizer, ("compact",)),
        ):
            for name in names:
                self.around(owner, name, lambda of, *args, **kwargs: of.table.table_uri.removeprefix("file://"))


def child(root: LakeRoot, point: str, points_file: Path) -> None:
    lease.SECONDS = DEAD_AFTER_SECONDS  # what a killed child holds is waited for by the next run
    points = Points(root, int(point) if point.isdigit() else None)
    with spark_session("embedded") as spark:
        points.install()
        if point.startswith("after:"):
            timer = threading.Timer(float(point.removeprefix("after:")), os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        began = time.monotonic()
        second_run(clocked(root, spark), "dddddddd-run")
        points_file.write_text(
            json.dumps({"points": points.seen, "seconds": time.monotonic() - began}), encoding="utf-8"
        )


def main() -> None:
    assert isinstance(DAYS[0], date)
    for line in sys.stdin:
        root, point, points_file = line.split()
        process = os.fork()
        if process == 0:
            code = 1
            try:
                child(lake_root(root), point, Path(points_file))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        print(status, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
