"""One writer per table: in a folder by a lock of the operating system, which ends with its process; in a bucket by a lease."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stock_lakehouse.lake.lease import FOLDER, Lease, holder_in
from stock_lakehouse.lake.storage import Bucket, LakeRoot

WAIT_SECONDS = 3600.0


class TableBusyError(Exception):
    """Another process has held the table's lock or lease for longer than the wait allows."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock or lease.

    `since`: when it took it (None: a lease does not say).
    """

    host: str
    process: int
    since: datetime | None = None


@contextmanager
def one_writer(lake_root: LakeRoot, table: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the write lock or lease of `table` in the lake at `lake_root` during the `with` block. Readers never wait.

    Raises TableBusyError if another process does not release it within `wait_seconds`.
    """
    if isinstance(lake_root, Path):
        yield from _locked(lake_root, table, wait_seconds)
    else:
        yield from _leased(lake_root, table, wait_seconds)


def _locked(lake_root: Path, table: str, wait_seconds: float) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder = lake_root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{table}.lock")
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise _busy(table, wait_seconds) from None
    try:
        yield
    finally:
        lock.release()


def _leased(lake_root: str, table: str, wait_seconds: float) -> Iterator[None]:
    lease = Lease(Bucket(lake_root), table)
    if not lease.take(wait_seconds):
        raise _busy(table, wait_seconds)
    _leases().append((lake_root, lease))
    try:
        yield
    finally:
        _leases().remove((lake_root, lease))
        lease.give_back()


def sign(lake_root: LakeRoot, table: str, since: datetime) -> None:
    """Write down, for `holder_of`, that this process holds the lock of `table` since `since`. A lease says it by itself."""
    if isinstance(lake_root, Path):
        text = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since.isoformat()})
        (lake_root / FOLDER / f"{table}.holder").write_text(text, encoding="utf-8")


def holder_of(lake_root: LakeRoot, table: str) -> Holder | None:
    """Who holds the lock or lease of `table`; None if nobody does. A lease still names a holder that was killed.

    A lock is taken for an instant to see whether it is free, so whoever wants it must wait for that long.
    """
    if not isinstance(lake_root, Path):
        found = holder_in(Bucket(lake_root), table)
        return None if found is None else Holder(*found)
    from filelock import FileLock, Timeout

    path = lake_root / FOLDER / f"{table}.lock"
    if not path.exists():
        return None
    try:
        with FileLock(path).acquire(timeout=0):
            return None
    except Timeout:
        pass
    try:
        said = json.loads(path.with_suffix(".holder").read_text(encoding="utf-8"))
        return Holder(said["host"], said["process"], datetime.fromisoformat(said["since"]))
    except (OSError, ValueError, KeyError):  # it has not signed yet
        return Holder("unknown", 0)


def _busy(table: str, wait_seconds: float) -> TableBusyError:
    return TableBusyError(
        f"{table}: another process has been writing it for {wait_seconds:.0f} s; see whether a run hangs"
    )


def confirm(lake_root: LakeRoot) -> None:
    """Confirm, before a publish, that this thread still holds its leases of the lake at `lake_root`.

    Raises LeaseLostError if one was lost. A lock of the operating system cannot be lost.
    """
    for root, lease in _leases():
        if root == lake_root:
            lease.confirm()


_of_thread = threading.local()


def _leases() -> list[tuple[str, Lease]]:
    if not hasattr(_of_thread, "leases"):
        _of_thread.leases = []
    leases: list[tuple[str, Lease]] = _of_thread.leases
    return leases
