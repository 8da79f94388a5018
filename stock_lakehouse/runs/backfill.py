"""Backfills: the missing bars of a rectangle, cut into runs that are run one after the other.

What is done is read from the lake itself, so a killed backfill continues where it stopped when it is run again. Not here: a
single run (run.py), and printing (cli/).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.resources.lakehouse import SERVE_LATER_TAG
from stock_lakehouse.runs.record import held_cells
from stock_lakehouse.runs.run import run_rectangle
from stock_lakehouse.tables import CURATED, FEATURES, LAYERS, RESTATEMENTS, TABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import Cells
    from stock_lakehouse.runs.run import RunReport
    from stock_lakehouse.settings import Settings

CHUNK_BARS = 100_000
FEATURES_ALONE = (FEATURES.name, RESTATEMENTS.name)
BACKFILL_TAG = "stock_lakehouse/backfill"
FAILURES_IN_A_ROW = 2


@dataclass(frozen=True)
class Chunk:
    """One run of a backfill.

    - `rectangle`: the sessions and tickers of the run.
    - `select`: the assets that it runs; None: all.
    - `missing`: how many bars of the rectangle the lake lacks.
    """

    rectangle: Rectangle
    select: tuple[str, ...] | None
    missing: int


@dataclass(frozen=True)
class BackfillPlan:
    """The runs of a backfill.

    - `asked`: the number of bars that were requested.
    - `chunks`: the runs, in order; together they hold every missing bar.
    """

    asked: int
    chunks: tuple[Chunk, ...]

    @property
    def missing(self) -> int:
        return sum(chunk.missing for chunk in self.chunks)


@dataclass(frozen=True)
class ChunkResult:
    """A chunk that has run.

    - `number`, `of`: its number, from 1, and the number of chunks.
    - `chunk`, `report`: the chunk and the result of its run.
    - `done`: the share of all missing bars that has run, this chunk included.
    - `seconds_left`: an estimate for the remaining chunks.
    """

    number: int
    of: int
    chunk: Chunk
    report: RunReport
    done: float
    seconds_left: float


def plan_backfill(
    lake: Lake,
    spark: SparkSession,
    requested: Rectangle,
    select: Sequence[str] | None = None,
    chunk_bars: int = CHUNK_BARS,
    again: bool = False,
) -> BackfillPlan:
    """The runs that compute the bars of `requested` which the lake lacks; all bars with `again`.

    A bar is held if curated has it and features has it by the present formulas. If only features lacks it, only features is run.
    With `select`, a bar is held if the last selected layer has it.

    Raises ValueError for a `select` that has no layer.
    """
    import numpy as np

    shape = (len(requested.tickers), len(requested.sessions))
    everything = np.ones(shape, dtype=bool)
    if select is not None:
        layers = [table for table in LAYERS if table.name in select]
        if not layers:
            raise ValueError(
                f"select: a backfill fills layers; name one of {', '.join(table.name for table in LAYERS)}"
            )
        missing = everything if again else ~held_cells(lake, spark, requested, layers[-1])
        return BackfillPlan(everything.size, tuple(cut(requested, missing, chunk_bars, tuple(select))))
    if again:
        return BackfillPlan(everything.size, tuple(cut(requested, everything, chunk_bars, None)))
    curated = held_cells(lake, spark, requested, CURATED)
    all_layers = tuple(cut(requested, ~curated, chunk_bars, None))
    for chunk in all_layers:
        curated &= ~_cells_of(chunk.rectangle, requested)
    features_only = curated & ~held_cells(lake, spark, requested, FEATURES)
    return BackfillPlan(everything.size, all_layers + tuple(cut(requested, features_only, chunk_bars, FEATURES_ALONE)))


def cut(requested: Rectangle, missing: Cells, chunk_bars: int, select: tuple[str, ...] | None) -> Iterator[Chunk]:
    """Cut `requested` into chunks that hold every missing bar, each of about `chunk_bars` bars and at least one ticker.

    A chunk holds each of its tickers from the first missing session to the last. Features are computed from a ticker's whole
    history, so a history cut in two would be computed twice. Tickers are not joined if the chunk would then be more than twice
    as long as the shortest of their spans, so a new ticker's history does not make the other tickers run.
    """
    spans = sorted(
        (int(missing_sessions[0]), int(missing_sessions[-1]), position)
        for position, row in enumerate(missing)
        for missing_sessions in [row.nonzero()[0]]
        if len(missing_sessions)
    )
    group: list[tuple[int, int, int]] = []
    for span in spans:
        joined = [*group, span]
        length = max(last for _, last, _ in joined) - min(first for first, _, _ in joined) + 1
        shortest = min(last - first + 1 for first, last, _ in joined)
        if group and (length * len(joined) > chunk_bars or length > 2 * shortest):
            yield _chunk(requested, missing, group, select)
            joined = [span]
        group = joined
    if group:
        yield _chunk(requested, missing, group, select)


def _chunk(
    requested: Rectangle, missing: Cells, group: Sequence[tuple[int, int, int]], select: tuple[str, ...] | None
) -> Chunk:
    first, last = min(first for first, _, _ in group), max(last for _, last, _ in group)
    positions = sorted(position for _, _, position in group)
    rectangle = Rectangle(
        requested.sessions[first : last + 1],
        tuple(requested.tickers[position] for position in positions),
        requested.exchange,
    )
    return Chunk(rectangle, select, int(missing[positions].sum()))


def _cells_of(rectangle: Rectangle, requested: Rectangle) -> Cells:
    import numpy as np

    def is_in(values: Sequence[str] | Sequence[date], some: Sequence[str] | Sequence[date]) -> Cells:
        return np.isin(np.array(values), np.array(some))

    return np.outer(is_in(requested.tickers, rectangle.tickers), is_in(requested.sessions, rectangle.sessions))


def run_backfill(
    settings: Settings, plan: BackfillPlan, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[ChunkResult]:
    """Run the plan's chunks and yield each when it has ended, also if it failed; stop after FAILURES_IN_A_ROW."""
    tags = {BACKFILL_TAG: uuid.uuid4().hex[:8]}
    # A chunk has all years of its tickers. The serving copy has a file per year, and the catalog and the reports read it: made
    # after each chunk, all of them would be made as often as there are chunks.
    last = {chunk.select: number for number, chunk in enumerate(plan.chunks, start=1)}
    started, done, failed = clock(), 0, 0
    for number, chunk in enumerate(plan.chunks, start=1):
        if last[chunk.select] == number:
            report = run_rectangle(settings, chunk.rectangle, chunk.select, progress, tags)
        else:
            select = chunk.select or [table.name for table in TABLES]
            report = run_rectangle(settings, chunk.rectangle, select, progress, {**tags, SERVE_LATER_TAG: "true"})
        done += chunk.missing
        failed = 0 if report.success else failed + 1
        left = (clock() - started) / done * (plan.missing - done)
        yield ChunkResult(number, len(plan.chunks), chunk, report, done / plan.missing, left)
        if failed == FAILURES_IN_A_ROW:
            return
