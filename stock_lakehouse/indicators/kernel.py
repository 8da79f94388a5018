"""The formulas behind the indicators, over one ticker's history as numpy arrays.

TA-Lib is the kernel. Definitions are TA-Lib's unless a docstring says why not. Not here: the list of indicators (registry.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Columns = Mapping[str, Array]

# Two averages that differ by less, relatively, are equal. Averages of 50 and of 200 equal prices may round differently, and a
# flat price would otherwise give false crosses.
EQUAL_WITHIN = 1e-9


def moving_average(columns: Columns, source: str, window: int) -> Array:
    """Simple moving average of `window` sessions; NaN where one of them is NaN.

    Not TA-Lib's: its running sum keeps the rounding errors of prices that have left the window, 2e-7 relative after a fall from
    1e6 to 1e-2 (split-adjusted histories have such falls). They also give false crosses for a flat price.
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
    """Relative strength index (Wilder, New Concepts in Technical Trading Systems, 1978), 0 to 100; 0 if no price changed."""
    import talib

    return talib.RSI(columns[source], window)


def macd(columns: Columns, source: str, fast: int, slow: int, signal: int, part: int) -> Array:
    """MACD (Appel). `part`: 0 is the line, 1 the signal line, 2 the histogram.

    TA-Lib seeds both averages at bar `slow`, so for the first weeks of a history the line is not exactly ema_12 - ema_26.
    """
    import talib

    return talib.MACD(columns[source], fast, slow, signal)[part]


def bollinger(columns: Columns, source: str, window: int, deviations: float) -> Array:
    """Average plus `deviations` population standard deviations over `window` sessions (Bollinger).

    Not TA-Lib's: its bands are centred on its average, see `moving_average`. docs/conformance.md has the errors of both.
    """
    average = moving_average(columns, source, window)
    if deviations == 0:
        return average
    band: Array = average + deviations * rolling_deviation(columns[source], window, ddof=0)
    return band


def simple_return(columns: Columns) -> Array:
    """Total return since the session before, as a fraction; NaN for the first session.

    - Where the dividend is known: close / (close before - dividend) - 1. By its definition adj_close gives the same
      (transforms/curated.py), but this value does not change with later dividends.
    - Else: the change of the delivered adj_close, or of close where one of the two bars has no delivered adj_close.

    A dividend that is not below the close before counts as 0.
    """
    import numpy as np

    close, adj_close, delivered = columns["close"], columns["adj_close"], columns["total_return"]
    dividend = columns["dividend"][1:]
    out = np.full(len(close), np.nan)
    if len(close) > 1:
        paid = np.where(dividend < close[:-1], dividend, 0.0)  # NaN compares False: an unknown dividend counts as 0
        out[1:] = close[1:] / (close[:-1] - paid) - 1.0
        by_vendor = np.isnan(dividend) & delivered[1:] & delivered[:-1]
        out[1:][by_vendor] = (adj_close[1:] / adj_close[:-1] - 1.0)[by_vendor]
    return out


def volatility(columns: Columns, window: int) -> Array:
    """Sample standard deviation of `return_1d` over `window` sessions; per session, not annualised."""
    return rolling_deviation(columns["return_1d"], window, ddof=1)


def rolling_deviation(values: Array, window: int, ddof: int) -> Array:
    """Standard deviation of each full window; NaN before. Two passes, so that equal values give exactly 0."""
    import numpy as np

    out = np.full(len(values), np.nan)
    if len(values) >= window:
        out[window - 1 :] = deviations_of(np.lib.stride_tricks.sliding_window_view(values, window), ddof)
    return out


def deviations_of(windows: Array, ddof: int) -> Array:
    """The standard deviation of each row of `windows`."""
    # Subtracting the window's first value keeps equal values exactly equal.
    deviations: Array = (windows - windows[:, :1]).std(axis=1, ddof=ddof)
    return deviations


def window_sums(values: Array, window: int) -> Array:
    """The sum of each full window, from sums over 1, 2, 4, … values.

    As fast as a running sum, but without subtraction: a large value or a NaN leaves no error behind once it is out of the window.
    """
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
    """left > right, where values within EQUAL_WITHIN count as equal; False where either is NaN."""
    import numpy as np

    above: Array = left - right > EQUAL_WITHIN * np.abs(right)
    return above


def signal(
    columns: Columns, above: str, below: str, rsi_under: float | None = None, rsi_over: float | None = None
) -> Array:
    """True where the average `above` is above the average `below` and rsi_14 is under `rsi_under` or over `rsi_over`."""
    strength = columns["rsi_14"]
    bound: Array = strength < rsi_under if rsi_under is not None else strength > rsi_over
    return is_above(columns[above], columns[below]) & bound


def cross(columns: Columns, above: str, below: str) -> Array:
    """True where `above` is above `below` and was not on the session before; both sessions must have both values."""
    import numpy as np

    fast, slow = columns[above], columns[below]
    now = is_above(fast, slow)
    known = ~np.isnan(fast) & ~np.isnan(slow)
    out = np.zeros(len(now), dtype=bool)
    out[1:] = now[1:] & ~now[:-1] & known[1:] & known[:-1]
    return out
