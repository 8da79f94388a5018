"""Copying from a backup what no other table can be computed from: landed rows, the ledger, and the stream's messages.

Here: which tables these are, the copy and its checks. Not here: computing the other tables (runs/backfill.py), and making a
backup: a copy of the folders of these tables while no run is in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.raw_csv import LISTED
from stock_lakehouse.lake.raw_files import raw_file
from stock_lakehouse.lake.storage import File, LakeError
from stock_lakehouse.tables import RAW, STREAM_TABLES, TABLES, Table

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake

BACKED_UP = tuple(table for table in (*TABLES, *STREAM_TABLES) if not table.made_from)
DERIVED = tuple(table for table in (*TABLES, *STREAM_TABLES) if table.made_from)
LOG = "_delta_log"
AT_A_TIME = 16  # concurrent copies; each mostly waits for the network or the disk
PROGRESS_EVERY = 1000


class RestoreError(LakeError):
    """A backup cannot be restored into a lake. The message says why and what to do; nothing of the lake was replaced."""


@dataclass(frozen=True)
class Copied:
    """What a copy did with a table: how many files it wrote, and how many the lake had already."""

    table: str
    written: int
    kept: int


def copy_backup(backup: Lake, lake: Lake, progress: Callable[[str], None]) -> list[Copied]:
    """Copy the files of BACKED_UP that `backup` has and `lake` lacks, table by table.

    The lake must be empty, or hold what an earlier copy of the same backup wrote: a copy that was killed continues. A file that
    exists is never replaced, so a bucket whose policy refuses that for raw accepts the copy.

    Raises RestoreError if the backup has no landed file or a damaged one, or if the lake holds anything else.
    """
    wanted = {table.name: list(_files_of(backup, table)) for table in BACKED_UP}
    if not wanted[RAW.name]:
        raise RestoreError(
            f"there is no landed file in {backup.storage.uri(RAW.path)}: name the folder or s3://bucket/prefix that has the "
            f"backup's folder {RAW.path}"
        )
    _check_empty(lake, wanted)
    return [_copy(backup, lake, table, wanted[table.name], progress) for table in BACKED_UP]


def drop_orphans(backup: Lake, lake: Lake) -> None:
    """Remove the ledger's lines that announce a commit which the backup's tables do not have.

    Only a backup that has these tables too can tell. Without them the lines stay that a run had announced during the backup.
    """
    for table in TABLES:
        if table.ledger and backup.delta[table.name].exists():
            with one_writer(lake.root, table.name):
                lake.ledger.drop_orphans(table.name, backup.delta[table.name].open())


def _files_of(lake: Lake, table: Table) -> Iterator[File]:
    """The files of `table` in the order in which they are copied: of a Delta table its log last, version by version."""
    files = sorted(
        lake.storage.walk(table.path), key=lambda file: (_is_log(file), not file.name.endswith(".json"), file.path)
    )
    for file in files:
        if table == RAW:
            if raw_file(file) is not None:
                yield file
        elif _is_log(file):
            # Not the checksums (.crc) and `_last_checkpoint`, which only save work: deltalake refuses a table whose checksum is
            # newer than its log, as a copy that was killed would leave it.
            if file.name.endswith((".json", ".parquet")):
                yield file
        elif not file.name.startswith("."):
            yield file


def _check_empty(lake: Lake, wanted: dict[str, list[File]]) -> None:
    present = {file.path for table in BACKED_UP for file in lake.storage.walk(table.path)}
    needed = {file.path for files in wanted.values() for file in files}
    landed = {path for path in present if path.startswith(f"{RAW.path}/")}
    where = lake.storage.uri()
    if foreign := sorted(landed - needed):
        raise RestoreError(
            f"{where} has landed files that the backup does not have, like {foreign[0]}: set lake_root to an empty place, and "
            "restore there"
        )
    if needed - present and any(
        True for table in DERIVED for _ in lake.storage.walk(lake.stored(table.name).table.path)
    ):
        raise RestoreError(
            f"{where} has tables already that were not computed from this backup: set lake_root to an empty place, and restore "
            "there"
        )


def _copy(backup: Lake, lake: Lake, table: Table, files: Sequence[File], progress: Callable[[str], None]) -> Copied:
    """Copy `files` of `table`. Raises RestoreError, after the others were copied, if some are damaged."""
    if not files:
        return Copied(table.name, 0, 0)  # without the lease, to which only the table's writers have a right
    with one_writer(lake.root, table.name):
        present = {file.path: file.size for file in lake.storage.walk(table.path)}
        # Names say which content a data file has. The files of a log have the same names in every table.
        data = [file for file in files if not _is_log(file) and present.get(file.path) != file.size]
        written, damaged = 0, []
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for number, outcome in enumerate(pool.map(lambda file: _copy_file(backup, lake, file), data), 1):
                if isinstance(outcome, str):
                    damaged.append(outcome)
                else:
                    written += outcome
                if number % PROGRESS_EVERY == 0:
                    progress(f"{table.name}: {number:,} of {len(data):,} files copied")
        if damaged:
            more = f", and {len(damaged) - LISTED} more" if len(damaged) > LISTED else ""
            raise RestoreError(
                f"damaged files in the backup: {'; '.join(damaged[:LISTED])}{more}. Put an earlier version of each in its place, "
                "or move it out of the backup, which loses its rows; then restore again: the copy continues"
            )
        # In order, and after the files that it names: a copy that was killed left an earlier version of the table.
        written += sum(_copy_file(backup, lake, file) is True for file in files if _is_log(file))
    return Copied(table.name, written, len(files) - written)


def _copy_file(backup: Lake, lake: Lake, file: File) -> bool | str:
    """Whether the file was written; what is wrong with it if it is a damaged landed file, which is not written."""
    content = backup.storage.read(file.path)
    landed = raw_file(file)
    if landed is not None and (wrong := landed.damage(content)):
        return f"{backup.storage.uri(file.path)}: {wrong}"
    try:
        lake.storage.create(file.path, content)
    except FileExistsError:
        if lake.storage.read(file.path) != content:
            raise RestoreError(
                f"{lake.storage.uri(file.path)} exists and differs from the backup: set lake_root to an empty place, and restore "
                "there"
            ) from None
        return False
    return True


def _is_log(file: File) -> bool:
    return LOG in file.path.split("/")
