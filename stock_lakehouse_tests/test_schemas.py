"""A frame that does not conform to its table's schema fails its audit, and the failure says where."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.schemas import Column
from stock_lakehouse.schemas.audit import conforms, failures, pandera_schema
from stock_lakehouse.tables import BY_NAME, FEATURES, TABLES, Table

# Tables whose frames meet their schema before they are written.
NAMES = ["processed_stocks_daily", "processed_quarantine", "curated_stocks_daily", "stocks_features", "restatements"]
DAYS = (date(2023, 9, 20), date(2023, 9, 21))
OTHER_TYPE = {
    "string": "int",
    "double": "string",
    "bigint": "double",
    "int": "string",
    "date": "string",
    "timestamp": "date",
}

Rows = list[dict[str, Any]]


def good_value(column: Column) -> object:
    if column.one_of:
        return column.one_of[0]
    if column.name == "ticker":
        return "AAPL"
    return {
        "string": "text",
        "double": 1.5,
        "bigint": 7,
        "int": 2023,
        "boolean": True,
        "date": DAYS[0],
        "timestamp": datetime(2023, 9, 21, 21, tzinfo=UTC).replace(tzinfo=None),
        "array<string>": ["a reason"],
    }[column.type]


def good_rows(table: Table) -> Rows:
    """Two conforming rows of different sessions."""
    row = {column.name: good_value(column) for column in table.columns}
    return [row, {**row, "date": DAYS[1]}] if "date" in row else [row]


def found(spark: SparkSession, table: Table, rows: Rows, ddl: str | None = None) -> list[dict[str, str]]:
    """The failures of rows as a frame of the table's columns, or of those of `ddl`."""
    schema = StructType.fromDDL(ddl or table.ddl)
    values = [tuple(row.get(name) for name in schema.fieldNames()) for row in rows]
    return failures(spark.createDataFrame(values, schema), table)


def changed(table: Table, **values: object) -> Rows:
    first, *others = good_rows(table)
    return [{**first, **values}, *others]


def failing(spark: SparkSession, table: Table, values: Mapping[str, object]) -> set[str]:
    """The columns that fail when a row has these values instead of good ones."""
    return {failure["column"] for failure in found(spark, table, changed(table, **values))}


@pytest.mark.parametrize("name", NAMES)
def test_a_good_frame_conforms(spark: SparkSession, name: str) -> None:
    assert found(spark, BY_NAME[name], good_rows(BY_NAME[name])) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_frame_conforms(spark: SparkSession, name: str) -> None:
    assert found(spark, BY_NAME[name], []) == []


@pytest.mark.parametrize("name", NAMES)
def test_nulls_are_allowed_where_the_schema_allows_them_and_nowhere_else(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    optional = {column.name: None for column in table.columns if column.nullable}
    needed = {column.name: None for column in table.columns if not column.nullable}
    assert failing(spark, table, optional) == set()
    assert failing(spark, table, needed) == set(needed)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_a_failure_that_names_it(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    gone = next(column.name for column in table.columns if column.name not in table.key)
    ddl = ", ".join(f"{column.name} {column.type}" for column in table.columns if column.name != gone)
    failed = found(spark, table, good_rows(table), ddl)
    assert any(gone in failure["error"] for failure in failed)


@pytest.mark.parametrize("name", NAMES)
def test_a_column_too_many_is_a_failure_that_names_it(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    failed = found(spark, table, changed(table, stranger="x"), f"{table.ddl}, stranger string")
    assert any("stranger" in failure["error"] for failure in failed)


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("name", NAMES)
def test_a_column_of_another_type_is_a_failure_that_names_it(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    frame = spark.createDataFrame([], StructType.fromDDL(table.ddl))
    for kind in sorted({column.type for column in table.columns} & OTHER_TYPE.keys()):
        column = next(column.name for column in table.columns if column.type == kind)
        other = frame.withColumn(column, frame[column].try_cast("string").try_cast(OTHER_TYPE[kind]))
        failed = failures(other, table)
        assert column in {failure["column"] for failure in failed}


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_kept_to_the_last_value(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    kinds = {column.name: int if column.type == "bigint" else float for column in table.columns}
    least = {column.name: kinds[column.name](column.minimum) for column in table.columns if column.minimum is not None}
    most = {column.name: kinds[column.name](column.maximum) for column in table.columns if column.maximum is not None}
    excluded = {column.name: float(column.above) for column in table.columns if column.above is not None}
    assert failing(spark, table, least) == set()
    assert failing(spark, table, most) == set()
    assert failing(spark, table, {column: value + 1e-300 for column, value in excluded.items()}) == set()
    assert failing(spark, table, {column: value - 1 for column, value in least.items()}) == set(least)
    assert failing(spark, table, {column: value + 1e-9 for column, value in most.items()}) == set(most)
    assert failing(spark, table, excluded) == set(excluded)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["processed_stocks_daily", "curated_stocks_daily", "stocks_features"])
def test_what_is_no_finite_number_is_no_value(spark: SparkSession, name: str, value: float) -> None:
    doubles = {column.name: value for column in BY_NAME[name].columns if column.type == "double"}
    assert failing(spark, BY_NAME[name], doubles) == set(doubles)


@pytest.mark.parametrize("name", ["curated_stocks_daily", "stocks_features"])
def test_only_the_listed_values_are_allowed(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    allowed = {column.name: column.one_of for column in table.columns if column.one_of is not None}
    assert failing(spark, table, {column: values[-1] for column, values in allowed.items()}) == set()
    assert failing(spark, table, {column: values[0].upper() for column, values in allowed.items()}) == set(allowed)


@pytest.mark.parametrize("name", [name for name in NAMES if BY_NAME[name].key])
def test_two_rows_of_one_key_are_a_failure(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    failed = found(spark, table, [*good_rows(table), good_rows(table)[0]])
    assert any("duplicate" in (failure["kind"] + failure["error"]).lower() for failure in failed)


@pytest.mark.parametrize("name", [name for name in NAMES if not BY_NAME[name].key])
def test_tables_without_a_key_may_repeat_a_row(spark: SparkSession, name: str) -> None:
    table = BY_NAME[name]
    assert found(spark, table, good_rows(table)[:1] * 2) == []


def test_every_failure_is_told_at_once(spark: SparkSession) -> None:
    table = BY_NAME["curated_stocks_daily"]
    failed = found(spark, table, changed(table, close=-1.0, volume=-1, bar_status="perhaps", price_basis=None))
    assert {failure["column"] for failure in failed} >= {"close", "volume", "bar_status", "price_basis"}
    assert all(failure.keys() == {"kind", "column", "error"} for failure in failed)


def test_a_bad_value_among_many_rows_is_found(spark: SparkSession) -> None:
    table = BY_NAME["processed_stocks_daily"]
    row = good_rows(table)[0]
    rows = [{**row, "ticker": f"T{place}"} for place in range(2000)]
    assert found(spark, table, rows) == []
    rows[1234]["low"] = -0.01
    assert [failure["column"] for failure in found(spark, table, rows)] == ["low"]


def broken_values(column: Column) -> list[object]:
    """A value that breaks each rule of the column, one by one."""
    values: list[object] = [] if column.nullable else [None]
    kind = int if column.type in ("bigint", "int") else float
    values += [kind(column.minimum) - 1] if column.minimum is not None else []
    values += [kind(column.maximum) + 1] if column.maximum is not None else []
    values += [kind(column.above)] if column.above is not None else []
    values += ["no such value"] if column.one_of is not None else []
    values += [float("inf"), float("nan")] if column.type == "double" else []
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_quick_questions_let_no_broken_rule_pass(spark: SparkSession, name: str) -> None:
    # One value of one column at a time: pandera, which would find it, is asked only after them.
    table = BY_NAME[name]
    cases = [(column.name, value) for column in table.columns for value in broken_values(column)]
    for column, value in cases:
        rows = [tuple(row.values()) for row in changed(table, **{column: value})]
        assert not conforms(spark.createDataFrame(rows, StructType.fromDDL(table.ddl)), table), (column, value)
    assert cases


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.usefixtures("spark")  # fromDDL needs a session
def test_a_column_is_described_once_and_its_type_is_one_of_sparks(table: Table) -> None:
    assert len(set(table.column_names)) == len(table.columns)
    assert all(column.description for column in table.columns)
    assert [column.name for column in table.columns if column.nullable != bool(column.null)] == []
    assert all(
        column.unit for column in table.columns if column.type in ("double", "bigint") and column.name != "from_version"
    )
    assert [field.name for field in StructType.fromDDL(table.ddl)] == list(table.column_names)
    assert set(table.key) | set(table.partition_by) <= set(table.column_names)
    assert set(pandera_schema(table).columns) == set(table.column_names)


def test_describe_prints_every_column_with_its_meaning_and_what_it_is_made_of() -> None:
    done = CliRunner().invoke(app, ["describe", "stocks_features"])
    assert done.exit_code == 0
    blocks = {block.split()[0]: " ".join(block.split()) for block in done.output.split("\n\n")[1:]}
    assert list(blocks) == [column.name for column in FEATURES.columns]
    assert blocks["ticker"].startswith("ticker string, never null")
    for column in FEATURES.columns:
        assert " ".join(column.description.split()) in blocks[column.name]
    assert blocks["golden_cross"].endswith("made of curated_stocks_daily: close")
    assert "made of" not in blocks["indicator_spec"]
    assert max(map(len, done.output.splitlines())) <= 80


def test_describe_of_the_view_names_both_tables() -> None:
    done = CliRunner().invoke(app, ["describe", "bars_with_features"])
    assert done.exit_code == 0, done.output
    blocks = {block.split()[0]: " ".join(block.split()) for block in done.output.split("\n\n")[1:]}
    assert blocks["close"].endswith("made of curated_stocks_daily: close")
    assert blocks["rsi_14"].endswith("made of stocks_features: rsi_14")
    assert blocks["date"].endswith("made of curated_stocks_daily: date; stocks_features: date")


def test_describe_of_an_unknown_table_names_the_tables() -> None:
    done = CliRunner().invoke(app, ["describe", "prices"])
    assert done.exit_code == 2
    assert "no table prices; allowed: raw_stocks_daily, processed_stocks_daily" in done.stderr
