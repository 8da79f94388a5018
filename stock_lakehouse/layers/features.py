"""The step of features: indicators and signals over each ticker's whole history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stock_lakehouse.indicators.own import IndicatorError
from stock_lakehouse.lake.status import outdated_rows
from stock_lakehouse.layers.step import LISTED, CheckResult, Rows, Step, audit_name
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse.transforms.features import features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


READS = (CURATED,)
# An engine repeats an error of its workers as text, in a traceback.
RAISED = re.compile(rf"{IndicatorError.__name__}: (.+)")
LACKING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


def compute(step: Step, bars: DataFrame) -> Rows:
    """The features of `bars`, all curated bars of the run's tickers. Raises AuditError; IndicatorError of an own indicator."""
    from pyspark.errors import PySparkException

    inputs, indicators = step.inputs_of(bars, *READS), step.lake.indicators
    try:
        rows = step.by_ticker(lambda chunk: features(chunk, step.sessions, indicators), bars, step.history_years)
    except PySparkException as error:
        problem = _problem_of(step, str(error))
        if problem is None:
            raise
        step.tell(CheckResult(FEATURES, audit_name(FEATURES), False, {"own indicator": problem}))
        raise IndicatorError(problem) from None
    step.audit(rows, step.lake.features.table)
    return Rows(FEATURES, rows, inputs)


def _problem_of(step: Step, message: str) -> str | None:
    """What the engine's error says of the user's own indicators; None if it is about something else."""
    if raised := RAISED.search(message):
        return raised[1]
    lacking = LACKING.search(message)
    if lacking is None or step.lake.own_source is None:
        return None
    file = step.options.indicators
    return f"{file}: the engine's workers have no module {lacking[1]}; install it in the Python that they run"


def check_published(step: Step) -> None:
    """Report the published rows that older formulas computed, by ticker, and how to update them."""
    outdated = outdated_rows(step.lake.features.read(step.spark), step.lake.indicator_spec)
    rows = [{"ticker": ticker, "rows": count} for ticker, count in list(outdated.items())[:LISTED]]
    to_do = "`stock-lakehouse backfill` computes them again; rows of tickers that are not in the settings stay"
    facts = {
        "indicator_spec": step.lake.indicator_spec,
        "outdated rows": sum(outdated.values()),
        **({"tickers": rows, "what to do": to_do} if outdated else {}),
    }
    step.tell(CheckResult(FEATURES, "present_formulas", not outdated, facts, "WARN"))
