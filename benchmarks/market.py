"""Synthetic daily bars, the same at every call: random walks with valid prices on XNYS sessions, as a folder of CSV files.

Belongs here: what the generated market looks like. What is measured with it is in the modules that use it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SESSIONS_A_YEAR = 252
LAST_SESSION = date(2024, 12, 31)
HEADER = ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume", "Dividends", "Stock Splits")


def ticker_names(count: int) -> tuple[str, ...]:
    """T000, T001, …"""
    return tuple(f"T{number:03}" for number in range(count))


def sessions_until(last: date, years: int) -> tuple[date, ...]:
    """The last `years` × 252 sessions of XNYS up to `last`, ascending. Raises ValueError if `last` is not a session."""
    from stock_lakehouse.market_calendar import market_calendar

    found = market_calendar(last - timedelta(days=366 * years)).between(date.min, last)
    if not found or found[-1] != last:
        raise ValueError(f"{last} is not a session of XNYS")
    return found[-years * SESSIONS_A_YEAR :]


def bars(number: int, sessions: Sequence[date], held_back: int = 0) -> pa.Table:
    """The bars of ticker `number`, as they are before the last `held_back`: HEADER's columns, Date as a date.

    A dividend a quarter, of which the close falls on its ex-date, and no splits.
    """
    import numpy as np
    import pyarrow as pa

    count = len(sessions)
    random = np.random.default_rng([20_04, number])
    goes_ex = np.arange(count) % 63 == number % 63
    close = 50.0 * np.exp(np.cumsum(random.normal(0.0003, 0.018, count))) * np.cumprod(np.where(goes_ex, 0.996, 1.0))
    opening = close * np.exp(random.normal(0, 0.006, count))
    high = np.maximum(opening, close) * np.exp(np.abs(random.normal(0, 0.005, count)))
    low = np.minimum(opening, close) * np.exp(-np.abs(random.normal(0, 0.005, count)))
    volume = random.lognormal(14, 0.5, count).astype(np.int64)
    before = np.append(close[:1], close[:-1])
    dividend = np.where(goes_ex, np.round(before * 0.004, 4), 0.0)
    # Total return: what was paid out later is taken off earlier closes, as vendors do.
    kept = 1 - dividend / before
    kept[count - held_back :] = 1.0  # not known yet
    later = np.append(np.cumprod(kept[::-1])[::-1][1:], 1.0)
    columns = [opening, high, low, close, close * later]
    # Rounding keeps the order of two prices, so low <= open, close <= high still holds.
    prices = [np.round(column, 6) for column in columns]
    values = [pa.array(sessions, pa.date32()), *prices, volume, dividend, np.zeros(count)]
    return pa.table(dict(zip(HEADER, values, strict=True))).slice(0, count - held_back)


def write_csv(folder: Path, count: int, sessions: Sequence[date], held_back: int = 1) -> None:
    """Write `T000.csv` … of `count` tickers into `folder`, without the last `held_back` sessions."""
    from pyarrow import csv

    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(ticker_names(count)):
        table = bars(number, sessions, held_back)
        csv.write_csv(table, folder / f"{name}.csv")


def write_last_session(file: Path, count: int, sessions: Sequence[date]) -> None:
    """Write the bars of the last session of all tickers into one CSV file with a column Symbol."""
    import pyarrow as pa
    from pyarrow import csv

    file.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.concat_tables([bars(number, sessions).slice(len(sessions) - 1) for number in range(count)])
    csv.write_csv(rows.add_column(0, "Symbol", pa.array(ticker_names(count))), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--last", type=date.fromisoformat, default=LAST_SESSION, help="last session")
    parser.add_argument("--held-back", type=int, default=0, help="newest sessions to leave out of the files")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    started = time.perf_counter()
    sessions = sessions_until(options.last, options.years)
    write_csv(options.folder, options.tickers, sessions, options.held_back)
    written = [path.stat().st_size for path in options.folder.glob("T*.csv")]
    facts = {
        "rows": options.tickers * (len(sessions) - options.held_back),
        "files": len(written),
        "bytes": sum(written),
        "first": str(sessions[0]),
        "last": str(sessions[-1 - options.held_back]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(facts) if options.json else "\n".join(f"{name:<10}{value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
