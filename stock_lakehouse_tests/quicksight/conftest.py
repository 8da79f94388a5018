"""A lake whose newest session is a Wednesday of 2020, and a QuickSight that reads from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse import aws
from stock_lakehouse.dashboards.quicksight import client as quicksight_client
from stock_lakehouse.dashboards.quicksight.client import QuickSight
from stock_lakehouse.dashboards.quicksight.provisioning import Outcome, provision
from stock_lakehouse.dashboards.quicksight.refresh import LakeState
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.serving import SERVED, served_name
from stock_lakehouse.settings import Settings
from stock_lakehouse.sql.choose import local_engine
from stock_lakehouse_tests import quicksight_server, s3
from stock_lakehouse_tests.graph import Bars, clocked, edited, history, rectangle, run, sessions_of

TICKERS = ("BF.B", "BRK-B", "C=F")
DAYS = sessions_of(date(2019, 6, 3), date(2020, 1, 8))
NEXT_DAY = sessions_of(date(2020, 1, 9), date(2020, 1, 9))
BARS = history(TICKERS, (*DAYS, *NEXT_DAY))
REFUSED = ("BRK-B", DAYS[30])  # its high is below its low
NOW = datetime(2020, 1, 8, 23, 0, tzinfo=UTC)
READ: dict[tuple[str, str], list[dict[str, Any]]] = {}  # rows that were read already, by SQL and state of the lake


@dataclass
class Place:
    """A lake, the QuickSight of an account that reads from it, and the settings that name both.

    - clients: of quicksight and sts
    - later: the lake of the next day
    - now: the time of both, which a test may move
    """

    settings: Settings
    account: quicksight_server.Account
    clients: dict[str, Any]
    later: Path
    now: datetime = NOW
    lines: list[str] = field(default_factory=list)

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_options)

    def provision(self, dry_run: bool = False, quicksight: QuickSight | None = None) -> Outcome:
        """One run."""
        self.account.now = lambda: self.now
        quicksight = quicksight or QuickSight(self.clients["quicksight"], self.clients["sts"])
        return provision(self.settings, View(self.lake), quicksight, dry_run, self.lines.append, lambda: self.now)

    def changed(self, **quicksight: Any) -> None:
        """Change settings of the group quicksight."""
        group = self.settings.quicksight.model_copy(update=quicksight)
        self.settings = self.settings.model_copy(update={"quicksight": group})

    def move_on(self) -> None:
        """The lake is that of the next day."""
        shutil.rmtree(self.lake.root)
        shutil.copytree(self.later, self.lake.root)

    def deliver(self, spark: SparkSession, bars: Bars, days: tuple[date, ...], run_id: str) -> None:
        """A run of the lake that delivers `bars` for `days`."""
        run(clocked(self.settings.lake_root, spark, TICKERS), rectangle(days, TICKERS), bars.values(), run_id)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a data set's SQL reads: Athena's dialect on DuckDB, over the tables instead of their copies in Glue."""
        for table in SERVED:
            sql = sql.replace(f'"lakehouse"."{served_name(table)}"', table.name)
        key = (sql, LakeState(View(self.lake)).quality)
        if key not in READ:
            READ[key] = local_engine(self.lake).run(sql.replace('"lakehouse".', "")).rows.to_pylist()
        return READ[key]


@pytest.fixture(scope="session")
def filled(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled lake in a folder; tests change only copies."""
    root = tmp_path_factory.mktemp("quicksight") / "lake"
    house = clocked(root, spark, TICKERS)
    bars = {key: bar for key, bar in edited(BARS, REFUSED, high="1", low="2").items() if key[1] in DAYS}
    run(house, rectangle(DAYS, TICKERS), bars.values(), "11111111-run")
    return root


@pytest.fixture(scope="session")
def later(filled: Path, spark: SparkSession) -> Path:
    """The filled lake, and the session after it."""
    root = Path(shutil.copytree(filled, filled.with_name("later")))
    new = [bar for key, bar in BARS.items() if key[1] in NEXT_DAY]
    run(clocked(root, spark, TICKERS), rectangle(NEXT_DAY, TICKERS), new, "22222222-run")
    return root


@dataclass
class Wire:
    """A server of QuickSight for all tests, and the clients that call it: boto3 takes half a second to make one."""

    served: quicksight_server.Served
    address: str
    clients: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def wire() -> Iterator[Wire]:
    served = quicksight_server.Served(quicksight_server.Account())
    with quicksight_server.serving(served) as address:
        yield Wire(served, address)


@pytest.fixture
def place(filled: Path, later: Path, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A copy of the lake, and an empty account."""
    root = shutil.copytree(filled, tmp_path / "lake")
    settings = Settings(
        lake_root="s3://bucket/lake",
        tickers=TICKERS,
        first_date=date(2019, 1, 2),
        last_date=date(2021, 12, 31),
        catalog="glue",
        dashboard="quicksight",
        quicksight={"readers": ("group analysts", "user ben"), "authors": ("user ana",)},
    )
    # The lake is a folder here, as AWS is not asked for its rows.
    settings = settings.model_copy(update={"lake_root": root})
    account = wire.served.account = quicksight_server.Account()
    monkeypatch.setattr(quicksight_client, "FIRST_PAUSE_SECONDS", 0.001)
    with s3.variables(quicksight_server.environment(wire.address)):
        for service in ("quicksight", "sts"):
            if service not in wire.clients:
                wire.clients[service] = aws.client(service)
        place = Place(settings, account, wire.clients, later)
        account.rows = place.rows
        yield place
    assert account.findings == []
