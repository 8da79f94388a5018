"""The asset and its check in Dagster runs: once a run, after the layers, on a lake in a folder and on S3 with Glue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.partitions import PartitionScheme
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import TABLES
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.catalog.lakes import contents

CATALOG = dg.AssetKey("catalog")
WITHOUT_REPORTS = [*(table.name for table in TABLES), "catalog"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run(
    settings: Settings, instance: dg.DagsterInstance, first: str, last: str, select: Sequence[str] | None = None
) -> dg.ExecuteInProcessResult:
    """A run of the lake's job; `select`: assets, None for all."""
    scheme = PartitionScheme(settings, settings.calendar)
    days = (date.fromisoformat(first), date.fromisoformat(last))
    rectangle = scheme.request(("AAPL", "NVDA"), *days, date(2023, 9, 21))
    return (
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


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the run's one materialization of the catalog."""
    [event] = [one for one in result.get_asset_materialization_events() if one.asset_key == CATALOG]
    assert event.partition is None
    return {
        name: value.records if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in event.materialization.metadata.items()
    }


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    [found] = [one for one in result.get_asset_check_evaluations() if one.check_name == "catalog_agrees"]
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_a_run_describes_the_tables_of_a_lake_in_a_folder_once_after_the_layers(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    result = run(settings, instance, "2023-09-18", "2023-09-21")
    assert result.success
    metadata = materialized(result)
    assert metadata["registered in"] == "the lake itself"
    rows = {row.data["name"]: row.data["rows"] for row in metadata["tables"]}
    assert rows.keys() == {table.name for table in TABLES}
    assert (rows["curated_stocks_daily"], rows["stocks_features"]) == (8, 8)
    steps = [event.step_key for event in result.all_events if event.is_step_start]
    assert steps.index("catalog") > max(steps.index(table.name) for table in TABLES)
    assert check_of(result).asset_key == CATALOG


@pytest.mark.soak  # sql/test_real_trino.py runs the whole graph on S3 and Glue
def test_runs_on_s3_register_what_they_made_and_a_run_without_a_change_writes_nothing(
    spark: SparkSession, aws: str, database: str, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    s3.make_bucket(aws, database.replace("_", "-"))
    settings = Settings(
        lake_root=f"s3://{database.replace('_', '-')}/lake",
        last_date=date(2023, 9, 21),
        catalog="glue",
        aws={"glue_database": database},
    )
    client = s3.client(aws, "glue")
    first = run(settings, instance, "2022-12-28", "2022-12-30", WITHOUT_REPORTS)
    assert first.success
    assert materialized(first)["changed"] == 10
    assert check_of(first).passed, check_of(first).metadata
    assert [one["Values"] for one in contents(client, database)["stocks_features_served"]["partitions"]] == [["2022"]]

    again = run(settings, instance, "2022-12-28", "2022-12-30", WITHOUT_REPORTS)
    metadata = materialized(again)
    assert (metadata["calls"], metadata["write calls"], metadata["changed"]) == (1, 0, 0)

    new_year = run(settings, instance, "2023-01-03", "2023-01-04", WITHOUT_REPORTS)
    changed = {row.data["name"]: row.data for row in materialized(new_year)["tables"] if row.data["added"]}
    assert {name: row["added"] for name, row in changed.items()} == {
        "raw_stocks_daily": 1,
        "processed_stocks_daily": 2,
        "curated_stocks_daily_served": 1,
        "stocks_features_served": 1,
    }
    assert check_of(new_year).passed

    # Somebody deletes a partition. The check finds it, and then the next registration compares every partition.
    place = {"DatabaseName": database, "TableName": "processed_stocks_daily"}
    client.delete_partition(**place, PartitionValues=["NVDA", "2022"])
    found = run(settings, instance, "2023-01-03", "2023-01-04", WITHOUT_REPORTS)
    assert not check_of(found).passed
    [row] = check_of(found).metadata["rows"].records  # type: ignore[attr-defined]
    assert (row.data["table"], row.data["what"]) == ("processed_stocks_daily", "ticker=NVDA/year=2022")
    healed = run(settings, instance, "2023-01-03", "2023-01-04", select=["catalog"])
    assert healed.success
    assert {row.data["name"] for row in materialized(healed)["tables"] if row.data["added"]} == {
        "processed_stocks_daily"
    }
    assert len(client.get_partitions(**place)["Partitions"]) == 4

    (tmp_path / "lakehouse.toml").write_text(
        f'lake_root = "{settings.lake_root}"\ncatalog = "glue"\n[aws]\nglue_database = "{database}"\n', encoding="utf-8"
    )
    shown = CliRunner().invoke(app, ["tables"])
    assert f"all registered in the Glue database {database}." in " ".join(shown.output.split())
    client.delete_table(DatabaseName=database, Name="restatements")
    shown = CliRunner().invoke(app, ["tables"])
    assert "not registered in the Glue database" in " ".join(shown.output.split())
    assert "restatements; `stock-lakehouse materialize --select catalog`" in " ".join(shown.output.split())
    described = CliRunner().invoke(app, ["describe", "stocks_features"])
    assert f"in Glue as {database}.stocks_features, {database}.stocks_features_served." in " ".join(
        described.output.split()
    )


def test_the_asset_is_part_of_the_job_and_has_no_partitions(settings: Settings) -> None:
    graph = build_definitions(settings).get_repository_def().asset_graph
    node = graph.get(CATALOG)
    assert node.tags["layer"] == "serving"
    assert node.partitions_def is None
    job = build_definitions(settings).resolve_job_def("stock_lakehouse")
    assert CATALOG in job.asset_layer.selected_asset_keys
