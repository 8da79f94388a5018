"""Which ticker-years of a native table differ from the lake's: the files of each in the present version against `loaded_years`.

Here: that comparison, from the table's log. Not here: rows and their checksums (agreement.py). No earlier version is needed, so
retention, compaction, a restored and a rebuilt table are all the same: other files are loaded again, with whatever rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.delta_table import DeltaTable, adds_of
from stock_lakehouse.lake.history import file_name
from stock_lakehouse.lake.stored import TickerYear, tickers_in
from stock_lakehouse.warehouse.checksum import Checksum

if TYPE_CHECKING:
    import deltalake


@dataclass(frozen=True)
class LoadedYear:
    """A row of `loaded_years`: a ticker-year as it was loaded.

    - files: the digest of the lake's files, as `Version.digest` has it
    - checksum: of the rows, by Redshift when it loaded them
    - version: of the lake's table
    - load_id: of the load
    - agreed: whether a comparison has found the rows equal to the lake's since
    """

    files: str
    checksum: Checksum
    version: int
    load_id: str
    agreed: bool


@dataclass(frozen=True)
class Change:
    """A ticker-year to be loaded. `files`: the digest of its files; None if the lake has it no longer."""

    ticker: str
    year: int
    files: str | None

    @property
    def pair(self) -> TickerYear:
        return self.ticker, self.year


class Version:
    """The present version of a table of the lake, and of which files each ticker-year is.

    - stored
    - opened: None before the first publish
    - number: -1 before the first publish
    """

    def __init__(self, stored: DeltaTable) -> None:
        self.stored = stored
        self.opened: deltalake.DeltaTable | None = stored.snapshot() if stored.exists() else None
        self.number = -1 if self.opened is None else self.opened.version()
        # What makes a digest besides files: another table at the same place, and a new column, which old files lack.
        self._form: list[Any] = []
        self._adds: dict[tuple[str | None, int], list[dict[str, Any]]] = {}
        if self.opened is None:
            return
        fields = json.loads(self.opened.schema().to_json())["fields"]
        self._form = [str(self.opened.metadata().id), [(field["name"], field["type"]) for field in fields]]
        for add in adds_of(self.opened):
            if add["num_records"]:
                self._adds.setdefault((add.get("partition.ticker"), add["partition.year"]), []).append(add)

    def without_years_before(self, year: int) -> None:
        """Leave out the years before `year`."""
        self._adds = {key: adds for key, adds in self._adds.items() if key[1] >= year}

    @property
    def has_moved(self) -> bool:
        """Whether the table has another version by now."""
        return self.stored.version() != (None if self.opened is None else self.number)

    @property
    def years(self) -> list[int]:
        """The years that have rows, ascending."""
        return sorted({year for _, year in self._adds})

    def files(self, year: int, tickers: Collection[str] | None = None) -> list[dict[str, Any]]:
        """The data files of a year, as the log has them. `tickers`: without files that have rows of others alone."""
        return [
            add
            for (ticker, of_year), adds in self._adds.items()
            if of_year == year and (tickers is None or ticker is None or ticker in tickers)
            for add in adds
        ]

    def rows(self, pair: TickerYear) -> int | None:
        """The number of rows of a ticker-year by the log; None if the log knows those of its year alone."""
        if not self.is_by_ticker:
            return None
        return sum(int(add["num_records"]) for add in self._adds.get(pair, ()))

    @property
    def is_by_ticker(self) -> bool:
        """Whether each file has rows of one ticker."""
        return all(ticker is not None for ticker, _ in self._adds)

    def digest(self, pair: TickerYear) -> str | None:
        """A digest of the files with the rows of a ticker-year, the table's id and its columns; None if there are none."""
        adds = self._adds.get(pair) or self._adds.get((None, pair[1]))
        if not adds:
            return None
        content = json.dumps([*self._form, sorted(add["path"] for add in adds)])
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def pairs(self, years: Collection[int] | None = None) -> Iterator[TickerYear]:
        """The ticker-years of `years` (None: of all). With files of all tickers of a year, their column `ticker` is read."""
        for (ticker, year), adds in self._adds.items():
            if years is not None and year not in years:
                continue
            if ticker is not None:
                yield ticker, year
                continue
            found: set[str] = set()
            for add in adds:
                path = f"{self.stored.table.path}/{file_name(add['path'])}"
                found |= tickers_in(self.stored.lake_root, path, "")
            yield from ((name, year) for name in found)


def changes(
    version: Version, loaded: Mapping[TickerYear, LoadedYear], again: Collection[TickerYear] = ()
) -> list[Change]:
    """The ticker-years to be loaded: those whose files are others than `loaded` says, those not there, and those withdrawn.

    `again`: ticker-years that are among them in any case.
    """
    digests: dict[int, set[str]] = {}
    for (_, year), of_pair in loaded.items():
        digests.setdefault(year, set()).add(of_pair.files)
    asked = {year for _, year in again}
    # With files of all tickers of a year, its ticker-years have one digest and are loaded together: one look is enough.
    years = {
        year
        for year in version.years
        if version.is_by_ticker or year in asked or digests.get(year) != {version.digest(("", year))}
    }
    present = set(version.pairs(years))
    found = [
        Change(*pair, version.digest(pair))
        for pair in present
        if pair in again or pair not in loaded or loaded[pair].files != version.digest(pair)
    ]
    looked_at = years | asked | (digests.keys() - set(version.years))
    gone = [Change(*pair, None) for pair in {*loaded, *again} if pair[1] in looked_at and pair not in present]
    return sorted([*found, *gone], key=lambda change: (change.year, change.ticker))
