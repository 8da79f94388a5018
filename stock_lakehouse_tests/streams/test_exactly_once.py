"""No message is lost or counted twice, whatever dies: ticks and bars are compared with a truth in plain Python, cell by cell."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest
from deltalake.exceptions import DeltaError
from pyspark.sql import SparkSession

from stock_lakehouse.lake import stream_table
from stock_lakehouse.lake.bar_table import BARS
from stock_lakehouse.lake.lock import TableBusyError, holder_of, one_writer
from stock_lakehouse.lake.storage import StorageError
from stock_lakehouse.lake.stream_table import LOCK, FencedError
from stock_lakehouse.lake.tick_table import BATCH, OWNER, ROWS, LostRowsError, OwnerError, TickTable
from stock_lakehouse.streams.replay import Faults
from stock_lakehouse_tests.streams import killed
from stock_lakehouse_tests.streams.house import NOON, StreamHouse, event

FAULTS = Faults(late=0.02, duplicate=0.02, poison=0.02, seed=7)
CRASHES = ["before ticks", "after ticks", "before bars", "after bars"]


class CrashError(BaseException):
    """Ends a runner in the middle, as far as a process can do that to itself."""


def crash() -> None:
    raise CrashError


@pytest.fixture
def small(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> StreamHouse:
    """A stream in batches of 300 messages, which joins its files every third one; a failed commit is repeated at once."""
    monkeypatch.setattr(stream_table, "PAUSE_SECONDS", 0.0)
    return StreamHouse.made(tmp_path, spark, batch_messages=300, compact_batches=3)


def crashing(monkeypatch: pytest.MonkeyPatch, step: str, number: int, act: Callable[[], None] = crash) -> None:
    """Do `act` the `number`th time that `step` is reached, until the end of the context."""
    owner, name, _ = killed.STEPS[step]
    monkeypatch.setattr(owner, name, getattr(owner, name))  # restores it in the end
    killed.at_step(step, number, act)


def test_a_session_with_faults_is_read_to_the_last_cell(small: StreamHouse) -> None:
    count = small.walk(["NVDA", "AAPL"], 60, FAULTS)
    small.walk(["META"], 60, FAULTS, file="b.jsonl")
    counts = small.drain()
    small.check()
    assert counts.messages == counts.events + counts.duplicates + counts.dead > count
    assert min(counts.late, counts.duplicates, counts.dead) > 0
    assert counts.batch >= 4  # so files were joined
    # The same again finds nothing to do.
    version = TickTable(small.root, 2).version()
    again = small.drain()
    assert (again.messages, again.bars) == (0, 0)
    assert TickTable(small.root, 2).version() == version


@pytest.mark.parametrize("step", CRASHES)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_runner_that_ends_at_a_step_is_followed_by_one_that_goes_on(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch, step: str, batch: int
) -> None:
    small.walk(["NVDA", "AAPL"], 90, FAULTS)
    with monkeypatch.context() as patched, pytest.raises(CrashError):  # noqa: PT012
        crashing(patched, step, batch)
        small.drain()
    small.drain()
    small.check()


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("steps", [CRASHES[1:3], CRASHES, CRASHES[::-1]])
def test_kill_9_at_each_of_some_steps_in_turn(small: StreamHouse, steps: list[str]) -> None:
    for number, step in enumerate(steps):
        small.walk([("NVDA", "AAPL", "META", "GOOG")[number]], 60, FAULTS)
        assert killed.start(small, step, 1 + number % 2).wait(120) == -signal.SIGKILL
    small.drain()
    small.check()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_kill_9_at_random(small: StreamHouse, seed: int) -> None:
    dice = random.Random(seed)
    kills = 0
    small.begin("0.jsonl", "1.jsonl", "2.jsonl")
    while kills < 10:
        small.walk(dice.sample(["NVDA", "AAPL", "META", "GOOG"], 2), 10, FAULTS, file=f"{dice.randrange(3)}.jsonl")
        kills += killed.killed_at_random(small, dice)
    small.drain()
    small.check()


@pytest.mark.parametrize("frozen", ["before ticks", "after ticks", "before bars", "after bars"])
def test_a_runner_that_was_frozen_while_another_took_over_is_refused(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    """The other runner reads more of the same minutes in the middle of the first one's work, and then more messages come."""
    small.walk(["NVDA"], 60, FAULTS)
    first = small.runner_without_lock()

    def another() -> None:
        small.write(*(event(60 * n, event_id=f"more {n}", close=1 + n) for n in range(-60, 60)))
        small.runner_without_lock().drain(5)
        small.write(event(0, event_id="new", close=1))

    with monkeypatch.context() as patched:
        crashing(patched, frozen, 1, another)
        # After its own bars the first one is refused at its next commit; everywhere else at once.
        with pytest.raises(FencedError, match="another runner"):
            first.drain(5)
    small.drain()
    small.check()


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("step", ["stop after ticks", "stop before ticks", "stop before bars"])
def test_sigstop_without_a_lock(small: StreamHouse, step: str) -> None:
    small.walk(["NVDA"], 60, FAULTS)
    process = killed.start(small, step)
    try:
        deadline = time.monotonic() + 60
        while _state(process.pid) != "T":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        small.drain()
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "FencedError\n"
    finally:
        process.kill()
        process.wait()
    small.drain()
    small.check()


@pytest.mark.parametrize("step", ["after letters are replaced", "before bars"])
def test_a_retry_that_ends_between_its_two_writes_is_finished_by_the_next_start(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    small.write(event(0), event(60, close=-1), event(86400 + 13 * 3600, volume=5))
    small.drain()
    assert [tick["reason"] for tick in small.ticks()] == [None, "bad price", "from the future"]
    small.settings = small.settings.model_copy(update={"ahead_seconds": 86400})
    with monkeypatch.context() as patched, small.running() as started, pytest.raises(CrashError):  # noqa: PT012
        crashing(patched, step, 1)
        started.retry()
    assert small.drain().messages == 0
    assert [tick["reason"] for tick in small.ticks()] == [None, "bad price", None]
    assert [(bar["volume"], bar["events"]) for bar in small.bars()] == [(0, 1), (5, 1)]


def _state(process: int) -> str:
    """The state of a process in Linux's table, like R or T (stopped)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        pytest.skip("needs /proc")


@pytest.mark.parametrize("name", ["raw_ticks", "minute_bars"])
def test_a_commit_whose_answer_was_lost_counts_once(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    small.walk(["NVDA"], 60, FAULTS)
    commit, lost = stream_table.StreamTable.commit, 0

    def answer_lost(self: stream_table.StreamTable, act: Any, moved: dict[str, int]) -> None:
        def deaf(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
            nonlocal lost
            # A handle of its own, as for a process that did not hear the answer: its own stays at the version before.
            act(deltalake.DeltaTable(handle.table_uri, version=handle.version()), properties)
            lost += 1
            raise DeltaError("Generic S3 error: connection closed before message completed")

        commit(self, deaf if self.table.name == name else act, moved)

    with monkeypatch.context() as patched:
        patched.setattr(stream_table.StreamTable, "commit", answer_lost)
        small.drain()
    assert lost >= 2
    small.check()


@pytest.mark.parametrize("fails", [1, 4])
def test_a_store_that_fails_for_a_while_is_asked_again(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    small.write(event(0), event(1))
    failing(monkeypatch, fails)
    small.drain()
    small.check()


def test_a_store_that_is_away_is_a_named_error_and_nothing_is_lost(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write(event(0), event(1))
    with monkeypatch.context() as patched:
        failing(patched, 1000)
        with pytest.raises(StorageError, match="raw_ticks: the store failed after every retry"):
            small.drain()
    small.drain()
    small.check()


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The next writes to tables fail."""
    write, left = deltalake.write_deltalake, times

    def failed(*arguments: Any, **named: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError("Generic S3 error: Error performing PUT http://127.0.0.1/x: 503 Service Unavailable")
        write(*arguments, **named)

    monkeypatch.setattr(deltalake, "write_deltalake", failed)


def test_a_change_of_the_table_by_somebody_else_is_no_other_runner(
    small: StreamHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.walk(["NVDA"], 60)
    with small.running() as started:
        started.step(0)
        for table in (started.ticks, started.bars):
            table.open().alter.set_table_properties({"delta.checkpointInterval": "11"}, raise_if_not_exists=False)
        started.drain(5)
    small.check()


def test_there_is_one_runner_at_a_time_and_status_names_it(small: StreamHouse) -> None:
    small.write(event(0))
    assert holder_of(small.root, LOCK) is None
    with small.running():
        holder = holder_of(small.root, LOCK)
        assert holder is not None
        assert holder.process == os.getpid()
        with pytest.raises(TableBusyError):
            small.drain()
    assert holder_of(small.root, LOCK) is None
    small.drain()


def test_the_lock_keeps_a_runner_away_only_while_it_is_held(small: StreamHouse) -> None:
    small.write(event(0))
    with one_writer(small.root, LOCK), pytest.raises(TableBusyError):
        small.drain()
    assert small.drain().messages == 1


def test_a_restored_table_is_refused_because_positions_outlive_rows(small: StreamHouse) -> None:
    small.write(event(0))
    small.drain()
    small.write(event(1))
    small.drain()
    ticks = TickTable(small.root, 2)
    ticks.begin()
    rows = ticks.number(ROWS)
    ticks.handle.restore(ticks.handle.version() - 1)
    with pytest.raises(LostRowsError, match="raw_ticks has 1 rows, and its positions stand for 2"):
        small.drain()
    # Somebody decides to go on.
    small.write(event(2))
    assert small.drain("restored by mistake").messages == 1
    (loss,) = small.table("losses").to_pylist()
    assert (loss["partition"], loss["why"]) == ("* after batch 2", "restored by mistake")
    assert (int(loss["from_offset"]), int(loss["to_offset"])) == (1, rows)
    assert small.drain().messages == 0


def test_the_table_of_another_kind_of_runner_is_refused_until_it_is_taken_over(small: StreamHouse) -> None:
    small.write(event(0))
    small.drain()
    ticks = TickTable(small.root, 2)
    ticks.begin()
    batch = ticks.batch
    ticks.commit(ticks.append_to(ticks.no_rows()), {BATCH: batch + 1, OWNER: 2})
    small.write(event(1))
    with pytest.raises(OwnerError, match="--take-over"):
        small.drain()
    with small.running(take_over=True) as started:
        started.drain(5)
    small.check()
    assert small.drain().messages == 0


def test_files_of_a_running_day_are_joined_and_old_versions_go(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark, batch_messages=50, compact_batches=4)
    house.walk(["NVDA"], 60)
    house.drain()
    ticks = TickTable(house.root, 2)
    ticks.begin()
    assert len(ticks.sizes()) < 5  # of 8 batches
    house.check()
    data = list((tmp_path / "lake" / "stream" / "raw_ticks").rglob("part-*.parquet"))
    assert len(data) > len(ticks.sizes())
    # Hours later, by the clock of the runner and of the files.
    for path in (tmp_path / "lake" / "stream").rglob("*"):
        old = time.time() - 10 * 3600
        os.utime(path, (old, old))
    with house.running() as started:
        for table in (started.ticks, started.bars):
            commits = stream_table.remove_old(table, house.now + timedelta(days=9999), timedelta(0), timedelta(0))
            assert commits.versions_removed > 0
    assert len(list((tmp_path / "lake" / "stream" / "raw_ticks").rglob("part-*.parquet"))) == len(ticks.sizes())
    house.write(event(60 * 60 * 5))
    house.drain()
    house.check()


def test_ticks_of_old_days_are_removed_and_later_ones_of_them_are_too_old(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark, keep_ticks_days=2)
    house.now = NOON + timedelta(days=30)
    house.write(*(event(86400 * day, volume=day) for day in range(5)))
    house.drain()
    # The newest event is of day 4: the days 2, 3 and 4 stay.
    assert [tick["volume"] for tick in house.ticks()] == [2, 3, 4]
    assert [(bar["volume"], bar["state"]) for bar in house.bars()] == [
        (0, "final"),
        (1, "final"),
        (2, "final"),
        (3, "final"),
        (4, "open"),
    ]
    house.write(event(30, volume=9), event(86400 * 2 + 30, volume=9))
    house.drain()
    assert [tick["reason"] for tick in house.ticks()][-2:] == ["too old", None]
    assert [(bar["volume"], bar["state"]) for bar in house.bars()][:3] == [(0, "final"), (1, "final"), (11, "amended")]
    assert house.drain().messages == 0


def test_the_numbers_of_the_log_are_the_same_with_and_without_checkpoints(small: StreamHouse) -> None:
    with small.running() as started:
        for number in range(13):
            small.write(event(number))
            started.step(0)
    ticks = TickTable(small.root, 2)
    ticks.begin()
    assert ticks.handle.version() > 12
    numbers = ticks.numbers()
    assert numbers == {name: ticks.number(name) for name in numbers}
    assert numbers[BATCH] == 13
    assert deltalake.DeltaTable(f"{small.root}/stream/minute_bars").transaction_version(BARS) == 13
    small.check()
