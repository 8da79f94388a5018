"""The step of processed: it types delivered rows, quarantines impossible ones, and collects the actions that rows name."""

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
    """The landed rows of a run's tickers and years, classified.

    - bars: rows for processed_stocks_daily
    - rejected: rows for the quarantine
    - actions: the actions that rows of either kind, or superseded ones, name
    """

    bars: DataFrame
    rejected: DataFrame
    actions: DataFrame
    inputs: Inputs

    @property
    def frame(self) -> DataFrame:
        return self.bars

    def publish(self, step: Step) -> Published:
        """Publish the quarantine, the actions, and last the bars. The returned counts are those of the bars."""
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
    inputs = step.inputs_of(raw, *READS)
    # Not in chunks of tickers: a row is classified by itself, so the engine streams, and each chunk would parse every file.
    rows = step.staging.stage(classify(raw, step.days, step.options.price_tolerance))
    replaced = step.staging.stage(superseded(rows))
    rejected, fates = quarantined(rows), {"superseded": replaced.count()}
    bars = processed_bars(rows, replaced if fates["superseded"] else None)
    fates |= {"processed": bars.count(), "quarantined": rejected.count()}
    delivered = raw.count()
    step.confirm(inputs)  # rows that landed between the two reads would count as lost
    _conserve(step, delivered, fates)
    actions = step.staging.stage(delivered_actions(rows))
    computed = Classified(bars, rejected, actions, inputs)
    step.audit(computed.bars, PROCESSED)
    step.audit(computed.rejected, QUARANTINE, PROCESSED)
    step.audit(computed.actions, PROCESSED_ACTIONS, PROCESSED)
    # Reported before the publish: a run that is killed now has reported these rows, and the next run reports them again.
    new = new_in_quarantine(computed.rejected, step.lake, step.staging, step.asked, fates["quarantined"])
    rows_of_check = {"rows": new.rows} if new.rows else {}
    step.tell(CheckResult(PROCESSED, "quarantine", not new.found, {**new.facts(), **rows_of_check}, "WARN"))
    return computed


def _conserve(step: Step, delivered: int, fates: dict[str, int]) -> None:
    """Check that every row read from raw has a fate.

    - delivered: rows that were read from raw
    - fates: number of rows by fate

    Raises LostRowsError if the numbers differ.
    """
    passed = delivered == sum(fates.values())
    step.tell(CheckResult(PROCESSED, "conservation", passed, {"delivered": delivered, **fates}))
    if not passed:
        raise LostRowsError(f"{delivered} rows were read from raw but {fates} came out")
