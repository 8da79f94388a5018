"""The step of features: indicators and signals over each ticker's whole history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.indicators.registry import indicator_spec
from stock_lakehouse.lake.status import outdated_rows
from stock_lakehouse.layers.step import LISTED, CheckResult, Rows, Step
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse.transforms.features import features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


READS = (CURATED,)


def compute(step: Step, bars: DataFrame) -> Rows:
    """The features of `bars`, all curated bars of the run's tickers. Raises AuditError."""
    inputs = step.inputs_of(bars, *READS)
    rows = step.by_ticker(lambda chunk: features(chunk, step.sessions), bars, step.history_years)
    step.audit(rows, FEATURES)
    return Rows(FEATURES, rows, inputs)


def check_published(step: Step) -> None:
    """Report the published rows that older formulas computed, by ticker, and how to update them."""
    outdated = outdated_rows(step.lake.features.read(step.spark))
    rows = [{"ticker": ticker, "rows": count} for ticker, count in list(outdated.items())[:LISTED]]
    to_do = "`stock-lakehouse backfill` computes them again; rows of tickers that are not in the settings stay"
    facts = {
        "indicator_spec": indicator_spec(),
        "outdated rows": sum(outdated.values()),
        **({"tickers": rows, "what to do": to_do} if outdated else {}),
    }
    step.tell(CheckResult(FEATURES, "present_formulas", not outdated, facts, "WARN"))
