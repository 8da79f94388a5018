"""What every SQL engine of the lake has in common: the protocol, its result, its parameters and its errors.

Not here: any engine (duckdb_engine.py, athena.py, trino.py), and the dialect (dialect.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

from stock_lakehouse.lake.storage import LakeError

if TYPE_CHECKING:
    import pyarrow as pa

Parameter = str | int | float | bool | date | datetime | None


@dataclass(frozen=True)
class QueryResult:
    """The rows of a query, and what it took to compute them.

    - rows: in the types that Athena gives
    - engine: the name of the engine that ran it
    - query_id: the engine's identifier of the query; None if the engine has none
    - scanned_bytes: bytes that the engine read; None if unknown
    - seconds: wall time of the query
    - dollars: what the query was charged; None if the engine charges nothing
    """

    rows: pa.Table
    engine: str
    query_id: str | None = None
    scanned_bytes: int | None = None
    seconds: float = 0.0
    dollars: float | None = None


class QueryEngine(Protocol):
    """An engine that runs one query at a time over the lake's tables."""

    @property
    def name(self) -> str:
        """The engine's name, as the setting `query_engine` spells it."""
        ...

    def run(self, sql: str, parameters: Sequence[Parameter] = (), as_of: datetime | None = None) -> QueryResult:
        """The result of one SELECT in Athena's dialect.

        `parameters` are bound to the `?` of the query, in their order. `as_of`: the tables as they were at that moment.
        Raises an error of this module; NoVersionError if the lake has no version of `as_of`.
        """
        ...


class QueryError(LakeError):
    """A query did not give rows. `query_id`: the engine's identifier of it, None if it never ran."""

    def __init__(self, message: str, query_id: str | None = None) -> None:
        super().__init__(f"{message} (query {query_id})" if query_id else message)
        self.query_id = query_id


class QueryTextError(QueryError):
    """The text of a query cannot be run as it is. The message shows the place in it.

    - reason: what is wrong, without the place
    - line, column: the place in the user's SQL, from 1; None if the error is about the whole text
    - text: the line of the SQL and a caret below the place
    """

    def __init__(
        self,
        reason: str,
        sql: str = "",
        line: int | None = None,
        column: int | None = None,
        query_id: str | None = None,
    ) -> None:
        lines = sql.splitlines()
        self.reason, self.line, self.column, self.text = reason, line, column, ""
        if line is None or column is None or not 0 < line <= len(lines):
            super().__init__(reason, query_id)
            return
        source = lines[line - 1].replace("\t", " ")
        self.text = f"  {source}\n  {' ' * (column - 1)}^"
        query = f" (query {query_id})" if query_id else ""
        super().__init__(f"line {line}, column {column}: {reason}{query}\n{self.text}")
        self.query_id = query_id


class QuerySyntaxError(QueryTextError):
    """The SQL is wrong: its grammar, or a table, column, function or type that does not exist."""


class QueryRefusedError(QueryTextError):
    """The SQL may be right, but is not run: it writes, or the engine would not give the rows that Athena gives."""


class QueryTimeoutError(QueryError):
    """The query took longer than `query_minutes` and was stopped."""


class ScanLimitError(QueryError):
    """The query was stopped because it would read more than the limit on scanned bytes."""


class PermissionMissingError(QueryError):
    """The credentials may not do what the query needs. The message names the action and the resource."""


class QueryFailedError(QueryError):
    """The engine failed the query for another reason. The message repeats the engine's."""
