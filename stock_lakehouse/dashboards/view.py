"""A view: the lake at one moment, as the page asks it. And the views that a server gives out while the lake changes.

Here: which versions are shown, and their rows. Not here: what is asked of them (questions.py), and routes (server.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from stock_lakehouse.clock import Clock
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import add_actions
from stock_lakehouse.lake.history import LOG, snapshot_at
from stock_lakehouse.lake.reading import has_rows_at
from stock_lakehouse.lake.serving import SERVED, ServedYear, ServingCopy, UnservedError, reading_copy
from stock_lakehouse.lake.storage import LakeError, StorageError, storage_error
from stock_lakehouse.lake.storage.messages import first_line
from stock_lakehouse.lake.stored import conformed
from stock_lakehouse.market_calendar import CalendarError, utc_now
from stock_lakehouse.tables import CURATED, Table

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa

    from stock_lakehouse.warehouse.load import Warehouse

log = logging.getLogger(__name__)
# The tables that somebody needs to be allowed to read who looks at charts.
SHOWN = tuple(table.name for table in SERVED)
KEPT = 8  # views of the past that a server keeps open
WAIT_SECONDS = 0.5  # for a serving copy that is being made; then the asker is told how far it is
DIGEST_LENGTH = 24


class DamagedError(LakeError):
    """A file of a shown table is missing or damaged. The message says what to do."""


class PreparingError(Exception):
    """The serving copy of the asked view is being made. The message says how far it is; ask again."""


@dataclass(frozen=True)
class Span:
    """The first and the last session of a table; None of a table without rows."""

    first: date | None
    last: date | None


class View:
    """The lake at one moment: the versions of curated bars and features that are shown.

    - lake
    - serving: the serving copy whose files it reads; where a file is missing, the table's own files are read
    - as_of: the moment of which it is; None: now
    - clock: the time, by which the newest session is expected
    - warehouse: the native tables of this lake; None if there are none
    - notice: why the serving copy cannot be made; None if it can

    Raises NoVersionError if `as_of` is before the lake's first version that can be read; StorageError.
    """

    def __init__(
        self,
        lake: Lake,
        serving: ServingCopy | None = None,
        as_of: datetime | None = None,
        clock: Clock = utc_now,
        warehouse: Warehouse | None = None,
    ) -> None:
        self.lake = lake
        self.warehouse = warehouse
        self.serving = serving or ServingCopy(lake)
        self.as_of = as_of
        self.clock = clock
        self.notice: str | None = None
        self.opened: dict[str, deltalake.DeltaTable | None] = {table.name: self.open(table) for table in SERVED}
        self._served: dict[str, list[ServedYear]] = {}

    def open(self, table: Table) -> deltalake.DeltaTable | None:
        """The version of `table` that the view shows; None if there is none yet."""
        if not has_rows_at(self.lake, table.name, self.as_of):
            return None
        return snapshot_at(self.lake.delta[table.name], self.as_of)

    @cached_property
    def digest(self) -> str:
        """A text that changes when the shown versions change."""
        shown = [
            [name, *(() if opened is None else (str(opened.metadata().id), opened.version()))]
            for name, opened in self.opened.items()
        ]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:DIGEST_LENGTH]

    @property
    def versions(self) -> dict[str, int | None]:
        """The version of each shown table; None where there is no table."""
        return {name: None if opened is None else opened.version() for name, opened in self.opened.items()}

    @cached_property
    def ticker_years(self) -> Mapping[str, tuple[int, int]]:
        """The first and the last year of each ticker that has curated bars, by ticker."""
        opened = self.opened[CURATED.name]
        found: dict[str, tuple[int, int]] = {}
        for ticker, year in () if opened is None else self.lake.curated.ticker_years(opened=opened):
            first, last = found.get(ticker, (year, year))
            found[ticker] = (min(first, year), max(last, year))
        return dict(sorted(found.items()))

    @cached_property
    def spans(self) -> Mapping[str, Span]:
        """The first and the last session of each shown table, by its log."""
        found = {}
        for name, opened in self.opened.items():
            adds = None if opened is None else add_actions(opened)
            dates = [
                [] if adds is None or column not in adds.column_names else adds[column].drop_null().to_pylist()
                for column in ("min.date", "max.date")
            ]
            found[name] = Span(min(dates[0], default=None), max(dates[1], default=None))
        return found

    @property
    def expected(self) -> date | None:
        """The newest session that the lake should have by the calendar and the settings; None outside the calendar."""
        options = self.lake.options
        try:
            finished = options.calendar.latest_finished(self.as_of or self.clock(), options.grace)
        except CalendarError:
            return None
        return min(finished, options.last_date or finished)

    def rows(
        self,
        table: Table,
        columns: Sequence[str],
        years: Collection[int] | None = None,
        tickers: Collection[str] | None = None,
    ) -> pa.Table:
        """`columns`, in this order, of the rows of `years` and `tickers` (None: all), in no particular order.

        `table`: CURATED or FEATURES. A column that the shown version lacks is null. No rows if there is no such table. Raises
        DamagedError, StorageError.
        """
        stored, opened = self.lake.delta[table.name].table, self.opened[table.name]
        fields = {column.name: column for column in stored.columns}
        wanted = replace(stored, columns=tuple(fields[name] for name in columns))
        if opened is None:
            return wanted.arrow_schema.empty_table()
        served = self._from_serving(table, opened, columns, years, tickers)
        return conformed(self._from_table(table, opened, columns, years, tickers) if served is None else served, wanted)

    def prepare(self) -> None:
        """Make the files of the serving copy that are missing. Raises UnservedError, StorageError."""
        for table in SERVED:
            if (opened := self.opened[table.name]) is not None:
                self.serving.files(table, opened)

    def _from_serving(
        self,
        table: Table,
        opened: deltalake.DeltaTable,
        columns: Sequence[str],
        years: Collection[int] | None,
        tickers: Collection[str] | None,
    ) -> pa.Table | None:
        """The rows from the serving copy; None if a file is missing."""
        if table.name not in self._served:
            self._served[table.name] = self.serving.served(table, opened)
        served = [year for year in self._served[table.name] if years is None or year.year in years]
        if not served:
            return None
        try:
            return self.serving.rows_of(served, columns, tickers)
        except (OSError, ValueError):  # pyarrow raises both for a file that is missing or damaged
            return None

    def _from_table(
        self,
        table: Table,
        opened: deltalake.DeltaTable,
        columns: Sequence[str],
        years: Collection[int] | None,
        tickers: Collection[str] | None,
    ) -> pa.Table:
        import pyarrow.compute as pc

        # The log's files are narrowed down first: a dataset of 10,500 files is slow to make. By year alone, whatever the layout.
        of_years = None if years is None else [("year", "in", [str(year) for year in sorted(years)])]
        wanted = None if tickers is None else pc.field("ticker").isin(sorted(tickers))
        try:
            dataset = opened.to_pyarrow_dataset(partitions=of_years)
            present = [name for name in columns if name in dataset.schema.names]
            return dataset.to_table(columns=present, filter=wanted)
        except (OSError, ValueError) as error:  # pyarrow raises both for a file that is missing or damaged
            if failure := storage_error(table.path, error):
                raise failure from error
            raise DamagedError(
                f"{table.name}: a file cannot be read ({first_line(error)}); `stock-lakehouse upkeep` names the damaged files"
            ) from error


class Views:
    """The views of one lake that a server gives out.

    - lake
    - cache: the setting `serving_cache`
    - clock
    - tell: called with a line of text when a serving copy is being made, and when it cannot be made
    - warehouse: as View has it

    The present view is opened again when the log of one of its tables has changed. Safe for several threads.
    """

    def __init__(
        self,
        lake: Lake,
        cache: Path | None = None,
        clock: Clock = utc_now,
        tell: Callable[[str], None] = log.info,
        warehouse: Warehouse | None = None,
    ) -> None:
        self.lake = lake
        self.warehouse = warehouse
        self.serving = reading_copy(lake, cache, self._told)
        self.clock = clock
        self._tell = tell
        self._lock = Lock()
        self._kept: OrderedDict[tuple[datetime | None, frozenset[tuple[str, str]]], View] = OrderedDict()
        self._making: dict[str, Future[None]] = {}
        self._made: set[str] = set()
        # One at a time: two views of neighbouring versions need the same files.
        self._maker = ThreadPoolExecutor(1, "serving-copy")
        self._progress = "the serving copy is being made"

    def at(self, as_of: datetime | None) -> View:
        """The view as of a moment; None: now. Raises PreparingError, NoVersionError, StorageError."""
        state = self._state()
        with self._lock:
            view = self._kept.get((as_of, state))
            if view is None:
                view = self._kept[as_of, state] = View(self.lake, self.serving, as_of, self.clock, self.warehouse)
                for key in [key for key in self._kept if key[0] == as_of and key[1] != state]:
                    del self._kept[key]
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((as_of, state))
        self._prepare(view)
        return view

    def _told(self, line: str) -> None:
        self._progress = line
        self._tell(line)

    def _state(self) -> frozenset[tuple[str, str]]:
        """The newest commit of each table, and its version tag: they change with every commit, and with a restored table."""
        newest = set()
        for table in SERVED:
            commits = (file for file in self.lake.storage.walk(f"{table.path}/{LOG}") if file.name.endswith(".json"))
            last = max(commits, key=lambda file: file.name, default=None)
            if last is not None:
                newest.add((last.path, last.version_tag))
        return frozenset(newest)

    def _prepare(self, view: View) -> None:
        """Make the serving copy of `view`, once. If that is impossible, the view reads the tables' own files, and says so."""
        with self._lock:
            if view.digest in self._made:
                return
            making = self._making.get(view.digest)
            if making is None:
                making = self._making[view.digest] = self._maker.submit(view.prepare)
        if not wait([making], WAIT_SECONDS).done:
            raise PreparingError(self._progress)
        with self._lock:
            self._making.pop(view.digest, None)
        try:
            making.result()
        except (UnservedError, StorageError, OSError) as error:
            if view.notice is None:
                view.notice = f"the tables' own files are read, which is slow: {error}"
                self._tell(view.notice)
        with self._lock:
            self._made.add(view.digest)
