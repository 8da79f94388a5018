"""The output of a run: its progress, the checks that did not pass, its end and the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from stock_lakehouse.cli.context import check_layout, engine
from stock_lakehouse.cli.printing import (
    as_text,
    as_typed,
    cut,
    error_console,
    fail,
    output_console,
    print_table,
    progress_printer,
    say,
    size,
    wrapped,
)

if TYPE_CHECKING:
    from stock_lakehouse.instance.run_record import CheckFinding
    from stock_lakehouse.lake.status import TableStatus
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.runs.run import RunReport
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.sources import Source

SHOWN_ROWS = 5  # of a check that did not pass


def run_and_print(
    settings: Settings, rectangle: Rectangle, select: list[str] | None, source: Source | None = None
) -> RunReport:
    """Run `rectangle` with progress and red checks on stderr; exit with 1 if the run fails. The caller then calls `end`.

    `source`: None for the one that the settings name.
    """
    check_layout(settings)
    progress = progress_printer()
    progress(
        f"{len(rectangle.tickers)} tickers × {len(rectangle.sessions):,} sessions, {rectangle.first} to {rectangle.last}"
    )
    from stock_lakehouse.runs.run import run_rectangle

    try:
        report = run_rectangle(settings, rectangle, select, progress, source=source)
    except ValueError as error:
        fail(str(error))
    progress("run ended " + ("well" if report.success else "with a failure"))
    print_outcome(report)
    if not report.success:
        end([report])
    return report


def print_outcome(report: RunReport) -> None:
    """Print the checks that did not pass, with the first rows of each, and the reasons of a failed run."""
    from rich.markup import escape

    from stock_lakehouse.sources import printable

    console = error_console()
    for finding in report.red:
        console.print(f"[red]check not passed[/]  {escape(str(finding))}")
        for line in finding_lines(finding):
            console.print(line, markup=False)
    for failure in report.failures:  # an engine's error may quote delivered text
        lines = as_typed("\n".join(map(printable, failure.splitlines())))
        console.print(f"[red]failed[/]  {escape(lines)}")
    if not report.success:
        again = f"`stock-lakehouse ui` shows the run {report.run_id}; run the same again when the cause is repaired"
        console.print(as_typed(again), markup=False)


def finding_lines(finding: CheckFinding) -> Iterator[str]:
    """A red check as lines of LINE_WIDTH: its reason, its first rows, the number of further rows, and what to do."""
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
    """Print whether the quarantine grew in the runs of a command. Exit with 1 unless all runs and their checks are sound."""
    from collections import Counter

    from stock_lakehouse.lake.status import reasons_in_words
    from stock_lakehouse.sources.file_report import rows_in_words

    grown = [finding for report in reports for finding in report.red if finding.check == "quarantine"]
    if grown:
        reasons: Counter[str] = Counter()
        for finding in grown:
            reasons.update(finding.facts.get("by reason") or {})
        rows = sum(finding.found or 0 for finding in grown)
        console = output_console(markup=False)  # the reasons may quote delivered text
        console.print(f"Quarantine: {rows_in_words(rows)} more: {reasons_in_words(reasons)}.")
        console.print(as_typed(f"  to do: {grown[0].to_do}"))
    if not all(report.is_sound for report in reports):
        raise typer.Exit(1)


def record_held_bars(settings: Settings, rectangle: Rectangle) -> int:
    """Mark in Dagster what the lake holds of `rectangle`; return the number of partitions that Dagster did not know."""
    from stock_lakehouse.runs.run import record_rectangle
    from stock_lakehouse.tables import LAYERS

    with engine(settings, *(table.name for table in LAYERS)) as spark:
        counts = record_rectangle(settings, rectangle, spark)
    for table, count in counts.items():
        if count:
            say(f"{table}: {count:,} partitions that the lake holds marked as materialized")
    return sum(counts.values())


def print_tables(tables: list[TableStatus], report: RunReport | None = None) -> None:
    """Print a row per table: with its seconds in the run `report`, or without one with missing sessions and version."""
    names = ("rows", "tickers", "first", "last", "size", *(("s",) if report else ("missing", "files", "version")))
    rows = []
    for table in tables:
        figures = [
            f"{table.rows:,}",
            str(len(table.tickers)),
            as_text(table.first),
            as_text(table.last),
            size(table.bytes),
        ]
        if report:
            figures += [f"{report.seconds.get(table.table, 0):.1f}"]
        else:
            figures += [f"{table.missing:,}", f"{table.files:,}", as_text(table.version)]
        rows.append([table.table, *figures])
    print_table(("table", *names), rows)
