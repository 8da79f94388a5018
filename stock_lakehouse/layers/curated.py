"""Bringing curated bars and corporate actions up to date together: an action changes every earlier bar of its ticker.

Here: which bars a run must look at, and the order of its writes. Not here: how a bar is adjusted (transforms/curated.py) and
how a table is published (lake/).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_publish import replace
from stock_lakehouse.lake.markers import Markers
from stock_lakehouse.lake.publish import Published, literals
from stock_lakehouse.layers.step import Inputs, Step, publish_rows
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, PROCESSED, upstream
from stock_lakehouse.transforms.curated import actions_in, adjusted, bars_in

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

READS = (*upstream(CURATED), CORPORATE_ACTIONS)
# Crash markers: tickers whose whole history a run is rewriting. If the run dies, the next run recomputes them in full.
MOVING = f"{CORPORATE_ACTIONS.path}/_moving"


@dataclass(frozen=True)
class Curation:
    """Curated bars to be published, of `years` (None: all) and of all years of the tickers `moved`, whose actions are not as
    published; and the actions of `moved`."""

    bars: DataFrame
    years: tuple[int, ...] | None
    moved: tuple[str, ...]
    actions: pa.Table
    inputs: Inputs

    def publish(self, step: Step) -> Published:
        """Publish the bars, then the actions that they were adjusted by; say what was done to the bars.

        In this order, and with a marker under MOVING while it is done: a run that is killed in between leaves actions that
        differ from the bars', or the marker, and the next one of the ticker does all of it again.
        """
        within = None if self.years is None else f"year IN ({literals(self.years)})"
        with step.publishing(CURATED, self.inputs):
            if self.moved:
                if within is not None:
                    within += f" OR ticker IN ({literals(self.moved)})"
                note_moving(step.lake, self.moved)
            published = publish_rows(step, CURATED, self.bars, within)
            if self.moved:
                replace(step.lake.corporate_actions, self.actions, self.moved)
                _settle(step.lake, self.moved)
            return published


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


def compute(step: Step, processed: DataFrame) -> Curation:
    """The curated bars that a run has to publish, from all processed bars of its tickers.

    Only where their corporate actions are not just as published, a ticker's whole history is computed: an action changes all of
    it, anything else the years around alone. Raises OutdatedTableError, AuditError.
    """
    import pyarrow as pa
    from pyspark.sql import functions as F

    lake, asked = step.lake, step.asked
    inputs = step.inputs_of(processed, *READS)
    window = window_of(lake, asked)
    loaded = processed if window.loaded is None else processed.where(F.col("year").isin(list(window.loaded)))
    if is_outdated(loaded):
        raise OutdatedTableError(f"{PROCESSED.name} was written by an earlier version of this program. {COMPUTE_ANEW}")
    known, delivered = (
        table.read(step.spark, asked.tickers) for table in (lake.corporate_actions, lake.processed_actions)
    )

    def computed(bars: DataFrame, tickers: Sequence[str], of_years: tuple[int, ...] | None, count: int) -> DataFrame:
        def of_some(some: DataFrame) -> DataFrame:
            return adjusted(some, delivered, known, step.sessions, of_years)

        return step.by_ticker(of_some, bars, count, tickers)

    rows = computed(loaded, asked.tickers, window.computed, len(window.loaded or asked.years))
    actions, published = actions_in(rows).toArrow(), known.toArrow()
    moved = _differing(actions, published, window.computed) | moving(lake, asked.tickers)
    if window.computed is not None:
        moved |= _corrected_after(delivered.toArrow(), max(window.computed))
    bars = bars_in(rows)
    if moved and window.computed is not None:
        tickers, years = sorted(moved), lake.processed.years()
        of_moved = processed.where(F.col("ticker").isin(tickers))
        history = computed(of_moved, tickers, None, max(years) - min(years) + 1)
        actions = actions_in(history).toArrow()
        bars = bars.where(~bars["ticker"].isin(tickers)).unionByName(bars_in(history))
    own = pa.compute.is_in(actions["ticker"], value_set=pa.array(sorted(moved), pa.string()))
    counting = actions.filter(own)
    step.audit(bars, CURATED)
    step.audit(_frame_of(counting, step.spark), CORPORATE_ACTIONS, CURATED)
    return Curation(bars, window.computed, tuple(sorted(moved)), counting, inputs)


def _frame_of(actions: pa.Table, spark: SparkSession) -> DataFrame:
    """Corporate actions as the engine audits them."""
    if not actions.num_rows:  # of which the engine infers no schema
        return spark.createDataFrame([], CORPORATE_ACTIONS.ddl)
    return spark.createDataFrame(actions)


def _corrected_after(delivered: pa.Table, year: int) -> set[str]:
    """The tickers of which a vendor corrected a dividend after `year`: the factors that earlier deliveries knew follow from a
    close that is not loaded."""
    said: dict[tuple[str, object, str], int] = {}
    for row in delivered.to_pylist():
        if row["session"].year > year and row["kind"] != "split":
            key = (row["ticker"], row["date"], row["kind"])
            said[key] = said.get(key, 0) + 1
    return {ticker for (ticker, _, _), count in said.items() if count > 1}


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
