"""The registry of indicators: one line a feature, and the functions behind them.

Here: formulas over one ticker's history as numpy arrays. Not here: frames, tickers, storage. To add an indicator add a line
to INDICATORS; its column, schema, docs and backfill follow. TA-Lib is the kernel; definitions are TA-Lib's unless a comment
says why not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Columns = Mapping[str, Array]

# Raise it when a function below changes its result: parameters and names are part of the spec by themselves. A test holds
# a digest of the sample's values against the spec, so a forgotten change is red.
FORMULA_VERSION = 2

# Two averages closer than this, relative, are equal: averages of 50 and of 200 equal prices may round differently, which
# would otherwise make crosses out of a flat price.
EQUAL_WITHIN = 1e-9


def moving_average(columns: Columns, source: str, window: int) -> Array:
    """Simple moving average of `window` sessions; nan where one of them is nan.

    Not TA-Lib's: its running sum keeps the rounding of prices long gone, 2e-7 relative after a fall from 1e6 to 1e-2 (split
    adjusted histories do that), which also makes crosses out of a flat price.
    """
    import numpy as np

    out = np.full(len(columns[source]), np.nan)
    if len(out) >= window:
        out[window - 1 :] = window_sums(columns[source], window) / window
    return out


def exponential_average(columns: Columns, source: str, window: int) -> Array:
    """Exponential moving average, alpha 2/(window+1), seeded with the simple average of the first `window` values."""
    import talib

    return talib.EMA(columns[source], window)


def rsi(columns: Columns, source: str, window: int) -> Array:
    """Relative strength index (Wilder, New Concepts in Technical Trading Systems, 1978), 0 to 100; 0 if nothing moved."""
    import talib

    return talib.RSI(columns[source], window)


def macd(columns: Columns, source: str, fast: int, slow: int, signal: int, part: int) -> Array:
    """MACD (Appel): line, signal or histogram by `part` 0, 1, 2.

    TA-Lib seeds both averages at bar `slow`, so for the first weeks of a history the line is not exactly ema_12 - ema_26.
    """
    import talib

    return talib.MACD(columns[source], fast, slow, signal)[part]


def bollinger(columns: Columns, source: str, window: int, deviations: float) -> Array:
    """Average plus `deviations` population deviations over `window` sessions (Bollinger).

    Not TA-Lib's: its bands lie about its average, see `moving_average`. docs/conformance.md has the errors of both.
    """
    band: Array = moving_average(columns, source, window) + deviations * rolling_deviation(
        columns[source], window, ddof=0
    )
    return band


def simple_return(columns: Columns) -> Array:
    """close / (close before - dividend) - 1 where the dividend is known: what adj_close gives by its definition
    (transforms/curated.py), but no later dividend changes a digit of it. Else the change of the delivered adj_close, or of close
    where one of the two bars has none. A dividend that is not below the close before counts as none."""
    import numpy as np

    close, adj_close, delivered = columns["close"], columns["adj_close"], columns["total_return"]
    dividend = columns["dividend"][1:]
    out = np.full(len(close), np.nan)
    if len(close) > 1:
        paid = np.where(dividend < close[:-1], dividend, 0.0)  # nan is below nothing
        out[1:] = close[1:] / (close[:-1] - paid) - 1.0
        by_vendor = np.isnan(dividend) & delivered[1:] & delivered[:-1]
        out[1:][by_vendor] = (adj_close[1:] / adj_close[:-1] - 1.0)[by_vendor]
    return out


def volatility(columns: Columns, window: int) -> Array:
    """Sample deviation of `return_1d` over `window` sessions; per session, not annualised."""
    return rolling_deviation(columns["return_1d"], window, ddof=1)


def rolling_deviation(values: Array, window: int, ddof: int) -> Array:
    """Standard deviation of each full window, in two passes, so that a flat stretch gives exactly 0; nan before."""
    import numpy as np

    out = np.full(len(values), np.nan)
    if len(values) >= window:
        windows = np.lib.stride_tricks.sliding_window_view(values, window)
        # About the window's first value: subtracting it first keeps equal values exactly equal.
        out[window - 1 :] = (windows - windows[:, :1]).std(axis=1, ddof=ddof)
    return out


def window_sums(values: Array, window: int) -> Array:
    """The sum of each full window, from sums over 1, 2, 4, … values: as fast as a running sum, and nothing is subtracted, so
    that neither a large value nor a nan leaves anything behind once it is out of the window."""
    import numpy as np

    sums, width = values, 1  # sums[i] is over values[i : i + width]
    total, done = np.zeros(len(values) - window + 1), 0  # total[i] is over values[i : i + done]
    while True:
        if window & width:
            total = total + sums[done : done + len(total)]
            done += width
        if done == window:
            return total
        sums, width = sums[:-width] + sums[width:], 2 * width


def is_above(left: Array, right: Array) -> Array:
    """left > right, where differences within EQUAL_WITHIN count as equal; False where either is nan."""
    import numpy as np

    above: Array = left - right > EQUAL_WITHIN * np.abs(right)
    return above


def signal(
    columns: Columns, above: str, below: str, rsi_under: float | None = None, rsi_over: float | None = None
) -> Array:
    """True where average `above` is above average `below` and rsi_14 is under or over a bound."""
    strength = columns["rsi_14"]
    bound: Array = strength < rsi_under if rsi_under is not None else strength > rsi_over
    return is_above(columns[above], columns[below]) & bound


def cross(columns: Columns, above: str, below: str) -> Array:
    """True where `above` passes from below or equal to above `below` between two consecutive sessions that have both."""
    import numpy as np

    fast, slow = columns[above], columns[below]
    now = is_above(fast, slow)
    known = ~np.isnan(fast) & ~np.isnan(slow)
    out = np.zeros(len(now), dtype=bool)
    out[1:] = now[1:] & ~now[:-1] & known[1:] & known[:-1]
    return out


@dataclass(frozen=True)
class Indicator:
    """One column of features. `warm_up` is how many sessions at the start of a history have no value."""

    name: str
    function: Callable[..., Array]
    parameters: Mapping[str, Any]
    warm_up: int
    description: str
    minimum: float | None = None
    maximum: float | None = None
    type: str = field(default="double")


_MACD = {"source": "close", "fast": 12, "slow": 26, "signal": 9}
_BANDS = {"source": "close", "window": 20}

# In order of evaluation: a function may read the bars and every column above its own.
INDICATORS: tuple[Indicator, ...] = (
    Indicator("sma_20", moving_average, {"source": "close", "window": 20}, 19, "Average close of 20 sessions", 0),
    Indicator("sma_50", moving_average, {"source": "close", "window": 50}, 49, "Average close of 50 sessions", 0),
    Indicator("sma_200", moving_average, {"source": "close", "window": 200}, 199, "Average close of 200 sessions", 0),
    Indicator(
        "ema_12", exponential_average, {"source": "close", "window": 12}, 11, "Exponential average of 12 sessions", 0
    ),
    Indicator(
        "ema_26", exponential_average, {"source": "close", "window": 26}, 25, "Exponential average of 26 sessions", 0
    ),
    Indicator("rsi_14", rsi, {"source": "close", "window": 14}, 14, "Wilder's relative strength index", 0, 100),
    Indicator("macd", macd, {**_MACD, "part": 0}, 33, "MACD line of (12, 26, 9)"),
    Indicator("macd_signal", macd, {**_MACD, "part": 1}, 33, "MACD signal line"),
    Indicator("macd_hist", macd, {**_MACD, "part": 2}, 33, "MACD histogram: line minus signal line"),
    Indicator(
        "bb_upper", bollinger, {**_BANDS, "deviations": 2.0}, 19, "Upper Bollinger band, 20 sessions, 2 deviations"
    ),
    Indicator("bb_mid", bollinger, {**_BANDS, "deviations": 0.0}, 19, "Middle Bollinger band: the average", 0),
    Indicator("bb_lower", bollinger, {**_BANDS, "deviations": -2.0}, 19, "Lower Bollinger band"),
    Indicator(
        "volume_sma_20", moving_average, {"source": "volume", "window": 20}, 19, "Average volume of 20 sessions", 0
    ),
    Indicator(
        "volume_sma_50", moving_average, {"source": "volume", "window": 50}, 49, "Average volume of 50 sessions", 0
    ),
    Indicator(
        "return_1d",
        simple_return,
        {},
        1,
        "Total return since the session before, 0.01 is 1 %: of close, with the dividend of the bar itself; where no dividend is "
        "known, of the delivered adj_close, or of close alone",
    ),
    Indicator("volatility_20", volatility, {"window": 20}, 20, "Sample deviation of return_1d over 20 sessions", 0),
    Indicator(
        "buy_signal",
        signal,
        {"above": "sma_20", "below": "sma_50", "rsi_under": 30.0},
        49,
        "sma_20 > sma_50 and rsi_14 < 30",
        type="boolean",
    ),
    Indicator(
        "sell_signal",
        signal,
        {"above": "sma_50", "below": "sma_20", "rsi_over": 70.0},
        49,
        "sma_20 < sma_50 and rsi_14 > 70",
        type="boolean",
    ),
    Indicator(
        "golden_cross",
        cross,
        {"above": "sma_50", "below": "sma_200"},
        200,
        "sma_50 passes above sma_200 since the session before",
        type="boolean",
    ),
    Indicator(
        "death_cross",
        cross,
        {"above": "sma_200", "below": "sma_50"},
        200,
        "sma_50 passes below sma_200 since the session before",
        type="boolean",
    ),
)


def indicator_spec(indicators: tuple[Indicator, ...] = INDICATORS) -> str:
    """The version string of all formulas and parameters, like `1-3f9a0c21`."""
    lines = [f"{one.name}={one.function.__name__}({sorted(one.parameters.items())})" for one in indicators]
    return f"{FORMULA_VERSION}-{hashlib.sha256(repr(lines).encode()).hexdigest()[:8]}"


def compute(bars: Columns, indicators: tuple[Indicator, ...] = INDICATORS) -> dict[str, Array]:
    """Every indicator over one ticker's whole history.

    `bars` has close, adj_close, volume and dividend (float64; dividend is nan where the delivery did not say) and total_return
    (bool: adj_close is a delivered one), one value a session in ascending order.
    Returns one array an indicator, of the same length: float64 with nan in the warm-up, or bool.
    """
    columns: dict[str, Array] = dict(bars)
    for one in indicators:
        columns[one.name] = one.function(columns, **one.parameters)
    return {one.name: columns[one.name] for one in indicators}
