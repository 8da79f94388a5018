"""AWS on loopback behind a gate, lakes in every state that a command meets, and commands that run there as a role.

Here: servers, a fresh stage for each chapter, the calls of the program. Not here: the chapters (chapters.py), the gate (gate.py).
"""

from __future__ import annotations

import contextlib
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from botocore.credentials import Credentials
from obstore.store import S3Store
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.cli.errors import explainable, explanation
from stock_lakehouse.dashboards.quicksight import client as quicksight_client
from stock_lakehouse.deployment.policies import Names, bucket_policy, policies_of
from stock_lakehouse.deployment.rights import Role
from stock_lakehouse.settings import Settings, load_settings
from stock_lakehouse_tests import athena_gateway, quicksight_server, redshift_server, s3
from stock_lakehouse_tests.deployment.asked import Account, Judge
from stock_lakehouse_tests.deployment.gate import ROOT, Caller, Gate, Record, gate
from stock_lakehouse_tests.graph import history, sessions_of

TICKERS = ("AAA", "BBB")
DAYS = sessions_of(date(2023, 12, 18), date(2024, 1, 10))
NUMBER = athena_gateway.ACCOUNT
CONFIG = Path(__file__).parents[2] / "deploy" / "lakehouse.toml"
KEYS = Credentials(s3.KEYS["AWS_ACCESS_KEY_ID"], s3.KEYS["AWS_SECRET_ACCESS_KEY"])


class FailedError(Exception):
    """A command ended with another exit code than it should. The message has its output."""


class Prices:
    """A folder of price files, a file a ticker, which a test edits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bars = history(TICKERS, DAYS)
        self.rows: dict[str, dict[date, list[str]]] = {ticker: {} for ticker in TICKERS}
        for (ticker, session), bar in bars.items():
            names = ("open", "high", "low", "close", "adj_close", "volume")
            numbers = [f"{float(bar[name] or 0):.4f}" for name in names[:-1]] + [str(bar["volume"])]
            self.rows[ticker][session] = [*numbers, "0.0", "0.0"]

    def deliver(self, until: date, since: date = DAYS[0]) -> None:
        """Write the files with the sessions from `since` to `until`."""
        self.folder.mkdir(exist_ok=True)
        header = "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits"
        for ticker, bars in self.rows.items():
            lines = [",".join([str(day), *row]) for day, row in sorted(bars.items()) if since <= day <= until]
            (self.folder / f"{ticker}.csv").write_text("\n".join([header, *lines, ""]), encoding="utf-8")


@dataclass
class World:
    """The servers, and the roles of a deployment with every service in use.

    - endpoint: S3 and Glue without the gate
    - keys: those of each role at the emulator, where it asks for rights too
    - lakes: folders with a lake in each state, by name
    """

    gate: Gate
    spectrum: Gate
    record: Record
    endpoint: str
    account: Account
    settings: Settings
    roles: Mapping[str, Role]
    quicksight: quicksight_server.Served
    athena: athena_gateway.OnDuckDB
    folder: Path
    lakes: dict[str, Path] = field(default_factory=dict)
    keys: dict[str, Credentials] = field(default_factory=dict)

    def names(self, prefix: str) -> Names:
        account = self.account
        return Names(account.partition, account.region, account.number, account.bucket, prefix, str(account.key))

    @contextlib.contextmanager
    def staged(self, variables: Mapping[str, str], folder: Path) -> Iterator[Stage]:
        """A fresh stage: an empty place in the bucket, an empty Glue database, Redshift and QuickSight, a new Dagster instance."""
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
        self.quicksight.account = quicksight_server.Account()
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as servers:
            # The external schemas of Redshift are read by the role that Spectrum has.
            redshift = servers.enter_context(redshift_server.redshift_server(self.spectrum.url))
            athena = servers.enter_context(athena_gateway.gateway(self.athena, self.endpoint))
            self.gate.upstreams |= {"redshift-data": redshift.url, "athena": athena.url}
            surroundings = servers.enter_context(pytest.MonkeyPatch.context())
            for name, value in stage.variables.items():
                surroundings.setenv(name, value)
            surroundings.chdir(folder)
            surroundings.setattr(quicksight_client, "FIRST_PAUSE_SECONDS", 0.001)
            yield stage


@dataclass
class Stage:
    """Where one chapter plays.

    - prefix: of its lake in the bucket
    - given: variables that the chapter sets
    - policies: in place of those of a role, by its name
    """

    world: World
    prefix: str
    folder: Path
    given: dict[str, str]
    prices: Prices
    policies: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"s3://{self.world.account.bucket}/{self.prefix}"

    @property
    def variables(self) -> dict[str, str]:
        world = self.world
        return {
            "STOCK_LAKEHOUSE_CONFIG": str(CONFIG),
            "STOCK_LAKEHOUSE_LAKE_ROOT": self.root,
            "STOCK_LAKEHOUSE_TICKERS": ",".join(TICKERS),
            "STOCK_LAKEHOUSE_SOURCE": "csv",
            "STOCK_LAKEHOUSE_CSV_FOLDER": str(self.prices.folder),
            "STOCK_LAKEHOUSE_FIRST_DATE": str(DAYS[0]),
            "STOCK_LAKEHOUSE_LAST_DATE": str(DAYS[-1]),
            "STOCK_LAKEHOUSE_ENGINE": "embedded",
            "STOCK_LAKEHOUSE_SERVING_CACHE": str(self.folder / "cache"),
            "STOCK_LAKEHOUSE_AWS_ATHENA_RESULTS": f"s3://{world.account.bucket}/results",
            "DAGSTER_HOME": str(self.folder / "dagster"),
            **self.given,
        }

    def lake_of(self, state: str) -> None:
        """The lake is a copy of the one in `state`."""
        with s3.variables(s3.environment(self.world.endpoint)):
            s3.upload(self.world.lakes[state], self.root)

    def policies_of(self, role: str) -> Mapping[str, Any]:
        return self.policies.get(role) or policies_of(self.world.roles[role], self.world.names(self.prefix))

    @contextlib.contextmanager
    def as_role(self, role: str, command: str, door: Gate | None = None) -> Iterator[None]:
        """Requests meanwhile, at `door` (None: the main one), are those of `role`."""
        world = self.world
        of_bucket = bucket_policy(world.settings, world.names(self.prefix))
        judge = Judge(self.policies_of(role), {"bucket": of_bucket})
        caller = Caller(role, command, judge, world.keys.get(role, ROOT))
        with (door or world.gate).called_by(caller):
            yield

    def call(self, *arguments: str, code: int = 0) -> str:
        """The output of a command of the program. Raises FailedError if it ends with another exit code."""
        result = CliRunner().invoke(app, list(arguments))
        ended, said, error = result.exit_code, result.output, result.exception
        if isinstance(error, Exception):
            # As `stock_lakehouse.cli.main` has it.
            line = explanation(error) if isinstance(error, explainable()) else None
            said += line or "".join(traceback.format_exception(error))
        if ended != code:
            raise FailedError(f"{' '.join(arguments)}: exit code {ended}\n{said}")
        return said
