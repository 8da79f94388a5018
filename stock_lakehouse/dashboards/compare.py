"""The question of the page Compare: total return of several tickers, indexed to 100, and the figures of each.

Here: values for JSON, from one table that is read once. Not here: which version is read (view.py), and drawing (page/compare.js).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.errors import WrongQuestionError
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.tables import CURATED, SESSIONS_A_YEAR

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

MOST_TICKERS = 50
# More points than these are drawn one a week: 252,000 take a browser 7.5 s of processor time, 52,000 less than 2 s.
MOST_POINTS = 20 * 5 * SESSIONS_A_YEAR
DAYS_A_YEAR = 365.25
# A return of a shorter period is not annualised, which would multiply what happened by chance. A year that begins on the session
# after a weekend and holidays has a few days less than 365.
SHORTEST_ANNUALISED = timedelta(weeks=51)
EPOCH = date(1970, 1, 1)


def compare(view: View, tickers: tuple[str, ...], since: date | None = None) -> dict[str, Any]:
    """The total return of `tickers` from the first session since `since` (None: ever) that all of them have.

    A ticker without a bar since then is `absent`, and the others are compared without it. The values:

    - tickers: those that are compared, in the order asked for
    - absent: the others: ticker, first and last session (None: the lake has no bar of it)
    - first, last: the session on which all are 100, and the newest one; None if there is no session that all have
    - starts_with: the ticker whose first bar of the range is on `first` although others begin earlier; None if there is none
    - disjoint: if no session is common, the ticker that ends first and the one that begins last, with these sessions
    - sampling: "daily", or "weekly": the last session of each week, the first and the newest one
    - date: the sessions of the points
    - indexed: by ticker, 100 × adj_close / its adj_close on `first`, a value a point; None where it has no bar
    - figures: a row a ticker, of `figures_of`, from all sessions whatever the sampling; with `price_bases`

    Raises WrongQuestionError for no ticker and for more than MOST_TICKERS; StorageError.
    """
    import numpy as np

    asked = list(dict.fromkeys(tickers))
    if not 0 < len(asked) <= MOST_TICKERS:
        raise WrongQuestionError(f"tickers: 1 to {MOST_TICKERS} can be compared, and {len(asked)} are named")
    newest = view.spans[CURATED.name].last
    years = None if since is None or newest is None else range(since.year, newest.year + 1)
    rows = view.rows(CURATED, ["ticker", "date", "adj_close", "price_basis"], years, asked)
    if since is not None:
        import pyarrow.compute as pc

        rows = rows.filter(pc.field("date") >= since)
    bases = _bases(rows)
    present = [ticker for ticker in asked if ticker in bases]
    answer: dict[str, Any] = {
        "tickers": present,
        "absent": _spans(view, [ticker for ticker in asked if ticker not in bases]),
        "first": None,
        "last": None,
        "starts_with": None,
        "disjoint": None,
        "sampling": "daily",
        "date": [],
        "indexed": {},
        "figures": [],
    }
    if not present:
        return answer
    days, prices = _grid(rows, present)
    is_known = ~np.isnan(prices)
    is_common = is_known.all(axis=1)
    if not is_common.any():
        firsts, lasts = is_known.argmax(axis=0), len(days) - 1 - is_known[::-1].argmax(axis=0)
        ends, begins = int(lasts.argmin()), int(firsts.argmax())
        answer["disjoint"] = {
            "ends": {"ticker": present[ends], "last": _iso(days[lasts[ends]])},
            "begins": {"ticker": present[begins], "first": _iso(days[firsts[begins]])},
        }
        return answer
    start = int(is_common.argmax())
    late = np.flatnonzero(is_known.argmax(axis=0) == start) if start else ()
    days, prices = days[start:], prices[start:]
    drawn = np.arange(len(days))
    if prices.size > MOST_POINTS:
        week = (days + 3) // 7  # day 0 was a Thursday, so a week begins on a Monday
        drawn = np.flatnonzero(np.append(week[:-1] != week[1:], True) | (drawn == 0))
    indexed: NDArray[np.float64] = prices[drawn] / prices[0] * 100
    return answer | {
        "first": _iso(days[0]),
        "last": _iso(days[-1]),
        "starts_with": present[int(late[0])] if len(late) else None,
        "sampling": "daily" if len(drawn) == len(days) else "weekly",
        "date": [_iso(day) for day in days[drawn]],
        "indexed": {
            ticker: [None if math.isnan(value) else value for value in indexed[:, place].tolist()]
            for place, ticker in enumerate(present)
        },
        "figures": [
            {"ticker": ticker, **_figures(days, prices[:, place]), "price_bases": bases[ticker]}
            for place, ticker in enumerate(present)
        ],
    }


def figures_of(days: Sequence[date], values: Sequence[float]) -> dict[str, Any]:
    """The figures of one investment whose `values` on `days`, ascending, contain its income. Fractions, not per cent.

    - first, last, sessions: of the days
    - total_return: last value / first value - 1
    - annual_return: (1 + total_return) ^ (365.25 / calendar days) - 1, the compound annual growth rate; None below 51 weeks: the
      Global Investment Performance Standards allow no annualised return of less than a year
    - volatility: the sample standard deviation (n - 1) of the returns from session to session, times √252, the sessions of a
      year, as in Hull, Options, Futures, and Other Derivatives ("Estimating volatility from historical data"); of simple
      returns, as `volatility_20` of the lake. None below three sessions
    - max_drawdown: the lowest value / highest value before - 1 (Magdon-Ismail and Atiya, Maximum Drawdown, Risk 17, 2004); 0 if
      the value never fell
    - peak, trough, recovered: the session of that highest value (the last one that has it), of that lowest value (the first one),
      and the first later session that is at least as high as the peak; None if there is none
    """
    import numpy as np

    return _figures(np.array([(day - EPOCH).days for day in days]), np.array(values, dtype=float))


def _figures(days: NDArray[np.int64], values: NDArray[np.float64]) -> dict[str, Any]:
    import numpy as np

    is_known = ~np.isnan(values)
    days, values = days[is_known], values[is_known]
    period = timedelta(days=int(days[-1] - days[0]))
    growth = float(values[-1] / values[0])
    returns = values[1:] / values[:-1] - 1
    highest = np.maximum.accumulate(values)
    falls = values / highest - 1
    trough = int(falls.argmin())
    fell = bool(falls[trough] < 0)
    peak = int(np.flatnonzero(values[: trough + 1] == highest[trough])[-1])
    recovered = np.flatnonzero(values[trough:] >= highest[trough])
    return {
        "first": _iso(days[0]),
        "last": _iso(days[-1]),
        "sessions": len(days),
        "total_return": growth - 1,
        "annual_return": growth ** (DAYS_A_YEAR / period.days) - 1 if period >= SHORTEST_ANNUALISED else None,
        "volatility": float(returns.std(ddof=1)) * SESSIONS_A_YEAR**0.5 if len(returns) > 1 else None,
        "max_drawdown": float(falls[trough]),
        "peak": _iso(days[peak]) if fell else None,
        "trough": _iso(days[trough]) if fell else None,
        "recovered": _iso(days[trough + recovered[0]]) if fell and len(recovered) else None,
    }


def _grid(rows: pa.Table, tickers: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The days (since 1970) that one of `tickers` has, ascending; and a row a day and a column a ticker of adj_close, or NaN."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = pc.index_in(rows["ticker"], pa.array(tickers, pa.string())).to_numpy()
    days, lines = np.unique(rows["date"].cast(pa.int32()).to_numpy(), return_inverse=True)
    prices = np.full((len(days), len(tickers)), np.nan)
    prices[lines, columns] = rows["adj_close"].to_numpy()
    return days.astype(np.int64), prices


def _bases(rows: pa.Table) -> Mapping[str, list[str]]:
    """The price bases of the rows of each ticker, ascending."""
    found: dict[str, list[str]] = {}
    pairs = rows.select(["ticker", "price_basis"]).group_by(["ticker", "price_basis"]).aggregate([]).to_pylist()
    for pair in sorted(pairs, key=lambda pair: (pair["ticker"], pair["price_basis"])):
        found.setdefault(pair["ticker"], []).append(pair["price_basis"])
    return found


def _spans(view: View, tickers: Sequence[str]) -> list[dict[str, Any]]:
    """The first and last session of each of `tickers`; None if the lake has no bar of it."""
    if not tickers:
        return []
    rows = view.rows(CURATED, ["ticker", "date"], None, tickers).group_by("ticker")
    spans = {row["ticker"]: row for row in rows.aggregate([("date", "min"), ("date", "max")]).to_pylist()}
    return [
        {
            "ticker": ticker,
            "first": spans[ticker]["date_min"].isoformat() if ticker in spans else None,
            "last": spans[ticker]["date_max"].isoformat() if ticker in spans else None,
        }
        for ticker in tickers
    ]


def _iso(day: Any) -> str:
    """The ISO text of a day since 1970."""
    return (EPOCH + timedelta(days=int(day))).isoformat()
