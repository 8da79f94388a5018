"""Whether a day costs the same in December as in January: a lake of some years, then a daily run a session for 250 sessions.

Each run is what the program does in a day: all layers with audit, publish, checks and Dagster's records. The last ten runs are
compared with ten early ones: wall time, processor time, opened files and S3 requests, by step, so that what ages is named.
It takes hours. Called again with the same --folder, it goes on with the run that was interrupted.
Not here: what a run does, and the bars (market.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks import market
from benchmarks.figures import Figure, print_figures, print_table
from benchmarks.opened import opened_below
from benchmarks.process import measure, module

if TYPE_CHECKING:
    import pyarrow as pa
    from dagster._core.events.log import EventLogEntry

MOST = 1.2  # of each figure, the last ten runs against ten early ones
WINDOW = 10
RUNS = "--runs"  # how this module starts itself: FROM TO, the numbers of days
PLAN = "plan.json"
DONE = "done.jsonl"  # a line a day: what its runs cost, by step
# Engines and files have the machine's clock, by which a simulated week lasts a minute: what is kept for days is kept for minutes.
TOMBSTONES, GRACE_SECONDS = "interval 1 minutes", 60.0
WEEK = 5  # sessions after which the replaced files of the serving copy are removed, as the weekly upkeep does
DAGSTER, REPORTS, CHECKS = "Dagster", "reports", "checks"
STEPS = {
    "raw_stocks_daily": "landing",
    "processed_stocks_daily": "processed",
    "curated_stocks_daily": "curated",
    "stocks_features": "features",
    "processed_actions": REPORTS,
    "processed_quarantine": REPORTS,
    "corporate_actions": REPORTS,
    "restatements": REPORTS,
}
MEASURES = {
    "seconds": "wall time, s",
    "cpu_seconds": "processor time, s",
    "opened": "files opened",
    "listed": "folders listed",
    "requests": "S3 requests",
}


@dataclass(frozen=True)
class PlannedRun:
    """A run of a day: for the sessions `first` to `last` of `tickers` (None: all), at the moment `at`.

    `folder` has the CSV files that the vendor delivers for it.
    """

    folder: str
    first: str
    last: str
    at: str
    tickers: tuple[str, ...] | None = None


# --- what is delivered --------------------------------------------------------------------------------------------


def write_days(folder: Path, tickers: int, sessions: Sequence[date], days: int) -> list[list[PlannedRun]]:
    """Write what the vendor delivers into `folder`; the runs of each day. Day 0 is the history before the others.

    Each day brings a bar of each ticker. In every ten days one bar is impossible and is delivered right a day later, one bar is
    corrected two sessions later, and two tickers are delivered before the close too. Each ticker pays four dividends a year.
    """
    from stock_lakehouse.market_calendar import market_calendar

    names, calendar = market.ticker_names(tickers), market_calendar(sessions[0])
    bars = [market.bars(number, sessions) for number in range(tickers)]
    market.write_csv(folder / "history", tickers, sessions, held_back=days)
    newest: list[dict[str, Any]] = [table.slice(len(sessions) - days).to_pydict() for table in bars]

    def row(number: int, day: int, **changed: Any) -> dict[str, Any]:
        place = day - 1
        values = {name: column[place] for name, column in newest[number].items()}
        # A vendor's newest adjusted close is the close: no dividend has followed.
        pays = (number - place * payers) % tickers < payers
        amount = round(values["Close"] * 0.004, 4) if pays else 0.0
        return {"Symbol": names[number], **values, "Adj Close": values["Close"], "Dividends": amount, **changed}

    payers = max(1, round(tickers * 4 / market.SESSIONS_A_YEAR))
    planned = [[_planned("history", sessions[0], sessions[-days - 1], calendar.close(sessions[-days - 1]))]]
    for day in range(1, days + 1):
        session = sessions[-days + day - 1]
        # A ticker whose dividends are weeks away, so that a correction is one of a bar alone.
        odd = ((day // WINDOW) * WINDOW * payers + tickers // 2) % tickers
        rows, first, runs = [row(number, day) for number in range(tickers)], session, []
        name = f"day_{day:03}"
        if day % WINDOW == 1 and day < days:
            rows[odd] |= {"High": rows[odd]["Low"], "Low": rows[odd]["High"]}
        elif day % WINDOW == 2:
            rows.insert(0, row(odd, day - 1))
            first = sessions[-days + day - 2]
        elif day % WINDOW == 4:
            was = row(odd, day - 2)
            rows.insert(0, {**was, "Close": was["Low"], "Adj Close": was["Low"], "Volume": was["Volume"] + 100})
            first = sessions[-days + day - 3]
        elif day % WINDOW == 7:
            early = [row(number, day, Volume=1_000) for number in range(2)]
            _write(folder / f"{name}_early" / f"{session}.csv", early)
            before = calendar.close(session) - timedelta(hours=1)
            runs.append(_planned(f"{name}_early", session, session, before, names[:2]))
        _write(folder / name / f"{session}.csv", rows)
        planned.append([*runs, _planned(name, first, session, calendar.close(session) + timedelta(hours=2))])
    return planned


def _planned(folder: str, first: date, last: date, at: datetime, tickers: tuple[str, ...] | None = None) -> PlannedRun:
    return PlannedRun(folder, str(first), str(last), at.isoformat(), tickers)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    file.parent.mkdir(parents=True)
    table: pa.Table = pa.Table.from_pylist(rows)
    csv.write_csv(table, file)


# --- a process that does the runs of some days --------------------------------------------------------------------


class Meter:
    """What the steps of this process cost; what is in none of them, and writing events, is Dagster's."""

    def __init__(self, counts: Callable[[], dict[str, int]]) -> None:
        self._counts = counts
        self._step = DAGSTER
        self._found: dict[str, dict[str, float]] = {}
        self._times = self._now()
        self._at = counts()

    def _now(self) -> dict[str, float]:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        return {"seconds": time.perf_counter(), "cpu_seconds": cpu}

    def _add(self, step: str, now: Mapping[str, float], before: Mapping[str, float]) -> None:
        own = self._found.setdefault(step, {})
        for name, value in now.items():
            own[name] = own.get(name, 0) + value - before[name]

    def _add_times(self, step: str) -> None:
        now = self._now()
        self._add(step, now, self._times)
        self._times = now

    def enter(self, step: str) -> None:
        """What is done from now on is done in `step`."""
        self._add_times(self._step)
        counts = self._counts()
        self._add(self._step, counts, self._at)
        self._step, self._at, self._times = step, counts, self._now()  # counting takes time too

    @contextmanager
    def writing_events(self) -> Iterator[None]:
        self._add_times(self._step)
        yield
        self._add_times(DAGSTER)

    def take(self) -> dict[str, dict[str, float]]:
        """By step what was found since the last time."""
        self.enter(DAGSTER)
        found, self._found = self._found, {}
        return found


@contextmanager
def _by_step(meter: Meter) -> Iterator[None]:
    """Tell `meter` of every step that begins and ends, as Dagster records them."""
    from dagster import DagsterEventType

    from stock_lakehouse.instance.event_log import BatchedSqliteEventLogStorage

    store = BatchedSqliteEventLogStorage.store_event_batch
    ends = (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY)

    def storing(storage: BatchedSqliteEventLogStorage, events: Sequence[EventLogEntry]) -> None:
        with meter.writing_events():
            store(storage, events)
        for event in events:
            if event.dagster_event_type == DagsterEventType.STEP_START:
                meter.enter(STEPS.get(str(event.step_key), CHECKS))
            elif event.dagster_event_type in ends:
                meter.enter(DAGSTER)

    with mock.patch.object(BatchedSqliteEventLogStorage, "store_event_batch", storing):
        yield


def do_runs(first: int, last: int) -> None:
    """Do the runs of the days `first` to `last` of the plan in this process; add to DONE what each day cost, by step.

    Raises RuntimeError when a run fails.
    """
    from stock_lakehouse.clock import set_simulated
    from stock_lakehouse.lake import Lake, serving
    from stock_lakehouse.lake.delta_table import DeltaTable
    from stock_lakehouse.partitions import PartitionScheme
    from stock_lakehouse.runs.run import run_rectangle
    from stock_lakehouse.settings import load_settings
    from stock_lakehouse_tests.s3 import requests_to

    folder, endpoint = Path.cwd(), os.environ.get("AWS_ENDPOINT_URL")
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))["days"]
    with opened_below(folder) as opened:

        def counts() -> dict[str, int]:
            files = opened.counts() if opened else {}
            return {**files, **({"requests": sum(requests_to(endpoint).values())} if endpoint else {})}

        meter = Meter(counts)
        with (
            _by_step(meter),
            mock.patch.object(DeltaTable, "tombstones", TOMBSTONES),
            mock.patch.object(serving, "GRACE_SECONDS", GRACE_SECONDS),
        ):
            for number, day in enumerate(plan[first : last + 1], first):
                meter.take()
                for run in day:
                    clock = Path(os.environ["STOCK_LAKEHOUSE_SIMULATED_CLOCK"])
                    set_simulated(clock, datetime.fromisoformat(run["at"]))
                    settings = load_settings(csv_folder=folder / run["folder"])
                    since, until = date.fromisoformat(run["first"]), date.fromisoformat(run["last"])
                    scheme = PartitionScheme(settings, settings.calendar)
                    report = run_rectangle(settings, scheme.request(run["tickers"], since, until, until))
                    if not report.success:
                        raise RuntimeError(f"the run of {run['last']} failed: {report.failures}")
                with (folder / DONE).open("a", encoding="utf-8") as done:
                    done.write(json.dumps(meter.take()) + "\n")
                if number % WEEK == 0:
                    serving.ServingCopy(Lake(settings.lake_options)).remove_replaced()


# --- the days in order --------------------------------------------------------------------------------------------


def early_day(sessions: Sequence[date], days: int) -> int:
    """The first of the ten early runs: the second, or the first after it that reads as many years as the last run does.

    In the first two weeks of January a run reads the year before too.
    """
    from stock_lakehouse.partitions import LOOK_BACK

    def years(session: date) -> int:
        return session.year - (session - LOOK_BACK).year + 1

    own = sessions[-days:]
    return next(day for day in range(2, days + 1) if years(own[day - 1]) == years(own[-1]))


def measure_days(folder: Path, tickers: int, years: int, days: int, s3: str | None) -> dict[str, Any]:
    """The cost of each daily run of `tickers` on a lake of `years`, by step, and which of them are early and late.

    `s3` is the address of a store with the bucket `lake`; None: the lake is in a folder. Both windows are the runs 2 to 11 of a
    process of their own: what a process keeps in memory does not count as the lake's age. Raises ValueError for too few days,
    and when `folder` has another plan.
    """
    from stock_lakehouse.partitions import MAX_KEYS

    years_of_days = -(-days // market.SESSIONS_A_YEAR)
    sessions = market.sessions_until(market.LAST_SESSION, years + years_of_days)[
        -years * market.SESSIONS_A_YEAR - days :
    ]
    early, late = early_day(sessions, days), days - WINDOW + 1
    if early + WINDOW > late - 1:
        raise ValueError(f"--days {days}: the early runs are {early} to {early + WINDOW - 1}, so more days are needed")
    size = {"tickers": tickers, "years": years, "days": days, "s3": s3}
    if (folder / PLAN).exists():
        if json.loads((folder / PLAN).read_text(encoding="utf-8"))["size"] != size:
            raise ValueError(f"{folder}: a lake of another size, or in a store that is gone; name an empty folder")
    else:
        plan = [[asdict(run) for run in day] for day in write_days(folder, tickers, sessions, days)]
        (folder / PLAN).write_text(json.dumps({"size": size, "days": plan}), encoding="utf-8")
    by = "session" if tickers * len(sessions) > MAX_KEYS else "date_ticker"
    (folder / "lakehouse.toml").write_text(
        f"tickers = {json.dumps(market.ticker_names(tickers))}\nfirst_date = {sessions[0]}\nlast_date = {sessions[-1]}\n"
        f'source = "csv"\ncsv_folder = "history"\npartition_by = "{by}"\n'
        f'lake_root = "{"s3://lake/aging" if s3 else "lake"}"\n',
        encoding="utf-8",
    )
    env = {
        "STOCK_LAKEHOUSE_CONFIG": str(folder / "lakehouse.toml"),
        "STOCK_LAKEHOUSE_SIMULATED_CLOCK": str(folder / "clock"),
        "DAGSTER_HOME": "",
    }
    if s3:
        from stock_lakehouse_tests.s3 import environment

        env |= environment(s3)
    found = _done(folder)
    for start, last in (
        (0, 0),
        (1, early - 2),
        (early - 1, early + WINDOW - 1),
        (early + WINDOW, late - 2),
        (late - 1, days),
    ):
        first = max(start, len(found))
        if first > last:
            continue
        began = time.perf_counter()
        measure(module("aging", RUNS, first, last), env=env, cwd=folder)
        found = _done(folder)
        middle = median(_total(day, "seconds") for day in found[first:])
        what = f"runs {first} to {last}, median {middle:.1f} s" if first else "history"
        print(f"{what}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return {
        "partition_by": by,
        "early": [early, early + WINDOW - 1],
        "late": [late, days],
        "history": found[0],
        "days": found[1:],
    }


def _done(folder: Path) -> list[dict[str, dict[str, float]]]:
    file = folder / DONE
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _total(day: dict[str, dict[str, float]], measured: str) -> float:
    return sum(own.get(measured, 0.0) for own in day.values())


# --- what is told of it -------------------------------------------------------------------------------------------


def compared(found: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """By measure and step, the median of the early and of the late runs; the step `all` is the whole day."""
    windows = [found["days"][first - 1 : last] for first, last in (found["early"], found["late"])]
    steps = [*dict.fromkeys(STEPS.values()), CHECKS, DAGSTER]

    def medians(of_day: Callable[[dict[str, dict[str, float]]], float]) -> tuple[float, float]:
        early, late = (median(map(of_day, window)) for window in windows)
        return early, late

    result: dict[str, dict[str, tuple[float, float]]] = {}
    for measured in MEASURES:
        if any(measured in own for day in found["days"] for own in day.values()):
            by_step = {step: medians(lambda day, s=step: day.get(s, {}).get(measured, 0.0)) for step in steps}  # noqa: B023
            result[measured] = {**by_step, "all": medians(lambda day: _total(day, measured))}  # noqa: B023
    return result


def ratio(early: float, late: float) -> float:
    return late / early if early else float("nan")


def figures(medians: dict[str, dict[str, tuple[float, float]]]) -> list[Figure]:
    """The ratios of the whole day beside their targets."""
    return [
        Figure(f"a day at the end over an early one, {name.split(',')[0]}", ratio(*medians[measured]["all"]), "x", MOST)
        for measured, name in MEASURES.items()
        if measured in medians
    ]


def _print(found: dict[str, Any], medians: dict[str, dict[str, tuple[float, float]]]) -> None:
    header = [f"runs {first} to {last}" for first, last in (found["early"], found["late"])]
    for measured, by_step in medians.items():
        rows = [(step, float(early), float(late), ratio(early, late)) for step, (early, late) in by_step.items()]
        print_table((f"{MEASURES[measured]}, median", *header, "ratio"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--years", type=int, default=5, help="of 252 sessions, before the first daily run")
    parser.add_argument("--days", type=int, default=250, help="daily runs; they end with the last session of a year")
    parser.add_argument(
        "--s3", action="store_true", help="the lake is in a bucket of moto's server, which counts requests"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in and to keep, or one to go on in")
    parser.add_argument(RUNS, nargs=2, type=int, metavar=("FROM", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.runs:
        do_runs(*options.runs)
        return
    with tempfile.TemporaryDirectory() as temporary, _store(options.s3) as s3:
        folder = (options.folder or Path(temporary)).absolute()
        found = measure_days(folder, options.tickers, options.years, options.days, s3)
    medians = compared(found)
    if options.json:
        print(json.dumps({"figures": [figure.as_json() for figure in figures(medians)], **found}))
        return
    _print(found, medians)
    print_figures(figures(medians))


@contextmanager
def _store(is_wanted: bool) -> Iterator[str | None]:
    """The address of a store with the bucket `lake`, if one is wanted."""
    if not is_wanted:
        yield None
        return
    from stock_lakehouse_tests.s3 import make_bucket, moto

    with moto() as address:
        make_bucket(address, "lake")
        yield address


if __name__ == "__main__":
    main()
