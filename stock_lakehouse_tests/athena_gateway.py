"""A server for tests that speaks Athena's API on loopback and executes on an engine of the tests: a real Trino, or DuckDB.

Here: Athena's protocol (workgroups, states, result files, pages, throttling, the scan limit), as its API reference describes it.
S3 and Glue stay with moto. Not here: product code, and what a test expects.

Not imitated: UNLOAD, CREATE TABLE AS, the reuse of results, prepared statements.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import sqlglot
from sqlglot import exp

from stock_lakehouse_tests import s3

ACCOUNT = "123456789012"  # the account of AWS's own examples
PAGE = 1000  # rows of a page at most, the header among them


class EngineError(Exception):
    """The engine failed a statement: Athena's name of the error, and its message."""


class Statement(Protocol):
    """A statement on an engine. `columns`: names and Trino's types, known after `execute`."""

    columns: list[tuple[str, str]]

    def execute(self) -> None: ...
    def fetch(self, count: int) -> list[Any]: ...
    def scanned(self) -> int: ...
    def cancel(self) -> None: ...


class Engine(Protocol):
    def statement(self, sql: str, parameters: list[str], database: str) -> Statement: ...


class OnTrino:
    """Statements on the Trino server at `port`."""

    def __init__(self, port: int) -> None:
        self.port = port

    def statement(self, sql: str, parameters: list[str], database: str) -> Statement:
        return _TrinoStatement(self.port, sql, parameters, database)


class _TrinoStatement:
    IMMEDIATE = "EXECUTE IMMEDIATE '"

    def __init__(self, port: int, sql: str, parameters: list[str], database: str) -> None:
        import trino.dbapi

        self.columns: list[tuple[str, str]] = []
        if parameters:  # each is an SQL literal, text in quotes, as Athena has them
            quoted = sql.replace("'", "''")
            sql = f"{self.IMMEDIATE}{quoted}' USING {', '.join(parameters)}"
        self._sql = sql
        self._cursor = trino.dbapi.connect(
            host="127.0.0.1", port=port, user="athena", catalog="awsdatacatalog", schema=database, timezone="UTC"
        ).cursor()

    def execute(self) -> None:
        with self._named():
            self._cursor.execute(self._sql)
            self.columns = [(column.name, column.type_code) for column in self._cursor.description or ()]

    def fetch(self, count: int) -> list[Any]:
        with self._named():
            rows: list[Any] = self._cursor.fetchmany(count)
        return rows

    def scanned(self) -> int:
        return int((self._cursor.stats or {}).get("physicalInputBytes", 0))

    def cancel(self) -> None:
        self._cursor.cancel()

    @contextmanager
    def _named(self) -> Iterator[None]:
        import trino.exceptions

        try:
            yield
        except trino.exceptions.TrinoQueryError as error:
            raise EngineError(error.error_name, self._in_query(error.message)) from error

    def _in_query(self, message: str) -> str:
        """The place in the query, where Trino gives the one in EXECUTE IMMEDIATE."""
        place = re.match(r"line 1:(\d+)", message)
        if place is None or not self._sql.startswith(self.IMMEDIATE):
            return message
        return f"line 1:{int(place[1]) - len(self.IMMEDIATE)}{message[place.end() :]}"


class OnDuckDB:
    """Statements on the tables of a DuckDB connection, in place of a Trino. `scanned_bytes`: what each says it has read."""

    def __init__(self, connection: Any, scanned_bytes: int = 0) -> None:
        self.connection = connection
        self.scanned_bytes = scanned_bytes
        self.statements: list[tuple[str, list[str]]] = []

    def statement(self, sql: str, parameters: list[str], database: str) -> Statement:
        self.statements.append((sql, parameters))
        return _DuckDBStatement(self, sql, parameters)


class _DuckDBStatement:
    TYPES = {  # noqa: RUF012
        "HUGEINT": "bigint",
        "FLOAT": "real",
        "BLOB": "varbinary",
        '"NULL"': "unknown",
    }

    def __init__(self, engine: OnDuckDB, sql: str, parameters: list[str]) -> None:
        self.columns: list[tuple[str, str]] = []
        self._engine, self._sql, self._parameters = engine, sql, parameters
        self._connection = engine.connection.cursor()

    def execute(self) -> None:
        import duckdb

        try:
            tree = sqlglot.parse_one(self._sql, read="athena")
        except sqlglot.errors.ParseError as error:
            place = error.errors[0]
            column = place["col"] - len(place["highlight"]) + 1
            raise EngineError("SYNTAX_ERROR", f"line {place['line']}:{column}: mismatched input") from error
        for placeholder, literal in zip(list(tree.find_all(exp.Placeholder, bfs=False)), self._parameters, strict=True):
            placeholder.replace(sqlglot.parse_one(literal, read="trino"))
        try:
            self._connection.execute("SET TimeZone = 'UTC'")
            self._connection.execute(tree.sql(dialect="duckdb"))
        except duckdb.InterruptException as error:
            raise EngineError("USER_CANCELED", "Query was canceled") from error
        except duckdb.Error as error:
            raise self._placed(str(error)) from error
        self.columns = [
            (name, f"array({str(kind)[:-2].lower()})" if str(kind).endswith("[]") else self._type(str(kind)))
            for name, kind, *_ in self._connection.description
        ]

    def _type(self, kind: str) -> str:
        if kind.startswith("TIMESTAMP"):  # TIMESTAMP_MS and the like
            return "timestamp(3) with time zone" if kind.endswith("TIME ZONE") else "timestamp(3)"
        return self.TYPES.get(kind, kind.lower())

    def _placed(self, message: str) -> EngineError:
        """DuckDB's error with the place of the first name that it quotes, in Trino's words."""
        quoted = re.search(r'"(\w+)"|name (\w+)', message)
        name = (quoted[1] or quoted[2]) if quoted else ""
        before = self._sql.partition(name)[0] if name and name in self._sql else ""
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
        is_table = "Table" in message
        kind = "TABLE_NOT_FOUND" if is_table else "COLUMN_NOT_FOUND"
        words = "Table '{}' does not exist" if is_table else "Column '{}' cannot be resolved"
        return EngineError(kind, f"line {line}:{column}: {words.format(name)}")

    def fetch(self, count: int) -> list[Any]:
        rows: list[Any] = self._connection.fetchmany(count)
        return rows

    def scanned(self) -> int:
        return self._engine.scanned_bytes

    def cancel(self) -> None:
        self._connection.interrupt()


class RefusedError(Exception):
    """AWS's answer with status 400: an error code and a message."""


@dataclass
class Faults:
    """What the gateway does wrong on purpose.

    - throttled: so many of the next calls are refused
    - unanswered: so many of the next calls are executed, and their answers are lost
    - scan_limit: bytes; in place of the workgroup's limit, which AWS allows from 10 MB on
    - denied: actions for which the credentials lack the right
    - reason: the next query fails with this reason
    - keeps_results: the workgroup keeps results itself, without a file
    """

    throttled: int = 0
    unanswered: int = 0
    scan_limit: int | None = None
    denied: frozenset[str] = frozenset()
    reason: str | None = None
    keeps_results: bool = False


@dataclass
class Gateway:
    """A running gateway: its address, what it does wrong, and what it was asked."""

    engine: Engine
    s3_endpoint: str
    url: str = ""
    faults: Faults = field(default_factory=Faults)
    calls: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    queries: dict[str, Query] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)  # token: query id, and the query's text
    workgroups: dict[str, dict[str, Any]] = field(default_factory=lambda: {"primary": {"Name": "primary"}})
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call. Raises RefusedError."""
        with self.lock:
            self.calls[action] += 1
            self.requests.append((action, asked))
            if self.faults.throttled > 0:
                self.faults.throttled -= 1
                starts = action == "StartQueryExecution"
                raise RefusedError("TooManyRequestsException" if starts else "ThrottlingException", "Rate exceeded")
        if action in self.faults.denied:
            resource = f"arn:aws:athena:us-east-1:{ACCOUNT}:workgroup/{asked.get('WorkGroup', 'primary')}"
            raise RefusedError(
                "AccessDeniedException",
                f"User: arn:aws:iam::{ACCOUNT}:user/analyst is not authorized to perform: athena:{action} on resource: "
                f"{resource} because no identity-based policy allows the athena:{action} action",
            )
        methods = {
            "CreateWorkGroup": self._create_workgroup,
            "GetWorkGroup": self._get_workgroup,
            "UpdateWorkGroup": self._update_workgroup,
            "StartQueryExecution": self._start,
            "GetQueryExecution": lambda asked: {"QueryExecution": self._query(asked).described()},
            "GetQueryResults": lambda asked: self._query(asked).page(asked),
            "StopQueryExecution": self._stop,
        }
        if action not in methods:
            raise RefusedError("InvalidRequestException", f"this gateway does not know {action}")
        return methods[action](asked)

    def _query(self, asked: dict[str, Any]) -> Query:
        try:
            return self.queries[asked["QueryExecutionId"]]
        except KeyError:
            raise RefusedError(
                "InvalidRequestException", f"QueryExecution {asked['QueryExecutionId']} was not found"
            ) from None

    def _create_workgroup(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            if asked["Name"] in self.workgroups:
                raise RefusedError("InvalidRequestException", "WorkGroup is already created")
            limit = asked.get("Configuration", {}).get("BytesScannedCutoffPerQuery")
            if limit is not None and limit < 10_000_000:
                raise RefusedError("InvalidRequestException", "BytesScannedCutoffPerQuery must be at least 10000000")
            self.workgroups[asked["Name"]] = {**asked, "State": "ENABLED"}
        return {}

    def _get_workgroup(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"WorkGroup": self._workgroup(asked["WorkGroup"])}

    def _workgroup(self, name: str) -> dict[str, Any]:
        if name not in self.workgroups:
            raise RefusedError("InvalidRequestException", f"WorkGroup {name} is not found.")
        return self.workgroups[name]

    def _update_workgroup(self, asked: dict[str, Any]) -> dict[str, Any]:
        configuration = self._workgroup(asked["WorkGroup"]).setdefault("Configuration", {})
        updates = dict(asked.get("ConfigurationUpdates", {}))
        configuration.setdefault("ResultConfiguration", {}).update(updates.pop("ResultConfigurationUpdates", {}))
        configuration.update(updates)
        return {}

    def _start(self, asked: dict[str, Any]) -> dict[str, Any]:
        group = self._workgroup(asked.get("WorkGroup", "primary"))
        token = asked["ClientRequestToken"]
        if not 32 <= len(token) <= 128:
            raise RefusedError("InvalidRequestException", "ClientRequestToken must have 32 to 128 characters")
        with self.lock:
            if token in self.tokens:
                query_id, text = self.tokens[token]
                if text != asked["QueryString"]:
                    raise RefusedError("InvalidRequestException", "Idempotent parameters do not match")
                return {"QueryExecutionId": query_id}
            query = Query(self, asked, group)
            self.queries[query.id], self.tokens[token] = query, (query.id, asked["QueryString"])
        threading.Thread(target=query.run, daemon=True).start()
        return {"QueryExecutionId": query.id}

    def _stop(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._query(asked).stop("Query was cancelled by user")
        return {}


class Query:
    """A query in the states of Athena, with its result file in the bucket of the workgroup."""

    def __init__(self, gateway: Gateway, asked: dict[str, Any], group: dict[str, Any]) -> None:
        self.gateway, self.asked, self.id = gateway, asked, str(uuid.uuid4())
        self.state, self.reason, self.submitted, self.ended = "QUEUED", "", time.time(), 0.0
        self.rows: list[Any] = []
        self.columns: list[tuple[str, str]] = []
        settings = group.get("Configuration", {})
        of_group, of_call = settings.get("ResultConfiguration") or {}, asked.get("ResultConfiguration") or {}
        is_enforced = settings.get("EnforceWorkGroupConfiguration", True)
        self.results = dict((of_group or of_call) if is_enforced else (of_call or of_group))
        self.keeps_results = gateway.faults.keeps_results
        if self.keeps_results:
            self.results = {}
        elif "OutputLocation" not in self.results:
            raise RefusedError(
                "InvalidRequestException", "No output location provided. An output location is required."
            )
        else:
            self.results["OutputLocation"] = f"{self.results['OutputLocation'].rstrip('/')}/{self.id}.csv"
        self.limit = gateway.faults.scan_limit or settings.get("BytesScannedCutoffPerQuery")
        database = (asked.get("QueryExecutionContext") or {}).get("Database", "default")
        sql = asked["QueryString"].strip().rstrip(";")
        self.statement = gateway.engine.statement(sql, asked.get("ExecutionParameters") or [], database)
        self._fails_with, gateway.faults.reason = gateway.faults.reason, None

    def run(self) -> None:
        try:
            self._becomes("RUNNING")
            if self._fails_with:
                raise EngineError("", self._fails_with)
            self.statement.execute()
            while self.state == "RUNNING" and (rows := self.statement.fetch(PAGE)):
                self.rows += rows
                self._look()
            self._look()  # once more: a count has read its bytes only at its end
            self.columns = self.statement.columns
            if self.state == "RUNNING" and not self.keeps_results:
                self._write()
            self._becomes("SUCCEEDED")
        except EngineError as error:
            name, message = error.args
            self._becomes("FAILED", f"{name}: {message}" if name else message)
        except Exception as error:
            self._becomes("FAILED", f"GENERIC_INTERNAL_ERROR: {error}")
            raise
        finally:
            self.ended = time.time()

    def _becomes(self, state: str, reason: str = "") -> None:
        if self.state != "CANCELLED":  # a stop is final
            self.state, self.reason = state, reason

    def _look(self) -> None:
        if self.limit and self.statement.scanned() > self.limit:
            self.stop("Query cancelled! : Bytes scanned limit was exceeded")

    def stop(self, reason: str) -> None:
        if self.state in ("QUEUED", "RUNNING"):
            self.state, self.reason = "CANCELLED", reason
            self.statement.cancel()

    def _write(self) -> None:
        lines = [[name for name, _ in self.columns], *self.rows]
        quoted = (",".join("" if value is None else _quoted(value) for value in line) for line in lines)
        bucket, key = self.results["OutputLocation"].removeprefix("s3://").split("/", 1)
        body = "".join(f"{line}\n" for line in quoted).encode()
        s3.client(self.gateway.s3_endpoint).put_object(Bucket=bucket, Key=key, Body=body)

    def described(self) -> dict[str, Any]:
        status: dict[str, Any] = {"State": self.state, "SubmissionDateTime": self.submitted}
        if self.reason:
            status["StateChangeReason"] = self.reason
        if self.ended:
            status["CompletionDateTime"] = self.ended
        milliseconds = int(((self.ended or time.time()) - self.submitted) * 1000)
        statistics = {
            "DataScannedInBytes": self.statement.scanned(),
            "TotalExecutionTimeInMillis": milliseconds,
            "EngineExecutionTimeInMillis": milliseconds,
        }
        return {
            "QueryExecutionId": self.id,
            "Query": self.asked["QueryString"],
            "StatementType": "DML",
            "Status": status,
            "Statistics": statistics,
            "ResultConfiguration": self.results,
            "WorkGroup": self.asked.get("WorkGroup", "primary"),
        }

    def page(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.state != "SUCCEEDED":
            raise RefusedError("InvalidRequestException", f"Query has not yet finished. Current state: {self.state}")
        rows = [[name for name, _ in self.columns], *self.rows]
        first, size = int(asked.get("NextToken") or 0), min(asked.get("MaxResults", PAGE), PAGE)
        data = [
            {"Data": [{} if value is None else {"VarCharValue": text(value)} for value in row]}
            for row in rows[first : first + size]
        ]
        columns = [_column_info(name, kind) for name, kind in self.columns]
        answer: dict[str, Any] = {
            "ResultSet": {"Rows": data, "ResultSetMetadata": {"ColumnInfo": columns}},
            "UpdateCount": 0,
        }
        return answer | ({"NextToken": str(first + size)} if first + size < len(rows) else {})


def _column_info(name: str, kind: str) -> dict[str, Any]:
    """Athena gives types without their sizes; those of a decimal are fields of their own."""
    sizes = [int(size) for size in re.findall(r"\d+", kind)] if kind.startswith("decimal") else []
    plain = re.sub(r"\(.*\)", "", kind)
    return {
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": name,
        "Label": name,
        "Type": {"real": "float"}.get(plain, plain),
        "Precision": sizes[0] if sizes else 0,
        "Scale": sizes[1] if sizes else 0,
        "Nullable": "UNKNOWN",
        "CaseSensitive": False,
    }


def _quoted(value: object) -> str:
    return '"' + text(value).replace('"', '""') + '"'


def text(value: object) -> str:
    """A value as Athena's results write it."""
    match value:
        case bool():
            written = str(value).lower()
        case float() if math.isnan(value):
            written = "NaN"
        case float() if math.isinf(value):
            written = "Infinity" if value > 0 else "-Infinity"
        case datetime():
            zone = "" if value.tzinfo is None else f" {value.tzname()}"
            written = f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}{zone}"
        case bytes():
            written = value.hex(" ")
        case list() | tuple():
            written = "[" + ", ".join("null" if item is None else text(item) for item in value) + "]"
        case _:
            written = str(value)
    return written


@contextmanager
def gateway(engine: Engine, s3_endpoint: str) -> Iterator[Gateway]:
    """A running gateway; result files go to the buckets at `s3_endpoint`."""
    state = Gateway(engine, s3_endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            try:
                status, said = 200, state.answer(action, json.loads(body or b"{}"))
            except RefusedError as error:
                code, message = error.args
                status, said = 400, {"__type": code, "message": message}
            if state.faults.unanswered > 0:
                state.faults.unanswered -= 1
                self.close_connection = True
                return
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(state: Gateway) -> dict[str, str]:
    """The variables with which the AWS clients find the gateway for Athena, and moto for everything else."""
    return {**s3.environment(state.s3_endpoint), "AWS_ENDPOINT_URL_ATHENA": state.url}
