"""Tables for Python, as Arrow tables, without an engine: the present rows, or the rows as of a moment.

Here: the rows of a table. Not here: which version of a Delta table is read (lake/history.py).
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
    """The rows of a table, with the columns of its schema, sorted by ticker and session.

    - tickers: the tickers to read (None: all).
    - as_of: read the rows as they were at that moment, bit for bit. A datetime, a date or the ISO text of one; UTC if it has no
      zone; a date means its last instant. Delta tables are read by version, each from the time of its commit; raw is read by
      landing time; the Parquet tables have no history. A column that was added later is null.
    - lake_root: the root of the lake (None: that of the settings).

    Raises ValueError if the table does not exist, if the moment cannot be parsed, or if the table has no history; NoVersionError,
    whose message gives the earliest time available, if the moment is before it; SettingsError; StorageError.
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
    return found.sort_by([(column, "ascending") for column in ORDER if column in table.column_names])


def moment(value: Moment) -> datetime:
    """The instant in UTC. Text is in ISO format; a time without a zone is UTC; a date means its last microsecond.

    Raises ValueError for text that is neither a date nor a time.
    """
    if isinstance(value, str):
        try:
            value = (
                date.fromisoformat(value) if len(value.strip()) == len("2024-05-03") else datetime.fromisoformat(value)
            )
        except ValueError:
            raise ValueError(
                f"{value!r} is no moment; allowed: a date like 2024-05-03 (its end, UTC) or a time like 2024-05-03T20:30 (UTC) "
                "or 2024-05-03T16:30-04:00"
            ) from None
    if not isinstance(value, datetime):
        return datetime.combine(value, time.max, UTC)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _delta(lake: Lake, table: Table, tickers: Sequence[str] | None, at: datetime | None) -> pa.Table:
    import pyarrow.compute as pc

    stored = lake.delta[table.name]
    if not stored.exists() if at is None else _not_created_yet(lake, stored, at):
        return table.arrow_schema.empty_table()
    opened = stored.open() if at is None else open_as_of(stored, at)
    wanted = None if tickers is None else pc.field("ticker").isin(list(tickers))
    found = conformed(opened.to_pyarrow_dataset().to_table(filter=wanted), table)
    return _committed_lines(lake, found, at) if table == RESTATEMENTS else found


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
        of_table = pc.equal(lines["table_id"], str(stored.open().metadata().id))
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
