"""What a publish tells Dagster: facts on the event of every partition, a preview, column lineage.

Not here: reading and writing (raw_csv.py, table.py).
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

# Output metadata is stored once for every partition key, 0.1 ms for ten entries; with more keys than this what is long
# goes into one observation of the run.
RICH_KEYS = 50
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 10
PREVIEW_CHARACTERS = 100  # of a cell
FILES_LISTED = 100
ON_EVERY_EVENT = ("dagster/row_count", "bytes", "table version", "location", "files")


def tell(context: dg.OutputContext, facts: dict[str, Any]) -> None:
    """Put `facts` on every partition's event; if the keys are many only ON_EVERY_EVENT, and all in one observation of the run."""
    if not context.has_asset_partitions or len(context.asset_partition_keys) <= RICH_KEYS:
        context.add_output_metadata(facts)
    else:
        context.add_output_metadata({name: facts[name] for name in ON_EVERY_EVENT if name in facts})
        context.log_event(dg.AssetObservation(context.asset_key, metadata=facts))


def preview(frame: DataFrame, rectangle: Rectangle) -> dg.MarkdownMetadataValue:
    """The newest rows of the run's first ticker, as a Markdown table."""
    from pyspark.sql import functions as F

    own = frame.where(F.col("ticker") == rectangle.tickers[0])
    rows = own.orderBy(F.col("date").desc()).limit(PREVIEW_ROWS).collect()
    names = list(dict.fromkeys(("ticker", "date", *frame.columns)))[:PREVIEW_COLUMNS]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return dg.MetadataValue.md(
        "\n".join(lines + ["| " + " | ".join(_as_markdown(row[name]) for name in names) + " |" for row in rows])
    )


def _as_markdown(value: Any) -> str:
    """A cell that shows delivered text and does nothing else: no HTML, no image fetched, no column or line of its own."""
    text = printable(str(value))
    text = text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + "…"
    return re.sub(r"[!-,/:-@\[-`{-~]", lambda one: one[0] if one[0] in "+:" else f"&#{ord(one[0])};", text)


def files_read(download: Download) -> dg.TableMetadataValue:
    """A row a file: what it gave, and what is wrong with it; those that gave nothing first."""
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
    """The lineage of its columns: the UI draws it from a materialization; on the definition it stands always."""
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
    """The retry of a step whose input moved while it computed, said in the run's log."""
    context.log.info(str(error))
    return dg.RetryRequested(max_retries=INPUT_ATTEMPTS - 1)


def blocked(error: Exception) -> dg.Failure:
    """The failure of a step that one of `layers.step.BLOCKED` stopped; it is not retried, since it would compute the same."""
    found = error.failures if isinstance(error, AuditError) else []
    rows = [dg.TableRecord(dict(failure)) for failure in found[:LISTED]]
    return dg.Failure(
        f"{error}. Nothing was published" + ("; the failure's metadata lists them." if rows else "."),
        metadata={"failures": dg.MetadataValue.table(rows)} if rows else {},
        allow_retries=False,
    )
