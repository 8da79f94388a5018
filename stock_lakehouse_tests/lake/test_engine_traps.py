"""What the engine does that the lake relies on, or guards against: an upgrade that changes one of these turns a test red.

A red test here is news, not always bad news: see whether the guard named in it can go.
"""

from __future__ import annotations

import os
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_publish import publish
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.publish import partition_predicate
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column
from stock_lakehouse.sources import delivered_table
from stock_lakehouse.tables import Table
from stock_lakehouse_tests.graph import NOW

ROW = "ticker string, year int, value double"


def delta_at(path: Path, *rows: tuple[object, ...]) -> str:
    """A Delta table of `ROW`, by ticker and year, written by deltalake."""
    schema = pa.schema([("ticker", pa.string()), ("year", pa.int32()), ("value", pa.float64())])
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    deltalake.write_deltalake(str(path), pa.table(arrays, schema=schema), partition_by=["ticker", "year"])
    return str(path)


def held(path: str) -> list[tuple[object, ...]]:
    table = deltalake.DeltaTable(path).to_pyarrow_table()
    names = [name for name in ("ticker", "year", "value", "added") if name in table.column_names]
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=str)


# Guards


def test_a_partition_column_of_a_delta_table_cannot_be_hashed_by_xxhash64(spark: SparkSession, tmp_path: Path) -> None:
    """So tickers are grouped by another hash: `transforms.tickers.in_groups`."""
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0), ("A", 2019, 2.0))
    frame = spark.read.format("delta").load(path)
    assert len(set(frame.select(F.hash("ticker")).toArrow()[0].to_pylist())) == 1
    with pytest.raises(PySparkException, match="panicked"):
        frame.select(F.xxhash64("ticker")).collect()


def test_a_dynamic_partition_overwrite_of_parquet_deletes_the_other_partitions(
    spark: SparkSession, tmp_path: Path
) -> None:
    """So the Parquet table is written beside itself and moved file by file."""
    path = str(tmp_path / "t")
    spark.createDataFrame([("A", 2019, 1.0), ("B", 2019, 2.0)], ROW).write.partitionBy("ticker").parquet(path)
    one = spark.createDataFrame([("A", 2019, 3.0)], ROW)
    one.write.mode("overwrite").option("partitionOverwriteMode", "dynamic").partitionBy("ticker").parquet(path)
    assert not list((tmp_path / "t").glob("ticker=B/*"))


def test_replace_where_cannot_add_a_column(spark: SparkSession, tmp_path: Path) -> None:
    """So `DeltaTable.prepare` adds columns with deltalake before a write; an append with mergeSchema could."""
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0))

    def write(mode: str, **options: str) -> None:
        rows = spark.createDataFrame([("B", 2019, 2.0, 9.0)], ROW + ", added double")
        rows.write.format("delta").mode(mode).options(**options).save(path)

    with pytest.raises(PySparkException, match="Schema mismatch"):
        write("overwrite", replaceWhere="ticker = 'B'", mergeSchema="true")
    with pytest.raises(PySparkException, match="not found in table schema"):
        write("append")
    assert held(path) == [("A", 2019, 1.0)]
    write("append", mergeSchema="true")
    assert deltalake.DeltaTable(path).to_pyarrow_table()["added"].to_pylist() == [9.0, None]


def test_replace_where_fills_a_column_that_deltalake_added(spark: SparkSession, tmp_path: Path) -> None:
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0), ("B", 2019, 2.0))
    deltalake.DeltaTable(path).alter.add_columns([deltalake.Field("added", deltalake.schema.PrimitiveType("double"))])
    names = [field.name for field in deltalake.DeltaTable(path).schema().fields]
    rows = spark.createDataFrame([("B", 2019, 2.0, 9.0)], ROW + ", added double").select(*names)
    rows.write.format("delta").mode("overwrite").option("replaceWhere", "ticker = 'B'").save(path)
    assert held(path) == [("A", 2019, 1.0, None), ("B", 2019, 2.0, 9.0)]
    assert [tuple(row) for row in spark.read.format("delta").load(path).orderBy("ticker").collect()] == held(path)


def test_replace_where_does_not_check_that_rows_satisfy_it(spark: SparkSession, tmp_path: Path) -> None:
    """So `publish` filters by the predicate that it replaces, and holds the commit against what was computed."""
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0), ("B", 2019, 2.0))
    stray = spark.createDataFrame([("B", 2019, 3.0)], ROW)
    stray.write.format("delta").mode("overwrite").option("replaceWhere", "ticker = 'A'").save(path)
    assert held(path) == [("B", 2019, 2.0), ("B", 2019, 3.0)]


def test_appending_a_wrong_type_writes_nulls(spark: SparkSession, tmp_path: Path) -> None:
    """So a frame meets its schema before it is written."""
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0))
    wrong = spark.createDataFrame([("B", 2019, "two")], "ticker string, year int, value string")
    wrong.write.format("delta").mode("append").save(path)
    assert held(path) == [("A", 2019, 1.0), ("B", 2019, None)]


def test_one_ragged_line_fails_a_csv_read(spark: SparkSession, tmp_path: Path) -> None:
    """So lines that cannot be split reach raw as a quoted column of a well-formed file."""
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n", encoding="utf-8")
    with pytest.raises(PySparkException):
        spark.read.schema("a string, b string").options(header=True, mode="PERMISSIVE").csv(str(tmp_path)).collect()


def test_a_struct_field_declared_not_null_cannot_be_read_back(spark: SparkSession, tmp_path: Path) -> None:
    """So `Staging.stage` declares everything nullable."""
    path = str(tmp_path / "t")
    cells = F.array(F.struct(F.lit("close").alias("column"), F.col("id").cast("string").alias("old")))
    nothing = F.array().cast("array<struct<column:string,old:string>>")
    frame = spark.range(3).select(F.when(F.col("id") > 0, F.array_compact(cells)).otherwise(nothing).alias("cells"))
    assert '"nullable":false' in frame.schema.json()
    frame.write.parquet(path)
    with pytest.raises(PySparkException, match="Cannot cast"):
        spark.read.schema(frame.schema).parquet(path).select("cells").collect()
    assert sorted(Staging(tmp_path).stage(frame).collect()) == sorted(frame.collect())


# Statistics that stand in for values


def doubles(count: int) -> list[float]:
    dice = random.Random(7)
    return [dice.uniform(1, 500) for _ in range(count)]


def test_a_double_that_a_file_holds_once_can_come_back_one_bit_off(spark: SparkSession, tmp_path: Path) -> None:
    """So `DeltaTable.prepare` keeps statistics for types alone that JSON holds exactly (EXACT_IN_JSON)."""
    path, values = str(tmp_path / "t"), doubles(500)
    rows = [(f"T{at}", 2019, value) for at, value in enumerate(values)]
    spark.createDataFrame(rows, ROW).write.format("delta").partitionBy("ticker").save(path)
    read = {row["ticker"]: row["value"] for row in spark.read.format("delta").load(path).collect()}
    in_files = {row[0]: row[2] for row in held(path)}
    assert in_files == {ticker: value for ticker, _, value in rows}
    assert any(read[ticker] != value for ticker, _, value in rows)


def test_one_row_ticker_years_round_trip_bit_for_bit(spark: SparkSession, tmp_path: Path) -> None:
    table = Table(
        "one_row",
        "curated",
        "delta",
        "one_row",
        (
            TICKER,
            SESSION_DATE,
            Column("price", "double", "A price"),
            Column("at", "timestamp", "A time with microseconds"),
            Column("volume", "bigint", "A count beyond 2**53"),
            Column("flag", "boolean", "A flag"),
            Column("text", "string", "Text longer than statistics hold"),
            YEAR,
        ),
        "Rows alone in their file",
    )
    delta, lake = DeltaTable(tmp_path, table), Lake(tmp_path)
    start = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows = [
        (f"T{at}", date(2019, 1, 2), value, start + timedelta(microseconds=at), 2**53 + at, at % 2 == 0, "é" * 40, 2019)
        for at, value in enumerate(doubles(150))
    ]
    computed = spark.createDataFrame(rows, table.ddl)
    asked = Rectangle((date(2019, 1, 2),), tuple(sorted(row[0] for row in rows)))
    staging = Staging(tmp_path)
    first = publish(delta, staging.stage(computed), asked, staging, lake.ledger, run_id="run", now=NOW)
    assert (first.added, first.partitions) == (150, 150)
    found = delta.read(spark).orderBy("ticker").toArrow().to_pylist()
    assert [tuple(row.values()) for row in found] == sorted(rows)
    again = publish(delta, staging.stage(computed), asked, staging, lake.ledger, run_id="run", now=NOW)
    assert not again.changed


# What reading relies on


def test_files_of_other_names_beside_landed_ones_are_not_read(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    rows = delivered_table({"ticker": ["A"], "symbol": ["A"], "date": ["2019-01-02"], "close": ["1"]})
    day = date(2019, 1, 2)
    landing = lake.raw.land(
        rows, Rectangle((day,), ("A",)), source="s", interval="1d", run_id="0" * 8, now=NOW, final_at=lambda _: None
    )
    assert landing.landed == 1
    (file,) = lake.raw.files()
    landed = tmp_path / file.path
    text = landed.read_bytes()
    strangers = [
        f".{landed.name}.tmp",
        f".{landed.name}",
        f"_{landed.name}",
        f"{landed.name}.tmp",
        f"{landed.name}.gz",
        landed.name.replace("2019-01-02", "2019-1-2x", 1),
        landed.name.replace("_00000000_", "_0000000g_"),
        "part-0.csv",
    ]
    for name in strangers:
        (landed.parent / name).write_bytes(text)
    assert lake.raw.read(spark, ["A"], [2019]).count() == 1
    assert [Path(place).name for place in lake.raw.strangers()] == sorted(strangers)


def test_a_csv_file_given_by_its_path_has_no_columns_of_its_folders(spark: SparkSession, tmp_path: Path) -> None:
    """So raw files have ticker and year as columns, and those of the layout by ticker are compacted before they are read."""
    path = tmp_path / "ticker=A" / "year=2019" / "bars.csv"
    path.parent.mkdir(parents=True)
    path.write_text("value\n1\n", encoding="utf-8")
    reader = spark.read.schema("value string, ticker string, year string").options(
        header=True, allowTruncatedRows=True, basePath=str(tmp_path)
    )
    assert [tuple(row) for row in reader.csv([str(path)]).collect()] == [("1", None, None)]


def test_a_read_after_a_file_was_replaced_gives_the_new_rows(spark: SparkSession, tmp_path: Path) -> None:
    """The same session and path: no listing, footer or statistics of the old file is kept."""
    root, beside = tmp_path / "t", tmp_path / "beside"
    place = root / "ticker=A" / "data.parquet"
    place.parent.mkdir(parents=True)
    schema = "value bigint, ticker string"
    frame = spark.read.schema(schema).parquet
    for rows in (3, 3, 1000, 1, 3):
        folder = beside / str(rows)
        spark.range(rows * 7, rows * 8).selectExpr("id as value").coalesce(1).write.mode("overwrite").parquet(
            str(folder)
        )
        (written,) = folder.glob("*.parquet")
        os.replace(written, place)
        assert frame(str(root)).count() == rows
        bounds = frame(str(root)).selectExpr("min(value) low", "max(value) high").first()
        assert bounds is not None
        assert tuple(bounds) == (rows * 7, rows * 8 - 1)
        assert frame(str(root)).where(f"value = {rows * 7}").count() == 1
    place.unlink()
    (root / "ticker=B").mkdir()
    spark.range(2).selectExpr("id as value").coalesce(1).write.parquet(str(beside / "b"))
    os.replace(next((beside / "b").glob("*.parquet")), root / "ticker=B" / "data.parquet")
    assert {(row["ticker"], row["value"]) for row in frame(str(root)).collect()} == {("B", 0), ("B", 1)}


# What publishing relies on


def test_replace_where_takes_an_or_of_ands_over_partitions(spark: SparkSession, tmp_path: Path) -> None:
    rows = [(ticker, year, float(year)) for ticker in ("A", "B", "C") for year in (2019, 2020, 2021)]
    path = delta_at(tmp_path / "t", *rows)
    pairs = [("A", 2019), ("A", 2020), ("B", 2019), ("C", 2021)]
    predicate = partition_predicate(pairs)
    assert " OR " in predicate
    new = [(ticker, year, -1.0) for ticker, year in pairs]
    spark.createDataFrame(new, ROW).write.format("delta").mode("overwrite").option("replaceWhere", predicate).save(path)
    assert held(path) == sorted([row for row in rows if row[:2] not in pairs] + new, key=str)


def test_replace_where_with_no_rows_deletes(spark: SparkSession, tmp_path: Path) -> None:
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0), ("A", 2020, 2.0), ("B", 2019, 3.0))
    before = deltalake.DeltaTable(path).version()
    nothing = spark.createDataFrame([("A", 2019, 1.0)], ROW).where("value < 0")
    predicate = partition_predicate([("A", 2019), ("B", 2019)])
    nothing.write.format("delta").mode("overwrite").option("replaceWhere", predicate).save(path)
    assert held(path) == [("A", 2020, 2.0)]
    assert deltalake.DeltaTable(path).version() == before + 1
    assert spark.read.format("delta").load(path).count() == 1


def test_a_replace_where_is_one_commit_whose_log_counts_its_rows(spark: SparkSession, tmp_path: Path) -> None:
    """`DeltaTable._verify` reads rows a partition from the log; the ledger finds its lines by their statistics."""
    table = Table(
        "counted",
        "curated",
        "delta",
        "counted",
        (TICKER, Column("value", "double", "A value"), YEAR),
        "Counted",
        key=(),
    )
    delta = DeltaTable(tmp_path, table)
    delta.prepare()
    rows = spark.createDataFrame([("A", 1.0, 2019)] * 5 + [("B", 1.0, 2019)] * 2, table.ddl)
    rows.write.format("delta").mode("overwrite").option("replaceWhere", "year = 2019").save(str(delta.path))
    assert delta.version() == 1
    adds = pa.table(delta.open().get_add_actions(flatten=True)).to_pylist()
    assert sorted((add["partition.ticker"], add["num_records"]) for add in adds) == [("A", 5), ("B", 2)]
    assert not any(name.startswith("min.value") and add[name] is not None for add in adds for name in add)


def test_a_read_after_another_engine_committed_gives_what_it_left(spark: SparkSession, tmp_path: Path) -> None:
    path = delta_at(tmp_path / "t", ("A", 2019, 1.0), ("B", 2019, 2.0))
    assert spark.read.format("delta").load(path).count() == 2
    deltalake.DeltaTable(path).delete("ticker = 'A'")
    assert [tuple(row) for row in spark.read.format("delta").load(path).collect()] == [("B", 2019, 2.0)]


def test_a_version_before_the_last_checkpoint_cannot_be_read(spark: SparkSession, tmp_path: Path) -> None:
    """JVM Spark writes a checkpoint every tenth commit. deltalake and JVM Spark read every version."""
    path = delta_at(tmp_path / "t", ("A", 0, 0.0))
    for number in range(1, 5):
        one = pa.table([["A"], pa.array([number], pa.int32()), [float(number)]], names=["ticker", "year", "value"])
        deltalake.write_deltalake(path, one, mode="append")
    deltalake.DeltaTable(path).create_checkpoint()
    assert spark.read.format("delta").option("versionAsOf", 4).load(path).count() == 5
    with pytest.raises(PySparkException, match="Missing commit file"):
        spark.read.format("delta").option("versionAsOf", 3).load(path).count()
    assert deltalake.DeltaTable(path, version=3).to_pyarrow_table().num_rows == 4


# What keeps history


def log_after_a_month(spark: SparkSession, path: Path, properties: dict[str, str]) -> list[str]:
    """The log of a table of which 25 commits are 31 days old, after ten more."""
    schema = deltalake.Schema.from_arrow(
        pa.schema([("ticker", pa.string()), ("year", pa.int32()), ("value", pa.float64())])
    )
    deltalake.DeltaTable.create(str(path), schema=schema, configuration=properties)
    for count in (25, 10):
        for number in range(count):
            rows = spark.createDataFrame([("A", number, 0.1)], ROW)
            rows.write.format("delta").mode("append").save(str(path))
        for file in (path / "_delta_log").iterdir():
            then = file.stat().st_mtime - timedelta(days=31).total_seconds()
            os.utime(file, (then, then))
    return [file.name for file in (path / "_delta_log").glob("*.json")]


def test_a_checkpoint_removes_the_log_of_a_month_ago_unless_the_table_forbids_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    """So `DeltaTable.properties` forbid it: history is kept for `retention_days`, and removed by upkeep alone."""
    assert len(log_after_a_month(spark, tmp_path / "default", {})) < 36
    forbidden = DeltaTable(tmp_path, Table("t", "curated", "delta", "t", (YEAR,), "T")).properties
    assert (
        len(
            log_after_a_month(
                spark, tmp_path / "forbidden", {**forbidden, "delta.logRetentionDuration": "interval 1 days"}
            )
        )
        == 36
    )
