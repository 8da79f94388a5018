"""The whole graph to the dashboard: a lake on S3 and Glue in moto, Athena by the gateway on DuckDB, and QuickSight's server.

What QuickSight reads, it asks Athena for. Then the command and the doctor in the same place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.assets.quicksight import NAME
from stock_lakehouse.cli import app
from stock_lakehouse.dashboards.quicksight import client as quicksight_client
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.serving import SERVED, served_name
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.settings import Settings
from stock_lakehouse.sql.athena import AthenaEngine
from stock_lakehouse.tables import QUARANTINE, RESTATEMENTS, TABLES
from stock_lakehouse_tests import athena_gateway, quicksight_server, s3
from stock_lakehouse_tests.athena_gateway import Gateway, OnDuckDB
from stock_lakehouse_tests.quicksight_server import PREFIX

TOML = """
lake_root = "s3://quicksight/lake"
tickers = ["AAPL", "NVDA"]
first_date = 2022-01-03
catalog = "glue"
dashboard = "quicksight"

[aws]
athena_results = "s3://quicksight/results"

[quicksight]
readers = ["group analysts"]
authors = ["user ana"]
"""


@dataclass
class Cloud:
    """The services, and the tables that Athena reads."""

    settings: Settings
    account: quicksight_server.Account
    gateway: Gateway
    database: duckdb.DuckDBPyConnection

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What QuickSight reads from Athena."""
        self.database.execute("CREATE SCHEMA IF NOT EXISTS lakehouse")
        names = {served_name(table): table.name for table in SERVED}
        for name, table in {**names, QUARANTINE.name: QUARANTINE.name, RESTATEMENTS.name: RESTATEMENTS.name}.items():
            self.database.register("held", read_table(table, lake_root=self.settings.lake_root))  # type: ignore[arg-type]
            self.database.execute(f'CREATE OR REPLACE TABLE lakehouse."{name}" AS FROM held')
        return AthenaEngine(self.settings.aws, 2.0).run(sql).rows.to_pylist()


@pytest.fixture
def cloud(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    (tmp_path / "lakehouse.toml").write_text(TOML, encoding="utf-8")
    monkeypatch.setattr(quicksight_client, "FIRST_PAUSE_SECONDS", 0.001)
    account, database = quicksight_server.Account(), duckdb.connect()
    with (
        s3.moto() as endpoint,
        athena_gateway.gateway(OnDuckDB(database), endpoint) as gateway,
        quicksight_server.serving(quicksight_server.Served(account)) as address,
        s3.variables(athena_gateway.environment(gateway) | quicksight_server.environment(address)),
    ):
        s3.make_bucket(endpoint, "quicksight")
        cloud = Cloud(Settings.load(), account, gateway, database)
        account.rows = cloud.rows
        yield cloud
    assert account.findings == []


def run(
    settings: Settings, instance: dg.DagsterInstance, first: str, last: str, select: Sequence[str] | None = None
) -> dict[str, Any]:
    """A run of the lake's job, of all assets or of `select`; the metadata of its dashboard."""
    scheme = PartitionScheme(settings, settings.calendar)
    days = (date.fromisoformat(first), date.fromisoformat(last))
    rectangle = scheme.request(("AAPL", "NVDA"), *days, date(2023, 9, 21))
    result = (
        build_definitions(settings, scheme.ticker_order(rectangle))
        .resolve_job_def("stock_lakehouse")
        .execute_in_process(
            instance=instance,
            tags=scheme.range_tags(rectangle),
            asset_selection=[dg.AssetKey(name) for name in select] if select else None,
            run_config={"loggers": {"progress": {}}},
            raise_on_error=False,
        )
    )
    assert result.success
    steps = [event.step_key for event in result.all_events if event.is_step_start]
    assert steps.index(NAME) > steps.index("catalog")
    [event] = [one for one in result.get_asset_materialization_events() if one.asset_key == dg.AssetKey(NAME)]
    return {
        name: value.records if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in event.materialization.metadata.items()
    }


@pytest.mark.soak  # sql/test_real_trino.py runs the same graph with Redshift and a real engine behind Athena
def test_the_graph_runs_to_the_dashboard_and_a_second_run_writes_nothing(cloud: Cloud, tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = run(cloud.settings, instance, "2022-12-27", "2022-12-30")
        assert (first["version"], first["write calls"]) == (1, 12)
        assert first["dashboard"].endswith("/sn/dashboards/stock-lakehouse")
        steps = {row.data["what"]: row.data for row in first["steps"]}
        assert steps["data set daily, rows"]["detail"].startswith("8 rows")  # four sessions of two tickers
        spice = cloud.account.sets["stock-lakehouse-daily"].spice
        held = read_table("curated_stocks_daily", columns=["ticker", "date", "close"], lake_root="s3://quicksight/lake")
        assert sorted((row["ticker"], row["date"].date(), row["close"]) for row in spice) == sorted(
            (row["ticker"], row["date"], row["close"]) for row in held.to_pylist()
        )
        assert [operation for operation, _ in cloud.gateway.requests][:2] == ["GetWorkGroup", "CreateWorkGroup"]
        assert {query.state for query in cloud.gateway.queries.values()} == {"SUCCEEDED"}
        queries = len(cloud.gateway.queries)

        without_reports = [*(table.name for table in TABLES), "catalog", NAME]
        again = run(cloud.settings, instance, "2022-12-27", "2022-12-30", without_reports)
        assert (again["write calls"], again["version"]) == (0, 1)
        assert {row.data["action"] for row in again["steps"]} == {"unchanged"}
        assert len(cloud.gateway.queries) == queries
    commands(cloud)


def commands(cloud: Cloud) -> None:
    """The command and the doctor, with the settings in lakehouse.toml."""

    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    written = len(cloud.account.writes)
    assert "data set daily: unchanged" in call("quicksight", "--dry-run")
    cloud.account.sets["stock-lakehouse-daily"].permissions[f"{PREFIX}:user/default/ben"] = {"quicksight:PassDataSet"}
    assert "data set daily, permissions: to be revoked, user/default/ben" in call("quicksight", "--dry-run")
    assert len(cloud.account.writes) == written
    shown = CliRunner().invoke(app, ["quicksight", "--json"])
    found = json.loads(shown.stdout)
    assert (found["writes"], found["changed"], found["dry_run"], found["version"]) == (1, True, False, 1)
    assert {"what": "data set daily, permissions", "action": "revoked", "detail": "user/default/ben"} in found["steps"]
    assert "19 calls, 0 of them writes" in call("quicksight")

    healthy = "quicksight: account 123456789012 in us-east-1, edition ENTERPRISE; readers: 1, authors: 1, all known"
    assert healthy in call("doctor")
    cloud.account.faults.denied = frozenset({"DescribeAccountSubscription"})
    assert "edition not known without quicksight:DescribeAccountSubscription; readers: 1" in call("doctor")
    cloud.account.faults.denied = frozenset()
    cloud.account.groups.clear()
    assert "there is no group analysts in the namespace default" in call("quicksight", code=2)


def test_the_asset_is_defined_with_its_setting_alone_and_aws_is_not_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quicksight_client.aws, "client", lambda *_: pytest.fail("asked AWS"))
    assert dg.AssetKey(NAME) not in assets_of(settings)
    quicksight = Settings(
        lake_root="s3://bucket/lake",
        catalog="glue",
        dashboard="quicksight",
        quicksight={"readers": ("group analysts",)},
    )
    assert assets_of(quicksight)[dg.AssetKey(NAME)] == {"catalog"}
    redshift = quicksight.model_copy(
        update={"quicksight": quicksight.quicksight.model_copy(update={"source": "redshift"})}
    )
    upstream = {"catalog", "warehouse_stock_prices", "warehouse_stock_features"}
    assert assets_of(redshift)[dg.AssetKey(NAME)] == upstream


def assets_of(settings: Settings) -> dict[dg.AssetKey, set[str]]:
    """The assets of the lake's job, with the names of those before each."""
    graph = build_definitions(settings).get_repository_def().asset_graph
    job = build_definitions(settings).resolve_job_def("stock_lakehouse")
    return {
        key: {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in job.asset_layer.selected_asset_keys
    }


def test_another_dashboard_has_no_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quicksight"])
    assert result.exit_code == 2
    assert 'dashboard: is "local" in the settings; set it to "quicksight"' in " ".join(result.output.split())
