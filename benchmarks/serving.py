"""The serving copy of a lake: what it costs whole, after one more session and unchanged; and what questions on it cost.

Belongs here: the lake, written as an engine leaves it (a file of each ticker and year), and processor seconds. The same questions
are put to DuckDB on the copy and on the Delta tables' own files, in processes of their own. Not here: a run's other work
(bulk_load.py, aging.py).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import market
from benchmarks.figures import Figure, print_figures
from benchmarks.process import measure, module

if TYPE_CHECKING:
    import pyarrow as pa

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.tables import Table

DAY_SECONDS, TIMES_FASTER = 3.0, 15.0
FILL, SERVE, ASK = "--fill", "--serve", "--ask"  # how this module starts itself: FOLDER
QUESTIONS = {
    "latest row of all tickers": "SELECT f.* FROM stocks_features AS f JOIN "
    "(SELECT ticker, max(date) AS date FROM stocks_features GROUP BY ticker) AS n ON f.ticker = n.ticker AND f.date = n.date",
    "RSI of all tickers": "SELECT ticker, count(*) FILTER (rsi_14 >= 70), count(*) FROM stocks_features GROUP BY ticker",
    "one ticker, last 250": "SELECT * FROM stocks_features WHERE ticker = 'T003' ORDER BY date DESC LIMIT 250",
    "mean close of all": "SELECT avg(close) FROM curated_stocks_daily",
}


def lake_in(folder: Path) -> Lake:
    from stock_lakehouse.lake import Lake

    return Lake(folder / "lake")


def fill(folder: Path, tickers: int, years: int) -> None:
    """Write curated bars and features of all sessions but the last."""
    sessions = market.sessions_until(market.LAST_SESSION, years)[:-1]
    for stored in lake_in(folder).delta.values():
        if stored.table.name in ("curated_stocks_daily", "stocks_features"):
            stored.prepare()
            for year in sorted({session.year for session in sessions}):
                write(
                    lake_in(folder),
                    stored.table,
                    market.ticker_names(tickers),
                    [day for day in sessions if day.year == year],
                )


def write(lake: Lake, table: Table, tickers: Sequence[str], sessions: Sequence[date]) -> None:
    """Replace the year of `sessions`, a file per ticker."""
    import deltalake
    import pyarrow as pa

    from stock_lakehouse.lake.delta_table import ONE_FILE, _writer_properties

    opened = lake.delta[table.name].open()
    deltalake.write_deltalake(
        opened,
        rows(table, tickers, sessions).cast(pa.schema(opened.schema().to_arrow())),
        mode="overwrite",
        predicate=f"year = {sessions[0].year}",
        target_file_size=ONE_FILE,
        writer_properties=_writer_properties(True),
    )


def rows(table: Table, tickers: Sequence[str], sessions: Sequence[date]) -> pa.Table:
    """Random values of the types of `table`, the same at every call."""
    import numpy as np
    import pyarrow as pa

    count = len(tickers) * len(sessions)
    random = np.random.default_rng([14, sessions[0].year])
    known = {
        "ticker": np.repeat(tickers, len(sessions)),
        "date": list(sessions) * len(tickers),
        "year": np.full(count, sessions[0].year, np.int32),
        "rsi_14": random.uniform(0, 100, count),
    }
    by_type: dict[Any, Callable[[], Any]] = {
        pa.float64(): lambda: 50 * np.exp(np.cumsum(random.normal(0, 0.002, count))),
        pa.int64(): lambda: random.lognormal(14, 0.5, count).astype(np.int64),
        pa.bool_(): lambda: random.random(count) < 0.01,
        pa.string(): lambda: ["total_return"] * count,
        pa.date32(): lambda: list(sessions) * len(tickers),
        pa.int32(): lambda: np.zeros(count, np.int32),
        pa.timestamp("us", "UTC"): lambda: np.full(count, "2024-12-31T22:00", "datetime64[us]"),
    }
    columns = [
        pa.array(known[field.name] if field.name in known else by_type[field.type](), field.type)
        for field in table.arrow_schema
    ]
    return pa.table(columns, schema=table.arrow_schema)


def serve(folder: Path, tickers: int, years: int) -> dict[str, float]:
    """Processor seconds of a refresh of both tables: whole, unchanged, after one more session."""
    import pyarrow.parquet  # noqa: F401 - what is imported counts for no refresh

    from stock_lakehouse.lake.serving import SERVED, ServingCopy

    lake = lake_in(folder)

    def refreshed() -> tuple[float, int]:
        began = time.process_time()
        written = [path for table in SERVED for path in ServingCopy(lake).refresh(table)]
        return time.process_time() - began, len(written)

    whole, files = refreshed()
    unchanged, none = refreshed()
    sessions = [
        day for day in market.sessions_until(market.LAST_SESSION, years) if day.year == market.LAST_SESSION.year
    ]
    for table in SERVED:
        write(lake, table, market.ticker_names(tickers), sessions)
    day, of_day = refreshed()
    if (none, of_day) != (0, len(SERVED)):
        raise RuntimeError(f"written: {files}, {none}, {of_day}")
    copied = sum(path.stat().st_size for path in (folder / "lake" / "serving").rglob("data.parquet"))
    stored = sum(sum(lake.delta[table.name].sizes()) for table in SERVED)
    return {"whole": whole, "unchanged": unchanged, "day": day, "files": files, "share": copied / stored}


def ask(folder: Path, on_copy: bool) -> dict[str, float]:
    """Processor seconds of each question on DuckDB, opening the log and naming the files included."""
    import duckdb

    from stock_lakehouse.lake.serving import SERVED, ServingCopy

    lake, found = lake_in(folder), {}
    lake.curated.exists()  # what is imported counts for no question
    duckdb.connect().execute("SELECT 1").fetchall()
    for question, sql in QUESTIONS.items():
        began, connection = time.process_time(), duckdb.connect()
        for table in SERVED:
            if table.name in sql:
                opened = lake.delta[table.name].open()
                paths = [*ServingCopy(lake).files(table, opened).values()] if on_copy else opened.file_uris()
                connection.read_parquet(paths, hive_partitioning=not on_copy, union_by_name=not on_copy).create_view(
                    table.name
                )
        answer = connection.execute(sql).fetchall()
        found[question] = time.process_time() - began
        found[f"rows of {question}"] = len(answer)
    return found


def measure_all(folder: Path, tickers: int, years: int) -> dict[str, Any]:
    """All figures. Raises RuntimeError if the answers have other numbers of rows."""
    size = ("--tickers", tickers, "--years", years)
    measure(module("serving", FILL, folder, *size))
    served = measure(module("serving", SERVE, folder, *size))
    copy, delta = (measure(module("serving", ASK, folder, *size, *way)).answer for way in ((), ("--delta",)))
    if {name: copy[name] for name in copy if name.startswith("rows")} != {
        name: delta[name] for name in delta if name.startswith("rows")
    }:
        raise RuntimeError(f"{copy} {delta}")
    return {**served.answer, "peak_gb": served.peak_gb, "copy": copy, "delta": delta}


def figures(found: dict[str, Any]) -> list[Figure]:
    """The figures of `measure_all` beside their targets, in processor seconds."""
    asked = [
        figure
        for question in QUESTIONS
        for figure in (
            Figure(f"{question}, serving copy", found["copy"][question], "s"),
            Figure(f"{question}, Delta files", found["delta"][question], "s"),
        )
    ]
    newest = next(iter(QUESTIONS))
    return [
        Figure("serving copy, whole", found["whole"], "s"),
        Figure("serving copy, one more session", found["day"], "s", DAY_SECONDS),
        Figure("serving copy, unchanged", found["unchanged"], "s"),
        Figure("its bytes as a share of the tables'", found["share"], "x"),
        Figure("peak memory", found["peak_gb"], "GB"),
        *asked,
        Figure(
            f"{newest}: times faster", found["delta"][newest] / found["copy"][newest], "x", TIMES_FASTER, at_least=True
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    for name in (FILL, SERVE, ASK):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--delta", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(options.fill, options.tickers, options.years)
    elif options.serve:
        print(json.dumps(serve(options.serve, options.tickers, options.years)))
    elif options.ask:
        print(json.dumps(ask(options.ask, on_copy=not options.delta)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure_all(Path(folder), options.tickers, options.years)
        if options.json:
            print(json.dumps({**found, "figures": [figure.as_json() for figure in figures(found)]}))
        else:
            print_figures(figures(found))


if __name__ == "__main__":
    main()
