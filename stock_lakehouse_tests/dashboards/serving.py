"""The dashboard's server in this process, on a free port of the loopback address. Not here: what a test asks of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from stock_lakehouse.dashboards.reports import Reports
from stock_lakehouse.dashboards.server import HOST, application
from stock_lakehouse.dashboards.view import Views
from stock_lakehouse.lake import Lake

STARTED_WITHIN = 20.0


@contextmanager
def served(lake: Lake, reports: Reports | None = None) -> Iterator[str]:
    """The address of a server of the dashboard of `lake`."""
    with running(application(Views(lake), reports)) as url:
        yield url


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    bound = socket.create_server((HOST, 0))
    # Without the limit a browser's open connections would keep the server.
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + STARTED_WITHIN
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://{HOST}:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STARTED_WITHIN)
