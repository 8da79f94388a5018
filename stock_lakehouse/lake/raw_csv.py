"""The raw layer: append-only CSV files, one for each landing and year.

Here: landing rows and reading them. A file appears as a whole and never changes; a bucket refuses a second object of the same
name. Not here: a file's name (raw_files.py), and what its text means beyond ticker and year.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake import raw_compaction
from stock_lakehouse.lake.landing import (
    ANY,
    MEANING,
    VALUES,
    Split,
    basis_of,
    contradictions,
    counted,
    day_of,
    fresh,
    keys_in,
    keys_of,
    place,
    proves_newer_basis,
    reverting,
    splits_of,
)
from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import of_tickers
from stock_lakehouse.lake.raw_compaction import Compaction, compactions_of, member_rows, small_files
from stock_lakehouse.lake.raw_files import (
    CSV_ERRORS,
    FILE_COLUMNS,
    FILE_DDL,
    RawFile,
    as_csv,
    compared_text,
    fingerprint,
    landing_name,
    raw_file,
    sealed_name,
    text_in,
)
from stock_lakehouse.lake.storage import ORPHAN_SECONDS, File, LakeRoot, StorageError, storage_at, under
from stock_lakehouse.lake.stored import Damage
from stock_lakehouse.partitions import LOOK_BACK, Rectangle
from stock_lakehouse.sources import Landing, printable
from stock_lakehouse.tables import RAW, UNREADABLE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

LISTED = 3  # how many damaged files an error names
OPENING = 256 * 1024  # opening a file takes as long as reading so many bytes
WRITES_AT_ONCE = 4
KEPT_SECONDS = 24 * 3600.0  # how long a replaced compaction is kept: a run may still be reading it


class CorruptRawFileError(StorageError):
    """Landed files are damaged; the message names them and says what to do."""

    def __init__(self, damaged: Sequence[str]) -> None:
        more = f", and {len(damaged) - LISTED} more" if len(damaged) > LISTED else ""
        super().__init__(
            f"damaged raw files: {'; '.join(damaged[:LISTED])}{more}. Nothing was published. Restore each file from a copy. If "
            "there is none, move the file out of the lake and run its tickers and sessions again: rows that the source still "
            "delivers land again."
        )


class RawCsv:
    """The raw table under a lake root."""

    table = RAW

    def __init__(self, lake_root: LakeRoot) -> None:
        self.root = under(lake_root, RAW.path)
        self.lake_root = lake_root
        self._storage = storage_at(lake_root)
        self._reads_in_full = isinstance(lake_root, Path)  # a bucket returns the bytes that were stored

    def land(
        self,
        rows: pa.Table,
        rectangle: Rectangle,
        *,
        source: str,
        interval: str,
        run_id: str,
        now: datetime,
        final_at: Callable[[date], datetime | None],
    ) -> Landing:
        """Land a delivery that is a single table: an `Arrivals` with one `add`."""
        arrivals = Arrivals(self, rectangle, source, interval, run_id, now, final_at)
        return arrivals.add(rows) + arrivals.finish()

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> DataFrame:
        """The landed rows of `tickers` and `years` (None: all), and those whose ticker or year could not be read. Rows that land
        later are not among them, whenever the frame is computed.

        Raises CorruptRawFileError if a file to be read is damaged: the engine would fail without naming the file or, if the file
        is cut at a line's end, omit rows. Only sizes are checked if all tickers are read, and in a bucket, which returns the
        bytes that were stored. Files of the layout by ticker that are in no compaction are compacted first: engines cannot
        read them by name.
        """
        files = self._files_to_read(
            tickers, years, for_engine=True, in_full=tickers is not None and self._reads_in_full
        )
        if not files:
            return spark.createDataFrame([], RAW.ddl)
        reader = spark.read.schema(FILE_DDL).options(
            header=True,
            escape='"',
            multiLine=True,
            allowTruncatedRows=True,  # an option of Sail, for older files that lack a column
        )
        frame = reader.csv([self._storage.uri(raw.file.path) for raw in files]).select(*RAW.column_names)
        return frame if tickers is None else of_tickers(frame, [*tickers, UNREADABLE])

    def read_text(
        self, columns: Sequence[str], tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> pa.Table:
        """`columns` of the landed rows of `tickers` and `years` (None: all), all text, read without an engine.

        Raises CorruptRawFileError.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        names = list(dict.fromkeys([*columns, "ticker"]))

        def read(raw: RawFile) -> pa.Table:
            rows = text_in(raw, self._storage.read(raw.file.path), names)
            selected = (
                rows if tickers is None else rows.filter(pc.is_in(rows["ticker"], pa.array(tickers, pa.string())))
            )
            return selected.select(list(columns))

        files = self._files_to_read(tickers, years, in_full=self._reads_in_full, with_unreadable=False)
        empty = pa.schema([(name, pa.string()) for name in columns]).empty_table()
        return pa.concat_tables([empty, *self._storage.map(read, files)])

    def ticker_years(self, skip_damaged: bool = True) -> set[tuple[str, int]]:
        """The ticker-years that have a landed row. Reads every file.

        Rows whose year could not be read, and files that are no longer valid CSV, are left out, whatever `skip_damaged` is.
        """

        def pairs_in(raw: RawFile) -> set[tuple[str, int]]:
            if not raw.year.isdigit():
                return set()
            if raw.ticker is not None:
                return {(raw.ticker, int(raw.year))}
            try:
                tickers = text_in(raw, self._storage.read(raw.file.path), ["ticker"])["ticker"].unique().to_pylist()
            except CSV_ERRORS:
                return set()
            return {(ticker, int(raw.year)) for ticker in tickers}

        files, compactions = self._by_year()
        files_to_read: list[RawFile] = []
        for year, year_files in files.items():
            compacted = compactions[year].places if year in compactions else frozenset()
            files_to_read += [raw for raw in year_files if raw.place not in compacted]
            files_to_read += compactions[year].parts if year in compactions else ()
        return set().union(*self._storage.map(pairs_in, files_to_read))

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Hold the lock of raw: another run that lands waits for it."""
        with one_writer(self.lake_root, RAW.name):
            yield

    def files(self) -> list[File]:
        """Every landed file."""
        return [raw.file for raw in self._landed()]

    def damaged(
        self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None, in_full: bool = True
    ) -> list[str]:
        """The damaged files among those that may hold rows of `tickers` and `years` (None: all), each with what is wrong with it.

        `in_full`: read the files; otherwise only their sizes are checked, which takes only a listing.
        """
        selection = _Selection(tickers, years)
        return self._damaged([raw for raw in self._landed() if selection.may_include(raw)], in_full)

    @property
    def location(self) -> str:
        return str(self.root)

    def paths(self) -> list[str]:
        return [file.path for file in self.files()]

    def sizes(self) -> list[int]:
        return [file.size for file in self.files()]

    def version(self) -> None:
        """None: landed files never change, so raw has no versions."""
        return None

    def state(self, tickers: Sequence[str]) -> frozenset[str]:
        """The landed files that may hold a row of `tickers`, or one whose ticker could not be read."""
        selection = _Selection(tickers, None)
        return frozenset(raw.file.path for raw in self._landed() if selection.may_include(raw))

    def damages(self) -> list[Damage]:
        """The damaged landed files. Reads every file."""
        files = self._landed()
        found = self._storage.map(lambda raw: self._damage(raw, in_full=True), files)
        return [Damage(raw.file.path, f"is damaged: {wrong}") for raw, wrong in zip(files, found, strict=True) if wrong]

    def strangers(self, in_flight: bool = True) -> list[str]:
        """Files below raw's folder whose names are not those of landed files, so they are never read. A kill leaves temporary
        files.

        Without `in_flight`, a temporary file that a landing may be writing is left out: one that is not ORPHAN_SECONDS older than
        the newest file.
        """
        files = list(self._storage.walk(RAW.path))
        newest = max((file.changed for file in files), default=0.0)

        def may_be_in_flight(file: File) -> bool:
            is_temporary = file.name.startswith(".") and file.name.endswith(".tmp")
            return is_temporary and newest - file.changed <= ORPHAN_SECONDS

        found = [file for file in files if raw_file(file) is None and (in_flight or not may_be_in_flight(file))]
        return sorted(self._storage.uri(file.path) for file in found)

    def landed(self, rows: pd.DataFrame, tickers_of: Mapping[str, Set[str]] = MappingProxyType({})) -> pd.DataFrame:
        """The landed rows of the tickers of `rows`, from the files that may hold one of its days, oldest first.

        `tickers_of`: the tickers of some files, by path; a name says less.

        Columns: COMPARED, ingested_at, adjusted_to, file, problem, ticker, year, day, key.
        """
        days: dict[str, list[str]] = {
            year: sorted(set(group.dropna())) for year, group in rows.groupby("year", sort=True)["day"]
        }
        tickers = set(rows["ticker"])
        fingerprints = {fingerprint([ticker]) for ticker in tickers}
        files = [
            raw
            for raw in self._landed()
            if raw.year in days
            and raw.may_hold_day(days[raw.year])
            and raw.may_hold_ticker(fingerprints, tickers)
            and not tickers.isdisjoint(tickers_of.get(raw.file.path, tickers))
        ]
        return _in_order(list(self._storage.map(lambda raw: self._rows_of(raw, tickers), files)))

    def read_arrow(self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None) -> pa.Table:
        """The landed rows of `tickers` and `years` (None: all) as text, without an engine. Raises CorruptRawFileError."""
        return self.read_text(self.table.column_names, tickers, years)

    def days(self, tickers: Sequence[str], years: Sequence[int]) -> pa.Table:
        """How many landed rows there are of each ticker and day: `ticker`, `day` (date32), `count`; without days that cannot be
        read."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = self.read_text(["ticker", "session", "date"], tickers, years)
        texts = pc.coalesce(rows["session"], rows["date"])  # files from before the column `session` have ISO dates
        # Groups of numbers are counted three times as fast as groups of texts.
        ticker, day = (column.combine_chunks().dictionary_encode("encode") for column in (rows["ticker"], texts))
        counts = (
            pa.table({"ticker": ticker.indices, "day": day.indices})
            .group_by(["ticker", "day"])
            .aggregate([([], "count_all")])
        )
        read = [
            None if (found := day_of(text)) is None else date.fromisoformat(found)
            for text in day.dictionary.to_pylist()
        ]
        days = pa.array(read, pa.date32()).take(counts["day"])
        found_days = pa.table(
            {"ticker": ticker.dictionary.take(counts["ticker"]), "day": days, "count": counts["count_all"]}
        )
        return found_days.filter(pc.is_valid(found_days["day"]))

    def splits(self, ticker: str) -> list[Split]:
        """The splits that the landed rows of a ticker name, in ascending order. Reads all of its rows."""
        files = self._files_to_read([ticker], None, in_full=self._reads_in_full, with_unreadable=False)
        frames = list(self._storage.map(lambda raw: self._rows_of(raw, {ticker}), files))
        return splits_of(_in_order(frames).drop_duplicates("key", keep="last")).get(ticker, [])

    def write(
        self, landing: pd.DataFrame, rows: pa.Table, source: str, interval: str, run_id: str, now: datetime
    ) -> dict[str, Set[str]]:
        """Write the rows of a landing, one file for each year; return the tickers of each file, by path.

        `landing`: the placed rows of `rows` that land, each with its `ingested_at`.
        """
        confirm(self.lake_root)
        constant = {"source": source, "interval": interval}

        def write(group: tuple[Any, pd.DataFrame]) -> tuple[str, Set[str]]:
            year, placed = group
            return self._write(placed, _file_rows(placed, rows, constant), str(year), run_id, now)

        # A file is mostly made by code that needs no lock of the interpreter: CSV, digest, sync.
        with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            return dict(pool.map(write, landing.groupby("year", sort=True)))

    def compact_if_due(self, years: Collection[str]) -> None:
        """Compact each of `years` again that has too many small files outside its compaction."""
        files, compactions = self._by_year(years)
        for year, year_files in files.items():
            if self._is_due(year_files, compactions.get(year)):
                self._compact(year_files, compactions.get(year))

    def tend_compactions(self) -> tuple[int, int]:
        """Rewrite each year's compaction that differs from its landed files, and remove compactions that replace no files or that
        were replaced KEPT_SECONDS before the newest file of raw. Returns how many files were removed, and their bytes.

        Times of files are compared with each other, never with this machine's clock.
        """
        with self.at_rest():
            files, compactions = self._by_year()
            valid: set[str] = set()
            invalid: set[str] = set()
            for year, year_files in files.items():
                compaction = compactions.get(year)
                is_due = self._is_due(year_files, compaction)
                if is_due or compaction:
                    members = small_files(year_files) if is_due or not compaction else compaction.members
                    rows = self._member_rows(members, None)
                    paths = raw_compaction.part_names(members, rows)
                    invalid |= (
                        set() if is_due or not compaction else {raw.file.path for raw in compaction.parts} - paths
                    )
                    raw_compaction.compact(self._storage, members, rows)
                    valid |= paths
            compacted = list(self._storage.walk(raw_compaction.PATH))
            newest = max((file.changed for file in [*compacted, *self.files()]), default=0.0)
            valid_since: dict[str, float] = {}  # by folder, so by year: when the valid files were made
            for file in compacted:
                if file.path in valid:
                    valid_since[_folder(file)] = max(valid_since.get(_folder(file), 0.0), file.changed)
            obsolete = [
                file
                for file in compacted
                if file.path in invalid
                or (file.path not in valid and valid_since.get(_folder(file), file.changed) < newest - KEPT_SECONDS)
            ]
            if obsolete:
                self._storage.delete([file.path for file in obsolete])
        return len(obsolete), sum(file.size for file in obsolete)

    @staticmethod
    def _is_due(files: Sequence[RawFile], compaction: Compaction | None) -> bool:
        """Whether at least LOOSE small files of a year, or one of the layout by ticker, are in no compaction."""
        compacted = compaction.places if compaction else frozenset()
        loose = [raw for raw in small_files(files) if raw.place not in compacted]
        return len(loose) >= raw_compaction.LOOSE or any(raw.ticker is not None for raw in loose)

    def _landed(self) -> list[RawFile]:
        named = (raw_file(file) for file in self._storage.walk(RAW.path))
        return sorted((raw for raw in named if raw is not None), key=lambda raw: raw.file.path)

    def _by_year(
        self, years: Collection[str] | None = None
    ) -> tuple[dict[str, list[RawFile]], Mapping[str, Compaction]]:
        """The landed files of each of `years` (None: all), and the compactions that replace some of them."""
        files: dict[str, list[RawFile]] = {}
        for raw in self._landed():
            if years is None or raw.year in years:
                files.setdefault(raw.year, []).append(raw)
        return files, compactions_of(files, list(self._storage.walk(raw_compaction.PATH)))

    def _files_to_read(
        self,
        tickers: Sequence[str] | None,
        years: Sequence[int] | None,
        *,
        for_engine: bool = False,
        in_full: bool = False,
        with_unreadable: bool = True,
    ) -> list[RawFile]:
        """The files to read for the rows of `tickers` and `years`. A compaction takes the place of the files that it replaces if
        that is faster.

        Raises CorruptRawFileError if a landed file among them is damaged: its size is checked, and with `in_full` the content of
        each file that is to be opened. A damaged compaction is skipped.
        """
        selection = _Selection(tickers, years, with_unreadable)
        files, compactions = self._by_year(selection.years)
        chosen: list[RawFile] = []
        for year, year_files in sorted(files.items()):
            needed = [raw for raw in year_files if selection.may_include(raw)]
            if damaged := self._damaged(needed, in_full=False):
                raise CorruptRawFileError(damaged)
            compaction = compactions.get(year)
            if compaction and in_full and not self._is_whole(compaction, selection):
                compaction = None
            by_ticker = [raw for raw in needed if raw.ticker is not None] if for_engine else []
            if by_ticker and not (compaction and compaction.places.issuperset(raw.place for raw in by_ticker)):
                compaction = self._compact(year_files, compaction)
            if compaction and (by_ticker or _is_faster(compaction, needed, selection)):
                needed = [raw for raw in needed if raw.place not in compaction.places]
                chosen += [raw for raw in compaction.parts if selection.may_include(raw)]
            if in_full and (damaged := self._damaged(needed, in_full=True)):
                raise CorruptRawFileError(damaged)
            chosen += needed
        return chosen

    def _is_whole(self, compaction: Compaction, selection: _Selection) -> bool:
        parts = [raw for raw in compaction.parts if selection.may_include(raw)]
        return all(wrong is None for wrong in self._storage.map(lambda raw: self._damage(raw, in_full=True), parts))

    def _compact(self, files: Sequence[RawFile], before: Compaction | None) -> Compaction:
        """Compact the small files of a year, whose present compaction is `before`."""
        members = small_files(files)
        return raw_compaction.compact(self._storage, members, self._member_rows(members, before))

    def _member_rows(self, members: Sequence[RawFile], before: Compaction | None) -> pa.Table:
        """The rows of `members`, in order. The first ones are the members of `before`, if given, and are read from its parts."""
        import pyarrow as pa

        def read(raw: RawFile) -> pa.Table:
            return member_rows(raw, self._content_of(raw))

        parts, rest = (before.parts, members[len(before.members) :]) if before else ((), members)
        try:
            return pa.concat_tables([*self._storage.map(read, [*parts, *rest])])
        except CorruptRawFileError:
            if before is None:
                raise
            return self._member_rows(members, None)

    def _damaged(self, files: Sequence[RawFile], in_full: bool) -> list[str]:
        found = self._storage.map(lambda raw: self._damage(raw, in_full), files) if in_full else map(_by_size, files)
        return [
            f"{self._storage.uri(raw.file.path)} ({wrong})" for raw, wrong in zip(files, found, strict=True) if wrong
        ]

    def _damage(self, raw: RawFile, in_full: bool) -> str | None:
        """What is wrong with a landed file; None if nothing is."""
        return raw.damage() or (raw.damage(self._storage.read(raw.file.path)) if in_full else None)

    def _content_of(self, raw: RawFile) -> bytes:
        content = self._storage.read(raw.file.path)
        if wrong := raw.damage(content):
            raise CorruptRawFileError([f"{self._storage.uri(raw.file.path)} ({wrong})"])
        return content

    def _rows_of(self, raw: RawFile, tickers: Collection[str]) -> pd.DataFrame:
        """The rows of `tickers` in a file, with the columns that landing compares."""
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            rows = compared_text(self._content_of(raw))
        except CSV_ERRORS as error:
            raise CorruptRawFileError([f"{self._storage.uri(raw.file.path)} ({printable(str(error))[:200]})"]) from None
        if raw.ticker is not None:
            return rows.to_pandas().assign(ticker=raw.ticker, year=raw.year)
        return rows.filter(pc.is_in(rows["ticker"], pa.array(list(tickers), pa.string()))).to_pandas()

    def _write(
        self, placed: pd.DataFrame, rows: pa.Table, year: str, run_id: str, now: datetime
    ) -> tuple[str, Set[str]]:
        """Write the rows of a year; return the file's path and its tickers."""
        content = as_csv(rows)
        days, tickers = {day for day in placed["day"].unique() if day}, set(placed["ticker"].unique())
        while True:
            name = sealed_name(landing_name(year, days, now, run_id, tickers), content)
            try:
                self._storage.create(f"{RAW.path}/{name}", content)
            except FileExistsError:  # the clock stands still: the name is taken
                now += timedelta(microseconds=1)
            else:
                return f"{RAW.path}/{name}", tickers


def _file_rows(placed: pd.DataFrame, rows: pa.Table, constant: Mapping[str, str]) -> pa.Table:
    """The rows of a file, with FILE_COLUMNS: those of `rows` that are `placed`, with what landing says of them."""
    import pyarrow as pa

    taken = rows.take(placed.index.to_numpy())

    def column(name: str) -> pa.Array | pa.ChunkedArray:
        if name in constant:
            return pa.repeat(pa.scalar(constant[name], pa.string()), len(placed))
        if name in ("ticker", "year", "adjusted_to", "ingested_at"):
            return pa.array(placed[name], pa.string(), from_pandas=True)
        return taken[name]

    return pa.table({name: column(name) for name in FILE_COLUMNS})


class _Selection:
    """The rows of `tickers` and `years` (None: all); and those whose ticker or year could not be read, if `with_unreadable`."""

    def __init__(
        self, tickers: Sequence[str] | None, years: Sequence[int] | None, with_unreadable: bool = True
    ) -> None:
        unreadable = [UNREADABLE] if with_unreadable else []
        self.tickers = None if tickers is None else {*tickers, *unreadable}
        self.years = None if years is None else {*map(str, years), *unreadable}
        self._fingerprints = {fingerprint([ticker]) for ticker in self.tickers or ()}

    def may_include(self, raw: RawFile) -> bool:
        return (self.years is None or raw.year in self.years) and (
            self.tickers is None or raw.may_hold_ticker(self._fingerprints, self.tickers)
        )


def _folder(file: File) -> str:
    return file.path.rpartition("/")[0]


def _by_size(raw: RawFile) -> str | None:
    return raw.damage()


def _is_faster(compaction: Compaction, needed: Sequence[RawFile], selection: _Selection) -> bool:
    """Whether a compaction is read faster than the files among `needed` that it replaces."""
    replaced = [raw for raw in needed if raw.place in compaction.places]
    parts = [raw for raw in compaction.parts if selection.may_include(raw)]
    return bool(replaced) and _effort(parts) < _effort(replaced)


def _effort(files: Sequence[RawFile]) -> int:
    return sum(raw.file.size + OPENING for raw in files)


def _in_order(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Landed rows with the day and key of each, oldest first."""
    import pandas as pd

    if not frames:
        names = [*VALUES, *MEANING, "ingested_at", "adjusted_to", "file", "problem", "ticker", "year", "day", "key"]
        return pd.DataFrame(columns=names, dtype=object)
    landed = pd.concat(frames, ignore_index=True)
    # Files from before the column `session` have dates that begin with the session.
    sessions = landed["session"].where(landed["session"].notna() & (landed["session"] != ANY), landed["date"])
    days = {text: day_of(text) for text in sessions.unique()}
    landed["day"] = [days[text] for text in sessions]
    landed["key"] = keys_of(landed)
    return landed.sort_values("ingested_at", kind="stable", ignore_index=True)


class Arrivals:
    """Lands the deliveries of one download in raw: `add` each of them, then `finish`.

    - A row lands if it is new or differs from the newest landed row of its ticker and session.
    - A row that cannot be read as a whole lands once, by its content.
    - A bar that landed before its session's close lands once more after it.
    - If a session is delivered several times, its last row is the newest. If all of its rows are delivered again, none of them
      lands. So a row that landed before the newest one waits for `finish`: the newest may still be delivered too.
    - Rows of other tickers or days than those of `rectangle` are outside and do not land.

    `final_at`: when a session's bar becomes final; None for a day that is no session. No lock is held between two calls.
    """

    def __init__(
        self,
        raw: RawCsv,
        rectangle: Rectangle,
        source: str,
        interval: str,
        run_id: str,
        now: datetime,
        final_at: Callable[[date], datetime | None],
    ) -> None:
        self._raw, self._rectangle, self._final_at = raw, rectangle, final_at
        self._source, self._interval, self._run_id, self._now = source, interval, run_id, now
        self._waiting: list[pa.Table] = []
        self._waiting_placed: list[pd.DataFrame] = []
        self._years: set[str] = set()  # in which rows have landed
        self._written: dict[str, Set[str]] = {}  # the tickers of each file of this download, by path
        self._waiting_for: set[tuple[str, ...]] = set()

    def add(self, rows: pa.Table) -> Landing:
        """Land the rows of `rows` that can land. It has `sources.DELIVERED_COLUMNS`. Rows that wait are not counted yet."""
        if rows.num_rows == 0:
            return Landing()
        rows = _readable(rows)
        placed = place(rows, self._rectangle)
        with self._raw.at_rest():
            earliest = (self._rectangle.first - LOOK_BACK).isoformat()
            is_compared = placed["inside"] | (
                placed["ticker"].isin(self._rectangle.tickers) & (placed["day"] >= earliest) & placed["problem"].isna()
            )
            landed = self._raw.landed(_where(placed, is_compared), self._written)
            basis = basis_of(placed, landed, self._raw.splits)
            placed, unknown = basis.rows, basis.unknown
            withheld = placed["inside"] & placed["ticker"].isin(unknown) & placed["close"].notna()
            inside = requested = _where(placed, placed["inside"] & ~withheld)
            waits = reverting(inside, rows, landed)
            if waits.any() or self._waiting_for:
                keys = keys_in(inside)
                waits |= keys.isin(self._waiting_for)
                waits |= keys.isin(set(keys[waits]))  # if one row of a key waits, all of them do, in their order
                self._wait(inside[waits], rows)
                self._waiting_for |= set(keys[waits])
                inside = inside[~waits]
            landing = self._land(inside, rows, landed, placed)
        rest = placed.drop(index=requested.index)
        outcomes = rest["inside"].map({True: "withheld", False: "outside"})
        return landing + counted(rest, outcomes) + Landing(unknown=unknown, readjusted=basis.readjusted)

    def finish(self) -> Landing:
        """Land the rows that waited for the end of the download, and compact the years for which that is due."""
        import pandas as pd
        import pyarrow as pa

        if not self._waiting and not self._years:
            return Landing()
        landing = Landing()
        with self._raw.at_rest():
            if self._waiting:
                rows, placed = pa.concat_tables(self._waiting), pd.concat(self._waiting_placed, ignore_index=True)
                self._waiting, self._waiting_placed = [], []
                landing = self._land(placed, rows, self._raw.landed(placed), placed)
            self._raw.compact_if_due(self._years)
        return landing

    def _wait(self, placed: pd.DataFrame, rows: pa.Table) -> None:
        """Keep some rows until `finish`."""
        self._waiting.append(rows.take(placed.index.to_numpy()))
        self._waiting_placed.append(placed)

    def _land(self, inside: pd.DataFrame, rows: pa.Table, landed: pd.DataFrame, delivered: pd.DataFrame) -> Landing:
        import pandas as pd

        def stamped(stamps: pd.Series) -> pd.DataFrame:
            return _where(inside, inside.index.isin(stamps.index)).assign(ingested_at=stamps)

        landing = stamped(fresh(inside, rows, landed, self._now, self._final_at))
        proven = proves_newer_basis(delivered, landed, landing)
        if proven.any():
            proven = proven.reindex(inside.index, fill_value=False)
            landing = stamped(fresh(inside, rows, landed, self._now, self._final_at, proven))
        written = self._raw.write(landing, rows, self._source, self._interval, self._run_id, self._now)
        self._written |= written
        self._years |= set(landing["year"])
        outcomes = pd.Series("repeated", index=inside.index)
        outcomes[landing.index] = "landed"
        found = contradictions(inside, rows, landed, self._now)
        return counted(inside, outcomes) + Landing(files=len(written), contradictions=found)


def _where(rows: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """The rows where `mask` is true. Where it always is, as in most deliveries, they are not copied."""
    return rows if mask.all() else rows[mask]


def _readable(rows: pa.Table) -> pa.Table:
    """`rows` with U+FFFD for every NUL. JVM Spark's CSV reader drops a NUL, so "1" and a NUL would be read as the number 1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.table({name: pc.replace_substring(rows[name], "\0", "\ufffd") for name in rows.column_names})
