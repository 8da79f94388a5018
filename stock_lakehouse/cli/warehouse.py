"""The command that brings the warehouse to the lake and compares the two: warehouse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_lakehouse.cli.context import existing_lake, settings_of_process
from stock_lakehouse.cli.printing import fail, progress_printer, say
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.warehouse.agreement import Comparison
    from stock_lakehouse.warehouse.load import LoadOutcome, Warehouse

DRIFTS_SHOWN = 20


@app.command()
def warehouse(
    check: Annotated[bool, typer.Option("--check", help="Compare with the lake, and write nothing.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With --check: compute the checksums of all rows, not only of new ones.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compare all rows, and load the ticker-years that differ again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Bring the native tables on Redshift to what the lake has now, as a run does, and compare them.

    Only ticker-years whose files have changed are loaded; a second call writes nothing. It can be killed and called again.
    Exits with 1 if rows of the warehouse differ from the lake's.
    """
    from stock_lakehouse.lake.delta_table import SchemaEvolutionError
    from stock_lakehouse.lake.lock import TableBusyError
    from stock_lakehouse.lake.publish import PublishError
    from stock_lakehouse.lake.storage import LakeError

    if check and repair:
        fail("--check, --repair: give one of them")
    if full and not check:
        fail("--full: goes with --check; --repair compares all rows by itself")
    settings = settings_of_process()
    if settings.warehouse == "off":
        fail(
            "warehouse: is off, so there are no native tables; set warehouse to redshift, and redshift.workgroup or "
            "redshift.cluster (docs/warehouse.md)"
        )
    existing_lake(settings)
    try:
        outcome, comparisons = _done(settings, check, full, repair)
    except (LakeError, PublishError, SchemaEvolutionError, TableBusyError) as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(_as_json(outcome, comparisons), indent=2))
    else:
        _print(outcome, comparisons)
    if any(comparison.drifts for comparison in comparisons):
        raise typer.Exit(1)


def _done(settings: Settings, check: bool, full: bool, repair: bool) -> tuple[LoadOutcome | None, Sequence[Comparison]]:
    """What a load did, None without one; and the comparison after it."""
    from stock_lakehouse.catalog.glue import register_lake
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.warehouse.load import warehouse_of

    lake, progress = Lake(settings.lake_options), progress_printer()
    found: Warehouse = warehouse_of(lake, settings.redshift, settings.aws.glue_database)
    if check:
        return None, found.compare(full)
    # Spectrum reads the files that Glue names.
    for registered in register_lake(lake, found.catalog, crawled=settings.aws.catalog_by == "crawl"):
        if registered.changed:
            progress(f"Glue: {registered.name} {registered}")
    again = None
    if repair:
        again = {comparison.table.name: comparison.pairs for comparison in found.compare(full=True)}
    outcome = found.load(progress, again)
    comparisons = found.compare()
    if not any(comparison.drifts for comparison in comparisons):
        found.note(comparisons)
    return outcome, comparisons


def _print(outcome: LoadOutcome | None, comparisons: Sequence[Comparison]) -> None:
    from rich.markup import escape

    from stock_lakehouse.warehouse.agreement import TO_DO

    if outcome is not None:
        for table in outcome.tables:
            removed = f", {table.withdrawn:,} removed" if table.withdrawn else ""
            say(f"{table.table.name}: {table.ticker_years:,} ticker-years loaded, {table.rows:,} rows{removed}")
    drifts = [drift for comparison in comparisons for drift in comparison.drifts]
    for drift in drifts[:DRIFTS_SHOWN]:
        say(f"[red]differs[/]: {escape(str(drift))}")
    if len(drifts) > DRIFTS_SHOWN:
        say(f"and {len(drifts) - DRIFTS_SHOWN:,} more; --json has all")
    if drifts:
        say(f"  to do: {escape(TO_DO)}")
        return
    counted, compared = (sum(getattr(found, name) for found in comparisons) for name in ("counted", "compared"))
    versions = ", ".join(f"{found.table.source.name} version {found.version}" for found in comparisons)
    say(f"Equal to the lake: {counted:,} ticker-years counted, {compared:,} compared by checksum; {versions}.")


def _as_json(outcome: LoadOutcome | None, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    tables = []
    for place, comparison in enumerate(comparisons):
        load = None if outcome is None else outcome.tables[place]
        loaded = {} if load is None else {"loaded": load.ticker_years, "removed": load.withdrawn, "rows": load.rows}
        tables.append(
            {
                "table": comparison.table.name,
                "lake_version": comparison.version,
                **loaded,
                "counted": comparison.counted,
                "compared": comparison.compared,
                "drifts": [drift.as_json() for drift in comparison.drifts],
            }
        )
    if outcome is None:
        return {"tables": tables}
    return {
        "tables": tables,
        "defined": outcome.defined,
        "statements": outcome.statements,
        "seconds": round(outcome.seconds, 2),
    }
