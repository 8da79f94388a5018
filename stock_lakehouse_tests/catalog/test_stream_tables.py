"""The tables of a stream in the catalog: registered, described and compared once they exist; and their views in Athena."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import sqlglot
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse import query, read_table
from stock_lakehouse.catalog.agreement import Drift, drift_of
from stock_lakehouse.catalog.glue import GlueCatalog
from stock_lakehouse.catalog.registration import prepare, registrations_of
from stock_lakehouse.cli import app
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.lake import Lake
from stock_lakehouse.settings import Aws, Settings
from stock_lakehouse.sql.athena import AthenaEngine
from stock_lakehouse.sql.reports import stream_views
from stock_lakehouse.streams.live import update_live
from stock_lakehouse.streams.reconciliation import reconcile
from stock_lakehouse.tables import BY_NAME, STREAM_TABLES
from stock_lakehouse_tests import athena_gateway, s3
from stock_lakehouse_tests.athena_gateway import Gateway, OnDuckDB
from stock_lakehouse_tests.catalog.lakes import contents, on_s3
from stock_lakehouse_tests.streams.house import StreamHouse

STREAM = {table.name for table in STREAM_TABLES}


@pytest.fixture(scope="module")
def streamed(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in a folder whose stream has all tables: also a loss that somebody accepted, and a letter that is no text."""
    house = StreamHouse.made(tmp_path_factory.mktemp("streamed"), spark)
    house.walk(["NVDA"], 600)
    house.write(b"\xff{", file="b.jsonl")
    house.drain()
    (house.folder / "b.jsonl").write_bytes(b"other\n")
    house.drain(accept_loss="a test of it")
    lake = Lake(house.options)
    update_live(lake, 2, spark, house.now)
    assert reconcile(lake, house.settings, spark, house.now).num_rows == 1
    assert {stored.table.name for stored in lake.stream_tables()} == STREAM
    return house.tmp / "lake"


@pytest.fixture
def lake(streamed: Path, aws: str) -> Lake:
    return Lake(on_s3(streamed, aws, f"bucket-{uuid.uuid4().hex[:12]}"))


def register(lake: Lake, database: str) -> GlueCatalog:
    prepare(lake)
    catalog = GlueCatalog(database, str(lake.root))
    catalog.register(registrations_of(lake))
    return catalog


def test_tables_of_a_stream_are_registered_once_and_agree(lake: Lake, database: str, glue: Any) -> None:
    register(lake, database)
    held = contents(glue, database)
    assert held.keys() >= STREAM
    for table in STREAM_TABLES:
        registered = held[table.name]["table"]
        assert {column["Name"]: column["Type"] for column in registered["StorageDescriptor"]["Columns"]} == {
            column.name: column.type for column in table.columns
        }
        assert registered["PartitionKeys"] == []  # readers take them from the log
        assert registered["Parameters"]["spark.sql.sources.provider"] == "delta"
        assert registered["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == f"{lake.root}/{table.path}"
    # By hand: 39 events of a session in steps of ten minutes, and the two lines that are no messages.
    assert held["raw_ticks"]["table"]["Parameters"]["recordCount"] == "41"
    types = {column["Name"]: column["Type"] for column in held["raw_ticks"]["table"]["StorageDescriptor"]["Columns"]}
    assert (types["value"], types["close"], types["batch"]) == ("binary", "decimal(18,6)", "bigint")

    again = GlueCatalog(database, str(lake.root))
    assert not any(outcome.changed for outcome in again.register(registrations_of(lake)))
    assert (again.writes, again.calls) == (0, {"GetTables": 1})
    assert drift_of(lake, again) == []
    glue.delete_table(DatabaseName=database, Name="minute_bars")
    assert drift_of(lake, again) == [Drift("minute_bars", "table", f"{database}.minute_bars", "exists", "-", "Glue")]


def test_a_lake_without_a_stream_has_no_table_of_one_in_the_catalog(filled: Path, aws: str, database: str) -> None:
    lake = Lake(on_s3(filled, aws, f"bucket-{uuid.uuid4().hex[:12]}"))
    register(lake, database)
    assert STREAM.isdisjoint(contents(s3.client(aws, "glue"), database))


def test_a_file_that_the_log_names_and_nobody_has_is_found(streamed: Path, tmp_path: Path) -> None:
    shutil.copytree(streamed, tmp_path / "copy")
    lake = Lake(tmp_path / "copy")
    assert drift_of(lake, None) == []
    victim = next((tmp_path / "copy" / "stream" / "minute_bars").rglob("*.parquet"))
    size = victim.stat().st_size
    victim.unlink()
    path = str(victim.relative_to(tmp_path / "copy"))
    assert [(found.table, found.what, found.lake) for found in drift_of(lake, None)] == [
        ("minute_bars", path, f"{size:,} bytes")
    ]


def test_the_program_lists_and_describes_them(streamed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", str(streamed))
    listed = {entry["name"]: entry for entry in json.loads(CliRunner().invoke(app, ["tables", "--json"]).stdout)}
    assert list(listed) == [*BY_NAME, *(table.name for table in STREAM_TABLES)]
    assert (listed["raw_ticks"]["rows"], listed["stream_losses"]["rows"]) == (41, 1)
    described = CliRunner().invoke(app, ["describe", "stream_losses"])
    assert described.exit_code == 0, described.output
    assert "One row per source, partition, from_offset." in described.output
    assert "1 row, 1 file" in " ".join(described.output.split())


# ---- views


@pytest.fixture
def athena(aws: str) -> Iterator[tuple[Gateway, OnDuckDB]]:
    engine = OnDuckDB(duckdb.connect())
    with athena_gateway.gateway(engine, aws) as running, s3.variables(athena_gateway.environment(running)):
        yield running, engine


def test_the_catalogs_asset_makes_the_views_of_athena_and_leaves_them_when_they_are_right(
    lake: Lake, database: str, aws: str, athena: tuple[Gateway, OnDuckDB], glue: Any
) -> None:
    _, engine = athena
    for table in ("minute_bars", "raw_ticks"):
        engine.connection.from_arrow(read_table(table, lake_root=lake.root)).create(table)
    settings = Settings(
        lake_root=str(lake.root),
        last_date=date(2023, 9, 21),
        catalog="glue",
        query_engine="athena",
        aws=Aws(glue_database=database, athena_results=f"{str(lake.root).removesuffix('/lake')}/athena"),
    )
    with dg.DagsterInstance.ephemeral() as instance:

        def views() -> str:
            done = (
                build_definitions(settings)
                .resolve_job_def("stock_lakehouse")
                .execute_in_process(instance=instance, asset_selection=[dg.AssetKey("catalog")], raise_on_error=False)
            )
            (event,) = done.get_asset_materialization_events()
            return str(event.materialization.metadata["views of the stream"].value)

        assert views() == f"{database}.avg_1min, written, {database}.dead_letters, written"
        made = [sql for sql, _ in engine.statements if sql.startswith("CREATE OR REPLACE VIEW")]
        assert [sql.split()[4] for sql in made] == ["avg_1min", "dead_letters"]
    question = "SELECT * FROM avg_1min ORDER BY ticker, window_start"
    here = query(question, lake_root=lake.root)
    there = AthenaEngine(settings.aws, 1.0).run(question).rows
    assert here.num_rows == 39
    for name in here.column_names:  # a view of Athena can have no time zone
        assert [_plain(value) for value in there[name].to_pylist()] == [
            _plain(value) for value in here[name].to_pylist()
        ]


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


@pytest.mark.parametrize("name", ["avg_1min", "dead_letters"])
def test_a_view_in_a_catalog_has_the_types_that_sql_has_here_and_reads_its_table(name: str) -> None:
    view = stream_views()[name]
    tree = sqlglot.parse_one(view.in_catalog, read="athena")
    assert [table.name for table in tree.find_all(sqlglot.exp.Table)] == [view.table.name]
    (inner,) = tree.find_all(sqlglot.exp.Subquery)
    casts = {column.alias_or_name: type(column) for column in inner.this.expressions}
    assert list(casts) == list(view.table.column_names)
    changed = {column for column, kind in casts.items() if kind is sqlglot.exp.Alias}
    assert changed == {
        column.name for column in view.table.columns if column.type in ("decimal(18,6)", "binary", "timestamp")
    }


def test_a_message_of_a_lost_file_is_in_the_lake_still(streamed: Path) -> None:
    letters = query("SELECT reason, value FROM dead_letters ORDER BY value", lake_root=streamed).to_pylist()
    assert letters == [{"reason": "not UTF-8", "value": "\\xff{"}, {"reason": "not JSON", "value": "other"}]
    (loss,) = read_table("stream_losses", lake_root=streamed).to_pylist()
    assert (loss["why"], loss["source"]) == ("a test of it", "files:stock_ticks")
