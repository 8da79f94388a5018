"""Tables for Python, as Arrow, without an engine: as they are, or as they were at a moment.

Here: what a table said. Not here: which version of a Delta table that is (lake/history.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable
from stock_lakehouse.lake.history import NoVersionError, commits, in_words, open_as_of, version_at
from stock_lakehouse.lake.stored import conformed
from stock_lakehouse.tables import BY_NAME, RAW, RESTATEMENTS, TABLES, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from stock_lakehouse.lake.storage import LakeRoot

Moment = datetime | date | str
ORDER = ("ticker", "date", "ex_date", "kind", "table_name", "ingested_at", "restated_at")
WITH_HISTORY = tuple(table.name for table in TABLES if table.format != "parquet")


def read_table(
    name: str,
    *,
    tickers: Sequence[str] | None = None,
    as_of: Moment | None = None,
    lake_root: LakeRoot | None = None,
) -> pa.Table:
    """The rows of a table, of all tickers or of `tickers`, with the columns of its schema, by ticker and session.

    `as_of`: what the lake said at that moment, bit for bit; a datetime, a date or their ISO text, UTC where no zone is given, a
    date its last instant. Delta tables answer by their versions, a commit counting from the time that it says, raw by its
    landing times; the Parquet tables have no history. A column that was added later is null. `lake_root`: the settings' if
    left out.

    Raises ValueError for a table that does not exist, a moment that cannot be read, or a table without history;
    NoVersionError, which gives the earliest time available, for a moment before it; SettingsError; StorageError.
    """
    if name not in BY_NAME:
        raise ValueError(f"no table {name}; allowed: {', '.join(BY_NAME)}")
    table, at = BY_NAME[name], None if as_of is None else moment(as_of)
    if at is not None and name not in WITH_HISTORY:
        raise ValueError(f"{name} keeps no history; these tables do: {', '.join(WITH_HISTORY)}")
    if lake_root is None:
        from stock_lakehouse.settings import load_settings

        lake = Lake(load_settings().lake_options)
    else:
        lake = Lake(lake_root)
    lake.check(name)
    if table.format == "delta":
        found = _delta(lake, table, tickers, at)
    elif table == RAW:
        found = lake.raw.read_text(RAW.column_names, tickers)
        if at is not None:
            found = _landed_by(found, at)
    else:
        found = lake.parquet[table.name].read_arrow(tickers)
    return found.sort_by([(one, "ascending") for one in ORDER if one in table.column_names])


def moment(said: Moment) -> datetime:
    """The instant, UTC: text is ISO, a time without a zone is UTC, a date alone is its last microsecond.

    Raises ValueError for text that is neither.
    """
    if isinstance(said, str):
        try:
            said = date.fromisoformat(said) if len(said.strip()) == len("2024-05-03") else datetime.fromisoformat(said)
        except ValueError:
            raise ValueError(
                f"{said!r} is no moment; allowed: a date like 2024-05-03 (its end, UTC) or a time like 2024-05-03T20:30 (UTC) "
                "or 2024-05-03T16:30-04:00"
            ) from None
    if not isinstance(said, datetime):
        return datetime.combine(said, time.max, UTC)
    return said.astimezone(UTC) if said.tzinfo else said.replace(tzinfo=UTC)


def _delta(lake: Lake, table: Table, tickers: Sequence[str] | None, at: datetime | None) -> pa.Table:
    import pyarrow.compute as pc

    stored = lake.delta[table.name]
    if not stored.exists() if at is None else _not_made_yet(lake, stored, at):
        return table.arrow_schema.empty_table()
    opened = stored.open() if at is None else open_as_of(stored, at)
    wanted = None if tickers is None else pc.field("ticker").isin(list(tickers))
    found = conformed(opened.to_pyarrow_dataset().to_table(filter=wanted), table)
    return _came_true(lake, found, at) if table == RESTATEMENTS else found


def _not_made_yet(lake: Lake, stored: DeltaTable, at: datetime) -> bool:
    """Whether there were curated bars and not yet this table, which its first row makes: it had no rows."""
    first = commits(stored)[0] if stored.exists() else None
    before = first is None or (first.version == 0 and at < first.at)
    return before and lake.curated.exists() and version_at(commits(lake.curated), at) is not None


def _came_true(lake: Lake, lines: pa.Table, at: datetime | None) -> pa.Table:
    """The lines of the ledger whose commit had come: `Ledger.read`, at a moment."""
    import pyarrow.compute as pc

    in_vain = pc.equal(lines["from_version"], -1)
    for name in {*pc.unique(lines["table_name"]).to_pylist()} & BY_NAME.keys():
        told = lake.delta.get(name)
        if told is None or not told.exists():
            continue
        version = told.version() if at is None else version_at(commits(told), at)
        its_own = pc.equal(lines["table_id"], str(told.open().metadata().id))
        in_vain = pc.or_(
            in_vain, pc.and_(its_own, pc.greater_equal(lines["from_version"], -1 if version is None else version))
        )
    return lines.filter(pc.invert(in_vain))


def _landed_by(rows: pa.Table, at: datetime) -> pa.Table:
    """The rows that had landed. Their times are text of one form, so they compare as text."""
    import pyarrow.compute as pc

    landed = rows.filter(pc.less_equal(rows["ingested_at"], f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"))
    if not landed.num_rows:
        first = pc.min(rows["ingested_at"]).as_py()
        raise NoVersionError(
            f"{RAW.name}: nothing of what is asked for had landed by {in_words(at)}; "
            + (f"the first landed at {first}" if first else "nothing has landed at all")
        )
    return landed
