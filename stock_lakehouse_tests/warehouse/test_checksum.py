"""The checksum is the same on DuckDB, Sail, PostgreSQL and polars, and sees every change of a row.

PostgreSQL runs the text for Redshift as it is, with one function that Redshift has besides. The formula of polars is written
here again, from the description of the module, with polars's own functions and Python's hashlib.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import cache
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from stock_lakehouse.schemas import SESSION_DATE, TICKER, YEAR, Column
from stock_lakehouse.warehouse.checksum import DUCKDB, REDSHIFT, SPARK, Checksum, checksums_sql
from stock_lakehouse_tests.postgres import find_server, postgres

COLUMNS = (
    TICKER,
    SESSION_DATE,
    Column("price", "double", "a double"),
    Column("other", "double", "another"),
    Column("shares", "bigint", "whole"),
    Column("signal", "boolean", "true or false"),
    Column("status", "string", "text"),
    Column("ingested_at", "timestamp", "a time"),
    YEAR,
)
SCHEMA = pa.schema(
    [
        ("ticker", pa.string()),
        ("date", pa.date32()),
        ("price", pa.float64()),
        ("other", pa.float64()),
        ("shares", pa.int64()),
        ("signal", pa.bool_()),
        ("status", pa.string()),
        ("ingested_at", pa.timestamp("us", "UTC")),
        ("year", pa.int32()),
    ]
)
Row = dict[str, Any]
Sums = dict[tuple[str, int], Checksum]

BASE: Row = {
    "ticker": "BRK-B",
    "date": date(2020, 2, 29),
    "price": 101.25,
    "other": 0.1,
    "shares": 1_000_000,
    "signal": True,
    "status": "final",
    "ingested_at": datetime(2020, 3, 1, 21, 30, 0, 123456, tzinfo=UTC),
    "year": 2020,
}
EDGES: dict[str, list[Any]] = {
    "ticker": ["^GSPC", "C=F", "BAC^B", "BF.B"],
    "date": [date(1970, 1, 1), date(1969, 12, 31), date(1900, 3, 1), date(9999, 12, 31)],
    "price": [
        None,
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        2.2250738585072014e-308,
        math.nextafter(2.0**-86, 0),
        2.0**-86,
        math.nextafter(2.0**-22, 0),
        2.0**-22,
        math.nextafter(2.0**-22, 1),
        math.nextafter(2.0**-20, 0),
        2.0**-20,
        math.nextafter(2.0**-20, 1),
        math.nextafter(1.0, 0),
        1.0,
        math.nextafter(1.0, 2),
        -1.0,
        0.1,
        0.1 + 0.2,
        1 / 3,
        123456.78901234567,
        2.0**31,
        -(2.0**31) - 0.5,
        math.nextafter(2.0**42, 0),
        2.0**42,
        math.nextafter(2.0**42, math.inf),
        2.0**53 + 2,
        2.0**62,
        2.0**63,
        9.007199254740993e15,
        math.nextafter(2.0**106, 0),
        2.0**106,
        1.7976931348623157e308,
        -1.7976931348623157e308,
        math.inf,
        -math.inf,
        math.nan,
    ],
    "shares": [None, 0, -1, 2**53 + 1, 2**63 - 1, -(2**63) + 1],
    "signal": [None, False],
    "status": [
        None,
        "",
        "~",
        "|",
        "1:a",
        "é",
        "a😀b",
        "two words ",
        "'",
        '"',
        "\\",
        "%",
        "line\nbreak",
        "\u00a0",
        "e\u0301",
    ],
    "ingested_at": [
        None,
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2023, 9, 21, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2023, 9, 21, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
    ],
    "year": [1900, 9999],
}
# Values that the checksum does not tell apart, as its module says.
ALIKE = [
    {"0.0", "-0.0", "5e-324", "2.2250738585072014e-308"},
    {"nan", "inf", "1.7976931348623157e+308", repr(2.0**106)},
]
ALIKE.append({"-inf", "-1.7976931348623157e+308"})


def one_row_a_year() -> list[Row]:
    """A row for each edge value of each column; each has a ticker of its own, so that each has its own checksum."""
    rows = [BASE]
    for name, values in EDGES.items():
        for value in values:
            changed = {**BASE, name: value}
            rows.append(changed if name == "ticker" else {**changed, "ticker": f"T{len(rows)}"})
    return rows


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


@cache
def database() -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def by_duckdb(rows: list[Row]) -> Sums:
    given = table(rows)
    with database().cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.register("given", given)
        return sums(cursor.execute(checksums_sql(COLUMNS, "given", DUCKDB)).fetchall())


def by_sail(rows: list[Row], spark: SparkSession) -> Sums:
    spark.createDataFrame(table(rows)).createOrReplaceTempView("given")
    found = spark.sql(checksums_sql(COLUMNS, "given", SPARK)).toArrow().to_pylist()
    return sums([tuple(row.values()) for row in found])


def by_postgres(rows: list[Row], server: str) -> Sums:
    import psycopg2
    from psycopg2.extras import execute_values

    connection = psycopg2.connect(server)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE OR REPLACE FUNCTION strtol(digits text, base int) RETURNS bigint IMMUTABLE LANGUAGE sql AS "
                "$$ SELECT ('x' || digits)::bit(32)::bigint $$"
            )
            cursor.execute(
                'CREATE TEMP TABLE given ("ticker" varchar, "date" date, "price" double precision, "other" double precision, '
                '"shares" bigint, "signal" boolean, "status" varchar, "ingested_at" timestamp, "year" integer)'
            )
            naive = [
                tuple(value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in row.values())
                for row in rows
            ]
            execute_values(cursor, "INSERT INTO given VALUES %s", naive)
            # STRTOL of 8 digits is below 2^32 on Redshift; bit(32) as bigint is too.
            cursor.execute(checksums_sql(COLUMNS, "given", REDSHIFT))
            return sums(cursor.fetchall())
    finally:
        connection.close()


def by_polars(rows: list[Row]) -> Sums:
    """From the description: no SQL, and no code of the product."""

    def number(name: str) -> pl.Expr:
        size = pl.col(name).abs()
        letter = (
            pl.when(size < 2.0**-22).then(pl.lit("s"))
            .when(size < 2.0**42).then(pl.lit("m"))
            .when(size < 2.0**106).then(pl.lit("l"))
            .otherwise(pl.lit("h"))
        )  # fmt: skip
        power = pl.when(letter == "s").then(2.0**84).when(letter == "m").then(2.0**20).otherwise(2.0**-44)
        scaled = pl.when(letter == "h").then(0.0).otherwise(size * power)
        parts = (scaled.floor(), ((scaled - scaled.floor()) * 2.0**54).floor())
        sign = pl.when(pl.col(name) < 0).then(pl.lit("-")).otherwise(pl.lit(""))
        whole, rest = (part.cast(pl.Int64).cast(pl.String) for part in parts)
        return pl.when(pl.col(name).is_not_null()).then(pl.concat_str(sign, letter, whole, pl.lit("."), rest))

    texts = [
        pl.concat_str(pl.col("ticker").str.len_chars().cast(pl.String), pl.lit(":"), pl.col("ticker")),
        pl.col("date").dt.strftime("%Y%m%d").cast(pl.Int64).cast(pl.String),
        number("price"),
        number("other"),
        pl.col("shares").cast(pl.String),
        pl.when(pl.col("signal")).then(pl.lit("1")).when(~pl.col("signal")).then(pl.lit("0")),
        pl.concat_str(pl.col("status").str.len_chars().cast(pl.String), pl.lit(":"), pl.col("status")),
        pl.col("ingested_at").dt.strftime("%Y-%m-%d %H:%M:%S%.6f"),
        pl.col("year").cast(pl.String),
    ]
    frame = pl.DataFrame(pl.from_arrow(table(rows)))
    whole = frame.select("ticker", "year", text=pl.concat_str(*(text.fill_null("~") for text in texts), separator="|"))
    found: Sums = {}
    for ticker, year, text in whole.rows():
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        old = found.get((ticker, year), Checksum(0, 0, 0))
        found[ticker, year] = Checksum(
            old.rows + 1, old.first + int(digest[:8], 16), old.second + int(digest[8:16], 16)
        )
    return found


def sums(rows: list[tuple[Any, ...]]) -> Sums:
    return {
        (ticker, year): Checksum(int(count), int(first), int(second)) for ticker, year, count, first, second in rows
    }


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    programs = find_server()
    if programs is None:
        pytest.skip("needs PostgreSQL's server")
    with postgres(programs) as url:
        yield url


def test_every_edge_value_of_every_type_has_one_checksum_on_all_engines(spark: SparkSession) -> None:
    rows = one_row_a_year()
    expected = by_polars(rows)
    assert len(expected) == len(rows)
    assert by_duckdb(rows) == expected
    assert by_sail(rows, spark) == expected


def test_postgresql_runs_the_text_for_redshift_to_the_same_checksums(server: str) -> None:
    rows = one_row_a_year()
    assert by_postgres(rows, server) == by_polars(rows)


def test_two_values_have_one_checksum_only_where_the_module_says_so() -> None:
    def key(value: Any) -> str:
        return repr(value)

    for name, values in EDGES.items():
        if name in ("ticker", "year"):
            continue
        by_sum: dict[Checksum, set[str]] = {}
        for value in [*values, BASE[name]]:
            [found] = by_duckdb([{**BASE, name: value}]).values()
            by_sum.setdefault(found, set()).add(key(value))
        alike = [group for group in by_sum.values() if len(group) > 1]
        assert all(any(group <= allowed for allowed in ALIKE) for group in alike), alike
        if name == "price":
            assert len(alike) == 3


def test_a_changed_bit_two_swapped_values_and_a_row_twice_are_seen() -> None:
    rows = [{**BASE, "date": date(2020, 1, day), "price": 100 + day / 7, "other": 50 + day / 3} for day in range(2, 12)]
    [expected] = by_duckdb(rows).values()
    (bits,) = struct.unpack("<q", struct.pack("<d", rows[4]["price"]))
    for bit in range(64):
        (changed,) = struct.unpack("<d", struct.pack("<q", bits ^ (1 << bit if bit < 63 else -(1 << 63))))
        [found] = by_duckdb([*rows[:4], {**rows[4], "price": changed}, *rows[5:]]).values()
        assert found.rows == expected.rows
        assert (found.first, found.second) != (expected.first, expected.second), bit
    swapped_columns = [
        {**row, "price": row["other"], "other": row["price"]} if at == 3 else row for at, row in enumerate(rows)
    ]
    swapped_rows = [{**row, "price": rows[{3: 4, 4: 3}.get(at, at)]["price"]} for at, row in enumerate(rows)]
    null_moved = [{**rows[0], "price": None}, *rows[1:]], [{**rows[0], "other": None}, *rows[1:]]
    twice = [*rows, rows[0]]
    one_twice_for_another = [*rows[:-1], rows[0]]
    variants = [swapped_columns, swapped_rows, *null_moved, twice, one_twice_for_another, rows[1:]]
    found_all = [next(iter(by_duckdb(variant).values())) for variant in variants]
    assert expected not in found_all
    assert len(set(found_all)) == len(variants)
    [shuffled] = by_duckdb(rows[::-1]).values()
    assert shuffled == expected


def doubles() -> st.SearchStrategy[float]:
    return st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(min_value=1e-8, max_value=1e6),
        st.integers(-(2**60), 2**60).map(float),
    )


@given(st.lists(st.tuples(doubles() | st.none(), doubles(), st.text(max_size=8)), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_rows_have_one_checksum_on_duckdb_and_polars(values: list[tuple[float | None, float, str]]) -> None:
    rows = [
        {**BASE, "price": price, "other": other, "status": text.replace("\x00", "")} for price, other, text in values
    ]
    assert by_duckdb(rows) == by_polars(rows)


@given(doubles())
@settings(max_examples=60, deadline=None)
def test_a_double_and_its_neighbour_differ(value: float) -> None:
    # Exact rational arithmetic says which values the text holds whole: those whose last binary digit is not below 2^-138.
    neighbour = math.nextafter(value, math.inf)
    if math.isinf(neighbour) or not 2.0**-86 <= abs(value) < 2.0**106 or abs(neighbour) < 2.0**-86:
        return
    assert Fraction(value) != Fraction(neighbour)
    one, other = (next(iter(by_duckdb([{**BASE, "price": price}]).values())) for price in (value, neighbour))
    assert one != other
