"""What a catalog should have of a lake: a table input for each stored table and serving copy, partitions, statistics.

Here: forms and partitions, as data, from entries.py, listings and logs. Not here: the calls to Glue (glue.py).

Partitions are real: partition projection loses, without an error, the rows of a ticker whose folder has an escaped name
(`ticker=BAC%5EB`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stock_lakehouse.catalog.entries import (
    OWNER,
    Entry,
    State,
    entry_of,
    files_of,
    restated,
    state_of,
    state_of_files,
    tables_in,
)
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.publish import partition_of
from stock_lakehouse.lake.raw_files import FILE_COLUMNS
from stock_lakehouse.lake.serving import FOLDER, SERVED, ServingCopy, served_name
from stock_lakehouse.lake.storage import File
from stock_lakehouse.tables import RAW, Table

Values = tuple[str, ...]  # of a partition, in the order of the partition keys

HIVE, MAPRED = "org.apache.hadoop.hive", "org.apache.hadoop.mapred"


@dataclass(frozen=True)
class Form:
    """How Glue says that a table is stored: input and output format, serializer and its parameters, the table's parameters."""

    reads: str
    writes: str
    serde: str
    serde_parameters: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


FORMS = {
    "csv": Form(
        f"{MAPRED}.TextInputFormat",
        f"{HIVE}.ql.io.HiveIgnoreKeyTextOutputFormat",
        f"{HIVE}.serde2.OpenCSVSerde",
        {"escapeChar": '"'},  # a quote in quoted text is doubled
        {"classification": "csv", "skip.header.line.count": "1"},
    ),
    "parquet": Form(
        f"{HIVE}.ql.io.parquet.MapredParquetInputFormat",
        f"{HIVE}.ql.io.parquet.MapredParquetOutputFormat",
        f"{HIVE}.ql.io.parquet.serde.ParquetHiveSerDe",
        {"serialization.format": "1"},
        {"classification": "parquet"},
    ),
    # The formats are those that Glue's crawlers give a Delta table; its readers take columns and files from the Delta log.
    "delta": Form(
        f"{MAPRED}.SequenceFileInputFormat",
        f"{HIVE}.ql.io.HiveSequenceFileOutputFormat",
        f"{HIVE}.serde2.lazy.LazySimpleSerDe",
        {"serialization.format": "1"},
        # Athena knows a Delta table by the first, Trino and Spark by the second. With the first alone Trino reads no rows, and
        # raises no error.
        {"classification": "delta", "table_type": "DELTA", "spark.sql.sources.provider": "delta"},
    ),
}
# In the file, raw's second column is the year, which is also the partition key, and no two columns may have one name.
YEAR_IN_FILE = "year_in_file"
LONGEST_DESCRIPTION = 2048


@dataclass(frozen=True)
class Registration:
    """What Glue should have of a table.

    - wanted: the TableInput, without statistics
    - partitions: the place of each partition; None for a table that has none in Glue. Readers of a Delta table take its
      partitions from its log
    - state: for the statistics
    - is_serving_copy: True for the serving copy of a table
    - left_out: files that are in no partition: raw files of the layout by ticker
    """

    wanted: Mapping[str, Any]
    partitions: Mapping[Values, str] | None
    state: State
    is_serving_copy: bool = False
    left_out: int = 0

    @property
    def name(self) -> str:
        return str(self.wanted["Name"])

    @cached_property
    def partition_form(self) -> dict[str, Any]:
        """The storage descriptor of each partition, without its place."""
        storage = dict(self.wanted["StorageDescriptor"])
        del storage["Location"]
        return storage

    @cached_property
    def storage_digest(self) -> str:
        """A digest of `partition_form`: a partition with another digest was written for other columns."""
        return digest_of(self.partition_form)

    @property
    def partitions_digest(self) -> str:
        return digest_of([self.storage_digest, sorted((self.partitions or {}).items())])


def prepare(lake: Lake) -> None:
    """Prepare `lake` for engines that know only its files and logs.

    Creates the Delta tables that have no version yet, removes orphaned lines of the ledger, and writes missing files of the
    serving copy. Raises StorageError, TableBusyError, LayoutError, SchemaEvolutionError.
    """
    for stored in lake.delta.values():
        if not stored.exists():
            with one_writer(lake.root, stored.table.name):
                stored.prepare()
    lake.ledger.settle(restated(lake))
    copy = ServingCopy(lake)
    for table in SERVED:
        copy.refresh(table)


def registrations_of(lake: Lake) -> list[Registration]:
    """What Glue should have of `lake`: every stored table, and the serving copy of those that have one. Writes nothing.

    A table of the stream is registered once it exists: a query of a registered table without a Delta log would fail.
    """
    tables = [_registration(lake, table) for table in tables_in(lake)]
    return [*tables, *(_served_registration(lake, table) for table in SERVED)]


def _registration(lake: Lake, table: Table) -> Registration:
    wanted = table_input(entry_of(lake, table.name))
    if table.format == "delta":
        return Registration(wanted, None, state_of(lake, table.name))
    files, keys = files_of(lake, table.name), len(wanted["PartitionKeys"])
    # Raw files of the layout by ticker have one value more. A partition has one place, so they cannot be in those of the others.
    registered = [file for file in files if len(partition_of(file.path)) == keys]
    partitions = _partitions_of(lake, registered)
    return Registration(wanted, partitions, state_of_files(files), left_out=len(files) - len(registered))


def _served_registration(lake: Lake, table: Table) -> Registration:
    stored, folder = lake.delta[table.name], f"{FOLDER}/{table.name}"
    served = ServingCopy(lake).served(table, stored.snapshot()) if stored.exists() else []
    sizes = {file.path: file.size for file in lake.storage.walk(folder)}
    state = State(
        rows=sum(year.rows for year in served),
        files=len(served),
        bytes=sum(sizes.get(year.path, 0) for year in served),
        partitions=len(served),
    )
    places: dict[Values, str] = {(str(year.year),): lake.storage.uri(year.path.rpartition("/")[0]) for year in served}
    return Registration(table_input(entry_of(lake, table.name), lake.storage.uri(folder)), places, state, True)


def _partitions_of(lake: Lake, files: Sequence[File]) -> dict[Values, str]:
    """The place of each partition, by the lake's own listing and never by its values: engines escape them in different ways."""
    return {partition_of(file.path): lake.storage.uri(file.path.rpartition("/")[0]) for file in files}


def table_input(entry: Entry, served_at: str | None = None) -> dict[str, Any]:
    """The TableInput of a table, without statistics.

    `served_at`: the place of its serving copy, which is to be registered instead: plain Parquet by year, for engines without
    Delta.
    """
    table = entry.table
    kind = table.format if served_at is None else "parquet"
    form, location = FORMS[kind], served_at or entry.location
    keys: Sequence[str] = table.partition_by if served_at is None else ("year",)
    if kind == "delta":
        keys = ()  # the log says what is partitioned
    described = {
        column.name: {"Name": column.name, "Type": column.type, "Comment": column.comment} for column in table.columns
    }
    columns = [column for name, column in described.items() if name not in keys]
    if table.name == RAW.name:
        columns = _in_order_of_file(described)
    description = table.description
    if served_at is not None:
        description = f"Serving copy of {table.name}, one Parquet file per year: {description}"
    description = description[:LONGEST_DESCRIPTION]
    made_from = (table.name,) if served_at is not None else table.made_from
    named = {"lakehouse.key": ", ".join(table.key), "lakehouse.made_from": ", ".join(made_from)}
    facts = {name: value for name, value in named.items() if value}
    serde = {**form.serde_parameters, **({"path": location} if kind == "delta" else {})}
    return {
        "Name": table.name if served_at is None else served_name(table),
        "Description": description,
        "Owner": OWNER,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [described[name] for name in keys],
        "Parameters": {"EXTERNAL": "TRUE", "comment": description, **facts, **form.parameters},
        "StorageDescriptor": {
            "Columns": columns,
            "Location": location,
            "InputFormat": form.reads,
            "OutputFormat": form.writes,
            "SerdeInfo": {"SerializationLibrary": form.serde, "Parameters": serde},
        },
    }


def _in_order_of_file(described: Mapping[str, dict[str, str]]) -> list[dict[str, str]]:
    """Raw's columns as its files have them, because CSV is read by position."""
    year = {"Name": YEAR_IN_FILE, "Type": "string", "Comment": "The year as the file itself gives it; equal to year"}
    return [year if name == "year" else described[name] for name in FILE_COLUMNS]


def digest_of(content: Any) -> str:
    """A short digest of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
