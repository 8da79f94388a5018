"""The sample through a whole Dagster run, on embedded Sail and on a JVM Spark Connect server: equal tables, equal checks."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.instance.home import dagster_folder, open_instance
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.runs.run import run_rectangle
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests.graph import LANDINGS, clocked, layers

pytestmark = pytest.mark.engines

LAST = date(2023, 9, 21)


def run_sample(settings: Settings, first: date) -> dict[str, Any]:
    """The checks of a whole run from `first` to LAST, with all that they say."""
    sessions = market_calendar(settings.first_date).between(first, LAST)
    report = run_rectangle(settings, Rectangle(sessions, tuple(sorted(settings.tickers))))
    assert report.success, report.failures
    with open_instance(dagster_folder(settings)) as instance:
        records = instance.get_records_for_run(report.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks: dict[str, Any] = {}
    for record in records.records:
        event = record.event_log_entry.dagster_event
        assert event is not None
        one = event.asset_check_evaluation_data
        said = {name: value.value for name, value in one.metadata.items()}
        checks[f"{one.asset_key.to_user_string()}.{one.check_name}"] = (one.passed, one.severity, said)
    return checks


def check_sample(
    tmp_path: Path,
    address: str,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    tickers: tuple[str, ...],
    first: date,
) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_SPARK_REMOTE", address)
    checks, held = {}, {}
    for engine in ("embedded", "spark_connect"):
        settings = Settings(
            tickers=tickers, lake_root=tmp_path / engine, last_date=LAST, engine=engine, spark_remote=address
        )
        checks[engine] = run_sample(settings, first)
        rows = layers(clocked(settings.lake_root, spark, tickers))
        # The one value that the clock gives.
        held[engine] = {
            name: [{key: value for key, value in row.items() if key not in LANDINGS} for row in found]
            for name, found in rows.items()
        }
    wanted = {"processed_stocks_daily.conservation", "stocks_features.schema", "curated_stocks_daily.price_jumps"}
    assert wanted <= checks["embedded"].keys()
    assert checks["spark_connect"] == checks["embedded"]
    assert len(held["embedded"]["features"]) > 0
    assert held["spark_connect"] == held["embedded"]


def test_a_dagster_run_on_jvm_spark_gives_the_tables_and_checks_of_the_embedded_engine(
    tmp_path: Path, jvm_address: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_sample(tmp_path, jvm_address, spark, monkeypatch, ("AAPL", "NVDA"), date(2023, 7, 3))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_whole_sample_on_jvm_spark_gives_the_tables_and_checks_of_the_embedded_engine(
    tmp_path: Path, jvm_address: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_sample(
        tmp_path, jvm_address, spark, monkeypatch, ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"), date(2013, 1, 2)
    )
