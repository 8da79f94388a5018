"""The tables of the stream as their readers meet them: read_table, list_tables, and the views in SQL."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse import list_tables, query, read_table
from stock_lakehouse_tests.streams.house import NOON, SESSION, StreamHouse, event


@pytest.fixture
def read(tmp_path: Path, spark: SparkSession) -> StreamHouse:
    house = StreamHouse.made(tmp_path, spark)
    # By hand: two events of one minute, 410.5 and 411.5; a later minute; a letter that is no text.
    house.write(event(0), event(30, close="411.5"), event(90, ticker="AAPL", close=100, date="2020-01-02"), b"\xff{")
    house.drain()
    return house


def test_tables_of_the_stream_are_read_and_listed(read: StreamHouse) -> None:
    root = read.root
    bars = read_table("minute_bars", tickers="nvda", lake_root=root)
    assert bars.select(["ticker", "minute", "events"]).to_pylist() == [{"ticker": "NVDA", "minute": NOON, "events": 2}]
    assert read_table("raw_ticks", first=SESSION, last=SESSION, tickers=["AAPL"], lake_root=root).num_rows == 1
    rows = list_tables(root)["rows"]
    assert (rows["raw_ticks"], rows["minute_bars"]) == (4, 2)
    assert "live_features" not in rows.index


def test_the_views_answer_in_sql(read: StreamHouse) -> None:
    minutes = query("SELECT ticker, trade_date, avg_close, last_close, state FROM avg_1min", lake_root=read.root)
    assert sorted(map(tuple, (row.values() for row in minutes.to_pylist()))) == [
        ("AAPL", date(2020, 1, 2), 100.0, 100.0, "open"),
        ("NVDA", SESSION, 411.0, 411.5, "open"),
    ]
    letters = query("SELECT reason, value FROM dead_letters", lake_root=read.root).to_pylist()
    assert letters == [{"reason": "not UTF-8", "value": "\\xff{"}]
