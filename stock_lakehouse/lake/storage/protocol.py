"""What every storage of a lake does, the errors that it raises, and the files that it lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeVar

LakeRoot = Path | str  # a folder, or s3://bucket/prefix
Identity = tuple[str, str]  # path and version tag of a file: equal as long as its content is
ORPHAN_SECONDS = 24 * 3600.0  # no writer takes this long between its temporary file and the rename

T = TypeVar("T")
R = TypeVar("R")


class LakeError(Exception):
    """What cannot be read from a lake. The message says what there is, or what to do."""


class StorageError(LakeError):
    """The lake's bucket or disk does not exist, cannot be reached, is full or denies access. The message says what to change."""


class NoAnswerError(StorageError):
    """The store did not answer a request. The request may have been executed all the same."""


class DeniedError(StorageError):
    """The credentials lack a right, which the message names."""


class NoSpaceError(StorageError):
    """A disk is full. The message says what to do."""


class ChangedError(Exception):
    """A file has changed since it was read: another writer replaced it."""


@dataclass(frozen=True)
class File:
    """A file of the lake.

    `path`: path under the lake's root.
    `size`: bytes.
    `changed`: time of the last write, in seconds of the epoch.
    `version_tag`: identity of the content: the ETag, or inode and modification time.
    """

    path: str
    size: int
    changed: float
    version_tag: str

    @property
    def identity(self) -> Identity:
        return self.path, self.version_tag

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Storage(Protocol):
    """The files of one lake."""

    def uri(self, path: str = "") -> str:
        """The URI of `path`, as the engine and people use it."""

    def walk(self, folder: str) -> Iterator[File]:
        """Every file below `folder`, in any order. No files if the folder does not exist."""

    def walk_partitions(self, folder: str, levels: int, name: str) -> Iterator[File]:
        """Every file `name` that is `levels` folders below `folder`, in any order: a third of the time of `walk`."""

    def present(self, folder: str, paths: Iterable[str]) -> Mapping[str, File]:
        """Those of the files `paths`, all below `folder`, that exist, by path."""

    def source(self, path: str) -> str | BytesIO:
        """The file in a form that pyarrow can read."""

    def ranged(self, path: str) -> Any:
        """The file in a form of which pyarrow reads only the parts that it needs, for large files. Raises FileNotFoundError."""

    def create(self, path: str, content: bytes) -> None:
        """Write a new file atomically. It is durable when this returns: it survives a power cut.

        Raises FileExistsError, and changes nothing, if the file exists.
        """

    def read(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    def check_readable(self, path: str) -> None:
        """Raise StorageError if the engine may not read `path`, a file or a folder: its first request is for the name itself.

        An engine's own error for that is a status 403, without the name and the right that lacks. In a folder it names the file.
        """

    def replace(self, path: str, content: bytes, expected: File | None, draft: str) -> None:
        """Write a file atomically, in place of the one there. It may be lost in a power cut, unlike one of `create`.

        `expected`: the file at `path` when the tables were compared, None if there was none. A bucket raises ChangedError, and
        writes nothing, if it has changed since. A folder does not compare: its lock cannot be lost.
        `draft`: an unused path for the unfinished file, which a kill leaves there. A bucket needs none.
        """

    def delete(self, files: Iterable[str]) -> None:
        """Remove `files`; those that no longer exist are skipped."""

    def delete_folder(self, folder: str) -> None:
        """Remove everything below `folder`, as far as permissions allow."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`function` of each item, in order; concurrently where each call waits for the network."""

    def check(self, folders: Iterable[str]) -> None:
        """Raise StorageError if the lake cannot be reached, or if one of `folders` may not be listed.

        The root itself is not listed: where permissions are granted by path nobody may list it.
        """
