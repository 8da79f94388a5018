"""The charts of a ticker, as data: panes, their series, horizontal lines and marks.

Here: what is drawn. Not here: drawing it (page/app.js), and reading the values (answers.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Series:
    """One curve of a pane.

    - columns: the columns with its values: one, or open, high, low and close for candles
    - kind: how it is drawn; the bars of "signed_bars" have the colour `up` above zero and `down` below, those of "session_bars"
      have `up` where the session closed at its open or above, else `down`
    - color: the name of a colour of page/style.css, which has a value for a light and for a dark screen
    """

    columns: tuple[str, ...]
    kind: Literal["candles", "line", "dashed", "session_bars", "signed_bars"]
    label: str
    color: str


@dataclass(frozen=True)
class Mark:
    """A sign at the sessions where `column` has another value than `absent`; at the first of consecutive equal values.

    - text: drawn beside it; {} stands for the value
    - label: its name in the legend
    """

    column: str
    absent: float
    text: str
    label: str
    position: Literal["aboveBar", "belowBar"]
    shape: Literal["arrowUp", "arrowDown", "circle", "square"]
    color: str


@dataclass(frozen=True)
class Pane:
    """One of the charts that stand one below the other on the same axis of time.

    - share: its part of the height
    - unit: how its values are written
    - lines: values of horizontal lines, which are always in sight
    - marks: at the first series
    """

    name: str
    title: str
    share: int
    unit: Literal["price", "shares", "percent"]
    series: tuple[Series, ...]
    lines: tuple[float, ...] = ()
    marks: tuple[Mark, ...] = ()


def _line(column: str, label: str, color: str, kind: Literal["line", "dashed"] = "line") -> Series:
    return Series((column,), kind, label, color)


PANES = (
    Pane(
        "price",
        "Price",
        56,
        "price",
        (
            Series(("open", "high", "low", "close"), "candles", "Price", "up"),
            _line("sma_20", "SMA 20", "blue"),  # also the middle of the bands
            _line("sma_50", "SMA 50", "orange"),
            _line("sma_200", "SMA 200", "purple"),
            _line("bb_upper", "BB upper", "grey", "dashed"),
            _line("bb_lower", "BB lower", "grey", "dashed"),
        ),
        marks=(
            Mark("golden_cross", False, "G", "Golden cross", "belowBar", "arrowUp", "up"),
            Mark("death_cross", False, "D", "Death cross", "aboveBar", "arrowDown", "down"),
            Mark("buy_signal", False, "B", "Buy signal", "belowBar", "arrowUp", "up"),
            Mark("sell_signal", False, "S", "Sell signal", "aboveBar", "arrowDown", "down"),
            Mark("split_ratio", 1, "{}:1", "Split", "aboveBar", "square", "purple"),
            Mark("dividend", 0, "", "Dividend", "belowBar", "circle", "orange"),
        ),
    ),
    Pane(
        "volume",
        "Volume",
        12,
        "shares",
        (
            Series(("volume",), "session_bars", "Shares", "grey"),
            _line("volume_sma_20", "Average 20", "blue"),
            _line("volume_sma_50", "Average 50", "orange"),
        ),
    ),
    Pane("rsi", "RSI 14", 16, "percent", (_line("rsi_14", "RSI", "purple"),), lines=(30, 70)),
    Pane(
        "macd",
        "MACD 12, 26, 9",
        16,
        "price",
        (
            Series(("macd_hist",), "signed_bars", "Histogram", "up"),
            _line("macd", "MACD", "blue"),
            _line("macd_signal", "Signal", "orange"),
        ),
        lines=(0,),
    ),
)
# What the legend of a session says besides the values that are drawn, and the factor of prices as traded.
LEGEND_COLUMNS = ("return_1d", "tradable_from", "bar_status", "split_factor")
COLUMNS = tuple(
    dict.fromkeys(
        [
            *(column for pane in PANES for series in pane.series for column in series.columns),
            *(mark.column for pane in PANES for mark in pane.marks),
            *LEGEND_COLUMNS,
        ]
    )
)
SIGNALS = {mark.column: mark.label for pane in PANES for mark in pane.marks if mark.absent is False}
