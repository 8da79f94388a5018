"""What daily runs leave behind them does not grow: files of a ticker-year, small files of the ledger, logs without a checkpoint.

The counts are read from the Delta logs, without the product's readers. What a landing leaves is in test_raw_compaction.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import deltalake
import pyarrow as pa
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_publish import publish
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column
from stock_lakehouse.tables import Table
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
