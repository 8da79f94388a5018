"""The indicators once more, from their definitions, to hold the product's against.

Here: plain loops in exact integers and in decimals of 40 digits, so that every value is rounded once, at its end, and is
the same on every machine. Nothing of TA-Lib, of numpy's arithmetic or of the product is used. A value that does not exist
is nan, as in the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, localcontext
from itertools import pairwise

import numpy as np

Values = Sequence[float] | np.ndarray
Decimals = list[Decimal | None]

DIGITS = Context(prec=40)
# Two averages closer than this, relative, are equal: the boundary rule of crosses and signals.
EQUAL_WITHIN = 1e-9


def sma(values: Values, window: int) -> np.ndarray:
    """The mean of each full window, rounded once; nan where the window holds a nan."""
    whole, unit = _integers(values)
    out = np.full(len(whole), np.nan)
    for at, total, _ in _windows(whole, window):
        out[at] = total / (unit * window)  # Python divides integers of any size with one rounding.
    return out


def deviation(values: Values, window: int, freedom: int) -> np.ndarray:
    """sqrt((Σx² - (Σx)²/n) / (n - freedom)) of each full window of n values; nan where the window holds a nan."""
    whole, unit = _integers(values)
    out = np.full(len(whole), np.nan)
    for at, total, squares in _windows(whole, window):
        out[at] = math.sqrt((window * squares - total**2) / (window * (window - freedom) * unit**2))
    return out


def ema(values: Values, window: int) -> np.ndarray:
    """y[t] = a·x[t] + (1 - a)·y[t-1], a = 2 / (window + 1), seeded with the mean of the first `window` values."""
    return _floats(_ema(_decimals(values), window, window - 1))


def rsi(values: Values, window: int) -> np.ndarray:
    """Wilder: 100·G / (G + L), G and L being averages of rises and falls, seeded with a mean, smoothed by 1/window."""
    prices = _decimals(values)
    out: Decimals = [None] * len(prices)
    with localcontext(DIGITS):
        moves = [now - before for before, now in pairwise(prices)]
        rises, falls = [max(move, Decimal(0)) for move in moves], [max(-move, Decimal(0)) for move in moves]
        rise, fall = sum(rises[:window], Decimal(0)) / window, sum(falls[:window], Decimal(0)) / window
        for at in range(window, len(prices)):
            if at > window:
                rise = (rise * (window - 1) + rises[at - 1]) / window
                fall = (fall * (window - 1) + falls[at - 1]) / window
            out[at] = 100 * rise / (rise + fall) if rise + fall > 0 else Decimal(0)
    return _floats(out)


def macd(values: Values, fast: int, slow: int, smooth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line, signal line, histogram. Both averages start at bar `slow`; nothing comes before the signal line does."""
    prices, first = _decimals(values), slow + smooth - 2
    with localcontext(DIGITS):
        averages = zip(_ema(prices, fast, slow - 1), _ema(prices, slow, slow - 1), strict=True)
        line = [None if left is None or right is None else left - right for left, right in averages]
        known = [value for value in line if value is not None]
        smoothed = [*line[: len(line) - len(known)], *_ema(known, smooth, smooth - 1)]
        line = [value if at >= first else None for at, value in enumerate(line)]
        histogram = [
            None if left is None or right is None else left - right for left, right in zip(line, smoothed, strict=True)
        ]
    return _floats(line), _floats(smoothed), _floats(histogram)


def returns(
    close: Values, adj_close: Values, dividend: Values, total_return: Sequence[bool] | np.ndarray
) -> np.ndarray:
    """close / (close before - dividend) - 1, where the dividend is known and below the close before; else of adj_close
    where both sessions have a delivered one; else close / close before - 1."""
    prices, _ = _integers([*close, *(0.0 if math.isnan(paid) else paid for paid in dividend)])
    prices, paid = prices[: len(close)], prices[len(close) :]
    adjusted, _ = _integers(adj_close)
    out = np.full(len(prices), np.nan)
    for at in range(1, len(prices)):
        now, before = prices[at], prices[at - 1]
        if math.isnan(dividend[at]) and total_return[at] and total_return[at - 1]:
            now, before = adjusted[at], adjusted[at - 1]
        elif paid[at] < before:
            before -= paid[at]
        out[at] = (now - before) / before
    return out


def side(left: float, right: float) -> int:
    """1 if left is greater, -1 if it is smaller, 0 if both are equal but for rounding."""
    return 0 if math.isclose(left, right, rel_tol=EQUAL_WITHIN) else (1 if left > right else -1)


def crosses(fast: Values, slow: Values) -> tuple[np.ndarray, np.ndarray]:
    """Where `fast` comes to lie above `slow`, and where below, since the value before; both must have both values."""
    golden, death = np.zeros(len(fast), dtype=bool), np.zeros(len(fast), dtype=bool)
    sides = [
        None if math.isnan(left) or math.isnan(right) else side(left, right)
        for left, right in zip(fast, slow, strict=True)
    ]
    for at in range(1, len(sides)):
        before, now = sides[at - 1], sides[at]
        if before is not None:
            golden[at] = now == 1 and before != 1
            death[at] = now == -1 and before != -1
    return golden, death


def signals(sma_20: Values, sma_50: Values, strength: Values) -> tuple[np.ndarray, np.ndarray]:
    """Buy: sma_20 above sma_50 and RSI under 30. Sell: sma_20 below sma_50 and RSI over 70."""
    buy, sell = np.zeros(len(sma_20), dtype=bool), np.zeros(len(sma_20), dtype=bool)
    for at, (left, right, force) in enumerate(zip(sma_20, sma_50, strength, strict=True)):
        if math.isnan(left) or math.isnan(right) or math.isnan(force):
            continue
        above = side(left, right)
        buy[at] = above == 1 and force < 30
        sell[at] = above == -1 and force > 70
    return buy, sell


def all_indicators(
    close: Values, adj_close: Values, volume: Values, dividend: Values, total_return: Sequence[bool] | np.ndarray
) -> dict[str, np.ndarray]:
    """Every feature by name, for one ticker's history in ascending order."""
    out = {f"sma_{window}": sma(close, window) for window in (20, 50, 200)}
    out |= {f"ema_{window}": ema(close, window) for window in (12, 26)}
    out["rsi_14"] = rsi(close, 14)
    out["macd"], out["macd_signal"], out["macd_hist"] = macd(close, 12, 26, 9)
    band = deviation(close, 20, freedom=0)
    out["bb_upper"], out["bb_mid"], out["bb_lower"] = out["sma_20"] + 2 * band, out["sma_20"], out["sma_20"] - 2 * band
    out |= {f"volume_sma_{window}": sma(volume, window) for window in (20, 50)}
    out["return_1d"] = returns(close, adj_close, dividend, total_return)
    out["volatility_20"] = deviation(out["return_1d"], 20, freedom=1)
    out["buy_signal"], out["sell_signal"] = signals(out["sma_20"], out["sma_50"], out["rsi_14"])
    out["golden_cross"], out["death_cross"] = crosses(out["sma_50"], out["sma_200"])
    return out


def _integers(values: Values) -> tuple[list[int | None], int]:
    """The values exactly, as integers of one unit: value = integer / unit. None for nan."""
    ratios = [None if math.isnan(value) else float(value).as_integer_ratio() for value in values]
    unit = max((ratio[1] for ratio in ratios if ratio), default=1)  # Denominators of floats are powers of two.
    return [ratio and ratio[0] * (unit // ratio[1]) for ratio in ratios], unit


def _windows(whole: Sequence[int | None], window: int) -> Iterator[tuple[int, int, int]]:
    """(last index, sum, sum of squares) of each full window without None. Sums of integers forget nothing."""
    total = squares = unknown = 0
    for at, value in enumerate(whole):
        for changed, sign in ((value, 1), (whole[at - window] if at >= window else 0, -1)):
            if changed is None:
                unknown += sign
            else:
                total += sign * changed
                squares += sign * changed**2
        if at >= window - 1 and not unknown:
            yield at, total, squares


def _ema(values: Sequence[Decimal], window: int, seed_at: int) -> Decimals:
    """y[seed_at] is the mean of the `window` values up to it; None before."""
    if len(values) <= seed_at:
        return [None] * len(values)
    with localcontext(DIGITS):
        alpha = Decimal(2) / (window + 1)
        average = sum(values[seed_at - window + 1 : seed_at + 1], Decimal(0)) / window
        out: Decimals = [*[None] * seed_at, average]
        for value in values[seed_at + 1 :]:
            average = alpha * value + (1 - alpha) * average
            out.append(average)
    return out


def _decimals(values: Values) -> list[Decimal]:
    return [Decimal(float(value)) for value in values]


def _floats(values: Decimals) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
