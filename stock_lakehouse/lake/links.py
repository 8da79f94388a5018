"""Paths by which an engine finds a Delta table whose folder has blanks or letters beyond ASCII.

Sail 0.7 takes the path of a Delta table for a URL, so it looks for a folder named `My%20Lake`. A link without such characters
stands for the lake's folder. Parquet and CSV files are found as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from stock_lakehouse.lake.storage import LakeRoot, StorageError, named

PLAIN = re.compile(r"[A-Za-z0-9._/&+=@,;:!$'()-]+")


def engine_path(lake_root: LakeRoot, table_path: str) -> str:
    """The path or URI by which an engine reads and writes the Delta table at `table_path` under `lake_root`.

    Raises StorageError if the link cannot be made.
    """
    if isinstance(lake_root, str) or PLAIN.fullmatch(str(lake_root)):
        return f"{lake_root}/{table_path}"
    root = lake_root.absolute()
    link = _folder_of_links() / hashlib.sha256(str(root).encode()).hexdigest()[:20]
    with named(str(link)):
        try:
            link.symlink_to(root, target_is_directory=True)
        except FileExistsError:
            if os.readlink(link) != str(root):
                raise StorageError(f"{link} should lead to {root}; remove it and run this again") from None
    return f"{link}/{table_path}"


def _folder_of_links() -> Path:
    """A folder of this user in the machine's folder for temporary files; nobody else may write to it."""
    folder = Path(tempfile.gettempdir()) / f"stock-lakehouse-{os.getuid()}"
    if not PLAIN.fullmatch(str(folder)):
        raise StorageError(
            f"TMPDIR: {folder.parent} has blanks or special letters; set TMPDIR to a folder without them"
        )
    with named(str(folder)):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StorageError(
            f"{folder} belongs to somebody else, or others may write to it; remove it and run this again"
        )
    return folder
