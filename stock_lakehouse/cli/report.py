"""The commands that write charts into an HTML file: report, of a run and the lake, and chart, of one ticker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_lakehouse.cli.context import settings_of_process, tickers_in
from stock_lakehouse.cli.printing import aside, fail, say
from stock_lakehouse.cli.program import AsOf, app, complete_ticker
from stock_lakehouse.cli.rows import spelled

if TYPE_CHECKING:
    from stock_lakehouse.dashboards.view import View
    from stock_lakehouse.instance.run_record import RunRecord
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import Settings

FILE = "report.html"
YEARS, YEARS_OF_CHART = 3, 10

OpenIt = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]


@app.command()
def report(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run: its id, or how it begins. Its report goes to reports/ in the lake, to which Dagster's UI links. Left "
            f"out: the newest run and the whole lake, in {FILE}."
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"The file to write; default without a run: {FILE} beside the lake's folder, for a lake on S3 in the working "
            "directory.",
        ),
    ] = None,
    tickers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Tickers to chart, separated by commas; default: all, or `report_tickers` of them with the newest signals.",
        ),
    ] = None,
    years: Annotated[int, typer.Option(min=1, max=100, help="How many years, up to the newest session.")] = YEARS,
    open_: OpenIt = False,
) -> None:
    """Write one HTML file: what a run did and changed, its checks, signals, charts, and the tables; it needs no network."""
    from stock_lakehouse.instance.run_record import UnknownRunError
    from stock_lakehouse.lake.storage import LakeError

    settings = settings_of_process()
    try:
        asked = None if tickers is None else tickers_in(tickers)
    except ValueError as error:
        fail(str(error))
    try:
        if run is None:
            written = str(write_lake_report(settings, to, asked, years))
        else:
            written = _write_run_report(settings, run, to, asked, years)
    except (LakeError, UnknownRunError) as error:
        fail(str(error))
    say(written)
    if open_:
        _open(written)


@app.command()
def chart(
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.", autocompletion=complete_ticker)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write; default: TICKER.html in the working directory."
        ),
    ] = None,
    years: Annotated[
        int, typer.Option(min=1, max=100, help="How many years, up to the ticker's newest session.")
    ] = YEARS_OF_CHART,
    as_of: AsOf = None,
    open_: OpenIt = False,
) -> None:
    """Write the charts of one ticker into an HTML file: candles, averages, bands, signals, RSI, MACD; it needs no network."""
    from stock_lakehouse.dashboards.answers import charts_of
    from stock_lakehouse.dashboards.report import page_of, write_page
    from stock_lakehouse.dashboards.ticker import unknown_ticker
    from stock_lakehouse.dashboards.view import View
    from stock_lakehouse.lake.reading import moment
    from stock_lakehouse.lake.storage import LakeError

    settings = settings_of_process()
    name = spelled(ticker)
    try:
        view = View(_lake_of(settings), as_of=None if as_of is None else moment(as_of))
        if view.ticker_years and name not in view.ticker_years:
            raise unknown_ticker(view, name)
        written = write_page(page_of(charts_of(view, [name], years)), output or Path(f"{name}.html"))
    except LakeError as error:
        fail(str(error))
    say(str(written))
    if open_:
        _open(str(written))


def write_lake_report(
    settings: Settings, path: Path | None = None, tickers: Sequence[str] | None = None, years: int = YEARS
) -> Path:
    """Write the report of the lake and of the newest run that Dagster recorded; return its path.

    `path`: None for the default. Raises ReportError, StorageError.
    """
    from stock_lakehouse.dashboards.answers import answers_of
    from stock_lakehouse.dashboards.data import counts
    from stock_lakehouse.dashboards.report import page_of, write_page
    from stock_lakehouse.dashboards.run import run as run_answer
    from stock_lakehouse.dashboards.view import View

    view = View(_lake_of(settings))
    found: dict[str, Any] = {**answers_of(view, tickers, years, settings.report_tickers), "counts": counts(view)}
    if (record := _newest_run(settings)) is not None:
        found["run"] = run_answer(view, record, settings.secrets())
    return write_page(page_of(found), path or default_path(settings))


def default_path(settings: Settings) -> Path:
    """The file beside the lake's folder; for a lake on S3 in the working directory."""
    root = settings.lake_root
    return (root.parent if isinstance(root, Path) else Path()) / FILE


def _write_run_report(settings: Settings, run: str, to: Path | None, tickers: Sequence[str] | None, years: int) -> str:
    """Write the report of a run to `to`, or to its place in the lake; return where."""
    from stock_lakehouse.dashboards.answers import answers_of_run
    from stock_lakehouse.dashboards.report import page_of, write_page
    from stock_lakehouse.dashboards.reports import Reports

    record = _recorded(settings, run)
    assert record is not None, "a run that was asked for is there"
    view = _view_after(settings, record)
    page = page_of(answers_of_run(view, record, years, settings.report_tickers, settings.secrets(), tickers))
    return Reports(view.lake).write(record.run_id, page) if to is None else str(write_page(page, to))


def _view_after(settings: Settings, record: RunRecord) -> View:
    """The lake as it was when the run ended; as it is now, if it has not changed since or its versions are no longer kept."""
    from stock_lakehouse.dashboards.view import View
    from stock_lakehouse.lake.history import NoVersionError

    lake = _lake_of(settings)
    now = View(lake)
    if record.ended is None:
        return now
    try:
        then = View(lake, as_of=record.ended)
    except NoVersionError as error:
        aside(f"the report shows the lake as it is now: {error}")
        return now
    return now if then.versions == now.versions else then


def _lake_of(settings: Settings) -> Lake:
    from stock_lakehouse.dashboards.view import SHOWN
    from stock_lakehouse.lake import Lake

    lake = Lake(settings.lake_options)
    lake.check(*SHOWN)
    return lake


def _newest_run(settings: Settings) -> RunRecord | None:
    """The newest run that is recorded; None if there is none, or no instance, or its database does not answer."""
    from stock_lakehouse.instance.database import InstanceError
    from stock_lakehouse.instance.home import dagster_folder

    if not (dagster_folder(settings) / "dagster.yaml").is_file():
        return None
    try:
        return _recorded(settings, None)
    except InstanceError as error:
        aside(f"the report is without the newest run: {error}")
        return None


def _recorded(settings: Settings, run: str | None) -> RunRecord | None:
    """A run, or the newest one, as Dagster recorded it. Raises UnknownRunError, InstanceError."""
    from stock_lakehouse.instance.database import check_database
    from stock_lakehouse.instance.home import dagster_folder, ensure_dagster_home, open_instance
    from stock_lakehouse.instance.run_record import find_run, read_run

    check_database(dagster_folder(settings))
    with open_instance(ensure_dagster_home(settings)) as instance:
        run_id = find_run(instance, run)
        if run_id is None:
            return None
        record = read_run(instance, run_id)
        if all(check.passed or check.description for check in record.checks):
            return record
        return read_run(instance, run_id, _expectations(settings))


def _expectations(settings: Settings) -> dict[tuple[str, str], str]:
    """What the checks of the lake's job expect. Assembling the job takes two seconds."""
    from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
    from stock_lakehouse.definitions import build_definitions
    from stock_lakehouse.instance.run_record import expectations

    return expectations(build_definitions(settings).resolve_job_def(LAKEHOUSE_JOB))


def _open(written: str) -> None:
    typer.launch(Path(written).absolute().as_uri() if "://" not in written else written)
