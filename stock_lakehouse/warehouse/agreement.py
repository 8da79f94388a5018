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

    - counted: ticker-years whose rows were counted
    - compared: ticker-years whose checksums were compared
    - version: of the lake's table
    - drifts
    - settled: loads of which every ticker-year was found equal, and which `loaded_years` does not call so yet
    """

    table: NativeTable
    version: int
    counted: int = 0
    compared: int = 0
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
      have not been found equal since they were loaded
    """
    found = Comparison(table, version.number, counted=len(loaded.keys() | counts.keys()))

    def drift(pair: TickerYear, what: str, lake: int | None = None) -> None:
        rows = version.rows(pair) if lake is None else lake
        found.drifts.append(Drift(table.name, *pair, rows, counts.get(pair), what))

    outdated = changes(version, loaded)
    for change in outdated:
        missing = NOT_LOADED if change.pair not in loaded else OTHER_FILES
        drift(change.pair, WITHDRAWN if change.files is None else missing)
    wanted = loaded.keys() - {change.pair for change in outdated}
    for pair in sorted(counts.keys() - loaded.keys() - {change.pair for change in outdated}):
        drift(pair, WITHDRAWN, 0)
    if checksums is None:
        wanted = {pair for pair in wanted if not loaded[pair].agreed}
    of_lake = lake_checksums(table, version, wanted)
    found.compared = len(wanted)
    for pair in sorted(loaded.keys() - {change.pair for change in outdated}):
        lake = of_lake.get(pair)
        told = loaded[pair].checksum if checksums is None else checksums.get(pair)
        if counts.get(pair, 0) != (loaded[pair].checksum.rows if lake is None else lake.rows):
            drift(pair, OTHER_ROWS, loaded[pair].checksum.rows if lake is None else lake.rows)
        elif pair in wanted and lake != told:
            drift(pair, OTHER_VALUES, None if lake is None else lake.rows)
    unsettled = {
        loaded[drift.ticker, drift.year].load_id for drift in found.drifts if (drift.ticker, drift.year) in loaded
    }
    found.settled = sorted({of.load_id for of in loaded.values() if not of.agreed} - unsettled)
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
