"""What `stream status` and `stream live` say of the running session, and what a drain by the program leaves for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.streams import replay
from stock_lakehouse_tests.streams.house import SESSION, StreamHouse
from stock_lakehouse_tests.streams.test_live import FIRST, history
from stock_lakehouse_tests.streams.test_reconciliation import publish

TICKERS = ("NVDA", "AAPL", "META", "AMZN", "NFLX", "GOOG")
CONFIG = f'tickers = {json.dumps(TICKERS)}\n[stream]\nsource = "files"\nfolder = "ticks"\n'


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stream", *arguments])


def project(folder: Path, spark: SparkSession, tickers: Sequence[str]) -> StreamHouse:
    """A project whose stream has a day of `tickers`, and whose lake has their daily bars until the day before."""
    (folder / "lakehouse.toml").write_text(CONFIG)
    house = StreamHouse.made(folder, spark, root=folder / "lakehouse", folder=folder / "ticks")
    publish(house, *history(list(tickers), SESSION - timedelta(days=1)))
    house.walk(tickers, 60)
    return house


def test_status_ends_with_the_running_session_of_the_first_tickers_of_the_settings(
    tmp_path: Path, spark: SparkSession
) -> None:
    project(tmp_path, spark, TICKERS)
    assert call("drain").exit_code == 0
    shown = call("status")
    assert shown.exit_code == 0, shown.output
    *_, nvidia, apple, meta, amazon, netflix, more = shown.output.splitlines()
    # As newspapers said: NVIDIA closed at 422.39 on 2023-09-20 and at 410.17 on the 21st. Averages by hand.
    closes = [float(bar.close) for bar in replay.sample_bars(["NVDA"], FIRST, SESSION)]
    averages = [f"sma_{days} {sum(closes[-days:]) / days:,.1f}" for days in (20, 50)]
    assert nvidia.startswith("NVDA  410.17, -2.89 % since the close; rsi_14 ")
    assert nvidia.endswith(f", {', '.join(averages)}; as of 2023-09-21 19:59:00 UTC, running")
    assert [line[:4] for line in (apple, meta, amazon, netflix)] == ["AAPL", "META", "AMZN", "NFLX"]
    assert more == "1 more: `stock-lakehouse stream live`"
    live = json.loads(call("status", "--json").stdout)["live"]
    assert [row["ticker"] for row in live] == list(TICKERS)
    assert (live[0]["date"], live[0]["bar_state"], live[0]["close"]) == ("2023-09-21", "running", pytest.approx(410.17))
    assert live[0]["sma_20"] == pytest.approx(sum(closes[-20:]) / 20)
    # The same rows, for the tickers that somebody asks for.
    assert [row["ticker"] for row in json.loads(call("live", "goog,nvda", "--json").stdout)] == ["NVDA", "GOOG"]
    assert call("live", "NVDA").output == f"{nvidia}\n"


def test_a_drain_without_a_daily_history_says_why_there_are_no_indicators(tmp_path: Path, spark: SparkSession) -> None:
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    house = StreamHouse.made(tmp_path, spark, root=tmp_path / "lakehouse", folder=tmp_path / "ticks")
    assert "No live features" in call("live").output
    house.walk(["NVDA"], 600)
    assert call("drain").exit_code == 0
    assert "doubtful: there is no daily bar before it" in call("live").output


def test_nobody_computes_live_features_that_the_settings_do_not_want(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_STREAM_LIVE_SECONDS", "0")
    project(tmp_path, spark, ["NVDA"])
    assert call("drain").exit_code == 0
    assert not (tmp_path / "lakehouse" / "stream" / "live_features").exists()
    assert json.loads(call("status", "--json").stdout)["live"] == []
