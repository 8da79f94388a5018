"""What the page Ticker asks: what there is (`about`), the charts (`charts`), a ticker's bars (`bars`, `restated`).

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
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.tables import CURATED, FEATURES, RESTATEMENTS

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


def bars(view: View, ticker: str, years: int = 0, before: date | None = None) -> dict[str, list[Any]]:
    """The columns `charts.COLUMNS` of a ticker's bars and their dates, ascending, a list a column.

    `years`: only the years up to the ticker's newest session (0: all); `before`: only sessions before that day (None: all). No
    rows if there is no such session. Raises TickerUnknownError.
    """
    import pyarrow.compute as pc

    first, last = _years_of(view, ticker)
    if years > 0:
        first = max(first, last - years)
    if before is not None:
        last = min(last, before.year)
    rows = rows_of(view, [ticker], range(first, last + 1)).drop_columns(["ticker"])
    if before is not None:
        rows = rows.filter(pc.field("date") < before)
    if years > 0 and rows.num_rows:
        rows = rows.filter(pc.field("date") >= years_before(pc.max(rows["date"]).as_py(), years))
    return columns_of(rows)


def restated(view: View, ticker: str) -> list[dict[str, Any]]:
    """The values of single bars of a ticker that changed after they were published, oldest change first.

    Each has date (the session), column, old, new, cause and restated_at (null and texts as in the ledger). Changes of the whole
    history, like those of a split, are not among them. Raises TickerUnknownError.
    """
    _years_of(view, ticker)
    return restated_of(view, [ticker])[ticker]


def restated_of(view: View, tickers: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """`restated` of each of `tickers`, of which all have bars; the ledger is read once."""
    import pyarrow.compute as pc

    names = ["ticker", "table_name", "date", "columns", "old", "new", "rows", "cause", "restated_at"]
    lines = read_table(
        RESTATEMENTS.name, tickers=tickers, columns=names, as_of=view.as_of, lake_root=view.lake.root
    ).filter((pc.field("table_name") == CURATED.name) & (pc.field("rows") == 1))
    found: dict[str, list[dict[str, Any]]] = {ticker: [] for ticker in tickers}
    for line in lines.sort_by([("restated_at", "ascending"), ("date", "ascending")]).to_pylist():
        found[line["ticker"]].append(
            {
                **{name: line[name] for name in ("old", "new", "cause")},
                "date": line["date"].isoformat(),
                "column": line["columns"],
                "restated_at": f"{line['restated_at']:%Y-%m-%d %H:%M} UTC",
            }
        )
    return found


def years_before(day: date, years: int) -> date:
    """The same day `years` years before; for a 29 February the 28th, if there is none."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


def _years_of(view: View, ticker: str) -> tuple[int, int]:
    if ticker not in view.ticker_years:
        raise unknown_ticker(view, ticker)
    return view.ticker_years[ticker]


def unknown_ticker(view: View, ticker: str) -> TickerUnknownError:
    """The error for a ticker without bars. It names the tickers that are spelled alike."""
    known = list(view.ticker_years)
    alike = [name for name in known if ticker and name.startswith(ticker.upper())]
    nearest = list(dict.fromkeys([*alike, *get_close_matches(ticker.upper(), known, NEAREST, 0.4)]))[:NEAREST]
    words = f" Spelled alike: {', '.join(nearest)}." if nearest else ""
    return TickerUnknownError(f"The lake has no bars of {ticker!r}{' then' if view.as_of else ''}.{words}", nearest)


def rows_of(view: View, tickers: Sequence[str], years: Sequence[int]) -> pa.Table:
    """Key and `charts.COLUMNS` of the bars of `tickers`, by ticker and date. A bar whose indicators are missing has nulls."""
    of_bars = [column for column in COLUMNS if column in CURATED.column_names]
    of_features = [column for column in COLUMNS if column not in CURATED.column_names]
    found = view.rows(CURATED, [*KEY, *of_bars], years, tickers)
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
