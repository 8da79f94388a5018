"""The answers that a file has inside: every question of the page that can be asked in it. Read without an engine.

Here: which questions and tickers. Not here: the answers (ticker.py, signals.py, data.py, run.py), the file (report.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from stock_lakehouse.dashboards.data import counts, data
from stock_lakehouse.dashboards.run import run
from stock_lakehouse.dashboards.signals import signals
from stock_lakehouse.dashboards.ticker import about, charts, columns_of, restated_of, rows_of, years_before
from stock_lakehouse.dashboards.view import SHOWN, View
from stock_lakehouse.instance.run_record import ROW_COUNT, RunRecord
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.tables import FEATURES, PROCESSED, RAW

DIGITS = 7  # of a number in the report of a run


class ReportError(LakeError):
    """What was asked for cannot be shown, or the page cannot be written. The message says what to do."""


class NothingToDrawError(ReportError):
    """The lake has no features. The message says what to do."""


def answers(lake: Lake, tickers: Sequence[str] | None, years: int, most: int) -> dict[str, Any]:
    """Every question that can be asked in a file, and its answer, as values for JSON.

    - charts, about, signals, data, counts: as in questions.py; about.tickers are those that are charted
    - bars/TICKER: of each charted ticker the sessions of the last `years` years; restated/TICKER

    `tickers`: the tickers to chart. None: all; if the lake has more than `most`, those with a signal on the newest session, then
    those that moved most. Raises ReportError if there are no features, or none of a ticker; StorageError.
    """
    lake.check(*SHOWN)
    view = View(lake)
    return {**answers_of(view, tickers, years, most), "counts": counts(view)}


def answers_of(view: View, tickers: Sequence[str] | None, years: int, most: int) -> dict[str, Any]:
    """`answers` of a view, without counts, for which each file of raw and processed is opened."""
    if tickers is not None and not tickers:
        raise ReportError("tickers: the list is empty; name a ticker, or give None for all")
    last = _last(view)
    latest = signals(view)
    charted = _most_interesting(latest["rows"], last, most) if tickers is None else list(dict.fromkeys(tickers))
    return {**charts_of(view, charted, years), "signals": latest, "data": data(view)}


def charts_of(view: View, tickers: Sequence[str], years: int) -> dict[str, Any]:
    """Of `answers` those of the page Ticker: charts, about; bars and restated of `tickers`. Raises ReportError; StorageError."""
    import pyarrow.compute as pc

    held, last = view.ticker_years, _last(view)
    if unknown := sorted(set(tickers) - held.keys()):
        raise ReportError(
            f"tickers: the lake has no features of {', '.join(unknown)}; `stock-lakehouse status` lists what it has"
        )
    # A ticker that is traded no longer has its newest session before the lake's.
    newest = max((held[ticker][1] for ticker in tickers), default=last.year)
    first = years_before(last if newest >= last.year else date(newest, 12, 31), years)
    rows = rows_of(view, tickers, range(first.year, last.year + 1)).filter(pc.field("date") >= first)
    return {
        "charts": charts(view),
        "about": {**about(view), "first": first.isoformat(), "tickers": list(tickers), "tickers_in_lake": len(held)},
        **{
            f"bars/{ticker}": columns_of(rows.filter(pc.field("ticker") == ticker).drop_columns(["ticker"]))
            for ticker in tickers
        },
        **{f"restated/{ticker}": lines for ticker, lines in restated_of(view, tickers).items()},
    }


def answers_of_run(
    view: View,
    record: RunRecord,
    years: int,
    most: int,
    secrets: Sequence[str] = (),
    tickers: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The answers of the report of a run: `run`, and those of `answers`; of a lake without features the former alone.

    Of `counts` it has what the run recorded.

    `secrets`: texts that must not be in it. Raises ReportError for a ticker without features; StorageError.
    """
    processed = record.assets.get(PROCESSED.name)
    rows = None if processed is None else processed.facts.get(ROW_COUNT)
    found = {"run": run(view, record, secrets), "counts": {RAW.name: {"rows": None}, PROCESSED.name: {"rows": rows}}}
    try:
        return found | {
            name: _rounded(answer) if name.startswith("bars/") else answer
            for name, answer in answers_of(view, tickers, years, most).items()
        }
    except NothingToDrawError:
        nothing = dict.fromkeys(("first", "last", "last_features", "expected", "as_of", "notice"))
        lake = {"lake": str(view.lake.root), "digest": view.digest, "tickers": [], "tickers_in_lake": 0}
        return found | {"about": {**nothing, **lake}}


def _last(view: View) -> date:
    """The newest session that has features. Raises NothingToDrawError if there is none."""
    last = view.spans[FEATURES.name].last
    if not view.ticker_years or last is None:
        raise NothingToDrawError(
            f"{FEATURES.name}: the lake {view.lake.root} has no features, so there is nothing to draw; "
            "`stock-lakehouse materialize` computes them, `stock-lakehouse demo` those of the sample"
        )
    return last


def _rounded(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Values with DIGITS digits: more than a chart shows, and half the bytes."""
    return {
        name: [float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for value in values]
        for name, values in columns.items()
    }


def _most_interesting(signals: Sequence[Mapping[str, Any]], last: date, most: int) -> list[str]:
    def rank(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
        newest = last.isoformat()
        has_signal = newest in (row["signal_date"], row["cross_date"])
        return row["date"] != newest, not has_signal, -abs(row["return_1d"] or 0)

    return sorted(row["ticker"] for row in sorted(signals, key=rank)[:most])
