"""The serving copy: what its files hold, when they are written, and when they go."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import threading
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from stock_lakehouse import layers as layers_module
from stock_lakehouse.cli import doctor
from stock_lakehouse.lake import Lake, bi_database
from stock_lakehouse.lake import serving as serving_module
from stock_lakehouse.lake.delta_table import ONE_FILE, DeltaTable
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.serving import (
    FOLDER,
    SERVED,
    ServingCopy,
    UnservedError,
    reading_copy,
    served_name,
)
from stock_lakehouse.lake.storage import Folder
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.layers import run as run_layer
from stock_lakehouse.layers.step import CheckResult, Step
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, FEATURES, PROCESSED, RAW, RESTATEMENTS, Table
from stock_lakehouse.upkeep import keep_up
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.graph import TICKERS, Clocked, clocked, history, rectangle, run, year_boundary
from stock_lakehouse_tests.lake.histories import time_passes
from stock_lakehouse_tests.reliability.scenario import Points

ODD = ("AAPL", "BAC^B", "BF.B", "BRK-B", "EURUSD=X", "0700", "TRUE")
LAYOUTS = ("ticker_year", "year")
DAY = timedelta(days=1)
DAYS = year_boundary(8, 6)
ASKED = rectangle(DAYS, TICKERS)


def days_of(year: int, count: int = 5) -> list[date]:
    return [date(year, 3, 1) + timedelta(days=number) for number in range(count)]


def rows_of(table: Table, tickers: list[str], days: list[date], seed: int = 0) -> pa.Table:
    """Rows of every ticker and day in a random order, with nulls, infinities and NaNs where the type has them."""
    dice, keys = np.random.default_rng(seed), [(ticker, day) for ticker in tickers for day in days]
    random.Random(seed).shuffle(keys)

    def column(field: pa.Field) -> pa.Array:
        count = len(keys)
        known: dict[str, Any] = {
            "ticker": [ticker for ticker, _ in keys],
            "date": [day for _, day in keys],
            "year": [day.year for _, day in keys],
        }
        if field.name in known:
            return pa.array(known[field.name], field.type)
        if field.type == pa.float64():
            values = dice.normal(size=count)
            values[dice.random(count) < 0.1] = np.nan
            values[dice.random(count) < 0.1] = -0.0
            return pa.array(values, field.type, mask=dice.random(count) < 0.2)
        if field.type == pa.bool_():
            return pa.array(dice.random(count) < 0.5, field.type)
        if field.type == pa.string():
            return pa.array([f"text {number % 3}" for number in range(count)])
        if field.type == pa.date32():
            return pa.array([day for _, day in keys], field.type)
        numbers = pa.array(dice.integers(0, 2**45, count), pa.int64())
        return numbers.cast(pa.int32(), safe=False) if field.type == pa.int32() else numbers.cast(field.type)

    return pa.table([column(field) for field in table.arrow_schema], schema=table.arrow_schema)


def append(stored: DeltaTable, rows: pa.Table) -> None:
    stored.prepare()
    schema = pa.schema(stored.open().schema().to_arrow())
    rows = rows.select(schema.names).cast(schema)
    deltalake.write_deltalake(stored.open(), rows, mode="append", target_file_size=ONE_FILE)


def lake_at(root: Path, layout: str = "ticker_year", bars_per_chunk: int = 750_000) -> Lake:
    return Lake(LakeOptions(lake_root=root, layout=layout, bars_per_chunk=bars_per_chunk))


def filled(
    root: Path, layout: str = "ticker_year", tickers: tuple[str, ...] = ODD, bars_per_chunk: int = 750_000
) -> Lake:
    """A lake with three years of curated bars and features."""
    lake = lake_at(root, layout, bars_per_chunk)
    for table in SERVED:
        for year in (2019, 2020, 2021):
            append(lake.delta[table.name], rows_of(table, list(tickers), days_of(year), year))
    return lake


def restated(stored: DeltaTable, year: int, seed: int) -> None:
    """Replace the rows of `year`."""
    rows = stored.open().to_pyarrow_table()
    tickers = sorted({*rows["ticker"].to_pylist()})
    schema = pa.schema(stored.open().schema().to_arrow())
    new = rows_of(stored.table, tickers, days_of(year), seed).cast(schema)
    deltalake.write_deltalake(
        stored.open(), new, mode="overwrite", predicate=f"year = {year}", target_file_size=ONE_FILE
    )


def bits(rows: pa.Table, is_sorted: bool = False) -> list[list[Any]]:
    """The columns, by ticker and date unless `is_sorted`; doubles as their bits."""
    ordered = rows if is_sorted else rows.sort_by([("ticker", "ascending"), ("date", "ascending")])
    found = []
    for column in ordered.combine_chunks().columns:
        is_double = column.type == pa.float64() and column.num_chunks
        found.append((pa.concat_arrays(column.chunks).view(pa.int64()) if is_double else column).to_pylist())
    return found


def stored_rows(stored: DeltaTable) -> pa.Table:
    """The table's rows by polars, which shares no code with the copy beyond the log."""
    rows = pl.read_delta(str(stored.path)).to_arrow()
    return rows.select(stored.table.column_names).cast(stored.table.arrow_schema)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file of the copy."""
    found = sorted(path for path in (root / FOLDER).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("table", SERVED, ids=lambda table: table.name)
def test_a_file_of_each_year_has_the_rows_of_the_table_sorted(tmp_path: Path, layout: str, table: Table) -> None:
    lake = filled(tmp_path, layout)
    stored = lake.delta[table.name]
    written = ServingCopy(lake).refresh(table)
    assert [Path(path).parts[-3] for path in written] == ["year=2019", "year=2020", "year=2021"]
    assert all(Path(path).relative_to(tmp_path).parts[:2] == (FOLDER, table.name) for path in written)
    rows = pa.concat_tables(pq.ParquetFile(path).read() for path in written)
    assert rows.schema.equals(table.arrow_schema)
    assert bits(rows) == bits(stored_rows(stored))
    for path in written:
        one = pq.ParquetFile(path).read(["ticker", "date"]).to_pylist()
        assert one == sorted(one, key=lambda row: (row["ticker"], row["date"]))
    assert ServingCopy(lake).files(table, stored.open()) == dict(zip((2019, 2020, 2021), written, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_in_small_chunks_are_the_same_and_sorted_across_them(tmp_path: Path, layout: str) -> None:
    whole = ServingCopy(filled(tmp_path / "whole", layout)).refresh(CURATED)
    in_chunks = ServingCopy(filled(tmp_path / "chunks", layout, bars_per_chunk=7)).refresh(CURATED)
    for one, other in zip(whole, in_chunks, strict=True):
        assert bits(pq.ParquetFile(one).read(), is_sorted=True) == bits(pq.ParquetFile(other).read(), is_sorted=True)
    assert pq.read_metadata(in_chunks[0]).num_row_groups == len(ODD)  # seven rows hold one ticker's five
    assert pq.read_metadata(whole[0]).num_row_groups == 1


def test_row_groups_have_twenty_thousand_rows(tmp_path: Path) -> None:
    lake = lake_at(tmp_path, "year")
    tickers = [f"T{number:04}" for number in range(2_500)]
    append(lake.curated, rows_of(CURATED, tickers, days_of(2020, 10)))
    metadata = pq.read_metadata(ServingCopy(lake).refresh(CURATED)[0])
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [20_000, 5_000]
    column = metadata.row_group(0).column(metadata.schema.names.index("ticker"))
    assert (column.statistics.min, column.statistics.max, column.compression) == ("T0000", "T1999", "ZSTD")


def one_ticker_restated(stored: DeltaTable, ticker: str, year: int, seed: int, tickers: tuple[str, ...] = ()) -> None:
    """Replace the rows of `ticker` and `year`, or withdraw them; with `tickers`, also rows of these come into that year."""
    schema = pa.schema(stored.open().schema().to_arrow())
    rows = rows_of(stored.table, [ticker, *tickers], days_of(year), seed).cast(schema)
    named = ", ".join(f"'{name}'" for name in (ticker, *tickers))
    predicate = f"ticker IN ({named}) AND year = {year}"
    deltalake.write_deltalake(stored.open(), rows, mode="overwrite", predicate=predicate, target_file_size=ONE_FILE)


def opened_data(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The table's data files that are read from now on."""
    read, real = list[str](), serving_module._read

    def counted(storage: Any, path: str, *others: Any) -> pa.Table:
        read.append(path)
        return real(storage, path, *others)

    monkeypatch.setattr(serving_module, "_read", counted)
    return read


@pytest.mark.parametrize("table", SERVED, ids=lambda table: table.name)
def test_rows_of_unchanged_tickers_come_from_the_file_before(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(tmp_path)
    stored, copy = lake.delta[table.name], ServingCopy(lake)
    copy.refresh(table)
    one_ticker_restated(stored, "BF.B", 2020, 7, ("NEW",))
    read = opened_data(monkeypatch)
    [written] = copy.refresh(table)
    assert {path.split("/")[-3:-1][0] for path in read} == {"ticker=BF.B", "ticker=NEW"}
    assert bits(pq.ParquetFile(written).read()) == bits(stored_rows(stored).filter(pa.compute.field("year") == 2020))
    # A ticker whose rows of the year are withdrawn.
    stored.open().delete("ticker = 'BRK-B' AND year = 2020")
    [written] = copy.refresh(table)
    assert bits(pq.ParquetFile(written).read()) == bits(stored_rows(stored).filter(pa.compute.field("year") == 2020))


@pytest.mark.parametrize("damage", ["byte", "cut", "lost"])
def test_a_damaged_file_before_is_not_copied_from(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = filled(tmp_path)
    copy, stored = ServingCopy(lake), lake.curated
    before = Path(copy.refresh(CURATED)[1])
    content = bytearray(before.read_bytes())
    column = pq.read_metadata(before).row_group(0).column(5)
    if damage == "byte":
        content[column.data_page_offset + column.total_compressed_size - 1] ^= 1  # in the values of a page
        before.write_bytes(content)
    elif damage == "cut":
        before.write_bytes(content[: len(content) // 2])
    else:
        before.unlink()
    one_ticker_restated(stored, "BF.B", 2020, 7)
    read = opened_data(monkeypatch)
    [written] = copy.refresh(CURATED)
    assert len(read) == len(ODD)
    rows = stored_rows(stored).filter(pa.compute.field("year") == 2020)
    assert bits(pq.ParquetFile(written).read()) == bits(rows)


def test_a_new_column_makes_every_file_from_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = filled(tmp_path)
    copy, stored = ServingCopy(lake), lake.features
    copy.refresh(FEATURES)
    stored.open().alter.add_columns(deltalake.Field("own", "double", nullable=True))
    read = opened_data(monkeypatch)
    assert len(copy.refresh(FEATURES)) == 3
    assert len(read) == 3 * len(ODD)


def test_a_year_whose_data_files_are_all_new_is_written_without_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(tmp_path)
    copy = ServingCopy(lake)
    copy.refresh(CURATED)
    restated(lake.curated, 2020, seed=7)
    opened, source = list[str](), Folder.source
    monkeypatch.setattr(Folder, "source", lambda folder, path: opened.append(path) or source(folder, path))
    [written] = copy.refresh(CURATED)
    assert not [path for path in opened if path.startswith(FOLDER)]
    rows = stored_rows(lake.curated).filter(pa.compute.field("year") == 2020)
    assert bits(pq.ParquetFile(written).read()) == bits(rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_files_of_other_writers_give_the_same_rows(tmp_path: Path, layout: str) -> None:
    """JVM Spark writes times as INT96, and another program may write other types of text and another order of columns."""
    lake = filled(tmp_path, layout)
    stored = lake.curated
    expected = stored_rows(stored)
    for number, path in enumerate(sorted(stored.paths())):
        rows = pq.ParquetFile(tmp_path / path).read()
        match number % 3:
            case 0:
                pq.write_table(rows, tmp_path / path, use_deprecated_int96_timestamps=True)
            case 1:
                fields = [
                    field.with_type(pa.large_string()) if field.type == pa.string() else field for field in rows.schema
                ]
                pq.write_table(rows.cast(pa.schema(fields)).select(rows.schema.names[::-1]), tmp_path / path)
    written = ServingCopy(lake).refresh(CURATED)
    rows = pa.concat_tables(pq.ParquetFile(path).read() for path in written)
    assert rows.schema.equals(CURATED.arrow_schema)
    assert bits(rows) == bits(expected)


def test_nothing_is_written_when_nothing_changed_and_one_file_when_one_year_did(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy = ServingCopy(lake)
    copy.refresh(CURATED)
    before = tree(tmp_path)
    assert copy.refresh(CURATED) == []
    assert tree(tmp_path) == before
    restated(lake.curated, 2020, seed=7)
    written = copy.refresh(CURATED)
    assert [Path(path).parts[-3] for path in written] == ["year=2020"]
    assert before.items() <= tree(tmp_path).items()
    assert len(tree(tmp_path)) == len(before) + 1
    assert copy.refresh(CURATED, [2019]) == []


def test_only_the_years_asked_for_are_written_and_present_says_which_are_missing(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy, opened = ServingCopy(lake), lake.curated.open()
    assert copy.present(CURATED, opened) == {2019: None, 2020: None, 2021: None}
    assert not (tmp_path / FOLDER).exists()
    (written,) = copy.refresh(CURATED, [2020, 1999])
    assert copy.present(CURATED, opened) == {2019: None, 2020: written, 2021: None}
    assert copy.rows(CURATED, opened, ["ticker"]) is None
    assert copy.rows(CURATED, opened, ["ticker"], [2020]) is not None


def test_a_lake_without_tables_or_rows_is_served_as_nothing(tmp_path: Path) -> None:
    lake = lake_at(tmp_path)
    assert ServingCopy(lake).refresh(CURATED) == []
    lake.curated.prepare()
    assert ServingCopy(lake).refresh(CURATED) == []
    assert ServingCopy(lake).files(CURATED, lake.curated.open()) == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_column_that_came_later_is_null_in_old_rows(tmp_path: Path, layout: str) -> None:
    old = LakeOptions(lake_root=tmp_path, layout=layout)
    narrow = FEATURES.columns[:3] + FEATURES.columns[5:]
    stored = DeltaTable(old, Table(**{**vars(FEATURES), "columns": narrow}))
    append(stored, rows_of(stored.table, list(ODD), days_of(2020)))
    lake = Lake(old)
    before = ServingCopy(lake).files(FEATURES, stored.open())
    append(lake.features, rows_of(FEATURES, list(ODD), days_of(2021)))
    after = ServingCopy(lake).files(FEATURES, lake.features.open())
    added = [column.name for column in FEATURES.columns[3:5]]
    assert before[2020] != after[2020]
    assert not {*added} & {*pq.read_schema(before[2020]).names}
    rows = pq.ParquetFile(after[2020]).read()
    assert {*rows.schema.names} == {*FEATURES.column_names}
    assert all(rows[name].null_count == rows.num_rows == len(ODD) * 5 for name in added)
    assert bits(rows.select(stored.table.column_names)) == bits(
        pq.ParquetFile(before[2020]).read().select(stored.table.column_names)
    )
    assert all(pq.ParquetFile(after[2021]).read()[name].null_count < rows.num_rows for name in added)
    # A year of which some files have the columns and some have not.
    append(lake.features, rows_of(FEATURES, ["LATER"], days_of(2020)))
    mixed = pq.ParquetFile(ServingCopy(lake).files(FEATURES, lake.features.open())[2020]).read()
    expected = stored_rows(lake.features).filter(pa.compute.field("year") == 2020)
    assert bits(mixed.select(FEATURES.column_names)) == bits(expected)
    assert 0 < mixed.num_rows - mixed[added[0]].null_count <= 5


def test_an_earlier_version_is_served_from_its_own_files_and_shares_the_unchanged_ones(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy, then = ServingCopy(lake), lake.curated.open()
    old = stored_rows(lake.curated)
    restated(lake.curated, 2021, seed=9)
    now = copy.files(CURATED, lake.curated.open())
    earlier = copy.files(CURATED, then)
    assert {year for year in now if now[year] != earlier[year]} == {2021}
    assert bits(pa.concat_tables(pq.ParquetFile(path).read() for path in earlier.values())) == bits(old)


def test_a_handle_that_moves_to_another_version_is_served_that_version(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy, opened = ServingCopy(lake), lake.curated.open()
    earlier = copy.files(CURATED, opened)
    restated(lake.curated, 2021, seed=9)
    assert copy.files(CURATED, opened) == earlier
    opened.update_incremental()
    assert copy.files(CURATED, opened) == copy.files(CURATED, lake.curated.open()) != earlier


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_what_is_read_from_the_copy_is_what_is_read_from_the_table(
    tmp_path_factory: pytest.TempPathFactory, layout: str, data: st.DataObject
) -> None:
    """Whatever was appended and restated, and whatever is asked: the same rows, bit for bit."""
    root = tmp_path_factory.mktemp("lake")
    lake = lake_at(root, layout, bars_per_chunk=data.draw(st.sampled_from([3, 20, 750_000])))
    stored = lake.curated
    for number in range(data.draw(st.integers(1, 4))):
        year = data.draw(st.sampled_from([2019, 2020]))
        tickers = data.draw(st.lists(st.sampled_from(ODD), min_size=1, unique=True))
        first = 1 + number * 6
        append(stored, rows_of(CURATED, tickers, [date(year, 5, first + day) for day in range(3)], number))
    if data.draw(st.booleans()):
        restated(stored, 2019, 5)
    asked: dict[str, Any] = {
        "tickers": data.draw(st.none() | st.lists(st.sampled_from(ODD), min_size=1, max_size=2)),
        "first": data.draw(st.none() | st.sampled_from([date(2019, 5, 2), date(2020, 5, 8)])),
        "columns": data.draw(st.none() | st.sampled_from([["close", "ticker"], ["date"]])),
        "lake_root": root,
    }
    known = {*stored.open().to_pyarrow_table()["ticker"].to_pylist()}
    if asked["tickers"]:
        asked["tickers"] = [ticker for ticker in asked["tickers"] if ticker in known] or None
    without = read_table(CURATED.name, **asked)
    ServingCopy(lake).refresh(CURATED)
    with_copy = read_table(CURATED.name, **asked)
    assert with_copy.schema.equals(without.schema, check_metadata=True)
    keyed = [name for name in ("ticker", "date") if name in with_copy.column_names]
    assert [_exact(column) for column in with_copy.columns] == [_exact(column) for column in without.columns]
    assert keyed or with_copy.num_rows == without.num_rows


def _exact(column: pa.ChunkedArray) -> list[Any]:
    return [value.hex() if isinstance(value, float) else value for value in column.to_pylist()]


def test_read_table_reads_the_copy_and_no_data_file(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    expected = read_table(CURATED.name, lake_root=tmp_path)
    ServingCopy(lake).refresh(CURATED)
    for path in (tmp_path / CURATED.path).rglob("part-*.parquet"):
        path.write_bytes(b"")
    assert read_table(CURATED.name, lake_root=tmp_path).num_rows == expected.num_rows
    assert _exact(read_table(CURATED.name, lake_root=tmp_path)["close"]) == _exact(expected["close"])
    assert read_table(CURATED.name, tickers="BAC^B", lake_root=tmp_path).num_rows == 15


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_engine_reads_the_rows_of_the_table_from_the_copy(spark: SparkSession, tmp_path: Path, layout: str) -> None:
    lake, tickers = filled(tmp_path, layout), ["BAC^B", "EURUSD=X", "0700"]
    copy = ServingCopy(lake)
    assert copy.frame(spark, CURATED, lake.curated.open(), tickers) is None, "no file is there yet"
    copy.refresh(CURATED)
    frame = copy.frame(spark, CURATED, lake.curated.open(), tickers)
    assert frame is not None
    expected = stored_rows(lake.curated)
    of_tickers = expected.filter(pa.compute.is_in(expected["ticker"], pa.array(tickers)))
    assert bits(frame.select(*CURATED.column_names).toArrow()) == bits(of_tickers)


@pytest.mark.parametrize("damage", ["removed", "cut short", "short of a row"])
def test_an_engine_is_not_given_a_damaged_copy(spark: SparkSession, tmp_path: Path, damage: str) -> None:
    lake = filled(tmp_path)
    victim = Path(ServingCopy(lake).refresh(CURATED)[1])
    if damage == "removed":
        victim.unlink()
    elif damage == "cut short":
        victim.write_bytes(victim.read_bytes()[:200])
    else:
        pq.write_table(pq.ParquetFile(victim).read().slice(1), victim)
    assert ServingCopy(lake).frame(spark, CURATED, lake.curated.open(), list(ODD)) is None


def test_features_of_many_tickers_are_computed_from_the_copy_and_are_the_same(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars, last = history(TICKERS, DAYS), rectangle(DAYS[-1:], TICKERS)
    steps = (rectangle(DAYS[:-1], TICKERS), last)
    found = []
    for name, few in (("table", len(TICKERS)), ("copy", 0)):
        house = clocked(tmp_path / name, spark)
        monkeypatch.setattr(layers_module, "LONG_LIST", few)
        frames: list[object] = []
        monkeypatch.setattr(
            ServingCopy, "frame", lambda *a, of=ServingCopy.frame, to=frames: to.append(of(*a)) or to[-1]
        )
        for number, asked in enumerate(steps):
            rows = [row for (_, day), row in bars.items() if day in asked.sessions]
            run(house, asked, rows, f"{number:08d}-run", (RAW.name, PROCESSED.name, CURATED.name))
            ServingCopy(house.lake).refresh(CURATED)
            run(house, asked, run_id=f"{number:08d}-run", steps=(FEATURES.name,))
        monkeypatch.undo()
        assert [frame is not None for frame in frames] == ([] if name == "table" else [True, True])
        found.append(bits(stored_rows(house.lake.features)))
    assert found[0] == found[1]


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_a_damaged_file_of_the_copy_changes_no_answer(tmp_path: Path, damage: str) -> None:
    lake = filled(tmp_path)
    expected = read_table(CURATED.name, lake_root=tmp_path)
    victim = Path(ServingCopy(lake).refresh(CURATED)[1])
    victim.unlink() if damage == "removed" else victim.write_bytes(victim.read_bytes()[:200])
    assert _exact(read_table(CURATED.name, lake_root=tmp_path)["close"]) == _exact(expected["close"])
    damages = ServingCopy(lake).damages(CURATED)
    assert [found.path for found in damages] == ([] if damage == "removed" else [str(victim.relative_to(tmp_path))])


def test_a_file_with_other_rows_than_the_log_says_is_damaged(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    victim = Path(ServingCopy(lake).refresh(CURATED)[0])
    pq.write_table(pq.ParquetFile(victim).read().slice(1), victim)
    (found,) = ServingCopy(lake).damages(CURATED)
    assert found.reason == "holds 34 rows, the table's log says 35"


def test_a_table_with_a_missing_data_file_is_not_served_short(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    next((tmp_path / CURATED.path).rglob("part-*.parquet")).unlink()
    with pytest.raises(UnservedError, match=r"part-.*is missing; `stock-lakehouse upkeep`"):
        ServingCopy(lake).refresh(CURATED)


def test_a_table_whose_rows_another_program_may_have_deleted_in_place_is_refused(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    lake.curated.open().alter.add_feature(
        deltalake.TableFeatures.DeletionVectors, allow_protocol_versions_increase=True
    )
    with pytest.raises(UnservedError, match=r"reader version 3.*turn off its deletion vectors"):
        ServingCopy(lake).refresh(CURATED)


# When files go.


def test_a_replaced_file_stays_for_a_day_after_it_was_replaced(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy = ServingCopy(lake)
    old = copy.files(CURATED, lake.curated.open())
    time_passes(tmp_path, 30 * DAY)  # it was written long ago, and is the present one until now
    restated(lake.curated, 2021, seed=1)
    copy.refresh(CURATED)
    assert copy.remove_replaced() == []
    time_passes(tmp_path, timedelta(hours=23))
    restated(lake.curated, 2019, seed=2)
    copy.refresh(CURATED)
    assert copy.remove_replaced() == []
    time_passes(tmp_path, timedelta(hours=2))
    restated(lake.curated, 2019, seed=3)
    copy.refresh(CURATED)
    assert [file.path for file in copy.remove_replaced()] == [str(Path(old[2021]).relative_to(tmp_path))]
    present = copy.present(CURATED, lake.curated.open())
    assert None not in present.values()
    assert not Path(old[2021]).exists()


def test_a_file_that_is_replaced_and_has_no_successor_yet_stays(tmp_path: Path) -> None:
    """Upkeep may look between a commit and the writing of the copy."""
    lake = filled(tmp_path)
    copy = ServingCopy(lake)
    old = Path(copy.files(CURATED, lake.curated.open())[2021])
    time_passes(tmp_path, 30 * DAY)
    restated(lake.curated, 2019, seed=1)
    copy.refresh(CURATED)
    restated(lake.curated, 2021, seed=1)
    assert copy.remove_replaced() == []
    assert old.exists()
    copy.refresh(CURATED)
    assert copy.remove_replaced() == []


def test_daily_publishes_leave_the_files_of_two_days(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy = ServingCopy(lake)
    for number in range(6):
        restated(lake.curated, 2021, seed=number)
        copy.refresh(CURATED)
        copy.remove_replaced()
        time_passes(tmp_path, timedelta(hours=25))
    of_2021 = list((tmp_path / FOLDER / CURATED.name / "year=2021").rglob("data.parquet"))
    assert len(of_2021) == 2


def test_a_file_of_an_earlier_version_stays_as_long_as_it_is_used(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy, then = ServingCopy(lake), lake.curated.open()
    restated(lake.curated, 2021, seed=1)
    copy.refresh(CURATED)
    earlier = Path(copy.files(CURATED, then)[2021])
    for _ in range(3):
        time_passes(tmp_path, timedelta(hours=20))
        assert Path(copy.files(CURATED, then)[2021]) == earlier
        copy.remove_replaced()
        assert earlier.exists()
    time_passes(tmp_path, timedelta(hours=25))
    restated(lake.curated, 2019, seed=2)
    copy.refresh(CURATED)
    copy.remove_replaced()
    assert not earlier.exists()


def test_leftovers_of_killed_writers_and_empty_folders_go_after_a_day(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    copy = ServingCopy(lake)
    copy.refresh(CURATED)
    left = tmp_path / FOLDER / CURATED.name / "year=2021" / "abc" / ".data.parquet.12345678.tmp"
    left.parent.mkdir()
    left.write_bytes(b"x")
    database = tmp_path / FOLDER / f".{bi_database.NAME}.12345678.tmp"
    database.write_bytes(b"x")
    copy.remove_replaced()
    assert left.exists()
    assert database.exists()
    time_passes(tmp_path, timedelta(hours=25))
    restated(lake.curated, 2019, seed=2)
    copy.refresh(CURATED)
    copy.remove_replaced()
    assert not left.exists()
    assert not database.exists()
    assert left.parent.exists()  # its time is that of the removal
    for path in (tmp_path / FOLDER).rglob("*"):
        if path.is_dir():
            os.utime(path, (path.stat().st_mtime - 2 * 86_400,) * 2)
    copy.remove_replaced()
    assert not left.parent.exists()
    assert None not in copy.present(CURATED, lake.curated.open()).values()


# A folder of the reader's own, as for a lake on S3.


def test_a_reader_of_its_own_folder_takes_the_lakes_file_or_makes_it(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake")
    (own,) = ServingCopy(lake).refresh(CURATED, [2020])
    Path(own).write_bytes(Path(own).read_bytes() + b"marked")
    cache = ServingCopy(lake, tmp_path / "cache")
    files = cache.files(CURATED, lake.curated.open())
    assert Path(files[2020]).read_bytes().endswith(b"marked")
    assert all(Path(path).is_relative_to(tmp_path / "cache" / CURATED.name) for path in files.values())
    rows = pa.concat_tables(pq.ParquetFile(files[year]).read() for year in (2019, 2021))
    expected = stored_rows(lake.curated).filter(pa.compute.field("year") != 2020)
    assert bits(rows) == bits(expected)


def test_the_readers_own_folder_forgets_what_was_not_used_for_a_week(tmp_path: Path) -> None:
    lake = filled(tmp_path / "lake")
    cache = ServingCopy(lake, tmp_path / "cache")
    old = cache.files(CURATED, lake.curated.open())
    time_passes(tmp_path / "cache", timedelta(days=8))
    restated(lake.curated, 2021, seed=1)
    new = cache.files(CURATED, lake.curated.open())
    assert not Path(old[2021]).exists()
    assert all(Path(path).exists() for path in new.values())


def test_a_reader_on_this_machine_gets_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    lake = lake_at(tmp_path)
    assert reading_copy(lake, None).storage is lake.storage
    assert reading_copy(lake, tmp_path / "mine").storage.uri("x") == str(tmp_path / "mine" / "x")
    remote = Lake(LakeOptions(lake_root="s3://bucket/lake"))
    assert "stock_lakehouse" in reading_copy(remote, None).storage.uri("x")
    assert isinstance(reading_copy(remote, None).storage, Folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_copy_that_may_not_be_written_says_which_setting_helps(tmp_path: Path) -> None:
    lake = filled(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UnservedError, match="serving_cache"):
            ServingCopy(lake).files(CURATED, lake.curated.open())
    finally:
        tmp_path.chmod(0o700)


# Writers that are killed, and several at once.


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _killed(place: str) -> None:
    raise Killed(place)


def serve_all(lake: Lake) -> None:
    for table in SERVED:
        ServingCopy(lake).refresh(table)
    bi_database.renew(lake)
    ServingCopy(lake).remove_replaced()


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The moments before and after each write of `serve_all` on a lake with files to write and a file to remove."""
    root = tmp_path_factory.mktemp("undisturbed") / "lake"
    lake = served_long_ago(root)
    with pytest.MonkeyPatch.context() as patch:
        seen = Points(root, None, _killed)
        seen.install(patch.setattr)
        serve_all(lake)
    assert {re.sub(r"\.[0-9a-f]{8}\.tmp$", "", point.split(" ", 1)[1]) for point in seen.seen} == {
        f"write_bytes {FOLDER}/{CURATED.name}",
        f"replace {FOLDER}/{CURATED.name}",
        f"write_bytes {FOLDER}/{FEATURES.name}",
        f"replace {FOLDER}/{FEATURES.name}",
        f"replace {bi_database.NAME}",
        f"unlink {FOLDER}/.lakehouse.duckdb",
        f"unlink {FOLDER}/{CURATED.name}",
    }
    return seen.seen


def served_long_ago(root: Path) -> Lake:
    """A lake whose copy lacks a year of each table and has a file that was replaced two days ago."""
    lake = filled(root)
    ServingCopy(lake).refresh(CURATED)
    restated(lake.curated, 2021, seed=1)
    ServingCopy(lake).refresh(CURATED)
    time_passes(root, 2 * DAY)
    restated(lake.curated, 2019, seed=2)
    return lake


@pytest.mark.slice(4)
@pytest.mark.parametrize("share", range(12))
def test_a_writer_killed_at_any_write_leaves_the_next_one_its_work(
    tmp_path: Path, points: list[str], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(share, len(points), 12):
        root = tmp_path / str(number)
        lake = served_long_ago(root)
        with monkeypatch.context() as patch:
            Points(root, number, _killed).install(patch.setattr)
            with pytest.raises(Killed):
                serve_all(lake)
        for table in SERVED:
            there = ServingCopy(lake).present(table, lake.delta[table.name].open())
            for path in filter(None, there.values()):  # what can be seen is whole
                assert pq.read_metadata(path).num_rows == len(ODD) * 5
        serve_all(lake)
        for table in SERVED:
            files = ServingCopy(lake).present(table, lake.delta[table.name].open())
            rows = pa.concat_tables(pq.ParquetFile(str(path)).read() for path in files.values())
            assert bits(rows) == bits(stored_rows(lake.delta[table.name]))
        # Three years of each table, and the year that was replaced just now; that of two days ago is gone.
        assert len([path for path in tree(root) if path.endswith("data.parquet")]) == 7
        assert not bi_database.renew(lake)


def test_two_publishers_and_readers_at_once_see_whole_files_of_one_version(tmp_path: Path) -> None:
    """Each version has one value in every row; a reader that found another beside it had read half a state."""
    lake = lake_at(tmp_path)
    tickers = [f"T{number}" for number in range(6)]

    def version(number: int) -> pa.Table:
        rows = rows_of(CURATED, tickers, [*days_of(2020), *days_of(2021)])
        place = rows.schema.get_field_index("close")
        return rows.set_column(place, "close", pa.array([float(number)] * rows.num_rows))

    append(lake.curated, version(0))
    schema = pa.schema(lake.curated.open().schema().to_arrow())
    stop, wrong, read = threading.Event(), list[str](), [0]

    def publish(first: int) -> None:
        for number in range(first, 12, 2):
            opened = lake.curated.open()
            try:
                deltalake.write_deltalake(opened, version(number).cast(schema), mode="overwrite")
            except deltalake.exceptions.CommitFailedError:
                continue
            ServingCopy(lake).refresh(CURATED)

    def look() -> None:
        while not stop.is_set():
            files = ServingCopy(lake).files(CURATED, lake.curated.open())
            rows = pa.concat_tables(pq.ParquetFile(path).read(["close"]) for path in files.values())
            if rows.num_rows != 60 or len({*rows["close"].to_pylist()}) != 1:
                wrong.append(str(rows))
            read[0] += 1

    readers = [threading.Thread(target=look) for _ in range(4)]
    writers = [threading.Thread(target=publish, args=(first,)) for first in (1, 2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert read[0] > 0
    assert not list((tmp_path / FOLDER).rglob("*.tmp"))


# The steps of the layers, upkeep, and a lake on S3.


def step_of(house: Clocked, asked: Rectangle, told: list[CheckResult], **values: Any) -> Step:
    run_id = "11111111-run"
    return Step(house.lake, house.session, house.staging, asked, run_id, house.now(), told.append, **values)


def run_step(house: Clocked, table: Table, asked: Rectangle, **values: Any) -> dict[str, Any]:
    """The whole step of `table`; the facts of its check serving_copy."""
    told = list[CheckResult]()
    run_layer(step_of(house, asked, told, **values), table)
    (served,) = [result for result in told if result.name == "serving_copy"]
    assert (served.table, served.severity) == (table, "WARN")
    return {"passed": served.passed, **served.facts}


@pytest.fixture(scope="module")
def delivered(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with rows in raw and processed, and nothing else."""
    house = clocked(tmp_path_factory.mktemp("delivered") / "lake", spark)
    run(house, ASKED, history(TICKERS, DAYS).values(), steps=[RAW.name, PROCESSED.name])
    return Path(house.lake.root)


@pytest.fixture
def house(spark: SparkSession, delivered: Path, tmp_path: Path) -> Clocked:
    shutil.copytree(delivered, tmp_path / "lake", copy_function=shutil.copy2)
    return clocked(tmp_path / "lake", spark)


def test_the_step_writes_the_copy_once_and_reports_it(house: Clocked) -> None:
    assert run_step(house, CURATED, ASKED)["files written"] == 2
    assert run_step(house, FEATURES, ASKED)["files written"] == 2
    lake, before = house.lake, tree(Path(house.lake.root))
    assert (Path(lake.root) / bi_database.NAME).exists()
    for table in SERVED:
        files = ServingCopy(lake).present(table, lake.delta[table.name].open())
        rows = pa.concat_tables(pq.ParquetFile(str(path)).read() for path in files.values())
        assert bits(rows.select(table.column_names)) == bits(stored_rows(lake.delta[table.name]))
    for table in SERVED:
        told = run_step(house, table, ASKED)
        assert (told["passed"], told["files written"]) == (True, 0)
    assert tree(Path(lake.root)) == before


def test_a_run_whose_backfill_goes_on_leaves_the_copy_to_a_later_one(house: Clocked) -> None:
    told = run_step(house, CURATED, ASKED, serves=False)
    assert told["passed"]
    assert "later run" in told["not now"]
    assert not (Path(house.lake.root) / FOLDER).exists()
    assert run_step(house, CURATED, ASKED)["files written"] == 2


def test_a_copy_that_cannot_be_written_fails_its_check_and_not_the_publish(
    house: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if FOLDER in str(target):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    told = run_step(house, CURATED, ASKED)
    assert not told["passed"]
    assert "no space is left" in told["problem"]
    assert "the published table is complete" in told["what to do"]
    assert house.lake.curated.open().to_pyarrow_table().num_rows == len(DAYS) * len(TICKERS)
    assert read_table(CURATED.name, lake_root=house.lake.root).num_rows == len(DAYS) * len(TICKERS)
    monkeypatch.undo()
    assert run_step(house, CURATED, ASKED)["files written"] == 2


@pytest.mark.soak
def test_upkeep_writes_what_is_missing_or_damaged_and_removes_what_was_replaced(house: Clocked) -> None:
    root = Path(house.lake.root)
    for table in SERVED:
        run_step(house, table, ASKED)
    lake = house.lake
    lost, cut = (Path(str(path)) for path in ServingCopy(lake).present(CURATED, lake.curated.open()).values())
    whole = cut.read_bytes()
    lost.unlink()
    cut.write_bytes(whole[:300])
    time_passes(root, 3 * DAY)
    restated(lake.features, 2020, seed=4)
    restated(lake.features, 2020, seed=5)  # of the version between them there is no file
    looked = keep_up(lake, house.session, house.sessions, check_only=True, sample=0, pause_seconds=0.0)
    named = [finding.what for finding in looked.findings if "serving copy" in finding.what]
    assert len(named) == 1
    assert str(cut.relative_to(root)) in named[0]
    assert (looked.served, looked.serving_removed, lost.exists()) == (0, 0, False)
    done = keep_up(lake, house.session, house.sessions, sample=0, pause_seconds=0.0)
    assert (done.served, done.serving_removed) == (3, 0)  # the replaced file of features was replaced just now
    assert (lost.exists(), cut.read_bytes()) == (True, whole)
    time_passes(root, 2 * DAY)
    restated(lake.features, 2019, seed=6)
    done = keep_up(lake, house.session, house.sessions, sample=0, pause_seconds=0.0)
    assert (done.served, done.serving_removed) == (1, 1)
    again = keep_up(lake, house.session, house.sessions, sample=0, pause_seconds=0.0)
    assert (again.served, again.serving_removed) == (0, 0)


def test_the_doctor_counts_the_files(house: Clocked) -> None:
    settings = Settings(lake_root=Path(house.lake.root))
    run_step(house, CURATED, ASKED)
    assert doctor._serving(settings).detail == "the serving copy has all 2 files of the present versions"
    next((Path(house.lake.root) / FOLDER).rglob("data.parquet")).unlink()
    told = doctor._serving(settings)
    assert (told.state, told.detail.split(";")[0]) == ("note", "1 of 2 files of the serving copy are missing")


@pytest.mark.slow
def test_the_copy_of_a_lake_on_s3_is_that_of_a_folder(spark: SparkSession, tmp_path: Path, s3_root: str) -> None:
    bars = history(("AAA", "A^B", "C=F"), DAYS)
    asked = rectangle(DAYS, ("AAA", "A^B", "C=F"))
    files: dict[str, dict[int, pa.Table]] = {}
    for root in (tmp_path / "lake", s3_root):
        house = clocked(root, spark, asked.tickers)
        run(house, asked, bars.values(), steps=[RAW.name, PROCESSED.name])
        for table in SERVED:
            assert run_step(house, table, asked)["files written"] == 2
        before = s3.objects(s3_root)
        assert run_step(house, CURATED, asked)["files written"] == 0
        assert {key for key in s3.objects(s3_root) if FOLDER in key} == {key for key in before if FOLDER in key}
        lake = house.lake
        cache = ServingCopy(lake, tmp_path / f"cache {len(files)}")
        paths = cache.files(CURATED, lake.curated.open())
        files[str(root)] = {year: pq.ParquetFile(path).read() for year, path in paths.items()}
        expected = read_table(CURATED.name, lake_root=root, tickers="A^B")
        assert expected.num_rows == len(DAYS)
    here, there = files.values()
    assert here.keys() == there.keys() == {2019, 2020}
    for year, rows in here.items():
        assert bits(rows) == bits(there[year])
    lake = Lake(LakeOptions(lake_root=s3_root))
    uris = ServingCopy(lake).files(CURATED, lake.curated.open())
    assert all(uri.startswith(f"{s3_root}/{FOLDER}/{CURATED.name}/year=") for uri in uris.values())
    restated(lake.curated, 2020, seed=1)
    ServingCopy(lake).refresh(CURATED)
    assert ServingCopy(lake).remove_replaced() == []
    assert len([key for key in s3.objects(s3_root) if f"{FOLDER}/{CURATED.name}/year=2020" in key]) == 2


# lakehouse.duckdb


def test_the_database_of_bi_tools_shows_the_rows_with_their_words(tmp_path: Path) -> None:
    import duckdb

    lake = filled(tmp_path)
    actions = pa.table(
        {
            field.name: pa.array([{"ticker": "BAC^B", "kind": "split"}.get(field.name)], field.type)
            for field in CORPORATE_ACTIONS.arrow_schema
        },
        schema=CORPORATE_ACTIONS.arrow_schema,
    )
    append(lake.corporate_actions, actions)
    assert not bi_database.renew(lake)  # nothing is served yet
    for table in SERVED:
        ServingCopy(lake).refresh(table)
    assert bi_database.renew(lake)
    assert not bi_database.renew(lake)
    with duckdb.connect(str(tmp_path / bi_database.NAME), read_only=True) as connection:
        for table in SERVED:
            found = connection.execute(f"FROM {table.name}").to_arrow_table().cast(table.arrow_schema)
            assert bits(found) == bits(stored_rows(lake.delta[table.name]))
        joined = connection.execute("SELECT count(*), count(sma_50) > 0 FROM bars_with_features").fetchone()
        assert joined == (len(ODD) * 15, True)
        assert connection.execute("SELECT ticker, kind FROM corporate_actions").fetchall() == [("BAC^B", "split")]
        words = dict(
            connection.execute(
                "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'stocks_features'"
            ).fetchall()
        )
        assert words == {column.name: column.documentation for column in FEATURES.columns}
        described = dict(
            connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
        )
        assert described[CURATED.name] == CURATED.description
        assert dict(connection.execute("SELECT table_name, version FROM lake_versions").fetchall()) == {
            CURATED.name: 3, FEATURES.name: 3, CORPORATE_ACTIONS.name: 1,
        }  # fmt: skip


def test_the_database_of_a_lake_with_a_damaged_table_stays_as_it_was_and_the_error_names_the_table(
    tmp_path: Path,
) -> None:
    lake = filled(tmp_path)
    for table in SERVED:
        ServingCopy(lake).refresh(table)
    action = {"ticker": "BAC^B", "kind": "split"}
    fields = CORPORATE_ACTIONS.arrow_schema
    append(
        lake.corporate_actions,
        pa.table({field.name: pa.array([action.get(field.name)], field.type) for field in fields}, schema=fields),
    )
    bi_database.renew(lake)
    before = (tmp_path / bi_database.NAME).read_bytes()
    restated(lake.curated, 2021, seed=3)
    ServingCopy(lake).refresh(CURATED)
    (path,) = lake.corporate_actions.paths()
    (tmp_path / path).write_bytes(b"damaged")
    with pytest.raises(UnservedError, match=r"^corporate_actions cannot be read: .*upkeep"):
        bi_database.renew(lake)
    assert (tmp_path / bi_database.NAME).read_bytes() == before


def test_the_database_is_replaced_while_a_tool_has_it_open(tmp_path: Path) -> None:
    import duckdb

    lake = filled(tmp_path)
    for table in SERVED:
        ServingCopy(lake).refresh(table)
    bi_database.renew(lake)
    held = shutil.copy(tmp_path / bi_database.NAME, tmp_path / "held")
    before = os.stat(tmp_path / bi_database.NAME).st_ino
    with open(tmp_path / bi_database.NAME, "rb") as file:
        old = file.read()
        restated(lake.curated, 2021, seed=3)
        ServingCopy(lake).refresh(CURATED)
        assert bi_database.renew(lake)
        file.seek(0)
        assert file.read() == old
    assert os.stat(tmp_path / bi_database.NAME).st_ino != before
    with duckdb.connect(str(tmp_path / bi_database.NAME), read_only=True) as connection:
        new = connection.execute(f"FROM {CURATED.name}").to_arrow_table().cast(CURATED.arrow_schema)
    assert bits(new) == bits(stored_rows(lake.curated))
    with duckdb.connect(held, read_only=True) as connection:  # the files that it names stay for a day
        assert connection.execute("SELECT count(*) FROM curated_stocks_daily").fetchone() == (len(ODD) * 15,)


@pytest.mark.parametrize("content", [b"", b"no database"])
def test_a_broken_database_is_replaced(tmp_path: Path, content: bytes) -> None:
    lake = filled(tmp_path)
    for table in SERVED:
        ServingCopy(lake).refresh(table)
    (tmp_path / bi_database.NAME).write_bytes(content)
    assert bi_database.renew(lake)
    assert not bi_database.renew(lake)


def test_names_are_those_that_catalogs_use() -> None:
    assert [served_name(table) for table in SERVED] == ["curated_stocks_daily_served", "stocks_features_served"]
    assert RESTATEMENTS not in SERVED
    assert serving_module.ROWS_A_GROUP == 20_000
