"""The stream of a lake on S3: the same, with commits whose answers are lost, requests that fail, and a lease for a lock."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import stream_table
from stock_lakehouse.lake.lock import holder_of
from stock_lakehouse.lake.storage import StorageError, storage_at
from stock_lakehouse.lake.stream_table import LOCK
from stock_lakehouse.lake.tick_table import LostFilesError, TickTable
from stock_lakehouse.streams import runner
from stock_lakehouse.streams.replay import Faults
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.reliability.faulty_store import faults_made, faulty_store
from stock_lakehouse_tests.streams import killed
from stock_lakehouse_tests.streams.house import StreamHouse
from stock_lakehouse_tests.streams.test_exactly_once import CRASHES, FAULTS, CrashError, crashing

pytestmark = pytest.mark.slow


@pytest.fixture
def on_s3(tmp_path: Path, spark: SparkSession, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> StreamHouse:
    monkeypatch.setattr(stream_table, "PAUSE_SECONDS", 0.0)
    return StreamHouse.made(tmp_path, spark, s3_root, batch_messages=150, compact_batches=3)


def test_a_runner_that_ends_at_any_step_is_followed_by_one_that_goes_on(
    on_s3: StreamHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, step in enumerate(CRASHES):
        on_s3.walk([("NVDA", "AAPL", "META", "GOOG")[number]], 180, FAULTS)
        with monkeypatch.context() as patched, pytest.raises(CrashError):  # noqa: PT012
            crashing(patched, step, 1)
            on_s3.drain()
    with on_s3.running():
        holder = holder_of(on_s3.root, LOCK)
        assert holder is not None
        assert holder.process == os.getpid()
    assert holder_of(on_s3.root, LOCK) is None
    on_s3.drain()
    on_s3.check()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_every_step_and_at_random(on_s3: StreamHouse, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(runner, "BUSY_SECONDS", 5 * killed.LEASE_SECONDS)
    dice, kills = random.Random(seed), 0
    on_s3.begin("a.jsonl", "0.jsonl", "1.jsonl", "2.jsonl")
    for number, step in enumerate(CRASHES):
        on_s3.walk([("NVDA", "AAPL", "META", "GOOG")[number]], 60, FAULTS)  # three batches
        assert killed.start(on_s3, step, 1 + number % 2).wait(120) == -signal.SIGKILL
        on_s3.drain()  # waits for the lease
    while kills < 5:
        on_s3.walk(dice.sample(["NVDA", "AAPL", "META", "GOOG"], 2), 60, FAULTS, file=f"{dice.randrange(3)}.jsonl")
        kills += killed.killed_at_random(on_s3, dice)
        on_s3.drain()
    on_s3.check()


@pytest.mark.soak
def test_a_restored_table_and_a_lost_object_come_back(on_s3: StreamHouse) -> None:
    on_s3.walk(["NVDA", "AAPL"], 120, FAULTS)
    on_s3.drain()
    count = len(on_s3.ticks())
    on_s3.restore_ticks(150)
    storage = storage_at(on_s3.root)
    (lost, *_) = TickTable(on_s3.options, 2).paths()
    storage.delete([lost])
    with pytest.raises(LostFilesError, match=r"is missing.*stream refill"):
        on_s3.drain()
    done = on_s3.refill()
    assert (done.damaged_files, done.found + done.read_again, done.lost) == (1, count, 0)
    on_s3.check()
    assert on_s3.drain().messages == 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_a_store_that_fails_and_loses_answers_loses_no_message_and_doubles_none(on_s3: StreamHouse, seed: int) -> None:
    on_s3.walk(["NVDA"], 60, Faults(duplicate=0.02, seed=seed))
    with faulty_store(os.environ["AWS_ENDPOINT_URL"], seed) as address, s3.variables(s3.environment(address)):
        named = 0
        while named < 20:
            try:
                on_s3.drain()
                break
            except StorageError:
                named += 1
        made = faults_made(address)
    assert sum(made.values()) > 10
    on_s3.drain()
    on_s3.check()
