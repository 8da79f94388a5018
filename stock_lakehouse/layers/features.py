"""The step of features: indicators and signals over each ticker's whole history.

Here: which years a run publishes. Not here: how a row is computed (transforms/features.py), and how a table is published (lake/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

from stock_lakehouse import __version__
from stock_lakehouse.indicators.own import IndicatorError
from stock_lakehouse.lake.computed_from import ComputedFrom, digest, first_changed_years, newest_record
from stock_lakehouse.lake.publish import Published, literals
from stock_lakehouse.lake.serving import ServingCopy
from stock_lakehouse.lake.status import outdated_rows
from stock_lakehouse.layers.step import LISTED, CheckResult, Inputs, Step, audit_name, publish_rows
from stock_lakehouse.tables import CURATED, FEATURES
from stock_lakehouse.transforms.features import ALL_YEARS, features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


READS = (CURATED,)
# An engine repeats an error of its workers as text, in a traceback.
RAISED = re.compile(rf"{IndicatorError.__name__}: (.+)")
LACKING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
# The libraries that the values of a row depend on: kernels, and the sessions for `tradable_from`.
LIBRARIES = ("numpy", "TA-Lib", "pandas_market_calendars", "exchange_calendars")


@dataclass(frozen=True)
class Span:
    """The rows of the run's tickers that may differ from the published ones.

    - since: rows of this year and later years; ALL_YEARS for all rows
    - whole: tickers of which rows of any year may differ
    - published: the version of features for which this was found; None: any
    """

    since: int = ALL_YEARS
    whole: frozenset[str] = frozenset()
    published: int | None = None

    @property
    def predicate(self) -> str | None:
        """An SQL condition that is true for these rows; None if it is for all."""
        if self.since == ALL_YEARS:
            return None
        of_whole = f" OR ticker IN ({literals(sorted(self.whole))})" if self.whole else ""
        return f"year >= {self.since}{of_whole}"


@dataclass(frozen=True)
class Features:
    """What the step of features computed: the rows of `span`."""

    frame: DataFrame
    span: Span
    inputs: Inputs

    def publish(self, step: Step) -> Published:
        """Publish the rows. The commit records what they were computed from, unless curated moves meanwhile."""
        before = step.lake.curated.version()
        with step.publishing(FEATURES, self.inputs):
            # Of this version are the bars that the step read, if it is still the newest now that the inputs were confirmed.
            is_known = before is not None and before == step.lake.curated.version()
            note = ComputedFrom(_program(step), digest(step.asked.tickers), before or 0).note() if is_known else ""
            return publish_rows(step, FEATURES, self.frame, self.span.predicate, self.span.published, note)


def span_of(step: Step) -> Span:
    """The rows of the run's tickers that may differ from the published ones.

    A row depends on bars up to its session and on no later one: so do all indicators of the package. Those of a user's own
    file may look ahead.
    """
    lake, tickers = step.lake, step.asked.tickers
    if lake.own_source is not None or not lake.features.exists():
        return Span()
    opened = lake.features.open()
    recorded = newest_record(opened)
    if recorded is None or (recorded.program, recorded.tickers) != (_program(step), digest(tickers)):
        return Span()
    changed = first_changed_years(lake.curated, recorded.version, tickers)
    if changed is None:
        return Span()
    # Rows of the run's own keys may not have been published yet, though nothing changed.
    since = step.asked.first.year
    return Span(since, frozenset(ticker for ticker, year in changed.items() if year < since), opened.version())


def _program(step: Step) -> str:
    """A digest of everything besides the bars that a row depends on."""
    libraries = {name: version_of(name) for name in LIBRARIES}
    return digest(
        {
            "indicator_spec": step.lake.indicator_spec,
            "exchange": step.options.exchange,
            "stock_lakehouse": __version__,
            **libraries,
        }
    )


def compute(step: Step, bars: DataFrame) -> Features:
    """The features of `bars`, all curated bars of the run's tickers. Raises AuditError; IndicatorError of an own indicator."""
    from pyspark.errors import PySparkException

    inputs, indicators, span = step.inputs_of(bars, *READS), step.lake.indicators, span_of(step)
    try:
        rows = step.by_ticker(
            lambda chunk: features(chunk, step.sessions, indicators, span.since, span.whole), bars, step.history_years
        )
    except PySparkException as error:
        problem = _problem_of(step, str(error))
        if problem is None:
            raise
        step.tell(CheckResult(FEATURES, audit_name(FEATURES), False, {"own indicator": problem}))
        raise IndicatorError(problem) from None
    step.audit(rows, step.lake.features.table)
    return Features(rows, span, inputs)


def _outdated_rows(step: Step) -> dict[str, int]:
    """`outdated_rows` of the table. Of its serving copy, if there is one: that has 20 files, and the table may have 10,000."""
    import pyarrow.compute as pc

    stored, spec = step.lake.features, step.lake.indicator_spec
    served = ServingCopy(step.lake).rows(FEATURES, stored.open(), ["ticker", "indicator_spec"])
    if served is None:
        return outdated_rows(stored.read(step.spark), spec)
    older = served.filter(pc.is_null(pc.field("indicator_spec")) | (pc.field("indicator_spec") != spec))
    return {str(row["values"]): row["counts"] for row in sorted(older["ticker"].value_counts().to_pylist(), key=str)}


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
    outdated = _outdated_rows(step)
    rows = [{"ticker": ticker, "rows": count} for ticker, count in list(outdated.items())[:LISTED]]
    to_do = "`stock-lakehouse backfill` computes them again; rows of tickers that are not in the settings stay"
    facts = {
        "indicator_spec": step.lake.indicator_spec,
        "outdated rows": sum(outdated.values()),
        **({"tickers": rows, "what to do": to_do} if outdated else {}),
    }
    step.tell(CheckResult(FEATURES, "present_formulas", not outdated, facts, "WARN"))
