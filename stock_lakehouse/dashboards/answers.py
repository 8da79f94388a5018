"""The answers that a file has inside: every question of the page that can be asked in it. Read without an engine.

Here: which questions and tickers. Not here: the answers (ticker.py, signals.py, data.py), the file (report.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from stock_lakehouse.dashboards.data import data
from stock_lakehouse.dashboards.signals import signals
from stock_lakehouse.dashboards.ticker import about, charts, columns_of, restated, rows_of, years_before
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.tables import FEATURES


class ReportError(LakeError):
    """The lake has not what the page shows, or the page cannot be written. The message says what to do."""


def answers(lake: Lake, tickers: Sequence[str] | None, years: int, most: int) -> dict[str, Any]:
    """Every question that can be asked in a file, and its answer, as values for JSON.

    - charts, about, signals, data: as in questions.py; about.tickers are those that are charted
    - bars/TICKER: of each charted ticker the sessions of the last `years` years; restated/TICKER

    `tickers`: the tickers to chart. None: all; if the lake has more than `most`, those with a signal on the newest session, then
    those that moved most. Raises ReportError if there are no features, or none of a ticker; StorageError.
    """
    import pyarrow.compute as pc

    lake.check()
    view = View(lake)
    held = view.ticker_years
    last = view.spans[FEATURES.name].last
    if not held or last is None:
        raise ReportError(
            f"{FEATURES.name}: the lake {lake.root} has no features, so there is nothing to draw; "
            "`stock-lakehouse materialize` computes them, `stock-lakehouse demo` those of the sample"
        )
    if tickers is not None and not tickers:
        raise ReportError("tickers: the list is empty; name a ticker, or give None for all")
    if unknown := sorted(set(tickers or ()) - held.keys()):
        raise ReportError(
            f"tickers: the lake has no features of {', '.join(unknown)}; `stock-lakehouse status` lists what it has"
        )
    first = years_before(last, years)
    latest = signals(view, years)
    charted = _most_interesting(latest, last, most) if tickers is None else list(dict.fromkeys(tickers))
    rows = rows_of(view, charted, range(first.year, last.year + 1)).filter(pc.field("date") >= first)
    return {
        "charts": charts(view),
        "about": {**about(view), "first": first.isoformat(), "tickers": charted, "tickers_in_lake": len(held)},
        **{
            f"bars/{ticker}": columns_of(rows.filter(pc.field("ticker") == ticker).drop_columns(["ticker"]))
            for ticker in charted
        },
        **{f"restated/{ticker}": restated(view, ticker) for ticker in charted},
        "signals": latest,
        "data": data(view),
    }


def _most_interesting(signals: Sequence[Mapping[str, Any]], last: date, most: int) -> list[str]:
    def rank(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
        is_newest = row["date"] == last.isoformat()
        return not is_newest, row["signal_date"] != last.isoformat(), -abs(row["return_1d"] or 0)

    return sorted(row["ticker"] for row in sorted(signals, key=rank)[:most])
