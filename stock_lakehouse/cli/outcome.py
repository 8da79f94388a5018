"""A run as the program shows it: its progress, checks that did not pass, its end and its exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from stock_lakehouse.cli.context import engine
from stock_lakehouse.cli.printing import (
    as_text,
    cut,
    error_console,
    new_grid,
    output_console,
    print_grid,
    progress_printer,
    say,
    wrapped,
    wrong,
)

if TYPE_CHECKING:
    from stock_lakehouse.lake.status import TableStatus
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.runs.run import CheckFinding, RunReport
    from stock_lakehouse.settings import Settings

# How a red check is shown.
SHOWN_ROWS = 5


def run_and_print(settings: Settings, rectangle: Rectangle, select: list[str] | None) -> RunReport:
    """One run with progress and red checks on stderr; exits with 1 if it fails. `end` belongs after it."""
    progress = progress_printer()
    progress(
        f"{len(rectangle.tickers)} tickers × {len(rectangle.sessions):,} sessions, {rectangle.first} to {rectangle.last}"
    )
    from stock_lakehouse.runs.run import run_rectangle

    try:
        report = run_rectangle(settings, rectangle, select, progress)
    except ValueError as error:
        wrong(str(error))
    progress("run ended " + ("well" if report.success else "with a failure"))
    print_outcome(report)
    if not report.success:
        end([report])
    return report


def print_outcome(report: RunReport) -> None:
    """Checks that did not pass with the first rows of each, and why a run failed."""
    from rich.markup import escape

    from stock_lakehouse.sources import printable

    console = error_console()
    for finding in report.red:
        console.print(f"[red]check not passed[/]  {escape(str(finding))}")
        for line in finding_lines(finding):
            console.print(line, markup=False)
    for failure in report.failures:  # an engine's error quotes the text that it could not read
        lines = "\n".join(map(printable, failure.splitlines()))
        console.print(f"[red]failed[/]  {escape(lines)}")
    if not report.success:
        console.print(
            f"`stock-lakehouse ui` shows the run {report.run_id}; run the same again when the cause is mended"
        )


def finding_lines(finding: CheckFinding) -> Iterator[str]:
    """A red check in lines of LINE_WIDTH: its reason, its first rows, how many more there are, and what to do."""
    yield from wrapped(finding.description)
    shown = finding.rows[:SHOWN_ROWS]
    for row in shown:
        pairs = (f"{name}={cut(value)}" for name, value in row.items() if value not in (None, ""))
        yield from wrapped("  ".join(pairs), "  ")
    more = max(finding.found or 0, len(finding.rows)) - len(shown)
    if more > 0 and shown:
        yield from wrapped(f"… and {more:,} more", "  ")
    if finding.to_do:
        yield from wrapped(f"to do: {finding.to_do}")


def end(reports: Sequence[RunReport]) -> None:
    """The last words of a command that ran something: whether the quarantine grew. Exits with 1 unless all is sound."""
    from collections import Counter

    from stock_lakehouse.lake.status import reasons_in_words
    from stock_lakehouse.sources.file_report import rows_in_words

    grown = [finding for report in reports for finding in report.red if finding.check == "quarantine"]
    if grown:
        reasons: Counter[str] = Counter()
        for finding in grown:
            reasons.update(finding.facts.get("by reason") or {})
        rows = sum(finding.found or 0 for finding in grown)
        tell = output_console(markup=False)  # the reasons may quote what was delivered
        tell.print(f"Quarantine: {rows_in_words(rows)} more: {reasons_in_words(reasons)}.", soft_wrap=True)
        tell.print(f"  to do: {grown[0].to_do}", soft_wrap=True)
    if not all(report.is_sound for report in reports):
        raise typer.Exit(1)


def record_held_bars(settings: Settings, asked: Rectangle) -> int:
    """How many partitions Dagster did not know of."""
    from stock_lakehouse.runs.run import record_rectangle
    from stock_lakehouse.tables import LAYERS

    with engine(settings, *(table.name for table in LAYERS)) as spark:
        counts = record_rectangle(settings, asked, spark)
    for table, count in counts.items():
        if count:
            say(f"{table}: {count:,} partitions that the lake holds marked as materialized")
    return sum(counts.values())


def print_tables(tables: list[TableStatus], report: RunReport | None = None) -> None:
    """A row a table; with the run's seconds after a run, else with what is missing and the version."""
    grid = new_grid(
        "table", "rows", "tickers", "first", "last", "files", "bytes", *(("s",) if report else ("missing", "version"))
    )
    for one in tables:
        last = [f"{report.seconds.get(one.table, 0):.1f}"] if report else [str(one.missing), as_text(one.version)]
        grid.add_row(
            one.table,
            f"{one.rows:,}",
            str(len(one.tickers)),
            as_text(one.first),
            as_text(one.last),
            f"{one.files:,}",
            f"{one.bytes:,}",
            *last,
        )
    print_grid(grid)
