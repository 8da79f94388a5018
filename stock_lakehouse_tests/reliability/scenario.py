"""The run that every fault meets, a second one on a lake of one: what it delivers, and every moment at which it writes.

Here: deliveries, shares of the run for processes at once, the moments around each write. Not here: what happens at a moment
(killed_runs.py, the tests), and what a lake must hold afterwards (states.py).
"""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import deltalake
import deltalake.table
from pyspark.sql.connect.readwriter import DataFrameWriter

from stock_lakehouse.lake.storage import Bucket, LakeRoot
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse_tests.graph import (
    NOW,
    TICKERS,
    Bars,
    Clocked,
    edited,
    history,
    rectangle,
    run,
    year_boundary,
)

SECOND = NOW + timedelta(days=1)
SESSIONS = year_boundary(40, 21)
DAYS, NEW_SESSION = SESSIONS[:-1], SESSIONS[-1]
WITHDRAWN_RUN = "cccccccc-run"
ASKED = rectangle(SESSIONS, TICKERS)
# What each of eight processes at once asks for of it: overlapping in sessions and tickers, over the year's end. The first three
# cover all of it.
SHARES = (
    rectangle(SESSIONS[:45], TICKERS),
    rectangle(SESSIONS[35:], TICKERS),
    rectangle(SESSIONS, ("AAA", "CCC")),
    rectangle(SESSIONS[10:50], ("BBB",)),
    rectangle(SESSIONS[::2], TICKERS),
    rectangle(SESSIONS[44:], ("AAA", "BBB")),
    rectangle(SESSIONS[5:55], ("BBB", "CCC")),
    ASKED,
)


def named_actions(bars: Bars, on: date) -> Bars:
    """`bars` as delivered on the evening of `on`; AAA's vendor names its actions, a split and a dividend on NEW_SESSION."""
    acts = {"stock_splits": "2.0", "dividends": "0.1"}
    for (ticker, session), bar in bars.items():
        if ticker == "AAA":
            none = {"stock_splits": "0.0", "dividends": "0.0"}
            bar.update(acts if session == NEW_SESSION else none, adjusted_to=on.isoformat())
    return bars


def first_deliveries() -> tuple[Bars, Bars]:
    """What the first run lands; and what a run beside it lands whose files an operator removes before the second run."""
    bars = named_actions(history(TICKERS, DAYS), DAYS[-1])
    bars["BBB", DAYS[3]]["volume"] = "-1"  # quarantined for good
    removed = {key: bars.pop(key) for key in list(bars) if key[0] == "CCC" and key[1].year == 2020}
    return bars, removed


def second_delivery() -> list[dict[str, str | None]]:
    """A correction in each of two tickers, a new session, with it a split, and rows that end in the quarantine."""
    bars = named_actions(history(TICKERS, SESSIONS), NEW_SESSION)
    price = repr(float(bars["AAA", DAYS[15]]["close"] or 0) * 1.002)
    changed = edited(edited(bars, ("AAA", DAYS[15]), close=price), ("BBB", DAYS[45]), volume="99")
    new = [changed["AAA", DAYS[15]], changed["BBB", DAYS[45]], bars["AAA", NEW_SESSION], bars["BBB", NEW_SESSION]]
    bad: list[dict[str, str | None]] = [
        {**bars["AAA", DAYS[20]], "close": None},
        {**bars["AAA", DAYS[50]], "high": "0.01"},
        {**bars["BBB", DAYS[5]], "open": "n/a"},
        {"ticker": None, "problem": "file.csv, line 7: 3 fields", "line": "a,b,c"},
    ]
    return new + bad


def prepare(house: Clocked) -> None:
    """The lake as it stands before the second run."""
    bars, removed = first_deliveries()
    run(house, rectangle(DAYS, TICKERS), bars.values(), "11111111-run")
    run(house, rectangle([day for _, day in removed], ["CCC"]), removed.values(), WITHDRAWN_RUN)
    house.lake.storage.delete(file.path for file in house.lake.raw.files() if "_cccccccc_" in file.name)


def second_run(house: Clocked, run_id: str, asked: Rectangle = ASKED) -> None:
    house._at = SECOND
    run(house, asked, second_delivery(), run_id)


def heal(house: Clocked, *shares: Rectangle) -> float:
    """The second run made once more, in one or once a share; the seconds it took."""
    began = time.monotonic()
    for number, share in enumerate(shares or (ASKED,)):
        second_run(house, f"eeeeeee{number:x}-run", share)
    return time.monotonic() - began


def die(place: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class Points:
    """Counts the moments before and after each write below `root`, and calls `act`, with what is written, at the one of number
    `at`, or the first of that name. Every call that can change a lake has two, without a change in the product."""

    def __init__(self, root: LakeRoot, at: int | str | None, act: Callable[[str], None] = die) -> None:
        self.root = f"{root}/"
        self.at = at
        self.act = act
        self.seen: list[str] = []

    def reach(self, name: str) -> None:
        is_it = self.at == len(self.seen) or (self.at == name and name not in self.seen)
        self.seen.append(name)
        if is_it:
            self.act(name)

    def around(self, patch: Callable[[Any, str, Any], None], owner: Any, name: str, place: Callable[..., Any]) -> None:
        """Make points before and after `owner.name`; `place` gives the path it writes from the call's arguments."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            path = str(place(*args, **kwargs))
            parts = path.removeprefix(self.root).split("/")
            # Leases are renewed by a clock: their points would not be the same in every run.
            if not path.startswith(self.root) or parts[0] == ".locks":
                return original(*args, **kwargs)
            where = ".staging" if parts[0] == ".staging" else "/".join(parts[:2])
            self.reach(f"before {name} {where}")
            result = original(*args, **kwargs)
            self.reach(f"after {name} {where}")
            return result

        patch(owner, name, wrapped)

    def install(self, patch: Callable[[Any, str, Any], None] = setattr) -> None:
        """`patch` is `setattr`, or a monkeypatch's."""
        for owner, name, place in (
            (os, "replace", lambda source, target: target),
            (pathlib.Path, "unlink", lambda path, missing_ok=False: path),
            (pathlib.Path, "write_bytes", lambda path, content: path),
            (Bucket, "put", lambda bucket, path, content, there: bucket.uri(path)),
            (Bucket, "delete", lambda bucket, paths: bucket.uri(next(iter(paths), ".locks/none"))),
            (DataFrameWriter, "save", lambda writer, path, *args, **kwargs: path),
            (deltalake, "write_deltalake", lambda table, *args, **kwargs: _place_of(table)),
            (deltalake.DeltaTable, "create", lambda path, *args, **kwargs: path),
            (deltalake.DeltaTable, "delete", _place_of),
            (deltalake.DeltaTable, "restore", _place_of),
            (deltalake.DeltaTable, "repair", _place_of),
            (deltalake.DeltaTable, "create_checkpoint", _place_of),
            (deltalake.table.TableAlterer, "add_columns", lambda of, *args: _place_of(of.table)),
            (deltalake.table.TableAlterer, "set_table_properties", lambda of, *args, **kwargs: _place_of(of.table)),
            (deltalake.table.TableOptimizer, "compact", lambda of, *args, **kwargs: _place_of(of.table)),
        ):
            self.around(patch, owner, name, place)


def _place_of(table: deltalake.DeltaTable, *args: Any, **kwargs: Any) -> str:
    return table.table_uri.removeprefix("file://")
