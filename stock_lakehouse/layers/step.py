"""The input of a layer's step, its check results, and the guard of its publish, for assets and Databricks jobs.

Here: what all layers have in common. Not here: what a layer computes (processed.py, curated.py, features.py); Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

from stock_lakehouse.indicators.own import IndicatorError
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_publish import VersionMovedError
from stock_lakehouse.lake.delta_publish import publish as publish_delta
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.publish import Published
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.schemas.audit import AuditError, failures
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LISTED = 50  # entries of a list in a check's result
INPUT_ATTEMPTS = 5  # attempts of a step whose input changed while it computed


class LostRowsError(Exception):
    """A step read rows that it neither published nor rejected. The message has the counts. Nothing was published."""


BLOCKED = (AuditError, LostRowsError, IndicatorError)  # the errors of checks that block the publish


class InputMovedError(Exception):
    """Another run changed rows after this step had read them. Nothing was published; the step must be computed again."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check of the step of `table`. A list of dicts in `facts` is shown as a table."""

    table: Table
    name: str
    passed: bool
    facts: Mapping[str, Any]
    severity: Literal["ERROR", "WARN"] = "ERROR"


@dataclass(frozen=True)
class Inputs:
    """The state of each table that a step reads, by name, for the step's tickers, from before the step began to read."""

    states: Mapping[str, Hashable]


NO_INPUTS = Inputs({})
# The inputs of each frame that an IO manager loads for a layer's asset: another run may publish before the asset begins.
_read_from: WeakKeyDictionary[DataFrame, Inputs] = WeakKeyDictionary()


def read_inputs(lake: Lake, tables: Sequence[Table], tickers: Sequence[str]) -> Inputs:
    """The present state of `tables` for `tickers`. Call it before their rows are read."""
    return Inputs({table.name: lake.stored(table.name).state(tickers) for table in tables})


def remember_inputs(frame: DataFrame, inputs: Inputs) -> None:
    """Remember the inputs that `frame` was read from, for `Step.inputs_of`."""
    _read_from[frame] = inputs


@dataclass(frozen=True)
class Step:
    """The step of a layer in a run.

    - lake: the lake, with its options
    - spark: a session of the engine
    - staging: the place for staged frames
    - asked: the keys of the run
    - now: the time of the ledger lines that the step writes
    - tell: is called with the result of each check as soon as it is known
    - say: is called with lines of text about long work
    - serves: whether the step writes the serving copy of its table; False if a later run of the same backfill does
    """

    lake: Lake
    spark: SparkSession
    staging: Staging
    asked: Rectangle
    run_id: str
    now: datetime
    tell: Callable[[CheckResult], None]
    say: Callable[[str], None] = lambda line: None
    serves: bool = True

    @property
    def options(self) -> LakeOptions:
        return self.lake.options

    @cached_property
    def sessions(self) -> DataFrame:
        """One row per session: date, final_at, next_session."""
        return self.spark.createDataFrame(self.options.calendar.table(self.options.grace))

    @cached_property
    def days(self) -> DataFrame:
        """One row per calendar day: date, and the session on or after it."""
        return self.spark.createDataFrame(self.options.calendar.days())

    @property
    def history_years(self) -> int:
        """The number of years of bars that a ticker may have, from the lake's first day to the run's last."""
        return self.asked.last.year - self.options.first_date.year + 1

    def by_ticker(
        self,
        transform: Callable[[DataFrame], DataFrame],
        frame: DataFrame,
        years: int,
        tickers: Sequence[str] | None = None,
    ) -> DataFrame:
        """`transform(frame)`, computed once, in chunks of tickers, so that memory does not grow with the number of tickers.

        - transform: its rows for a ticker must depend on that ticker's rows alone
        - years: about how many years of bars each ticker has
        - tickers: the tickers of `frame` (None: those of the run)
        """
        names = self.asked.tickers if tickers is None else tickers
        return self.staging.by_ticker(transform, frame, names, years, self.options.bars_per_chunk)

    def inputs_of(self, frame: DataFrame, *tables: Table) -> Inputs:
        """The state of `tables` from before `frame` was read from them; their present state if that was not remembered."""
        return _read_from.get(frame) or read_inputs(self.lake, tables, self.asked.tickers)

    def confirm(self, inputs: Inputs) -> None:
        """Raise InputMovedError if rows that the step read have changed since."""
        for name, state in inputs.states.items():
            if self.lake.stored(name).state(self.asked.tickers) != state:
                raise InputMovedError(
                    f"{name}: another run changed rows of this run's tickers after they were read; the step is computed again"
                )

    @contextmanager
    def publishing(self, table: Table, inputs: Inputs) -> Iterator[None]:
        """Hold the lock of the step of `table` while it publishes.

        Raises InputMovedError if `inputs` have changed. The step's frames then lack rows that another run added, and its publish
        would remove them.
        """
        with one_writer(self.lake.root, f"{table.name}.step"):
            self.confirm(inputs)
            yield

    def audit(self, frame: DataFrame, table: Table, layer: Table | None = None) -> None:
        """Check that `frame` conforms to the schema of `table`, before it is published, and report the result.

        `layer`: the layer whose step publishes the frame (None: `table`). Raises AuditError.
        """
        found = failures(frame, table)
        self.tell(
            CheckResult(layer or table, audit_name(table), not found, {"failures": found[:LISTED] if found else 0})
        )
        if found:
            raise AuditError(table, found)


def audit_name(table: Table) -> str:
    """The name of the check that audits `table`: "schema"; with the table's name before it if another layer's step writes it."""
    return "schema" if table.has_step else f"{table.name.removeprefix(f'{table.layer}_')}_schema"


class Computed(Protocol):
    """The computed and audited result of a step, ready to be published."""

    @property
    def frame(self) -> DataFrame:
        """The rows of the layer's table. Inside the keys of the run, the table has exactly these after the publish."""
        ...

    def publish(self, step: Step) -> Published:
        """Publish the result. Safe to kill and repeat at any point. Raises InputMovedError if it must be computed again."""
        ...


@dataclass(frozen=True)
class Rows:
    """The rows of one table. They are published by the rule of lake/publish.py."""

    table: Table
    frame: DataFrame
    inputs: Inputs = NO_INPUTS

    def publish(self, step: Step) -> Published:
        # A Parquet table's publish reads the frame several times, and a user's frame is computed anew each time.
        frame = step.staging.stage(self.frame) if self.table.format == "parquet" else self.frame
        with step.publishing(self.table, self.inputs):
            return publish_rows(step, self.table, frame)


def publish_rows(
    step: Step,
    table: Table,
    frame: DataFrame,
    within: str | None = None,
    of_version: int | None = None,
    note: str = "",
) -> Published:
    """Publish `frame`, which has all rows of the run's tickers; with `within`, those of the rows for which this SQL is true.

    `within` may name ticker and year; `of_version` is the version for which it was chosen, and another raises InputMovedError.
    These and `note`, a text for the commit's metadata, are for Delta tables only.
    """
    lake, asked = step.lake, step.asked
    if table.format == "parquet":
        return lake.parquet[table.name].publish(frame, asked.tickers, asked.read_years, step.staging, asked)
    try:
        return publish_delta(
            lake.delta[table.name],
            frame,
            asked,
            step.staging,
            lake.ledger,
            run_id=step.run_id,
            now=step.now,
            within=within,
            of_version=of_version,
            note=note,
        )
    except VersionMovedError as error:
        raise InputMovedError(f"{error}; the step is computed again") from error


def facts_of(step: Step, table: Table, published: Published) -> dict[str, Any]:
    """The figures of `table` after a publish, and of the publish, by name."""
    lake, stored = step.lake, step.lake.stored(table.name)
    rows = lake.delta[table.name].row_count() if table.format == "delta" else lake.parquet[table.name].row_count()
    return {
        "dagster/row_count": lake.read(table.name, step.spark).count() if rows is None else rows,
        "bytes": sum(stored.sizes()),
        "location": stored.location,
        "added": published.added,
        "corrected": published.corrected,
        "withdrawn": published.withdrawn,
        "ticker-years written": published.partitions,
        **({} if published.version is None else {"table version": published.version}),
    }
