"""The pages Compare, Signals and Data in a browser: values against polars on read_table, sorting, filter, keys and states."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, Locator

from stock_lakehouse.dashboards import compare as compare_room
from stock_lakehouse.dashboards.signals import DRAWN
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse_tests.dashboards.serving import served
from stock_lakehouse_tests.dashboards.test_compare import bars_of, expected_figures
from stock_lakehouse_tests.dashboards.test_page import CONTRAST, Shown
from stock_lakehouse_tests.dashboards.varied_lake import (
    CORRECTED,
    DIVIDEND,
    EARLY_END,
    HOSTILE,
    LATE_START,
    MISSING,
    REFUSED,
    SESSIONS,
    SPLIT,
    TICKERS,
    Varied,
    corrected,
    delivered,
)
from stock_lakehouse_tests.dashboards.written_lake import SESSIONS as WRITTEN_SESSIONS
from stock_lakehouse_tests.dashboards.written_lake import lake_at, write, written_lake
from stock_lakehouse_tests.test_ui import chromium

UNKNOWN = "\N{EN DASH}"
BARS = len(delivered()) - 1  # one was refused


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def url(varied: Varied) -> Iterator[str]:
    with served(varied.lake) as address:
        yield address


@pytest.fixture
def show(browser: Browser, url: str) -> Iterator[Any]:
    """Opens a path of the dashboard; at the test's end nothing has gone wrong in any of them."""
    opened: list[Shown] = []

    def show(path: str, *size: int, **options: Any) -> Shown:
        opened.append(Shown(browser, url, path, *size, **options))
        return opened[-1]

    yield show
    for shown in opened:
        assert not shown.problems
        shown.close()


def exact(within: Locator, column: str) -> Any:
    """The value of a column as its attribute has it: a number, a text, or None."""
    text = within.locator(f"[data-value={column}]").get_attribute("data-exact")
    try:
        return float(text or "")
    except ValueError:
        return text or None


def lines_of(shown: Shown, table: str) -> list[list[str]]:
    """The texts of the cells of a table's rows."""
    rows: list[list[str]] = shown.page.locator(f"{table} tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    return rows


def tickers_of(shown: Shown, table: str = "#signals_table") -> list[str]:
    return [cells[0].strip() for cells in lines_of(shown, table)]


def newest_of(varied: Varied, as_of: Any = None) -> dict[str, dict[str, Any]]:
    """The newest bar with its features of each ticker."""
    rows = pl.DataFrame(read_table("bars_with_features", as_of=as_of, lake_root=varied.root)).sort("ticker", "date")
    return {row["ticker"]: row for row in rows.group_by("ticker", maintain_order=True).last().to_dicts()}


# ---- Compare

FIGURES = "[data-page=compare] .sortable"
LEGEND = "[data-page=compare] .lines"


def legend_of(shown: Shown) -> tuple[str, dict[str, float | None]]:
    """The session of the legend and the value of each ticker, in the order in which they stand."""
    date, *values = shown.page.locator(f"{LEGEND} li").evaluate_all(
        "rows => rows.map((row) => [row.dataset.ticker, row.querySelector('[data-value]').dataset.exact])"
    )
    return date[1], {ticker: float(text) if text else None for ticker, text in values}


@pytest.mark.parametrize("tickers", [("AAA", "BBB"), ("BBB", "AAA", "CCC")])
def test_the_legend_has_the_exact_values_of_each_session_sorted_by_value(
    show: Any, varied: Varied, tickers: tuple[str, ...]
) -> None:
    shown = show(f"/compare?tickers={','.join(tickers)}&range=All")
    wanted = {
        str(row["date"]): {ticker: row[ticker] for ticker in tickers}
        for row in bars_of(varied.root, tickers).to_dicts()
    }
    first = wanted[min(wanted)]
    seen = []
    shown.page.keyboard.press("Home")
    while not seen or seen[-1] < "2021-06-30":
        day, values = legend_of(shown)
        for ticker in tickers:
            price = wanted[day][ticker]
            assert values[ticker] == (None if price is None else price / first[ticker] * 100), (day, ticker)
        known = [value for value in values.values() if value is not None]
        assert known == sorted(known, reverse=True)
        seen.append(day)
        shown.page.keyboard.press("Shift+ArrowRight")
    assert seen[0] == min(wanted)
    assert len(seen) >= 13  # a session of each month
    shown.page.keyboard.press("ArrowLeft")
    assert legend_of(shown)[0] == SESSIONS[-2].isoformat()


def test_the_legend_follows_the_mouse(show: Any) -> None:
    shown = show("/compare?tickers=AAA,BBB&range=All")
    box = shown.page.locator("[data-page=compare] .drawing").bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    shown.until(f"document.querySelector('{LEGEND} [data-value=date]').dataset.exact < '2020-06-01'")
    day, _ = legend_of(shown)
    assert day in {session.isoformat() for session in SESSIONS}


def test_the_table_has_the_figures_of_each_ticker(show: Any, varied: Varied) -> None:
    tickers = ("AAA", "BBB", "CCC")
    shown = show(f"/compare?tickers={','.join(tickers)}&range=All")
    wide = bars_of(varied.root, tickers)
    for ticker in tickers:
        row = shown.page.locator(f"{FIGURES} tbody tr", has=shown.page.get_by_role("link", name=ticker))
        wanted = expected_figures(wide.select("date", value=ticker).drop_nulls())
        for name in ("total_return", "annual_return", "volatility", "max_drawdown"):
            assert exact(row, name) == pytest.approx(wanted[name], rel=1e-9), (ticker, name)
        cells = row.locator("td").all_inner_texts()
        assert cells[5:8] == [wanted[name] or UNKNOWN for name in ("peak", "trough", "recovered")]


def test_tickers_are_added_and_removed_and_the_address_has_them(show: Any) -> None:
    shown = show("/compare?tickers=AAA&range=All")
    assert shown.page.get_by_role("button", name="Remove AAA").count() == 0  # one stays
    shown.page.get_by_label("Tickers to add").fill("bbb ccc")
    shown.page.keyboard.press("Enter")
    shown.until("document.querySelectorAll('.chips li').length === 3")
    shown.settle()
    assert shown.address() == "/compare?range=All&tickers=AAA,BBB,CCC"
    assert shown.text("[data-page=compare] p.said:not(.warned)") == (
        f"Total return, 100 on {LATE_START}, the first session of CCC in this range."
    )
    shown.page.get_by_role("button", name="Remove BBB").click()
    shown.until("document.querySelectorAll('.chips li').length === 2")
    assert shown.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Tickers to add"
    shown.page.go_back()
    shown.until("document.querySelectorAll('.chips li').length === 3")
    shown.settle()
    assert tickers_of(shown, FIGURES) == ["AAA", "BBB", "CCC"]
    shown.page.get_by_role("button", name="All", exact=True).last.click()
    shown.until("document.querySelectorAll('.chips li').length === 5")


def test_other_price_bases_ended_and_unknown_tickers_and_no_common_session_are_said(show: Any) -> None:
    shown = show("/compare?tickers=AAA,CCC&range=6M")
    assert shown.text(".warned") == (
        "These returns do not compare: AAA with dividends as delivered; CCC without dividends."
    )
    shown = show("/compare?tickers=AAA,DDD,NONE&range=6M")
    said = shown.text("[data-page=compare] p.said:not(.warned)")
    assert f"DDD has no session in this range; its sessions are {SESSIONS[0]} to {EARLY_END}." in said
    assert "The lake has no bars of NONE." in said
    assert shown.page.locator(".warned").is_hidden()
    assert tickers_of(shown, FIGURES) == ["AAA"]
    shown = show("/compare?tickers=CCC,DDD&range=All")
    assert (
        f"No session is common to all: DDD ends on {EARLY_END}, CCC begins on {LATE_START}. Remove one of them."
        in shown.text("[data-page=compare] p.said:not(.warned)")
    )
    assert shown.page.locator("[data-page=compare] .drawing").is_hidden()
    shown.page.get_by_role("button", name="Remove DDD").click()
    shown.until("!document.querySelector('[data-page=compare] .drawing').hidden")


def test_a_ticker_of_two_sessions_has_a_return_and_no_deviation(show: Any, varied: Varied) -> None:
    shown = show("/compare?tickers=EEE&range=All")
    first, last = read_table("curated_stocks_daily", tickers="EEE", lake_root=varied.root)["adj_close"].to_pylist()
    row = shown.page.locator(f"{FIGURES} tbody tr")
    assert exact(row, "total_return") == pytest.approx(last / first - 1, rel=1e-12)
    assert (exact(row, "volatility"), exact(row, "annual_return")) == (None, None)
    assert legend_of(shown) == (SESSIONS[-1].isoformat(), {"EEE": last / first * 100})


def test_the_scale_is_logarithmic_by_button_and_key_and_the_address_says_so(show: Any) -> None:
    shown = show("/compare?tickers=AAA,BBB&range=All&log=1")
    log = shown.page.get_by_role("button", name="Log", exact=True).last
    assert log.get_attribute("aria-pressed") == "true"
    shown.page.keyboard.press("l")
    assert (log.get_attribute("aria-pressed"), shown.address()) == ("false", "/compare?range=All&tickers=AAA,BBB")
    log.click()
    assert shown.address() == "/compare?range=All&tickers=AAA,BBB&log=1"


def test_the_range_decides_the_first_session(show: Any) -> None:
    shown = show("/compare?tickers=AAA,BBB")
    assert shown.text("[data-page=compare] p.said:not(.warned)") == "Total return, 100 on 2020-06-30."
    shown.page.get_by_role("button", name="3M", exact=True).click()
    shown.settle()
    assert shown.text("[data-page=compare] p.said:not(.warned)") == "Total return, 100 on 2021-03-30."
    assert lines_of(shown, FIGURES)[0][2] == UNKNOWN  # of a quarter no annualised return


def test_of_many_points_one_a_week_is_drawn(show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_room, "MOST_POINTS", 600)
    # Of a range of its own, as the browser keeps what it was answered before.
    shown = show("/compare?tickers=BBB,AAA&range=2Y")
    assert "One point a week; the figures are of all sessions." in shown.text("[data-page=compare] p.said:not(.warned)")
    shown.page.keyboard.press("ArrowLeft")
    assert legend_of(shown)[0] == "2021-06-25"  # the Friday before 2021-06-30


PALETTES = re.findall(
    r"--series_\d: (#[0-9a-f]{6})", (files("stock_lakehouse.dashboards") / "page/pages.css").read_text()
)
PAPERS = {"light": "#ffffff", "dark": "#0f172a"}
# How colours are seen without one kind of cones: Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), severity 1, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colors: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    parts = np.array([[int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)] for color in colors])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_eight_colours_differ_for_every_sight_and_are_seen_on_the_paper(theme: str) -> None:
    assert len(PALETTES) == 16
    colors = PALETTES[:8] if theme == "light" else PALETTES[8:]
    light = linear([PAPERS[theme], *colors]) @ TO_XYZ[1]
    contrasts = (np.maximum(light[0], light[1:]) + 0.05) / (np.minimum(light[0], light[1:]) + 0.05)
    assert contrasts.min() >= 3  # WCAG 2.2, 1.4.11: graphics
    for sight, matrix in SIGHTS.items():
        xyz = np.clip(linear(colors) @ matrix.T, 0, 1) @ TO_XYZ.T / [0.95047, 1, 1.08883]
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
        lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 999 * np.eye(8)
        assert distances.min() >= 15, sight  # CIE 1976; 2.3 is just noticeable


# ---- Signals

NUMBERS = ("close", "return_1d", "rsi_14", "macd_hist", "volatility_20")


def test_each_ticker_has_the_exact_values_of_its_newest_session(show: Any, varied: Varied) -> None:
    shown, wanted = show("/signals"), newest_of(varied)
    assert tickers_of(shown) == [*TICKERS]
    for ticker in TICKERS:
        row = shown.page.locator("#signals_table tbody tr", has=shown.page.get_by_role("link", name=ticker))
        assert {name: exact(row, name) for name in NUMBERS} == {name: wanted[ticker][name] for name in NUMBERS}
        assert exact(row, "date") == wanted[ticker]["date"].isoformat()
    zones = shown.page.locator("#signals_table .zone")
    assert zones.all_inner_texts() == ["overbought ▲", "oversold ▼"]  # BBB and DDD: a word and a sign
    assert [wanted[ticker]["rsi_14"] for ticker in ("BBB", "DDD")] == [
        pytest.approx(85, abs=15), pytest.approx(15, abs=15)
    ]  # fmt: skip
    assert shown.text("#signals_table tr:nth-child(4) td:last-child") == f"{EARLY_END} older"


def test_the_small_picture_says_what_it_shows_and_has_a_point_a_session(show: Any, varied: Varied) -> None:
    shown = show("/signals")
    closes = pl.DataFrame(read_table("curated_stocks_daily", tickers="BBB", lake_root=varied.root))["close"].to_list()
    picture = shown.page.get_by_role("img").nth(1)
    low, high = (f"{value:,.2f}" for value in (min(closes[-DRAWN:]), max(closes[-DRAWN:])))
    assert picture.get_attribute("aria-label") == f"60 closes between {low} and {high}"
    heights = [
        float(point.split(",")[1]) for point in (picture.locator("polyline").get_attribute("points") or "").split(" ")
    ]
    assert len(heights) == DRAWN
    # Up is less. The order of the points is that of the closes, as far as a hundredth of the height tells them apart.
    span = max(closes[-DRAWN:]) - min(closes[-DRAWN:])
    for (one, other), (before, after) in zip(pairwise(heights), pairwise(closes[-DRAWN:]), strict=True):
        if abs(after - before) > 0.011 * span:
            assert (other < one) == (after > before)


def test_the_list_has_the_signals_and_crosses_of_the_last_sessions(show: Any, varied: Varied) -> None:
    shown = show("/signals")
    columns = ("golden_cross", "death_cross", "buy_signal", "sell_signal")
    rows = pl.DataFrame(read_table("stocks_features", first=SESSIONS[-20], lake_root=varied.root)).sort(
        "ticker", "date"
    )
    wanted: dict[str, dict[str, set[str]]] = {}
    for row in rows.with_columns(next=pl.struct(columns).shift(-1).over("ticker")).to_dicts():
        for column in columns:
            if row[column] and not (row["next"] and row["next"][column]):  # the last of a run
                wanted.setdefault(row["date"].isoformat(), {}).setdefault(column, set()).add(row["ticker"])
    assert wanted
    found = {
        day: {column: {*names.split()} for column, names in zip(columns, cells, strict=True) if names.strip()}
        for day, _, *cells in lines_of(shown, "#events")
    }
    assert found == wanted
    assert [day for day, *_ in lines_of(shown, "#events")] == sorted(wanted, reverse=True)
    tradable = {row["date"].isoformat(): row["tradable_from"].isoformat() for row in rows.to_dicts()}
    assert {day: after for day, after, *_ in lines_of(shown, "#events")} == {day: tradable[day] for day in wanted}
    heads = shown.page.locator("#events th").all_inner_texts()
    assert heads[2:] == ["▲ Golden cross", "▼ Death cross", "▲ Buy signal", "▼ Sell signal"]


@pytest.mark.parametrize(
    ("heading", "name"),
    [("Close", "close"), ("Change", "return_1d"), ("RSI 14", "rsi_14"), ("MACD hist.", "macd_hist"),
     ("Volatility 20", "volatility_20")],
)  # fmt: skip
def test_a_press_on_a_heading_sorts_by_it_and_a_second_one_the_other_way(
    show: Any, varied: Varied, heading: str, name: str
) -> None:
    shown, values = show("/signals"), {ticker: row[name] for ticker, row in newest_of(varied).items()}
    press = shown.page.get_by_role("button", name=heading)
    unknown = [ticker for ticker in TICKERS if values[ticker] is None]
    known = sorted((ticker for ticker in TICKERS if values[ticker] is not None), key=lambda ticker: values[ticker])
    press.click()
    assert tickers_of(shown) == [*reversed(known), *unknown]
    head = shown.page.locator("#signals_table th", has=press)
    assert (head.get_attribute("aria-sort"), shown.address()) == ("descending", f"/signals?sort=-{name}")
    shown.page.keyboard.press("Enter")  # the heading has the focus
    assert tickers_of(shown) == [*known, *unknown]
    assert (head.get_attribute("aria-sort"), shown.address()) == ("ascending", f"/signals?sort={name}")
    assert shown.page.locator("#signals_table [aria-sort]").count() == 1
    shown.page.reload()
    shown.settle()
    assert tickers_of(shown) == [*known, *unknown]


@pytest.mark.soak
def test_every_heading_of_both_tables_sorts(show: Any) -> None:
    for path, table in (("/signals", "#signals_table"), ("/compare?tickers=AAA,BBB,CCC&range=All", FIGURES)):
        shown = show(path)
        heads = shown.page.locator(f"{table} th button")
        for place in range(heads.count()):
            heads.nth(place).click()
            first = shown.page.locator(f"{table} th").nth(place).get_attribute("aria-sort")
            one = lines_of(shown, table)
            heads.nth(place).click()
            assert {first, shown.page.locator(f"{table} th").nth(place).get_attribute("aria-sort")} == {
                "ascending", "descending"
            }  # fmt: skip
            other = lines_of(shown, table)
            values = [[cells[place] for cells in rows if cells[place] != UNKNOWN] for rows in (one, other)]
            assert values[0] == values[1][::-1] or len(set(values[0])) < len(values[0])
            assert sorted(one) == sorted(other)


def test_the_filter_takes_the_beginnings_of_words_and_is_in_the_address(show: Any) -> None:
    shown = show("/signals?filter=oversold")
    assert tickers_of(shown) == ["DDD"]
    assert shown.text("[data-page=signals] .bar .name") == "1 of 5 tickers"
    shown.page.keyboard.press("f")
    shown.page.keyboard.type("bb")
    assert tickers_of(shown) == ["BBB"]
    assert shown.address() == "/signals?filter=bb"
    shown.page.keyboard.type("zz")
    assert tickers_of(shown) == []
    assert shown.text("[data-page=signals] .bar .name") == "None of 5 tickers has all words of the filter."
    shown.page.get_by_label("Filter the tickers").fill("")
    assert tickers_of(shown) == [*TICKERS]
    assert shown.text("[data-page=signals] .bar .name") == "5 tickers"


def test_enter_opens_the_ticker_from_the_filter_and_from_a_row(show: Any) -> None:
    shown = show("/signals")
    shown.page.get_by_label("Filter the tickers").fill("ccc")
    shown.page.keyboard.press("Enter")
    shown.settle()
    assert shown.address() == "/ticker/CCC"
    shown.page.go_back()
    shown.until("!document.querySelector('[data-page=signals]').hidden")
    shown.settle()
    assert tickers_of(shown) == ["CCC"]
    shown.page.get_by_label("Filter the tickers").fill("")
    for key in ("Escape", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        shown.page.keyboard.press(key)
    shown.settle()
    assert shown.address() == "/ticker/BBB"


# ---- Data


def test_the_tables_have_their_rows_newest_session_and_version(show: Any, varied: Varied) -> None:
    shown = show("/data")
    shown.until(
        "!document.querySelector('#data_tables').innerText.includes('…')"
    )  # the files of two tables are counted
    rows = {cells[0]: cells for cells in lines_of(shown, "#data_tables")}
    ledger = read_table("restatements", lake_root=varied.root).num_rows
    for table, count, last in (
        ("raw_stocks_daily", BARS + 2, "2021-06-30"),  # the refused row, and the correction
        ("processed_stocks_daily", BARS, "2021-06-30"),
        ("processed_quarantine", 1, REFUSED.isoformat()),
        ("curated_stocks_daily", BARS, "2021-06-30"),
        ("corporate_actions", 2, DIVIDEND.isoformat()),
        ("stocks_features", BARS, "2021-06-30"),
        ("restatements", ledger, UNKNOWN),
    ):
        assert (rows[table][1], rows[table][3]) == (f"{count:,}", last), table
    assert rows["curated_stocks_daily"][4] == str(varied.lake.curated.version())
    assert rows["curated_stocks_daily"][2] == "sessions 4"
    # The settings end with 2021-12-31: 252 sessions that year, and 124 of them until the end of June.
    assert shown.text("#freshness").startswith("⚠ Bars to 2021-06-30: 128 sessions behind the calendar")


def test_the_picture_has_a_cell_for_each_ticker_and_year(show: Any) -> None:
    shown = show("/data")
    cells = shown.page.locator("#coverage td[data-year]").evaluate_all(
        "cells => cells.map((cell) => [cell.parentElement.cells[0].innerText, cell.dataset.year, cell.dataset.held, "
        "cell.dataset.missing, cell.innerText, cell.getAttribute('aria-label')])"
    )
    wanted = {}
    for ticker in TICKERS:
        days = [day for of, day in delivered() if of == ticker and (of, day) != ("BBB", REFUSED)]
        for year in range(min(days).year, max(days).year + 1):
            held = sum(day.year == year for day in days)
            lacking = sum(day.year == year for day in (MISSING if ticker == "AAA" else [REFUSED] * (ticker == "BBB")))
            wanted[ticker, str(year)] = (str(held), str(lacking), str(lacking) if lacking else "")
    assert {(ticker, year): tuple(values) for ticker, year, *values, _ in cells} == wanted
    words = {(ticker, year): label for ticker, year, *_, label in cells}
    assert words["AAA", "2019"] == f"AAA, 2019: {wanted['AAA', '2019'][0]} sessions, 2 missing"
    gaps = {(cells[0], cells[1]): cells[3] for cells in lines_of(shown, "#gaps")}
    assert gaps["AAA", "2019"] == ", ".join(day.isoformat() for day in MISSING[:2])
    assert lines_of(shown, "#ended") == [
        ["DDD", EARLY_END.isoformat(), str(len(SESSIONS) - 1 - SESSIONS.index(EARLY_END))]
    ]


def test_delivered_text_is_shown_as_text_and_never_runs(show: Any) -> None:
    shown = show("/data")
    [row] = lines_of(shown, "#quarantine_newest")
    assert (row[0], row[1]) == ("BBB", "ticker is not the file's; volume is negative")
    assert HOSTILE in row[2]
    assert shown.text("#quarantine_rows") == "Delivered rows that were refused: 1."
    assert shown.page.locator("#quarantine_reasons").inner_text().split("\n") == [
        "ticker is not the file's", "1", "volume is negative", "1"
    ]  # fmt: skip
    assert shown.page.evaluate("typeof hacked") == "undefined"
    assert shown.page.locator("main img, main script").count() == 0


def test_the_ledger_has_old_new_and_cause_and_the_actions_are_newest_first(show: Any) -> None:
    shown = show("/data")
    lines = [cells for cells in lines_of(shown, "#restatements_newest") if cells[8] == "curated_stocks_daily"]
    before, after = delivered()["AAA", CORRECTED], corrected()
    assert {cells[3]: (float(cells[4]), float(cells[5]), cells[6]) for cells in lines} == {
        name: (float(before[name] or "nan"), float(after[name] or "nan"), "vendor edit")
        for name in ("high", "close", "adj_close")
    }
    recent = [cells[:3] for cells in lines_of(shown, "#restatements_recent")]
    assert recent[0] == ["curated_stocks_daily", "vendor edit", "3"]
    assert [cells[:4] for cells in lines_of(shown, "#actions")] == [
        [DIVIDEND.isoformat(), "BBB", "dividend", "0.5"],
        [SPLIT.isoformat(), "BBB", "split", "4 : 1"],
    ]
    assert shown.text("#action_kinds") == "1 dividend, 1 split."


def test_files_that_cannot_be_counted_are_no_reason_to_show_nothing(
    browser: Browser, varied: Varied, tmp_path: Path
) -> None:
    shutil.copytree(varied.root, tmp_path / "lake")
    file = next((tmp_path / "lake" / "raw").rglob("bars_*.csv"))
    file.write_text(file.read_text() + '"one field too few"\n')
    with served(Lake(tmp_path / "lake")) as address:
        shown = Shown(browser, address, "/data")
        shown.until("!document.querySelector('#data_tables').innerText.includes('…')")
        cell = shown.page.locator("#data_tables tbody tr").first.locator("[data-value=rows]")
        assert cell.inner_text() == UNKNOWN
        assert "damaged raw files" in (cell.get_attribute("title") or "")
        assert shown.page.locator("#coverage").is_visible()
        shown.close()


# ---- all three


def test_the_past_is_what_the_lake_said_then(show: Any, varied: Varied) -> None:
    at = varied.between.isoformat().replace("+", "%2B")
    shown = show(f"/signals?as_of={at}")
    then, now = newest_of(varied, varied.between)["AAA"], newest_of(varied)["AAA"]
    assert exact(shown.page.locator("#signals_table tbody tr").first, "rsi_14") == then["rsi_14"] != now["rsi_14"]
    shown = show(f"/data?as_of={at}")
    assert shown.text("#restatement_lines") == "No published value has changed."
    assert "keep no history" in shown.text("#of_the_past")
    shown = show(f"/compare?tickers=AAA&range=All&as_of={at}")
    shown.page.keyboard.press("ArrowLeft")
    shown.page.keyboard.press("ArrowLeft")
    day, values = legend_of(shown)
    assert day == CORRECTED.isoformat()
    prices = read_table("curated_stocks_daily", tickers="AAA", as_of=varied.between, lake_root=varied.root)
    prices_by_day = dict(zip(prices["date"].to_pylist(), prices["adj_close"].to_pylist(), strict=True))
    assert values == {"AAA": prices_by_day[CORRECTED] / prices_by_day[SESSIONS[0]] * 100}


@pytest.mark.slow
def test_data_replaced_while_a_page_is_open_is_told_and_then_shown(browser: Browser, tmp_path: Path) -> None:
    lake = lake_at(written_lake(tmp_path / "lake").root)
    write(lake, WRITTEN_SESSIONS[:-1])
    with served(lake) as address:
        for path, table, column in (
            ("/signals", "#signals_table", "date"),
            ("/compare?tickers=LONG", LEGEND, "date"),
            ("/data", "#data_tables", "last"),
        ):
            write(lake, WRITTEN_SESSIONS[:-1])
            shown = Shown(browser, address, path)
            days = shown.page.locator(f"{table} [data-value={column}]").all_inner_texts()
            newest = max(day[:10] for day in days if day != UNKNOWN)
            assert newest == WRITTEN_SESSIONS[-2].isoformat()
            write(lake, WRITTEN_SESSIONS)
            shown.page.evaluate("look()")
            shown.until("document.querySelector('#stale').innerText.includes('Show it')")
            shown.page.get_by_role("button", name="Show it").click()
            shown.settle()
            days = shown.page.locator(f"{table} [data-value={column}]").all_inner_texts()
            assert max(day[:10] for day in days if day != UNKNOWN) == WRITTEN_SESSIONS[-1].isoformat()
            assert not shown.problems
            shown.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_and_a_phone_needs_no_sideways_scroll(show: Any, scheme: Any) -> None:
    for path in ("/compare?tickers=AAA,CCC,NONE&range=All", "/signals", "/data"):
        shown = show(path, 390, 844, color_scheme=scheme)
        assert shown.page.evaluate("document.documentElement.scrollWidth") == 390
        contrast, text = shown.page.evaluate(CONTRAST)
        assert contrast >= 4.5, text


NAMES = """() => [...document.querySelectorAll('main section:not([hidden]) *')]
  .filter((at) => at.matches('button, input, a, table, svg, [tabindex]') && !at.closest('.canvas') && at.checkVisibility())
  .map((at) => [at.tagName, at.getAttribute('aria-label') || at.textContent.trim() || at.placeholder])"""


def test_controls_tables_and_boxes_that_scroll_have_names_and_are_reached_by_keys(show: Any) -> None:
    for path in ("/compare?tickers=AAA,BBB&range=All", "/signals", "/data"):
        shown = show(path)
        found = shown.page.evaluate(NAMES)
        assert len(found) > 5
        assert all(name for _, name in found), path
        boxes = shown.page.evaluate(
            "() => [...document.querySelectorAll('main section:not([hidden]) *')].filter((box) => box.checkVisibility() "
            "&& box.scrollHeight > box.clientHeight + 1 && getComputedStyle(box).overflowY === 'auto')"
            ".map((box) => box.tabIndex >= 0 || Boolean(box.querySelector('a, button')))"
        )
        assert all(boxes)
