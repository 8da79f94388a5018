"""What is compared at all, and computing in parts: both only save time and memory, so the answers are those of the whole."""

from __future__ import annotations

import os
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from stock_lakehouse.lake.parquet_table import COUNTS, ParquetTable
from stock_lakehouse.lake.publish import Published, PublishError, chunks, differing_partitions
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED, PROCESSED, QUARANTINE, UNREADABLE
from stock_lakehouse_tests.conftest import frame, rows_of

SCHEMA = "ticker string, date date, close double, adj_close double, is_final boolean, year int"
JAN, FEB = date(2020, 1, 2), date(2020, 2, 3)
BARS = [
    ("AAA", JAN, 1.5, None, True, 2020),
    ("AAA", FEB, 2.5, 2.0, False, 2020),
    ("AAA", date(2021, 1, 4), 3.0, 3.0, True, 2021),
    ("BBB", JAN, 0.1, 0.2, None, 2020),
]


def changed(at: int, **values: object) -> list[tuple[object, ...]]:
    names = [part.split()[0] for part in SCHEMA.split(", ")]
    rows: list[tuple[object, ...]] = list(BARS)
    rows[at] = tuple(values.get(name, value) for name, value in zip(names, rows[at], strict=True))
    return rows


@pytest.mark.parametrize(
    ("rows", "differing"),
    [
        pytest.param(BARS[::-1], [], id="the same rows in another order"),
        pytest.param(changed(0, close=1.5000000000000002), [("AAA", 2020)], id="the last bit of a price"),
        pytest.param(changed(0, close=None, adj_close=1.5), [("AAA", 2020)], id="a value that moves past a null"),
        pytest.param(changed(3, is_final=False), [("BBB", 2020)], id="false in place of null"),
        pytest.param(changed(2, date=date(2021, 1, 5)), [("AAA", 2021)], id="another day"),
        pytest.param(BARS[1:], [("AAA", 2020)], id="a row less"),
        pytest.param([*BARS, BARS[3]], [("BBB", 2020)], id="a row twice"),
        pytest.param(BARS[:3], [("BBB", 2020)], id="a ticker less"),
        pytest.param(changed(1, close=2.0, adj_close=2.5), [("AAA", 2020)], id="two values exchanged"),
        pytest.param([], [("AAA", 2020), ("AAA", 2021), ("BBB", 2020)], id="nothing"),
    ],
)
def test_just_the_ticker_years_that_differ_are_named(
    spark: SparkSession, rows: list[tuple[object, ...]], differing: list[tuple[str, int]]
) -> None:
    published = frame(spark, SCHEMA, *BARS)
    computed = spark.createDataFrame(rows, SCHEMA)
    assert list(differing_partitions(computed, published)) == differing
    assert list(differing_partitions(published, computed)) == differing


def test_chunks_hold_every_ticker_year_once() -> None:
    pairs = [(f"T{number}", 2020) for number in range(7)]
    for bars in (1, 252, 600, 10_000):
        assert [pair for chunk in chunks(CURATED, pairs, bars) for pair in chunk] == pairs
    assert [len(chunk) for chunk in chunks(CURATED, pairs, 3 * 252)] == [3, 3, 1]


@pytest.mark.parametrize("tickers_at_a_time", [1, 2, 3, 100])
def test_a_frame_staged_in_parts_has_every_row_whatever_its_ticker(
    spark: SparkSession, house: LakehouseResource, tickers_at_a_time: int
) -> None:
    tickers = ["A", "AAPL", "BRK-B", "MSFT", "ZM"]
    rows = [(ticker, number) for ticker in [*tickers, "0050", UNREADABLE] for number in range(3)]
    whole = frame(spark, "ticker string, number int", *rows)
    seen: list[DataFrame] = []

    def doubled(part: DataFrame) -> DataFrame:
        seen.append(part)
        return part.withColumn("number", 2 * F.col("number"))

    staged = house.staging.by_ticker(doubled, whole, tickers, 2, tickers_at_a_time * 252 * 2)
    assert len(seen) == -(-len(tickers) // tickers_at_a_time)
    assert rows_of(staged, "ticker", "number") == rows_of(doubled(whole), "ticker", "number")
    house.staging.clear()


Refused = tuple[str, str, str, list[str]]  # ticker, year, date, reasons
REFUSED: list[Refused] = [
    ("AAA", "2020", "2020-01-02", ["close is missing"]),
    ("AAA", "2020", "2020-01-03", ["volume is negative", "close is missing"]),
    ("AAA", "2021", "2021-01-04", ["close is missing"]),
    ("BBB", "2020", "2020-01-02", ["close is missing"]),
    ("BBB", "2020", "2020-01-02", ["close is missing"]),
    ("CCC", "2020", "2020-01-02", ["close is missing"]),
    ("EEE", "2020", "2020-01-02", ["close is missing"]),
    (UNREADABLE, UNREADABLE, "soon", ["date cannot be read"]),
]
AGAIN: list[Refused] = [
    ("AAA", "2020", "2020-01-02", ["close is missing"]),
    ("AAA", "2020", "2020-01-03", ["volume is negative"]),
    ("AAA", "2020", "2020-01-06", []),
    ("BBB", "2020", "2020-01-02", ["close is missing"]),
    ("DDD", "2020", "2020-01-02", ["close is missing"]),
    (UNREADABLE, UNREADABLE, "soon", ["date cannot be read"]),
]


def refused(spark: SparkSession, rows: list[Refused]) -> DataFrame:
    """Rows of the quarantine; the other columns are null."""
    given = spark.createDataFrame(rows, "ticker string, year string, date string, reasons array<string>")
    others = (
        F.lit(None).cast(column.type).alias(column.name)
        for column in QUARANTINE.columns
        if column.name not in given.columns
    )
    return given.select("*", *others)


@pytest.mark.parametrize("bars_per_chunk", [1, 10_000])
@pytest.mark.parametrize("layout", ["ticker_year", "year"])
def test_a_parquet_publish_replaces_its_ticker_years_keeps_the_others_and_counts_rows(
    spark: SparkSession, tmp_path: Path, layout: str, bars_per_chunk: int
) -> None:
    options = LakeOptions.model_validate({"lake_root": tmp_path, "layout": layout, "bars_per_chunk": bars_per_chunk})
    stored, staging = ParquetTable(options, QUARANTINE), Staging(tmp_path)
    tickers, years = ["AAA", "BBB", "CCC", "DDD", UNREADABLE], ["2020", UNREADABLE]

    def rows() -> Counter[tuple[object, ...]]:
        found = stored.read_arrow().select(["ticker", "year", "date", "reasons"]).to_pylist()
        return Counter((row["ticker"], row["year"], row["date"], tuple(row["reasons"])) for row in found)

    def counted(refusals: list[Refused]) -> Counter[tuple[object, ...]]:
        return Counter((ticker, year, day, tuple(reasons)) for ticker, year, day, reasons in refusals)

    first = stored.publish(refused(spark, REFUSED), [*tickers, "EEE"], [*years, "2021"], staging)
    assert first == Published(rows=8, partitions=6, added=8)
    assert rows() == counted(REFUSED)
    before = {file.path: file.version_tag for file in stored.files()}

    again = stored.publish(refused(spark, AGAIN), tickers, years, staging)
    # AAA 2020: a row is corrected and one added. BBB: one of two equal rows is withdrawn. CCC goes, DDD comes.
    assert again == Published(rows=5, partitions=4, added=2, corrected=1, withdrawn=2)
    kept = [row for row in REFUSED if row[0] == "EEE" or row[1] == "2021"]
    assert rows() == counted([*AGAIN, *kept]), "rows of other tickers and years are kept"
    unchanged = {file.path for file in stored.files() if before.get(file.path) == file.version_tag}
    assert len(unchanged) == (3 if layout == "ticker_year" else 2), "partitions without a difference are not written"

    written = {file.path: file.version_tag for file in stored.files()}
    assert stored.publish(refused(spark, AGAIN[::-1]), tickers, years, staging) == Published()
    assert {file.path: file.version_tag for file in stored.files()} == written
    staging.clear()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and ".staging" in path.parts] == []


@pytest.mark.parametrize("layout", ["ticker_year", "year"])
def test_the_rows_of_a_parquet_table_are_counted_in_files_that_were_written_since_and_right_without_counts(
    spark: SparkSession, tmp_path: Path, layout: str
) -> None:
    stored = ParquetTable(LakeOptions.model_validate({"lake_root": tmp_path, "layout": layout}), QUARANTINE)
    staging = Staging(tmp_path)
    assert stored.row_count() == 0
    stored.publish(refused(spark, REFUSED), ["AAA", "BBB", "CCC", "EEE", UNREADABLE], ["2020", "2021"], staging)
    assert stored.row_count() == len(REFUSED) == 8
    stored.publish(refused(spark, AGAIN[:3]), ["AAA", "BBB", "CCC"], ["2020"], staging)
    replaced = [row for row in REFUSED if row[0] in {"AAA", "BBB", "CCC"} and row[1] == "2020"]
    assert stored.row_count() == stored.read(spark).count() == 8 - len(replaced) + 3 != 8
    counts = Path(str(stored.root), COUNTS)
    unchanged, written = counts.read_bytes(), counts.stat().st_mtime_ns
    assert stored.row_count() == len(stored.read_arrow())
    assert (counts.read_bytes(), counts.stat().st_mtime_ns) == (unchanged, written)

    for content in (None, b"", unchanged[:20], unchanged[:-9], b"PAR1" * 9):  # as a killed or foreign writer leaves it
        counts.unlink()
        if content is not None:
            counts.write_bytes(content)
        assert stored.row_count() == len(stored.read_arrow())
    first, rows = tmp_path / stored.paths()[0], len(stored.read_arrow())
    times = first.stat()
    first.write_bytes(b"no Parquet")
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stored.row_count() == rows, "a file of the same version is not opened again"
    first.unlink()
    assert stored.row_count() == stored.read(spark).count() < rows
    staging.clear()


def test_a_parquet_publish_adds_rows_of_the_run_s_keys_alone_and_corrects_published_ones_outside(
    spark: SparkSession, tmp_path: Path
) -> None:
    stored, staging = ParquetTable(tmp_path, PROCESSED), Staging(tmp_path)
    days = [date(2020, 1, day) for day in (2, 3, 6, 7)]

    def bars(*closes: float) -> DataFrame:
        given = spark.createDataFrame(
            [("AAA", day, close, 2020) for day, close in zip(days, closes, strict=True)],
            "ticker string, date date, close double, year int",
        )
        others = (
            F.lit(None).cast(column.type).alias(column.name)
            for column in PROCESSED.columns
            if column.name not in given.columns
        )
        return given.select("*", *others)

    def publish(computed: DataFrame, *sessions: date) -> Published:
        return stored.publish(computed, ["AAA"], [2020], staging, Rectangle(sessions, ("AAA",)))

    assert publish(bars(1.0, 2.0, 3.0, 4.0), days[0], days[2]) == Published(rows=2, partitions=1, added=2)
    assert publish(bars(1.5, 2.5, 3.0, 4.5), days[3]) == Published(rows=3, partitions=1, added=1, corrected=1)
    assert stored.read_arrow().sort_by("date")["close"].to_pylist() == [1.5, 3.0, 4.5]
    staging.clear()


def test_a_publish_onto_a_damaged_file_names_it_and_the_repair(spark: SparkSession, tmp_path: Path) -> None:
    stored, staging = ParquetTable(tmp_path, QUARANTINE), Staging(tmp_path)
    stored.publish(refused(spark, REFUSED[:3]), ["AAA"], ["2020", "2021"], staging)
    (tmp_path / stored.paths()[0]).write_bytes(b"PAR1")
    with pytest.raises(PublishError, match=r"ticker=AAA/year=2020/data.parquet cannot be read .*upkeep --repair"):
        stored.publish(refused(spark, AGAIN), ["AAA"], ["2020", "2021"], staging)
    staging.clear()
