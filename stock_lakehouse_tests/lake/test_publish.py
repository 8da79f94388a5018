"""What is compared at all, and computing in parts: both only save time and memory, so the answers are those of the whole."""

from __future__ import annotations

from datetime import date

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from stock_lakehouse.lake.publish import chunks, differing_partitions
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED, UNREADABLE
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
