"""The question of the page Signals: the newest session of every ticker, and the signals and crosses of the last sessions.

Here: values for JSON, from the newest two years of bars and features. Not here: which version is read (view.py), what a signal is
(indicators/), and showing them (page/signals.js).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.charts import SIGNALS
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.tables import CURATED, FEATURES, Table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

YEARS = 2  # that are read of a ticker: that of its newest session and the one before, which hold 52 weeks
DRAWN = 60  # sessions of a ticker's small picture
STEPS = 100  # heights of a value in it
RECENT = 20  # sessions of the list of signals and crosses
YEAR_OF_HIGH = timedelta(weeks=52)
OVERBOUGHT, OVERSOLD = 70, 30
LATEST = ("return_1d", "rsi_14", "macd_hist", "volatility_20")
CROSSES = tuple(name for name in SIGNALS if name.endswith("_cross"))
TRADES = tuple(name for name in SIGNALS if not name.endswith("_cross"))
EPOCH = date(1970, 1, 1)
_MOST_DAYS = 1 << 20  # a day since 1970 is less than half of it


def signals(view: View) -> dict[str, Any]:
    """The newest session of every ticker, and the signals and crosses of the last RECENT sessions of the lake.

    - newest, since: the newest of these sessions and the first one; None without bars
    - rows: one a ticker, in alphabetical order, of its newest bar: ticker, date, close, the columns LATEST, and
        - zone: "overbought" with an RSI of at least 70, "oversold" of at most 30, else None
        - high_52w, from_high: the highest price of the 52 weeks to this session (the close of a bar without a high), and
          close / high_52w - 1
        - signal, signal_date, tradable_from: the label of the newest buy or sell signal in the years that are read, its session,
          and the session from which it can be traded
        - cross, cross_date: the same of the newest golden or death cross
        - drawn: the last DRAWN closes as whole numbers from 0, the lowest, to STEPS, the highest; low, high: these two closes
    - events: the signals and crosses of these sessions, newest first: ticker, column, event (its label), date, until (the last of
      consecutive sessions with the same signal), and of that session close, rsi_14 and tradable_from

    A value that is not known is None. Raises StorageError.
    """
    newest_year = {ticker: years[1] for ticker, years in view.ticker_years.items()}
    if not newest_year:
        return {"newest": None, "since": None, "rows": [], "events": []}
    tickers = sorted(newest_year)
    bars = _sorted(_read(view, CURATED, ("close", "high"), newest_year), tickers)
    features = _sorted(_read(view, FEATURES, (*LATEST, *SIGNALS, "tradable_from"), newest_year), tickers)
    runs = {column: _runs(features, column) for column in SIGNALS}
    sessions = sorted({*bars.days.tolist()})[-RECENT:]
    return {
        "newest": _iso(sessions[-1]),
        "since": _iso(sessions[0]),
        "rows": _newest(bars, features, runs, tickers),
        "events": _events(bars, features, runs, tickers, sessions[0]),
    }


@dataclass(frozen=True)
class _Rows:
    """Rows of a table, by ticker and date ascending.

    - codes: of each row, the place of its ticker in the list of tickers
    - days: of each row, its session, in days since 1970
    - values: by column; numbers are NaN, and flags False, where they are not known
    """

    codes: NDArray[np.int64]
    days: NDArray[np.int64]
    values: Mapping[str, NDArray[Any]]

    @property
    def keys(self) -> NDArray[np.int64]:
        """Numbers that ascend from row to row."""
        return self.codes * _MOST_DAYS + self.days

    def at(self, codes: NDArray[np.int64], days: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        """The values of the rows of these tickers and days; numbers are NaN where there is no such row."""
        import numpy as np

        keys, wanted = self.keys, codes * _MOST_DAYS + days
        places = np.searchsorted(keys, wanted)
        is_there = np.append(keys, -1)[places] == wanted
        return {
            name: np.where(is_there, np.append(column, np.nan)[places * is_there], np.nan)
            for name, column in self.values.items()
            if column.dtype == float
        }


Runs = tuple["NDArray[np.int64]", "NDArray[np.int64]"]  # places of the first and of the last row of each


def _read(view: View, table: Table, columns: Sequence[str], newest_year: Mapping[str, int]) -> pa.Table:
    """The rows of the YEARS up to the newest year of each ticker."""
    import pyarrow as pa

    last = max(newest_year.values())
    by_year: dict[int, list[str]] = {}
    for ticker, year in newest_year.items():
        by_year.setdefault(year, []).append(ticker)
    names = ("ticker", "date", *columns)
    parts = [view.rows(table, names, range(last - YEARS + 1, last + 1))]
    # Of tickers that are traded no longer; those of last year need the year before.
    parts += [
        view.rows(table, names, range(year - YEARS + 1, min(year, last - YEARS) + 1), of_year)
        for year, of_year in by_year.items()
        if year < last
    ]
    return pa.concat_tables(parts)


def _sorted(rows: pa.Table, tickers: Sequence[str]) -> _Rows:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    def column(name: str) -> NDArray[Any]:
        values = rows[name]
        if pa.types.is_boolean(values.type):
            return np.asarray(pc.fill_null(values, False))
        if pa.types.is_date(values.type):
            values = values.cast(pa.int32())
        return np.asarray(values.cast(pa.float64()))

    known = pa.array(tickers, pa.string())
    # A run that withdraws a ticker is between its two publishes: the ticker has features and no bars.
    rows = rows.filter(pc.is_in(rows["ticker"], known))
    codes = np.asarray(pc.index_in(rows["ticker"], known)).astype(np.int64)
    days = np.asarray(rows["date"].cast(pa.int32())).astype(np.int64)
    order = np.lexsort((days, codes))
    names = [name for name in rows.column_names if name not in ("ticker", "date")]
    return _Rows(codes[order], days[order], {name: column(name)[order] for name in names})


def _runs(rows: _Rows, column: str) -> Runs:
    """The runs of consecutive sessions of a ticker on which the flag `column` is set."""
    import numpy as np

    flags, is_first = rows.values[column], np.append(True, rows.codes[1:] != rows.codes[:-1])
    before = np.append(False, flags[:-1]) & ~is_first
    after = np.append(flags[1:], False) & ~np.append(is_first[1:], True)
    return np.flatnonzero(flags & ~before), np.flatnonzero(flags & ~after)


def _newest(bars: _Rows, features: _Rows, runs: Mapping[str, Runs], tickers: Sequence[str]) -> list[dict[str, Any]]:
    import numpy as np

    starts = np.flatnonzero(np.append(True, bars.codes[1:] != bars.codes[:-1]))
    ends = np.append(starts[1:], len(bars.codes))
    newest = ends - 1
    codes, days, closes = bars.codes[newest], bars.days[newest], bars.values["close"]
    latest = features.at(codes, days)
    highs = np.where(np.isnan(bars.values["high"]), closes, bars.values["high"])
    is_of_year = bars.days >= np.repeat(days, ends - starts) - YEAR_OF_HIGH.days
    highest = np.maximum.reduceat(np.where(is_of_year, highs, -np.inf), starts)
    # Of each column the last run of each ticker: the runs ascend, and the last value of a key stays.
    last_ends = {
        name: dict(zip(features.codes[ends].tolist(), ends.tolist(), strict=True)) for name, (_, ends) in runs.items()
    }

    def last_of(columns: Sequence[str], code: int) -> tuple[str | None, int | None]:
        # Of a session with both flags, the one that charts.py names first.
        found = [(last_ends[name][code], -place, name) for place, name in enumerate(columns) if code in last_ends[name]]
        end, _, name = max(found, default=(None, 0, None))
        return name and SIGNALS[name], end

    rows = []
    for place, code in enumerate(codes.tolist()):
        drawn = closes[max(starts[place], ends[place] - DRAWN) : ends[place]]
        low, high = float(drawn.min()), float(drawn.max())
        rsi = _number(latest["rsi_14"][place])
        signal, signal_place = last_of(TRADES, code)
        cross, cross_place = last_of(CROSSES, code)
        close = float(closes[newest[place]])
        rows.append(
            {
                "ticker": tickers[code],
                "date": _iso(days[place]),
                "close": close,
                **{name: _number(latest[name][place]) for name in LATEST},
                "zone": zone_of(rsi),
                "high_52w": float(highest[place]),
                "from_high": close / float(highest[place]) - 1,
                "signal": signal,
                "signal_date": None if signal_place is None else _iso(features.days[signal_place]),
                "tradable_from": None if signal_place is None else _iso(features.values["tradable_from"][signal_place]),
                "cross": cross,
                "cross_date": None if cross_place is None else _iso(features.days[cross_place]),
                "drawn": np.rint((drawn - low) / ((high - low) or 1) * STEPS).astype(int).tolist(),
                "low": low,
                "high": high,
            }
        )
    return rows


def _events(
    bars: _Rows, features: _Rows, runs: Mapping[str, Runs], tickers: Sequence[str], since: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, of_name in runs.items():
        is_recent = features.days[of_name[1]] >= since
        starts, ends = (places[is_recent] for places in of_name)
        closes = bars.at(features.codes[ends], features.days[ends])["close"]
        found += [
            {
                "ticker": tickers[features.codes[end]],
                "column": name,
                "event": SIGNALS[name],
                "date": _iso(features.days[start]),
                "until": _iso(features.days[end]),
                "tradable_from": _iso(features.values["tradable_from"][end]),
                "close": _number(close),
                "rsi_14": _number(features.values["rsi_14"][end]),
            }
            for start, end, close in zip(starts.tolist(), ends.tolist(), closes, strict=True)
        ]
    found.sort(key=lambda event: (event["ticker"], event["event"]))
    return sorted(found, key=lambda event: event["until"], reverse=True)


def zone_of(rsi: float | None) -> str | None:
    """ "overbought" with an RSI of at least 70, "oversold" of at most 30, else None."""
    if rsi is None:
        return None
    return "overbought" if rsi >= OVERBOUGHT else "oversold" if rsi <= OVERSOLD else None


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)


def _iso(day: float) -> str | None:
    """The ISO text of a day since 1970; None for NaN."""
    return None if math.isnan(day) else (EPOCH + timedelta(days=int(day))).isoformat()
