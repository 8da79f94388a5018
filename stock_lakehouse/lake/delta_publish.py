"""Publishing to a Delta table: compare what was computed with what is there, commit the ticker-years that differ, verify.

Here: the comparison, the ledger's announcement and the verification. Not here: the commit itself (delta_table.py), the ledger's
lines (ledger.py), what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from stock_lakehouse.lake.causes import cause_of
from stock_lakehouse.lake.delta_table import DeltaTable, rows_in_order, rows_of
from stock_lakehouse.lake.lease import LeaseLostError
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import (
    Partition,
    Published,
    PublishError,
    chunks,
    differing_partitions,
    in_keys,
    literals,
    partition_predicate,
    publishable,
)
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import named
from stock_lakehouse.partitions import Rectangle
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from stock_lakehouse.lake.ledger import Ledger

COMMIT_ATTEMPTS = 5


def publish(
    stored: DeltaTable,
    computed: DataFrame,
    rectangle: Rectangle,
    staging: Staging,
    ledger: Ledger,
    *,
    run_id: str,
    now: datetime,
    within: str | None = None,
) -> Published:
    """Bring the table to what a run for `rectangle` may publish of `computed`; write only ticker-years that differ.

    `computed` holds all rows of the rectangle's tickers, or those of the ticker-years of which the SQL `within` holds. One
    commit; before it, the ledger says what will change. Safe to kill and repeat at any point.
    Raises PublishError when another writer keeps winning, or the commit does not hold what was computed; AuditError when the
    ledger's lines break its schema; StorageError when the disk is full or the store fails.
    """
    spark = computed.sparkSession
    with named(stored.table.name), one_writer(stored.lake_root, stored.table.name):
        if stored.exists():
            # Before a column is added: that is a commit too, past which a line announced in vain would count.
            ledger.settle(stored.table.name, stored.open())
        stored.prepare()
        for _ in range(COMMIT_ATTEMPTS):
            before = stored.open()
            published = stored.read(spark, rectangle.tickers).where(within or "true") if before.file_uris() else None
            changes = _changes(stored, computed, published, rectangle, staging)
            if changes is None:
                return Published(version=before.version())
            kinds = {
                (row["ticker"], row["year"], row["kind"]): row["count"]
                for row in changes.groupBy("ticker", "year", "kind").count().collect()
            }
            pairs = sorted({(ticker, year) for ticker, year, _ in kinds})
            if not pairs:
                return Published(version=before.version())
            if stored.table.ledger and any(kind != "added" for _, _, kind in kinds):
                ledger.announce(stored.table, changes, staging, run_id=run_id, now=now, before=before)
            predicate = partition_predicate(pairs)
            # The predicate on both sides of the join inside: a year of the key says it of the other side too.
            there = published.where(predicate) if published is not None else None
            wanted = publishable(stored.table, computed.where(predicate), there, rectangle).select(
                *(field.name for field in before.schema().fields)
            )  # replaceWhere wants their order
            # Before a version is taken back, too: past that, a line of it would count.
            retract = partial(ledger.retract, run_id, before)
            try:
                if stored.overwrite(wanted, predicate, before.version(), retract):
                    return _verify(stored, pairs, kinds, before, retract)
            except (PublishError, LeaseLostError):
                retract()
                raise
            # A writer outside the lock (another machine) came first: compare again with what it left.
            retract()
    raise PublishError(
        f"{stored.table.name}: another writer committed {COMMIT_ATTEMPTS} times while this run compared; "
        "run it again when the other has ended"
    )


def replace(stored: DeltaTable, rows: pa.Table, tickers: Sequence[str], years: Sequence[int] | None = None) -> bool:
    """Make `rows` all that the table holds of `tickers`, in `years` if these are given; whether it was a change.

    One commit, or none. For tables of few rows without partitions. Raises PublishError.
    """
    import deltalake
    import deltalake.exceptions
    import pyarrow.compute as pc

    if not tickers:
        return False
    with named(stored.table.name), one_writer(stored.lake_root, stored.table.name):
        stored.prepare()
        confirm(stored.lake_root)
        opened = stored.open()
        mine, own = f"ticker IN ({literals(tickers)})", pc.field("ticker").isin(list(tickers))
        if years is not None:
            mine, own = f"{mine} AND year IN ({literals(years)})", own & pc.field("year").isin(list(years))
        names = [one.name for one in opened.schema().fields]
        new = rows.select(names)
        there = opened.to_pyarrow_dataset().to_table(columns=names, filter=own)
        if rows_in_order(new) == rows_in_order(there):
            return False
        try:
            deltalake.write_deltalake(opened, new, mode="overwrite", predicate=mine)
        except deltalake.exceptions.CommitFailedError as error:
            raise PublishError(f"{stored.table.name}: another writer came first, run it again: {error}") from error
    return True


def _in_order(opened: deltalake.DeltaTable) -> list[str]:
    """replaceWhere wants the table's columns in the table's order."""
    return [field.name for field in opened.schema().fields]


def _changes(
    stored: DeltaTable, computed: DataFrame, published: DataFrame | None, rectangle: Rectangle, staging: Staging
) -> DataFrame | None:
    """A row for each row that differs, None if surely none does: ticker, year, date, kind (added, corrected, withdrawn)
    and what changed.

    `cells` holds (column, old, new, cause) of each value that changed; where the ledger keeps a line a ticker, names only.
    """
    from pyspark.sql import functions as F

    if published is None:  # nothing to compare with, and the rows are only counted
        inside = computed.where(in_keys(stored.table, rectangle))
        return inside.select(*stored.table.key, "year", F.lit("added").alias("kind"), _nothing().alias("cells"))
    pairs = differing_partitions(computed, published)
    compared = [
        _compared(stored.table, computed.where(predicate), published.where(predicate), rectangle)
        for predicate in map(partition_predicate, chunks(stored.table, pairs, stored.bars_per_chunk))
    ]
    return staging.stage(*compared) if compared else None


def _compared(table: Table, computed: DataFrame, published: DataFrame, rectangle: Rectangle) -> DataFrame:
    """`_changes` of the two frames, row by row."""
    from pyspark.sql import functions as F

    values = [name for name in table.column_names if name not in (*table.key, "year")]
    key = [*table.key, "year"]
    new = computed.select(*key, F.struct(*values).alias("new"), F.lit(True).alias("is_computed"))
    old = published.select(*key, F.struct(*values).alias("old"), F.lit(True).alias("is_published"))
    kind = (
        F.when(F.col("is_published").isNull(), "added")
        .when(F.col("is_computed").isNull(), "withdrawn")
        .otherwise("corrected")
    )
    differs = F.col("is_published").isNull() | F.col("is_computed").isNull() | ~F.col("new").eqNullSafe(F.col("old"))
    both = new.join(old, key, "full").where(differs).where(in_keys(table, rectangle) | F.col("is_published"))
    cells = F.array_compact(F.array(*(_cell(table, name) for name in values if name not in table.provenance)))
    return both.select(
        *key, kind.alias("kind"), F.when(F.col("is_published"), cells).otherwise(_nothing()).alias("cells")
    )


def _cell(table: Table, name: str) -> Column:
    from pyspark.sql import functions as F

    old, new = F.col(f"old.{name}"), F.col(f"new.{name}")
    said = (old, new, cause_of(name)) if table.ledger == "values" else (F.lit(None),) * 3
    texts = (one.cast("string").alias(part) for one, part in zip(said, ("old", "new", "cause"), strict=True))
    cell = F.struct(F.lit(name).alias("column"), *texts)
    return F.when(~old.eqNullSafe(new), cell)


def _verify(
    stored: DeltaTable,
    pairs: Sequence[Partition],
    kinds: dict[tuple[str, int | str, str], int],
    before: deltalake.DeltaTable,
    retract: Callable[[], None],
) -> Published:
    """Hold the commit's own row counts against what the comparison said: an engine that drops rows says nothing."""

    def count(kind: str) -> int:
        return sum(number for (_, _, one), number in kinds.items() if one == kind)

    after = stored.open()
    version = after.version()
    rows_before, rows_after = rows_of(before), rows_of(after)
    for pair in pairs:
        expected = rows_before.get(pair, 0) + kinds.get((*pair, "added"), 0) - kinds.get((*pair, "withdrawn"), 0)
        if rows_after.get(pair, 0) != expected:
            retract()
            after.restore(before.version())
            raise PublishError(
                f"{stored.table.name}: version {version} holds {rows_after.get(pair, 0)} rows of {pair}, not "
                f"{expected}; the table was put back to version {before.version()}, run it again"
            )
    return Published(
        rows=sum(rows_after.get(pair, 0) for pair in pairs),
        partitions=len(pairs),
        added=count("added"),
        corrected=count("corrected"),
        withdrawn=count("withdrawn"),
        version=version,
    )


def _nothing() -> Column:
    """The `cells` of a row of which no published value changed."""
    from pyspark.sql import functions as F

    return F.array().cast("array<struct<column:string,old:string,new:string,cause:string>>")
