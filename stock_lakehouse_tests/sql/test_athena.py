"""The client of Athena, against a server that speaks Athena's API and executes on DuckDB. A real engine: test_real_trino.py."""

from __future__ import annotations

import _thread
import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from stock_lakehouse import aws
from stock_lakehouse.settings import Aws
from stock_lakehouse.sql import athena
from stock_lakehouse.sql.athena import AthenaEngine
from stock_lakehouse.sql.engine import (
    PermissionMissingError,
    QueryFailedError,
    QueryRefusedError,
    QuerySyntaxError,
    QueryTimeoutError,
    ScanLimitError,
)
from stock_lakehouse.sql.views import put_view
from stock_lakehouse.tables import QUARANTINE
from stock_lakehouse_tests import athena_gateway, s3
from stock_lakehouse_tests.athena_gateway import Gateway, OnDuckDB

BUCKET = "results"
ENDLESS = """SELECT count(*) AS n FROM unnest(sequence(1, 1000000)) AS a(x) CROSS JOIN unnest(sequence(1, 1000000)) AS b(y)
WHERE x * y < 0"""
BARS = """
CREATE TABLE bars AS SELECT * FROM (VALUES
  ('BRK-B', DATE '2023-01-03', 309.9::DOUBLE, ''),
  ('BF.B', DATE '2023-01-04', NULL, NULL),
  ('EURUSD=X', NULL, 1.06::DOUBLE, 'a "quoted", text
with a line break')) AS bar(ticker, date, close, note)
"""


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with s3.moto() as endpoint:
        s3.make_bucket(endpoint, BUCKET)
        yield endpoint


@pytest.fixture
def gateway(moto: str) -> Iterator[Gateway]:
    connection = duckdb.connect()
    connection.execute(BARS)
    with (
        athena_gateway.gateway(OnDuckDB(connection, 12_345_678), moto) as running,
        s3.variables(athena_gateway.environment(running)),
    ):
        yield running


@pytest.fixture
def settings() -> Aws:
    return Aws(athena_results=f"s3://{BUCKET}/athena")


@pytest.fixture
def engine(gateway: Gateway, settings: Aws) -> AthenaEngine:
    return AthenaEngine(settings, minutes=1.0)


def test_rows_come_with_types_and_null_is_not_empty_text(engine: AthenaEngine) -> None:
    result = engine.run("SELECT ticker, date, close, note FROM bars ORDER BY ticker")
    assert result.rows.schema == pa.schema(
        [("ticker", pa.string()), ("date", pa.date32()), ("close", pa.float64()), ("note", pa.string())]
    )
    assert result.rows.to_pylist() == [
        {"ticker": "BF.B", "date": date(2023, 1, 4), "close": None, "note": None},
        {"ticker": "BRK-B", "date": date(2023, 1, 3), "close": 309.9, "note": ""},
        {"ticker": "EURUSD=X", "date": None, "close": 1.06, "note": 'a "quoted", text\nwith a line break'},
    ]


def test_a_result_says_the_query_the_bytes_and_the_cost(engine: AthenaEngine, gateway: Gateway) -> None:
    result = engine.run("SELECT 1 AS one")
    assert (result.engine, result.query_id, result.scanned_bytes) == ("athena", *gateway.queries, 12_345_678)
    # 12,345,678 bytes are 11.8 MB, of which AWS charges 12: 12 / 1024² TB at 5 dollars.
    assert result.dollars == pytest.approx(12 / 1024**2 * 5)
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("scanned", "megabytes"), [(0, 10), (1, 10), (10 << 20, 10), ((10 << 20) + 1, 11), (1 << 40, 1 << 20)]
)
def test_whole_megabytes_are_charged_and_at_least_ten(settings: Aws, scanned: int, megabytes: int) -> None:
    assert AthenaEngine(settings, 1.0).dollars(scanned) == pytest.approx(5 * megabytes / 1024**2)


@pytest.mark.parametrize("keeps_results", [False, True])
def test_every_type_is_read_from_a_file_and_from_pages(
    engine: AthenaEngine, gateway: Gateway, keeps_results: bool
) -> None:
    gateway.faults.keeps_results = keeps_results
    rows = engine.run("""
        SELECT CAST(7 AS tinyint) AS a, CAST(-7 AS smallint) AS b, 7 AS c, CAST(7 AS bigint) AS d, CAST(0.5 AS real) AS e,
          1e300 AS f, CAST('1.20' AS decimal(12, 2)) AS g, true AS h, DATE '0001-01-01' AS i,
          TIMESTAMP '2024-05-03 09:30:00.123' AS j, CAST(TIMESTAMP '2024-05-03 09:30:00.123' AS timestamp with time zone) AS k,
          '' AS l, NULL AS m, CAST('ab' AS varbinary) AS n, CAST(NULL AS double) AS a""").rows
    assert rows.column_names == [*"abcdefghijklmn", "a"]
    moment = datetime(2024, 5, 3, 9, 30, 0, 123_000)
    assert [column.to_pylist() for column in rows.columns] == [
        *([7], [-7], [7], [7], [0.5], [1e300], [Decimal("1.20")], [True], [date(1, 1, 1)], [moment]),
        *([moment.replace(tzinfo=UTC)], [""], [None], [b"ab"], [None]),
    ]
    kinds = ["int8", "int16", "int32", "int64", "float", "double", "decimal128(12, 2)", "bool", "date32[day]"]
    kinds += ["timestamp[us]", "timestamp[us, tz=UTC]", "string", "int32", "binary", "double"]
    assert [str(kind) for kind in rows.schema.types] == kinds


def test_doubles_that_are_no_numbers_come_through(engine: AthenaEngine) -> None:
    rows = engine.run(
        "SELECT CAST('NaN' AS double) AS a, CAST('Infinity' AS double) AS b, -CAST('Infinity' AS double) AS c"
    ).rows
    assert [str(value) for value in rows.to_pylist()[0].values()] == ["nan", "inf", "-inf"]


@pytest.mark.parametrize("keeps_results", [False, True])
def test_all_pages_are_read(engine: AthenaEngine, gateway: Gateway, keeps_results: bool) -> None:
    gateway.faults.keeps_results = keeps_results
    rows = engine.run("SELECT x AS n FROM unnest(sequence(1, 4533)) AS t(x) ORDER BY x").rows
    assert rows["n"].to_pylist() == list(range(1, 4534))
    # A page holds 1000 rows with the header among them, so 4534 are five pages. A file needs one call, for the types.
    assert gateway.calls["GetQueryResults"] == (5 if keeps_results else 1)


def test_a_column_of_nulls_alone_has_all_its_rows(engine: AthenaEngine) -> None:
    rows = engine.run("SELECT CAST(NULL AS varchar) AS a FROM bars").rows
    assert rows["a"].to_pylist() == [None, None, None]


def test_no_rows_have_their_types(engine: AthenaEngine) -> None:
    rows = engine.run("SELECT ticker, date, close FROM bars WHERE close < 0").rows
    assert rows.num_rows == 0
    assert [str(kind) for kind in rows.schema.types] == ["string", "date32[day]", "double"]


def test_parameters_are_bound_as_literals(engine: AthenaEngine, gateway: Gateway) -> None:
    sql = "SELECT ticker FROM bars WHERE ticker = ? OR date = ? OR close > ? ORDER BY ticker"
    assert engine.run(sql, ("x' OR 'y' = 'y", date(2023, 1, 4), 300.0)).rows["ticker"].to_pylist() == ["BF.B", "BRK-B"]
    (start,) = [asked for action, asked in gateway.requests if action == "StartQueryExecution"]
    assert start["QueryString"] == sql
    assert start["ExecutionParameters"] == ["'x'' OR ''y'' = ''y'", "DATE '2023-01-04'", "300.0E0"]


@pytest.mark.parametrize("parameter", [float("nan"), 1 << 63, "x" * 1024, object()])
def test_a_parameter_without_a_literal_is_refused_before_a_query_starts(
    engine: AthenaEngine, gateway: Gateway, parameter: Any
) -> None:
    with pytest.raises(QueryRefusedError, match="parameter 2"):
        engine.run("SELECT ?, ?", (1, parameter))
    assert gateway.calls["StartQueryExecution"] == 0


def test_a_moment_of_the_past_is_refused_in_one_line(engine: AthenaEngine, gateway: Gateway) -> None:
    with pytest.raises(QueryRefusedError, match="present version") as caught:
        engine.run("SELECT 1", as_of=datetime(2024, 3, 31, tzinfo=UTC))
    assert "\n" not in str(caught.value)
    assert not gateway.calls


def test_an_error_shows_its_place_in_the_sql(engine: AthenaEngine, gateway: Gateway) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        engine.run("SELECT ticker,\n  clos\nFROM bars")
    (query_id,) = gateway.queries
    assert (caught.value.line, caught.value.column, caught.value.query_id) == (2, 3, query_id)
    assert (
        str(caught.value) == f"line 2, column 3: Column 'clos' cannot be resolved (query {query_id})\n    clos\n    ^"
    )


def test_a_nested_column_is_refused_by_name(engine: AthenaEngine, gateway: Gateway) -> None:
    with pytest.raises(QueryRefusedError, match=r"column tickers is of type array.*array_join\(tickers"):
        engine.run("SELECT array_agg(ticker) AS tickers FROM bars")


def test_a_nested_column_of_a_known_table_is_refused_before_the_query_is_asked(settings: Aws, gateway: Gateway) -> None:
    engine = AthenaEngine(settings, 1.0, {"processed_quarantine": QUARANTINE})
    with pytest.raises(QueryRefusedError, match="column reasons is of type array"):
        engine.run("SELECT ticker, reasons FROM processed_quarantine")
    assert not gateway.calls


@pytest.mark.parametrize(
    "sql", ["DROP TABLE bars", "INSERT INTO bars SELECT 1", "SELECT 1; DROP TABLE bars", "EXPLAIN ANALYZE x"]
)
def test_nothing_but_one_query_is_asked(engine: AthenaEngine, gateway: Gateway, sql: str) -> None:
    with pytest.raises(QueryRefusedError):
        engine.run(sql)
    assert not gateway.calls


def test_the_workgroup_is_created_once_enforced_encrypted_and_limited(
    settings: Aws, engine: AthenaEngine, gateway: Gateway
) -> None:
    engine.run("SELECT 1 AS one")
    AthenaEngine(settings, 1.0).run("SELECT 1 AS one")
    assert (gateway.calls["CreateWorkGroup"], gateway.calls["UpdateWorkGroup"]) == (1, 0)
    assert gateway.workgroups["lakehouse"]["Configuration"] == {
        "EnforceWorkGroupConfiguration": True,
        "PublishCloudWatchMetricsEnabled": True,
        "BytesScannedCutoffPerQuery": 1_000_000_000,
        "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
        "ResultConfiguration": {
            "OutputLocation": f"s3://{BUCKET}/athena/",
            "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
        },
    }


def test_a_workgroup_of_this_program_follows_the_settings(
    settings: Aws, engine: AthenaEngine, gateway: Gateway
) -> None:
    engine.run("SELECT 1 AS one")
    key = "arn:aws:kms:us-east-1:123456789012:key/results"
    changed = settings.model_copy(update={"athena_scan_limit_mb": 50, "athena_kms_key": key})
    AthenaEngine(changed, 1.0).run("SELECT 1 AS one")
    configuration = gateway.workgroups["lakehouse"]["Configuration"]
    assert configuration["BytesScannedCutoffPerQuery"] == 50_000_000
    encryption = configuration["ResultConfiguration"]["EncryptionConfiguration"]
    assert encryption == {"EncryptionOption": "SSE_KMS", "KmsKey": key}
    assert gateway.calls["UpdateWorkGroup"] == 1


def test_somebody_elses_workgroup_is_left_alone_and_its_limit_named(
    settings: Aws, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = {"Name": "primary", "Configuration": {"BytesScannedCutoffPerQuery": 20_000_000}}
    gateway.workgroups["primary"] = theirs
    before = dict(theirs)
    engine = AthenaEngine(settings.model_copy(update={"athena_workgroup": "primary"}), 1.0)
    assert (
        engine.run("SELECT 1 AS one").rows.num_rows == 1
    )  # the results go where the settings say: this group has no place
    assert gateway.workgroups["primary"] == before
    assert "its own limit counts (20 MB a query)" in caplog.text


def test_a_view_is_written_until_the_catalog_has_its_text(engine: AthenaEngine, gateway: Gateway, moto: str) -> None:
    glue, name = s3.client(moto, "glue"), "closes"
    sql = "-- a report\nSELECT ticker, close FROM bars ORDER BY ticker\n"
    glue.create_database(DatabaseInput={"Name": "lakehouse"})
    assert put_view(engine, glue, name, sql) == "written"
    (asked,) = [asked["QueryString"] for action, asked in gateway.requests if action == "StartQueryExecution"]
    assert asked.startswith(f"CREATE OR REPLACE VIEW {name} AS\nSELECT * FROM (\n{sql.rstrip()}\n) AS text_")
    # As Athena stores it: formatted, without the comment, in JSON, in base64.
    stored = {
        "originalSql": f"SELECT *\nFROM\n  (SELECT ticker, close FROM bars) {asked.rpartition(' ')[2]}",  # noqa: S608
        "columns": [],
    }
    encoded = base64.b64encode(json.dumps(stored).encode()).decode()
    view = {"Name": name, "TableType": "VIRTUAL_VIEW", "ViewOriginalText": f"/* Presto View: {encoded} */"}
    glue.create_table(DatabaseName="lakehouse", TableInput=view)
    assert put_view(engine, glue, name, sql) == "unchanged"
    assert put_view(engine, glue, name, sql + "LIMIT 1") == "written"
    glue.create_table(DatabaseName="lakehouse", TableInput={"Name": "taken", "TableType": "EXTERNAL_TABLE"})
    with pytest.raises(QueryRefusedError, match=r"lakehouse\.taken is a table"):
        put_view(engine, glue, "taken", sql)
    assert gateway.calls["StartQueryExecution"] == 2


def test_throttling_is_survived_twice(engine: AthenaEngine, gateway: Gateway) -> None:
    gateway.faults.throttled = 2
    assert engine.run("SELECT 1 AS one").rows.num_rows == 1


def test_throttling_without_end_is_an_error(
    engine: AthenaEngine, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.run("SELECT 1 AS one")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # of botocore's pauses, a minute in all
    gateway.faults.throttled, before = 50, gateway.calls["StartQueryExecution"]
    with pytest.raises(QueryFailedError, match="StartQueryExecution 8 times, too many requests"):
        engine.run("SELECT 1 AS one")
    assert gateway.calls["StartQueryExecution"] - before == aws.ATTEMPTS == 8


def test_a_start_whose_answer_was_lost_is_one_query(engine: AthenaEngine, gateway: Gateway) -> None:
    engine.run("SELECT 1 AS one")
    gateway.faults.unanswered = 1
    engine.run("SELECT 2 AS two")
    starts = [asked for action, asked in gateway.requests if action == "StartQueryExecution"]
    assert len(starts) == 3
    assert starts[1]["ClientRequestToken"] == starts[2]["ClientRequestToken"] != starts[0]["ClientRequestToken"]
    assert len(gateway.queries) == 2


def test_the_scan_limit_cancels_and_says_how_much_was_scanned(engine: AthenaEngine, gateway: Gateway) -> None:
    gateway.faults.scan_limit = 10_000_000
    with pytest.raises(
        ScanLimitError, match=r"scanned 12\.3 MB: the limit of workgroup lakehouse is reached"
    ) as caught:
        engine.run("SELECT * FROM bars")
    assert caught.value.query_id in gateway.queries


def test_a_query_is_stopped_when_its_time_is_up(settings: Aws, gateway: Gateway) -> None:
    with pytest.raises(QueryTimeoutError, match=r"stopped after 0\.02 minutes; query_minutes"):
        AthenaEngine(settings, minutes=0.02).run(ENDLESS)
    (query,) = gateway.queries.values()
    assert (query.state, gateway.calls["StopQueryExecution"]) == ("CANCELLED", 1)


def test_a_query_of_an_interrupted_caller_is_stopped(settings: Aws, engine: AthenaEngine, gateway: Gateway) -> None:
    def interrupt() -> None:
        while not gateway.calls["GetQueryExecution"]:
            time.sleep(0.05)
        _thread.interrupt_main()  # not a signal of the system, at which an engine in this process would stop

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        engine.run(ENDLESS)
    (query,) = gateway.queries.values()
    assert query.state == "CANCELLED"


def test_a_query_is_stopped_when_the_interruption_comes_before_the_answer_of_its_start(
    engine: AthenaEngine, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = engine._athena.start_query_execution

    def interrupted(**asked: Any) -> Any:
        answer = start(**asked)
        if gateway.calls["StartQueryExecution"] == 1:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(engine._athena, "start_query_execution", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.run(ENDLESS)
    (query,) = gateway.queries.values()
    assert query.state == "CANCELLED"


def test_a_query_that_somebody_else_stops_is_an_error(engine: AthenaEngine, gateway: Gateway) -> None:
    def stop() -> None:
        while not any(query.state == "RUNNING" for query in gateway.queries.values()):
            time.sleep(0.05)
        next(iter(gateway.queries.values())).stop("Query was cancelled by user")

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(QueryFailedError, match="somebody stopped the query: Query was cancelled by user"):
        engine.run(ENDLESS)


def test_an_action_that_is_not_allowed_is_named_with_its_resource(engine: AthenaEngine, gateway: Gateway) -> None:
    gateway.faults.denied = frozenset({"StartQueryExecution"})
    with pytest.raises(PermissionMissingError) as caught:
        engine.run("SELECT 1 AS one")
    assert "lack athena:StartQueryExecution on arn:aws:athena:us-east-1:123456789012:workgroup/lakehouse" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        (
            "Insufficient permissions to execute the query. User: arn:aws:iam::123456789012:user/analyst is not authorized to "
            "perform: glue:GetTable on resource: arn:aws:glue:us-east-1:123456789012:catalog because no identity-based policy "
            "allows the glue:GetTable action",
            "glue:GetTable on arn:aws:glue:us-east-1:123456789012:catalog",
        ),
        (
            "PERMISSION_DENIED: Access Denied: Cannot select from columns [close] in table",
            "Cannot select from columns [close]",
        ),
        ("Permission denied on S3 path: s3://bucket/lake/serving", "s3://bucket/lake/serving"),
    ],
)
def test_a_right_that_a_query_lacks_is_named(engine: AthenaEngine, gateway: Gateway, reason: str, named: str) -> None:
    engine.run("SELECT 1 AS one")
    gateway.faults.reason = reason
    with pytest.raises(PermissionMissingError) as caught:
        engine.run("SELECT 2 AS two")
    assert named in str(caught.value)
    assert str(caught.value.query_id) in gateway.queries


def test_another_failure_repeats_athenas_words(engine: AthenaEngine, gateway: Gateway) -> None:
    engine.run("SELECT 1 AS one")
    gateway.faults.reason = "HIVE_CURSOR_ERROR: a file is damaged"
    with pytest.raises(QueryFailedError, match="Athena: HIVE_CURSOR_ERROR: a file is damaged"):
        engine.run("SELECT 2 AS two")


def test_results_that_may_not_be_read_are_a_missing_right(engine: AthenaEngine, gateway: Gateway) -> None:
    engine.run("SELECT 1 AS one")
    with s3.moto(calls_without_rights=2) as strict:
        s3.make_bucket(strict, BUCKET)
        gateway.s3_endpoint = strict
        with s3.variables({**athena_gateway.environment(gateway)}), pytest.raises(PermissionMissingError) as caught:
            engine.run("SELECT 2 AS two")
    query_id = caught.value.query_id
    assert query_id in gateway.queries
    assert f"s3:GetObject on arn:aws:s3:::{BUCKET}/athena/{query_id}.csv" in str(caught.value)


def test_no_region_and_no_credentials_are_said(settings: Aws, gateway: Gateway, tmp_path: Any) -> None:
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    nothing |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with s3.variables(nothing), pytest.raises(QueryFailedError, match="set AWS_REGION"):
        AthenaEngine(settings, 1.0).run("SELECT 1 AS one")
    with (
        s3.variables({**nothing, "AWS_REGION": "us-east-1"}),
        pytest.raises(PermissionMissingError, match="no AWS credentials"),
    ):
        AthenaEngine(settings, 1.0).run("SELECT 1 AS one")


def test_no_server_is_said(settings: Aws, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    nobody = {**athena_gateway.environment(gateway), "AWS_ENDPOINT_URL_ATHENA": "http://127.0.0.1:9"}
    with s3.variables(nobody), pytest.raises(QueryFailedError, match="no answer of AWS"):
        AthenaEngine(settings, 1.0).run("SELECT 1 AS one")


def test_the_clients_library_is_not_imported_before_a_query() -> None:
    code = "import sys, stock_lakehouse.sql.athena; print([m for m in ('boto3', 'botocore', 'pyarrow') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_pauses_grow_to_a_bound(engine: AthenaEngine, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.run("SELECT 1 AS one")
    pauses: list[float] = []
    query_states = iter(["QUEUED"] * 3 + ["RUNNING"] * 9 + ["SUCCEEDED"])

    def described(**_: str) -> dict[str, Any]:
        return {"QueryExecution": {"Status": {"State": next(query_states)}}}

    monkeypatch.setattr(athena.time, "sleep", pauses.append)
    monkeypatch.setattr(engine._athena, "get_query_execution", described)
    engine.execute("SELECT 2 AS two")
    assert pauses[:4] == pytest.approx([0.2, 0.3, 0.45, 0.675])
    assert pauses[-3:] == [5.0, 5.0, 5.0]
