"""Every indicator of the registry against an independent implementation, and the promises that signals keep."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_lakehouse.indicators import kernel, registry
from stock_lakehouse.indicators.registry import INDICATORS, compute, indicator_spec
from stock_lakehouse_tests import histories
from stock_lakehouse_tests.histories import TICKERS, Bars, bars
from stock_lakehouse_tests.transforms import reference

BY_NAME = {one.name: one for one in INDICATORS}
ACCURACY = 1e-9
# A difference of two averages that nearly cancel has no relative accuracy of its own: below this share of what was
# subtracted its error is measured against that share.
CANCELLED = 1e-5
WINDOW_EDGES = (0, 1, 2, 11, 12, 13, 14, 15, 19, 20, 21, 25, 26, 27, 33, 34, 35, 49, 50, 51, 199, 200, 201, 260)


def walk(seed: int, length: int, start: float = 100.0, step: float = 0.02) -> np.ndarray:
    return start * np.exp(np.random.default_rng(seed).normal(0, step, length).cumsum())


@pytest.fixture(scope="module")
def sample() -> dict[str, Bars]:
    return histories.sample()


def scales(expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was subtracted to get a value, where values may cancel."""
    size = np.abs(expected["return_1d"])
    largest = np.full(len(size), np.nan)
    for end in range(20, len(size)):
        largest[end] = size[end - 19 : end + 1].max()
    slow = expected["ema_26"]
    one = np.ones(len(size))  # a return is a ratio of prices less 1
    return {"bb_lower": expected["sma_20"], "volatility_20": largest, "return_1d": one} | dict.fromkeys(
        ("macd", "macd_signal", "macd_hist"), slow
    )


def errors_of(history: Bars) -> dict[str, float]:
    """The largest relative error of each indicator; of a boolean how many rows differ. Nulls must agree exactly."""
    found = compute(history)
    expected = reference.all_indicators(
        *(history[name] for name in ("close", "adj_close", "volume", "dividend", "total_return"))
    )
    assert found.keys() == expected.keys(), "reference.py must know every indicator of the registry"
    scale = scales(expected)
    errors = {}
    for name, values in found.items():
        right = expected[name]
        assert len(values) == len(right), name
        if BY_NAME[name].type == "boolean":
            assert values.dtype == bool
            errors[name] = float((values != right).sum())
            continue
        assert np.array_equal(np.isnan(values), np.isnan(right)), f"{name} is null where it should not be, or not null"
        measure = np.maximum(np.abs(right), CANCELLED * np.abs(scale.get(name, right)))
        wrong = np.abs(values - right)
        relative = np.divide(wrong, measure, out=np.where(wrong > 0, np.inf, 0.0), where=measure > 0)
        errors[name] = float(np.nanmax(relative, initial=0.0))
    return errors


def assert_accurate(history: Bars) -> None:
    beyond = {name: error for name, error in errors_of(history).items() if error > ACCURACY}
    assert not beyond, f"relative errors beyond {ACCURACY}: {beyond}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A generated history: walks, trends, flat stretches, gaps either way, days without trade or off the basis."""

    seed: int
    start: float
    parts: list[tuple[str, int]]
    in_cents: bool  # prices as exchanges quote them: many equal neighbours
    without_trade: float
    off_basis: float

    def bars(self) -> Bars:
        random = np.random.default_rng(self.seed)
        level, parts = self.start, [np.empty(0)]
        for kind, length in self.parts:
            if kind == "gap":
                level *= random.choice([0.05, 0.25, 0.5, 2.0, 4.0, 20.0])
            drift = random.choice([-0.01, 0.01]) if kind == "trend" else 0.0
            step = 0.0 if kind == "flat" else random.choice([1e-4, 0.02, 0.1])
            parts.append(level * np.exp(random.normal(drift if step else 0.0, step, length).cumsum()))
            level = parts[-1][-1] if length else level
        close = np.concatenate(parts)
        if self.in_cents:
            close = np.maximum(np.round(close, 2), 0.01)
        volume = np.where(random.random(len(close)) < self.without_trade, 0, random.integers(1, 10**10, len(close)))
        on_basis = random.random(len(close)) >= self.off_basis
        adjusted = np.where(on_basis, close * np.linspace(0.7, 1.0, len(close)), close)
        return bars(close, adjusted, volume, on_basis)


recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    start=st.sampled_from([0.01, 1.0, 100.0, 1e5]),
    parts=st.lists(
        st.tuples(
            st.sampled_from(["walk", "flat", "gap", "trend"]),
            st.one_of(st.sampled_from(WINDOW_EDGES), st.integers(0, 150)),
        ),
        max_size=4,
    ),
    in_cents=st.booleans(),
    without_trade=st.sampled_from([0.0, 0.3, 1.0]),
    off_basis=st.sampled_from([0.0, 0.05]),
)


@pytest.mark.parametrize("ticker", TICKERS)
def test_every_indicator_of_the_sample_agrees_with_the_reference(sample: dict[str, Bars], ticker: str) -> None:
    assert len(sample[ticker]["close"]) == 2699
    assert_accurate(sample[ticker])


@settings(max_examples=80, deadline=None)
@given(recipes)
def test_every_indicator_of_any_history_agrees_with_the_reference(recipe: Recipe) -> None:
    assert_accurate(recipe.bars())


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=3000, deadline=None)
@given(recipes)
def test_every_indicator_of_very_many_histories_agrees_with_the_reference(recipe: Recipe) -> None:
    assert_accurate(recipe.bars())


@pytest.mark.parametrize(
    "close",
    [
        pytest.param(np.concatenate([walk(1, 300, 1e6), walk(2, 900, 1e-2)]), id="a fall from 1e6 to 1e-2"),
        pytest.param(np.concatenate([np.full(300, 1e6), np.full(300, 1e-2)]), id="the same fall, flat on both sides"),
        pytest.param(
            2e10 * np.exp(np.random.default_rng(5).normal(-0.0055, 0.05, 3500).cumsum()), id="split-adjusted decay"
        ),
        pytest.param(np.concatenate([walk(3, 300, 2000), walk(4, 300, 100)]), id="a 20:1 split that was not applied"),
        pytest.param(np.concatenate([walk(6, 400), np.full(1500, 77.77)]), id="a long flat stretch after moves"),
        pytest.param(np.tile([0.01, 1e6], 250), id="from one end to the other every day"),
        pytest.param(walk(7, 400, 1e-6), id="prices of a millionth"),
        pytest.param(100 * 1.01 ** np.arange(300), id="the same return every day"),
    ],
)
def test_extreme_histories_stay_accurate(close: np.ndarray) -> None:
    assert_accurate(bars(close))


@pytest.mark.parametrize("length", WINDOW_EDGES)
def test_a_value_is_null_exactly_in_the_warm_up(length: int) -> None:
    found = compute(bars(walk(length, length)))
    for one in INDICATORS:
        values = found[one.name]
        assert len(values) == length
        if one.type == "boolean":
            assert not values[: one.warm_up].any(), one.name
        else:
            assert np.isnan(values).tolist() == [at < one.warm_up for at in range(length)], one.name


def test_zero_volume_averages_to_zero() -> None:
    found = compute(bars(walk(1, 60), volume=np.zeros(60)))
    assert found["volume_sma_20"][19:].tolist() == [0.0] * 41
    assert found["volume_sma_50"][49:].tolist() == [0.0] * 11


@pytest.mark.parametrize(("name", "window"), [("volume_sma_20", 20), ("volume_sma_50", 50)])
@pytest.mark.parametrize("unknown", [[0], [40], [40, 41, 42, 75], list(range(30, 110)), list(range(200))])
def test_an_unknown_volume_empties_the_averages_it_is_in_and_changes_no_other(
    name: str, window: int, unknown: list[int]
) -> None:
    complete = np.random.default_rng(3).integers(0, 10**10, 200).astype(np.float64)
    complete[60:70] = 0.0
    partial = complete.copy()
    partial[unknown] = np.nan
    close = walk(1, 200)
    before, found = compute(bars(close, volume=complete)), compute(bars(close, volume=partial))
    touched = {at for first in unknown for at in range(first, first + window)}
    for at, (value, right) in enumerate(zip(found[name], before[name], strict=True)):
        if at in touched:
            assert np.isnan(value), at
        else:
            assert value == right or at < window - 1, at
    others = [one.name for one in INDICATORS if not one.name.startswith("volume_")]
    assert all(np.array_equal(found[other], before[other], equal_nan=before[other].dtype != bool) for other in others)


def test_rsi_is_100_after_rises_only_and_0_when_nothing_moved() -> None:
    assert compute(bars(np.arange(1.0, 40.0)))["rsi_14"][14:].tolist() == [100.0] * 25
    assert compute(bars(np.full(40, 5.0)))["rsi_14"][14:].tolist() == [0.0] * 26


def test_a_flat_price_has_bands_of_no_width_and_no_volatility() -> None:
    found = compute(bars(np.concatenate([walk(1, 100, 1e4), np.full(100, 33.33)])))
    assert found["bb_upper"][-1] == found["bb_mid"][-1] == found["bb_lower"][-1] == pytest.approx(33.33, rel=1e-15)
    assert found["volatility_20"][-1] == 0.0


@pytest.mark.parametrize("price", [33.33, 0.1, 1e-6, 123456.789, 1 / 3])
@pytest.mark.parametrize("before", [1.0, 1e3, 1e6])
def test_a_flat_price_never_crosses(price: float, before: float) -> None:
    found = compute(bars(np.concatenate([walk(1, 300, before * price), np.full(600, price)])))
    settled = 300 + 200  # the last average that still holds an older price
    assert not found["golden_cross"][settled:].any()
    assert not found["death_cross"][settled:].any()
    flat = compute(bars(np.full(600, price)))
    assert not any(flat[name].any() for name in ("golden_cross", "death_cross", "buy_signal", "sell_signal"))


def test_a_step_between_two_flat_prices_is_one_cross_in_its_direction() -> None:
    fall = compute(bars(np.concatenate([np.full(300, 1e6), np.full(600, 1e-2)])))
    assert np.flatnonzero(fall["death_cross"]).tolist() == [300]
    assert not fall["golden_cross"].any()
    rise = compute(bars(np.concatenate([np.full(300, 1e-2), np.full(600, 1e6)])))
    assert np.flatnonzero(rise["golden_cross"]).tolist() == [300]
    assert not rise["death_cross"].any()


def test_a_history_that_only_rises_or_falls_has_no_cross() -> None:
    for close in (np.arange(1.0, 401.0), np.arange(400.0, 0.0, -1.0)):
        found = compute(bars(close))
        assert not found["golden_cross"].any()
        assert not found["death_cross"].any()


def test_the_first_row_with_both_averages_cannot_be_a_cross() -> None:
    # Flat but for a jump on the 200th bar: sma_50 is above sma_200 on the first row that has both.
    close = np.full(260, 10.0)
    close[199:] = 20.0
    assert not compute(bars(close))["golden_cross"].any()
    # A bar later there are averages before and after it.
    assert np.flatnonzero(compute(bars(np.insert(close, 0, 10.0)))["golden_cross"]).tolist() == [200]


def test_buy_and_sell_signals_stand_where_their_definition_says() -> None:
    risen_then_fell = np.concatenate([np.linspace(100, 200, 60), np.linspace(198, 150, 8)])
    buy = compute(bars(risen_then_fell))
    assert buy["buy_signal"][-1]
    assert buy["sma_20"][-1] > buy["sma_50"][-1]
    assert buy["rsi_14"][-1] < 30
    assert not buy["sell_signal"].any()
    sell = compute(bars(400 - risen_then_fell))
    assert sell["sell_signal"][-1]
    assert sell["sma_20"][-1] < sell["sma_50"][-1]
    assert sell["rsi_14"][-1] > 70
    assert not sell["buy_signal"].any()


def test_a_return_across_a_change_of_basis_is_of_closes() -> None:
    found = compute(bars([100, 110, 121, 133.1], [50, 60, 121, 133.1], total_return=[True, True, False, False]))
    assert found["return_1d"][1:].tolist() == pytest.approx([0.2, 0.1, 0.1])


def test_a_return_over_a_known_dividend_is_of_the_close_before_less_the_dividend() -> None:
    history = bars([100, 99, 99, 50], [1, 1, 1, 1])
    history["dividend"] = np.array([0.0, 2.0, 0.0, 99.0])
    # 99 / 98 - 1; the last one is not below the close before it, and counts as none.
    assert compute(history)["return_1d"][1:].tolist() == pytest.approx([1 / 98, 0.0, 50 / 99 - 1])


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_opposite_signals_never_stand_on_the_same_row(recipe: Recipe) -> None:
    found = compute(recipe.bars())
    assert not (found["buy_signal"] & found["sell_signal"]).any()
    assert not (found["golden_cross"] & found["death_cross"]).any()


@settings(max_examples=60, deadline=None)
@given(recipes, st.floats(0.01, 100), st.integers(1, 300))
def test_later_bars_change_no_earlier_row(recipe: Recipe, factor: float, changed: int) -> None:
    history = recipe.bars()
    keep = max(len(history["close"]) - changed, 0)
    other = {name: values.copy() for name, values in history.items()}
    for name in ("close", "adj_close", "volume"):
        other[name][keep:] *= factor
    other["total_return"][keep:] ^= True
    whole = compute(history)
    shorter = compute({name: values[:keep] for name, values in history.items()})
    for name, values in compute(other).items():
        assert np.array_equal(values[:keep], whole[name][:keep], equal_nan=values.dtype != bool), name
        assert np.array_equal(shorter[name], whole[name][:keep], equal_nan=values.dtype != bool), name


@settings(max_examples=60, deadline=None)
@given(recipes, st.integers(0, 300))
def test_rows_from_any_session_on_are_those_of_the_whole_history_to_the_last_bit(recipe: Recipe, last: int) -> None:
    history = recipe.bars()
    start = max(len(history["close"]) - last, 0)
    whole = compute(history)
    for name, values in compute(history, start=start).items():
        assert values.tobytes() == whole[name][start:].tobytes(), name


def test_bars_are_not_changed_by_computing() -> None:
    history = bars(walk(1, 300))
    before = {name: values.copy() for name, values in history.items()}
    compute(history)
    assert history.keys() == before.keys()
    assert all(np.array_equal(history[name], before[name], equal_nan=name == "dividend") for name in before)


def test_the_spec_changes_with_every_parameter_function_and_name_and_with_the_formula_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_first(**changed: object) -> str:
        return indicator_spec((dataclasses.replace(INDICATORS[0], **changed), *INDICATORS[1:]))  # type: ignore[arg-type]

    specs = [
        indicator_spec(),
        with_first(parameters={"source": "close", "window": 21}),
        with_first(function=kernel.exponential_average),
        with_first(name="sma_twenty"),
        indicator_spec(INDICATORS[1:]),
    ]
    monkeypatch.setattr(registry, "FORMULA_VERSION", registry.FORMULA_VERSION + 1)
    specs.append(indicator_spec())
    assert len(set(specs)) == len(specs)


def test_the_spec_says_nothing_about_words() -> None:
    renamed = dataclasses.replace(INDICATORS[0], description="other words")
    assert indicator_spec((renamed, *INDICATORS[1:])) == indicator_spec()


# What the sample's values were under a spec. Seven significant digits: a formula's change shows, a processor's rounding
# does not; averages' differences are rounded as shares of the average, since near 0 they have fewer digits than others.
PINNED_SPEC = "2-040b6628"
PINNED = {
    "sma_20": "d0cd131f79a3",
    "sma_50": "8310d5e6ca8e",
    "sma_200": "9412746de054",
    "ema_12": "89678324a7fc",
    "ema_26": "38e6f4342553",
    "rsi_14": "f6317f720165",
    "macd": "572fa960fc6c",
    "macd_signal": "ecefb3867167",
    "macd_hist": "0946c1ec748a",
    "bb_upper": "3dba367c125b",
    "bb_mid": "d0cd131f79a3",
    "bb_lower": "4e7b5b5c3e1e",
    "volume_sma_20": "1674658b1fd8",
    "volume_sma_50": "c3fa33fe7b85",
    "return_1d": "99fa77121c11",
    "volatility_20": "96a5a6569676",
    "buy_signal": "83671468c17b",
    "sell_signal": "c1a3bfb2b53b",
    "golden_cross": "d602b249343a",
    "death_cross": "8950a0b9faca",
}


def digest(found: dict[str, np.ndarray], name: str) -> str:
    values = found[name].astype(float)
    if name.startswith("macd"):
        lines = [f"{share:.7f}" for share in values / found["ema_26"]]
    else:
        lines = [f"{value:.6e}" for value in values]
    return hashlib.sha256("\n".join(lines).replace("-0.0000000", "0.0000000").encode()).hexdigest()[:12]


def test_a_changed_formula_raises_the_spec(sample: dict[str, Bars]) -> None:
    computed = {ticker: compute(history) for ticker, history in sample.items()}
    together = {one.name: "-".join(digest(computed[ticker], one.name) for ticker in TICKERS) for one in INDICATORS}
    found = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in together.items()}
    changed = sorted(name for name in found.keys() | PINNED.keys() if found.get(name) != PINNED.get(name))
    if changed and indicator_spec() == PINNED_SPEC:
        pytest.fail(
            f"values of {', '.join(changed)} changed, but indicator_spec() is still {PINNED_SPEC}: published rows "
            "would claim a formula that they do not follow. Raise FORMULA_VERSION in indicators/kernel.py, then "
            f"set PINNED_SPEC here to the new spec and PINNED to {found}"
        )
    if indicator_spec() != PINNED_SPEC or changed:
        pytest.fail(
            f"the spec went from {PINNED_SPEC} to {indicator_spec()}, as it should when a formula, a parameter or the "
            f"registry changes. If that is meant, set PINNED_SPEC here to {indicator_spec()!r} and PINNED to {found}"
        )


def test_the_registry_names_every_column_that_an_indicator_reads() -> None:
    class Recorded(dict[str, np.ndarray]):
        read: set[str]

        def __getitem__(self, name: str) -> np.ndarray:
            self.read.add(name)
            return super().__getitem__(name)

    rng = np.random.default_rng(12)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 300)))
    columns: dict[str, np.ndarray] = {
        "close": close,
        "adj_close": close,
        "volume": rng.uniform(1e5, 1e6, 300),
        "dividend": np.zeros(300),
        "total_return": np.zeros(300, dtype=bool),
    }
    columns |= compute(columns)
    for one in INDICATORS:
        recorded = Recorded(columns)
        recorded.read = set()
        one.function(recorded, **one.parameters)
        assert recorded.read == one.reads, one.name
