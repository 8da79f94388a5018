"""What the step of a layer works with, what it says, and the guard of its publish; used by assets and by jobs on Databricks.

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

from stock_lakehouse.lake import Lake
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
INPUT_ATTEMPTS = 5  # of a step whose input moved while it computed


class LostRowsError(Exception):
    """Rows that were read came out of a step neither published nor rejected; the message counts them. Nothing was published."""


BLOCKED = (AuditError, LostRowsError)  # a check failed that blocks the publish


class InputMovedError(Exception):
    """Another run published rows that this step had read before; nothing was published, the step has to be computed anew."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check of the step of `table`. A list of dicts among `facts` is a table of rows."""

    table: Table
    name: str
    passed: bool
    facts: Mapping[str, Any]
    severity: Literal["ERROR", "WARN"] = "ERROR"


@dataclass(frozen=True)
class Inputs:
    """What tables held of the tickers of a step when it began to read: their state by name."""

    states: Mapping[str, Hashable]


NO_INPUTS = Inputs({})
# What the frame was read from that an IO manager gives to a layer's asset: another run may publish before the asset begins.
_read_from: WeakKeyDictionary[DataFrame, Inputs] = WeakKeyDictionary()


def read_inputs(lake: Lake, tables: Sequence[Table], tickers: Sequence[str]) -> Inputs:
    """What `tables` hold of `tickers` now. To be called before their rows are read."""
    return Inputs({table.name: lake.stored(table.name).state(tickers) for table in tables})


def remember_inputs(frame: DataFrame, inputs: Inputs) -> None:
    """Remember what `frame` was read from, for `Step.inputs_of`."""
    _read_from[frame] = inputs


@dataclass(frozen=True)
class Step:
    """The step of a layer in a run for `asked`: the lake with its options, an engine, a place for staged frames.

    `tell` hears the result of every check, as it comes. `now` is the time of everything that the step restates.
    """

    lake: Lake
    spark: SparkSession
    staging: Staging
    asked: Rectangle
    run_id: str
    now: datetime
    tell: Callable[[CheckResult], None]

    @property
    def options(self) -> LakeOptions:
        return self.lake.options

    @cached_property
    def sessions(self) -> DataFrame:
        """A row a session: date, final_at, next_session."""
        return self.spark.createDataFrame(self.options.calendar.table(self.options.grace))

    @cached_property
    def days(self) -> DataFrame:
        """A row a calendar day: date, session on or after it."""
        return self.spark.createDataFrame(self.options.calendar.days())

    @property
    def history_years(self) -> int:
        """How many years of bars a ticker may have, from the lake's first day to the run's last."""
        return self.asked.last.year - self.options.first_date.year + 1

    def by_ticker(
        self,
        transform: Callable[[DataFrame], DataFrame],
        frame: DataFrame,
        years: int,
        tickers: Sequence[str] | None = None,
    ) -> DataFrame:
        """`transform(frame)` computed once, some tickers at a time, so that memory does not grow with their number.

        The rows that `transform` gives for a ticker must depend on that ticker's rows alone. `tickers` are the frame's (None: the
        run's), each with about `years` years of bars.
        """
        names = self.asked.tickers if tickers is None else tickers
        return self.staging.by_ticker(transform, frame, names, years, self.options.bars_per_chunk)

    def inputs_of(self, frame: DataFrame, *tables: Table) -> Inputs:
        """What `tables` held when `frame` was read from them; what they hold now if nobody has remembered that."""
        return _read_from.get(frame) or read_inputs(self.lake, tables, self.asked.tickers)

    def confirm(self, inputs: Inputs) -> None:
        """Raise InputMovedError if a table no longer holds what the step read."""
        for name, state in inputs.states.items():
            if self.lake.stored(name).state(self.asked.tickers) != state:
                raise InputMovedError(
                    f"{name}: another run changed rows of this run's tickers after they were read; the step computes anew"
                )

    @contextmanager
    def publishing(self, table: Table, inputs: Inputs) -> Iterator[None]:
        """Hold the right to publish the step of `table`, if `inputs` have not moved.

        A step that read before another run published would publish over it: its frames lack what the other added. Raises
        InputMovedError.
        """
        with one_writer(self.lake.root, f"{table.name}.step"):
            self.confirm(inputs)
            yield

    def audit(self, frame: DataFrame, table: Table, layer: Table | None = None) -> None:
        """Hold a frame against the schema of `table` before the step of `layer` (the table's own) publishes it.

        Raises AuditError.
        """
        found = failures(frame, table)
        self.tell(
            CheckResult(layer or table, audit_name(table), not found, {"failures": found[:LISTED] if found else 0})
        )
        if found:
            raise AuditError(table, found)


def audit_name(table: Table) -> str:
    """The name of the check that audits `table`: schema, where the step writes it beside another one with its own name."""
    return "schema" if table.has_step else f"{table.name.removeprefix(f'{table.layer}_')}_schema"


class Computed(Protocol):
    """What a step computed and audited, ready to be published."""

    def publish(self, step: Step) -> Published:
        """Publish it; safe to kill and repeat at any point. Raises InputMovedError when it has to be computed anew."""
        ...


@dataclass(frozen=True)
class Rows:
    """The rows of one table: what the step's run may publish of them is published, by the rule of lake/publish.py."""

    table: Table
    frame: DataFrame
    inputs: Inputs = NO_INPUTS

    def publish(self, step: Step) -> Published:
        with step.publishing(self.table, self.inputs):
            return publish_rows(step, self.table, self.frame)


def publish_rows(step: Step, table: Table, frame: DataFrame, within: str | None = None) -> Published:
    """Publish `frame`, all rows of the run's tickers, or of those ticker-years of which the SQL `within` holds (Delta only)."""
    lake, asked = step.lake, step.asked
    if table.format == "parquet":
        return lake.parquet[table.name].publish(frame, asked.tickers, asked.read_years, step.staging, asked)
    return publish_delta(
        lake.delta[table.name],
        frame,
        asked,
        step.staging,
        lake.ledger,
        run_id=step.run_id,
        now=step.now,
        within=within,
    )


def facts_of(step: Step, table: Table, published: Published) -> dict[str, Any]:
    """What `table` holds after a publish, and what the publish did, by name."""
    stored = step.lake.stored(table.name)
    return {
        "dagster/row_count": step.lake.read(table.name, step.spark).count(),
        "bytes": sum(stored.sizes()),
        "location": stored.location,
        "added": published.added,
        "corrected": published.corrected,
        "withdrawn": published.withdrawn,
        "ticker-years written": published.partitions,
        **({} if published.version is None else {"table version": published.version}),
    }
