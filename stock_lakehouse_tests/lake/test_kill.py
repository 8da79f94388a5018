"""A run killed with SIGKILL at any write, then run again, ends in the tables of a run that nothing disturbed.

In between a reader sees old or new: of a Parquet table a ticker-year, of a Delta table the whole, of the ledger no line of a
commit that did not come. killed_runs.py has the scenario and does the dying.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.storage import LakeRoot, under
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.graph import clocked, layers, ledger, plain, raw_contents
from stock_lakehouse_tests.lake import killed_runs

Rows = list[dict[str, Any]]


@dataclass
class State:
    """What a lake holds."""

    layers: dict[str, Rows]
    raw: Rows
    ledger: Rows

    @classmethod
    def of(cls, root: LakeRoot, spark: SparkSession) -> State:
        house = clocked(root, spark)
        return cls(layers(house), raw_contents(house.lake), without_run(ledger(house)))


def without_run(lines: Rows) -> Rows:
    return [{name: value for name, value in line.items() if name not in ("run_id", "restated_at")} for line in lines]


def assert_old_or_new(old: State, seen: State, new: State) -> None:
    """Hold what a disturbed run from `old` to `new` left behind against the promise at the head of this file."""
    for name in ("processed", "quarantine"):
        before, after, now = (by_file(state.layers[name]) for state in (old, new, seen))
        keys = before | after | now
        assert {key: now.get(key) in (before.get(key), after.get(key)) for key in keys} == dict.fromkeys(keys, True)
    for name, table in (("curated", CURATED), ("features", FEATURES)):
        lines = [line for line in seen.ledger if line["table_name"] == table.name]
        if seen.layers[name] == old.layers[name]:
            assert lines == [], "the ledger tells of a commit that did not come"
        else:
            assert seen.layers[name] == new.layers[name]
            assert lines == [line for line in new.ledger if line["table_name"] == table.name]
    assert [row for row in seen.raw if row not in new.raw] == []


class Killer:
    """The program of killed_runs.py, and the lake before and after an undisturbed second run."""

    def __init__(self, folder: Path, spark: SparkSession, base: LakeRoot | None = None) -> None:
        self.folder, self.spark, self.base = folder, spark, base or folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STOCK_LAKEHOUSE_")}
        self._program = subprocess.Popen(
            [sys.executable, "-m", "stock_lakehouse_tests.lake.killed_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=environment,
        )
        self._prepared = under(self.base, "prepared")
        killed_runs.prepare(clocked(self._prepared, spark))
        self.old = State.of(self._prepared, spark)
        root = self.copy("undisturbed")
        assert self.second_run(root, "none") == 0
        facts = json.loads(self._points_file.read_text(encoding="utf-8"))
        self.points: list[str] = facts["points"]
        self.seconds: float = facts["seconds"]
        self.new = State.of(root, spark)

    @property
    def _points_file(self) -> Path:
        return self.folder / "points.json"

    def copy(self, name: str) -> LakeRoot:
        root = under(self.base, name)
        if isinstance(root, Path):
            shutil.copytree(self._prepared, root, copy_function=shutil.copy2)
        else:
            s3.copy(str(self._prepared), root)
        return root

    def second_run(self, root: LakeRoot, point: str) -> int:
        """The wait status of a second run at `root` that dies at `point`."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{root} {point} {self._points_file}\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def close(self) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait(timeout=30)

    def check(self, point: str, thorough: bool = False) -> None:
        """Kill a second run at `point`, look at the lake, run again, and compare with the undisturbed one."""
        root = self.copy(point)
        status = self.second_run(root, point)
        assert os.WTERMSIG(status) == signal.SIGKILL or (status == 0 and point.startswith("after:"))
        seen = State.of(root, self.spark)
        assert_old_or_new(self.old, seen, self.new)
        house = clocked(root, self.spark)
        assert len(plain(house.lake.processed.read(self.spark).toArrow())) == len(seen.layers["processed"])

        killed_runs.second_run(house, "eeeeeeee-run")
        assert State.of(root, self.spark) == self.new
        assert house.lake.raw.strangers() == []
        if thorough:
            files = written(root)
            killed_runs.second_run(house, "ffffffff-run")
            assert written(root) == files
        house.lake.storage.delete_folder("")


def written(root: LakeRoot) -> dict[str, Any]:
    """Every file of the lake but staged frames, with what changes when it is written."""
    files: dict[str, Any] = bytes_of(root) if isinstance(root, Path) else s3.objects(root)
    return {name: at for name, at in files.items() if ".staging" not in name}


def by_file(rows: Rows) -> dict[tuple[str, str], Rows]:
    found: dict[tuple[str, str], Rows] = {}
    for row in rows:
        found.setdefault((row["ticker"], row["year"]), []).append(row)
    return found


@pytest.fixture(scope="module")
def killer(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("killed"), spark)
    yield killer
    killer.close()


def test_the_scenario_writes_every_table(killer: Killer) -> None:
    places = {point.split(" ", 1)[1] for point in killer.points}
    assert places >= {
        "write_bytes raw/stocks_daily",
        "replace raw/stocks_daily",
        "replace processed/quarantine",
        "replace processed/stocks_daily",
        "unlink processed/stocks_daily",
        "create curated/restatements",
        "save curated/restatements",
        "save curated/stocks_daily",
        "save curated/stocks_features",
    }
    assert {line["table_name"] for line in killer.new.ledger} == {CURATED.name, FEATURES.name}
    assert {row["ticker"] for row in killer.new.layers["quarantine"]} == {"AAA", "BBB", "__unreadable__"}
    for name in killer.new.layers:
        assert killer.new.layers[name] != killer.old.layers[name]


# The last time that the second run is at such a write; staging is left to the whole matrix.
SLICE = [
    "after replace raw/stocks_daily",
    "after replace processed/quarantine",
    "before unlink processed/stocks_daily",
    "after save curated/restatements",
    "after save curated/stocks_daily",
    "before save curated/stocks_features",
]


@pytest.mark.parametrize("place", SLICE)
def test_a_run_killed_at_a_write_and_run_again_ends_as_if_undisturbed(killer: Killer, place: str) -> None:
    found = [number for number, point in enumerate(killer.points) if point == place]
    # The middle one: there are writes of the same kind before and after it, where there are several.
    killer.check(str(found[len(found) // 2 if "restatements" not in place else 0]))


@pytest.fixture(scope="module")
def s3_killer(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, s3_bucket: str) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("killed"), spark, f"{s3_bucket}/{uuid4().hex}")
    yield killer
    killer.close()


@pytest.mark.parametrize("place", ["after put processed/stocks_daily", "before save curated/stocks_features"])
def test_a_run_on_s3_killed_at_a_write_and_run_again_ends_as_if_undisturbed(s3_killer: Killer, place: str) -> None:
    found = [number for number, point in enumerate(s3_killer.points) if point == place]
    s3_killer.check(str(found[len(found) // 2]))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_on_s3_killed_at_any_write_and_run_again_ends_as_if_undisturbed(s3_killer: Killer) -> None:
    assert {point.split(" ", 1)[1] for point in s3_killer.points} >= {
        "put raw/stocks_daily",
        "put processed/quarantine",
        "put processed/stocks_daily",
        "delete processed/stocks_daily",
        "save curated/restatements",
        "save curated/stocks_daily",
        "save curated/stocks_features",
    }
    for number in range(len(s3_killer.points)):
        s3_killer.check(str(number), thorough=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_write_and_run_again_ends_as_if_undisturbed(killer: Killer) -> None:
    for number in range(len(killer.points)):
        killer.check(str(number), thorough=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_moment_and_run_again_ends_as_if_undisturbed(killer: Killer) -> None:
    dice = random.Random(1)
    for _ in range(60):
        killer.check(f"after:{dice.uniform(0, killer.seconds * 0.95):.4f}", thorough=True)
