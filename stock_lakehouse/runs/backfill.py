"""Backfills: what the lake lacks of a rectangle, cut into runs, which are then run one after the other.

The lake itself says what is done, so a backfill that was killed goes on where it stopped when it is run again. Not here: one
run (run.py), and printing (cli/).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.runs.record import held_cells
from stock_lakehouse.runs.run import check_select, run_rectangle
from stock_lakehouse.tables import CURATED, FEATURES, LAYERS, RESTATEMENTS

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
    """One run: its rectangle, the assets it runs (None: all), and how many bars of the rectangle the lake lacks."""

    rectangle: Rectangle
    select: tuple[str, ...] | None
    missing: int


@dataclass(frozen=True)
class Plan:
    """What of `asked` bars is to be done, in order."""

    asked: int
    chunks: tuple[Chunk, ...]

    @property
    def missing(self) -> int:
        return sum(chunk.missing for chunk in self.chunks)


@dataclass(frozen=True)
class Step:
    """A chunk that has run: `number` of `of`, `done` of all missing bars after it, and the seconds that the rest may take."""

    number: int
    of: int
    chunk: Chunk
    report: RunReport
    done: float
    seconds_left: float


def plan_backfill(
    lake: Lake,
    spark: SparkSession,
    asked: Rectangle,
    select: Sequence[str] | None = None,
    chunk_bars: int = CHUNK_BARS,
    again: bool = False,
) -> Plan:
    """What the lake lacks of `asked`; all of it with `again`.

    A bar is held when curated has it and features has it by the present formulas; where only features lacks it, features is
    run alone. With `select` a bar is held when the last selected layer has it. Raises ValueError for a `select` without a
    layer.
    """
    import numpy as np

    shape = (len(asked.tickers), len(asked.sessions))
    everything = np.ones(shape, dtype=bool)
    if select is not None:
        check_select(select)
        layers = [table for table in LAYERS if table.name in select]
        if not layers:
            raise ValueError(f"select: a backfill fills layers; name one of {', '.join(one.name for one in LAYERS)}")
        missing = everything if again else ~held_cells(lake, spark, asked, layers[-1])
        return Plan(everything.size, tuple(cut(asked, missing, chunk_bars, tuple(select))))
    if again:
        return Plan(everything.size, tuple(cut(asked, everything, chunk_bars, None)))
    bars = held_cells(lake, spark, asked, CURATED)
    whole = tuple(cut(asked, ~bars, chunk_bars, None))
    for chunk in whole:
        bars &= ~_cells_of(chunk.rectangle, asked)
    behind = bars & ~held_cells(lake, spark, asked, FEATURES)
    return Plan(everything.size, whole + tuple(cut(asked, behind, chunk_bars, FEATURES_ALONE)))


def cut(asked: Rectangle, missing: Cells, chunk_bars: int, select: tuple[str, ...] | None) -> Iterator[Chunk]:
    """Chunks of `asked` that hold every missing bar, each of about `chunk_bars` bars and at least one ticker.

    A chunk is whole tickers from their first missing session to the last: features are computed from a ticker's whole
    history, so cutting a history in two would compute it twice. Tickers whose missing sessions lie apart are not joined: a
    new ticker's history does not make the others run.
    """
    spans = sorted(
        (int(places[0]), int(places[-1]), at)
        for at, row in enumerate(missing)
        for places in [row.nonzero()[0]]
        if len(places)
    )
    group: list[tuple[int, int, int]] = []
    for span in spans:
        joined = [*group, span]
        length = max(last for _, last, _ in joined) - min(first for first, _, _ in joined) + 1
        shortest = min(last - first + 1 for first, last, _ in joined)
        if group and (length * len(joined) > chunk_bars or length > 2 * shortest):
            yield _chunk(asked, missing, group, select)
            joined = [span]
        group = joined
    if group:
        yield _chunk(asked, missing, group, select)


def _chunk(
    asked: Rectangle, missing: Cells, group: Sequence[tuple[int, int, int]], select: tuple[str, ...] | None
) -> Chunk:
    first, last = min(first for first, _, _ in group), max(last for _, last, _ in group)
    rows = sorted(at for _, _, at in group)
    rectangle = Rectangle(asked.sessions[first : last + 1], tuple(asked.tickers[at] for at in rows), asked.exchange)
    return Chunk(rectangle, select, int(missing[rows].sum()))


def _cells_of(rectangle: Rectangle, asked: Rectangle) -> Cells:
    import numpy as np

    def places(all_of: Sequence[str] | Sequence[date], some: Sequence[str] | Sequence[date]) -> Cells:
        return np.isin(np.array(all_of), np.array(some))

    return np.outer(places(asked.tickers, rectangle.tickers), places(asked.sessions, rectangle.sessions))


def run_backfill(
    settings: Settings, plan: Plan, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[Step]:
    """Run the plan's chunks and yield each when it has ended, failed ones too; stop after FAILURES_IN_A_ROW."""
    tags = {BACKFILL_TAG: uuid.uuid4().hex[:8]}
    started, done, failed = clock(), 0, 0
    for number, chunk in enumerate(plan.chunks, start=1):
        report = run_rectangle(settings, chunk.rectangle, chunk.select, progress, tags)
        done += chunk.missing
        failed = 0 if report.success else failed + 1
        left = (clock() - started) / done * (plan.missing - done)
        yield Step(number, len(plan.chunks), chunk, report, done / plan.missing, left)
        if failed == FAILURES_IN_A_ROW:
            return
