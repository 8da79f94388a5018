"""The command that serves the dashboard on this machine: dashboard."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from stock_lakehouse.cli.context import settings_of_process
from stock_lakehouse.cli.interrupt import ctrl_c
from stock_lakehouse.cli.printing import aside, fail, say
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

    from stock_lakehouse.dashboards.view import Views
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.warehouse.load import Warehouse

DEFAULT_PORT = 8000
BACKLOG = 128
END_SECONDS = 0.5  # for the answers that are under way when Ctrl-C is pressed


@app.command()
def dashboard(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port; default: that of the setting dashboard_url.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Serve the charts of the lake on this machine, until Ctrl-C; nothing is written but the serving copy."""
    from stock_lakehouse.clock import ClockError, clock_of
    from stock_lakehouse.dashboards.page_files import MissingScriptError
    from stock_lakehouse.dashboards.reports import Reports
    from stock_lakehouse.dashboards.server import HOST, application
    from stock_lakehouse.dashboards.view import SHOWN, Views
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.storage import StorageError

    settings = settings_of_process()
    if settings.dashboard == "off":
        fail('dashboard: is "off" in the settings; set it to "local"')
    url = urlsplit(settings.dashboard_url)
    lake = Lake(settings.lake_options)
    try:
        clock = clock_of(settings.simulated_clock)
        clock()
        lake.check(*SHOWN)
        views = Views(lake, settings.serving_cache, clock, aside, _warehouse(settings, lake))
        served = application(views, Reports(lake), url.hostname)
    except (ClockError, StorageError, MissingScriptError) as error:
        fail(str(error))
    number = port or url.port or DEFAULT_PORT
    bound = _bound(HOST, number)
    address = f"http://{HOST}:{number}"
    say(f"Dashboard on {address}: {_what_there_is(views)}; stop it with Ctrl-C")
    if open_:
        typer.launch(address)
    ctrl_c.exit_code, ctrl_c.grace = 0, END_SECONDS
    server = _server(served)
    server.run(sockets=[bound])


def _warehouse(settings: Settings, lake: Lake) -> Warehouse | None:
    """The warehouse that the settings name; nothing is contacted."""
    if settings.warehouse == "off":
        return None
    from stock_lakehouse.warehouse.load import warehouse_of

    return warehouse_of(lake, settings.redshift, settings.aws.glue_database)


def _bound(host: str, port: int) -> socket.socket:
    """A socket on the port. Exits with a line if it is taken, or may not be used."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed a moment ago is free
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        fail(f"dashboard: {host}:{port} {why}; `stock-lakehouse dashboard --port {port % 65535 + 1}` uses another")
    return bound


def _what_there_is(views: Views) -> str:
    from stock_lakehouse.dashboards.view import View
    from stock_lakehouse.tables import CURATED

    view = View(views.lake, views.serving)
    last = view.spans[CURATED.name].last
    return "the lake has no bars yet" if last is None else f"{len(view.ticker_years)} tickers, to {last}"


def _server(served: Starlette) -> uvicorn.Server:
    import uvicorn

    # A browser keeps its connections open, so a graceful shutdown would wait for it. uvloop, if it is installed, would take the
    # signals from `ctrl_c`.
    config = uvicorn.Config(
        served,
        loop="asyncio",
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=0,
        server_header=False,
    )
    return uvicorn.Server(config)
