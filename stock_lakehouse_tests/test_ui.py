"""The UI in a real browser: launch a backfill of a rectangle, then one of what is missing, and see every partition green."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from stock_lakehouse import tables
from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
from stock_lakehouse.instance.home import ensure_dagster_home
from stock_lakehouse_tests.live import LiveDagster, live_dagster
from stock_lakehouse_tests.test_doors import assert_as_in_one_run, project_of, whole

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# As root Chromium has no sandbox; without a network its own look-ups only fail.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
PATIENCE_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium; the test that asks for it skips, and says so, where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page


def launch(
    page: Page,
    dagster: LiveDagster,
    sessions: str,
    tickers: tuple[str, ...],
    pictures: Path,
    only_missing: bool = False,
) -> None:
    """Fill in and launch what the job's page offers as "Materialize all…"; no tickers: all of them."""
    page.goto(f"{dagster.url}/locations/stock_lakehouse/jobs/{LAKEHOUSE_JOB}")
    page.get_by_role("button", name="Materialize all").first.click()
    dialog = page.locator("[role=dialog]").filter(has_text="Partition selection")
    dates = dialog.get_by_placeholder("ex:")
    dates.fill(sessions)
    dates.press("Enter")
    if tickers:
        dialog.get_by_text("Select a partition or create one").click()
        for ticker in tickers:
            page.get_by_role("menuitem", name=ticker).click()
        page.keyboard.press("Escape")
    else:
        dialog.get_by_role("button", name="All", exact=True).last.click()
    if only_missing:
        dialog.get_by_text("Backfill only failed and missing partitions within selection").click()
    page.screenshot(path=pictures / f"dialog-{len(tickers)}.png")
    dialog.get_by_role("button", name="Launch backfill").click()
    dialog.wait_for(state="hidden")


def wait_for_backfills(dagster: LiveDagster, count: int) -> None:
    """Wait until `count` backfills are there and they and their runs have ended."""
    found = dagster.ask("{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }")
    backfills = [one["id"] for one in found["partitionBackfillsOrError"]["results"]]
    assert len(backfills) == count
    runs = dagster.wait(backfills, seconds=900)
    assert runs
    assert {run["status"] for run in runs} == {"SUCCESS"}


def states(page: Page, dagster: LiveDagster, asset: str, pictures: Path) -> dict[str, int]:
    """How many partitions of the asset its page shows in each state."""
    page.goto(f"{dagster.url}/assets/{asset}?view=partitions")
    page.get_by_text(re.compile(r"Materialized \([1-9]")).wait_for()
    page.screenshot(path=pictures / f"{asset}.png")
    shown = page.locator("body").inner_text()
    return {
        name: int(count) for name, count in re.findall(r"(Failed|Materialized|Materializing|Missing) \((\d+)\)", shown)
    }


@pytest.mark.soak
def test_a_rectangle_and_then_what_is_missing_launched_in_the_browser_end_green(page: Page, tmp_path: Path) -> None:
    settings = project_of(tmp_path, ("AAPL", "AMZN", "NVDA"), date(2023, 9, 11))
    home = ensure_dagster_home(settings)
    bars = len(whole(settings).sessions) * 3
    layers = [table.name for table in tables.LAYERS]
    with live_dagster(tmp_path, home) as dagster:
        launch(page, dagster, "[2023-09-14...2023-09-19]", ("AAPL", "AMZN"), tmp_path)
        wait_for_backfills(dagster, 1)
        for name in layers:
            rectangle = {"Failed": 0, "Materialized": 8, "Materializing": 0, "Missing": bars - 8}
            assert states(page, dagster, name, tmp_path) == rectangle
        launch(page, dagster, "[2023-09-11...2023-09-21]", (), tmp_path, only_missing=True)
        wait_for_backfills(dagster, 2)
        for name in layers:
            green = {"Failed": 0, "Materialized": bars, "Materializing": 0, "Missing": 0}
            assert states(page, dagster, name, tmp_path) == green
    assert_as_in_one_run(settings, home)
