"""The dashboard in headless Chromium: first chart, another ticker, 20 years, crosshair, bytes; wall and main-thread time.

Belongs here: the page Ticker on the lake of serving.py, served by the program in its own process. Times are medians, from the
request until the charts are drawn. Main-thread time is what the page itself computes, which other work on the machine does not
lengthen; server time is processor seconds. Not here: whether what is drawn is right (stock_lakehouse_tests/dashboards).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import market, serving
from benchmarks.figures import Figure, print_figures

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page

TIMES = 5
MOVES = 40
STARTED_WITHIN = 120.0
PATIENCE_MS = 120_000
# The time at which a ticker was drawn, by the clock of `performance.now`.
WATCH = """addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
  window.drawnAt = [document.body.dataset.drawn, performance.now()];
}).observe(document.body, { attributes: true, attributeFilter: ['data-drawn'] }));"""
GO = """async ([ticker, range]) => {
  document.body.removeAttribute('data-drawn');
  await new Promise((done) => setTimeout(done, 50));
  const began = performance.now();
  go({ page: 'ticker', ticker, range, at: '' });
  while (document.body.dataset.drawn !== ticker) await new Promise((done) => setTimeout(done, 1));
  return window.drawnAt[1] - began;
}"""
MOVE = """async (moves) => {
  const taken = [];
  for (let move = 0; move < moves; move += 1) {
    const began = performance.now();
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    taken.push(performance.now() - began);
  }
  return taken;
}"""


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The program's dashboard of the lake in `folder`, once its serving copy is there."""
    (folder / "lakehouse.toml").write_text(f'lake_root = "lake"\nlast_date = {market.LAST_SESSION}\n')
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "stock_lakehouse", "dashboard", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + STARTED_WITHIN
            while not _is_ready(f"{url}/api/about"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the dashboard does not start")
                time.sleep(0.1)
            yield url, process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _is_ready(question: str) -> bool:
    try:
        with urllib.request.urlopen(question, timeout=60) as answered:
            return bool(answered.status == 200)
    except OSError:
        return False


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main_thread(session: CDPSession) -> float:
    """Seconds that the page's main thread was busy."""
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def measure_page(browser: Browser, url: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    tickers = iter(market.ticker_names(50))
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    def opened() -> tuple[Page, CDPSession]:
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(WATCH)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        return page, session

    for _ in range(TIMES):
        page, session = opened()
        before = processor_seconds(process)
        page.goto(f"{url}/ticker/{next(tickers)}")
        page.wait_for_selector("body[data-drawn]")
        note("first_chart", page.evaluate("window.drawnAt[1]") / 1000)
        note("first_chart_main_thread", main_thread(session))
        note("first_chart_server", processor_seconds(process) - before)
        sizes = "[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]"
        until = "(entry) => entry.responseEnd <= window.drawnAt[1]"
        note(
            "first_chart_bytes",
            page.evaluate(f"{sizes}.filter({until}).reduce((sum, entry) => sum + entry.transferSize, 0)"),
        )
        page.context.close()
    page, session = opened()
    page.goto(f"{url}/ticker/{next(tickers)}?range=2Y")
    page.wait_for_selector("body[data-whole]")
    for name, years in (("other_ticker_2_years", "2Y"), ("other_ticker_20_years", "All")):
        for _ in range(TIMES):
            ticker = next(tickers)
            before, busy = processor_seconds(process), main_thread(session)
            note(name, page.evaluate(GO, [ticker, years]) / 1000)
            note(f"{name}_main_thread", main_thread(session) - busy)
            note(f"{name}_server", processor_seconds(process) - before)
            page.wait_for_selector(f"body[data-whole={ticker}]")
    busy = main_thread(session)
    moved = page.evaluate(MOVE, MOVES)
    note("crosshair_main_thread", (main_thread(session) - busy) / MOVES)
    found["crosshair"] = [one / 1000 for one in moved]
    return {name: median(values) for name, values in found.items()}


def measure_all(folder: Path, tickers: int, years: int) -> dict[str, Any]:
    from stock_lakehouse_tests.test_ui import chromium

    if not (folder / "lake").exists():
        serving.fill(folder, tickers, years)
    with server(folder) as (url, process), chromium() as browser:
        return measure_page(browser, url, process)


def figures(found: dict[str, Any]) -> list[Figure]:
    return [
        Figure("first chart, empty cache", found["first_chart"], "s", 1.5),
        Figure("first chart, bytes", found["first_chart_bytes"] / 1000, "KB", 300),
        Figure("another ticker, 2 years", found["other_ticker_2_years"], "s", 0.5),
        Figure("another ticker, 20 years", found["other_ticker_20_years"], "s", 1.0),
        Figure("crosshair at 20 years, a move", found["crosshair"] * 1000, "ms", 50),
        *(
            Figure(f"{name.replace('_', ' ')} alone", found[name], "s")
            for name in sorted(found)
            if name.endswith(("_main_thread", "_server"))
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickers", type=int, default=50)
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where the lake is, or is written; default: a temporary folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure_all(arguments.folder or Path(temporary), arguments.tickers, arguments.years)
    if arguments.json:
        print(json.dumps({**found, "figures": [figure.as_json() for figure in figures(found)]}))
    else:
        print_figures(figures(found))


if __name__ == "__main__":
    main()
