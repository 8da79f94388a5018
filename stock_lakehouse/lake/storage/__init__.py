"""The storage of a lake's files, a folder or an S3 bucket: list, read, create, replace and delete.

Paths are relative to the lake's root, with slashes. Not here: Delta tables, which deltalake and the engine read and write by
URI, and the meaning of any file.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from stock_lakehouse.lake.storage.bucket import Bucket
from stock_lakehouse.lake.storage.folder import Folder
from stock_lakehouse.lake.storage.messages import error_types, named, storage_error
from stock_lakehouse.lake.storage.protocol import (
    ORPHAN_SECONDS,
    ChangedError,
    DeniedError,
    File,
    Identity,
    LakeError,
    LakeRoot,
    NoAnswerError,
    NoSpaceError,
    Storage,
    StorageError,
)

__all__ = [
    "ORPHAN_SECONDS",
    "Bucket",
    "ChangedError",
    "DeniedError",
    "File",
    "Folder",
    "Identity",
    "LakeError",
    "LakeRoot",
    "NoAnswerError",
    "NoSpaceError",
    "Storage",
    "StorageError",
    "error_types",
    "named",
    "storage_at",
    "storage_error",
    "under",
]


def under(root: LakeRoot, path: str) -> LakeRoot:
    """The path or URI of `path` under the lake's root `root`."""
    return root / path if isinstance(root, Path) else f"{root}/{path}"


@lru_cache(maxsize=8)
def storage_at(root: LakeRoot) -> Storage:
    """The storage of the lake at `root`."""
    return Folder(root) if isinstance(root, Path) else Bucket(root)
