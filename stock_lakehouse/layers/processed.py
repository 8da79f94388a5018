"""The step of processed: type what was delivered; what is impossible goes to the quarantine, what names an action beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_publish import replace
from stock_lakehouse.lake.publish import Published
from stock_lakehouse.lake.status import new_in_quarantine
from stock_lakehouse.layers.step import CheckResult, Inputs, LostRowsError, Step, publish_rows
from stock_lakehouse.tables import PROCESSED, PROCESSED_ACTIONS, QUARANTINE, RAW, UNREADABLE
from stock_lakehouse.transforms.processed import classify, delivered_actions, processed_bars, quarantined, superseded

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

READS = (RAW,)


@dataclass(frozen=True)
class Classified:
    """The landed rows of a run's tickers and years, by what became of them."""

    bars: DataFrame
    rejected: DataFrame
    actions: DataFrame
    inputs: Inputs

    def publish(self, step: Step) -> Published:
        """Publish the quarantine, the actions, and last the bars, whose publish is what counts."""
        asked, lake = step.asked, step.lake
        with step.publishing(PROCESSED, self.inputs):
            lake.quarantine.publish(
                self.rejected,
                [*asked.tickers, UNREADABLE],
                [*map(str, asked.read_years), UNREADABLE],
                step.staging,
            )
            replace(lake.processed_actions, self.actions.toArrow(), asked.tickers, asked.read_years)
            return publish_rows(step, PROCESSED, self.bars)


def compute(step: Step, raw: DataFrame) -> Classified:
    """Classify `raw`, all landed rows of the run's tickers and years. Raises AuditError, LostRowsError, InputMovedError."""
    inputs, years = step.inputs_of(raw, *READS), len(step.asked.read_years)
    rows = step.by_ticker(lambda some: classify(some, step.days, step.options.price_tolerance), raw, years)
    replaced = step.staging.stage(superseded(rows))
    rejected, fates = quarantined(rows), {"superseded": replaced.count()}
    bars = processed_bars(rows, replaced if fates["superseded"] else None)
    fates |= {"processed": bars.count(), "quarantined": rejected.count()}
    delivered = raw.count()
    step.confirm(inputs)  # rows that landed between the two readings would count as lost
    _conserve(step, delivered, fates)
    computed = Classified(bars, rejected, delivered_actions(rows), inputs)
    step.audit(computed.bars, PROCESSED)
    step.audit(computed.rejected, QUARANTINE, PROCESSED)
    step.audit(computed.actions, PROCESSED_ACTIONS, PROCESSED)
    # Before they are published: a run that is killed now has told of them, and the next one tells again.
    new = new_in_quarantine(computed.rejected, step.lake, step.spark, step.asked, fates["quarantined"])
    rows_of_check = {"rows": new.rows} if new.rows else {}
    step.tell(CheckResult(PROCESSED, "quarantine", not new.found, {**new.facts(), **rows_of_check}, "WARN"))
    return computed


def _conserve(step: Step, delivered: int, fates: dict[str, int]) -> None:
    """`delivered` rows were read from raw; `fates` counts the rows by what they became. Raises LostRowsError."""
    passed = delivered == sum(fates.values())
    step.tell(CheckResult(PROCESSED, "conservation", passed, {"delivered": delivered, **fates}))
    if not passed:
        raise LostRowsError(f"{delivered} rows were read from raw but {fates} came out")
