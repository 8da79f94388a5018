"""What the page Signals asks: the newest session and the latest signal of each ticker.

Here: plain values, ready for JSON. Not here: how they are shown (page/signals.js).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.charts import SIGNALS
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.tables import CURATED, FEATURES

if TYPE_CHECKING:
    import pandas as pd

LATEST = ("close", "return_1d", "rsi_14", "macd_hist", "volatility_20")
KEY = ("ticker", "date")


def signals(view: View, years: int = 2) -> list[dict[str, Any]]:
    """Of each ticker its newest session, and its latest signal in the last `years` years; the newest signals first."""
    import pandas as pd

    if not view.ticker_years:
        return []
    newest = {last for _, last in view.ticker_years.values()}
    # A ticker that is traded no longer has its newest session before these years.
    rows = _signal_rows(view, {*range(max(newest) - years, max(newest) + 1), *newest})
    since = (pd.Timestamp(rows["date"].max()) - pd.DateOffset(years=years)).date()
    return _signals(rows[rows["date"] >= since], rows)


def _signal_rows(view: View, years: Collection[int]) -> pd.DataFrame:
    """Key, `LATEST`, signals and `tradable_from` of all tickers in `years`, by ticker and date."""
    names = [*KEY, *(name for name in LATEST if name in FEATURES.column_names), *SIGNALS, "tradable_from"]
    closes = view.rows(CURATED, [*KEY, "close"], years)
    rows = view.rows(FEATURES, names, years).join(closes, list(KEY), join_type="left outer")
    return rows.to_pandas().sort_values(list(KEY))


def _signals(in_span: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each ticker the newest of `rows`, and the latest signal of `in_span`; the newest signals first."""
    signalled = in_span[in_span[list(SIGNALS)].any(axis=1)].groupby("ticker").tail(1).set_index("ticker")
    found = []
    for row in rows.groupby("ticker").tail(1).to_dict("records"):
        signal = signalled.loc[row["ticker"]].to_dict() if row["ticker"] in signalled.index else {}
        found.append(
            {
                "ticker": row["ticker"],
                "date": row["date"].isoformat(),
                **{name: _number(row[name]) for name in LATEST},
                "signal": ", ".join(label for name, label in SIGNALS.items() if signal.get(name)) or None,
                "signal_date": signal["date"].isoformat() if signal else None,
                "tradable_from": signal["tradable_from"].isoformat() if signal.get("tradable_from") else None,
            }
        )
    return sorted(found, key=lambda row: row["signal_date"] or "", reverse=True)


def _number(value: float) -> float | None:
    """pandas has NaN where Arrow has null, and JSON has no NaN."""
    return None if math.isnan(value) else value
