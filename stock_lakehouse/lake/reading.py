"""Tables for Python, as Arrow tables, without an engine: the present rows, or the rows as of a moment.

Here: the rows of a table, and the errors for what does not exist. Not here: which version of a Delta table is read (history.py),
and the lists of tables and columns (dictionary.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.history import NoVersionError, commits, in_words, snapshot_at, version_at
from stock_lakehouse.lake.serving import SERVED, ServingCopy
from stock_lakehouse.lake.storage import DeniedError, LakeError, LakeRoot, StorageError
from stock_lakehouse.lake.stored import conformed
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.schemas import Column
from stock_lakehouse.tables import (
    ANY_BY_NAME,
    BARS_WITH_FEATURES,
    BY_NAME,
    CURATED,
    FEATURES,
    RAW,
    RESTATEMENTS,
    STREAM_BY_NAME,
    TABLES,
    UNREADABLE,
    Table,
    bars_with_features,
)

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa

# The names that editors offer. A test compares them with tables.py.
TableName = Literal[
    "raw_stocks_daily",
    "processed_stocks_daily",
    "processed_quarantine",
    "processed_actions",
    "curated_stocks_daily",
    "corporate_actions",
    "stocks_features",
    "restatements",
    "bars_with_features",
    "raw_ticks",
    "minute_bars",
    "minute_reconciliation",
    "live_features",
    "stream_losses",
]
Moment = datetime | date | str
Day = date | str
NAMES = (*BY_NAME, BARS_WITH_FEATURES)
STREAM_NAMES = tuple(STREAM_BY_NAME)  # the tables of the stream, which a lake may have besides
STORED = (*BY_NAME, *STREAM_NAMES)
ORDER = (
    *("ticker", "date", "ex_date", "kind", "table_name", "ingested_at", "restated_at"),
    *("minute", "event_time", "accepted_at", "from_offset"),
)
SESSION_COLUMNS = ("ex_date", "date", "trade_date")
WITH_HISTORY = tuple(table.name for table in TABLES if table.format != "parquet")
LISTED = 20  # tickers in a message
ISO_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
TO_DO = "name another folder, or fill this one: `stock-lakehouse materialize`"


class UnknownTableError(LakeError, ValueError):
    """There is no table of this name. The message lists the names."""


class UnknownColumnError(LakeError, ValueError):
    """The table has no such column. The message lists its columns."""


class UnknownTickerError(LakeError, ValueError):
    """The lake has never had a row of the ticker. The message lists its tickers."""


class InvalidDateError(LakeError, ValueError):
    """What was given is no date or no moment, or the first date is after the last."""


class NoHistoryError(LakeError, ValueError):
    """The table has no history, so it cannot be read as of a moment. The message lists the tables that have one."""


class NoLakeError(LakeError, ValueError):
    """There is no lake at the given place."""


class MissingPackageError(LakeError, ImportError):
    """A package of the platform is needed and not installed. The message says what to install."""


@dataclass(frozen=True)
class Selection:
    """Which rows are read.

    - tickers: every spelling of the requested tickers (None: all tickers)
    - first, last: the first and the last session (None: no limit)
    - at: the moment as of which rows are read (None: now)
    - columns: the columns that are needed; a table may be read with more
    """

    tickers: list[str] | None
    first: date | None
    last: date | None
    at: datetime | None
    columns: frozenset[str]


def read_table(
    name: TableName | str,
    *,
    tickers: str | Iterable[str] | None = None,
    first: Day | None = None,
    last: Day | None = None,
    columns: str | Iterable[str] | None = None,
    as_of: Moment | None = None,
    lake_root: LakeRoot | None = None,
) -> pa.Table:
    """The rows of a table, sorted by ticker and session. The metadata of each field has the column's description.

    - name: a table of `list_tables()`, or "bars_with_features": each curated bar beside its indicators.
    - tickers: one ticker or several, in any case (None: all).
    - first, last: the first and the last session, as a date or its ISO text (None: no limit). A row whose session cannot be read
      is left out if one of them is given.
    - columns: one column or several (None: all). The result has them in this order.
    - as_of: read the rows as they were at that moment, bit for bit. A datetime, a date or the ISO text of one; UTC if it has no
      zone; a date means its last instant. Delta tables are read by version, each from the time of its commit; raw is read by
      landing time; the Parquet tables have no history. A column that was added later is null.
    - lake_root: a folder or s3://bucket/prefix (None: that of the settings).

    All errors but SettingsError are a LakeError: UnknownTableError, UnknownColumnError, UnknownTickerError, InvalidDateError,
    NoHistoryError, NoLakeError, StorageError, MissingPackageError; and NoVersionError, whose message gives the earliest time
    available, if the moment is before it.
    """
    import pyarrow as pa

    lake = opened_lake(lake_root)
    _check_folder(lake)
    table = table_of(lake, name)
    wanted = _wanted(table, columns)
    asked = [tickers] if isinstance(tickers, str) else None if tickers is None else list(tickers)
    selection = Selection(
        None if asked is None else sorted({spelling for ticker in asked for spelling in _spellings(ticker)}),
        _day(first, "first"),
        _day(last, "last"),
        None if as_of is None else moment(as_of),
        frozenset((*wanted, *ORDER)),
    )
    if selection.first and selection.last and selection.last < selection.first:
        raise InvalidDateError(f"last: {selection.last} is before first: {selection.first}")
    if selection.at is not None and name in BY_NAME and name not in WITH_HISTORY:
        raise NoHistoryError(f"{name} keeps no history; these tables do: {', '.join(WITH_HISTORY)}")
    _check_selection(table, selection)
    sources = [name] if name in STORED else list(table.made_from)
    lake.check(*sources)
    check_lake(lake, sources)
    rows = _rows(lake, table, selection) if name in STORED else _joined(lake, selection)
    if asked is not None:
        configured = lake.options.tickers if lake_root is None else ()
        _check_tickers(lake, asked, {*rows["ticker"].unique().to_pylist(), *configured})
    ordered = rows.sort_by([(column, "ascending") for column in ORDER if column in table.column_names])
    documented = table.documented_schema
    return ordered.select(wanted).cast(pa.schema([documented.field(column) for column in wanted], documented.metadata))


def opened_lake(lake_root: LakeRoot | None) -> Lake:
    """The lake at `lake_root`; None: that of the settings. Raises NoLakeError, MissingPackageError, SettingsError."""
    if lake_root is not None:
        root = Path(lake_root).expanduser() if str(lake_root).startswith("~") else lake_root
        try:
            options = LakeOptions.of(root)
        except ValueError as error:
            raise NoLakeError(_reason(error)) from None
        return Lake(options)
    try:
        from stock_lakehouse.settings import load_settings
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"reading lakehouse.toml needs {error.name}: pip install 'stock-lakehouse[platform]', or pass lake_root=…"
        ) from None
    return Lake(load_settings().lake_options)


def names_of(lake: Lake) -> tuple[str, ...]:
    """The tables and the view of `lake`; those of the stream where they exist. Raises StorageError."""
    return (*NAMES, *(stored.table.name for stored in lake.stream_tables()))


def table_of(lake: Lake, name: str) -> Table:
    """The table or view `name`, with the columns that it has in `lake`. Raises UnknownTableError."""
    if name == BARS_WITH_FEATURES:
        return bars_with_features(_features(lake))
    if name in STREAM_NAMES:
        return lake.stream[name].table
    if name not in BY_NAME:
        known = names_of(lake)
        raise UnknownTableError(f"no table {name}{_meant(name, known)}; allowed: {', '.join(known)}")
    return _features(lake) if name == FEATURES.name else BY_NAME[name]


def moment(value: Moment) -> datetime:
    """The instant in UTC. Text is in ISO format; a time without a zone is UTC; a date means its last microsecond.

    Raises InvalidDateError for text that is neither a date nor a time.
    """
    if isinstance(value, str):
        try:
            value = (
                date.fromisoformat(value) if len(value.strip()) == len("2024-05-03") else datetime.fromisoformat(value)
            )
        except ValueError:
            raise InvalidDateError(
                f"{value!r} is no moment; allowed: a date like 2024-05-03 (its end, UTC) or a time like 2024-05-03T20:30 (UTC) "
                "or 2024-05-03T16:30-04:00"
            ) from None
    if not isinstance(value, datetime):
        return datetime.combine(value, time.max, UTC)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _day(value: Day | None, name: str) -> date | None:
    if isinstance(value, datetime):
        return value.date()
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidDateError(f"{name}: {value!r} is no date; allowed: a date, or a text like 2024-05-03") from None


def _spellings(ticker: str) -> set[str]:
    """`ticker` as it is and in upper case. Upper case has another form where the ticker of a row could not be read."""
    return {ticker, UNREADABLE if ticker.lower() == UNREADABLE else ticker.upper()}


def _wanted(table: Table, columns: str | Iterable[str] | None) -> list[str]:
    """`columns` as a list; all columns for None. Raises UnknownColumnError."""
    if columns is None:
        return list(table.column_names)
    wanted = [columns] if isinstance(columns, str) else list(columns)
    for name in wanted:
        if name not in table.column_names:
            allowed = ", ".join(table.column_names)
            raise UnknownColumnError(
                f"{table.name} has no column {name}{_meant(name, table.column_names)}; allowed: {allowed}"
            )
    return wanted


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _reason(error: ValueError) -> str:
    """The reason of the first error of pydantic."""
    errors = getattr(error, "errors", None)
    return str(errors()[0]["msg"]).removeprefix("Value error, ") if errors else str(error)


def _check_folder(lake: Lake) -> None:
    """Raise NoLakeError if the lake should be in a folder that does not exist."""
    if isinstance(lake.root, Path) and not lake.root.is_dir():
        what = "is a file" if lake.root.exists() else "does not exist"
        raise NoLakeError(f"there is no lake at {lake.root}, which {what}; {TO_DO}")


def check_lake(lake: Lake, names: Sequence[str]) -> None:
    """Raise NoLakeError if none of the lake's tables has a file. The tables `names` are looked at first."""
    for name in (*names, *ANY_BY_NAME):
        try:
            if next(iter(lake.storage.walk(lake.stored(name).table.path)), None) is not None:
                return
        except StorageError:
            if name in names:
                raise
            return  # a reader who may list the requested table alone cannot know whether there are others
    raise NoLakeError(f"there is no lake at {lake.root}: it has none of the lake's tables; {TO_DO}")


def _check_tickers(lake: Lake, asked: Sequence[str], known: set[str | None]) -> None:
    """Raise UnknownTickerError if one of `asked` is not among `known`, and the lake has never had a row of it."""
    known = {UNREADABLE, *known}
    missing = [ticker for ticker in asked if not _spellings(ticker) & known]
    for stored in (lake.curated, lake.raw):  # raw has all tickers, but its files have to be read
        if missing:
            try:
                known |= {ticker for ticker, _ in stored.ticker_years(skip_damaged=True)}
            except DeniedError:
                break  # a reader who may not read raw gets the tickers of curated bars
            missing = [ticker for ticker in missing if not _spellings(ticker) & known]
    if missing:
        held = sorted(ticker for ticker in known if ticker and ticker != UNREADABLE)
        names = ", ".join(f"{ticker}{_meant(ticker.upper(), held)}" for ticker in missing)
        more = f" and {len(held) - LISTED:,} more" if len(held) > LISTED else ""
        raise UnknownTickerError(f"no ticker {names} in the lake; it has {', '.join(held[:LISTED]) or 'none'}{more}")


def _features(lake: Lake) -> Table:
    """The table of features, also with published columns of indicators that the options of `lake` do not name.

    Those are of a user's own file. `lake_root` says where the lake is, and not which file that is.
    """
    stored = lake.features
    lake.check(FEATURES.name)
    if not stored.exists():
        return stored.table
    types = {field.name: str(getattr(field.type, "type", "")) for field in stored.snapshot().schema().fields}
    others = tuple(
        Column(name, types[name], "Own indicator, of a file that is not among these settings", null="not known")
        for name in types
        if name not in stored.table.column_names and types[name] in ("double", "boolean")
    )
    *columns, year = stored.table.columns
    return replace(stored.table, columns=(*columns, *others, year))


def _joined(lake: Lake, selection: Selection) -> pa.Table:
    """The rows of the view BARS_WITH_FEATURES: bars and features as of the same moment."""
    bars, features = _rows(lake, CURATED, selection), _rows(lake, _features(lake), selection)
    key = list(CURATED.key)
    added = [name for name in features.column_names if name not in bars.column_names]
    return bars.join(features.select([*key, *added]), key, join_type="left outer")


def _rows(lake: Lake, table: Table, selection: Selection) -> pa.Table:
    """The selected rows of a stored table, in no particular order."""
    if table.format == "delta":
        return _delta(lake, table, selection)
    if table == RAW:
        rows = lake.raw.read_text(RAW.column_names, selection.tickers)
        rows = rows if selection.at is None else _landed_by(rows, selection.at)
    else:
        rows = lake.parquet[table.name].read_arrow(selection.tickers)
    return _within(rows, table, selection)


def _within(rows: pa.Table, table: Table, selection: Selection) -> pa.Table:
    """The rows of `first` to `last`. The session of a delivered row is text: as its source read it, else the ISO date."""
    import pyarrow as pa
    import pyarrow.compute as pc

    session = rows[_session_of(table)]
    if session.type == pa.string():
        day = pc.if_else(pc.match_substring_regex(session, ISO_DAY), pc.utf8_slice_codeunits(session, 0, 10), None)
        session = pc.coalesce(rows["session"], day)
    inside = pa.chunked_array([pa.array([True] * rows.num_rows, pa.bool_())])
    for limit, is_inside in ((selection.first, pc.greater_equal), (selection.last, pc.less_equal)):
        if limit is not None:
            bound = limit.isoformat() if session.type == pa.string() else limit
            inside = pc.and_(inside, is_inside(session, pa.scalar(bound, session.type)))
    return rows.filter(inside)


def _session_of(table: Table) -> str:
    return next(name for name in SESSION_COLUMNS if name in table.column_names)


def _check_selection(table: Table, selection: Selection) -> None:
    """Raise UnknownColumnError if the rows of `table` cannot be chosen by ticker or by session."""
    if selection.tickers is not None and "ticker" not in table.column_names:
        raise UnknownColumnError(f"{table.name} has no column ticker; leave tickers out")
    if (selection.first or selection.last) and not set(SESSION_COLUMNS) & set(table.column_names):
        raise UnknownColumnError(f"{table.name} has no column with a session; leave first and last out")


def _delta(lake: Lake, table: Table, selection: Selection) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    stored, at = lake.stored(table.name), selection.at
    assert isinstance(stored, DeltaTable)
    if not stored.exists() if at is None else _not_created_yet(lake, stored, at):
        return table.arrow_schema.empty_table()
    opened = snapshot_at(stored, at)
    needed = replace(table, columns=tuple(column for column in table.columns if column.name in selection.columns))
    is_served = table.name in {served.name for served in SERVED}
    if is_served and (rows := _served(lake, needed, opened, selection)) is not None:
        return rows
    wanted = pc.scalar(True)
    is_streamed = table.name in STREAM_NAMES
    if selection.tickers is not None and not is_streamed:
        wanted = wanted & pc.field("ticker").isin(selection.tickers)
    if selection.first is not None:
        wanted = wanted & (pc.field(_session_of(table)) >= selection.first)
    if selection.last is not None:
        wanted = wanted & (pc.field(_session_of(table)) <= selection.last)
    dataset = opened.to_pyarrow_dataset()
    if table == RESTATEMENTS:
        return _committed_lines(lake, conformed(dataset.to_table(filter=wanted), table), at)
    on_disk = [column for column in needed.column_names if column in dataset.schema.names]
    rows = conformed(dataset.to_table(on_disk, filter=wanted), needed)
    if is_streamed and selection.tickers is not None:
        # A MERGE writes text as string_view, which pyarrow's filters on files do not know.
        rows = rows.filter(pc.is_in(rows["ticker"], value_set=pa.array(selection.tickers, pa.string())))
    return rows


def _served(lake: Lake, table: Table, opened: deltalake.DeltaTable, selection: Selection) -> pa.Table | None:
    """The selected rows of the version `opened` from the lake's serving copy; None if it does not have all of them."""
    years = None
    if selection.first is not None or selection.last is not None:
        years = range((selection.first or date.min).year, (selection.last or date.max).year + 1)
    rows = ServingCopy(lake).rows(table, opened, table.column_names, years, selection.tickers)
    return None if rows is None else _within(conformed(rows, table), table, selection)


def _not_created_yet(lake: Lake, stored: DeltaTable, at: datetime) -> bool:
    """True if the lake existed at `at` but this table had not been created yet. It then has no rows, and there is no error.

    The lake existed if it had curated bars. A table is created with its first row.
    """
    first = commits(stored)[0] if stored.exists() else None
    before = first is None or (first.version == 0 and at < first.at)
    return before and lake.curated.exists() and version_at(commits(lake.curated), at) is not None


def _committed_lines(lake: Lake, lines: pa.Table, at: datetime | None) -> pa.Table:
    """The lines of the ledger that are not orphaned at `at` (None: now), as `Ledger.read` decides."""
    import pyarrow.compute as pc

    is_orphaned = pc.equal(lines["from_version"], -1)
    for name in {*pc.unique(lines["table_name"]).to_pylist()} & BY_NAME.keys():
        stored = lake.delta.get(name)
        if stored is None or not stored.exists():
            continue
        version = stored.version() if at is None else version_at(commits(stored), at)
        of_table = pc.equal(lines["table_id"], str(stored.snapshot().metadata().id))
        is_orphaned = pc.or_(
            is_orphaned, pc.and_(of_table, pc.greater_equal(lines["from_version"], -1 if version is None else version))
        )
    return lines.filter(pc.invert(is_orphaned))


def _landed_by(rows: pa.Table, at: datetime) -> pa.Table:
    """The rows that had landed at `at`. All landing times have one format, so they are compared as text."""
    import pyarrow.compute as pc

    landed = rows.filter(pc.less_equal(rows["ingested_at"], f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"))
    if not landed.num_rows:
        first = pc.min(rows["ingested_at"]).as_py()
        raise NoVersionError(
            f"{RAW.name}: none of the requested rows had landed by {in_words(at)}; "
            + (f"the first landed at {first}" if first else "nothing has landed at all")
        )
    return landed


def has_rows_at(lake: Lake, name: str, at: datetime | None) -> bool:
    """Whether the Delta table `name` has a version to read at `at` (None: now); False if it had not been created yet.

    True if the lake itself did not exist at `at`: then there is a version to look for, and an error when none is found.
    """
    stored = lake.delta[name]
    return stored.exists() if at is None else not _not_created_yet(lake, stored, at)


def lines_of_run(lake: Lake, run_id: str) -> pa.Table:
    """The lines of the ledger that the run `run_id` wrote and that are not orphaned, in no particular order."""
    import pyarrow.compute as pc

    stored = lake.delta[RESTATEMENTS.name]
    if not stored.exists():
        return RESTATEMENTS.arrow_schema.empty_table()
    lines = stored.snapshot().to_pyarrow_dataset().to_table(filter=pc.field("run_id") == run_id)
    return _committed_lines(lake, conformed(lines, RESTATEMENTS), None)


def rows_as_of(lake: Lake, name: str, at: datetime | None) -> pa.Table:
    """All rows of the stored table `name` at the moment `at` (None: now), in no particular order.

    Raises NoHistoryError, NoVersionError, StorageError.
    """
    table = table_of(lake, name)
    if at is not None and name not in WITH_HISTORY:
        raise NoHistoryError(f"{name} keeps no history; these tables do: {', '.join(WITH_HISTORY)}")
    rows = _rows(lake, table, Selection(None, None, None, at, frozenset(table.column_names)))
    return rows.select(list(table.column_names)).cast(table.arrow_schema)
