"""Daily bars from Yahoo Finance, asked for with yfinance a ticker at a time, as text.

Here: asking, pacing, retrying, and telling "no bars" from "no answer". Not here: any judgement of the values.
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.sources import Delivery, SourceError, delivered_table

if TYPE_CHECKING:
    import pyarrow as pa
    from curl_cffi import requests
    from pyrate_limiter import Limiter
    from tenacity import RetryCallState

WORKERS = 4  # the rate limit sets the speed; threads only keep one ticker's wait from holding up the others
MAX_WAIT_SECONDS = 60.0
# The two descriptions in Yahoo's error answers that no retry changes: 404, and 400 for a range before the first bar.
UNKNOWN_TICKER = "No data found"
EMPTY_RANGE = "Data doesn't exist for startDate"
# What yfinance 1.7.0 lets out when an answer has another form than Yahoo's: it reads most fields unchecked.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


class UnknownTickerError(Exception):
    """Yahoo says that it has no such ticker."""


@dataclass(kw_only=True)
class YahooSource:
    """Yahoo's daily bars: open to close adjusted for splits, `adj_close` also for dividends, both as of the request.

    A delivery is `batch_size` tickers. Requests of all sources of the process with one `requests_per_second` share
    that limit. Each request ends within `timeout_seconds`; a ticker is asked `attempts` times, and waits between them
    a random time up to `backoff_seconds`, then twice that and so on, or what `Retry-After` asks for, never more than
    a minute. `sleep` does that waiting. Numbers are the shortest text that parses to the same double; a dividend or
    split of 0.0, by which yfinance says "none", is null. A null volume of a bar with prices reads "0": yfinance fills it.
    Raises SourceError for an impossible setting.
    """

    batch_size: int = 25
    requests_per_second: float = 2.0
    attempts: int = 4
    backoff_seconds: float = 2.0
    timeout_seconds: float = 10.0
    sleep: Callable[[float], None] = time.sleep
    name: str = field(default="yfinance", init=False)
    interval: str = field(default="1d", init=False)

    def __post_init__(self) -> None:
        for setting in ("batch_size", "requests_per_second", "attempts", "timeout_seconds"):
            if not getattr(self, setting) > 0:
                raise SourceError(f"{setting}: {getattr(self, setting)} is not above 0")
        if self.backoff_seconds < 0:
            raise SourceError(f"backoff_seconds: {self.backoff_seconds} is below 0")

    def deliver(self, tickers: Sequence[str], first: date, last: date) -> Iterator[Delivery]:
        """Yield the bars of `tickers` from `first` to `last`, both included, `batch_size` tickers at a time.

        Dates are exchange-local, one row a date. Tickers that Yahoo does not know, or that could not be had in
        `attempts` tries, are in `failed` with the reason; the others of the batch are delivered.
        """
        import pyarrow as pa

        if last < first:
            raise SourceError(f"the range ends on {last}, before it begins on {first}")
        _set_up_yfinance()
        session = _session(self.requests_per_second, self.timeout_seconds)
        for start in range(0, len(tickers), self.batch_size):
            batch = tickers[start : start + self.batch_size]
            with ThreadPoolExecutor(min(WORKERS, len(batch)), "yahoo") as pool:
                answers = list(pool.map(lambda ticker: self._ask(session, ticker, first, last), batch))
            tables = [answer for answer in answers if not isinstance(answer, str)]
            failed = {t: answer for t, answer in zip(batch, answers, strict=True) if isinstance(answer, str)}
            yield Delivery(pa.concat_tables([delivered_table({}), *tables]), failed)

    def _ask(self, session: requests.Session[Any], ticker: str, first: date, last: date) -> pa.Table | str:
        """The rows of `ticker`, or why they could not be had."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
        from yfinance.exceptions import YFException

        # OSError: curl_cffi's errors, timeouts and statuses 429 and 5xx among them.
        passing = (YFException, OSError, *MALFORMED)
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            retry=retry_if_exception_type(passing),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            symbol, frame = retrying(_history, session, ticker, first, last)
        except UnknownTickerError as error:
            return f"Yahoo does not know it: {error}"
        except passing as error:
            return f"gave up after {self.attempts} attempts: {type(error).__name__}: {error}"
        return _rows(ticker, symbol, frame, first, last)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: full jitter, and at least what the answer's Retry-After asks for."""
        from tenacity import wait_random_exponential

        jitter = wait_random_exponential(multiplier=self.backoff_seconds, max=MAX_WAIT_SECONDS)(state)
        error = state.outcome.exception() if state.outcome else None
        response = getattr(error, "response", None)
        asked = _retry_after(response.headers.get("Retry-After")) if response is not None else 0.0
        return min(max(jitter, asked), MAX_WAIT_SECONDS)


def _history(session: requests.Session[Any], ticker: str, first: date, last: date) -> tuple[str, Any]:
    """Yahoo's symbol and yfinance's frame of bars, None for an empty range; one attempt.

    Not `yfinance.download`: it swallows a ticker's error into an empty column. Not `Ticker.history`: it first asks for
    the time zone, a second request a ticker whose failure hides Yahoo's reason behind "no timezone found".
    """
    from yfinance.data import YfData
    from yfinance.exceptions import YFPricesMissingError
    from yfinance.scrapers.history import PriceHistory

    # It keeps answers about the past, bad ones too: a retry would send nothing, and a vendor's edit stay unseen.
    YfData.cache_get.cache_clear()
    # A date begins first in UTC+14 (so written) and ends last in UTC-12, 26 hours later; `end` is exclusive.
    history = PriceHistory(YfData(session), ticker, "Etc/GMT-14", session)
    end = last + timedelta(days=3)
    try:
        frame = history.history(start=first, end=end, interval="1d", auto_adjust=False, actions=True, keepna=True)
    except YFPricesMissingError as error:
        said = error.yahoo_reason or ""
        if said.startswith(UNKNOWN_TICKER):
            raise UnknownTickerError(said) from error
        # Without bars and without an error, only the ticker's metadata tell an empty range from a bad answer.
        if said.startswith(EMPTY_RANGE) or (not said and "symbol" in history.get_history_metadata()):
            return ticker, None
        raise
    return history.get_history_metadata().get("symbol") or ticker, frame


def _rows(ticker: str, symbol: str, frame: Any, first: date, last: date) -> pa.Table:
    """The bars of `frame` from `first` to `last`. Columns are found by name; history() gives no MultiIndex."""
    if frame is None:
        return delivered_table({})
    frame = frame[(frame.index.date >= first) & (frame.index.date <= last)]
    prices = {name: [_text(value) for value in frame[name.title().replace("_", " ")]] for name in PRICES}
    # yfinance writes 0 for a null volume: where there is no price either, nothing was delivered.
    empty = [all(bar[:4]) is False and not any(bar) for bar in zip(*prices.values(), strict=True)]
    volumes = [None if null and not volume else str(volume) for null, volume in zip(empty, frame["Volume"], strict=True)]
    return delivered_table(
        {
            "ticker": [ticker] * len(frame),
            "symbol": [symbol] * len(frame),
            "date": [day.isoformat() for day in frame.index.date],
            **prices,
            "volume": volumes,
            "dividends": [_text(value or math.nan) for value in frame["Dividends"]],
            "stock_splits": [_text(value or math.nan) for value in frame["Stock Splits"]],
        }
    )
