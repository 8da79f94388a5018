"""The command that brings the dashboard on QuickSight to what the lake has: quicksight."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from stock_lakehouse.cli.context import existing_lake, settings_of_process
from stock_lakehouse.cli.printing import fail, print_data, progress_printer, say
from stock_lakehouse.cli.program import app


@app.command()
def quicksight(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Bring the dashboard on Amazon QuickSight to what the lake has; what a run does with dashboard = "quicksight".

    Data source, data sets with their rows in SPICE, dashboard, and who may use them: only what differs is written.

      stock-lakehouse quicksight --dry-run
    """
    from stock_lakehouse.dashboards.quicksight.client import QuickSight
    from stock_lakehouse.dashboards.quicksight.provisioning import provision
    from stock_lakehouse.dashboards.view import View
    from stock_lakehouse.lake.storage import LakeError

    settings = settings_of_process()
    if settings.dashboard != "quicksight":
        fail(f'dashboard: is "{settings.dashboard}" in the settings; set it to "quicksight"')
    view = View(existing_lake(settings))
    try:
        tell = (lambda line: None) if dry_run else progress_printer()  # a run may wait for SPICE
        outcome = provision(settings, view, QuickSight(), dry_run, tell)
    except LakeError as error:
        fail(str(error))
    if as_json:
        print_data(json.dumps(outcome.as_json(), indent=2))
        return
    for step in outcome.steps:
        say(str(step))
    say(f"{outcome.calls} calls, {outcome.writes} of them writes")
    say(outcome.url)
