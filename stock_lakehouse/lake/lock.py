"""One writer per table: in a folder by a lock of the operating system, which ends with its process; in a bucket by a lease."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stock_lakehouse.lake.lease import Lease
from stock_lakehouse.lake.storage import Bucket, LakeRoot

WAIT_SECONDS = 3600.0


class TableBusyError(Exception):
    """Another process has held the table's lock or lease for longer than the wait allows."""


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

    folder = lake_root / ".locks"
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
