"""Cases of cases/ that need several deliveries: files that grow, are corrected or contradict each other, and Yahoo by the hour.

Each with other inputs of its kind. Cases of one run are in test_cases.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.pipeline import (
    CASES,
    House,
    Outcome,
    Right,
    Told,
    assert_right,
    bars_in,
    house_of,
    new_house,
)
from stock_lakehouse_tests.yahoo_server import Vendor, Yahoo

pytestmark = pytest.mark.usefixtures("spark")
GROWN = "k06_adjusted_to_from_rows_that_are_no_bars/grown_future_null"
REDELIVERED = "k23_basis_lost_on_identical_redelivery"
CORRECTED = "k24_split_ratio_corrected_ex_date_alone"
GAP = "k25_dividend_factor_stale_over_a_gap"
HEADER = "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


def tables_of(outcome: Outcome) -> dict[str, tuple[int, int]]:
    """The lake's files, what serves locks and staging aside."""
    files = bytes_of(Path(outcome.settings.lake_root))
    return {name: state for name, state in files.items() if not name.startswith(".")}


def line(day: str, close: float, volume: int = 1000, dividend: float = 0, split: float = 0) -> str:
    return f"{day},{close},{close * 1.01},{close * 0.99},{close},{volume},{dividend},{split}\n"


# --- k06: a file that grows ----------------------------------------------------------------------------------

PLACEHOLDER = "2024-06-10,,,,,0,0,10.0\n"
NO_BARS = {
    "grown_future_null": PLACEHOLDER,  # tomorrow's split, on a row without prices
    "mistyped date": "2042-03-14,455.08,456.55,453.09,455.44,796200,0,0\n",
    "quarantined row": "2024-06-10,455.08,441.55,453.09,455.44,796200,0,0\n",  # high is below low
    "no session": "2024-06-08,455.08,456.55,453.09,455.44,796200,0,0\n",  # a Saturday
}
GROWN_TICKERS = dict(zip(NO_BARS, ("AAPL", "DATE", "HIGH", "SAT"), strict=True))


@pytest.fixture(scope="module")
def grown(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, instance: Path) -> Outcome:
    """Two deliveries of files that grew, each with another row behind its last bar at first."""
    house = house_of(GROWN, tmp_path_factory.mktemp("grown"), instance)
    tickers = tuple(GROWN_TICKERS.values())
    grown = (house.folder / "prices/AAPL.csv").read_text()
    before = (house.folder / "prices/AAPL.csv.v1").read_text()
    assert PLACEHOLDER in before
    house.put(**{GROWN_TICKERS[name]: before.replace(PLACEHOLDER, row) for name, row in NO_BARS.items()})
    house.run(last="2024-06-07", tickers=tickers)
    house.put(**dict.fromkeys(tickers, grown))
    return house.run(first="2024-06-10", tickers=tickers)


@pytest.mark.slow
@pytest.mark.slice(2)
@pytest.mark.parametrize("name", NO_BARS)
def test_k06_a_row_that_is_no_bar_does_not_say_that_a_file_knows_a_later_split(name: str, grown: Outcome) -> None:
    right = Right(
        GROWN_TICKERS[name],
        bars=115,
        values={
            ("2024-01-02", "close"): "40.0300",
            ("2024-01-02", "volume"): "10989000",
            ("2024-06-07", "close"): "45.5440",
            ("2024-06-10", "close"): "46.34",
        },
        actions=[("2024-06-10", "split", "10")],
        green=("price_jumps", "split_moves"),
    )
    assert_right(grown, [right])


# --- k23: the same text, delivered again by a file that knows more ---------------------------------------------


@dataclass(frozen=True)
class Redelivered:
    """Three tickers, delivered thrice.

    PTH: the same text, later with a split in it. NOT: the same text, at first with a split in it. TRAP: as traded, until on the
    ex-date the split is named beside a history of the same text; the day after the history is adjusted.
    `second` and `third` are the runs; `written` is what a run changed that repeated the second one.
    """

    second: Outcome
    third: Outcome
    written: set[str]


@pytest.fixture(scope="module")
def redelivered(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, instance: Path) -> Redelivered:
    house = house_of(REDELIVERED, tmp_path_factory.mktemp("redelivered"), instance)
    without, with_split = ((house.folder / name).read_text() for name in ("prices/PTH.csv", "PTH_second.csv"))
    as_traded = HEADER + line("2024-06-06", 1000) + line("2024-06-07", 1000)
    adjusted = HEADER + line("2024-06-06", 100, 10_000) + line("2024-06-07", 100, 10_000)
    ex_date = line("2024-06-10", 100, 10_000, split=10)
    outcomes, before = [], {}
    for pth, no_longer, trap in (
        (without, with_split, as_traded),
        (with_split, without, as_traded + ex_date),
        (with_split, without, as_traded + ex_date),
        (with_split, without, adjusted + ex_date + line("2024-06-11", 101, 10_000)),
    ):
        house.put(PTH=pth, NOT=no_longer, TRAP=trap)
        outcomes.append(house.run(tickers=("PTH", "NOT", "TRAP")))
        if len(outcomes) == 2:
            before = tables_of(outcomes[-1])
        if len(outcomes) == 3:
            written = set(dict(tables_of(outcomes[-1]).items() ^ before.items()))
    return Redelivered(outcomes[1], outcomes[3], written)


SPLIT_OF_TEN = [("2024-06-10", "split", "10")]
HUNDRED = dict.fromkeys(("2024-06-06", "2024-06-07", "2024-06-10", "2024-06-11"), (100.0, 101.0, 99.0, 100.0, 10000.0))


@pytest.mark.soak
def test_k23_the_same_prices_beside_a_split_prove_their_basis(redelivered: Redelivered) -> None:
    assert_right(redelivered.second, [Right("PTH", rows=HUNDRED, actions=SPLIT_OF_TEN)])


def test_k23_a_run_repeated_writes_nothing(redelivered: Redelivered) -> None:
    assert not redelivered.written


def test_k23_a_delivery_that_no_longer_names_the_split_changes_no_price(redelivered: Redelivered) -> None:
    assert_right(redelivered.second, [Right("NOT", rows=HUNDRED)])


def test_k23_a_split_named_on_its_day_before_the_history_is_adjusted_does_not_count_as_adjusted(
    redelivered: Redelivered,
) -> None:
    right = Right("TRAP", bars=3, values={("2024-06-06", "close"): "100.00", ("2024-06-07", "close"): "100.00"})
    told = Told(("split_moves", "price_form"), ticker="TRAP")
    assert_right(redelivered.second, [right], told)
    assert_right(redelivered.third, [replace(right, bars=4, green=("split_moves",), actions=SPLIT_OF_TEN)])


# --- k24, k25: corrected, and asked for alone -------------------------------------------------------------------

CORRECTIONS = {
    "split_ratio": Right(
        "RAT",
        bars=4,
        values={("2024-02-27", "close"): "99.206", ("2024-02-28", "close"): "99.206", ("2024-02-29", "close"): "100.0"},
        features={("2024-02-29", "return_1d"): "0.008"},
        actions=[("2024-02-29", "split", "1.26")],
    ),
    # 10 as traded is 100 by one new share for ten, and 80 by one for eight.
    "reverse split": Right("REV", bars=4, values={(day, "close"): "80.000" for day in ("2024-02-27", "2024-02-28")}),
    # 1 - 1.5 / 100, where 1 - 1.0 / 100 was said first.
    "dividend": Right("DIV", bars=4, values={(day, "adj_close"): "98.500" for day in ("2024-02-27", "2024-02-28")}),
}


@pytest.fixture(scope="module")
def corrected(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, instance: Path) -> Outcome:
    """The run for the ex-date and what is after it, of files in which an action was corrected."""
    house = house_of(CORRECTED, tmp_path_factory.mktemp("corrected"), instance)

    def action(before: float, dividend: float, split: float) -> str:
        return (
            HEADER
            + line("2024-02-27", before)
            + line("2024-02-28", before)
            + line("2024-02-29", 99.0, dividend=dividend, split=split)
            + line("2024-03-01", 99.5)
        )

    tickers = ("RAT", "REV", "DIV")
    house.put(REV=action(100.0, 0, 0.1), DIV=action(100.0, 1.0, 0))
    house.run(tickers=tickers)
    second = (house.folder / "RAT_second.csv").read_text()
    house.put(RAT=second, REV=action(80.0, 0, 0.125), DIV=action(100.0, 1.5, 0))
    return house.run(first="2024-02-29", tickers=tickers)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRECTIONS)
def test_k24_a_corrected_action_asked_for_its_ex_date_alone_gives_what_one_delivery_gives(
    name: str, corrected: Outcome
) -> None:
    right = CORRECTIONS[name]
    # A history that moved by a fifth may be left as it is and flagged; one that moved by less is right.
    unchanged = name == "reverse split" and set(corrected.closes("REV").values()) == {100.0, 99.0, 99.5}
    told = Told(("source_complete", "split_moves"), ticker="REV") if unchanged else None
    assert_right(corrected, [right], told)


@pytest.mark.soak
def test_k25_a_dividend_after_a_gap_follows_the_corrected_close_before_the_gap(tmp_path: Path, instance: Path) -> None:
    house = house_of(GAP, tmp_path / "house", instance)
    house.run()
    house.put(GAP=(house.folder / "GAP_second.csv").read_text())
    outcome = house.run(last="2021-12-31")
    right = Right(
        "GAP",
        bars=4,
        values={("2021-05-03", "adj_close"): "87.5000", ("2021-05-04", "adj_close"): "70.0000"},
        actions=[("2023-09-05", "dividend", "10.0")],
    )
    assert_right(outcome, [right])
    assert [row["price_factor"] for row in outcome.corporate_actions] == [0.875]


# --- k26: files that contradict each other ------------------------------------------------------------------------


@pytest.mark.soak
def test_k26_files_that_contradict_each_other_are_named_and_land_once(
    tmp_path: Path, instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two lie in different landings. By the real bound that takes 100,000 rows between them.
    monkeypatch.setattr("stock_lakehouse.layers.raw.ROWS_A_LANDING", 1000)
    others = [f"T{number:02}" for number in range(1, 11)]
    house = new_house(tmp_path / "house", instance, ["T00", *others])
    bars = bars_in(CASES / "k07_intraday_and_twice/two_files/prices/AAPL.csv")

    def rows(ticker: str, days: Iterable[str], more: float) -> str:
        return "".join(
            f"{ticker},{day},{','.join(f'{price + more:.2f}' for price in bars[day][:4])},{bars[day][4]:.0f}\n"
            for day in days
        )

    header, five = "Symbol,Date,Open,High,Low,Close,Volume\n", sorted(bars)[:5]
    house.put(
        a_small=header + rows("T00", five, 0),
        m_bulk=header + "".join(rows(ticker, bars, 0) for ticker in others),
        z_small=header + rows("T00", five, 1),
    )
    asked = five[0], five[-1]  # the bulk file's rows are delivered all the same
    outcome = house.run(*asked)
    assert_right(outcome, [Right("T00", rows={day: (*(p + 1 for p in bars[day][:4]), bars[day][4]) for day in five})])
    named = [row for row in outcome.red.get("one_row_a_session", []) if row["ticker"] == "T00"]
    for day in five:
        assert any(day in str(row) for row in named), (day, outcome.red)
    assert {name for name in ("a_small.csv", "z_small.csv") if name in str(named)} == {"a_small.csv", "z_small.csv"}
    before = tables_of(outcome)
    for _ in range(2):
        assert tables_of(house.run(*asked)) == before


# --- k08: told where the person is ------------------------------------------------------------------------------


def test_k08_the_program_names_files_that_gave_nothing_why_and_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: Path
) -> None:
    house = new_house(tmp_path / "house", instance, ["AAPL"])
    bars = CASES / "k07_intraday_and_twice/two_files/prices/AAPL.csv"
    suffixed = CASES / "k08_refused_and_not_told/suffixed_symbol/prices/all.csv"
    house.put(history_of_2024=bars.read_text(), all=suffixed.read_text().replace("AAPL.US", "ZZZZ"))
    monkeypatch.chdir(house.folder)

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
        return done.exit_code, " ".join(done.output.split())

    code, output = call("doctor")
    for words in ("history_of_2024.csv", "all.csv", "ZZZZ"):
        assert words in output
    code, output = call("materialize")
    assert code == 1  # nothing of what was asked for came
    for words in ("files_read", "history_of_2024.csv", "all.csv", "ZZZZ", "124", "Symbol"):
        assert words in output
    assert "quarantine" in output
    _, output = call("status")
    assert "AAPL" in output
    code, output = call("show", "processed_quarantine", "__unreadable__")
    assert code == 0, output
    assert "history_of_2024.csv" in output


# --- Yahoo by day and hour: k01, k16 ----------------------------------------------------------------------------

EX_DATE = date(2024, 6, 10)
HISTORY = {
    date.fromisoformat(day): values[3]
    for day, values in bars_in(CASES / GROWN / "prices/AAPL.csv").items()
    if day < "2024-06-10"
} | {date(2024, 6, 7): 468.20}
AFTER = {date(2024, 6, 11): 48.04, date(2024, 6, 12): 48.40, date(2024, 6, 13): 48.11}
Clock = Callable[[str], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the time, UTC, that every module of the program goes by."""

    def set_to(moment: str) -> None:
        now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
        for name, module in list(sys.modules.items()):
            if name.startswith("stock_lakehouse.") and "utc_now" in vars(module):
                monkeypatch.setattr(module, "utc_now", lambda: now)

    return set_to


def yahoo_house(folder: Path, instance: Path, tickers: Iterable[str]) -> House:
    """A lake of `tickers` from Yahoo, without an end."""
    house = new_house(folder, instance, tickers)
    (house.folder / "lakehouse.toml").write_text(
        f'tickers = {list(tickers)}\nfirst_date = 2024-01-02\nsource = "yfinance"\nrequests_per_second = 1000\n'
    )
    return house


def vendor(
    ticker: str,
    closes: Mapping[date, float | None],
    newest: str,
    adjusted_to: str,
    named_to: str,
    ratio: float = 10.0,
) -> Vendor:
    days = (date.fromisoformat(day) for day in (newest, adjusted_to, named_to))
    return Vendor(ticker, closes, {EX_DATE: ratio}, *days)


def assert_split_is_applied(outcome: Outcome, ticker: str, later: Mapping[date, float], ratio: float = 10.0) -> None:
    """The history as traded, divided by the ratio, and `later` as it is; one split."""
    right = {str(day): close / ratio for day, close in HISTORY.items()}
    right |= {str(day): close for day, close in later.items()}
    assert outcome.closes(ticker) == pytest.approx(right)
    volumes = {str(day): 1000 * ratio for day in HISTORY} | {str(day): 1000 for day in later}
    assert outcome.closes(ticker, "volume") == volumes
    assert outcome.actions(ticker) == [(str(EX_DATE), "split", ratio)]
    assert len(HISTORY) == 110


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize("asked_from", ["2024-06-11", "2024-06-10"])
def test_k01_a_split_of_yahoo_counts_though_its_day_has_no_bar(
    asked_from: str, yahoo: Yahoo, clock: Clock, tmp_path: Path, instance: Path
) -> None:
    rows = {"NONE": {**HISTORY, **AFTER}, "NULL": {**HISTORY, EX_DATE: None, **AFTER}}
    house = yahoo_house(tmp_path / "house", instance, rows)
    for now, first in (("2024-06-07", None), ("2024-06-11", asked_from)):
        clock(f"{now}T22:00")
        yahoo.answers |= {ticker: [vendor(ticker, closes, now, now, now)] for ticker, closes in rows.items()}
        outcome = house.run(first, now)
    for ticker in rows:
        assert_split_is_applied(outcome, ticker, {date(2024, 6, 11): 48.04})
        assert outcome.closes(ticker)["2024-06-07"] == pytest.approx(46.82)


@pytest.mark.soak
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded before", "first load"])
def test_k16_bars_adjusted_before_the_open_of_an_ex_date_are_not_divided_twice(
    loaded: bool, yahoo: Yahoo, clock: Clock, tmp_path: Path, instance: Path
) -> None:
    """AAA and SMALL: the split is named in the morning. SILENT: it is not, though prices are adjusted."""
    ratios = {"AAA": 10.0, "SMALL": 1.25, "SILENT": 10.0}
    after = {"AAA": 46.34, "SMALL": 370.72, "SILENT": 46.34}
    in_the_morning = {"AAA": "2024-06-10", "SMALL": "2024-06-10", "SILENT": "2024-06-07"}
    house = yahoo_house(tmp_path / "house", instance, ratios)

    def answer(newest: str, adjusted_to: str, named_to: Mapping[str, str]) -> None:
        yahoo.answers |= {
            ticker: [vendor(ticker, {**HISTORY, EX_DATE: after[ticker]}, newest, adjusted_to, named_to[ticker], ratio)]
            for ticker, ratio in ratios.items()
        }

    if loaded:
        clock("2024-06-06T22:00")
        answer("2024-06-06", "2024-06-06", in_the_morning)
        house.run()
    clock("2024-06-10T11:00")
    answer("2024-06-07", "2024-06-10", in_the_morning)
    morning = house.run("2024-06-07" if loaded else None, "2024-06-07")
    clock("2024-06-10T22:00")
    answer("2024-06-10", "2024-06-10", dict.fromkeys(ratios, "2024-06-10"))
    evening = last = house.run("2024-06-10")
    if any(len(evening.closes(ticker)) < 111 for ticker in ratios):
        # What was not landed while its basis was not known is asked for as a gap.
        last = house.run("2024-06-07" if loaded else None)
    for ticker in ("AAA", "SMALL"):
        assert "2024-06-10" in evening.closes(ticker), evening.red
        assert_split_is_applied(last, ticker, {EX_DATE: after[ticker]}, ratios[ticker])
        told = Told(("split_moves", "price_jumps", "source_complete"), ticker=ticker)
        steps = [after / before for before, after in pairwise(morning.closes(ticker).values())]
        assert all(0.9 < step < 1.1 for step in steps) or told.is_in(morning)  # no two bases in one history, in silence
    told = Told(("split_moves", "price_jumps", "source_complete"), ticker="SILENT")
    if not any(told.is_in(outcome) for outcome in (morning, evening)):
        assert_split_is_applied(last, "SILENT", {EX_DATE: after["SILENT"]})
