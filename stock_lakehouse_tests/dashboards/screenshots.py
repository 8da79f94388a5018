"""`make screenshots`: the pictures of docs/screenshots, of the demo by the program, Dagster's UI and the dashboard themselves.

Here: what is photographed, and how. Not here: the texts around the pictures. Everything runs on the loopback address and in a
temporary folder, and is stopped and removed at the end. Run ids and times differ from one making to the next; nothing else does.

    python -m stock_lakehouse_tests.dashboards.screenshots [NAME …]
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeoutError
from rich.console import Console
from rich.text import Text

from stock_lakehouse_tests import s3
from stock_lakehouse_tests.redshift_server import environment, redshift_server

REPOSITORY = Path(__file__).parents[2]
PICTURES = REPOSITORY / "docs" / "screenshots"
MOST_BYTES = 250_000
FOLDER = "stocks"  # below the folder of temporary files: its name is in the pictures
START_SECONDS, COMMAND_SECONDS, PATIENCE_MS = 120.0, 600.0, 60_000
WIDE, TALL, LARGE, PHONE = (1440, 900), (1440, 1500), (2600, 1900), (390, 844)
COLORS = (256, 128, 64, 32)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--hide-scrollbars"]
TREE_ENTRIES, TREE_DEPTH, LONGEST_NAME = 2, 4, 64
# The sample on S3, with Glue and Redshift: moto, and the server of the tests' own.
ON_AWS = """\
tickers = ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]
first_date = 2022-01-03
last_date = 2023-09-21
lake_root = "s3://stocks/lake"
catalog = "glue"
warehouse = "redshift"
query_engine = "redshift"
[redshift]
workgroup = "stocks"
"""


@dataclass
class Studio:
    """The demo in a folder, and the browser. What is needed is started when it is first asked for."""

    browser: Browser
    project: Path
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @cached_property
    def demo(self) -> str:
        """What `demo` prints; the lake is there afterwards."""
        shutil.copy(REPOSITORY / "lakehouse.toml", self.project)
        return self.program("demo")

    @cached_property
    def dagster(self) -> str:
        """The address of Dagster's UI over the demo."""
        assert self.demo
        return self._webserver(self.project, self.project / "lakehouse" / ".dagster")

    @cached_property
    def aws(self) -> str:
        """The address of Dagster's UI over the sample with Glue and Redshift."""
        folder = self.project / "aws"
        folder.mkdir()
        (folder / "lakehouse.toml").write_text(ON_AWS)
        endpoint = self.running.enter_context(s3.moto())
        s3.make_bucket(endpoint, "stocks")
        variables = environment(self.running.enter_context(redshift_server(endpoint)))
        self.program("materialize", folder=folder, variables=variables)
        return self._webserver(folder, folder / ".dagster" / "stocks" / "lake", variables)

    @cached_property
    def streamed(self) -> str:
        """The address of Dagster's UI over the demonstration of the stream, whose rest a run of Dagster drains."""
        folder = self.project / "streamed"
        folder.mkdir()
        self.program("stream", "demo", "--source", "files", folder=folder)
        own = folder / "lakehouse" / ".stream_demo"
        home = own / "lake" / ".dagster"
        variables = {"STOCK_LAKEHOUSE_CONFIG": str(own / "lakehouse.toml"), "DAGSTER_HOME": str(home)}
        self.program(
            "stream", "produce", "--tickers", "META,AMZN", "--poison", ".001", folder=folder, variables=variables
        )
        drain = [
            sys.executable,
            "-m",
            "dagster",
            "job",
            "execute",
            "-m",
            "stock_lakehouse.definitions",
            "-j",
            "stream_drain",
        ]
        subprocess.run(drain, cwd=folder, env={**os.environ, **variables}, capture_output=True, check=True)
        return self._webserver(folder, home, variables)

    def _webserver(self, folder: Path, home: Path, variables: Mapping[str, str] | None = None) -> str:
        program, port = Path(sys.executable).with_name("dagster-webserver"), free_port()
        arguments = [str(program), "-w", str(home / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
        return self.running.enter_context(
            served(arguments, folder, port, {"DAGSTER_HOME": str(home), **(variables or {})})
        )

    @cached_property
    def dashboard(self) -> str:
        """The address of the dashboard over the demo."""
        assert self.demo
        port = free_port()
        arguments = [sys.executable, "-m", "stock_lakehouse.cli", "dashboard", "--port", str(port)]
        return self.running.enter_context(served(arguments, self.project, port))

    def program(self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> str:
        """What `stock-lakehouse` prints with `arguments`, as a terminal shows it; it must succeed but for checks."""
        done = subprocess.run(
            [sys.executable, "-m", "stock_lakehouse.cli", *arguments],
            cwd=folder or self.project,
            env={**os.environ, "COLUMNS": "110", "FORCE_COLOR": "1", "TERM": "xterm-256color", **(variables or {})},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"stock-lakehouse {' '.join(arguments)}: {done.stderr[-3000:]}")
        return done.stdout

    def page(
        self, address: str, size: tuple[int, int] = WIDE, ready: str = "body", scheme: str = "light", pause: int = 300
    ) -> Page:
        """A page that is open on `address`, once `ready` is visible and the page stands still."""
        page = self.browser.new_page(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            device_scale_factor=1,  # type: ignore[arg-type]
        )
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        page.locator(ready).first.wait_for()
        if not address.startswith("file:"):
            with contextlib.suppress(PageTimeoutError):  # a page that polls is never idle
                page.wait_for_load_state("networkidle", timeout=5_000)
        page.wait_for_timeout(pause)
        return page

    def terminal(self, command: str, output: str) -> Page:
        """A page that looks as a terminal in which `command` was typed."""
        console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text.from_ansi(output.rstrip("\n")), soft_wrap=True)
        body = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
        page = self.browser.new_page(viewport={"width": 1020, "height": 300}, device_scale_factor=1)
        page.set_content(
            "<style>body{margin:0;background:#0f172a}pre{margin:0;padding:18px 22px;width:max-content;color:#e2e8f0;"
            f"font:14px/1.45 'DejaVu Sans Mono',monospace}}</style>{body}"
        )
        box = page.locator("pre").bounding_box()
        assert box is not None
        page.set_viewport_size({"width": max(int(box["width"]) + 1, 700), "height": int(box["height"]) + 1})
        return page


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(
    arguments: Sequence[str], folder: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a server that is started with `arguments`, and stopped with its processes at the end."""
    address = f"http://127.0.0.1:{port}"
    with (
        (folder / f"server-{port}.log").open("wb") as log,
        subprocess.Popen(
            arguments,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as server,
    ):
        try:
            _wait_for(address, server, Path(log.name))
            yield address
        finally:
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:  # nobody listens yet, or not to the end
            time.sleep(0.3)
    raise SystemExit(f"{address} did not start: {log.read_text()[-3000:]}")


# ---- what is photographed


def lake(studio: Studio) -> Page:
    """The folders of the lake, some entries of each."""
    assert studio.demo
    return studio.terminal("tree lakehouse", "\n".join(tree(studio.project / "lakehouse")))


def sql(studio: Studio) -> Page:
    """A question in SQL."""
    question = (
        "SELECT ticker, count(*) AS sessions, round(avg(return_1d) * 252, 3) AS yearly, max(volatility_20) AS wildest "
        "FROM stocks_features WHERE date >= DATE '2020-01-01' GROUP BY ticker ORDER BY yearly DESC"
    )
    assert studio.demo
    asked = question.replace(" FROM", "\n  FROM").replace(" WHERE", "\n  WHERE").replace(" GROUP", "\n  GROUP")
    return studio.terminal(f'stock-lakehouse query "{asked}"', studio.program("query", question))


def graph(studio: Studio) -> Page:
    """All assets, from the source to the warehouse and the reports. The UI fits the graph into a window that is large enough."""
    page = studio.page(f"{studio.aws}/locations/stock_lakehouse/asset-groups/lake", LARGE, "svg foreignObject")
    page.wait_for_timeout(
        8_000
    )  # the layout is computed in a worker, and the states of the assets come one after the other
    return page


def warehouse(studio: Studio) -> Page:
    """The check that Redshift has the rows of the lake."""
    address = f"{studio.aws}/assets/warehouse_stock_prices?view=checks"
    return studio.page(address, WIDE, "text=warehouse_agrees", pause=2_000)


def partitions(studio: Studio) -> Page:
    page = studio.page(f"{studio.dagster}/assets/curated_stocks_daily?view=partitions", WIDE, "text=/Materialized \\(/")
    page.wait_for_timeout(1_500)
    return page


def checks(studio: Studio) -> Page:
    page = studio.page(f"{studio.dagster}/assets/curated_stocks_daily?view=checks", WIDE, "text=missing_sessions")
    page.wait_for_timeout(1_500)
    return page


def asset(studio: Studio) -> Page:
    """The picture and the rows of features after a run."""
    return studio.page(
        f"{studio.dagster}/assets/stocks_features?view=events", (1500, 1050), "text=preview", pause=1_500
    )


def catalog(studio: Studio) -> Page:
    return studio.page(f"{studio.dagster}/assets/catalog?view=events", WIDE, "text=registered in", pause=1_500)


def minute_bars(studio: Studio) -> Page:
    """What a drain of the stream brought, with its newest bars."""
    return studio.page(
        f"{studio.streamed}/assets/minute_bars?view=events", (1500, 1050), "text=newest bars", pause=1_500
    )


def dashboard_ticker(studio: Studio) -> Page:
    return studio.page(f"{studio.dashboard}/ticker/NVDA", WIDE, "body[data-drawn=NVDA]")


def dashboard_ticker_dark(studio: Studio) -> Page:
    return studio.page(f"{studio.dashboard}/ticker/NVDA", WIDE, "body[data-drawn=NVDA]", "dark")


def dashboard_phone(studio: Studio) -> Page:
    return studio.page(f"{studio.dashboard}/ticker/NVDA?range=6M", PHONE, "body[data-drawn=NVDA]", "dark")


def dashboard_compare(studio: Studio) -> Page:
    address = f"{studio.dashboard}/compare?tickers=AAPL,AMZN,GOOG,META,NFLX,NVDA&range=5Y"
    return studio.page(address, WIDE, "[data-page=compare] canvas", pause=1_000)


def dashboard_signals(studio: Studio) -> Page:
    return studio.page(f"{studio.dashboard}/signals", WIDE, "[data-page=signals] table", pause=800)


def dashboard_data(studio: Studio) -> Page:
    return studio.page(f"{studio.dashboard}/data", WIDE, "[data-page=data] table", pause=800)


def run_report(studio: Studio) -> Page:
    """The report of the demo's first run: a careless delivery."""
    assert studio.demo
    files = sorted((studio.project / "lakehouse" / "reports").iterdir(), key=lambda path: path.stat().st_mtime)
    return studio.page(files[0].as_uri(), TALL, "#run_tiles", pause=800)


def report(studio: Studio) -> Page:
    """The report's first ticker, as docs/dashboards.md shows it."""
    assert studio.demo
    address = f"{(studio.project / 'report.html').as_uri()}#/ticker/NVDA"
    return studio.page(address, WIDE, "body[data-drawn=NVDA]")


SHOTS: dict[str, Callable[[Studio], Page]] = {
    "lake": lake,
    "graph": graph,
    "partitions": partitions,
    "checks": checks,
    "asset": asset,
    "catalog": catalog,
    "minute_bars": minute_bars,
    "sql": sql,
    "warehouse": warehouse,
    "ticker": dashboard_ticker,
    "ticker_dark": dashboard_ticker_dark,
    "phone": dashboard_phone,
    "compare": dashboard_compare,
    "signals": dashboard_signals,
    "data": dashboard_data,
    "run_report": run_report,
    "report": report,
}


def tree(folder: Path, depth: int = TREE_DEPTH, before: str = "") -> Iterator[str]:
    """The entries of a folder as lines, as the program `tree` draws them; of many alike the first ones."""
    if not before:
        yield folder.name
    entries = sorted(
        (path for path in folder.iterdir() if path.name not in (".locks", ".staging")), key=lambda path: path.name
    )
    shown = entries if depth >= TREE_DEPTH - 1 else entries[:TREE_ENTRIES]  # of the lake and of each layer all
    more = len(entries) - len(shown)
    for place, path in enumerate(shown):
        is_last = place == len(shown) - 1 and not more
        name = path.name if len(path.name) <= LONGEST_NAME else f"{path.name[: LONGEST_NAME - 5]}…{path.suffix}"
        yield f"{before}{'└── ' if is_last else '├── '}{name}"
        if path.is_dir() and depth > 1 and path.name not in (".dagster", "_delta_log", "_moving"):
            yield from tree(path, depth - 1, f"{before}{'    ' if is_last else '│   '}")
    if more:
        yield f"{before}└── … {more} more"


def saved(picture: bytes, path: Path) -> int:
    """Write a picture as a PNG with a palette, of as many colours as MOST_BYTES allow; return its bytes."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colors in COLORS:
        content = io.BytesIO()
        image.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
        if len(content.getvalue()) <= MOST_BYTES:
            path.write_bytes(content.getvalue())
            return len(content.getvalue())
    raise SystemExit(f"{path.name}: more than {MOST_BYTES:,} bytes even with {COLORS[-1]} colours; show less")


def main(names: Sequence[str]) -> None:
    if unknown := sorted(set(names) - SHOTS.keys()):
        raise SystemExit(f"no picture {', '.join(unknown)}; there are {', '.join(SHOTS)}")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit("no Chromium here (Debian: apt-get install chromium)")
    project = Path(tempfile.gettempdir()) / FOLDER
    if project.exists():
        raise SystemExit(f"{project} exists; remove it, its name is in the pictures")
    project.mkdir()
    PICTURES.mkdir(exist_ok=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
            studio = Studio(browser, project)
            with studio.running:
                for name in names or SHOTS:
                    page = SHOTS[name](studio)
                    size = saved(page.screenshot(animations="disabled", caret="hide"), PICTURES / f"{name}.png")
                    page.close()
                    sys.stdout.write(f"docs/screenshots/{name}.png  {size:,} bytes\n")
            browser.close()
    finally:
        shutil.rmtree(project)


if __name__ == "__main__":
    main(sys.argv[1:])
