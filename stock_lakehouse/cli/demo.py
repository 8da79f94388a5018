"""The command `demo`: everything that the settings name, loaded and shown.

Of the sample, the first load is a vendor's careless delivery and the second one its correction, so that quarantine, ledger and
reads of an earlier moment have something to show.
"""

from __future__ import annotations

import shlex
from collections import Counter
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_lakehouse.cli.context import (
    asked_rectangle,
    check_instance,
    check_lake_root,
    data_files,
    engine,
    settings_of_process,
)
from stock_lakehouse.cli.outcome import end, print_tables, run_and_print
from stock_lakehouse.cli.printing import as_text, print_rows, print_table, program, say
from stock_lakehouse.cli.program import app
from stock_lakehouse.cli.report import write_lake_report

if TYPE_CHECKING:
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.runs.run import RunReport
    from stock_lakehouse.settings import Settings

SHOWN = 10  # rows of the quarantine


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
    """Load everything that the settings name, and show the result. Of the sample also what a correction does."""
    settings = settings_of_process()
    if live:
        check_lake_root(settings)
        _live(settings, sessions)
        return
    rectangle = asked_rectangle(settings, None, None, None)
    check_lake_root(settings)
    check_instance(settings)
    before = data_files(settings)
    reports = _load(settings, rectangle, is_new=not before)
    _summary(settings, reports[0], data_files(settings) != before)
    end(reports)


def _load(settings: Settings, rectangle: Rectangle, is_new: bool) -> list[RunReport]:
    """Load `rectangle`; a new lake of the sample in two deliveries."""
    from stock_lakehouse.sources.sample import CORRECTED, SampleSource
    from stock_lakehouse.sources.sample_data import SAMPLE_LAST

    ticker, session = CORRECTED
    corrected = {session, SAMPLE_LAST} <= set(rectangle.sessions) and ticker in rectangle.tickers
    if not (is_new and settings.source == "sample" and corrected):
        return [run_and_print(settings, rectangle, None)]
    say("A vendor's first delivery of the sample: some rows cannot be, and a close is mistyped.")
    first = run_and_print(settings, rectangle, None, SampleSource(before_correction=True))
    say("\nIts correction of the last two sessions.")
    start, last = (datetime.combine(day, time()) for day in (session, SAMPLE_LAST))
    return [first, run_and_print(settings, asked_rectangle(settings, None, start, last), None)]


def _summary(settings: Settings, report: RunReport, changed: bool) -> None:
    """What `demo` prints after its runs."""
    from rich.markup import escape

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.status import crosses, latest_indicators
    from stock_lakehouse.lake.status import status as read_status
    from stock_lakehouse.tables import FEATURES

    lake = Lake(settings.lake_options)
    with engine(settings) as spark:
        tables = read_status(lake, spark, settings.calendar, settings.tickers)
        latest, crossed = latest_indicators(lake, spark), crosses(lake, spark)
    say("")
    print_tables(tables, report)
    if latest:
        for row in latest:
            buy, sell = row.pop("buy_signal"), row.pop("sell_signal")
            row["signal"] = "buy" if buy else "sell" if sell else None
        print_rows([{name: as_text(value) for name, value in row.items()} for row in latest])
    crossings = []
    for ticker in sorted({cross["ticker"] for cross in crossed}):
        days = {
            kind: ", ".join(
                str(cross["date"]) for cross in crossed if cross["ticker"] == ticker and cross["cross"] == kind
            )
            for kind in ("golden", "death")
        }
        crossings.append((ticker, days["golden"], days["death"]))
    print_table(("ticker", "golden crosses", "death crosses"), crossings)
    _print_actions(settings)
    _print_quarantine(settings)
    _print_correction(settings)
    if not changed:
        say("Nothing changed: the lake held everything already, and no data file was written.\n")
    page = write_lake_report(settings) if latest else None
    if page:
        say(f"[bold]Charts of all this:[/]  {escape(str(page))}\n")
    next_commands = (
        ("dashboard", "the charts in a browser, always of the newest data"),
        ("ui", "the same in Dagster, on http://127.0.0.1:3000"),
        (f"show {FEATURES.name} {settings.tickers[-1]} --last 5", "indicators and signals"),
        ("query --report latest_signals", "a question in SQL; `query --reports` lists nine"),
        ("status", "what each table holds"),
        ("--help", "everything else"),
    )
    say("Next:")
    for arguments, shows in next_commands:
        say(f"  [bold]{escape(program())} {arguments}[/]")
        say(f"      {shows}")


def _rows(settings: Settings, table: str, **selection: Any) -> list[dict[str, Any]]:
    from stock_lakehouse.lake.reading import read_table

    rows: list[dict[str, Any]] = read_table(table, lake_root=settings.lake_root, **selection).to_pylist()
    return rows


def _print_actions(settings: Settings) -> None:
    """How many splits and dividends prices are adjusted by."""
    from stock_lakehouse.tables import CORPORATE_ACTIONS

    kinds = Counter(action["kind"] for action in _rows(settings, CORPORATE_ACTIONS.name))
    if kinds:
        counts = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(kinds.items()))
        say(f"[bold]Corporate actions[/] that prices are adjusted by: {counts}\n")


def _print_quarantine(settings: Settings) -> None:
    """The first rows of the quarantine, with their reasons."""
    from stock_lakehouse.tables import QUARANTINE

    rows = _rows(settings, QUARANTINE.name)
    if not rows:
        return
    say(f"[bold]In quarantine[/], each row as delivered and with every reason: {len(rows):,}")
    shown = [
        (as_text(row["ticker"]), as_text(row["date"]), as_text(row["line_number"]), as_text(row["reasons"]))
        for row in rows[:SHOWN]
    ]
    print_table(("ticker", "date", "line", "reasons"), shown)


def _print_correction(settings: Settings) -> None:
    """The newest published close that was corrected: its line in the ledger, and the close before and after."""
    from stock_lakehouse.tables import CURATED, RESTATEMENTS

    lines = [
        line
        for line in _rows(settings, RESTATEMENTS.name)
        if line["table_name"] == CURATED.name and line["columns"] == "close" and line["date"] and line["old"]
    ]
    if not lines:
        return
    line = max(lines, key=lambda line: line["restated_at"])
    ticker, day, moment = line["ticker"], line["date"], line["restated_at"].astimezone(UTC)
    selection = {"tickers": ticker, "first": day, "last": day, "columns": "close"}
    before, now = (_rows(settings, CURATED.name, as_of=at, **selection)[0]["close"] for at in (moment, None))
    say(f"[bold]Corrected[/], and kept in the ledger: the close of {ticker} on {day}, {line['cause']}")
    shown = (
        (f"--as-of {moment:%Y-%m-%dT%H:%M:%S}", as_text(before)),
        ("now", as_text(now)),
    )
    print_table(("read", "close"), shown)


def _live(settings: Settings, sessions: int) -> None:
    """What `demo --live` prints."""
    from stock_lakehouse.cli.live_demo import LiveDemoError, live_folder, run_live_demo

    say(
        f"The sample's last {sessions} sessions are held back. A simulated clock moves through them; Dagster's daemon and "
    )
    say("new_market_day_sensor load them one by one, as in production. No network.\n")
    try:
        loaded = run_live_demo(settings, sessions, say)
    except LiveDemoError as error:
        typer.echo(f"stock-lakehouse: {error}", err=True)
        raise typer.Exit(1) from None
    rows = []
    for before, after in zip([None, *loaded], loaded, strict=False):
        new = after.bars - before.bars if before else after.bars
        rows.append((str(after.session), after.run_id[:8], f"{after.seconds:.1f}", f"{after.bars:,}", f"{new:,}"))
    say("")
    print_table(("loaded to", "run", "seconds", "bars", "new"), rows)
    config = live_folder(settings) / "lakehouse.toml"
    say(f"{len(loaded)} runs; no session was requested twice. Look at it:")
    say(f"  STOCK_LAKEHOUSE_CONFIG={shlex.quote(str(config))} {program()} ui")
