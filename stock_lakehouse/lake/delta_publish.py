"""Publishing to a Delta table: compare computed and published rows, commit the ticker-years that differ, verify the commit.

Here: the comparison, the announcement in the ledger and the verification. Not here: the commit itself (delta_table.py), the
ledger's lines (ledger.py), and what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from stock_lakehouse.lake.causes import cause_of
from stock_lakehouse.lake.delta_table import DeltaTable, rows_of
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
    partition_folder,
    partition_predicate,
    partition_values,
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


class VersionMovedError(PublishError):
    """The table has another version than the one for which the caller chose what to publish. Nothing was published."""


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
    of_version: int | None = None,
    note: str = "",
) -> Published:
    """Make the table equal to what a run for `rectangle` may publish of `computed`; write only ticker-years that differ.

    `computed`: all rows of the rectangle's tickers; with `within`, those of the ticker-years for which that SQL condition is
    true. `of_version`: the version for which `within` was chosen (None: any). `note`: text for the commit's metadata.

    There is at most one commit. Before it, the ledger gets a line for what will change. The publish can be killed and repeated
    at any point.

    Raises:
    - VersionMovedError if the table has not the version `of_version`.
    - PublishError if other writers keep committing first, or the commit does not hold what was computed.
    - AuditError if the ledger's lines do not conform to its schema.
    - StorageError if the disk is full or the store fails.
    """
    spark = computed.sparkSession
    with named(stored.table.name), one_writer(stored.lake_root, stored.table.name):
        if stored.exists():
            # First of all: adding a column is a commit too, after which orphaned lines would seem valid.
            ledger.drop_orphans(stored.table.name, stored.open())
        stored.prepare()
        for _ in range(COMMIT_ATTEMPTS):
            before = stored.open()
            if of_version not in (None, before.version()):
                raise VersionMovedError(f"{stored.table.name}: version {before.version()} came after {of_version}")
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
            # `publishable` joins the two frames by key. Both can be filtered, because the key determines the year: the
            # predicate is true on both sides or on neither.
            in_pairs = published.where(predicate) if published is not None else None
            wanted = publishable(stored.table, computed.where(predicate), in_pairs, rectangle).select(
                *_in_order(before)
            )
            # The engine's tasks share the rows, and each writes a file of its own for a ticker-year that it has rows of. More
            # files make more tasks of the next publish: without this, a ticker-year grows from one file to five in twenty daily
            # runs. A first publish is faster so too: of staged rows the embedded engine writes one file after another otherwise.
            if stored.table.partition_by:
                wanted = wanted.repartition(*stored.table.partition_by)
            # Lines are also withdrawn before a commit is reverted: the restore is a version too, after which they would seem
            # valid.
            withdraw = partial(ledger.withdraw, run_id, before)
            try:
                if stored.overwrite(wanted, predicate, before.version(), withdraw, note):
                    return _verify(stored, pairs, kinds, before, withdraw)
            except (PublishError, LeaseLostError):
                withdraw()
                raise
            # A writer outside the lock (on another machine) committed first: compare again with its version.
            withdraw()
    raise PublishError(
        f"{stored.table.name}: another writer committed {COMMIT_ATTEMPTS} times while this run compared; "
        "run it again when the other has ended"
    )


def replace(stored: DeltaTable, rows: pa.Table, tickers: Sequence[str], years: Sequence[int] | None = None) -> bool:
    """Replace the table's rows of `tickers` (and `years`, unless None) by `rows`, in one commit; return whether they differed.

    Makes no commit if the rows are equal. Only for small tables without partitions. Raises PublishError if another writer
    commits first.
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
        predicate, row_filter = f"ticker IN ({literals(tickers)})", pc.field("ticker").isin(list(tickers))
        if years is not None:
            predicate, row_filter = (
                f"{predicate} AND year IN ({literals(years)})",
                row_filter & pc.field("year").isin(list(years)),
            )
        names = [field.name for field in opened.schema().fields]
        present = opened.to_pyarrow_dataset().to_table(columns=names, filter=row_filter)
        new = rows.select(names).cast(present.schema)
        order = [(name, "ascending") for name in stored.table.key]
        if new.sort_by(order).equals(present.sort_by(order)):
            return False
        try:
            deltalake.write_deltalake(opened, new, mode="overwrite", predicate=predicate)
        except deltalake.exceptions.CommitFailedError as error:
            raise PublishError(f"{stored.table.name}: another writer came first, run it again: {error}") from error
    return True


def _in_order(opened: deltalake.DeltaTable) -> list[str]:
    """The table's columns in its own order, which replaceWhere requires."""
    return [field.name for field in opened.schema().fields]


def _changes(
    stored: DeltaTable, computed: DataFrame, published: DataFrame | None, rectangle: Rectangle, staging: Staging
) -> DataFrame | None:
    """A row for each row that differs; None if the digests show that none does.

    Columns: the table's key and `year`.
    `kind`: added, corrected or withdrawn.
    `cells`: (column, old, new, cause) of each value that changed; only the column's name where the ledger has a line per ticker.
    """
    from pyspark.sql import functions as F

    if published is None:  # an empty table: nothing to compare with, and rows are only counted
        inside = computed.where(in_keys(stored.table, rectangle))
        return inside.select(*stored.table.key, "year", F.lit("added").alias("kind"), _nothing().alias("cells"))
    pairs = list(differing_partitions(computed, published))
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
    values = (old, new, cause_of(name)) if table.ledger == "values" else (F.lit(None),) * 3
    # Sail keeps a column's comment as metadata of its field, and cannot put structs of several columns into one array if the
    # metadata differ. The result of coalesce has none.
    none = F.lit(None).cast("string")
    texts = (
        F.coalesce(value.cast("string"), none).alias(part)
        for value, part in zip(values, ("old", "new", "cause"), strict=True)
    )
    cell = F.struct(F.lit(name).alias("column"), *texts)
    return F.when(~old.eqNullSafe(new), cell)


def _verify(
    stored: DeltaTable,
    pairs: Sequence[Partition],
    kinds: dict[tuple[str, int | str, str], int],
    before: deltalake.DeltaTable,
    withdraw: Callable[[], None],
) -> Published:
    """Check the commit's row counts against the comparison, because an engine that drops rows reports no error.

    Raises PublishError if they differ, after the table was restored to its version `before`.
    """

    def count(kind: str) -> int:
        return sum(number for (_, _, row_kind), number in kinds.items() if row_kind == kind)

    after = stored.open()
    version = after.version()
    rows_before, rows_after = rows_of(before), rows_of(after)
    expected = {
        values: rows_before.get(values, 0) for values in (partition_values(stored.table, pair) for pair in pairs)
    }
    for (ticker, year, kind), number in kinds.items():
        expected[partition_values(stored.table, (ticker, year))] += {"added": number, "withdrawn": -number}.get(kind, 0)
    for values, rows in expected.items():
        if rows_after.get(values, 0) != rows:
            withdraw()
            after.restore(before.version())
            raise PublishError(
                f"{stored.table.name}: version {version} holds {rows_after.get(values, 0)} rows of "
                f"{partition_folder(stored.table, values)}, not {rows}; the table was restored to version "
                f"{before.version()}, run it again"
            )
    return Published(
        rows=sum(rows_after.get(values, 0) for values in expected),
        partitions=len(pairs),
        added=count("added"),
        corrected=count("corrected"),
        withdrawn=count("withdrawn"),
        version=version,
    )


def _nothing() -> Column:
    """The `cells` of a row without a change of a published value."""
    from pyspark.sql import functions as F

    return F.array().cast("array<struct<column:string,old:string,new:string,cause:string>>")
