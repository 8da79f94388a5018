"""One writer a table: a lock across processes, held by the operating system, so a killed writer leaves none behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


class Turns:
    """Whose turn it is to bring a table up to date: from the reading of the layer above to the publish.

    A run that read before another published would publish over it: its frame lacks what the other added.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[Path, str], ExitStack] = {}

    def take(self, lake_root: Path, table: str) -> None:
        """Wait for the turn at `table`; it ends with `end`, or with the process."""
        if (lake_root, table) not in self._held:
            stack = ExitStack()
            stack.enter_context(one_writer(lake_root, f"{table}.turn"))
            self._held[lake_root, table] = stack

    def end(self, lake_root: Path, table: str | None = None) -> None:
        """End the turn at `table`, or all turns at the lake."""
        for key in [key for key in self._held if key[0] == lake_root and table in (None, key[1])]:
            self._held.pop(key).close()
