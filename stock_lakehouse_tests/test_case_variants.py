"""Other inputs of the kinds in cases/, written here from one history, so that each has its right values beside it.

A lake a setting, a ticker a variant: files of all forms lie in one folder. Cases of several deliveries have their variants in
test_case_steps.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse_tests.pipeline import (
    CASES,
    House,
    Outcome,
    Right,
    Told,
    assert_right,
    bars_in,
    new_house,
    wrong_bars,
)

BARS = bars_in(CASES / "k07_intraday_and_twice/two_files/prices/AAPL.csv")
DAYS = sorted(BARS)
FIRST, LAST = DAYS[0], DAYS[-1]
REFUSED = ("files_read", "quarantine")
Row = tuple[str, float, float, float, float, float]  # day, open, high, low, close, volume
EARLY, EX_DATE, LATE = DAYS[20], "2024-04-08", "2024-05-13"
QUIET = "2024-02-07"  # within the first 60 sessions; the close moves by 0.07 %


def before(day: str) -> str:
    return DAYS[DAYS.index(day) - 1]


def close_of(day: str) -> float:
    return BARS[day][3]


def text_of(
    header: str,
    line: Callable[[str, float, float, float, float, float], str],
    days: Iterable[str] = DAYS,
    above: str = "",
    below: str = "",
) -> str:
    """A file: a line of `line` a day, of its day, open, high, low, close and volume."""
    return above + header + "\n" + "".join(f"{line(day, *BARS[day])}\n" for day in days) + below


def plain(day: str, o: float, h: float, low: float, c: float, v: float) -> str:
    return f"{day},{o:.2f},{h:.2f},{low:.2f},{c:.2f},{v:.0f}"


def with_actions(
    dividends: Mapping[str, str], splits: Mapping[str, str], none: str = ""
) -> Callable[[str, float, float, float, float, float], str]:
    return lambda day, *values: f"{plain(day, *values)},{dividends.get(day, none)},{splits.get(day, none)}"


def dated(form: Callable[[date], str]) -> Callable[[str, float, float, float, float, float], str]:
    return lambda day, *values: plain(day, *values).replace(day, form(date.fromisoformat(day)))


def as_traded(ratio: float, ex_date: str) -> dict[str, tuple[float, ...]]:
    """BARS as they traded if `ratio` new shares came for an old one on `ex_date`."""
    return {
        day: (*(price * ratio for price in values[:4]), values[4] / ratio) if day < ex_date else values
        for day, values in BARS.items()
    }


def after_dividends(day: str, dividends: Mapping[str, float]) -> str:
    """The close of `day` adjusted for later dividends, to four decimals."""
    value = close_of(day)
    for ex_date, amount in dividends.items():
        value *= 1 - amount / close_of(before(ex_date)) if day < ex_date else 1
    return f"{value:.4f}"


PLAIN = "Date,Open,High,Low,Close,Volume"
ACTIONS = f"{PLAIN},Dividends,Stock Splits"
SAME = Right(rows=BARS)


@dataclass(frozen=True)
class Variant:
    """A file and what must come of it. `content`: text, or bytes as they are. `never_wrong`: told or not, no bar is wrong."""

    content: str | bytes
    right: Right | None = SAME
    told: Told | None = None
    both: bool = False
    never_wrong: bool = False


def paid(dividends: Mapping[str, float], also: Sequence[tuple[str, str, str]] = ()) -> Right:
    """BARS, an adjusted close by `dividends`, and these and `also` as the actions."""
    return Right(
        rows=BARS,
        values={(day, "adj_close"): after_dividends(day, dividends) for day in (FIRST, EARLY, LAST)},
        actions=[*((day, "dividend", str(amount)) for day, amount in dividends.items()), *also],
    )


def dollars(day: str, o: float, h: float, low: float, c: float, v: float) -> str:
    return f'"{date.fromisoformat(day):%b %d, %Y}","${o:,.2f}","${h:,.2f}","${low:,.2f}","${c:,.2f}","{v:,.0f}"'


def comma(number: float, decimals: int = 2) -> str:
    return f"{number:.{decimals}f}".replace(".", ",")


def midnight(zone: str) -> Callable[[date], str]:
    """The start of a day in `zone`, as JavaScript writes it."""

    def form(day: date) -> str:
        start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        return f"{start:%Y-%m-%dT%H:%M:%S.000Z}"

    return form


NULL_ROW = ",,,,,"
SATURDAY = "2024-03-16"
MONDAY = "2024-03-18"
SPLIT = {EX_DATE: "1.5"}
DIVIDEND = {EARLY: "0.75", LATE: "1.25"}
PAID = {EARLY: 0.75, LATE: 1.25}
STOCK_DIVIDEND = as_traded(1.05, QUIET)
TWICE = {day: tuple(price / 2 for price in values) if day < EX_DATE else values for day, values in BARS.items()}
GAIN = {EX_DATE: 5.0}
CONTENT: Mapping[str, tuple[str, Variant]] = {
    # ticker: (kind and what is other about it, the variant)
    "SATDIV": (
        "k01 a dividend on a Saturday, on a row of its own",
        Variant(
            text_of(ACTIONS, with_actions({}, {}, "0"), below=f"{SATURDAY}{NULL_ROW},0.5,0\n"), paid({MONDAY: 0.5})
        ),
    ),
    "BADBAR": (
        "k01 a split of 3 for 2 on a bar whose high is below its low",
        Variant(
            text_of(ACTIONS, with_actions({}, SPLIT, "0")).replace(
                with_actions({}, SPLIT, "0")(EX_DATE, *BARS[EX_DATE]),
                f"{EX_DATE},100,90,110,100,1000,0,1.5",
            ),
            Right(
                rows={day: values for day, values in BARS.items() if day != EX_DATE},
                actions=[(EX_DATE, "split", "1.5")],
            ),
        ),
    ),
    "ONLYSPLIT": (
        "k04 a column of splits alone, blank on other days",
        Variant(
            text_of(f"{PLAIN},Stock Splits", lambda day, *v: f"{plain(day, *v)},{SPLIT.get(day, '')}"),
            Right(rows=BARS, values={(FIRST, "adj_close"): f"{close_of(FIRST)}"}, actions=[(EX_DATE, "split", "1.5")]),
        ),
    ),
    "STOCKDIV": (
        "k05 a stock dividend of 5 % in the first sessions, named and not applied",
        Variant(
            text_of(
                ACTIONS,
                lambda day, *_: with_actions({}, {QUIET: "1.05"}, "0")(day, *STOCK_DIVIDEND[day]),
            ),
            None,
            Told(("split_moves",), sessions=(QUIET,)),
        ),
    ),
    "TWICE": (
        "k05 a split of 2 that is applied twice, so that the price doubles",
        Variant(
            text_of(ACTIONS, lambda day, *_: with_actions({}, {EX_DATE: "2"}, "0")(day, *TWICE[day])),
            None,
            Told(("split_moves",), sessions=(EX_DATE,)),
        ),
    ),
    "MINUTES": (
        "k07 a date and a time of day, two rows a session",
        Variant(
            text_of(
                "Date,Time,Open,High,Low,Close,Volume",
                lambda day, o, h, low, c, v: (
                    f"{day},10:00,{o},{h},{low},{low},{v / 2:.0f}\n{day},16:00,{c},{h},{low},{c},{v / 2:.0f}"
                ),
            ),
            None,
            Told(("one_row_a_session", *REFUSED), words=("2024-", "intraday", "several"), says=("intraday", "several")),
        ),
    ),
    "SAMETWICE": (
        "k07 rows that are there twice and equal are no finding",
        Variant(
            text_of(PLAIN, lambda day, *v: f"{plain(day, *v)}\n{plain(day, *v)}"),
            Right(rows=BARS, green=("one_row_a_session",)),
        ),
    ),
    "NOROWS": (
        "k08 a file of a header alone",
        Variant(f"{PLAIN}\n", None, Told(("files_read",), file="NOROWS.csv", ticker=None)),
    ),
    "DASHES": (
        "k09 #N/A and - stand for missing",
        Variant(
            text_of(
                "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits",
                lambda day, o, h, low, c, v: f"{day},{o},{h},{low},{c},#N/A,{v:.0f},{DIVIDEND.get(day, '-')},#N/A",
            ),
            paid(PAID),
        ),
    ),
    "PYNAN": (
        "k09 <NA>, nan and NULL stand for missing",
        Variant(
            text_of(
                "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits",
                lambda day, o, h, low, c, v: f"{day},{o},{h},{low},{c},nan,{v:.0f},{DIVIDEND.get(day, '<NA>')},NULL",
            ),
            paid(PAID),
        ),
    ),
    "VOLUMES": (
        "k10 volumes as 7.206e5 and with a fraction below and above a half",
        Variant(
            text_of(
                PLAIN,
                lambda day, o, h, low, c, v: (
                    f"{day},{o},{h},{low},{c},"
                    + {0: f"{v / 1e5:.6f}e5", 1: f"{v + 0.4:.1f}", 2: f"{v - 0.4:.1f}"}[date.fromisoformat(day).day % 3]
                ),
            ),
        ),
    ),
    "NOOPEN": (
        "k11 a dash for the open, N/A for the volume",
        Variant(
            text_of(PLAIN, lambda day, o, h, low, c, v: f"{day},-,{h},{low},{c},N/A"),
            Right(rows={day: (None, *values[1:4], None) for day, values in BARS.items()}),
            Told(("incomplete_bars", *REFUSED), words=("open", "volume")),
        ),
    ),
    "ALPHA": (
        "k12 numbered titles in capitals",
        Variant(
            text_of(
                "timestamp,1. Open,2. High,3. Low,4. Close,5. Volume,6. Dividend Amount,7. Split Coefficient",
                with_actions(DIVIDEND, SPLIT, "0.0000"),
            ),
            paid(PAID, [(EX_DATE, "split", "1.5")]),
        ),
    ),
    "UNUSED": (
        "k12 a column whose name says dividend and that is none of ours",
        Variant(
            text_of(f"{PLAIN},Dividend Yield %", lambda day, *v: f"{plain(day, *v)},1.2"),
            SAME,
            Told(("files_read",), file="UNUSED.csv", words=("Dividend Yield",)),
            both=True,
        ),
    ),
    "PRICECLOSE": (
        "k13 price and close, day and date side by side",
        Variant(
            text_of(
                "Day,Date,Price,Open,High,Low,Close,Volume",
                lambda day, o, h, low, c, v: f"Mon,{day},{c + 0.01:.2f},{o},{h},{low},{c},{v:.0f}",
            )
        ),
    ),
    "YFADJ": (
        "k13 yfinance's three lines of header, with an adjusted close",
        Variant(
            text_of(
                "Price,Adj Close,Close,High,Low,Open,Volume\nTicker,YFADJ,YFADJ,YFADJ,YFADJ,YFADJ,YFADJ\nDate,,,,,,",
                lambda day, o, h, low, c, v: f"{day},{c},{c},{h},{low},{o},{v:.0f}",
            )
        ),
    ),
    "SLASHES": ("k14 dates as 2024/01/02", Variant(text_of(PLAIN, dated(lambda day: f"{day:%Y/%m/%d}")))),
    "MONTHS": ("k14 dates as 02-Jan-2024", Variant(text_of(PLAIN, dated(lambda day: f"{day:%d-%b-%Y}")))),
    "DOLLARS": ("k14 Jan 02, 2024, dollars and thousands", Variant(text_of(PLAIN, dollars))),
    "DAYFIRST": (
        "k14 days before months, as the days beyond 12 show",
        Variant(text_of(PLAIN, dated(lambda day: f"{day:%d/%m/%Y}"))),
    ),
    "AMBIGUOUS": (
        "k14 days and months that can be either",
        Variant(
            text_of(
                PLAIN,
                dated(lambda day: f"{day:%d/%m/%Y}"),
                days=[day for day in DAYS if int(day[-2:]) <= 12 and day[-2:] != day[5:7]],
            ),
            None,
            Told(REFUSED, words=("csv_dates",), says=("csv_dates",)),
            never_wrong=True,
        ),
    ),
    "MILLIS": (
        "k14 epoch milliseconds of the exchange's opening",
        Variant(
            text_of(
                PLAIN,
                dated(
                    lambda day: str(
                        int(
                            datetime(
                                day.year, day.month, day.day, 9, 30, tzinfo=ZoneInfo("America/New_York")
                            ).timestamp()
                        )
                        * 1000
                    )
                ),
            )
        ),
    ),
    "TABS": ("k14 tabs", Variant(text_of(PLAIN, plain).replace(",", "\t"))),
    "MILLIONS": (
        "k14 volumes in K and M",
        Variant(
            text_of(
                PLAIN,
                lambda day, o, h, low, c, v: (
                    f"{day},{o},{h},{low},{c}," + (f"{v / 1e6:.4f}M" if v >= 1e6 else f"{v / 1e3:.1f}K")
                ),
            )
        ),
    ),
    "COMMAS": (
        "k14 decimal commas, semicolons, days before months with dots",
        Variant(
            text_of(
                PLAIN.replace(",", ";"),
                lambda day, o, h, low, c, v: ";".join(
                    [f"{date.fromisoformat(day):%d.%m.%Y}", *map(comma, (o, h, low, c)), f"{v:,.0f}".replace(",", ".")]
                ),
            )
        ),
    ),
    "DECIMALS": (
        "k14 numbers that can be 1.234 or 1234",
        Variant(
            text_of(
                PLAIN.replace(",", ";"),
                lambda day, *_: f"{day};1.234;1.235;1.233;1.234;100",
            ),
            None,
            Told(REFUSED, words=("csv_decimal",), says=("csv_decimal",)),
        ),
    ),
    "UTF16BE": (
        "k14 UTF-16, high byte first, tabs, as a spreadsheet's Unicode text",
        Variant(b"\xfe\xff" + text_of(PLAIN, plain).replace(",", "\t").replace("\n", "\r\n").encode("utf-16-be")),
    ),
    "PREAMBLE": (
        "k14 three lines before the header, a sum behind the last bar",
        Variant(text_of(PLAIN, plain, above='"Historical prices"\nSymbol: PREAMBLE\n\n', below="Total rows,124,,,,\n")),
    ),
    "TRAILING": (
        "k14 an empty last field in the header too",
        Variant(text_of(f"{PLAIN},", lambda *v: f"{plain(*v)},")),
    ),
    "RATIOS": (
        "k17 a split as 3 for 2",
        Variant(text_of(ACTIONS, with_actions({}, {EX_DATE: "3 for 2"}, "0")), paid({}, [(EX_DATE, "split", "1.5")])),
    ),
    "REVERSE": (
        "k17 a split as 1/10",
        Variant(text_of(ACTIONS, with_actions({}, {EX_DATE: "1/10"})), paid({}, [(EX_DATE, "split", "0.1")])),
    ),
    "HUGE": (
        "k18 a price of 3e16",
        Variant(
            text_of(PLAIN, lambda day, o, h, low, c, v: f"{day},{o:.2f}e14,{h:.2f}e14,{low:.2f}e14,{c:.2f}e14,{v:.0f}"),
            Right(rows={day: (*(float(f"{p:.2f}e14") for p in values[:4]), values[4]) for day, values in BARS.items()}),
        ),
    ),
    "EQUAL": (
        "k19 a dividend of just the close before",
        Variant(
            text_of(ACTIONS, with_actions({EX_DATE: f"{close_of(before(EX_DATE))}"}, {}, "0")),
            Right(rows=BARS, values={(FIRST, "adj_close"): f"{close_of(FIRST)}"}),
            Told(("unusable_actions",), sessions=(EX_DATE,), words=(f"{close_of(before(EX_DATE))}",)),
            both=True,
        ),
    ),
    "TOKYO": (
        "k20 midnights of Tokyo as UTC, the afternoon before",
        Variant(
            text_of(PLAIN, dated(midnight("Asia/Tokyo"))),
            SAME,
            Told(REFUSED, words=("zone",), says=("csv_time_zone",)),
            never_wrong=True,
        ),
    ),
    "FUNDGAIN": (
        "k22 a gain that is in the adjusted close by its factor",
        Variant(
            text_of(
                "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits,Capital Gains",
                lambda day, o, h, low, c, v: (
                    f"{day},{o},{h},{low},{c},{after_dividends(day, GAIN)},{v:.0f},0,0,{GAIN.get(day, 0)}"
                ),
            ),
            Right(
                rows=BARS,
                values={(day, "adj_close"): after_dividends(day, GAIN) for day in (FIRST, LAST)},
                green=("adjusted_close",),
            ),
        ),
    ),
}
TICKERS = tuple(CONTENT)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture(scope="module")
def variants(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, instance: Path) -> Outcome:
    house = new_house(tmp_path_factory.mktemp("variants"), instance, TICKERS)
    for ticker, (_, variant) in CONTENT.items():
        content = variant.content
        house.put_file(f"{ticker}.csv", content)
    return house.run()


@pytest.mark.slow
@pytest.mark.parametrize("ticker", TICKERS, ids=lambda ticker: CONTENT[ticker][0])
def test_a_file_of_the_same_kind(ticker: str, variants: Outcome) -> None:
    _, variant = CONTENT[ticker]
    told = variant.told and variant.told.of(ticker, f"{ticker}.csv")
    right = [] if variant.right is None else [variant.right.of(ticker)]
    assert_right(variants, right, told, both=variant.both)
    if variant.never_wrong:
        assert not wrong_bars(variants.bars(ticker), BARS)


# --- settings ---------------------------------------------------------------------------------------------------


def run(tmp_path: Path, instance: Path, files: Mapping[str, str], **settings: str) -> Outcome:
    tickers = sorted({name.split("_")[0] for name in files})
    house: House = new_house(tmp_path / "house", instance, tickers, **settings)
    house.put(**files)
    return house.run()


@pytest.mark.usefixtures("spark")
def test_as_traded_files_with_an_adjusted_close_of_the_download(tmp_path: Path, instance: Path) -> None:
    ratio, dividends = 1.5, {EARLY: 0.6, LATE: 0.75}  # of new shares; as traded the first is 0.9
    traded = as_traded(ratio, EX_DATE)

    def eodhd(day: str, *_: float) -> str:
        o, h, low, c, v = traded[day]
        split = "1.5" if day == EX_DATE else ""
        return f"{day},{o:.6f},{h:.6f},{low:.6f},{c:.6f},{after_dividends(day, dividends)},{v:.4f},{split}"

    def sharadar(day: str, *values: float) -> str:
        o, h, low, c, v = traded[day]
        paid_then = {EARLY: "0.9", LATE: "0.75"}.get(day, "0")
        split = "3:2" if day == EX_DATE else "1"
        return f"{day},{o:.6f},{h:.6f},{low:.6f},{c:.6f},{v:.4f},{after_dividends(day, dividends)},{paid_then},{split}"

    outcome = run(
        tmp_path,
        instance,
        {
            "EODHD": text_of("Date,Open,High,Low,Close,Adjusted_close,Volume,Split Ratio", eodhd),
            "SHARADAR": text_of("date,open,high,low,close,volume,closeadj,divCash,splitFactor", sharadar),
        },
        csv_prices='"as_traded"',
    )
    for ticker, actions in (
        ("EODHD", [(EX_DATE, "split", "1.5")]),
        ("SHARADAR", [(EARLY, "dividend", "0.6"), (EX_DATE, "split", "1.5"), (LATE, "dividend", "0.75")]),
    ):
        values = {(day, "close"): f"{close_of(day)}" for day in (FIRST, before(EX_DATE), EX_DATE, LAST)}
        adjusted = {(day, "adj_close"): after_dividends(day, dividends)[:-1] for day in (FIRST, before(EX_DATE), LAST)}
        move = float(after_dividends(EX_DATE, dividends)) / float(after_dividends(before(EX_DATE), dividends)) - 1
        right = Right(
            ticker,
            bars=124,
            values={**values, **{key: f"{float(value):.2f}" for key, value in adjusted.items()}},
            features={(EX_DATE, "return_1d"): f"{move:.4f}"},
            actions=actions,
            green=("adjusted_close", "split_moves", "price_jumps"),
        )
        assert_right(outcome, [right])


@pytest.mark.usefixtures("spark")
def test_total_return_prices_are_not_adjusted_for_their_dividends_again(tmp_path: Path, instance: Path) -> None:
    def adjusted(day: str, *values: float) -> str:
        factor = float(after_dividends(day, PAID)) / close_of(day)
        o, h, low, c, v = values
        return f"{plain(day, o * factor, h * factor, low * factor, c * factor, v)},{DIVIDEND.get(day, '0.0')},0.0"

    outcome = run(tmp_path, instance, {"TOTAL": text_of(ACTIONS, adjusted)}, csv_prices='"total_return"')
    first = f"{float(after_dividends(FIRST, PAID)):.2f}"
    right = Right(
        "TOTAL",
        bars=124,
        values={(FIRST, "adj_close"): first, (LAST, "adj_close"): f"{close_of(LAST)}"},
        green=("adjusted_close", "price_form"),
    )
    assert_right(outcome, [right])
    assert [(day, kind) for day, kind, _ in outcome.actions("TOTAL")] == [(EARLY, "dividend"), (LATE, "dividend")]


@pytest.mark.usefixtures("spark")
def test_a_day_of_the_download_puts_files_cut_by_quarter_on_one_basis(tmp_path: Path, instance: Path) -> None:
    names = {
        "PARTS_q1": [day for day in DAYS if day < "2024-04-01"],
        "PARTS_q2": [day for day in DAYS if day >= "2024-04-01"],
    }
    files = {
        name: text_of(
            f"Symbol,{ACTIONS}",
            lambda day, *v: f"PARTS,{with_actions({}, SPLIT, '0')(day, *v)}",
            days,
        )
        for name, days in names.items()
    }
    outcome = run(tmp_path, instance, files, csv_adjusted_to="2024-06-28")
    right = Right("PARTS", rows=BARS, actions=[(EX_DATE, "split", "1.5")], green=("split_moves", "price_jumps"))
    assert_right(outcome, [right])


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_settings_say_what_a_file_leaves_open(tmp_path: Path, instance: Path) -> None:
    days = [day for day in DAYS if int(day[-2:]) <= 12]
    outcome = run(
        tmp_path,
        instance,
        {
            "OPENDAY": text_of(PLAIN, dated(lambda day: f"{day:%d/%m/%Y}"), days=days),
            "BERLIN": text_of(PLAIN, dated(midnight("Europe/Berlin"))),
        },
        csv_dates='"day_first"',
        csv_time_zone='"Europe/Berlin"',
    )
    assert_right(outcome, [Right("OPENDAY", rows={day: BARS[day] for day in days}), Right("BERLIN", rows=BARS)])


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_decimal_commas_that_a_file_leaves_open_are_read_by_the_setting(tmp_path: Path, instance: Path) -> None:
    text = text_of(PLAIN.replace(",", ";"), lambda day, *_: f"{day};1.234;1.235;1.233;1.234;1.000")
    outcome = run(tmp_path, instance, {"POINTS": text}, csv_decimal='"comma"')
    assert_right(outcome, [Right("POINTS", rows=dict.fromkeys(DAYS, (1234.0, 1235.0, 1233.0, 1234.0, 1000.0)))])


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_k15_the_wednesdays_of_1968_were_no_sessions(tmp_path: Path, instance: Path) -> None:
    # The exchange closed on Wednesdays from 1968-06-12 to the end of the year, to catch up with its paper.
    first = date(1968, 6, 10)
    days = [first + timedelta(days=n) for n in range(19)]
    sessions = [str(day) for day in days if day.weekday() < 5 and day.weekday() != 2]
    text = f"{PLAIN}\n" + "".join(f"{day},100,101,99,100,1000\n" for day in sessions)
    outcome = run(tmp_path, instance, {"IBM": text}, first_date="1968-06-10", last_date="1968-06-28")
    right = Right(
        "IBM",
        bars=12,
        features={("1968-06-11", "tradable_from"): "1968-06-13"},
        green=("missing_sessions", "gap_diagnosis", "stale_tickers"),
    )
    assert_right(outcome, [right])
