"""What happens by itself beside a stream: alerts, comparisons, events for Dagster, and upkeep."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import pyarrow as pa
import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.automation.failures import run_failure_sensor
from stock_lakehouse.automation.stream import stream_reconcile_sensor
from stock_lakehouse.automation.upkeep_schedule import JOB
from stock_lakehouse.cli import app
from stock_lakehouse.cli import stream as commands
from stock_lakehouse.clock import set_simulated
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.instance.home import ensure_dagster_home, open_instance
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.settings import Settings, Stream, load_settings
from stock_lakehouse.tables import FEATURES
from stock_lakehouse_tests.automation.test_failures import Endpoint, look
from stock_lakehouse_tests.streams.house import SESSION, StreamHouse, event
from stock_lakehouse_tests.streams.test_reconciliation import official, publish, the


def settings_in(folder: Path, **more: Any) -> Settings:
    (folder / "ticks").mkdir(exist_ok=True)
    return Settings(
        lake_root=folder / "lake",
        last_date=date(2023, 9, 21),
        automation="sensor",
        stream=Stream(source="files", folder=folder / "ticks"),
        **more,
    )


def house_of(settings: Settings, spark: SparkSession) -> StreamHouse:
    assert settings.stream.folder is not None
    return StreamHouse(settings.stream.folder.parent, spark, settings.lake_root, settings.stream)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    served = Endpoint()
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.mark.usefixtures("spark")
def test_a_drain_that_is_refused_is_posted_with_what_to_do(tmp_path: Path, endpoint: Endpoint) -> None:
    settings = settings_in(tmp_path, webhook_url=SecretStr(endpoint.url))
    house = house_of(settings, None)  # type: ignore[arg-type]
    house.write(event(0), event(1))
    definitions, sensor = build_definitions(settings), run_failure_sensor(settings)
    with dg.DagsterInstance.ephemeral() as instance:

        def drain() -> bool:
            job = definitions.resolve_job_def("stream_drain")
            return job.execute_in_process(instance=instance, raise_on_error=False).success

        assert drain()
        cursor = look(sensor, instance, None).cursor
        (house.folder / "a.jsonl").write_bytes(event(0)[:10])  # as a rotation by copy and truncate leaves it
        assert not drain()
        assert not drain()
        assert "1 messages sent, 1 failures of causes already reported" in str(
            look(sensor, instance, cursor).skip_reason
        )
    (body,) = endpoint.bodies
    assert (body["job"], body["assets"]) == ("stream_drain", ["stream_batches"])
    assert "ReplacedError: files:stock_ticks: " in body["error"]
    assert 'stock-lakehouse stream drain --accept-loss "why"' in body["error"]


def test_a_comparison_is_asked_for_once_the_official_bars_are_there_or_a_day_later(
    tmp_path: Path, spark: SparkSession
) -> None:
    settings = settings_in(tmp_path, simulated_clock=tmp_path / "clock")
    house, sensor = house_of(settings, spark), stream_reconcile_sensor(settings)
    closed = market_calendar(SESSION).close(SESSION)

    def tick(after_the_close: timedelta) -> Any:
        set_simulated(tmp_path / "clock", closed + after_the_close)
        with dg.DagsterInstance.ephemeral() as instance:
            return sensor.evaluate_tick(dg.build_sensor_context(instance=instance))

    assert tick(timedelta(hours=1)).skip_message == "no finished session has minutes"
    house.walk(["NVDA"], 600)
    house.drain()
    assert tick(timedelta(minutes=29)).skip_message == "no finished session has minutes"
    assert tick(timedelta(hours=1)).skip_message == "the official bars of 2023-09-21 are not there yet"
    late = tick(timedelta(hours=25))
    assert [request.run_key for request in late.run_requests] == ["2023-09-21"]
    publish(house, official(the("NVDA")))
    columns = {"ticker": "NVDA", "date": SESSION, "year": SESSION.year}
    deltalake.write_deltalake(
        str(tmp_path / "lake" / FEATURES.path),
        pa.Table.from_pylist([columns], FEATURES.arrow_schema),
        partition_by=list(FEATURES.partition_by),
    )
    # The same key: Dagster asks for one run.
    assert [request.run_key for request in tick(timedelta(hours=1)).run_requests] == ["2023-09-21"]


@pytest.fixture
def project(tmp_path: Path, spark: SparkSession) -> StreamHouse:
    """A project of its own, for the program."""
    (tmp_path / "lakehouse.toml").write_text('[stream]\nsource = "files"\nfolder = "ticks"\n')
    return StreamHouse.made(tmp_path, spark, root=tmp_path / "lakehouse", folder=tmp_path / "ticks")


def run_until(stop: Callable[[], bool]) -> Result:
    """`stream run` in this process, which is told to stop once `stop` says so, at the latest after a minute."""

    def watch() -> None:
        until = time.monotonic() + 60
        try:
            while not stop() and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = CliRunner().invoke(app, ["stream", "run", "--json"])
    watcher.join()
    return done


@pytest.fixture
def home(project: StreamHouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the project's Dagster instance, which `stream run` tells each second; and signals as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(commands, "LEAST_SECONDS", 0)
    monkeypatch.setenv("STOCK_LAKEHOUSE_STREAM_REPORT_SECONDS", "1")
    monkeypatch.setenv("STOCK_LAKEHOUSE_STREAM_TRIGGER_SECONDS", "0.1")
    project.write(event(0), event(1), b"no json")
    yield ensure_dagster_home(load_settings())
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_run_tells_dagster_of_new_bars_once_and_of_nothing_else(home: Path) -> None:
    told: list[Any] = []

    def two_seconds_after_the_first() -> bool:
        with open_instance(home) as instance:
            told[:] = instance.fetch_materializations(dg.AssetKey("minute_bars"), limit=10).records
        return bool(told) and time.time() > told[0].timestamp + 2

    done = run_until(two_seconds_after_the_first)
    assert done.exit_code == 0, done.output
    (record,) = told
    facts = {name: value.value for name, value in record.asset_materialization.metadata.items()}
    assert (facts["messages"], facts["events"], facts["dead letters, not JSON"]) == (3, 2, 1)
    assert record.run_id == ""


def test_run_goes_on_where_the_database_of_dagster_fails(home: Path, project: StreamHouse) -> None:
    index = home / "history" / "runs" / "index.db"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"no database, but a file of this name" * 100)
    began = time.monotonic()
    done = run_until(lambda: time.monotonic() > began + 3)
    assert done.exit_code == 0, done.output
    assert "Dagster was not told of new minute bars, which are in the lake: " in done.stderr
    assert [bar["events"] for bar in project.bars()] == [2]


def test_the_weekly_job_takes_care_of_the_stream_unless_a_runner_does(tmp_path: Path, spark: SparkSession) -> None:
    settings = settings_in(tmp_path)
    house = house_of(settings, spark)
    for second in range(3):
        house.write(event(second))
        house.drain()

    def files() -> int:
        return len(deltalake.DeltaTable(f"{house.root}/stream/raw_ticks").file_uris())

    def run(of: Settings) -> list[Any]:
        """How many files the job says that raw_ticks had before and after."""
        with dg.DagsterInstance.ephemeral() as instance:
            done = build_definitions(of).resolve_job_def(JOB).execute_in_process(instance=instance)
            observed = [event.asset_observation_data for event in done.all_events if event.is_asset_observation]
        facts = {data.asset_observation.asset_key.path[-1]: data.asset_observation.metadata for data in observed}
        assert ("minute_bars" in facts) == ("raw_ticks" in facts)
        return [facts["raw_ticks"][f"files {when}"].value for when in ("before", "after") if "raw_ticks" in facts]

    assert files() == 3
    assert run(settings.model_copy(update={"stream": Stream()})) == []
    with one_writer(settings.lake_root, "stream"):
        assert run(settings) == [3, 3]
    assert run(settings) == [3, 1]
    assert files() == 1
    house.check_ticks()


def test_upkeep_names_a_damaged_file_of_bars_and_repair_computes_them_again(project: StreamHouse) -> None:
    project.write(event(0), event(61), event(3700))
    project.drain()
    before = project.bars()
    bars = deltalake.DeltaTable(f"{project.root}/stream/minute_bars")
    Path(bars.file_uris()[0].removeprefix("file://")).unlink()
    found = CliRunner().invoke(app, ["upkeep", "--check-only"])
    assert found.exit_code == 1
    assert "minute_bars" in found.output
    assert "upkeep --repair` computes the bars again from their ticks" in " ".join(found.output.split())
    project.folder.rename(project.folder.with_name("away"))  # a repair does not ask the stream for anything
    repaired = CliRunner().invoke(app, ["upkeep", "--repair"])
    assert repaired.exit_code == 0, repaired.output
    assert f"1 damaged files taken out, {len(before)} bars computed again from their ticks" in repaired.output
    assert project.bars() == before


def test_a_retry_says_how_many_letters_changed(project: StreamHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(event(0), event(86400 + 3600), event(5, close=-1))  # the second is ahead of its arrival
    project.drain()
    monkeypatch.setattr(commands, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setenv("STOCK_LAKEHOUSE_STREAM_AHEAD_SECONDS", "86400")
    done = CliRunner().invoke(app, ["stream", "retry", "--json"])
    assert json.loads(done.stdout) == {"dead_letters": 2, "changed": 1}
    assert "2 dead letters read again" in done.stderr
    assert datetime(2023, 9, 22, 17, tzinfo=UTC) in [bar["minute"] for bar in project.bars()]
