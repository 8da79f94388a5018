"""What every published table does alike: which rows of a computed frame a run may publish, and what a publish reports.

Here: the rule, once, for Parquet and Delta. Not here: how a format writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

LONG_LIST = 50

Partition = tuple[str, int | str]  # ticker, year


class PublishError(Exception):
    """A table could not be brought to what was computed; the message says where it stands and what to do."""


@dataclass(frozen=True)
class Published:
    """What a publish did. `rows` are those of the ticker-years it wrote; the others count changed rows."""

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
    """Whether a row of `table` lies in the partition keys of the run."""
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

    Rows inside the run's keys, and rows outside them that are published already (they may be corrected); nothing else, so
    that a partition is in the table only if a run for it was.
    """
    if published is None:
        return computed.where(in_keys(table, rectangle))
    from pyspark.sql import functions as F

    there = published.select(*table.key, F.lit(True).alias("is_published"))
    kept = computed.join(there, list(table.key), "left").where(in_keys(table, rectangle) | F.col("is_published"))
    return kept.select(*computed.columns)


def differing_partitions(computed: DataFrame, published: DataFrame) -> list[Partition]:
    """The ticker-years in which the two frames do not hold the same rows, in ascending order.

    By count and digest: one scan of each frame and no join, so that only what is named here need be compared row by row. Of two
    different ticker-years one in 2^64 has the same digest.
    """
    from pyspark.sql import functions as F

    def digests(frame: DataFrame) -> dict[Partition, tuple[int, int, int]]:
        values = sorted(set(frame.columns) - {"ticker", "year"})
        # Spark's hashes pass over nulls: without the flags (null, 1) and (1, null) are the same.
        row = F.xxhash64(*(part for name in values for part in (F.col(name), F.col(name).isNull())))
        found = (
            frame.select("ticker", "year", row.alias("row"))
            .groupBy("ticker", "year")
            # In halves: the sum of whole hashes leaves 64 bits, an error in ANSI mode.
            .agg(
                F.count("row").alias("rows"),
                F.sum(F.shiftright("row", 32)).alias("high"),
                F.sum(F.col("row").bitwiseAND(0xFFFFFFFF)).alias("low"),
            )
        )
        return {(one["ticker"], one["year"]): (one["rows"], one["high"], one["low"]) for one in found.collect()}

    new, old = digests(computed), digests(published)
    return sorted(pair for pair in new.keys() | old.keys() if new.get(pair) != old.get(pair))


def chunks(table: Table, pairs: Sequence[Partition], bars: int) -> Iterator[Sequence[Partition]]:
    """`pairs` of `table` in groups of about `bars` rows each."""
    size = max(bars // table.rows_a_partition, 1)
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def of_tickers(frame: DataFrame, tickers: Sequence[str]) -> DataFrame:
    """The rows of `tickers` of a table that is folders of plain files.

    A long list is a join: Sail holds it against every file's path, 1.6 s for 500 tickers in 10,500 files. Not for Delta, whose
    log it reads with a list as fast as without.
    """
    import pyarrow as pa
    from pyspark.sql import functions as F

    if len(tickers) <= LONG_LIST:
        return frame.where(F.col("ticker").isin(list(tickers)))
    asked = frame.sparkSession.createDataFrame(pa.table({"ticker": pa.array(sorted(set(tickers)), pa.string())}))
    near = frame.where(F.col("ticker").between(min(tickers), max(tickers)))
    return near.join(F.broadcast(asked), "ticker", "left_semi").select(*frame.columns)


def partition_predicate(pairs: Iterable[Partition]) -> str:
    """SQL that holds exactly for the given (ticker, year) partitions.

    Tickers are safe to quote: settings admit no quote in one.
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


def partition_folder(ticker: str, year: int | str) -> str:
    """The folder of a partition under its table. A caret is written as engines write it; they do not find it otherwise."""
    return f"ticker={ticker.replace('^', '%5E')}/year={year}"


def partition_of(path: str) -> tuple[str, str]:
    """The ticker and year of a file that an engine wrote. Spark on the JVM escapes more characters than Sail does."""
    ticker, year = path.split("/")[-3:-1]
    return unquote(ticker.removeprefix("ticker=")), unquote(year.removeprefix("year="))


def literals(values: Iterable[int | str]) -> str:
    """`values` as SQL writes them inside IN (…). Tickers are safe to quote, see `partition_predicate`."""
    return ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in values)
