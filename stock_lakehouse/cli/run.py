"""Commands that run the graph (materialize, backfill) and that change Dagster's records (record, prune)."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import (
    asked_rectangle,
    check_instance,
    check_lake_root,
    check_layout,
    data_files,
    engine,
    existing_lake,
    selected,
    settings_of_process,
)
from stock_lakehouse.cli.outcome import end, print_outcome, record_held_bars, run_and_print
from stock_lakehouse.cli.printing import (
    duration,
    fail,
    print_table,
    progress_printer,
    say,
)
from stock_lakehouse.cli.program import Assets, First, Last, Tickers, app

if TYPE_CHECKING:
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.runs.backfill import BackfillPlan
    from stock_lakehouse.runs.run import RunReport
    from stock_lakehouse.settings import Settings


@app.command()
def materialize(
    tickers: Tickers = None,
    first: First = None,
    last: Last = None,
    select: Assets = None,
) -> None:
    """Run the graph for tickers × sessions in one Dagster run, whether the lake holds them or not.

    To load only what is missing, in runs that can be stopped and continued, use `backfill`.
    """
    settings = settings_of_process()
    rectangle = asked_rectangle(settings, tickers, first, last)
    assets = selected(select)
    check_lake_root(settings)
    check_instance(settings)
    before = data_files(settings)
    report = run_and_print(settings, rectangle, assets)
    if data_files(settings) == before:
        say("Nothing changed: the lake holds everything already.")
    end([report])


@app.command()
def backfill(
    tickers: Tickers = None,
    first: First = None,
    last: Last = None,
    select: Assets = None,
    chunk: Annotated[
        int, typer.Option(min=0, metavar="BARS", help="Bars per run; 0: everything in one run.")
    ] = 100_000,
    again: Annotated[bool, typer.Option("--again", help="Also run what the lake holds already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and do nothing.")] = False,
) -> None:
    """Load what the lake lacks of tickers × sessions, one run per chunk, with an estimate of the time left.

    What the lake holds is skipped, so a backfill that was stopped or killed continues when it is started again. Features by
    older formulas count as missing: they alone are computed again. `materialize` runs everything requested in one run.
    """
    from stock_lakehouse.runs.run import check_select

    settings = settings_of_process()
    requested = asked_rectangle(settings, tickers, first, last)
    assets = selected(select)
    check_lake_root(settings)
    check_instance(settings)
    try:
        check_select(settings, assets)
    except ValueError as error:
        fail(str(error))
    load_missing(settings, requested, assets, chunk, again, dry_run)


def load_missing(
    settings: Settings,
    requested: Rectangle,
    assets: list[str] | None,
    chunk: int | None = None,
    again: bool = False,
    dry_run: bool = False,
) -> None:
    """Run a backfill of `requested`, print its runs and progress, and record what the lake holds. Exits as `backfill` does.

    `chunk`: bars per run; 0: everything in one run; None: the default of `plan_backfill`.
    """
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.runs.backfill import CHUNK_BARS, plan_backfill, run_backfill
    from stock_lakehouse.tables import LAYERS

    check_layout(settings)

    chunk_bars = CHUNK_BARS if chunk is None else chunk or sys.maxsize

    def plan(run_again: bool) -> BackfillPlan:
        with engine(settings, *(table.name for table in LAYERS)) as spark:
            try:
                return plan_backfill(Lake(settings.lake_options), spark, requested, assets, chunk_bars, run_again)
            except ValueError as error:
                fail(str(error))

    planned = plan(again)
    _print_plan(planned)
    if dry_run:
        return
    progress = progress_printer()
    reports: list[RunReport] = []
    for step in run_backfill(settings, planned, progress):
        print_outcome(step.report)
        reports.append(step.report)
        rest = f", about {duration(step.seconds_left)} left" if step.number < step.of and step.report.success else ""
        progress(f"run {step.number} of {step.of} ended; {step.done:.0%} done{rest}")
    record_held_bars(settings, requested)
    if not planned.chunks:
        return
    left = plan(False).missing
    if left:
        say(
            f"{left:,} bars are still missing: the source lacks them, or they are in quarantine (`stock-lakehouse status`)."
        )
    else:
        say("The lake holds all of it.")
    if not all(report.success for report in reports):
        say("Some runs failed; when the cause is repaired, start the same backfill again: it continues from here.")
    end(reports)


@app.command()
def record() -> None:
    """Mark partitions as materialized in Dagster that the lake holds and Dagster does not know.

    Use it after a change of `partition_by`, or with a new DAGSTER_HOME. The lake stays as it is, and nothing is computed. A
    repetition marks nothing.
    """
    settings = settings_of_process()
    existing_lake(settings)
    check_instance(settings)
    if not record_held_bars(settings, asked_rectangle(settings, None, None, None)):
        say("Nothing to mark: Dagster knows everything that the lake holds.")


@app.command()
def prune(
    days: Annotated[
        int, typer.Option(min=0, metavar="N", help="Delete runs that ended more than N days ago; 0: all that ended.")
    ],
) -> None:
    """Delete Dagster's records of old runs, with logs and events; the lake stays as it is.

    Everything that the lake holds is then marked as materialized again, so that all partitions stay green.
    """
    from stock_lakehouse.market_calendar import utc_now
    from stock_lakehouse.runs.run import prune_runs

    settings = settings_of_process()
    everything = asked_rectangle(settings, None, None, None)
    check_lake_root(settings)
    check_instance(settings)
    say(f"{prune_runs(settings, utc_now() - timedelta(days=days)):,} runs deleted")
    record_held_bars(settings, everything)


def _print_plan(plan: BackfillPlan) -> None:
    if not plan.chunks:
        say(f"Nothing to do: the lake holds all {plan.asked:,} bars. `--again` runs them anyway.")
        return
    say(f"{plan.missing:,} of {plan.asked:,} bars to do, in {len(plan.chunks)} run(s):")
    rows = []
    for number, chunk in enumerate(plan.chunks, start=1):
        names = chunk.rectangle.tickers
        shown = ", ".join(names) if len(names) <= 6 else f"{len(names)} tickers, {names[0]} to {names[-1]}"
        days = (str(chunk.rectangle.first), str(chunk.rectangle.last))
        rows.append((str(number), f"{chunk.missing:,}", shown, *days, ", ".join(chunk.select or ("all",))))
    print_table(("run", "bars", "tickers", "from", "to", "assets"), rows)
