"""What the page Ticker asks: what there is (`about`), the charts (`charts`), and the bars of a ticker (`bars`).

Here: plain values, ready for JSON. Not here: how they get to the page (server.py, report.py) and how they are shown (page/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.charts import COLUMNS, PANES
from stock_lakehouse.dashboards.errors import EmptyLakeError, TickerUnknownError
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.tables import CURATED, FEATURES

if TYPE_CHECKING:
    import pyarrow as pa

KEY = ("ticker", "date")
NEAREST = 5


def about(view: View) -> dict[str, Any]:
    """The lake that is shown.

    - lake: its root
    - first, last: its first and newest session; last_features: the newest session that has indicators
    - expected: the newest session that it should have by the calendar; null if the calendar does not say
    - tickers: all that have bars
    - versions: of the shown tables, by name
    - digest: changes with them
    - as_of: the moment that is shown; null: now
    - read_at: when this was answered
    - notice: why reading is slow, or null

    Raises EmptyLakeError if it has no bars.
    """
    if not view.ticker_years:
        raise EmptyLakeError(
            f"The lake {view.lake.root} has no bars{' then' if view.as_of else ''}. "
            "`stock-lakehouse materialize` loads what the settings name, `stock-lakehouse demo` the sample."
        )
    span, of_features = view.spans[CURATED.name], view.spans[FEATURES.name]
    return {
        "lake": str(view.lake.root),
        "first": _iso(span.first),
        "last": _iso(span.last),
        "last_features": _iso(of_features.last),
        "expected": _iso(view.expected),
        "tickers": list(view.ticker_years),
        "versions": view.versions,
        "digest": view.digest,
        "as_of": view.as_of and view.as_of.isoformat(),
        "read_at": f"{view.clock():%Y-%m-%d %H:%M} UTC",
        "notice": view.notice,
    }


def charts(view: View) -> list[dict[str, Any]]:
    """The panes of a ticker's charts, from charts.py."""
    return [asdict(pane) for pane in PANES]


def bars(view: View, ticker: str, since: date | None = None, before: date | None = None) -> dict[str, list[Any]]:
    """The columns `charts.COLUMNS` of a ticker's bars and their dates, ascending, a list a column.

    `since`: the first day; `before`: the day after the last (None: no limit). No rows if there is no session in between. Raises
    TickerUnknownError.
    """
    if ticker not in view.ticker_years:
        raise unknown_ticker(view, ticker)
    first, last = view.ticker_years[ticker]
    years = range(max(first, since.year if since else first), min(last, before.year if before else last) + 1)
    return columns_of(rows_of(view, [ticker], years, since, before).drop_columns(["ticker"]))


def unknown_ticker(view: View, ticker: str) -> TickerUnknownError:
    """The error for a ticker without bars. It names the tickers that are spelled alike."""
    known = list(view.ticker_years)
    alike = [name for name in known if ticker and name.startswith(ticker.upper())]
    nearest = list(dict.fromkeys([*alike, *get_close_matches(ticker.upper(), known, NEAREST, 0.4)]))[:NEAREST]
    words = f" Spelled alike: {', '.join(nearest)}." if nearest else ""
    return TickerUnknownError(f"The lake has no bars of {ticker!r}{' then' if view.as_of else ''}.{words}", nearest)


def rows_of(
    view: View, tickers: Sequence[str], years: Sequence[int], since: date | None = None, before: date | None = None
) -> pa.Table:
    """Key and `charts.COLUMNS` of the bars of `tickers`, by ticker and date. A bar whose indicators are missing has nulls."""
    import pyarrow.compute as pc

    of_bars = [column for column in COLUMNS if column in CURATED.column_names]
    of_features = [column for column in COLUMNS if column not in CURATED.column_names]
    found = view.rows(CURATED, [*KEY, *of_bars], years, tickers)
    if since is not None:
        found = found.filter(pc.field("date") >= since)
    if before is not None:
        found = found.filter(pc.field("date") < before)
    # Left outer: a run may be between its two publishes, and a bar is worth drawing without its indicators.
    joined = found.join(view.rows(FEATURES, [*KEY, *of_features], years, tickers), list(KEY), join_type="left outer")
    return joined.sort_by([(column, "ascending") for column in KEY])


def columns_of(rows: pa.Table) -> dict[str, list[Any]]:
    """The values of each column, by name; dates in ISO format."""
    return {
        name: [value.isoformat() if isinstance(value, date) else value for value in column.to_pylist()]
        for name, column in zip(rows.column_names, rows.columns, strict=True)
    }


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
