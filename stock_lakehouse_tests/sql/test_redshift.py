"""SQL on Redshift: the translation gives Trino's answers or says why it is not run, and the reports give DuckDB's rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.data_api import cell_of
from stock_lakehouse.sql.duckdb_engine import LakeTables
from stock_lakehouse.sql.engine import Parameter, QueryRefusedError, QuerySyntaxError, QueryTextError
from stock_lakehouse.sql.redshift import NATIVE, RedshiftEngine, column_of
from stock_lakehouse.sql.redshift_dialect import RedshiftTranslation, translate
from stock_lakehouse.sql.redshift_functions import redshift_signatures
from stock_lakehouse.sql.reports import reports
from stock_lakehouse.tables import BY_NAME, Table
from stock_lakehouse_tests import redshift_lint, s3
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


SENT = with_items([statement for statement in STATEMENTS if statement.here == "same"])


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
    database, failed = OnDuckDB(), []
    for statement in SENT:
        try:
            rows = database.rows(statement)
        except duckdb.Error as error:
            assert NO_NUMBER.search(str(error)), (statement.sql, error)
            assert re.search("NaN|Infinity", str(statement.rows)), statement.sql
            failed.append(statement.sql)
        else:
            check(statement, rows)
    assert len(SENT) - len(failed) > 250
    assert len(failed) < 20


def test_what_athena_refuses_or_fails_is_refused_or_fails() -> None:
    database = OnDuckDB()
    for statement in STATEMENTS:
        if statement.here != "same" and translated(statement) is not None:
            assert statement.here == "fails", statement.sql
            with pytest.raises(duckdb.Error):
                database.rows(statement)


def test_every_function_that_is_run_is_compared_with_trino() -> None:
    compared = " ".join(statement.sql.lower() for statement in SENT)
    assert [name for name in redshift_signatures() if f"{name}(" not in compared] == []
