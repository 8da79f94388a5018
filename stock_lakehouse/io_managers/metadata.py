"""The metadata that a publish gives to Dagster: a preview, the files that were read, column lineage.

Not here: reading and writing (raw_csv.py, table.py), and which partitions are recorded (records.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import dagster as dg

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


def lineage_of(table: Table) -> dg.TableColumnLineageMetadataValue:
    """The lineage of the columns of `table`. The UI draws it from a materialization; the asset's definition has it always."""
    columns = column_lineage(table)
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
