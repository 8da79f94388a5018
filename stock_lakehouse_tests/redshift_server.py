"""A server for tests that speaks Redshift's Data API on loopback and executes the SQL: Redshift's, as DuckDB runs it.

Here: the API's protocol (states, tokens, batches, sessions, pages, limits), as its reference describes it, and as much of
Redshift as the product uses. External schemas read their tables from Glue, and their files from S3, both at `s3_endpoint` (moto).
Not here: product code, what a test expects, and which SQL Redshift has at all (redshift_lint.py, which each statement must pass).

Not imitated: the planner, keys and encodings, users and their rights, ListStatements, result format CSV.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import sqlglot
import uvicorn
from botocore.exceptions import ClientError
from sqlglot import exp
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stock_lakehouse_tests import aws_model, redshift_lint, s3

ACCOUNT = "123456789012"  # the account of AWS's own examples
PAGE = 1000  # rows of a page
MOST_STATEMENTS, LONGEST_STATEMENT = 40, 100_000
RUNNING = ("SUBMITTED", "PICKED", "STARTED")
ENDED = ("FINISHED", "FAILED", "ABORTED")
STARTS = ("ExecuteStatement", "BatchExecuteStatement")
NAME = r'"?([\w$]+)"?'
EXTERNAL = re.compile(
    rf"create\s+external\s+schema\s+(?:if\s+not\s+exists\s+)?{NAME}\s+from\s+data\s+catalog\s+database\s+'([^']+)'\s+"
    r"iam_role\s+(?:default|'[^']+')",
    re.I,
)
LIKE = re.compile(rf"create\s+temp(?:orary)?\s+table\s+{NAME}\s*\(\s*like\s+([\w.\"]+)\s*\)$", re.I)
VIEW = re.compile(
    r"create\s+(?:or\s+replace\s+)?view\s+([\w.\"]+)\s+as\s+(.*?)(\s+with\s+no\s+schema\s+binding)?$", re.I | re.S
)
DROP_VIEW = re.compile(r"drop\s+view\s+(?:if\s+exists\s+)?([\w.\"]+)(?:\s+cascade|\s+restrict)?$", re.I)
DROP_SCHEMA = re.compile(rf"drop\s+schema\s+(?:if\s+exists\s+)?{NAME}$", re.I)
LOCK = re.compile(r"lock\s+(?:table\s+)?(.+)$", re.I | re.S)
COMMENT = re.compile(
    r"comment\s+on\s+(table|column|view|schema)\s+([\w.\"]+)\s+is\s+(null|'(?:[^']|'')*')$", re.I | re.S
)
GRANT = re.compile(
    r"(grant|revoke)\s+([\w\s,]+?)\s+on\s+(schema|all\s+tables\s+in\s+schema|table)?\s*([\w.,\s\"]+?)\s+(?:to|from)\s+(.+)$",
    re.I | re.S,
)
NOT_IN_BATCH = re.compile(r"vacuum\b|create\s+external\b|drop\s+external\b|alter\s+table\s+\S+\s+append\b", re.I)
KEPT = re.compile(r"(analyze|vacuum|set)\b", re.I)
COMMITS = re.compile(r"truncate\b", re.I)
ENCODE = re.compile(r"\s+encode\s+\w+", re.I)
PARAMETER = re.compile(r"(?<![:\w]):([A-Za-z_]\w*)")
GLUE_TYPES = {
    "string": "VARCHAR", "double": "DOUBLE", "bigint": "BIGINT", "int": "INTEGER", "boolean": "BOOLEAN", "date": "DATE",
    "timestamp": "TIMESTAMP",
}  # fmt: skip
TYPE_NAMES = {
    "BOOLEAN": "bool", "SMALLINT": "int2", "INTEGER": "int4", "BIGINT": "int8", "HUGEINT": "numeric", "FLOAT": "float4",
    "DOUBLE": "float8", "VARCHAR": "varchar", "DATE": "date", "TIMESTAMP": "timestamp", "TIMESTAMP WITH TIME ZONE": "timestamptz",
}  # fmt: skip


class RefusedError(Exception):
    """AWS's answer with status 400: an error code and a message."""


class SqlError(Exception):
    """Redshift's error of a statement."""


class CancelledError(Exception):
    """The statement was cancelled."""


@dataclass
class Faults:
    """What the server does wrong on purpose.

    - throttled, internal, busy, no_sessions: so many of the next calls (of the next submissions) are refused
    - waiting: so many of the next calls that wait are refused
    - unanswered: so many of the next submissions are executed, and their answers are lost
    - denied: operations for which the credentials lack the right
    - fails: a piece of SQL, and the message with which the statements that have it fail
    - fails_at: the number, from 1, of the statement of a batch that fails
    - conflicts: so many of the next transactions fail at their end as another one came between
    - hangs: a piece of SQL; a statement that has it goes on until it is cancelled, or `released` is set
    - aborts: the next statement is cancelled by the warehouse
    - step: seconds that each statement takes at least
    - deaf: nothing can be cancelled
    """

    throttled: int = 0
    internal: int = 0
    busy: int = 0
    no_sessions: int = 0
    waiting: int = 0
    unanswered: int = 0
    denied: frozenset[str] = frozenset()
    fails: tuple[str, str] | None = None
    fails_at: int | None = None
    conflicts: int = 0
    hangs: str | None = None
    released: threading.Event = field(default_factory=threading.Event)
    aborts: bool = False
    step: float = 0.0
    deaf: bool = False


@dataclass
class Result:
    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]


@dataclass
class Part:
    """A statement alone, or one of a batch."""

    id: str
    sql: str
    status: str = "SUBMITTED"
    error: str | None = None
    rows: int = -1
    seconds: float = 0.0
    result: Result | None = None

    def described(self) -> dict[str, Any]:
        found = {
            "Id": self.id,
            "Status": self.status,
            "QueryString": self.sql,
            "ResultRows": self.rows,
            "ResultSize": -1,
            "HasResultSet": self.result is not None,
            "Duration": int(self.seconds * 1e9) or -1,
            "Error": self.error,
        }
        return {name: value for name, value in found.items() if value is not None}


class Statement:
    """A submission: its parts, and where it stands."""

    def __init__(self, body: Mapping[str, Any], session: str | None) -> None:
        self.id, self.created, self.updated = str(uuid.uuid4()), time.time(), time.time()
        self.is_batch, self.session = "Sqls" in body, session
        sqls = body["Sqls"] if self.is_batch else [body["Sql"]]
        self.parts = [Part(f"{self.id}:{n}" if self.is_batch else self.id, sql) for n, sql in enumerate(sqls, 1)]
        self.parameters = {given["name"]: given["value"] for given in body.get("Parameters", ())}
        self.status, self.error = "SUBMITTED", None
        self.cancelled, self.ended = threading.Event(), threading.Event()
        self.connection: duckdb.DuckDBPyConnection | None = None

    def described(self) -> dict[str, Any]:
        said: dict[str, Any] = {"CreatedAt": self.created, "UpdatedAt": self.updated, "SessionId": self.session}
        if self.is_batch:
            said |= {
                "Id": self.id,
                "Status": self.status,
                "QueryString": "",
                "HasResultSet": any(part.result for part in self.parts),
                "ResultRows": -1,
                "Duration": int(sum(part.seconds for part in self.parts) * 1e9) or -1,
                "Error": self.error,
                "SubStatements": [part.described() for part in self.parts],
                "ExecutionMode": "TRANSACTION",
            }
        else:
            said |= {**self.parts[0].described(), "Status": self.status, "Error": self.error}
        return {name: value for name, value in said.items() if value is not None}


@dataclass
class Transaction:
    """What a transaction holds: locks, and views, comments and grants that count once it commits."""

    connection: duckdb.DuckDBPyConnection
    is_batch: bool
    views: dict[str, str | None] = field(default_factory=dict)
    changes: list[Any] = field(default_factory=list)
    locks: list[str] = field(default_factory=list)
    is_fresh: bool = True  # nothing but locks has run


class RedshiftServer:
    """A running server: its address, what it does wrong, what it was asked, and what the database holds besides tables.

    - requests: each call, in order: the operation and its arguments
    - statements: each submission, by its identifier
    - external: the Glue database of each external schema
    - views, comments, grants: as the database has them
    - kept: statements that are only kept (ANALYZE, SET, …)
    - faults, page: change them as a test needs
    """

    def __init__(self, s3_endpoint: str | None = None, folder: Path | None = None) -> None:
        self.s3_endpoint, self.folder = s3_endpoint, folder
        self.url = ""
        self.database = duckdb.connect()
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.execute("SET threads = 2")
        for macro in redshift_lint.MACROS:
            self.database.execute(macro)
        self.faults, self.page, self.most_active, self.most_sessions = Faults(), PAGE, 500, 500
        self.calls: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.statements: dict[str, Statement] = {}
        self.tokens: dict[str, tuple[str, str]] = {}
        self.sessions: dict[str, tuple[duckdb.DuckDBPyConnection, float]] = {}
        self.external: dict[str, str] = {}
        self.views: dict[str, str] = {}
        self.comments: dict[tuple[str, str], str] = {}
        self.grants: set[tuple[str, str, str]] = set()
        self.kept: list[str] = []
        self.lock = threading.RLock()
        self.unlocked = threading.Condition()
        self.locked: dict[str, Transaction] = {}

    # The protocol.

    def answer(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call. Raises RefusedError."""
        with self.lock:
            self.calls[operation] += 1
            self.requests.append((operation, body))
            self._refuse(operation, body)
        if found := aws_model.faults("redshift-data", operation, body):
            raise RefusedError("ValidationException", "; ".join(found))
        methods = {
            "ExecuteStatement": self._start,
            "BatchExecuteStatement": self._start,
            "DescribeStatement": lambda body: self._statement(body).described(),
            "GetStatementResult": self._results,
            "CancelStatement": self._cancel,
        }
        if operation not in methods:
            raise RefusedError("ValidationException", f"this server does not know {operation}")
        answer: dict[str, Any] = methods[operation](body)
        return answer

    def _refuse(self, operation: str, body: Mapping[str, Any]) -> None:
        """Refuse the call as `faults` say."""
        faults = self.faults
        if operation in faults.denied:
            target = body.get("WorkgroupName") or body.get("ClusterIdentifier") or "*"
            raise RefusedError(
                "AccessDeniedException",
                f"User: arn:aws:iam::{ACCOUNT}:user/analyst is not authorized to perform: redshift-data:{operation} on resource: "
                f"arn:aws:redshift-serverless:us-east-1:{ACCOUNT}:workgroup/{target} because no identity-based policy allows it",
            )
        if faults.throttled > 0:
            faults.throttled -= 1
            raise RefusedError("ThrottlingException", "Rate exceeded")
        if faults.internal > 0:
            faults.internal -= 1
            raise RefusedError("InternalServerException", "The request failed on the server")
        if operation in STARTS and faults.busy > 0:
            faults.busy -= 1
            raise RefusedError(
                "ActiveStatementsExceededException", "Active statements exceeded the allowed quota (500)."
            )
        if operation in STARTS and faults.no_sessions > 0:
            faults.no_sessions -= 1
            raise RefusedError("ActiveSessionsExceededException", "Active sessions exceeded the allowed quota (500).")
        if faults.waiting > 0 and "WaitTimeSeconds" in body:
            faults.waiting -= 1
            raise RefusedError("ActiveWaitingRequestsExceededException", "Too many requests that wait")

    def _statement(self, body: Mapping[str, Any]) -> Statement:
        found = self.statements.get(body["Id"].partition(":")[0])
        if found is None:
            raise RefusedError("ResourceNotFoundException", "Query does not exist.")
        found.ended.wait(body.get("WaitTimeSeconds", 0))
        return found

    def _start(self, body: dict[str, Any]) -> dict[str, Any]:
        sqls = body.get("Sqls") or [body["Sql"]]
        if len(sqls) > MOST_STATEMENTS or any(len(sql.encode()) > LONGEST_STATEMENT for sql in sqls):
            raise RefusedError("ValidationException", "At most 40 statements of 100 kB each")
        if unused := [
            one["name"] for one in body.get("Parameters", ()) if one["name"] not in PARAMETER.findall(sqls[0])
        ]:
            raise RefusedError(
                "ValidationException", f"Parameters list contains unused parameters. Unused parameters: {unused}"
            )
        with self.lock:
            said = json.dumps(
                {name: value for name, value in body.items() if name != "WaitTimeSeconds"}, sort_keys=True
            )
            if body["ClientToken"] in self.tokens:
                statement_id, before = self.tokens[body["ClientToken"]]
                if before != said:
                    raise RefusedError("ValidationException", "The client token was used with other parameters")
                statement = self.statements[statement_id]
            else:
                statement = Statement(body, self._session(body))
                if sum(not other.ended.is_set() for other in self.statements.values()) >= self.most_active:
                    raise RefusedError(
                        "ActiveStatementsExceededException",
                        f"Active statements exceeded the allowed quota ({self.most_active}).",
                    )
                self.statements[statement.id] = statement
                self.tokens[body["ClientToken"]] = statement.id, said
                threading.Thread(target=self._work, args=(statement,), daemon=True).start()
        statement.ended.wait(body.get("WaitTimeSeconds", 0))
        names = ("ClusterIdentifier", "WorkgroupName", "Database", "DbUser")
        answer = {name: body[name] for name in names if name in body}
        answer |= {"Id": statement.id, "CreatedAt": statement.created, "Status": statement.status}
        return answer | ({"SessionId": statement.session} if statement.session else {})

    def _session(self, body: Mapping[str, Any]) -> str | None:
        """The session that a submission runs in; None for one of its own."""
        places = [name for name in ("ClusterIdentifier", "WorkgroupName") if name in body]
        if (session := body.get("SessionId")) is not None:
            if places or "Database" in body or "DbUser" in body:
                raise RefusedError(
                    "ValidationException", "A session has its cluster or workgroup, database and user already"
                )
            if session not in self.sessions or self.sessions[session][1] < time.monotonic():
                raise RefusedError("ValidationException", "Session is not available.")
            if any(other.session == session and not other.ended.is_set() for other in self.statements.values()):
                raise RefusedError("ValidationException", "Session is in use by another query.")
            keep = body.get("SessionKeepAliveSeconds")
            if keep is not None:
                self.sessions[session] = self.sessions[session][0], time.monotonic() + keep
            return str(session)
        if len(places) != 1:
            raise RefusedError("ValidationException", "Either ClusterIdentifier or WorkgroupName must be specified")
        if "Database" not in body:
            raise RefusedError("ValidationException", "Database must be specified")
        if "DbUser" in body and "WorkgroupName" in body:
            raise RefusedError("ValidationException", "DbUser cannot be specified with WorkgroupName")
        if body.get(places[0]) == "nowhere":
            raise RefusedError("ValidationException", "Redshift endpoint doesn't exist in this region.")
        if not body.get("SessionKeepAliveSeconds"):
            return None
        alive = [name for name, (_, until) in self.sessions.items() if until > time.monotonic()]
        if len(alive) >= self.most_sessions:
            raise RefusedError(
                "ActiveSessionsExceededException", f"Active sessions exceeded the allowed quota ({self.most_sessions})."
            )
        name = str(uuid.uuid4())
        self.sessions[name] = self.database.cursor(), time.monotonic() + body["SessionKeepAliveSeconds"]
        return name

    def _cancel(self, body: Mapping[str, Any]) -> dict[str, Any]:
        statement = self._statement(body)
        if statement.status in ENDED:
            raise RefusedError(
                "ValidationException", f"Could not cancel a query that is already in {statement.status} state"
            )
        if not self.faults.deaf:
            statement.cancelled.set()
            if statement.connection is not None:
                statement.connection.interrupt()
        return {"Status": True}

    def _results(self, body: Mapping[str, Any]) -> dict[str, Any]:
        statement = self._statement(body)
        number = int(body["Id"].partition(":")[2] or 1) - 1
        result = statement.parts[number].result if number < len(statement.parts) else None
        if statement.status != "FINISHED" or result is None:
            raise RefusedError(
                "ResourceNotFoundException",
                "Query does not have result. Please check query status with DescribeStatement.",
            )
        token = body.get("NextToken", f"{statement.id}:0")
        if token.partition(":")[0] != statement.id:
            raise RefusedError("ValidationException", "Invalid NextToken")
        start = int(token.partition(":")[2])
        records = [
            [field_of(value, kind) for value, kind in zip(row, result.types, strict=True)]
            for row in result.rows[start : start + self.page]
        ]
        end = start + self.page
        columns = [
            {"name": name, "label": name, "typeName": kind.partition("(")[0], "nullable": 1, "precision": 0, "scale": 0}
            for name, kind in zip(result.names, result.types, strict=True)
        ]
        more = {"NextToken": f"{statement.id}:{end}"} if end < len(result.rows) else {}
        return {"ColumnMetadata": columns, "TotalNumRows": len(result.rows), "Records": records, **more}

    # The database.

    def _work(self, statement: Statement) -> None:
        connection = self.sessions[statement.session][0] if statement.session else self.database.cursor()
        statement.connection = connection
        transaction = Transaction(connection, statement.is_batch)
        statement.status = "PICKED"
        connection.execute("BEGIN")
        statement.status = "STARTED"
        try:
            if self.faults.aborts:
                self.faults.aborts = False
                raise CancelledError
            for number, part in enumerate(statement.parts, start=1):
                part.status = "STARTED"
                self._part(statement, transaction, part, number)
            if statement.cancelled.is_set():
                raise CancelledError
            if self.faults.conflicts > 0:
                self.faults.conflicts -= 1
                raise SqlError("ERROR: 1023 DETAIL: Serializable isolation violation on table - 108263")
            self._commit(transaction)
            statement.status = "FINISHED"
        except CancelledError:
            connection.execute("ROLLBACK")
            statement.status = "ABORTED"
        except SqlError as error:
            connection.execute("ROLLBACK")
            statement.status, statement.error = "FAILED", str(error)
        finally:
            for part in statement.parts:
                if part.status in RUNNING:
                    part.status = "ABORTED"
            with self.unlocked:
                for name in transaction.locks:
                    del self.locked[name]
                self.unlocked.notify_all()
            statement.updated = time.time()
            statement.connection = None
            statement.ended.set()

    def _part(self, statement: Statement, transaction: Transaction, part: Part, number: int) -> None:
        began = time.monotonic()
        faults = self.faults
        try:
            if faults.fails and faults.fails[0] in part.sql:
                raise SqlError(faults.fails[1])
            if faults.fails_at == number and statement.is_batch:
                raise SqlError("ERROR: Disk Full")
            hangs = faults.hangs is not None and faults.hangs in part.sql
            until = began + faults.step
            while hangs or time.monotonic() < until:
                if statement.cancelled.wait(0.01):
                    raise CancelledError
                if faults.released.is_set():
                    break
            self._run(transaction, part, statement)
            part.status = "FINISHED"
        except duckdb.InterruptException:
            raise CancelledError from None
        except duckdb.TransactionException as error:
            part.status, part.error = (
                "FAILED",
                f"ERROR: 1023 DETAIL: Serializable isolation violation on table ({error})",
            )
            raise SqlError(part.error) from error
        except (SqlError, duckdb.Error, sqlglot.errors.SqlglotError, ClientError) as error:
            # The last: Glue or S3 refuse what the role of the external schema lacks.
            line = re.sub(r"\x1b\[\d*m", "", str(error)).split("\n", 1)[0].removeprefix("ERROR: ")
            part.status, part.error = "FAILED", f"ERROR: {line}"
            raise SqlError(part.error) from error
        finally:
            part.seconds = time.monotonic() - began

    def _commit(self, transaction: Transaction) -> None:
        try:
            transaction.connection.execute("COMMIT")
        except duckdb.TransactionException as error:
            transaction.connection.execute("BEGIN")
            raise SqlError(f"ERROR: 1023 DETAIL: Serializable isolation violation on table ({error})") from error
        with self.lock:
            for name, sql in transaction.views.items():
                if sql is None:
                    self.views.pop(name, None)
                else:
                    self.views[name] = sql
            for change in transaction.changes:
                change()
        transaction.views, transaction.changes = {}, []

    def _run(self, transaction: Transaction, part: Part, statement: Statement) -> None:
        sql = part.sql.strip().rstrip(";").strip()
        if transaction.is_batch and NOT_IN_BATCH.match(sql):
            raise SqlError(f"ERROR: {sql.split()[0].upper()} cannot run inside a transaction block")
        if COMMITS.match(sql):
            self._commit(transaction)
            transaction.connection.execute("BEGIN")
        if found := redshift_lint.faults(sql):
            raise SqlError(f"ERROR: {found[0]}")
        if not LOCK.match(sql):
            transaction.is_fresh = False
        if self._keeps(transaction, sql):
            return
        cursor = transaction.connection.execute(self._portable(transaction, sql, statement.parameters))
        rows = cursor.fetchall()
        if re.match(r"(insert|update|delete)\b", sql, re.I):
            part.rows = int(rows[0][0])
        elif re.match(r"[(\s]*(select|with|values|show|explain)\b", sql, re.I):
            kinds = [str(column[1]) for column in cursor.description]
            names = [column[0] for column in cursor.description]
            part.result, part.rows = Result(names, [type_name(kind) for kind in kinds], rows), len(rows)

    def _keeps(self, transaction: Transaction, sql: str) -> bool:
        """Do what a statement says that changes no table of DuckDB's. False if it is another one."""
        if found := EXTERNAL.match(sql):
            self._make_external(transaction, sql, found[1].lower(), found[2])
        elif found := VIEW.match(sql):
            self._make_view(transaction, _plain(found[1]), found[2], late=bool(found[3]))
        elif found := DROP_VIEW.match(sql):
            transaction.views[_plain(found[1])] = None
        elif (found := DROP_SCHEMA.match(sql)) and found[1].lower() in self.external:
            transaction.changes.append(lambda: self.external.pop(found[1].lower()))
        elif found := COMMENT.match(sql):
            kind, name = found[1].lower(), _plain(found[2])
            text = "" if found[3].lower() == "null" else found[3][1:-1].replace("''", "'")
            transaction.changes.append(lambda: self.comments.update({(kind, name): text}))
        elif found := GRANT.match(sql):
            transaction.changes.append(lambda: self._grant(found))
        elif found := LOCK.match(sql):
            for name in found[1].split(","):
                self._lock(transaction, _plain(name.strip().split()[0]))
        elif KEPT.match(sql):
            transaction.changes.append(lambda: self.kept.append(sql))
        else:
            return False
        return True

    def _make_external(self, transaction: Transaction, sql: str, name: str, database: str) -> None:
        if name not in self.external:
            transaction.changes.append(lambda: self.external.update({name: database}))
        elif not re.match(r"create\s+external\s+schema\s+if\s+not\s+exists", sql, re.I):
            raise SqlError(f'ERROR: Schema "{name}" already exists')

    def _make_view(self, transaction: Transaction, name: str, body: str, late: bool) -> None:
        tables = sqlglot.parse_one(body, read="redshift").find_all(exp.Table)
        if not late and any(table.db.lower() in self.external for table in tables):
            raise SqlError("ERROR: External tables are not supported in views")
        if not late:
            transaction.connection.execute(f"EXPLAIN {self._portable(transaction, body, {})}")
        transaction.views[name] = body

    def _grant(self, found: re.Match[str]) -> None:
        kind = re.sub(r"\s+", " ", (found[3] or "table").lower())
        for privilege in found[2].lower().split(","):
            for name in found[4].split(","):
                for grantee in found[5].split(","):
                    grant = (
                        privilege.strip(),
                        f"{kind} {_plain(name.strip())}",
                        grantee.strip().replace('"', "").lower(),
                    )
                    (self.grants.add if found[1].lower() == "grant" else self.grants.discard)(grant)

    def _lock(self, transaction: Transaction, name: str) -> None:
        with self.unlocked:
            while self.locked.get(name, transaction) is not transaction:
                self.unlocked.wait(0.05)
                statement = next(one for one in self.statements.values() if one.connection is transaction.connection)
                if statement.cancelled.is_set():
                    raise CancelledError
            if name not in self.locked:
                self.locked[name] = transaction
                transaction.locks.append(name)
        if transaction.is_fresh:
            # Nothing was read before the lock: what others committed while it was waited for is seen.
            transaction.connection.execute("COMMIT")
            transaction.connection.execute("BEGIN")

    def _portable(self, transaction: Transaction, sql: str, parameters: Mapping[str, str]) -> str:
        """The statement for DuckDB."""
        if found := LIKE.match(sql):
            return " ".join(("CREATE TEMP TABLE", found[1], "AS SELECT * FROM", found[2], "LIMIT 0"))
        is_temporary = re.match(r"create\s+temp(orary)?\s", sql, re.I)
        if re.match(r"(create|alter)\s", sql, re.I):
            sql = ENCODE.sub("", sql)
        literals = {
            name: "'" + value.replace("\\", "\\\\").replace("'", "''") + "'" for name, value in parameters.items()
        }
        if literals:
            sql = PARAMETER.sub(lambda match: literals.get(match[1], match[0]), sql)
        tree = sqlglot.parse_one(sql, read="redshift")
        if isinstance(tree, exp.Command):
            raise SqlError(f'ERROR: syntax error at or near "{sql.split()[0]}"')
        if isinstance(tree, exp.Create):
            _without_hints(tree)
        tree = self._resolved(transaction, tree)
        text = redshift_lint.to_duckdb(tree)
        return re.sub("^CREATE ", "CREATE TEMP ", text) if is_temporary and "CREATE TEMP" not in text else text

    def _resolved(self, transaction: Transaction, tree: Any) -> Any:
        """`tree` with the queries of views, and the files of external tables, in place of their names."""
        views = {**self.views, **transaction.views}
        target = tree.this if isinstance(tree, exp.Insert | exp.Delete | exp.Update | exp.Create) else None
        named = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        for table in list(tree.find_all(exp.Table)):
            if table is target or (target is not None and target.find(exp.Table) is table):
                continue
            name = ".".join(part.lower() for part in (table.db, table.name) if part)
            if not table.db and name in named:
                continue
            if views.get(name) is not None:
                inner = self._resolved(transaction, sqlglot.parse_one(views[name], read="redshift"))
            elif table.db.lower() in self.external:
                inner = sqlglot.parse_one(self._external(table.db.lower(), table.name.lower()), read="duckdb")
            else:
                continue
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True))
            table.replace(exp.Subquery(this=inner, alias=alias, joins=table.args.get("joins")))
        return tree

    def _external(self, schema: str, name: str) -> str:
        """DuckDB's SQL of a table of an external schema, over copies of its files."""
        assert self.s3_endpoint is not None, "this server has no S3"
        glue = s3.client(self.s3_endpoint, "glue")
        try:
            table = glue.get_table(DatabaseName=self.external[schema], Name=name)["Table"]
        except glue.exceptions.EntityNotFoundException:
            raise SqlError(f'ERROR: relation "{schema}.{name}" does not exist') from None
        storage = table["StorageDescriptor"]
        kind = table["Parameters"].get("classification")
        if kind not in ("parquet", "csv"):
            raise SqlError(f"ERROR: Spectrum Scan Error: the format {kind} of {schema}.{name} is not read")
        pages = glue.get_paginator("get_partitions").paginate(DatabaseName=self.external[schema], TableName=name)
        places = [
            (found["Values"], found["StorageDescriptor"]["Location"]) for page in pages for found in page["Partitions"]
        ]
        if not table.get("PartitionKeys"):
            places = [([], storage["Location"])]
        selected = [
            text for values, place in places for text in [self._files(table, kind, values, place)] if text is not None
        ]
        if not selected:
            columns = [*storage["Columns"], *table.get("PartitionKeys", [])]
            nulls = ", ".join(
                f'CAST(NULL AS {_duckdb_type(column["Type"])}) AS "{column["Name"]}"' for column in columns
            )
            return f"SELECT {nulls} LIMIT 0"
        return " UNION ALL ".join(selected)

    def _files(self, table: Mapping[str, Any], kind: str, values: Sequence[str], place: str) -> str | None:
        """DuckDB's SQL of the files of a partition; None if there are none."""
        files = self._copies(place)
        if not files:
            return None
        listed = ", ".join(f"'{file}'" for file in files)
        columns = table["StorageDescriptor"]["Columns"]
        keys = ", ".join(
            f"""CAST('{value.replace("'", "''")}' AS {_duckdb_type(key["Type"])}) AS "{key["Name"]}\""""
            for key, value in zip(table.get("PartitionKeys", []), values, strict=True)
        )
        if kind == "csv":
            named = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(columns)))
            chosen = ", ".join(f'c{place} AS "{column["Name"]}"' for place, column in enumerate(columns))
            options = "quote = '\"', escape = '\"', nullstr = '\\N'"  # an empty cell is an empty text
            source = f"read_csv([{listed}], header = false, skip = 1, columns = {{{named}}}, {options})"
        else:
            source = f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
            found = set(duckdb.sql(" ".join(("SELECT * FROM", source, "LIMIT 0"))).columns)
            chosen = ", ".join(
                f"CAST({quoted if column['Name'] in found else 'NULL'} AS {_duckdb_type(column['Type'])}) AS {quoted}"
                for column in columns
                for quoted in [f'"{column["Name"]}"']
            )
        return " ".join(("SELECT", ", ".join(part for part in (chosen, keys) if part), "FROM", source))

    def _copies(self, place: str) -> list[str]:
        """Local copies of the objects at `place`."""
        assert self.s3_endpoint is not None
        assert self.folder is not None
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        store = s3.client(self.s3_endpoint)
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix.rstrip("/") + "/")
        copies = []
        for found in (found for page in pages for found in page.get("Contents", [])):
            if found["Key"].rpartition("/")[2].startswith(("_", ".")):
                continue  # Spectrum takes such files for hidden
            copy = self.folder / f"{found['ETag'].strip(chr(34))}-{found['Key'].rpartition('/')[2]}"
            if not copy.exists():
                part = copy.with_name(f"{uuid.uuid4()}.part")
                store.download_file(bucket, found["Key"], str(part))
                part.replace(copy)
            copies.append(str(copy))
        return copies


def _plain(name: str) -> str:
    return name.replace('"', "").lower()


def _without_hints(tree: Any) -> None:
    """Remove keys and constraints, which DuckDB does not know, or would enforce."""
    tree.set("properties", None)
    for column in tree.find_all(exp.ColumnDef):
        constraints = column.args.get("constraints") or []
        column.set("constraints", [one for one in constraints if isinstance(one.kind, exp.NotNullColumnConstraint)])
    if isinstance(tree.this, exp.Schema):
        tree.this.set("expressions", [one for one in tree.this.expressions if isinstance(one, exp.ColumnDef)])


def _duckdb_type(glue: str) -> str:
    return "VARCHAR" if glue.startswith("array") else GLUE_TYPES[glue]


def type_name(kind: str) -> str:
    if kind.startswith("DECIMAL"):
        return kind.lower().replace("decimal", "numeric")
    return TYPE_NAMES.get(kind, "varchar")


def field_of(value: Any, kind: str) -> dict[str, Any]:
    """A value as the API's JSON has it."""
    if value is None:
        return {"isNull": True}
    if isinstance(value, bool):
        return {"booleanValue": value}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, int) and kind != "numeric":
        return {"longValue": value}
    return {"stringValue": _text(value, kind)}


def _text(value: Any, kind: str) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ").removesuffix("000") + ("+00" if kind == "timestamptz" else "")
    if isinstance(value, date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


@contextmanager
def redshift_server(s3_endpoint: str | None = None) -> Iterator[RedshiftServer]:
    """A new server, with Glue and S3 at `s3_endpoint` behind its external schemas."""
    with tempfile.TemporaryDirectory() as folder:
        state = RedshiftServer(s3_endpoint, Path(folder))

        async def handle(request: Request) -> Response:
            operation = request.headers["x-amz-target"].partition(".")[2]
            body = json.loads(await request.body())
            try:
                said, status = await run_in_threadpool(state.answer, operation, body), 200
            except RefusedError as refused:
                said = dict(zip(("__type", "message"), refused.args, strict=True))
                status = 500 if refused.args[0] == "InternalServerException" else 400
            if status == 200 and operation in STARTS and state.faults.unanswered > 0:
                state.faults.unanswered -= 1
                said, status = {"__type": "ServiceUnavailable", "message": "the answer was lost"}, 503
            return Response(json.dumps(said), status, media_type="application/x-amz-json-1.1")

        application = Starlette(routes=[Route("/", handle, methods=["POST"])])
        config = uvicorn.Config(application, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.005)
        state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield state
        finally:
            state.faults.released.set()
            server.should_exit = True
            thread.join(30)


def environment(state: RedshiftServer) -> dict[str, str]:
    """The variables with which the AWS clients find the server for the Data API, and moto for everything else."""
    return {**s3.environment(state.s3_endpoint or state.url), "AWS_ENDPOINT_URL_REDSHIFT_DATA": state.url}
