"""What sensors read: runs in flight by their tags, the cursor, and a lake that is not there."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from stock_lakehouse.automation.decisions import Asked
from stock_lakehouse.automation.sensors import ASKED_BY, asked_from, asked_text, new_market_day_sensor
from stock_lakehouse.clock import set_simulated
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.instance.run_tags import RunCoverage, keys_of, run_coverage
from stock_lakehouse.lake.coverage import CoverageError
from stock_lakehouse.partitions import RANGE_END, RANGE_START
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import FEATURES

TICKERS = ("AAPL", "GOOG", "NVDA")
DAY = date(2023, 9, 20)


def run(tags: dict[str, str], *selection: str) -> dg.DagsterRun:
    keys = frozenset(dg.AssetKey(name) for name in selection) or None
    return dg.DagsterRun(job_name="stock_lakehouse", run_id="1", tags=tags, asset_selection=keys)


def span(start: str, end: str, **more: str) -> dict[str, str]:
    return {RANGE_START: start, RANGE_END: end, **more}


@pytest.mark.parametrize(
    ("given", "covers"),
    [
        (run(span("2023-09-18|GOOG", "2023-09-20|NVDA")), RunCoverage("1", date(2023, 9, 18), DAY, frozenset({"GOOG", "NVDA"}))),
        (run({"dagster/partition": "2023-09-20|AAPL"}), RunCoverage("1", DAY, DAY, frozenset({"AAPL"}))),
        (run(span("2023-09-20", "2023-09-20")), RunCoverage("1", DAY, DAY, frozenset(TICKERS))),
        (
            run({**span("2023-09-20", "2023-09-20"), "stock_lakehouse/tickers": "GOOG"}),
            RunCoverage("1", DAY, DAY, frozenset({"GOOG"})),
        ),
        (
            run({**span("2023-09-20|AAPL", "2023-09-20|NVDA"), "stock_lakehouse/tickers": "AAPL,NVDA"}),
            RunCoverage("1", DAY, DAY, frozenset({"AAPL", "NVDA"})),
        ),
        (run(span("2023-09-20", "2023-09-20"), "raw_stocks_daily"), None),
        (run(span("2023-09-20", "2023-09-20"), "curated_stocks_daily", "stocks_features"), None),
        (run(span("2023-09-20|GONE", "2023-09-20|NVDA")), None),
        (run({}), None),
    ],
)  # fmt: skip
def test_a_runs_tags_say_what_it_covers(given: dg.DagsterRun, covers: RunCoverage | None) -> None:
    assert run_coverage(given, TICKERS) == covers


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (span("2023-09-18|GOOG", "2023-09-20|NVDA"), "2023-09-18|GOOG to 2023-09-20|NVDA"),
        (span("2023-09-20|GOOG", "2023-09-20|GOOG", **{"stock_lakehouse/tickers": "GOOG"}), "2023-09-20|GOOG"),
        (
            span("2023-09-18|AAPL", "2023-09-20|NVDA", **{"stock_lakehouse/tickers": "AAPL,NVDA"}),
            "2023-09-18 to 2023-09-20 of AAPL, NVDA",
        ),
        (span("2023-09-20", "2023-09-20", **{"stock_lakehouse/tickers": "GOOG"}), "2023-09-20 of GOOG"),
        (
            span("2023-09-20", "2023-09-20", **{"stock_lakehouse/tickers": ",".join("ABCDEFGHIJKL")}),
            "2023-09-20 of A, B, C, D, E, F, G, H, I, J and 2 more",
        ),
        ({"dagster/partition": "2023-09-20|AAPL"}, "2023-09-20|AAPL"),
        ({}, "no partition"),
    ],
)
def test_a_runs_keys_in_words_name_its_tickers_and_no_others(tags: dict[str, str], words: str) -> None:
    assert keys_of(run(tags)) == words


def test_the_cursor_holds_what_was_asked_for() -> None:
    at = datetime(2023, 9, 20, 20, 30, tzinfo=UTC)
    asked = {"AAPL": Asked(2, at, DAY), "NVDA|2023-09-12|2023-09-12": Asked(1, at)}
    assert asked_from(asked_text(asked)) == asked
    assert asked_from(None) == asked_from("") == {}
    with pytest.raises(ValueError, match="reset it"):
        asked_from('["AAPL"]')


def lakehouse(tmp_path: Path, **more: Any) -> Settings:
    clock = tmp_path / "clock"
    set_simulated(clock, datetime(2023, 9, 20, 20, 30, tzinfo=UTC))
    return Settings(
        tickers=TICKERS, first_date=date(2023, 9, 18), last_date=date(2023, 9, 21), lake_root=tmp_path / "lake",
        simulated_clock=clock, automation="sensor", **more,
    )  # fmt: skip


def look(settings: Settings, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    result = new_market_day_sensor(settings)(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    return result


@pytest.mark.parametrize("scheme", ["date_ticker", "session"])
def test_a_request_is_one_run_with_a_range_and_is_not_repeated_while_it_is_queued(tmp_path: Path, scheme: str) -> None:
    settings = lakehouse(tmp_path, partition_by=scheme)
    with dg.DagsterInstance.ephemeral() as instance:
        first = look(settings, instance)
        [request] = first.run_requests or ()
        whole = {"date_ticker": ("2023-09-18|AAPL", "2023-09-20|NVDA"), "session": ("2023-09-18", "2023-09-20")}
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == whole[scheme]
        assert request.tags[ASKED_BY] == "new_market_day_sensor"
        job = build_definitions(settings).resolve_job_def("stock_lakehouse")
        queued = instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.NOT_STARTED)
        second = look(settings, instance)
    assert not second.run_requests
    assert f"2023-09-20 is being fetched by run {queued.run_id[:8]}" in str(second.skip_reason)


def test_a_backfill_of_the_ui_counts_as_in_flight_until_it_has_runs(tmp_path: Path) -> None:
    settings = lakehouse(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_backfill(
            PartitionBackfill(
                backfill_id="abcdefgh",
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=0.0,
                asset_selection=[dg.AssetKey(FEATURES.name)],
            )
        )
        waits = look(settings, instance)
        assert not waits.run_requests
        assert "is being fetched by run abcdefgh" in str(waits.skip_reason)
        job = dg.GraphDefinition(name="g").to_job()
        instance.create_run_for_job(job, tags={"dagster/backfill": "abcdefgh"}, status=dg.DagsterRunStatus.STARTED)
        assert look(settings, instance).run_requests


def test_a_table_that_was_there_and_is_gone_is_an_error_and_asks_for_nothing(tmp_path: Path) -> None:
    settings = lakehouse(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization("stocks_features", partition="2023-09-18|AAPL", metadata={})
        )
        with pytest.raises(CoverageError, match="is its disk mounted"):
            look(settings, instance)
