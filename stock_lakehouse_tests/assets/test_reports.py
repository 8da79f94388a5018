"""The reports as assets: they run after the tables, say what the engine did, and have nothing to say on an empty lake."""

from __future__ import annotations

from datetime import date
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.assets.reports import report_assets
from stock_lakehouse.automation.jobs import CATALOG
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.query import QueryResource
from stock_lakehouse.settings import Settings
from stock_lakehouse.sql.reports import reports

BARS = dg.AssetKey("curated_stocks_daily")


def test_each_report_is_an_asset_after_the_tables_of_its_sql() -> None:
    local, athena = (
        {spec.key.path[-1]: spec for asset in report_assets(engine) for spec in asset.specs}
        for engine in ("duckdb", "athena")
    )
    assert local.keys() == reports().keys()
    for name, spec in local.items():
        upstream = {dep.asset_key.path[-1] for dep in spec.deps}
        assert upstream == set(reports()[name].tables)
        assert {dep.asset_key.path[-1] for dep in athena[name].deps} == upstream | {CATALOG}
        assert reports()[name].question in (spec.description or "")


@pytest.mark.slow
def test_a_run_of_the_lake_ends_with_the_reports(spark: SparkSession, settings: Settings) -> None:
    scheme = PartitionScheme(settings, market_calendar(settings.first_date, settings.exchange))
    tags = scheme.range_tags(scheme.request(("AAPL", "AMZN"), date(2023, 9, 18), date(2023, 9, 21), date(2023, 9, 21)))
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(settings).resolve_job_def("stock_lakehouse")
        assert job.execute_in_process(instance=instance, tags=tags).success
        found = {name: metadata_of(instance, name) for name in reports()}
    summary = found["stock_summary"]
    assert summary["dagster/row_count"].value == 2
    assert summary["engine"].value == "duckdb"
    assert summary["bytes scanned"].value > 0
    assert summary["first rows"].records[0].data == {
        "ticker": "AAPL", "first_date": "2023-09-18", "last_date": "2023-09-21", "sessions": 4,
        "min_close": 173.92999267578125, "max_close": 179.07000732421875, "last_close": 173.92999267578125,
    }  # fmt: skip
    lineage = summary["dagster/column_lineage"].value.deps_by_column
    assert lineage["last_close"] == [dg.TableColumnDep(BARS, "close"), dg.TableColumnDep(BARS, "date")]
    assert [column.type for column in summary["dagster/column_schema"].schema.columns][:4] == [
        "varchar", "date", "date", "bigint",
    ]  # fmt: skip
    assert found["volume_spikes"]["first rows"].value == "none"
    described = {
        column.name: column.description for column in found["latest_signals"]["dagster/column_schema"].schema.columns
    }
    assert (described["sma_50"] or "").startswith("Average close of 50 sessions")
    assert summary["dagster/column_schema"].schema.columns[6].description is None  # last_close is no column of a table


def test_reports_of_an_empty_lake_succeed_and_say_none(settings: Settings) -> None:
    query = QueryResource.of(settings, LakehouseResource.of(settings))
    assets = [asset for asset in report_assets("duckdb") if asset.key.path[-1] in ("stock_summary", "drawdown")]
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize(assets, instance=instance, resources={"query": query}).success
        assert metadata_of(instance, "drawdown")["dagster/row_count"].value == 0
        assert metadata_of(instance, "stock_summary")["first rows"].value == "none"


def metadata_of(instance: dg.DagsterInstance, asset: str) -> Any:
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata
