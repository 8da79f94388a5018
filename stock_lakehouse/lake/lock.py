"""One writer a table: a lock across processes, held by the operating system, so a killed writer leaves none behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_SECONDS = 3600.0


class TableBusyError(Exception):
    """Another process has been writing the table for longer than WAIT_SECONDS."""


@contextmanager
def one_writer(lake_root: Path, table: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the right to write `table` of the lake at `lake_root`. Readers never wait.

    Raises TableBusyError when another process does not let go within `wait_seconds`.
    """
    from filelock import FileLock, Timeout

    folder = lake_root / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{table}.lock")
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise TableBusyError(
            f"{table}: another process has been writing it for {wait_seconds:.0f} s; see whether a run hangs"
        ) from None
    try:
        yield
    finally:
        lock.release()
