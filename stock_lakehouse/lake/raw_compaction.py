"""Compacted copies of raw's small files, so that reading a year takes as many files in December as in January.

A daily landing writes a small file, so a year of them is 250. A compaction is a copy of the rows of the first small files of a
year, by landing time, in a few files sorted by ticker. It is derived from them and may be deleted at any time. Its name says how
many files it stands for, with a digest of their names. It counts only if these are the files that are there, and if all of its
parts are. So neither a kill, nor a second writer, nor a landed file that was taken away makes it wrong.
Not here: when one is made, and what is read from it (raw_csv.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from stock_lakehouse.lake.raw_files import (
    FILE_COLUMNS,
    NO_DAY,
    RawFile,
    as_csv,
    fingerprint,
    sealed_name,
    text_in,
)
from stock_lakehouse.lake.storage import File, Storage

if TYPE_CHECKING:
    import pyarrow as pa

# Beside the tables that are computed from raw, not below raw: there nothing is ever deleted, and some may forbid it.
PATH = "processed/raw_compacted"
# year=<year>/bars_<how many files>_<digest of their names>_<part>-<parts>_<tickers>_<seal>.csv
NAME = re.compile(r"bars_(\d{6})_([0-9a-f]{16})_(\d{3})-(\d{3})_([0-9a-f]{64})_([0-9a-f]{28})\.csv")
SMALL = 512 * 1024  # bytes; a larger file, of a bulk load, has few tickers and stays as it is
LOOSE = 16  # small files of a year beside its compaction, from which on it is made anew
PART_ROWS = 5_000  # about 1 MB: a run of one ticker reads no more than it has to


@dataclass(frozen=True)
class Compaction:
    """The files `parts` in place of the files `members` of a year."""

    members: tuple[RawFile, ...]
    parts: tuple[RawFile, ...]

    @cached_property
    def places(self) -> frozenset[str]:
        return frozenset(member.place for member in self.members)


def small_files(files: Sequence[RawFile]) -> list[RawFile]:
    """Those of a year's files that a compaction stands for, in its order. All of the layout by ticker are: engines find a file's
    ticker and year in its path only when they read a whole folder of that layout."""
    small = (raw for raw in files if raw.ticker is not None or raw.file.size < SMALL)
    return sorted(small, key=lambda raw: (raw.landed, raw.place))


def compactions_of(files: Mapping[str, Sequence[RawFile]], walked: Sequence[File]) -> dict[str, Compaction]:
    """The compaction of each year that stands for the most of its `files`; `walked` are the files below PATH."""
    parts: dict[tuple[str, int, str, int], dict[int, RawFile]] = defaultdict(dict)
    for file in walked:
        if match := NAME.fullmatch(file.name):
            count, digest, part, of, tickers, seal = match.groups()
            year = file.path.split("/")[-2].removeprefix("year=")
            raw = RawFile(file, year, None, NO_DAY, NO_DAY, "", int(tickers, 16), seal)
            if raw.damage() is None:
                parts[year, int(count), digest, int(of)][int(part)] = raw
    found: dict[str, Compaction] = {}
    small = {year: small_files(own) for year, own in files.items()}
    for (year, count, digest, of), own in sorted(parts.items(), reverse=True):
        if year in found:  # by a newer one
            continue
        members = tuple(small.get(year, [])[:count])
        if len(own) == of and len(members) == count and digest == digest_of(members):
            found[year] = Compaction(members, tuple(own[part] for part in sorted(own)))
    return found


def digest_of(members: Sequence[RawFile]) -> str:
    """A digest of which files these are, by name and size: those from before there were seals have no size in the name. And of
    how parts are cut, so that no parts of two ways stand beside each other."""
    named = f"{PART_ROWS}\n" + "".join(f"{raw.place} {raw.file.size}\n" for raw in members)
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def compact(storage: Storage, members: Sequence[RawFile], rows: pa.Table) -> Compaction:
    """Write the compaction of `members`, whose rows are `rows`. What is there of it already, of a run that was killed or another
    one, stays."""
    parts = []
    year = members[0].year
    for name, tickers, content in _parts(members, rows):
        path = f"{PATH}/{name}"
        try:
            storage.create(path, content)
        except FileExistsError:
            if storage.read(path) != content:  # damaged
                storage.delete([path])
                storage.create(path, content)
        file = File(path, len(content), 0.0, "")
        parts.append(RawFile(file, year, None, NO_DAY, NO_DAY, "", tickers, name[-32:-4]))
    return Compaction(tuple(members), tuple(parts))


def part_names(members: Sequence[RawFile], rows: pa.Table) -> set[str]:
    """The paths of the compaction of `members`, whose rows are `rows`."""
    return {f"{PATH}/{name}" for name, _, _ in _parts(members, rows)}


def member_rows(raw: RawFile, content: bytes) -> pa.Table:
    """The rows of a file as a compaction holds them: blank text and no text stay two things."""
    return text_in(raw, content, FILE_COLUMNS, keep_blank=True)


def _parts(members: Sequence[RawFile], rows: pa.Table) -> Iterator[tuple[str, int, bytes]]:
    """Name, tickers and content of each part: by ticker, and of a ticker in the order of `rows`, so that it is the same whether
    `rows` come from the files or from the compaction before."""
    import pyarrow.compute as pc

    ordered = rows.take(pc.sort_indices(rows, [("ticker", "ascending")]))  # which is stable
    column = ordered["ticker"].to_pylist()
    starts = [0]
    for at in range(1, len(column)):
        if column[at] != column[at - 1] and at - starts[-1] >= PART_ROWS:
            starts.append(at)
    head = f"year={members[0].year}/bars_{len(members):06}_{digest_of(members)}"
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(column)], strict=True), 1):
        content = as_csv(ordered.slice(start, end - start))
        tickers = fingerprint(set(column[start:end]))
        name = f"{head}_{number:03}-{len(starts):03}_{tickers:064x}"
        yield sealed_name(name, content), tickers, content
