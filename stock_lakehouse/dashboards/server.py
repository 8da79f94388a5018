"""The dashboard's server: the page, its answers, and the reports of runs, on the loopback address and for reading only.

Here: routes, and what guards them. Not here: the answers (questions.py), the page (page/), the command (cli/dashboard.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse import __version__
from stock_lakehouse.dashboards.errors import (
    EmptyLakeError,
    TickerUnknownError,
    UnknownQuestionError,
    WrongQuestionError,
)
from stock_lakehouse.dashboards.page_files import INDEX, page_files
from stock_lakehouse.dashboards.questions import BEYOND_VERSIONS, answer, as_of_in
from stock_lakehouse.dashboards.view import PreparingError, Views
from stock_lakehouse.lake.history import NoVersionError
from stock_lakehouse.lake.reading import InvalidDateError
from stock_lakehouse.lake.storage import LakeError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from stock_lakehouse.dashboards.reports import Reports

    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
LOCAL_NAMES = (HOST, "localhost")
SMALLEST_ZIPPED = 1000  # bytes
# A digit of a double is hardly worth the time of a higher level.
ZIP_LEVEL = 4
# The one style element that the chart library makes, for its logo.
LOGO_STYLE = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='"
POLICY = (
    f"default-src 'self'; script-src 'self'; style-src 'self' {LOGO_STYLE}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# A report has its scripts inside, and its own policy allows them by their digests. In the sandbox it has no origin, so that it
# cannot ask this server.
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:"
)
GUARDS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (WrongQuestionError, 400),
    (InvalidDateError, 400),
    (EmptyLakeError, 404),
    (TickerUnknownError, 404),
    (UnknownQuestionError, 404),
    (NoVersionError, 404),
    (PreparingError, 202),  # accepted and under way
    (LakeError, 503),
)


def application(views: Views, reports: Reports | None, host: str | None = None) -> Starlette:
    """The ASGI application.

    - views: of the lake that is shown
    - reports: those of runs, which it serves too; None: none
    - host: the name under which the server is reached besides those of the loopback address, or None
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    texts = page_files()
    # Of the page's files too: another version of the program may give other answers of the same versions.
    program = _digest(__version__, *texts.values())
    kinds = {".css": "text/css", ".js": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}

    def file(request: Request, name: str) -> Response:
        text = texts[name]
        return _tagged(request, _digest(text), text.encode, kinds[Path(name).suffix])

    def page(request: Request) -> Response:
        return file(request, INDEX)

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        return file(request, name) if name in texts else _error(404, f"there is no file {name!r}")

    def api(request: Request) -> Response:
        question = request.path_params["question"] + (f"?{request.url.query}" if request.url.query else "")
        view = views.at(as_of_in(question))
        headers = {"x-lake": view.digest}

        def content() -> bytes:
            return json.dumps(
                answer(view, question), allow_nan=False, separators=(",", ":"), ensure_ascii=False
            ).encode()

        if question.partition("?")[0].partition("/")[0] in BEYOND_VERSIONS:
            answered = content()
            return _tagged(request, hashlib.sha256(answered).hexdigest(), lambda: answered, headers=headers)
        return _tagged(request, _digest(program, view.digest, question), content, headers=headers)

    def report(request: Request) -> Response:
        name = str(request.path_params["name"]).removesuffix(".html")
        content = None if reports is None else reports.read(name)
        if content is None:
            return _error(404, f"There is no report {name!r}; `stock-lakehouse report {name}` writes that of a run.")
        headers = {"content-security-policy": REPORT_POLICY}
        return _tagged(request, hashlib.sha256(content).hexdigest(), lambda: content, "text/html", headers)

    def failed(request: Request, error: Exception) -> Response:
        status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        if status == 500:
            # Its traceback is in the server's log.
            return _error(500, f"The server could not answer ({type(error).__name__}); its terminal says more.")
        text = (
            f"There is nothing to show as of that moment: {error}." if isinstance(error, NoVersionError) else str(error)
        )
        return _error(status, text, isinstance(error, PreparingError), getattr(error, "nearest", ()))

    routes = [
        Route("/api/{question:path}", api, methods=["GET"]),
        Route("/static/{name}", static, methods=["GET"]),
        Route("/reports/{name}", report, methods=["GET"]),
        Route("/", page, methods=["GET"]),
        Route("/{page}", page, methods=["GET"]),
        Route("/{page}/{ticker}", page, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(
                TrustedHostMiddleware, allowed_hosts=[*LOCAL_NAMES, *([host] if host else [])], www_redirect=False
            ),
            Middleware(_Guarded),
            Middleware(GZipMiddleware, minimum_size=SMALLEST_ZIPPED, compresslevel=ZIP_LEVEL),
        ],
        exception_handlers={LakeError: failed, PreparingError: failed, Exception: failed},
    )


class _Guarded:
    """Middleware: every answer has the headers GUARDS, and POLICY unless it has a policy of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in {**GUARDS, "content-security-policy": POLICY}.items()
                        if name.encode() not in given
                    ),
                ]
            await send(message)

        await self.app(scope, receive, guarded)


def _tagged(
    request: Request,
    tag: str,
    content: Callable[[], bytes],
    media_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer with an ETag; 304, and `content` is not called, if the browser has the same."""
    from starlette.responses import Response

    etag = f'W/"{tag}"'
    found = {**(headers or {}), "etag": etag}
    if etag in request.headers.get("if-none-match", "").split(", "):
        return Response(status_code=304, headers=found)
    return Response(content(), media_type=media_type, headers=found)


def _error(status: int, message: str, is_preparing: bool = False, nearest: Any = ()) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": message, "preparing": is_preparing, "nearest": list(nearest)}, status)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
