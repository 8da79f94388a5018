"""What all published tables have in common: which rows of a computed frame a run may publish, and what a publish reports.

Here: the rules for Parquet and Delta alike. Not here: how a format writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import Table, layout_named

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

LONG_LIST = 50

Partition = tuple[str, int | str]  # ticker, year


class PublishError(Exception):
    """A table could not be made equal to what was computed. The message says which state it is in and what to do."""


class LayoutError(PublishError):
    """A table of the lake has another layout than the settings say. The message names the command that moves it."""


@dataclass(frozen=True)
class Published:
    """The result of a publish.

    `rows`: rows of the ticker-years that were written; of a Delta table, of the partitions that they are in.
    `partitions`: ticker-years that were written.
    `added`, `corrected`, `withdrawn`: changed rows, by kind.
    `version`: the Delta version after the publish; None for Parquet.
    """

    rows: int = 0
    partitions: int = 0
    added: int = 0
    corrected: int = 0
    withdrawn: int = 0
    version: int | None = None

    @property
    def changed(self) -> bool:
        return self.partitions > 0


def in_keys(table: Table, rectangle: Rectangle) -> Column:
    """A condition: whether a row of `table` lies inside the partition keys of the run."""
    from pyspark.sql import functions as F

    session = F.col(table.session)
    days = (
        session.between(F.lit(rectangle.first), F.lit(rectangle.last))
        if rectangle.is_consecutive
        else session.isin(list(rectangle.sessions))
    )
    return F.col("ticker").isin(list(rectangle.tickers)) & days


def publishable(table: Table, computed: DataFrame, published: DataFrame | None, rectangle: Rectangle) -> DataFrame:
    """The rows of `computed` that `table` should hold after the run.

    These are the rows inside the run's partition keys, and those outside that are published already, which may be corrected. No
    other rows are included, so that a partition is in the table only after a run for it.
    """
    if published is None:
        return computed.where(in_keys(table, rectangle))
    from pyspark.sql import functions as F

    keys = published.select(*table.key, F.lit(True).alias("is_published"))
    kept = computed.join(keys, list(table.key), "left").where(in_keys(table, rectangle) | F.col("is_published"))
    return kept.select(*computed.columns)


def publishable_rows(table: Table, computed: pa.Table, published: pa.Table, rectangle: Rectangle) -> pa.Table:
    """`publishable` of rows in memory."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    session = computed[table.session]
    if rectangle.is_consecutive:
        in_days = pc.and_(pc.greater_equal(session, rectangle.first), pc.less_equal(session, rectangle.last))
    else:
        in_days = pc.is_in(session, pa.array(rectangle.sessions, session.type))
    is_inside = pc.and_(pc.is_in(computed["ticker"], pa.array(rectangle.tickers, pa.string())), in_days)
    is_inside = pc.fill_null(is_inside, False)
    if pc.all(is_inside).as_py():
        return computed
    key, place = list(table.key), pa.array(np.arange(computed.num_rows))
    indexed = computed.select(key).append_column("place", place)
    known = indexed.join(published.select(key), key, join_type="left semi")["place"]
    return computed.filter(pc.or_(is_inside, pc.is_in(place, known.combine_chunks())))


def differing_partitions(computed: DataFrame, published: DataFrame | None) -> dict[Partition, tuple[int, int]]:
    """The ticker-years in which the two frames do not hold the same rows, in ascending order, with the rows of each frame.

    `published`: None if there are no published rows.

    Row counts and digests are compared, which takes one scan of each frame and no join; only the ticker-years returned need a
    comparison row by row. Two different ticker-years have the same digest with a probability of 1 in 2^64.
    """
    from pyspark.sql import functions as F

    def digests(frame: DataFrame) -> dict[Partition, tuple[int, int, int]]:
        values = sorted(set(frame.columns) - {"ticker", "year"})
        # Spark's hashes skip nulls: without the flags (null, 1) and (1, null) would have the same hash.
        row = F.xxhash64(*(part for name in values for part in (F.col(name), F.col(name).isNull())))
        by_partition = (
            frame.select("ticker", "year", row.alias("row"))
            .groupBy("ticker", "year")
            # The halves are summed apart: a sum of whole hashes overflows 64 bits, which is an error in ANSI mode.
            .agg(
                F.count("row").alias("rows"),
                F.sum(F.shiftright("row", 32)).alias("high"),
                F.sum(F.col("row").bitwiseAND(0xFFFFFFFF)).alias("low"),
            )
        )
        return {
            (digest["ticker"], digest["year"]): (digest["rows"], digest["high"], digest["low"])
            for digest in by_partition.collect()
        }

    new, old = digests(computed), {} if published is None else digests(published)
    none = (0, 0, 0)
    return {
        pair: (new.get(pair, none)[0], old.get(pair, none)[0])
        for pair in sorted(new.keys() | old.keys())
        if new.get(pair) != old.get(pair)
    }


def chunks(table: Table, pairs: Sequence[Partition], bars: int) -> Iterator[Sequence[Partition]]:
    """`pairs`, ticker-years of `table`, in groups of about `bars` rows each, so that a group touches few partitions."""
    size = max(bars // table.rows_a_partition, 1)
    ordered = sorted(pairs, key=lambda pair: partition_values(table, pair))
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


def of_tickers(frame: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The rows of `tickers` of a table of plain files in partition folders.

    A long list becomes a join: Sail compares each entry of an IN list with every file's path, which takes 1.6 s for 500 tickers
    in 10,500 files. Delta tables do not need this: Sail reads their log as fast with a list as without.
    """
    import pyarrow as pa
    from pyspark.sql import functions as F

    if len(tickers) <= LONG_LIST:
        return frame.where(F.col("ticker").isin(list(tickers)))
    wanted = frame.sparkSession.createDataFrame(pa.table({"ticker": pa.array(sorted(set(tickers)), pa.string())}))
    in_range = frame.where(F.col("ticker").between(min(tickers), max(tickers)))
    return in_range.join(F.broadcast(wanted), "ticker", "left_semi").select(*frame.columns)


def partition_predicate(pairs: Iterable[Partition]) -> str:
    """An SQL condition that is true exactly for the rows of the given (ticker, year) partitions.

    Tickers are safe to quote: the settings allow no quote in a ticker.
    """
    tickers_of: dict[int | str, list[str]] = {}
    for ticker, year in sorted(pairs, key=lambda pair: (str(pair[1]), pair[0])):
        tickers_of.setdefault(year, []).append(ticker)
    years_of: dict[tuple[str, ...], list[int | str]] = {}
    for year, tickers in tickers_of.items():
        years_of.setdefault(tuple(tickers), []).append(year)
    return " OR ".join(
        f"(ticker IN ({literals(tickers)}) AND year IN ({literals(years)}))" for tickers, years in years_of.items()
    )


def partition_values(table: Table, pair: Partition) -> tuple[int | str, ...]:
    """The values of the partition columns of `table` for the rows of the ticker-year `pair`."""
    ticker, year = pair
    return tuple(ticker if name == "ticker" else year for name in table.partition_by)


def partition_folder(table: Table, values: Sequence[int | str]) -> str:
    """The folder of a partition under its table. A caret is escaped as engines do; they do not find the folder otherwise."""
    pairs = zip(table.partition_by, values, strict=True)
    return "/".join(f"{name}={str(value).replace('^', '%5E')}" for name, value in pairs)


def partition_of(path: str) -> tuple[str, ...]:
    """The partition values of a file that an engine wrote: ticker and year, or the year alone, as the table's layout is.

    JVM Spark escapes more characters in a path than Sail does.
    """
    folders = path.split("/")[-3:-1]
    return tuple(unquote(folder.partition("=")[2]) for folder in folders if folder.startswith(("ticker=", "year=")))


def sort_columns(table: Table) -> list[str]:
    """The columns by which the rows of a file of `table` are sorted: one ticker's rows are neighbours."""
    return [name for name in ("ticker", "year", "date", "ingested_at") if name in table.column_names]


def check_layout(table: Table, stored: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Raise LayoutError unless the partition columns `stored` of a table on disk are those `wanted` by the settings."""
    if stored != wanted:
        layout = layout_named(stored)
        raise LayoutError(
            f'{table.name} has layout "{layout}" on disk and the settings say layout = "{layout_named(wanted)}": run '
            f'`stock-lakehouse layout` to move the lake, or set layout = "{layout}"'
        )


def literals(values: Iterable[int | str]) -> str:
    """`values` as SQL literals for IN (…). Tickers are safe to quote, see `partition_predicate`."""
    return ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in values)
