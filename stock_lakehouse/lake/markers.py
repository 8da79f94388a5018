"""Crash markers: small JSON files that tell the next run which work a killed run left.

Here: how a marker is written, read after a kill, and removed. Not here: what a marker means (curation.py, upkeep.py).
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
    """A marker: its path under the lake's root, and what it says; None if it is empty or cut, so that it may mean anything."""

    path: str
    content: T | None


class Markers(Generic[T]):
    """The markers in `folder`. `parse` gives the content from what JSON says, or raises ValueError."""

    def __init__(self, storage: Storage, folder: str, parse: Callable[[object], T]) -> None:
        self._storage = storage
        self._folder = folder
        self._parse = parse

    def write(self, content: object) -> None:
        """Add a marker. It is durable when this returns."""
        self._storage.create(f"{self._folder}/{uuid.uuid4().hex}.json", json.dumps(content).encode())

    def read(self) -> list[Marker[T]]:
        """Every marker.

        Another process may remove markers meanwhile, after it has written what is left of them: then all are read again.
        """
        while True:
            # A temporary file was not renamed yet: its writer has not begun the work that the marker is for.
            paths = [file.path for file in self._storage.walk(self._folder) if not file.name.startswith(".")]
            try:
                return [Marker(path, self._content(path)) for path in paths]
            except FileNotFoundError:
                continue

    def remove(self, markers: Iterable[Marker[T]]) -> None:
        """Remove `markers`, of which some may be gone."""
        if paths := [marker.path for marker in markers]:
            self._storage.delete(paths)

    def _content(self, path: str) -> T | None:
        text = self._storage.read(path)
        try:
            return self._parse(json.loads(text))
        except ValueError:  # JSON's and UTF-8's errors are ValueErrors too
            return None
