"""A server of Yahoo's chart format on loopback, to which the real yfinance and curl_cffi are led, and vendors behind it.

Belongs here: answers, and what was asked. Not here: what a test expects of them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest

from stock_lakehouse.sources import yahoo as yahoo_module

DAYS = [date(2024, 1, day) for day in (2, 3, 4, 5)]
NEW_YORK, SYDNEY, LONDON, TOKYO = "America/New_York", "Australia/Sydney", "Europe/London", "Asia/Tokyo"
OPENS = {NEW_YORK: "09:30", SYDNEY: "10:00", LONDON: "08:00", TOKYO: "09:00"}
# Doubles that a detour through float32, or through fifteen digits, would change.
PRICES = [0.1 + 0.2, 187.14999389648438, 1 / 3, 100.0]
FIELDS = ("open", "high", "low", "close", "volume")


@dataclass
class Answer:
    """One HTTP answer; `hang` sends nothing until the server stops."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


THROTTLED = Answer("Too Many Requests", 429)


@dataclass
class Yahoo:
    """The server's answers, first to last by ticker, the last of them for ever; and what it was asked.

    An answer may be a function of the query instead, like a `Vendor`.
    """

    url: str
    answers: dict[str, list[Answer | Callable[[dict[str, str]], Answer]]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], float]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        key = path.rsplit("/", 1)[-1]
        with self.lock:
            self.asked.append((key, query, time.monotonic()))
            answers = self.answers.get(key) or [Answer("crumb") if key == "getcrumb" else NOT_FOUND]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Answer) else answer(query)

    def requests(self) -> Counter[str]:
        """Requests by ticker; crumbs as `getcrumb`."""
        return Counter(key for key, _, _ in self.asked)


def error(code: str, description: str, status: int) -> Answer:
    return Answer({"chart": {"result": None, "error": {"code": code, "description": description}}}, status)


NOT_FOUND = error("Not Found", "No data found, symbol may be delisted", 404)


def opening(day: date, zone: str = NEW_YORK) -> int:
    """The epoch seconds by which Yahoo marks a daily bar: when the exchange opens."""
    return int(datetime.fromisoformat(f"{day} {OPENS[zone]}").replace(tzinfo=ZoneInfo(zone)).timestamp())


def bars(
    symbol: str,
    days: list[date] = DAYS,
    closes: list[float] = PRICES,
    zone: str = NEW_YORK,
    events: dict[str, Any] | None = None,
) -> Answer:
    """A good answer: one bar a day whose close is `closes`, adjusted close half of it, volume 1000 and up."""
    quote = {name: list(closes) for name in FIELDS[:4]} | {"volume": [1000 + n for n in range(len(days))]}
    adjusted = {"adjclose": [close / 2 for close in closes]}
    result = {
        "meta": {
            "currency": "USD",
            "symbol": symbol,
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": zone,
            "priceHint": 2,
            "validRanges": ["1d", "max"],
        },
        "timestamp": [opening(day, zone) for day in days],
        "indicators": {"quote": [quote], "adjclose": [adjusted]},
    }
    if events:
        result["events"] = events
    return Answer({"chart": {"result": [result], "error": None}})


def result_of(answer: Answer) -> dict[str, Any]:
    """The part of a good answer that holds the bars, to edit."""
    part: dict[str, Any] = answer.body["chart"]["result"][0]
    return part


def no_bars(symbol: str) -> Answer:
    """What Yahoo answers for a range without sessions: the ticker's metadata, empty quotes, no timestamps."""
    answer = bars(symbol, [], [])
    result_of(answer)["indicators"] = {"quote": [{}], "adjclose": [{}]}
    del result_of(answer)["timestamp"]
    return answer


@dataclass
class Vendor:
    """One ticker as Yahoo serves it on a day: bars within the range asked, adjusted for the splits known, and these by name.

    `closes`: as traded, a row each; None is a row of nulls. `splits`: new shares for one old share by ex-date. `newest`: the last
    day that has a row. `adjusted_to`: prices before an ex-date up to it are adjusted for its split. `named_to`: splits up to it
    are named, within the range asked. Volumes are 1,000 as traded, times the same ratios.
    """

    symbol: str
    closes: Mapping[date, float | None]
    splits: Mapping[date, float]
    newest: date
    adjusted_to: date
    named_to: date

    def __call__(self, query: dict[str, str]) -> Answer:
        first, end = int(query["period1"]), int(query["period2"])
        days = [day for day in self.closes if first <= opening(day) < end and day <= self.newest]
        if not days:
            return no_bars(self.symbol)
        ratios = [self._ratio(day) for day in days]
        as_traded = [self.closes[day] for day in days]
        closes = [None if close is None else close / ratio for close, ratio in zip(as_traded, ratios, strict=True)]
        named = [day for day in self.splits if first <= opening(day) < end and day <= self.named_to]
        splits = {
            str(opening(day)): {
                "date": opening(day),
                "numerator": self.splits[day],
                "denominator": 1,
                "splitRatio": f"{self.splits[day]:g}:1",
            }
            for day in named
        }
        answer = bars(self.symbol, days, [0.0] * len(days), events={"splits": splits} if splits else None)
        indicators = result_of(answer)["indicators"]
        for name in FIELDS[:4]:
            indicators["quote"][0][name] = closes
        indicators["quote"][0]["volume"] = [
            None if close is None else round(1000 * ratio) for close, ratio in zip(closes, ratios, strict=True)
        ]
        indicators["adjclose"][0]["adjclose"] = closes
        return answer

    def _ratio(self, day: date) -> float:
        """The product of the ratios that prices of `day` are divided by."""
        product = 1.0
        for ex_date, ratio in self.splits.items():
            product *= ratio if day < ex_date <= self.adjusted_to else 1.0
        return product


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Yahoo]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            answer = server_of_test.answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})
            if answer.hang:
                server_of_test.stopped.wait(30)
                self.close_connection = True
                return
            body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    import yfinance.data
    import yfinance.scrapers.history

    def crumb(data: Any, timeout: float = 30) -> tuple[str, str]:
        """As yfinance's, whose hosts are fixed: asked through the session, kept until an error answer."""
        with data._cookie_lock:
            if data._crumb is None:
                data._crumb = data._session.get(url=f"{server_of_test.url}/getcrumb", timeout=30).text
            return data._crumb, data._cookie_strategy

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server_of_test = Yahoo(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(yfinance.scrapers.history, "_BASE_URL_", server_of_test.url)
        monkeypatch.setattr(yfinance.data.YfData, "_get_cookie_and_crumb", crumb)
        monkeypatch.setattr(yfinance.data.SingletonMeta, "_instances", {})
        yahoo_module._session.cache_clear()
        yield server_of_test
        server_of_test.stopped.set()
        http.shutdown()
        thread.join(10)
    yahoo_module._session.cache_clear()
