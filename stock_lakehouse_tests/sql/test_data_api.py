"""Redshift's Data API, over the wire to a server of the tests: waits, retries, tokens, sessions, pages and errors by name."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql import data_api
from stock_lakehouse.sql.data_api import (
    DataApi,
    StatementCancelledError,
    StatementConflictError,
    StatementError,
    StatementLimitError,
    StatementTimeoutError,
    WarehouseAccessError,
    WarehouseError,
)
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.redshift_server import Faults, RedshiftServer, environment, redshift_server

WORKGROUP = Redshift(workgroup="stocks")
ADD = "INSERT INTO stocks.kept VALUES (1)"


@pytest.fixture(scope="module")
def running() -> Iterator[RedshiftServer]:
    with redshift_server() as state, s3.variables(environment(state)):
        yield state


@pytest.fixture
def server(running: RedshiftServer) -> RedshiftServer:
    """The server with a schema `stocks` and an empty table `kept`, and no faults."""
    running.faults.released.set()
    assert all(statement.ended.wait(10) for statement in running.statements.values())
    running.faults, running.page = Faults(), 1000
    running.most_active = running.most_sessions = 500
    running.database.execute("DROP SCHEMA IF EXISTS stocks CASCADE")
    running.database.execute("CREATE SCHEMA stocks")
    running.database.execute("CREATE TABLE stocks.kept (number BIGINT)")
    running.calls.clear()
    running.requests.clear()
    return running


@pytest.fixture(scope="module")
def client(running: RedshiftServer) -> Any:
    """One client for all tests: it takes a tenth of a second to make."""
    from stock_lakehouse import aws

    return aws.client("redshift-data")


@pytest.fixture
def api(server: RedshiftServer, client: Any) -> DataApi:
    """A client that does not pause."""
    api = DataApi(WORKGROUP, 1.0, client)
    api.sleep = lambda seconds: None
    return api


def kept(server: RedshiftServer) -> list[int]:
    return [row[0] for row in server.database.cursor().execute("SELECT number FROM stocks.kept ORDER BY 1").fetchall()]


def submissions(server: RedshiftServer) -> list[dict[str, Any]]:
    return [body for operation, body in server.requests if operation.endswith("ExecuteStatement")]


def test_rows_come_with_names_types_and_exact_values(api: DataApi) -> None:
    found = api.run(
        "SELECT 1 AS a, CAST(12345678901234.25 AS NUMERIC(20, 2)) AS b, CAST('2024-01-02' AS DATE) AS c, CAST('0.1' AS DOUBLE "
        "PRECISION) AS d, TRUE AS e, CAST(NULL AS INTEGER) AS f, '' AS g, CAST('2024-01-02 03:04:05.000006' AS TIMESTAMP) AS h"
    )
    assert found.names == ("a", "b", "c", "d", "e", "f", "g", "h")
    assert found.types == ("int4", "numeric", "date", "float8", "bool", "int4", "varchar", "timestamp")
    row = (1, "12345678901234.25", "2024-01-02", 0.1, True, None, "", "2024-01-02 03:04:05.000006")
    assert found.values == [row]
    assert found.column("b") == ["12345678901234.25"]
    assert found.affected == 1


def test_a_value_of_a_user_is_a_parameter_and_never_sql(api: DataApi, server: RedshiftServer) -> None:
    text = "x'; DROP TABLE stocks.kept --"
    assert api.run("SELECT :name AS name", {"name": text}).values == [(text,)]
    assert submissions(server)[-1]["Parameters"] == [{"name": "name", "value": text}]
    assert kept(server) == []


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2000, 2500])
def test_all_pages_are_read_in_order(api: DataApi, server: RedshiftServer, rows: int) -> None:
    server.database.execute("INSERT INTO stocks.kept SELECT range FROM range(?)", [rows])
    found = api.run("SELECT number FROM stocks.kept ORDER BY 1")
    assert found.column("number") == list(range(rows))
    assert server.calls["GetStatementResult"] == max(-(-rows // 1000), 1)


def test_a_short_result_is_three_calls_and_waits_in_aws(api: DataApi, server: RedshiftServer) -> None:
    server.faults.step = 0.3
    api.sleep = lambda seconds: pytest.fail("the client pauses, and AWS could wait")
    api.run("SELECT 1 AS one")
    assert [operation for operation, _ in server.requests] == [
        "ExecuteStatement",
        "DescribeStatement",
        "GetStatementResult",
    ]
    assert 0 < server.requests[1][1]["WaitTimeSeconds"] <= 30
    assert api.calls == server.calls


def test_without_waiting_calls_pauses_grow_to_a_bound(
    api: DataApi, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    states = iter(["PICKED"] * 2 + ["STARTED"] * 10 + ["FINISHED"])
    monkeypatch.setattr(client, "describe_statement", lambda Id: {"Id": Id, "Status": next(states)})  # noqa: N803
    api.__dict__["_can_wait"] = False
    api.sleep = pauses.append
    api.run("SELECT 1 AS one")
    assert pauses[:4] == pytest.approx([0.2, 0.3, 0.45, 0.675])
    assert pauses[-3:] == [5.0, 5.0, 5.0]


def test_a_transaction_says_what_each_statement_changed(api: DataApi, server: RedshiftServer) -> None:
    numbers = api.transaction(
        [ADD, "INSERT INTO stocks.kept SELECT 2 UNION ALL SELECT 3", "DELETE FROM stocks.kept WHERE number < 3"],
        "run-1",
    )
    assert list(numbers) == [1, 2, 2]
    assert kept(server) == [3]
    assert submissions(server)[-1]["ExecutionMode"] == "TRANSACTION"
    assert api.writes == 3
    api.run("SELECT 1 AS one")
    assert api.writes == 3


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_transaction_that_fails_at_any_statement_changes_nothing_and_names_it(
    api: DataApi, server: RedshiftServer, failing: int
) -> None:
    server.faults.fails_at = failing
    statements = [ADD, "DELETE FROM stocks.kept WHERE number = 9", "INSERT INTO stocks.kept VALUES (2)"]
    with pytest.raises(
        StatementError, match=f"failed statement {failing} of 3, and nothing was changed: ERROR: Disk Full"
    ) as error:
        api.transaction(statements, f"run-2-{failing}")
    assert (error.value.index, error.value.statement) == (failing - 1, statements[failing - 1])
    assert statements[failing - 1] in str(error.value)
    assert error.value.query_id in server.statements
    assert kept(server) == []


def test_a_statement_that_fails_repeats_the_words_of_redshift_in_one_line(api: DataApi) -> None:
    with pytest.raises(StatementError, match=r"Redshift: ERROR: .*nothing.* does not exist") as error:
        api.run("SELECT * FROM nothing")
    assert "\n" not in str(error.value)
    assert error.value.index is None


def test_a_lost_answer_is_asked_for_again_and_the_statement_runs_once(api: DataApi, server: RedshiftServer) -> None:
    server.faults.unanswered = 2
    api.transaction([ADD], "run-3")
    sent = submissions(server)
    assert len(sent) == 3
    assert len({body["ClientToken"] for body in sent}) == 1
    assert kept(server) == [1]


def test_a_transaction_with_the_same_key_is_the_same_and_with_another_one_not(
    api: DataApi, server: RedshiftServer
) -> None:
    for key, rows in (("run-4", [1]), ("run-4", [1]), ("run-5", [1, 1])):
        api.transaction([ADD], key)
        assert kept(server) == rows
    api.run(ADD)
    api.run(ADD)
    assert kept(server) == [1, 1, 1, 1]


def test_a_conflict_with_another_load_is_repeated_as_another_statement(api: DataApi, server: RedshiftServer) -> None:
    server.faults.conflicts = 3
    api.transaction([ADD], "run-6")
    assert kept(server) == [1]
    assert len({body["ClientToken"] for body in submissions(server)}) == 4


def test_conflicts_without_end_are_an_error(api: DataApi, server: RedshiftServer) -> None:
    server.faults.conflicts = 100
    with pytest.raises(StatementConflictError, match=r"1023.*run it again when no other load"):
        api.transaction([ADD], "run-7")
    assert len(submissions(server)) == 1 + data_api.CONFLICT_RETRIES
    assert kept(server) == []


@pytest.mark.parametrize("fault", ["busy", "no_sessions"])
def test_too_much_at_once_is_sent_again_and_in_the_end_an_error(
    api: DataApi, server: RedshiftServer, fault: str
) -> None:
    setattr(server.faults, fault, data_api.BUSY_ATTEMPTS - 1)
    api.transaction([ADD], f"run-{fault}")
    assert kept(server) == [1]
    assert len({body["ClientToken"] for body in submissions(server)}) == 1
    setattr(server.faults, fault, 100)
    with pytest.raises(
        WarehouseError, match=f"refused ExecuteStatement {data_api.BUSY_ATTEMPTS} times.*try again later"
    ):
        api.run(ADD)


@pytest.mark.parametrize("fault", ["throttled", "internal"])
def test_a_throttled_call_and_an_error_of_aws_are_repeated(api: DataApi, server: RedshiftServer, fault: str) -> None:
    setattr(server.faults, fault, 1)
    api.transaction([ADD], f"run-{fault}")
    assert kept(server) == [1]


def test_where_too_many_calls_wait_the_client_pauses_instead(api: DataApi, server: RedshiftServer) -> None:
    server.faults.waiting, server.faults.step = 1, 0.2
    pauses: list[float] = []
    api.sleep = lambda seconds: (pauses.append(seconds), time.sleep(seconds))  # type: ignore[assignment]
    api.run("SELECT 1 AS one")
    assert pauses


def test_more_than_the_api_takes_is_not_sent(api: DataApi, server: RedshiftServer) -> None:
    with pytest.raises(StatementLimitError, match="41 statements: the Data API takes 1 to 40"):
        api.transaction([ADD] * 41, "run-8")
    with pytest.raises(StatementLimitError, match="statement 2 has 100,011 bytes"):
        api.transaction([ADD, f"SELECT 'é{'x' * 100_000}'"], "run-9")
    with pytest.raises(StatementLimitError):
        api.transaction([], "run-10")
    assert server.requests == []
    assert len(api.transaction([ADD] * 40, "run-11")) == 40


def test_a_session_keeps_its_temporary_tables(api: DataApi, server: RedshiftServer) -> None:
    session = api.session(60)
    api.run("CREATE TEMP TABLE new_kept (LIKE stocks.kept)", session=session)
    api.run("INSERT INTO new_kept VALUES (7)", session=session)
    api.transaction(["INSERT INTO stocks.kept SELECT * FROM new_kept"], "run-12", session)
    assert kept(server) == [7]
    first, *others = submissions(server)
    assert (first["WorkgroupName"], first["Database"], first["SessionKeepAliveSeconds"]) == ("stocks", "dev", 60)
    assert all(body["SessionId"] == session.id and "WorkgroupName" not in body for body in others)
    with pytest.raises(StatementError, match="new_kept"):
        api.run("SELECT * FROM new_kept")


def test_a_session_that_has_ended_is_named(api: DataApi, server: RedshiftServer) -> None:
    session = api.session(60)
    api.run("SELECT 1 AS one", session=session)
    assert session.id is not None
    server.sessions[session.id] = server.sessions[session.id][0], 0.0
    with pytest.raises(WarehouseError, match="Session is not available"):
        api.run("SELECT 1 AS one", session=session)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Redshift(cluster="stocks-1"), {"ClusterIdentifier": "stocks-1", "Database": "dev"}),
        (
            Redshift(cluster="stocks-1", db_user="loader", database="market"),
            {"ClusterIdentifier": "stocks-1", "Database": "market", "DbUser": "loader"},
        ),
        (WORKGROUP, {"WorkgroupName": "stocks", "Database": "dev"}),
    ],
)
def test_a_cluster_and_a_workgroup_are_addressed(
    server: RedshiftServer, client: Any, settings: Redshift, said: dict[str, str]
) -> None:
    DataApi(settings, 1.0, client).run("SELECT 1 AS one")
    place = ("ClusterIdentifier", "WorkgroupName", "Database", "DbUser")
    assert {name: value for name, value in submissions(server)[0].items() if name in place} == said


def test_a_statement_is_cancelled_when_its_time_is_up(server: RedshiftServer, client: Any) -> None:
    server.faults.hangs = "kept"
    began = time.monotonic()
    with pytest.raises(StatementTimeoutError, match=r"longer than 0.01 minutes and was cancelled; nothing was changed"):
        DataApi(WORKGROUP, 0.01, client).transaction([ADD], "run-13")
    assert time.monotonic() - began < 10
    assert [statement.status for statement in server.statements.values()][-1] == "ABORTED"
    assert kept(server) == []


def test_a_statement_that_does_not_stop_is_said(
    server: RedshiftServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_api, "CANCEL_SECONDS", 0.1)
    server.faults.hangs, server.faults.deaf = "kept", True
    with pytest.raises(StatementTimeoutError, match="does not stop although it was cancelled"):
        DataApi(WORKGROUP, 0.002, client).transaction([ADD], "run-14")
    server.faults.released.set()


def test_a_statement_that_ends_while_it_is_cancelled_counts(
    server: RedshiftServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed: to call that a failure would be wrong."""
    server.faults.hangs = "kept"
    api = DataApi(WORKGROUP, 0.002, client)

    def ends_first(statement_id: str) -> None:
        server.faults.released.set()
        server.statements[statement_id].ended.wait(10)
        DataApi._cancel(api, statement_id)

    monkeypatch.setattr(api, "_cancel", ends_first)
    assert list(api.transaction([ADD], "run-15")) == [1]
    assert kept(server) == [1]


def test_a_statement_that_the_warehouse_cancels_is_an_error(api: DataApi, server: RedshiftServer) -> None:
    server.faults.aborts = True
    with pytest.raises(StatementCancelledError, match=r"somebody, or a rule of the warehouse.*nothing was changed"):
        api.transaction([ADD], "run-16")


class InterruptedByDagsterError(BaseException):
    """As Dagster's interruption of a step is no Exception."""


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, InterruptedByDagsterError])
def test_a_statement_of_an_interrupted_caller_is_cancelled(
    server: RedshiftServer, client: Any, interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.hangs = "kept"
    api = DataApi(WORKGROUP, 1.0, client)

    def interrupted(*_: Any) -> Any:
        raise interruption

    monkeypatch.setattr(api, "_describe", interrupted)
    with pytest.raises(interruption):
        api.transaction([ADD], f"run-{interruption.__name__}")
    statement = list(server.statements.values())[-1]
    assert statement.ended.wait(10)
    assert statement.status == "ABORTED"
    assert kept(server) == []


def test_a_statement_is_cancelled_when_the_interruption_comes_before_its_identifier(
    server: RedshiftServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.hangs = "kept"
    api, send = DataApi(WORKGROUP, 1.0, client), client.batch_execute_statement
    answers: list[str] = []

    def interrupted(**arguments: Any) -> Any:
        answers.append(send(**arguments)["Id"])
        if len(answers) == 1:
            raise KeyboardInterrupt
        return {"Id": answers[-1]}

    monkeypatch.setattr(client, "batch_execute_statement", interrupted)
    with pytest.raises(KeyboardInterrupt):
        api.transaction([ADD], "run-17")
    assert answers[0] == answers[1]
    assert server.statements[answers[0]].ended.wait(10)
    assert server.statements[answers[0]].status == "ABORTED"


@pytest.mark.slow
def test_ctrl_c_in_a_waiting_call_cancels_the_statement(server: RedshiftServer) -> None:
    server.faults.hangs = "kept"
    code = (
        "from stock_lakehouse.settings import Redshift\nfrom stock_lakehouse.sql.data_api import DataApi\n"
        "DataApi(Redshift(workgroup='stocks'), 5.0).transaction(['INSERT INTO stocks.kept VALUES (1)'], 'run-18')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not server.calls["DescribeStatement"] and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    statement = list(server.statements.values())[-1]
    assert statement.ended.wait(10)
    assert statement.status == "ABORTED"


@pytest.mark.parametrize("operation", ["ExecuteStatement", "DescribeStatement", "GetStatementResult"])
def test_an_action_that_is_not_allowed_is_named(api: DataApi, server: RedshiftServer, operation: str) -> None:
    server.faults.denied = frozenset({operation})
    with pytest.raises(WarehouseAccessError, match=f"these credentials lack redshift-data:{operation} on arn:aws:"):
        api.run("SELECT 1 AS one")


def test_a_right_that_the_database_user_lacks_is_named(api: DataApi, server: RedshiftServer) -> None:
    server.faults.fails = ("kept", "ERROR: permission denied for relation kept")
    with pytest.raises(
        WarehouseAccessError,
        match=r"database user of redshift.workgroup stocks lacks a right.*for relation kept; GRANT",
    ):
        api.run("SELECT * FROM stocks.kept")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Redshift(workgroup="nowhere"), "redshift.workgroup nowhere, .*redshift-serverless:GetCredentials"),
        (Redshift(cluster="nowhere"), "redshift.cluster nowhere, .*redshift:GetClusterCredentialsWithIAM"),
        (
            Redshift(cluster="nowhere", db_user="x"),
            "redshift.cluster nowhere, .*redshift:GetClusterCredentials$",
        ),
    ],
)
def test_a_place_that_does_not_exist_is_named_with_the_right_to_it(
    server: RedshiftServer, client: Any, settings: Redshift, said: str
) -> None:
    with pytest.raises(WarehouseAccessError, match=said):
        DataApi(settings, 1.0, client).run("SELECT 1 AS one")


def test_no_region_and_no_credentials_are_said(server: RedshiftServer, tmp_path: Any) -> None:
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    nothing |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with s3.variables(nothing), pytest.raises(WarehouseError, match="set AWS_REGION"):
        DataApi(WORKGROUP, 1.0).run("SELECT 1 AS one")
    with (
        s3.variables({**nothing, "AWS_REGION": "us-east-1"}),
        pytest.raises(WarehouseAccessError, match="no AWS credentials"),
    ):
        DataApi(WORKGROUP, 1.0).run("SELECT 1 AS one")


def test_the_clients_library_is_not_imported_before_a_statement() -> None:
    code = (
        "import sys, stock_lakehouse.sql.data_api, stock_lakehouse.sql.redshift\n"
        "print([name for name in ('boto3', 'botocore', 'pyarrow', 'sqlglot', 'duckdb') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_two_transactions_that_lock_a_table_run_one_after_the_other(server: RedshiftServer, client: Any) -> None:
    """The server's own lock, on which the tests of loads rely."""
    server.faults.step = 0.05
    add = "INSERT INTO stocks.kept SELECT COUNT(*) FROM stocks.kept"
    threads = [
        threading.Thread(
            target=DataApi(WORKGROUP, 1.0, client).transaction, args=(["LOCK TABLE stocks.kept", add], f"lock-{number}")
        )
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(server) == [0, 1, 2]
