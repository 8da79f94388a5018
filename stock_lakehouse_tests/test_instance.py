"""The Dagster instances that `init` writes: a laptop's on SQLite, production's on a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from stock_lakehouse import tables
from stock_lakehouse.cli import app
from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage
from stock_lakehouse.instance.home import (
    LAKEHOUSE_TOML,
    LAPTOP,
    POSTGRES_VARIABLE,
    PRODUCTION,
    WORKSPACE,
    dagster_folder,
    open_instance,
)
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.runs.run import run_rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests.postgres import find_server, postgres

CONFIG = """
tickers = ["AAPL", "NVDA"]
first_date = 2023-08-01
last_date = 2023-09-21
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_init_writes_settings_that_load_and_a_laptops_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call("init")
    assert result.exit_code == 0, result.output
    assert call("doctor").exit_code == 0
    assert (tmp_path / "lakehouse" / ".dagster" / "dagster.yaml").read_text() == LAPTOP
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "lakehouse" / ".dagster"))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
        assert instance.run_monitoring_enabled
        concurrency = instance.get_concurrency_config()
        assert concurrency.run_queue_config is not None
        assert concurrency.run_queue_config.max_concurrent_runs == 2
        assert concurrency.pool_config.default_pool_limit == 1


def test_init_writes_the_settings_that_the_repository_has() -> None:
    assert Path(__file__).parents[1].joinpath("lakehouse.toml").read_text(encoding="utf-8") == LAKEHOUSE_TOML


def test_init_leaves_what_is_there_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    assert "kept, because it exists" in call("init").output
    config = tmp_path / "lakehouse" / ".dagster" / "dagster.yaml"
    assert "kept, because it has this content already" in call("init").output
    config.write_text(LAPTOP + "# mine\n")
    refused = call("init", "--production")
    assert refused.exit_code == 2
    assert "--force overwrites it" in refused.output
    assert config.read_text() == LAPTOP + "# mine\n"
    assert call("init", "--production", "--force").exit_code == 0
    assert config.read_text() == PRODUCTION
    assert config.with_name("workspace.yaml").read_text() == WORKSPACE
    assert (tmp_path / "lakehouse.toml").read_text() == CONFIG


def test_production_asks_for_the_address_of_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert call("init", "--production").exit_code == 0
    with pytest.raises(Exception, match=POSTGRES_VARIABLE):
        dg.DagsterInstance.from_config(str(tmp_path / "home"))


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    programs = find_server()
    if programs is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    with postgres(programs) as url:
        yield url


@pytest.mark.slow
def test_a_run_in_production_is_recorded_in_postgres_in_batches(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster_postgres import PostgresEventLogStorage

    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(POSTGRES_VARIABLE, database)
    assert call("init", "--production").exit_code == 0
    batches: list[int] = []
    stock = PostgresEventLogStorage.store_event_batch

    def counted(storage: Any, events: Any) -> None:
        batches.append(len(events))
        stock(storage, events)

    monkeypatch.setattr(PostgresEventLogStorage, "store_event_batch", counted)
    done = call("backfill")
    assert done.exit_code == 0, done.output
    assert [size for size in batches if size == 74] == [74] * 4  # a layer's keys are one batch
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
        keys = {
            f"{day}|{ticker}"
            for ticker in ("AAPL", "NVDA")
            for day in instance_days(date(2023, 8, 1), date(2023, 9, 21))
        }
        for table in tables.LAYERS:
            assert instance.get_materialized_partitions(dg.AssetKey(table.name)) == keys
        # What the lake holds can be recorded there too, and once.
        instance.wipe_assets([dg.AssetKey("stocks_features")])
    assert "stocks_features: 74 partitions" in call("record").output
    assert "Nothing to mark" in call("record").output
    assert "Nothing to do" in call("backfill").output


def instance_days(first: date, last: date) -> tuple[date, ...]:
    from stock_lakehouse.market_calendar import market_calendar

    return market_calendar(first).between(first, last)


@pytest.mark.soak
@pytest.mark.usefixtures("spark")
def test_two_lakes_in_one_process_are_each_recorded_in_their_own_instance(tmp_path: Path) -> None:
    days = instance_days(date(2023, 9, 20), date(2023, 9, 21))
    runs = {}
    for name, tickers in (("one", ("AAPL",)), ("two", ("NVDA",))):
        settings = Settings(tickers=tickers, lake_root=tmp_path / name, last_date=date(2023, 9, 21))
        report = run_rectangle(settings, Rectangle(days, tickers))
        assert report.success, report.failures
        assert "DAGSTER_HOME" not in os.environ
        runs[name] = (settings, report.run_id, {f"{day}|{tickers[0]}" for day in days})
    for name, (settings, run_id, keys) in runs.items():
        home = tmp_path / name / ".dagster"
        assert dagster_folder(settings) == home
        with open_instance(home) as instance:
            [run] = instance.get_runs()
            assert run.run_id == run_id
            # The UI's timeline has the runs of the code locations that it knows.
            origin = run.remote_job_origin
            assert origin is not None
            location = origin.repository_origin.code_location_origin
            assert (location.location_name, origin.job_name) == ("stock_lakehouse", "stock_lakehouse")
            assert run.tags["stock_lakehouse/summary"] == f"{settings.tickers[0]}; 2023-09-20 to 2023-09-21"
            assert instance.get_materialized_partitions(dg.AssetKey("stocks_features")) == keys
            assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
        assert (home / "history" / "runs" / "index.db").is_file()
