"""Amazon Redshift by its Data API: a statement from its start to its rows, a transaction, a session, and errors by name.

Here: calls of the Data API and what their answers mean, for a workgroup and for a cluster. Not here: SQL of any kind (redshift.py
for queries, warehouse/ for loads).

Not taken: redshift_connector and JDBC need a network path into the warehouse's VPC and a password or a second API for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tenacity

from stock_lakehouse import aws
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.engine import PermissionMissingError, QueryError, QueryFailedError, QueryTimeoutError

logger = logging.getLogger(__name__)

Cell = bool | int | float | str | bytes | None

MOST_STATEMENTS = 40  # of one batch, the limit of the Data API
LONGEST_STATEMENT = 100_000  # bytes of one statement, its limit as well
ENDED = ("FINISHED", "FAILED", "ABORTED")
# A call waits up to this time in AWS for the end of a statement; the longest that the API allows.
WAIT_SECONDS = 30
# Where a call does not wait: the first looks are 0.2 s apart, later ones rarer.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
PAUSE_GROWTH = 1.5
CANCEL_SECONDS = 10.0  # how long a cancelled statement is watched, to say whether it has ended
# Refused because too much runs at once: sent again this often. boto3 itself repeats throttled and lost calls, see aws.client.
BUSY = ("ActiveStatementsExceededException", "ActiveSessionsExceededException")
BUSY_ATTEMPTS = 5
BUSY_SECONDS, LONGEST_BUSY_SECONDS = 1.0, 20.0
WAITING_TOO_MANY = "ActiveWaitingRequestsExceededException"
# Another transaction changed the same rows meanwhile: the whole transaction is sent again this often.
CONFLICT = re.compile(r"\b1023\b|serializable isolation violation", re.IGNORECASE)
CONFLICT_RETRIES = 3
CONFLICT_SECONDS = 1.0
DENIED = re.compile(r"permission denied for [^\n;]+|must be owner of [^\n;]+", re.IGNORECASE)
NOT_THERE = re.compile(r"endpoint doesn't exist|not found|does not exist|could not be found", re.IGNORECASE)
READS = re.compile(r"\s*(?:\(\s*)*(select|with|values|show|explain)\b", re.IGNORECASE)
SHOWN = 160  # characters of a statement in an error

# The ARN of a workgroup of Redshift Serverless ends in its identifier, which the template has as a parameter.
WORKGROUP = aws.arn("redshift-serverless", "workgroup/${RedshiftWorkgroupId}")


class WarehouseError(QueryError):
    """Redshift did not do what it was asked. `query_id`: the identifier of the statement, None if none was made."""


class StatementError(WarehouseError, QueryFailedError):
    """Redshift failed a statement. Of a transaction nothing was changed.

    - index: the place of the statement in its transaction, from 0; None for one that was alone
    - statement: its text
    - reason: Redshift's message
    """

    def __init__(self, message: str, query_id: str | None, reason: str, statement: str, index: int | None) -> None:
        super().__init__(message, query_id)
        self.reason, self.statement, self.index = reason, statement, index


class StatementConflictError(StatementError):
    """Another transaction changed the same table each time that this one was tried (Redshift's error 1023)."""


class StatementCancelledError(WarehouseError, QueryFailedError):
    """Somebody else, or a rule of the warehouse, cancelled a statement."""


class StatementTimeoutError(WarehouseError, QueryTimeoutError):
    """A statement took longer than its minutes and was cancelled."""


class StatementLimitError(WarehouseError):
    """A transaction has more statements, or a statement more bytes, than the Data API takes. Nothing was sent."""


class WarehouseAccessError(WarehouseError, PermissionMissingError):
    """The workgroup, cluster or database does not exist, or the credentials or the database user lack a right."""


@dataclass
class Session:
    """A session of the database, with its temporary tables. It begins with its first statement and runs one at a time.

    - keep_seconds: how long it stays after a statement; then it ends by itself
    - id: None before its first statement
    """

    keep_seconds: int
    id: str | None = None


@dataclass(frozen=True)
class Rows:
    """What a statement gave.

    - names, types: of the columns, in Redshift's words (`int8`, `float8`, `varchar`, `numeric`); empty if it gives no rows
    - values: the rows; a DECIMAL, a date and a time are text
    - statement_id
    - seconds: that the statement took in Redshift
    - affected: rows that it gave or changed; None if Redshift does not say
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    values: list[tuple[Cell, ...]]
    statement_id: str
    seconds: float
    affected: int | None = None

    def column(self, name: str) -> list[Cell]:
        """The values of a column. Raises ValueError if there is none of this name."""
        place = self.names.index(name)
        return [row[place] for row in self.values]


@dataclass
class _Request:
    """One submission: the operation, what it says besides its token, and the statements in it."""

    operation: str
    arguments: dict[str, Any]
    statements: Sequence[str]
    key: str
    session: Session | None = None
    attempt: int = field(default=1)

    @property
    def token(self) -> str:
        """The same for a repeated call, whose first answer was lost, and another one for another attempt."""
        said = [self.key, str(self.attempt), (self.session and self.session.id) or "", *self.statements]
        return hashlib.sha256("\0".join(said).encode()).hexdigest()


class DataApi:
    """The Data API of one workgroup or cluster.

    - redshift: the group [redshift] of the settings
    - minutes: after this time a statement, or a transaction with its repetitions, is cancelled
    - client: None for one by boto3's variables and profiles, with bounded retries
    - calls: how often each operation was called, by name, without boto3's retries
    - writes: how many statements were sent that are no queries
    """

    def __init__(self, redshift: Redshift, minutes: float, client: Any = None) -> None:
        self.redshift, self.minutes = redshift, minutes
        self.calls: Counter[str] = Counter()
        self.writes = 0
        self.sleep: Callable[[float], None] = time.sleep
        if client is not None:
            self._client = client

    def run(self, sql: str, parameters: Mapping[str, str] | None = None, session: Session | None = None) -> Rows:
        """The result of one statement, which commits by itself. `parameters`: the values of `:name` in it.

        A statement that was not a query can have been done although this raises StatementTimeoutError or is interrupted.
        Raises StatementError, StatementConflictError, StatementCancelledError, StatementTimeoutError, StatementLimitError,
        WarehouseAccessError, WarehouseError.
        """
        arguments: dict[str, Any] = {"Sql": sql}
        if parameters:
            arguments["Parameters"] = [{"name": name, "value": value} for name, value in parameters.items()]
        described = self._finished(_Request("execute_statement", arguments, [sql], uuid.uuid4().hex, session))
        return self._rows(described)

    def transaction(self, statements: Sequence[str], key: str, session: Session | None = None) -> Sequence[int | None]:
        """Run up to 40 statements in one transaction: all of them, or none. The rows that each changed; None if it is not said.

        `key` identifies the transaction: repeated with the same key within hours it is not run again, so a new run needs a new
        key. Raises what `run` does.
        """
        arguments = {"Sqls": list(statements), "ExecutionMode": "TRANSACTION"}
        described = self._finished(_Request("batch_execute_statement", arguments, statements, key, session))
        parts = described.get("SubStatements", [])
        if len(parts) != len(statements):
            raise WarehouseError(
                f"Redshift tells of {len(parts)} statements, {len(statements)} were sent", described["Id"]
            )
        return [_count(part) for part in parts]

    def session(self, keep_seconds: int) -> Session:
        """A new session, which begins with the first statement that is given it. No call is made."""
        return Session(keep_seconds)

    @property
    def place(self) -> str:
        """The workgroup or cluster as an error names it."""
        if self.redshift.workgroup:
            return f"redshift.workgroup {self.redshift.workgroup}"
        return f"redshift.cluster {self.redshift.cluster}"

    @cached_property
    def _api(self) -> Any:
        with self._named():
            client = getattr(self, "_client", None) or aws.client("redshift-data")
        client.meta.events.register("provide-client-params.redshift-data", self._count_call)
        return client

    def _count_call(self, model: Any, **_: Any) -> None:
        self.calls[model.name] += 1

    @cached_property
    def _can_wait(self) -> bool:
        """Whether this botocore knows calls that wait for the end of a statement."""
        return (
            "WaitTimeSeconds" in self._api.meta.service_model.operation_model("DescribeStatement").input_shape.members
        )

    def _finished(self, request: _Request) -> dict[str, Any]:
        """The description of a statement that finished, after repetitions where another transaction came between."""
        _check(request.statements)
        until = time.monotonic() + self.minutes * 60

        def attempt() -> dict[str, Any]:
            described = self._waited(request, until)
            if described["Status"] != "FINISHED":
                request.attempt += 1  # another token, or AWS answers with the statement that failed
                raise self._failure(described, request)
            return described

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(CONFLICT_RETRIES + 1) | tenacity.stop_after_delay(self.minutes * 60),
            wait=tenacity.wait_random_exponential(CONFLICT_SECONDS, LONGEST_BUSY_SECONDS),
            retry=tenacity.retry_if_exception_type(StatementConflictError),
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _waited(self, request: _Request, until: float) -> dict[str, Any]:
        """The description of a statement that has ended, however it did. It is cancelled if this call ends before it does."""
        statement_id = self._submit(request)
        described: dict[str, Any] = {"Status": "SUBMITTED"}
        pause, can_wait = FIRST_PAUSE_SECONDS, self._can_wait
        try:
            while True:
                left = until - time.monotonic()
                asked = time.monotonic()
                described, can_wait = self._describe(statement_id, min(int(left), WAIT_SECONDS) if can_wait else 0)
                if described["Status"] in ENDED:
                    return described
                if time.monotonic() >= until:
                    break
                if time.monotonic() - asked < FIRST_PAUSE_SECONDS:  # the call did not wait
                    self.sleep(max(0.0, min(pause, until - time.monotonic())))
                    pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
        except BaseException:
            if described["Status"] not in ENDED:
                self._cancel(statement_id)
            raise
        return self._stopped(statement_id, request)

    def _submit(self, request: _Request) -> str:
        """The identifier of the statement that was submitted.

        The call does not wait for its end: an interruption can then cancel it by its identifier.
        """
        call = getattr(self._api, request.operation)
        session = request.session
        arguments = {**request.arguments, **self._address(session), "ClientToken": request.token}
        self.writes += sum(not READS.match(statement) for statement in request.statements)

        from botocore.exceptions import BotoCoreError, ClientError

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(BUSY_ATTEMPTS),
            wait=tenacity.wait_random_exponential(BUSY_SECONDS, LONGEST_BUSY_SECONDS),
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, ClientError) and aws.code_of(error) in BUSY
            ),
            sleep=self.sleep,
            reraise=True,
        )
        with self._named():
            try:
                answer = retrying(call, **arguments)
            except (BotoCoreError, ClientError):
                raise
            except BaseException:
                # Ctrl-C came before the answer, and the statement may run. The same token gives its identifier.
                with contextlib.suppress(BotoCoreError, ClientError):
                    self._cancel(call(**arguments)["Id"])
                raise
        if session is not None and session.id is None:
            session.id = answer.get("SessionId")
        return str(answer["Id"])

    def _address(self, session: Session | None) -> dict[str, Any]:
        """Where a statement runs. In a session that has begun only its identifier is said."""
        if session is not None and session.id is not None:
            return {"SessionId": session.id, "SessionKeepAliveSeconds": session.keep_seconds}
        address: dict[str, Any] = {"Database": self.redshift.database}
        if self.redshift.workgroup:
            address["WorkgroupName"] = self.redshift.workgroup
        else:
            address["ClusterIdentifier"] = self.redshift.cluster
            address |= {"DbUser": self.redshift.db_user} if self.redshift.db_user else {}
        return address if session is None else {**address, "SessionKeepAliveSeconds": session.keep_seconds}

    def _describe(self, statement_id: str, wait_seconds: int) -> tuple[dict[str, Any], bool]:
        """The description of a statement, and whether such calls may go on waiting in AWS."""
        from botocore.exceptions import ClientError

        with self._named(statement_id):
            try:
                wait = {"WaitTimeSeconds": wait_seconds} if wait_seconds > 0 else {}
                return self._api.describe_statement(Id=statement_id, **wait), wait_seconds > 0
            except ClientError as error:
                if aws.code_of(error) != WAITING_TOO_MANY:
                    raise
            return self._api.describe_statement(Id=statement_id), False

    def _stopped(self, statement_id: str, request: _Request) -> dict[str, Any]:
        """Cancel a statement whose time is over. Its description if it has finished all the same; else StatementTimeoutError."""
        self._cancel(statement_id)
        until = time.monotonic() + CANCEL_SECONDS
        described, _ = self._describe(statement_id, 0)
        while described["Status"] not in ENDED and time.monotonic() < until:
            self.sleep(FIRST_PAUSE_SECONDS)
            described, _ = self._describe(statement_id, 0)
        if described["Status"] in ("FINISHED", "FAILED"):
            return described
        end = "was cancelled" if described["Status"] == "ABORTED" else "does not stop although it was cancelled"
        rows = "; nothing was changed" if end == "was cancelled" and not _reads(request) else ""
        raise StatementTimeoutError(
            f"the statement took longer than {self.minutes:g} minutes and {end}{rows}", statement_id
        )

    def _cancel(self, statement_id: str) -> None:
        """Cancel a statement that nobody waits for. A failure is logged: the error that ended the wait is the one to report."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._api.cancel_statement(Id=statement_id)
        except (BotoCoreError, ClientError) as error:
            logger.warning("statement %s was not cancelled: %s", statement_id, aws.message_of(error))

    def _failure(self, described: Mapping[str, Any], request: _Request) -> WarehouseError:
        """The error of a statement that did not finish."""
        statement_id, parts = described["Id"], described.get("SubStatements", [])
        if described["Status"] == "ABORTED":
            said = f": {described['Error']}" if described.get("Error") else ""
            return StatementCancelledError(
                "somebody, or a rule of the warehouse (a query monitoring rule, a restart), cancelled the statement"
                f"{said}{'' if _reads(request) else '; nothing was changed'}",
                statement_id,
            )
        failed = [place for place, part in enumerate(parts) if part.get("Status") == "FAILED"]
        index = failed[0] if failed else None
        said = (parts[failed[0]].get("Error") if failed else None) or described.get("Error") or "no reason given"
        reason = " ".join(str(said).split())
        statement = request.statements[index or 0]
        if denied := DENIED.search(reason):
            return WarehouseAccessError(
                f"the database user of {self.place} lacks a right: {denied[0].strip()}; GRANT it, or run as another user",
                statement_id,
            )
        kind, advice = StatementError, ""
        if CONFLICT.search(reason):
            kind, advice = StatementConflictError, "; run it again when no other load of the warehouse runs"
        if request.operation == "execute_statement":
            return kind(f"Redshift: {reason}{advice}", statement_id, reason, statement, None)
        place = f"statement {index + 1} of {len(request.statements)}" if index is not None else "the transaction"
        shown = "" if index is None else f"; it begins: {' '.join(statement.split())[:SHOWN]}"
        return kind(
            f"Redshift failed {place}, and nothing was changed: {reason}{advice}{shown}",
            statement_id,
            reason,
            statement,
            index,
        )

    def _rows(self, described: Mapping[str, Any]) -> Rows:
        """The rows of a statement that finished, from all pages of its result."""
        statement_id, seconds = described["Id"], max(described.get("Duration", 0), 0) / 1e9
        if not described.get("HasResultSet"):
            return Rows((), (), [], statement_id, seconds, _count(described))
        values: list[tuple[Cell, ...]] = []
        columns: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            with self._named(statement_id):
                page = self._api.get_statement_result(Id=statement_id, **token)
            columns = columns or page.get("ColumnMetadata", [])
            values += [tuple(cell_of(cell) for cell in row) for row in page["Records"]]
            if not page.get("NextToken"):
                break
            token = {"NextToken": page["NextToken"]}
        total = page.get("TotalNumRows", len(values))
        if total != len(values):
            raise WarehouseError(f"Redshift gave {len(values):,} of {total:,} rows; run it again", statement_id)
        names = tuple(str(column.get("label") or column.get("name")) for column in columns)
        types = tuple(str(column.get("typeName", "")) for column in columns)
        return Rows(names, types, values, statement_id, seconds, len(values))

    @contextlib.contextmanager
    def _named(self, statement_id: str | None = None) -> Iterator[None]:
        """Turn boto3's errors into those of this module."""
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            raise self._refused(error, statement_id) from None
        except exceptions.NoCredentialsError:
            raise WarehouseAccessError(
                "there are no AWS credentials; set AWS_PROFILE, or run on a machine with a role"
            ) from None
        except exceptions.NoRegionError:
            raise WarehouseError("there is no AWS region; set AWS_REGION, or one in the profile") from None
        except exceptions.BotoCoreError as error:
            raise WarehouseError(f"no answer of AWS: {error}", statement_id) from None

    def _refused(self, error: Any, statement_id: str | None) -> WarehouseError:
        """The error of a call that AWS refused."""
        code, message = aws.code_of(error), aws.message_of(error)
        if code in aws.DENIED:
            right = aws.missing_right(message) or f"redshift-data:{error.operation_name}"
            return WarehouseAccessError(f"these credentials lack {right}: {message}", statement_id)
        if code in aws.REJECTED:
            return WarehouseAccessError(f"AWS rejects these credentials: {message}", statement_id)
        is_start = error.operation_name in ("ExecuteStatement", "BatchExecuteStatement")
        if is_start and (code == "ResourceNotFoundException" or NOT_THERE.search(message)):
            return WarehouseAccessError(
                f"{self.place}, database {self.redshift.database}: {message.rstrip('.')}. Check its name and the region "
                f"{self._api.meta.region_name}, and that the credentials have {self._login_right}",
                statement_id,
            )
        if code in BUSY:
            return WarehouseError(
                f"{self.place}: AWS refused {error.operation_name} {BUSY_ATTEMPTS} times, too many statements or sessions are "
                f"active ({code}); try again later",
                statement_id,
            )
        if code in aws.THROTTLED:
            return WarehouseError(
                f"AWS refused {error.operation_name} {aws.ATTEMPTS} times, too many requests ({code}); try again later",
                statement_id,
            )
        return WarehouseError(f"the Data API refused {error.operation_name}: {message} ({code})", statement_id)

    @property
    def _login_right(self) -> str:
        """The right by which the Data API gets credentials of the database."""
        if self.redshift.workgroup:
            return "redshift-serverless:GetCredentials"
        return "redshift:GetClusterCredentials" + ("" if self.redshift.db_user else "WithIAM")


def data_api_rights(redshift: Redshift, transactions: bool = True) -> Sequence[aws.Right]:
    """What statements by the Data API need, and `transactions` of several."""
    sends = ("redshift-data:ExecuteStatement", *(("redshift-data:BatchExecuteStatement",) if transactions else ()))
    follows = ("redshift-data:DescribeStatement", "redshift-data:GetStatementResult", "redshift-data:CancelStatement")
    place = WORKGROUP
    if redshift.cluster is None:
        credentials = aws.Right("RedshiftLogin", ("redshift-serverless:GetCredentials",), (WORKGROUP,))
    else:
        place = aws.arn("redshift", f"cluster:{redshift.cluster}")
        database = aws.arn("redshift", f"dbname:{redshift.cluster}/{redshift.database}")
        if redshift.db_user is None:
            credentials = aws.Right("RedshiftLogin", ("redshift:GetClusterCredentialsWithIAM",), (database,))
        else:
            user = aws.arn("redshift", f"dbuser:{redshift.cluster}/{redshift.db_user}")
            credentials = aws.Right("RedshiftLogin", ("redshift:GetClusterCredentials",), (database, user))
    return (
        aws.Right("Statements", sends, (place,)),
        aws.Right(
            "StatementsSent", follows, ("*",), reason="a statement has no ARN; AWS shows those of the same identity"
        ),
        credentials,
    )


def _check(statements: Sequence[str]) -> None:
    if not 0 < len(statements) <= MOST_STATEMENTS:
        raise StatementLimitError(
            f"{len(statements)} statements: the Data API takes 1 to {MOST_STATEMENTS} in one transaction"
        )
    for place, statement in enumerate(statements, start=1):
        if (size := len(statement.encode())) > LONGEST_STATEMENT:
            raise StatementLimitError(
                f"statement {place} has {size:,} bytes: the Data API takes {LONGEST_STATEMENT:,}; make it shorter"
            )


def _reads(request: _Request) -> bool:
    return all(READS.match(statement) for statement in request.statements)


def _count(described: Mapping[str, Any]) -> int | None:
    rows = int(described.get("ResultRows", -1))
    return None if rows < 0 else rows


def cell_of(cell: Mapping[str, Any]) -> Cell:
    """A value of a record: the one member that it has."""
    if cell.get("isNull"):
        return None
    return next(iter(cell.values()), None)
