"""Whether the warehouse has the rows of the lake: counts and checksums by Redshift's SQL, and by DuckDB over the lake's files.

Here: the comparison. Not here: the checksum (checksum.py), and loading what differs (load.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from stock_lakehouse.lake.serving import ServedYear, parts_of_year
from stock_lakehouse.lake.stored import TickerYear, conformed
from stock_lakehouse.warehouse.changes import LoadedYear, Version, changes
from stock_lakehouse.warehouse.checksum import DUCKDB, Checksum, checksums_sql
from stock_lakehouse.warehouse.tables import NativeTable

# What differs, as a drift says it.
NOT_LOADED = "not loaded"
OTHER_FILES = "loaded from other files than the lake has"
WITHDRAWN = "the lake has it no longer"
OTHER_ROWS = "another number of rows"
OTHER_VALUES = "other values"
TO_DO = (
    "`stock-lakehouse warehouse --repair` compares all rows and loads the ticker-years that differ again; so does the next run "
    "after this check failed"
)


@dataclass(frozen=True)
class Drift:
    """A ticker-year that differs.

    - table: the native table
    - lake, warehouse: the rows that each has; None if the lake's log does not say, or if the warehouse has none
    - what: what differs
    """

    table: str
    ticker: str
    year: int
    lake: int | None
    warehouse: int | None
    what: str

    def as_json(self) -> dict[str, Any]:
        """For a table of metadata."""
        rows = {
            name: "-" if count is None else count
            for name, count in (("lake", self.lake), ("warehouse", self.warehouse))
        }
        return {"table": self.table, "ticker": self.ticker, "year": self.year, **rows, "what": self.what}

    def __str__(self) -> str:
        counts = (f"{count:,}" if count is not None else "no" for count in (self.lake, self.warehouse))
        lake, warehouse = counts
        return f"{self.table} {self.ticker} {self.year}: {self.what}; rows in the lake: {lake}, in the warehouse: {warehouse}"


@dataclass
class Comparison:
    """What a comparison found of one table.

    - version: of the lake's table
    - counted: ticker-years whose rows were counted; rows: how many these are
    - compared: ticker-years whose checksums were compared
    - drifts
    - settled: loads of which every ticker-year was found equal, and which `loaded_years` does not call so yet
    """

    table: NativeTable
    version: int
    counted: int = 0
    compared: int = 0
    rows: int = 0
    drifts: list[Drift] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> list[TickerYear]:
        """The ticker-years that differ."""
        return [(drift.ticker, drift.year) for drift in self.drifts]


def compare(
    table: NativeTable,
    version: Version,
    loaded: Mapping[TickerYear, LoadedYear],
    counts: Mapping[TickerYear, int],
    checksums: Mapping[TickerYear, Checksum] | None,
) -> Comparison:
    """Compare a native table with a version of the lake's table.

    - loaded: what `loaded_years` says
    - counts: the rows that the table has
    - checksums: of the rows that the table has, by Redshift; None: those of `loaded` are taken, and only of ticker-years that
      have not been found equal since they were loaded, or were loaded from other files
    """
    found = Comparison(table, version.number, len(loaded.keys() | counts.keys()), rows=sum(counts.values()))

    def drift(pair: TickerYear, what: str, lake: int | None) -> None:
        found.drifts.append(Drift(table.name, *pair, lake, counts.get(pair), what))

    outdated = {change.pair: change for change in changes(version, loaded)}
    withdrawn = {pair for pair, change in outdated.items() if change.files is None}
    for pair in withdrawn | (counts.keys() - loaded.keys() - outdated.keys()):
        drift(pair, WITHDRAWN, 0)
    for pair in outdated.keys() - loaded.keys():
        drift(pair, NOT_LOADED, version.rows(pair))
    # Other files may have the same rows, as after a compaction.
    wanted = {
        pair
        for pair in loaded.keys() - withdrawn
        if checksums is not None or pair in outdated or not loaded[pair].agreed
    }
    of_lake = lake_checksums(table, version, wanted)
    found.compared = len(wanted)
    for pair in loaded.keys() - withdrawn:
        lake = of_lake.get(pair) if pair in wanted else loaded[pair].checksum
        told = loaded[pair].checksum if checksums is None else checksums.get(pair)
        rows = 0 if lake is None else lake.rows
        if rows != counts.get(pair, 0):
            drift(pair, OTHER_FILES if pair in outdated else OTHER_ROWS, rows)
        elif lake != told:
            drift(pair, OTHER_FILES if pair in outdated else OTHER_VALUES, rows)
    differing = {loaded[pair].load_id for pair in found.pairs if pair in loaded}
    found.settled = sorted({of.load_id for of in loaded.values() if not of.agreed} - differing)
    found.drifts.sort(key=lambda drift: (drift.year, drift.ticker))
    return found


def lake_checksums(table: NativeTable, version: Version, pairs: Collection[TickerYear]) -> dict[TickerYear, Checksum]:
    """The checksums of the ticker-years `pairs` of a version, by DuckDB over the table's data files.

    `bars_per_chunk` bounds the rows in memory. Raises StorageError, UnservedError if a file is missing or damaged.
    """
    import duckdb
    import pyarrow as pa

    tickers_of: dict[int, set[str]] = {}
    for ticker, year in pairs:
        tickers_of.setdefault(year, set()).add(ticker)
    found: dict[TickerYear, Checksum] = {}
    if version.opened is None:
        return found
    schema = pa.schema([(item.name, item.type) for item in pa.schema(version.opened.schema().to_arrow())])
    text = checksums_sql(table.columns, "rows_of_lake", DUCKDB)
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        for year, tickers in sorted(tickers_of.items()):
            of_year = ServedYear(year, "", version.files(year, tickers))
            for part in parts_of_year(version.stored, version.opened, of_year, schema):
                database.register("rows_of_lake", conformed(part, table.source))
                for ticker, of, rows, first, second in database.execute(text).fetchall():
                    if of == year and ticker in tickers:
                        found[ticker, of] = Checksum(rows, first, second)
                database.unregister("rows_of_lake")
    return found
