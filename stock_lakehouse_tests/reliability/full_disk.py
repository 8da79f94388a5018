"""The second run of the scenario on a disk that is full from one moment on; a program that test_full_disk.py starts where the
folder it is given is a small disk of its own.

`runs FOLDER POINT ...` makes a run a point, `all` for every one, and prints a line of JSON for each; `program FOLDER KILOBYTES
...` starts the program with that much space left. Not here: what the lines must say.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import deltalake
from pyspark.sql import SparkSession

from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake.storage import StorageError
from stock_lakehouse.tables import FEATURES
from stock_lakehouse_tests.graph import clocked
from stock_lakehouse_tests.reliability.scenario import Points, heal, prepare, second_run
from stock_lakehouse_tests.reliability.states import (
    State,
    assert_old_or_new,
    assert_the_ledger_has_no_line_in_vain,
    assert_the_ledger_is_what_changed,
)


def fill(ballast: Path, leave: int = 0) -> None:
    """Write `ballast` until `leave` bytes of its disk are free."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while leave == 0 or free(ballast) - leave > size:
                    file.write(b"\0" * size)
            except OSError:
                continue


def free(place: Path) -> int:
    facts = os.statvfs(place)
    return facts.f_bavail * facts.f_frsize


@dataclasses.dataclass
class Met:
    """What a run on a disk that was full from `place` on came to."""

    place: str
    error: str | None
    rows_lost: int
    seconds: float


class Disk:
    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark = folder, spark
        prepare(clocked(folder / "prepared", spark))
        self.old = State.of(folder / "prepared", spark)
        root = self.copy("undisturbed")
        points = self.run(root, None)
        self.places = points.seen
        self.new = State.of(root, spark)
        shutil.rmtree(root)

    def copy(self, name: str) -> Path:
        shutil.copytree(self.folder / "prepared", self.folder / name, copy_function=shutil.copy2)
        return self.folder / name

    def run(self, root: Path, at: int | str | None) -> Points:
        points = Points(root, at, lambda place: fill(self.folder / "ballast"))
        undo: list[Any] = []

        def patch(owner: Any, name: str, value: Any) -> None:
            undo.append((owner, name, getattr(owner, name) if not isinstance(owner, type) else owner.__dict__[name]))
            setattr(owner, name, value)

        points.install(patch)
        house = clocked(root, self.spark)
        try:
            second_run(house, "dddddddd-run")
        finally:
            for owner, name, before in undo:
                setattr(owner, name, before)
            house.teardown_after_execution(None)  # type: ignore[arg-type]
        return points

    def check(self, at: int | str) -> Met:
        root, error = self.copy("lake"), None
        try:
            self.run(root, at)
        except StorageError as told:
            error = str(told)
        (self.folder / "ballast").unlink(missing_ok=True)
        assert_old_or_new(self.old, State.of(root, self.spark), self.new)
        house = clocked(root, self.spark)
        assert_the_ledger_is_what_changed(house)
        seconds = heal(house)
        healed = State.of(root, self.spark)
        lost = healed.lost_of(self.new)
        assert healed == self.new
        assert_the_ledger_has_no_line_in_vain(house)
        shutil.rmtree(root)
        return Met(self.places[at] if isinstance(at, int) else at, error, lost, seconds)


def runs(folder: Path, asked: list[str]) -> None:
    with spark_session("embedded") as spark:
        disk = Disk(folder, spark)
        points: list[int | str] = list(range(len(disk.places))) if asked == ["all"] else list(asked)
        for at in points:
            print(json.dumps(dataclasses.asdict(disk.check(at))), flush=True)  # noqa: T201


def program(folder: Path, kilobytes: list[str]) -> None:
    command = [str(Path(sys.executable).with_name("stock-lakehouse")), "materialize"]
    for left in kilobytes:
        fill(folder / "ballast", int(left) * 1024)
        full = subprocess.run(command, capture_output=True, text=True, check=False)
        (folder / "ballast").unlink()
        began = time.monotonic()
        after = subprocess.run(command, capture_output=True, text=True, check=False)
        facts = {"left": left, "code": full.returncode, "said": full.stdout + full.stderr, "healed": after.returncode}
        facts |= {"seconds": time.monotonic() - began, "after": after.stdout + after.stderr}
        facts["rows"] = deltalake.DeltaTable(folder / "lakehouse" / FEATURES.path).to_pyarrow_table().num_rows
        shutil.rmtree(folder / "lakehouse")
        print(json.dumps(facts), flush=True)  # noqa: T201


if __name__ == "__main__":
    {"runs": runs, "program": program}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:])
