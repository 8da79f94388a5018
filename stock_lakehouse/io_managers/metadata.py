"""The metadata that a publish gives to Dagster: a preview, a chart, the files that were read, column lineage.

Not here: reading and writing (raw_csv.py, table.py), and which partitions are recorded (records.py).
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse.layers.step import INPUT_ATTEMPTS, LISTED, InputMovedError
from stock_lakehouse.schemas.audit import AuditError
from stock_lakehouse.schemas.lineage import column_lineage
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.file_report import file_line
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.sources.download import Download

PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 10
PREVIEW_CHARACTERS = 100  # per cell
# The columns that a chart draws if the table has them, with their colors in SVG.
CHART_COLUMNS = {"close": "steelblue", "sma_50": "darkorange", "sma_200": "seagreen"}
CHART_SESSIONS = 250
CHART_WIDTH, CHART_HEIGHT = 640, 200
FILES_LISTED = 100


def preview(frame: DataFrame, rectangle: Rectangle) -> dg.MarkdownMetadataValue:
    """The newest rows of the run's first ticker, as a Markdown table."""
    from pyspark.sql import functions as F

    of_ticker = frame.where(F.col("ticker") == rectangle.tickers[0])
    rows = of_ticker.orderBy(F.col("date").desc()).limit(PREVIEW_ROWS).collect()
    names = list(dict.fromkeys(("ticker", "date", *frame.columns)))[:PREVIEW_COLUMNS]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return dg.MetadataValue.md(
        "\n".join(lines + ["| " + " | ".join(_as_markdown(row[name]) for name in names) + " |" for row in rows])
    )


def chart(frame: DataFrame, rectangle: Rectangle) -> dg.MarkdownMetadataValue | None:
    """The last CHART_SESSIONS sessions of the run's first ticker as a picture; None if the table has none of CHART_COLUMNS."""
    from pyspark.sql import functions as F

    columns = [name for name in CHART_COLUMNS if name in frame.columns]
    ticker = rectangle.tickers[0]
    newest = frame.where(F.col("ticker") == ticker).orderBy(F.col("date").desc()).limit(CHART_SESSIONS)
    rows = newest.select("date", *columns).collect()[::-1] if columns else []
    values = [row[name] for row in rows for name in columns if row[name] is not None]
    if len(rows) < 2 or not values:
        return None
    low, span = min(values), (max(values) - min(values)) or 1.0

    def line(name: str) -> str:
        points = " ".join(
            f"{at * CHART_WIDTH / (len(rows) - 1):.1f},{CHART_HEIGHT * (1 - (row[name] - low) / span):.1f}"
            for at, row in enumerate(rows)
            if row[name] is not None
        )
        return f'<polyline points="{points}" fill="none" stroke="{CHART_COLUMNS[name]}" stroke-width="1.5"/>'

    lines = ", ".join(f"{name} ({CHART_COLUMNS[name]})" for name in columns)
    title = f"{ticker}, {rows[0]['date']} to {rows[-1]['date']}, {low:.2f} to {max(values):.2f}: {lines}"
    drawing = "".join(map(line, columns))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 {CHART_WIDTH + 8} {CHART_HEIGHT + 8}"'
        f' width="{CHART_WIDTH}" height="{CHART_HEIGHT}">{drawing}</svg>'
    )
    picture = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{', '.join(columns)}](data:image/svg+xml;base64,{picture})\n\n{title}")


def _as_markdown(value: Any) -> str:
    """Delivered text, escaped for a cell of a Markdown table: no HTML, no image that is fetched, no further column or line."""
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
