"""The stream in Dagster: its jobs, checks and sensors, in process."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import pytest

from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
from stock_lakehouse.automation.stream import stream_lag_sensor
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake.lock import one_writer, sign
from stock_lakehouse.settings import Settings, Stream
from stock_lakehouse.streams.rebuild import differing_minutes
from stock_lakehouse_tests.streams.house import StreamHouse

STREAM = {"raw_ticks", "minute_bars", "minute_reconciliation", "live_features"}


@pytest.fixture
def streaming(tmp_path: Path) -> Settings:
    (tmp_path / "ticks").mkdir()
    return Settings(
        lake_root=tmp_path / "lake",
        last_date=date(2023, 9, 21),
        automation="sensor",
        stream=Stream(source="files", folder=tmp_path / "ticks", drain_after_seconds=60),
    )


def house_of(settings: Settings) -> StreamHouse:
    assert settings.stream.folder is not None
    return StreamHouse(settings.stream.folder.parent, None, settings.lake_root, settings.stream)  # type: ignore[arg-type]


def test_stream_assets_stand_in_the_graph_and_not_in_the_daily_run(streaming: Settings) -> None:
    definitions = build_definitions(streaming)
    graph = definitions.resolve_asset_graph()
    assert {key.path[-1] for key in graph.get_all_asset_keys()} >= STREAM
    assert not any(graph.get(dg.AssetKey(name)).is_partitioned for name in STREAM)
    assert {graph.get(dg.AssetKey(name)).group_name for name in STREAM} == {"lake"}
    daily = definitions.resolve_job_def(LAKEHOUSE_JOB)
    assert {key.path[-1] for key in daily.asset_layer.executable_asset_keys}.isdisjoint(STREAM)
    drain = definitions.resolve_job_def("stream_drain")
    assert {key.path[-1] for key in drain.asset_layer.executable_asset_keys} == STREAM - {"minute_reconciliation"}


def test_a_drain_reads_checks_and_computes_and_its_comparison_follows(streaming: Settings) -> None:
    house = house_of(streaming)
    count = house.walk(["NVDA"], 60)
    house.write(b"no json")
    definitions = build_definitions(streaming)
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("stream_drain").execute_in_process(instance=instance)
        assert done.success
        checks = {check.check_name: check.passed for check in done.get_asset_check_evaluations()}
        assert checks == {
            "stream_conservation": True,
            "stream_positions": True,
            "stream_lag": True,
            "dead_share": False,  # the letter is alone on the day of its arrival
            "late_share": True,
            "minutes_match_ticks": True,
        }
        (event,) = done.asset_materializations_for_node("stream_batches")[1:]
        facts = {name: value.value for name, value in event.metadata.items()}
        assert (facts["messages"], facts["events"], facts["dead letters, not JSON"]) == (count + 1, count, 1)
        newest = event.metadata["newest bars"].records[-1].data  # type: ignore[attr-defined]
        assert (newest["ticker"], newest["minute"]) == ("NVDA", "2023-09-21 19:59:00+00:00")
        (live,) = done.asset_materializations_for_node("live_features")
        (row,) = live.metadata["rows"].records  # type: ignore[attr-defined]
        assert (row.data["ticker"], row.data["doubt"]) == ("NVDA", "there is no daily bar before it")
        compared = definitions.resolve_job_def("stream_reconcile").execute_in_process(instance=instance)
        assert compared.success
        # A cell of a bar changes, and a bar goes: the checks see both.
        bars = deltalake.DeltaTable(f"{house.root}/stream/minute_bars")
        newest = max(row["minute"] for row in house.bars())
        bars.update({"close": "close + 1"}, predicate=f"minute = '{newest.isoformat()}'")
        with spark_session("embedded") as spark:
            compared_bars, wrong = differing_minutes(streaming.lake_options, 2, spark, 50)
        assert (compared_bars, wrong) == (50, [("NVDA", newest)])
        bars.delete(f"minute = '{(newest - timedelta(minutes=1)).isoformat()}'")
        again = definitions.resolve_job_def("stream_drain").execute_in_process(instance=instance, raise_on_error=False)
        checks = {check.check_name: check.passed for check in again.get_asset_check_evaluations()}
        assert not checks["stream_conservation"]
        assert "minutes_match_ticks" not in checks  # conservation blocks what follows
        assert "live_features" not in {key.path[-1] for key in _materialized(again)}


def _materialized(done: Any) -> set[dg.AssetKey]:
    return {event.asset_key for event in done.get_asset_materialization_events() if event.asset_key}


def test_the_lag_sensor_asks_once_a_lag_and_never_beside_a_runner(streaming: Settings) -> None:
    house = house_of(streaming)
    house.walk(["NVDA"], 600)
    sensor = stream_lag_sensor(streaming)
    definitions = build_definitions(streaming)
    file = house.folder / "a.jsonl"

    def tick(instance: dg.DagsterInstance, cursor: str | None) -> Any:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions)
        return sensor.evaluate_tick(context)

    with dg.DagsterInstance.ephemeral() as instance:
        fresh = tick(instance, None)
        assert "for less than drain_after_seconds" in fresh.skip_message
        # The file goes on growing, so its time of change says nothing; the cursor does.
        old = (datetime.now(UTC) - timedelta(minutes=5)).timestamp()
        os.utime(file, (old, old))
        with one_writer(streaming.lake_root, "stream"):
            sign(streaming.lake_root, "stream", datetime.now(UTC))
            assert "a runner is at work" in tick(instance, fresh.cursor).skip_message
        asked = tick(instance, fresh.cursor)
        assert len(asked.run_requests) == 1
        assert "moved nothing" in tick(instance, asked.cursor).skip_message
        done = definitions.resolve_job_def("stream_drain").execute_in_process(instance=instance)
        assert done.success
        assert tick(instance, asked.cursor).skip_message == "no message waits"
