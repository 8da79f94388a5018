"""Reports on the rows of the lake: status by table and ticker, restatements, rejected rows, newest indicators and crosses.

Here: reading and counting, into plain records. Not here: printing them (cli/).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake import Lake
from stock_lakehouse.schemas import raw
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.file_report import rows_in_words
from stock_lakehouse.tables import FEATURES, LAYERS, PROCESSED, QUARANTINE, RAW, TABLES, UNREADABLE, Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from stock_lakehouse.lake.staging import Staging
    from stock_lakehouse.market_calendar import MarketCalendar
    from stock_lakehouse.partitions import Rectangle

LISTED = 50  # rows in the metadata of a check
SHOWN_REASONS = 3
LONGEST_REASON = 300
LONGEST_VALUE = 80
LATEST = ("sma_50", "sma_200", "rsi_14", "macd_hist", "volatility_20", "buy_signal", "sell_signal")


@dataclass(frozen=True)
class TickerStatus:
    """One ticker in one table.

    - first, last: first and last session with a row
    - missing: number of sessions of the calendar between them without a row
    - outdated: number of rows of features that other formulas than the present ones computed
    - removed: True if the ticker is no longer in the settings; its rows are kept
    """

    rows: int
    first: date | None
    last: date | None
    missing: int
    outdated: int = 0
    removed: bool = False


@dataclass(frozen=True)
class TableStatus:
    """One table.

    - files, bytes: number and size of the data files of the present version
    - version: the number of the present version; None for formats without versions
    - absent: tickers of the settings without a row, if the table is a layer
    """

    table: str
    rows: int
    files: int
    bytes: int
    version: int | None
    tickers: dict[str, TickerStatus] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def first(self) -> date | None:
        return min((ticker.first for ticker in self.tickers.values() if ticker.first), default=None)

    @property
    def last(self) -> date | None:
        return max((ticker.last for ticker in self.tickers.values() if ticker.last), default=None)

    @property
    def missing(self) -> int:
        return sum(ticker.missing for ticker in self.tickers.values())

    @property
    def outdated(self) -> int:
        return sum(ticker.outdated for ticker in self.tickers.values())

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps(…, default=str)`."""
        return {**asdict(self), "first": self.first, "last": self.last, "missing": self.missing}


def status(lake: Lake, spark: SparkSession, calendar: MarketCalendar, tickers: Sequence[str]) -> list[TableStatus]:
    """The status of every table, in the order of the flow. `tickers`: the tickers of the settings."""
    return [_table_status(lake, spark, calendar, table, tickers) for table in TABLES]


def _table_status(
    lake: Lake, spark: SparkSession, calendar: MarketCalendar, table: Table, of_settings: Sequence[str]
) -> TableStatus:
    from pyspark.sql import functions as F

    rows = lake.read(table.name, spark)
    day = session_of(table)
    keyed = rows.withColumn("session", day)
    per_session = keyed.groupBy("ticker", "session").count()
    per_ticker = per_session.groupBy("ticker").agg(
        F.sum("count").alias("rows"),
        F.min("session").alias("first"),
        F.max("session").alias("last"),
        F.count("session").alias("sessions"),
    )
    gaps_matter = table in LAYERS
    outdated = outdated_rows(rows, lake.indicator_spec) if table == FEATURES else {}
    tickers = {
        row["ticker"]: TickerStatus(
            int(row["rows"]),
            row["first"],
            row["last"],
            _missing(calendar, row["first"], row["last"], row["sessions"]) if gaps_matter else 0,
            outdated.get(row["ticker"], 0),
            row["ticker"] not in of_settings and row["ticker"] != UNREADABLE and row["ticker"] is not None,
        )
        for row in sorted(per_ticker.collect(), key=lambda row: str(row["ticker"]))
    }
    sizes = lake.stored(table.name).sizes()
    return TableStatus(
        table=table.name,
        rows=sum(ticker.rows for ticker in tickers.values()),
        files=len(sizes),
        bytes=sum(sizes),
        version=lake.stored(table.name).version(),
        tickers=tickers,
        absent=tuple(ticker for ticker in of_settings if ticker not in tickers) if gaps_matter else (),
    )


def outdated_rows(features: DataFrame, spec: str) -> dict[str, int]:
    """The number of rows of features that other formulas than those of `spec` computed, by ticker."""
    from pyspark.sql import functions as F

    older = features.where(~F.col("indicator_spec").eqNullSafe(spec)).groupBy("ticker").count()
    return {row["ticker"]: row["count"] for row in sorted(older.collect())}


def session_of(table: Table) -> Column:
    """The session of a row. For delivered text: the day that its date begins with, or null if that is not a day."""
    from pyspark.sql import functions as F

    days = [column.name for column in table.columns if column.type == "date"]
    if days:
        return F.col(days[0])
    return F.substring(F.trim("date"), 1, 10).try_cast("date")


def _missing(calendar: MarketCalendar, first: date | None, last: date | None, sessions: int) -> int:
    if first is None or last is None:
        return 0
    return max(len(calendar.between(first, last)) - sessions, 0)


def restatement_lines(lake: Lake, spark: SparkSession, ticker: str, last: int) -> list[dict[str, Any]]:
    """The newest `last` lines of a ticker in the ledger, newest first.

    Each has restated_at, cause, table_name, date, columns, rows, old, new, run.
    """
    from pyspark.sql import functions as F

    lines = lake.restatements(spark).where(F.col("ticker") == ticker)
    newest = lines.orderBy(F.col("restated_at").desc(), "table_name", "date", "columns").limit(last).collect()
    return [
        {
            "restated_at": f"{row['restated_at']:%Y-%m-%d %H:%M}",
            **{name: row[name] for name in ("cause", "table_name", "date", "columns", "rows", "old", "new")},
            "run": row["run_id"][:8],
        }
        for row in newest
    ]


@dataclass(frozen=True)
class Rejected:
    """Rows that a run adds to the quarantine.

    - found: the number of rows
    - by_reason: the number of rows with each reason; a row may have several
    - rows: the first rows, each with ticker, session, file, line, value (the text that the reasons are about), reasons; unknown
      values are empty text
    """

    found: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """The metadata of a check of these rows, without the rows."""
        if not self.found:
            return {"found": 0}
        tickers = sorted({str(row["ticker"]) for row in self.rows}, key=lambda name: (name != UNREADABLE, name))
        others = f" (likewise {', '.join(tickers[1:4])}{' …' if len(tickers) > 4 else ''})" if tickers[1:] else ""
        return {
            "found": self.found,
            "by reason": self.by_reason,
            "reason": f"{rows_in_words(self.found)} of this run went into the quarantine: {reasons_in_words(self.by_reason)}.",
            "what to do": f"`stock-lakehouse show {QUARANTINE.name} {tickers[0]}` shows them{others}; deliver corrected "
            "rows, and the next run takes them",
        }


def reasons_in_words(by_reason: dict[str, int]) -> str:
    """The most frequent reasons, with the number of rows."""
    worst = sorted(by_reason.items(), key=lambda item: (-item[1], item[0]))
    more = len(worst) - SHOWN_REASONS
    text = ", ".join(f"{_cut(printable(reason))} ({rows:,})" for reason, rows in worst[:SHOWN_REASONS])
    return text + (f" and {more} more reasons" if more > 0 else "")


def _cut(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + "…"


def new_in_quarantine(rejected: DataFrame, lake: Lake, staging: Staging, asked: Rectangle, expected: int) -> Rejected:
    """The rows of `rejected` that the quarantine does not hold yet.

    - rejected: all rows that a run for `asked` rejects
    - expected: the number of rows of `rejected`; if it is 0, the engine runs no query

    Two rows are the same if their text, ticker and landing time are the same. So a reason in other words makes no row new.
    """
    from pyspark.sql import functions as F

    if not expected:
        return Rejected()
    quarantined = lake.quarantine.read(rejected.sparkSession, [*asked.tickers, UNREADABLE])
    names = ("ticker", "year", "ingested_at", *(column.name for column in raw.TEXT))
    # Spark's hash functions skip nulls: without the flags, (null, 1) and (1, null) have the same hash.
    identity = F.xxhash64(*(part for name in names for part in (F.col(name), F.col(name).isNull())))
    identities = quarantined.select(identity.alias("identity")).distinct()
    # Staged, because another run may change the quarantine between two queries.
    new = staging.stage(rejected.withColumn("identity", identity).join(identities, "identity", "left_anti"))
    found, by_reason = 0, Counter[str]()
    for row in new.groupBy("reasons").count().collect():
        found += row["count"]
        by_reason.update(dict.fromkeys(row["reasons"], row["count"]))
    order = [F.col(name) for name in ("ticker", "date", "file")]
    first = new.orderBy(*order, F.col("line_number").try_cast("int")).limit(LISTED).collect() if found else []
    return Rejected(found, dict(by_reason.most_common()), _varied(_rejected_row(row.asDict()) for row in first))


def _varied(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows`, reordered: the first row of each file and reason, then the second row of each, and so on."""
    seen = Counter[tuple[str, str]]()
    ranked = []
    for row in rows:
        kind = (row["file"], row["reasons"])
        ranked.append((seen[kind], row))
        seen[kind] += 1
    return [row for _, row in sorted(ranked, key=lambda pair: pair[0])]


def _rejected_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the quarantine, as text for a table."""
    about = set(re.findall("[a-z_]+", " ".join(row["reasons"])))
    if "ticker" in about:
        about.add("symbol")
    texts = [f"{name}={row[name]}" for name in (column.name for column in raw.TEXT) if name in about and row[name]]
    return {
        "ticker": row["ticker"],
        "session": printable(row["session"] or row["date"] or ""),
        "file": printable(row["file"] or ""),
        "line": row["line_number"] or "",
        "value": printable(row["line"] or " ".join(texts))[:LONGEST_VALUE],
        "reasons": "; ".join(map(printable, row["reasons"])),
    }


def superseded(tables: list[TableStatus]) -> int:
    """The number of landed rows that are neither processed nor in quarantine: a newer valid delivery superseded them.

    Landed rows for which no run of processed was requested yet count too.
    """
    rows = {table.table: table.rows for table in tables}
    return rows[RAW.name] - rows[PROCESSED.name] - rows[QUARANTINE.name]


def latest_indicators(lake: Lake, spark: SparkSession) -> list[dict[str, Any]]:
    """The newest row of features of each ticker: ticker, date, close and the columns LATEST."""
    from pyspark.sql import functions as F

    rows = lake.features.read(spark)
    newest = rows.groupBy("ticker").agg(F.max("date").alias("date"))
    closes = lake.curated.read(spark).select("ticker", "date", "close")
    latest = rows.join(newest, ["ticker", "date"]).join(closes, ["ticker", "date"])
    names = ("ticker", "date", "close", *LATEST)
    return [row.asDict() for row in latest.select(*names).orderBy("ticker").collect()]


def crosses(lake: Lake, spark: SparkSession) -> list[dict[str, Any]]:
    """Every golden and death cross, by ticker and date: ticker, date, cross, tradable_from."""
    from pyspark.sql import functions as F

    rows = lake.features.read(spark).where("golden_cross OR death_cross")
    named = rows.withColumn("cross", F.when(F.col("golden_cross"), "golden").otherwise("death"))
    return [
        row.asDict()
        for row in named.select("ticker", "date", "cross", "tradable_from").orderBy("ticker", "date").collect()
    ]
