"""The dashboard in a browser: the values of Ticker against SQL over read_table, keys, address, themes, and each state."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Browser, Page, Route

from stock_lakehouse.dashboards import view
from stock_lakehouse.dashboards.charts import PANES
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse_tests.dashboards.serving import served
from stock_lakehouse_tests.dashboards.written_lake import (
    CORRECTED,
    CROSS,
    DIVIDEND,
    FIRST,
    LAST,
    SESSIONS,
    SIGNALS,
    SPLIT,
    WRONG_CLOSE,
    Written,
    lake_at,
    walk,
    write,
    written_lake,
)
from stock_lakehouse_tests.test_ui import chromium

WAIT_SECONDS = 30.0
UNKNOWN = "\N{EN DASH}"
DRAWN = [column for pane in PANES for series in pane.series for column in series.columns]
BUSY = "document.querySelector('main').hasAttribute('aria-busy')"
# The least contrast of a text of the page with the ground behind it, and the text.
CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const parts = numbers(color).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((numbers(color)[3] ?? 1) > 0) return color;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.matches('script, noscript, option')) continue;
    const [text, behind] = [light(getComputedStyle(element).color), light(ground(element))];
    found.push([(Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05), element.outerHTML.slice(0, 120)]);
  }
  return found.sort((one, other) => one[0] - other[0])[0];
}"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written_lake(tmp_path_factory.mktemp("page") / "lake")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def url(written: Written) -> Iterator[str]:
    with served(lake_at(written.root)) as address:
        yield address


@pytest.fixture
def own(written: Written, tmp_path: Path) -> Lake:
    """A lake of the test's own, which it may change."""
    shutil.copytree(written.root, tmp_path / "lake", ignore=shutil.ignore_patterns("serving"))
    return lake_at(tmp_path / "lake")


class Shown:
    """A page of the browser. `problems`: errors in its console, and requests to another server."""

    def __init__(
        self, browser: Browser, url: str, path: str, width: int = 1440, height: int = 900, **options: Any
    ) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.page.set_default_timeout(WAIT_SECONDS * 1000)
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on(
            "request", lambda asked: asked.url.startswith(url) or self.problems.append(f"request: {asked.url}")
        )
        self.page.goto(f"{url}{path}")
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is shown, or said to be impossible."""
        self.until(f"!({BUSY})")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. Playwright's own wait is forbidden by the page's policy."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(20)

    def whole(self, ticker: str) -> None:
        """Wait until the whole history is drawn, and what was restated is known."""
        self.until(f"document.body.dataset.whole === '{ticker}' && document.body.dataset.drawn === '{ticker}'")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def exact(self, column: str) -> str | None:
        return self.page.locator(f"[data-page=ticker] [data-value={column}]").first.get_attribute("data-exact")

    @property
    def session(self) -> str | None:
        return self.exact("date")

    @property
    def range(self) -> tuple[str | None, str | None]:
        chart = self.page.locator("#chart")
        return chart.get_attribute("data-from"), chart.get_attribute("data-to")

    def address(self) -> str:
        return re.sub(r"^https?://[^/]+", "", self.page.url)

    def close(self) -> None:
        self.page.close()


@pytest.fixture
def long(browser: Browser, url: str) -> Iterator[Shown]:
    """The page of LONG; at the test's end nothing has gone wrong in it."""
    shown = Shown(browser, url, "/ticker/LONG")
    shown.whole("LONG")
    yield shown
    assert not shown.problems
    shown.close()


BETWEEN = "SELECT * FROM bars WHERE date BETWEEN $first AND $last ORDER BY date"
TWENTY = """
    SELECT * FROM (SELECT *, ntile(20) OVER (ORDER BY date) AS part FROM bars)
    QUALIFY row_number() OVER (PARTITION BY part ORDER BY date) = 1 ORDER BY date"""


def rows_of(root: Path, ticker: str, first: Any = FIRST, last: Any = LAST, sql: str = BETWEEN) -> list[dict[str, Any]]:
    """Rows by SQL over what read_table gives."""
    with duckdb.connect() as database:
        database.register("bars", read_table("bars_with_features", tickers=ticker, lake_root=root))
        limits = {"first": first, "last": last} if sql == BETWEEN else {}
        found: list[dict[str, Any]] = database.execute(sql, limits).to_arrow_table().to_pylist()
    return found


def assert_shown(shown: Shown, row: dict[str, Any], columns: list[str]) -> None:
    for column in columns:
        text = shown.exact(column)
        value = row[column]
        if value is None:
            assert text == "", (row["date"], column)
        else:
            assert text is not None
            assert float(text) == value, (row["date"], column)  # the same double, bit for bit


@pytest.mark.parametrize("ticker", ["LONG", "CENT"])
def test_every_pane_shows_the_exact_values_of_20_sessions(
    browser: Browser, url: str, written: Written, ticker: str
) -> None:
    shown = Shown(browser, url, f"/ticker/{ticker}")
    shown.whole(ticker)
    rows = rows_of(written.root, ticker, sql=TWENTY)
    assert len(rows) == 20
    assert any(row[column] is None for row in rows for column in DRAWN)
    for row in rows:
        shown.page.evaluate("(at) => go({ at })", row["date"].isoformat())
        shown.settle()
        assert shown.session == row["date"].isoformat()
        assert_shown(shown, row, [*DRAWN, "return_1d"])
    assert not shown.problems
    shown.close()


def test_prices_as_traded_are_multiplied_and_volumes_divided_by_the_factor(long: Shown, written: Written) -> None:
    long.page.keyboard.press("a")
    long.settle()
    assert "traded=1" in long.address()
    before, after = SESSIONS[SESSIONS.index(SPLIT) - 1], SPLIT
    for session, factor in ((before, 4.0), (after, 1.0)):
        [row] = rows_of(written.root, "LONG", session, session)
        long.page.evaluate("(at) => go({ at })", session.isoformat())
        long.settle()
        for column in ("open", "high", "low", "close", "sma_20", "sma_200", "bb_upper"):
            assert float(long.exact(column) or "nan") == row[column] * factor
        for column in ("volume", "volume_sma_20", "volume_sma_50"):
            assert float(long.exact(column) or "nan") == row[column] / factor
        assert_shown(long, row, ["rsi_14", "macd", "macd_hist"])
        assert f"as traded, × {factor:g}" in long.text("#marks")
    assert long.exact("split_ratio") == "4"  # on the session of the split


def test_marks_are_told_on_their_sessions_and_a_run_of_signals_has_one_letter(long: Shown) -> None:
    def told(session: date) -> str:
        long.page.evaluate("(at) => go({ at })", session.isoformat())
        long.settle()
        return long.text("#marks")

    assert told(SIGNALS[1]).startswith("↑ Buy signal")
    assert f"tradable from {SIGNALS[2].isoformat()}" in told(SIGNALS[1])
    assert told(CROSS).startswith("↑ Golden cross")
    assert told(SPLIT) == "Split 4"
    assert told(DIVIDEND) == "Dividend 0.5"
    assert told(SESSIONS[-20]) == ""
    old, new = repr(WRONG_CLOSE), repr(float(walk("LONG")[SESSIONS.index(CORRECTED)]))
    assert told(CORRECTED) == f"restated 2022-01-04: close {old} → {new} (vendor edit)"
    # What is drawn is known to the marks' plugin alone, so its input is looked at.
    texts = long.page.evaluate("pages.ticker.marks().map(({ text }) => text)")
    assert sorted(texts) == ["", "4:1", "B", "G"]


def test_a_provisional_bar_is_told(browser: Browser, url: str) -> None:
    shown = Shown(browser, url, "/ticker/NEWS")
    shown.until("document.body.dataset.drawn === 'NEWS'")
    assert shown.text("#marks") == "provisional bar"
    shown.page.keyboard.press("ArrowLeft")
    assert shown.text("#marks") == ""
    assert shown.exact("sma_50") == ""
    assert shown.text("[data-value=sma_50]") == UNKNOWN
    shown.close()


def test_keys_move_the_crosshair_zoom_and_open_pages(long: Shown) -> None:
    assert long.session == SESSIONS[-1].isoformat()
    for key, place in (("ArrowLeft", -2), ("Shift+ArrowLeft", -23), ("ArrowRight", -22), ("Home", 0), ("End", -1)):
        long.page.keyboard.press(key)
        assert long.session == SESSIONS[place].isoformat()
    long.page.keyboard.press("ArrowLeft")
    long.until(f"document.querySelector('#live').textContent.startsWith('{SESSIONS[-2]}, close ')")
    long.until(f"location.search.includes('at={SESSIONS[-2]}')")
    first, last = long.range
    long.page.keyboard.press("-")
    long.until(f"document.querySelector('#chart').dataset.from < '{first}'")
    wide = long.range[0]
    long.page.keyboard.press("+")
    long.until(f"document.querySelector('#chart').dataset.from > '{wide}'")
    long.page.keyboard.press("+")
    long.until(f"document.querySelector('#chart').dataset.from > '{first}'")
    assert long.range[1] == last == SESSIONS[-1].isoformat()
    long.page.keyboard.press("/")
    long.page.keyboard.type("gone")
    long.page.keyboard.press("Enter")
    long.until("document.body.dataset.drawn === 'GONE'")
    assert long.address() == "/ticker/GONE"
    long.page.keyboard.press("ArrowLeft")  # the keys are the charts' again
    assert long.session == SESSIONS[598].isoformat()
    long.page.keyboard.press("?")
    assert "the crosshair moves by a session" in long.text("#help")
    assert (
        "TradingView Lightweight Charts™, Copyright © 2026 TradingView, Inc., https://www.tradingview.com/"
        in long.text("#help")
    )
    long.page.keyboard.press("Escape")
    titles = [made.inner_text() for made in long.page.locator("#pages button").all()]
    for number, title in enumerate(titles, start=1):
        long.page.keyboard.press(str(number))
        long.settle()
        assert long.page.locator("#pages [aria-pressed=true]").inner_text() == title
        assert long.page.locator("main > section:visible").get_attribute("aria-label") == title


def test_the_crosshair_follows_the_mouse_and_all_legends_tell_its_session(long: Shown, written: Written) -> None:
    box = long.page.locator("#chart").bounding_box()
    assert box is not None
    for across, down in ((0.3, 0.3), (0.5, 0.95)):  # in the first pane, and in the last
        long.page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
        long.until(f"document.querySelector('[data-value=date]').dataset.exact < '{SESSIONS[-60]}'")
        [row] = rows_of(written.root, "LONG", long.session, long.session)
        assert_shown(long, row, DRAWN)
    long.page.mouse.move(5, 5)
    long.until(f"document.querySelector('[data-value=date]').dataset.exact === '{SESSIONS[-1]}'")


@pytest.mark.parametrize(
    ("button", "first"),
    # By the calendar: so many months before 2021-12-31, or the next session.
    [
        ("3M", "2021-09-30"),
        ("6M", "2021-06-30"),
        ("1Y", "2020-12-31"),
        ("2Y", "2019-12-31"),
        ("5Y", "2017-01-03"),
        ("All", "2015-01-02"),
    ],
)
def test_a_range_shows_the_sessions_since_that_many_months(browser: Browser, url: str, button: str, first: str) -> None:
    shown = Shown(browser, url, "/ticker/LONG?range=6M" if button != "6M" else "/ticker/LONG")
    shown.page.get_by_role("button", name=button, exact=True).click()
    shown.settle()
    shown.until(f"document.querySelector('#chart').dataset.from === '{first}'")
    assert shown.range[1] == "2021-12-31"
    assert not shown.problems
    shown.close()


def test_what_the_reader_has_moved_to_stays_until_a_range_is_chosen_again(long: Shown) -> None:
    long.page.keyboard.press("Shift+ArrowLeft")
    long.until(f"location.search.includes('at={SESSIONS[-22]}')")
    long.page.keyboard.press("+")
    long.until("document.querySelector('#chart').dataset.from > '2021-01-15'")
    zoomed = long.range
    for key in "lta":
        long.page.keyboard.press(key)
        long.settle()
        assert (long.range, long.session) == (zoomed, SESSIONS[-22].isoformat())
    long.page.get_by_role("button", name="1Y", exact=True).click()
    long.settle()
    long.until("document.querySelector('#chart').dataset.from === '2020-12-31'")
    assert long.session == SESSIONS[-1].isoformat()


def test_the_newest_years_are_drawn_first_and_the_rest_comes_without_a_jump(browser: Browser, url: str) -> None:
    page = browser.new_page()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(re.compile(r"/api/bars/LONG\?before="), hold)
    page.goto(f"{url}/ticker/LONG?range=2Y")
    page.wait_for_selector("body[data-drawn=LONG]")
    while not held:
        page.wait_for_timeout(20)
    state = (
        "JSON.stringify([{ ...document.querySelector('#chart').dataset }, "
        "document.querySelector('[data-value=date]').dataset.exact])"
    )
    before = page.evaluate(state)
    assert json.loads(before)[0] == {"from": "2019-12-31", "to": "2021-12-31"}
    held[0].continue_()
    page.wait_for_selector("body[data-whole=LONG]")
    page.wait_for_timeout(100)
    assert page.evaluate(state) == before
    page.keyboard.press("Home")
    assert page.locator("[data-value=date]").inner_text() == "2015-01-02"
    page.close()


def test_the_address_holds_the_state_and_back_and_forward_work(browser: Browser, url: str, written: Written) -> None:
    shown = Shown(browser, url, f"/ticker/LONG?range=2Y&log=1&table=1&as_of={written.second:%Y-%m-%dT%H:%M:%S.%f}")
    assert "The past: what the lake said as of" in shown.text("#past")
    for name, is_pressed in (("Log", "true"), ("Table", "true"), ("As traded", "false"), ("2Y", "true")):
        assert shown.page.get_by_role("button", name=name, exact=True).get_attribute("aria-pressed") == is_pressed
    shown.page.get_by_role("button", name="Back to now").click()
    shown.settle()
    assert shown.address() == "/ticker/LONG?range=2Y&log=1&table=1"
    shown.page.fill("#ticker", "cent")
    shown.page.press("#ticker", "Enter")
    shown.until("document.body.dataset.drawn === 'CENT'")
    assert shown.address() == "/ticker/CENT?range=2Y&log=1&table=1"
    shown.page.get_by_role("button", name="Signals").click()
    shown.settle()
    assert shown.address() == "/signals?range=2Y"
    cent, before = "/ticker/CENT?range=2Y&log=1&table=1", "/ticker/LONG?range=2Y&log=1&table=1"
    for step, address in (("back", cent), ("back", before), ("forward", cent)):
        getattr(shown.page, f"go_{step}")()
        shown.until(f"document.body.dataset.drawn === '{address[8:12]}'")
        shown.settle()
        assert shown.address() == address
        assert shown.text("#name") == address[8:12]
    assert not shown.problems
    shown.close()


def test_the_table_has_the_shown_sessions_newest_first(long: Shown, written: Written) -> None:
    long.page.get_by_role("button", name="3M", exact=True).click()
    long.settle()
    long.page.keyboard.press("t")
    long.settle()
    wanted = rows_of(written.root, "LONG", date(2021, 9, 30))[::-1]
    lines = long.page.locator("#table tbody tr").all()
    assert len(lines) == len(wanted)
    for line, row in [(lines[0], wanted[0]), (lines[-1], wanted[-1])]:
        assert line.locator("td").first.inner_text() == row["date"].isoformat()
        for column in DRAWN:
            assert float(line.locator(f"[data-value={column}]").get_attribute("data-exact") or "nan") == row[column]
    long.page.keyboard.press("t")
    long.settle()
    assert long.page.locator("#table").is_hidden()


def test_the_theme_is_the_systems_until_one_is_chosen_and_is_remembered(browser: Browser, url: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(f"{url}/ticker/LONG")
    paper = "getComputedStyle(document.body).backgroundColor"
    canvas = "[...document.querySelector('#canvas canvas').getContext('2d').getImageData(3, 40, 1, 1).data].join()"
    page.wait_for_selector("body[data-drawn=LONG]")
    assert page.evaluate(paper) == "rgb(15, 23, 42)"
    assert page.evaluate(canvas) == "15,23,42,255"
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-theme=light]")
    page.wait_for_timeout(200)
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.evaluate(canvas) == "255,255,255,255"
    page.get_by_label("Theme: system").click()
    page.get_by_label("Theme: light").click()
    assert page.evaluate(paper) == "rgb(15, 23, 42)"
    again = context.new_page()
    again.emulate_media(color_scheme="light")
    again.goto(f"{url}/signals")
    again.wait_for_selector("[aria-label='Theme: dark']")
    assert again.evaluate(paper) == "rgb(15, 23, 42)"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_a_contrast_of_at_least_four_and_a_half(browser: Browser, url: str, scheme: Any) -> None:
    shown = Shown(browser, url, f"/ticker/LONG?at={SIGNALS[0]}&as_of=2100-01-01", color_scheme=scheme)
    for path in ("/ticker/LONG", "/signals", "/data"):
        shown.page.evaluate("(page) => go({ page })", path.split("/")[1])
        shown.settle()
        contrast, text = shown.page.evaluate(CONTRAST)
        assert contrast >= 4.5, text
    shown.page.evaluate("() => go({ page: 'ticker', ticker: 'LON' })")
    shown.settle()
    shown.page.evaluate("document.querySelector('main').classList.remove('old')")
    contrast, text = shown.page.evaluate(CONTRAST)
    assert contrast >= 4.5, text
    shown.close()


def test_a_phone_has_no_sideways_scroll_on_any_page_and_no_vertical_one_at_the_charts(
    browser: Browser, url: str
) -> None:
    shown = Shown(browser, url, "/ticker/LONG", 390, 844, has_touch=True)
    shown.whole("LONG")
    assert shown.page.evaluate("document.documentElement.scrollHeight") == 844
    for name in shown.page.evaluate("Object.keys(shownPages())"):
        shown.page.evaluate("(page) => go({ page })", name)
        shown.settle()
        assert shown.page.evaluate("document.documentElement.scrollWidth") == 390
    assert not shown.problems
    shown.close()


def test_the_focus_is_seen_and_all_controls_have_names(long: Shown) -> None:
    names: list[str] = []
    long.page.evaluate("document.querySelector('#pages button').focus()")
    while True:
        name, frame, is_last = long.page.evaluate(
            """() => { const at = document.activeElement;
            const frame = at.id === 'chart' ? getComputedStyle(at, '::after').borderTopWidth : getComputedStyle(at).outlineWidth;
            return [at.getAttribute('aria-label') ?? at.textContent, frame, at.id === 'chart']; }"""
        )
        assert name
        assert float(frame.removesuffix("px")) >= 2 or not names, name  # the first has the focus by no key
        names.append(name)
        if is_last:
            break
        long.page.keyboard.press("Tab")
    assert {"Ticker", "Signals", "3M", "All", "Theme: system", "Help: keys", "As traded", "Table"} <= {*names}
    assert names[-1].startswith("Charts; the arrow keys")


# ---- states


def test_an_unknown_ticker_is_named_with_the_nearest_and_the_old_charts_are_greyed(long: Shown) -> None:
    long.page.fill("#ticker", "lon")
    long.page.press("#ticker", "Enter")
    long.until("!document.querySelector('#failure').hidden")
    assert long.text("#failure").startswith("The lake has no bars of LON. Spelled alike:")
    assert long.page.locator("main.old #canvas canvas").first.is_visible()
    assert long.address() == "/ticker/LON"
    long.page.locator("#failure").get_by_role("button", name="LONG").click()
    long.until("document.querySelector('#failure').hidden")
    assert long.address() == "/ticker/LONG"
    assert long.page.locator("main.old").count() == 0


def test_a_ticker_that_ended_and_a_day_without_a_session_are_said(browser: Browser, url: str) -> None:
    shown = Shown(browser, url, "/ticker/GONE")
    assert shown.text("#note") == f"The last session of GONE is {SESSIONS[599]}; the lake has sessions to 2021-12-31."
    shown.page.evaluate("() => go({ ticker: 'LONG', at: '2021-12-25' })")  # Christmas, a Saturday
    shown.settle()
    assert shown.text("#note") == "2021-12-25 is no session of LONG; 2021-12-23 is shown."
    assert shown.session == "2021-12-23"
    assert not shown.problems
    shown.close()


def test_an_empty_lake_says_what_fills_it(browser: Browser, tmp_path: Path) -> None:
    with served(Lake(tmp_path / "none")) as url:
        shown = Shown(browser, url, "/")
        assert "has no bars. `stock-lakehouse materialize` loads what the settings name" in shown.text("#failure")
        assert shown.page.get_by_role("button", name="Try again").is_visible()
        shown.close()


def test_the_past_is_shown_and_a_day_before_the_first_version_is_a_sentence(
    browser: Browser, url: str, written: Written
) -> None:
    shown = Shown(browser, url, f"/ticker/LONG?at={CORRECTED}&as_of={written.first:%Y-%m-%dT%H:%M:%S.%f}")
    shown.whole("LONG")
    assert float(shown.exact("close") or "nan") == WRONG_CLOSE
    assert shown.text("#marks") == ""
    assert "to 2021-12-30" in shown.text("#about")
    assert not shown.problems
    shown.page.fill("#as_of", "2015-06-01")
    shown.until("!document.querySelector('#failure').hidden")
    assert (
        "There is nothing to show as of that moment: curated_stocks_daily: nothing is known of 2015-06-01"
        in shown.text("#failure")
    )
    shown.page.get_by_role("button", name="Back to now").click()
    shown.until("document.querySelector('#failure').hidden")
    assert shown.exact("close") == repr(float(walk("LONG")[SESSIONS.index(CORRECTED)]))
    shown.close()


def test_behind_the_calendar_is_said(browser: Browser, written: Written) -> None:
    options = lake_at(written.root).options.model_copy(update={"last_date": date(2022, 1, 3)})
    with served(Lake(options)) as url:
        shown = Shown(browser, url, "/ticker/LONG")
        assert shown.text("#stale") == "The last session expected is 2022-01-03; the lake has bars to 2021-12-31."
        shown.close()


def test_data_replaced_while_the_page_is_open_is_told_and_then_shown(browser: Browser, own: Lake) -> None:
    write(own, SESSIONS[:-1])
    with served(own) as url:
        shown = Shown(browser, url, "/ticker/LONG?range=3M")
        shown.whole("LONG")
        assert shown.session == SESSIONS[-2].isoformat()
        write(own, SESSIONS)
        shown.page.evaluate("look()")
        shown.until("!document.querySelector('#stale').hidden")
        assert shown.text("#stale span") == f"Shown to {SESSIONS[-2]}, the lake has {SESSIONS[-1]}."
        assert shown.session == SESSIONS[-2].isoformat()
        shown.page.get_by_role("button", name="Show it").click()
        shown.settle()
        assert shown.session == SESSIONS[-1].isoformat()
        write(own, SESSIONS[:-3])  # and the next question finds a change by itself
        shown.page.evaluate("() => go({ ticker: 'NEWS' })")
        shown.settle()
        assert shown.session == SESSIONS[-4].isoformat()
        assert not shown.problems
        shown.close()


def test_indicators_behind_their_bars_are_said_and_the_bar_is_drawn(browser: Browser, own: Lake) -> None:
    import deltalake

    deltalake.DeltaTable(str(own.features.path)).delete(f"date = '{SESSIONS[-1]}'")
    with served(own) as url:
        shown = Shown(browser, url, "/ticker/LONG")
        assert shown.text("#stale") == f"Indicators are shown to {SESSIONS[-2]}, the lake has bars to {SESSIONS[-1]}."
        assert (shown.session, shown.exact("rsi_14")) == (SESSIONS[-1].isoformat(), "")
        assert float(shown.exact("close") or "nan") == walk("LONG")[-1]
        shown.close()


def test_a_question_that_fails_and_a_server_that_is_gone_leave_the_old_chart_and_a_button(
    browser: Browser, own: Lake
) -> None:
    with served(own) as url:
        shown = Shown(browser, url, "/ticker/GONE")
        shown.whole("GONE")
        for path in own.curated.paths():
            if "ticker=LONG" in path:
                (Path(own.root) / path).unlink()
        shutil.rmtree(Path(own.root) / "serving")
        shown.page.evaluate("() => go({ ticker: 'LONG' })")
        shown.until("!document.querySelector('#failure').hidden")
        assert "`stock-lakehouse upkeep` names the damaged files" in shown.text("#failure")
        assert shown.page.locator("main.old #canvas canvas").first.is_visible()
        shown.page.evaluate("() => go({ ticker: 'GONE' })")
        shown.settle()
        assert shown.page.locator("main.old").count() == 0
    shown.page.get_by_role("button", name="2Y", exact=True).click()  # the server is gone
    shown.until("!document.querySelector('#failure').hidden")
    assert shown.text("#failure").startswith("The server does not answer: perhaps it was stopped.")
    assert shown.page.locator("main.old #canvas canvas").first.is_visible()
    shown.page.get_by_role("button", name="Try again").click()
    shown.settle()
    assert shown.page.locator("#failure").is_visible()
    shown.close()


def test_the_first_look_tells_how_far_the_serving_copy_is_and_a_slow_answer_has_a_thin_bar(
    browser: Browser, own: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "WAIT_SECONDS", 0.01)
    prepare = view.View.prepare

    def slowly(self: view.View) -> None:
        self.serving._tell("serving copy of curated_stocks_daily: years to be written: 7, from 2015 on")
        time.sleep(1.5)
        prepare(self)

    monkeypatch.setattr(view.View, "prepare", slowly)
    with served(own) as url:
        page = browser.new_page()
        page.goto(f"{url}/ticker/LONG")
        page.wait_for_selector("#progress:visible")
        assert "years to be written: 7" in page.locator("#progress").inner_text()
        page.wait_for_selector("#busy:visible")
        page.wait_for_selector("body[data-drawn=LONG]")
        assert page.locator("#progress").is_hidden()
        page.wait_for_selector("#busy", state="hidden")
        page.close()
