"""The reports: questions in SQL, a file each in reports/, in Athena's dialect, which all engines run.

The first line of a file is its question and the second its grain, both as comments. Not here: running them (an engine), and their
assets (assets/reports.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from stock_lakehouse.sql.engine import QueryError
from stock_lakehouse.tables import BY_NAME, STREAM_TABLES, Table

if TYPE_CHECKING:
    from stock_lakehouse.sql.dialect import OutputColumn

FOLDER = "reports"
STREAM_FOLDER = "stream_views"
# How a view in a catalog takes a column of a type that the dialect does not have. Athena refuses the cast of a time with a zone
# to one without.
IN_VIEWS = {
    "decimal(18,6)": "CAST({0} AS double) AS {0}",
    "binary": "from_utf8({0}) AS {0}",
    "timestamp": "date_add('millisecond', CAST(round(to_unixtime({0}) * 1000) AS bigint), TIMESTAMP '1970-01-01 00:00:00.000') "
    "AS {0}",
}


class UnknownReportError(QueryError):
    """There is no report of this name. The message lists the reports."""


@dataclass(frozen=True)
class Report:
    """A report.

    - question: what it answers
    - grain: what a row of it is
    - sql: in Athena's dialect
    """

    name: str
    question: str
    grain: str
    sql: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that it reads. They are found by name, because the definitions load without sqlglot."""
        words = set(re.findall(r"\w+", "\n".join(line for line in self.sql.splitlines() if not line.startswith("--"))))
        return tuple(name for name in BY_NAME if name in words)

    def limited(self, rows: int) -> str:
        """The SQL for the first `rows` rows. Each report ends with its ORDER BY."""
        return f"{self.sql.rstrip()}\nLIMIT {rows}\n"

    def columns(self, tables: Mapping[str, Table]) -> tuple[OutputColumn, ...]:
        """Its columns, with their types in Athena and the columns of `tables` that each is made of."""
        from stock_lakehouse.sql.dialect import translate

        return translate(self.sql, tables).columns


@cache
def reports() -> Mapping[str, Report]:
    """All reports, by name."""
    folder = resources.files(__package__) / FOLDER
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            sql = file.read_text(encoding="utf-8")
            question, grain = (line.removeprefix("-- ") for line in sql.splitlines()[:2])
            name = file.name.removesuffix(".sql")
            found[name] = Report(name, question, grain, sql)
    return found


@dataclass(frozen=True)
class StreamView:
    """A view over a table of the stream.

    - sql: in Athena's dialect, over the table as `in_sql` has it
    - table: the table that it reads
    """

    sql: str
    table: Table

    @property
    def in_catalog(self) -> str:
        """The SQL over the table as a catalog has it: prices as doubles and messages as text, as in `sql`; times in UTC.

        Bytes that are not UTF-8 become replacement characters. A time has no zone, because a view of Athena can have none.
        """
        columns = ", ".join(IN_VIEWS.get(it.type, "{0}").format(f'"{it.name}"') for it in self.table.columns)
        name = self.table.name
        return self.sql.replace(_reading(name), " ".join(("FROM (SELECT", columns, _reading(name), ") AS", name)))


@cache
def stream_views() -> Mapping[str, StreamView]:
    """The views over the tables of the stream, by name."""
    folder = resources.files(__package__) / STREAM_FOLDER
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    texts = {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8") for file in files if file.name.endswith(".sql")
    }
    return {
        name: StreamView(sql, next(table for table in STREAM_TABLES if _reading(table.name) in sql))
        for name, sql in texts.items()
    }


def _reading(table: str) -> str:
    return f"FROM {table}"


def report_named(name: str) -> Report:
    """The report `name`. Raises UnknownReportError."""
    from difflib import get_close_matches

    if name in reports():
        return reports()[name]
    close = get_close_matches(name, reports(), 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise UnknownReportError(f"no report {name}{meant}; there are {', '.join(reports())}")
