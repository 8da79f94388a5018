"""YahooSource over the real yfinance and curl_cffi, against a server of the test's own that answers as Yahoo.

Belongs here: what is delivered, what is reported as failed, how many requests a fault costs. Not here: what
the values mean, and Yahoo itself.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from stock_lakehouse.sources import DELIVERED_COLUMNS, Delivery, DeliveryFailure, FailureKind, Source, SourceError
from stock_lakehouse.sources.yahoo import YahooSource
from stock_lakehouse_tests.yahoo_server import (
    DAYS,
    LONDON,
    NEW_YORK,
    PRICES,
    SYDNEY,
    THROTTLED,
    TOKYO,
    Answer,
    bars,
    error,
    no_bars,
    opening,
    result_of,
)

FIRST, LAST = date(2024, 1, 2), date(2024, 1, 5)


@pytest.fixture
def slept() -> list[float]:
    """The seconds that the source would have waited between attempts."""
    return []


@pytest.fixture
def source(slept: list[float]) -> YahooSource:
    return YahooSource(requests_per_second=1000, timeout_seconds=10, sleep=slept.append)


def ask(source: Source, *tickers: str, first: date = FIRST, last: date = LAST) -> Delivery:
    """The only delivery of a request."""
    (delivery,) = source.deliver(tickers, first, last)
    return delivery


def column(delivery: Delivery, name: str, ticker: str | None = None) -> list[str | None]:
    rows = delivery.rows.to_pylist()
    return [row[name] for row in rows if ticker is None or row["ticker"] == ticker]


# --- what is delivered -------------------------------------------------------------------------------------


def test_rows_have_the_delivered_columns_and_prices_that_parse_to_the_doubles_of_the_answer(yahoo, source):
    yahoo.answers["AAPL"] = [bars("AAPL")]
    delivery = ask(source, "AAPL")
    assert delivery.rows.schema.names == list(DELIVERED_COLUMNS)
    assert {str(kind) for kind in delivery.rows.schema.types} == {"string"}
    assert delivery.failed == {}
    for name in ("open", "high", "low", "close"):
        assert [float(text) for text in column(delivery, name)] == PRICES
    assert [float(text) for text in column(delivery, "adj_close")] == [price / 2 for price in PRICES]
    assert delivery.rows.to_pylist()[1] == {
        "ticker": "AAPL",
        "symbol": "AAPL",
        "date": "2024-01-03",
        "open": "187.14999389648438",
        "high": "187.14999389648438",
        "low": "187.14999389648438",
        "close": "187.14999389648438",
        "adj_close": "93.57499694824219",
        "volume": "1001",
        "dividends": "0.0",
        "stock_splits": "0.0",
        "capital_gains": None,
        "problem": None,
        "line": None,
        "adjusted_to": "2024-01-05",
        "file": None,
        "line_number": None,
        "session": "2024-01-03",
        "decimal": None,
        "basis": "split_adjusted",
        "adj_close_as_of": None,
        "says": "dividends,splits",
    }
    assert yahoo.requests() == {"getcrumb": 1, "AAPL": 1}


def test_symbol_is_what_the_answer_says_and_ticker_what_was_asked(yahoo, source):
    yahoo.answers["FB"] = [bars("META")]
    delivery = ask(source, "FB")
    assert set(column(delivery, "ticker")) == {"FB"}
    assert set(column(delivery, "symbol")) == {"META"}


def test_last_is_included_and_what_comes_two_weeks_before_the_first_day(yahoo, source):
    early = [date(2023, 12, 19), date(2023, 12, 20), *DAYS]  # 2023-12-20 is 14 days before DAYS[1]
    yahoo.answers["AAPL"] = [bars("AAPL", early, [1.0, 2.0, *PRICES])]
    found = column(ask(source, "AAPL", first=DAYS[1], last=DAYS[2]), "date")
    assert found == ["2023-12-20", "2024-01-02", "2024-01-03", "2024-01-04"]
    (query,) = [query for key, query, _ in yahoo.asked if key == "AAPL"]
    assert int(query["period1"]) <= opening(DAYS[1]) < opening(DAYS[2]) < int(query["period2"])
    assert query["interval"] == "1d"


def test_the_newest_bar_of_the_answer_says_until_when_prices_are_adjusted_whatever_days_were_asked_for(yahoo, source):
    answer = bars("AAPL", DAYS, PRICES)
    for values in result_of(answer)["indicators"]["quote"][0].values():
        values[3] = None  # the last one is a bar that is not there yet
    yahoo.answers["AAPL"] = [answer]
    delivery = ask(source, "AAPL", first=DAYS[0], last=DAYS[1])
    assert column(delivery, "date") == [str(DAYS[0]), str(DAYS[1])]
    assert column(delivery, "adjusted_to") == [str(DAYS[2])] * 2
    (query,) = [query for key, query, _ in yahoo.asked if key == "AAPL"]
    assert int(query["period2"]) > time.time()


def test_tickers_come_in_batches_in_the_order_asked(yahoo, source):
    tickers = ["AAPL", "MSFT", "GOOG", "NVDA", "META"]
    yahoo.answers |= {ticker: [bars(ticker)] for ticker in tickers}
    source.batch_size = 2
    deliveries = list(source.deliver(tickers, FIRST, LAST))
    assert [list(dict.fromkeys(column(one, "ticker"))) for one in deliveries] == [
        ["AAPL", "MSFT"],
        ["GOOG", "NVDA"],
        ["META"],
    ]
    assert yahoo.requests() == {"getcrumb": 1} | dict.fromkeys(tickers, 1)


def test_nothing_is_asked_for_no_tickers(yahoo, source):
    assert list(source.deliver([], FIRST, LAST)) == []
    assert not yahoo.asked


@pytest.mark.parametrize(
    ("zone", "friday"),
    [
        (NEW_YORK, date(2024, 3, 8)),
        (NEW_YORK, date(2024, 11, 1)),
        (LONDON, date(2024, 3, 29)),
        (SYDNEY, date(2024, 4, 5)),  # opens at 23:00 UTC of the day before, then at 00:00
        (SYDNEY, date(2024, 10, 4)),
        (TOKYO, date(2024, 3, 29)),
    ],
)
def test_dates_are_those_of_the_exchange_on_both_sides_of_a_clock_change(yahoo, source, zone, friday):
    monday = friday + timedelta(days=3)
    yahoo.answers["T"] = [bars("T", [friday, monday], PRICES[:2], zone)]
    assert column(ask(source, "T", first=friday, last=monday), "date") == [str(friday), str(monday)]
    (query,) = [query for key, query, _ in yahoo.asked if key == "T"]
    assert int(query["period1"]) <= opening(friday, zone) < opening(monday, zone) < int(query["period2"])


def test_dividends_and_splits_stand_at_their_day_and_are_0_elsewhere(yahoo, source):
    at = {n: opening(day) for n, day in enumerate(DAYS)}
    events = {
        "dividends": {str(at[1]): {"amount": 0.24, "date": at[1]}},
        "splits": {str(at[3]): {"date": at[3], "numerator": 4, "denominator": 1, "splitRatio": "4:1"}},
    }
    yahoo.answers["AAPL"] = [bars("AAPL", events=events)]
    delivery = ask(source, "AAPL")
    assert column(delivery, "dividends") == ["0.0", "0.24", "0.0", "0.0"]
    assert column(delivery, "stock_splits") == ["0.0", "0.0", "0.0", "4.0"]


def test_a_dividend_on_a_session_without_a_bar_is_delivered_with_null_prices(yahoo, source):
    at = opening(DAYS[3])
    events = {"dividends": {str(at): {"amount": 0.24, "date": at}}}
    yahoo.answers["AAPL"] = [bars("AAPL", DAYS[:3], PRICES[:3], events=events)]
    row = ask(source, "AAPL").rows.to_pylist()[3]
    assert (row["date"], row["close"], row["volume"], row["dividends"]) == ("2024-01-05", None, None, "0.24")


def split_on(day: date, numerator: float = 10) -> dict[str, Any]:
    at = opening(day)
    return {"splits": {str(at): {"date": at, "numerator": numerator, "denominator": 1, "splitRatio": f"{numerator}:1"}}}


def test_an_event_of_a_day_without_a_row_stands_at_its_own_day_not_at_the_bar_before(yahoo, source):
    days = [DAYS[0], DAYS[1], DAYS[3]]
    yahoo.answers["AAPL"] = [bars("AAPL", days, PRICES[:3], events=split_on(DAYS[2]))]
    rows = {row["date"]: row for row in ask(source, "AAPL").rows.to_pylist()}
    assert {day: row["stock_splits"] for day, row in rows.items()} == {
        "2024-01-02": "0.0",
        "2024-01-03": "0.0",
        "2024-01-04": "10.0",
        "2024-01-05": "0.0",
    }
    assert rows["2024-01-04"]["close"] is None


def test_an_event_before_the_first_bar_of_the_answer_is_delivered(yahoo, source):
    yahoo.answers["AAPL"] = [bars("AAPL", DAYS[2:], PRICES[2:], events=split_on(DAYS[1]))]
    delivery = ask(source, "AAPL", first=DAYS[2])
    assert column(delivery, "date") == ["2024-01-04", "2024-01-05", "2024-01-03"]
    assert column(delivery, "stock_splits") == ["0.0", "0.0", "10.0"]


def test_a_split_announced_for_a_day_after_the_newest_bar_is_delivered_whatever_was_asked(yahoo, source):
    yahoo.answers["AAPL"] = [bars("AAPL", DAYS[:3], PRICES[:3], events=split_on(DAYS[3]))]
    delivery = ask(source, "AAPL", first=DAYS[0], last=DAYS[1])
    assert column(delivery, "date") == ["2024-01-02", "2024-01-03", "2024-01-05"]
    assert column(delivery, "stock_splits") == ["0.0", "0.0", "10.0"]
    assert set(column(delivery, "adjusted_to")) == {"2024-01-04"}


def test_capital_gains_of_a_fund_are_delivered(yahoo, source):
    at = opening(DAYS[1])
    answer = bars("FUND", events={"capitalGains": {str(at): {"amount": 5.09, "date": at}}})
    result_of(answer)["meta"]["instrumentType"] = "MUTUALFUND"
    yahoo.answers["FUND"] = [answer]
    assert column(ask(source, "FUND"), "capital_gains") == [None, "5.09", None, None]


@pytest.mark.parametrize("others", [["MSFT"], []], ids=["beside another ticker", "alone"])
def test_a_bar_without_any_value_is_delivered_with_nulls(yahoo, source, others):
    null_bar = bars("AAPL")
    for series in (
        *result_of(null_bar)["indicators"]["quote"],
        *result_of(null_bar)["indicators"]["adjclose"],
    ):
        for values in series.values():
            values[2] = None
    yahoo.answers |= {"AAPL": [null_bar], "MSFT": [bars("MSFT")]}
    delivery = ask(source, "AAPL", *others)
    rows = [row for row in delivery.rows.to_pylist() if row["ticker"] == "AAPL"]
    assert [row["date"] for row in rows] == [day.isoformat() for day in DAYS]
    said = {name for name, value in rows[2].items() if value is not None}
    actions = {"dividends", "stock_splits", "says"}
    assert said == {"ticker", "symbol", "date", "session", "basis", "adjusted_to", *actions}


def test_a_single_missing_value_is_null(yahoo, source):
    answer = bars("AAPL")
    result_of(answer)["indicators"]["quote"][0]["high"][1] = None
    yahoo.answers["AAPL"] = [answer]
    delivery = ask(source, "AAPL")
    assert column(delivery, "high")[1] is None
    assert float(column(delivery, "close")[1] or "nan") == PRICES[1]


def test_a_bar_without_a_date_is_delivered_with_a_date_that_none_can_take_for_one(yahoo, source):
    answer = bars("AAPL")
    result_of(answer)["timestamp"][1] = None
    yahoo.answers["AAPL"] = [answer]
    delivery = ask(source, "AAPL")
    assert sorted(column(delivery, "date")) == ["2024-01-02", "2024-01-04", "2024-01-05", "NaT"]


def test_bars_out_of_order_are_sorted_and_a_repeated_date_is_one_row(yahoo, source):
    shuffled = [DAYS[2], DAYS[0], DAYS[3], DAYS[0], DAYS[1]]
    yahoo.answers["AAPL"] = [bars("AAPL", shuffled, [3.0, 1.0, 4.0, 1.0, 2.0])]
    delivery = ask(source, "AAPL")
    assert column(delivery, "date") == [day.isoformat() for day in DAYS]
    assert column(delivery, "close") == ["1.0", "2.0", "3.0", "4.0"]


def test_an_edit_of_past_bars_is_seen_by_the_next_request_of_the_process(yahoo, source):
    yahoo.answers["AAPL"] = [bars("AAPL"), bars("AAPL", closes=[1.0, 2.0, 3.0, 4.0])]
    assert [float(text) for text in column(ask(source, "AAPL"), "close")] == PRICES
    assert column(ask(source, "AAPL"), "close") == ["1.0", "2.0", "3.0", "4.0"]
    assert yahoo.requests()["AAPL"] == 2


# --- no bars, and no such ticker ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        no_bars("AAPL"),
        error("Bad Request", "Data doesn't exist for startDate = 1704160800, endDate = 1704585600", 400),
        bars("AAPL", [date(2024, 1, 8)], [1.0]),
    ],
    ids=["no sessions", "before the first bar", "only a session after it"],
)
def test_an_empty_range_is_no_failure_and_is_not_asked_again(yahoo, source, slept, answer):
    yahoo.answers["AAPL"] = [answer]
    delivery = ask(source, "AAPL", first=date(2024, 1, 6), last=date(2024, 1, 7))
    assert (delivery.rows.num_rows, delivery.failed, slept) == (0, {}, [])
    assert delivery.rows.schema.names == list(DELIVERED_COLUMNS)


def test_an_unknown_ticker_fails_with_yahoos_words_and_without_retries(yahoo, source, slept):
    yahoo.answers["AAPL"] = [bars("AAPL")]
    delivery = ask(source, "NOSUCH", "AAPL")
    reason = "Yahoo does not know it: No data found, symbol may be delisted"
    assert delivery.failed == {"NOSUCH": DeliveryFailure(FailureKind.UNKNOWN_TICKER, reason)}
    assert set(column(delivery, "ticker")) == {"AAPL"}
    assert slept == []
    assert yahoo.requests()["NOSUCH"] == 2  # yfinance asks once more with another cookie


# --- faults ------------------------------------------------------------------------------------------------

FAULTS = {
    "throttled": (THROTTLED, "HTTP status 429"),
    "broken": (Answer("<html>", 503), "HTTP status 503"),
    "not JSON": (Answer("{"), "JSONDecodeError"),
    "an empty object": (Answer({}), "no price data found"),
    "no result": (Answer({"chart": {"result": None, "error": None}}), "no price data found"),
    "another error": (error("Internal", "Oops", 200), "Oops"),
    "no metadata": (Answer({"chart": {"result": [{"indicators": {"quote": [{"open": []}]}}]}}), "KeyError"),
    "a list": (Answer({"chart": ["?"]}), "TypeError"),
    "invalid crumb": (
        Answer(
            {"finance": {"result": None, "error": {"code": "Unauthorized", "description": "Invalid Crumb"}}},
            401,
        ),
        "no price data found",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_passing_fault_is_retried_until_the_bars_come(yahoo, source, slept, name):
    fault, _ = FAULTS[name]
    requests_an_attempt = 2 if fault.status == 401 else 1  # yfinance asks once more with another cookie
    yahoo.answers["AAPL"] = [fault] * 2 * requests_an_attempt + [bars("AAPL")]
    delivery = ask(source, "AAPL")
    assert delivery.failed == {}
    assert [float(text) for text in column(delivery, "close")] == PRICES
    assert yahoo.requests()["AAPL"] == 2 * requests_an_attempt + 1
    assert len(slept) == 2


@pytest.mark.parametrize("name", FAULTS)
def test_a_lasting_fault_ends_after_the_attempts_with_its_reason_and_the_others_are_delivered(
    yahoo, source, slept, name
):
    fault, words = FAULTS[name]
    requests_an_attempt = 2 if fault.status == 401 else 1
    yahoo.answers |= {"AAPL": [fault], "MSFT": [bars("MSFT")]}
    delivery = ask(source, "AAPL", "MSFT")
    assert list(delivery.failed) == ["AAPL"]
    assert delivery.failed["AAPL"].kind == "unavailable"
    assert delivery.failed["AAPL"].reason.startswith("gave up after 4 attempts: ")
    assert words in delivery.failed["AAPL"].reason
    assert column(delivery, "date") == column(delivery, "date", "MSFT") == [day.isoformat() for day in DAYS]
    assert yahoo.requests()["AAPL"] == 4 * requests_an_attempt
    assert len(slept) == 3


def test_a_ticker_that_failed_is_asked_anew_by_the_next_request_of_the_process(yahoo, source):
    yahoo.answers["AAPL"] = [Answer("{")] * 4 + [bars("AAPL")]
    assert "AAPL" in ask(source, "AAPL").failed
    assert ask(source, "AAPL").rows.num_rows == 4


def test_waits_between_attempts_are_random_up_to_a_bound_that_doubles_to_a_minute(yahoo, slept):
    yahoo.answers["AAPL"] = [THROTTLED]
    ask(YahooSource(requests_per_second=1000, attempts=12, sleep=slept.append), "AAPL")
    bounds = [min(2.0 * 2**n, 60.0) for n in range(11)]
    assert all(0 <= seconds <= bound for seconds, bound in zip(slept, bounds, strict=True))
    assert len(set(slept)) == 11


@pytest.mark.parametrize("form", ["seconds", "date", "too long", "unreadable"])
def test_retry_after_sets_the_least_wait_up_to_a_minute(yahoo, source, slept, form):
    header, least, most = {
        "seconds": ("30", 30, 30),
        "date": (format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True), 20, 50),
        "too long": ("86400", 60, 60),
        "unreadable": ("soon", 0, 2),
    }[form]
    yahoo.answers["AAPL"] = [Answer("Too Many Requests", 429, {"Retry-After": header}), bars("AAPL")]
    assert ask(source, "AAPL").failed == {}
    assert len(slept) == 1
    assert least <= slept[0] <= most


def test_a_server_that_never_answers_costs_its_ticker_only_and_ends(yahoo, slept):
    yahoo.answers |= {"AAPL": [Answer("", hang=True)], "MSFT": [bars("MSFT")]}
    source = YahooSource(requests_per_second=1000, attempts=2, timeout_seconds=1, sleep=slept.append)
    before = time.monotonic()
    delivery = ask(source, "AAPL", "MSFT")
    assert time.monotonic() - before < 10  # about 2; yfinance's own timeouts would make it 20
    assert list(delivery.failed) == ["AAPL"]
    assert "Timeout" in delivery.failed["AAPL"].reason
    assert set(column(delivery, "ticker")) == {"MSFT"}
    assert yahoo.requests()["AAPL"] == 2


def test_an_answer_after_the_hang_is_delivered(yahoo, slept):
    yahoo.answers["AAPL"] = [Answer("", hang=True), bars("AAPL")]
    source = YahooSource(requests_per_second=1000, timeout_seconds=1, sleep=slept.append)
    assert ask(source, "AAPL").rows.num_rows == 4


def test_a_crumb_that_never_comes_costs_its_timeout_only(yahoo, slept):
    yahoo.answers |= {"getcrumb": [Answer("", hang=True)], "AAPL": [bars("AAPL")]}
    source = YahooSource(requests_per_second=1000, timeout_seconds=1, sleep=slept.append)
    before = time.monotonic()
    assert ask(source, "AAPL").rows.num_rows == 4
    assert time.monotonic() - before < 10  # about 1; yfinance gives a crumb 30


# --- pace, settings, surroundings --------------------------------------------------------------------------


def test_every_request_of_every_thread_and_source_shares_one_rate_limit(yahoo, monkeypatch):
    tickers = ["AAPL", "MSFT", "GOOG", "NVDA"]
    yahoo.answers |= {ticker: [bars(ticker)] for ticker in tickers}
    permits: list[tuple[int, float, float]] = []
    from pyrate_limiter import Limiter

    acquire = Limiter.try_acquire

    def timed(limiter: Limiter, *args: Any, **options: Any) -> Any:
        before = time.monotonic()
        answer = acquire(limiter, *args, **options)
        permits.append((id(limiter), before, time.monotonic()))
        return answer

    monkeypatch.setattr(Limiter, "try_acquire", timed)
    for _ in range(2):
        ask(YahooSource(requests_per_second=25), *tickers)
    assert len({limiter for limiter, _, _ in permits}) == 1
    assert len(permits) == len(yahoo.asked) == 9  # a crumb, and twice four tickers
    taken = max(after for _, _, after in permits) - min(before for _, before, _ in permits)
    assert taken >= 8 / 25 - 0.01  # a lower bound: a slow machine only lengthens it


def test_a_rate_below_one_a_second_waits_more_than_a_second(yahoo, monkeypatch):
    import pyrate_limiter.limiter

    paused: list[float] = []
    monkeypatch.setattr(pyrate_limiter.limiter, "sleep", paused.append)
    yahoo.answers["AAPL"] = [bars("AAPL")]
    ask(YahooSource(requests_per_second=0.25), "AAPL")
    assert 1 < sum(paused) <= 4  # the crumb goes at once, the bars an interval of 4 s after it


@pytest.mark.parametrize("setting", ["batch_size", "requests_per_second", "attempts", "timeout_seconds"])
def test_an_impossible_setting_is_refused_by_name(setting):
    with pytest.raises(SourceError, match=setting):
        YahooSource(**{setting: 0})


def test_a_range_that_ends_before_it_begins_is_refused(yahoo, source):
    with pytest.raises(SourceError, match="2024-01-01"):
        ask(source, "AAPL", last=date(2024, 1, 1))
    assert not yahoo.asked


def test_yfinances_caches_lie_in_a_folder_of_the_process_not_in_the_users(yahoo, source):
    import platformdirs
    from yfinance import cache

    yahoo.answers["AAPL"] = [bars("AAPL")]
    ask(source, "AAPL")
    for manager in (cache._TzDBManager, cache._CookieDBManager, cache._ISINDBManager):
        assert "stock-lakehouse-yfinance-" in manager.get_location()
        assert not manager.get_location().startswith(platformdirs.user_cache_dir())
