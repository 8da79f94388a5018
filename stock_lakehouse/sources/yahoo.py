"""Daily bars from Yahoo Finance, requested with yfinance one ticker at a time, as text.

Here: requests, their rate, retries, and the difference between "no bars" and "no answer". Not here: the validation of values.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import tenacity

from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.partitions import LOOK_BACK
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources import SPLIT_ADJUSTED, Delivery, DeliveryFailure, FailureKind, SourceError, delivered_table

if TYPE_CHECKING:
    import pyarrow as pa
    from curl_cffi import requests

WORKERS = 4  # the rate limit sets the speed; threads keep one ticker's wait from delaying the others
MAX_WAIT_SECONDS = 60.0
PRICES = {"open": "Open", "high": "High", "low": "Low", "close": "Close", "adj_close": "Adj Close"}
# Descriptions of Yahoo's errors that a retry does not change: 404, and 400 for a range before the first bar.
UNKNOWN_TICKER = "No data found"
EMPTY_RANGE = "Data doesn't exist for startDate"
# What yfinance 1.7.0 raises when an answer does not have Yahoo's form: it reads most fields unchecked.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


class UnknownTickerError(Exception):
    """Yahoo says that it has no such ticker."""


@dataclass(kw_only=True)
class YahooSource:
    """Yahoo's daily bars: open to close adjusted for splits, `adj_close` for dividends too, as of now.

    - Rate: sources of a process with the same settings share one rate limit. Each request ends within `timeout_seconds`.
    - Retries: a ticker gets at most `attempts`. `sleep` waits between them: a random time up to `backoff_seconds`, then up to
      twice that and so on, or as long as Retry-After asks, never more than a minute.
    - Text: a number is the shortest text of the same double. A null volume beside prices is "0", because yfinance fills it.
    - Range: each request goes from LOOK_BACK before the first day to now, whatever the last day is. Prices are adjusted for every
      split until now, and the newest bar of the answer says until when. The bars before the first day show whether the vendor has
      readjusted its prices since, and have the actions that a vendor names late.

    Raises SourceError for an invalid setting.
    """

    name = "yfinance"
    interval = "1d"
    batch_size: int = Settings.model_fields["tickers_per_batch"].default
    requests_per_second: float = Settings.model_fields["requests_per_second"].default
    attempts: int = Settings.model_fields["request_attempts"].default
    backoff_seconds: float = 2.0
    timeout_seconds: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        for setting in ("batch_size", "requests_per_second", "attempts", "timeout_seconds"):
            if not getattr(self, setting) > 0:
                raise SourceError(f"{setting}: {getattr(self, setting)} is not above 0")

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield the bars of `tickers` from LOOK_BACK before `first` to `last`, both included, `batch_size` tickers at a time.

        Dates are exchange-local, one row a date. A split or dividend on a day without a bar has a row without prices; so has one
        that is announced for a day after the newest bar, whatever `last` is. A ticker that Yahoo does not know, or that could not
        be fetched in `attempts` attempts, is in `failed` with the reason; the other tickers of its batch are delivered.
        """
        import pyarrow as pa

        if last < first:
            raise SourceError(f"the range ends on {last}, before it begins on {first}")
        _set_up_yfinance()
        session = _session(self.requests_per_second, self.timeout_seconds)
        for start in range(0, len(tickers), self.batch_size):
            batch = tickers[start : start + self.batch_size]
            with ThreadPoolExecutor(WORKERS, "yahoo") as pool:
                answers = list(pool.map(lambda ticker: self._fetch(session, ticker, first, last), batch))
            tables = [answer for answer in answers if not isinstance(answer, DeliveryFailure)]
            answered = zip(batch, answers, strict=True)
            failed = {ticker: answer for ticker, answer in answered if isinstance(answer, DeliveryFailure)}
            yield Delivery(pa.concat_tables([delivered_table({}), *tables]), failed)

    def _fetch(
        self, session: requests.Session[Any], ticker: str, first: date, last: date
    ) -> pa.Table | DeliveryFailure:
        """The rows of `ticker`, or why they could not be fetched."""
        from yfinance.exceptions import YFException

        retried = (YFException, OSError, *MALFORMED)  # curl_cffi's errors are OSErrors
        stop, retry = tenacity.stop_after_attempt(self.attempts), tenacity.retry_if_exception_type(retried)
        retrying = tenacity.Retrying(stop=stop, wait=self._wait, retry=retry, sleep=self.sleep, reraise=True)
        try:
            symbol, frame, actions = retrying(_history, session, ticker, first - LOOK_BACK, last)
        except UnknownTickerError as error:
            return DeliveryFailure(FailureKind.UNKNOWN_TICKER, f"Yahoo does not know it: {error}")
        except retried as error:
            reason = f"gave up after {self.attempts} attempts: {type(error).__name__}: {error}"
            return DeliveryFailure(FailureKind.UNAVAILABLE, reason)
        return delivered_table({}) if frame is None else _rows(ticker, symbol, frame, actions, first - LOOK_BACK, last)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds to the next attempt: full jitter, or the time that Retry-After asks for if that is longer."""
        jitter = tenacity.wait_random_exponential(self.backoff_seconds, MAX_WAIT_SECONDS)(state)
        response = getattr(state.outcome and state.outcome.exception(), "response", None)
        retry_after = 0.0 if response is None else _retry_after(response.headers.get("Retry-After", ""))
        return min(max(jitter, retry_after), MAX_WAIT_SECONDS)


def _history(
    session: requests.Session[Any], ticker: str, first: date, last: date
) -> tuple[str, Any, dict[str, dict[date, str]]]:
    """One attempt: Yahoo's symbol, yfinance's frame of bars (None for an empty range), and the actions by day.

    The actions are not read from the frame: there yfinance moves the actions of a day without a bar to the bar before, and leaves
    out those before the first bar (`utils.safe_merge_dfs` of 1.7.0).

    `yfinance.download` is not used: it turns a ticker's error into an empty column. `Ticker.history` is not used: it first
    requests the time zone, and a failure of that second request hides Yahoo's reason as "no timezone found".
    """
    from yfinance.data import YfData
    from yfinance.exceptions import YFPricesMissingError
    from yfinance.scrapers.history import PriceHistory

    # yfinance caches answers about the past, bad ones too: a retry would send no request, and a vendor's edit would stay unseen.
    YfData.cache_get.cache_clear()
    # A date begins first in UTC+14 (written Etc/GMT-14) and ends last in UTC-12, 26 hours later. `end` is exclusive.
    history = PriceHistory(YfData(session), ticker, "Etc/GMT-14", session)
    end = max(last, utc_now().date()) + timedelta(days=3)
    try:
        frame = history.history(start=first, end=end, auto_adjust=False, keepna=True)
    except YFPricesMissingError as error:
        reason = error.yahoo_reason or ""
        if reason.startswith(UNKNOWN_TICKER):
            raise UnknownTickerError(reason) from error
        # With neither bars nor a reason, the ticker's metadata distinguish an empty range from a bad answer.
        if reason.startswith(EMPTY_RANGE) or (not reason and "symbol" in history.get_history_metadata()):
            return ticker, None, {}
        raise
    actions = {
        "dividends": history._dividends,
        "stock_splits": history._splits,
        "capital_gains": history._capital_gains,
    }
    return (
        str(history.get_history_metadata().get("symbol") or ticker),
        frame,
        {name: _by_day(series) for name, series in actions.items()},
    )


def _by_day(series: Any) -> dict[date, str]:
    """The actions of one kind by exchange-local day, as text. Several actions of a day are joined as yfinance joins them.

    Where the dividends have another currency than the prices, the currency is part of the text, which is then not an amount.
    """
    import pandas

    if series is None or not len(series):
        return {}
    if isinstance(series, pandas.DataFrame):
        return {
            moment.date(): f"{row['Dividends']} {row['currency']}"
            for moment, row in series.iterrows()
            if row["currency"]
        }
    days = series.groupby(series.index.date)
    joined = days.prod() if series.name == "Stock Splits" else days.sum()
    return {day: str(value) for day, value in joined.items()}


def _rows(
    ticker: str, symbol: str, frame: Any, actions: dict[str, dict[date, str]], first: date, last: date
) -> pa.Table:
    """The bars of `frame` from `first` to `last` with the actions of their days, and a row for each action of another day.

    The columns of `frame` are never a MultiIndex, since `history` does not give one.
    """
    import pandas

    days = frame.index.tz_localize(None)
    newest = days[frame["Close"].notna()].max()
    frame = frame[~((days < str(first)) | (days > str(last)))]  # a bar without a date is kept, with the date "NaT"
    # yfinance writes 0 for a null volume; where there is no price either, nothing was delivered.
    null_bar = frame[list(PRICES.values())].isna().all(axis=1)
    newest_day = None if newest is pandas.NaT else newest.date()
    present = set(frame.index.date)
    alone = sorted(
        day
        for day in {day for days_of_kind in actions.values() for day in days_of_kind} - present
        if first <= day <= last or (newest_day is not None and day > newest_day)
    )
    dates = [*frame.index.date, *alone]
    nulls: list[str | None] = [None] * len(alone)
    texts = [day.isoformat() for day in dates]
    return delivered_table(
        {
            "ticker": [ticker] * len(dates),
            "symbol": [symbol] * len(dates),
            "date": texts,
            **{name: [*_texts(frame[column]), *nulls] for name, column in PRICES.items()},
            "volume": [*_texts(frame["Volume"].astype("Int64").mask(null_bar & (frame["Volume"] == 0))), *nulls],
            **{
                name: [actions.get(name, {}).get(day, "0.0") for day in dates] for name in ("dividends", "stock_splits")
            },
            "capital_gains": [actions.get("capital_gains", {}).get(day) for day in dates],
            "adjusted_to": [newest_day and newest_day.isoformat()] * len(dates),
            "session": [None if text == "NaT" else text for text in texts],
            "basis": [SPLIT_ADJUSTED] * len(dates),
            "says": ["dividends,splits"] * len(dates),
        }
    )


def _texts(numbers: Any) -> list[str | None]:
    """The shortest text that parses to the same number, for each number; None for a missing one."""
    return [None if null else str(number) for number, null in zip(numbers.tolist(), numbers.isna(), strict=True)]


def _retry_after(header: str) -> float:
    """The seconds that Retry-After, a number or an HTTP date, asks for; 0.0 if it cannot be read."""
    try:
        return int(header) if header.isdecimal() else (parsedate_to_datetime(header) - utc_now()).total_seconds()
    except (ValueError, TypeError):
        return 0.0


@functools.cache
def _set_up_yfinance() -> tempfile.TemporaryDirectory[str]:
    """Configure yfinance once a process: it raises errors instead of logging them, does not retry, and keeps cookies apart."""
    import yfinance

    yfinance.config.debug.hide_exceptions = False
    yfinance.config.network.retries = 0
    # The default folder is shared by all programs of the user, whose yfinance locks the same SQLite files.
    folder = tempfile.TemporaryDirectory(prefix="stock-lakehouse-yfinance-", ignore_cleanup_errors=True)
    yfinance.set_tz_cache_location(folder.name)
    return folder


@functools.cache
def _session(requests_per_second: float, timeout_seconds: float) -> requests.Session[Any]:
    """The session for all requests of yfinance, including those for cookies and crumbs; threads may share it."""
    from curl_cffi import requests
    from pyrate_limiter import Limiter, Rate

    # One request an interval, not n a second: this avoids bursts and allows less than one request a second.
    limiter = Limiter(Rate(1, max(1, round(1000 / requests_per_second))), buffer_ms=0)

    class PacedSession(requests.Session[requests.Response]):
        def request(self, method: Any, url: str, *args: Any, **options: Any) -> requests.Response:
            limiter.try_acquire("yahoo")
            # yfinance itself would fetch cookies with a timeout of 30 s.
            response = super().request(method, url, *args, **{**options, "timeout": timeout_seconds})
            # yfinance itself would repeat the request for bars at once, and hide the status and Retry-After.
            if "/finance/chart/" in url and ((status := response.status_code) == 429 or status >= 500):
                raise requests.exceptions.HTTPError(f"HTTP status {status}", response=response)
            return response

    return PacedSession(impersonate="chrome")
