"""What is registered, and what SQL gives, on a real Trino: `make test-athena`.

A small lake on S3 with odd tickers, a column that came later, a restated bar and a new year is registered in Glue by the product.
Trino reads it from there, as Athena does: one name space over Parquet, CSV and Delta. Needs a JDK and Trino's archive; where they
cannot be had, each test says NOT RUN and why.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import deltalake
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from pyspark.sql import SparkSession

from stock_lakehouse import aws
from stock_lakehouse.catalog.glue import GlueCatalog
from stock_lakehouse.catalog.registration import prepare, registrations_of
from stock_lakehouse.dashboards.quicksight import client as quicksight_client
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.history import commits
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.settings import Aws, QuickSight, Redshift, Settings, Trino
from stock_lakehouse.sql.athena import AthenaEngine
from stock_lakehouse.sql.choose import local_engine
from stock_lakehouse.sql.engine import (
    QueryFailedError,
    QueryRefusedError,
    QuerySyntaxError,
    QueryTimeoutError,
    ScanLimitError,
)
from stock_lakehouse.sql.reports import reports
from stock_lakehouse.sql.trino import TrinoEngine
from stock_lakehouse.sql.views import put_view
from stock_lakehouse.tables import BY_NAME, CURATED, FEATURES, RAW, TABLES
from stock_lakehouse_tests import athena_gateway, my_indicators, quicksight_server, redshift_server, s3, trino_server
from stock_lakehouse_tests.athena_gateway import Gateway, OnTrino
from stock_lakehouse_tests.catalog.lakes import KilledError, contents, kill_at
from stock_lakehouse_tests.catalog.test_assets import run as run_graph
from stock_lakehouse_tests.graph import Clocked, edited, history, raw_contents, rectangle, run, sessions_of
from stock_lakehouse_tests.not_run import NotRunError
from stock_lakehouse_tests.sql.expected_reports import EXPECTED
from stock_lakehouse_tests.sql.expressions import STATEMENTS, Statement

pytestmark = pytest.mark.trino

DATABASE = "lakehouse"
ODD = ("BAC^B", "BF.B", "BRK-B", "EURUSD=X")
OLD, NEW = sessions_of(date(2019, 10, 1), date(2019, 12, 31)), sessions_of(date(2020, 1, 1), date(2020, 1, 31))
BARS = edited(history(ODD, (*OLD, *NEW)), ("BRK-B", OLD[5]), dividends="0.5")
BARS = edited(BARS, ("BAC^B", NEW[10]), volume="50000000000")  # a spike: the others are below a billion
RESTATED, REFUSED = ("BF.B", OLD[3]), ("BRK-B", NEW[2])
SERVED = {"curated_stocks_daily_served": "curated_stocks_daily", "stocks_features_served": "stocks_features"}
ENDLESS = """SELECT count(*) AS n FROM unnest(sequence(1, 10000)) AS a(x) CROSS JOIN unnest(sequence(1, 10000)) AS b(y)
CROSS JOIN unnest(sequence(1, 10000)) AS c(z) WHERE x * y * z < 0"""


@dataclass(frozen=True)
class Place:
    """The lake on S3, the moto server that has it and its catalog, and the Trino server that reads both."""

    lake: Lake
    endpoint: str
    server: trino_server.Trino

    @property
    def engine(self) -> TrinoEngine:
        return TrinoEngine(
            Trino(url=self.server.url, catalog=trino_server.CATALOG, schema_name=DATABASE), 5.0, self.lake
        )


def house_in(folder: Path, spark: SparkSession, indicators: Path | None = None) -> Clocked:
    """A lakehouse on the currencies' calendar, which has every session of the others too."""
    days = {"first_date": date(2019, 1, 2), "last_date": date(2021, 12, 31)}
    house = Clocked.of(Settings(lake_root=folder, exchange="24/5", tickers=ODD, indicators=indicators, **days))
    house.spark._session = spark
    return house


def fill(folder: Path, spark: SparkSession) -> Path:
    """The file of own indicators of the lake that is made in `folder`: it came with the new year."""
    old = edited(BARS, REFUSED, high="1", low="2", close="1.5")
    run(house_in(folder, spark), rectangle(OLD, ODD), old.values(), "11111111-run")
    house = house_in(folder, spark, Path(my_indicators.__file__))
    restated = edited(old, RESTATED, close=BARS[RESTATED]["open"])
    run(house, rectangle((*OLD, *NEW), ODD), restated.values(), "22222222-run")
    return Path(my_indicators.__file__)


@pytest.fixture(scope="module")
def place(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("trino")
    try:
        trino_server.java()
        trino_server.server_folder()
    except NotRunError as error:
        pytest.skip(f"NOT RUN on a real Trino: {error}")
    with (
        s3.moto() as endpoint,
        s3.variables(s3.environment(endpoint)),
        trino_server.trino_server(folder, endpoint) as server,
    ):
        indicators = fill(folder / "lake", spark)
        s3.make_bucket(endpoint, "proof")
        s3.upload(folder / "lake", "s3://proof/lake")
        lake = Lake(LakeOptions(lake_root="s3://proof/lake", indicators=indicators))
        register(lake)
        yield Place(lake, endpoint, server)


def register(lake: Lake, database: str = DATABASE, client: Any = None) -> GlueCatalog:
    prepare(lake)
    catalog = GlueCatalog(database, str(lake.root), client)
    catalog.register(registrations_of(lake))
    return catalog


@pytest.fixture
def gateway(place: Place) -> Iterator[Gateway]:
    running = athena_gateway.gateway(OnTrino(place.server.port), place.endpoint)
    with running as state, s3.variables(athena_gateway.environment(state)):
        yield state


@pytest.fixture
def athena(gateway: Gateway) -> AthenaEngine:
    return AthenaEngine(Aws(glue_database=DATABASE, athena_results="s3://proof/results"), 2.0)


def values(found: pa.Table) -> list[str]:
    """The rows as texts that compare bit for bit, in an order of their own. Times are rounded to the millisecond, as in Trino."""
    rows = found.select(sorted(found.column_names)).to_pylist()
    return sorted(json.dumps({name: comparable(value) for name, value in row.items()}) for row in rows)


def comparable(value: object) -> object:
    match value:
        case float():
            return "NaN" if math.isnan(value) else value.hex()
        case datetime():
            return (value.replace(tzinfo=UTC) + timedelta(microseconds=500)).isoformat()[:23]
        case list():
            return [comparable(item) for item in value]
        case str() | None | bool():
            return value
    return str(value)


def own(lake: Lake, name: str) -> pa.Table:
    """The lake's own rows of a table, by its readers."""
    if name == RAW.name:
        rows = raw_contents(lake)
        return pa.Table.from_pylist([{name: value or "" for name, value in row.items()} for row in rows])
    return read_table(SERVED.get(name, name), lake_root=lake.root)


def test_the_lake_has_what_the_proof_is_about(place: Place) -> None:
    features = own(place.lake, "stocks_features")
    assert set(features["ticker"].to_pylist()) == set(ODD)
    assert set(features["year"].to_pylist()) == {2019, 2020}
    assert "day_range" in features.column_names
    assert own(place.lake, "restatements").num_rows > 0
    assert own(place.lake, "processed_quarantine").num_rows == 1
    folders = {path.split("/")[-3] for path in place.lake.curated.paths()}
    assert folders >= {"ticker=BAC%5EB", "ticker=EURUSD%3DX"}


@pytest.mark.parametrize("name", [*BY_NAME, *SERVED])
def test_a_registered_table_is_read_whole(place: Place, name: str) -> None:
    expected = own(place.lake, name)
    found = place.engine.run(f'SELECT * FROM "{name}"').rows  # noqa: S608
    if name == RAW.name:
        assert found["year_in_file"].to_pylist() == found["year"].to_pylist()
        found = found.drop_columns(["year_in_file"])
    assert set(found.column_names) == set(expected.column_names)
    assert values(found) == values(expected)
    assert found.num_rows > 0


def test_nothing_is_registered_that_was_not_compared(place: Place) -> None:
    tables = s3.client(place.endpoint, "glue").get_tables(DatabaseName=DATABASE)["TableList"]
    assert {table["Name"] for table in tables} == {*(table.name for table in TABLES), *SERVED}


def test_the_comments_of_a_delta_table_are_seen(place: Place) -> None:
    found = place.engine.run(
        "SELECT column_name, comment FROM delta.information_schema.columns WHERE table_schema = ? AND table_name = ?",
        (DATABASE, "stocks_features"),
    ).rows
    comments = dict(zip(*(found[name].to_pylist() for name in ("column_name", "comment")), strict=True))
    log = json.loads(place.lake.features.open().schema().to_json())["fields"]
    assert comments == {field["name"]: field["metadata"]["comment"] for field in log}
    for column in place.lake.features.table.columns:
        assert comments[column.name].startswith(column.description)


def test_a_ticker_and_a_year_are_read_from_one_file(place: Place) -> None:
    adds = pa.table(
        deltalake.DeltaTable("s3://proof/lake/curated/stocks_daily").get_add_actions(flatten=True)
    ).to_pylist()
    (size,) = [
        add["size_bytes"] for add in adds if (add["partition.ticker"], add["partition.year"]) == ("EURUSD=X", 2020)
    ]
    sql = "SELECT * FROM curated_stocks_daily"
    one = place.engine.run(f"{sql} WHERE ticker = 'EURUSD=X' AND year = 2020")
    whole = place.engine.run(sql)
    assert one.rows.num_rows == len(NEW)
    assert 0 < one.scanned_bytes <= size < whole.scanned_bytes  # type: ignore[operator]
    served = "SELECT * FROM curated_stocks_daily_served"
    year = place.engine.run(f"{served} WHERE year = 2020").scanned_bytes
    assert 0 < year < place.engine.run(served).scanned_bytes  # type: ignore[operator]


def answer(server: trino_server.Trino, sql: str) -> tuple[Any, Any, Any]:
    """Types, rows and the name of the error, by Trino's own protocol: no client between."""
    headers = {
        "X-Trino-User": "proof",
        "X-Trino-Time-Zone": "UTC",
        "X-Trino-Catalog": trino_server.CATALOG,
        "X-Trino-Schema": DATABASE,
    }
    request = urllib.request.Request(f"{server.url}/v1/statement", sql.encode(), headers)
    types, rows = None, []
    while True:
        with urllib.request.urlopen(request, timeout=60) as said:
            page = json.load(said)
        if "error" in page:
            return None, None, page["error"]["errorName"]
        types = [column["type"] for column in page["columns"]] if "columns" in page else types
        rows += page.get("data", [])
        if "nextUri" not in page:
            return types, rows, None
        request = urllib.request.Request(page["nextUri"], headers=headers)


def differs(server: trino_server.Trino, statement: Statement) -> str | None:
    types, rows, error = answer(server, statement.sql)
    if statement.error or error:
        return None if error == statement.error else f"{statement.sql}: {error}, not {statement.error}"
    plain = [_without_length(kind) for kind in types]
    if plain != statement.types:
        return f"{statement.sql}: {plain}, not {statement.types}"
    if "TABLESAMPLE" in statement.sql:
        return None  # by chance
    found, expected = rows, statement.rows or []
    if not statement.is_ordered:
        found, expected = sorted(found, key=str), sorted(expected, key=str)
    return None if found == expected else f"{statement.sql}: {found}, not {expected}"


def _without_length(kind: str) -> str:
    return re.sub(r"varchar\(\d+\)", "varchar", kind)


def test_the_answers_that_the_translation_is_held_to_are_trinos(place: Place) -> None:
    wrong = [found for statement in STATEMENTS if (found := differs(place.server, statement))]
    assert not wrong, "\n".join(wrong)


def test_a_version_of_the_past_is_read(place: Place) -> None:
    sql = "SELECT close FROM curated_stocks_daily WHERE ticker = ? AND date = ?"
    parameters = (RESTATED[0], RESTATED[1])
    first = commits(place.lake.curated)
    now = place.engine.run(sql, parameters).rows["close"].to_pylist()
    # The delivered texts, by hand: the first run had the bar's close, the second its open.
    assert now == [float(str(BARS[RESTATED]["open"]))]
    with_rows = [
        commit.at
        for commit in first
        if place.engine.run("SELECT count(*) AS n FROM curated_stocks_daily", (), commit.at).rows["n"].to_pylist()
        != [0]
    ]
    within = f"WITH bars AS ({sql}) SELECT b.close FROM bars AS b"  # noqa: S608
    old = place.engine.run(within, parameters, with_rows[0])
    assert old.rows["close"].to_pylist() == [float(str(BARS[RESTATED]["close"]))]


def test_a_table_without_versions_is_refused_at_its_place(place: Place) -> None:
    with pytest.raises(QueryRefusedError, match="processed_stocks_daily has no versions") as caught:
        place.engine.run("SELECT count(*)\nFROM processed_stocks_daily", (), datetime.now(UTC))
    assert (caught.value.line, caught.value.column) == (2, 6)


@pytest.mark.parametrize("end", ["\n", " "])
@pytest.mark.parametrize("parameters", [(), ("BF.B",)])
@pytest.mark.parametrize("as_of", [None, datetime(2100, 1, 1, tzinfo=UTC)])
def test_an_error_on_trino_shows_its_place_in_the_users_sql(
    place: Place, parameters: Any, as_of: Any, end: str
) -> None:
    condition = "ticker = ?" if parameters else "true"
    sql = f"SELECT 'x' AS x, ticker{end}FROM curated_stocks_daily b WHERE {condition} AND clos > 1"
    with pytest.raises(QuerySyntaxError, match="clos") as caught:
        place.engine.run(sql, parameters, as_of)
    assert caught.value.line == len(sql.splitlines())
    assert caught.value.column == sql.splitlines()[-1].index("clos") + 1
    assert caught.value.query_id is not None


def test_a_query_on_trino_is_stopped_when_its_time_is_up(place: Place) -> None:
    engine = TrinoEngine(place.engine.settings, 0.03, place.lake)
    with pytest.raises(QueryTimeoutError, match="query_minutes"):
        engine.run(ENDLESS)


def test_no_trino_and_a_missing_table_are_said(place: Place) -> None:
    with pytest.raises(QuerySyntaxError, match="nothing_here"):
        place.engine.run("SELECT * FROM nothing_here")
    nobody = Trino(url="http://127.0.0.1:9", catalog=trino_server.CATALOG, schema_name=DATABASE)
    with pytest.raises(QueryFailedError, match=r"check trino\.url"):
        TrinoEngine(nobody, 1.0, place.lake).run("SELECT 1 AS one")


@pytest.mark.parametrize(
    "sql", ["SELECT 0e0 / 0e0 AS a, 1e0 / 0e0 AS b", "SELECT CAST(NULL AS varchar) AS a, '' AS b, 'x,\"y\n' AS c"]
)
def test_athena_and_trino_give_the_same_values(place: Place, athena: AthenaEngine, sql: str) -> None:
    assert values(athena.run(sql).rows) == values(place.engine.run(sql).rows)


@pytest.mark.parametrize("keeps_results", [False, True])
@pytest.mark.parametrize("name", ["curated_stocks_daily", "stocks_features_served", "processed_stocks_daily"])
def test_a_table_comes_whole_through_the_client_of_athena(
    place: Place, athena: AthenaEngine, gateway: Gateway, name: str, keeps_results: bool
) -> None:
    gateway.faults.keeps_results = keeps_results
    result = athena.run(f"SELECT * FROM {name}")  # noqa: S608
    assert values(result.rows) == values(own(place.lake, name))
    assert result.scanned_bytes
    assert result.dollars == pytest.approx(10 / 1024**2 * 5)


def test_athena_binds_parameters_and_points_at_errors(athena: AthenaEngine) -> None:
    sql = "SELECT count(*) AS n FROM curated_stocks_daily WHERE ticker = ? AND date >= ? AND close > ? AND is_adjusted IS NULL"
    with pytest.raises(QuerySyntaxError) as caught:
        athena.run(sql, ("BAC^B", NEW[0], 0.0))
    assert (caught.value.line, caught.value.column) == (1, sql.index("is_adjusted") + 1)
    counted = athena.run(sql.rpartition(" AND ")[0], ("BAC^B", NEW[0], 0.0))
    assert counted.rows["n"].to_pylist() == [len(NEW)]


def test_athena_is_throttled_limited_and_stopped_on_a_real_engine(athena: AthenaEngine, gateway: Gateway) -> None:
    gateway.faults.throttled = 2
    assert athena.run("SELECT 1 AS one").rows["one"].to_pylist() == [1]
    gateway.faults.scan_limit = 1000
    with pytest.raises(ScanLimitError):
        athena.run("SELECT * FROM stocks_features")
    gateway.faults.scan_limit = None
    with pytest.raises(QueryTimeoutError):
        AthenaEngine(athena.settings, 0.02).run(ENDLESS)
    assert [query.state for query in gateway.queries.values()] == ["SUCCEEDED", "CANCELLED", "CANCELLED"]


def test_athena_reads_its_pages(athena: AthenaEngine, gateway: Gateway) -> None:
    gateway.faults.keeps_results = True
    rows = athena.run("SELECT x FROM unnest(sequence(1, 4533)) AS t(x) ORDER BY x").rows
    assert rows["x"].to_pylist() == list(range(1, 4534))
    assert gateway.calls["GetQueryResults"] == 5


@pytest.mark.parametrize("name", reports())
def test_a_report_gives_the_same_rows_on_every_engine(
    place: Place, athena: AthenaEngine, tmp_path: Path, name: str
) -> None:
    report = reports()[name]
    found = place.engine.run(report.sql).rows
    assert found.num_rows > 0
    here = local_engine(place.lake, tmp_path).run(report.sql).rows
    assert here.column_names == found.column_names
    right = EXPECTED[name]({table: pl.DataFrame(own(place.lake, table)) for table in (CURATED.name, FEATURES.name)})
    assert_frame_equal(pl.DataFrame(found), right.select(found.column_names), rel_tol=1e-12, abs_tol=1e-12)
    # In the order that each engine gives them: a report's ORDER BY decides it.
    assert ordered(found) == ordered(here)
    assert ordered(athena.run(report.sql).rows) == ordered(found)


def ordered(found: pa.Table) -> list[list[object]]:
    return [[comparable(value) for value in row.values()] for row in found.to_pylist()]


def test_a_report_becomes_a_view_once_and_again_when_its_text_changes(
    place: Place, athena: AthenaEngine, gateway: Gateway
) -> None:
    glue, report = aws.client("glue"), reports()["latest_signals"]
    assert put_view(athena, glue, report.name, report.sql) == "written"
    asked = gateway.calls["StartQueryExecution"]
    assert put_view(athena, glue, report.name, report.sql) == "unchanged"
    assert gateway.calls["StartQueryExecution"] == asked
    assert values(athena.run(f"SELECT * FROM {report.name}").rows) == values(place.engine.run(report.sql).rows)  # noqa: S608
    assert put_view(athena, glue, report.name, report.sql.replace("ORDER BY", "ORDER  BY")) == "written"
    with pytest.raises(QueryRefusedError, match="is a table"):
        put_view(athena, glue, "corporate_actions", report.sql)
    # A view is nothing that the catalog has to agree on, and a registration leaves it alone.
    assert register(place.lake).writes == 0
    glue.delete_table(DatabaseName=DATABASE, Name=report.name)


def test_a_view_whose_writing_was_killed_is_written_by_the_next_run(
    place: Place, athena: AthenaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    glue, report = aws.client("glue"), reports()["stock_summary"]
    execute = athena.execute

    def killed(sql: str) -> Any:
        execute(sql)
        raise KilledError

    monkeypatch.setattr(athena, "execute", killed)
    with pytest.raises(KilledError):
        put_view(athena, glue, report.name, report.sql)
    monkeypatch.undo()
    assert put_view(athena, glue, report.name, report.sql) == "unchanged"
    glue.delete_table(DatabaseName=DATABASE, Name=report.name)


@pytest.mark.parametrize("answered", [False, True])
def test_a_registration_that_was_killed_is_completed_by_the_next_one(place: Place, answered: bool) -> None:
    database = f"killed_{answered}".lower()
    for write in (1, 2, 5, 9):
        client = s3.client(place.endpoint, "glue")
        kill_at(client, write, answered=answered)
        with pytest.raises(KilledError):
            register(place.lake, database, client)
    register(place.lake, database)
    glue = s3.client(place.endpoint, "glue")
    assert _everywhere(contents(glue, database)) == _everywhere(contents(glue, DATABASE))
    engine = TrinoEngine(place.engine.settings.model_copy(update={"schema_name": database}), 5.0, place.lake)
    for name in (*BY_NAME, *SERVED):
        counted = engine.run(f"SELECT count(*) AS n FROM {name}").rows["n"].to_pylist()  # noqa: S608
        assert counted == [own(place.lake, name).num_rows], name
    assert register(place.lake, database).writes == 0


def _everywhere(held: dict[str, Any]) -> str:
    """What a database holds, without its name."""
    return re.sub(r'"DatabaseName": "\w+"', "", json.dumps(held, sort_keys=True, default=str))


@pytest.mark.soak
def test_the_whole_graph_runs_on_s3_glue_athena_redshift_and_quicksight_and_a_second_run_writes_nothing(
    place: Place, gateway: Gateway, tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        lake_root="s3://proof/graph",
        tickers=("AAPL", "NVDA"),
        first_date=date(2023, 1, 3),
        catalog="glue",
        query_engine="athena",
        aws=Aws(glue_database="graph", athena_results="s3://proof/graph-results"),
        warehouse="redshift",
        redshift=Redshift(workgroup="stocks", readers=("group analysts",)),
        dashboard="quicksight",
        quicksight=QuickSight(readers=("group analysts",)),
    )
    monkeypatch.setattr(quicksight_client, "FIRST_PAUSE_SECONDS", 0.001)
    account = quicksight_server.Account()
    account.rows = lambda sql: AthenaEngine(settings.aws, 2.0).run(sql).rows.to_pylist()
    with (
        redshift_server.redshift_server(place.endpoint) as warehouse,
        quicksight_server.serving(quicksight_server.Served(account)) as address,
        s3.variables(
            redshift_server.environment(warehouse)
            | athena_gateway.environment(gateway)
            | quicksight_server.environment(address)
        ),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        first = materialized(run_graph(settings, instance, "2023-01-03", "2023-09-21"))
        before = s3.objects("s3://proof/graph")
        second = materialized(run_graph(settings, instance, "2023-01-03", "2023-09-21"))
        bars = own(Lake(settings.lake_options), CURATED.name)
    assert s3.objects("s3://proof/graph") == before
    for name in ("catalog", "quicksight_dashboard"):
        assert first[name]["write calls"] > 0
        assert second[name]["write calls"] == 0
    for name in ("warehouse_stock_prices", "warehouse_stock_features"):
        assert first[name]["rows loaded"] == bars.num_rows
        assert (second[name]["rows loaded"], second[name]["statements that write"]) == (0, 0)
    native = warehouse.database.cursor().execute("SELECT ticker, date, close FROM stocks.stock_prices").fetchall()
    spice = account.sets["stock-lakehouse-daily"].spice
    wanted = sorted(zip(*(bars[name].to_pylist() for name in ("ticker", "date", "close")), strict=True))
    assert sorted(native) == wanted
    assert sorted((row["ticker"], row["date"].date(), row["close"]) for row in spice) == wanted
    lake = Lake(settings.lake_options)
    there = TrinoEngine(place.engine.settings.model_copy(update={"schema_name": "graph"}), 5.0, lake)
    here = local_engine(lake, tmp_path)
    for name, report in reports().items():
        assert first[name]["engine"] == second[name]["engine"] == "athena"
        assert first[name]["query id"] in gateway.queries
        assert first[name]["bytes scanned"] > 0
        assert first[name]["dollars"] == pytest.approx(10 / 1024**2 * 5)
        assert (first[name]["view"], second[name]["view"]) == (f"graph.{name}, written", f"graph.{name}, unchanged")
        assert values(there.run(f"SELECT * FROM {name}").rows) == values(here.run(report.sql).rows)  # noqa: S608
    assert {query.state for query in gateway.queries.values()} == {"SUCCEEDED"}


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """The metadata of a run's materializations without a partition, by asset. The run and its checks passed."""
    assert result.success
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == []
    return {
        event.asset_key.to_user_string(): {
            name: getattr(value, "value", None) for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.partition is None and event.asset_key is not None
    }


def command(place: Place, gateway: Gateway, *arguments: str) -> subprocess.Popen[str]:
    """The program `stock-lakehouse` in a process of its own, with Athena as its engine."""
    settings = {
        "LAKE_ROOT": str(place.lake.root),
        "INDICATORS": str(place.lake.options.indicators),
        "CATALOG": "glue",
        "QUERY_ENGINE": "athena",
        "AWS_GLUE_DATABASE": DATABASE,
        "AWS_ATHENA_RESULTS": "s3://proof/results",
        "TRINO_URL": place.server.url,
        "TRINO_CATALOG": trino_server.CATALOG,
    }
    variables = {f"STOCK_LAKEHOUSE_{name}": value for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "stock_lakehouse.cli", "query", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **athena_gateway.environment(gateway), **variables},
    )


def test_the_command_gives_the_same_rows_on_every_engine_and_says_the_cost(place: Place, gateway: Gateway) -> None:
    sql = "SELECT ticker, count(*) AS n, max(close) AS highest FROM curated_stocks_daily WHERE year = ? GROUP BY 1 ORDER BY 1"
    said = {}
    for engine in ("athena", "trino", "duckdb"):
        process = command(place, gateway, sql, "--param", "2020", "--engine", engine, "--format", "csv")
        said[engine], errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        if engine == "athena":
            (query_id,) = gateway.queries
            assert "$0.00005" in errors
            assert query_id in errors
    assert said["athena"] == said["trino"] == said["duckdb"]
    assert len(said["athena"].splitlines()) == 1 + len(ODD)


def test_ctrl_c_stops_the_query_on_athena(place: Place, gateway: Gateway) -> None:
    process = command(place, gateway, ENDLESS)
    until = time.monotonic() + 120
    while not gateway.calls["GetQueryExecution"] and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [query.state for query in gateway.queries.values()] == ["CANCELLED"]
