"""Which ticker the symbol of a row, or the name of a file, means.

Here: spellings of one ticker. Not here: which tickers the lake has (settings.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stock_lakehouse.lake_options import TICKER
from stock_lakehouse.schemas.forms import BLANKS

# A class of shares is written BRK-B, BRK.B, BRK/B and BRK B.
_SEPARATOR = re.compile(r"[./ -]")
_CLASS = re.compile(r"([A-Z0-9]+)[/ ]([A-Z]{1,2})")
# How vendors write a ticker into the name of a download, in upper case and without the file's suffix.
_DOWNLOADS = tuple(
    re.compile(form)
    for form in (
        r"(.+)_D",  # Stooq: aapl_us_d.csv, ^spx_d.csv
        r"(.+) HISTORICAL DATA",  # Investing.com
        r"[A-Z]+_(.+), 1D(?:_[0-9A-F]+)?",  # TradingView: NASDAQ_AAPL, 1D.csv
        r"DAILY(?:_ADJUSTED)?_(.+)",  # Alpha Vantage
        r"(.+?)_(?:DAILY_HISTORICAL-DATA|PRICE-HISTORY)-.*",  # Barchart
    )
)


class Tickers:
    """A set of tickers that finds them by all their spellings.

    `country` is the suffix that vendors add to tickers of the exchange, as in AAPL.US.
    """

    def __init__(self, tickers: Iterable[str], country: str | None = "US") -> None:
        self.all = frozenset(tickers := tuple(tickers))
        self._exact = {ticker.upper(): ticker for ticker in tickers}
        self._loose: dict[str, str | None] = {}
        for name, ticker in self._exact.items():
            plain = _SEPARATOR.sub("-", name)
            # In a lake that has both, BRK.B and BRK-B are two tickers.
            self._loose[plain] = None if plain in self._loose else ticker
        self._country = re.compile(rf"(.+)[._]{country}") if country else None

    def find(self, name: str) -> str | None:
        """The ticker of this set that `name` is a spelling of; None if there is none."""
        name = name.strip(BLANKS).upper()
        found = self._exact.get(name) or self._loose.get(_SEPARATOR.sub("-", name))
        if found or self._country is None or not (match := self._country.fullmatch(name)):
            return found
        return self.find(match[1])

    def of_symbol(self, symbol: str | None) -> str | None:
        """The ticker that a row's symbol means, in this set or not; None if the symbol is not a ticker."""
        name = (symbol or "").strip(BLANKS).upper()
        if found := self.find(name):
            return found
        name = _CLASS.sub(r"\1-\2", name) if _CLASS.fullmatch(name) else name
        return name if TICKER.fullmatch(name) else None

    def of_file(self, stem: str) -> str | None:
        """The ticker of this set that a file is named after; None if there is none. `stem` is its name without the suffix."""
        name = stem.upper().replace("%5E", "^")  # a browser may save the file of an index under such a name
        matches = (form.fullmatch(name) for form in _DOWNLOADS)
        candidates = [name, *(match[1] for match in matches if match)]
        return next((found for candidate in candidates if (found := self.find(candidate))), None)
