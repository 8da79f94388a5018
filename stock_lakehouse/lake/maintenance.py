"""Maintenance of a stored table: compaction of small files, checkpoints, removal of old versions and of damaged files.

Here: one table at a time, by its log and its files, without an engine. Every step may be killed and repeated. Not here: which
rows a table should have (stock_lakehouse/upkeep.py).
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable, adds_of, partition_columns
from stock_lakehouse.lake.history import (
    CHECKPOINT,
    COMMIT,
    LOG,
    commits,
    file_name,
    files_of,
    version_at,
)
from stock_lakehouse.lake.ledger import Ledger
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import PublishError, literals
from stock_lakehouse.lake.storage import Storage, storage_at
from stock_lakehouse.lake.stored import Damage, is_sorted
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.tables import LAYOUTS, Table

if TYPE_CHECKING:
    import deltalake

DAMAGED = ".damaged"
# A file that no version names may belong to a commit in flight. No commit takes so long.
UNCOMMITTED = timedelta(days=7)
VERSION = slice(0, 20)  # the version in the name of a log file


@dataclass(frozen=True)
class Maintained:
    """What the maintenance of a table did.

    - files_before, files_after: data files of the present version
    - files_removed, bytes_freed: files that only old versions needed, and their size with that of the removed log
    - versions_removed: versions that can no longer be read
    """

    files_before: int = 0
    files_after: int = 0
    files_removed: int = 0
    bytes_freed: int = 0
    versions_removed: int = 0


def drop(lake: Lake, table: Table, damages: Sequence[Damage]) -> None:
    """Remove damaged files from a table, so that its other rows can be read and the next run publishes the removed ones again.

    The remains of a file are kept under .damaged/. Its rows are missing until they are computed again from the upstream layer.
    """
    delta = lake.stream.get(table.name) or lake.delta.get(table.name)
    with one_writer(lake.root, table.name):
        confirm(lake.root)
        if delta is not None and table.name not in lake.stream:
            lake.ledger.drop_orphans(table.name, delta.open())
        for damage in damages:
            _set_aside(lake.storage, damage.path)
        if delta is not None:
            delta.open().repair()


def maintain_table(table: DeltaTable, ledger: Ledger | None, now: datetime | None = None) -> Maintained:
    """Join small files, write a checkpoint, and remove versions beyond the table's retention with their files.

    `ledger`: the ledger that has lines of this table. Its orphaned lines are removed before anything is committed, because an
    orphaned line would count once the table is past the version that it names.
    """
    if not table.exists():
        return Maintained()
    with one_writer(table.lake_root, table.table.name):
        if ledger is not None:
            ledger.drop_orphans(table.table.name, table.open())
        confirm(table.lake_root)
        table.set_properties()
        before = len(table.sizes())
        _compact(table)
        opened = table.open()
        if not _has_checkpoint(table, opened.version()):
            opened.create_checkpoint()
        confirm(table.lake_root)
        kept = timedelta(days=table.retention_days)
        removed = remove_old(table, now or utc_now(), kept, UNCOMMITTED)
        return replace(removed, files_before=before, files_after=len(table.sizes()))


def _compact(table: DeltaTable) -> None:
    """Join the files of each partition that has several, in one commit, and compare the row counts with those before.

    If a partition has all tickers of a year, the years that are not sorted are rewritten, sorted by ticker: engines sort by
    partition columns alone when they write.

    Raises PublishError if a row count changed; the commit is then reverted.
    """
    before = table.open()
    rows = _partitions(before)
    if partition_columns(before) == LAYOUTS["year"]:
        years = _not_in_order(table, before)
        if not years:
            return
        table.rewrite(before, years, predicate=f"year IN ({literals(years)})", partition_by=LAYOUTS["year"])
    elif all(files == 1 for files, _ in rows.values()):
        return
    else:
        before.optimize.compact()
    after = table.open()
    now = _partitions(after)
    if {key: count for key, (_, count) in rows.items()} != {key: count for key, (_, count) in now.items()}:
        after.restore(after.version() - 1)
        raise PublishError(f"{table.table.name}: compaction lost rows and was reverted; please report it")


def _not_in_order(table: DeltaTable, opened: deltalake.DeltaTable) -> list[int]:
    """The years with several files, or with a file in which a reader of one ticker cannot skip most row groups."""
    import pyarrow.parquet as pq

    storage = storage_at(table.lake_root)
    files: dict[int, list[str]] = {}
    for add in adds_of(opened):
        files.setdefault(add["partition.year"], []).append(f"{table.table.path}/{file_name(add['path'])}")

    def is_in_order(paths: list[str]) -> bool:
        return len(paths) == 1 and is_sorted(pq.read_metadata(storage.ranged(paths[0])))

    years = sorted(files)
    found = storage.map(is_in_order, [files[year] for year in years])
    return [year for year, in_order in zip(years, found, strict=True) if not in_order]


def remove_old(table: DeltaTable, now: datetime, keep: timedelta, uncommitted: timedelta) -> Maintained:
    """Remove the log files and the data files that no kept version needs.

    `keep`: the versions of this time stay. `uncommitted`: files that no version names stay for this time after they were written.
    The caller must hold the lock of the table's writers.

    The log is removed up to the newest checkpoint from which the oldest kept version can be read. deltalake's vacuum and log
    cleanup are not used: they go by the removals that a checkpoint still lists, make two commits, and remove the version that
    was the newest at the end of the retention. Ages are measured from the newest commit or from `now`, whichever is earlier,
    so that a clock that jumped ahead removes nothing.
    """
    known, storage, path = commits(table, now), storage_at(table.lake_root), table.table.path
    latest = min(now, known[-1].at)
    kept = version_at(known, latest - keep)
    oldest = known[0].version if kept is None else kept
    walked = list(storage.walk(path))
    in_log = [file for file in walked if file.path.startswith(f"{path}/{LOG}/")]
    checkpoints = [int(match[1]) for file in in_log if (match := CHECKPOINT.fullmatch(file.name))]
    start = max((version for version in checkpoints if version <= oldest), default=0)
    needed = _files_since(table, oldest, known[-1].version)
    unneeded = [
        file
        for file in walked
        if file.name.endswith(".parquet")
        and f"/{LOG}/" not in file.path
        and file.path not in needed
        and file.changed < (latest - uncommitted).timestamp()
    ]
    # Oldest first, so that after a kill the rest of the log has no holes.
    old_log = sorted(
        (file for file in in_log if file.name[VERSION].isdigit() and int(file.name[VERSION]) < start),
        key=lambda file: file.name,
    )
    removed = [*old_log, *unneeded]
    if removed:
        storage.delete([file.path for file in removed])
    return Maintained(
        files_removed=len(unneeded),
        bytes_freed=sum(file.size for file in removed),
        versions_removed=sum(COMMIT.fullmatch(file.name) is not None for file in old_log),
    )


def _files_since(table: DeltaTable, oldest: int, newest: int) -> set[str]:
    """The data files of every version from `oldest` to `newest`."""
    import deltalake

    storage, path = storage_at(table.lake_root), table.table.path
    named = files_of(deltalake.DeltaTable(str(table.path), version=oldest), path)
    logs = [f"{path}/{LOG}/{version:020d}.json" for version in range(oldest + 1, newest + 1)]
    for text in storage.map(storage.read, logs):
        for line in text.splitlines():
            if b'"add"' in line and (add := json.loads(line).get("add")):
                named.add(f"{path}/{file_name(add['path'])}")
    return named


def _set_aside(storage: Storage, path: str) -> None:
    try:
        content = storage.read(path)
    except FileNotFoundError:
        return
    with contextlib.suppress(FileExistsError):  # a killed upkeep copied it there
        storage.create(f"{DAMAGED}/{path}", content)
    storage.delete([path])


def _has_checkpoint(table: DeltaTable, version: int) -> bool:
    found = (CHECKPOINT.fullmatch(file.name) for file in storage_at(table.lake_root).walk(f"{table.table.path}/{LOG}"))
    return any(match is not None and int(match[1]) == version for match in found)


def _partitions(opened: deltalake.DeltaTable) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Files and rows of each partition, by the log."""
    files: Counter[tuple[Any, ...]] = Counter()
    rows: Counter[tuple[Any, ...]] = Counter()
    for add in adds_of(opened):
        key = tuple(value for name, value in sorted(add.items()) if name.startswith("partition."))
        files[key] += 1
        rows[key] += add["num_records"]
    return {key: (files[key], rows[key]) for key in files}
