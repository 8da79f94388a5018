"""The raw layer: append-only CSV files, one a landing, ticker and year.

Here: what lands, under which name, and how it is read. A file appears whole and is never changed; in a bucket the store itself
refuses a second one of the name. Not here: what the text means, beyond the ticker and the year that decide where a row lies.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.lock import confirm, one_writer
from stock_lakehouse.lake.publish import of_tickers, partition_folder, partition_of
from stock_lakehouse.lake.storage import File, LakeRoot, StorageError, storage_at, under
from stock_lakehouse.partitions import Rectangle
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
DAY = re.compile(r"\s*(\d{4}-\d{2}-\d{2})(?:[T ].*)?\s*", re.DOTALL)

VALUES = [one.name for one in schema.DELIVERED]
KEY = ["ticker", "year", "key"]
FILE_COLUMNS = [one.name for one in (*schema.DELIVERED, *schema.PROVENANCE)]
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

    def __init__(self, lake_root: LakeRoot) -> None:
        self.root = under(lake_root, RAW.path)
        self._lake_root = lake_root
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
        """Land the rows that are new or differ from the newest landed row of their ticker and session.

        Where a delivery gives a ticker and session several times, its last row is the newest; delivered again, none lands.
        `rows` has `sources.DELIVERED_COLUMNS`. Rows of other tickers or days than `asked` are outside and do not land. A row
        whose ticker or date cannot be read lands once, by its content. `final_at` gives when a session's bar becomes final,
        None for a day that is no session: a bar landed before then lands once more after it, so that it can become final
        though its text is the same.
        """
        if rows.num_rows == 0:
            return Landing()
        with one_writer(self._lake_root, RAW.name):
            placed = _place(_readable(rows).to_pandas(), asked)
            inside = placed[placed["inside"]]
            landed = self._landed(inside)
            fresh = _fresh(inside, landed, now, final_at)
            confirm(self._lake_root)
            files = 0
            for (ticker, year), group in fresh.groupby(["ticker", "year"], sort=True):
                self._write(group, ticker, year, source, interval, run_id, now)
                files += 1
        return Landing(
            delivered=len(placed),
            landed=len(fresh),
            repeated=len(inside) - len(fresh),
            outside=len(placed) - len(inside),
            files=files,
        )

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
        """No row lands meanwhile, so what is read twice is the same twice. A run that lands waits."""
        with one_writer(self._lake_root, RAW.name):
            yield

    def files(self) -> list[File]:
        """Every landed file."""
        return sorted((one for one in self._storage.walk(RAW.path) if _is_ours(one)), key=lambda one: one.path)

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

    def strangers(self) -> list[str]:
        """Files under the raw root that do not follow the naming, so are never read; a kill leaves hidden ones."""
        return sorted(self._storage.uri(one.path) for one in self._storage.walk(RAW.path) if not _is_ours(one))

    def _landed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The landed rows of the ticker-years of `rows`, oldest first, with VALUES, ingested_at, ticker, year, key."""
        import pandas as pd

        days: dict[tuple[str, str], pd.Series] = {
            pair: group["day"].dropna() for pair, group in rows.groupby(["ticker", "year"], sort=True)
        }

        def of_pair(pair: tuple[str, str]) -> list[pd.DataFrame]:
            walked = sorted(self._storage.walk(self._folder(*pair)), key=lambda one: one.path)
            files = [one for one in walked if _is_ours(one) and _may_hold(one.name, days[pair])]
            return [self._rows_of(one).assign(ticker=pair[0], year=pair[1]) for one in files]

        frames = [one for found in self._storage.map(of_pair, days) for one in found]
        if not frames:
            return pd.DataFrame(columns=[*VALUES, "ingested_at", "ticker", "year", "key"], dtype=object)
        landed = pd.concat(frames, ignore_index=True)
        landed["key"] = _keys(landed)
        return landed.sort_values("ingested_at", kind="stable", ignore_index=True)

    def _rows_of(self, file: File) -> pd.DataFrame:
        content = self._storage.read(file.path)
        if _seal_in(file.name) not in (None, _seal(content)):
            raise CorruptRawFileError([f"{self._storage.uri(file.path)} (other bytes than landed)"])
        try:
            return _rows_in(content).to_pandas()
        except CSV_ERRORS as error:
            raise CorruptRawFileError([f"{self._storage.uri(file.path)} ({printable(str(error))[:200]})"]) from None

    def _write(
        self, group: pd.DataFrame, ticker: str, year: str, source: str, interval: str, run_id: str, now: datetime
    ) -> None:
        import pyarrow as pa
        from pyarrow import csv

        group = group.assign(source=source, interval=interval)
        table = pa.Table.from_pandas(
            group[FILE_COLUMNS], schema=pa.schema([(name, pa.string()) for name in FILE_COLUMNS]), preserve_index=False
        )
        text = pa.BufferOutputStream()
        csv.write_csv(table, text, csv.WriteOptions(quoting_style="all_valid"))
        content = text.getvalue().to_pybytes()
        days = [day for day in group["day"] if day] or [NO_DAY]
        run = run_id.replace("-", "")[:8]
        if not re.fullmatch(
            "[0-9a-f]{8}", run
        ):  # an id of a caller's own: under another name the file would not be read
            run = hashlib.sha256(run_id.encode()).hexdigest()[:8]
        while True:
            name = f"bars_{min(days)}_{max(days)}_{now:%Y%m%dT%H%M%S%f}Z_{run}_{_seal(content)}.csv"
            try:
                self._storage.create(f"{self._folder(ticker, year)}/{name}", content)
            except FileExistsError:  # the clock stands still
                now += timedelta(microseconds=1)
            else:
                return

    @staticmethod
    def _folder(ticker: str, year: str) -> str:
        return f"{RAW.path}/{partition_folder(ticker, year)}"


def _rows_in(content: bytes) -> pa.Table:
    """VALUES and `ingested_at` of the rows of a landed file. Raises one of CSV_ERRORS where it is none."""
    import pyarrow as pa
    from pyarrow import csv

    as_text = csv.ConvertOptions(
        column_types={name: pa.string() for name in FILE_COLUMNS},
        include_columns=[*VALUES, "ingested_at"],
        strings_can_be_null=True,
        null_values=[""],
    )
    rows = csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(block_size=LARGEST_ROW),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=as_text,
    )
    if rows["ingested_at"].null_count:
        raise ValueError("a row without its landing time")
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


def _readable(rows: pa.Table) -> pa.Table:
    """`rows` with U+FFFD for every NUL, which JVM Spark's CSV reader leaves out: "1" and a NUL would be the number 1 there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.table({name: pc.replace_substring(rows[name], "\0", "\ufffd") for name in rows.column_names})


def _place(rows: pd.DataFrame, asked: Rectangle) -> pd.DataFrame:
    """`rows` with the ticker and year of their folder, `day` (ISO text or None), `key`, and whether they are `inside`."""
    placed = rows.assign(ticker=rows["ticker"].fillna(UNREADABLE))
    days = {text: _day(text) for text in placed["date"].unique()}
    placed["day"] = [days[text] for text in placed["date"]]
    placed["year"] = [day[:4] if day else UNREADABLE for day in placed["day"]]
    tickers = {*asked.tickers, UNREADABLE}
    contains = {day: day is None or asked.covers(date.fromisoformat(day)) for day in set(days.values())}
    placed["inside"] = [
        ticker in tickers and contains[day] for ticker, day in zip(placed["ticker"], placed["day"], strict=True)
    ]
    placed["key"] = _keys(placed)
    return placed


def _day(text: Any) -> str | None:
    """The day that `text` begins with, as ISO text; None if it is none of the years 1 to 9999."""
    match = DAY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return date.fromisoformat(match[1]).isoformat()
    except ValueError:
        return None


def _keys(rows: pd.DataFrame) -> list[str]:
    """What makes two rows of a ticker and year deliveries of the same thing: the day, or where ticker or day cannot be read
    a digest of everything that was delivered."""

    def digest(values: tuple[Any, ...]) -> str:
        return hashlib.sha256(
            repr([value if isinstance(value, str) and value else None for value in values]).encode()
        ).hexdigest()

    keys = [str(text).strip()[:10] for text in rows["date"]]
    unreadable = ((rows["ticker"] == UNREADABLE) | (rows["year"] == UNREADABLE)).to_numpy().nonzero()[0]
    values = rows[VALUES]
    for index in unreadable:
        keys[index] = digest(tuple(values.iloc[index]))
    return keys


def _fresh(
    inside: pd.DataFrame, landed: pd.DataFrame, now: datetime, final_at: Callable[[date], datetime | None]
) -> pd.DataFrame:
    """The rows of `inside` that land, in order, each with the text of its `ingested_at`.

    A row's landing time is `now`, but always later than that of the row it supersedes, by a microsecond if need be: the
    newest delivery is then known by its time alone, whatever the clock did and however often one delivery repeats a key.
    """
    import pandas as pd

    columns = [*KEY, "day", *VALUES, "problem", "adjusted_to", "ingested_at"]
    newest = landed.drop_duplicates(KEY, keep="last")
    both = pd.concat(
        [newest.reindex(columns=columns).astype(object), inside.reindex(columns=columns).astype(object)],
        ignore_index=True,
    )
    both["is_new"] = [False] * len(newest) + [True] * len(inside)
    before = both.groupby(KEY, sort=False)
    values = both[VALUES].where(both[VALUES].notna(), "")
    same = (values == before[VALUES].shift().fillna("")).all(axis=1) & (before.cumcount() > 0)
    same |= pd.Series([False] * len(newest) + _delivered_before(inside, landed), dtype=bool)
    is_last = ~both.duplicated(KEY, keep="last")
    stamps, kept = [], []
    last: dict[tuple[str, str, str], datetime] = {}
    finals: dict[str, datetime | None] = {}
    for is_new, ticker, year, one_key, day, repeated, last_of_key, stamp in zip(
        *(both[name] for name in ("is_new", *KEY, "day")), same, is_last, both["ingested_at"], strict=True
    ):
        identity = (ticker, year, one_key)
        before_it = last.get(identity)
        if not is_new:
            last[identity] = datetime.fromisoformat(stamp)
            kept.append(False)
            stamps.append(stamp)
            continue
        if day and day not in finals:
            finals[day] = final_at(date.fromisoformat(day))
        # A row without a ticker never becomes a bar, so nothing of it can become final.
        final = finals.get(day) if day and ticker != UNREADABLE else None
        confirms = final is not None and before_it is not None and before_it < final <= now and last_of_key
        if repeated and not confirms:
            kept.append(False)
            stamps.append(None)
            continue
        at = now if before_it is None else max(now, before_it + timedelta(microseconds=1))
        last[identity] = at
        kept.append(True)
        stamps.append(f"{at:%Y-%m-%dT%H:%M:%S.%f}Z")
    both["ingested_at"] = stamps
    return both.loc[kept]  # not both[kept], which takes an empty list for columns


def _delivered_before(inside: pd.DataFrame, landed: pd.DataFrame) -> list[bool]:
    """Which rows of `inside` are of a key that it gives several times, all of them landed before and the last the newest.

    Each of those rows differs from the one before it, so one by one all would land again whenever they are delivered.
    """
    several = inside.duplicated(KEY, keep=False).to_numpy()
    if not several.any():
        return [False] * len(inside)

    def texts(rows: pd.DataFrame) -> dict[tuple[Any, ...], list[tuple[Any, ...]]]:
        found: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        values = rows[VALUES].astype(object).where(rows[VALUES].notna(), "")
        for *key, in_full in zip(*(rows[name] for name in KEY), values.itertuples(index=False, name=None), strict=True):
            found.setdefault(tuple(key), []).append(in_full)
        return found

    delivered, there = texts(inside[several]), texts(landed)
    known = {
        key
        for key, rows in delivered.items()
        if key in there and rows[-1] == there[key][-1] and set(rows) <= set(there[key])
    }
    return [key in known for key in zip(*(inside[name] for name in KEY), strict=True)]
