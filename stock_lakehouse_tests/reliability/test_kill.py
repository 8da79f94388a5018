"""A run killed with SIGKILL at any write, then run again, ends in the tables of a run that nothing disturbed; alone, and among
processes that publish at once.

In between a reader sees old or new: of a Parquet table a ticker-year, of a Delta table the whole, of the ledger no line of a
commit that did not come. killed_runs.py does the dying.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.storage import LakeRoot, under
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import Clocked, clocked, plain
from stock_lakehouse_tests.reliability.killed_runs import LAYOUT, Program
from stock_lakehouse_tests.reliability.scenario import SHARES, heal, prepare
from stock_lakehouse_tests.reliability.states import (
    State,
    assert_old_or_new,
    assert_old_or_new_files,
    assert_the_ledger_has_no_line_in_vain,
    assert_the_ledger_is_what_changed,
)


@dataclass
class Outcome:
    """What killed runs came to: how many were killed, where, the rows then lost and the longest time to heal."""

    killed: int = 0
    places: set[str] = field(default_factory=set)
    rows_lost: int = 0
    seconds: float = 0.0

    def record(self, faults: Faults, kind: str) -> None:
        faults.tried(kind, self.killed, self.rows_lost, self.seconds)


class Killer:
    """The program of killed_runs.py, and the lake before and after an undisturbed second run."""

    def __init__(
        self, folder: Path, spark: SparkSession, base: LakeRoot | None = None, layout: str = "ticker_year"
    ) -> None:
        self.folder, self.spark, self.base, self.layout = folder, spark, base or folder, layout
        self.program = Program(folder, {LAYOUT: layout})
        self._prepared = under(self.base, "prepared")
        prepare(self.house(self._prepared))
        self.old = State.of(self._prepared, spark)
        root = self.copy("undisturbed")
        assert self.program.second_run(root, "none") == [0]
        facts = self.program.facts()
        self.points: list[str] = facts["points"]
        self.seconds: float = facts["seconds"]
        self.new = State.of(root, spark)

    def house(self, root: LakeRoot) -> Clocked:
        return clocked(root, self.spark, layout=self.layout)

    def copy(self, name: str) -> LakeRoot:
        root = under(self.base, name)
        if isinstance(root, Path):
            shutil.copytree(self._prepared, root, copy_function=shutil.copy2)
        else:
            s3.copy(str(self._prepared), root)
        return root

    def check(self, point: str, outcome: Outcome, thorough: bool = False) -> None:
        """Kill a second run at `point`, look at the lake, run again, and compare with the undisturbed one."""
        root = self.copy(point)
        (status,) = self.program.second_run(root, point)
        assert os.WTERMSIG(status) == signal.SIGKILL or (status == 0 and point.startswith("after:"))
        outcome.killed += os.WTERMSIG(status) == signal.SIGKILL
        seen = State.of(root, self.spark)
        assert_old_or_new(self.old, seen, self.new)
        house = self.house(root)
        assert len(plain(house.lake.processed.read(self.spark).toArrow())) == len(seen.layers["processed"])

        outcome.seconds = max(outcome.seconds, heal(house))
        healed = State.of(root, self.spark)
        outcome.rows_lost += healed.lost_of(self.new)
        assert healed == self.new
        assert house.lake.raw.strangers(in_flight=False) == []
        if thorough:
            files = written(root)
            heal(house)
            assert written(root) == files
        house.lake.storage.delete_folder("")

    def check_at_once(self, rounds: list[list[str]], outcome: Outcome) -> None:
        """In each round a process a point makes its share of the second run at once with the others, and dies at its point; who
        is not killed ends well. Then one more run of each."""
        root = self.copy(f"at_once_{uuid4().hex}")
        house = self.house(root)
        shares = SHARES[: len(rounds[0])]
        for points in rounds:
            for number, (status, point) in enumerate(zip(self.program.second_run(root, *points), points, strict=True)):
                if point == "none":
                    assert status == 0, "a process beside a killed one failed"
                assert os.WTERMSIG(status) == signal.SIGKILL or status == 0
                if os.WTERMSIG(status) == signal.SIGKILL:
                    outcome.killed += 1
                    if not point.startswith("after:"):
                        outcome.places.add(self.program.facts(number)["died"])
            assert_the_ledger_is_what_changed(house)
            assert_old_or_new_files(self.old, State.of(root, self.spark), self.new)
        outcome.seconds = max(outcome.seconds, heal(house, *shares))
        healed = State.of(root, self.spark)
        # Which lines of features a run leaves depends on which run was first; curated's do not.
        outcome.rows_lost += of_any_order(healed).lost_of(of_any_order(self.new))
        assert of_any_order(healed) == of_any_order(self.new)
        assert_the_ledger_is_what_changed(house)
        assert_the_ledger_has_no_line_in_vain(house)
        house.lake.storage.delete_folder("")


def of_any_order(state: State) -> State:
    """`state` without what the order of runs decides: versions, the ledger's lines of features, and of AAA, one of whose bars is
    edited before or after its split and dividend are known."""
    lines = [line for line in state.ledger if line["table_name"] == CURATED.name and line["ticker"] != "AAA"]
    without = [{name: value for name, value in line.items() if name != "from_version"} for line in lines]
    return State(state.layers, state.raw, sorted(without, key=str))


def written(root: LakeRoot) -> dict[str, Any]:
    """Every file of the lake but staged frames, with what changes when it is written."""
    files: dict[str, Any] = bytes_of(root) if isinstance(root, Path) else s3.objects(root)
    return {name: at for name, at in files.items() if ".staging" not in name}


@pytest.fixture(scope="module")
def killer(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("killed"), spark)
    yield killer
    killer.program.close()


@pytest.mark.slow
def test_the_scenario_writes_every_table(killer: Killer) -> None:
    places = {point.split(" ", 1)[1] for point in killer.points}
    assert places >= {
        "write_bytes raw/stocks_daily",
        "replace raw/stocks_daily",
        "save .staging",
        "replace processed/quarantine",
        "replace processed/stocks_daily",
        "unlink processed/stocks_daily",
        "create curated/restatements",
        "save curated/restatements",
        "save curated/stocks_daily",
        "write_bytes curated/corporate_actions",
        "write_deltalake curated/corporate_actions",
        "unlink curated/corporate_actions",
        "save curated/stocks_features",
    }
    assert {line["cause"] for line in killer.new.ledger} >= {"split", "vendor edit", "withdrawn"}
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
    "after write_deltalake curated/corporate_actions",
    "before save curated/stocks_features",
]
KILLED, KILLED_ON_S3 = "a run killed at a write", "a run on S3 killed at a write"
KILLED_AT_ONCE = "a run killed at a write while others publish"


def middle(points: list[str], place: str) -> str:
    """The number of a point at `place`: there are writes of the same kind before and after it, where there are several."""
    found = [number for number, point in enumerate(points) if point == place]
    return str(found[len(found) // 2 if "restatements" not in place else 0])


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("place", SLICE)
def test_a_run_killed_at_a_write_and_run_again_ends_as_if_undisturbed(
    killer: Killer, faults: Faults, place: str
) -> None:
    outcome = Outcome()
    killer.check(middle(killer.points, place), outcome)
    outcome.record(faults, KILLED)


@pytest.fixture(scope="module")
def killer_by_year(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("killed"), spark, layout="year")
    yield killer
    killer.program.close()


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("place", ["after replace processed/stocks_daily_by_year", "after save curated/stocks_daily"])
def test_a_run_killed_at_a_write_of_a_year_and_run_again_ends_as_if_undisturbed(
    killer_by_year: Killer, killer: Killer, faults: Faults, place: str
) -> None:
    assert killer_by_year.new.layers == killer.new.layers
    outcome = Outcome()
    killer_by_year.check(middle(killer_by_year.points, place), outcome)
    outcome.record(faults, KILLED)


@pytest.mark.soak
def test_a_process_killed_while_others_publish_the_same_years_harms_none_of_them(
    killer_by_year: Killer, faults: Faults
) -> None:
    outcome = Outcome()
    killer_by_year.check_at_once([["after+save+.staging", "none", "none"]], outcome)
    outcome.record(faults, KILLED_AT_ONCE)


@pytest.fixture(scope="module")
def s3_killer(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, s3_bucket: str) -> Iterator[Killer]:
    killer = Killer(tmp_path_factory.mktemp("killed"), spark, f"{s3_bucket}/{uuid4().hex}")
    yield killer
    killer.program.close()


@pytest.mark.soak
@pytest.mark.parametrize("place", ["after put processed/stocks_daily", "before save curated/stocks_features"])
def test_a_run_on_s3_killed_at_a_write_and_run_again_ends_as_if_undisturbed(
    s3_killer: Killer, faults: Faults, place: str
) -> None:
    outcome = Outcome()
    s3_killer.check(middle(s3_killer.points, place), outcome)
    outcome.record(faults, KILLED_ON_S3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_on_s3_killed_at_any_write_and_run_again_ends_as_if_undisturbed(
    s3_killer: Killer, faults: Faults
) -> None:
    assert {point.split(" ", 1)[1] for point in s3_killer.points} >= {
        "put raw/stocks_daily",
        "put processed/quarantine",
        "put processed/stocks_daily",
        "delete processed/stocks_daily",
        "save curated/restatements",
        "save curated/stocks_daily",
        "save curated/stocks_features",
    }
    outcome = Outcome()
    for number in range(len(s3_killer.points)):
        s3_killer.check(str(number), outcome, thorough=True)
    outcome.record(faults, KILLED_ON_S3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_write_and_run_again_ends_as_if_undisturbed(killer: Killer, faults: Faults) -> None:
    outcome = Outcome()
    for number in range(len(killer.points)):
        killer.check(str(number), outcome, thorough=True)
    outcome.record(faults, KILLED)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_killed_at_any_moment_and_run_again_ends_as_if_undisturbed(killer: Killer, faults: Faults) -> None:
    dice, outcome = random.Random(1), Outcome()
    for _ in range(60):
        killer.check(f"after:{dice.uniform(0, killer.seconds * 0.95):.4f}", outcome, thorough=True)
    outcome.record(faults, "a run killed at any moment")


@pytest.mark.soak
def test_a_process_killed_while_others_publish_harms_none_of_them(killer: Killer, faults: Faults) -> None:
    outcome = Outcome()
    killer.check_at_once([["after+save+.staging", "none", "none"]], outcome)
    outcome.record(faults, KILLED_AT_ONCE)


@pytest.mark.soak
def test_processes_that_die_one_after_the_other_at_the_same_write_are_healed_by_one_more_run_of_each(
    killer: Killer, faults: Faults
) -> None:
    outcome = Outcome()
    killer.check_at_once([["before+save+curated/stocks_daily"] * len(SHARES[:3])], outcome)
    assert outcome.killed == 3
    outcome.record(faults, KILLED_AT_ONCE)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_of_eight_processes_at_once_four_killed_at_any_write_harm_no_other(killer: Killer, faults: Faults) -> None:
    outcome = Outcome()
    for place in sorted(set(killer.points)):
        point = place.replace(" ", "+")
        killer.check_at_once([[point, "none"] * 4], outcome)
        if place not in outcome.places:  # the others were there first
            killer.check_at_once([[point] * 8], outcome)
    assert outcome.places == set(killer.points)
    outcome.record(faults, KILLED_AT_ONCE)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_eight_processes_killed_again_and_again_at_any_moment_end_as_one_run_when_they_are_left_alone(
    killer: Killer, faults: Faults
) -> None:
    dice, outcome = random.Random(2), Outcome()
    for _ in range(3):
        moments = [[f"after:{dice.uniform(0, killer.seconds * 8):.4f}" for _ in SHARES] for _ in range(5)]
        killer.check_at_once(moments, outcome)
    outcome.record(faults, KILLED_AT_ONCE)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_processes_killed_at_once_on_s3_end_as_one_run_when_they_are_left_alone(
    s3_killer: Killer, faults: Faults
) -> None:
    outcome = Outcome()
    for first in range(0, len(s3_killer.points), 6):
        s3_killer.check_at_once([[str(first), "none", str(first + 3)]], outcome)
    outcome.record(faults, "a run on S3 killed at a write while others publish")
