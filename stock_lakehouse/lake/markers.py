"""Crash markers: small JSON files that tell the next run which work a killed run left.

Here: how a marker is written, read after a kill, and removed. Not here: what a marker means (layers/curated.py, upkeep.py).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from stock_lakehouse.lake.storage import Storage

T = TypeVar("T")


@dataclass(frozen=True)
class Marker(Generic[T]):
    """A marker.

    `path`: its path under the lake's root.
    `content`: the parsed content; None if the file is empty or truncated, so that the marker may mean anything.
    """

    path: str
    content: T | None


class Markers(Generic[T]):
    """The markers in `folder`. `parse` turns the decoded JSON into the content, or raises ValueError."""

    def __init__(self, storage: Storage, folder: str, parse: Callable[[object], T]) -> None:
        self._storage = storage
        self._folder = folder
        self._parse = parse

    def write(self, content: object) -> None:
        """Add a marker. It is durable when this returns."""
        self._storage.create(f"{self._folder}/{uuid.uuid4().hex}.json", json.dumps(content).encode())

    def read(self) -> list[Marker[T]]:
        """All markers.

        If another process removes a marker meanwhile, all are read again: it has first written a marker for the work left.
        """
        while True:
            # Temporary files are skipped: their writer has not begun the work that the marker is for.
            paths = [file.path for file in self._storage.walk(self._folder) if not file.name.startswith(".")]
            try:
                return [Marker(path, self._content(path)) for path in paths]
            except FileNotFoundError:
                continue

    def remove(self, markers: Iterable[Marker[T]]) -> None:
        """Remove `markers`; those that no longer exist are skipped."""
        if paths := [marker.path for marker in markers]:
            self._storage.delete(paths)

    def _content(self, path: str) -> T | None:
        text = self._storage.read(path)
        try:
            return self._parse(json.loads(text))
        except ValueError:  # JSON's and UTF-8's errors are ValueErrors too
            return None
