"""What daily runs leave behind them does not grow: files of a ticker-year, small files of the ledger, logs without a checkpoint.

The counts are read from the Delta logs, without the product's readers. What a landing leaves is in test_raw_compaction.py.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.causes import VENDOR_EDIT
from stock_lakehouse.lake.delta_publish import publish, replace
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.maintenance import maintain_table
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column
from stock_lakehouse.tables import CURATED, RESTATEMENTS, Table
from stock_lakehouse_tests.graph import NOW, year_boundary

TICKERS, SESSIONS = tuple(f"T{number:02}" for number in range(12)), year_boundary(150, 110)
VALUES = Table(
    "values",
    "curated",
    "delta",
    "values",
    (TICKER, SESSION_DATE, Column("value", "double", "A value."), YEAR),
    "Values.",
)


def files_a_ticker_year(table: DeltaTable) -> Counter[tuple[str, int]]:
    adds = pa.table(deltalake.DeltaTable(str(table.path)).get_add_actions(flatten=True)).to_pylist()
    return Counter((add["partition.ticker"], add["partition.year"]) for add in adds)


def test_a_ticker_year_is_one_file_however_often_it_was_published(spark: SparkSession, tmp_path: Path) -> None:
    lake, staging = Lake(tmp_path), Staging(tmp_path)
    stored = DeltaTable(tmp_path, VALUES)
    rows = [(ticker, day, float(at), day.year) for ticker in TICKERS for at, day in enumerate(SESSIONS)]
    for end in range(len(SESSIONS) - 4, len(SESSIONS) + 1):
        present = {*SESSIONS[:end]}
        frame = spark.createDataFrame([row for row in rows if row[1] in present], VALUES.ddl).repartition(4, "date")
        asked = Rectangle(SESSIONS[:end], TICKERS)
        publish(stored, staging.stage(frame), asked, staging, lake.ledger, run_id="1" * 8, now=NOW)
        files = files_a_ticker_year(stored)
        assert files == {(ticker, year): 1 for ticker in TICKERS for year in {day.year for day in present}}
    assert stored.open().to_pyarrow_table().num_rows == len(rows)


def test_a_table_without_partitions_is_published_day_after_day(spark: SparkSession, tmp_path: Path) -> None:
    lake, staging = Lake(tmp_path), Staging(tmp_path)
    stored = DeltaTable(tmp_path, dataclasses.replace(VALUES, partition_by=()))
    rows = [("AAA", day, float(at), day.year) for at, day in enumerate(SESSIONS)]
    for end in (2, 3, len(SESSIONS)):
        frame = spark.createDataFrame(rows[:end], VALUES.ddl)
        asked = Rectangle(SESSIONS[:end], ("AAA",))
        publish(stored, staging.stage(frame), asked, staging, lake.ledger, run_id="1" * 8, now=NOW)
        held = deltalake.DeltaTable(str(stored.path)).to_pyarrow_table().select(VALUES.column_names).to_pylist()
        assert sorted(tuple(row.values()) for row in held) == rows[:end]


def test_a_small_table_is_opened_from_its_last_ten_commits(tmp_path: Path) -> None:
    """Each commit since the last checkpoint is a file to open: on S3, a request each time that the table is opened."""
    small = DeltaTable(tmp_path, dataclasses.replace(VALUES, partition_by=()))
    log = tmp_path / VALUES.path / "_delta_log"
    since_checkpoint = []
    for run in range(25):
        ticker, day = TICKERS[run % len(TICKERS)], SESSIONS[run]
        rows = pa.table([[ticker], [day], [1.0 * run], [day.year]], schema=VALUES.arrow_schema)
        assert replace(small, rows, [ticker])
        checkpoints = [int(file.name[:20]) for file in log.glob("*.checkpoint*.parquet")]
        commits = [int(file.stem) for file in log.glob("*.json")]
        since_checkpoint.append(sum(version > max(checkpoints, default=-1) for version in commits))
    assert max(since_checkpoint) <= 10


@pytest.mark.parametrize("by_engine", [True, False])
def test_a_checkpoint_forgets_files_that_were_replaced_long_ago_and_their_versions_stay(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_engine: bool
) -> None:
    """An engine reads their names at each query: 125,000 after a year of 500 tickers. Upkeep must not need them."""
    monkeypatch.setattr(DeltaTable, "tombstones", "interval 1 seconds")
    lake, staging = Lake(tmp_path), Staging(tmp_path)
    table = VALUES if by_engine else dataclasses.replace(VALUES, partition_by=())
    stored, runs = DeltaTable(tmp_path, table), 32
    for run in range(runs):
        rows = pa.table([["AAA"], [SESSIONS[0]], [1.0 * run], [SESSIONS[0].year]], schema=VALUES.arrow_schema)
        if by_engine:
            frame, asked = staging.stage(spark.createDataFrame(rows)), Rectangle(SESSIONS[:1], ("AAA",))
            publish(stored, frame, asked, staging, lake.ledger, run_id="1" * 8, now=NOW)
        else:
            replace(stored, rows, ["AAA"])
        time.sleep(0.1)
    first = stored.open().version() - runs + 1
    newest = max((tmp_path / VALUES.path / "_delta_log").glob("*.checkpoint.parquet"))
    named = pq.read_table(newest)["remove"].combine_chunks().is_valid().to_pylist()
    assert 0 < sum(named) < runs / 2, "of the replaced files, those of the last second"

    maintain_table(stored, lake.ledger)
    for run in range(runs):
        held = deltalake.DeltaTable(str(stored.path), version=first + run).to_pyarrow_table()["value"].to_pylist()
        assert held == [1.0 * run]


@pytest.mark.slow
def test_the_ledger_is_a_few_files_however_often_lines_were_added(spark: SparkSession, tmp_path: Path) -> None:
    """A run reads the whole ledger several times, and adds a file to it."""
    lake, staging = Lake(tmp_path), Staging(tmp_path)
    lake.curated.prepare()
    ddl = "ticker string, date date, kind string, cells array<struct<column:string,old:string,new:string,cause:string>>"
    files, days = [], SESSIONS[:40]
    for day in days:
        changes = spark.createDataFrame([("AAA", day, "corrected", [("close", "1.0", "2.0", VENDOR_EDIT)])], ddl)
        lake.ledger.announce(CURATED, changes, staging, run_id=str(day), now=NOW, before=lake.curated.open())
        files.append(len(lake.stored(RESTATEMENTS.name).paths()))
    assert max(files) <= 20
    assert max(files[-20:]) <= max(files[:20])
    lines = deltalake.DeltaTable(str(tmp_path / RESTATEMENTS.path)).to_pyarrow_table()
    assert sorted(zip(lines["date"].to_pylist(), lines["run_id"].to_pylist(), strict=True)) == [
        (day, str(day)) for day in days
    ]
