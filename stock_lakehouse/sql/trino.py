"""SQL on a Trino server that sees the lake's tables: the same SQL as on Athena, with moments of the past.

Here: calls of Trino's client and what its errors mean. Not here: values and types (values.py), which statements are allowed
(dialect.py), and how tables come into Trino's catalog (catalog/).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.history import in_words, open_as_of
from stock_lakehouse.settings import Trino
from stock_lakehouse.sql.engine import (
    Parameter,
    PermissionMissingError,
    QueryError,
    QueryFailedError,
    QueryRefusedError,
    QueryResult,
    QuerySyntaxError,
    QueryTimeoutError,
    ScanLimitError,
)
from stock_lakehouse.sql.parsing import parsed, place_of, refuse_writes
from stock_lakehouse.sql.values import arrow_type, literals, table_of

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

SOURCE = "stock-lakehouse"  # the name of this client in Trino's lists of queries
ROWS_AT_A_TIME = 10_000
IMMEDIATE = "EXECUTE IMMEDIATE '"
TEXT_ONLY = ("map(", "row(")


class TrinoEngine:
    """A Trino server on the lake's tables.

    - settings: the group [trino]: address, user, catalog and schema of the tables
    - minutes: after this time the server stops a query
    - lake: knows which version a table had at a moment
    """

    name = "trino"

    def __init__(self, settings: Trino, minutes: float, lake: Lake) -> None:
        self.settings = settings
        self.minutes = minutes
        self.lake = lake

    def run(self, sql: str, parameters: Sequence[Parameter] = (), as_of: datetime | None = None) -> QueryResult:
        """The result of one SELECT; see QueryEngine.run.

        `as_of` is turned into versions of the lake's Delta tables, not into Trino's `FOR TIMESTAMP AS OF`, which believes the
        recorded times of commits also where a clock had jumped.
        """
        refuse_writes(sql)
        began = time.monotonic()
        sent = Sent(sql)
        if as_of is not None:
            sent.add(self._versions(sql, as_of))
        statement = sent.bound(literals(parameters))
        connection = self._connection()
        cursor, finished = connection.cursor(), False
        try:
            with _named(sent, cursor):
                cursor.execute(statement)
                rows = _rows(cursor)
            finished = True
        finally:
            if not finished:
                _cancel(cursor)
            connection.close()
        return QueryResult(
            rows=rows,
            engine=self.name,
            query_id=cursor.query_id,
            scanned_bytes=int((cursor.stats or {}).get("physicalInputBytes", 0)),
            seconds=time.monotonic() - began,
        )

    def _connection(self) -> Any:
        try:
            import trino.auth
            import trino.dbapi
        except ModuleNotFoundError:
            raise QueryFailedError(
                "the package trino is not installed; it comes with an extra: pip install 'stock-lakehouse[trino]'"
            ) from None
        settings = self.settings
        if settings.url is None:
            raise QueryFailedError("trino.url is not set: the address of the server, https://host:port")
        secret = settings.password
        return trino.dbapi.connect(
            host=settings.url,
            user=settings.user,
            catalog=settings.catalog,
            schema=settings.schema_name,
            source=SOURCE,
            timezone="UTC",
            auth=None if secret is None else trino.auth.BasicAuthentication(settings.user, secret.get_secret_value()),
            session_properties={"query_max_run_time": f"{self.minutes * 60:.3f}s"},
        )

    def _versions(self, sql: str, as_of: datetime) -> list[tuple[int, str]]:
        """For each table of the query: the offset behind its name, and the clause that names its version at `as_of`.

        Raises QueryRefusedError for a table without versions, NoVersionError if the lake has none of that moment.
        """
        found = []
        for name, place in _tables(sql):
            stored = self.lake.delta.get(name.lower())
            if stored is None:
                line, column = place_of(sql, place - len(name))
                raise QueryRefusedError(
                    f"{name} has no versions to read as of {in_words(as_of)}; these have: {', '.join(self.lake.delta)}",
                    sql,
                    line,
                    column,
                )
            found.append((place, f" FOR VERSION AS OF {open_as_of(stored, as_of).version()}"))
        return found


class Sent:
    """A user's SQL with insertions, and the way back from a place in it to the user's.

    - text: what is sent
    """

    def __init__(self, sql: str) -> None:
        self.sql = self.text = sql
        self._added: list[tuple[int, int]] = []  # offset in `text`, length
        self._prefix = 0

    def add(self, insertions: Sequence[tuple[int, str]]) -> None:
        """Insert each text at its offset in the user's SQL."""
        shift = 0
        for offset, inserted in sorted(insertions):
            self.text = self.text[: offset + shift] + inserted + self.text[offset + shift :]
            self._added.append((offset + shift, len(inserted)))
            shift += len(inserted)

    def bound(self, given: Sequence[str]) -> str:
        """The statement that runs `text` with the literals `given` for its `?`."""
        if not given:
            return self.text
        self._prefix = len(IMMEDIATE)
        quoted = self.text.replace("'", "''")
        return f"{IMMEDIATE}{quoted}' USING {', '.join(given)}"

    def place(self, line: int, column: int) -> tuple[int, int]:
        """Line and column in the user's SQL, from 1, of the place that Trino gives."""
        if line == 1:  # Trino counts from the begin of the statement, and not the doubling of quotes
            column -= self._prefix
        offset = sum(len(before) + 1 for before in self.text.split("\n")[: line - 1]) + column - 1
        shift = sum(length for start, length in self._added if start + length <= offset)
        return place_of(self.sql, offset - shift)


def _tables(sql: str) -> list[tuple[str, int]]:
    """The name of each table that the query reads, and the offset behind it. Names of WITH are none. Raises QuerySyntaxError."""
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    tables = {
        id(source): source
        for scope in traverse_scope(parsed(sql))
        for source in scope.sources.values()
        if isinstance(source, exp.Table)
    }
    return [(table.name, table.this.meta["end"] + 1) for table in tables.values()]


def _rows(cursor: Any) -> pa.Table:
    import pyarrow as pa

    columns = [(column.name, column.type_code) for column in cursor.description or ()]
    for name, kind in columns:
        if kind.startswith(TEXT_ONLY):
            raise QueryRefusedError(f"column {name} is of type {kind}; use json_format(CAST({name} AS json))")
    schema = [arrow_type(kind) for _, kind in columns]
    pieces: list[list[pa.Array]] = [[] for _ in columns]
    while rows := cursor.fetchmany(ROWS_AT_A_TIME):
        for index, kind in enumerate(schema):
            values = (row[index] for row in rows)
            if pa.types.is_string(kind):
                values = (None if value is None else str(value) for value in values)
            pieces[index].append(pa.array(list(values), kind))
    chunks = [pa.chunked_array(piece, kind) for piece, kind in zip(pieces, schema, strict=True)]
    return table_of([name for name, _ in columns], chunks)


def _cancel(cursor: Any) -> None:
    """Stop a query that nobody waits for. A failure is logged: the error that ended the wait is the one to report."""
    import requests
    import trino.exceptions

    try:
        cursor.cancel()
    except (requests.RequestException, trino.exceptions.Error, trino.exceptions.HttpError) as error:
        logger.warning("query %s could not be cancelled and goes on: %s", cursor.query_id, error)


@contextmanager
def _named(sent: Sent, cursor: Any) -> Iterator[None]:
    """Turn the client's errors into those of this package."""
    import requests
    import trino.exceptions

    try:
        yield
    except trino.exceptions.TrinoQueryError as error:
        raise _error_of(error, sent) from None
    except trino.exceptions.HttpError as error:
        if str(error).startswith(("error 401", "error 403")):
            raise PermissionMissingError(
                f"Trino rejects these credentials ({error}); check trino.user and STOCK_LAKEHOUSE_TRINO_PASSWORD"
            ) from None
        raise QueryFailedError(f"Trino: {error}", cursor.query_id) from None
    except (trino.exceptions.Error, requests.RequestException) as error:
        raise QueryFailedError(
            f"no answer of Trino; check trino.url and the network: {error}", cursor.query_id
        ) from None


def _error_of(error: Any, sent: Sent) -> QueryError:
    name, message, query_id = error.error_name or "", error.message, error.query_id
    if name == "EXCEEDED_TIME_LIMIT":
        return QueryTimeoutError(f"Trino stopped the query: {message}; query_minutes sets the time", query_id)
    if name == "EXCEEDED_SCAN_LIMIT":
        return ScanLimitError(f"Trino stopped the query: {message}", query_id)
    if name == "PERMISSION_DENIED":
        return PermissionMissingError(f"Trino: {message}", query_id)
    if error.error_location:
        line, column = sent.place(*error.error_location)
        reason = message.partition(": ")[2] if message.startswith("line ") else message
        return QuerySyntaxError(reason, sent.sql, line, column, query_id)
    if error.error_type == "USER_ERROR" and name.endswith(("SYNTAX_ERROR", "NOT_FOUND", "MISMATCH")):
        return QuerySyntaxError(message, query_id=query_id)
    return QueryFailedError(f"Trino: {message} ({name})", query_id)
