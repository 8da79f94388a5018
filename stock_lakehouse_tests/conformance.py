"""`python -m stock_lakehouse_tests.conformance`: writes docs/conformance.md, the certificate of the indicators.

Here: what is measured, how, and the document. Not here: the histories (histories.py) and the right values
(transforms/reference.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import talib

from stock_lakehouse.indicators.kernel import EQUAL_WITHIN
from stock_lakehouse.indicators.registry import INDICATORS, Indicator, compute, indicator_spec
from stock_lakehouse_tests import histories
from stock_lakehouse_tests.histories import FAMILIES, Bars
from stock_lakehouse_tests.transforms import reference

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "conformance.md"
# A power of ten that leaves a factor of two: another processor adds in another order, and must give the same document.
SPARE = 2
SMALLEST = -13
# Within this of 30 or 70 an RSI counts as equal to the bound: like the averages, it has no digits to tell them apart.
RSI_WITHIN = 1e-9

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Formula:
    """What a function of indicators/kernel.py computes; `definition` is filled in with an indicator's parameters."""

    definition: str
    source: str
    talib: str


_MACD_PARTS = (
    "EMA(`{source}`, {fast}) - EMA(`{source}`, {slow}), both seeded at bar {slow}: means of its last {fast} and {slow} bars",
    "EMA({signal}) of `macd`, seeded with the mean of its first {signal} values",
    "`macd` - `macd_signal`",
)
_FORMULAS = {
    "moving_average": Formula(
        "mean of `{source}` over the last {window} sessions; none where one of them is unknown",
        "arithmetic mean; TA-Lib `SMA`",
        "`SMA`, apart for each stretch of known values",
    ),
    "exponential_average": Formula(
        "y = a · `{source}` + (1 - a) · y before, a = 2 / ({window} + 1), seeded with the mean of the first {window}",
        "exponential smoothing (R. G. Brown, 1959) with Appel's a; seed of TA-Lib `EMA`",
        "`EMA`: the product calls it",
    ),
    "rsi": Formula(
        "100 · G / (G + L); G and L are averages of rises and falls of `{source}`, seeded with the mean of the first "
        "{window}, then (before · ({window} - 1) + new) / {window}; 0 if nothing moved",
        "J. W. Wilder, New Concepts in Technical Trading Systems, 1978; TA-Lib `RSI`",
        "`RSI`: the product calls it",
    ),
    "macd": Formula(
        "",
        "G. Appel, The Moving Average Convergence-Divergence Trading Method, 1979; seeds of TA-Lib `MACD`",
        "`MACD`: the product calls it",
    ),
    "bollinger": Formula(
        "mean of `{source}` over {window} sessions + {deviations:g} × their population deviation (divisor {window})",
        "J. Bollinger, Bollinger on Bollinger Bands, 2001; TA-Lib `BBANDS`",
        "`BBANDS`",
    ),
    "simple_return": Formula(
        "`close` / (`close` before - `dividend`) - 1 where the dividend is known (one not below `close` before counts as "
        "0); else `adj_close` / `adj_close` before - 1 where both are delivered; else `close` / `close` before - 1",
        "total return as an adjusted close gives it whose factor on an ex-date is 1 - dividend / close before (Yahoo; CRSP's "
        "factor to adjust prices)",
        "`ROCP` of each pair of prices",
    ),
    "volatility": Formula(
        "sample deviation (divisor {window} - 1) of `return_1d` over {window} sessions; not annualised",
        "sample standard deviation; TA-Lib `STDDEV` has the population's",
        "`STDDEV` × √({window} / ({window} - 1))",
    ),
    "signal": Formula(
        "`{above}` > `{below}` and `rsi_14` {bound}",
        "rule of this project",
        "`SMA` and `RSI`, compared with > and <",
    ),
    "cross": Formula(
        "`{above}` > `{below}`, and ≤ in the session before, which must have both",
        "common usage; rule of this project",
        "`SMA`, compared with > and ≤",
    ),
}


def formula_of(indicator: Indicator) -> Formula:
    """Definition, source and counterpart in TA-Lib of an indicator, in words."""
    parameters = dict(indicator.parameters)
    formula = _FORMULAS.get(indicator.function.__name__)
    if formula is None:
        raise KeyError(f"say what {indicator.function.__name__} computes: in _FORMULAS of {__file__}")
    if "part" in parameters:
        formula = Formula(_MACD_PARTS[parameters["part"]], formula.source, formula.talib)
    under, over = parameters.get("rsi_under"), parameters.get("rsi_over")
    parameters["bound"] = f"< {under:g}" if under is not None else f"> {over:g}" if over is not None else ""
    return Formula(formula.definition.format(**parameters), formula.source, formula.talib.format(**parameters))


# What errors of values that may cancel are measured against, besides the value itself.
_SCALES: dict[str, tuple[str, Callable[[Values], np.ndarray | float]]] = {
    "macd": ("`ema_26`", lambda right: right["ema_26"]),
    "bollinger": ("`bb_mid`", lambda right: right["bb_mid"]),
    "simple_return": ("1", lambda right: 1.0),
    "volatility": ("1", lambda right: 1.0),
}


def talib_indicators(bars: Bars) -> Values:
    """Every indicator by TA-Lib and plain comparisons; nothing of the product is used."""
    close = bars["close"]
    out = {f"sma_{window}": talib.SMA(close, window) for window in (20, 50, 200)}
    out |= {f"ema_{window}": talib.EMA(close, window) for window in (12, 26)}
    out["rsi_14"] = talib.RSI(close, 14)
    out["macd"], out["macd_signal"], out["macd_hist"] = talib.MACD(close, 12, 26, 9)
    out["bb_upper"], out["bb_mid"], out["bb_lower"] = talib.BBANDS(close, 20, 2.0, 2.0)
    out |= {f"volume_sma_{window}": _sma_of_stretches(bars["volume"], window) for window in (20, 50)}
    out["return_1d"] = _returns(bars)
    out["volatility_20"] = talib.STDDEV(out["return_1d"], 20, 1.0) * math.sqrt(20 / 19)
    with np.errstate(invalid="ignore"):
        rise, fall = out["sma_20"] > out["sma_50"], out["sma_20"] < out["sma_50"]
        out["buy_signal"], out["sell_signal"] = rise & (out["rsi_14"] < 30), fall & (out["rsi_14"] > 70)
        above, below = out["sma_50"] > out["sma_200"], out["sma_50"] < out["sma_200"]
    both = ~np.isnan(out["sma_50"]) & ~np.isnan(out["sma_200"])
    for name, now in (("golden_cross", above), ("death_cross", below)):
        out[name] = np.zeros(len(close), dtype=bool)
        out[name][1:] = now[1:] & ~now[:-1] & both[:-1]
    return out


def _sma_of_stretches(values: np.ndarray, window: int) -> np.ndarray:
    """TA-Lib's running sum never forgets a nan, so it gets each stretch without one by itself."""
    out = np.full(len(values), np.nan)
    borders = np.flatnonzero(np.diff(np.isnan(values), prepend=True, append=True)).tolist()
    for start, end in zip(borders[::2], borders[1::2], strict=True):
        out[start:end] = talib.SMA(values[start:end], window)
    return out


def _returns(bars: Bars) -> np.ndarray:
    """ROCP over the pairs (close before less the dividend, close) laid end to end."""
    pairs = []
    columns = [bars[name].tolist() for name in ("close", "adj_close", "dividend", "total_return")]
    rows = list(zip(*columns, strict=True))
    for (before, adjusted_before, _, delivered_before), (now, adjusted, dividend, delivered) in pairwise(rows):
        if math.isnan(dividend) and delivered and delivered_before:
            pairs += [adjusted_before, adjusted]
        else:
            pairs += [before - dividend if dividend < before else before, now]
    return np.array([math.nan, *(talib.ROCP(np.array(pairs), 1)[1::2] if pairs else [])])


@dataclass(frozen=True)
class Case:
    """A history of a family, with its right values and TA-Lib's."""

    family: str
    bars: Bars

    @cached_property
    def right(self) -> Values:
        return reference.all_indicators(**self.bars)

    @cached_property
    def library(self) -> Values:
        return talib_indicators(self.bars)


@dataclass
class Tally:
    """Of an indicator, two implementations and some histories:

    - `values`: values compared, rows that both leave empty not among them
    - `nulls`: rows where one of the two has a value and the other has none, and values before the end of the warm-up
    - `error`: the largest error of a number
    - `true`, `ties`: of a boolean the rows that should be true, and those that are ties, see `_ties`
    - `disagreements`, `in_ties`: of a boolean the rows that differ, outside ties and in ties
    """

    values: int = 0
    nulls: int = 0
    error: float = 0.0
    true: int = 0
    ties: int = 0
    disagreements: int = 0
    in_ties: int = 0

    def add(self, other: Tally) -> None:
        self.values += other.values
        self.nulls += other.nulls
        self.error = max(self.error, other.error)
        self.true += other.true
        self.ties += other.ties
        self.disagreements += other.disagreements
        self.in_ties += other.in_ties


# Who is held against whom.
MINE, TALIB, TALIBS_OWN = "product and reference", "product and TA-Lib", "TA-Lib and reference"
Tallies = dict[tuple[str, str, str], Tally]


def measure(cases: Iterable[Case], indicators: tuple[Indicator, ...] = INDICATORS) -> Tallies:
    """A tally for each (family, indicator, pair)."""
    out: Tallies = {}
    for case in cases:
        found, right, library = compute(case.bars, indicators), case.right, case.library
        missing = sorted({one.name for one in indicators} ^ right.keys() | right.keys() ^ library.keys())
        if missing:
            raise KeyError(f"transforms/reference.py and talib_indicators must have every indicator: {missing}")
        for one in indicators:
            name = one.name
            for pair, left, other in ((MINE, found, right), (TALIB, found, library), (TALIBS_OWN, library, right)):
                compare = _compare_booleans if one.type == "boolean" else _compare_numbers
                out.setdefault((case.family, name, pair), Tally()).add(compare(one, left[name], other[name], right))
    return out


def _compare_numbers(indicator: Indicator, left: np.ndarray, right: np.ndarray, exact: Values) -> Tally:
    _, scale = _SCALES.get(indicator.function.__name__, ("", lambda _: 0.0))
    early = ~np.isnan(left[: indicator.warm_up])
    both = ~np.isnan(left) & ~np.isnan(right)
    wrong = np.abs(left - right)[both]
    against = np.maximum(np.abs(exact[indicator.name]), np.abs(scale(exact)))[both]
    errors = np.divide(wrong, against, out=np.where(wrong > 0, np.inf, 0.0), where=against > 0)
    return Tally(
        values=int(both.sum()),
        nulls=int((np.isnan(left) != np.isnan(right)).sum() + early.sum()),
        error=float(errors.max(initial=0.0)),
    )


def _compare_booleans(indicator: Indicator, left: np.ndarray, right: np.ndarray, exact: Values) -> Tally:
    ties, differ = _ties(indicator, exact), left != right
    return Tally(
        values=len(left),
        nulls=int(left[: indicator.warm_up].sum()),
        true=int(exact[indicator.name].sum()),
        ties=int(ties.sum()),
        disagreements=int((differ & ~ties).sum()),
        in_ties=int((differ & ties).sum()),
    )


def _ties(indicator: Indicator, exact: Values) -> np.ndarray:
    """Rows that plain comparisons decide by the rounding of an average or of the RSI."""
    above, below = exact[indicator.parameters["above"]], exact[indicator.parameters["below"]]
    equal = np.abs(above - below) <= EQUAL_WITHIN * np.abs(below)
    if indicator.function.__name__ == "cross":
        equal[1:] |= equal[:-1]
        return equal
    for bound in ("rsi_under", "rsi_over"):
        if bound in indicator.parameters:
            equal |= np.abs(exact["rsi_14"] - indicator.parameters[bound]) <= RSI_WITHIN
    return equal


def at_most(error: float) -> str:
    """The error rounded up to a power of ten, with SPARE to it."""
    if error in (0.0, math.inf):
        return "∞" if error else "0"
    power = SMALLEST
    while float(f"1e{power}") < SPARE * error:
        power += 1
    return f"≤ 1e{power}"


def short(value: float) -> str:
    """One significant digit, like 4e6."""
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}"


def whole() -> list[Case]:
    """Every history of the certificate: the sample's and the generated ones."""
    sample = [Case("sample", bars) for bars in histories.sample().values()]
    return [*sample, *(Case(family, bars) for family, bars in histories.generated())]


@dataclass(frozen=True)
class Certificate:
    """The document: `text()`. `tallies` are what was measured on the cases."""

    cases: Sequence[Case]
    tallies: Tallies
    indicators: tuple[Indicator, ...] = INDICATORS

    @classmethod
    def of(cls, cases: Sequence[Case], indicators: tuple[Indicator, ...] = INDICATORS) -> Certificate:
        return cls(cases, measure(cases, indicators), indicators)

    def total(self, pair: str, indicators: Iterable[Indicator], family: str | None = None) -> Tally:
        """Of all these indicators, and of one family or all."""
        names, out = {one.name for one in indicators}, Tally()
        for (found_in, name, measured), tally in self.tallies.items():
            if measured == pair and name in names and family in (None, found_in):
                out.add(tally)
        return out

    def nulls(self, indicators: Iterable[Indicator]) -> int:
        among = list(indicators)
        return self.total(MINE, among).nulls + self.total(TALIB, among).nulls

    @property
    def numbers(self) -> list[Indicator]:
        return [one for one in self.indicators if one.type != "boolean"]

    @property
    def booleans(self) -> list[Indicator]:
        return [one for one in self.indicators if one.type == "boolean"]

    def text(self) -> str:
        parts = (
            "# Conformance of the indicators",
            "Written by `make conformance`; do not edit. A test makes this text again and fails if it differs.",
            f"Formulas: **`indicator_spec` {indicator_spec(self.indicators)}**, as in every row of `stocks_features`.",
            self._summary(),
            "## Definitions",
            self._definitions(),
            _WARM_UP,
            "## Numbers",
            self._numbers(),
            _ERROR,
            "## Booleans",
            self._booleans(),
            _BOUNDARY,
            "## Where TA-Lib is off",
            _BY_KIND,
            self._families(),
            _RUNNING_SUMS,
        )
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def _summary(self) -> str:
        numbers, booleans = self.total(MINE, self.numbers), self.total(MINE, self.booleans)
        generated = [case for case in self.cases if case.family != "sample"]
        prices = [case.bars["close"] for case in self.cases]
        rows = [
            ("histories", f"{len(self.cases) - len(generated)} of the sample, {len(generated)} generated"),
            ("bars", f"{sum(map(len, prices)):,}"),
            ("closes", f"from {short(min(map(np.min, prices)))} to {short(max(map(np.max, prices)))}"),
            ("numbers compared with the independent implementation", f"{numbers.values:,}"),
            ("largest error of any of them", f"**{at_most(numbers.error)}**"),
            ("booleans compared with it", f"{booleans.values:,}, of which true {booleans.true:,}"),
            ("booleans that differ, ties included", f"**{booleans.disagreements + booleans.in_ties:,}**"),
            (
                "rows where one has a value and the other none, or with a value in the warm-up",
                f"**{self.nulls(self.indicators):,}**",
            ),
        ]
        return _table(("what", "result"), rows)

    def _definitions(self) -> str:
        rows = []
        for one in self.indicators:
            parameters = ", ".join(f"{name} {value}" for name, value in one.parameters.items()) or "none"
            formula = formula_of(one)
            rows.append((f"`{one.name}`", formula.definition, parameters, one.warm_up, formula.source))
        return _table(("indicator", "definition", "parameters", "warm-up", "source"), rows)

    def _numbers(self) -> str:
        rows = []
        for one in self.numbers:
            errors = [at_most(self.total(pair, [one]).error) for pair in (MINE, TALIB, TALIBS_OWN)]
            scale = _SCALES.get(one.function.__name__)
            against = f"the value or {scale[0]}" if scale else "the value"
            values = f"{self.total(MINE, [one]).values:,}"
            rows.append((f"`{one.name}`", values, self.nulls([one]), *errors, against, formula_of(one).talib))
        head = (
            "indicator",
            "values",
            "empty in one only",
            "error against the independent",
            "error against TA-Lib",
            "TA-Lib's error against the independent",
            "relative to",
            "TA-Lib's function",
        )
        return _table(head, rows)

    def _booleans(self) -> str:
        rows = []
        for one in self.booleans:
            mine, library = self.total(MINE, [one]), self.total(TALIB, [one])
            counts = (mine.values, mine.true, mine.ties, mine.disagreements + mine.in_ties)
            texts = [f"{count:,}" for count in (*counts, library.disagreements, library.in_ties)]
            rows.append((f"`{one.name}`", *texts, formula_of(one).talib))
        head = (
            "indicator",
            "rows",
            "true",
            "ties",
            "other than the independent, ties included",
            "other than TA-Lib, outside ties",
            "other than TA-Lib, in ties",
            "TA-Lib's functions",
        )
        return _table(head, rows)

    def _families(self) -> str:
        kinds = {
            "sample": "the six tickers of the sample, 2013 to 2023",
            "short": f"{histories.EDGES[0]} to {histories.EDGES[-1]} bars: around the length of every warm-up",
        } | {one.name: one.description for one in FAMILIES}
        groups = [
            [one for one in self.numbers if (one.function.__name__, one.parameters.get("source", "")) == key]
            for key in (
                ("moving_average", "close"),
                ("bollinger", "close"),
                ("moving_average", "volume"),
                ("volatility", ""),
            )
        ]
        rows = []
        for name, description in kinds.items():
            lengths = [len(case.bars["close"]) for case in self.cases if case.family == name]
            errors = [self.total(MINE, self.numbers, name), *(self.total(TALIBS_OWN, group, name) for group in groups)]
            rows.append((name, description, len(lengths), f"{sum(lengths):,}", *(at_most(one.error) for one in errors)))
        head = (
            "histories",
            "what",
            "number",
            "bars",
            "product, any number",
            "TA-Lib: averages of closes",
            "TA-Lib: bands",
            "TA-Lib: averages of volumes",
            "TA-Lib: volatility",
        )
        return _table(head, rows)


_WARM_UP = "The warm-up is how many sessions at the start of a history have no value; a boolean is false there."

_ERROR = f"""
The **error** of a value is |found - right| / the larger of |right| and the scale in the column "relative to", at the
same bar. Averages and RSI are made of sums of positive numbers, so their errors are relative to the value alone; where the
right value is 0, anything but 0 is an error of ∞. Differences can cancel: of MACD, its signal line and histogram the scale is
`ema_26`, of the bands their middle; of returns and volatility it is 1, the price before. All scales are of the same bar, so
a large price that has left the windows hides nothing. The table has the largest error of all values, no mean and no
quantile, rounded up to a power of ten that leaves a factor of two; what is below 1e{SMALLEST} counts as that, since processors
add in different orders.

- **Independent**: [reference.py](../stock_lakehouse_tests/transforms/reference.py), plain loops in exact integers and in
  decimals of 40 digits, each value rounded once. It uses nothing of the product and nothing of TA-Lib.
- **TA-Lib**: the product calls it for EMA, RSI and MACD, so an error of 0 there says only that; the independent
  implementation is their test. TA-Lib knows no dividends and no unknown volumes: it is given the price before less the
  dividend, and each stretch of known volumes by itself.
"""

_BOUNDARY = f"""
**The boundary rule**: two averages whose difference is within {short(EQUAL_WITHIN)} of the second are equal (`EQUAL_WITHIN`).
Averages of 20 and of 50 equal prices may round differently, and plain comparisons make crosses and signals out of that.
The independent implementation has the same rule, on averages that are rounded once, and must agree in every row. TA-Lib's
averages are compared with > and <. Ties are rows where the averages are equal by the rule or the RSI is within
{short(RSI_WITHIN)} of its bound, and for a cross also the row after: there TA-Lib's side is an accident of rounding.
"""

_BY_KIND = """
The largest errors by kind of history: the product's of all numbers, and TA-Lib's own, both against the independent
implementation.
"""

_RUNNING_SUMS = """
TA-Lib adds the new price to a running sum and subtracts the oldest, so the rounding of large prices stays in the sum when
they have left the window: after a fall from 1e6 to 1e-2 its averages, and the bands about them, are off by 1e-7 for the rest
of the history, and where all volumes of a window are 0 after large ones, its average is not (∞). Split-adjusted histories
fall like that. So the product has averages of its own (`window_sums`), and deviations in two passes (`rolling_deviation`), in
[kernel.py](../stock_lakehouse/indicators/kernel.py): both are of each window alone.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def main() -> None:
    DOCUMENT.write_text(Certificate.of(whole()).text(), encoding="utf-8")


if __name__ == "__main__":
    main()
