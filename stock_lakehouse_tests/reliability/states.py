"""What a lake holds, and what it may hold while something goes wrong and after.

Here: the promises that every fault is held against. Not here: any fault.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import deltalake
from pyspark.sql import SparkSession

from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse_tests.graph import clocked, contents, layers, ledger, raw_contents

Rows = list[dict[str, Any]]


@dataclass
class State:
    """What a lake holds."""

    layers: dict[str, Rows]
    raw: Rows
    ledger: Rows

    @classmethod
    def of(cls, root: LakeRoot, spark: SparkSession) -> State:
        house = clocked(root, spark)
        return cls(layers(house), raw_contents(house.lake), without_run(ledger(house)))

    def lost_of(self, undisturbed: State) -> int:
        """How many rows that the lake of a run that nothing disturbed holds are missing here, in all tables."""
        pairs = [(undisturbed.layers[name], self.layers[name]) for name in undisturbed.layers]
        return sum(missing(*pair) for pair in [*pairs, (undisturbed.raw, self.raw), (undisturbed.ledger, self.ledger)])


def missing(wanted: Rows, there: Rows) -> int:
    """How many of the rows `wanted` are not `there`."""
    return (Counter(map(str, wanted)) - Counter(map(str, there))).total()


def without_run(lines: Rows) -> Rows:
    return [{name: value for name, value in line.items() if name not in ("run_id", "restated_at")} for line in lines]


def assert_old_or_new(old: State, seen: State, new: State) -> None:
    """What a disturbed run from `old` to `new` left behind: of a Parquet table a ticker-year is old or new, of a Delta table the
    whole, the ledger has no line of a commit that did not come."""
    assert_old_or_new_files(old, seen, new)
    for name, table in (("curated", CURATED), ("features", FEATURES)):
        lines = [line for line in seen.ledger if line["table_name"] == table.name]
        if seen.layers[name] == old.layers[name]:
            assert lines == [], "the ledger tells of a commit that did not come"
        else:
            assert seen.layers[name] == new.layers[name]
            assert lines == [line for line in new.ledger if line["table_name"] == table.name]
    assert [row for row in seen.raw if row not in new.raw] == []


def assert_old_or_new_files(old: State, seen: State, new: State) -> None:
    for name in ("processed", "quarantine"):
        before, after, now = (by_file(state.layers[name]) for state in (old, new, seen))
        keys = before | after | now
        assert {key: now.get(key) in (before.get(key), after.get(key)) for key in keys} == dict.fromkeys(keys, True)


def by_file(rows: Rows) -> dict[tuple[str, str], Rows]:
    found: dict[tuple[str, str], Rows] = {}
    for row in rows:
        found.setdefault((row["ticker"], row["year"]), []).append(row)
    return found


def assert_the_ledger_is_what_changed(house: LakehouseResource) -> None:
    """Whatever happened: the ledger's lines, in vain ones left out, are the differences of every version of a table from the one
    before it, and each stands there once."""
    lines = ledger(house)
    for table in (house.lake.curated, house.lake.features):
        told: Counter[tuple[Any, ...]] = Counter()
        for line in lines:
            if line["table_name"] == table.table.name:
                told[(line["from_version"], *_told(line, table.table.name == CURATED.name))] += (
                    line["rows"] if table.table.name == CURATED.name else 1
                )
        assert told == _changes(table)


def assert_the_ledger_has_no_line_in_vain(house: LakehouseResource) -> None:
    """Not even one that `read` leaves out: the next publish has removed it."""
    assert len(contents(house.lake.ledger.stored)) == len(ledger(house))


def _told(line: dict[str, Any], is_curated: bool) -> tuple[Any, ...]:
    first = () if is_curated else (line["date"], line["rows"])
    return (line["ticker"], line["columns"], *first)


def _changes(table: DeltaTable) -> Counter[tuple[Any, ...]]:
    """What the ledger must say of each version of `table`: of curated how many values a column, of features a line a ticker."""
    found: Counter[tuple[Any, ...]] = Counter()
    if not table.exists():
        return found
    before: dict[Any, dict[str, Any]] = {}
    for version in range(table.open().version() + 1):
        after = {
            (row["ticker"], row["date"]): row
            for row in deltalake.DeltaTable(str(table.path), version=version).to_pyarrow_table().to_pylist()
        }
        if after == before:  # columns were added, or nothing was
            continue
        cells = [(key, name) for key, row in before.items() for name in _changed(row, after.get(key, {}))]
        if table.table.name == CURATED.name:
            found.update((version - 1, key[0], name) for key, name in cells)
        else:
            for ticker in {key[0] for key, _ in cells}:
                days = {key[1] for key, _ in cells if key[0] == ticker}
                names = ",".join(sorted({name for key, name in cells if key[0] == ticker}))
                found[version - 1, ticker, names, min(days), len(days)] += 1
        before = after
    return found


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    key = ("ticker", "date", "year", *CURATED.provenance)
    return [name for name, value in old.items() if name not in key and str(new.get(name)) != str(value)]
