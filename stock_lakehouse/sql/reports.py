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
from stock_lakehouse.tables import BY_NAME, Table

if TYPE_CHECKING:
    from stock_lakehouse.sql.dialect import OutputColumn

FOLDER = "reports"
STREAM_FOLDER = "stream_views"


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


@cache
def stream_views() -> dict[str, str]:
    """The SQL of the views over the tables of the stream, by name."""
    folder = resources.files(__package__) / STREAM_FOLDER
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8") for file in files if file.name.endswith(".sql")
    }


def report_named(name: str) -> Report:
    """The report `name`. Raises UnknownReportError."""
    from difflib import get_close_matches

    if name in reports():
        return reports()[name]
    close = get_close_matches(name, reports(), 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise UnknownReportError(f"no report {name}{meant}; there are {', '.join(reports())}")
