"""What the page asks of a lake: the bars of a ticker, the latest signals, and what the tables hold. Read without an engine.

Here: plain values, ready for JSON. Not here: how they get to the page (report.py) and how they are shown (page/app.js).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.dashboards.charts import COLUMNS, PANES, SIGNALS
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.delta_table import DeltaTable, adds_of
from stock_lakehouse.lake.reading import read_table
from stock_lakehouse.lake.serving import ServingCopy
from stock_lakehouse.lake.stored import conformed
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.schemas import raw
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, QUARANTINE, RAW, RESTATEMENTS, TABLES, Table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LISTED = 100  # rows of the quarantine and lines of the ledger
LISTED_REASONS = 20
LONGEST_TEXT = 300  # of delivered text; a line of a file can have 100,000 characters
LATEST = ("close", "return_1d", "rsi_14", "macd_hist", "volatility_20")
KEY = ("ticker", "date")


class ReportError(Exception):
    """The lake has not what the page shows, or the page cannot be written. The message says what to do."""


def answers(lake: Lake, tickers: Sequence[str] | None, years: int, most: int) -> dict[str, Any]:
    """Every question of the page and its answer, as values for JSON.

    - charts: the panes
    - about: the lake, its newest session, the charted tickers
    - bars/TICKER: of each charted ticker, the columns `charts.COLUMNS` of the sessions of the last `years` years
    - signals: of each ticker of the lake, its newest session and its latest signal in these years
    - data: rows of the tables, quarantine, ledger

    `tickers`: the tickers to chart. None: all; if the lake has more than `most`, those with a signal on the newest session, then
    those that moved most. Raises ReportError if there are no features, or none of a ticker; StorageError.
    """
    import pandas as pd

    lake.check()
    held = lake.features.ticker_years() if lake.features.exists() else set()
    if not held:
        raise ReportError(
            f"{FEATURES.name}: the lake {lake.root} has no features, so there is nothing to draw; "
            "`stock-lakehouse materialize` computes them, `stock-lakehouse demo` those of the sample"
        )
    newest_year = dict(sorted(held))  # the last of a ticker's years stands
    if tickers is not None and not tickers:
        raise ReportError("tickers: the list is empty; name a ticker, or give None for all")
    if unknown := sorted(set(tickers or ()) - newest_year.keys()):
        raise ReportError(
            f"tickers: the lake has no features of {', '.join(unknown)}; `stock-lakehouse status` lists what it has"
        )
    last_year = max(newest_year.values())
    span = range(last_year - years, last_year + 1)
    # A ticker that is traded no longer has its newest session before these years.
    rows = _signal_rows(lake, {*span, *newest_year.values()})
    last = rows["date"].max()
    first = (pd.Timestamp(last) - pd.DateOffset(years=years)).date()
    signals = _signals(rows[rows["date"] >= first], rows)
    charted = _most_interesting(signals, last, most) if tickers is None else list(dict.fromkeys(tickers))
    return {
        "charts": [asdict(pane) for pane in PANES],
        "about": {
            "lake": str(lake.root),
            "made_at": _at(utc_now()),
            "first": first.isoformat(),
            "last": last.isoformat(),
            "tickers": charted,
            "tickers_in_lake": len(newest_year),
        },
        **{f"bars/{ticker}": bars for ticker, bars in _bars(lake, charted, span, first).items()},
        "signals": signals,
        "data": _data(lake),
    }


def _rows(
    lake: Lake, table: Table, columns: Sequence[str], years: Collection[int], tickers: Sequence[str] | None = None
) -> pa.Table:
    """`columns` of the rows of `years` and `tickers` (None: all); a column that the table on disk lacks is null."""
    import pyarrow.compute as pc

    stored = lake.delta[table.name]
    opened = stored.open()
    served = ServingCopy(lake).rows(table, opened, columns, years, tickers)
    if served is not None:
        return conformed(served, stored.table).select(list(columns))
    # The log's files are narrowed down first: a dataset of 10,500 files is slow to make. By year alone, whatever the layout.
    dataset = opened.to_pyarrow_dataset(partitions=[("year", "in", [str(year) for year in sorted(years)])])
    present = [column for column in columns if column in dataset.schema.names]
    wanted = None if tickers is None else pc.field("ticker").isin(list(tickers))
    return conformed(dataset.to_table(columns=present, filter=wanted), stored.table).select(list(columns))


def _bars(lake: Lake, tickers: Sequence[str], years: Collection[int], first: date) -> dict[str, dict[str, list[Any]]]:
    """By ticker, the values of each column of `COLUMNS`, and the dates, ascending."""
    import pyarrow.compute as pc

    of_bars = [column for column in COLUMNS if column in CURATED.column_names]
    of_features = [column for column in COLUMNS if column not in CURATED.column_names]
    bars = _rows(lake, CURATED, [*KEY, *of_bars], years, tickers).filter(pc.field("date") >= first)
    # Left outer: a run may be between its two publishes, and a bar is worth drawing without its indicators.
    joined = bars.join(_rows(lake, FEATURES, [*KEY, *of_features], years, tickers), list(KEY), join_type="left outer")
    joined = joined.sort_by([(column, "ascending") for column in KEY])
    found = {}
    for ticker in tickers:
        rows = joined.filter(pc.field("ticker") == ticker).drop_columns(["ticker"])
        found[ticker] = {
            name: [value.isoformat() if isinstance(value, date) else value for value in column.to_pylist()]
            for name, column in zip(rows.column_names, rows.columns, strict=True)
        }
    return found


def _signal_rows(lake: Lake, years: Collection[int]) -> pd.DataFrame:
    """Key, `LATEST`, signals and `tradable_from` of all tickers in `years`, by ticker and date."""
    names = [*KEY, *(name for name in LATEST if name in FEATURES.column_names), *SIGNALS, "tradable_from"]
    closes = _rows(lake, CURATED, [*KEY, "close"], years)
    rows = _rows(lake, FEATURES, names, years).join(closes, list(KEY), join_type="left outer")
    return rows.to_pandas().sort_values(list(KEY))


def _signals(in_span: pd.DataFrame, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each ticker the newest of `rows`, and the latest signal of `in_span`; the newest signals first."""
    signalled = in_span[in_span[list(SIGNALS)].any(axis=1)].groupby("ticker").tail(1).set_index("ticker")
    found = []
    for row in rows.groupby("ticker").tail(1).to_dict("records"):
        signal = signalled.loc[row["ticker"]].to_dict() if row["ticker"] in signalled.index else {}
        found.append(
            {
                "ticker": row["ticker"],
                "date": row["date"].isoformat(),
                **{name: _number(row[name]) for name in LATEST},
                "signal": ", ".join(label for name, label in SIGNALS.items() if signal.get(name)) or None,
                "signal_date": signal["date"].isoformat() if signal else None,
                "tradable_from": signal["tradable_from"].isoformat() if signal.get("tradable_from") else None,
            }
        )
    return sorted(found, key=lambda row: row["signal_date"] or "", reverse=True)


def _number(value: float) -> float | None:
    """pandas has NaN where Arrow has null, and JSON has no NaN."""
    return None if math.isnan(value) else value


def _most_interesting(signals: Sequence[Mapping[str, Any]], last: date, most: int) -> list[str]:
    def rank(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
        is_newest = row["date"] == last.isoformat()
        return not is_newest, row["signal_date"] != last.isoformat(), -abs(row["return_1d"] or 0)

    return sorted(row["ticker"] for row in sorted(signals, key=rank)[:most])


def _data(lake: Lake) -> dict[str, Any]:
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
