"""Exchanges: the names that the setting `exchange` may have, and the exchange that the suffix of a ticker means.

Here: names. Not here: sessions (market_calendar.py).
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

XNYS = "XNYS"
CRYPTO, CURRENCIES = "24/7", "24/5"
# The calendar NYSE of pandas_market_calendars begins here; exchange_calendars has no holidays before 1970.
XNYS_KNOWN_FROM = date(1885, 1, 1)
EXAMPLES = (XNYS, "XLON", "XETR", "XPAR", "XTSE", "XTKS", "XHKG", "XASX", "XNSE", CRYPTO, CURRENCIES)

# Suffixes of Yahoo Finance ("Exchanges and data providers" in its help): the place, and the exchanges that fit; the first one is
# proposed to the user. An exchange without a separate calendar, like Shenzhen, has the exchange with the same sessions.
SUFFIXES: dict[str, tuple[str, tuple[str, ...]]] = {
    "AS": ("Amsterdam", ("XAMS",)),
    "AT": ("Athens", ("ASEX",)),
    "AX": ("Sydney", ("XASX",)),
    "BA": ("Buenos Aires", ("XBUE",)),
    "BD": ("Budapest", ("XBUD",)),
    "BE": ("Berlin", ("XFRA", "XETR")),
    "BK": ("Bangkok", ("XBKK",)),
    "BO": ("Mumbai", ("XBOM", "XNSE", "NSE")),
    "BR": ("Brussels", ("XBRU",)),
    "CL": ("Bogota", ("XBOG",)),
    "CN": ("Toronto", ("XTSE",)),
    "CO": ("Copenhagen", ("XCSE",)),
    "DE": ("Frankfurt, Xetra", ("XETR", "XFRA")),
    "DU": ("Düsseldorf", ("XDUS", "XETR", "XFRA")),
    "F": ("Frankfurt", ("XFRA", "XETR")),
    "HA": ("Hanover", ("XFRA", "XETR")),
    "HE": ("Helsinki", ("XHEL",)),
    "HK": ("Hong Kong", ("XHKG",)),
    "HM": ("Hamburg", ("XHAM", "XETR", "XFRA")),
    "IC": ("Reykjavik", ("XICE",)),
    "IL": ("London", ("XLON",)),
    "IR": ("Dublin", ("XDUB",)),
    "IS": ("Istanbul", ("XIST",)),
    "JK": ("Jakarta", ("XIDX",)),
    "JO": ("Johannesburg", ("XJSE",)),
    "KL": ("Kuala Lumpur", ("XKLS",)),
    "KQ": ("Seoul", ("XKRX",)),
    "KS": ("Seoul", ("XKRX",)),
    "L": ("London", ("XLON",)),
    "LS": ("Lisbon", ("XLIS",)),
    "MC": ("Madrid", ("XMAD",)),
    "ME": ("Moscow", ("XMOS",)),
    "MI": ("Milan", ("XMIL",)),
    "MU": ("Munich", ("XFRA", "XETR")),
    "MX": ("Mexico City", ("XMEX",)),
    "NE": ("Toronto", ("XTSE",)),
    "NS": ("Mumbai, NSE", ("XNSE", "NSE", "XBOM")),
    "NZ": ("Wellington", ("XNZE",)),
    "OL": ("Oslo", ("XOSL",)),
    "PA": ("Paris", ("XPAR",)),
    "PR": ("Prague", ("XPRA",)),
    "RG": ("Riga", ("XRIS",)),
    "RO": ("Bucharest", ("XBSE",)),
    "SA": ("São Paulo", ("BVMF",)),
    "SG": ("Stuttgart", ("XSTU", "XETR", "XFRA")),
    "SI": ("Singapore", ("XSES",)),
    "SN": ("Santiago", ("XSGO",)),
    "SR": ("Riyadh", ("XSAU",)),
    "SS": ("Shanghai", ("XSHG",)),
    "ST": ("Stockholm", ("XSTO",)),
    "SW": ("Zurich", ("XSWX",)),
    "SZ": ("Shenzhen", ("XSHG",)),
    "T": ("Tokyo", ("XTKS",)),
    "TA": ("Tel Aviv", ("XTAE",)),
    "TL": ("Tallinn", ("XTAL",)),
    "TO": ("Toronto", ("XTSE",)),
    "TW": ("Taipei", ("XTAI",)),
    "TWO": ("Taipei", ("XTAI",)),
    "V": ("Toronto, TSX Venture", ("XTSE",)),
    "VI": ("Vienna", ("XWBO",)),
    "VS": ("Vilnius", ("XLIT",)),
    "WA": ("Warsaw", ("XWAR",)),
}
# The only suffix that is also a class of shares in New York: MKC.V, the voting stock of McCormick. Yahoo writes it MKC-V.
CLASS_OF_SHARES = "V"
CRYPTO_PAIR = re.compile(r"[A-Z0-9]+-(USDT?|USDC|EUR|GBP|JPY|CHF|CAD|AUD|KRW|INR|BTC|ETH)")


@lru_cache(maxsize=64)
def exchange_of(name: str) -> str:
    """The MIC that `name` means, or CRYPTO or CURRENCIES. XNAS, NASDAQ and NYSE are XNYS, since they have one calendar.

    Raises ValueError for a name that no calendar has.
    """
    if name in (XNYS, CRYPTO):  # avoids the imports, for start-up time
        return name
    import exchange_calendars
    import pandas_market_calendars

    # exchange_calendars comes first: ASX, HKEX and TASE of pandas_market_calendars have hundreds of sessions too many.
    if name in exchange_calendars.get_calendar_names():
        return str(exchange_calendars.resolve_alias(name))
    if name in pandas_market_calendars.get_calendar_names():
        return name
    raise ValueError(
        f"{name!r} is not an exchange that the calendars know; allowed: MICs, 24/7 and 24/5, like {', '.join(EXAMPLES)}"
    )


@lru_cache(maxsize=64)
def known_from(exchange: str) -> date | None:
    """The first day whose sessions are recorded; None if the calendar states none."""
    if exchange == XNYS:
        return XNYS_KNOWN_FROM
    import exchange_calendars

    if exchange not in exchange_calendars.get_calendar_names():
        return None
    bound = exchange_calendars.get_calendar(exchange).bound_min()
    return bound.date() if bound is not None else None


def listed_elsewhere(ticker: str, exchange: str, yahoo: bool = False) -> str | None:
    """A message that `ticker`, by its suffix, is listed on another exchange than `exchange`; None if it may be listed there.

    `yahoo`: the ticker is in Yahoo Finance's spelling, in which `.V` is not a class of shares.
    """
    place, fitting = _by_suffix(ticker)
    if not fitting or exchange in fitting:
        return None
    if exchange == XNYS and ticker.endswith(f".{CLASS_OF_SHARES}") and not yahoo:
        return None
    return (
        f'{ticker} is {place} ({fitting[0]}), and exchange is {exchange}: set exchange = "{fitting[0]}", or remove it'
    )


def _by_suffix(ticker: str) -> tuple[str, tuple[str, ...]]:
    if ticker.endswith("=X"):
        return "a currency", (CURRENCIES,)
    if CRYPTO_PAIR.fullmatch(ticker):
        return "a pair of cryptocurrencies", (CRYPTO,)
    _, point, suffix = ticker.rpartition(".")
    place, fitting = SUFFIXES.get(suffix, ("", ())) if point else ("", ())
    return f"listed in {place}", fitting
