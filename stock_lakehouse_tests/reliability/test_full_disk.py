"""A disk that is full from any write on: an error that says so, tables old or new, and a run after space is freed heals.

The disk is a small tmpfs in a mount namespace of the test's own, where full_disk.py runs: a real ENOSPC, for the lake, the engine
and Dagster's SQLite files alike.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stock_lakehouse_tests.faults import Faults

UNSHARED = ["unshare", "--user", "--map-root-user", "--mount"]
SMALL_DISK = 'mount -t tmpfs -o size=16m tmpfs "$0" && cd "$0" && echo "$TOML" > lakehouse.toml && exec "$@"'
TOML = 'tickers = ["AAPL"]\nfirst_date = 2023-06-01\nlast_date = 2023-09-21\nlake_root = "lakehouse"\n'
KIND = "a disk full from a write on"


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*UNSHARED, "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, check=False)
    return tried.returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="needs Linux's user namespaces, to mount a small disk")


def on_a_small_disk(folder: Path, mode: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """What full_disk.py says there, line by line."""
    here = Path(__file__).parents[2]
    program = [sys.executable, "-m", "stock_lakehouse_tests.reliability.full_disk", mode, str(folder), *arguments]
    ended = subprocess.run(
        [*UNSHARED, "sh", "-c", SMALL_DISK, str(folder), *program],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(here), "TOML": TOML},
    )
    yield from map(json.loads, ended.stdout.splitlines())
    assert ended.returncode == 0


def check_runs(folder: Path, faults: Faults, *points: str) -> list[str]:
    """Runs on a disk that is full from each of the points on; the places of the points."""
    places = []
    for met in on_a_small_disk(folder, "runs", *points):
        places.append(met["place"])
        # After the last write there is nothing left to fail.
        assert met["place"] == "after save curated/stocks_features" or "no space is left on the disk" in met["error"]
        faults.tried(KIND, 1, met["rows_lost"], met["seconds"])
    return places


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up_says_so_and_is_healed_by_the_next(tmp_path: Path, faults: Faults) -> None:
    places = [
        "before write_bytes raw/stocks_daily",
        "before save curated/stocks_daily",
    ]
    assert check_runs(tmp_path, faults, *places) == places


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_run_on_a_disk_that_fills_up_at_any_write_says_so_and_is_healed_by_the_next(
    tmp_path: Path, faults: Faults
) -> None:
    places = check_runs(tmp_path, faults, "all")
    assert {place.split(" ", 1)[1] for place in places} >= {
        "write_bytes raw/stocks_daily",
        "replace processed/quarantine",
        "replace processed/stocks_daily",
        "save .staging",
        "create curated/restatements",
        "save curated/restatements",
        "save curated/stocks_daily",
        "save curated/stocks_features",
    }


@pytest.mark.soak
@pytest.mark.parametrize(
    "kilobytes",
    [("1000",), pytest.param(("8", "100", "500", "1300", "1600", "1900", "2200", "2500"), marks=pytest.mark.soak)],
)
@pytest.mark.timeout(900)
def test_the_program_on_a_full_disk_says_so_without_a_stack_trace_and_the_next_run_ends_well(
    tmp_path: Path, faults: Faults, kilobytes: tuple[str, ...]
) -> None:
    """Of which Dagster's records fill the most."""
    undisturbed = 78  # sessions of TOML
    for met in on_a_small_disk(tmp_path, "program", *kilobytes):
        assert met["code"] == 1
        assert "no space is left on the disk" in " ".join(met["said"].split()), met["said"]
        assert "Traceback" not in met["said"]
        assert met["healed"] == 0, met["after"]
        faults.tried(KIND, 1, undisturbed - met["rows"], met["seconds"])
