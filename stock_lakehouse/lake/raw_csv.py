"""The raw layer: append-only CSV files, one a landing, ticker and year.

Here: what lands, under which name, and how it is read. A file appears whole and is never changed; in a bucket the store itself
refuses a second one of the name. Not here: what the text means, beyond the ticker and the year that decide where a row lies.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

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
from stock_lakehouse.lake.publish import of_tickers, partition_folder, partition_of
from stock_lakehouse.lake.storage import (
    AT_A_TIME,
    ORPHAN_SECONDS,
    File,
    LakeRoot,
    StorageError,
    storage_at,
    under,
)
from stock_lakehouse.lake.stored import Damage, TickerYear
from stock_lakehouse.partitions import LOOK_BACK, Rectangle
from stock_lakehouse.schemas import raw as schema
from stock_lakehouse.sources import Landing, printable
from stock_lakehouse.tables import RAW, UNREADABLE

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# bars_<first session>_<last session>_<landing time>_<run>_<seal>.csv; dates are zeros where none could be read. The seal tells a
# damaged file: 12 hexadecimal digits of its size and 16 of its SHA-256. Files from before there were seals have none.
NAME = re.compile(r"bars_\d{4}-\d{2}-\d{2}_\d{4}-\d{2}-\d{2}_\d{8}T\d{12}Z_[0-9a-f]{8}(?:_([0-9a-f]{28}))?\.csv")
_DIGIT, _HEX = "[0-9]", "[0-9a-f]"
_DAY = f"{_DIGIT * 4}-{_DIGIT * 2}-{_DIGIT * 2}"
# The same, as Spark's pathGlobFilter.
GLOB = f"bars_{_DAY}_{_DAY}_{_DIGIT * 8}T{_DIGIT * 12}Z_{_HEX * 8}{{.csv,_{_HEX * 28}.csv}}"
NO_DAY = "0000-00-00"

FILE_COLUMNS = [one.name for one in (*schema.DELIVERED, *schema.PROVENANCE, schema.CAPITAL_GAINS, *schema.READING)]
LISTED = 3  # damaged files that an error names
CSV_ERRORS = (ValueError, KeyError)  # of pyarrow: ragged or no UTF-8, without our columns
LARGEST_ROW = 1 << 24  # bytes; pyarrow reads no row that is longer than its blocks, of 1 MB if nothing is said


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
        """The landed rows of `tickers` and `years` (None: all), and those whose ticker or year could not be read.

        Raises CorruptRawFileError when a file to be read is damaged: the engine would fail without its name, or, cut at a line's
        end, leave out rows. By size alone where all tickers are read, or a bucket, which holds what it was given.
        """
        from pyspark.sql import functions as F

        if damaged := self.damaged(tickers, years, in_full=tickers is not None and isinstance(self.root, Path)):
            raise CorruptRawFileError(damaged)

        reader = spark.read.schema(RAW.ddl).options(
            header=True,
            escape='"',
            multiLine=True,
            pathGlobFilter=GLOB,
            allowTruncatedRows=True,  # Sail's: files from before a column was added
        )
        if next(self._storage.walk(RAW.path), None) is None:
            return spark.createDataFrame([], RAW.ddl)
        frame = reader.csv(str(self.root))
        if tickers is not None:
            frame = of_tickers(frame, [*tickers, UNREADABLE])
        if years is not None:
            frame = frame.where(F.col("year").isin([*map(str, years), UNREADABLE]))
        return frame

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No row lands meanwhile, so what is read twice is the same twice, and nobody else lands. A run that lands waits."""
        with one_writer(self.lake_root, RAW.name):
            yield

    def files(self) -> list[File]:
        """Every landed file."""
        return sorted((one for one in self._storage.walk(RAW.path) if _is_ours(one)), key=lambda one: one.path)

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

    def ticker_years(self) -> set[TickerYear]:
        pairs = (partition_of(file.path) for file in self.files())
        return {(ticker, int(year)) for ticker, year in pairs if year.isdigit()}

    def state(self, tickers: Sequence[str]) -> frozenset[str]:
        """The landed files that may hold a row of `tickers`, or one whose ticker could not be read."""
        asked = {*tickers, UNREADABLE}
        return frozenset(file.path for file in self.files() if partition_of(file.path)[0] in asked)

    def damages(self) -> list[Damage]:
        """The files that are not what landed."""
        files = self.files()
        found = self._storage.map(lambda file: self._damage(file, in_full=True), files)
        return [
            Damage(file.path, f"is not what landed: {wrong}") for file, wrong in zip(files, found, strict=True) if wrong
        ]

    def damaged(
        self, tickers: Sequence[str] | None = None, years: Sequence[int] | None = None, in_full: bool = True
    ) -> list[str]:
        """The files of `tickers` and `years` (None: all) that are not what landed, each with what is wrong with it.

        `in_full` reads them; otherwise only their sizes are looked at, which takes no more than a listing.
        """
        of_tickers = None if tickers is None else {*tickers, UNREADABLE}
        of_years = None if years is None else {*map(str, years), UNREADABLE}

        def is_asked(file: File) -> bool:
            ticker, year = partition_of(file.path)
            return (of_tickers is None or ticker in of_tickers) and (of_years is None or year in of_years)

        asked = [one for one in self.files() if is_asked(one)]
        found = self._storage.map(lambda file: self._damage(file, in_full), asked)
        return [
            f"{self._storage.uri(file.path)} ({damage})" for file, damage in zip(asked, found, strict=True) if damage
        ]

    def _damage(self, file: File, in_full: bool) -> str | None:
        """What is wrong with a landed file; None if nothing is."""
        seal = _seal_in(file.name)
        if seal is not None and int(seal[:12], 16) != file.size:
            return f"{file.size:,} bytes, {int(seal[:12], 16):,} landed"
        if not in_full:
            return None
        content = self._storage.read(file.path)
        if seal is not None:
            return None if seal == _seal(content) else "other bytes than landed"
        try:
            _rows_in(content)
        except CSV_ERRORS as error:
            return printable(str(error))[:200]
        return None

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

        found = [file for file in files if not _is_ours(file) and (in_flight or not may_be_written(file))]
        return sorted(self._storage.uri(file.path) for file in found)

    def landed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The landed rows of the ticker-years of `rows` that may be of one of its days, oldest first, with COMPARED, ingested_at,
        adjusted_to, file, problem, ticker, year, day, key."""
        days: dict[tuple[str, str], pd.Series] = {
            pair: group["day"].dropna() for pair, group in rows.groupby(["ticker", "year"], sort=True)
        }

        def of_pair(pair: tuple[str, str]) -> list[pd.DataFrame]:
            walked = sorted(self._storage.walk(self._folder(*pair)), key=lambda one: one.path)
            files = [one for one in walked if _is_ours(one) and _may_hold(one.name, days[pair])]
            return [self._rows_of(one).assign(ticker=pair[0], year=pair[1]) for one in files]

        return _in_order([one for found in self._storage.map(of_pair, days) for one in found])

    def splits(self, ticker: str) -> list[Split]:
        """The splits that the landed rows of a ticker name, in ascending order; reads all of them."""
        own = [(file, *partition_of(file.path)) for file in self.files()]
        frames = [self._rows_of(file).assign(ticker=name, year=year) for file, name, year in own if name == ticker]
        return splits_of(_in_order(frames).drop_duplicates("key", keep="last")).get(ticker, [])

    def write(self, landing: pd.DataFrame, source: str, interval: str, run_id: str, now: datetime) -> int:
        """Write rows that land, a file a ticker and year; how many files."""
        confirm(self.lake_root)

        def create(file: tuple[str, str, bytes]) -> None:
            folder, days, content = file
            self._create(folder, days, content, run_id, now)

        # Each creation waits for the disk (fsync, 4 ms) or the network: one after the other, 10,500 files take 45 s longer.
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            groups = landing.groupby(["ticker", "year"], sort=True)
            files = ((self._folder(ticker, year), *_file_of(rows, source, interval)) for (ticker, year), rows in groups)
            return sum(1 for _ in pool.map(create, files))

    def _rows_of(self, file: File) -> pd.DataFrame:
        content = self._storage.read(file.path)
        if _seal_in(file.name) not in (None, _seal(content)):
            raise CorruptRawFileError([f"{self._storage.uri(file.path)} (other bytes than landed)"])
        try:
            return _rows_in(content).to_pandas()
        except CSV_ERRORS as error:
            raise CorruptRawFileError([f"{self._storage.uri(file.path)} ({printable(str(error))[:200]})"]) from None

    def _create(self, folder: str, days: str, content: bytes, run_id: str, now: datetime) -> None:
        run = run_id.replace("-", "")[:8]
        if not re.fullmatch(
            "[0-9a-f]{8}", run
        ):  # an id of a caller's own: under another name the file would not be read
            run = hashlib.sha256(run_id.encode()).hexdigest()[:8]
        while True:
            name = f"bars_{days}_{now:%Y%m%dT%H%M%S%f}Z_{run}_{_seal(content)}.csv"
            try:
                self._storage.create(f"{folder}/{name}", content)
            except FileExistsError:  # the clock stands still
                now += timedelta(microseconds=1)
            else:
                return

    @staticmethod
    def _folder(ticker: str, year: str) -> str:
        return f"{RAW.path}/{partition_folder(ticker, year)}"


def _file_of(rows: pd.DataFrame, source: str, interval: str) -> tuple[str, bytes]:
    """The first and last session of rows that land, as a file's name gives them, and the file's content."""
    import pyarrow as pa
    from pyarrow import csv

    rows = rows.assign(source=source, interval=interval)
    table = pa.Table.from_pandas(
        rows[FILE_COLUMNS], schema=pa.schema([(name, pa.string()) for name in FILE_COLUMNS]), preserve_index=False
    )
    text = pa.BufferOutputStream()
    csv.write_csv(table, text, csv.WriteOptions(quoting_style="all_valid"))
    days = [day for day in rows["day"] if day] or [NO_DAY]
    return f"{min(days)}_{max(days)}", text.getvalue().to_pybytes()


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


def _rows_in(content: bytes) -> pa.Table:
    """What landing compares of the rows of a landed file: VALUES, MEANING and provenance. Raises one of CSV_ERRORS where it
    is none.

    A file from before a column was there has ANY in those of MEANING, null in others.
    """
    import pyarrow as pa
    from pyarrow import csv

    as_text = csv.ConvertOptions(
        column_types={name: pa.string() for name in FILE_COLUMNS},
        include_columns=[*VALUES, *MEANING, "ingested_at", "adjusted_to", "file", "problem"],
        include_missing_columns=True,
        strings_can_be_null=True,
        null_values=[""],
    )
    rows = csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(block_size=LARGEST_ROW),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=as_text,
    )
    if rows["ingested_at"].null_count or not rows["ingested_at"].type.equals(pa.string()):
        raise ValueError("a row without its landing time")
    header = content[: content.find(b"\n")].decode(errors="replace")
    if '"session"' not in header:
        for name in MEANING:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array([ANY] * rows.num_rows, pa.string()))
    return rows


def _seal(content: bytes) -> str:
    return f"{len(content):012x}{hashlib.sha256(content).hexdigest()[:16]}"


def _seal_in(name: str) -> str | None:
    match = NAME.fullmatch(name)
    return match[1] if match else None


def _may_hold(name: str, days: pd.Series) -> bool:
    """Whether a landed file may hold a row of one of `days` (ISO text), by the first and last session in its name."""
    first, last = name.split("_")[1:3]
    return first == NO_DAY or bool(((days >= first) & (days <= last)).any())


def _is_ours(file: File) -> bool:
    parts = file.path.removeprefix(f"{RAW.path}/").split("/")
    return (
        len(parts) == 3
        and parts[0].startswith("ticker=")
        and parts[1].startswith("year=")
        and NAME.fullmatch(parts[2]) is not None
    )


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
        """Land what waited for the end of the download."""
        import pandas as pd

        if not self._waiting:
            return Landing()
        waiting = pd.concat(self._waiting, ignore_index=True)
        self._waiting = []
        with self._raw.at_rest():
            return self._land(waiting, self._raw.landed(waiting), waiting)

    def _land(self, inside: pd.DataFrame, landed: pd.DataFrame, delivered: pd.DataFrame) -> Landing:
        import pandas as pd

        landing = fresh(inside, landed, self._now, self._final_at)
        proven = proves_newer_basis(delivered, landed, landing)
        if proven.any():
            landing = fresh(inside, landed, self._now, self._final_at, proven.reindex(inside.index, fill_value=False))
        files = self._raw.write(landing, self._source, self._interval, self._run_id, self._now)
        fates = pd.Series("repeated", index=inside.index)
        fates[landing.index] = "landed"
        found = contradictions(inside, landed, self._now)
        return counted(inside, fates) + Landing(files=files, contradictions=found)


def _readable(rows: pa.Table) -> pa.Table:
    """`rows` with U+FFFD for every NUL, which JVM Spark's CSV reader leaves out: "1" and a NUL would be the number 1 there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.table({name: pc.replace_substring(rows[name], "\0", "\ufffd") for name in rows.column_names})
