"""Which line of a CSV file is its header, and which of its columns means what.

Here: titles, in the spellings of the usual vendors, and what a vendor's titles say about its prices. Not here: the lines below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stock_lakehouse.schemas.forms import BLANKS
from stock_lakehouse.sources import AS_TRADED, AS_TRADED_ADJUSTED_CLOSE, TOTAL_RETURN, UnusedColumn, printable
from stock_lakehouse.sources.csv_text import split_line

# Yahoo's web table has explanations inside its titles.
_YAHOO_CLOSE = "closeclosepriceadjustedforsplits"
_YAHOO_ADJUSTED = "adjcloseadjustedclosepriceadjustedforsplitsanddividendandorcapitalgaindistributions"
# The spellings of each delivered column, by rank, best first. If two titles match one column, the title of the better rank is
# read; two titles of the same rank contradict each other. Titles are compared in the form that `_plain` gives them.
SPELLINGS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "symbol": (
        ("symbol", "ticker", "tic", "tckrsymb"),
        ("code", "instrument", "ric"),
        ("name", "stock"),
    ),
    "date": (
        ("date", "datum", "dtyyyymmdd"),
        ("tradedate", "tradingdate", "pricedate", "datetime", "date1", "traddt", "dlycaldt"),
        ("timestamp", "windowstart"),
        ("day", "time", "session"),
    ),
    "open": (
        ("open", "openprice", "openingprice", "openprc", "opnpric", "dlyopen", "erster", "eroeffnung", "eroeffnungskurs"),
        ("o", "eroeffn"),
    ),
    "high": (
        ("high", "highprice", "askhi", "hghpric", "dlyhigh", "hoch", "tageshoch", "hoechst", "hoechstkurs"),
        ("h",),
    ),
    "low": (
        ("low", "lowprice", "bidlo", "lwpric", "dlylow", "tief", "tagestief", "tiefst", "tiefstkurs"),
        ("l",),
    ),
    "close": (
        ("close", "closeprice", "closingprice", "clspric", "dlyclose", "schluss", "schlusskurs", _YAHOO_CLOSE),
        ("last", "latest", "lastprice", "closelast", "prc", "dlyprc", "letzter", "zuletzt", "c"),
        ("price", "kurs"),
    ),
    "adj_close": (
        ("adjclose", "adjustedclose", "closeadj", "adjcloseprice", "adjclosingprice", "adjustedclosingprice", _YAHOO_ADJUSTED),
        ("adjusted", "adj"),
    ),
    "volume": (
        ("volume",),
        ("noofshares", "sharestraded", "tottrdqty", "ttltrdqnty", "ttltradgvol", "totaltradedquantity", "dlyvol", "stuecke"),
        ("vol", "volumen", "v"),
        ("tickvol", "tickvolume"),
    ),
    "dividends": (
        ("dividends", "dividend", "dividendamount", "divcash", "exdividend", "cashdividend", "cashdividends"),
    ),
    "stock_splits": (
        ("stocksplits", "stocksplit", "splits", "split", "splitratio", "splitfactor", "splitcoefficient"),
    ),
    "capital_gains": (("capitalgains", "capitalgain"),),
}  # fmt: skip
_RANK = {
    spelling: (name, rank)
    for name, ranks in SPELLINGS.items()
    for rank, spellings in enumerate(ranks)
    for spelling in spellings
}
WEAK = 2  # rank of the spellings of `symbol` that may also be titles of company names
REQUIRED = ("date", "close")
USUAL = ("open", "high", "low", "volume")  # a note lists those that are missing
# Titles of a separate column of times of day. Two times of day in one session mean intraday bars.
CLOCKS = ("time", "tradetime", "hour")
SEPARATORS = (",", ";", "\t", "|")
SEARCHED = 20  # number of lines at the start of a file among which the header is searched
EXAMPLE = "Date,Open,High,Low,Close,Volume"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
_NUMBERED = re.compile(r"^[0-9]+[a-z]?[.] *")  # Alpha Vantage writes "5. volume"
_UNIT = re.compile(r" *\((USD|EUR|GBP|CHF|CAD|AUD|JPY|INR|Rs[.]?|[$€£¥])\)$", re.IGNORECASE)
_OF_TICKER = re.compile(r"(.+)\.(Open|High|Low|Close|Volume|Adjusted|Dividends|Splits)")  # quantmod, tidyquant
# Titles that occur together only in the files of one vendor, and the form of that vendor's prices. As-traded prices beside an
# adjusted close have a separate form, for every vendor (`FileEvidence.form`).
_VENDORS = (
    ("Tiingo", AS_TRADED, {"adjclose", "divcash", "splitfactor"}),
    ("Quandl", AS_TRADED, {"exdividend", "splitratio"}),
    ("Quandl", AS_TRADED, {"adjopen", "adjhigh", "adjlow", "adjclose"}),
    ("Alpha Vantage", AS_TRADED, {"adjustedclose", "dividendamount", "splitcoefficient"}),
    ("Polygon", AS_TRADED, {"windowstart"}),
    ("CRSP", AS_TRADED, {"prc", "bidlo", "askhi"}),
    ("CRSP", AS_TRADED, {"dlycaldt", "dlyprc"}),
    ("NSE", AS_TRADED, {"tottrdqty"}),
    ("NSE", AS_TRADED, {"ttltrdqnty"}),
    ("NSE", AS_TRADED, {"ttltradgvol"}),
    ("BSE", AS_TRADED, {"noofshares", "wap"}),
)
LONGEST_SHOWN = 300  # characters of a line in a message


class HeaderError(Exception):
    """A CSV file has no usable header; the message shows it and says what is needed."""


@dataclass(frozen=True)
class Header:
    """The header of a file.

    - `titles`: the title of every column.
    - `columns`: the index of each delivered column.
    - `lines`: the number of lines from the start of the file to the end of the header.
    - `skipped`: the text of the lines above the header.
    - `clock`: the index of a column of times of day beside the date.
    - `symbol`: the ticker that the header itself names.
    - `vendor`: the vendor whose titles they are; None if unknown.
    - `form`: what the titles say about the prices; None if nothing.
    - `notes`: what was decided, in words.
    """

    titles: tuple[str, ...]
    columns: Mapping[str, int]
    separator: str
    lines: int
    skipped: tuple[str, ...] = ()
    clock: int | None = None
    symbol: str | None = None
    vendor: str | None = None
    form: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def is_named(self) -> bool:
        """Whether the column of symbols may hold company names: it is used only if nothing else gives the ticker."""
        index = self.columns.get("symbol")
        return index is not None and _RANK[_plain(self.titles[index])][1] == WEAK

    @property
    def says(self) -> str | None:
        """The actions that the file has columns for, in the form of raw's column `says`."""
        names = [
            name for name, column in (("dividends", "dividends"), ("splits", "stock_splits")) if column in self.columns
        ]
        return ",".join(names) or None


def find_header(lines: Sequence[str]) -> Header:
    """The header among the first `lines` of a file. Raises HeaderError if no line has a date and a close."""
    first = next((line for line in lines if line.strip("\0 \t\r\n")), None)
    if first is None:
        raise HeaderError("the file is empty or has no header")
    nearest: tuple[int, HeaderError] | None = None
    for number, line in enumerate(lines[:SEARCHED]):
        for separator in SEPARATORS:
            titles = split_line(line, separator)
            if isinstance(titles, str) or len(titles) < 2:
                continue
            titles, symbol, extra = _of_several_lines(titles, lines[number + 1 : number + 3], separator)
            try:
                columns = columns_of(titles)
            except MissingColumnsError as error:
                if nearest is None or error.found > nearest[0]:
                    nearest = error.found, error
                continue
            return _header(columns, separator, tuple(lines[:number]), number + 1 + extra, symbol)
    shown = printable(first.strip("\r\n")[:LONGEST_SHOWN])
    if nearest is not None and nearest[0]:
        raise nearest[1]
    raise HeaderError(f"the file has no header: put a line such as {EXAMPLE} above its first line, which is {shown!r}")


class MissingColumnsError(HeaderError):
    """A line has no title for a required column; `found` is the number of columns that it has titles for."""

    def __init__(self, message: str, found: int) -> None:
        super().__init__(message)
        self.found = found


@dataclass(frozen=True)
class Columns:
    """The delivered columns among the titles of a header.

    - `titles`: the titles, without blanks around them and without quantmod's ticker before them.
    - `where`: the index of the title that each column is read from.
    - `left`: the indexes of other titles that match the column and are not read.
    - `symbol`: quantmod's ticker.
    """

    titles: tuple[str, ...]
    where: Mapping[str, int]
    left: Mapping[str, tuple[int, ...]]
    symbol: str | None = None


def columns_of(titles: Sequence[str]) -> Columns:
    """The delivered columns among `titles`.

    Raises MissingColumnsError when a required column is missing, HeaderError when two titles match one column equally well.
    """
    plain, symbol = _without_ticker([title.strip(BLANKS) for title in titles])
    candidates: dict[str, list[tuple[int, int]]] = {}
    for index, title in enumerate(plain):
        name, rank = _RANK.get(_plain(title), (None, 0))
        if name is not None:
            candidates.setdefault(name, []).append((rank, index))
    if "date" not in candidates and (not plain[0] or (symbol and plain[0].lower() == "index")):
        candidates["date"] = [(0, 0)]  # the index of a pandas or R frame, which is written without a title
    missing = [name for name in REQUIRED if name not in candidates]
    if missing:
        raise MissingColumnsError(_missing(missing, titles, candidates), len(candidates))
    where, left = {}, {}
    for name, ranked in candidates.items():
        (rank, best), *others = sorted(ranked)
        if others and others[0][0] == rank:
            raise HeaderError(
                f"two columns mean {name}: {titles[best]!r} and {titles[others[0][1]]!r}; rename or remove one of them"
            )
        where[name] = best
        left[name] = tuple(index for _, index in others)
    return Columns(tuple(plain), where, left, symbol)


def _missing(missing: Sequence[str], titles: Sequence[str], found: Mapping[str, object]) -> str:
    header = ", ".join(repr(title) for title in titles)[:LONGEST_SHOWN]
    message = f"no column for {' and '.join(missing)} in the header {header}; a file needs at least a date and a close"
    if "close" in missing and {"dividends", "stock_splits"} & found.keys():
        message += (
            ". A file of dividends or splits alone is not read: put them into columns of the file that has the prices"
        )
    return message


def _header(columns: Columns, separator: str, skipped: tuple[str, ...], lines: int, symbol: str | None) -> Header:
    where = dict(columns.where)
    plain = [_plain(title) for title in columns.titles]
    clock = next((index for index, title in enumerate(plain) if title in CLOCKS and index != where["date"]), None)
    vendor, form = _vendor(columns.titles, is_yfinance=symbol is not None)
    notes = _notes(columns, where, skipped, clock)
    return Header(
        columns.titles, where, separator, lines, skipped, clock, symbol or columns.symbol, vendor, form, tuple(notes)
    )  # fmt: skip


def _notes(columns: Columns, where: Mapping[str, int], skipped: Sequence[str], clock: int | None) -> list[str]:
    """What was decided about the columns, in words."""
    plain = [_plain(title) for title in columns.titles]
    notes = []
    hidden = [line.strip("\r\n") for line in skipped if line.strip() and not line.lower().startswith("sep=")]
    if hidden:
        notes.append(
            f"lines above the header are skipped: {printable(hidden[0][:80])!r}" + (" …" if hidden[1:] else "")
        )
    for name, indexes in columns.left.items():
        rest = [columns.titles[index] for index in indexes if index != clock]
        if rest:
            names = ", ".join(repr(printable(title)) for title in rest)
            notes.append(f"{name} is read from the column {printable(columns.titles[where[name]])!r}, not from {names}")
    for index, title in enumerate(columns.titles):
        is_action = any(part in plain[index] for part in ("div", "split"))
        if is_action and index not in where.values() and not any(index in left for left in columns.left.values()):
            notes.append(UnusedColumn(f"the column {printable(title)!r} is not used"))
    missing = [name for name in USUAL if name not in where]
    if missing:
        notes.append(f"there is no column for {', '.join(missing)}")
    return notes


def _plain(title: str) -> str:
    title = _UNIT.sub("", _NUMBERED.sub("", title.strip(BLANKS + "<>")))
    return "".join(letter for letter in title.lower().translate(_UMLAUTS) if letter.isalnum())


def _without_ticker(titles: list[str]) -> tuple[list[str], str | None]:
    """`titles` without the ticker that quantmod puts before each (AAPL.Open), and that ticker."""
    matches = [_OF_TICKER.fullmatch(title) for title in titles]
    tickers = {match[1] for match in matches if match}
    if sum(match is not None for match in matches) < 3 or "" in tickers:
        return titles, None
    if len(tickers) > 1:
        raise _side_by_side(tickers)
    return [match[2] if match else title for match, title in zip(matches, titles, strict=True)], tickers.pop()


def _of_several_lines(titles: list[str], below: Sequence[str], separator: str) -> tuple[list[str], str | None, int]:
    """The titles of a header of several lines, as yfinance's `download` writes it, its ticker, and the number of extra lines.

    The lines are Price,Close,High / Ticker,AAPL,AAPL / Date,, with the first two in either order. Older versions leave out the
    words Price and Ticker.
    """
    second = split_line(below[0], separator) if below else []
    if isinstance(second, str) or len(second) != len(titles):
        return titles, None, 0
    third = split_line(below[1], separator) if len(below) > 1 else []
    is_blank = isinstance(third, list) and len(third) == len(titles) and not any(cell.strip() for cell in third[1:])
    extra = 2 if is_blank else 1
    names = {titles[0].strip().lower(), second[0].strip().lower()}
    is_named = names & {"ticker", "symbols"} or (is_blank and third[0].strip().lower() in ("date", "datetime"))
    if not is_named or not names <= {"price", "ticker", "attributes", "symbols", ""}:
        return titles, None, 0
    fields, tickers = next(
        (
            (fields, tickers)
            for fields, tickers in ((titles[1:], second[1:]), (second[1:], titles[1:]))
            if any(_RANK.get(_plain(title), ("",))[0] == "close" for title in fields)
        ),
        ([], []),
    )
    if not fields:
        return titles, None, 0
    if len({ticker.strip() for ticker in tickers}) != 1 or not tickers[0].strip():
        raise _side_by_side({ticker.strip() for ticker in tickers})
    return ["Date", *fields], tickers[0].strip(), extra


def _side_by_side(tickers: set[str]) -> HeaderError:
    some = ", ".join(printable(ticker) for ticker in sorted(tickers)[:5])
    return HeaderError(
        f"several tickers stand side by side ({some}): write a file for each, or one below the other with a column Symbol, "
        "in pandas by frame.stack(level='Ticker', future_stack=True)"
    )


def _vendor(titles: Sequence[str], is_yfinance: bool) -> tuple[str | None, str | None]:
    """The vendor whose `titles` they are, and the form of that vendor's prices; None where unknown."""
    plain = {_plain(title) for title in titles}
    for vendor, form, vendor_titles in _VENDORS:
        if vendor_titles <= plain:
            return vendor, form
    if {"Date", "Adjusted_close"} <= set(titles):
        return "EODHD", AS_TRADED_ADJUSTED_CLOSE
    if is_yfinance and "adjclose" not in plain:
        return "yfinance's download with auto_adjust", TOTAL_RETURN
    return None, None


def is_auto_adjusted(header: Header) -> bool:
    """Whether a file whose dates are midnights with a UTC offset comes from `yfinance.Ticker.history()` with auto_adjust."""
    return header.vendor is None and header.says == "dividends,splits" and "adj_close" not in header.columns
