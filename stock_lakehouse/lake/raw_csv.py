"""The raw layer: append-only CSV files, one a landing and year.

Here: what lands, and how it is read. A file appears whole and is never changed; in a bucket the store itself refuses a second one
of the name. Not here: what a file's name says (raw_files.py), and what its text means beyond ticker and year.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

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

LISTED = 3  # damaged files that an error names
OPENING = 256 * 1024  # bytes that are read in the time that it takes to open a file
KEPT_SECONDS = 24 * 3600.0  # how long a compaction is kept when there is a newer one: a run may be reading it


class CorruptRawFileError(StorageError):
    """Landed files are not what landed; the message names them and says what to do."""

    def __init__(self, damaged: Sequence[str]) -> None:
        more = f", and {len(damaged) - LISTED} more" if len(damaged) > LISTED else ""
        super().__init__(
            f"damaged raw files: {'; '.join(damaged[:LISTED])}{more}. Nothing was published. Put each back from a copy; if there "
            "is none, move it out of the lake and run its tickers and sessions again: what the source still delivers lands anew."
        )


class RawCsv:
    """The raw table under a lake root."""

    table = RAW

    def __init__(self, lake_root: LakeRoot) -> None:
        self.root = under(lake_root, RAW.path)
        self.lake_root = lake_root
        self._storage = storage_at(lake_root)
        self._reads_in_full = isinstance(lake_root, Path)  # a bucket holds what it was given

    def land(
        self,
        rows: pa.Table,
        asked: Rectangle,
        *,
        source: str,
        interval: str,
        run_id: str,
        now: datetime,
        final_at: Callable[[date], datetime | None],
    ) -> Landing:
        """Land a delivery that is one table: `Arrivals`, filled and finished."""
        arrivals = Arrivals(self, asked, source, interval, run_id, now, final_at)
        return arrivals.add(rows) + arrivals.finish()

    def read(
        self, spark: SparkSession, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None
    ) -> DataFrame:
        """The landed rows of `tickers` and `years` (None: all), and those whose ticker or year could not be read. Rows that land
        later are not among them, whenever the frame is computed.

        Raises CorruptRawFileError when a file to be read is damaged: the engine would fail without its name, or, cut at a line's
        end, leave out rows. By size alone where all tickers are read, or a bucket, which holds what it was given. Files of the
        layout by ticker are compacted first, if that was not done yet: engines cannot read them by name.
        """
        sources = self._sources(tickers, years, for_engine=True, in_full=tickers is not None and self._reads_in_full)
        if not sources:
            return spark.createDataFrame([], RAW.ddl)
        reader = spark.read.schema(FILE_DDL).options(
            header=True,
            escape='"',
            multiLine=True,
            allowTruncatedRows=True,  # Sail's: files from before a column was added
        )
        frame = reader.csv([self._storage.uri(raw.file.path) for raw in sources]).select(*RAW.column_names)
        return frame if tickers is None else of_tickers(frame, [*tickers, UNREADABLE])

    def read_text(self, columns: Sequence[str], tickers: Sequence[str] | None = None) -> pa.Table:
        """`columns` of the landed rows of `tickers` (None: all) without an engine, all text. Raises CorruptRawFileError."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = list(dict.fromkeys([*columns, "ticker"]))

        def read(source: RawFile) -> pa.Table:
            rows = text_in(source, self._storage.read(source.file.path), names)
            wanted = rows if tickers is None else rows.filter(pc.is_in(rows["ticker"], pa.array(tickers, pa.string())))
            return wanted.select(list(columns))

        sources = self._sources(tickers, None, in_full=self._reads_in_full, with_unreadable=False)
        empty = pa.schema([(name, pa.string()) for name in columns]).empty_table()
        return pa.concat_tables([empty, *self._storage.map(read, sources)])

    def ticker_years(self, skip_damaged: bool = True) -> set[tuple[str, int]]:
        """The ticker-years that have a landed row; those of a year that could not be read, and rows of a file that is no CSV any
        more, are always left out. Reads every file."""

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
        sources: list[RawFile] = []
        for year, own in files.items():
            covered = compactions[year].places if year in compactions else frozenset()
            sources += [raw for raw in own if raw.place not in covered]
            sources += compactions[year].parts if year in compactions else ()
        return set().union(*self._storage.map(pairs_in, sources))

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nobody else lands meanwhile: another run that lands waits."""
        with one_writer(self.lake_root, RAW.name):
            yield

    def files(self) -> list[File]:
        """Every landed file."""
        return [raw.file for raw in self._landed()]

    def damaged(
        self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None, in_full: bool = True
    ) -> list[str]:
        """The files that may hold rows of `tickers` and `years` (None: all) and are not what landed, each with what is wrong with
        it.

        `in_full` reads them; otherwise only their sizes are looked at, which takes no more than a listing.
        """
        asked = _Asked(tickers, years)
        return self._damaged([raw for raw in self._landed() if asked.may_be_in(raw)], in_full)

    @property
    def location(self) -> str:
        return str(self.root)

    def paths(self) -> list[str]:
        return [file.path for file in self.files()]

    def sizes(self) -> list[int]:
        return [file.size for file in self.files()]

    def version(self) -> None:
        """None: landed files are never changed, and have no version."""
        return None

    def state(self, tickers: Sequence[str]) -> frozenset[str]:
        """The landed files that may hold a row of `tickers`, or one whose ticker could not be read."""
        asked = _Asked(tickers, None)
        return frozenset(file.file.path for file in self._landed() if asked.may_be_in(file))

    def damages(self) -> list[Damage]:
        """Every landed file that is not what landed; reads all of them."""
        files = self._landed()
        found = self._storage.map(lambda file: self._damage(file, in_full=True), files)
        return [
            Damage(file.file.path, f"is not what landed: {wrong}")
            for file, wrong in zip(files, found, strict=True)
            if wrong
        ]

    def strangers(self, in_flight: bool = True) -> list[str]:
        """Files under the raw root that do not follow the naming, so are never read; a kill leaves temporary ones.

        Without `in_flight` a temporary file is left out that a landing may be writing: one that is not ORPHAN_SECONDS older than
        the newest file.
        """
        files = list(self._storage.walk(RAW.path))
        newest = max((file.changed for file in files), default=0.0)

        def may_be_written(file: File) -> bool:
            hidden = file.name.startswith(".") and file.name.endswith(".tmp")
            return hidden and newest - file.changed <= ORPHAN_SECONDS

        found = [file for file in files if raw_file(file) is None and (in_flight or not may_be_written(file))]
        return sorted(self._storage.uri(file.path) for file in found)

    def landed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The landed rows of the tickers of `rows` in files that may hold one of its days, oldest first, with COMPARED,
        ingested_at, adjusted_to, file, problem, ticker, year, day, key."""
        days: dict[str, list[str]] = {
            year: sorted(set(group.dropna())) for year, group in rows.groupby("year", sort=True)["day"]
        }
        tickers = set(rows["ticker"])
        prints = {fingerprint([ticker]) for ticker in tickers}
        files = [
            raw
            for raw in self._landed()
            if raw.year in days and raw.may_hold_day(days[raw.year]) and raw.may_hold_ticker(prints, tickers)
        ]
        return _in_order(list(self._storage.map(lambda raw: self._rows_of(raw, tickers), files)))

    def splits(self, ticker: str) -> list[Split]:
        """The splits that the landed rows of a ticker name, in ascending order; reads all of them."""
        sources = self._sources([ticker], None, in_full=self._reads_in_full, with_unreadable=False)
        frames = list(self._storage.map(lambda raw: self._rows_of(raw, {ticker}), sources))
        return splits_of(_in_order(frames).drop_duplicates("key", keep="last")).get(ticker, [])

    def write(self, landing: pd.DataFrame, source: str, interval: str, run_id: str, now: datetime) -> set[str]:
        """Write rows that land, a file a year; the years."""
        confirm(self.lake_root)
        years = set()
        for year, group in landing.groupby("year", sort=True):
            self._write(group.assign(source=source, interval=interval), str(year), run_id, now)
            years.add(str(year))
        return years

    def compact_if_due(self, years: Collection[str]) -> None:
        """Make the compactions of `years` anew that leave too much beside them."""
        files, compactions = self._by_year(years)
        for year, own in files.items():
            if self._is_due(own, compactions.get(year)):
                self._compact(own, compactions.get(year))

    def tend_compactions(self) -> tuple[int, int]:
        """Make each year's compaction anew from the landed files if it is not what these say, and remove those that stand for
        nothing or were replaced KEPT_SECONDS before the newest file of raw; how many files were removed, and their bytes.

        Times of files are compared with each other, never with this machine's clock.
        """
        with self.at_rest():
            files, compactions = self._by_year()
            right: set[str] = set()
            wrong: set[str] = set()
            for year, own in files.items():
                held = compactions.get(year)
                is_due = self._is_due(own, held)
                if is_due or held:
                    members = small_files(own) if is_due or not held else held.members
                    rows = self._member_rows(members, None)
                    paths = raw_compaction.part_names(members, rows)
                    wrong |= set() if is_due or not held else {raw.file.path for raw in held.parts} - paths
                    raw_compaction.compact(self._storage, members, rows)
                    right |= paths
            there = list(self._storage.walk(raw_compaction.PATH))
            present = max((file.changed for file in [*there, *self.files()]), default=0.0)
            made: dict[str, float] = {}  # by folder, so by year: when what is right was made
            for file in there:
                if file.path in right:
                    made[_folder(file)] = max(made.get(_folder(file), 0.0), file.changed)
            gone = [
                file
                for file in there
                if file.path in wrong
                or (file.path not in right and made.get(_folder(file), file.changed) < present - KEPT_SECONDS)
            ]
            if gone:
                self._storage.delete([file.path for file in gone])
        return len(gone), sum(file.size for file in gone)

    @staticmethod
    def _is_due(files: Sequence[RawFile], held: Compaction | None) -> bool:
        """Whether LOOSE small files or more of a year are in no compaction, or one of the layout by ticker is."""
        places = held.places if held else frozenset()
        loose = [raw for raw in small_files(files) if raw.place not in places]
        return len(loose) >= raw_compaction.LOOSE or any(raw.ticker is not None for raw in loose)

    def _landed(self) -> list[RawFile]:
        named = (raw_file(raw) for raw in self._storage.walk(RAW.path))
        return sorted((raw for raw in named if raw is not None), key=lambda raw: raw.file.path)

    def _by_year(
        self, years: Collection[str] | None = None
    ) -> tuple[dict[str, list[RawFile]], Mapping[str, Compaction]]:
        """The landed files of each of `years` (None: all), and the compactions that stand for some of them."""
        files: dict[str, list[RawFile]] = {}
        for raw in self._landed():
            if years is None or raw.year in years:
                files.setdefault(raw.year, []).append(raw)
        return files, compactions_of(files, list(self._storage.walk(raw_compaction.PATH)))

    def _sources(
        self,
        tickers: Sequence[str] | None,
        years: Sequence[int] | None,
        *,
        for_engine: bool = False,
        in_full: bool = False,
        with_unreadable: bool = True,
    ) -> list[RawFile]:
        """The files to read for the rows of `tickers` and `years`; compactions in place of what they stand for where that is
        faster.

        Raises CorruptRawFileError if a landed file of them is damaged: by its size, and with `in_full` by its content if it is to
        be opened. A damaged compaction is passed over.
        """
        asked = _Asked(tickers, years, with_unreadable)
        files, compactions = self._by_year(asked.years)
        chosen: list[RawFile] = []
        for year, own in sorted(files.items()):
            needed = [raw for raw in own if asked.may_be_in(raw)]
            if damaged := self._damaged(needed, in_full=False):
                raise CorruptRawFileError(damaged)
            compaction = compactions.get(year)
            if compaction and in_full and not self._is_whole(compaction, asked):
                compaction = None
            by_ticker = [raw for raw in needed if raw.ticker is not None] if for_engine else []
            if by_ticker and not (compaction and compaction.places.issuperset(raw.place for raw in by_ticker)):
                compaction = self._compact(own, compaction)
            if compaction and (by_ticker or _is_faster(compaction, needed, asked)):
                needed = [raw for raw in needed if raw.place not in compaction.places]
                chosen += [raw for raw in compaction.parts if asked.may_be_in(raw)]
            if in_full and (damaged := self._damaged(needed, in_full=True)):
                raise CorruptRawFileError(damaged)
            chosen += needed
        return chosen

    def _is_whole(self, compaction: Compaction, asked: _Asked) -> bool:
        parts = [raw for raw in compaction.parts if asked.may_be_in(raw)]
        return all(wrong is None for wrong in self._storage.map(lambda raw: self._damage(raw, in_full=True), parts))

    def _compact(self, files: Sequence[RawFile], before: Compaction | None) -> Compaction:
        """Compact the small ones of a year's files."""
        members = small_files(files)
        return raw_compaction.compact(self._storage, members, self._member_rows(members, before))

    def _member_rows(self, members: Sequence[RawFile], before: Compaction | None) -> pa.Table:
        """The rows of `members` in their order; of those that `before` stands for, the first ones, its rows."""
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
        """What landing compares of the rows of `tickers` in a file."""
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            rows = compared_text(self._content_of(raw))
        except CSV_ERRORS as error:
            raise CorruptRawFileError([f"{self._storage.uri(raw.file.path)} ({printable(str(error))[:200]})"]) from None
        if raw.ticker is not None:
            return rows.to_pandas().assign(ticker=raw.ticker, year=raw.year)
        return rows.filter(pc.is_in(rows["ticker"], pa.array(list(tickers), pa.string()))).to_pandas()

    def _write(self, group: pd.DataFrame, year: str, run_id: str, now: datetime) -> None:
        import pyarrow as pa

        text = pa.schema([(name, pa.string()) for name in FILE_COLUMNS])
        content = as_csv(pa.Table.from_pandas(group[FILE_COLUMNS], schema=text, preserve_index=False))
        days, tickers = {day for day in group["day"] if day}, set(group["ticker"])
        while True:
            name = sealed_name(landing_name(year, days, now, run_id, tickers), content)
            try:
                self._storage.create(f"{RAW.path}/{name}", content)
            except FileExistsError:  # the clock stands still
                now += timedelta(microseconds=1)
            else:
                return


class _Asked:
    """Whose rows are asked for: of `tickers` and `years` (None: all), and those whose ticker or year could not be read."""

    def __init__(
        self, tickers: Sequence[str] | None, years: Sequence[int] | None, with_unreadable: bool = True
    ) -> None:
        unreadable = [UNREADABLE] if with_unreadable else []
        self.tickers = None if tickers is None else {*tickers, *unreadable}
        self.years = None if years is None else {*map(str, years), *unreadable}
        self._prints = {fingerprint([ticker]) for ticker in self.tickers or ()}

    def may_be_in(self, raw: RawFile) -> bool:
        return (self.years is None or raw.year in self.years) and (
            self.tickers is None or raw.may_hold_ticker(self._prints, self.tickers)
        )


def _folder(file: File) -> str:
    return file.path.rpartition("/")[0]


def _by_size(raw: RawFile) -> str | None:
    return raw.damage()


def _is_faster(compaction: Compaction, needed: Sequence[RawFile], asked: _Asked) -> bool:
    """Whether a compaction is read faster than those of the files `needed` that it stands for."""
    inside = [raw for raw in needed if raw.place in compaction.places]
    parts = [raw for raw in compaction.parts if asked.may_be_in(raw)]
    return bool(inside) and _effort(parts) < _effort(inside)


def _effort(files: Sequence[RawFile]) -> int:
    return sum(raw.file.size + OPENING for raw in files)


def _in_order(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Landed rows with the day and key of each, oldest first."""
    import pandas as pd

    if not frames:
        names = [*VALUES, *MEANING, "ingested_at", "adjusted_to", "file", "problem", "ticker", "year", "day", "key"]
        return pd.DataFrame(columns=names, dtype=object)
    landed = pd.concat(frames, ignore_index=True)
    # Files from before `session` was there have dates that begin with it.
    sessions = landed["session"].where(landed["session"].notna() & (landed["session"] != ANY), landed["date"])
    days = {text: day_of(text) for text in sessions.unique()}
    landed["day"] = [days[text] for text in sessions]
    landed["key"] = keys_of(landed)
    return landed.sort_values("ingested_at", kind="stable", ignore_index=True)


class Arrivals:
    """The deliveries of one download on their way into raw: `add` each, then `finish`.

    A row lands if it is new or differs from the newest landed row of its ticker and session; one that cannot be read as a
    whole lands once, by its content; a bar that landed before its session's close lands once more after it. Where deliveries
    give a session several times the last row is the newest; delivered again, none lands: a row that had landed before the
    newest one waits for `finish`, since the newest may still be delivered too. No lock is held between two calls.

    Rows of other tickers or days than `asked` are outside and do not land. `final_at` gives when a session's bar becomes final,
    None for a day that is no session.
    """

    def __init__(
        self,
        raw: RawCsv,
        asked: Rectangle,
        source: str,
        interval: str,
        run_id: str,
        now: datetime,
        final_at: Callable[[date], datetime | None],
    ) -> None:
        self._raw, self._asked, self._final_at = raw, asked, final_at
        self._source, self._interval, self._run_id, self._now = source, interval, run_id, now
        self._waiting: list[pd.DataFrame] = []
        self._years: set[str] = set()  # that rows have landed in
        self._waiting_for: set[tuple[str, ...]] = set()

    def add(self, rows: pa.Table) -> Landing:
        """Land what can land of `rows`, which has `sources.DELIVERED_COLUMNS`; rows that wait are not counted yet."""
        if rows.num_rows == 0:
            return Landing()
        placed = place(_readable(rows).to_pandas(), self._asked)
        with self._raw.at_rest():
            since = (self._asked.first - LOOK_BACK).isoformat()
            looked_at = placed["inside"] | (
                placed["ticker"].isin(self._asked.tickers) & (placed["day"] >= since) & placed["problem"].isna()
            )
            landed = self._raw.landed(placed[looked_at])
            basis = basis_of(placed, landed, self._raw.splits)
            placed, unknown = basis.rows, basis.unknown
            withheld = placed["inside"] & placed["ticker"].isin(unknown) & placed["close"].notna()
            inside = placed[placed["inside"] & ~withheld]
            keys = keys_in(inside)
            waits = reverting(inside, landed) | keys.isin(self._waiting_for)
            waits |= keys.isin(set(keys[waits]))  # all rows of such a key, in their order
            if waits.any():
                self._waiting.append(inside[waits])
                self._waiting_for |= set(keys[waits])
                inside = inside[~waits]
            found = self._land(inside, landed, placed)
        left = placed.drop(index=inside.index.union(keys.index[waits]))
        fates = left["inside"].map({True: "withheld", False: "outside"})
        return found + counted(left, fates) + Landing(unknown=unknown, readjusted=basis.readjusted)

    def finish(self) -> Landing:
        """Land what waited for the end of the download, and compact what is due."""
        import pandas as pd

        if not self._waiting and not self._years:
            return Landing()
        found = Landing()
        with self._raw.at_rest():
            if self._waiting:
                waiting = pd.concat(self._waiting, ignore_index=True)
                self._waiting = []
                found = self._land(waiting, self._raw.landed(waiting), waiting)
            self._raw.compact_if_due(self._years)
        return found

    def _land(self, inside: pd.DataFrame, landed: pd.DataFrame, delivered: pd.DataFrame) -> Landing:
        import pandas as pd

        landing = fresh(inside, landed, self._now, self._final_at)
        proven = proves_newer_basis(delivered, landed, landing)
        if proven.any():
            landing = fresh(inside, landed, self._now, self._final_at, proven.reindex(inside.index, fill_value=False))
        years = self._raw.write(landing, self._source, self._interval, self._run_id, self._now)
        self._years |= years
        fates = pd.Series("repeated", index=inside.index)
        fates[landing.index] = "landed"
        found = contradictions(inside, landed, self._now)
        return counted(inside, fates) + Landing(files=len(years), contradictions=found)


def _readable(rows: pa.Table) -> pa.Table:
    """`rows` with U+FFFD for every NUL, which JVM Spark's CSV reader leaves out: "1" and a NUL would be the number 1 there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.table({name: pc.replace_substring(rows[name], "\0", "\ufffd") for name in rows.column_names})
