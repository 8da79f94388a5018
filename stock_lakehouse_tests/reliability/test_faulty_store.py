"""A lake on an S3 store that answers 500 or 503 or resets the connection one time in five, before or after it did what was asked:
a run ends well or with an error that says what to do, tables are old or new, and the next run on a store that works heals.

Engine, deltalake and the lake's own requests each try again by themselves, a bounded number of times. faulty_store.py does the
failing.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import lease
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.storage import Bucket
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import clocked
from stock_lakehouse_tests.reliability.faulty_store import faults_made, faulty_store
from stock_lakehouse_tests.reliability.killed_runs import Program
from stock_lakehouse_tests.reliability.scenario import SHARES, heal, prepare, second_run
from stock_lakehouse_tests.reliability.states import (
    State,
    assert_old_or_new,
    assert_the_ledger_has_no_line_in_vain,
    assert_the_ledger_is_what_changed,
)
from stock_lakehouse_tests.reliability.test_kill import of_any_order

NAMED = {"StorageError", "PublishError", "LeaseLostError", "TableBusyError"}
KIND = "an S3 request answered 500 or 503 or reset"


@dataclass
class Bench:
    """A lake before and after an undisturbed second run. What a folder holds a bucket can hold."""

    base: str
    folder: Path
    spark: SparkSession
    old: State
    new: State

    def check(self, seed: int, faults: Faults, processes: int = 1) -> None:
        """A second run on a faulty store, alone or in shares by processes at once; then once more on the one behind it."""
        root = f"{self.base}/{uuid4().hex}"
        s3.copy(f"{self.base}/prepared", root)
        behind = os.environ["AWS_ENDPOINT_URL"]
        with faulty_store(behind, seed) as address:
            program = Program(self.folder, {"AWS_ENDPOINT_URL": address})
            try:
                statuses = program.second_run(root, *["none"] * processes)
                said = [program.facts(number) for number in range(processes)]
            finally:
                program.close()
            made = faults_made(address)
        for status, facts in zip(statuses, said, strict=True):
            assert status == 0 or NAMED & set(facts["failed"]), facts
        house = clocked(root, self.spark)
        assert_the_ledger_is_what_changed(house)
        if processes == 1:
            assert_old_or_new(self.old, State.of(root, self.spark), self.new)
        seconds = heal(house, *(SHARES[:processes] if processes > 1 else ()))
        healed, wanted = State.of(root, self.spark), self.new
        if processes > 1:
            healed, wanted = of_any_order(healed), of_any_order(wanted)
        faults.tried(KIND, sum(made.values()), healed.lost_of(wanted), seconds)
        assert healed == wanted
        assert_the_ledger_is_what_changed(house)
        assert_the_ledger_has_no_line_in_vain(house)


@pytest.fixture(scope="module")
def bench(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, s3_bucket: str) -> Bench:
    base, folder = f"{s3_bucket}/{uuid4().hex}", tmp_path_factory.mktemp("faulty")
    prepare(clocked(folder / "prepared", spark))
    s3.upload(folder / "prepared", f"{base}/prepared")
    shutil.copytree(folder / "prepared", folder / "undisturbed")
    second_run(clocked(folder / "undisturbed", spark), "dddddddd-run")
    old, new = State.of(folder / "prepared", spark), State.of(folder / "undisturbed", spark)
    return Bench(base, folder, spark, old, new)


@pytest.mark.slow
def test_a_conditional_write_to_a_store_that_fails_one_time_in_five_takes_place_and_a_lease_is_taken_kept_and_given_back(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 5.0)
    root = f"{s3_bucket}/{uuid4().hex}"
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], 1) as address:
        with s3.variables({**variables, "AWS_ENDPOINT_URL": address}):
            bucket = Bucket(root)
            for number in range(12):
                with one_writer(root, "a_table", 30):
                    bucket.create(f"landed/{number}", b"first")
                    with pytest.raises(FileExistsError):
                        bucket.create(f"landed/{number}", b"another")
                    there = next(bucket.walk("replaced"), None)
                    bucket.replace("replaced/one", b"newer", there, "unused")
                    confirm(root)
        made = faults_made(address)
    contents = {file.path: Bucket(root).read(file.path) for file in Bucket(root).walk("landed")}
    faults.tried(KIND, sum(made.values()), 12 - len(contents))
    assert set(contents.values()) == {b"first"}
    assert Bucket(root).read("replaced/one") == b"newer"
    with one_writer(root, "a_table", 0):  # it was given back
        confirm(root)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_on_a_store_that_fails_one_time_in_five_ends_well_or_says_so_and_the_next_heals(
    bench: Bench, faults: Faults
) -> None:
    bench.check(1, faults)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_runs_on_a_store_that_fails_one_time_in_five_end_well_or_say_so_and_the_next_heals(
    bench: Bench, faults: Faults
) -> None:
    for seed in range(2, 12):
        bench.check(seed, faults)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_processes_at_once_on_a_store_that_fails_one_time_in_five_end_well_or_say_so_and_the_next_runs_heal(
    bench: Bench, faults: Faults
) -> None:
    for seed in range(12, 16):
        bench.check(seed, faults, processes=3)
