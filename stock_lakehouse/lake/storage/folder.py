"""A lake in a folder: temporary files, syncs and renames."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path

from stock_lakehouse.lake.storage.messages import named
from stock_lakehouse.lake.storage.protocol import ORPHAN_SECONDS, File, R, Storage, StorageError, T

AT_A_TIME = 16  # concurrent syncs; each takes 4 to 50 ms, most of it waiting


class Folder:
    """A lake in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def uri(self, path: str = "") -> str:
        return str(self._root / path)

    def walk(self, folder: str) -> Iterator[File]:
        waiting = [folder]
        while waiting:
            within = waiting.pop()
            try:
                entries = list(os.scandir(f"{self._root}/{within}"))
            except FileNotFoundError:  # not created yet, or removed meanwhile
                continue
            for entry in entries:
                path = f"{within}/{entry.name}" if within else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                    continue
                with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
                    yield _file(path, entry.stat())

    def walk_partitions(self, folder: str, levels: int, name: str) -> Iterator[File]:
        folders = [folder]
        for _ in range(levels):
            within, folders = folders, []
            for path in within:
                with contextlib.suppress(FileNotFoundError):  # not created yet, or removed meanwhile
                    entries = os.scandir(f"{self._root}/{path}")
                    folders += [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield from self.present(folder, (f"{path}/{name}" for path in folders)).values()

    def present(self, folder: str, paths: Iterable[str]) -> Mapping[str, File]:
        found = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found[path] = _file(path, os.stat(f"{self._root}/{path}"))
        return found

    def source(self, path: str) -> str:
        return str(self._root / path)

    def ranged(self, path: str) -> str:
        return self.source(path)

    def create(self, path: str, content: bytes) -> None:
        target = self._root / path
        with named(str(target)):
            new = list(takewhile(lambda folder: not folder.exists(), target.parents))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError(str(target))
            # The temporary name is unique: another writer may be writing the same file.
            hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                hidden.write_bytes(content)
                _sync(hidden)
                os.replace(hidden, target)
            except OSError:
                hidden.unlink(missing_ok=True)
                raise
            for folder in {target.parent, *(made.parent for made in new)}:
                _sync(folder)
            _remove_orphans(target)

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def compared(self, folder: str) -> Mapping[str, File]:
        return {}

    def take(self, origin: Storage, source: str, target: str, expected: File | None) -> None:
        with named(self.uri(target)):
            (self._root / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(origin.uri(source), self._root / target)

    def delete(self, files: Iterable[str]) -> None:
        for path in files:
            (self._root / path).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        shutil.rmtree(self._root / folder, ignore_errors=True)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        return map(function, items)

    def check(self, folders: Iterable[str]) -> None:
        nearest = next(path for path in (self._root, *self._root.absolute().parents) if os.path.exists(path))
        if not nearest.is_dir():
            raise StorageError(f"lake_root: {nearest} is a file; set lake_root to a folder")
        for path in (self._root, *(self._root / folder for folder in folders)):
            if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
                raise StorageError(f"{path} cannot be read; change its permissions, or set lake_root to another folder")


def _sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _remove_orphans(written: Path) -> None:
    """Remove temporary files of killed writers beside `written`: those that are more than ORPHAN_SECONDS older than it.

    File times are compared with each other, never with this machine's clock. Younger files may belong to a living writer.
    """
    now = written.stat().st_mtime
    for hidden in written.parent.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # renamed by its writer, or removed by another process
            if now - hidden.stat().st_mtime > ORPHAN_SECONDS:
                hidden.unlink()


def _file(path: str, stat: os.stat_result) -> File:
    return File(path, stat.st_size, stat.st_mtime, f"{stat.st_ino}-{stat.st_mtime_ns}")
