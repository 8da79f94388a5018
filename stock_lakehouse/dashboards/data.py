"""What the page Data asks: what the tables hold, the quarantine, and the ledger.

Here: plain values, ready for JSON. Not here: how they are shown (page/data.js).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.view import View
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable, adds_of
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.schemas import raw
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import PROCESSED, QUARANTINE, RAW, RESTATEMENTS, TABLES

if TYPE_CHECKING:
    import pyarrow as pa

LISTED = 100  # rows of the quarantine and lines of the ledger
LISTED_REASONS = 20
LONGEST_TEXT = 300  # of delivered text; a line of a file can have 100,000 characters


def data(view: View) -> dict[str, Any]:
    """Rows and newest session of each table, the quarantine by reason, and the newest lines of the ledger."""
    lake = view.lake
    rejected = read_table(QUARANTINE.name, lake_root=lake.root)
    lines = read_table(RESTATEMENTS.name, lake_root=lake.root)
    reasons = Counter(
        printable(_cut(reason)) for row_reasons in rejected["reasons"].to_pylist() for reason in row_reasons
    )
    newest_rejected = rejected.sort_by([("ingested_at", "descending")]).slice(0, LISTED)
    newest_lines = lines.sort_by([("restated_at", "descending"), ("ticker", "ascending")]).slice(0, LISTED)
    held = {
        **_held_as_delivered(lake, rejected),
        PROCESSED.name: _held_in_parquet(lake),
        **{name: _held_in_delta(stored) for name, stored in lake.delta.items()},
        RESTATEMENTS.name: (lines.num_rows, None),  # without orphaned lines
    }
    return {
        "tables": [
            {
                "table": table.name,
                "description": table.description,
                "rows": held[table.name][0],
                "last": held[table.name][1],
            }
            for table in TABLES
        ],
        "quarantine": {
            "rows": rejected.num_rows,
            "reasons": reasons.most_common(LISTED_REASONS),
            "newest": [_rejected(row) for row in newest_rejected.to_pylist()],
        },
        "restatements": {
            "lines": lines.num_rows,
            "newest": [
                {
                    **{name: line[name] for name in ("ticker", "old", "new", "rows", "cause")},
                    "columns": line["columns"].split(","),
                    "table": line["table_name"],
                    "date": line["date"].isoformat(),
                    "restated_at": _at(line["restated_at"]),
                }
                for line in newest_lines.to_pylist()
            ],
        },
    }


Held = tuple[int, str | None]  # rows of a table, and its last session


def _held_as_delivered(lake: Lake, rejected: pa.Table) -> dict[str, Held]:
    """Of raw and of the quarantine, whose dates are text: the last session is the last day that could be read."""
    import pyarrow.compute as pc

    landed = lake.raw.read_text(["session", "date"])
    return {
        name: (rows.num_rows, pc.max(pc.coalesce(rows["session"], _day(rows["date"]))).as_py())
        for name, rows in ((RAW.name, landed), (QUARANTINE.name, rejected))
    }


def _day(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ISO day that a text begins with, or null: rows that landed before raw had the column `session` have no other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_day = pc.match_substring_regex(texts, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")
    return pc.if_else(is_day, pc.utf8_slice_codeunits(texts, 0, 10), pa.scalar(None, pa.string()))


def _held_in_parquet(lake: Lake) -> Held:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def dates_in(path: str) -> Held:
        with pq.ParquetFile(lake.storage.ranged(path)) as file:
            dates = file.read(["date"])["date"]
        last = pc.max(dates).as_py()
        return len(dates), last and last.isoformat()

    held = list(lake.storage.map(dates_in, lake.processed.paths()))
    return sum(rows for rows, _ in held), max((last for _, last in held if last), default=None)


def _held_in_delta(stored: DeltaTable) -> Held:
    """By the table's log."""
    adds = adds_of(stored.open()) if stored.exists() else []
    session = f"max.{stored.table.session}" if stored.table.key else ""
    last = max((add[session] for add in adds if add.get(session)), default=None)
    return sum(add["num_records"] for add in adds), last and last.isoformat()


def _rejected(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = (f"{column.name} {row[column.name]}" for column in raw.TEXT if row[column.name] is not None)
    return {
        "ticker": row["ticker"],
        "file": row["file"] and printable(row["file"]),
        "line_number": row["line_number"],
        "reasons": [printable(_cut(reason)) for reason in row["reasons"]],
        "delivered": printable(_cut(row["line"] if row["line"] is not None else ", ".join(cells))),
        "ingested_at": _at(datetime.fromisoformat(row["ingested_at"])),
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
