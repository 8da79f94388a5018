"""Lakes with a history of months, made in seconds: deliveries, and time that passes for everything that is there.

Here: what tests of upkeep share. Not here: what they expect.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.reading import WITH_HISTORY, read_table
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.tables import RAW
from stock_lakehouse_tests.graph import TICKERS, Bars, Clocked, edited, history, plain, rectangle, run, year_boundary

SESSIONS = year_boundary(25, 12)
DELTA = [name for name in WITH_HISTORY if name != RAW.name]


def deliver(house: Clocked, bars: Bars, run_id: str = "11111111-run") -> None:
    house._at = utc_now()
    run(house, rectangle({day for _, day in bars}, TICKERS), bars.values(), run_id)


def first_delivery() -> Bars:
    """A history with a dividend in it."""
    bars = history(TICKERS, SESSIONS)
    bars["BBB", SESSIONS[30]]["dividends"] = "0.5"
    return bars


def correction(number: int) -> Bars:
    """Another close of two bars."""
    bars = first_delivery()
    keys = sorted(bars)
    chosen = [keys[number * 7 % len(keys)], keys[number * 31 % len(keys)]]
    return {
        key: edited(bars, key, close=repr(float(bars[key]["close"] or 1) * (1 + number / 20_000)))[key]
        for key in chosen
    }


def said(lake: Lake, as_of: Any = None) -> dict[str, list[dict[str, Any]]]:
    """What the Delta tables say."""
    return {name: plain(read_table(name, as_of=as_of, lake_root=lake.root)) for name in DELTA}


def time_passes(root: Path, passed: timedelta) -> None:
    """Make every commit and file of the lake that much older."""

    def older(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) - int(passed / timedelta(milliseconds=1))}"

    for path in [path for path in root.rglob("*") if path.is_file()]:
        then = path.stat().st_mtime - passed.total_seconds()
        if path.parent.name == "_delta_log" and path.suffix == ".json":
            path.write_text(re.sub(r'("(?:timestamp|deletionTimestamp)":)(\d+)', older, path.read_text()))
        os.utime(path, (then, then))


def scattered(table: DeltaTable, files: int) -> None:
    """Split each ticker-year of `table` into several files, as an engine with many tasks would write them."""
    rows = table.open().to_pyarrow_table()
    parts = [rows.take(list(range(at, rows.num_rows, files))) for at in range(files)]
    opened = table.open()
    opened.delete()
    for part in parts:
        deltalake.write_deltalake(str(table.path), part, mode="append")


def adds_of(table: DeltaTable) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.table(table.open().get_add_actions(flatten=True)).to_pylist()
    return rows
