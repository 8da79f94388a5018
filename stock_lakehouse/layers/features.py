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


def compute(step: Step, bars: DataFrame) -> Rows:
    """The features of `bars`, all curated bars of the run's tickers. Raises AuditError; IndicatorError of an own indicator."""
    from pyspark.errors import PySparkException

    inputs, indicators = step.inputs_of(bars, *READS), step.lake.indicators
    try:
        rows = step.by_ticker(lambda chunk: features(chunk, step.sessions, indicators), bars, step.history_years)
    except PySparkException as error:
        if (found := RAISED.search(str(error))) is None:
            raise
        step.tell(CheckResult(FEATURES, audit_name(FEATURES), False, {"own indicator": found[1]}))
        raise IndicatorError(found[1]) from None
    step.audit(rows, step.lake.features.table)
    return Rows(FEATURES, rows, inputs)


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
