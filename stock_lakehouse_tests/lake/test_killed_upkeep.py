"""An upkeep killed with SIGKILL at any write leaves what the lake says, now and within retention; run again it ends as if
undisturbed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.history import commits
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED
from stock_lakehouse.upkeep import end_repairs, pending_repairs, rectangle_to_heal, repair
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import TICKERS, Clocked, clocked, contents, layers, ledger, run
from stock_lakehouse_tests.lake.histories import (
    DELTA,
    SESSIONS,
    correction,
    deliver,
    first_delivery,
    said,
    scattered,
    time_passes,
)
from stock_lakehouse_tests.lake.killed_upkeep import RETENTION_DAYS, Program, maintain
from stock_lakehouse_tests.lake.test_upkeep import damaged_files, kept_up

# Two ticker-years, so that what brings one back does not bring the other back by chance.
DAMAGED = {PROCESSED.name: "AAA 2019", FEATURES.name: "CCC 2020"}


class Keeper:
    """The program of killed_upkeep.py, and a lake that needs everything that upkeep does."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark, self.prepared = folder, spark, folder / "prepared"
        house = clocked(self.prepared, spark)
        deliver(house, first_delivery())
        for number in range(1, 4):
            deliver(house, correction(number))
        house.lake.curated.open().create_checkpoint()
        house.lake.features.open().create_checkpoint()
        time_passes(self.prepared, timedelta(days=RETENTION_DAYS * 2))
        for number in range(4, 6):
            deliver(house, correction(number))
            time_passes(self.prepared, timedelta(days=1))
        self.before, self.lines = layers(house), ledger(house)
        time.sleep(0.005)
        self.at = utc_now()
        self.memory = said(house.lake)
        time.sleep(0.005)
        scattered(house.lake.curated, 2)
        (self.prepared / ".staging" / "left").mkdir(parents=True)
        (self.prepared / ".staging" / "left" / "part.parquet").write_bytes(b"x")
        time_passes(self.prepared / ".staging", timedelta(days=2))
        house.lake.curated.open().alter.set_table_properties({"delta.logRetentionDuration": "interval 1 days"})
        self._program = Program(self.folder / "points.json")
        root = self.copy("undisturbed")
        assert self.killed_at(root, "none") == 0
        self.points = self._program.points
        self.after = state(Lake(root))

    def copy(self, name: str) -> Path:
        """The lake with a file truncated of features and one of processed gone."""
        root = self.folder / name
        shutil.copytree(self.prepared, root, copy_function=shutil.copy2)
        victim = damaged_files(Lake(root), FEATURES.name)[-1]
        victim.write_bytes(victim.read_bytes()[:50])
        victim = damaged_files(Lake(root), PROCESSED.name)[0]
        victim.write_bytes(b"x")
        return root

    def killed_at(self, root: Path, point: str) -> int:
        return self._program.do("upkeep", root, point)

    def close(self) -> None:
        self._program.close()

    def check(self, point: str, faults: Faults) -> None:
        """Kill an upkeep at `point`, look at the lake, keep it up again, and compare; heal it, and compare with what was."""
        root = self.copy(point)
        assert os.WTERMSIG(self.killed_at(root, point)) == signal.SIGKILL
        house = clocked(root, self.spark)
        assert contents(house.lake.curated) == self.before["curated"]
        assert ledger(house) == self.lines
        assert within_retention(house.lake, self.at)[CURATED.name] == self.memory[CURATED.name]
        self.look(house)
        began = time.monotonic()
        maintain(root)
        assert state(house.lake) == self.after
        self.heal(house)
        healed = time.monotonic() - began
        there = layers(house)
        lost = sum(row not in there[name] for name, rows in self.before.items() for row in rows)
        faults.tried("upkeep killed", 1, lost, healed)
        assert there == self.before
        assert ledger(house) == self.lines
        assert kept_up(house) == {}
        shutil.rmtree(root)

    def look(self, house: Clocked) -> None:
        """A plain look names each damaged ticker-year, as damaged or as taken out."""
        findings = kept_up(house, check_only=True, sample=0)
        for name, ticker_year in DAMAGED.items():
            ticker, year = ticker_year.split()
            assert ticker_year in findings[name] or f"ticker={ticker}/year={year}/" in findings[name]

    def heal(self, house: Clocked) -> None:
        asked = rectangle_to_heal(repair(house.lake), SESSIONS, TICKERS)
        assert asked is not None
        markers = pending_repairs(house.lake)
        run(house, asked, steps=(PROCESSED.name, CURATED.name, FEATURES.name))
        end_repairs(house.lake, markers, asked)


def within_retention(lake: Lake, at: datetime) -> dict[str, list[dict[str, Any]]]:
    """What the tables said then whose files no test damaged."""
    from stock_lakehouse.lake.reading import read_table
    from stock_lakehouse_tests.graph import plain

    return {CURATED.name: plain(read_table(CURATED.name, as_of=at, lake_root=lake.root))}


def state(lake: Lake) -> dict[str, Any]:
    """What upkeep makes of a lake: what it says, its files a table, the versions left, and what lies about."""
    return {
        "said": said(lake),
        "files": {name: len(lake.stored(name).sizes()) for name in DELTA},
        "versions": {name: commits(lake.stored(name))[0].version for name in DELTA},  # type: ignore[arg-type]
        "properties": {name: lake.stored(name).open().metadata().configuration for name in DELTA},  # type: ignore[union-attr]
        "parquet": len([one for one in lake.storage.walk("curated") if one.name.startswith("part-")]),
        "staged": [one.path for one in lake.storage.walk(".staging")],
        "aside": sorted(one.name for one in lake.storage.walk(".damaged") if not one.name.startswith("part-")),
    }


@pytest.fixture(scope="module")
def keeper(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path_factory.mktemp("kept"), spark)
    yield keeper
    keeper.close()


@pytest.mark.soak
def test_the_scenario_needs_everything_that_upkeep_does(keeper: Keeper) -> None:
    kinds = {point.split(" ", 1)[1] for point in keeper.points}
    assert kinds >= {
        "repair curated/stocks_features",
        "compact curated/stocks_daily",
        "set_table_properties curated/stocks_daily",
        "create_checkpoint curated/stocks_daily",
        "unlink curated/stocks_daily",
        "replace .damaged/curated",
        "replace .damaged/processed",
    }
    assert keeper.after["said"][CURATED.name] == keeper.memory[CURATED.name]


SLICE = [
    "after replace .damaged/curated",
    "before repair curated/stocks_features",
    "after compact curated/stocks_daily",
    "before create_checkpoint curated/stocks_daily",
    "after unlink curated/stocks_daily",
]


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("place", SLICE)
def test_an_upkeep_killed_at_a_write_and_run_again_ends_as_if_undisturbed(
    keeper: Keeper, place: str, faults: Faults
) -> None:
    found = [number for number, point in enumerate(keeper.points) if point == place]
    keeper.check(str(found[len(found) // 2]), faults)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_upkeep_killed_at_any_write_and_run_again_ends_as_if_undisturbed(keeper: Keeper, faults: Faults) -> None:
    for number in range(len(keeper.points)):
        keeper.check(str(number), faults)
