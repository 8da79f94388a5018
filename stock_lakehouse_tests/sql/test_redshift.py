"""SQL on Redshift: the translation gives Trino's answers or says why it is not run, and the reports give DuckDB's rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
import sqlglot
from polars.testing import assert_frame_equal
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.catalog.glue import GlueCatalog, register_lake
from stock_lakehouse.cli import app
from stock_lakehouse.cli.doctor import _redshift
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.settings import Redshift, Settings, load_settings
from stock_lakehouse.sql.choose import engine_of, local_engine, query
from stock_lakehouse.sql.data_api import cell_of
from stock_lakehouse.sql.duckdb_engine import LakeTables
from stock_lakehouse.sql.engine import (
    Parameter,
    QueryEngine,
    QueryFailedError,
    QueryRefusedError,
    QueryTextError,
)
from stock_lakehouse.sql.redshift import NATIVE, RedshiftEngine, column_of
from stock_lakehouse.sql.redshift_dialect import RedshiftTranslation, translate
from stock_lakehouse.sql.redshift_functions import redshift_signatures
from stock_lakehouse.sql.reports import reports
from stock_lakehouse.tables import BY_NAME, Table
from stock_lakehouse_tests import redshift_lint, s3
from stock_lakehouse_tests.catalog.lakes import fill, on_s3
from stock_lakehouse_tests.postgres import find_server, postgres
from stock_lakehouse_tests.redshift_server import RedshiftServer, environment, field_of, redshift_server, type_name
from stock_lakehouse_tests.sql.conftest import OddLake
from stock_lakehouse_tests.sql.expressions import STATEMENTS, Statement
from stock_lakehouse_tests.sql.test_dialect import as_trino, same

SETTINGS = Redshift(workgroup="stocks")
# Where Athena gives NaN or an infinite number, Redshift fails.
NO_NUMBER = re.compile("division by zero|square root|logarithm of|out of range|overflow|negative power")


def rows_of(table: pa.Table, kinds: Sequence[str]) -> list[list[Any]]:
    """Rows in the form of Trino's protocol."""
    columns = [
        [as_trino(value, kind) for value in column.to_pylist()]
        for column, kind in zip(table.columns, kinds, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def items_of(statement: Statement) -> list[Statement]:
    """A statement for each column of the answer, with Trino's values of it; none if the SELECT list cannot be taken apart."""
    tokens = sqlglot.tokenize(statement.sql, read="trino")
    depth, starts, end = 0, [], len(statement.sql)
    if tokens[0].text.upper() != "SELECT" or statement.rows is None or "*" in {token.text for token in tokens}:
        return []
    starts.append(tokens[0].end + 1)
    for token in tokens[1:]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.text == ",":
            starts.append(token.end + 1)
        if depth == 0 and token.text.upper() in ("FROM", "ORDER", "GROUP"):
            end = token.start
            break
    rest = statement.sql[end:]
    if len(starts) != len(statement.types or []) or re.search(r"ORDER BY \d|GROUP BY \d|UNION", rest):
        return []
    bounds = [*starts, end + 1]
    return [
        replace(
            statement,
            sql=f"SELECT {statement.sql[start : after - 1].strip()} {rest}".strip(),
            types=[kind],
            rows=[[row[place]] for row in statement.rows],
        )
        for place, (start, after, kind) in enumerate(zip(bounds, bounds[1:], statement.types or [], strict=False))
    ]


def translated(statement: Statement) -> RedshiftTranslation | None:
    """The translation; None if it is refused, or wrong."""
    try:
        return translate(statement.sql, {}, {}.get)
    except QueryTextError:
        return None


def with_items(statements: Sequence[Statement]) -> list[Statement]:
    """The statements, and of those that are refused the items that are not."""
    found = []
    for statement in statements:
        found += [statement] if translated(statement) else [item for item in items_of(statement) if translated(item)]
    return found


# Forms that Redshift has in another way, or that no statement of Trino has alone; their answers are computed by hand.
OWN = [
    Statement("redshift", sql, "same", types, rows)
    for sql, types, rows in (
        (
            "SELECT date_format(TIMESTAMP '2024-03-05 14:07:09', '%Y-%m-%d %H:%i:%s'), date_format(DATE '2024-03-05', '%Y/%m')",
            ["varchar", "varchar"],
            [["2024-03-05 14:07:09", "2024/03"]],
        ),
        (
            "SELECT x, nth_value(x, 2) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), "
            "sum(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM (VALUES 1, 2, 5) AS t(x) ORDER BY x",
            ["integer", "integer", "bigint"],
            [[1, None, 1], [2, 2, 3], [5, 2, 7]],
        ),
        (
            "SELECT g, array_join(array_agg(v ORDER BY n) FILTER (WHERE n > 1), '-'), array_join(array_agg(v ORDER BY n), ', '), "
            "listagg(v, ';') WITHIN GROUP (ORDER BY n) FROM (VALUES ('a', 1, 'x'), ('a', 3, 'y'), ('a', 2, 'z'), ('b', 1, 'u'), "
            "('c', 2, CAST(NULL AS varchar)), ('a', NULL, 'w')) AS t(g, n, v) GROUP BY g ORDER BY g",
            ["varchar", "varchar", "varchar", "varchar"],
            [["a", "z-y", "x, z, y, w", "x;z;y;w"], ["b", None, "u", "u"], ["c", "", "", None]],
        ),
        (
            "SELECT array_join(array_agg(v ORDER BY n DESC), '') FROM (VALUES (1, 'x'), (3, 'y'), (NULL, 'z')) AS t(n, v)",
            ["varchar"],
            [["yxz"]],
        ),
        (
            "SELECT g, max_by(v, n), min_by(v, n), max_by(n, v), count(*) "
            "FROM (VALUES ('a', 1, 'x'), ('a', 3, 'y'), ('a', NULL, 'z'), "
            "('b', NULL, 'u'), ('b', NULL, 'w')) AS t(g, n, v) WHERE v <> 'w' GROUP BY g ORDER BY g",
            ["varchar", "varchar", "varchar", "integer", "bigint"],
            [["a", "y", "x", None, 3], ["b", None, None, None, 1]],
        ),
        (
            "SELECT max_by(a.v, b.n), b.k FROM (VALUES (1, 'x'), (2, 'y')) AS a(k, v) "
            "JOIN (VALUES (1, 10), (2, 20), (2, 5)) AS b(k, n) ON a.k = b.k GROUP BY 2 HAVING min_by(b.n, b.n) < 10",
            ["varchar", "integer"],
            [["y", 2]],
        ),
        ("SELECT max_by(x, y) FROM (VALUES (1, 2), (3, 1)) AS t(x, y)", ["integer"], [[1]]),
        (
            "SELECT count(*) FILTER (WHERE x > 1), sum(x) FILTER (WHERE x > 1), avg(x) FILTER (WHERE x > 9), "
            "count(DISTINCT x) FILTER (WHERE x < 5), count_if(x > 1) FILTER (WHERE x < 5) FROM (VALUES 1, 2, 2, 7) AS t(x)",
            ["bigint", "bigint", "double", "bigint", "bigint"],
            [[3, 11, None, 2, 2]],
        ),
        (
            "SELECT a IS DISTINCT FROM b, a IS NOT DISTINCT FROM b "
            "FROM (VALUES (1, 1), (1, 2), (1, NULL), (NULL, NULL)) AS t(a, b)",
            ["boolean", "boolean"],
            [[False, True], [True, False], [True, False], [False, True]],
        ),
        (
            "SELECT 'a\\b' LIKE 'a\\_', 'a\\b', 'it''s' || '\\'",
            ["boolean", "varchar", "varchar"],
            [[True, "a\\b", "it's\\"]],
        ),
        (
            "SELECT CAST(2.5e0 AS bigint), CAST(-2.5e0 AS integer), CAST(true AS bigint), CAST(DATE '2024-1-5' AS varchar), "
            "CAST(false AS varchar), CAST(12 AS varchar), CAST('abc' AS varchar(2)), CAST(0 AS boolean)",
            ["bigint", "integer", "bigint", "varchar", "varchar", "varchar", "varchar", "boolean"],
            [[3, -3, 1, "2024-01-05", "false", "12", "ab", False]],
        ),
        (
            "SELECT round(0.49999999999999994e0), round(4503599627370497e0), round(-0.125e0, 2), round(1e22, 3)",
            ["double", "double", "double", "double"],
            [[0.0, 4503599627370497.0, -0.13, 1e22]],
        ),
        (
            "SELECT DATE '2024-01-31' + INTERVAL '1' MONTH, DATE '2024-03-31' - INTERVAL '1' MONTH, "
            "TIMESTAMP '2024-01-01 00:00:00' - INTERVAL '1' HOUR, TIMESTAMP '2024-01-01 01:00:00 +02:00'",
            ["date", "date", "timestamp", "timestamp with time zone"],
            [["2024-02-29", "2024-02-29", "2023-12-31 23:00:00.000", "2023-12-31 23:00:00.000 UTC"]],
        ),
    )
]


@cache
def sent() -> list[Statement]:
    return [*with_items([statement for statement in STATEMENTS if statement.here == "same"]), *OWN]


class OnDuckDB:
    """Redshift's SQL as the tests' server runs it, and its values as they come through the Data API."""

    def __init__(self) -> None:
        self.database = duckdb.connect()
        self.database.execute("SET TimeZone = 'UTC'")
        for macro in redshift_lint.MACROS:
            self.database.execute(macro)

    def rows(self, statement: Statement) -> list[list[Any]]:
        translation = translated(statement)
        assert translation is not None
        assert redshift_lint.faults(translation.sql) == [], translation.sql
        cursor = self.database.execute(redshift_lint.to_duckdb(sqlglot.parse_one(translation.sql, read="redshift")))
        kinds = [type_name(str(column[1])) for column in cursor.description]
        cells = [
            [cell_of(field_of(value, kind)) for value, kind in zip(row, kinds, strict=True)]
            for row in cursor.fetchall()
        ]
        return answer(cells, translation)


def answer(cells: Sequence[Sequence[Any]], translation: RedshiftTranslation) -> list[list[Any]]:
    types = [column.type for column in translation.columns]
    columns = [column_of([row[place] for row in cells], kind) for place, kind in enumerate(types)]
    return rows_of(pa.Table.from_arrays(columns, names=[str(place) for place in range(len(columns))]), types)


def check(statement: Statement, rows: list[list[Any]]) -> None:
    translation = translated(statement)
    assert translation is not None
    assert [column.type for column in translation.columns] == statement.types
    right = statement.rows or []
    if not statement.is_ordered:
        rows, right = sorted(rows, key=str), sorted(right, key=str)
    assert same(rows, right), (statement.sql, translation.sql, rows, right)


def test_each_statement_gives_the_answer_of_trino() -> None:
    database, failed = OnDuckDB(), list[tuple[str, str]]()
    for statement in sent():
        try:
            rows = database.rows(statement)
        except duckdb.Error as error:
            failed.append((statement.sql, str(error)))
        else:
            check(statement, rows)
    assert [line for line in failed if not NO_NUMBER.search(line[1])] == []
    assert len(sent()) - len(failed) > 220
    assert len(failed) < 10


def test_what_athena_refuses_or_fails_is_refused_or_fails() -> None:
    database = OnDuckDB()
    for statement in STATEMENTS:
        if statement.here != "same" and translated(statement) is not None:
            assert statement.here == "fails", statement.sql
            with pytest.raises(duckdb.Error):
                database.rows(statement)


def test_every_function_that_is_run_is_compared_with_trino() -> None:
    compared = " ".join(statement.sql.lower() for statement in sent())
    assert [name for name in redshift_signatures() if f"{name}(" not in compared] == []


# What PostgreSQL calls otherwise. It has no LISTAGG, no IGNORE NULLS, and no escapes in a text.
FOR_POSTGRES = (
    "CREATE FUNCTION len(text) RETURNS int AS 'SELECT length($1)' LANGUAGE sql",
    "CREATE FUNCTION last_day(date) RETURNS date AS "
    "$$SELECT CAST(date_trunc('month', $1) + interval '1 month' - interval '1 day' AS date)$$ LANGUAGE sql",
    "CREATE FUNCTION dateadd(unit text, number int, moment timestamp) RETURNS timestamp AS "
    "$$SELECT moment + number * CAST(CASE unit WHEN 'quarter' THEN '3 month' ELSE '1 ' || unit END AS interval)$$ LANGUAGE sql",
    "CREATE FUNCTION datediff(unit text, first date, last date) RETURNS int AS 'SELECT last - first' LANGUAGE sql",
)
FAILS_THERE = re.compile("division by zero|square root|logarithm|out of range|overflow|undefined|not finite")


@pytest.mark.slow
def test_postgresql_gives_the_same_where_it_has_the_same_sql() -> None:
    programs = find_server()
    if programs is None:
        pytest.skip("needs PostgreSQL")
    import psycopg2

    compared, failed = 0, list[tuple[str, str]]()
    with postgres(programs) as url, closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for function in FOR_POSTGRES:
            cursor.execute(function)
        for statement in sent():
            translation = translated(statement)
            assert translation is not None
            if any(absent in translation.sql for absent in ("LISTAGG", "IGNORE NULLS", "\\")):
                continue
            sql = re.sub(r"\b(DATEADD|DATEDIFF)\((\w+),", r"\1('\2',", translation.sql)
            try:
                cursor.execute(sql)
            except psycopg2.Error as error:
                failed.append((sql, str(error)))
                continue
            cells = [
                [str(value) if isinstance(value, Decimal | date) else value for value in row]
                for row in cursor.fetchall()
            ]
            check(statement, answer(cells, translation))
            compared += 1
    assert [line for line in failed if not FAILS_THERE.search(line[1])] == []
    assert compared > 200


@pytest.fixture(scope="module")
def server() -> Iterator[RedshiftServer]:
    with redshift_server() as state, s3.variables(environment(state)):
        yield state


@pytest.fixture(scope="module")
def warehouse(server: RedshiftServer, odd: OddLake) -> RedshiftEngine:
    """The engine over native tables that hold the lake's rows."""
    server.database.execute("CREATE SCHEMA stocks")
    for name, (native, _) in NATIVE.items():
        server.database.register("rows", read_table(name, lake_root=odd.root))
        # Redshift's TIMESTAMP has no zone; the warehouse's are in UTC.
        columns = [
            f"CAST({column.name} AT TIME ZONE 'UTC' AS TIMESTAMP) AS {column.name}"
            if column.type == "timestamp"
            else column.name
            for column in BY_NAME[name].columns
        ]
        server.database.execute(
            " ".join(("CREATE TABLE", f"stocks.{native}", "AS SELECT", ", ".join(columns), "FROM rows"))
        )
        server.database.unregister("rows")
    return engine(LakeTables(odd.lake))


def engine(tables: Mapping[str, Table] = BY_NAME, settings: Redshift = SETTINGS) -> RedshiftEngine:
    return RedshiftEngine(settings, 1.0, tables, {name: report.sql for name, report in reports().items()})


@pytest.mark.slow
@pytest.mark.slice(4)
@pytest.mark.parametrize("name", list(reports()))
def test_a_report_gives_the_rows_and_types_of_duckdb(name: str, warehouse: RedshiftEngine, odd: OddLake) -> None:
    found, right = warehouse.run(reports()[name].sql), odd.engine.run(reports()[name].sql)
    assert found.rows.schema == right.rows.schema
    assert found.rows.num_rows > 0
    assert_frame_equal(pl.DataFrame(found.rows), pl.DataFrame(right.rows), rel_tol=1e-12, abs_tol=1e-12)
    assert (found.engine, found.dollars, found.scanned_bytes) == ("redshift", None, None)
    assert found.query_id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT * FROM bars_with_features WHERE ticker = ? ORDER BY date LIMIT ?", ("BAC^B", 50)),
        ("SELECT * FROM curated_stocks_daily_served WHERE year = ? ORDER BY ticker, date", (2020,)),
        ("SELECT max_close FROM stock_summary WHERE ticker = 'BAC^B'", ()),
        (
            "SELECT ticker, date, ingested_at FROM curated_stocks_daily WHERE date >= ? AND close > ? AND ingested_at > ? "
            "AND ticker <> ? ORDER BY ticker, date",
            (date(2020, 2, 1), 1.5, datetime(2020, 1, 1, tzinfo=UTC), ""),
        ),
        (
            "SELECT ticker FROM stocks_features WHERE golden_cross = ? OR ticker LIKE ? ORDER BY ticker, date",
            (True, "BAC%"),
        ),
        ("SELECT ticker, ? AS nothing, ? AS text FROM stock_summary ORDER BY 1", (None, "it's :x \\ €")),
        (
            "SELECT ticker, count(*) FROM curated_stocks_daily c LEFT JOIN stocks_features f USING (ticker, date) "
            "WHERE ticker IN (SELECT ticker FROM stock_summary) GROUP BY ROLLUP (ticker) ORDER BY 2, 1",
            (),
        ),
        (
            "SELECT ticker FROM curated_stocks_daily UNION SELECT ticker FROM stocks_features EXCEPT SELECT 'BF.B' ORDER BY 1",
            (),
        ),
        (
            "SELECT ? AS first, max_by(ticker || ?, close + ?) AS best, count(*) FROM curated_stocks_daily WHERE ticker <> ? "
            "GROUP BY year + ? ORDER BY 3",
            ("a", "b", 1.5, "C=F", 7),
        ),
        ("SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM curated_stocks_daily WHERE close < 0)", ()),
    ],
)
def test_a_query_gives_the_rows_of_duckdb(
    sql: str, parameters: tuple[Parameter, ...], warehouse: RedshiftEngine, odd: OddLake
) -> None:
    found, right = warehouse.run(sql, parameters), odd.engine.run(sql, parameters)
    assert found.rows.schema == right.rows.schema
    assert_frame_equal(pl.DataFrame(found.rows), pl.DataFrame(right.rows), rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.slow
def test_texts_of_users_are_parameters_of_the_data_api(warehouse: RedshiftEngine, server: RedshiftServer) -> None:
    warehouse.run(
        "SELECT count(*) FROM curated_stocks_daily WHERE ticker = ?", ("'; DROP TABLE stocks.stock_prices --",)
    )
    body = [body for operation, body in server.requests if operation == "ExecuteStatement"][-1]
    assert "DROP" not in body["Sql"]
    assert [given["value"] for given in body["Parameters"]] == ["'; DROP TABLE stocks.stock_prices --"]


@pytest.mark.slow
def test_a_query_that_redshift_fails_is_an_error_of_one_line(warehouse: RedshiftEngine) -> None:
    with pytest.raises(QueryFailedError, match="division by zero") as error:
        warehouse.run("SELECT 1e0 / (close - close) FROM curated_stocks_daily")
    assert "\n" not in str(error.value)


def test_the_native_tables_are_those_of_the_warehouse() -> None:
    tables = pytest.importorskip("stock_lakehouse.warehouse.tables")
    assert {table.source.name: (table.name, table.everything) for table in tables.NATIVE_TABLES} == NATIVE


@pytest.mark.parametrize("name", list(reports()))
def test_a_report_is_sql_of_redshift(name: str) -> None:
    text = translate(reports()[name].limited(10), BY_NAME, engine().place_of).sql
    assert redshift_lint.faults(text) == []
    for absent in ("FILTER", "ARG_M", "MAX_BY", "UNNEST", "ARRAY"):
        assert absent not in text.upper()


def test_all_years_are_read_by_the_views_where_only_new_ones_are_loaded() -> None:
    hot = engine(settings=Redshift(workgroup="stocks", hot_years=2, schema_name="market"))
    text = translate(
        "SELECT ticker FROM curated_stocks_daily c JOIN stocks_features_served f USING (ticker)",
        BY_NAME | {"stocks_features_served": BY_NAME["stocks_features"]},
        hot.place_of,
    ).sql
    assert re.findall(r'"market"\."(\w+)"', text) == ["all_prices", "all_features"]


@pytest.mark.parametrize(
    ("sql", "marked", "reason"),
    [
        ("SELECT * FROM ^restatements", "restatements", "a Delta table, which Redshift does not read"),
        ("SELECT ^* FROM processed_quarantine", "*", "Redshift has no arrays"),
        ("SELECT ^reasons FROM processed_quarantine", "reasons", "Redshift has no arrays"),
        ("SELECT ticker, ^upper(ticker) FROM stocks_features", "upper", "letters beyond ASCII"),
        ("SELECT ^corr(close, open) FROM curated_stocks_daily", "corr", "Redshift has no correlation"),
        (
            "SELECT ticker FROM stocks_features f WHERE rsi_14 > (SELECT 50e0 FROM stocks_features g WHERE ^f.ticker = g.ticker)",
            "f.ticker",
            "write a JOIN",
        ),
        ("SELECT ^sum(close) OVER (ORDER BY date) FROM curated_stocks_daily", "sum", "write ROWS BETWEEN UNBOUNDED PRECEDING"),
        ("SELECT ^max_by(close, date) OVER (PARTITION BY ticker) FROM curated_stocks_daily", "max_by", "not with OVER"),
        ("SELECT TRY_CAST(^ticker AS double) FROM curated_stocks_daily", "ticker", "TRY_CAST is not run on Redshift"),
        (
            "SELECT listagg(ticker, ',') WITHIN GROUP (ORDER BY date), listagg(ticker, ',') WITHIN GROUP (ORDER BY ^close) "
            "FROM curated_stocks_daily",
            "close",
            "one order on Redshift",
        ),
        ("SELECT ^clos FROM curated_stocks_daily", "clos", "did you mean close?"),
        ("SELECT x FROM UNNEST(ARRAY[^1, 2]) AS t(x)", "1", "UNNEST is not run on Redshift"),
    ],
)  # fmt: skip
def test_what_redshift_does_not_run_is_refused_at_its_place(sql: str, marked: str, reason: str) -> None:
    place = sql.index("^")
    sql = sql.replace("^", "", 1)
    with pytest.raises(QueryTextError) as error:
        translate(sql, BY_NAME, engine().place_of)
    assert reason in error.value.reason
    assert "DuckDB" not in error.value.reason
    if error.value.column is not None:
        assert error.value.column - 1 == place
        assert sql[place:].startswith(marked)


def test_a_moment_of_the_past_is_refused_in_one_line() -> None:
    with pytest.raises(QueryRefusedError, match="only the present rows; with --as-of use --engine duckdb or trino"):
        engine().run("SELECT 1 AS one", as_of=datetime(2024, 1, 1, tzinfo=UTC))


def test_settings_without_a_warehouse_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryRefusedError, match="warehouse: Redshift runs SQL over the warehouse"):
        engine_of(Settings(lake_root=tmp_path), "redshift")


@pytest.fixture(scope="module")
def external(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RedshiftEngine, QueryEngine]]:
    """Engines over a lake that is registered in Glue: Redshift, whose external schema reads it, and DuckDB."""
    folder = fill(tmp_path_factory.mktemp("external") / "lake", spark)
    with s3.moto() as endpoint, redshift_server(endpoint) as state, s3.variables(environment(state)):
        lake = Lake(on_s3(folder, endpoint, "external"))
        register_lake(lake, GlueCatalog("market", lake.storage.uri("").rstrip("/")))
        redshift = RedshiftEngine(SETTINGS, 1.0, LakeTables(lake))
        redshift.api.run(
            "CREATE EXTERNAL SCHEMA IF NOT EXISTS stocks_lake FROM DATA CATALOG DATABASE 'market' IAM_ROLE default"
        )
        yield redshift, local_engine(Lake(folder))


@pytest.fixture
def project(external: tuple[RedshiftEngine, QueryEngine], tmp_path: Path) -> Path:
    """A folder whose lakehouse.toml names the lake and the workgroup."""
    lake = external[0].tables
    assert isinstance(lake, LakeTables)
    (tmp_path / "lakehouse.toml").write_text(
        f'lake_root = "{lake.lake.storage.uri("").rstrip("/")}"\ntickers = ["BAC^B"]\ncatalog = "glue"\nwarehouse = "redshift"\n'
        '[redshift]\nworkgroup = "stocks"\n'
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_the_command_asks_redshift_and_doctor_tries_it() -> None:
    asked = ["query", "SELECT count(*) AS bars FROM processed_stocks_daily", "--engine", "redshift", "--format", "csv"]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    assert found.stdout.split() == ['"bars"', "35"]
    assert "1 row by redshift" in found.stderr
    assert query("SELECT count(*) AS bars FROM processed_stocks_daily", engine="redshift")["bars"].to_pylist() == [35]
    refused = CliRunner().invoke(app, [*asked[:1], "SELECT upper(ticker) FROM processed_stocks_daily", *asked[2:4]])
    assert (refused.exit_code, "letters beyond ASCII" in refused.stderr) == (2, True)
    settings = load_settings()
    assert _redshift(settings).state == "ok"
    nowhere = settings.model_copy(update={"redshift": Redshift(workgroup="nowhere")})
    assert (_redshift(nowhere).state, "redshift.workgroup nowhere" in _redshift(nowhere).detail) == ("broken", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM processed_stocks_daily ORDER BY ticker, date",
        "SELECT ticker, date, file, line_number, year FROM processed_quarantine ORDER BY 1, 2",
        "SELECT * FROM raw_stocks_daily ORDER BY ticker, date, ingested_at, file, line_number",
    ],
)
def test_tables_of_plain_files_are_read_through_the_external_schema(
    sql: str, external: tuple[RedshiftEngine, QueryEngine]
) -> None:
    redshift, right = external[0].run(sql), external[1].run(sql)
    assert redshift.rows.num_rows > 0
    assert redshift.rows.schema == right.rows.schema
    rows = right.rows.to_pylist()
    if "raw" in sql:  # an empty cell of CSV is an empty text to Redshift, as to Athena
        rows = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
    assert redshift.rows.to_pylist() == rows
