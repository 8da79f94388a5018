"""The lake: its tables under one root, as plain objects. How a table is read and published; no Dagster here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.ledger import Ledger
from stock_lakehouse.lake.parquet_table import ParquetTable
from stock_lakehouse.lake.raw_csv import RawCsv
from stock_lakehouse.lake.storage import LakeRoot, storage_at
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import (
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    PROCESSED_ACTIONS,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
    TABLES,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class Lake:
    """Every table of the lake that `options` describe; of a root alone, a folder or s3://bucket/prefix, with the defaults."""

    def __init__(self, options: LakeOptions | LakeRoot) -> None:
        self.options = LakeOptions.of(options)
        self.root = self.options.lake_root
        self.storage = storage_at(self.root)
        self.raw = RawCsv(self.root)
        self.processed = ParquetTable(self.options, PROCESSED)
        self.quarantine = ParquetTable(self.options, QUARANTINE)
        self.processed_actions = DeltaTable(self.options, PROCESSED_ACTIONS)
        self.curated = DeltaTable(self.options, CURATED)
        self.corporate_actions = DeltaTable(self.options, CORPORATE_ACTIONS)
        self.features = DeltaTable(self.options, FEATURES)
        self.ledger = Ledger(self.options)

    def read(self, name: str, spark: SparkSession) -> DataFrame:
        """All rows of the table of that name; of the ledger those whose commit came. Raises KeyError for no such table."""
        if name == RESTATEMENTS.name:
            return self.restatements(spark)
        return self._stored[name].read(spark)

    def sizes(self, name: str) -> list[int]:
        """Bytes of each file that the table of that name consists of."""
        stored = self._stored[name]
        if isinstance(stored, DeltaTable):
            return stored.sizes()
        return [file.size for file in stored.files()]

    def marks(self) -> set[tuple[str, str]]:
        """Every data file with its mark: the same before and after means that nothing was written."""
        return {(file.path, file.mark) for table in TABLES for file in self.storage.walk(table.path)}

    def version(self, name: str) -> int | None:
        """The version of the Delta table of that name; None for other formats and before its first publish."""
        stored = self._stored[name]
        return stored.version() if isinstance(stored, DeltaTable) else None

    def stored(self, name: str) -> RawCsv | ParquetTable | DeltaTable:
        """The table of that name, as it is stored."""
        return self._stored[name]

    @property
    def _stored(self) -> dict[str, RawCsv | ParquetTable | DeltaTable]:
        return {
            RAW.name: self.raw,
            PROCESSED.name: self.processed,
            QUARANTINE.name: self.quarantine,
            PROCESSED_ACTIONS.name: self.processed_actions,
            CURATED.name: self.curated,
            CORPORATE_ACTIONS.name: self.corporate_actions,
            FEATURES.name: self.features,
            RESTATEMENTS.name: self.ledger.stored,
        }

    def delta(self, name: str) -> DeltaTable:
        """The Delta table of that name."""
        return {CURATED.name: self.curated, FEATURES.name: self.features}[name]

    def restatements(self, spark: SparkSession) -> DataFrame:
        """The ledger's lines whose commit came."""
        return self.ledger.read(spark, (self.curated, self.features))
