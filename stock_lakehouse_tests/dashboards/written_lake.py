"""A lake of seven years for the page, written without an engine in a second: curated bars, features, a ledger; several versions.

Here: what the tables hold, and when. Indicators are made up, for the page shows what the lake holds, whatever it is; that a run
computes them rightly is tested elsewhere. Not here: what a test expects of the page.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.market_calendar import market_calendar, utc_now
from stock_lakehouse.tables import CURATED, FEATURES, RESTATEMENTS, Table

FIRST, LAST = date(2015, 1, 2), date(2021, 12, 31)
SESSIONS = market_calendar(FIRST).between(FIRST, LAST)
SPLIT, DIVIDEND = SESSIONS[-600], SESSIONS[-100]  # of LONG: four for one, and 0.5
SIGNALS = SESSIONS[-60:-56]  # of LONG: four sessions in a row with a buy signal
CROSS = SESSIONS[-150]  # of LONG
CORRECTED = SESSIONS[-30]  # of LONG, in the second version
WRONG_CLOSE = 1.5
# LONG has all sessions, GONE ended in 2017, NEWS has 30 sessions and the last of them is provisional, CENT costs a cent and has
# bars of which only the close is known.
SPANS: Mapping[str, tuple[int, int]] = {
    "CENT": (len(SESSIONS) - 400, len(SESSIONS)),
    "GONE": (0, 600),
    "LONG": (0, len(SESSIONS)),
    "NEWS": (len(SESSIONS) - 30, len(SESSIONS)),
}


@dataclass(frozen=True)
class Written:
    """The lake at `root`, and the moments after its first and its second version."""

    root: Path
    first: datetime
    second: datetime


def written_lake(root: Path) -> Written:
    """All sessions but the last in the first version, LONG with a wrong close; all sessions in the second, and the ledger."""
    lake = lake_at(root)
    for table in (CURATED, FEATURES, RESTATEMENTS):
        lake.delta[table.name].prepare()
    write(lake, SESSIONS[:-1], is_corrected=False)
    first = _moment_between()
    write(lake, SESSIONS)
    _write_ledger(lake)
    return Written(root, first, _moment_between())


def lake_at(root: Path) -> Lake:
    return Lake(LakeOptions(lake_root=root, tickers=tuple(SPANS), first_date=FIRST, last_date=LAST))


def write(lake: Lake, sessions: Sequence[date], is_corrected: bool = True) -> None:
    """Replace both tables by the rows of `sessions`."""
    for table, rows in ((CURATED, bars(sessions, is_corrected)), (FEATURES, features(sessions))):
        _replace(lake, table, rows)


def _replace(lake: Lake, table: Table, rows: pa.Table) -> None:
    opened = lake.delta[table.name].open()
    deltalake.write_deltalake(opened, rows.cast(pa.schema(opened.schema().to_arrow())), mode="overwrite")


def _moment_between() -> datetime:
    """A moment after all commits until now and before any later one: they have times in milliseconds."""
    time.sleep(0.01)
    now = utc_now()
    time.sleep(0.01)
    return now


def walk(ticker: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The closes of all sessions."""
    dice = np.random.default_rng([15, *ticker.encode()])
    start = 0.0125 if ticker == "CENT" else 100.0
    return start * np.exp(np.cumsum(dice.normal(0.0002, 0.015, len(SESSIONS))))


def _sessions_of(ticker: str, sessions: Sequence[date]) -> range:
    first, end = SPANS[ticker]
    return range(first, min(end, len(sessions)))


def bars(sessions: Sequence[date], is_corrected: bool = True) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for ticker in SPANS:
        dice = np.random.default_rng([16, *ticker.encode()])
        close, opened, volume = (
            walk(ticker),
            dice.normal(1, 0.006, len(SESSIONS)),
            dice.integers(10**6, 10**8, len(SESSIONS)),
        )
        for at in _sessions_of(ticker, sessions):
            session, price = SESSIONS[at], float(close[at])
            if ticker == "LONG" and session == CORRECTED and not is_corrected:
                price = WRONG_CLOSE
            first = price * float(opened[at])
            is_partial = ticker == "CENT" and at % 7 == 0
            rows.append(
                {
                    "ticker": ticker,
                    "date": session,
                    "open": None if is_partial else first,
                    "high": None if is_partial else max(first, price) * 1.01,
                    "low": None if is_partial else min(first, price) * 0.99,
                    "close": price,
                    "adj_close": price,
                    "volume": None if is_partial else int(volume[at]),
                    "dividend": 0.5 if (ticker, session) == ("LONG", DIVIDEND) else 0.0,
                    "split_ratio": 4.0 if (ticker, session) == ("LONG", SPLIT) else 1.0,
                    "split_factor": 4.0 if ticker == "LONG" and session < SPLIT else 1.0,
                    "basis_factor": 1.0,
                    "price_basis": "total_return",
                    "adj_close_deviation": None,
                    "bar_status": "provisional" if ticker == "NEWS" and session == SESSIONS[-1] else "final",
                    "ingested_at": datetime(2022, 1, 3, 12, tzinfo=UTC),
                    "year": session.year,
                }
            )
    return pa.Table.from_pylist(rows, CURATED.arrow_schema)


def features(sessions: Sequence[date]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    plain = [column.name for column in FEATURES.columns if column.type == "double"]
    flags = [column.name for column in FEATURES.columns if column.type == "boolean"]
    for ticker, (start, _) in SPANS.items():
        close = walk(ticker)
        dice = np.random.default_rng([17, *ticker.encode()])
        made_up = {name: close * dice.normal(1, 0.02, len(SESSIONS)) for name in plain}
        for name, window in (("sma_20", 20), ("sma_50", 50), ("sma_200", 200)):
            made_up[name] = np.convolve(close, np.ones(window) / window)[: len(close)]
        made_up["bb_upper"], made_up["bb_lower"] = made_up["sma_20"] * 1.04, made_up["sma_20"] * 0.96
        made_up["rsi_14"] = 50 + 30 * np.sin(np.arange(len(close)) / 9) + dice.normal(0, 4, len(close))
        made_up["macd_hist"] = close * 0.01 * np.sin(np.arange(len(close)) / 13)
        made_up["return_1d"] = np.append(0.0, close[1:] / close[:-1] - 1)
        for at in _sessions_of(ticker, sessions):
            session, age = SESSIONS[at], at - start
            is_early = {"sma_20": age < 19, "sma_50": age < 49, "sma_200": age < 199}
            flagged = {
                "buy_signal": ticker == "LONG" and session in SIGNALS,
                "golden_cross": (ticker, session) == ("LONG", CROSS),
            }
            rows.append(
                {
                    "ticker": ticker,
                    "date": session,
                    **{name: None if age < 1 or is_early.get(name) else float(made_up[name][at]) for name in plain},
                    **{name: flagged.get(name, False) for name in flags},
                    "tradable_from": SESSIONS[at + 1] if at + 1 < len(SESSIONS) else None,
                    "price_basis": "total_return",
                    "indicator_spec": "made up",
                    "year": session.year,
                }
            )
    return pa.Table.from_pylist(rows, FEATURES.arrow_schema)


def _write_ledger(lake: Lake) -> None:
    line = {
        "table_name": CURATED.name,
        "ticker": "LONG",
        "date": CORRECTED,
        "columns": "close",
        "old": repr(WRONG_CLOSE),
        "new": repr(float(walk("LONG")[SESSIONS.index(CORRECTED)])),
        "rows": 1,
        "cause": "vendor edit",
        "run_id": "22222222-run",
        "restated_at": datetime(2022, 1, 4, 12, tzinfo=UTC),
        "table_id": str(lake.curated.open().metadata().id),
        "from_version": 1,
    }
    _replace(lake, RESTATEMENTS, pa.Table.from_pylist([line], RESTATEMENTS.arrow_schema))
