"""The weekly job: its figures on the assets, its failure when something is found, and when it is scheduled."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.automation.choose import automation_of
from stock_lakehouse.automation.upkeep_schedule import JOB, SCHEDULE
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import CURATED, FEATURES, TABLES
from stock_lakehouse_tests.graph import FIRST, TICKERS, clocked, history
from stock_lakehouse_tests.lake.histories import SESSIONS, deliver
from stock_lakehouse_tests.lake.test_upkeep import damaged_files


@pytest.fixture
def settings(tmp_path: Path, spark: SparkSession) -> Settings:
    """A lake that was delivered to."""
    house = clocked(tmp_path / "lake", spark)
    deliver(house, history(TICKERS, SESSIONS))
    return Settings(lake_root=tmp_path / "lake", tickers=TICKERS, first_date=FIRST, last_date=SESSIONS[-1])


def run(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(settings).resolve_job_def(JOB)
    return job.execute_in_process(instance=instance, raise_on_error=False)


def test_a_run_observes_every_table_with_its_figures(settings: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(settings, instance)
        assert result.success
        observed = {
            event.asset_observation_data.asset_observation.asset_key.path[-1]: (
                event.asset_observation_data.asset_observation.metadata
            )
            for event in result.all_events
            if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
        }
    assert set(observed) == {table.name for table in TABLES}
    curated = {name: one.value for name, one in observed[CURATED.name].items()}
    assert curated["rows checked"] == len(TICKERS) * len(SESSIONS)
    assert (curated["files before"], curated["files after"], curated["findings"]) == (6, 6, 0)


def test_a_run_that_finds_something_fails_and_says_what_to_do(settings: Settings) -> None:
    house = clocked(settings.lake_root, None)  # type: ignore[arg-type]
    victim = damaged_files(house.lake, FEATURES.name)[0]
    victim.unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(settings, instance)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = str(failure.event_specific_data)
    assert victim.name in told
    assert "stock-lakehouse upkeep --repair" in told


@pytest.mark.parametrize("automation", ["off", "sensor", "schedule", "declarative"])
def test_it_is_scheduled_each_week_wherever_something_runs_by_itself(automation: str) -> None:
    settings = Settings(automation=automation)  # type: ignore[arg-type]
    calendar = market_calendar(settings.first_date, "XLON")
    schedules = {one.name: one for one in automation_of(settings, calendar).schedules}
    assert (SCHEDULE in schedules) == (automation != "off")
    if automation != "off":
        assert schedules[SCHEDULE].cron_schedule == "0 6 * * 0"
        assert schedules[SCHEDULE].execution_timezone == "Europe/London"
        assert schedules[SCHEDULE].default_status == dg.DefaultScheduleStatus.RUNNING
