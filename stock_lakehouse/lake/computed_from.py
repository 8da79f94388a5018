"""What the newest commit of a derived table was computed from, recorded in the commit itself.

A run compares what it computed with what is published. If the newest commit of the published table says that the same formulas
computed it for the same tickers from a known version of the upstream table, only those years of a ticker can differ that follow
the first one that changed upstream since. A commit of anybody else (a compaction, a restore, a change by hand) has no record,
and all years are compared.

Here: the record, and which years changed. Not here: the comparison (delta_publish.py), and whether the values of a year
depend on later years (layers/features.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import deltalake

    from stock_lakehouse.lake.delta_table import DeltaTable


@dataclass(frozen=True)
class ComputedFrom:
    """What a commit was computed from.

    - program: digest of everything besides the upstream rows on which the values depend
    - tickers: digest of the tickers of the run
    - version: the version of the upstream table
    """

    program: str
    tickers: str
    version: int

    def note(self) -> str:
        """The text for a commit's metadata."""
        return json.dumps({"computed_from": asdict(self)})


def digest(facts: Mapping[str, Any] | Collection[str]) -> str:
    """A digest of `facts`; of a collection, whatever its order."""
    content = dict(sorted(facts.items())) if isinstance(facts, Mapping) else sorted(facts)
    return sha256(json.dumps(content).encode()).hexdigest()[:24]


def newest_record(opened: deltalake.DeltaTable) -> ComputedFrom | None:
    """The record of the commit that made the version `opened`; None if that commit has none."""
    version = opened.version()
    notes = [commit.get("userMetadata") for commit in opened.history(1) if commit["version"] == version]
    if not notes or not isinstance(notes[0], str) or "{" not in notes[0]:
        return None
    try:
        return ComputedFrom(**json.loads(notes[0][notes[0].index("{") :])["computed_from"])
    except (KeyError, TypeError, ValueError):  # the note of another program
        return None


def first_changed_years(upstream: DeltaTable, version: int, tickers: Collection[str]) -> dict[str, int] | None:
    """By ticker, the first year in which files with its rows differ between `version` of `upstream` and its present version.

    Tickers whose files are the same are left out. None if `version` cannot be read any more. In the layout by year a file has
    rows of all tickers. Only for a table with partitions by year.
    """
    import deltalake
    from deltalake.exceptions import DeltaError

    from stock_lakehouse.lake.delta_table import add_actions

    def files_of(opened: deltalake.DeltaTable) -> set[tuple[str | None, int, str]]:
        adds = add_actions(opened)
        names = [name for name in ("path", "partition.year", "partition.ticker") if name in adds.column_names]
        rows = adds.select(names).to_pylist()
        return {(row.get("partition.ticker"), int(row["partition.year"]), row["path"]) for row in rows}

    present = upstream.open()
    if present.version() == version:
        return {}
    if present.version() < version:  # another table of that name
        return None
    try:
        before = deltalake.DeltaTable(str(upstream.path), version=version)
    except DeltaError:
        return None
    if before.metadata().id != present.metadata().id:
        return None
    changed: dict[str, int] = {}
    for holder, year, _ in files_of(before) ^ files_of(present):
        for ticker in tickers if holder is None else {holder} & {*tickers}:
            changed[ticker] = min(year, changed.get(ticker, year))
    return changed
