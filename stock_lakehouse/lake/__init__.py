"""The lake: its tables under one root, as plain objects. How a table is read and published; no Dagster here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_table import DeltaTable, Ledger
from stock_lakehouse.lake.parquet_table import ParquetTable
from stock_lakehouse.lake.raw_csv import RawCsv
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, QUARANTINE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class Lake:
    """Every table of the lake at `root`."""

    def __init__(self, root: Path, tickers_per_write: int = 25) -> None:
        self.root = root
        self.raw = RawCsv(root)
        self.processed = ParquetTable(root, PROCESSED, tickers_per_write)
        self.quarantine = ParquetTable(root, QUARANTINE, tickers_per_write)
        self.curated = DeltaTable(root, CURATED)
        self.features = DeltaTable(root, FEATURES)
        self.ledger = Ledger(root)

    def delta(self, name: str) -> DeltaTable:
        """The Delta table of that name."""
        return {CURATED.name: self.curated, FEATURES.name: self.features}[name]

    def restatements(self, spark: SparkSession) -> DataFrame:
        """The ledger's lines whose commit came."""
        return self.ledger.read(spark, {table.table.name: table.version() for table in (self.curated, self.features)})
