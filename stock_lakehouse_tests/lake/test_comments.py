"""The columns' comments and the tables' descriptions in the Delta log, where Spark, Trino and Databricks read them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.tables import CURATED, FEATURES, TABLES, Table
from stock_lakehouse_tests.graph import clocked, contents, history, ledger, rectangle, run, year_boundary

DELTA = [table for table in TABLES if table.format == "delta"]
DAYS = year_boundary(5, 5)


def logged(root: Path, table: Table) -> tuple[str | None, dict[str, str | None]]:
    """The description and the comments as the newest metaData action in the log has them, parsed from its JSON."""
    actions = [
        json.loads(line)
        for file in sorted((root / table.path / "_delta_log").glob("*.json"))
        for line in file.read_text().splitlines()
    ]
    newest = [action["metaData"] for action in actions if "metaData" in action][-1]
    fields = json.loads(newest["schemaString"])["fields"]
    return newest["description"], {field["name"]: field["metadata"].get("comment") for field in fields}


def created_without_comments(root: Path, table: Table, layout: str) -> DeltaTable:
    """A table as an earlier version of the program created it, with one row."""
    stored = Lake(root).delta[table.name] if layout == "ticker_year" else _in_layout(root, table, layout)
    row = pa.table([pa.nulls(1, field.type) for field in table.arrow_schema], schema=table.arrow_schema)
    for name, value in {"ticker": "AAA", "year": 2020, "table_name": "x"}.items():
        if name in row.column_names:
            place = row.schema.get_field_index(name)
            row = row.set_column(place, row.schema.field(name), pa.array([value], row.schema.field(name).type))
    deltalake.DeltaTable.create(
        str(stored.path),
        schema=deltalake.Schema.from_arrow(table.arrow_schema),
        partition_by=list(stored.table.partition_by),
        configuration=stored.properties,
    )
    deltalake.write_deltalake(str(stored.path), row, mode="append")
    return stored


def _in_layout(root: Path, table: Table, layout: str) -> DeltaTable:
    from stock_lakehouse.lake_options import LakeOptions

    return DeltaTable(LakeOptions(lake_root=root, layout=layout), table)


@pytest.mark.parametrize("table", DELTA, ids=lambda table: table.name)
def test_a_new_table_has_the_words_of_its_schema(tmp_path: Path, table: Table) -> None:
    stored = Lake(tmp_path).delta[table.name]
    stored.prepare()
    description, comments = logged(tmp_path, table)
    assert description == table.description
    assert comments == {column.name: column.documentation for column in table.columns}
    assert stored.version() == 0


@pytest.mark.parametrize("layout", ["ticker_year", "year"])
@pytest.mark.parametrize("table", DELTA, ids=lambda table: table.name)
def test_a_table_without_comments_gets_them_once_and_keeps_its_rows(tmp_path: Path, table: Table, layout: str) -> None:
    stored = created_without_comments(tmp_path, table, layout)
    before, files = stored.open().to_pyarrow_table(), stored.open().file_uris()
    stored.prepare()
    description, comments = logged(tmp_path, table)
    assert description == table.description
    assert comments == {column.name: column.documentation for column in table.columns}
    assert stored.open().to_pyarrow_table().equals(before)
    assert stored.open().file_uris() == files
    assert stored.version() == 3  # created, the row, the comments, the description
    protocol = stored.open().protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    stored.prepare()
    assert stored.version() == 3


def test_a_description_that_changed_is_replaced_alone(tmp_path: Path) -> None:
    Lake(tmp_path).curated.prepare()
    columns = [
        dataclasses.replace(column, description="Other words") if column.name == "close" else column
        for column in CURATED.columns
    ]
    changed = DeltaTable(tmp_path, dataclasses.replace(CURATED, columns=tuple(columns)))
    changed.prepare()
    _, comments = logged(tmp_path, CURATED)
    assert comments["close"] == "Other words; currency per share"
    assert comments["open"] == "First price of the session, adjusted for splits; currency per share. Null: unknown"
    assert changed.version() == 1


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("layout", ["ticker_year", "year"])
def test_publishes_keep_the_comments_and_change_nothing_else(tmp_path: Path, spark: SparkSession, layout: str) -> None:
    own = Path(__file__).parents[1] / "my_indicators.py"
    house = clocked(tmp_path / "lake", spark, layout=layout, indicators=own)
    asked = rectangle(DAYS, ("AAA", "BBB"))
    run(house, asked, history(("AAA", "BBB"), DAYS).values())
    before = {name: contents(stored) for name, stored in house.lake.delta.items()}
    versions = {name: stored.version() for name, stored in house.lake.delta.items()}
    run(house, asked, [], "22222222-run")
    assert {name: stored.version() for name, stored in house.lake.delta.items()} == versions
    assert {name: contents(stored) for name, stored in house.lake.delta.items()} == before
    edited = history(("AAA",), DAYS)
    edited["AAA", DAYS[4]]["close"] = "51.5"
    edited["AAA", DAYS[4]].update(high="60.0", low="40.0")
    run(house, asked, [edited["AAA", DAYS[4]]], "33333333-run")
    assert ledger(house)
    for stored in house.lake.delta.values():
        if stored.exists():
            description, comments = logged(tmp_path / "lake", stored.table)
            assert description == stored.table.description
            assert comments == {column.name: column.documentation for column in stored.table.columns}
    own_names = {column.name for column in house.lake.features.table.columns} - set(FEATURES.column_names)
    assert own_names
