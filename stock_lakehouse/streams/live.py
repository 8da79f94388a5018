"""The table live_features: indicators of the running session, by the unchanged registry over daily history and running bar.

Here: which session runs, which tickers are computed anew, and how their rows are replaced. Not here: the bar
(transforms/running_day.py) and the indicators (indicators/).
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import date, datetime
from typing import TYPE_CHECKING

from stock_lakehouse.indicators.registry import readers_of
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.bar_table import FINAL, BarTable
from stock_lakehouse.lake.delta_table import adds_of
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.stored import conformed
from stock_lakehouse.lake.stream_table import StreamTable
from stock_lakehouse.lake.tick_table import EPOCH, instant_of
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.schemas.audit import audit_rows
from stock_lakehouse.tables import LIVE_FEATURES, MINUTE_BARS, with_indicators

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

LIVE = "live"  # a number of the log: how often the rows were replaced; its fence
HISTORY = "live/history"  # and the version of the curated bars that they were computed with
TEND_COMMITS = 60  # between two removals of old versions
# What a row was computed from, beside the history; a doubtful row is none of these states, so it is computed each time.
FACTS = ("ticker", "date", "open", "high", "low", "close", "volume", "as_of", "bar_state", "indicator_spec")


class LiveTable(StreamTable):
    """The table live_features of a lake."""

    def __init__(self, lake: Lake, versions_hours: int) -> None:
        super().__init__(lake.options, with_indicators(LIVE_FEATURES, lake.indicators), versions_hours, LIVE)

    def rows(self) -> pa.Table:
        """All rows, sorted by ticker; none if there is no table."""
        if not self.exists():
            return self.no_rows()
        stored = self.open().to_pyarrow_dataset()
        present = [name for name in self.table.column_names if name in stored.schema.names]
        return conformed(stored.to_table(present), self.table).sort_by("ticker")


def update_live(lake: Lake, versions_hours: int, spark: SparkSession, now: datetime) -> pa.Table:
    """Compute the live features of the newest session with minutes, replace the table's rows in one commit, and return them.

    Rows of tickers whose bar and history have not changed stay as they are. Tickers whose session has a final daily bar have no
    row. May be repeated at any time. Raises AuditError, FencedError, StorageError, TableBusyError.
    """
    table = LiveTable(lake, versions_hours)
    bars = BarTable(lake.options, versions_hours)
    session = _session(lake.options.calendar, bars)
    if session is None:
        return table.no_rows()
    with one_writer(lake.root, LIVE_FEATURES.name):
        table.prepare()
        table.begin()
        version = lake.curated.version()
        wanted = _computed(lake, table, bars, session, spark, version)
        audit_rows(wanted, table.table)
        history = -1 if version is None else version
        if wanted.equals(table.rows()) and table.number(HISTORY) == history:
            return wanted
        count = (table.number(LIVE) or 0) + 1

        def act(handle: deltalake.DeltaTable, properties: deltalake.CommitProperties) -> None:
            import deltalake

            deltalake.write_deltalake(handle, wanted, mode="overwrite", commit_properties=properties)

        table.commit(act, {LIVE: count, HISTORY: history})
        if count % TEND_COMMITS == 0:
            table.remove_old(now)
        return wanted


def _session(calendar: MarketCalendar, bars: BarTable) -> date | None:
    """The newest session with minutes; None if no session has any. `bars` is opened."""
    if not bars.exists():
        return None
    bars.begin()
    days = {date.fromisoformat(str(add["partition.trade_date"])) for add in adds_of(bars.handle)}
    sessions = set(calendar.sessions)
    return max((day for day in days if day in sessions), default=None)


def _computed(
    lake: Lake, table: LiveTable, bars: BarTable, session: date, spark: SparkSession, version: int | None
) -> pa.Table:
    """The rows of `session`, sorted by ticker; those that have not changed as they are stored."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    from pyspark.sql import functions as F

    from stock_lakehouse.transforms.running_day import following, running_bars

    calendar = lake.options.calendar
    opened, closed = calendar.open(session), calendar.close(session)
    of_day = ds.field("trade_date") == pa.scalar(session)
    minutes = bars.handle.to_pyarrow_dataset().to_table([*MINUTE_BARS.column_names], filter=of_day)
    minutes = minutes.cast(MINUTE_BARS.arrow_schema)
    curated = lake.curated.read(spark)
    is_final = (curated["date"] == session) & (curated["bar_status"] == "final")
    final = curated.where(is_final & (curated["year"] == session.year)).select("ticker")
    running = running_bars(spark.createDataFrame(minutes), session, opened, closed).join(final, "ticker", "left_anti")
    found = running.toArrow()
    if not found.num_rows:
        return table.no_rows()
    ended = instant_of(bars.number(FINAL)) or EPOCH
    # The minute of the close is final too, if there is one.
    is_over = ended >= closed and "open" not in minutes["state"].to_pylist()
    state = "closed" if is_over else "running"
    facts = found.append_column("bar_state", pa.array([state] * found.num_rows, pa.string()))
    facts = facts.append_column("indicator_spec", pa.array([lake.indicator_spec] * found.num_rows, pa.string()))
    kept = table.rows() if table.number(HISTORY) == version else table.no_rows()
    schema = pa.schema([table.table.arrow_schema.field(name) for name in FACTS])
    kept = kept.join(facts.select(FACTS).cast(schema), list(FACTS), join_type="left semi").combine_chunks()
    changed = pc.invert(
        pc.is_in(found["ticker"].cast(pa.string()), value_set=pa.array(kept["ticker"].to_pylist(), pa.string()))
    )
    names = found["ticker"].filter(changed).to_pylist()
    parts = [kept]
    if names:
        history = lake.curated.read(spark, tickers=names).where(F.col("date") < F.lit(session))
        bar = following(running.where(running["ticker"].isin(names)), history, _before(calendar, session))
        parts.append(_rows(lake, table, history, bar, state, session, spark))
    return pa.concat_tables([part.cast(table.table.arrow_schema) for part in parts]).sort_by("ticker")


def _before(calendar: MarketCalendar, session: date) -> date | None:
    """The session before `session`."""
    place = bisect_left(calendar.sessions, session)
    return calendar.sessions[place - 1] if place else None


def _rows(
    lake: Lake, table: LiveTable, history: DataFrame, bar: DataFrame, state: str, session: date, spark: SparkSession
) -> pa.Table:
    """A row for each of `bar`; those that are doubtful, and indicators that read the volume of a running session, are null."""
    from pyspark.sql import functions as F

    from stock_lakehouse.transforms.features import features

    names = [indicator.name for indicator in lake.indicators]
    sessions = spark.createDataFrame(lake.options.calendar.table(lake.options.grace))
    inputs = [column for column in bar.columns if column in history.columns]
    sound = bar.where(F.col("doubt").isNull()).select(inputs)
    computed = features(history.select(inputs).unionByName(sound), sessions, lake.indicators, session.year)
    of_session = computed.where(F.col("date") == F.lit(session)).select("ticker", *names)
    following = sessions.select("date", F.col("next_session").alias("tradable_from"))
    unknown = readers_of("volume", lake.indicators) if state == "running" else ()
    rows = bar.join(of_session, "ticker", "left").join(following, "date", "left")
    rows = rows.withColumn("indicator_spec", F.lit(lake.indicator_spec))
    rows = rows.withColumn("bar_state", F.when(F.col("doubt").isNotNull(), "doubtful").otherwise(state))
    types = {column.name: column.type for column in table.table.columns}
    nothing = {name: F.lit(None).cast(types[name]) for name in unknown}
    rows = rows.withColumns(nothing) if nothing else rows
    return conformed(rows.toArrow(), table.table)
