"""The shared snapshot of a Delta table is the present version, whoever commits, and stays what it was for those who hold it."""

from __future__ import annotations

import shutil
from datetime import date

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake import delta_table as module
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.layout import LAYOUTS
from stock_lakehouse.lake_options import LakeOptions

DAYS = (date(2023, 1, 3), date(2023, 1, 4), date(2024, 1, 3))


def append(table: DeltaTable, ticker: str, days: tuple[date, ...]) -> None:
    """A commit by deltalake, as any other process makes it."""
    table.prepare()
    schema = pa.schema(table.open().schema().to_arrow())
    values = {
        "ticker": [ticker] * len(days),
        "date": days,
        "year": [day.year for day in days],
        "close": [1.0] * len(days),
    }
    rows = pa.table([values.get(name, [None] * len(days)) for name in schema.names], schema=schema)
    deltalake.write_deltalake(str(table.path), rows, mode="append")


def test_a_snapshot_is_shared_until_there_is_another_commit_and_does_not_move_then(lake: Lake) -> None:
    table = lake.curated
    append(table, "AAA", DAYS)
    before = table.snapshot()
    assert Lake(lake.options).curated.snapshot() is before
    append(table, "BBB", DAYS)
    after = table.snapshot()
    assert (before.version(), after.version()) == (1, 2)
    assert table.row_count() == 2 * len(DAYS)
    assert before.to_pyarrow_dataset().count_rows() == len(DAYS)


def test_a_table_that_took_the_place_of_another_of_the_same_version_is_read(lake: Lake) -> None:
    table = lake.curated
    append(table, "AAA", DAYS)
    first = table.snapshot()
    shutil.rmtree(table.path)
    append(table, "BBB", DAYS[:1])
    second = table.snapshot()
    assert first.version() == second.version()
    assert (table.row_count(), second.metadata().id == first.metadata().id) == (1, False)


def test_a_restored_version_is_a_new_snapshot(lake: Lake) -> None:
    table = lake.curated
    append(table, "AAA", DAYS)
    append(table, "BBB", DAYS)
    assert table.row_count() == 2 * len(DAYS)
    table.open().restore(1)
    assert (table.row_count(), table.version()) == (len(DAYS), 3)


def test_only_the_snapshots_of_the_last_tables_are_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_SNAPSHOTS", 1)
    monkeypatch.setattr(module, "_snapshots", {})
    for table in (lake.curated, lake.features):
        append(table, "AAA", DAYS)
        table.snapshot()
    assert [*module._snapshots] == [str(lake.features.path)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_read_by_ticker_and_year_without_an_engine(lake: Lake, layout: str) -> None:
    table = Lake(LakeOptions(lake_root=lake.root, layout=layout)).curated  # type: ignore[arg-type]
    assert table.read_arrow(["AAA"], [2023]).num_rows == 0
    append(table, "AAA", DAYS)
    append(table, "B'B", DAYS)
    rows = table.read_arrow(["B'B"], [2023])
    assert rows.schema.names == list(table.table.column_names)
    assert sorted(zip(rows["ticker"].to_pylist(), rows["date"].to_pylist(), strict=True)) == [
        ("B'B", DAYS[0]), ("B'B", DAYS[1]),
    ]  # fmt: skip
    everything = table.read_arrow()
    assert (everything.num_rows, pc.count_distinct(everything["ticker"]).as_py()) == (2 * len(DAYS), 2)
