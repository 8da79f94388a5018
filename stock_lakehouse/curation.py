"""Bringing curated bars and corporate actions up to date together: an action changes every earlier bar of its ticker.

Here: which bars a run must look at, and the order of its writes. Not here: how a bar is adjusted (transforms/curated.py) and
how a table is published (lake/).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.publish import Published, literals
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED
from stock_lakehouse.transforms.curated import actions_in, adjusted_bars

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# What a run is changing the histories of; there after a kill, so that the next run of such a ticker looks at all of it.
MOVING = f"{CORPORATE_ACTIONS.path}/_moving"
Stage = Callable[[Callable[["DataFrame"], "DataFrame"], "DataFrame", Sequence[str], int], "DataFrame"]


@dataclass(frozen=True)
class Curation:
    """Curated bars to be published. `bars` are of `years`, all years of `moved`: tickers whose actions are not as published.
    `actions` are those of `moved`."""

    bars: DataFrame
    years: tuple[int, ...] | None
    moved: tuple[str, ...]
    actions: pa.Table


def years_around(asked: Rectangle) -> tuple[int, ...]:
    """The years of the rectangle's sessions and those beside them: a dividend's factor wants the session before it, in the year
    before, and a corrected close may be that of a dividend in the year after."""
    return tuple(sorted({year + step for year in asked.years for step in (-1, 0, 1)}))


def curate(
    lake: Lake, spark: SparkSession, processed: DataFrame, asked: Rectangle, sessions: DataFrame, stage: Stage
) -> Curation:
    """The curated bars that a run for `asked` has to publish.

    `processed` has the bars of the tickers asked in `years_around`. Only where their corporate actions are not just as
    published, a ticker's whole history is computed: an action changes all of it, anything else its own year alone.
    `stage` computes a transform of a frame once, by tickers, of which each has so many years.
    """
    import pyarrow as pa

    known = lake.corporate_actions.read(spark, asked.tickers)
    years: tuple[int, ...] | None = years_around(asked)
    there = lake.processed.years()
    if there <= set(years or ()):
        years = None

    def computed(bars: DataFrame, tickers: Sequence[str], of_years: tuple[int, ...] | None, count: int) -> DataFrame:
        return stage(lambda some: adjusted_bars(some, known, sessions, of_years), bars, tickers, count)

    rows = computed(processed, asked.tickers, years, len(years or asked.years))
    actions, published = actions_in(rows).toArrow(), known.toArrow()
    moved = tuple(sorted(_differing(actions, published, years) | (moving(lake) & set(asked.tickers))))
    columns = list(CURATED.column_names)
    if moved and years is not None:
        history = computed(lake.processed.read(spark, moved), moved, None, max(there) - min(there) + 1)
        actions = actions_in(history).toArrow()
        rows = rows.where(~rows["ticker"].isin(list(moved))).select(*columns).unionByName(history.select(*columns))
    own = pa.compute.is_in(actions["ticker"], value_set=pa.array(moved, pa.string()))
    return Curation(rows.select(*columns), years, moved, actions.filter(own))


def publish(
    curation: Curation, lake: Lake, asked: Rectangle, staging: Staging, *, run_id: str, now: datetime
) -> Published:
    """Publish the bars, then the actions that they were adjusted by; say what was done to the bars.

    In this order, and with a note of it under MOVING while it is done: a run that is killed in between leaves actions that
    differ from the bars', or the note, and the next one of the ticker does all of it again.
    """
    within = None if curation.years is None else f"year IN ({literals(curation.years)})"
    if curation.moved:
        if within is not None:
            within += f" OR ticker IN ({literals(curation.moved)})"
        note_moving(lake, curation.moved)
    published = lake.curated.publish(curation.bars, asked, staging, lake.ledger, run_id=run_id, now=now, within=within)
    if curation.moved:
        lake.corporate_actions.replace(curation.actions, curation.moved)
        _settle(lake, curation.moved)
    return published


def note_moving(lake: Lake, tickers: Sequence[str]) -> None:
    """Have the next run of each of `tickers` look at its whole history."""
    lake.storage.create(f"{MOVING}/{uuid.uuid4().hex}.json", json.dumps(tickers).encode())


def moving(lake: Lake) -> set[str]:
    """The tickers whose whole history is to be looked at: a killed run was changing it."""
    return {ticker for file in lake.storage.walk(MOVING) for ticker in json.loads(lake.storage.read(file.path))}


def _settle(lake: Lake, done: Iterable[str]) -> None:
    """Take `done` out of the notes under MOVING."""
    notes = [file.path for file in lake.storage.walk(MOVING)]
    left = sorted(moving(lake) - set(done))
    if left:
        note_moving(lake, left)
    lake.storage.delete(notes)


def _differing(computed: pa.Table, published: pa.Table, years: Sequence[int] | None) -> set[str]:
    """The tickers whose actions, of `years` or of all, are not the same."""

    def of(actions: pa.Table) -> set[tuple[object, ...]]:
        rows = zip(*(actions[name].to_pylist() for name in CORPORATE_ACTIONS.column_names), strict=True)
        return {row for row in rows if years is None or row[1].year in years}

    return {str(row[0]) for row in of(computed) ^ of(published)}
