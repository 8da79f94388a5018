"""The minutes of a session beside its official bar: the verdicts, by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.settings import Stream
from stock_lakehouse.streams import replay
from stock_lakehouse.streams.reconciliation import reconcile
from stock_lakehouse.tables import CURATED
from stock_lakehouse_tests.streams.house import SESSION, StreamHouse, event

EARLY = date(2022, 11, 25)  # the day after Thanksgiving: New York closes at 13:00
NOW = datetime(2023, 9, 22, 12, tzinfo=UTC)


def official(bar: replay.Bar, split_factor: float = 1.0, **changed: Any) -> dict[str, Any]:
    """The curated bar that is `bar` as traded, adjusted for a later split."""
    prices = {name: float(getattr(bar, name)) / split_factor for name in ("open", "high", "low", "close")}
    return {
        "ticker": bar.ticker,
        "date": bar.session,
        **prices,
        "adj_close": prices["close"],
        "volume": int(bar.volume * split_factor),
        "dividend": 0.0,
        "split_ratio": 1.0,
        "split_factor": split_factor,
        "price_basis": "total_return",
        "bar_status": "final",
        "ingested_at": NOW,
        "year": bar.session.year,
        **changed,
    }


def publish(house: StreamHouse, *rows: dict[str, Any]) -> None:
    """Make `rows` the curated bars of the lake."""
    deltalake.write_deltalake(
        str(house.options.lake_root / "curated" / "stocks_daily"),  # type: ignore[operator]
        pa.Table.from_pylist(list(rows), CURATED.arrow_schema),
        partition_by=list(CURATED.partition_by),
        mode="overwrite",
    )


def compared(house: StreamHouse, now: datetime = NOW) -> dict[tuple[str, date], dict[str, Any]]:
    rows = reconcile(Lake(house.options), house.settings, house.spark, now).to_pylist()
    assert rows == sorted(house.table("reconciliation").to_pylist(), key=lambda row: (row["date"], row["ticker"]))
    return {(row["ticker"], row["date"]): row for row in rows}


def the(ticker: str, session: date = SESSION) -> replay.Bar:
    (bar,) = replay.sample_bars([ticker], session, session)
    return bar


def test_the_verdicts(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark)
    house.walk(["NVDA", "AAPL", "META", "AMZN"], 30)
    house.walk(["NVDA"], 60, session=EARLY, file="b.jsonl")
    # Before the open, and after the minute of the close: not of the session.
    opened = market_calendar(SESSION).open(SESSION)
    for instant in (opened - timedelta(minutes=1), opened + timedelta(hours=6.5, minutes=1)):
        house.write(event(0, timestamp=instant.isoformat(), close=1, volume=1))
    # A partial session, and a replay of one day on another.
    house.write(event(-86400, ticker="NFLX", close=100, volume=7))
    house.write(event(-86400, ticker="GOOG", close=100, date="2020-01-02", replay=True))
    house.drain()
    half = the("NFLX", SESSION - timedelta(days=1))
    publish(
        house,
        official(the("NVDA"), split_factor=4.0),
        official(the("AAPL"), close=float(the("AAPL").close) * 1.001),
        official(the("AMZN"), bar_status="provisional", volume=None, open=None),
        official(the("GOOG")),
        official(half),
        official(the("NVDA", EARLY)),
    )
    found = compared(house)
    assert {key: row["verdict"] for key, row in found.items()} == {
        ("NVDA", SESSION): "match",
        ("AAPL", SESSION): "differs",
        ("META", SESSION): "no official bar",
        ("AMZN", SESSION): "match",
        ("GOOG", SESSION): "no minutes",
        ("NFLX", half.session): "partial",
        ("GOOG", half.session): "replay",
        ("NVDA", EARLY): "match",
    }
    nvidia = found["NVDA", SESSION]
    assert {name: nvidia[name] for name in ("minutes_expected", "minutes_present", "stream_minutes", "events")} == {
        "minutes_expected": 391,
        "minutes_present": 390,
        "stream_minutes": 390,
        "events": 780,
    }
    for name in ("open", "high", "low", "close"):
        assert nvidia[f"{name}_difference"] == pytest.approx(0, abs=1e-9)
    assert nvidia["volume_ratio"] == pytest.approx(1)
    assert found["AAPL", SESSION]["close_difference"] == pytest.approx(1 / 1.001 - 1)
    amazon = found["AMZN", SESSION]
    assert (amazon["open_difference"], amazon["volume_ratio"], amazon["bar_status"]) == (None, None, "provisional")
    # 9:30 to 13:00.
    assert (found["NVDA", EARLY]["minutes_expected"], found["NVDA", EARLY]["minutes_present"]) == (211, 210)
    missing = found["GOOG", SESSION]
    assert (missing["minutes_present"], missing["events"], missing["close_difference"]) == (0, 0, None)
    assert found["NFLX", half.session]["volume_ratio"] == pytest.approx(7 / half.volume)


def test_a_session_is_compared_once_it_is_final_and_its_row_changes_only_with_its_facts(
    tmp_path: Path, spark: SparkSession
) -> None:
    house = StreamHouse.made(tmp_path, spark)
    house.walk(["NVDA"], 60)
    house.drain()
    bar = the("NVDA")
    publish(house, official(bar))
    closed = market_calendar(SESSION).close(SESSION)
    assert reconcile(Lake(house.options), house.settings, spark, closed + timedelta(minutes=29)).num_rows == 0
    first = compared(house, closed + timedelta(minutes=30))
    version = deltalake.DeltaTable(f"{house.root}/stream/reconciliation").version()
    assert compared(house, NOW) == first
    assert deltalake.DeltaTable(f"{house.root}/stream/reconciliation").version() == version
    # The vendor corrects the volume, which is reported, and judged if somebody wants it.
    publish(house, official(bar, volume=bar.volume * 2))
    (row,) = compared(house, NOW).values()
    assert (row["verdict"], row["volume_ratio"], row["compared_at"]) == ("match", pytest.approx(0.5), NOW)
    house.settings = Stream(**{**house.settings.model_dump(), "volume_tolerance": 0.4})
    assert [row["verdict"] for row in compared(house, NOW).values()] == ["differs"]
