"""The ledger: published values that later changed, and why.

Here: its lines, which are written before the commit that they announce, and which lines are orphaned. Not here: how a change
is found (delta_publish.py), and the rules of its cause (causes.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from stock_lakehouse.lake.causes import OF_HISTORIES, causes_of_features
from stock_lakehouse.lake.delta_table import DeltaTable, adds_of
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.schemas.audit import audit
from stock_lakehouse.tables import RESTATEMENTS, Table

if TYPE_CHECKING:
    import deltalake
    from pyspark.sql import Column, DataFrame, SparkSession

LOOSE = 16  # a table's lines are joined when they are in this many files


class Ledger:
    """The table `restatements`.

    Lines are written before the commit that they announce, and name the table and the version that the commit replaces. A line
    is valid once the table is past that version. Until then it is orphaned: readers skip the orphaned lines of a killed run, and
    the next publish removes them. Lines of a table that was later moved away and rebuilt stay.
    """

    def __init__(self, stored: DeltaTable) -> None:
        self.stored = stored

    def announce(
        self,
        table: Table,
        changes: DataFrame,
        staging: Staging,
        *,
        run_id: str,
        now: datetime,
        before: deltalake.DeltaTable,
    ) -> None:
        """Write the lines for `changes`, which a publish will commit on top of the version `before`.

        If the table's ledger is of values: a line per value, or per ticker and column where whole histories change. Else a line
        per ticker. Raises AuditError, and writes nothing, if a line does not conform to the ledger's schema.
        """
        from pyspark.sql import functions as F

        lines = (
            _lines_of_values(changes) if table.ledger == "values" else self._lines_of_tickers(table, changes, run_id)
        )
        lines = staging.stage(
            lines.withColumns(
                {
                    "table_name": F.lit(table.name),
                    "run_id": F.lit(run_id),
                    "restated_at": F.lit(now).cast("timestamp"),
                    "table_id": F.lit(str(before.metadata().id)),
                    "from_version": F.lit(before.version()).cast("bigint"),
                }
            ).select(*RESTATEMENTS.column_names)
        )
        audit(lines, RESTATEMENTS)
        with one_writer(self.stored.lake_root, RESTATEMENTS.name):
            self.stored.prepare()
            self._join_files()
            self.stored.append(lines)

    def _join_files(self) -> None:
        """Join the ledger's files if a table's lines are in LOOSE of them. The caller must hold the ledger's lock.

        Each run that restates adds a file for each table, and each run reads all of them several times: without this, a run
        after a year of daily runs opens hundreds of files, until the next upkeep. Raises PublishError if lines are lost.
        """
        opened = self.stored.open()
        before = adds_of(opened)
        if max(Counter(add["partition.table_name"] for add in before).values(), default=0) < LOOSE:
            return
        version = opened.version()
        opened.optimize.compact()
        joined = self.stored.open()
        if sum(add["num_records"] for add in adds_of(joined)) != sum(add["num_records"] for add in before):
            joined.restore(version)
            raise PublishError(f"{RESTATEMENTS.name}: compaction lost lines and was taken back; please report it")

    def _lines_of_tickers(self, table: Table, changes: DataFrame, run_id: str) -> DataFrame:
        from pyspark.sql import functions as F

        def first(kind: str) -> Column:
            return F.min(F.when(F.col("kind") == kind, F.col("date"))).alias(kind)

        restated = changes.where("kind <> 'added'").withColumn("cell", F.explode("cells"))
        by_ticker = restated.groupBy("ticker").agg(
            F.min("date").alias("first"), F.max("date").alias("last"), F.collect_set("cell.column").alias("columns"),
            F.countDistinct("date").alias("rows"),
            F.max((F.col("kind") == "corrected") & (F.col("cell.column") == "indicator_spec")).alias("respecified"),
        )  # fmt: skip
        added_and_withdrawn = changes.groupBy("ticker").agg(first("added"), first("withdrawn"))
        summaries = by_ticker.join(added_and_withdrawn, "ticker").collect()
        of_bars = self._causes_upstream(table, changes.sparkSession, [row["ticker"] for row in summaries], run_id)
        rows = [
            (
                row["ticker"], row["first"], ",".join(sorted(row["columns"])), None, None, row["rows"],
                causes_of_features(
                    row["respecified"], row["last"], row["added"], row["withdrawn"], of_bars.get(row["ticker"], ())
                ),
            )
            for row in summaries
        ]  # fmt: skip
        ddl = "ticker string, date date, columns string, old string, new string, rows bigint, cause string"
        return changes.sparkSession.createDataFrame(rows, ddl)

    def _causes_upstream(
        self, table: Table, spark: SparkSession, tickers: Sequence[str], run_id: str
    ) -> dict[str, set[str]]:
        """The causes for which the upstream rows of `table` changed, by ticker.

        Those of this run; if it changed no upstream rows of a ticker, those of the run that last changed them, which may have
        been killed before it published `table`.
        """
        from pyspark.sql import functions as F

        of_upstream = (F.col("table_name").isin(*table.made_from)) & F.col("cause").isNotNull()
        lines = self.stored.read(spark, tickers).where(of_upstream).groupBy("ticker", "run_id", "cause")
        newest: dict[str, tuple[tuple[bool, datetime], str]] = {}
        causes: dict[tuple[str, str], set[str]] = {}
        for row in lines.agg(F.max("restated_at").alias("at")).collect():
            ticker, of_run = row["ticker"], row["run_id"]
            causes.setdefault((ticker, of_run), set()).add(row["cause"])
            newest[ticker] = max(
                newest.get(ticker, ((False, row["at"]), of_run)), ((of_run == run_id, row["at"]), of_run)
            )
        return {ticker: causes[ticker, of_run] for ticker, (_, of_run) in newest.items()}

    def orphans(self, table_name: str, present: deltalake.DeltaTable) -> int:
        """The number of orphaned lines of a table: those that announce a commit on top of its present version or a later one.

        While a run publishes the table, the lines of its own commit are among them.
        """
        import pyarrow.compute as pc

        if not self.stored.exists():
            return 0
        opened = self.stored.snapshot()
        if not _may_have_orphans(opened, table_name, present.version()):
            return 0
        is_orphaned = (pc.field("table_id") == str(present.metadata().id)) & (
            pc.field("from_version") >= present.version()
        )
        return int(opened.to_pyarrow_dataset().count_rows(filter=is_orphaned))

    def settle(self, tables: Sequence[DeltaTable]) -> None:
        """Remove the orphaned lines of `tables`, for readers that cannot tell them from others, such as SQL engines.

        Waits for a run that publishes a table with orphaned lines: its commit may make them valid. Raises TableBusyError.
        """
        for table in tables:
            name = table.table.name
            if table.exists() and self.orphans(name, table.snapshot()):
                with one_writer(table.lake_root, name):
                    self.drop_orphans(name, table.snapshot())

    def drop_orphans(self, table_name: str, present: deltalake.DeltaTable) -> None:
        """Remove the orphaned lines of a table: those that announce a commit on top of its present version or a later one.

        The caller must hold the lock of the table.
        """
        if not self.stored.exists():
            return
        with one_writer(self.stored.lake_root, RESTATEMENTS.name):
            opened = self.stored.open()
            if _may_have_orphans(opened, table_name, present.version()):
                opened.delete(f"table_id = '{present.metadata().id}' AND from_version >= {present.version()}")

    def withdraw(self, run_id: str, before: deltalake.DeltaTable) -> None:
        """Remove the lines that this run announced for a commit on top of `before` which failed."""
        with one_writer(self.stored.lake_root, RESTATEMENTS.name):
            if self.stored.exists():
                announced = (
                    f"table_id = '{before.metadata().id}' AND from_version = {before.version()} AND run_id = '{run_id}'"
                )
                self.stored.open().delete(announced)

    def read(self, spark: SparkSession, tables: Sequence[DeltaTable]) -> DataFrame:
        """The lines that are not orphaned, given the present versions of `tables`."""
        from pyspark.sql import functions as F

        is_orphaned = F.lit(False)
        for table in tables:
            if table.exists():
                present = table.snapshot()
                of_table = F.col("table_id") == str(present.metadata().id)
                is_orphaned = is_orphaned | (of_table & (F.col("from_version") >= present.version()))
        return self.stored.read(spark).where(~is_orphaned)


def _may_have_orphans(ledger: deltalake.DeltaTable, table_name: str, version: int) -> bool:
    """Whether a file of the ledger may hold lines of `table_name` for a commit on top of `version` or later, by the log."""
    return any(
        add["partition.table_name"] == table_name and (add["max.from_version"] or 0) >= version
        for add in adds_of(ledger)
    )


def _lines_of_values(changes: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    cells = changes.where("kind <> 'added'").select("ticker", "date", F.explode("cells").alias("cell"))
    cells = cells.select("ticker", "date", F.col("cell.column").alias("columns"), "cell.old", "cell.new", "cell.cause")
    of_history = F.col("cause").isin(*OF_HISTORIES)
    single = cells.where(~of_history).withColumn("rows", F.lit(1).cast("bigint"))
    by_column = (
        cells.where(of_history)
        .groupBy("ticker", "columns", "cause")
        .agg(F.min(F.struct("date", "old", "new")).alias("first"), F.count("date").alias("rows"))
    )
    names = ("ticker", "date", "columns", "old", "new", "rows", "cause")
    return single.select(*names).unionByName(by_column.select("*", "first.*").select(*names))
