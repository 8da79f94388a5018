"""SQL on Amazon Athena, by plain boto3: the workgroup, a query from its start to its rows, and its cost.

Here: calls of Athena and what their answers mean. Not here: values and types (values.py), which statements are allowed
(dialect.py), and how tables come into the catalog (catalog/).

Not taken: awswrangler needs an older pyarrow and creates tables for results, which fails with timestamps; PyAthena waits without
a bound; the Athena resource of dagster-aws has no database, no parameters and no cancellation.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stock_lakehouse import aws
from stock_lakehouse.settings import Aws
from stock_lakehouse.sql.dialect import translate
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
from stock_lakehouse.sql.parsing import refuse_writes
from stock_lakehouse.sql.values import NESTED, arrow_type, column_from_text, literals, table_of
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

CATALOG = "AwsDataCatalog"
ENGINE_VERSION = "Athena engine version 3"
# The description of a workgroup that this program made, and whose settings it therefore keeps equal to [aws].
OURS = "Queries of stock_lakehouse. Its settings come from [aws] of lakehouse.toml."
# The first answers come after about 0.2 s; later looks are rarer, because AWS throttles them.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
PAUSE_GROWTH = 1.5
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
PLACE = re.compile(r"^(?:[A-Z_]+: )?line (\d+):(\d+): (.*)", re.DOTALL)
OVER_LIMIT = "Bytes scanned limit was exceeded"
DENIALS = (
    "is not authorized to perform",
    "access denied",
    "accessdenied",
    "permission denied",
    "insufficient lake formation",
)
# AWS charges whole megabytes, at least ten a query; a terabyte is 1024⁴ bytes in its price list.
MB = 1 << 20
TB = 1 << 40
LEAST_CHARGED_MB = 10
LONGEST_PARAMETER = 1024  # characters of a literal: the limit of StartQueryExecution


@dataclass(frozen=True)
class Execution:
    """A query that succeeded.

    - query_id
    - scanned_bytes: bytes that Athena read
    - results: address of the CSV file with the rows; None if the workgroup keeps results itself
    """

    query_id: str
    scanned_bytes: int
    results: str | None


class AthenaEngine:
    """Athena on the tables of the lake's Glue database.

    - settings: the group [aws]: database, workgroup, results, scan limit, price
    - minutes: after this time a query is stopped
    - tables: the lake's tables by name, from which the types of a result are known before it is asked for
    """

    name = "athena"

    def __init__(self, settings: Aws, minutes: float, tables: Mapping[str, Table] = MappingProxyType({})) -> None:
        self.settings = settings
        self.minutes = minutes
        self.tables = tables

    def run(self, sql: str, parameters: Sequence[Parameter] = (), as_of: datetime | None = None) -> QueryResult:
        """The result of one SELECT; see QueryEngine.run.

        Raises QueryRefusedError for `as_of`, which Athena does not have on Delta tables, and for a nested result column.
        """
        if as_of is not None:
            raise QueryRefusedError(
                "Athena reads only the present version of a Delta table; with --as-of use --engine duckdb or trino"
            )
        refuse_writes(sql)
        self._refuse_nested(sql, parameters)
        began = time.monotonic()
        done = self.execute(sql, parameters)
        with _named(sql, done.query_id):
            rows = self._rows(done)
        return QueryResult(
            rows=rows,
            engine=self.name,
            query_id=done.query_id,
            scanned_bytes=done.scanned_bytes,
            seconds=time.monotonic() - began,
            dollars=self.dollars(done.scanned_bytes),
        )

    def _refuse_nested(self, sql: str, parameters: Sequence[Parameter]) -> None:
        """Raise QueryRefusedError for a nested column where the types are known before the query has cost anything."""
        try:
            columns = translate(sql, self.tables, parameters).columns
        except QueryError:
            return  # the dialect of DuckDB lacks something here that Athena may have; its answer has the types
        refuse_nested([(column.name, column.type) for column in columns])

    def execute(self, sql: str, parameters: Sequence[Parameter] = ()) -> Execution:
        """Run any statement to its end, without fetching rows.

        The query is stopped if this call ends before it does: at `minutes`, or when the caller is interrupted.
        Raises QueryTimeoutError, QuerySyntaxError, ScanLimitError, PermissionMissingError, QueryFailedError.
        """
        request: dict[str, Any] = {
            "QueryString": sql,
            # A start that is sent twice, because the first answer was lost, is one query.
            "ClientRequestToken": uuid.uuid4().hex,
            "QueryExecutionContext": {"Database": self.settings.glue_database, "Catalog": CATALOG},
            "WorkGroup": self.settings.athena_workgroup,
            **self._workgroup_request,
        }
        if given := literals(parameters):
            if too_long := [place for place, text in enumerate(given, start=1) if len(text) > LONGEST_PARAMETER]:
                raise QueryRefusedError(f"parameter {too_long[0]}: Athena allows {LONGEST_PARAMETER} characters")
            request["ExecutionParameters"] = given
        with _named(sql, None):
            query_id = self._start(request)
        with _named(sql, query_id):
            return self._wait(sql, query_id)

    def ensure_workgroup(self) -> None:
        """Create the workgroup if it does not exist, for others who use it. Raises QueryFailedError, PermissionMissingError."""
        _ = self._workgroup_request

    def dollars(self, scanned_bytes: int) -> float:
        """What a query that read so many bytes is charged."""
        megabytes = max(-(-scanned_bytes // MB), LEAST_CHARGED_MB)
        return megabytes * MB / TB * self.settings.athena_dollars_per_tb

    @cached_property
    def _athena(self) -> Any:
        with _named("", None):
            return aws.client("athena")

    @cached_property
    def _workgroup_request(self) -> dict[str, Any]:
        """What a start has to say beside the workgroup's name. The workgroup is created if it does not exist."""
        with _named("", None):
            group = self._workgroup()
        if group is None:
            return {}
        settings = group.get("Configuration", {})
        has_place = settings.get("ResultConfiguration", {}).get("OutputLocation")
        keeps_results = settings.get("ManagedQueryResultsConfiguration", {}).get("Enabled", False)
        if has_place or keeps_results:
            return {}
        return {"ResultConfiguration": self._result_configuration()}

    def _workgroup(self) -> dict[str, Any] | None:
        """The workgroup as somebody else made it; None if it is this program's, which is then as [aws] says."""
        name, wanted = self.settings.athena_workgroup, self._configuration()
        try:
            group: dict[str, Any] = self._athena.get_work_group(WorkGroup=name)["WorkGroup"]
        except self._athena.exceptions.InvalidRequestException as error:
            if "is not found" not in aws.message_of(error):
                raise
            try:
                self._athena.create_work_group(Name=name, Description=OURS, Configuration=wanted)
            except self._athena.exceptions.InvalidRequestException as created:
                if "already created" not in aws.message_of(created):  # by another process, just now
                    raise
            return None
        if group.get("Description") != OURS:
            limit = group.get("Configuration", {}).get("BytesScannedCutoffPerQuery")
            if limit != wanted["BytesScannedCutoffPerQuery"]:
                logger.warning(
                    "workgroup %s was not made by this program: its own limit counts (%s), not aws.athena_scan_limit_mb",
                    name,
                    "no limit" if limit is None else f"{limit // 1_000_000} MB a query",
                )
            return group
        if not _contains(group.get("Configuration", {}), wanted):
            updates = {
                "EnforceWorkGroupConfiguration": True,
                "BytesScannedCutoffPerQuery": wanted["BytesScannedCutoffPerQuery"],
                "ResultConfigurationUpdates": wanted["ResultConfiguration"],
                "EngineVersion": wanted["EngineVersion"],
            }
            self._athena.update_work_group(WorkGroup=name, ConfigurationUpdates=updates)
        return None

    def _configuration(self) -> dict[str, Any]:
        return {
            "EnforceWorkGroupConfiguration": True,
            "PublishCloudWatchMetricsEnabled": True,
            "BytesScannedCutoffPerQuery": self.settings.athena_scan_limit_mb * 1_000_000,
            "EngineVersion": {"SelectedEngineVersion": ENGINE_VERSION},
            "ResultConfiguration": self._result_configuration(),
        }

    def _result_configuration(self) -> dict[str, Any]:
        place = self.settings.athena_results
        if place is None:
            raise QueryFailedError(
                "aws.athena_results is not set: Athena needs a place for results, s3://bucket/prefix"
            )
        key = self.settings.athena_kms_key
        encryption = {"EncryptionOption": "SSE_KMS", "KmsKey": key} if key else {"EncryptionOption": "SSE_S3"}
        return {"OutputLocation": place.rstrip("/") + "/", "EncryptionConfiguration": encryption}

    def _start(self, request: dict[str, Any]) -> str:
        """The identifier of the query that was started."""
        from botocore.exceptions import BotoCoreError, ClientError

        query_id: str | None = None
        try:
            query_id = self._athena.start_query_execution(**request)["QueryExecutionId"]
            return query_id
        except (BotoCoreError, ClientError):
            raise
        except BaseException:
            # Ctrl-C came before the answer, and the query may run. The same token gives its identifier.
            self._stop(self._athena.start_query_execution(**request)["QueryExecutionId"])
            raise

    def _wait(self, sql: str, query_id: str) -> Execution:
        until = time.monotonic() + self.minutes * 60
        pause, state = FIRST_PAUSE_SECONDS, "QUEUED"
        try:
            while True:
                time.sleep(max(0.0, min(pause, until - time.monotonic())))
                pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
                execution = self._athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
                state = execution["Status"]["State"]
                if state in ENDED:
                    break
                if time.monotonic() >= until:
                    raise QueryTimeoutError(
                        f"the query was stopped after {self.minutes:g} minutes; query_minutes sets that time", query_id
                    )
        finally:
            if state not in ENDED:
                self._stop(query_id)
        scanned = int(execution.get("Statistics", {}).get("DataScannedInBytes", 0))
        if state != "SUCCEEDED":
            raise self._failure(sql, query_id, state, execution["Status"].get("StateChangeReason", ""), scanned)
        place = execution.get("ResultConfiguration", {}).get("OutputLocation")
        return Execution(query_id, scanned, place)

    def _stop(self, query_id: str) -> None:
        """Stop a query that nobody waits for. A failure is logged: the error that ended the wait is the one to report."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._athena.stop_query_execution(QueryExecutionId=query_id)
        except (BotoCoreError, ClientError) as error:
            logger.warning("query %s could not be stopped and goes on: %s", query_id, aws.message_of(error))

    def _failure(self, sql: str, query_id: str, state: str, reason: str, scanned: int) -> QueryError:
        if state == "CANCELLED" and OVER_LIMIT in reason:
            return ScanLimitError(
                f"the query was cancelled after it had scanned {scanned / 1e6:,.1f} MB: the limit of workgroup "
                f"{self.settings.athena_workgroup} is reached. Ask for fewer columns, or name ticker and year in WHERE; "
                "aws.athena_scan_limit_mb sets the limit",
                query_id,
            )
        if state == "CANCELLED":
            return QueryFailedError(f"somebody stopped the query: {reason or 'Athena gives no reason'}", query_id)
        return _error_of(reason or "Athena gives no reason", sql, query_id)

    def _rows(self, done: Execution) -> pa.Table:
        """The rows of a query: from its CSV file, or page by page if the workgroup keeps results itself."""
        first = self._athena.get_query_results(QueryExecutionId=done.query_id, MaxResults=1 if done.results else 1000)
        columns = first["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
        refuse_nested([(column["Name"], column["Type"]) for column in columns], done.query_id)
        kinds = [arrow_type(column["Type"], column.get("Precision", 0), column.get("Scale", 0)) for column in columns]
        texts = (
            self._from_csv(done.query_id, done.results, len(columns))
            if done.results
            else self._from_pages(done.query_id, first)
        )
        names = [column["Name"] for column in columns]
        return table_of(names, [column_from_text(text, kind) for text, kind in zip(texts, kinds, strict=True)])

    def _from_csv(self, query_id: str, place: str, count: int) -> list[pa.ChunkedArray]:
        """The columns of a result file as text: an empty field without quotes is null, one with quotes is empty text."""
        import tempfile

        import pyarrow as pa
        from botocore.exceptions import ClientError
        from pyarrow import csv

        bucket, key = place.removeprefix("s3://").split("/", 1)
        names = [str(index) for index in range(count)]
        with tempfile.TemporaryFile() as file:
            try:
                aws.client("s3").download_fileobj(bucket, key, file)
            except ClientError as error:
                if aws.code_of(error) not in (*aws.DENIED, "403"):
                    raise
                raise PermissionMissingError(
                    f"these credentials lack s3:GetObject on arn:aws:s3:::{bucket}/{key}, the result of the query",
                    query_id,
                ) from None
            file.seek(0)
            table = csv.read_csv(
                file,
                # The header is skipped as a parsed row: a column's name may hold a line break.
                csv.ReadOptions(column_names=names, skip_rows_after_names=1),
                csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
        return list(table.columns)

    def _from_pages(self, query_id: str, page: dict[str, Any]) -> list[pa.ChunkedArray]:
        """The columns of all pages as text; `page` is the first, whose first row is the header."""
        import pyarrow as pa

        count = len(page["ResultSet"]["ResultSetMetadata"]["ColumnInfo"])
        rows = page["ResultSet"]["Rows"][1:]
        while token := page.get("NextToken"):
            page = self._athena.get_query_results(QueryExecutionId=query_id, MaxResults=1000, NextToken=token)
            rows += page["ResultSet"]["Rows"]
        texts = [[row["Data"][index].get("VarCharValue") for row in rows] for index in range(count)]
        return [pa.chunked_array([pa.array(column, pa.string())]) for column in texts]


def query_rights(settings: Aws) -> Sequence[aws.Right]:
    """What a query needs, beside reading the lake and the place of the results: Athena takes both from who asks."""
    actions = (
        "athena:GetWorkGroup", "athena:StartQueryExecution", "athena:GetQueryExecution", "athena:GetQueryResults",
        "athena:StopQueryExecution",
    )  # fmt: skip
    return (
        aws.Right("Queries", actions, (_workgroup(settings),)),
        aws.Right("QueriedTables", aws.GLUE_READS, aws.glue_tables(settings.glue_database)),
    )


def workgroup_rights(settings: Aws) -> Sequence[aws.Right]:
    """What `AthenaEngine.ensure_workgroup` needs."""
    actions = ("athena:GetWorkGroup", "athena:CreateWorkGroup", "athena:UpdateWorkGroup")
    return (aws.Right("Workgroup", actions, (_workgroup(settings),)),)


def view_rights(settings: Aws) -> Sequence[aws.Right]:
    """What writing the views of reports needs (sql/views.py)."""
    actions = ("glue:GetTable", "glue:CreateTable", "glue:UpdateTable")
    return (aws.Right("Views", actions, aws.glue_tables(settings.glue_database)),)


def _workgroup(settings: Aws) -> str:
    return aws.arn("athena", f"workgroup/{settings.athena_workgroup}")


def refuse_nested(columns: Sequence[tuple[str, str]], query_id: str | None = None) -> None:
    """Raise QueryRefusedError if a result column, given by name and type, is nested."""
    for name, kind in columns:
        if kind.lower().startswith(NESTED):
            raise QueryRefusedError(
                f"column {name} is of type {kind}, which Athena writes as text that cannot be read back: of ['a, b'] and "
                f"['a', 'b'] it is the same. Use array_join({name}, ', '), cardinality, or json_format(CAST({name} AS json))",
                query_id=query_id,
            )


def _contains(settings: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether `settings` has all that `wanted` has. A service adds fields of its own, and never says the KMS key of SSE_S3."""
    return all(
        _contains(settings.get(name, {}), value) if isinstance(value, dict) else settings.get(name) == value
        for name, value in wanted.items()
    )


def _error_of(message: str, sql: str, query_id: str | None) -> QueryError:
    """The error that a message of Athena stands for: of a failed query, or of a refused call."""
    if place := PLACE.match(message):
        return QuerySyntaxError(place[3].strip(), sql, int(place[1]), int(place[2]), query_id)
    if any(sign in message.lower() for sign in DENIALS):
        right = aws.missing_right(message)
        return PermissionMissingError(f"these credentials lack {right}: {message}" if right else message, query_id)
    return QueryFailedError(f"Athena: {message}", query_id)


@contextmanager
def _named(sql: str, query_id: str | None) -> Iterator[None]:
    """Turn boto3's errors into those of this package."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code, message = aws.code_of(error), aws.message_of(error)
        if code in aws.DENIED:
            right = aws.missing_right(message) or f"a right for {error.operation_name}"
            raise PermissionMissingError(f"these credentials lack {right}: {message}", query_id) from None
        if code in aws.REJECTED:
            raise PermissionMissingError(f"AWS rejects these credentials: {message}", query_id) from None
        if code in aws.THROTTLED:
            raise QueryFailedError(
                f"AWS refused {error.operation_name} {aws.ATTEMPTS} times, too many requests ({code}); try again later, "
                "run fewer queries at once, or ask AWS for a higher quota",
                query_id,
            ) from None
        raise _error_of(message, sql, query_id) from None
    except exceptions.NoCredentialsError:
        raise PermissionMissingError(
            "there are no AWS credentials; set AWS_PROFILE, or run on a machine with a role"
        ) from None
    except exceptions.NoRegionError:
        raise QueryFailedError("there is no AWS region; set AWS_REGION, or one in the profile") from None
    except exceptions.BotoCoreError as error:
        raise QueryFailedError(f"no answer of AWS: {error}", query_id) from None
