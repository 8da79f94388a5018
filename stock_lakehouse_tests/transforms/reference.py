"""The indicators once more, from their definitions, to hold the product's against.

Here: plain loops in extended precision, slow and obvious. Nothing of TA-Lib or of the product is used. A value that
does not exist is nan, as in the product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import signal as scipy_signal

Values = Sequence[float] | np.ndarray


def sma(values: Values, window: int) -> np.ndarray:
    """The mean of each full window, exactly rounded."""
    out = np.full(len(values), np.nan)
    for end in range(window, len(values) + 1):
        out[end - 1] = math.fsum(values[end - window : end]) / window
    return out


def ema(values: Values, window: int, seed_at: int | None = None) -> np.ndarray:
    """y[t] = a·x[t] + (1 - a)·y[t-1], a = 2 / (window + 1); y[seed_at] is the mean of the `window` values up to it."""
    seed_at = window - 1 if seed_at is None else seed_at
    out = np.full(len(values), np.nan)
    if len(values) <= seed_at:
        return out
    alpha = np.longdouble(2) / (window + 1)
    exact = np.asarray(values, dtype=np.longdouble)
    seed = exact[seed_at - window + 1 : seed_at + 1].sum() / window
    state = scipy_signal.lfiltic([alpha], [1, alpha - 1], y=[seed])
    filtered, _ = scipy_signal.lfilter([alpha], [np.longdouble(1), alpha - 1], exact[seed_at + 1 :], zi=state)
    out[seed_at] = seed
    out[seed_at + 1 :] = filtered
    return out


def rsi(values: Values, window: int) -> np.ndarray:
    """Wilder: 100·G / (G + L), G and L being averages of rises and falls, seeded with a mean, smoothed by 1/window."""
    out = np.full(len(values), np.nan)
    if len(values) <= window:
        return out
    moves = np.diff(np.asarray(values, dtype=np.longdouble))
    rises, falls = np.maximum(moves, 0), np.maximum(-moves, 0)
    rise, fall = rises[:window].mean(), falls[:window].mean()
    for at in range(window, len(values)):
        if at > window:
            rise = (rise * (window - 1) + rises[at - 1]) / window
            fall = (fall * (window - 1) + falls[at - 1]) / window
        out[at] = 100 * rise / (rise + fall) if rise + fall > 0 else 0.0
    return out


def macd(values: Values, fast: int, slow: int, smooth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line, signal line, histogram. Both averages start at bar `slow`; nothing comes before the signal line does."""
    line = ema(values, fast, seed_at=slow - 1) - ema(values, slow)
    smoothed = np.full(len(line), np.nan)
    smoothed[slow - 1 :] = ema(line[slow - 1 :], smooth)
    line = np.where(np.isnan(smoothed), np.nan, line)
    return line, smoothed, line - smoothed


def deviation(values: Values, window: int, freedom: int) -> np.ndarray:
    """The square root of the squared distances from each full window's mean, over window - freedom; of nan none."""
    out = np.full(len(values), np.nan)
    for end in range(window, len(values) + 1):
        part = [float(value) for value in values[end - window : end]]
        if any(map(math.isnan, part)):
            continue
        mean = math.fsum(part) / window
        out[end - 1] = math.sqrt(math.fsum((value - mean) ** 2 for value in part) / (window - freedom))
    return out


def returns(close: Values, adj_close: Values, total_return: Sequence[bool]) -> np.ndarray:
    """Simple returns of adj_close; of close where one of the two sessions lacks adj_close."""
    out = np.full(len(close), np.nan)
    for at in range(1, len(close)):
        prices = adj_close if total_return[at] == total_return[at - 1] else close
        out[at] = prices[at] / prices[at - 1] - 1
    return out


def side(left: float, right: float) -> int:
    """1 if left is greater, -1 if it is smaller, 0 if both are equal but for rounding."""
    return 0 if math.isclose(left, right, rel_tol=1e-9) else (1 if left > right else -1)


def crosses(fast: np.ndarray, slow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `fast` comes to lie above `slow`, and where below, since the value before; both must have both values."""
    golden, death = np.zeros(len(fast), dtype=bool), np.zeros(len(fast), dtype=bool)
    for at in range(1, len(fast)):
        if np.isnan([fast[at - 1], slow[at - 1], fast[at], slow[at]]).any():
            continue
        before, now = side(fast[at - 1], slow[at - 1]), side(fast[at], slow[at])
        golden[at] = now == 1 and before != 1
        death[at] = now == -1 and before != -1
    return golden, death


def signals(sma_20: np.ndarray, sma_50: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Buy: sma_20 above sma_50 and RSI under 30. Sell: sma_20 below sma_50 and RSI over 70."""
    buy, sell = np.zeros(len(sma_20), dtype=bool), np.zeros(len(sma_20), dtype=bool)
    for at in range(len(sma_20)):
        if np.isnan([sma_20[at], sma_50[at], strength[at]]).any():
            continue
        above = side(sma_20[at], sma_50[at])
        buy[at] = above == 1 and strength[at] < 30
        sell[at] = above == -1 and strength[at] > 70
    return buy, sell


def all_indicators(
    close: Values, adj_close: Values, volume: Values, total_return: Sequence[bool]
) -> dict[str, np.ndarray]:
    """Every feature by name, for one ticker's history in ascending order."""
    out = {f"sma_{window}": sma(close, window) for window in (20, 50, 200)}
    out |= {f"ema_{window}": ema(close, window) for window in (12, 26)}
    out["rsi_14"] = rsi(close, 14)
    out["macd"], out["macd_signal"], out["macd_hist"] = macd(close, 12, 26, 9)
    band = deviation(close, 20, freedom=0)
    out["bb_upper"], out["bb_mid"], out["bb_lower"] = out["sma_20"] + 2 * band, out["sma_20"], out["sma_20"] - 2 * band
    out |= {f"volume_sma_{window}": sma(volume, window) for window in (20, 50)}
    out["return_1d"] = returns(close, adj_close, total_return)
    out["volatility_20"] = deviation(out["return_1d"], 20, freedom=1)
    out["buy_signal"], out["sell_signal"] = signals(out["sma_20"], out["sma_50"], out["rsi_14"])
    out["golden_cross"], out["death_cross"] = crosses(out["sma_50"], out["sma_200"])
    return out
