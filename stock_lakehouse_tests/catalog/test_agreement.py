"""Each way in which log, files, serving copy and catalog can differ is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import deltalake
import obstore
import pyarrow.parquet as pq
import pytest
from obstore.store import S3Store

from stock_lakehouse.catalog.agreement import Drift, drift_of
from stock_lakehouse.catalog.glue import GlueCatalog, register_lake
from stock_lakehouse.lake import Lake
from stock_lakehouse.tables import BY_NAME
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.catalog.lakes import contents
from stock_lakehouse_tests.conftest import bytes_of

Change = Callable[[Lake, Any, str], list[Drift]]
PARQUET, SERVED = "processed_stocks_daily", "curated_stocks_daily_served"


def test_a_registered_lake_agrees(lake: Lake, database: str, glue: Any) -> None:
    catalog = GlueCatalog(database, str(lake.root), glue)
    register_lake(lake, catalog)
    writes, objects = catalog.writes, s3.objects(str(lake.root))
    assert drift_of(lake, catalog) == []
    assert (catalog.writes, s3.objects(str(lake.root))) == (writes, objects)


def table_input(glue: Any, database: str, name: str) -> dict[str, Any]:
    found = glue.get_table(DatabaseName=database, Name=name)["Table"]
    fields = ("Name", "Description", "Owner", "TableType", "Parameters", "PartitionKeys", "StorageDescriptor")
    return {field: found[field] for field in fields}


def update_column(glue: Any, database: str, name: str, column: str, **values: str | None) -> None:
    """Change a column of a registered table; without values, drop it."""
    wanted = table_input(glue, database, name)
    columns = wanted["StorageDescriptor"]["Columns"]
    changed = [one | values if one["Name"] == column else one for one in columns if values or one["Name"] != column]
    glue.update_table(
        DatabaseName=database,
        TableInput=wanted | {"StorageDescriptor": wanted["StorageDescriptor"] | {"Columns": changed}},
    )


def column_dropped(lake: Lake, glue: Any, database: str) -> list[Drift]:
    update_column(glue, database, "curated_stocks_daily", "close")
    return [Drift("curated_stocks_daily", "column", "close", "double", "-", "Glue")]


def column_typed_otherwise(lake: Lake, glue: Any, database: str) -> list[Drift]:
    update_column(glue, database, PARQUET, "date", Type="string")
    return [Drift(PARQUET, "column", "date", "date", "string", "Glue")]


def comment_lost(lake: Lake, glue: Any, database: str) -> list[Drift]:
    update_column(glue, database, "restatements", "cause", Comment="")
    comment = next(column.comment for column in BY_NAME["restatements"].columns if column.name == "cause")
    return [Drift("restatements", "column", "comment of cause", comment, "-", "Glue")]


def parameter_lost(lake: Lake, glue: Any, database: str) -> list[Drift]:
    wanted = table_input(glue, database, "stocks_features")
    del wanted["Parameters"]["spark.sql.sources.provider"]
    glue.update_table(DatabaseName=database, TableInput=wanted)
    return [Drift("stocks_features", "table", "parameter spark.sql.sources.provider", "delta", "-", "Glue")]


def table_lost(lake: Lake, glue: Any, database: str) -> list[Drift]:
    glue.delete_table(DatabaseName=database, Name="corporate_actions")
    return [Drift("corporate_actions", "table", f"{database}.corporate_actions", "exists", "-", "Glue")]


def partition_missing(lake: Lake, glue: Any, database: str) -> list[Drift]:
    glue.delete_partition(DatabaseName=database, TableName=PARQUET, PartitionValues=["BAC^B", "2020"])
    place = f"{lake.root}/processed/stocks_daily/ticker=BAC%5EB/year=2020"
    return [Drift(PARQUET, "partition", "ticker=BAC^B/year=2020", place, "-", "Glue")]


def move_partition(glue: Any, database: str, table: str, values: list[str], place: str) -> str:
    found = glue.get_partition(DatabaseName=database, TableName=table, PartitionValues=values)["Partition"]
    storage = found["StorageDescriptor"]
    moved = {"Values": values, "Parameters": found["Parameters"], "StorageDescriptor": storage | {"Location": place}}
    glue.update_partition(DatabaseName=database, TableName=table, PartitionValueList=values, PartitionInput=moved)
    return str(storage["Location"])


def partition_moved(lake: Lake, glue: Any, database: str) -> list[Drift]:
    place = move_partition(glue, database, PARQUET, ["C=F", "2019"], f"{lake.root}/processed/elsewhere")
    return [Drift(PARQUET, "partition", "ticker=C=F/year=2019", place, f"{lake.root}/processed/elsewhere", "Glue")]


def partition_too_many(lake: Lake, glue: Any, database: str) -> list[Drift]:
    storage = table_input(glue, database, PARQUET)["StorageDescriptor"]
    gone = f"{lake.root}/processed/stocks_daily/ticker=AAA/year=2001"
    glue.create_partition(
        DatabaseName=database,
        TableName=PARQUET,
        PartitionInput={"Values": ["AAA", "2001"], "StorageDescriptor": storage | {"Location": gone}},
    )
    return [Drift(PARQUET, "partition", "ticker=AAA/year=2001", "-", gone, "Glue")]


def serving_folder_stale(lake: Lake, glue: Any, database: str) -> list[Drift]:
    old = f"{lake.root}/serving/curated_stocks_daily/year=2020/000000000000000000000000"
    place = move_partition(glue, database, SERVED, ["2020"], old)
    return [Drift(SERVED, "partition", "year=2020", place, old, "Glue")]


def store_of(lake: Lake) -> Any:
    return S3Store.from_url(str(lake.root), client_options={"allow_http": True})


def object_of(lake: Lake, start: str) -> str:
    [path] = [path for path in s3.objects(str(lake.root)) if path.startswith(start)]
    return path


def serving_file_lost(lake: Lake, glue: Any, database: str) -> list[Drift]:
    path = object_of(lake, "serving/curated_stocks_daily/year=2019/")
    obstore.delete(store_of(lake), path)
    return [Drift(SERVED, "partition", path.rpartition("/")[0], "15 rows", "-", "serving copy")]


def serving_rows_lost(lake: Lake, glue: Any, database: str) -> list[Drift]:
    path = object_of(lake, "serving/curated_stocks_daily/year=2020/")
    rows = pq.read_table(BytesIO(bytes(obstore.get(store_of(lake), path).bytes())))
    pq.write_table(rows.slice(1), buffer := BytesIO())
    obstore.put(store_of(lake), path, buffer.getvalue())
    return [Drift(SERVED, "rows", path, "20 rows", "19 rows", "serving copy")]


def serving_column_typed_otherwise(lake: Lake, glue: Any, database: str) -> list[Drift]:
    path = object_of(lake, "serving/curated_stocks_daily/year=2020/")
    rows = pq.read_table(BytesIO(bytes(obstore.get(store_of(lake), path).bytes())))
    place = rows.column_names.index("volume")
    pq.write_table(rows.set_column(place, "volume", rows["volume"].cast("double")), buffer := BytesIO())
    obstore.put(store_of(lake), path, buffer.getvalue())
    folder = path.rpartition("/")[0]
    return [Drift(SERVED, "column", f"{folder}: volume", "bigint", "double", "serving copy")]


def data_file_lost(lake: Lake, glue: Any, database: str) -> list[Drift]:
    path = object_of(lake, "curated/stocks_features/ticker=BF.B/year=2019/")
    size = obstore.head(store_of(lake), path)["size"]
    obstore.delete(store_of(lake), path)
    return [Drift("stocks_features", "file", path, f"{size:,} bytes", "-", "files")]


def stray_file(lake: Lake, glue: Any, database: str) -> list[Drift]:
    path = "processed/stocks_daily/ticker=BF.B/year=2020/copy.parquet"
    obstore.put(store_of(lake), path, b"copied by hand")
    obstore.put(store_of(lake), "processed/stocks_daily/ticker=BF.B/year=2020/_SUCCESS", b"")  # engines skip it
    return [Drift(PARQUET, "file", path, "-", "read by SQL engines, not by the lake", "files")]


def column_missing_in_log(lake: Lake, glue: Any, database: str) -> list[Drift]:
    opened = deltalake.DeltaTable(f"{lake.root}/curated/corporate_actions")
    rows = opened.to_pyarrow_table().drop_columns(["price_factor"])
    deltalake.write_deltalake(opened, rows, mode="overwrite", schema_mode="overwrite")
    return [Drift("corporate_actions", "column", "price_factor", "double", "-", "Delta log")]


CHANGES: tuple[Change, ...] = (
    column_dropped,
    column_typed_otherwise,
    comment_lost,
    parameter_lost,
    table_lost,
    partition_missing,
    partition_moved,
    partition_too_many,
    serving_folder_stale,
    serving_file_lost,
    serving_rows_lost,
    serving_column_typed_otherwise,
    data_file_lost,
    stray_file,
    column_missing_in_log,
)


@pytest.mark.slice(3)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_drift_is_named_alone(lake: Lake, database: str, glue: Any, change: Change) -> None:
    catalog = GlueCatalog(database, str(lake.root), glue)
    register_lake(lake, catalog)
    expected = change(lake, glue, database)
    assert drift_of(lake, catalog) == expected


REPAIRED = (
    column_dropped,
    comment_lost,
    parameter_lost,
    table_lost,
    partition_missing,
    partition_moved,
    partition_too_many,
)


@pytest.mark.slice(2)
@pytest.mark.parametrize(
    "change", [*REPAIRED, serving_folder_stale, serving_file_lost], ids=lambda change: change.__name__
)
def test_registering_again_repairs_what_the_catalog_has_wrong(
    lake: Lake, database: str, glue: Any, change: Change
) -> None:
    catalog = GlueCatalog(database, str(lake.root), glue)
    register_lake(lake, catalog)
    before = contents(glue, database)
    change(lake, glue, database)
    register_lake(lake, catalog, verify=True)
    assert drift_of(lake, catalog) == []
    assert contents(glue, database) == before


def test_partitions_that_crawlers_registered_are_no_drift(lake: Lake, database: str, glue: Any) -> None:
    catalog = GlueCatalog(database, str(lake.root), glue)
    register_lake(lake, catalog, crawled=True)
    missing = drift_of(lake, catalog, crawled=True)
    assert {drift.kind for drift in missing} == {"partition"}
    for drift in missing:  # as a crawler adds them: with the location, and no parameter of ours
        values = [folder.partition("=")[2] for folder in drift.what.split("/")]
        storage = table_input(glue, database, drift.table)["StorageDescriptor"] | {"Location": f"{drift.lake}/"}
        glue.create_partition(
            DatabaseName=database,
            TableName=drift.table,
            PartitionInput={"Values": values, "StorageDescriptor": storage},
        )
    assert drift_of(lake, catalog, crawled=True) == []


def test_a_lake_in_a_folder_is_compared_with_its_serving_copy(filled: Path, tmp_path: Path) -> None:
    import shutil

    lake = Lake(Path(shutil.copytree(filled, tmp_path / "lake")))
    for table in ("curated_stocks_daily", "stocks_features"):
        shutil.rmtree(lake.root / "serving" / table, ignore_errors=True)  # type: ignore[operator]
    before = bytes_of(Path(lake.root))
    found = drift_of(lake, None)
    assert [(drift.table, drift.kind, drift.lake) for drift in found] == [
        (SERVED, "partition", "15 rows"),
        (SERVED, "partition", "20 rows"),
        ("stocks_features_served", "partition", "15 rows"),
        ("stocks_features_served", "partition", "20 rows"),
    ]
    assert bytes_of(Path(lake.root)) == before
