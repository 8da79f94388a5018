"""The questions of the page Data: what the tables hold, which sessions are missing, the quarantine, the ledger, the actions.

Here: values for JSON. `data` reads logs, listings and small tables; `counts` opens every delivered file and `warehouse` asks
another service, so they are questions of their own. Not here: the shown versions (view.py), and showing them (page/data.js).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.coverage import coverage_of
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import add_actions
from stock_lakehouse.lake.raw_csv import CorruptRawFileError
from stock_lakehouse.lake.raw_files import CSV_ERRORS, RawFile, raw_file, text_in
from stock_lakehouse.lake.reading import ISO_DAY, rows_as_of
from stock_lakehouse.lake.storage import DeniedError, File, LakeRoot, storage_at
from stock_lakehouse.lake.storage.messages import first_line
from stock_lakehouse.market_calendar import ONE_DAY
from stock_lakehouse.schemas import raw
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import (
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
    TABLES,
    Table,
)

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa

LISTED = 100  # newest rows of the quarantine, lines of the ledger, actions
LISTED_REASONS = 20
LONGEST_TEXT = 300  # of delivered text; a line of a file can have 100,000 characters
RECENT = timedelta(days=30)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def data(view: View) -> dict[str, Any]:
    """What the lake holds, at the moment of the view.

    - as_of: that moment, or None; last, expected: the newest session of curated bars, and the newest that should be there by the
      calendar; behind: how many sessions are between
    - tables: a row a table, of `_held`
    - coverage: of `coverage_of`
    - quarantine: rows; reasons: [reason, rows] of the most frequent LISTED_REASONS; other_reasons: how many more; newest: the
      newest LISTED rows, of `_rejected`
    - restatements: lines; recent: the lines of the last 30 days by table and cause; since: when these days begin; newest: the
      newest LISTED lines
    - actions: kinds: how many of each; newest: the LISTED with the newest ex_date

    Raw is counted by its files until that moment. The Parquet tables keep no history: at an earlier moment nothing is known of
    processed, and the quarantine has the rows that had landed by then and are refused now. Of raw and processed nothing is known
    to who may not list them. Raises NoVersionError, StorageError.
    """
    rejected = _landed_by(view.lake.quarantine.read_arrow(), view.as_of)
    lines = rows_as_of(view.lake, RESTATEMENTS.name, view.as_of)
    actions = rows_as_of(view.lake, CORPORATE_ACTIONS.name, view.as_of)
    coverage = coverage_of(view)
    last, expected = view.spans[CURATED.name].last, view.expected
    behind = view.lake.options.calendar.between(last + ONE_DAY, expected) if last and expected else None
    known = {
        QUARANTINE.name: {"rows": rejected.num_rows, "last": _newest_day(rejected)},
        RESTATEMENTS.name: {"rows": lines.num_rows},  # the log counts orphaned lines too
    }
    held = [_held_if_allowed(view, table) | known.get(table.name, {}) for table in TABLES]
    by_table = {table["table"]: table for table in held}
    by_table[CURATED.name]["missing"] = coverage["missing"]
    by_table[FEATURES.name]["missing"] = max(by_table[CURATED.name]["rows"] - by_table[FEATURES.name]["rows"], 0)
    return {
        "as_of": view.as_of and view.as_of.isoformat(),
        "last": _iso(last),
        "expected": _iso(expected),
        "behind": None if behind is None else len(behind),
        "tables": held,
        "coverage": coverage,
        "quarantine": _quarantine(rejected),
        "restatements": _restatements(lines, (view.as_of or view.clock()) - RECENT),
        "actions": _actions(actions),
    }


def counts(view: View) -> dict[str, dict[str, Any]]:
    """Rows of raw and of processed, and the newest session of processed, by table; None of processed at an earlier moment, and of
    a table that may not be read.

    The only way to know them is to open each file. A file is opened once in a process as long as it does not change: 2.5 million
    bars take 2.5 s of processor time the first time, 0.2 s then. Raises CorruptRawFileError, StorageError.
    """
    lake = view.lake
    found: dict[str, dict[str, Any]] = {RAW.name: {"rows": None}, PROCESSED.name: {"rows": None, "last": None}}
    with contextlib.suppress(DeniedError):
        landed = lake.storage.map(lambda file: _lines_in(lake.root, file), _landed(lake, view.as_of))
        found[RAW.name] = {"rows": sum(landed)}
    if view.as_of is not None:
        return found
    with contextlib.suppress(DeniedError):
        parts = [
            *lake.storage.map(lambda file: _rows_in(lake.root, file.path, file.version_tag), lake.processed.files())
        ]
        last = max((last for _, last in parts if last is not None), default=None)
        found[PROCESSED.name] = {"rows": sum(rows for rows, _ in parts), "last": _iso(last)}
    return found


def warehouse(view: View) -> list[dict[str, Any]] | None:
    """What the native tables of the warehouse hold; None without a warehouse. Asks it, and writes nothing.

    A row a table: table, source (the lake's table), rows, ticker_years, version (the newest version of the lake's table that was
    loaded, or None), lake_version (the present one), behind (ticker-years that the next load brings or removes). Raises
    WarehouseError, CatalogError, StorageError.
    """
    if view.warehouse is None:
        return None
    return [
        {
            "table": state.table.name,
            "source": state.table.source.name,
            "rows": state.rows,
            "ticker_years": state.ticker_years,
            "version": state.version,
            "lake_version": view.lake.delta[state.table.source.name].version(),
            "behind": state.behind,
        }
        for state in view.warehouse.state()
    ]


def _held_if_allowed(view: View, table: Table) -> dict[str, Any]:
    """`_held`; nothing of a table of raw or processed that may not be read: who looks at charts need not see delivered rows."""
    try:
        return _held(view, table)
    except DeniedError:
        if table.layer not in (RAW.layer, PROCESSED.layer):
            raise
        return _nothing_known(table)


def _nothing_known(table: Table) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(("rows", "missing", "files", "bytes", "version", "last", "changed"))
    return facts | {"table": table.name, "layer": table.layer, "description": table.description}


def _held(view: View, table: Table) -> dict[str, Any]:
    """One table: its name, description and layer; what is known without opening its files, None if it is not.

    - rows; missing: curated: sessions without a bar between the first and last one of a ticker; features: bars without a row
    - files, bytes; version; last: the newest session; changed: when it last changed
    """
    facts = _nothing_known(table)
    if table.format == "delta":
        return facts | _held_in_delta(view, table)
    if table == RAW:
        landed = _landed(view.lake, view.as_of)
        days = [file.last for file in landed if file.last.strip("0-")]
        at = max((file.landed for file in landed), default=None)
        changed = None if at is None else datetime.strptime(at, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
        return facts | _sizes(file.file for file in landed) | {"last": max(days, default=None), "changed": _at(changed)}
    if view.as_of is not None:
        return facts
    files = view.lake.parquet[table.name].files()
    newest = max((file.changed for file in files), default=None)
    return facts | _sizes(files) | {"changed": _at(None if newest is None else EPOCH + timedelta(seconds=newest))}


def _sizes(files: Iterable[File]) -> dict[str, int]:
    sizes = [file.size for file in files]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _held_in_delta(view: View, table: Table) -> dict[str, Any]:
    """By the table's log."""
    import pyarrow.compute as pc

    opened = _opened(view, table)
    if opened is None:
        return {"rows": 0, "files": 0, "bytes": 0}
    adds = add_actions(opened)
    session = f"max.{table.session}" if table.key else ""
    commit = opened.history(1)[0].get("timestamp")
    return {
        "rows": pc.sum(adds["num_records"]).as_py() or 0,
        "files": adds.num_rows,
        "bytes": pc.sum(adds["size_bytes"]).as_py() or 0,
        "version": opened.version(),
        "last": _iso(pc.max(adds[session]).as_py()) if session in adds.column_names else None,
        "changed": _at(None if commit is None else EPOCH + timedelta(milliseconds=commit)),
    }


def _opened(view: View, table: Table) -> deltalake.DeltaTable | None:
    """The version that the view shows; None if there is none yet."""
    return view.opened[table.name] if table.name in view.opened else view.open(table)


def _landed(lake: Lake, at: datetime | None) -> list[RawFile]:
    """The raw files that had landed at the moment `at` (None: now), by their names."""
    until = None if at is None else f"{at.astimezone(UTC):%Y%m%dT%H%M%S%f}Z"
    files = (raw_file(file) for file in lake.raw.files())
    return [file for file in files if file is not None and (until is None or file.landed <= until)]


def _landed_by(rows: pa.Table, at: datetime | None) -> pa.Table:
    """The rows that had landed at the moment `at`. All landing times have one format, so they are compared as text."""
    import pyarrow.compute as pc

    if at is None:
        return rows
    return rows.filter(pc.less_equal(rows["ingested_at"], f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"))


def _newest_day(rows: pa.Table) -> str | None:
    """The newest session of delivered rows: as the source read it; of rows from before that was kept, the ISO day of the date."""
    import pyarrow.compute as pc

    is_day = pc.match_substring_regex(rows["date"], ISO_DAY)
    day = pc.if_else(is_day, pc.utf8_slice_codeunits(rows["date"], 0, 10), None)
    return pc.max(pc.coalesce(rows["session"], day)).as_py()  # type: ignore[no-any-return]


@lru_cache(maxsize=1 << 16)
def _lines_in(lake_root: LakeRoot, file: RawFile) -> int:
    try:
        return int(text_in(file, storage_at(lake_root).read(file.file.path), ["ingested_at"]).num_rows)
    except CSV_ERRORS as error:
        raise CorruptRawFileError([f"{file.file.path}: {first_line(error)}"]) from None


@lru_cache(maxsize=1 << 16)
def _rows_in(lake_root: LakeRoot, path: str, version_tag: str) -> tuple[int, date | None]:
    """The rows of a Parquet file and its newest session, by its footer."""
    import pyarrow.parquet as pq

    footer = pq.read_metadata(storage_at(lake_root).ranged(path))
    column = footer.schema.names.index("date")
    groups = [footer.row_group(number).column(column).statistics for number in range(footer.num_row_groups)]
    newest = [group.max for group in groups if group is not None and group.has_min_max]
    return int(footer.num_rows), max(newest, default=None)


def _quarantine(rejected: pa.Table) -> dict[str, Any]:
    import pyarrow.compute as pc

    found = pc.value_counts(pc.list_flatten(rejected["reasons"])).to_pylist()
    reasons = sorted(((row["values"], row["counts"]) for row in found), key=lambda pair: (-pair[1], pair[0]))
    return {
        "rows": rejected.num_rows,
        "reasons": [[printable(_cut(reason)), rows] for reason, rows in reasons[:LISTED_REASONS]],
        "other_reasons": max(len(reasons) - LISTED_REASONS, 0),
        "newest": [_rejected(row) for row in _newest(rejected, "ingested_at", "ticker").to_pylist()],
    }


def _rejected(row: Mapping[str, Any]) -> dict[str, Any]:
    """A delivered row that was refused. Its text is that of the delivery, with control characters as their codes, cut."""
    cells = (f"{column.name} {row[column.name]}" for column in raw.TEXT if row[column.name] is not None)
    return {
        "ticker": row["ticker"],
        "file": row["file"] and printable(_cut(row["file"])),
        "line_number": row["line_number"],
        "reasons": [printable(_cut(reason)) for reason in row["reasons"]],
        "delivered": printable(_cut(row["line"] if row["line"] is not None else ", ".join(cells))),
        "ingested_at": _at(datetime.fromisoformat(row["ingested_at"])),
    }


def _restatements(lines: pa.Table, since: datetime) -> dict[str, Any]:
    import pyarrow.compute as pc

    recent = lines.filter(pc.greater_equal(lines["restated_at"], since)).select(
        ["table_name", "cause", "ticker", "rows"]
    )
    groups = recent.group_by(["table_name", "cause"]).aggregate(
        [("rows", "count"), ("rows", "sum"), ("ticker", "count_distinct")]
    )
    by_cause = [
        {
            "table": group["table_name"],
            "cause": group["cause"],
            "lines": group["rows_count"],
            "rows": group["rows_sum"],
            "tickers": group["ticker_count_distinct"],
        }
        for group in groups.to_pylist()
    ]
    return {
        "lines": lines.num_rows,
        "since": _at(since),
        "recent": sorted(by_cause, key=lambda group: (group["table"], -group["lines"], group["cause"] or "")),
        "newest": [
            {
                **{name: line[name] for name in ("ticker", "old", "new", "rows", "cause")},
                "columns": line["columns"].split(","),
                "table": line["table_name"],
                "date": line["date"].isoformat(),
                "restated_at": _at(line["restated_at"]),
            }
            for line in _newest(lines, "restated_at", "table_name", "ticker", "date", "columns").to_pylist()
        ],
    }


def _actions(actions: pa.Table) -> dict[str, Any]:
    import pyarrow.compute as pc

    kinds = {row["values"]: row["counts"] for row in pc.value_counts(actions["kind"]).to_pylist()}
    return {
        "kinds": dict(sorted(kinds.items())),
        "newest": [
            {
                **{name: action[name] for name in ("ticker", "kind", "value", "price_factor", "late")},
                "ex_date": action["ex_date"].isoformat(),
                "first_seen": _at(action["first_seen"]),
            }
            for action in _newest(actions, "ex_date", "ticker", "kind").to_pylist()
        ],
    }


def _newest(rows: pa.Table, column: str, *then: str) -> pa.Table:
    """The LISTED rows with the highest values of `column`, these first; equal ones by the columns `then`."""
    order = [(column, "descending"), *((name, "ascending") for name in then)]
    return rows.sort_by(order).slice(0, LISTED)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _at(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
