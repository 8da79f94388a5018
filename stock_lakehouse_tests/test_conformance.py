"""The certificate of the indicators is up to date, says that the product conforms, and would say if it did not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse_tests import conformance, histories
from stock_lakehouse_tests.conformance import MINE, TALIBS_OWN, Case, Certificate
from stock_lakehouse_tests.histories import bars, walk

BY_NAME = {one.name: one for one in INDICATORS}
Columns = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return Certificate.of(conformance.whole())


@pytest.fixture(scope="module")
def few(certificate: Certificate) -> list[Case]:
    """A fifth of the histories, of every kind and level."""
    return list(certificate.cases)[::5]


@pytest.mark.slow
def test_the_document_is_up_to_date(certificate: Certificate) -> None:
    if certificate.text() != conformance.DOCUMENT.read_text(encoding="utf-8"):
        pytest.fail("docs/conformance.md is stale: run `make conformance`, and look at what it changed")


@pytest.mark.slow
def test_the_product_conforms(certificate: Certificate) -> None:
    """Whatever the document says: a formula that became wrong cannot be certified by writing the document again."""
    for one in INDICATORS:
        tally = certificate.total(MINE, [one])
        assert tally.values > 100_000, one.name
        assert tally.error <= 1e-13, one.name
        assert tally.disagreements == tally.in_ties == 0, one.name
        if one.type == "boolean":
            assert tally.true > 200, one.name
    assert certificate.nulls(INDICATORS) == 0


def test_the_histories_are_many_and_of_every_kind(certificate: Certificate) -> None:
    generated = [case.bars for case in certificate.cases if case.family != "sample"]
    assert len(generated) >= 400
    assert len(certificate.cases) - len(generated) == len(histories.TICKERS)
    lengths = {len(history["close"]) for history in generated}
    assert {one.warm_up + more for one in INDICATORS for more in (0, 1)} | {1, 300} <= lengths
    starts = [history["close"][0] for history in generated]
    assert min(starts) < 2e-6
    assert max(starts) > 9e5
    assert sum(np.isnan(history["volume"]).any() for history in generated) >= 20
    assert sum((history["dividend"] > 0).any() for history in generated) >= 20
    assert sum((np.diff(history["close"]) == 0).sum() > 20 for history in generated) >= 40


def test_the_histories_are_the_same_each_time() -> None:
    for (family, one), (again, other) in zip(histories.generated(), histories.generated(), strict=True):
        assert family == again
        assert all(np.array_equal(one[name], other[name], equal_nan=one[name].dtype != bool) for name in one)


def test_no_error_is_so_close_to_a_power_of_ten_that_another_processor_changes_the_document(
    certificate: Certificate,
) -> None:
    # Those of TA-Lib's running sums have one order on all processors.
    shown = {one.name: certificate.total(MINE, [one]).error for one in certificate.numbers}
    shown |= {
        family: certificate.total(MINE, certificate.numbers, family).error
        for family in {case.family for case in certificate.cases}
    }
    near = [
        name for name, error in shown.items() if conformance.at_most(error * 1.4) != conformance.at_most(error / 1.4)
    ]
    assert not near


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.0, "0"), (1e-300, "≤ 1e-13"), (5e-14, "≤ 1e-13"), (6e-14, "≤ 1e-12"), (0.03, "≤ 1e-1"), (7.0, "≤ 1e2")],
)
def test_an_error_is_rounded_up(error: float, text: str) -> None:
    assert conformance.at_most(error) == text


def test_an_error_without_bound_is_said() -> None:
    assert conformance.at_most(math.inf) == "∞"


def changed(name: str, function: Callable[..., np.ndarray]) -> tuple[Indicator, ...]:
    """The registry with another function behind one indicator, of the same name: the spec does not tell."""

    def wrong(columns: Columns, **parameters: object) -> np.ndarray:
        return function(columns, BY_NAME[name].function(columns, **parameters))

    wrong.__name__ = BY_NAME[name].function.__name__
    return tuple(dataclasses.replace(one, function=wrong) if one.name == name else one for one in INDICATORS)


def of_sample_deviation(columns: Columns, right: np.ndarray) -> np.ndarray:
    return columns["sma_20"] + (right - columns["sma_20"]) * math.sqrt(20 / 19)


def seeded_with_the_first_value(columns: Columns, right: np.ndarray) -> np.ndarray:
    out, average = right.copy(), columns["close"][0]
    for at, close in enumerate(columns["close"]):
        average += (close - average) * 2 / 13
        out[at] = average if at >= 11 else np.nan
    return out


def of_simple_averages(columns: Columns, right: np.ndarray) -> np.ndarray:
    out, moves = right.copy(), np.diff(columns["close"])
    for at in range(14, len(out)):
        window = moves[at - 14 : at]
        moved = np.abs(window).sum()
        out[at] = 100 * window[window > 0].sum() / moved if moved else 0.0
    return out


def of_a_running_sum(columns: Columns, right: np.ndarray) -> np.ndarray:
    sums = np.cumsum(columns["close"])
    out = right.copy()
    out[20:] = (sums[20:] - sums[:-20]) / 20
    return out


def poisoned_by_an_unknown_volume(columns: Columns, right: np.ndarray) -> np.ndarray:
    return np.where(np.cumsum(np.isnan(columns["volume"])) > 0, np.nan, right)


def over_unknown_volumes(columns: Columns, right: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(right) & (np.arange(len(right)) >= 19), 0.0, right)


def without_dividends(columns: Columns, right: np.ndarray) -> np.ndarray:
    out = right.copy()
    out[1:] = columns["close"][1:] / columns["close"][:-1] - 1
    return out


def logarithmic(columns: Columns, right: np.ndarray) -> np.ndarray:
    return np.log1p(right)


def one_session_early(columns: Columns, right: np.ndarray) -> np.ndarray:
    return np.append(right[1:], right[-1:])


def without_the_boundary_rule(columns: Columns, right: np.ndarray) -> np.ndarray:
    return (columns["sma_20"] > columns["sma_50"]) & (columns["rsi_14"] < 30)


def touching(columns: Columns, right: np.ndarray) -> np.ndarray:
    return right | ((columns["rsi_14"] < 31) & (columns["sma_20"] > columns["sma_50"]))


@pytest.mark.slow
@pytest.mark.slice(6)
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("bb_upper", of_sample_deviation),
        ("bb_lower", of_sample_deviation),
        ("ema_12", seeded_with_the_first_value),
        ("macd", lambda columns, right: columns["ema_12"] - columns["ema_26"]),
        ("macd_signal", one_session_early),
        ("rsi_14", of_simple_averages),
        ("sma_20", of_a_running_sum),
        ("sma_200", one_session_early),
        ("volume_sma_20", poisoned_by_an_unknown_volume),
        ("volume_sma_20", over_unknown_volumes),
        ("return_1d", without_dividends),
        ("return_1d", logarithmic),
        ("volatility_20", lambda columns, right: right * math.sqrt(19 / 20)),
        ("volatility_20", lambda columns, right: right * math.sqrt(252)),
        ("buy_signal", touching),
        ("buy_signal", without_the_boundary_rule),
        ("sell_signal", one_session_early),
        ("golden_cross", one_session_early),
        ("death_cross", one_session_early),
    ],
)
def test_a_wrong_formula_makes_the_document_stale_and_shows_in_it(
    certificate: Certificate, few: list[Case], name: str, function: Callable[..., np.ndarray]
) -> None:
    one = BY_NAME[name]
    wrong = Certificate.of(few, changed(name, function))
    right, found = certificate.total(MINE, [one]), wrong.total(MINE, [one])
    # These histories are among the document's, whose figures are the largest errors and sums, so it cannot show less.
    if one.type == "boolean":
        assert found.disagreements + found.in_ties > right.disagreements + right.in_ties == 0
    else:
        assert found.error > 1e-8 or found.nulls > 0
        assert right.error <= 1e-13
        assert right.nulls == 0


def test_the_document_of_a_wrong_formula_differs_in_its_line(few: list[Case]) -> None:
    def lines(text: str) -> list[str]:
        return text.splitlines()

    right = lines(Certificate.of(few).text())
    wrong = lines(Certificate.of(few, changed("bb_upper", of_sample_deviation)).text())
    different = [line for old, line in zip(right, wrong, strict=True) if line != old]
    assert any(line.startswith("| `bb_upper`") and "≤ 1e-1" in line for line in different), different


def test_an_indicator_without_a_definition_or_a_reference_is_named() -> None:
    history = [Case("walks", bars(walk(Random(1), 60, 100.0)))]
    unknown = dataclasses.replace(INDICATORS[0], name="sma_30")
    with pytest.raises(KeyError, match="sma_30"):
        conformance.measure(history, (*INDICATORS, unknown))
    with pytest.raises(KeyError, match="say what <lambda> computes"):
        conformance.formula_of(dataclasses.replace(INDICATORS[0], function=lambda columns, **_: columns["close"]))


def test_talibs_own_errors_are_in_the_document(certificate: Certificate) -> None:
    assert certificate.total(TALIBS_OWN, [BY_NAME["sma_200"]], "falls").error > 1e-8
    assert certificate.total(TALIBS_OWN, [BY_NAME["volume_sma_20"]], "volumes").error == math.inf
    assert certificate.total(TALIBS_OWN, [BY_NAME["sma_200"]], "walks").error < 1e-13
