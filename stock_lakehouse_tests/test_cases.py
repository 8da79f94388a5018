"""Inputs that once gave a wrong value, lost bars or were refused (cases/), through the whole pipeline, with the right values.

Where a kind allows "told" instead of values, either holds, never neither. Cases of several steps are in test_case_steps.py,
other inputs of the same kinds in test_case_variants.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse_tests.pipeline import (
    CASES,
    Outcome,
    Right,
    Told,
    assert_right,
    bars_in,
    house_of,
    new_house,
    wrong_bars,
)

KINDS = {
    "k01_action_on_rejected_row": "A split or dividend counts, whatever becomes of the bar of its row.",
    "k02_as_traded_adj_close": "Beside as-traded prices the delivered adjusted close is adjusted to the day of the download.",
    "k03_auto_adjusted_history": "Prices that are adjusted for dividends already are not adjusted again.",
    "k04_sparse_actions": "A blank cell of a column of actions means none; one of the two columns is enough for its kind.",
    "k05_named_split_and_jump_disagree": "A split that is named and not applied, or applied twice, is told.",
    "k07_intraday_and_twice": "Several different rows of a session are told, whether of one file or of two.",
    "k08_refused_and_not_told": "A file that is refused as a whole is told, with its name and what to change.",
    "k09_missing_words_in_optional_columns": "A word for missing is an empty cell.",
    "k10_fractional_volume": "A volume that is not whole is rounded.",
    "k11_incomplete_bar_with_a_good_close": "A bar with a good close is kept, what is missing is null; else it is told.",
    "k12_actions_under_another_spelling": "Actions are read in the spelling of Alpha Vantage, with its numbers before titles.",
    "k13_two_columns_mean": "Of two columns that could be one of ours the better spelling is taken.",
    "k14_common_forms_of_dates_and_numbers": "What has one meaning is read; what has not is refused with what to change.",
    "k15_calendar_before_1970": "The calendar knows the holidays before 1970, and the Saturdays before 1952.",
    "k17_text_splits": "4:1 and 4-for-1 are splits.",
    "k18_price_bound": "Prices before eight reverse splits are prices.",
    "k19_dividend_not_below_price": "A dividend that cannot be applied is told.",
    "k20_dates_shifted_by_utc": "Local midnights that are written as UTC do not move bars by a day in silence.",
    "k21_index_tickers": "^GSPC is a ticker.",
    "k22_capital_gains": "Distributions of capital gains are read.",
}
FIRST, LAST = "2024-01-02", "2024-06-28"
# The bars that most files give in a form of their own.
BARS = bars_in(CASES / "k07_intraday_and_twice/two_files/prices/AAPL.csv")
DEARER = {day: (*(round(price + 1000, 2) for price in values[:4]), values[4]) for day, values in BARS.items()}
DIVIDENDS = (("2024-02-09", "dividend", "1.5"), ("2024-05-10", "dividend", "1.5"))
# Of an as-traded file with a split of 4 for 1 in its midst.
AS_TRADED = Right(
    bars=124,
    values={(FIRST, "close"): "98.6600", (FIRST, "adj_close"): "98.1677"},
    actions=(("2024-02-09", "dividend", "0.25"), ("2024-04-08", "split", "4"), ("2024-05-10", "dividend", "0.25")),
)
BASE = Right(rows=BARS)
REFUSED = ("files_read", "quarantine")
COLUMNS_NEEDED = ("header", "no column", "two columns")
HOW_TO_DATE = ("iso", "yyyy", "2024-01-02", "csv_dates", "serial", "excel")


def last_close(right: str) -> Right:
    return Right(bars=124, values={(LAST, "close"): right})


def adjusted(right: str = "98.5011") -> Right:
    return Right(bars=124, values={(FIRST, "adj_close"): right}, actions=DIVIDENDS, green=("adjusted_close",))


@dataclass(frozen=True)
class Case:
    """One folder of cases/. `right` or `told` must hold if both are given, with `both` each of them.

    `lake`: its one file holds no ticker, so it shares a run with the others of that lake, under a ticker of its own.
    """

    name: str
    right: tuple[Right, ...] = ()
    told: Told | None = None
    both: bool = False
    lake: str | None = None
    overrides: dict[str, object] = field(default_factory=dict)


def case(name: str, *right: Right, told: Told | None = None, both: bool = False, **overrides: object) -> Case:
    return Case(name, right, told, both, overrides=overrides)


def form(name: str, *right: Right, told: Told | None = None, both: bool = False, lake: str = "plain") -> Case:
    return Case(name, right, told, both, lake)


LAKES: dict[str, dict[str, str]] = {"plain": {}, "as_traded": {"csv_prices": '"as_traded"'}}
K01, K02, K03, K04, K05, K07, K08, K09, K10, K11, K12, K13, K14, K15, K17, K18, K19, K20, K21, K22 = KINDS

CASE_LIST = (
    form(
        f"{K01}/dividend_on_holiday",  # close before 106.46
        Right(
            bars=124, rows=BARS, values={(FIRST, "adj_close"): "100.8339"}, actions=[("2024-04-01", "dividend", "1.0")]
        ),
    ),
    form(
        f"{K01}/dividend_on_null_bar",
        Right(bars=123, values={(FIRST, "adj_close"): "98.5011"}, actions=DIVIDENDS),
    ),
    form(
        f"{K01}/split_on_null_bar",
        Right(ticker="NFE", bars=123, values={(FIRST, "close"): "301.5000"}, actions=[("2024-04-08", "split", "0.02")]),
        lake="as_traded",
    ),
    form(f"{K02}/alpha_csv", AS_TRADED, Right(green=("adjusted_close",)), lake="as_traded"),
    form(f"{K02}/tiingo", AS_TRADED, Right(green=("adjusted_close",)), lake="as_traded"),
    form(
        f"{K02}/quandl_wiki",
        AS_TRADED,
        Right(
            green=("adjusted_close",),
            features={("2024-04-08", "return_1d"): "0.0024", ("2024-04-08", "volatility_20"): "0.012"},
        ),
        lake="as_traded",
    ),
    form(
        f"{K03}/yf_history_auto_adjust",
        Right(
            bars=124,
            values={(FIRST, "adj_close"): "98.5011"},
            features={("2024-05-10", "return_1d"): "-0.001006"},
        ),
        told=Told(("price_form",)),
    ),
    form(f"{K04}/dividends_only", adjusted()),
    form(f"{K04}/optional_empty", adjusted()),
    case(
        f"{K05}/chunks",
        Right(bars=124, values={(FIRST, "close"): "101.8700"}),
        told=Told(("split_moves", "price_jumps", "price_form"), sessions=("2024-04-01", "2024-04-08")),
    ),
    case(
        f"{K05}/chunks_2_1",
        Right(bars=124, values={(FIRST, "close"): "205.9600"}),
        told=Told(("split_moves", "price_jumps", "price_form"), sessions=("2024-04-01", "2024-04-19")),
    ),
    form(
        f"{K05}/named_not_applied_1_5",
        Right(bars=124, values={(FIRST, "close"): "210.4533"}),
        told=Told(("split_moves",), sessions=("2024-04-19",)),
    ),
    form(
        f"{K05}/named_not_applied_2",
        Right(bars=124, values={(FIRST, "close"): "161.8900"}),
        told=Told(("split_moves",), sessions=("2024-04-19",)),
    ),
    case(
        f"{K07}/duplicates",
        Right(bars=124),
        told=Told(("one_row_a_session",), sessions=("2024-03-14",)),
        both=True,
    ),
    case(
        f"{K07}/intraday",
        told=Told(
            ("one_row_a_session", *REFUSED),
            file="AAPL.csv",
            words=("2024-01-0", "intraday", "several"),
            says=("intraday", "several"),
        ),
    ),
    case(f"{K07}/two_files", told=Told(("one_row_a_session",), sessions=tuple(BARS))),
    case(f"{K08}/actions_file", told=Told(REFUSED, ticker=None, file="AAPL_splits.csv")),
    case(
        f"{K08}/brk_slash",
        BASE.of("BRK-B"),
        told=Told(REFUSED, ticker=None, file="all.csv", words=("BRK/B", "BRK-B"), says=("BRK/B", "BRK-B")),
    ),
    form(f"{K08}/slash_mdy", BASE),
    case(
        f"{K08}/stooq_single",
        BASE,
        told=Told(
            REFUSED, ticker=None, file="aapl_us_d.csv", words=("symbol", "AAPL.csv"), says=("symbol", "AAPL.csv")
        ),
    ),
    case(
        f"{K08}/suffixed_symbol",
        BASE,
        told=Told(REFUSED, ticker=None, file="all.csv", words=("AAPL.US",), says=("AAPL.US",)),
    ),
    form(f"{K09}/optional_na", adjusted()),
    form(f"{K09}/optional_none", adjusted()),
    form(f"{K09}/optional_null", adjusted()),
    case(f"{K09}/r_na_optional", Right(bars=124, values={(FIRST, "close"): "101.54", (LAST, "close"): "102.37"})),
    form(
        f"{K10}/fractional_volume",
        Right(
            bars=124,
            values={(LAST, "close"): "91.28", (FIRST, "volume"): "720867", (LAST, "volume"): "973461"},
        ),
    ),
    form(
        f"{K11}/empty_volume",
        Right(rows={day: (*values[:4], None) for day, values in BARS.items()}),
        told=Told(("incomplete_bars", *REFUSED), words=("volume",)),
    ),
    form(
        f"{K11}/no_volume",
        Right(rows={day: (*values[:4], None) for day, values in BARS.items()}),
        told=Told(("incomplete_bars", *REFUSED), words=("volume",)),
    ),
    case(f"{K11}/zero_ohl", told=Told(("incomplete_bars", "quarantine"), ticker="AAMC", sessions=("2024-03-14",))),
    form(
        f"{K11}/zero_open",
        Right(
            ticker="JNJ",
            rows={day: (None if day < "2024-02-14" else values[0], *values[1:]) for day, values in BARS.items()},
        ),
        told=Told(("incomplete_bars", "quarantine"), ticker="JNJ", words=("open",)),
    ),
    form(f"{K12}/alpha_pandas_adjusted", AS_TRADED, lake="as_traded"),
    form(f"{K12}/alpha_pandas_daily", BASE),
    case(f"{K13}/yf_multiindex", BASE),
    form(f"{K13}/close_and_last", BASE),
    form(f"{K13}/date_and_time", BASE),
    case(
        f"{K13}/nse_bhav",
        BASE,
        told=Told(REFUSED, file="bhav.csv", words=COLUMNS_NEEDED, says=COLUMNS_NEEDED),
    ),
    case(
        f"{K13}/stooq_bulk",
        BASE,
        told=Told(
            REFUSED,
            file="aapl.us.csv",
            words=(*COLUMNS_NEEDED, "AAPL.US", "tickers"),
            says=(*COLUMNS_NEEDED, "AAPL.US", "tickers"),
        ),
    ),
    form(f"{K14}/barchart", BASE, told=Told(REFUSED, file="AAPL.csv", words=COLUMNS_NEEDED, says=COLUMNS_NEEDED)),
    form(f"{K14}/bse", BASE, told=Told(REFUSED, file="AAPL.csv", words=COLUMNS_NEEDED, says=COLUMNS_NEEDED)),
    form(f"{K14}/compact_ymd", BASE),
    # CRSP writes the middle of bid and ask as a negative price where nothing traded: no close, and told.
    case(
        f"{K14}/crsp",
        Right(rows={day: values for day, values in BARS.items() if day != "2024-03-14"}),
        told=Told(("quarantine", "incomplete_bars"), sessions=("2024-03-14",)),
        both=True,
    ),
    form(f"{K14}/disclaimer_line", BASE),
    form(f"{K14}/excel_serial", told=Told(REFUSED, file="AAPL.csv", words=("date",), says=HOW_TO_DATE)),
    # The volume is Stuecke; Volumen is money, so a file that takes it for the volume is wrong.
    form(f"{K14}/german", BASE, told=Told(REFUSED, file="AAPL.csv", words=COLUMNS_NEEDED, says=COLUMNS_NEEDED)),
    form(
        f"{K14}/investing_named",
        Right(
            rows={day: (*values[:4], round(values[4] / 1e6, 2) * 1e6) for day, values in DEARER.items()},
            values={(LAST, "close"): "1091.28"},
        ),
    ),
    form(f"{K14}/nasdaq", BASE),
    form(f"{K14}/nasdaq_dollar_only", BASE),
    form(f"{K14}/no_header", told=Told(REFUSED, file="AAPL.csv", words=("header",), says=("header",))),
    case(
        f"{K14}/polygon_flat",
        *(Right(ticker, rows={day: BARS[day] for day in sorted(BARS)[:5]}, bars=5) for ticker in ("AAPL", "MSFT")),
        told=Told(REFUSED, ticker=None, file="2024-01-02.csv.gz", words=COLUMNS_NEEDED, says=COLUMNS_NEEDED),
    ),
    case(f"{K14}/quantmod", BASE),
    form(f"{K14}/semicolon", BASE),
    form(f"{K14}/space_after_comma", BASE),
    form(f"{K14}/thousands", Right(rows=DEARER, values={(LAST, "close"): "1091.28"})),
    form(f"{K14}/tradingview", BASE),
    form(f"{K14}/trailing_comma", BASE),
    form(f"{K14}/utf16", BASE),
    case(
        f"{K15}/christmas_1964",
        Right(
            ticker="IBM",
            bars=13,
            features={
                ("1964-12-24", "tradable_from"): "1964-12-28",
                ("1964-12-31", "tradable_from"): "1965-01-04",
            },
            green=("missing_sessions", "gap_diagnosis"),
        ),
    ),
    # The file ends on 1950-03-03, three sessions after the last_date that is written beside it.
    case(
        f"{K15}/saturdays_1950",
        Right(ticker="IBM", bars=50, green=("missing_sessions", "gap_diagnosis")),
        last_date=date(1950, 3, 3),
    ),
    form(f"{K17}/split_text_colon", AS_TRADED, lake="as_traded"),
    form(f"{K17}/split_text_for", AS_TRADED, lake="as_traded"),
    form(f"{K18}/huge_price", last_close("3080700000000000")),
    form(
        f"{K19}/dividend_above_price",
        Right(rows=BARS, values={(FIRST, "adj_close"): "101.79"}),
        told=Told(("unusable_actions",), sessions=("2024-04-08",), words=("150",)),
        both=True,
    ),
    case(
        f"{K20}/utc_shift",
        BASE,
        told=Told(REFUSED, file="AAPL.csv", words=("zone", "UTC"), says=("csv_time_zone",)),
    ),
    case(f"{K21}/caret", BASE.of("^GSPC")),
    # The file's own column takes 5 % off; by the distribution of 5.0 on a close of 104.65 it is 4.78 %.
    form(
        f"{K22}/capital_gains",
        Right("VWILX", bars=124, values={(FIRST, "adj_close"): "96.9267", (LAST, "adj_close"): "91.28"}),
        told=Told(("adjusted_close",), ticker="VWILX"),
    ),
)
TICKERS = {one.name: f"C{number:02}" for number, one in enumerate(CASE_LIST) if one.lake}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture(scope="module")
def lake_of_forms(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, instance: Path
) -> Callable[[str], Outcome]:
    """One run, when it is first asked for, of all cases that share a lake: a folder in which each file has a form of its own."""

    @cache
    def run(lake: str) -> Outcome:
        names = [one.name for one in CASE_LIST if one.lake == lake]
        tickers = [TICKERS[name] for name in names]
        house = new_house(tmp_path_factory.mktemp(lake), instance, tickers, **LAKES[lake])
        for name, ticker in zip(names, tickers, strict=True):
            (file,) = (CASES / name / "prices").iterdir()
            house.put_file(f"{ticker}.csv", file.read_bytes())
        return house.run()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in CASE_LIST if one.lake], ids=lambda one: one.name)
def test_a_form_of_a_file_gives_the_right_bars_in_a_folder_of_many_forms(
    one: Case, lake_of_forms: Callable[[str], Outcome]
) -> None:
    ticker = TICKERS[one.name]
    told = one.told and one.told.of(ticker, f"{ticker}.csv")
    outcome = lake_of_forms(one.lake or "")
    assert_right(outcome, [right.of(ticker) for right in one.right], told, both=one.both)


@pytest.mark.slow
@pytest.mark.slice(5)
@pytest.mark.parametrize("one", [one for one in CASE_LIST if not one.lake], ids=lambda one: one.name)
def test_a_folder_gives_the_right_bars_or_says_why_not(
    one: Case, spark: SparkSession, tmp_path: Path, instance: Path
) -> None:
    outcome = house_of(one.name, tmp_path / "house", instance).run(**one.overrides)
    assert_right(outcome, one.right, one.told, both=one.both)
    if one.name.startswith(K20):
        assert not wrong_bars(outcome.bars("AAPL"), BARS)  # told or not, no bar is a day early


def test_every_case_and_every_file_of_it_is_here() -> None:
    folders = {str(path.parent.relative_to(CASES)) for path in CASES.rglob("lakehouse.toml")}
    by_hand = {name for name in folders if name.split("_")[0] in ("k06", "k23", "k24", "k25")}
    assert folders - by_hand == {one.name for one in CASE_LIST}
    assert {name.split("/")[0] for name in folders - by_hand} == set(KINDS)
