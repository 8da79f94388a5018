"""Leases on a bucket: one holder at a time across processes, none for ever, and none that publishes after it lost it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stock_lakehouse.lake import lease
from stock_lakehouse.lake.lease import LeaseLostError
from stock_lakehouse.lake.lock import TableBusyError, confirm, one_writer
from stock_lakehouse.lake.storage import Bucket, StorageError

HOLDER = """
import sys
from stock_lakehouse.lake import lease
from stock_lakehouse.lake.lock import confirm, one_writer
lease.SECONDS = float(sys.argv[2])
with one_writer(sys.argv[1], "a_table"):
    print("held", flush=True)
    for line in sys.stdin:
        try:
            confirm(sys.argv[1])
            print("still", flush=True)
        except lease.LeaseLostError as error:
            print(error, flush=True)
"""


class Holder:
    """Another process that is writing `a_table`."""

    def __init__(self, root: str, seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, root, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.says() == "held"

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def confirms(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.says()


@contextmanager
def held_elsewhere(root: str, seconds: float = 60) -> Iterator[Holder]:
    holder = Holder(root, seconds)
    try:
        yield holder
    finally:
        holder.process.kill()
        holder.process.wait()


def test_a_table_that_another_machine_writes_is_busy_for_a_bounded_time(s3_root: str) -> None:
    with held_elsewhere(s3_root):
        busy = pytest.raises(
            TableBusyError, match="another process has been writing it for 0 s; see whether a run hangs"
        )
        with busy, one_writer(s3_root, "a_table", 0.2):
            pass
        with one_writer(s3_root, "another_table", 0.2):
            pass


def test_a_lease_that_was_given_back_is_taken_at_once_however_long_it_would_have_lasted(s3_root: str) -> None:
    for _ in range(3):
        with one_writer(s3_root, "a_table", 0):
            confirm(s3_root)


def test_a_killed_holder_is_followed_when_its_time_is_over(s3_root: str) -> None:
    with held_elsewhere(s3_root, 1.5) as holder:
        holder.process.kill()
        holder.process.wait()
        with pytest.raises(TableBusyError), one_writer(s3_root, "a_table", 0.3):
            pass
        with one_writer(s3_root, "a_table", 30):
            confirm(s3_root)


@pytest.mark.slow
def test_a_holder_that_lives_keeps_its_lease_beyond_its_time(s3_root: str) -> None:
    with held_elsewhere(s3_root, 1.5) as holder:
        with pytest.raises(TableBusyError), one_writer(s3_root, "a_table", 4):
            pass
        assert holder.confirms() == "still"


def test_a_holder_that_was_paused_until_another_took_its_place_may_not_publish(s3_root: str) -> None:
    with held_elsewhere(s3_root, 1) as holder:
        holder.process.send_signal(signal.SIGSTOP)
        with one_writer(s3_root, "a_table", 30):
            holder.process.send_signal(signal.SIGCONT)
            assert holder.confirms().startswith(
                "a_table: this run was silent for more than 1 s and another took its place"
            )
            confirm(s3_root)
        # What was lost is not given back: it is another's.
        with held_elsewhere(s3_root, 60):
            holder.process.communicate()
            with pytest.raises(TableBusyError), one_writer(s3_root, "a_table", 0.2):
                pass


def test_a_holder_whose_renewal_was_written_but_not_answered_holds_on(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, lost = Bucket.put, iter([True])

    def unanswered(bucket: Bucket, path: str, content: bytes, there: str | None) -> str:
        mark = put(bucket, path, content, there)
        if next(lost, False):
            raise StorageError("no answer")
        return mark

    with one_writer(s3_root, "a_table"):
        with monkeypatch.context() as patched:
            patched.setattr(Bucket, "put", unanswered)
            with pytest.raises(StorageError):
                confirm(s3_root)
        confirm(s3_root)
    with one_writer(s3_root, "a_table", 0):
        pass


def test_threads_take_a_lease_one_after_the_other(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.01)
    inside, most, entries = [0], [0], [0]

    def enter() -> None:
        for _ in range(3):
            with one_writer(s3_root, "a_table", 60):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1
                entries[0] += 1

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert (most[0], entries[0]) == (1, 18)


def test_what_another_thread_or_lake_lost_does_not_stop_this_one(s3_root: str) -> None:
    told: list[BaseException | None] = []

    def other() -> None:
        with one_writer(s3_root, "another_table"):
            confirm(s3_root)
        told.append(None)

    path = ".locks/a_table.step.lease"
    with one_writer(s3_root, "a_table.step"):
        Bucket(s3_root).put(path, b'{"seconds": 60}', Bucket(s3_root).look(path)[1])
        confirm(f"{s3_root}/other")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
        assert told == [None]
        with pytest.raises(LeaseLostError, match=r"^a_table\.step: this run was silent"):
            confirm(s3_root)
    confirm(s3_root)


@pytest.mark.parametrize("content", [b"", b'{"token": "of the d', b"[]", b'{"seconds": null}', b"\xff"])
def test_a_lease_that_cannot_be_read_is_taken_once_it_has_not_changed_for_as_long_as_any_holder_may_be_silent(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.5)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.1)
    Bucket(s3_root).put(".locks/a_table.lease", content, None)
    with pytest.raises(TableBusyError), one_writer(s3_root, "a_table", wait_seconds=0.2):
        pass
    with one_writer(s3_root, "a_table", wait_seconds=5):
        confirm(s3_root)
