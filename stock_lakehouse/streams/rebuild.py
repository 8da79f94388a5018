"""Bars beside what their ticks say, and bars computed again from them. Not here: what a bar is (transforms/minute_bars.py)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake.bar_table import BARS, FINAL, BarTable
from stock_lakehouse.lake.tick_table import EPOCH, KEY, TickTable, instant_of, microseconds_of
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.transforms.minute_bars import READ, minute_bars_of

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from stock_lakehouse.lake.bar_table import Compute


def rebuild_bars(ticks: TickTable, bars: BarTable, compute: Compute, days: Collection[date] | None = None) -> int:
    """Compute the bars of `days` (None: of all) whose ticks are there, and replace them day by day; return the number of bars.

    The caller holds the stream's lock. May be killed and repeated. Bars of days without ticks, which were removed, stay as they
    are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    total, watermark = 0, ticks.watermark
    minutes = ticks.minutes_since(0)
    if watermark is None or not minutes.num_rows:
        return 0
    for day in sorted(pc.unique(minutes["trade_date"]).to_pylist()):
        if days is not None and day not in days:
            continue
        of_day = minutes.filter(pc.equal(minutes["trade_date"], pa.scalar(day)))
        found = compute(ticks.ticks_of(of_day), watermark)
        bars.begin()

        def act(
            handle: deltalake.DeltaTable,
            properties: deltalake.CommitProperties,
            rows: pa.Table = found,
            predicate: str = f"trade_date = DATE '{day}'",
        ) -> None:
            import deltalake

            deltalake.write_deltalake(handle, rows, mode="overwrite", predicate=predicate, commit_properties=properties)

        bars.commit(act, {BARS: ticks.batch, FINAL: microseconds_of(watermark)})
        total += found.num_rows
    return total


def differing_days(ticks: TickTable, bars: BarTable) -> set[date]:
    """The days of which ticks are there, and bars stand for another number of them. `bars` is opened."""
    counts, found = ticks.ticks_by_day(), bars.ticks_by_day()
    return {day for day, count in counts.items() if count != found.get(day, 0)}


def differing_minutes(
    options: LakeOptions, versions_hours: int, spark: SparkSession, count: int
) -> tuple[int, list[tuple[str, datetime]]]:
    """How many bars were compared, and those of them that differ in any bit from what their ticks say: the newest `count`.

    The ticks of batches that are not in the bars yet are left out, so a runner may be at work.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    ticks, bars = TickTable(options, versions_hours), BarTable(options, versions_hours)
    if not bars.exists():
        return 0, []
    bars.begin()
    ticks.begin()  # later: it has every batch that the bars have
    schema = bars.table.arrow_schema
    days = sorted(set(bars.days()))
    if ticks.first_kept is not None:
        days = [day for day in days if day >= ticks.first_kept]
    if not days:
        return 0, []
    stored = bars.handle.to_pyarrow_dataset().to_table(
        [*bars.table.column_names], filter=ds.field("trade_date") == pa.scalar(days[-1])
    )
    newest = stored.cast(schema).sort_by([("minute", "descending"), ("ticker", "ascending")]).slice(0, count)
    found = ticks.ticks_of(newest.select([*KEY]))
    # Of a minute that a later batch touched too, the bar may be older than what is left of its ticks (`stream retry`).
    later = found.filter(pc.greater(found["batch"], bars.batch)).select(["ticker", "minute"])
    if later.num_rows:
        newest = newest.join(later, ["ticker", "minute"], join_type="left anti")
        found = found.join(later, ["ticker", "minute"], join_type="left anti")
    if not newest.num_rows:
        return 0, []
    watermark = instant_of(bars.number(FINAL)) or EPOCH
    now = minute_bars_of(spark.createDataFrame(found.select(READ)), watermark).toArrow().cast(schema)
    computed = {(row["ticker"], row["minute"]): _bits(row) for row in now.to_pylist()}
    wrong = [
        (row["ticker"], row["minute"])
        for row in newest.to_pylist()
        if computed.get((row["ticker"], row["minute"])) != _bits(row)
    ]
    return newest.num_rows, sorted(wrong)


def _bits(row: dict[str, object]) -> dict[str, object]:
    """`row` with doubles as the text of their bits."""
    return {name: value.hex() if isinstance(value, float) else value for name, value in row.items()}
