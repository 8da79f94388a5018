"""Compacted copies of raw's small files: reading a year takes as many files in December as in January.

Each daily landing writes a small file, so a year has 250 of them. A compaction copies the rows of a year's first small files, in
the order of their landing times, into a few files sorted by ticker. It is derived from them and may be deleted at any time. Its
name has the number of files that it replaces and a digest of their names. It is used only if exactly these files are in the lake
and all of its parts are complete. So a kill, a second writer or the removal of a landed file cannot make it wrong.
Not here: when a compaction is made, and which rows are read from it (raw_csv.py).
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

# Beside the tables that are computed from raw. Nothing below raw is ever deleted, and a lake's policy may forbid it there.
PATH = "processed/raw_compacted"
# year=<year>/bars_<number of files>_<digest of their names>_<part>-<parts>_<tickers>_<seal>.csv
NAME = re.compile(r"bars_(\d{6})_([0-9a-f]{16})_(\d{3})-(\d{3})_([0-9a-f]{64})_([0-9a-f]{28})\.csv")
SMALL = 512 * 1024  # bytes; a larger file comes from a bulk load, has few tickers and is not compacted
LOOSE = 16  # a year is compacted again when so many of its small files are in no compaction
PART_ROWS = 5_000  # about 1 MB: a run of one ticker reads little beyond its own rows


@dataclass(frozen=True)
class Compaction:
    """A compaction of a year.

    - members: the landed files that it replaces
    - parts: the files that hold their rows
    """

    members: tuple[RawFile, ...]
    parts: tuple[RawFile, ...]

    @cached_property
    def places(self) -> frozenset[str]:
        return frozenset(member.place for member in self.members)


def small_files(files: Sequence[RawFile]) -> list[RawFile]:
    """The files of a year that a compaction replaces, in its order.

    All files of the layout by ticker are among them: engines find a file's ticker and year in its path only when they read a
    whole folder of that layout.
    """
    small = (raw for raw in files if raw.ticker is not None or raw.file.size < SMALL)
    return sorted(small, key=lambda raw: (raw.landed, raw.place))


def compactions_of(files: Mapping[str, Sequence[RawFile]], compacted: Sequence[File]) -> dict[str, Compaction]:
    """For each year, the compaction that replaces the most of its `files`. `compacted`: the files below PATH."""
    parts: dict[tuple[str, int, str, int], dict[int, RawFile]] = defaultdict(dict)
    for file in compacted:
        if match := NAME.fullmatch(file.name):
            member_count, digest, number, part_count, tickers, seal = match.groups()
            year = file.path.split("/")[-2].removeprefix("year=")
            raw = RawFile(file, year, None, NO_DAY, NO_DAY, "", int(tickers, 16), seal)
            if raw.damage() is None:
                parts[year, int(member_count), digest, int(part_count)][int(number)] = raw
    found: dict[str, Compaction] = {}
    small = {year: small_files(year_files) for year, year_files in files.items()}
    for (year, member_count, digest, part_count), numbered in sorted(parts.items(), reverse=True):
        if year in found:  # a compaction of at least as many files
            continue
        members = tuple(small.get(year, [])[:member_count])
        if len(numbered) == part_count and len(members) == member_count and digest == digest_of(members):
            found[year] = Compaction(members, tuple(numbered[number] for number in sorted(numbered)))
    return found


def digest_of(members: Sequence[RawFile]) -> str:
    """A digest that identifies a compaction's members, by name and size: the names of files without a seal do not have the size.

    PART_ROWS is part of it, so that parts that were cut at different sizes are never used together.
    """
    identity = f"{PART_ROWS}\n" + "".join(f"{raw.place} {raw.file.size}\n" for raw in members)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def compact(storage: Storage, members: Sequence[RawFile], rows: pa.Table) -> Compaction:
    """Write the compaction of `members`, whose rows are `rows`. Parts that a killed run or another run has written are kept."""
    parts = []
    year = members[0].year
    for name, tickers, content in _parts(members, rows):
        path = f"{PATH}/{name}"
        try:
            storage.create(path, content)
        except FileExistsError:
            if storage.read(path) != content:  # the part is damaged
                storage.delete([path])
                storage.create(path, content)
        file = File(path, len(content), 0.0, "")
        parts.append(RawFile(file, year, None, NO_DAY, NO_DAY, "", tickers, name[-32:-4]))
    return Compaction(tuple(members), tuple(parts))


def part_names(members: Sequence[RawFile], rows: pa.Table) -> set[str]:
    """The paths of the parts of the compaction of `members`, whose rows are `rows`."""
    return {f"{PATH}/{name}" for name, _, _ in _parts(members, rows)}


def member_rows(raw: RawFile, content: bytes) -> pa.Table:
    """The rows of a landed file as a compaction stores them: empty text and null stay distinct."""
    return text_in(raw, content, FILE_COLUMNS, keep_blank=True)


def _parts(members: Sequence[RawFile], rows: pa.Table) -> Iterator[tuple[str, int, bytes]]:
    """The name, ticker fingerprint and content of each part.

    Rows are sorted by ticker and keep the order of `rows` within a ticker. So parts are the same whether `rows` come from the
    landed files or from the previous compaction.
    """
    import pyarrow.compute as pc

    ordered = rows.take(pc.sort_indices(rows, [("ticker", "ascending")]))  # a stable sort
    row_tickers = ordered["ticker"].to_pylist()
    starts = [0]
    for index in range(1, len(row_tickers)):
        if row_tickers[index] != row_tickers[index - 1] and index - starts[-1] >= PART_ROWS:
            starts.append(index)
    prefix = f"year={members[0].year}/bars_{len(members):06}_{digest_of(members)}"
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(row_tickers)], strict=True), 1):
        content = as_csv(ordered.slice(start, end - start))
        ticker_bits = fingerprint(set(row_tickers[start:end]))
        name = f"{prefix}_{number:03}-{len(starts):03}_{ticker_bits:064x}"
        yield sealed_name(name, content), ticker_bits, content
