"""The program `stock-lakehouse`: what is asked on a command line, and how answers are printed.

Heavy modules are imported inside the commands, so that `--help` answers at once. Not here: any work (runs.py, report.py).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from stock_lakehouse.backfill import Plan
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.report import TableStatus, TickerStatus
    from stock_lakehouse.runs import CheckFinding, RunReport
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.upkeep import Upkeep

app = typer.Typer(
    help="A data platform for daily stock prices: raw, processed, curated and features, in one lake.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DAY: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "DATE"}
# How a red check is shown.
SHOWN_ROWS = 5
SHOWN_TICKERS = 20
LINE_WIDTH = 80
LONGEST_VALUE = 300
# What several commands ask alike.
Tickers = Annotated[str | None, typer.Option(metavar="A,B", help="Tickers, by comma; all if left out.")]
First = Annotated[datetime | None, typer.Option("--from", **DAY, help="First day; the lake's first if left out.")]
Last = Annotated[datetime | None, typer.Option("--to", **DAY, help="Last day; the newest if left out.")]
Assets = Annotated[str | None, typer.Option(metavar="ASSET,…", help="Assets, by comma; all if left out.")]


@app.command()
def demo(
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Days of trading in minutes, offline: daemon and sensor at work, in a lake of their own."
        ),
    ] = False,
    sessions: Annotated[int, typer.Option(min=1, max=200, help="With --live: how many sessions are held back.")] = 10,
) -> None:
    """Load everything the settings name, in one Dagster run, and show what came out."""
    settings = _settings()
    if live:
        _live(settings, sessions)
        return
    rectangle = _rectangle(settings, None, None, None)
    before = _files(settings)
    report = _run(settings, rectangle, None)
    changed = _files(settings) != before
    _summary(settings, report, changed)
    _end([report])


@app.command()
def materialize(
    tickers: Tickers = None,
    first: First = None,
    last: Last = None,
    select: Assets = None,
) -> None:
    """Run the graph for tickers × sessions in one Dagster run, whether the lake holds them or not.

    To fill what is missing, in runs that can be stopped and continued, use `backfill`.
    """
    settings = _settings()
    rectangle = _rectangle(settings, tickers, first, last)
    before = _files(settings)
    report = _run(settings, rectangle, select.split(",") if select else None)
    if _files(settings) == before:
        _say("Nothing changed: the lake holds all of it already.")
    _end([report])


@app.command()
def backfill(
    tickers: Tickers = None,
    first: First = None,
    last: Last = None,
    select: Assets = None,
    chunk: Annotated[int, typer.Option(min=0, metavar="BARS", help="Bars a run; 0: everything in one run.")] = 100_000,
    again: Annotated[bool, typer.Option("--again", help="Run what the lake holds already too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and do nothing.")] = False,
) -> None:
    """Fill what the lake lacks of tickers × sessions, a run a chunk, with an estimate of the time left.

    What the lake holds is skipped, so a backfill that was stopped or killed goes on when it is started again. Features by
    older formulas count as lacking: they are computed again, alone. `materialize` is one run of everything it is asked.
    """
    from stock_lakehouse.backfill import plan_backfill, run_backfill
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.tables import LAYERS

    settings = _settings()
    asked = _rectangle(settings, tickers, first, last)

    def plan(run_again: bool) -> Plan:
        with _engine(settings, *(table.name for table in LAYERS)) as spark:
            try:
                return plan_backfill(
                    Lake(settings.lake_root), spark, asked, select.split(",") if select else None, chunk or sys.maxsize,
                    run_again,
                )  # fmt: skip
            except ValueError as error:
                _wrong(str(error))

    planned = plan(again)
    _print_plan(planned)
    if dry_run:
        return
    progress = _progress()
    reports: list[RunReport] = []
    for step in run_backfill(settings, planned, progress):
        _print_outcome(step.report)
        reports.append(step.report)
        rest = f", about {_duration(step.seconds_left)} left" if step.number < step.of and step.report.success else ""
        progress(f"run {step.number} of {step.of} ended; {step.done:.0%} done{rest}")
    _record(settings, asked)
    if not planned.chunks:
        return
    left = plan(False).missing
    if left:
        _say(
            f"{left:,} bars are still missing: the source has none, or they are in quarantine (`stock-lakehouse status`)."
        )
    else:
        _say("The lake holds all of it.")
    if not all(report.success for report in reports):
        _say("Not every run ended well; when the cause is mended start the same backfill again: it goes on from here.")
    _end(reports)


@app.command()
def record() -> None:
    """Mark in Dagster as materialized what the lake holds and Dagster does not know of.

    For after `partition_by` was changed, or with a new DAGSTER_HOME: the lake stays as it is, and nothing is computed. A
    second time it marks nothing.
    """
    settings = _settings()
    if not _record(settings, _rectangle(settings, None, None, None)):
        _say("Nothing to mark: Dagster knows of everything that the lake holds.")


@app.command()
def prune(
    days: Annotated[int, typer.Option(min=1, metavar="N", help="Delete runs that ended more than N days ago.")],
) -> None:
    """Delete Dagster's records of old runs, logs and events; the lake stays as it is.

    What the lake holds is marked as materialized again, so that every partition stays green.
    """
    from stock_lakehouse.market_calendar import utc_now
    from stock_lakehouse.runs import prune_runs

    settings = _settings()
    everything = _rectangle(settings, None, None, None)
    _say(f"{prune_runs(settings, utc_now() - timedelta(days=days)):,} runs deleted")
    _record(settings, everything)


@app.command()
def upkeep(
    check_only: Annotated[bool, typer.Option("--check-only", help="Look, and change nothing.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="First take damaged files out of their tables and compute their bars anew.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, metavar="TICKERS", help="How many tickers are computed anew and compared.")
    ] = 10,
) -> None:
    """Join small files, remove versions beyond `retention_days`, and hold every table against its files, schema and computation.

    Runs beside everything else: it waits for its turn at a table, and readers never wait. Ends with 1 if something was
    found; each finding says what to do.
    """
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import StorageError
    from stock_lakehouse.market_calendar import market_calendar
    from stock_lakehouse.upkeep import keep_up

    if repair and check_only:
        _wrong("--repair, --check-only: give one of them")
    settings = _settings()
    try:
        lake = Lake(settings.lake_root, retention_days=settings.retention_days)
        lake.check()
        if repair:
            _repair(settings)
        with _engine(settings) as spark:
            calendar = market_calendar(settings.first_date, settings.exchange)
            sessions = spark.createDataFrame(calendar.table(timedelta(minutes=settings.close_grace_minutes)))
            done = keep_up(lake, spark, sessions, check_only=check_only, sample=sample, progress=_progress())
    except StorageError as error:
        _wrong(str(error))
    _print_upkeep(done)
    if done.findings:
        raise typer.Exit(1)


def _repair(settings: Settings) -> None:
    """Take out what is damaged, and run the layers below raw for it."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.tables import RAW, TABLES
    from stock_lakehouse.upkeep import DamageError, end_repairs, pending_repairs, rectangle_to_heal
    from stock_lakehouse.upkeep import repair as take_out

    lake = Lake(settings.lake_root, retention_days=settings.retention_days)
    try:
        todo = take_out(lake)
    except DamageError as error:
        _wrong(str(error))
    if not todo:
        _say("Nothing to repair.")
        return
    everything = _rectangle(settings, None, None, None)
    rectangle = rectangle_to_heal(todo, everything.sessions, settings.tickers, settings.exchange)
    _say("To be computed anew: " + ", ".join(f"{ticker} {year}" for ticker, year in sorted(todo)))
    removed = sorted({ticker for ticker, _ in todo} - set(settings.tickers))
    if removed:
        _say(
            f"Not in the settings, so not computed: {', '.join(removed)}; put them back into `tickers` and repair again."
        )
    if rectangle is not None:
        markers = pending_repairs(lake)
        _run(settings, rectangle, [table.name for table in TABLES if table != RAW])
        end_repairs(lake, markers, rectangle)


def _print_upkeep(done: Upkeep) -> None:
    from rich.markup import escape

    from stock_lakehouse.upkeep import facts

    figures = [facts(one) for one in done.tables]
    grid = _grid("table", *figures[0])
    for one, of_table in zip(done.tables, figures, strict=True):
        grid.add_row(one.table, *(f"{value:,}" for value in of_table.values()))
    _print(grid)
    if done.recomputed:
        _say(f"Computed anew and compared: {', '.join(done.recomputed)}")
    if done.staging_removed:
        _say(f"Folders of killed runs removed from .staging: {done.staging_removed}")
    for finding in done.findings:
        _say(f"[red]{finding.table}[/]: {escape(finding.what)}")
        _say(f"  to do: {escape(finding.todo)}")
    if not done.findings:
        _say("Every table is as its log, its schema and its computation say.")


def _record(settings: Settings, asked: Rectangle) -> int:
    """How many partitions Dagster did not know of."""
    from stock_lakehouse.runs import record_rectangle
    from stock_lakehouse.tables import LAYERS

    with _engine(settings, *(table.name for table in LAYERS)) as spark:
        counts = record_rectangle(settings, asked, spark)
    for table, count in counts.items():
        if count:
            _say(f"{table}: {count:,} partitions that the lake holds marked as materialized")
    return sum(counts.values())


def _print_plan(plan: Plan) -> None:
    if not plan.chunks:
        _say(f"Nothing to do: the lake holds all {plan.asked:,} bars. `--again` runs them all the same.")
        return
    _say(f"{plan.missing:,} of {plan.asked:,} bars to do, in {len(plan.chunks)} run(s):")
    grid = _grid("run", "bars", "tickers", "from", "to", "assets")
    for number, chunk in enumerate(plan.chunks, start=1):
        names = chunk.rectangle.tickers
        shown = ", ".join(names) if len(names) <= 6 else f"{len(names)} tickers, {names[0]} to {names[-1]}"
        days = (str(chunk.rectangle.first), str(chunk.rectangle.last))
        grid.add_row(str(number), f"{chunk.missing:,}", shown, *days, ", ".join(chunk.select or ("all",)))
    _print(grid)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What each table holds: rows, sessions, sessions missing against the calendar, rows by older formulas, bytes, version.

    Names the tickers of the settings that have no bar.
    """
    from stock_lakehouse.tables import CURATED, QUARANTINE

    settings = _settings()
    tables = _status(settings)
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in tables], default=str, indent=2))
        return
    _print_tables(tables)
    detail = _grid("table", "ticker", "rows", "first session", "last session", "missing", "outdated")
    for one in tables:
        for ticker, held in one.tickers.items():
            figures = (str(held.first), str(held.last), str(held.missing), str(held.outdated))
            detail.add_row(one.table, ticker, f"{held.rows:,}", *figures)
    _print(detail)
    outdated = sum(one.outdated for one in tables)
    if outdated:
        _say(f"{outdated:,} rows of features are by older formulas; `stock-lakehouse backfill` computes them again.")
    absent = next(one.absent for one in tables if one.table == CURATED.name)
    if absent:
        refused = next(one.tickers for one in tables if one.table == QUARANTINE.name)
        _say(f"Tickers of the settings without any bar: {_without_bars(absent, refused)}.")
        _say(
            f"  to do: `stock-lakehouse doctor` says what the source has; `stock-lakehouse show {QUARANTINE.name} TICKER` "
            "what was refused"
        )
    removed = sorted({ticker for one in tables for ticker, held in one.tickers.items() if held.removed})
    if removed:
        _say(
            f"No longer in the settings, and kept as they are: {', '.join(removed)}. Runs leave their rows alone; "
            "to go on with one put it back into `tickers`."
        )


def _without_bars(absent: Sequence[str], refused: Mapping[str, TickerStatus]) -> str:
    """The tickers, with the rows that each has in the quarantine, or has perhaps where the ticker could not be read."""
    from stock_lakehouse.sources.file_report import rows_in_words
    from stock_lakehouse.tables import UNREADABLE

    def named(ticker: str) -> str:
        return f"{ticker} ({rows_in_words(refused[ticker].rows)} in quarantine)" if ticker in refused else ticker

    names = ", ".join(map(named, absent[:SHOWN_TICKERS]))
    more = f" and {len(absent) - SHOWN_TICKERS:,} more" if len(absent) > SHOWN_TICKERS else ""
    unread = (
        f"; of {UNREADABLE} {rows_in_words(refused[UNREADABLE].rows)} in quarantine" if UNREADABLE in refused else ""
    )
    return f"{names}{more}{unread}"


@app.command()
def show(
    table: Annotated[str, typer.Argument(help="A table, like curated_stocks_daily or stocks_features.")],
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest rows.")] = 10,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="What the lake said then: a date (its end, UTC) or a time like 2024-05-03T20:30."
        ),
    ] = None,
) -> None:
    """The newest rows of a ticker, as they are or as they were."""
    from stock_lakehouse.lake.history import NoVersionError
    from stock_lakehouse.lake.storage import StorageError
    from stock_lakehouse.reading import read_table
    from stock_lakehouse.tables import QUARANTINE, UNREADABLE

    settings = _settings()
    # As `status` lists it: __unreadable__ in small letters, tickers in capitals.
    name = ticker.lower() if ticker.lower() == UNREADABLE else ticker.upper()
    try:
        rows = read_table(table, tickers=sorted({name, ticker}), as_of=as_of, lake_root=settings.lake_root)
    except (NoVersionError, StorageError, ValueError) as error:
        _wrong(str(error))
    if not rows.num_rows:
        then = f" of {as_of}" if as_of else ""
        _wrong(f"TICKER: {table} holds no row of {name}{then}; `stock-lakehouse status` lists what it holds")
    key = ("ticker", "date", *(("file", "line_number", "reasons") if table == QUARANTINE.name else ()))
    names = dict.fromkeys(one for one in (*key, *rows.column_names) if one in rows.column_names)
    newest = rows.select(list(names)).slice(max(rows.num_rows - last, 0)).to_pylist()
    if table == QUARANTINE.name:  # most of its columns tell something of few rows
        names = {name: None for name in names if name in key or any(row[name] is not None for row in newest)}
    _print_rows([{name: _text(row[name]) for name in names} for row in newest])


@app.command()
def restatements(
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest lines.")] = 20,
) -> None:
    """What was published of a ticker and later changed: old and new value, why, and in which run."""
    from stock_lakehouse.tables import RESTATEMENTS

    settings = _settings()
    with _engine(settings, RESTATEMENTS.name) as spark:
        from stock_lakehouse.lake import Lake
        from stock_lakehouse.report import restatement_lines

        lines = restatement_lines(Lake(settings.lake_root), spark, ticker.upper(), last)
    if not lines:
        _say(f"Nothing that was published of {ticker.upper()} has changed.")
        return
    _print_rows([{name: _text(value) for name, value in line.items()} for line in lines])


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
) -> None:
    """Open Dagster on 127.0.0.1, on this lake and its instance."""
    from stock_lakehouse.instance import dagster_home

    settings = _settings()
    _check_partitions(settings)
    home = dagster_home(settings)
    _say(f"Dagster on http://127.0.0.1:{port} (instance in {home}); stop it with Ctrl-C")
    program = os.path.join(os.path.dirname(sys.executable), "dagster")
    arguments = ["dev", "-m", "stock_lakehouse.definitions", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(program, [program, *arguments])


@app.command()
def init(
    production: Annotated[
        bool, typer.Option("--production", help="Dagster on Postgres, for a server; else on SQLite, for a laptop.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write dagster.yaml anew if it is there already.")] = False,
) -> None:
    """Write lakehouse.toml if there is none, and the dagster.yaml of a laptop or of production."""
    from stock_lakehouse.instance import (
        LAKEHOUSE_TOML,
        LAPTOP,
        POSTGRES_VARIABLE,
        PRODUCTION,
        dagster_folder,
        write_new,
    )
    from stock_lakehouse.settings import config_file

    toml = config_file()
    toml_written = write_new(toml, LAKEHOUSE_TOML, force=False)
    _say(f"{'written' if toml_written else 'kept, it is there already'}: {toml}")
    path = dagster_folder(_settings()) / "dagster.yaml"
    wanted = PRODUCTION if production else LAPTOP
    if path.is_file() and path.read_text(encoding="utf-8") == wanted:
        _say(f"kept, it is just so already: {path}")
    elif write_new(path, wanted, force):
        _say(f"written: {path}")
    else:
        _wrong(f"{path} is there already and says something else; --force writes it anew")
    if production:
        _say(
            f"Dagster needs DAGSTER_HOME={path.parent} and {POSTGRES_VARIABLE} in its environment; docs/operations.md has "
            "units for systemd. With a lake filled before, `stock-lakehouse record` tells the new instance of it."
        )
    else:
        _say("Next: `stock-lakehouse doctor`, then `stock-lakehouse demo`.")


@app.command()
def doctor() -> None:
    """Whether everything that a run needs is there; each line says how to mend what is not."""
    from rich.markup import escape

    from stock_lakehouse.doctor import examine

    broken = False
    for finding in examine(_aside):
        mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "broken": "[red]broken[/]"}[finding.state]
        _say(f"{mark:<22} {finding.what}: {escape(finding.detail)}")
        broken = broken or finding.state == "broken"
    if broken:
        raise typer.Exit(1)


def main() -> None:
    """The program's entry point."""
    try:
        app()
    except _store_errors() as error:  # evaluated only when something is raised: the libraries are loaded by then
        from stock_lakehouse.lake.storage import storage_error

        told = storage_error("the lake or Dagster's records", error)
        if told is None:
            raise
        typer.echo(f"stock-lakehouse: {told}", err=True)
        raise SystemExit(1) from None


def _store_errors() -> tuple[type[Exception], ...]:
    from stock_lakehouse.lake.storage import error_types

    return error_types()


def _live(settings: Settings, sessions: int) -> None:
    """What `demo --live` prints."""
    from stock_lakehouse.live_demo import LiveDemoError, live_folder, run_live_demo

    _say(
        f"The sample's last {sessions} sessions are held back. A simulated clock moves through them; Dagster's daemon and "
    )
    _say("new_market_day_sensor, as in production, bring them in one by one. No network.\n")
    try:
        brought = run_live_demo(settings, sessions, _say)
    except LiveDemoError as error:
        typer.echo(f"stock-lakehouse: {error}", err=True)
        raise typer.Exit(1) from None
    grid = _grid("brought to", "run", "seconds", "bars", "new")
    for before, one in zip([None, *brought], brought, strict=False):
        new = one.bars - before.bars if before else one.bars
        grid.add_row(str(one.session), one.run_id[:8], f"{one.seconds:.1f}", f"{one.bars:,}", f"{new:,}")
    _say("")
    _print(grid)
    config = live_folder(settings) / "lakehouse.toml"
    _say(
        f"{len(brought)} runs; nothing was asked for twice. Look at it:  STOCK_LAKEHOUSE_CONFIG={config} stock-lakehouse ui"
    )


def _settings() -> Settings:
    from stock_lakehouse.settings import SettingsError, load_settings

    try:
        return load_settings()
    except SettingsError as error:
        _wrong(str(error))


def _check_partitions(settings: Settings) -> None:
    _rectangle(settings, None, None, None)


def _rectangle(settings: Settings, tickers: str | None, first: datetime | None, last: datetime | None) -> Rectangle:
    from stock_lakehouse.clock import ClockError, clock_of
    from stock_lakehouse.market_calendar import CalendarError, market_calendar
    from stock_lakehouse.partitions import PartitionError, PartitionScheme
    from stock_lakehouse.settings import check_tickers

    try:
        calendar = market_calendar(settings.first_date, settings.exchange)
        scheme = PartitionScheme(settings, calendar)
        asked = check_tickers(tuple(one.strip() for one in tickers.split(","))) if tickers else None
        newest = calendar.latest_finished(
            clock_of(settings.simulated_clock)(), timedelta(minutes=settings.close_grace_minutes)
        )
        return scheme.ask(asked, _day(first), _day(last), newest)
    except (PartitionError, CalendarError, ClockError, ValueError) as error:
        _wrong(str(error))


def _day(value: datetime | None) -> date | None:
    return value.date() if value else None


def _progress() -> Callable[[str], None]:
    """A printer of lines with the time since now, on stderr."""
    from rich.markup import escape

    console = _errors()
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {escape(line)}")

    return progress


def _run(settings: Settings, rectangle: Rectangle, select: list[str] | None) -> RunReport:
    """One run with progress and red checks on stderr; exits with 1 if it fails. `_end` belongs after it."""
    progress = _progress()
    progress(
        f"{len(rectangle.tickers)} tickers × {len(rectangle.sessions):,} sessions, {rectangle.first} to {rectangle.last}"
    )
    from stock_lakehouse.runs import run_rectangle

    try:
        report = run_rectangle(settings, rectangle, select, progress)
    except ValueError as error:
        _wrong(str(error))
    progress("run ended " + ("well" if report.success else "with a failure"))
    _print_outcome(report)
    if not report.success:
        _end([report])
    return report


def _print_outcome(report: RunReport) -> None:
    """Checks that did not pass with the first rows of each, and why a run failed."""
    from rich.markup import escape

    from stock_lakehouse.sources import printable

    console = _errors()
    for finding in report.red:
        console.print(f"[red]check not passed[/]  {escape(str(finding))}")
        for line in _finding_lines(finding):
            console.print(line, markup=False)
    for failure in report.failures:  # an engine's error quotes the text that it could not read
        lines = "\n".join(map(printable, failure.splitlines()))
        console.print(f"[red]failed[/]  {escape(lines)}")
    if not report.success:
        console.print(
            f"`stock-lakehouse ui` shows the run {report.run_id}; run the same again when the cause is mended"
        )


def _finding_lines(finding: CheckFinding) -> Iterator[str]:
    """A red check in lines of LINE_WIDTH: its reason, its first rows, how many more there are, and what to do."""
    yield from _wrapped(finding.description)
    shown = finding.rows[:SHOWN_ROWS]
    for row in shown:
        pairs = (f"{name}={_cut(value)}" for name, value in row.items() if value not in (None, ""))
        yield from _wrapped("  ".join(pairs), "  ")
    more = max(finding.found or 0, len(finding.rows)) - len(shown)
    if more > 0 and shown:
        yield from _wrapped(f"… and {more:,} more", "  ")
    if finding.to_do:
        yield from _wrapped(f"to do: {finding.to_do}")


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    from stock_lakehouse.sources import printable

    first = f"    {indent}"
    return textwrap.wrap(
        printable(text), LINE_WIDTH, initial_indent=first, subsequent_indent=f"{first}  ", break_on_hyphens=False
    )


def _cut(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def _end(reports: Sequence[RunReport]) -> None:
    """The last words of a command that ran something: whether the quarantine grew. Exits with 1 unless all is sound."""
    from collections import Counter

    from stock_lakehouse.report import reasons_in_words
    from stock_lakehouse.sources.file_report import rows_in_words

    grown = [finding for report in reports for finding in report.red if finding.check == "quarantine"]
    if grown:
        reasons: Counter[str] = Counter()
        for finding in grown:
            reasons.update(finding.facts.get("by reason") or {})
        rows = sum(finding.found or 0 for finding in grown)
        tell = _console(markup=False)  # the reasons may quote what was delivered
        tell.print(f"Quarantine: {rows_in_words(rows)} more: {reasons_in_words(reasons)}.", soft_wrap=True)
        tell.print(f"  to do: {grown[0].to_do}", soft_wrap=True)
    if not all(report.is_sound for report in reports):
        raise typer.Exit(1)


def _errors() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def _status(settings: Settings) -> list[TableStatus]:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.market_calendar import market_calendar
    from stock_lakehouse.report import status as read_status

    with _engine(settings) as spark:
        return read_status(
            Lake(settings.lake_root), spark, market_calendar(settings.first_date, settings.exchange), settings.tickers
        )


@contextmanager
def _engine(settings: Settings, *tables: str) -> Iterator[Any]:
    """A session, once the `tables` to be read (none: all) may be listed."""
    from stock_lakehouse.engines import EngineError, spark_session
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import StorageError

    remote = settings.spark_remote.get_secret_value() if settings.spark_remote else None
    try:
        Lake(settings.lake_root).check(*tables)
        with spark_session(
            settings.engine, remote, settings.databricks, lambda line: typer.echo(line, err=True)
        ) as spark:
            yield spark
    except (EngineError, StorageError) as error:
        _wrong(str(error))


def _summary(settings: Settings, report: RunReport, changed: bool) -> None:
    """What `demo` prints after its run."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.market_calendar import market_calendar
    from stock_lakehouse.report import crosses, latest_indicators, superseded
    from stock_lakehouse.report import status as read_status

    lake = Lake(settings.lake_root)
    with _engine(settings) as spark:
        tables = read_status(lake, spark, market_calendar(settings.first_date, settings.exchange), settings.tickers)
        latest, crossed = latest_indicators(lake, spark), crosses(lake, spark)
    _print_tables(tables, report)
    rows = {one.table: one.rows for one in tables}
    _say(
        f"{rows['processed_quarantine']:,} rows in quarantine, {superseded(tables):,} superseded by a newer delivery\n"
    )
    short = {"volatility_20": "vol_20", "buy_signal": "buy", "sell_signal": "sell"}
    if latest:
        _print_rows([{short.get(name, name): _text(value) for name, value in one.items()} for one in latest])
    grid = _grid("ticker", "golden crosses", "death crosses")
    for ticker in sorted({one["ticker"] for one in crossed}):
        days = {
            kind: ", ".join(str(one["date"]) for one in crossed if one["ticker"] == ticker and one["cross"] == kind)
            for kind in ("golden", "death")
        }
        grid.add_row(ticker, days["golden"], days["death"])
    _print(grid)
    if not changed:
        _say("Nothing changed: the lake held all of it already, and no data file was written.")
    _say(
        "Next:  [bold]make ui[/]  the same in Dagster, on http://127.0.0.1:3000\n"
        "       [bold].venv/bin/stock-lakehouse show stocks_features NVDA --last 5[/]\n"
        "       [bold].venv/bin/stock-lakehouse status[/]   and   [bold]--help[/]   for the rest"
    )


def _print_tables(tables: list[TableStatus], report: RunReport | None = None) -> None:
    """A row a table; with the run's seconds after a run, else with what is missing and the version."""
    grid = _grid(
        "table", "rows", "tickers", "first", "last", "files", "bytes", *(("s",) if report else ("missing", "version"))
    )
    for one in tables:
        last = [f"{report.seconds.get(one.table, 0):.1f}"] if report else [str(one.missing), _text(one.version)]
        grid.add_row(
            one.table,
            f"{one.rows:,}",
            str(len(one.tickers)),
            _text(one.first),
            _text(one.last),
            f"{one.files:,}",
            f"{one.bytes:,}",
            *last,
        )
    _print(grid)


def _files(settings: Settings) -> set[tuple[str, str]]:
    """Every data file of the lake with a mark: the same before and after means that nothing was written."""
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import StorageError

    try:
        return Lake(settings.lake_root).marks()
    except StorageError as error:
        _wrong(str(error))


def _print_rows(rows: list[dict[str, str]]) -> None:
    """Rows of a table, its columns in groups that fit the terminal, the key in front of each."""
    width = _console().width
    needs = {name: max(len(name), *(len(row[name]) for row in rows)) + 2 for name in rows[0]}
    key: list[str] = [name for name in ("ticker", "date") if name in needs]
    groups = [list(key)]
    for name, need in needs.items():
        if name in key:
            continue
        if sum(needs[one] for one in groups[-1]) + need > width and len(groups[-1]) > len(key):
            groups.append(list(key))
        groups[-1].append(name)
    for group in groups:
        grid = _grid(*group)
        for row in rows:
            grid.add_row(*(row[name] for name in group))
        _print(grid)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:,.5g}"
    from stock_lakehouse.sources import printable

    return printable("; ".join(map(str, value)) if isinstance(value, list) else str(value))


def _grid(*columns: str) -> RichTable:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="left" if column in ("table", "ticker") else "right", overflow="fold")
    return grid


def _console(markup: bool = True) -> Console:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False, markup=markup, emoji=False)
    # Into a file or a pipe nothing is cut to a terminal's width.
    return console if console.is_terminal else Console(highlight=False, width=200, markup=markup, emoji=False)


def _print(grid: RichTable) -> None:
    console = _console(markup=False)  # what was delivered is shown, not obeyed
    console.print(grid)
    console.print()


def _say(line: str) -> None:
    _console().print(line, soft_wrap=True)


def _aside(line: str) -> None:
    """What is going on, on stderr."""
    typer.echo(line, err=True)


def _wrong(message: str) -> NoReturn:
    """One clear line on stderr and exit code 2."""
    typer.echo(f"stock-lakehouse: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    main()
