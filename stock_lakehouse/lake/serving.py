"""The serving copy: the rows of curated bars and of features again, in one Parquet file per year, for readers of all tickers.

The tables have a file per ticker and year, and opening 10,500 files takes longer than reading their rows. A file of the copy is
named by what it holds: its folder is a digest of the year's data files. So it is never stale and never changed, readers and
writers need no lock, and whoever misses a file writes it.

Here: the names, contents and removal of these files. Not here: which step makes them (layers/step.py), SQL on them (sql/), their
registration in a catalog (catalog/).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.history import file_name
from stock_lakehouse.lake.storage import named, storage_at
from stock_lakehouse.tables import CURATED, FEATURES, Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa

    from stock_lakehouse.lake import Lake

SERVED = (CURATED, FEATURES)
FOLDER = "serving"
FILE = "data.parquet"
FORM = 1  # of the files; another number makes all of them anew
ORDER = ("ticker", "date")
# A reader of one ticker decodes one row group of each year. Smaller groups compress worse.
ROWS_A_GROUP = 20_000
DIGEST_LENGTH = 24


def served_name(table: Table) -> str:
    """The name under which a catalog has the serving copy of `table`."""
    return f"{table.name}_served"


@dataclass(frozen=True)
class ServedYear:
    """What a file of the serving copy holds.

    - year
    - path: of the file, under the copy's folder or the lake's root
    - rows: the number of rows, by the table's log
    """

    year: int
    path: str
    rows: int


class ServingCopy:
    """The serving copy of one lake.

    - folder: the folder that has the files instead of the lake's own `serving/`. A reader of a lake on S3 keeps its files there.

    The columns of a file are those of the table's version, in the order of its log.
    """

    def __init__(self, lake: Lake, folder: Path | None = None) -> None:
        self.lake = lake
        self.storage = lake.storage if folder is None else storage_at(folder)
        self._prefix = f"{FOLDER}/" if folder is None else ""

    def refresh(self, table: Table, years: Iterable[int] | None = None) -> list[str]:
        """Write the files of the present version of `table` that are missing; return their paths or URIs.

        `years`: only of these years (None: of all). No file if the table does not exist. Raises StorageError.
        """
        stored = self.lake.delta[table.name]
        if not stored.exists():
            return []
        return self._make(table, stored.open(), years)

    def files(self, table: Table, opened: deltalake.DeltaTable) -> dict[int, str]:
        """The path or URI of the file of each year of the version `opened` of `table`, written if it is missing.

        Empty if the version has no rows. Raises StorageError.
        """
        self._make(table, opened, None)
        return {served.year: self.storage.uri(served.path) for served in self.served(table, opened)}

    def present(self, table: Table, opened: deltalake.DeltaTable) -> dict[int, str | None]:
        """The path or URI of the file of each year of the version `opened`; None where it is missing. Writes nothing."""
        stored = {file.path for file in self.storage.walk(f"{self._prefix}{table.name}")}
        return {
            served.year: self.storage.uri(served.path) if served.path in stored else None
            for served in self.served(table, opened)
        }

    def served(self, table: Table, opened: deltalake.DeltaTable) -> list[ServedYear]:
        """What the files of the version `opened` hold, by year, ascending. Only the log is read."""
        import pyarrow as pa

        adds = pa.table(opened.get_add_actions(flatten=True))
        paths: dict[int, list[str]] = {}
        rows: dict[int, int] = {}
        for path, year, count in zip(
            *(adds[name].to_pylist() for name in ("path", "partition.year", "num_records")), strict=True
        ):
            paths.setdefault(year, []).append(file_name(path))
            rows[year] = rows.get(year, 0) + count
        fields = json.loads(opened.schema().to_json())["fields"]
        columns = [[field["name"], field["type"]] for field in fields]
        identity = str(opened.metadata().id)
        return [
            ServedYear(
                year,
                f"{self._prefix}{table.name}/year={year}/{_digest(identity, columns, paths[year])}/{FILE}",
                rows[year],
            )
            for year in sorted(paths)
            if rows[year]
        ]

    def _make(self, table: Table, opened: deltalake.DeltaTable, years: Iterable[int] | None) -> list[str]:
        wanted = None if years is None else set(years)
        present = self.present(table, opened)
        written = []
        with named(served_name(table)):
            for served in self.served(table, opened):
                if present[served.year] is None and (wanted is None or served.year in wanted):
                    self._write(served.path, _rows(opened, served.year))
                    written.append(self.storage.uri(served.path))
        return written

    def _write(self, path: str, rows: pa.Table) -> None:
        try:
            self.storage.create(path, _as_parquet(rows))
        except FileExistsError:
            return  # another process wrote the same rows meanwhile


def _digest(identity: str, columns: list[Any], paths: Iterable[str]) -> str:
    """The name of what a file holds: the table, its columns and the data files of the year."""
    content = json.dumps([FORM, identity, columns, sorted(paths)])
    return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]


def _rows(opened: deltalake.DeltaTable, year: int) -> pa.Table:
    """The rows of `year`, sorted. The log gives the values of partition columns, and nulls for columns that a file lacks."""
    # Only the fragments of the year are made: those of 10,500 files take seconds.
    dataset = opened.to_pyarrow_dataset(file_pruning_predicate=[("year", "=", str(year))])
    return dataset.to_table().sort_by([(name, "ascending") for name in ORDER])


def _as_parquet(rows: pa.Table) -> bytes:
    import pyarrow.parquet as pq

    content = BytesIO()
    pq.write_table(rows, content, compression="zstd", row_group_size=ROWS_A_GROUP)
    return content.getvalue()
