"""The whole graph from the sample to Redshift, in Dagster runs; the command; upkeep and doctor."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.automation.upkeep_schedule import JOB as UPKEEP
from stock_lakehouse.cli import app
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.settings import Settings
from stock_lakehouse.sql.reports import reports
from stock_lakehouse.tables import TABLES
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.redshift_server import RedshiftServer
from stock_lakehouse_tests.warehouse.lakes import NATIVE, ODD, WarehouseLake

Made = Callable[..., WarehouseLake]
ASSETS = ["warehouse_stock_features", "warehouse_stock_prices"]
READS = {"ExecuteStatement", "DescribeStatement", "GetStatementResult"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def settings(aws: str, server: RedshiftServer) -> Settings:
    """The sample's lake on S3, with Glue and Redshift."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.make_bucket(aws, bucket)
    return Settings(
        lake_root=f"s3://{bucket}/lake",
        last_date=date(2023, 9, 21),
        catalog="glue",
        aws={"glue_database": f"db_{uuid.uuid4().hex[:8]}"},
        warehouse="redshift",
        redshift={"workgroup": "stocks", "readers": ("group analysts",)},
        query_engine="redshift",
    )


def run(
    settings: Settings, instance: dg.DagsterInstance, select: Sequence[str] | None = None
) -> dg.ExecuteInProcessResult:
    scheme = PartitionScheme(settings, settings.calendar)
    days = (date(2022, 12, 29), date(2023, 1, 4))
    rectangle = scheme.request(("AAPL", "NVDA"), *days, date(2023, 9, 21))
    job = build_definitions(settings, scheme.ticker_order(rectangle)).resolve_job_def("stock_lakehouse")
    return job.execute_in_process(
        instance=instance,
        tags=scheme.range_tags(rectangle),
        asset_selection=[dg.AssetKey(name) for name in select] if select else None,
        run_config={"loggers": {"progress": {}}},
        raise_on_error=False,
    )


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """The metadata of each asset without partitions that the run materialized."""
    return {
        event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.partition is None and event.asset_key is not None
    }


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {
        (found.asset_key.path[-1], found.check_name): found.passed
        for found in result.get_asset_check_evaluations()
        if found.check_name.startswith("warehouse")
    }


def assert_equal(server: RedshiftServer, root: str) -> None:
    """Every native row is that of the lake, by `read_table`."""
    for name, table in NATIVE.items():
        wanted = read_table(table.name, lake_root=root).to_pylist()
        for row in wanted:
            if "ingested_at" in row:
                row["ingested_at"] = row["ingested_at"].replace(tzinfo=None)
        found = server.database.cursor().execute(" ".join(("SELECT * FROM", f"stocks.{name}")))
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        assert sorted(rows, key=str) == sorted(({name: row[name] for name in names} for row in wanted), key=str)


@pytest.mark.soak  # sql/test_real_trino.py runs the whole graph with Redshift; here the reports run there too
def test_a_run_from_the_sample_loads_compares_and_reports_and_a_second_one_writes_nothing(
    spark: SparkSession, settings: Settings, server: RedshiftServer, instance: dg.DagsterInstance
) -> None:
    first = run(settings, instance)
    assert first.success
    assert_equal(server, str(settings.lake_root))
    made = materialized(first)
    for name in ASSETS:
        assert (made[name]["ticker-years loaded"], made[name]["rows loaded"]) == (4, 8)
    assert checks(first) == {
        (asset, check): True for asset in ASSETS for check in ("warehouse_agrees", "warehouse_keys_unique")
    }
    assert {name: made[name]["engine"] for name in reports()} == dict.fromkeys(reports(), "redshift")
    steps = [event.step_key for event in first.all_events if event.is_step_start]
    assert steps.index("catalog") < steps.index("warehouse") < min(steps.index(name) for name in reports())

    objects, requests = s3.objects(str(settings.lake_root)), len(server.requests)
    second = run(settings, instance)
    assert second.success
    made = materialized(second)
    assert s3.objects(str(settings.lake_root)) == objects
    assert made["catalog"]["write calls"] == 0
    assert {made[name]["statements that write"] for name in ASSETS} == {0}
    assert {operation for operation, _ in server.requests[requests:]} == READS
    sent = [body["Sql"] for _, body in server.requests[requests:] if "Sql" in body]
    assert all(sql.lstrip("( \n").upper().startswith(("SELECT", "WITH")) for sql in sent)
    assert all(checks(second).values())


@pytest.mark.soak
def test_the_weekly_upkeep_compares_all_rows(
    spark: SparkSession, settings: Settings, server: RedshiftServer, instance: dg.DagsterInstance
) -> None:
    assert run(settings, instance).success
    job = build_definitions(settings).resolve_job_def(UPKEEP)
    assert job.execute_in_process(instance=instance, raise_on_error=False).success
    server.database.cursor().execute("UPDATE stocks.stock_prices SET close = close + 1e-9 WHERE ticker = 'NVDA'")
    upkeep = job.execute_in_process(instance=instance, raise_on_error=False)
    [failure] = [event for event in upkeep.all_events if event.is_step_failure]
    assert "warehouse_stock_prices: 2 ticker-years differ from the lake" in str(failure.event_specific_data)


@pytest.mark.soak
def test_a_difference_blocks_the_reports_and_the_next_run_loads_it_again(
    made: Made, instance: dg.DagsterInstance
) -> None:
    place = made(has_all=True)
    place.put([(ticker, 2023) for ticker in ODD])
    place.register()
    settings = Settings(
        lake_root=str(place.lake.root), tickers=ODD, catalog="glue", aws={"glue_database": place.database},
        warehouse="redshift", redshift={"workgroup": "stocks"}, query_engine="redshift",
    )  # fmt: skip
    select = [*ASSETS, "latest_signals"]

    def run_selected() -> dg.ExecuteInProcessResult:
        job = build_definitions(settings).resolve_job_def("stock_lakehouse")
        return job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(name) for name in select], raise_on_error=False
        )

    first = run_selected()
    assert first.success
    assert materialized(first).keys() == set(select)
    delete = "DELETE FROM stocks.stock_prices WHERE ticker = 'BRK-B' AND date = '2023-01-03'"
    place.server.database.cursor().execute(delete)
    found = run_selected()
    assert not found.success
    assert not checks(found)["warehouse_stock_prices", "warehouse_agrees"]
    assert checks(found)["warehouse_stock_features", "warehouse_agrees"]
    [failure] = [event for event in found.all_events if event.is_step_failure]
    assert "stock_prices BRK-B 2023: another number of rows; rows in the lake: 3, in the warehouse: 2" in str(
        failure.event_specific_data
    )
    assert not materialized(found)
    healed = run_selected()
    assert healed.success
    assert materialized(healed)["warehouse_stock_prices"]["ticker-years loaded"] == 1
    assert materialized(healed).keys() == set(select)
    place.assert_equal()


def test_without_a_warehouse_there_is_no_asset_of_it(tmp_path: Path) -> None:
    graph = build_definitions(Settings(lake_root=tmp_path / "lake")).get_repository_def().asset_graph
    assert not [key for key in graph.get_all_asset_keys() if key.path[-1].startswith("warehouse")]


def test_the_assets_are_in_the_lakes_group_and_show_columns_with_their_lineage(settings: Settings) -> None:
    graph = build_definitions(settings).get_repository_def().asset_graph
    for name, table in zip(("stock_prices", "stock_features"), NATIVE.values(), strict=True):
        node = graph.get(dg.AssetKey(f"warehouse_{name}"))
        assert (node.group_name, node.tags["layer"], node.partitions_def) == ("lake", "serving", None)
        assert {key.path[-1] for key in node.parent_keys} == {table.name, "catalog"}
        columns = node.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == list(table.column_names)
        assert set(node.metadata["dagster/column_lineage"].deps_by_column) == set(table.column_names)
    job = build_definitions(settings).resolve_job_def("stock_lakehouse")
    assert {dg.AssetKey(name) for name in ASSETS} <= set(job.asset_layer.selected_asset_keys)
    assert {table.name for table in TABLES} <= {key.path[-1] for key in job.asset_layer.selected_asset_keys}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def words(result: Result) -> str:
    return " ".join(result.output.split())


def test_the_command_loads_compares_and_repairs(made: Made, tmp_path: Path) -> None:
    place = made(has_all=True)
    place.put([(ticker, 2023) for ticker in ODD])
    toml = [
        f'lake_root = "{place.lake.root}"', f"tickers = {json.dumps(ODD)}", 'catalog = "glue"', 'warehouse = "redshift"',
        "[aws]", f'glue_database = "{place.database}"', "[redshift]", 'workgroup = "stocks"',
    ]  # fmt: skip
    (tmp_path / "lakehouse.toml").write_text("\n".join(toml), encoding="utf-8")
    behind = call("warehouse", "--check")
    assert behind.exit_code == 1
    assert "stock_prices BAC^B 2023: not loaded; rows in the lake: 3, in the warehouse: no" in words(behind)

    loaded = call("warehouse")
    assert loaded.exit_code == 0, loaded.output
    assert "stock_prices: 4 ticker-years loaded, 12 rows" in words(loaded)
    assert "Equal to the lake: 8 ticker-years counted, 8 compared by checksum" in words(loaded)
    place.assert_equal()
    again = call("warehouse", "--json")
    told = json.loads(again.stdout)
    assert (told["statements"], told["defined"]) == (0, [])
    assert [(table["loaded"], table["counted"], table["compared"], table["drifts"]) for table in told["tables"]] == [
        (0, 4, 0, []), (0, 4, 0, []),
    ]  # fmt: skip

    place.server.database.cursor().execute("UPDATE stocks.stock_prices SET volume = volume + 1 WHERE ticker = 'C=F'")
    assert call("warehouse", "--check").exit_code == 0
    full = call("warehouse", "--check", "--full")
    assert full.exit_code == 1
    assert "differs: stock_prices C=F 2023: other values; rows in the lake: 3, in the warehouse: 3" in words(full)
    assert "`stock-lakehouse warehouse --repair`" in words(full)
    repaired = call("warehouse", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert "stock_prices: 1 ticker-years loaded, 3 rows" in words(repaired)
    place.assert_equal()

    from stock_lakehouse.cli.doctor import _warehouse
    from stock_lakehouse.settings import load_settings

    assert _warehouse(load_settings()).state == "ok"
    place.put([("C=F", 2023)], seed="corrected")
    note = _warehouse(load_settings())
    assert (note.state, note.detail.split(";")[0]) == (
        "note", "ticker-years to be loaded: stock_prices 1, stock_features 1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--full",), "--full: goes with --check"),
        (("--check", "--repair"), "--check, --repair: give one of them"),
        ((), "warehouse: is off, so there are no native tables; set warehouse to redshift"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_2(arguments: tuple[str, ...], line: str) -> None:
    result = call("warehouse", *arguments)
    assert result.exit_code == 2
    assert line in words(result)
