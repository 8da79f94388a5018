"""The two layouts of a lake side by side: bulk load, upkeep, a day and a restated bar; files, processor time and S3 requests.

Belongs here: the order of the runs, what each must have published, and what it opened and wrote. Each run is a process of its
own, as in bulk_load.py. With `--s3` the loaded lake is copied to a bucket, and the day and the restated bar run there too.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import market
from benchmarks.bulk_load import (
    HISTORY,
    LAST_DAY,
    LAYERS,
    Known,
    check_rows,
    file_key,
    measure_run,
    sizes_of,
    variables,
    write_market,
)
from benchmarks.figures import print_table
from benchmarks.opened import opened_below
from benchmarks.process import Measured, measure
from stock_lakehouse.tables import LAYOUTS

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import File

RESTATED = "restated"  # folder of what is delivered for the restated bar
DELIVERED = {"day": LAST_DAY, "restated bar": RESTATED}
BUCKET = "lake"

# What is measured, by its name.
Record = dict[str, float]


@dataclass(frozen=True)
class RestatedBar:
    """A bar of the history of `ticker` that is delivered again, with another close."""

    ticker: str
    session: date
    old: float
    new: float


@dataclass(frozen=True)
class Work:
    """What every layout does: the lake of `tickers` × `sessions` from the market in `folder`."""

    folder: Path
    tickers: int
    sessions: tuple[date, ...]
    restated: RestatedBar
    quiet: bool

    def rows(self, without_last: bool = False, landed_again: int = 0) -> dict[str, int]:
        """The rows that each layer must have. Raw keeps what it had of a bar that landed again."""
        bars = self.tickers * (len(self.sessions) - without_last)
        return {**dict.fromkeys(LAYERS, bars), LAYERS[0]: bars + landed_again}

    def run(self, env: Mapping[str, str], source: str) -> Measured:
        """The run for what the folder `source` delivers, in a process with the variables `env` too."""
        first, last, tickers = {
            HISTORY: (self.sessions[0], self.sessions[-2], ()),
            LAST_DAY: (self.sessions[-1], self.sessions[-1], ()),
            RESTATED: (self.restated.session, self.restated.session, (self.restated.ticker,)),
        }[source]
        own = {**variables(self.folder, source), **env}
        return measure_run(own, self.folder, first, last, tickers, quiet=self.quiet)


def write_restated(folder: Path, tickers: int, sessions: Sequence[date]) -> RestatedBar:
    """Write into `folder` a bar from the middle of the history, corrected: it closed at its high.

    Its ticker pays a dividend each 63 sessions, and this bar is 31 sessions after one: so no dividend is measured by its close.
    The adjusted close of a file's newest bar is its close.
    """
    from pyarrow import csv

    number, place = tickers // 2, len(sessions) // 2
    place += (number + 31 - place) % 63
    ticker, bar = market.ticker_names(tickers)[number], market.bars(number, sessions).slice(place, 1)
    old, new = bar["Close"][0].as_py(), bar["High"][0].as_py()
    for name in ("Close", "Adj Close"):
        bar = bar.set_column(bar.column_names.index(name), name, [[new]])
    folder.mkdir()
    csv.write_csv(bar, folder / f"{ticker}.csv")
    return RestatedBar(ticker, sessions[place], old, new)


def measure_layouts(
    folder: Path, layouts: Sequence[str], tickers: int, years: int, *, s3: bool, quiet: bool
) -> dict[str, dict[str, Record]]:
    """By layout, what `measure_layout` returns, each on a new lake below `folder`.

    Raises RuntimeError when a run did not publish what it should, or the tables of two layouts have unequal numbers of rows.
    """
    sessions = market.sessions_until(market.LAST_SESSION, years)
    write_market(folder, tickers, sessions)
    work = Work(folder, tickers, sessions, write_restated(folder / RESTATED, tickers, sessions), quiet)
    found: dict[str, dict[str, Record]] = {}
    rows: dict[str, dict[str, int | None]] = {}
    for layout in layouts:
        own = folder / layout
        own.mkdir()
        found[layout], rows[layout] = measure_layout(work, layout, own / "lake", s3=s3)
        shutil.rmtree(own)
    if any(numbers != rows[layouts[0]] for numbers in rows.values()):
        raise RuntimeError(f"the layouts have unequal numbers of rows: {rows}")
    return found


def measure_layout(work: Work, layout: str, root: Path, *, s3: bool) -> tuple[dict[str, Record], dict[str, int | None]]:
    """By run, and by table after the bulk load, what was measured; and the rows of each Delta table at the end."""
    lake = lake_of(root, layout)
    env = {"STOCK_LAKEHOUSE_LAYOUT": layout, "STOCK_LAKEHOUSE_LAKE_ROOT": str(root)}
    found: dict[str, Record] = {}
    known: Known = {}

    def tell(run: str, record: Record) -> None:
        found[run] = record
        told = ", ".join(f"{what} {value:,.1f}" for what, value in record.items())
        print(f"{layout}, {run}: {told}", file=sys.stderr, flush=True)

    tell("bulk load", costs(work.run(env, HISTORY)))
    check_rows(lake, work.rows(without_last=True), known)
    tables = {table: size_record(sizes) for table, sizes in sizes_of(lake).items()}
    everything = size_record([file.size for file in files_of(lake)])

    command = [sys.executable, "-m", "stock_lakehouse", "upkeep"]
    own = {**variables(work.folder, HISTORY), **env}
    tell("upkeep", costs(measure(command, env=own, cwd=work.folder, quiet=work.quiet)))
    check_rows(lake, work.rows(without_last=True), known)

    if s3:  # first, because it copies the lake as it was loaded
        _measure_bucket(work, layout, root, known, tell)
    for run, source in DELIVERED.items():
        tell(run, _in_folder(lake, root, partial(work.run, env, source)))
        _check(work, lake, source, known)
    found |= {**tables, "whole lake": everything}
    return found, {name: stored.row_count() for name, stored in lake.delta.items()}


def _measure_bucket(work: Work, layout: str, root: Path, counted: Known, tell: Callable[[str, Record], None]) -> None:
    """The day and the restated bar on a copy of the lake in `root` in a bucket. `counted`: the rows of the lake's files."""
    from stock_lakehouse_tests import s3

    with s3.moto() as endpoint, s3.variables(s3.environment(endpoint)):
        s3.make_bucket(endpoint, BUCKET)
        target = f"s3://{BUCKET}/lake"
        s3.upload(root, target)
        lake = lake_of(target, layout)
        env = {"STOCK_LAKEHOUSE_LAYOUT": layout, "STOCK_LAKEHOUSE_LAKE_ROOT": target}
        by_path = {path: rows for (path, _), rows in counted.items()}
        known = {file_key(file): by_path[file.path] for file in (*lake.raw.files(), *lake.processed.files())}
        lake.processed.row_count()  # as the load itself would have counted: copies are new files
        for run, source in DELIVERED.items():
            before = s3.requests_to(endpoint)
            measured = costs(work.run(env, source))
            requests = {kind: count - before.get(kind, 0) for kind, count in sorted(s3.requests_to(endpoint).items())}
            by_kind = {f"{kind} requests": float(count) for kind, count in requests.items() if count}
            tell(f"{run} on S3", {**measured, "requests": float(sum(requests.values())), **by_kind})
            _check(work, lake, source, known)


def costs(measured: Measured) -> Record:
    return {
        "seconds": measured.seconds,
        "processor seconds": measured.cpu_seconds,
        "peak GB": measured.peak_gb,
    }


def size_record(sizes: Sequence[int]) -> Record:
    return {"files": float(len(sizes)), "MB": sum(sizes) / 1e6}


def _in_folder(lake: Lake, root: Path, run: Callable[[], Measured]) -> Record:
    """What `run` cost, opened below `root`, the root of `lake` (Linux alone), and left there in new or changed files."""
    before = {file_key(file) for file in files_of(lake)}
    with opened_below(root) as opened:
        start = opened.counts() if opened else {}
        measured = costs(run())
        counts = opened.counts() if opened else {}
    written = size_record([file.size for file in files_of(lake) if file_key(file) not in before])
    names = {"opened": "files opened", "listed": "folders listed"}
    touched = {names[what]: float(count - start[what]) for what, count in counts.items()}
    return {**measured, **touched, "files written": written["files"], "MB written": written["MB"]}


def lake_of(root: Path | str, layout: str) -> Lake:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake_options import LakeOptions

    return Lake(LakeOptions.model_validate({"lake_root": root, "layout": layout}))


def files_of(lake: Lake) -> list[File]:
    """Every file of `lake` but those of its locks."""
    from stock_lakehouse.lake.lease import FOLDER

    return [file for file in lake.storage.walk("") if not file.path.startswith(f"{FOLDER}/")]


def _check(work: Work, lake: Lake, source: str, known: Known) -> None:
    """Raise RuntimeError unless the lake has what the run for `source` should have published."""
    check_rows(lake, work.rows(landed_again=source == RESTATED), known)
    if source != RESTATED:
        return
    bar = work.restated
    rows = lake.curated.read_arrow([bar.ticker], [bar.session.year]).to_pylist()
    close = [row["close"] for row in rows if row["date"] == bar.session]
    lines = [
        (float(line["old"]), float(line["new"]))
        for line in lake.ledger.stored.read_arrow().to_pylist()
        if (line["table_name"], line["ticker"], line["date"], line["columns"])
        == (LAYERS[2], bar.ticker, bar.session, "close")
    ]
    if close != [bar.new] or lines != [(bar.old, bar.new)]:
        raise RuntimeError(f"{bar}: curated has the close {close}, and the ledger the lines {lines}")


def side_by_side(found: Mapping[str, Mapping[str, Record]]) -> list[tuple[Any, ...]]:
    """A row a figure: what, its value in each layout, and with two layouts the second over the first. NaN: there is none."""
    names = {(part, what): None for parts in found.values() for part, record in parts.items() for what in record}
    rows: list[tuple[Any, ...]] = []
    for part, what in names:
        values = [parts[part].get(what, 0.0) for parts in found.values()]
        ratio = [values[1] / values[0] if values[0] else math.nan] if len(values) == len(LAYOUTS) else []
        rows.append((f"{part}: {what}", *values, *ratio))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=2_500)
    parser.add_argument("--years", type=int, default=20, help="of 252 sessions")
    parser.add_argument("--layouts", choices=LAYOUTS, nargs="+", default=list(LAYOUTS), help="which to measure")
    parser.add_argument(
        "--s3",
        action="store_true",
        help="run the day and the restated bar in a bucket too; moto's server holds objects below 5 MB in memory: about 8 GB "
        "for 2,500 tickers × 20 years",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--progress", action="store_true", help="show what the runs say, with seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure_layouts(
            Path(temporary), options.layouts, options.tickers, options.years, s3=options.s3, quiet=not options.progress
        )
    if options.json:
        print(json.dumps({"figures": [], "layouts": found}))
        return
    ratio = [" / ".join(reversed(found))] if len(found) == len(LAYOUTS) else []
    print_table((f"{options.tickers:,} tickers × {options.years} years", *found, *ratio), side_by_side(found))


if __name__ == "__main__":
    main()
