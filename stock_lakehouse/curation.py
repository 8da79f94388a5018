"""Bringing curated bars and corporate actions up to date together: an action changes every earlier bar of its ticker.

Here: which bars a run must look at, and the order of its writes. Not here: how a bar is adjusted (transforms/curated.py) and
how a table is published (lake/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.markers import Markers
from stock_lakehouse.lake.publish import Published, literals
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CORPORATE_ACTIONS, PROCESSED
from stock_lakehouse.transforms.curated import actions_in, adjusted, bars_in

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# Crash markers: tickers whose whole history a run is rewriting. If the run dies, the next run recomputes them in full.
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

    def actions_frame(self, spark: SparkSession) -> DataFrame:
        """`actions` as the engine audits them."""
        if not self.actions.num_rows:  # of which the engine infers no schema
            return spark.createDataFrame([], CORPORATE_ACTIONS.ddl)
        return spark.createDataFrame(self.actions)


class OutdatedTableError(Exception):
    """A table was written by an earlier version of this program; the message says how to compute it anew."""


COMPUTE_ANEW = (
    "Compute it anew from raw, once: stock-lakehouse backfill --again --select "
    "processed_stocks_daily,curated_stocks_daily,stocks_features,restatements"
)


def is_outdated(processed: DataFrame) -> bool:
    """Whether some of these processed bars were written before actions were facts of their own: they do not say their basis."""
    return bool(processed.where("basis IS NULL").limit(1).count())


@dataclass(frozen=True)
class Window:
    """Which years of processed bars a run reads, and of which of these it computes curated bars; None: all."""

    loaded: tuple[int, ...] | None
    computed: tuple[int, ...] | None


def window_of(lake: Lake, asked: Rectangle) -> Window:
    """The window of a run for `asked`.

    Computed are the years asked and those beside them, since a corrected close may be that before a dividend of the year after,
    or of the next year in which a ticker has bars (it was halted, or delisted and came back). Loaded is also the year with the
    bar before them.
    """
    present: dict[str, list[int]] = {ticker: [] for ticker in asked.tickers}
    for ticker, year in lake.processed.ticker_years():
        if ticker in present:
            present[ticker].append(year)
    first, last = min(asked.read_years), max(asked.years)
    after = [min(later) for years in present.values() if (later := [year for year in years if year > last])]
    end = max([last + 1, *after])
    before = [max(earlier) for years in present.values() if (earlier := [year for year in years if year < first - 1])]
    start = min([first - 1, *before])
    if {year for years in present.values() for year in years} <= set(range(start, end + 1)):
        return Window(None, None)
    return Window(tuple(range(start, end + 1)), tuple(range(first - 1, end + 1)))


def curate(
    lake: Lake, spark: SparkSession, processed: DataFrame, asked: Rectangle, sessions: DataFrame, stage: Stage
) -> Curation:
    """The curated bars that a run for `asked` has to publish.

    `processed` has the bars of the tickers asked in the years that `window_of` says. Only where their corporate actions are not
    just as published, a ticker's whole history is computed: an action changes all of it, anything else the years around alone.
    `stage` computes a transform of a frame once, by tickers, of which each has so many years. Raises OutdatedTableError.
    """
    import pyarrow as pa

    if is_outdated(processed):
        raise OutdatedTableError(f"{PROCESSED.name} was written by an earlier version of this program. {COMPUTE_ANEW}")
    window = window_of(lake, asked)
    known, delivered = (table.read(spark, asked.tickers) for table in (lake.corporate_actions, lake.processed_actions))

    def computed(bars: DataFrame, tickers: Sequence[str], of_years: tuple[int, ...] | None, count: int) -> DataFrame:
        def of_some(some: DataFrame) -> DataFrame:
            return adjusted(some, delivered, known, sessions, of_years)

        return stage(of_some, bars, tickers, count)

    rows = computed(processed, asked.tickers, window.computed, len(window.loaded or asked.years))
    actions, published = actions_in(rows).toArrow(), known.toArrow()
    moved = _differing(actions, published, window.computed) | moving(lake, asked.tickers)
    if window.computed is not None:
        moved |= _corrected_after(delivered.toArrow(), max(window.computed))
    bars = bars_in(rows)
    if moved and window.computed is not None:
        tickers, years = sorted(moved), lake.processed.years()
        history = computed(lake.processed.read(spark, tickers), tickers, None, max(years) - min(years) + 1)
        actions = actions_in(history).toArrow()
        bars = bars.where(~bars["ticker"].isin(tickers)).unionByName(bars_in(history))
    own = pa.compute.is_in(actions["ticker"], value_set=pa.array(sorted(moved), pa.string()))
    return Curation(bars, window.computed, tuple(sorted(moved)), actions.filter(own))


def _corrected_after(delivered: pa.Table, year: int) -> set[str]:
    """The tickers of which a vendor corrected a dividend after `year`: the factors that earlier deliveries knew follow from a
    close that is not loaded."""
    said: dict[tuple[str, object, str], int] = {}
    for row in delivered.to_pylist():
        if row["session"].year > year and row["kind"] != "split":
            key = (row["ticker"], row["date"], row["kind"])
            said[key] = said.get(key, 0) + 1
    return {ticker for (ticker, _, _), count in said.items() if count > 1}


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
    _markers(lake).write(list(tickers))


def moving(lake: Lake, tickers: Iterable[str]) -> set[str]:
    """Those of `tickers` whose whole history is to be looked at: a killed run was changing it.

    They are all of them while there is a marker that cannot be read: it may be of any ticker.
    """
    asked, named = set(tickers), set[str]()
    for marker in _markers(lake).read():
        named |= asked if marker.content is None else asked & marker.content
    return named


def _settle(lake: Lake, done: Iterable[str]) -> None:
    """Take `done` out of the markers under MOVING. What is left is written before the markers that said it are removed.

    A marker that cannot be read becomes one of every ticker of the lake but `done`, so that it goes when all were looked at.
    """
    markers = _markers(lake)
    found, left = markers.read(), set[str]()
    for marker in found:
        left |= _all_tickers(lake) if marker.content is None else marker.content
    if left := left - set(done):
        markers.write(sorted(left))
    markers.remove(found)


def _all_tickers(lake: Lake) -> set[str]:
    return {ticker for table in (lake.processed, lake.curated) for ticker, _ in table.ticker_years()}


def _markers(lake: Lake) -> Markers[frozenset[str]]:
    return Markers(lake.storage, MOVING, _tickers_in)


def _tickers_in(content: object) -> frozenset[str]:
    if not isinstance(content, list) or not all(isinstance(ticker, str) for ticker in content):
        raise ValueError("no list of tickers")
    return frozenset(content)


def _differing(computed: pa.Table, published: pa.Table, years: Sequence[int] | None) -> set[str]:
    """The tickers whose actions, of `years` or of all, are not the same."""

    def of(actions: pa.Table) -> set[tuple[object, ...]]:
        rows = zip(*(actions[name].to_pylist() for name in CORPORATE_ACTIONS.column_names), strict=True)
        return {row for row in rows if years is None or row[1].year in years}

    return {str(row[0]) for row in of(computed) ^ of(published)}
