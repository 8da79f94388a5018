"""AWS on loopback behind a gate, lakes in every state that a command meets, and commands that run there as a role.

Here: servers, a fresh stage for each chapter, the calls of the program. Not here: the chapters (chapters.py), the gate (gate.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pytest
from botocore.exceptions import ClientError
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.cli.errors import explainable, explanation
from stock_lakehouse.dashboards.quicksight import client as quicksight_client
from stock_lakehouse.deployment.policies import Names, bucket_policy, policies_of
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.serving import served_name
from stock_lakehouse.settings import Settings, load_settings
from stock_lakehouse.tables import BY_NAME
from stock_lakehouse_tests import athena_gateway, quicksight_server, redshift_server, s3
from stock_lakehouse_tests.deployment.asked import Account, Policies, role_arn
from stock_lakehouse_tests.deployment.gate import Caller, Gate, Record, gate
from stock_lakehouse_tests.graph import history, sessions_of
from stock_lakehouse_tests.lake import histories

TICKERS = ("AAA", "BBB")
DAYS = sessions_of(date(2023, 12, 18), date(2024, 1, 10))
YESTERDAY = time.time() - 24 * 3600
NUMBER = athena_gateway.ACCOUNT
LAYERS = ",".join(BY_NAME)
OF_SERVICES = ("spectrum", "quicksight")  # roles with which services of AWS read, that have a server here
CONFIG = Path(__file__).parents[2] / "deploy" / "lakehouse.toml"
SAMPLE = {
    "STOCK_LAKEHOUSE_SOURCE": "sample", "STOCK_LAKEHOUSE_TICKERS": "AAPL,NVDA",
    "STOCK_LAKEHOUSE_FIRST_DATE": "2023-09-05", "STOCK_LAKEHOUSE_LAST_DATE": "2023-09-21",
}  # fmt: skip


class FailedError(Exception):
    """A command ended with another exit code than it should. The message has its output."""


class Prices:
    """A folder of price files, a file a ticker, which a test edits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bars = history(TICKERS, DAYS)
        self.rows: dict[str, dict[date, list[str]]] = {ticker: {} for ticker in TICKERS}
        for (ticker, session), bar in bars.items():
            names = ("open", "high", "low", "close", "volume")
            numbers = [f"{float(bar[name] or 0):.4f}" for name in names[:-1]] + [str(bar["volume"])]
            self.rows[ticker][session] = [*numbers, "0.0", "0.0"]
        self.rows["AAA"][DAYS[5]][5] = "0.25"
        impossible = self.rows["AAA"][DAYS[2]]
        impossible[1], impossible[2] = impossible[2], impossible[1]
        for day in DAYS[:8]:
            del self.rows["BBB"][day]  # of its first year it has one bar

    def deliver(self, until: date, since: date = DAYS[0]) -> None:
        """Write the files with the sessions from `since` to `until`."""
        self.folder.mkdir(exist_ok=True)
        header = "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits"
        for ticker, bars in self.rows.items():
            chosen = [(day, row) for day, row in sorted(bars.items()) if since <= day <= until]
            lines = [",".join([str(day), *row]) for day, row in chosen]
            path = self.folder / f"{ticker}.csv"
            path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
            os.utime(path, (YESTERDAY, YESTERDAY))  # a file that changed a moment ago waits: it may still be written


@dataclass
class World:
    """The servers, and the roles of a deployment with every service in use.

    - services: the gate of each service of AWS that reads with a role of its own, by the role's name
    - endpoint: S3 and Glue without the gate
    - keys: those of each role at the emulator, where it asks for rights too
    - lakes: in the states in which chapters begin
    """

    gate: Gate
    services: Mapping[str, Gate]
    endpoint: str
    account: Account
    settings: Settings
    roles: Mapping[str, Role]
    quicksight: quicksight_server.Served
    athena: athena_gateway.OnDuckDB
    spark: SparkSession | None
    lakes: Lakes | None
    keys: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)

    def record(self) -> Record:
        """What was asked for since the last time."""
        found = self.gate.record()
        for door in self.services.values():
            found.add(door.record())
        return found

    def names(self, prefix: str) -> Names:
        account = self.account
        return Names(account.partition, account.region, account.number, account.bucket, prefix, str(account.key))

    def policies_of(self, role: Role, prefix: str) -> Policies:
        """The policies of a role for the lake at `prefix`."""
        return policies_of(role, self.names(prefix))

    def bucket_policies(self, prefix: str) -> Policies:
        return {"bucket": bucket_policy(self.names(prefix))}

    @contextlib.contextmanager
    def staged(self, variables: Mapping[str, str], folder: Path) -> Iterator[Stage]:
        """A fresh stage: an empty place in the bucket, an empty Glue database, Redshift and QuickSight, and a new instance."""
        stage = Stage(self, f"team/{uuid.uuid4().hex[:10]}", folder, dict(variables), Prices(folder / "prices"))
        glue = s3.client(self.endpoint, "glue")
        for page in glue.get_paginator("get_databases").paginate():
            for database in page["DatabaseList"]:
                for tables in glue.get_paginator("get_tables").paginate(DatabaseName=database["Name"]):
                    for table in tables["TableList"]:
                        glue.delete_table(DatabaseName=database["Name"], Name=table["Name"])
                glue.delete_database(Name=database["Name"])
        crawlers = glue.get_crawlers()["Crawlers"]
        for crawler in crawlers:
            glue.delete_crawler(Name=crawler["Name"])
        self.quicksight.account = quicksight_server.Account(self._asked_by_quicksight)
        self.gate.age(None)
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as servers:
            # The external schemas of Redshift are read by the role that Spectrum has.
            redshift = servers.enter_context(redshift_server.redshift_server(self.services["spectrum"].url))
            athena = servers.enter_context(athena_gateway.gateway(self.athena, self.endpoint))
            self.gate.lead(redshift_data=redshift.url, athena=athena.url)
            self.services["quicksight"].lead(athena=athena.url)
            surroundings = servers.enter_context(pytest.MonkeyPatch.context())
            for name, value in stage.variables.items():
                surroundings.setenv(name, value)
            surroundings.chdir(folder)
            surroundings.setattr(quicksight_client, "FIRST_PAUSE_SECONDS", 0.001)
            yield stage

    def _asked_by_quicksight(self, sql: str) -> list[quicksight_server.Row]:
        """How QuickSight reads a data set: its role asks Athena for `sql`. The rows are for nobody: an ingestion has none."""
        athena, group = s3.client(self.services["quicksight"].url, "athena"), self.settings.aws.athena_workgroup
        try:
            athena.get_work_group(WorkGroup=group)
            query = athena.start_query_execution(QueryString=sql, WorkGroup=group, ClientRequestToken=uuid.uuid4().hex)
            query_id = query["QueryExecutionId"]
            while (status := _status(athena, query_id))["State"] in ("QUEUED", "RUNNING"):
                time.sleep(0.01)
            assert status["State"] == "SUCCEEDED", status
            athena.get_query_results(QueryExecutionId=query_id)
        except ClientError as error:
            raise quicksight_server.DeniedError(error.response["Error"]["Message"]) from error
        return []


def _status(athena: Any, query_id: str) -> dict[str, Any]:
    found: dict[str, Any] = athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]["Status"]
    return found


@dataclass
class Stage:
    """Where one chapter plays.

    - prefix: of its lake in the bucket
    - given: variables that the chapter sets
    - policies: in place of those of a role, by its name
    - playing: the chapter that is played
    """

    world: World
    prefix: str
    folder: Path
    given: dict[str, str]
    prices: Prices
    policies: dict[str, Policies] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    playing: str = ""

    @property
    def root(self) -> str:
        return f"s3://{self.world.account.bucket}/{self.prefix}"

    @property
    def variables(self) -> dict[str, str]:
        world = self.world
        return {
            "STOCK_LAKEHOUSE_CONFIG": str(CONFIG),
            "STOCK_LAKEHOUSE_LAKE_ROOT": self.root,
            **csv_of(self.prices),
            "STOCK_LAKEHOUSE_ENGINE": "embedded",
            "STOCK_LAKEHOUSE_SERVING_CACHE": str(self.folder / "cache"),
            "STOCK_LAKEHOUSE_AWS_ATHENA_RESULTS": f"{self.root}/athena-results",
            "STOCK_LAKEHOUSE_AWS_CATALOG_BY": "register",
            "STOCK_LAKEHOUSE_AWS_CRAWLER_ROLE": role_arn("CrawlerRole", world.account),
            "STOCK_LAKEHOUSE_QUICKSIGHT_AUTHORS": '["user ana"]',
            "STOCK_LAKEHOUSE_QUICKSIGHT_ROLE": role_arn("QuicksightRole", world.account),
            "DAGSTER_HOME": str(self.folder / "dagster"),
            **self.given,
        }

    @property
    def lakes(self) -> Lakes:
        assert self.world.lakes is not None
        return self.world.lakes

    def copied(self, lake: Path) -> None:
        """The lake is a copy of the one in the folder `lake`."""
        with s3.variables(s3.environment(self.world.endpoint)):
            s3.upload(lake, self.root)

    def policies_of(self, role: str) -> Policies:
        return self.policies.get(role) or self.world.policies_of(self.world.roles[role], self.prefix)

    @contextlib.contextmanager
    def as_role(self, role: str, command: str, door: Gate | None = None) -> Iterator[None]:
        """Requests meanwhile, at `door` (None: the main one), are those of `role`."""
        world = self.world
        caller = Caller(role, command, self.policies_of(role), world.bucket_policies(self.prefix), world.keys.get(role))
        with (door or world.gate).called_by(caller):
            yield

    def play(self, act: Callable[[Stage], Any], role: str, name: str) -> None:
        """Act as `role`; requests are recorded under `name`. Meanwhile services of AWS read with their own roles."""
        self.playing = name
        self.spark.sql("SELECT 1").collect()  # the engine ends a session that is idle for minutes
        with contextlib.ExitStack() as roles_of_all:
            for service, door in self.world.services.items():
                roles_of_all.enter_context(self.as_role(service, name, door))
            roles_of_all.enter_context(self.as_role(role, name))
            act(self)

    def call(self, *arguments: str, code: int = 0) -> str:
        """The output of a command of the program. Raises FailedError if it ends with another exit code."""
        result = CliRunner().invoke(app, list(arguments))
        ended, said, error = result.exit_code, result.output, result.exception
        self.lines.append(said)
        if isinstance(error, Exception):
            # As `stock_lakehouse.cli.main` has it.
            line = explanation(error) if isinstance(error, explainable()) else None
            said += line or "".join(traceback.format_exception(error))
        if ended != code:
            raise FailedError(f"{' '.join(arguments)}: exit code {ended}\n{said}")
        return said

    @property
    def said(self) -> str:
        """What the commands have printed."""
        return "\n".join(self.lines)

    def put(self, path: str, content: bytes) -> None:
        """Write an object of the lake, without a role."""
        s3.client(self.world.endpoint).put_object(
            Bucket=self.world.account.bucket, Key=f"{self.prefix}/{path}", Body=content
        )

    def keys(self, folder: str) -> list[str]:
        """The objects below `folder` of the lake."""
        pages = s3.client(self.world.endpoint).get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.world.account.bucket, Prefix=f"{self.prefix}/{folder}/")
        return [one["Key"].removeprefix(f"{self.prefix}/") for page in found for one in page.get("Contents", ())]

    def remove(self, folder: str) -> None:
        """Remove the objects below `folder` of the lake, without a role."""
        for key in self.keys(folder):
            s3.client(self.world.endpoint).delete_object(Bucket=self.world.account.bucket, Key=f"{self.prefix}/{key}")

    def cut(self, folder: str) -> None:
        """Damage a data file below `folder`."""
        self.put(next(key for key in self.keys(folder) if key.endswith(".parquet") and "/_" not in key), b"PAR1")

    def stream(self) -> None:
        """An empty data stream of the name in the settings."""
        kinesis = s3.client(self.world.endpoint, "kinesis")
        name = load_settings().stream.name
        if name in kinesis.list_streams()["StreamNames"]:
            kinesis.delete_stream(StreamName=name)
            while name in kinesis.list_streams()["StreamNames"]:
                time.sleep(0.05)
        kinesis.create_stream(StreamName=name, ShardCount=1)
        while kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
            time.sleep(0.05)

    @contextlib.contextmanager
    def settings(self, variables: Mapping[str, str]) -> Iterator[None]:
        """Other settings meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            yield

    @contextlib.contextmanager
    def patched(self, name: str, value: Any) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(name, value)
            yield

    @contextlib.contextmanager
    def interrupted(self, after: float) -> Iterator[None]:
        """Ctrl-C after so many seconds."""
        timer = threading.Timer(after, lambda: signal.raise_signal(signal.SIGINT))
        before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            for number, handler in before:
                signal.signal(number, handler)

    def ended(self, result: Any) -> None:
        """Raise FailedError if a run in process did not end well."""
        if not result.success:
            errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
            raise FailedError("\n".join(error.to_string() for error in errors if error))

    def answered(self, answer: Any) -> None:
        """Raise FailedError if the dashboard's server did not answer well."""
        if answer.status_code >= 400:
            raise FailedError(f"{answer.url}: {answer.status_code} {answer.text}")

    @property
    def spark(self) -> SparkSession:
        assert self.world.spark is not None
        return self.world.spark

    @contextlib.contextmanager
    def on_databricks(self) -> Iterator[None]:
        """Sessions on Databricks are the one of the tests meanwhile."""

        def session(*_: Any) -> Any:
            return contextlib.nullcontext(self.spark)

        with (
            self.patched("stock_lakehouse.resources.spark.spark_session", session),
            self.patched("stock_lakehouse.cli.context.engine", session),
        ):
            yield


class Lakes:
    """A lake in a folder for each state in which a chapter begins; each is made when it is first wanted.

    - filled: all sessions but the newest one
    - aged: the same months ago, with a correction of yesterday
    - sample: the newest sessions of the sample
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "lakehouse.toml").write_text("")

    @cached_property
    def filled(self) -> Path:
        prices = Prices(self.folder / "filled-prices")
        prices.deliver(DAYS[-2])
        return self._loaded("filled", csv_of(prices))

    @cached_property
    def aged(self) -> Path:
        prices = Prices(self.folder / "aged-prices")
        shutil.copytree(self.filled, self.folder / "aged")
        row = prices.rows["AAA"][DAYS[3]]
        for ago in (120, 60):
            row[3], row[0] = row[0], row[3]
            prices.deliver(DAYS[-2])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("stock_lakehouse.lake.raw_compaction.LOOSE", 2)
                self._loaded("aged", csv_of(prices))
            histories.time_passes(self.folder / "aged", timedelta(days=ago))
        return self.folder / "aged"

    @cached_property
    def sample(self) -> Path:
        return self._loaded("sample", SAMPLE)

    def _loaded(self, name: str, variables: Mapping[str, str]) -> Path:
        """The lake `name`, after a run with these variables and no others."""
        lake = self.folder / name
        given = {
            "STOCK_LAKEHOUSE_CONFIG": str(self.folder / "lakehouse.toml"),
            "STOCK_LAKEHOUSE_LAKE_ROOT": str(lake),
            "DAGSTER_HOME": str(self.folder / "dagster"),
            **variables,
        }
        with pytest.MonkeyPatch.context() as surroundings:
            for variable in [one for one in os.environ if one.startswith("STOCK_LAKEHOUSE_")]:
                surroundings.delenv(variable)
            for variable, value in given.items():
                surroundings.setenv(variable, value)
            surroundings.chdir(self.folder)
            result = CliRunner().invoke(app, ["materialize", "--select", LAYERS])
            assert result.exit_code == 0, result.output
        return lake


def csv_of(prices: Prices) -> dict[str, str]:
    """The settings of a lake of `prices`."""
    return {
        "STOCK_LAKEHOUSE_SOURCE": "csv",
        "STOCK_LAKEHOUSE_CSV_FOLDER": str(prices.folder),
        "STOCK_LAKEHOUSE_TICKERS": ",".join(TICKERS),
        "STOCK_LAKEHOUSE_FIRST_DATE": str(DAYS[0]),
        "STOCK_LAKEHOUSE_LAST_DATE": str(DAYS[-1]),
    }


@contextlib.contextmanager
def world(spark: SparkSession | None = None, lakes: Lakes | None = None) -> Iterator[World]:
    """A world whose S3, Glue and Kinesis are moto's. Without an engine and lakes no chapter can be played in it."""
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    account = Account(bucket, NUMBER, s3.KEYS["AWS_REGION"], key=f"arn:aws:kms:us-east-1:{NUMBER}:key/of-the-lake")
    served = quicksight_server.Served(quicksight_server.Account())
    settings = deployed()
    with contextlib.ExitStack() as servers:
        endpoint = servers.enter_context(s3.moto())
        quicksight = servers.enter_context(quicksight_server.serving(served))
        others = dict.fromkeys(("quicksight", "sts", "redshift-serverless"), quicksight)
        main = servers.enter_context(gate(account, {"": endpoint, **others}))
        services = {role: servers.enter_context(gate(account, {"": endpoint})) for role in OF_SERVICES}
        servers.enter_context(s3.variables(s3.environment(main.url)))
        s3.make_bucket(endpoint, bucket)
        athena = athena_of(lakes.filled if lakes else None, settings.aws.glue_database)
        yield World(main, services, endpoint, account, settings, roles(settings), served, athena, spark, lakes)


def deployed() -> Settings:
    """The settings from which deploy/ is rendered."""
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("STOCK_LAKEHOUSE_CONFIG", str(CONFIG))
        return load_settings()


def athena_of(lake: Path | None, database: str) -> athena_gateway.OnDuckDB:
    """An engine for Athena that has the tables of `lake`, and in the schema `database` those and the serving copies."""
    connection = duckdb.connect()
    connection.execute(f'CREATE SCHEMA "{database}"')
    for name, table in BY_NAME.items() if lake is not None else ():
        connection.register("held", read_table(name, lake_root=lake))
        connection.execute(f'CREATE TABLE "{name}" AS FROM held')
        for registered in (name, served_name(table)):
            connection.execute(f'CREATE VIEW "{database}"."{registered}" AS FROM main."{name}"')
    return athena_gateway.OnDuckDB(connection)
