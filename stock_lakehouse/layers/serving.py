"""The serving copy of a table, made right after the table's publish, and the check that reports it.

Here: when it is made, and what a failure means. Not here: its files (lake/serving.py).
"""

from __future__ import annotations

from stock_lakehouse.lake import bi_database
from stock_lakehouse.lake.serving import ServingCopy
from stock_lakehouse.lake.storage import LakeError, error_types
from stock_lakehouse.layers.step import CheckResult, Step
from stock_lakehouse.tables import Table

SERVING_COPY = "serving_copy"
LATER = "a later run of the same backfill writes the files, so that each year is written once"
TO_DO = (
    "the published table is complete, and every reader falls back to it; the next run, `stock-lakehouse query` or "
    "`stock-lakehouse upkeep` writes the missing files"
)


def serve(step: Step, table: Table) -> None:
    """Write the missing files of the serving copy of `table`, and report the check SERVING_COPY.

    It is called after the publish, outside the step's lock. A failure does not undo the publish and does not fail the run,
    because the copy is derived and whoever misses a file writes it: the check fails with severity WARN and says what to do.
    """
    if not step.serves:
        step.tell(CheckResult(table, SERVING_COPY, True, {"files written": 0, "not now": LATER}, "WARN"))
        return
    errors: tuple[type[Exception], ...] = (LakeError, *error_types())
    try:
        written = ServingCopy(step.lake, tell=step.say).refresh(table)
        bi_database.renew(step.lake)
    except errors as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        step.tell(CheckResult(table, SERVING_COPY, False, {"problem": problem, "what to do": TO_DO}, "WARN"))
        return
    step.tell(CheckResult(table, SERVING_COPY, True, {"files written": len(written)}, "WARN"))
