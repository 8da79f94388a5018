"""The step of curated: it updates curated bars and corporate actions together, because an action changes all earlier bars of
its ticker.

Here: which bars a run computes, and the order of its writes. Not here: how a bar is adjusted (transforms/curated.py), and how a
table is published (lake/).
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
from stock_lakehouse.schemas.processed import SPLIT
from stock_lakehouse.tables import CORPORATE_ACTIONS, CURATED, PROCESSED, upstream
from stock_lakehouse.transforms.curated import actions_in, adjusted, bars_in

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

READS = (*upstream(CURATED), CORPORATE_ACTIONS)
# Crash markers: tickers whose whole history a run is rewriting. If the run dies, the next run recomputes them in full.
REWRITE_MARKERS = f"{CORPORATE_ACTIONS.path}/_moving"


@dataclass(frozen=True)
class Curation:
    """What the step of curated computed.

    - bars: curated bars, of `years` and of all years of the tickers `rewritten`
    - years: None for all
    - rewritten: the tickers whose whole history is published, because their actions differ from the published ones
    - actions: the actions of `rewritten`
    """

    bars: DataFrame
    years: tuple[int, ...] | None
    rewritten: tuple[str, ...]
    actions: pa.Table
    inputs: Inputs

    @property
    def frame(self) -> DataFrame:
        return self.bars

    def publish(self, step: Step) -> Published:
        """Publish the bars, then the actions that they were adjusted by; return what the publish did to the bars.

        A marker under REWRITE_MARKERS exists from before the first write until after the last. If the run is killed in between,
        the actions differ from those of the bars, or the marker is left. The next run of the ticker then repeats all of it.
        """
        within = None if self.years is None else f"year IN ({literals(self.years)})"
        with step.publishing(CURATED, self.inputs):
            if self.rewritten:
                if within is not None:
                    within += f" OR ticker IN ({literals(self.rewritten)})"
                mark_rewrites(step.lake, self.rewritten)
            published = publish_rows(step, CURATED, self.bars, within)
            if self.rewritten:
                replace(step.lake.corporate_actions, self.actions, self.rewritten)
                _clear_rewrites(step.lake, self.rewritten)
            return published


class OutdatedTableError(Exception):
    """A table was written by an earlier version of this program. The message says how to compute it again."""


COMPUTE_ANEW = (
    "Compute it again from raw, once: stock-lakehouse backfill --again --select "
    "processed_stocks_daily,curated_stocks_daily,stocks_features,restatements"
)


def is_outdated(processed: DataFrame) -> bool:
    """True if some of these processed bars have no basis: they were written before the table `processed_actions` existed."""
    return bool(processed.where("basis IS NULL").limit(1).count())


@dataclass(frozen=True)
class Window:
    """The years of a run; None: all.

    - loaded: years of processed bars that it reads
    - computed: those of them for which it computes curated bars
    """

    loaded: tuple[int, ...] | None
    computed: tuple[int, ...] | None


def window_of(lake: Lake, asked: Rectangle) -> Window:
    """The window of a run for `asked`.

    The run computes the requested years and the years beside them. A corrected close may be the close before a dividend of the
    following year, or of the next year in which a ticker has bars (it was halted, or delisted and relisted). The run also
    loads the year that has the bar before the computed years.
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
    """The curated bars that a run has to publish, computed from all processed bars of its tickers.

    A ticker's whole history is computed only if its corporate actions differ from the published ones: an action changes the
    whole history, any other change only the years around it. Raises OutdatedTableError, AuditError.
    """
    import pyarrow as pa
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    lake, asked = step.lake, step.asked
    inputs = step.inputs_of(processed, *READS)
    window = window_of(lake, asked)
    loaded = processed if window.loaded is None else processed.where(F.col("year").isin(list(window.loaded)))
    known, delivered = (
        table.read(step.spark, asked.tickers) for table in (lake.corporate_actions, lake.processed_actions)
    )

    def computed(bars: DataFrame, tickers: Sequence[str], of_years: tuple[int, ...] | None, count: int) -> DataFrame:
        def of_chunk(chunk: DataFrame) -> DataFrame:
            return adjusted(chunk, delivered, known, step.sessions, of_years)

        return step.by_ticker(of_chunk, bars, count, tickers)

    try:
        rows = computed(loaded, asked.tickers, window.computed, len(window.loaded or asked.years))
    except PySparkException as error:  # the kernel refuses bars without a basis; only then is it worth a query
        if is_outdated(loaded):
            problem = f"{PROCESSED.name} was written by an earlier version of this program. {COMPUTE_ANEW}"
            raise OutdatedTableError(problem) from error
        raise
    actions, published = actions_in(rows).toArrow(), known.toArrow()
    rewritten = _differing(actions, published, window.computed) | pending_rewrites(lake, asked.tickers)
    if window.computed is not None:
        rewritten |= _corrected_after(delivered.toArrow(), max(window.computed))
    bars = bars_in(rows)
    if rewritten and window.computed is not None:
        tickers, years = sorted(rewritten), lake.processed.years()
        of_rewritten_tickers = processed.where(F.col("ticker").isin(tickers))
        history = computed(of_rewritten_tickers, tickers, None, max(years) - min(years) + 1)
        actions = actions_in(history).toArrow()
        bars = bars.where(~bars["ticker"].isin(tickers)).unionByName(bars_in(history))
    of_rewritten = pa.compute.is_in(actions["ticker"], value_set=pa.array(sorted(rewritten), pa.string()))
    rewritten_actions = actions.filter(of_rewritten)
    step.audit(bars, CURATED)
    step.audit(_actions_frame(rewritten_actions, step.spark), CORPORATE_ACTIONS, CURATED)
    return Curation(bars, window.computed, tuple(sorted(rewritten)), rewritten_actions, inputs)


def _actions_frame(actions: pa.Table, spark: SparkSession) -> DataFrame:
    """Corporate actions as a frame of the engine, for the audit."""
    if not actions.num_rows:  # the engine cannot infer a schema without rows
        return spark.createDataFrame([], CORPORATE_ACTIONS.ddl)
    return spark.createDataFrame(actions)


def _corrected_after(delivered: pa.Table, year: int) -> set[str]:
    """The tickers for which a vendor corrected a dividend after `year`.

    The factors that earlier deliveries knew follow from a close that is not loaded.
    """
    import pyarrow.compute as pc

    is_later = pc.and_(pc.greater(pc.year(delivered["session"]), year), pc.not_equal(delivered["kind"], SPLIT))
    later = delivered.filter(is_later).select(["ticker", "date", "kind", "value"])
    values = later.group_by(["ticker", "date", "kind"]).aggregate([("value", "count")])
    return set(values.filter(pc.greater(values["value_count"], 1))["ticker"].to_pylist())


def mark_rewrites(lake: Lake, tickers: Sequence[str]) -> None:
    """Write a marker, so that the next run of each of `tickers` computes its whole history."""
    _markers(lake).write(list(tickers))


def pending_rewrites(lake: Lake, tickers: Iterable[str]) -> set[str]:
    """Those of `tickers` whose whole history must be computed, because a killed run was rewriting it.

    All of `tickers` while there is a marker that cannot be read: it may name any ticker.
    """
    asked, marked = set(tickers), set[str]()
    for marker in _markers(lake).read():
        marked |= asked if marker.content is None else asked & marker.content
    return marked


def _clear_rewrites(lake: Lake, done: Iterable[str]) -> None:
    """Remove `done` from the markers under REWRITE_MARKERS.

    A marker with the remaining tickers is written before the old markers are removed. A marker that cannot be read is replaced by
    one with all tickers of the lake except `done`, so it is gone once all of them were computed.
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
    return Markers(lake.storage, REWRITE_MARKERS, _tickers_in)


def _tickers_in(content: object) -> frozenset[str]:
    if not isinstance(content, list) or not all(isinstance(ticker, str) for ticker in content):
        raise ValueError("no list of tickers")
    return frozenset(content)


def _differing(computed: pa.Table, published: pa.Table, years: Sequence[int] | None) -> set[str]:
    """The tickers whose actions of `years` (None: all) differ."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def rows_of(actions: pa.Table) -> set[tuple[object, ...]]:
        if years is not None:
            of_years = pc.is_in(pc.year(actions["ex_date"]), value_set=pa.array(years, pa.int64()))
            actions = actions.filter(of_years)
        return set(zip(*(actions[name].to_pylist() for name in CORPORATE_ACTIONS.column_names), strict=True))

    return {str(row[0]) for row in rows_of(computed) ^ rows_of(published)}
