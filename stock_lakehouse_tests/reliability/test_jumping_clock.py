"""A clock that jumps, back by an hour or a day or forward by a year, between runs and in the middle of one: the newest delivery
still wins, landing times stay in order, and nothing is lost, neither rows nor leases nor what a running run has staged."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.lock import TableBusyError, confirm, one_writer
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.tables import RAW
from stock_lakehouse_tests.faults import Faults
from stock_lakehouse_tests.graph import (
    NOW,
    TICKERS,
    Clocked,
    clocked,
    edited,
    history,
    layers,
    ledger,
    raw_contents,
    rectangle,
    run,
    year_boundary,
)
from stock_lakehouse_tests.reliability.states import Rows, assert_the_ledger_is_what_changed, missing

HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)
KIND = "a clock that jumped"
DAYS = year_boundary(12, 8)
ASKED = rectangle(DAYS, TICKERS)
AT = ("AAA", DAYS[5])
BARS = history(TICKERS, DAYS)
# Each supersedes the one before it; the last takes a value back that was delivered before.
DELIVERIES = (BARS, edited(BARS, AT, volume="7"), edited(BARS, AT, volume="8"), edited(BARS, AT, volume="7"))
STEADY = [NOW + DAY * number for number in range(len(DELIVERIES))]


def without_times(rows: Rows) -> Rows:
    told = ("ingested_at", "table_id")  # raw is all text
    return [
        {name: value for name, value in row.items() if name not in told and not isinstance(value, datetime)}
        for row in rows
    ]


def held(house: Clocked) -> dict[str, Rows]:
    """What a lake holds, without what a clock said."""
    tables = {**layers(house), "raw": raw_contents(house.lake), "ledger": ledger(house)}
    return {name: sorted(without_times(rows), key=str) for name, rows in tables.items()}


def delivered(house: Clocked, instants: Iterable[datetime]) -> dict[str, Rows]:
    """What the lake holds after DELIVERIES, each in a run at its instant."""
    for number, (bars, now) in enumerate(zip(DELIVERIES, instants, strict=True)):
        house._at = now
        run(house, ASKED, bars.values(), f"{number}" * 8 + "-run")
    landed = [row for row in raw_contents(house.lake) if (row["symbol"], row["date"]) == (AT[0], str(AT[1]))]
    in_order = [row["volume"] for row in sorted(landed, key=lambda row: str(row["ingested_at"]))]
    assert in_order == [bars[AT]["volume"] for bars in DELIVERIES]
    assert_the_ledger_is_what_changed(house)
    return held(house)


@pytest.fixture(scope="module")
def steady(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """What the lake holds whose clock did not jump."""
    return delivered(clocked(tmp_path_factory.mktemp("steady") / "lake", spark), STEADY)


JUMPS = {
    "back an hour": (-HOUR,),
    "back a day": (-DAY,),
    "ahead a year": (YEAR,),
    "ahead a year and back": (YEAR, -YEAR),
    "back a year and ahead": (-YEAR, YEAR),
}


@pytest.mark.soak
@pytest.mark.parametrize(
    "jumps",
    [
        pytest.param(jumps, id=name, marks=[] if name == "ahead a year and back" else [pytest.mark.soak])
        for name, jumps in JUMPS.items()
    ],
)
def test_a_clock_that_jumps_between_runs_changes_no_table(
    spark: SparkSession, tmp_path: Path, faults: Faults, steady: dict[str, Rows], jumps: tuple[timedelta, ...]
) -> None:
    moved = list(STEADY)
    for number, jump in enumerate(jumps, start=1):
        moved[number:] = [now + jump for now in moved[number:]]
    found = delivered(clocked(tmp_path / "lake", spark), moved)
    faults.tried(KIND, len(jumps), sum(missing(steady[name], found[name]) for name in steady))
    assert found == steady


@pytest.mark.soak
def test_a_clock_that_jumps_in_the_middle_of_runs_changes_no_table(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults, steady: dict[str, Rows]
) -> None:
    jumps, asked = itertools.cycle((YEAR, -DAY, timedelta(0), -HOUR)), [0]

    def now(house: Clocked) -> datetime:
        asked[0] += 1
        return house._at + next(jumps)

    monkeypatch.setattr(Clocked, "now", now)
    found = delivered(clocked(tmp_path / "lake", spark), STEADY)
    faults.tried(KIND, asked[0], sum(missing(steady[name], found[name]) for name in steady))
    assert asked[0] >= 2 * len(DELIVERIES)
    assert found == steady


@pytest.mark.slow
def test_a_bar_that_landed_under_a_clock_that_was_behind_becomes_final_when_the_clock_is_right(
    spark: SparkSession, tmp_path: Path, faults: Faults
) -> None:
    house, day = clocked(tmp_path / "lake", spark), DAYS[-1]
    final_at = house.final_at(day)
    assert final_at is not None
    statuses = []
    for number, now in enumerate((final_at + HOUR - DAY, final_at + HOUR, final_at - DAY)):
        house._at = now
        run(house, ASKED, BARS.values(), f"{number}" * 8 + "-run")
        (bar,) = [row for row in layers(house)["curated"] if (row["ticker"], row["date"]) == ("AAA", day)]
        statuses.append(bar["bar_status"])
    assert statuses == ["provisional", "final", "final"]
    faults.tried(KIND, 2, len(BARS) - len(layers(house)["curated"]))


def test_no_lease_is_lost_or_stolen_when_the_clock_jumps(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    wall, jump = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + jump[0])
    with one_writer(s3_root, RAW.name):
        for jump[0] in (YEAR.total_seconds(), -YEAR.total_seconds(), -HOUR.total_seconds()):
            busy = pytest.raises(TableBusyError)
            with busy, one_writer(s3_root, RAW.name, 0.2):
                pass
            confirm(s3_root)
    faults.tried(KIND, 3, 0)


def staged(root: Path, changed: datetime, spark: SparkSession) -> Staging:
    """A run's staged frame, whose files were changed then."""
    staging = Staging(root)
    staging.stage(spark.range(3))
    for file in (root / staging.folder).rglob("*"):
        os.utime(file, (changed.timestamp(), changed.timestamp()))
    return staging


def files_of(staging: Staging, root: Path) -> list[Path]:
    return [file for file in (root / staging.folder).rglob("*") if file.is_file()]


def test_what_a_living_run_has_staged_stays_and_what_a_killed_one_left_long_ago_goes_however_the_clock_jumps(
    spark: SparkSession, tmp_path: Path, faults: Faults
) -> None:
    living, killed, recent = (staged(tmp_path, at, spark) for at in (NOW, NOW, NOW + YEAR))
    for one in (killed, recent):  # as the operating system does with a process
        lock: Any = one._alive
        lock.release(force=True)
    before = len(files_of(living, tmp_path))
    staged(tmp_path, NOW - YEAR, spark).clear()  # the clock has jumped back: nothing is old
    assert files_of(killed, tmp_path)
    staged(tmp_path, NOW + YEAR, spark).clear()
    faults.tried(KIND, 2, before - len(files_of(living, tmp_path)))
    assert not files_of(killed, tmp_path)
    assert files_of(recent, tmp_path)
    living.clear()
    assert not files_of(living, tmp_path)
    assert len(list((tmp_path / ".locks").glob("staging-*.lock"))) == 1  # of `recent`, until it is old
