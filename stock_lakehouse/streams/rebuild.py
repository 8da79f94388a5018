"""Bars beside what their ticks say. Not here: what a bar is (transforms/minute_bars.py)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake.bar_table import FINAL, BarTable
from stock_lakehouse.lake.tick_table import EPOCH, KEY, TickTable, instant_of
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.transforms.minute_bars import READ, minute_bars_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
