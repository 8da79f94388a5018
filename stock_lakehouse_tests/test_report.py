"""The chart page of a lake: its values against pandas and TA-Lib on the delivered bars, in a browser without a network."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib
from playwright.sync_api import Browser, Page
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.dashboards.answers import ReportError, answers
from stock_lakehouse.dashboards.charts import COLUMNS
from stock_lakehouse.dashboards.page_files import chart_script
from stock_lakehouse.dashboards.report import page_of, write_report
from stock_lakehouse.lake import Lake
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse_tests.graph import NOW, Bars, clocked, edited, history, rectangle, run, sessions_of
from stock_lakehouse_tests.test_ui import chromium

SESSIONS = sessions_of(date(2019, 1, 2), date(2021, 6, 30))
TICKERS = ("AAA", "BBB")
SPLIT, DIVIDEND, CORRECTED, REFUSED = SESSIONS[-200], SESSIONS[-100], SESSIONS[-3], SESSIONS[-50]
WAIT_SECONDS = 30.0
UNKNOWN = "\N{EN DASH}"
HOSTILE = "</script><img src=x onerror=hacked=1><script>hacked=1</script>"
SCRIPT_DIGEST = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7"
# All values that the legends show, of every session: it is reached with the keyboard.
WALK = """() => {
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  const values = () => Object.fromEntries([...document.querySelectorAll('[data-page=ticker] [data-value]')].map(
    ({ dataset }) => [dataset.value, dataset.exact]));
  press('Home');
  const found = [values()];
  while (true) {
    press('ArrowRight');
    if (values().date === found.at(-1).date) return found;
    found.push(values());
  }
}"""


def delivered() -> Bars:
    bars = history(TICKERS, SESSIONS)
    bars["BBB", SPLIT]["stock_splits"] = "4.0"
    bars["BBB", DIVIDEND]["dividends"] = "0.5"
    return edited(bars, ("BBB", REFUSED), symbol=HOSTILE, volume="-1")


def corrected_close() -> float:
    return 1.002 * float(delivered()["BBB", CORRECTED]["close"] or "nan")


@pytest.fixture(scope="module")
def template(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two tickers: a split, a dividend, a refused row, and a close that was corrected later."""
    house = clocked(tmp_path_factory.mktemp("report") / "lake", spark, TICKERS)
    run(house, rectangle(SESSIONS, TICKERS), delivered().values())
    house._at = NOW + timedelta(days=1)
    bars = edited(delivered(), ("BBB", CORRECTED), close=repr(corrected_close()))
    run(house, rectangle([CORRECTED], ["BBB"]), [bars["BBB", CORRECTED]], "22222222-run")
    assert isinstance(house.lake.root, Path)
    return house.lake.root


def wait_until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression is true. Playwright's own wait evaluates it in the page, whose policy forbids that
    unless it is true at once."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(Lake(template), tmp_path_factory.mktemp("page") / "report.html")


def opened(browser: Browser, file: Path, width: int = 1440, height: int = 900, **options: Any) -> Page:
    """The page with its first ticker drawn; `page.problems` collects what must not be there."""
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.problems = problems  # type: ignore[attr-defined]
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("request", lambda request: request.url == file.as_uri() or problems.append(f"request: {request.url}"))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-drawn]")
    return page


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    page = opened(browser, file)
    yield page
    assert not page.problems  # type: ignore[attr-defined]
    page.close()


def look_at(page: Page, title: str) -> None:
    page.get_by_role("button", name=title, exact=True).click()
    wait_until(page, "!document.querySelector('main').hasAttribute('aria-busy')")


def choose(page: Page, ticker: str) -> None:
    page.fill("#ticker", ticker)
    page.press("#ticker", "Enter")
    page.wait_for_selector(f"body[data-drawn={ticker}]")


def expected(ticker: str) -> pd.DataFrame:
    """Of every delivered session what pandas and TA-Lib compute from its close and volume."""
    bars = [bar for (of, _), bar in delivered().items() if of == ticker]
    rows = pd.DataFrame(bars)[["date", "open", "high", "low", "close", "volume", "adj_close"]]
    rows = rows.astype(dict.fromkeys(("open", "high", "low", "close", "volume", "adj_close"), float))
    close = rows["close"]
    sma_20, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    rows["sma_20"], rows["sma_50"], rows["sma_200"] = sma_20, close.rolling(50).mean(), close.rolling(200).mean()
    rows["bb_upper"], rows["bb_lower"] = sma_20 + 2 * deviation, sma_20 - 2 * deviation
    rows["volume_sma_20"], rows["volume_sma_50"] = (rows["volume"].rolling(window).mean() for window in (20, 50))
    rows["rsi_14"] = talib.RSI(close.to_numpy(), 14)
    rows["macd"], rows["macd_signal"], rows["macd_hist"] = talib.MACD(close.to_numpy(), 12, 26, 9)
    rows["return_1d"] = rows["adj_close"].pct_change()
    above = (rows["sma_50"] > rows["sma_200"]).astype(int).where(rows["sma_200"].notna()).diff()
    rows["golden_cross"], rows["death_cross"] = above == 1, above == -1
    rows["buy_signal"] = (sma_20 > rows["sma_50"]) & (rows["rsi_14"] < 30)
    rows["sell_signal"] = (sma_20 < rows["sma_50"]) & (rows["rsi_14"] > 70)
    return rows.drop(columns="adj_close")


def test_every_value_of_every_session_is_what_pandas_and_talib_compute_from_the_delivered_bars(page: Page) -> None:
    choose(page, "AAA")
    shown, wanted = page.evaluate(WALK), expected("AAA").to_dict("records")
    assert [values["date"] for values in shown] == [row["date"] for row in wanted]
    for values, row in zip(shown, wanted, strict=True):
        for name in ("open", "high", "low", "close"):
            assert float(values[name]) == row[name]  # the double that was delivered, bit for bit
        for name in ("golden_cross", "death_cross", "buy_signal", "sell_signal"):
            assert values.get(name, "false") == str(bool(row[name])).lower()
        for name in row.keys() - {"date", "golden_cross", "death_cross", "buy_signal", "sell_signal"}:
            found = float(values[name] or "nan")
            assert found == pytest.approx(row[name], rel=1e-9, abs=1e-9, nan_ok=True), (name, row["date"])
    signals = ("golden_cross", "death_cross", "buy_signal", "sell_signal")
    assert sum(row[name] for row in wanted for name in signals) > 0  # there is something to mark


def test_a_split_and_a_dividend_are_told_on_their_sessions_alone(page: Page) -> None:
    choose(page, "BBB")
    shown = page.evaluate(WALK)
    assert [(values["date"], values["split_ratio"]) for values in shown if "split_ratio" in values] == [
        (SPLIT.isoformat(), "4")
    ]
    assert [(values["date"], values["dividend"]) for values in shown if "dividend" in values] == [
        (DIVIDEND.isoformat(), "0.5")
    ]
    assert REFUSED.isoformat() not in {values["date"] for values in shown}


def test_the_crosshair_moves_by_mouse_and_keys_and_all_legends_tell_its_session(page: Page) -> None:
    choose(page, "AAA")
    day = page.locator("#day [data-value=date]")
    assert day.inner_text() == "2021-06-30"  # without a crosshair the newest session
    page.keyboard.press("ArrowLeft")
    assert day.inner_text() == SESSIONS[-2].isoformat()
    page.keyboard.press("Shift+ArrowLeft")
    assert day.inner_text() == SESSIONS[-23].isoformat()
    page.keyboard.press("End")
    assert day.inner_text() == "2021-06-30"
    box = page.locator("#chart").bounding_box()
    assert box is not None
    wanted = expected("AAA").set_index("date")
    for height in (0.3, 0.95):  # in the first pane, and in the last
        page.mouse.move(box["x"] + 300 + 100 * height, box["y"] + box["height"] * height)
        wait_until(page, "document.querySelector('#day [data-value=date]').innerText < '2021-06-01'")
        row = wanted.loc[day.inner_text()]
        for name in ("close", "sma_50", "volume", "rsi_14", "macd_hist"):
            exact = page.locator(f"[data-value={name}]").first.get_attribute("data-exact")
            assert float(exact or "nan") == pytest.approx(row[name], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("button", "first"),
    [("6M", "2020-12-30"), ("1Y", "2020-06-30"), ("5Y", "2019-01-02"), ("All", "2019-01-02")],
)
def test_a_range_button_shows_the_sessions_since_that_many_months(page: Page, button: str, first: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    # Half a year before 2021-06-30 is 2020-12-30, a session; the lake begins less than three years before.
    wait_until(page, f"document.querySelector('#chart').dataset.from === '{first}'")  # drawn in the next frame
    assert page.locator("#chart").get_attribute("data-to") == "2021-06-30"


def test_delivered_text_is_shown_as_text_and_never_runs(page: Page, file: Path) -> None:
    look_at(page, "Data")
    table = page.locator("#quarantine_newest")
    assert HOSTILE in table.inner_text()
    assert "volume -1" in table.inner_text()
    assert page.locator("#quarantine_rows").inner_text() == "Delivered rows that were refused: 1."
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img").count() == 0
    assert "onerror" not in file.read_text()


def test_the_policy_of_the_page_stops_a_script_that_was_put_into_it(
    browser: Browser, file: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(file.read_text().replace("<main ", "<script>window.hacked = 1</script><main "))
    page = opened(browser, changed)
    assert page.evaluate("typeof hacked") == "undefined"
    assert any("Content Security Policy" in problem for problem in page.problems)  # type: ignore[attr-defined]
    page.close()


def test_the_data_view_counts_the_tables_and_tells_what_was_restated(page: Page) -> None:
    look_at(page, "Data")
    wait_until(
        page, "!document.querySelector('#data_tables').innerText.includes('…')"
    )  # the files of two tables are counted
    rows = [line.split("\t") for line in page.locator("#data_tables").inner_text().splitlines()[1:]]
    bars = 2 * len(SESSIONS)
    counted = {name: (count, last) for name, count, _, last, *_ in rows}
    assert counted["raw_stocks_daily"] == (f"{bars + 1:,}", "2021-06-30")  # the correction is one more delivery
    assert counted["curated_stocks_daily"] == counted["stocks_features"] == (f"{bars - 1:,}", "2021-06-30")
    assert counted["processed_quarantine"] == ("1", REFUSED.isoformat())
    assert counted["corporate_actions"] == ("2", DIVIDEND.isoformat())
    lines = [line.split("\t") for line in page.locator("#restatements_newest").inner_text().splitlines()[1:]]
    [close] = [line for line in lines if line[3] == "close"]
    old = delivered()["BBB", CORRECTED]["close"]
    when, ticker, session, _, before, after, cause, count, table = close
    assert when == f"{NOW + timedelta(days=1):%Y-%m-%d %H:%M} UTC"
    assert (table, ticker, session, count) == ("curated_stocks_daily", "BBB", CORRECTED.isoformat(), "1")
    assert (float(before), float(after), cause) == (float(old or "nan"), corrected_close(), "vendor edit")


def test_the_signals_view_has_the_newest_session_and_latest_signal_of_each_ticker(page: Page) -> None:
    look_at(page, "Signals")
    row, wanted = page.locator("#signals_table tr", has=page.get_by_role("link", name="AAA")), expected("AAA")
    exact = {
        name: row.locator(f"[data-value={name}]").get_attribute("data-exact") for name in ("date", "close", "rsi_14")
    }
    newest = wanted.iloc[-1]
    assert (exact["date"], float(exact["close"] or "nan")) == ("2021-06-30", newest["close"])
    assert float(exact["rsi_14"] or "nan") == pytest.approx(newest["rsi_14"], rel=1e-9)
    for kind, flags in (("cross", ["golden_cross", "death_cross"]), ("signal", ["buy_signal", "sell_signal"])):
        flagged = wanted[wanted[flags].any(axis=1) & (wanted["date"] >= "2020-01-01")]
        shown = row.locator(f"[data-value={kind}_date]")
        assert [shown.nth(place).inner_text() for place in range(shown.count())] == flagged["date"].tolist()[-1:]
    page.get_by_role("link", name="BBB").click()
    page.wait_for_selector("body[data-drawn=BBB]")
    assert page.locator("#chart").is_visible()


def test_a_window_that_shrinks_keeps_the_range_and_the_page_fits_it(page: Page) -> None:
    page.get_by_role("button", name="1Y").click()
    wait_until(page, "document.querySelector('#chart').dataset.from === '2020-06-30'")
    page.set_viewport_size({"width": 390, "height": 844})
    wait_until(page, "document.querySelector('#canvas canvas').getBoundingClientRect().width < 390")
    wait_until(page, "document.documentElement.scrollHeight === 844")
    assert page.evaluate("({ ...document.querySelector('#chart').dataset })") == {
        "from": "2020-06-30",
        "to": "2021-06-30",
    }


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(15, 23, 42)")])
def test_a_phone_has_no_sideways_scroll_and_the_scheme_is_the_systems(
    browser: Browser, file: Path, scheme: Any, paper: str
) -> None:
    page = opened(browser, file, 390, 844, color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    for view in ("Ticker", "Signals", "Data"):
        look_at(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")  # the system's setting changes
    wait_until(page, f"getComputedStyle(document.body).backgroundColor !== '{paper}'")
    assert not page.problems  # type: ignore[attr-defined]
    page.close()


def test_bars_of_which_only_the_close_is_known_and_empty_tickers_are_drawn(browser: Browser, tmp_path: Path) -> None:
    sessions = ["2024-01-02", "2024-01-03"]
    columns = {name: [None, None] for name in COLUMNS} | {"date": sessions, "close": [0.0123, 0.0125]}
    answered = asked_answers({"ONE": columns, "NONE": {name: [] for name in (*COLUMNS, "date")}})
    page = opened(browser, written(tmp_path, answered))
    values = {name: page.locator(f"[data-value={name}]").inner_text() for name in ("open", "close", "rsi_14")}
    assert values == {"open": UNKNOWN, "close": "0.0125", "rsi_14": UNKNOWN}
    page.fill("#ticker", "none")
    page.press("#ticker", "Enter")
    page.wait_for_selector("#note:visible")
    assert page.locator("#note").inner_text() == "The lake has no session of NONE since 2021-01-01."
    assert page.locator("#chart").is_hidden()
    assert not page.problems  # type: ignore[attr-defined]
    page.close()


def asked_answers(bars: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    about = {"lake": "x", "made_at": "now", "first": "2021-01-01", "last": "2024-01-03", "tickers": [*bars]}
    empty = {"tables": [], "quarantine": {"rows": 0, "reasons": [], "newest": []}}
    return {
        "charts": json.loads(json.dumps(answers_of_charts())),
        "about": {**about, "tickers_in_lake": len(bars)},
        **{f"bars/{ticker}": columns for ticker, columns in bars.items()},
        "signals": [],
        "data": {**empty, "restatements": {"lines": 0, "newest": []}},
    }


def answers_of_charts() -> list[dict[str, Any]]:
    from dataclasses import asdict

    from stock_lakehouse.dashboards.charts import PANES

    return [asdict(pane) for pane in PANES]


def written(folder: Path, answered: dict[str, Any]) -> Path:
    path = folder / "report.html"
    path.write_text(page_of(answered), encoding="utf-8")
    return path


def test_six_tickers_of_three_years_are_at_most_a_megabyte_and_a_half() -> None:
    dice = np.random.default_rng(0)
    types = {column.name: column.type for column in (*FEATURES.columns, *CURATED.columns)}
    # Doubles whose digits are all random, which compress worse than prices.
    columns = {
        name: dice.random(756).tolist() if types[name] == "double" else ["no"] * 756 for name in (*COLUMNS, "date")
    }
    page = page_of(asked_answers(dict.fromkeys("ABCDEF", columns)))
    assert 400_000 < len(page.encode()) < 1_500_000


def test_the_script_of_the_charts_is_the_one_that_was_looked_at() -> None:
    script = chart_script()
    assert "Lightweight Charts™ v5.2.0" in script[:300]
    assert hashlib.sha256(script.encode()).hexdigest() == SCRIPT_DIGEST
    assert "</script" not in script.lower()


def test_a_lake_without_features_and_an_unknown_ticker_are_named_and_leave_no_file(
    template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(ReportError, match=r"no features, .* `stock-lakehouse materialize` computes them"):
        write_report(Lake(tmp_path / "none"), path)
    with pytest.raises(ReportError, match="no features of MSFT; `stock-lakehouse status` lists"):
        write_report(Lake(template), path, ["AAA", "MSFT"])
    with pytest.raises(ReportError, match="the list is empty"):
        write_report(Lake(template), path, [])
    with pytest.raises(ReportError, match=r"nowhere/x\.html: the report cannot be written \(No such file"):
        write_report(Lake(template), tmp_path / "nowhere" / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_a_report_replaces_the_earlier_one_as_a_whole(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("an earlier report")
    assert write_report(Lake(template), path, years=1) == path
    assert path.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_tickers_those_with_a_signal_on_the_newest_session_then_the_largest_moves_are_charted(
    template: Path,
) -> None:
    moves = {}
    for ticker in TICKERS:
        newest = expected(ticker).iloc[-1]
        assert not newest[["golden_cross", "death_cross", "buy_signal", "sell_signal"]].any()
        moves[ticker] = abs(newest["return_1d"])
    found = answers(Lake(template), None, years=1, most=1)
    assert found["about"]["tickers"] == [max(moves, key=lambda ticker: moves[ticker])]
    assert found["about"]["tickers_in_lake"] == 2
    assert len(found["signals"]["rows"]) == 2


def test_years_bound_what_is_embedded(template: Path) -> None:
    found = answers(Lake(template), ["BBB"], years=1, most=12)
    assert [question for question in found if question.startswith("bars/")] == ["bars/BBB"]
    dates = found["bars/BBB"]["date"]
    assert (dates[0], dates[-1]) == ("2020-06-30", "2021-06-30")


@pytest.mark.slow
def test_a_lake_on_s3_gives_the_same_answers(spark: SparkSession, s3_root: str, template: Path) -> None:
    house = clocked(s3_root, spark, TICKERS)
    sessions = SESSIONS[:60]
    bars = {key: bar for key, bar in delivered().items() if key[1] in sessions}
    run(house, rectangle(sessions, TICKERS), bars.values())
    found = answers(Lake(s3_root), None, years=3, most=12)
    close = [float(bars["AAA", session]["close"] or "nan") for session in sessions]
    assert found["bars/AAA"]["close"] == close
    counted = {table["table"]: {"rows": table["rows"], "last": table["last"]} for table in found["data"]["tables"]}
    wanted = {"rows": 120, "last": sessions[-1].isoformat()}
    assert counted["curated_stocks_daily"] == found["counts"]["processed_stocks_daily"] == wanted


def test_the_command_writes_beside_the_lake_and_prints_the_path(template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "lake")
    (tmp_path / "lakehouse.toml").write_text('lake_root = "lake"\ntickers = ["AAA", "BBB"]\n')
    done = CliRunner().invoke(app, ["report", "--tickers", "aaa", "--years", "1"])
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()) == tmp_path / "report.html"
    assert (tmp_path / "report.html").is_file()
    elsewhere = CliRunner().invoke(app, ["report", "--to", "other.html"])
    assert elsewhere.exit_code == 0
    assert (tmp_path / "other.html").is_file()
    for asked, words in (
        ("MSFT", "tickers: the lake has no features of MSFT"),
        ("A A", "'A A' is not a ticker"),
    ):
        wrong = CliRunner().invoke(app, ["report", "--tickers", asked])
        assert wrong.exit_code == 2
        assert wrong.stderr.startswith(f"stock-lakehouse: {words}")
