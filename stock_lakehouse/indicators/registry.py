"""The registry of indicators: one line a feature.

To add an indicator to the package, add a line to INDICATORS; its column, schema, docs and backfill follow from it. Not here:
formulas (kernel.py), indicators of a user's own file (own.py), frames, tickers, storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stock_lakehouse.indicators.kernel import (
    bollinger,
    cross,
    exponential_average,
    macd,
    moving_average,
    rsi,
    signal,
    simple_return,
    volatility,
)

if TYPE_CHECKING:
    from stock_lakehouse.indicators.kernel import Array, Columns

# Increase it when a function of kernel.py changes its result. Parameters and names are already part of the spec. A test compares
# a digest of the sample's values with the spec, so it fails if this is forgotten.
FORMULA_VERSION = 2


@dataclass(frozen=True)
class Indicator:
    """One column of features.

    - `warm_up`: the number of sessions at the start of a history without a value.
    - `inputs`: the columns that the function reads in addition to those that its parameters name.
    - `unit`: the unit of its values, for describe() and docs/tables.md.
    """

    name: str
    function: Callable[..., Array]
    parameters: Mapping[str, Any]
    warm_up: int
    description: str
    minimum: float | None = None
    maximum: float | None = None
    type: str = field(default="double")
    inputs: tuple[str, ...] = ()
    unit: str = ""

    @property
    def reads(self) -> frozenset[str]:
        """The columns of bars, and the indicators, that it is computed from."""
        named = (value for value in self.parameters.values() if isinstance(value, str))
        return frozenset((*named, *self.inputs))

    @property
    def spec(self) -> str:
        """Its part of `indicator_spec`: a text that changes with its name, function and parameters."""
        function = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{self.name}={function}({sorted(self.parameters.items())})"

    @property
    def is_windowed(self) -> bool:
        """Whether a value depends on no session more than `warm_up` before its own; of an unknown function, nobody knows."""
        return self.function in WINDOWED

    def values(self, columns: Columns) -> Array:
        """Its values over one ticker's history; `columns` has at least those that it reads."""
        return self.function(columns, **self.parameters)


# The functions whose values depend on a window of sessions alone; exponential averages, RSI and MACD depend on all earlier ones.
WINDOWED = (moving_average, bollinger, simple_return, volatility, signal, cross)

PRICE = "currency per share"
_MACD = {"source": "close", "fast": 12, "slow": 26, "signal": 9}
_BANDS = {"source": "close", "window": 20}

# The columns of bars that a function may read; `compute` says what each holds.
BARS = ("open", "high", "low", "close", "adj_close", "volume", "dividend", "total_return")
BAR_COLUMNS = {
    "total_return": "price_basis"
}  # the curated column that a column of bars is computed from, if the names differ

# In order of evaluation: a function may read the bars and every indicator that is listed before.
INDICATORS: tuple[Indicator, ...] = (
    Indicator(
        "sma_20", moving_average, {"source": "close", "window": 20}, 19, "Average close of 20 sessions", 0, unit=PRICE
    ),
    Indicator(
        "sma_50", moving_average, {"source": "close", "window": 50}, 49, "Average close of 50 sessions", 0, unit=PRICE
    ),
    Indicator(
        "sma_200",
        moving_average,
        {"source": "close", "window": 200},
        199,
        "Average close of 200 sessions",
        0,
        unit=PRICE,
    ),
    Indicator(
        "ema_12",
        exponential_average,
        {"source": "close", "window": 12},
        11,
        "Exponential average of 12 sessions",
        0,
        unit=PRICE,
    ),
    Indicator(
        "ema_26",
        exponential_average,
        {"source": "close", "window": 26},
        25,
        "Exponential average of 26 sessions",
        0,
        unit=PRICE,
    ),
    Indicator(
        "rsi_14",
        rsi,
        {"source": "close", "window": 14},
        14,
        "Wilder's relative strength index",
        0,
        100,
        unit="0 to 100",
    ),
    Indicator("macd", macd, {**_MACD, "part": 0}, 33, "MACD line of (12, 26, 9)", unit=PRICE),
    Indicator("macd_signal", macd, {**_MACD, "part": 1}, 33, "MACD signal line", unit=PRICE),
    Indicator("macd_hist", macd, {**_MACD, "part": 2}, 33, "MACD histogram: line minus signal line", unit=PRICE),
    Indicator(
        "bb_upper",
        bollinger,
        {**_BANDS, "deviations": 2.0},
        19,
        "Upper Bollinger band, 20 sessions, 2 deviations",
        unit=PRICE,
    ),
    Indicator(
        "bb_mid", bollinger, {**_BANDS, "deviations": 0.0}, 19, "Middle Bollinger band: the average", 0, unit=PRICE
    ),
    Indicator("bb_lower", bollinger, {**_BANDS, "deviations": -2.0}, 19, "Lower Bollinger band", unit=PRICE),
    Indicator(
        "volume_sma_20",
        moving_average,
        {"source": "volume", "window": 20},
        19,
        "Average volume of 20 sessions",
        0,
        unit="shares",
    ),
    Indicator(
        "volume_sma_50",
        moving_average,
        {"source": "volume", "window": 50},
        49,
        "Average volume of 50 sessions",
        0,
        unit="shares",
    ),
    Indicator(
        "return_1d",
        simple_return,
        {},
        1,
        "Total return since the session before, 0.01 is 1 %: of close, with the dividend of the bar itself; where no dividend is "
        "known, of the delivered adj_close, or of close alone",
        inputs=("close", "adj_close", "dividend", "total_return"),
        unit="fraction",
    ),
    Indicator(
        "volatility_20",
        volatility,
        {"window": 20},
        20,
        "Sample deviation of return_1d over 20 sessions",
        0,
        inputs=("return_1d",),
        unit="fraction",
    ),
    Indicator(
        "buy_signal",
        signal,
        {"above": "sma_20", "below": "sma_50", "rsi_under": 30.0},
        49,
        "sma_20 > sma_50 and rsi_14 < 30",
        type="boolean",
        inputs=("rsi_14",),
    ),
    Indicator(
        "sell_signal",
        signal,
        {"above": "sma_50", "below": "sma_20", "rsi_over": 70.0},
        49,
        "sma_20 < sma_50 and rsi_14 > 70",
        type="boolean",
        inputs=("rsi_14",),
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
    lines = [indicator.spec for indicator in indicators]
    return f"{FORMULA_VERSION}-{hashlib.sha256(repr(lines).encode()).hexdigest()[:8]}"


def compute(
    bars: Mapping[str, Array], indicators: tuple[Indicator, ...] = INDICATORS, start: int = 0
) -> dict[str, Array]:
    """Every indicator over one ticker's whole history.

    `bars` has one value a session, in ascending order, in each of these columns:

    - open, high, low: float64; NaN where unknown. Needed only for indicators that read them.
    - close, adj_close, volume: float64.
    - dividend: float64; NaN where the delivery does not say it.
    - total_return: bool; True where adj_close is a delivered one.

    Returns one array an indicator, of the sessions from the place `start` on: float64 with NaN in the warm-up, or bool. What
    depends on a window alone is computed only for these sessions, with the same values to the last bit.
    """
    whole: set[str] = set()  # of the whole history: what is not windowed, and what that reads
    for indicator in reversed(indicators):
        if start == 0 or not indicator.is_windowed or indicator.name in whole:
            whole |= {indicator.name, *indicator.reads}
    columns: dict[str, Array] = dict(bars)
    for indicator in indicators:
        if indicator.name in whole:
            columns[indicator.name] = indicator.values(columns)
    if windowed := [indicator for indicator in indicators if indicator.name not in whole]:
        first = max(start - max(indicator.warm_up for indicator in windowed), 0)
        start -= first
        columns = {name: values[first:] for name, values in columns.items()}
        for indicator in windowed:
            columns[indicator.name] = indicator.values(columns)
    return {indicator.name: columns[indicator.name][start:] for indicator in indicators}


def readers_of(column: str, indicators: tuple[Indicator, ...] = INDICATORS) -> tuple[str, ...]:
    """The names of the indicators that read the bars' `column`, directly or through others."""
    found: dict[str, None] = {}
    for indicator in indicators:  # in order of evaluation
        if any(name == column or name in found for name in indicator.reads):
            found[indicator.name] = None
    return tuple(found)
