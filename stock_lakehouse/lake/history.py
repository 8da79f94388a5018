"""The versions of a Delta table: when each was committed, which was the newest at a moment, and which can still be read.

The module uses deltalake, because Sail cannot read versions before the last checkpoint. Not here: what the rows mean, and the
removal of versions (maintenance.py).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stock_lakehouse.lake.storage import LakeError, LakeRoot, storage_at
from stock_lakehouse.market_calendar import utc_now

if TYPE_CHECKING:
    import deltalake

    from stock_lakehouse.lake.delta_table import DeltaTable

LOG = "_delta_log"
COMMIT = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoVersionError(LakeError):
    """There is no version for the moment asked for. The message gives the earliest time available."""


@dataclass(frozen=True)
class Commit:
    """A version of a table, and the time of its commit (UTC, to the millisecond)."""

    version: int
    at: datetime


def commits(table: DeltaTable, now: datetime | None = None) -> list[Commit]:
    """The versions that can still be read by the table's log, ascending. Their times never decrease."""
    opened = table.open()
    recorded = {commit["version"]: commit.get("timestamp") for commit in opened.history()}
    first = _first_readable(table.lake_root, table.table.path, recorded)
    versions = range(first, opened.version() + 1)
    times = believed([recorded.get(version) for version in versions], _milliseconds(now or utc_now()))
    return [
        Commit(version, EPOCH + timedelta(milliseconds=time)) for version, time in zip(versions, times, strict=True)
    ]


def believed(recorded: Sequence[int | None], now: int) -> list[int]:
    """Plausible commit times, from the recorded ones of a table's commits, oldest first.

    Times are milliseconds of the epoch; the result never decreases. Clocks jump, so two kinds of recorded times are rejected:
    times after `now`, and times that are not in the longest ascending subsequence. A commit whose time is rejected gets the
    time of the commit before it.
    """
    tails: list[int] = []  # for each length, the smallest last time of an ascending subsequence
    ends: list[int] = []  # for each length, the index of that time in `recorded`
    previous: dict[int, int | None] = {}  # for each index, the one before it in its subsequence
    for index, time in enumerate(recorded):
        if time is None or time > now:
            continue
        length = bisect_right(tails, time)
        previous[index] = ends[length - 1] if length else None
        tails[length:] = [time, *tails[length + 1 :]]
        ends[length:] = [index, *ends[length + 1 :]]
    kept: set[int] = set()
    last = ends[-1] if ends else None
    while last is not None:
        kept.add(last)
        last = previous[last]
    first = min((recorded[index] or 0 for index in kept), default=0)
    times: list[int] = []
    for index, time in enumerate(recorded):
        times.append(time if index in kept and time is not None else times[-1] if times else first)
    return times


def version_at(known: Sequence[Commit], at: datetime) -> int | None:
    """The newest version of `known` at the moment `at`; None before the first."""
    count = bisect_right([commit.at for commit in known], at)
    return known[count - 1].version if count else None


def snapshot_at(table: DeltaTable, at: datetime | None) -> deltalake.DeltaTable:
    """The existing table as it was at the moment `at` (None: now), for reading alone. Raises NoVersionError."""
    return table.snapshot() if at is None else open_as_of(table, at)


def open_as_of(table: DeltaTable, at: datetime) -> deltalake.DeltaTable:
    """The table as it was at the moment `at`. Raises NoVersionError, which gives the earliest time available."""
    if not table.exists():
        raise NoVersionError(f"{table.table.name}: there is no table yet at {table.path}")
    known = commits(table)
    version = version_at(known, at)
    paths = {file.path for file in storage_at(table.lake_root).walk(table.table.path)}
    if version is not None and (opened := _whole(table, version, paths)) is not None:
        return opened
    later = [commit for commit in known if version is None or commit.version > version]
    # Upkeep removes the files that were replaced first, so complete versions follow incomplete ones.
    place = bisect_left(later, True, key=lambda commit: _whole(table, commit.version, paths) is not None)
    if place == len(later):
        raise NoVersionError(
            f"{table.table.name}: files of its present version are missing; `stock-lakehouse upkeep` says which"
        )
    earliest = "its first version is" if later[place].version == 0 else "the earliest time available is"
    raise NoVersionError(
        f"{table.table.name}: nothing is known of {in_words(at)}; {earliest} of {in_words(later[place].at)}"
        + ("" if later[place].version == 0 else f", versions are kept for {_retention(table)} (retention_days)")
    )


def files_of(opened: deltalake.DeltaTable, path: str) -> set[str]:
    """The data files of the version `opened`, as paths under the lake's root. `path`: the table's path."""
    import pyarrow as pa

    # A stream, and not `pa.table`, which would import pandas.
    actions = pa.RecordBatchReader.from_stream(opened.get_add_actions()).read_all()
    return {f"{path}/{file_name(uri)}" for uri in actions["path"].to_pylist()}


def file_name(in_log: str) -> str:
    """A file's path under its table, from the URI in the Delta log."""
    return unquote(in_log)


def in_words(at: datetime) -> str:
    """A moment in the format of --as-of, to the millisecond."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _whole(table: DeltaTable, version: int, paths: set[str]) -> deltalake.DeltaTable | None:
    """The table at `version`; None if its log cannot be read or a data file is not among `paths`."""
    import deltalake
    from deltalake.exceptions import DeltaError

    try:
        opened = deltalake.DeltaTable(str(table.path), version=version)
    except DeltaError:
        return None
    return opened if files_of(opened, table.table.path) <= paths else None


def _first_readable(root: LakeRoot, path: str, recorded: Mapping[int, int | None]) -> int:
    """The oldest version from which a reader can start: 0, or one with a checkpoint, with no commit missing after it."""
    checkpoints, logged = set(), set()
    for file in storage_at(root).walk(f"{path}/{LOG}"):
        if match := COMMIT.fullmatch(file.name):
            logged.add(int(match[1]))
        elif match := CHECKPOINT.fullmatch(file.name):
            checkpoints.add(int(match[1]))
    newest = version = max(logged | checkpoints | set(recorded))
    first = newest
    while version in logged or version in checkpoints:
        if version == 0 or version in checkpoints:
            first = version
        if version not in logged:
            break
        version -= 1
    return first


def _retention(table: DeltaTable) -> str:
    setting = table.open().metadata().configuration.get("delta.logRetentionDuration", f"{table.retention_days} days")
    return setting.removeprefix("interval ")


def _milliseconds(at: datetime) -> int:
    return int((at - EPOCH) / timedelta(milliseconds=1))
