"""One setting picks who asks for new days: what each choice defines, and when schedule and conditions ask."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from stock_lakehouse.automation.schedules import cron, market_day_schedule
from stock_lakehouse.clock import set_simulated
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import RANGE_END, RANGE_START, PartitionScheme
from stock_lakehouse.settings import Settings

FIRST = date(2023, 12, 1)


def of(**values: Any) -> Settings:
    return Settings(**{"tickers": ("AAPL", "NVDA"), "first_date": FIRST, **values})


@pytest.mark.parametrize(
    ("values", "defined"),
    [
        ({}, set()),
        ({"automation": "sensor"}, {"new_market_day_sensor", "gap_sensor"}),
        (
            {"automation": "sensor", "source": "csv", "csv_folder": "prices"},
            {"csv_folder_sensor", "new_market_day_sensor", "gap_sensor"},
        ),
        ({"automation": "schedule"}, {"market_day_schedule", "gap_sensor"}),
        ({"automation": "declarative"}, {"automation_condition_sensor"}),
        ({"webhook_url": SecretStr("https://example.com/x")}, {"run_failure_sensor"}),
    ],
)
def test_what_a_choice_defines_runs_at_once_and_the_others_are_not_there(
    values: dict[str, Any], defined: set[str]
) -> None:
    settings = of(**values)
    repository = build_definitions(settings).get_repository_def()
    found = [*repository.sensor_defs, *repository.schedule_defs]
    weekly = {"upkeep_schedule"} if settings.automation != "off" else set()
    assert {one.name for one in found} == defined | weekly
    assert all(one.default_status.value == "RUNNING" for one in found)
    nodes = repository.asset_graph.asset_nodes
    with_condition = {node.key for node in nodes if node.automation_condition is not None}
    # Eight tables, the catalog and nine reports.
    assert len(with_condition) == (19 if settings.automation == "declarative" else 0)


def test_served_tables_are_fresh_as_long_as_the_exchange_has_ever_been_closed() -> None:
    graph = build_definitions(of()).get_repository_def().asset_graph
    policies = {node.key.path[-1]: node.freshness_policy for node in graph.asset_nodes if node.freshness_policy}
    assert set(policies) == {"curated_stocks_daily", "stocks_features"}
    longest = market_calendar(FIRST).longest_closure(FIRST)
    assert longest == timedelta(days=4, hours=3)  # a half-day, a weekend and a holiday
    assert {policy.fail_window.to_timedelta() for policy in policies.values()} == {longest + timedelta(hours=6.5)}
    ended = build_definitions(of(last_date=date(2023, 12, 29))).get_repository_def().asset_graph
    assert not any(node.freshness_policy for node in ended.asset_nodes)


@pytest.mark.parametrize(
    ("minutes", "line"),
    [(0, "0 16 * * 1,2,3,4,5"), (30, "30 16 * * 1,2,3,4,5"), (480 + 30, "30 0 * * 2,3,4,5,6"), (24 * 60, "0 16 * * 2,3,4,5,6")],
)  # fmt: skip
def test_the_schedule_follows_the_regular_close_over_midnight(minutes: int, line: str) -> None:
    assert cron(market_calendar(FIRST), minutes) == line


@pytest.mark.parametrize(
    ("exchange", "minutes", "line", "zone"),
    [
        ("XLON", 30, "0 17 * * 1,2,3,4,5", "Europe/London"),
        ("XTKS", 30, "0 16 * * 1,2,3,4,5", "Asia/Tokyo"),
        ("XSAU", 30, "30 15 * * 0,1,2,3,4", "Asia/Riyadh"),
        ("24/7", 30, "30 0 * * 0,1,2,3,4,5,6", "UTC"),
        ("24/5", 0, "0 0 * * 2,3,4,5,6", "UTC"),
        ("24/5", 480, "0 8 * * 2,3,4,5,6", "UTC"),
    ],
)
def test_the_schedule_follows_the_close_and_the_time_of_the_exchange(
    exchange: str, minutes: int, line: str, zone: str
) -> None:
    calendar = market_calendar(FIRST, exchange)
    assert sorted(cron(calendar, minutes)) == sorted(line)
    assert cron(calendar, minutes).split()[:2] == line.split()[:2]
    assert market_day_schedule(of(exchange=exchange), calendar).execution_timezone == zone


def test_the_schedule_asks_for_what_the_lake_lacks_and_says_why_it_does_not(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    settings = of(automation="schedule", lake_root=tmp_path / "lake", simulated_clock=clock)
    schedule = market_day_schedule(settings, market_calendar(FIRST))
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        set_simulated(clock, datetime(2023, 12, 4, 21, 30, tzinfo=UTC))
        [request] = schedule(dg.build_schedule_context(instance=instance))
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2023-12-01|AAPL", "2023-12-04|NVDA")
        set_simulated(clock, datetime(2023, 12, 1, 12, 0, tzinfo=UTC))
        skipped = schedule(dg.build_schedule_context(instance=instance))
    assert "next close 2023-12-01 21:00 UTC" in skipped.skip_message


def asked(definitions: dg.Definitions, instance: dg.DagsterInstance, at: str, cursor: Any = None) -> Any:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    return dg.evaluate_automation_conditions(definitions, instance, evaluation_time=moment, cursor=cursor)


def keys_of(result: Any, name: str) -> set[str]:
    return set(result.get_requested_partitions(dg.AssetKey(name)))


def test_conditions_ask_for_a_session_after_its_close_through_every_layer() -> None:
    definitions = build_definitions(of(automation="declarative", partition_by="session"))
    layers = ("raw_stocks_daily", "processed_stocks_daily", "curated_stocks_daily", "stocks_features")
    with dg.DagsterInstance.ephemeral() as instance:
        for name in layers:
            for day in market_calendar(FIRST).between(FIRST, date(2024, 1, 9)):
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(name, partition=day.isoformat(), metadata={})
                )
        open_market = asked(definitions, instance, "2024-01-10 20:00")
        assert open_market.total_requested == 0
        closed = asked(definitions, instance, "2024-01-10 21:31", open_market.cursor)
        assert {name: keys_of(closed, name) for name in layers} == {name: {"2024-01-10"} for name in layers}
        for name in layers:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition="2024-01-10", metadata={}))
        again = asked(definitions, instance, "2024-01-10 21:40", closed.cursor)
        assert again.get_num_requested(dg.AssetKey("restatements")) == 1  # once what stands above it is there
        assert keys_of(again, "raw_stocks_daily") == set()


def test_conditions_ask_for_what_never_came_within_two_weeks_and_not_for_the_whole_history() -> None:
    definitions = build_definitions(of(automation="declarative"))
    with dg.DagsterInstance.ephemeral() as instance:
        start = asked(definitions, instance, "2024-01-10 20:00")
        closed = asked(definitions, instance, "2024-01-10 21:31", start.cursor)
    days = {key.split("|")[0] for key in keys_of(closed, "raw_stocks_daily")}
    assert max(days) == "2024-01-10"
    assert "2023-12-27" <= min(days) <= "2023-12-29"
    assert {key.split("|")[1] for key in keys_of(closed, "raw_stocks_daily")} == {"AAPL", "NVDA"}


@pytest.mark.parametrize(("source", "retried"), [("yfinance", {"raw_stocks_daily"}), ("sample", set())])
def test_only_the_step_that_asks_over_a_network_is_tried_again(source: str, retried: set[str]) -> None:
    job = build_definitions(of(source=source)).resolve_job_def("stock_lakehouse")
    assert {node.name for node in job.graph.nodes if node.definition.retry_policy} == retried  # type: ignore[union-attr]


def test_the_key_of_a_day_is_there_at_its_close(tmp_path: Path) -> None:
    """A run for it would else fail until midnight UTC, two to three hours after the sensor asked for it."""
    from dagster import partition_loading_context

    partitions = PartitionScheme(of(), market_calendar(FIRST)).definition()
    with partition_loading_context(datetime(2024, 1, 10, 21, 31, tzinfo=UTC)):
        keys = partitions.get_partition_keys_in_range(dg.PartitionKeyRange("2024-01-10|AAPL", "2024-01-10|NVDA"))
        last = partitions.get_last_partition_key()
    assert set(keys) == {"2024-01-10|AAPL", "2024-01-10|NVDA"}
    assert last == "2024-01-10|NVDA"
