"""The reports of a lake's runs: a file a run in `reports/` of its folder or bucket, of which the newest are kept.

Here: where they are, how they are written, read and removed. Not here: what is in one (run.py, report.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from stock_lakehouse.dashboards.answers import ReportError
from stock_lakehouse.dashboards.report import write_page
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.storage import ChangedError, File
from stock_lakehouse.lake.storage.bucket import Bucket

FOLDER = "reports"
SUFFIX = ".html"
NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


class Reports:
    """The reports of the runs of `lake`, by run id."""

    def __init__(self, lake: Lake) -> None:
        self._root, self._storage = lake.root, lake.storage

    def location(self, run_id: str) -> str:
        """The path, or the URI in the bucket, of a run's report, whether it exists or not."""
        return self._storage.uri(_path(run_id))

    def read(self, run_id: str) -> bytes | None:
        """The report of a run; None if there is none. Raises StorageError."""
        if not NAME.fullmatch(run_id):
            return None
        try:
            return self._storage.read(_path(run_id))
        except FileNotFoundError:
            return None

    def write(self, run_id: str, page: str) -> str:
        """Write the report of a run, in place of an earlier one, whole or not at all; return its location.

        Raises ReportError if the file cannot be written; StorageError.
        """
        if isinstance(self._root, Path):
            path = self._root / _path(run_id)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ReportError(f"{path.parent}: the folder of reports cannot be made ({error.strerror})") from None
            return str(write_page(page, path))
        assert isinstance(self._storage, Bucket)
        earlier = next((file for file in self._files() if file.path == _path(run_id)), None)
        try:
            self._storage.put(_path(run_id), page.encode(), earlier.version_tag if earlier else None)
        except ChangedError:
            # Another process wrote the report of this run at the same moment, or this one did, and the answer was lost.
            if self.read(run_id) is None:
                raise ReportError(
                    f"{self.location(run_id)}: it was removed while it was written; write it again"
                ) from None
        return self.location(run_id)

    def remove_old(self, kept: int) -> int:
        """Remove all but the newest `kept` reports; return how many. Raises StorageError."""
        files = sorted(self._files(), key=lambda file: (file.changed, file.path))
        old = [file.path for file in files[: max(len(files) - kept, 0)]]
        if old:
            self._storage.delete(old)
        return len(old)

    def _files(self) -> list[File]:
        """Reports alone: a file that somebody else put there is not removed."""
        return [
            file
            for file in self._storage.walk(FOLDER)
            if file.name.endswith(SUFFIX) and NAME.fullmatch(file.name.removesuffix(SUFFIX))
        ]


def _path(run_id: str) -> str:
    return f"{FOLDER}/{run_id}{SUFFIX}"
