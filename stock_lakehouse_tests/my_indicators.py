"""Indicators of a user's own, as a file beside lakehouse.toml has them."""

from __future__ import annotations

from dataclasses import dataclass

import talib

from stock_lakehouse.indicators.kernel import moving_average
from stock_lakehouse.indicators.registry import Indicator


@dataclass(frozen=True)
class Scale:
    by: float


PERCENT = Scale(100.0)


def day_range(columns):
    return PERCENT.by * (columns["high"] - columns["low"]) / columns["close"]


INDICATORS = [
    Indicator("day_range", day_range, {}, 0, "High minus low, percent of close", 0, inputs=("high", "low", "close")),
    Indicator("day_range_5", moving_average, {"source": "day_range", "window": 5}, 4, "Average day_range", 0),
    Indicator(
        "atr_3",
        lambda columns, window: talib.ATR(columns["high"], columns["low"], columns["close"], window),
        {"window": 3},
        3,
        "Average true range",
        inputs=("high", "low", "close"),
    ),
    Indicator(
        "up_day", lambda c: c["close"] > c["open"], {}, 0, "Close above open", type="boolean", inputs=("open", "close")
    ),
]
