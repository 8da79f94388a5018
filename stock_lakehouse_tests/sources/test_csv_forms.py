"""Files in the forms of vendors and spreadsheets, each with what it must be read as, written by hand; and files thrown by dice.

Of the latter the truth is known apart: they are read as it is, or refused with the setting to change.
"""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.sources import DELIVERED_COLUMNS, SourceError, UnusedColumn, csv_rows
from stock_lakehouse.sources.csv_evidence import (
    INTRADAY,
    MIXED_DECIMALS,
    NO_TICKER,
    OTHER_TICKER,
    UNCLEAR_DECIMALS,
)
from stock_lakehouse.sources.csv_folder import CsvFolderSource
from stock_lakehouse.sources.csv_rows import ABOVE_HEADER, CsvRules
from stock_lakehouse.sources.dates import AMBIGUOUS, PROVEN_ORDER, DateRules

FIRST, LAST = date(2013, 1, 2), date(2024, 12, 31)
NOW = datetime(2024, 7, 1, 12, 0, tzinfo=UTC)
RULES = CsvRules(calendar=market_calendar(date(2013, 1, 2)), now=lambda: NOW)
TICKERS = ("AAPL", "BRK-B", "^GSPC")
PRICES = ("open", "high", "low", "close", "volume")


def read(
    folder: Path, text: str | bytes, name: str = "AAPL.csv", rules: CsvRules = RULES, tickers: Sequence[str] = TICKERS
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows of a file of that text, and what is said of it."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    deliveries = list(CsvFolderSource(folder, rules=rules).read(folder / name, tickers))
    assert all(delivery.rows.column_names == list(DELIVERED_COLUMNS) for delivery in deliveries)
    notes = [note for delivery in deliveries for note in delivery.notes.get(name, ())]
    return pa.concat_tables([delivery.rows for delivery in deliveries]).to_pylist(), tuple(notes)


@dataclass(frozen=True)
class Form:
    """A vendor's file and what its first row must be: session, open to close and volume as written, and what is known of them."""

    text: str
    values: tuple[str | None, ...] = ("100.52", "101.84", "100.05", "101.79", "720600")
    session: str | None = "2024-01-02"
    name: str = "AAPL.csv"
    basis: str = "split_adjusted"
    decimal: str | None = None
    says: str | None = None
    adjusted_to: str | None = "2024-01-03"
    adj_close_as_of: str | None = None
    more: tuple[tuple[str, str], ...] = ()
    note: str | None = None


AS_TRADED = {"basis": "as_traded", "adjusted_to": "2024-01-02"}
WITH_ADJUSTED_CLOSE = {
    "basis": "as_traded_adjusted_close",
    "adjusted_to": "2024-01-02",
    "adj_close_as_of": "2024-01-03",
    "says": "dividends,splits",
}
FORMS = {
    "Yahoo, former download": Form(
        "Date,Open,High,Low,Close,Adj Close,Volume\n2024-01-02,100.52,101.84,100.05,101.79,101.1,720600\n"
        "2024-01-03,101.80,102.69,100.45,100.58,100.0,1040800\n",
        more=(("adj_close", "101.1"),),
    ),
    "Yahoo, web table": Form(
        'Date,Open,High,Low,Close,Adj Close,Volume\n"Jan 2, 2024",100.52,101.84,100.05,101.79,101.1,"720,600"\n'
        '"Jan 3, 2024",101.80,102.69,100.45,100.58,100.0,"1,040,800"\n',
        ("100.52", "101.84", "100.05", "101.79", "720,600"),
    ),
    "Yahoo, web table with explanations": Form(
        "Date\tOpen\tHigh\tLow\tClose Close price adjusted for splits.\t"
        "Adj Close Adjusted close price adjusted for splits and dividend and/or capital gain distributions.\tVolume\n"
        "Jan 2, 2024\t100.52\t101.84\t100.05\t101.79\t101.1\t720,600\n"
        "Jan 3, 2024\t101.80\t102.69\t100.45\t100.58\t100.0\t1,040,800\n",
        ("100.52", "101.84", "100.05", "101.79", "720,600"),
        more=(("adj_close", "101.1"),),
    ),
    "yfinance, download": Form(
        "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,\n"
        "2024-01-02,101.79,101.84,100.05,100.52,720600\n2024-01-03,100.58,102.69,100.45,101.8,1040800\n",
        basis="total_return",
        more=(("symbol", "AAPL"), ("line_number", "4")),
        note="prices are read as total_return",
    ),
    "yfinance, download without auto_adjust": Form(
        "Price,Adj Close,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,,\n"
        "2024-01-02,101.1,101.79,101.84,100.05,100.52,720600\n2024-01-03,100.0,100.58,102.69,100.45,101.8,1040800\n",
        name="prices.csv",  # the header says which ticker it is
        more=(("ticker", "AAPL"), ("adj_close", "101.1")),
    ),
    "yfinance, download by ticker": Form(
        "Ticker,AAPL,AAPL,AAPL,AAPL,AAPL\nPrice,Open,High,Low,Close,Volume\nDate,,,,,\n"
        "2024-01-02,100.52,101.84,100.05,101.79,720600\n2024-01-03,101.8,102.69,100.45,100.58,1040800\n",
        basis="total_return",
    ),
    "yfinance, history": Form(
        "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits\n"
        "2024-01-02 00:00:00-05:00,100.52,101.84,100.05,101.79,720600,0.0,0.0\n"
        "2024-01-03 00:00:00-05:00,101.8,102.69,100.45,100.58,1040800,0.24,0.0\n",
        basis="total_return",
        says="dividends,splits",
        note="prices are read as total_return",
    ),
    "yfinance, history without auto_adjust": Form(
        "Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits,Capital Gains\n"
        "2024-01-02 00:00:00-05:00,100.52,101.84,100.05,101.79,101.1,720600,0.0,0.0,1.5\n"
        "2024-01-03 00:00:00-05:00,101.8,102.69,100.45,100.58,100.0,1040800,0.24,0.0,0.0\n",
        says="dividends,splits",
        more=(("capital_gains", "1.5"),),
    ),
    "Stooq": Form(
        "Date,Open,High,Low,Close,Volume\r\n2024-01-02,100.52,101.84,100.05,101.79,720600\r\n"
        "2024-01-03,101.80,102.69,100.45,100.58,1040800\r\n",
        name="aapl_us_d.csv",
        more=(("ticker", "AAPL"),),
    ),
    "Stooq, an index": Form(
        "Date,Open,High,Low,Close,Volume\n2024-01-02,100.52,101.84,100.05,101.79,720600\n"
        "2024-01-03,101.80,102.69,100.45,100.58,1040800\n",
        name="^gspc_d.csv",
        more=(("ticker", "^GSPC"),),
    ),
    "Stooq, bulk": Form(
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "BRK-B.US,D,20240102,000000,100.52,101.84,100.05,101.79,720600,0\n"
        "BRK-B.US,D,20240103,000000,101.8,102.69,100.45,100.58,1040800,0\n",
        name="brk-b.us.txt",
        more=(("ticker", "BRK-B"), ("symbol", "BRK-B.US")),
    ),
    "Nasdaq.com": Form(
        "Date,Close/Last,Volume,Open,High,Low\n01/16/2024,$101.79,720600,$100.52,$101.84,$100.05\n"
        "01/03/2024,$100.58,1040800,$101.80,$102.69,$100.45\n",
        ("$100.52", "$101.84", "$100.05", "$101.79", "720600"),
        session="2024-01-16",
        adjusted_to="2024-01-16",
        note="month first",
    ),
    "Investing.com": Form(
        '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"\n'
        '"01/16/2024","1,101.79","1,100.52","1,101.84","1,100.05","0.72M","0.12%"\n'
        '"01/03/2024","1,100.58","1,101.80","1,102.69","1,100.45","1.04M","0.12%"\n',
        ("1,100.52", "1,101.84", "1,100.05", "1,101.79", "0.72M"),
        session="2024-01-16",
        name="AAPL Historical Data.csv",
        adjusted_to="2024-01-16",
        more=(("ticker", "AAPL"),),
    ),
    "Investing.com, in German": Form(
        '"Datum","Zuletzt","Eröffn.","Hoch","Tief","Vol.","+/- %"\n'
        '"03.01.2024","1.100,58","1.101,80","1.102,69","1.100,45","1,04M","0,12%"\n'
        '"02.01.2024","1.101,79","1.100,52","1.101,84","1.100,05","0,72M","0,12%"\n',
        ("1.101,80", "1.102,69", "1.100,45", "1.100,58", "1,04M"),
        session="2024-01-03",
        decimal=",",
        note="decimal comma",
    ),
    "Alpha Vantage, daily": Form(
        "timestamp,open,high,low,close,volume\n2024-01-03,101.80,102.69,100.45,100.58,1040800\n"
        "2024-01-02,100.52,101.84,100.05,101.79,720600\n",
        ("101.80", "102.69", "100.45", "100.58", "1040800"),
        session="2024-01-03",
        name="daily_AAPL.csv",
        more=(("ticker", "AAPL"),),
    ),
    "Alpha Vantage, daily adjusted": Form(
        "timestamp,open,high,low,close,adjusted_close,volume,dividend_amount,split_coefficient\n"
        "2024-01-02,100.52,101.84,100.05,101.79,25.4,720600,0.0000,1.0\n"
        "2024-01-03,25.1,25.9,25.0,25.5,25.5,1040800,0.0000,4.0\n",
        more=(("adj_close", "25.4"), ("dividends", "0.0000"), ("stock_splits", "1.0")),
        note="Alpha Vantage",
        **WITH_ADJUSTED_CLOSE,
    ),
    "Alpha Vantage, in pandas": Form(
        "date,1. open,2. high,3. low,4. close,5. adjusted close,6. volume,7. dividend amount,8. split coefficient\n"
        "2024-01-02,100.52,101.84,100.05,101.79,25.4,720600,0.5,1.0\n"
        "2024-01-03,25.1,25.9,25.0,25.5,25.5,1040800,0.0000,4.0\n",
        more=(("dividends", "0.5"), ("stock_splits", "1.0")),
        **WITH_ADJUSTED_CLOSE,
    ),
    "Alpha Vantage, daily in pandas": Form(
        "date,1. open,2. high,3. low,4. close,5. volume\n2024-01-02,100.52,101.84,100.05,101.79,720600\n"
        "2024-01-03,101.80,102.69,100.45,100.58,1040800\n",
    ),
    "Tiingo": Form(
        "date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor\n"
        "2024-01-02 00:00:00+00:00,101.79,101.84,100.05,100.52,720600,25.4,25.5,25.1,25.2,2882400,0.0,1.0\n"
        "2024-01-03 00:00:00+00:00,25.5,25.9,25.0,25.1,1040800,25.5,25.9,25.0,25.1,1040800,0.0,4.0\n",
        more=(("adj_close", "25.4"), ("stock_splits", "1.0")),
        note="Tiingo",
        **WITH_ADJUSTED_CLOSE,
    ),
    "Quandl WIKI": Form(
        "Date,Open,High,Low,Close,Volume,Ex-Dividend,Split Ratio,Adj. Open,Adj. High,Adj. Low,Adj. Close,Adj. Volume\n"
        "2024-01-02,100.52,101.84,100.05,101.79,720600,0.77,1.0,25.2,25.5,25.1,25.4,2882400\n"
        "2024-01-03,25.1,25.9,25.0,25.5,1040800,0.0,4.0,25.1,25.9,25.0,25.5,1040800\n",
        more=(("adj_close", "25.4"), ("dividends", "0.77"), ("stock_splits", "1.0")),
        note="Quandl",
        **WITH_ADJUSTED_CLOSE,
    ),
    "EODHD": Form(
        "Date,Open,High,Low,Close,Adjusted_close,Volume\n2024-01-02,100.52,101.84,100.05,101.79,25.4,720600\n"
        "2024-01-03,25.1,25.9,25.0,25.5,25.5,1040800\n",
        **{**WITH_ADJUSTED_CLOSE, "says": None},
    ),
    "Polygon, flat file": Form(
        "ticker,volume,open,close,high,low,window_start,transactions\n"
        "AAPL,720600,100.52,101.79,101.84,100.05,1704171600000000000,9\n"
        "MSFT,720600,300.52,301.79,301.84,300.05,1704171600000000000,9\n",
        name="2024-01-02.csv",
        more=(("ticker", "AAPL"),),
        note="Polygon",
        **AS_TRADED,
    ),
    "TradingView": Form(
        "time,open,high,low,close,Volume\n1704205800,100.52,101.84,100.05,101.79,720600\n"
        "1704292200,101.8,102.69,100.45,100.58,1040800\n",
        name="NASDAQ_AAPL, 1D.csv",
        more=(("ticker", "AAPL"),),
    ),
    "MetaStock": Form(
        "<TICKER>,<DTYYYYMMDD>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\nAAPL,20240102,100.52,101.84,100.05,101.79,720600\n"
        "AAPL,20240103,101.8,102.69,100.45,100.58,1040800\n",
        name="export.txt",
        more=(("ticker", "AAPL"),),
    ),
    "MetaTrader 5": Form(
        "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2024.01.02\t100.52\t101.84\t100.05\t101.79\t4711\t720600\t1\n"
        "2024.01.03\t101.80\t102.69\t100.45\t100.58\t4711\t1040800\t1\n",
        note="not from '<TICKVOL>'",
    ),
    "CRSP": Form(
        "PERMNO,date,TICKER,COMNAM,BIDLO,ASKHI,PRC,VOL,RET,OPENPRC,NUMTRD\n"
        "14593,20240102,AAPL,APPLE INC,100.05,101.84,101.79,720600,C,100.52,\n"
        "14593,20240103,AAPL,APPLE INC,100.45,102.69,100.58,1040800,0.001,101.8,\n",
        name="crsp.csv",
        more=(("ticker", "AAPL"),),
        note="CRSP",
        **AS_TRADED,
    ),
    "CRSP, since 2022": Form(
        "PERMNO,DlyCalDt,Ticker,DlyPrc,DlyVol,DlyLow,DlyHigh,DlyOpen\n14593,02JAN2024,AAPL,101.79,720600,100.05,101.84,100.52\n"
        "14593,03JAN2024,AAPL,100.58,1040800,100.45,102.69,101.8\n",
        name="crsp.csv",
        **AS_TRADED,
    ),
    "NSE, bhavcopy": Form(
        "SYMBOL,SERIES,OPEN,HIGH,LOW,CLOSE,LAST,PREVCLOSE,TOTTRDQTY,TOTTRDVAL,TIMESTAMP,TOTALTRADES,ISIN,\n"
        "AAPL,EQ,100.52,101.84,100.05,101.79,101.78,101.79,720600,1.0,02-JAN-2024,100,INE000A01000,\n",
        name="bhav.csv",
        more=(("ticker", "AAPL"),),
        note="close is read from the column 'CLOSE', not from 'LAST'",
        **AS_TRADED,
    ),
    "NSE, bhavcopy since 2024": Form(
        "TradDt,BizDt,Sgmt,TckrSymb,SctySrs,OpnPric,HghPric,LwPric,ClsPric,LastPric,TtlTradgVol\n"
        "2024-01-02,2024-01-02,CM,AAPL,EQ,100.52,101.84,100.05,101.79,101.78,720600\n",
        name="bhav.csv",
        **AS_TRADED,
    ),
    "NSE, full bhavcopy": Form(
        "SYMBOL, SERIES, DATE1, PREV_CLOSE, OPEN_PRICE, HIGH_PRICE, LOW_PRICE, LAST_PRICE, CLOSE_PRICE, TTL_TRD_QNTY\n"
        "AAPL, EQ, 02-Jan-2024, 101.79, 100.52, 101.84, 100.05, 101.78, 101.79, 720600\n",
        (" 100.52", " 101.84", " 100.05", " 101.79", " 720600"),
        name="bhav.csv",
        **AS_TRADED,
    ),
    "BSE": Form(
        "Date,Open Price,High Price,Low Price,Close Price,WAP,No.of Shares,No. of Trades,Total Turnover (Rs.)\n"
        "02-January-2024,100.52,101.84,100.05,101.79,101.79,720600,10,1\n",
        **AS_TRADED,
    ),
    "Barchart": Form(
        'Time,Open,High,Low,Latest,Change,%Change,Volume\n2024-01-03,101.8,102.69,100.45,100.58,0,"0.1%",1040800\n'
        '2024-01-02,100.52,101.84,100.05,101.79,0,"0.1%",720600\n'
        '"Downloaded from Barchart.com as of 01-04-2024 10:00am CST"\n',
        ("101.8", "102.69", "100.45", "100.58", "1040800"),
        session="2024-01-03",
        name="aapl_daily_historical-data-01-04-2024.csv",
        more=(("ticker", "AAPL"),),
        note="Downloaded from Barchart.com",
    ),
    "quantmod": Form(
        '"Index","AAPL.Open","AAPL.High","AAPL.Low","AAPL.Close","AAPL.Volume","AAPL.Adjusted"\n'
        '"2024-01-02",100.52,101.84,100.05,101.79,720600,101.1\n"2024-01-03",101.8,102.69,100.45,100.58,1040800,100\n',
        name="prices.csv",
        more=(("ticker", "AAPL"), ("symbol", "AAPL"), ("adj_close", "101.1")),
    ),
    "R, row names": Form(
        '"","AAPL.Open","AAPL.High","AAPL.Low","AAPL.Close","AAPL.Volume"\n"2024-01-02",100.52,101.84,100.05,101.79,720600\n'
        '"2024-01-03",101.8,102.69,100.45,100.58,1040800\n',
    ),
    "tidyquant": Form(
        '"symbol","date","open","high","low","close","volume","adjusted"\n"AAPL",2024-01-02,100.52,101.84,100.05,101.79,720600,NA\n'
        '"AAPL",2024-01-03,101.8,102.69,100.45,100.58,1040800,100\n',
        name="stocks.csv",
        more=(("adj_close", "NA"),),
    ),
    "CBOE": Form(
        "AAPL daily prices; for information only\nsee the disclaimer\nDATE,OPEN,HIGH,LOW,CLOSE\n"
        "1/16/2024,100.52,101.84,100.05,101.79\n1/17/2024,101.80,102.69,100.45,100.58\n",
        ("100.52", "101.84", "100.05", "101.79", None),
        session="2024-01-16",
        adjusted_to="2024-01-17",
        more=(("line_number", "4"),),
        note="lines above the header are skipped: 'AAPL daily prices; for information only' …",
    ),
    "Börse Frankfurt": Form(
        "Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen\n02.01.2024;100,52;101,84;100,05;101,79;720600;72060000\n"
        "03.01.2024;101,80;102,69;100,45;100,58;1040800;104080000\n",
        ("100,52", "101,84", "100,05", "101,79", "720600"),
        decimal=",",
        note="volume is read from the column 'Stuecke', not from 'Volumen'",
    ),
    "pandas, an index without a name": Form(
        ",Open,High,Low,Close,Volume\n2024-01-02,100.52,101.84,100.05,101.79,720600\n2024-01-03,101.8,102.69,100.45,100.58,1040800\n",
    ),
    "a time of day beside the date": Form(
        "Date,Time,Open,High,Low,Close,Volume\n2024-01-02,16:00,100.52,101.84,100.05,101.79,720600\n"
        "2024-01-03,16:00,101.8,102.69,100.45,100.58,1040800\n",
    ),
    "a separator at each line's end": Form(
        "Date,Open,High,Low,Close,Volume\n2024-01-02,100.52,101.84,100.05,101.79,720600,\n"
        "2024-01-03,101.8,102.69,100.45,100.58,1040800,\n",
    ),
    "a separator at the header's end": Form(
        "Date,Open,High,Low,Close,Volume,\n2024-01-02,100.52,101.84,100.05,101.79,720600\n"
        "2024-01-03,101.8,102.69,100.45,100.58,1040800\n",
    ),
    "blanks before and behind quotes": Form(
        'Date, Open, High, Low, Close, Volume\n"2024-01-02" , "100.52", "101.84" ,"100.05", "101.79", "720600"\n'
        '"2024-01-03", "101.80", "102.69", "100.45", "100.58", "1040800"\n',
    ),
    "Excel's separator line": Form(
        "sep=;\nDate;Open;High;Low;Close;Volume\n2024-01-02;100.52;101.84;100.05;101.79;720600\n"
        "2024-01-03;101.8;102.69;100.45;100.58;1040800\n",
    ),
    "bars": Form(
        "Date|Open|High|Low|Close|Volume\n2024-01-02|100.52|101.84|100.05|101.79|720600\n"
        "2024-01-03|101.8|102.69|100.45|100.58|1040800\n",
    ),
    "units in titles": Form(
        "Date,Open (USD),High (USD),Low ($),Close (USD),Volume\n2024-01-02,100.52,101.84,100.05,101.79,720600\n"
        "2024-01-03,101.8,102.69,100.45,100.58,1040800\n",
    ),
    "close alone": Form(
        "Date,Close\n2024-01-02,101.79\n2024-01-03,100.58\n",
        (None, None, None, "101.79", None),
        note="there is no column for open, high, low, volume",
    ),
}


@pytest.mark.parametrize("vendor", FORMS)
def test_files_of_vendors_are_read_as_their_first_row_says(tmp_path: Path, vendor: str) -> None:
    form = FORMS[vendor]
    rows, notes = read(tmp_path, form.text, form.name)
    assert [row["problem"] for row in rows] == [None] * len(rows)
    row = rows[0]
    assert tuple(row[name] for name in PRICES) == form.values
    known = {name: row[name] for name in ("session", "basis", "decimal", "says", "adjusted_to", "adj_close_as_of")}
    assert known == {name: getattr(form, name) for name in known}
    assert row["file"] == form.name
    assert {name: row[name] for name, _ in form.more} == dict(form.more)
    if form.note:
        assert form.note in "; ".join(notes)
    assert not any(isinstance(note, UnusedColumn) for note in notes)
    if form.name.endswith(".txt"):  # found in the folder too
        assert [path.name for path in CsvFolderSource(tmp_path).files()] == [form.name]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_are_known_by_their_mark(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = FORMS["Stooq"].text.encode(encoding)
    rows, _ = read(tmp_path, gzip.compress(content) if packed else content, "AAPL.csv.gz" if packed else "AAPL.csv")
    assert [row["session"] for row in rows] == ["2024-01-02", "2024-01-03"]
    assert [row["line_number"] for row in rows] == ["2", "3"]


# --- what is refused, and the sentence that says what to change ---------------------------------------------


def problems(rows: Sequence[dict[str, Any]]) -> set[str | None]:
    return {row["problem"] for row in rows}


def bars(*lines: str, header: str = "Date,Open,High,Low,Close,Volume") -> str:
    return "\n".join((header, *lines, ""))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2024-01-02,1,2,1,2,3\n", "the file has no header: put a line such as Date,Open,High,Low,Close,Volume above"),
        (
            "Price,Close,Close,Open,Open\nTicker,AAPL,MSFT,AAPL,MSFT\nDate,,,,\n2024-01-02,1,2,1,2\n",
            "several tickers stand side by side (AAPL, MSFT): write a file for each, or one below the other with a column Symbol",
        ),
        (
            '"Index","AAPL.Open","AAPL.Close","MSFT.Open","MSFT.Close"\n"2024-01-02",1,2,1,2\n',
            "several tickers stand side by side (AAPL, MSFT)",
        ),
        ("Date,Dividends\n2024-01-02,1\n", "A file of dividends or splits alone is not read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_row_that_says_what_to_change(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (row,), _ = read(tmp_path, text)
    assert sentence in row["problem"]
    assert (row["file"], row["line"], row["session"]) == ("AAPL.csv", "the file AAPL.csv", None)


def test_the_order_of_dates_is_asked_for_where_no_date_shows_it(tmp_path: Path) -> None:
    text = bars("01/02/2024,1,2,1,2,3", "01/03/2024,1,2,1,2,3")
    rows, _ = read(tmp_path, text)
    assert problems(rows) == {AMBIGUOUS}
    assert {row["session"] for row in rows} == {None}
    rows, _ = read(tmp_path, text, rules=replace(RULES, dates=DateRules("month_first")))
    assert [(row["session"], row["problem"]) for row in rows] == [("2024-01-02", None), ("2024-01-03", None)]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_decimal_mark_is_asked_for_where_no_number_shows_it(tmp_path: Path, separator: str) -> None:
    text = bars("2024-01-02,1.234,2.345,1.111,2.222,3", "2024-01-03,1.234,2.345,1.111,2.222,3").replace(",", separator)
    assert problems(read(tmp_path, text)[0]) == {UNCLEAR_DECIMALS}
    assert "csv_decimal" in UNCLEAR_DECIMALS
    for setting, decimal in (("comma", ","), ("point", None)):
        rows, _ = read(tmp_path, text, rules=replace(RULES, decimal=setting))  # type: ignore[arg-type]
        assert problems(rows) == {None}
        assert {row["decimal"] for row in rows} == {decimal}


@pytest.mark.parametrize(
    ("separator", "numbers", "decimal"),
    [
        (";", ("1234", "5678"), None),
        (";", ("1.23", "1.234"), None),
        (";", ("1,23", "1,234"), ","),
        (";", ("1.234,5", "1.234"), ","),
        (";", ("1,234.5", "1,234"), None),
        (";", ("1,234,567", "1,234"), None),
        (";", ("1.234.567", "1.234"), ","),
        (";", ("0.123", "1.234"), None),
        (";", ("1234.567", "1.234"), None),
        (";", ("1 234,567", "1,234"), ","),
        (";", ("$1.50", "1.234"), None),
        (";", ("1,5 €", "1,234"), ","),
        (";", ("1.23", "45,67"), None),  # one of them cannot be read, which its own row will say
        (",", ("1.234", "5.678"), None),
        (",", ("1.234.567", "1.234"), ","),
        (",", ('"1,234"', '"5,678"'), None),
        (",", ('"1,23"', '"1,234"'), ","),
        (",", ('"1.234,50"', '"1.234"'), ","),
    ],
)
def test_numbers_show_the_decimal_mark_of_their_file(
    tmp_path: Path, separator: str, numbers: tuple[str, str], decimal: str | None
) -> None:
    lines = [separator.join((f"2024-01-0{day}", number)) for day, number in enumerate(numbers, 2)]
    rows, _ = read(tmp_path, bars(*lines, header=f"Date{separator}Close"))
    assert problems(rows) == {None}
    assert {row["decimal"] for row in rows} == {decimal}


def test_numbers_of_both_marks_beside_one_that_may_be_either_are_refused(tmp_path: Path) -> None:
    text = bars("2024-01-02;1,23", "2024-01-03;1.23", "2024-01-04;1.234", header="Date;Close")
    assert problems(read(tmp_path, text)[0]) == {MIXED_DECIMALS}


@pytest.mark.parametrize(
    ("setting", "separator", "numbers", "shown"),
    [
        ("comma", ",", ("9.014", "8.98"), "a decimal point (8.98)"),
        ("comma", ",", ("9.014", "9.0141"), "a decimal point (9.0141)"),
        ("comma", ";", ("9.014", "0.123"), "a decimal point (0.123)"),
        ("comma", ";", ("1,234", "1,234.5"), "a decimal point (1,234.5)"),
        ("point", ";", ("9,014", "8,98"), "a decimal comma (8,98)"),
        ("point", ",", ('"9,014"', '"8,98"'), "a decimal comma (8,98)"),
    ],
)
@pytest.mark.parametrize("rows_a_batch", [1, 50_000])
def test_a_decimal_mark_of_the_settings_that_the_numbers_disprove_refuses_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Any, separator: str, numbers: Sequence[str],
    shown: str, rows_a_batch: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(csv_rows, "ROWS_A_BATCH", rows_a_batch)
    lines = [separator.join((f"2024-01-0{day}", number)) for day, number in enumerate((*numbers, "7"), 2)]
    text = bars(*lines, header=f"Date{separator}Close")
    rows, _ = read(tmp_path, text, rules=replace(RULES, decimal=setting))
    assert problems(rows) == {
        f"csv_decimal is {setting}, but numbers of the file have {shown}: set csv_decimal to auto"
    }
    assert len(rows) == 3
    assert {row["adjusted_to"] for row in rows} == {None}
    assert problems(read(tmp_path, text)[0]) == {None}


@pytest.mark.parametrize(("setting", "decimal"), [("comma", ","), ("point", None)])
def test_a_decimal_mark_of_the_settings_holds_where_numbers_of_the_file_have_both(
    tmp_path: Path, setting: Any, decimal: str | None
) -> None:
    text = bars("2024-01-02;1,23", "2024-01-03;1.23", "2024-01-04;1.234", header="Date;Close")
    rows, _ = read(tmp_path, text, rules=replace(RULES, decimal=setting))
    assert (problems(rows), {row["decimal"] for row in rows}) == ({None}, {decimal})


@pytest.mark.parametrize(("setting", "shown"), [("month_first", "16/01/2024"), ("day_first", "01/16/2024")])
@pytest.mark.parametrize("rows_a_batch", [1, 50_000])
def test_an_order_of_the_settings_that_a_date_disproves_refuses_every_numeric_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Any, shown: str, rows_a_batch: int
) -> None:
    monkeypatch.setattr(csv_rows, "ROWS_A_BATCH", rows_a_batch)
    text = bars("02/01/2024,1,2,1,2,3", "2024-01-03,1,2,1,2,3", f"{shown},1,2,1,2,3")
    rows, _ = read(tmp_path, text, rules=replace(RULES, dates=DateRules(setting)))
    wrong = PROVEN_ORDER.format(setting=setting, shown="month" if setting == "day_first" else "day", example=shown)
    assert [row["problem"] for row in rows] == [wrong, None, wrong]
    assert [row["session"] for row in rows] == [None, "2024-01-03", None]
    assert {row["adjusted_to"] for row in rows} == {"2024-01-03"}


def test_bars_of_parts_of_a_session_are_refused_those_of_a_session_that_has_but_one_included(tmp_path: Path) -> None:
    hours = [f"2024-01-0{day} {hour}:30:00-05:00,1,2,1,2,3" for day in (2, 3) for hour in (10, 11, 12)]
    rows, _ = read(tmp_path, bars("2023-12-29 15:30:00-05:00,1,2,1,2,3", *hours))
    assert problems(rows) == {INTRADAY}
    assert {row["adjusted_to"] for row in rows} == {None}


@pytest.mark.parametrize(
    "lines",
    [
        ["2024-01-02,10:30,1,2,1,2,3", "2024-01-02,11:30,1,2,1,2,3"],
        ["2024-01-02T15:30:00Z,,1,2,1,2,3", "2024-01-02T16:30:00Z,,1,2,1,2,3"],
        ["1704205800,,1,2,1,2,3", "1704209400,,1,2,1,2,3"],
        ["02/01/2024 10:30,,1,2,1,2,3", "02/01/2024 11:30,,1,2,1,2,3"],
    ],
)
def test_bars_of_parts_of_a_session_are_refused_however_their_time_is_written(tmp_path: Path, lines: list[str]) -> None:
    rows, _ = read(tmp_path, bars(*lines, header="Date,Time,Open,High,Low,Close,Volume"))
    assert problems(rows) == {INTRADAY}


def test_a_second_row_of_a_session_is_refused_with_the_first_and_takes_no_other_session_with_it(tmp_path: Path) -> None:
    days = [f"2024-01-0{day} 00:00:00-05:00,1,2,1,2,3" for day in (2, 3, 4, 5)]
    rows, _ = read(tmp_path, bars(*days, "2024-01-05 11:23:45-05:00,1,2,1,2,3"))
    assert [row["problem"] for row in rows] == [None] * 3 + [INTRADAY] * 2
    assert {row["adjusted_to"] for row in rows} == {"2024-01-04"}


def test_two_rows_of_a_session_without_a_time_of_day_are_left_to_landing(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, bars("2024-01-02,1,2,1,2,3", "2024-01-02,1,2,1,2,4"))
    assert problems(rows) == {None}


def test_rows_above_the_header_are_not_skipped_in_silence(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "2024-01-02,1,2,1,2,3\n" + bars("2024-01-03,1,2,1,2,3"))
    assert [(row["problem"], row["line_number"]) for row in rows] == [(ABOVE_HEADER, "1"), (None, "3")]


# --- which ticker -------------------------------------------------------------------------------------------


def test_a_file_without_a_ticker_says_how_to_name_it(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, bars("2024-01-02,1,2,1,2,3"), "prices.csv")
    assert [(row["ticker"], row["problem"]) for row in rows] == [(None, NO_TICKER)]


@pytest.mark.parametrize("symbol", ["BRK-B", "brk.b", "BRK/B", "BRK B", "BRK.B.US", " brk-b.us "])
def test_a_symbol_is_known_in_every_spelling(tmp_path: Path, symbol: str) -> None:
    text = bars(f"{symbol},2024-01-02,1,2,1,2,3", header="Symbol,Date,Open,High,Low,Close,Volume")
    for name in ("all.csv", "BRK-B.csv", "brk.b.csv", "brk-b.us.csv"):
        rows, _ = read(tmp_path, text, name)
        assert [(row["ticker"], row["symbol"], row["problem"]) for row in rows] == [("BRK-B", symbol, None)]


def test_a_column_of_names_says_the_ticker_where_nothing_else_does(tmp_path: Path) -> None:
    text = bars("2024-01-02,1,BRK.B", "2024-01-03,1,Apple Inc.", header="date,close,Name")
    rows, _ = read(tmp_path, text, "all_stocks_5yr.csv")
    assert [(row["ticker"], row["symbol"], row["problem"]) for row in rows] == [
        ("BRK-B", "BRK.B", None),
        (None, "Apple Inc.", None),
    ]
    rows, _ = read(tmp_path, text)
    assert [(row["ticker"], row["symbol"], row["problem"]) for row in rows] == [("AAPL", None, None)] * 2


def test_two_tickers_that_differ_in_the_mark_alone_are_two(tmp_path: Path) -> None:
    header = "Symbol,Date,Close"
    rows, _ = read(
        tmp_path,
        bars("BRK.B,2024-01-02,1", "BRK-B,2024-01-02,1", "BRK/B,2024-01-02,1", header=header),
        "all.csv",
        tickers=("BRK.B", "BRK-B"),
    )
    assert [row["ticker"] for row in rows] == ["BRK.B", "BRK-B", "BRK-B"]


def test_a_symbol_that_is_not_the_files_ticker_is_refused_and_proves_nothing(tmp_path: Path) -> None:
    text = bars("AAPL,2024-01-02,2", ",2024-01-03,2", "MSFT,2024-01-04,2", header="Symbol,Date,Close")
    rows, _ = read(tmp_path, text)
    assert [(row["ticker"], row["problem"]) for row in rows] == [("AAPL", None), ("AAPL", None), ("AAPL", OTHER_TICKER)]
    assert {row["adjusted_to"] for row in rows} == {"2024-01-03"}


def test_text_files_are_read_only_if_they_are_tables_of_prices_or_named_after_a_ticker(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("How I made these files. Date, close: see below.\n")
    (tmp_path / "notes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "AAPL.txt").write_text("no header\n")
    (tmp_path / "table.txt").write_text(FORMS["MetaStock"].text)
    assert [path.name for path in CsvFolderSource(tmp_path, known=TICKERS).files()] == ["AAPL.txt", "table.txt"]


# --- columns ------------------------------------------------------------------------------------------------


def test_a_column_of_actions_that_is_not_used_is_named(tmp_path: Path) -> None:
    text = bars("2024-01-02,1,2,1,2,3,0.5,4", header="Date,Open,High,Low,Close,Volume,Dividend Yield,SplitX")
    _, notes = read(tmp_path, text)
    assert [note for note in notes if isinstance(note, UnusedColumn)] == [
        "the column 'Dividend Yield' is not used",
        "the column 'SplitX' is not used",
    ]
    above = bars("2024-01-02,1,2,1,2,3", header="Column 8 is not used\nDate,Open,High,Low,Close,Volume")
    _, notes = read(tmp_path, above)
    assert "not used" in "; ".join(notes)  # the line above the header
    assert not any(isinstance(note, UnusedColumn) for note in notes)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("Date,Close,Dividends", "dividends"),
        ("Date,Close,Stock Splits", "splits"),
        ("Date,Close,Splits,Dividend", "dividends,splits"),
        ("Date,Close,Capital Gains", None),
        ("Date,Close", None),
    ],
)
def test_rows_say_which_actions_their_file_has_a_column_for(tmp_path: Path, header: str, says: str | None) -> None:
    (row,), _ = read(tmp_path, bars("2024-01-02" + ",1" * header.count(","), header=header))
    assert row["says"] == says


# --- what prices are adjusted to ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-04,,,,,,0,4",  # a placeholder
        "2024-01-04,n/a,n/a,n/a,n/a,0,0,4",
        "2024-01-06,1,2,1,2,3,0,0",  # a Saturday
        "2024-01-15,1,2,1,2,3,0,0",  # a holiday
        "2024-07-02,1,2,1,2,3,0,0",  # to come
        "2042-03-14,1,2,1,2,3,0,0",
        "2024-01-04,1,2,1,0,3,0,0",
        "2024-01-04,1,2,1,-2,3,0,0",
        "2024-01-04,1,2,1,5,3,0,0",  # above its high
        "2024-01-04,1,1,2,2,3,0,0",  # high below low
        "2024-01-04,1,2,1,x,3,0,0",
        "2024-13-04,1,2,1,2,3,0,0",
        "2024-01-04,1,2",
    ],
)
def test_only_a_valid_bar_proves_until_when_prices_are_adjusted(tmp_path: Path, line: str) -> None:
    header = "Date,Open,High,Low,Close,Volume,Dividends,Stock Splits"
    rows, _ = read(tmp_path, bars("2024-01-02,1,2,1,2,3,0,0", "2024-01-03,0,0,0,2,,0,0", line, header=header))
    assert {row["adjusted_to"] for row in rows if row["date"]} == {"2024-01-03"}


def test_numbers_of_any_form_prove_until_when_prices_are_adjusted(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, bars('2024-01-02,"$1,100.50","$1,101.50","$1,099","$1,100",1M'))
    assert rows[0]["adjusted_to"] == "2024-01-02"


@pytest.mark.parametrize(
    ("prices", "header", "basis", "adjusted_to", "as_of"),
    [
        ("split_adjusted", "Date,Close,Adj Close", "split_adjusted", "2024-01-03", None),
        ("total_return", "Date,Close,Adj Close", "total_return", "2024-01-03", None),
        ("as_traded", "Date,Close,Volume", "as_traded", "2024-01-02", None),
        ("as_traded", "Date,Close,Adj Close", "as_traded_adjusted_close", "2024-01-02", "2024-01-03"),
        ("as_traded_adjusted_close", "Date,Close,Adj Close", "as_traded_adjusted_close", "2024-01-02", "2024-01-03"),
        ("as_traded_adjusted_close", "Date,Close,Volume", "as_traded", "2024-01-02", None),
    ],
)
def test_the_setting_says_what_prices_are_adjusted_for(
    tmp_path: Path, prices: str, header: str, basis: str, adjusted_to: str, as_of: str | None
) -> None:
    text = bars("2024-01-02,1,1", "2024-01-03,1,1", header=header)
    rows, _ = read(tmp_path, text, rules=replace(RULES, prices=prices))
    assert (rows[0]["basis"], rows[0]["adjusted_to"], rows[0]["adj_close_as_of"]) == (basis, adjusted_to, as_of)
    rows, _ = read(tmp_path, text, rules=replace(RULES, prices=prices, adjusted_to=date(2024, 6, 3)))
    own_day = basis.startswith("as_traded")
    assert rows[0]["adjusted_to"] == ("2024-01-02" if own_day else "2024-06-03")
    assert rows[0]["adj_close_as_of"] == (None if as_of is None else "2024-06-03")


@pytest.mark.parametrize("name", ["AAPL.csv", "prices.csv"])
def test_a_bar_that_is_later_than_the_day_of_the_settings_counts(tmp_path: Path, name: str) -> None:
    lines = ("2024-01-02,AAPL,1,1", "2024-01-04,AAPL,1,1", "2024-01-02,BRK-B,1,1")
    lines = lines[:2] if name == "AAPL.csv" else lines
    rules = replace(RULES, adjusted_to=date(2024, 1, 3))
    text = bars(*lines, header="Date,Symbol,Close,Adj Close")
    rows, _ = read(tmp_path, text, name, rules)
    days = ["2024-01-04", "2024-01-04", "2024-01-03"][: len(lines)]
    assert [row["adjusted_to"] for row in rows] == days
    rows, _ = read(tmp_path, text, name, replace(rules, prices="as_traded"))
    assert [row["adj_close_as_of"] for row in rows] == days


def test_the_setting_wins_over_what_the_titles_say(tmp_path: Path) -> None:
    rows, notes = read(tmp_path, FORMS["Tiingo"].text, rules=replace(RULES, prices="split_adjusted"))
    assert {row["basis"] for row in rows} == {"split_adjusted"}
    assert "Tiingo" not in "; ".join(notes)


def test_a_time_zone_that_is_none_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"csv_time_zone: there is no time zone 'Berlin'"):
        CsvFolderSource(tmp_path, rules=CsvRules(dates=DateRules(zone="Berlin")))


# --- files of several batches, and their tails --------------------------------------------------------------


def test_what_the_end_of_a_long_file_says_holds_for_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [date(2024, 1, 2) + timedelta(days=number) for number in range(12)]
    text = bars(*(f"{day:%m/%d/%Y};1.234" for day in days), "01/16/2024;1,5", header="Date;Close")
    expected, _ = read(tmp_path, text)
    assert {row["decimal"] for row in expected} == {","}
    monkeypatch.setattr(csv_rows, "ROWS_A_BATCH", 3)
    rows, notes = read(tmp_path, text)
    assert rows == expected
    assert [row["session"] for row in rows] == [str(day) for day in days] + ["2024-01-16"]
    assert {row["adjusted_to"] for row in rows} == {"2024-01-16"}
    assert len([note for note in notes if "month first" in note]) == 1


def test_parts_of_a_session_are_seen_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "ROWS_A_BATCH", 1)
    rows, _ = read(tmp_path, bars("2024-01-02 10:30,1,2,1,2,3", "2024-01-02 11:30,1,2,1,2,3"))
    assert problems(rows) == {INTRADAY}


def test_the_tail_of_a_file_is_read_as_the_whole_file(tmp_path: Path) -> None:
    head = bars("01/16/2024,1,2,1,2,3", header="Date,Open,High,Low,Close,Volume")
    (tmp_path / "AAPL.csv").write_text(head + "02/01/2024,1,2,1,2,3\n")
    source = CsvFolderSource(tmp_path, rules=RULES)
    (delivery,) = source.read(tmp_path / "AAPL.csv", TICKERS, skip=len(head))
    assert [(row["session"], row["line_number"]) for row in delivery.rows.to_pylist()] == [("2024-02-01", None)]


@pytest.mark.parametrize(
    ("head", "tail", "rules"),
    [
        ("01/16/2024,1.5", "02/01/2024,1.5", replace(RULES, dates=DateRules("day_first"))),
        ("2024-01-02,1.5", "2024-01-03,1.234", replace(RULES, decimal="comma")),
    ],
)
def test_what_disproves_a_setting_before_the_tail_of_a_file_refuses_the_tail(
    tmp_path: Path, head: str, tail: str, rules: CsvRules
) -> None:
    before = bars(head, header="Date,Close")
    (tmp_path / "AAPL.csv").write_text(f"{before}{tail}\n")
    (delivery,) = CsvFolderSource(tmp_path, rules=rules).read(tmp_path / "AAPL.csv", TICKERS, skip=len(before))
    (row,) = delivery.rows.to_pylist()
    assert "to auto" in str(row["problem"])


# --- files thrown by dice -----------------------------------------------------------------------------------

MISSING = ("", "NA", "n/a", "None", "null", "-", "#N/A", "NaN")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
UNORDERED: dict[str, Callable[[date], str]] = {
    "m/d/y": lambda day: f"{day:%m/%d/%Y}",
    "d/m/y": lambda day: f"{day:%d/%m/%Y}",
    "d-m-y": lambda day: f"{day:%d-%m-%Y}",
}
DATE_FORMS: dict[str, Callable[[date], str]] = {
    "ISO": str,
    "compact": lambda day: f"{day:%Y%m%d}",
    "y/m/d": lambda day: f"{day.year}/{day.month}/{day.day}",
    "y.m.d": lambda day: f"{day:%Y.%m.%d}",
    "d.m.y": lambda day: f"{day:%d.%m.%Y}",
    "d-Mon-y": lambda day: f"{day:%d-%b-%Y}".upper(),
    "Mon d, y": lambda day: f"{day:%b} {day.day}, {day.year}",
    "d Month y": lambda day: f"{day:%d %B %Y}",
    "midnight": lambda day: f"{day} 00:00:00",
    "midnight UTC": lambda day: f"{day}T00:00:00Z",
    "midnight New York": lambda day: f"{day} 00:00:00-05:00",
    "seconds": lambda day: str(int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())),
    "milliseconds": lambda day: str(int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000),
    **UNORDERED,
}
HEADERS = {
    "plain": ("Date", "Open", "High", "Low", "Close", "Volume"),
    "lower": ("date", "open", "high", "low", "close", "volume"),
    "numbered": ("date", "1. open", "2. high", "3. low", "4. close", "5. volume"),
    "angled": ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"),
    "quantmod": ("Index", "AAPL.Open", "AAPL.High", "AAPL.Low", "AAPL.Close", "AAPL.Volume"),
    "German": ("Datum", "Eröffnung", "Hoch", "Tief", "Schlusskurs", "Stücke"),
    "Price": ("Date", "Open", "High", "Low", "Price", "Vol."),
    "index": ("", "Open", "High", "Low", "Close", "Volume"),
}


@dataclass(frozen=True)
class Bar:
    day: date
    prices: tuple[Decimal | None, Decimal, Decimal, Decimal]
    volume: int | None


@st.composite
def true_bars(draw: st.DrawFn) -> list[Bar]:
    days = draw(st.lists(st.dates(date(2014, 1, 1), date(2024, 6, 28)), min_size=1, max_size=12, unique=True))
    places = draw(st.sampled_from([0, 2, 2, 3, 4]))
    found = []
    for day in sorted(days):
        low = draw(st.decimals(Decimal("0.5"), Decimal(5_000_000), places=places))
        close = low + draw(st.decimals(0, 9, places=places))
        high = close + draw(st.decimals(0, 9, places=places))
        opened = draw(st.sampled_from([low, close, high, None]))
        volume = draw(st.one_of(st.none(), st.integers(0, 10**10)))
        found.append(Bar(day, (opened, high, low, close), volume))
    return found


@dataclass(frozen=True)
class Writing:
    """How a file is written."""

    separator: str
    decimal: str
    groups: str
    dates: str
    header: str
    encoding: str
    end: str
    quoted: bool
    above: int
    trailing: bool
    missing: str


WRITINGS = st.builds(
    Writing,
    separator=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    groups=st.sampled_from(["", "", "other", " ", "'"]),
    dates=st.sampled_from(sorted(DATE_FORMS)),
    header=st.sampled_from(sorted(HEADERS)),
    encoding=st.sampled_from(ENCODINGS),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
    above=st.integers(0, 3),
    trailing=st.booleans(),
    missing=st.sampled_from(MISSING),
)


def number(value: Decimal | int | None, how: Writing) -> str:
    if value is None:
        return how.missing
    groups = ("." if how.decimal == "," else ",") if how.groups == "other" else how.groups
    whole, _, fraction = str(value).partition(".")
    parts = []
    while groups and len(whole) > 3:
        whole, last = whole[:-3], whole[-3:]
        parts.insert(0, last)
    return groups.join([whole, *parts]) + (how.decimal + fraction if fraction else "")


def written(true: Sequence[Bar], how: Writing) -> tuple[str, list[list[str]]]:
    """The text of a file, and the fields of its rows."""
    fields = [
        [DATE_FORMS[how.dates](bar.day), *(number(price, how) for price in bar.prices), number(bar.volume, how)]
        for bar in true
    ]
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=how.separator,
        lineterminator=how.end,
        quoting=csv.QUOTE_ALL if how.quoted else csv.QUOTE_MINIMAL,
    )
    text.write(f"for information only{how.end}" * how.above)
    writer.writerow([*HEADERS[how.header], *([""] if how.trailing else [])])
    writer.writerows([*row, *([""] if how.trailing else [])] for row in fields)
    return text.getvalue(), fields


def shows_mark(text: str) -> bool:
    """Whether a number can be read with one mark alone: that is, not like 1,234 and not without a mark."""
    marks = [letter for letter in text if letter in ".,"]
    if not marks:
        return False
    before, after = text.rsplit(marks[-1], 1)
    return len(marks) > 1 or len(after) != 3 or not 1 <= len(before) <= 3 or before.startswith("0")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(true_bars(), WRITINGS)
@example(
    [Bar(date(2014, 1, 2), (Decimal(1), Decimal(1), Decimal(1), Decimal(1)), 1_000_000)],
    Writing(",", ",", "other", "ISO", "German", "utf-8", "\n", quoted=False, above=0, trailing=False, missing=""),
)
def test_a_file_is_read_as_it_was_meant_or_the_setting_to_change_is_named(true: list[Bar], how: Writing) -> None:
    text, fields = written(true, how)
    with tempfile.TemporaryDirectory() as place:
        rows, _ = read(Path(place), text.encode(how.encoding))
        told = replace(
            RULES,
            decimal="comma" if how.decimal == "," else "point",
            dates=DateRules("month_first" if how.dates == "m/d/y" else "day_first"),
        )
        with_settings, _ = read(Path(place), text.encode(how.encoding), rules=told)
    texts = [cell for row in fields for cell in row[1:]]
    unordered = how.dates in UNORDERED and all(bar.day.day <= 12 for bar in true)
    unclear = not any(map(shows_mark, texts))
    must_ask = unclear and how.separator != "," and any("." in text or "," in text for text in texts)
    for row, bar, cells in zip(rows, true, fields, strict=True):
        assert [row[name] for name in ("date", *PRICES)] == cells
        if row["problem"] is None:
            assert row["session"] == str(bar.day)
            assert not must_ask
            # Where no number shows it, none has a mark; or it is a file separated by commas, whose numbers have points.
            assert unclear or (row["decimal"] == ",") == (how.decimal == ",")
        else:
            assert row["session"] in (None, str(bar.day))
            assert (row["problem"] == AMBIGUOUS and unordered) or (row["problem"] == UNCLEAR_DECIMALS and unclear)
    for row, bar in zip(with_settings, true, strict=True):
        assert (row["problem"], row["session"]) == (None, str(bar.day))
        assert (row["decimal"] == ",") == (how.decimal == ",")
