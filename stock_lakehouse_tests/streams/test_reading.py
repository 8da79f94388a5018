"""The tables of the stream as their readers meet them: read_table, list_tables, and the views in SQL."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse import list_tables, query, read_table
from stock_lakehouse.cli import app
from stock_lakehouse.lake.reading import UnknownColumnError
from stock_lakehouse.sql.engine import QuerySyntaxError
from stock_lakehouse_tests.streams.house import NOON, SESSION, StreamHouse, event
from stock_lakehouse_tests.streams.test_reconciliation import official, publish, the


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


def test_sql_names_what_a_lake_has(read: StreamHouse, tmp_path: Path) -> None:
    # A lake without a stream has neither its tables nor its views; this one has them, and does not have what it lost.
    publish(StreamHouse.made(tmp_path / "other", read.spark), official(the("NVDA")))
    for name in ("avg_1min", "raw_ticks"):
        with pytest.raises(QuerySyntaxError, match=f"there is no table {name}\\b.*; there are ") as caught:
            query(f"SELECT * FROM {name}", lake_root=tmp_path / "other" / "lake")  # noqa: S608
        assert "dead_letters" not in str(caught.value)
    with pytest.raises(QuerySyntaxError, match=r"did you mean avg_1min\?") as caught:
        query("SELECT * FROM avg_1mi", lake_root=read.root)
    assert all(f" {name}" in str(caught.value) for name in ("raw_ticks", "minute_bars", "dead_letters"))
    assert "stream_losses" not in str(caught.value)


def test_losses_have_neither_tickers_nor_sessions(read: StreamHouse) -> None:
    assert read_table("stream_losses", lake_root=read.root).num_rows == 0
    with pytest.raises(UnknownColumnError, match="stream_losses has no column ticker; leave tickers out"):
        read_table("stream_losses", tickers="NVDA", lake_root=read.root)
    with pytest.raises(UnknownColumnError, match="no column with a session; leave first and last out"):
        read_table("stream_losses", first=SESSION, lake_root=read.root)


def test_the_program_reads_a_lake_that_has_a_stream_alone(read: StreamHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", str(read.root))
    shown = CliRunner().invoke(app, ["show", "minute_bars", "NVDA", "--json"])
    assert shown.exit_code == 0, shown.output
    (bar,) = json.loads(shown.stdout)
    assert (bar["events"], bar["close"], bar["minute"]) == (2, 411.5, NOON.isoformat())
    assert CliRunner().invoke(app, ["show", "minute_bars", "NVDA"]).exit_code == 0
    for form in ("csv", "xlsx", "parquet"):
        done = CliRunner().invoke(app, ["export", "raw_ticks", "--format", form])
        assert done.exit_code == 0, done.output
    (written,) = Path.cwd().glob("raw_ticks*.csv")
    assert "\\xff{" in written.read_text()
    asked = CliRunner().invoke(app, ["query", "SELECT count(*) AS n FROM avg_1min", "--format", "csv"])
    assert asked.stdout == '"n"\n2\n'
