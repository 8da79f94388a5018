"""The lake: its tables under one root, as plain objects. Reading and publishing of tables; no Dagster here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stock_lakehouse.indicators.own import own_indicators, read_source
from stock_lakehouse.indicators.registry import INDICATORS, Indicator, indicator_spec
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.ledger import Ledger
from stock_lakehouse.lake.parquet_table import ParquetTable
from stock_lakehouse.lake.raw_csv import RawCsv
from stock_lakehouse.lake.storage import LakeRoot, storage_at
from stock_lakehouse.lake.stored import StoredTable
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.tables import (
    BY_NAME,
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    PROCESSED_ACTIONS,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
    STREAM_TABLES,
    TABLES,
    with_indicators,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class Lake:
    """All tables of a lake.

    - options: the lake's options; or only its root, a folder or s3://bucket/prefix, which then has the defaults.
    - own_source: the text of the file `options.indicators` (None: it is read). A Databricks job does not have the file.

    Raises IndicatorError if the file of own indicators cannot be used.
    """

    def __init__(self, options: LakeOptions | LakeRoot, own_source: str | None = None) -> None:
        self.options = LakeOptions.of(options)
        file = self.options.indicators
        self.own_source = own_source if own_source is not None or file is None else read_source(file)
        own = () if self.own_source is None else own_indicators(str(file), self.own_source)
        self.indicators: tuple[Indicator, ...] = (*INDICATORS, *own)
        self.root = self.options.lake_root
        self.storage = storage_at(self.root)
        self.raw = RawCsv(self.root)
        self.parquet = {table.name: ParquetTable(self.options, table) for table in TABLES if table.format == "parquet"}
        self.delta = {
            table.name: DeltaTable(self.options, with_indicators(table, self.indicators))
            for table in TABLES
            if table.format == "delta"
        }
        # Beside the others: runs, upkeep and audits of the lake's tables do not concern them.
        self.stream = {
            table.name: DeltaTable(self.options, with_indicators(table, self.indicators)) for table in STREAM_TABLES
        }
        self.ledger = Ledger(self.delta[RESTATEMENTS.name])
        self._stored: dict[str, StoredTable] = {RAW.name: self.raw, **self.parquet, **self.delta}

    @property
    def processed(self) -> ParquetTable:
        return self.parquet[PROCESSED.name]

    @property
    def quarantine(self) -> ParquetTable:
        return self.parquet[QUARANTINE.name]

    @property
    def processed_actions(self) -> DeltaTable:
        return self.delta[PROCESSED_ACTIONS.name]

    @property
    def curated(self) -> DeltaTable:
        return self.delta[CURATED.name]

    @property
    def corporate_actions(self) -> DeltaTable:
        return self.delta[CORPORATE_ACTIONS.name]

    @property
    def features(self) -> DeltaTable:
        return self.delta[FEATURES.name]

    @property
    def indicator_spec(self) -> str:
        """The version of all formulas that the lake computes now."""
        return indicator_spec(self.indicators)

    def stored(self, name: str) -> StoredTable:
        """The stored table `name`. Raises KeyError if there is no such table."""
        return self.stream[name] if name in self.stream else self._stored[name]

    def stream_tables(self) -> list[DeltaTable]:
        """The tables of the stream that exist: none in a lake without a stream. Raises StorageError."""
        return [stored for stored in self.stream.values() if stored.exists()]

    def read(self, name: str, spark: SparkSession) -> DataFrame:
        """All rows of the table `name`; of the ledger, without orphaned lines. Raises KeyError if there is no such table."""
        if name == RESTATEMENTS.name:
            return self.restatements(spark)
        return self._stored[name].read(spark)

    def restatements(self, spark: SparkSession) -> DataFrame:
        """The ledger's lines, without orphaned ones."""
        return self.ledger.read(spark, [self.delta[table.name] for table in TABLES if table.ledger])

    def check(self, *names: str) -> None:
        """Raise StorageError if the lake cannot be reached, or one of the tables `names` (none: all) may not be listed."""
        needed = set(names or BY_NAME)
        if RESTATEMENTS.name in needed:
            # The versions of the restated tables decide which lines of the ledger are orphaned.
            needed |= {table.name for table in TABLES if table.ledger}
        self.storage.check(self.stored(name).table.path for name in sorted(needed))

    def version_tags(self) -> set[tuple[str, str]]:
        """Path and version tag of every data file. If the set has not changed, nothing was written."""
        folders = (stored.table.path for stored in self._stored.values())
        return {file.identity for folder in folders for file in self.storage.walk(folder)}

    def check_layout(self) -> None:
        """Raise LayoutError if a table has another layout on disk than the options say: a run would have to mix the two."""
        for parquet in self.parquet.values():
            parquet.check_layout()
        for delta in self.delta.values():
            delta.check_layout()
