"""The versions of a Delta table: when each was committed, which of them was the newest at a moment, which can still be read.

By deltalake: Sail reads no version before the last checkpoint. Not here: what the rows mean, and removing versions (upkeep.py).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stock_lakehouse.lake.storage import LakeRoot, storage_at
from stock_lakehouse.market_calendar import utc_now

if TYPE_CHECKING:
    import deltalake

    from stock_lakehouse.lake.delta_table import DeltaTable

LOG = "_delta_log"
COMMIT = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoVersionError(Exception):
    """There is no version that a question is about; the message gives the earliest time that can be asked for."""


@dataclass(frozen=True)
class Commit:
    """A version and since when it was the newest, UTC, milliseconds."""

    version: int
    at: datetime


def commits(table: DeltaTable, now: datetime | None = None) -> list[Commit]:
    """The versions that the table's log can still give, ascending; their times never fall."""
    opened = table.open()
    said = {one["version"]: one.get("timestamp") for one in opened.history()}
    first = _first_readable(table.lake_root, table.table.path, said)
    versions = range(first, opened.version() + 1)
    times = believed([said.get(version) for version in versions], _milliseconds(now or utc_now()))
    return [
        Commit(version, EPOCH + timedelta(milliseconds=time)) for version, time in zip(versions, times, strict=True)
    ]


def believed(said: Sequence[int | None], now: int) -> list[int]:
    """When each of a table's commits came, by what they say, oldest first; milliseconds of the epoch, never falling.

    Clocks jump. A time of the future is not believed, nor one that is out of order with most others: of the longest
    ascending subsequence each is. A commit that is not believed came right after the one before it.
    """
    tails: list[int] = []  # the smallest last time of an ascending subsequence of each length
    ends: list[int] = []  # and whose it is
    before: dict[int, int | None] = {}
    for at, time in enumerate(said):
        if time is None or time > now:
            continue
        length = bisect_right(tails, time)
        before[at] = ends[length - 1] if length else None
        tails[length:] = [time, *tails[length + 1 :]]
        ends[length:] = [at, *ends[length + 1 :]]
    kept: set[int] = set()
    at_end = ends[-1] if ends else None
    while at_end is not None:
        kept.add(at_end)
        at_end = before[at_end]
    first = min((said[at] or 0 for at in kept), default=0)
    times: list[int] = []
    for at, time in enumerate(said):
        times.append(time if at in kept and time is not None else times[-1] if times else first)
    return times


def version_at(known: Sequence[Commit], at: datetime) -> int | None:
    """The newest version of `known` at that moment; None before the first."""
    found = bisect_right([one.at for one in known], at)
    return known[found - 1].version if found else None


def open_as_of(table: DeltaTable, at: datetime) -> deltalake.DeltaTable:
    """The table as it was at that moment, whole. Raises NoVersionError, which gives the earliest time there is."""
    if not table.exists():
        raise NoVersionError(f"{table.table.name}: there is no table yet at {table.path}")
    known = commits(table)
    version = version_at(known, at)
    there = {file.path for file in storage_at(table.lake_root).walk(table.table.path)}
    if version is not None and (opened := _whole(table, version, there)) is not None:
        return opened
    later = [one for one in known if version is None or one.version > version]
    # Upkeep removes what was replaced first, so versions that are whole follow those that are not.
    place = bisect_left(later, True, key=lambda one: _whole(table, one.version, there) is not None)
    if place == len(later):
        raise NoVersionError(
            f"{table.table.name}: files of its present version are missing; `stock-lakehouse upkeep` says which"
        )
    what = "its first version is" if later[place].version == 0 else "the earliest time available is"
    raise NoVersionError(
        f"{table.table.name}: nothing is known of {in_words(at)}; {what} of {in_words(later[place].at)}"
        + ("" if later[place].version == 0 else f", versions are kept for {_retention(table)} (retention_days)")
    )


def files_of(opened: deltalake.DeltaTable, path: str) -> set[str]:
    """The data files of a version of the table at `path` of the lake, as the lake's storage names them."""
    import pyarrow as pa

    return {f"{path}/{file_name(one)}" for one in pa.table(opened.get_add_actions())["path"].to_pylist()}


def file_name(in_log: str) -> str:
    """A file's path under its table, from how the log writes it: as a URI."""
    return unquote(in_log)


def in_words(at: datetime) -> str:
    """A moment as --as-of reads it, to the millisecond of a commit."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _whole(table: DeltaTable, version: int, there: set[str]) -> deltalake.DeltaTable | None:
    """The table at `version` if its log and all of its files are `there`."""
    import deltalake
    from deltalake.exceptions import DeltaError

    try:
        opened = deltalake.DeltaTable(str(table.path), version=version)
    except DeltaError:
        return None
    return opened if files_of(opened, table.table.path) <= there else None


def _first_readable(root: LakeRoot, path: str, said: Mapping[int, int | None]) -> int:
    """The oldest version of the unbroken end of the log from which a reader can start: 0, or one with a checkpoint."""
    checkpoints, there = set(), set()
    for file in storage_at(root).walk(f"{path}/{LOG}"):
        if match := COMMIT.fullmatch(file.name):
            there.add(int(match[1]))
        elif match := CHECKPOINT.fullmatch(file.name):
            checkpoints.add(int(match[1]))
    newest = version = max(there | checkpoints | set(said))
    first = newest
    while version in there or version in checkpoints:
        if version == 0 or version in checkpoints:
            first = version
        if version not in there:
            break
        version -= 1
    return first


def _retention(table: DeltaTable) -> str:
    said = table.open().metadata().configuration.get("delta.logRetentionDuration", f"{table.retention_days} days")
    return said.removeprefix("interval ")


def _milliseconds(at: datetime) -> int:
    return int((at - EPOCH) / timedelta(milliseconds=1))
