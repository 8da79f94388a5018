"""The metadata that a publish gives to Dagster: a preview, a chart, the files that were read, column lineage.

Not here: reading and writing (raw_csv.py, table.py), and which partitions are recorded (records.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.dashboards.picture import BAND, INLINE_CHARACTERS, LINES, picture, small_picture
from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse.layers.step import INPUT_ATTEMPTS, LISTED, InputMovedError
from stock_lakehouse.schemas.audit import AuditError
from stock_lakehouse.schemas.lineage import column_lineage
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.file_report import file_line
from stock_lakehouse.tables import CURATED, FEATURES, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from stock_lakehouse.lake import Lake
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.sources.download import Download

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 8  # as many as fit the width of an asset's page
PREVIEW_CHARACTERS = 100  # per cell
DRAWN_YEARS = 2  # the newest of a run, and the year before it
FILES_LISTED = 100


def preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The newest of `rows` as a Markdown table: no more columns than the UI shows without a click."""
    newest = rows.sort_by([("date", "descending")]).slice(0, PREVIEW_ROWS).to_pylist()
    names = list(dict.fromkeys(("ticker", "date", *rows.column_names)))[:PREVIEW_COLUMNS]
    cells = [names, ["---"] * len(names), *([_as_markdown(row[name]) for name in names] for row in newest)]

    def table(count: int) -> str:
        return "\n".join(f"| {' | '.join(line[:count])} |" for line in cells)

    fitting = (count for count in range(len(names), 2, -1) if len(table(count)) <= INLINE_CHARACTERS)
    return dg.MetadataValue.md(table(next(fitting, len(names))))


def pictures(lake: Lake, table: Table, rectangle: Rectangle) -> dict[str, dg.MarkdownMetadataValue]:
    """The last sessions of the run's first ticker: small in `picture`, which the UI shows in its place, and whole in `chart`.

    Empty if `table` has no prices, or fewer than two. Features are drawn over the bars of the curated table.
    """
    bars = lake.stored(CURATED.name if table.name == FEATURES.name else table.name)
    if "close" not in bars.table.column_names:
        return {}
    ticker, years = rectangle.tickers[0], [rectangle.last.year - back for back in range(DRAWN_YEARS)]
    columns = _drawn(bars.read_arrow([ticker], years), ("open", "high", "low", "close", "volume"))
    if table.name == FEATURES.name:
        of_features = _drawn(lake.features.read_arrow([ticker], years), (*LINES, *BAND))
        places = {session: place for place, session in enumerate(of_features["date"])}
        found = [places.get(session) for session in columns["date"]]
        for name in of_features.keys() - {"date"}:
            columns[name] = [None if place is None else of_features[name][place] for place in found]
    drawn = {"picture": small_picture(ticker, columns), "chart": picture(ticker, columns)}
    return {name: dg.MetadataValue.md(text) for name, text in drawn.items() if text is not None}


def _drawn(rows: pa.Table, names: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of `names` that `rows` have, and `date`, in the order of sessions."""
    present = [name for name in names if name in rows.column_names]
    columns: dict[str, list[Any]] = rows.select(["date", *present]).sort_by("date").to_pydict()
    return columns


def _as_markdown(value: Any) -> str:
    """A cell of a Markdown table. Delivered text is escaped: no HTML, no image that is fetched, no further column or line."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.4g}"
    if isinstance(value, datetime):
        value = value.replace(tzinfo=None)  # all times are UTC
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)  # a year is no number of shares
    text = printable(str(value))
    text = text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + "…"
    return re.sub(r"[!-,/:-@\[-`{-~]", lambda match: match[0] if match[0] in "+:" else f"&#{ord(match[0])};", text)


def files_read(download: Download) -> dg.TableMetadataValue:
    """One row per file: the rows that it gave, and its problems. Files that gave no rows come first."""
    reports = sorted(download.files.values(), key=lambda report: (not report.is_useless, report.file))
    rows = [
        dg.TableRecord(
            {
                "file": printable(report.file),
                "rows": report.rows,
                "can be read": report.gave + report.elsewhere,
                "refused": sum(refused.rows for refused in report.refused.values()),
                "of other symbols": sum(report.others.values()),
                "in words": file_line(report, download.landing.by_file.get(report.file), download.known),
            }
        )
        for report in reports[:FILES_LISTED]
    ]
    return dg.MetadataValue.table(rows)


def lineage_of(table: Table, indicators: tuple[Indicator, ...] = INDICATORS) -> dg.TableColumnLineageMetadataValue:
    """The lineage of the columns of `table`. The UI draws it from a materialization; the asset's definition has it always."""
    columns = column_lineage(table, indicators)
    return dg.MetadataValue.column_lineage(
        dg.TableColumnLineage(
            {
                name: [dg.TableColumnDep(dg.AssetKey(made_from), column) for made_from, column in sources]
                for name, sources in columns.items()
            }
        )
    )


def computed_anew(context: dg.OutputContext | dg.AssetExecutionContext, error: InputMovedError) -> dg.RetryRequested:
    """The retry of a step whose input changed while it computed. The reason is written to the run's log."""
    context.log.info(str(error))
    return dg.RetryRequested(max_retries=INPUT_ATTEMPTS - 1)


def blocked(error: Exception) -> dg.Failure:
    """The failure of a step that one of `layers.step.BLOCKED` stopped. No retry, because it would compute the same rows."""
    found = error.failures if isinstance(error, AuditError) else []
    rows = [dg.TableRecord(dict(failure)) for failure in found[:LISTED]]
    return dg.Failure(
        f"{error}. Nothing was published" + ("; the failure's metadata lists them." if rows else "."),
        metadata={"failures": dg.MetadataValue.table(rows)} if rows else {},
        allow_retries=False,
    )
