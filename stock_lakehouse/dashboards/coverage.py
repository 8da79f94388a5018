"""Which sessions the lake has of each ticker and year, and which are missing, as the picture of the page Data shows it.

Here: the shown version against the calendar. Not here: what is done about a gap (automation/), and the sensors' reading of gaps
(lake/coverage.py), which follows the present version alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake.delta_table import add_actions
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LISTED_ROWS = 60  # of the picture
LISTED_NAMES = 12  # of the tickers of a row
LISTED_GAPS = 40  # ticker-years with missing sessions, and tickers that ended
LISTED_DAYS = 10  # of a ticker-year
EPOCH = date(1970, 1, 1)


def coverage_of(view: View) -> dict[str, Any]:
    """The curated bars of the view by ticker and year, against the sessions of the calendar.

    A ticker is expected to have every session from its first bar to its last one.

    - tickers: how many have bars; absent: the tickers of the settings that have none
    - years: from the first to the last one
    - missing: expected sessions without a bar, of all tickers
    - rows: the picture, at most LISTED_ROWS. Tickers that have and lack the same number of sessions in each year are one row;
      those that lack most come first, complete ones last
        - tickers: the first LISTED_NAMES; count: how many there are; first, last: sessions of the first one
        - cells: [sessions, missing] a year, or None where no session is expected
    - others: how many tickers further rows would have
    - gaps: the LISTED_GAPS newest ticker-years with missing sessions: ticker, year, missing, days (the newest LISTED_DAYS)
    - ended: the LISTED_GAPS tickers whose last bar is before the lake's newest session, the latest first: ticker, last, sessions
      since then; ended_tickers: how many there are
    """
    import numpy as np

    tickers, years, firsts, lasts, have = _bars_by_year(view)
    answer: dict[str, Any] = {
        "tickers": len(tickers),
        "absent": [ticker for ticker in view.lake.options.tickers if ticker not in set(tickers)],
        "years": years,
        "missing": 0,
        "rows": [],
        "others": 0,
        "gaps": [],
        "ended": [],
        "ended_tickers": 0,
    }
    if not tickers:
        return answer
    options = view.lake.options
    # Bars may be older than `first_date`, from which the settings' own calendar begins.
    calendar = market_calendar(min(EPOCH + timedelta(days=int(firsts.min())), options.first_date), options.exchange)
    sessions = np.array(calendar.sessions, "datetime64[D]").astype(np.int64)
    begins = np.maximum(firsts[:, None], [_day(date(year, 1, 1)) for year in years])
    ends = np.minimum(lasts[:, None], [_day(date(year, 12, 31)) for year in years])
    expected = np.searchsorted(sessions, ends, "right") - np.searchsorted(sessions, begins)
    # A day that the calendar does not know counts for no missing one.
    missing = np.maximum(np.maximum(expected, 0) - have, 0)
    rows = _picture(tickers, firsts, lasts, have, missing, begins <= ends)
    newest, since = int(lasts.max()), np.searchsorted(sessions, lasts, "right")
    behind = np.searchsorted(sessions, newest, "right") - since
    ended = [place for place in np.argsort(-lasts, kind="stable").tolist() if behind[place] > 0]
    return answer | {
        "missing": int(missing.sum()),
        "rows": rows[:LISTED_ROWS],
        "others": sum(row["count"] for row in rows[LISTED_ROWS:]),
        "gaps": _gaps(view, tickers, years, begins, ends, missing, sessions),
        "ended": [
            {"ticker": tickers[place], "last": _iso(lasts[place]), "sessions": int(behind[place])}
            for place in ended[:LISTED_GAPS]
        ],
        "ended_tickers": len(ended),
    }


def _picture(
    tickers: Sequence[str],
    firsts: NDArray[np.int64],
    lasts: NDArray[np.int64],
    have: NDArray[np.int64],
    missing: NDArray[np.int64],
    is_expected: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """The rows of `coverage_of`."""
    alike: dict[bytes, list[int]] = {}
    for place in range(len(tickers)):
        alike.setdefault(have[place].tobytes() + missing[place].tobytes(), []).append(place)
    groups = sorted(alike.values(), key=lambda places: (-int(missing[places[0]].sum()), -len(places), places[0]))
    return [
        {
            "tickers": [tickers[place] for place in places[:LISTED_NAMES]],
            "count": len(places),
            "first": _iso(firsts[places[0]]),
            "last": _iso(lasts[places[0]]),
            "cells": [
                [int(held), int(lacking)] if expected else None
                for held, lacking, expected in zip(
                    have[places[0]], missing[places[0]], is_expected[places[0]], strict=True
                )
            ],
        }
        for places in groups
    ]


def _gaps(
    view: View,
    tickers: Sequence[str],
    years: Sequence[int],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    missing: NDArray[np.int64],
    sessions: NDArray[np.int64],
) -> list[dict[str, Any]]:
    """The newest ticker-years with missing sessions. Only their bars are read."""
    import numpy as np
    import pyarrow.compute as pc

    places = sorted(zip(*np.nonzero(missing), strict=True), key=lambda place: (-place[1], place[0]))[:LISTED_GAPS]
    if not places:
        return []
    bars = view.rows(
        CURATED, ["ticker", "date"], {years[year] for _, year in places}, {tickers[ticker] for ticker, _ in places}
    )
    found = []
    for ticker, year in places:
        of_ticker = bars["date"].filter(pc.equal(bars["ticker"], tickers[ticker])).cast("int32")
        expected = sessions[(sessions >= begins[ticker, year]) & (sessions <= ends[ticker, year])]
        days = np.setdiff1d(expected, np.asarray(of_ticker))
        found.append(
            {
                "ticker": tickers[ticker],
                "year": years[year],
                "missing": int(missing[ticker, year]),
                "days": [_iso(day) for day in days[-LISTED_DAYS:]],
            }
        )
    return found


Bars = tuple[list[str], list[int], "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]


def _bars_by_year(view: View) -> Bars:
    """Tickers and years, ascending; first and last session of each ticker; bars: a row a ticker and a column a year."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    opened = view.opened[CURATED.name]
    if opened is None:
        return [], [], np.array([], int), np.array([], int), np.zeros((0, 0), int)
    names = ["partition.ticker", "partition.year", "min.date", "max.date", "num_records"]
    adds = add_actions(opened)
    if {*names} <= {*adds.column_names} and not sum(adds[name].null_count for name in names):
        parts = adds.filter(pc.field("num_records") > 0).select(names)
        parts = parts.rename_columns(["ticker", "year", "first", "last", "rows"])
    else:
        parts = _parts_of_rows(view)
    tickers = sorted(parts["ticker"].unique().to_pylist())
    years = list(range(pc.min(parts["year"]).as_py(), pc.max(parts["year"]).as_py() + 1)) if tickers else []
    lines = np.asarray(pc.index_in(parts["ticker"], pa.array(tickers, pa.string()))).astype(np.int64)
    have = np.zeros((len(tickers), len(years)), np.int64)
    firsts, lasts = np.full(len(tickers), 1 << 40), np.full(len(tickers), -(1 << 40))
    # A ticker-year may be in several files.
    np.add.at(have, (lines, np.asarray(parts["year"]) - (years[0] if years else 0)), np.asarray(parts["rows"]))
    np.minimum.at(firsts, lines, np.asarray(parts["first"].cast(pa.int32())))
    np.maximum.at(lasts, lines, np.asarray(parts["last"].cast(pa.int32())))
    return tickers, years, firsts, lasts, have


# The parts of the last version that was read from rows, by the digest of its view: it takes a second for 2.5 million bars.
_parts_of: dict[str, pa.Table] = {}


def _parts_of_rows(view: View) -> pa.Table:
    """Rows, first and last session of each ticker and year, from the bars: with the layout "year" the log has no tickers.

    Nor does it have the sessions, if another program wrote a file without statistics.
    """
    known = _parts_of.get(view.digest)
    if known is None:
        groups = view.rows(CURATED, ["ticker", "year", "date"]).group_by(["ticker", "year"])
        parts = groups.aggregate([("date", "min"), ("date", "max"), ("date", "count")])
        names = ["ticker", "year", "date_min", "date_max", "date_count"]
        known = parts.select(names).rename_columns(["ticker", "year", "first", "last", "rows"])
        _parts_of.clear()
        _parts_of[view.digest] = known
    return known


def _day(day: date) -> int:
    return (day - EPOCH).days


def _iso(day: int) -> str:
    """The ISO text of a day since 1970."""
    return (EPOCH + timedelta(days=int(day))).isoformat()
