"""Backfills that overlap, started at once as people start them: the program in processes of their own, one lake, one Dagster
instance. None fails, and the tables are those of one run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.clock import set_simulated
from stock_lakehouse.instance.home import open_instance
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import history, sessions_of
from stock_lakehouse_tests.reliability.states import State
from stock_lakehouse_tests.reliability.test_kill import of_any_order

FIRST, LAST = date(2019, 12, 2), date(2020, 1, 31)
SESSIONS = sessions_of(FIRST, LAST)
TICKERS = ("AAA", "BBB", "CCC", "DDD")
HEADINGS = ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume")
DELIVERED = ("date", "open", "high", "low", "close", "adj_close", "volume")


@dataclass
class Desk:
    """A folder of CSV files, settings on a clock that stands, and the program."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "prices").mkdir()
        bars = history(TICKERS, SESSIONS)
        for ticker in TICKERS:
            with (self.folder / "prices" / f"{ticker}.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(HEADINGS)
                rows.writerows([bars[ticker, day][name] for name in DELIVERED] for day in SESSIONS)
        set_simulated(self.folder / "now", datetime(2024, 6, 3, 12, tzinfo=UTC))

    def start(self, lake: str, number: int, *arguments: str) -> subprocess.Popen[str]:
        """The program with settings of its own for the lake at `lake`."""
        settings = self.folder / f"settings_{number}.toml"
        settings.write_text(
            f'tickers = {json.dumps(TICKERS)}\nfirst_date = {FIRST}\nlast_date = {LAST}\nsource = "csv"\n'
            f'csv_folder = "{self.folder}/prices"\nlake_root = "{lake}"\n',
            encoding="utf-8",
        )
        program = Path(sys.executable).with_name("stock-lakehouse")
        return subprocess.Popen(
            [str(program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "STOCK_LAKEHOUSE_CONFIG": str(settings),
                "STOCK_LAKEHOUSE_SIMULATED_CLOCK": str(self.folder / "now"),
            },
        )


def assert_ended_well(processes: Sequence[subprocess.Popen[str]]) -> None:
    try:
        for process in processes:
            said, _ = process.communicate(timeout=900)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
            process.wait()


def shares(number: int) -> Iterator[tuple[str, ...]]:
    """What each of `number` backfills asks for: three of the four tickers, and sessions that overlap with its neighbours'.
    Together all of it."""
    length = len(SESSIONS) * 2 // 3
    for one in range(number):
        tickers = [ticker for at, ticker in enumerate(TICKERS) if at != one % len(TICKERS) or number < 3]
        first = (len(SESSIONS) - length) * (one % 2)
        days = SESSIONS[first : first + length]
        yield "--tickers", ",".join(tickers), "--from", str(days[0]), "--to", str(days[-1])


def check(desk: Desk, many: str, one: str, spark: SparkSession, faults: Faults, number: int, *command: str) -> None:
    backfills = [desk.start(many, at, *command, *share) for at, share in enumerate(shares(number))]
    assert_ended_well([*backfills, desk.start(one, number, "materialize")])
    state, wanted = of_any_order(State.of(place(many), spark)), of_any_order(State.of(place(one), spark))
    faults.tried("a backfill beside others", number, state.lost_of(wanted))
    assert state == wanted
    assert len(state.layers["features"]) == len(SESSIONS) * len(TICKERS)


def place(root: str) -> Path | str:
    return root if root.startswith("s3://") else Path(root)


@pytest.mark.soak
def test_overlapping_backfills_started_at_once_on_an_empty_lake_end_in_the_tables_of_one_run(
    tmp_path: Path, spark: SparkSession, faults: Faults
) -> None:
    check(Desk(tmp_path), f"{tmp_path}/many", f"{tmp_path}/one", spark, faults, 2, "backfill")
    with open_instance(tmp_path / "many" / ".dagster") as instance:
        runs = instance.get_runs()
        assert len(runs) >= 2
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", [("backfill",), ("backfill", "--chunk", "40"), ("materialize",)])
def test_eight_overlapping_backfills_started_at_once_end_in_the_tables_of_one_run(
    tmp_path: Path, spark: SparkSession, faults: Faults, command: tuple[str, ...]
) -> None:
    check(Desk(tmp_path), f"{tmp_path}/many", f"{tmp_path}/one", spark, faults, 8, *command)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_eight_overlapping_backfills_started_at_once_on_s3_end_in_the_tables_of_one_run(
    tmp_path: Path, spark: SparkSession, faults: Faults, s3_root: str
) -> None:
    check(Desk(tmp_path), f"{s3_root}/many", f"{s3_root}/one", spark, faults, 8, "backfill")
