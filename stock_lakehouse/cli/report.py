"""The command that draws the lake: report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import settings_of_process
from stock_lakehouse.cli.printing import fail, say
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

FILE = "report.html"


@app.command()
def report(
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"The file to write; default: {FILE} beside the lake's folder, for a lake on S3 in the working directory.",
        ),
    ] = None,
    tickers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Tickers to chart, separated by commas; default: all, or `report_tickers` of them with the newest signals.",
        ),
    ] = None,
    years: Annotated[int, typer.Option(min=1, max=100, help="How many years, up to the newest session.")] = 3,
) -> None:
    """Write one HTML file with charts of the tickers, the latest signals and the state of the tables; it needs no network."""
    from stock_lakehouse.dashboards.report import write_report
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import LakeError
    from stock_lakehouse.lake_options import check_tickers

    settings = settings_of_process()
    path = to or default_path(settings)
    try:
        asked = None if tickers is None else check_tickers(tuple(name.strip().upper() for name in tickers.split(",")))
    except ValueError as error:
        fail(f"--tickers: {error}")
    try:
        written = write_report(Lake(settings.lake_options), path, asked, years, settings.report_tickers)
    except LakeError as error:
        fail(str(error))
    say(str(written))


def default_path(settings: Settings) -> Path:
    """The file beside the lake's folder; for a lake on S3 in the working directory."""
    root = settings.lake_root
    return (root.parent if isinstance(root, Path) else Path()) / FILE
