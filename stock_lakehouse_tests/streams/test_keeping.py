"""Upkeep of the stream's tables: files stay few over many small commits, and damaged bars are computed again."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import deltalake
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake, stream_table
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.streams import runner
from stock_lakehouse.streams.keeping import damages_of_stream, drop_damaged_bars, tend_stream
from stock_lakehouse.streams.rebuild import rebuild_bars
from stock_lakehouse_tests.streams.house import StreamHouse, event


@pytest.mark.soak
def test_files_stay_few_over_many_small_commits(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark, compact_batches=10)
    with house.running() as started:
        for second in range(45):
            house.write(event(second))
            started.step(0)
        files = [
            len(deltalake.DeltaTable(f"{house.root}/stream/{name}").file_uris())
            for name in ("raw_ticks", "minute_bars")
        ]
    assert files[0] <= 11  # one, and those of at most ten batches
    assert files[1] <= 11
    lake = Lake(house.options)
    with one_writer(house.root, "stream"):
        assert not tend_stream(lake, 2, house.now)
    assert tend_stream(lake, 2, house.now)
    assert len(deltalake.DeltaTable(f"{house.root}/stream/raw_ticks").file_uris()) == 1
    house.check()


@pytest.mark.soak
def test_files_versions_and_ticks_stay_bounded_over_days_of_commits(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six days in two minutes. Commits have the real time, so hours of the settings are seconds here."""
    kept, between, batches = 12.0, 4.0, 360
    monkeypatch.setattr(runner, "TEND_SECONDS", between)
    monkeypatch.setattr(stream_table, "UNCOMMITTED", timedelta(seconds=between))
    house = StreamHouse.made(tmp_path, spark, keep_ticks_days=2, compact_batches=10)
    times: list[float] = []
    # Files beyond those of the newest version, for each batch of the time that versions are kept.
    surplus: list[float] = []
    with house.running() as started:
        tables = (started.ticks, started.bars)
        for table in tables:
            table.versions_hours = kept / 3600  # type: ignore[assignment]
        for number in range(batches):
            house.now = utc_now()  # commits after the present time count as ones of a wrong clock
            at = 6 * 86400 * number / batches
            house.write(event(at), event(at - 30, "AAPL"))
            started.step(0)
            started.tend()
            times.append(time.monotonic())
            recent = sum(moment > times[-1] - kept - 2 * between for moment in times)
            there = sum(1 for _ in (tmp_path / "lake" / "stream").rglob("*") if _.is_file())
            surplus.append((there - sum(len(table.sizes()) for table in tables)) / recent)
            # Three days and the one that came since ticks were removed; of each what was joined, and ten batches.
            assert len(started.ticks.newest_days(99)) <= 4
            assert len(started.ticks.sizes()) <= 4 * 2 + 10
    # A batch writes and replaces about fifteen files; were none removed, there would be three times as many in the end.
    assert max(surplus[batches // 2 :]) < 20, surplus
    assert times[-1] - times[0] > 4 * kept
    assert len(house.ticks()) < len(house.bars()) == 2 * batches
    assert not any(damages_of_stream(Lake(house.options)).values())
    assert house.drain().messages == 0


def test_a_missing_file_of_bars_is_named_and_its_bars_are_computed_again(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark)
    house.write(event(0), event(61), event(3700), event(3800))
    house.drain()
    before = house.bars()
    Path(deltalake.DeltaTable(f"{house.root}/stream/minute_bars").file_uris()[0].removeprefix("file://")).unlink()
    lake = Lake(house.options)
    assert [len(found) for found in damages_of_stream(lake).values()] == [0, 1]
    assert drop_damaged_bars(lake) == 1
    assert len(house.bars()) < len(before)
    with house.running() as started:
        assert rebuild_bars(started.ticks, started.bars, started.bars_of) == len(before)
    assert house.bars() == before
    assert not any(damages_of_stream(lake).values())
    house.now += timedelta(hours=1)
    house.check()
