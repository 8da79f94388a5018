"""Dagster's face of lake/: an IO manager a format, and what each tells Dagster about what it wrote."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.checks import blocked
from stock_lakehouse.curation import Curation, window_of
from stock_lakehouse.curation import publish as publish_curation
from stock_lakehouse.lake.raw_csv import Arrivals
from stock_lakehouse.lineage import column_lineage
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.schemas.audit import AuditError
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.file_report import file_line, file_lines
from stock_lakehouse.tables import PROCESSED, PROCESSED_ACTIONS, QUARANTINE, UNREADABLE, Table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from stock_lakehouse.lake.publish import Published
    from stock_lakehouse.partitions import Rectangle
    from stock_lakehouse.sources import Download, Landing

# Output metadata is stored once for every partition key, 0.1 ms for ten entries; with more keys than this what is long
# goes into one observation of the run.
RICH_KEYS = 50
PREVIEW_ROWS = 5
ROWS_A_LANDING = 100_000  # about 200 MB of memory
BYTES_A_LANDING = 50_000_000  # of text, where rows are long
FILES_LISTED = 100
PREVIEW_COLUMNS = 10
PREVIEW_CHARACTERS = 100  # of a cell


class RawCsvIOManager(dg.ConfigurableIOManager):
    """Lands the deliveries of a `Download`; loads landed rows as a DataFrame of text.

    No IO manager loads anything, None, when the run is a Databricks job: the job reads by itself."""

    lakehouse: LakehouseResource

    def handle_output(self, context: dg.OutputContext, obj: Download) -> None:
        house, total = self.lakehouse, obj.landing
        rectangle = house.rectangle(context.asset_partition_keys)
        arrivals = Arrivals(
            house.lake.raw,
            rectangle,
            source=obj.source.name,
            interval=obj.source.interval,
            run_id=context.run_id,
            now=house.now(),  # one time for all: rows of one download know the same splits
            final_at=house.final_at,
        )

        def landed(found: Landing) -> Landing:
            context.log.info(
                f"{context.asset_key.path[-1]}: {found.delivered:,} rows delivered, {found.landed:,} landed"
            )
            return found

        for rows in _in_landings(obj):
            total = landed(total + arrivals.add(rows))
        rest = arrivals.finish()
        if rest.delivered:
            total = landed(total + rest)
        obj.landing = total
        obj.failed.update(total.unknown)
        for line in file_lines(obj.files.values(), total.by_file, obj.known):
            context.log.info(line)
        sizes = [file.size for file in house.lake.raw.files()]
        facts = {"bytes": sum(sizes), "files": len(sizes), "location": dg.MetadataValue.path(str(house.lake.raw.root))}
        rich: dict[str, Any] = {**total.counts, "landed files": total.files}
        if obj.files:
            rich["files read"] = _files_read(obj)
        if not house.is_job(rectangle):  # which needs no session here
            newest = house.lake.raw.read(house.session, rectangle.tickers[:1], rectangle.years[-1:])
            rich["preview"] = _preview(newest, rectangle)
        _tell(context, facts, rich)

    def load_input(self, context: dg.InputContext) -> DataFrame | None:
        self.lakehouse.take_turn(context.asset_key.path[-1])
        rectangle = self.lakehouse.rectangle(context.asset_partition_keys)
        if self.lakehouse.is_job(rectangle):
            return None
        return self.lakehouse.lake.raw.read(self.lakehouse.session, rectangle.tickers, rectangle.read_years)


class ParquetIOManager(dg.ConfigurableIOManager):
    """Publishes frames by table name to Parquet: a table with a key by the run's rectangle, one without as it is.

    Loads processed bars as a DataFrame: all of the run's tickers in the years that `curation.window_of` says.
    """

    lakehouse: LakehouseResource

    def handle_output(self, context: dg.OutputContext, obj: dict[str, DataFrame]) -> None:
        house = self.lakehouse
        rectangle = house.rectangle(context.asset_partition_keys)
        quarantine, processed = house.lake.quarantine, house.lake.processed
        rejected = quarantine.publish(
            obj[QUARANTINE.name],
            [*rectangle.tickers, UNREADABLE],
            [*map(str, rectangle.read_years), UNREADABLE],
            house.staging,
        )
        actions = obj[PROCESSED_ACTIONS.name].toArrow()
        house.lake.processed_actions.replace(actions, rectangle.tickers, rectangle.read_years)
        published = processed.publish(
            obj[PROCESSED.name], rectangle.tickers, rectangle.read_years, house.staging, rectangle
        )
        house.end_turn(PROCESSED.name)
        table = processed.read(house.session)
        _report(
            context,
            published,
            table,
            PROCESSED,
            rectangle,
            {
                "bytes": sum(file.size for file in processed.files()),
                "quarantine ticker-years written": rejected.partitions,
                "location": dg.MetadataValue.path(str(processed.root)),
            },
        )

    def load_input(self, context: dg.InputContext) -> DataFrame | None:
        self.lakehouse.take_turn(context.asset_key.path[-1])
        rectangle = self.lakehouse.rectangle(context.asset_partition_keys)
        if self.lakehouse.is_job(rectangle):
            return None
        lake = self.lakehouse.lake
        return lake.processed.read(self.lakehouse.session, rectangle.tickers, window_of(lake, rectangle).loaded)


class DeltaIOManager(dg.ConfigurableIOManager):
    """Publishes a frame to the Delta table of its asset by "only what changed"; a `Curation` with its corporate actions.

    Loads all of the run's tickers in all years.
    """

    lakehouse: LakehouseResource

    def handle_output(self, context: dg.OutputContext, obj: DataFrame | Curation) -> None:
        house = self.lakehouse
        rectangle = house.rectangle(context.asset_partition_keys)
        delta = house.lake.delta(context.asset_key.path[-1])
        told: dict[str, Any] = {"run_id": context.run_id, "now": house.now()}
        try:
            if isinstance(obj, Curation):
                published = publish_curation(obj, house.lake, rectangle, house.staging, **told)
            else:
                published = delta.publish(obj, rectangle, house.staging, house.lake.ledger, **told)
        except AuditError as error:  # of the ledger's lines, which are known only once the table is compared
            raise blocked(error) from error
        house.end_turn(delta.table.name)
        _report(
            context,
            published,
            delta.read(house.session),
            delta.table,
            rectangle,
            {
                "bytes": sum(delta.sizes()),
                "table version": published.version,
                "location": dg.MetadataValue.path(str(delta.path)),
            },
        )

    def load_input(self, context: dg.InputContext) -> DataFrame | None:
        self.lakehouse.take_turn(context.asset_key.path[-1])
        rectangle = self.lakehouse.rectangle(context.asset_partition_keys)
        if self.lakehouse.is_job(rectangle):
            return None
        return self.lakehouse.lake.delta(context.asset_key.path[-1]).read(self.lakehouse.session, rectangle.tickers)


def _files_read(download: Download) -> dg.TableMetadataValue:
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


def _in_landings(download: Download) -> Iterator[pa.Table]:
    """The delivered rows, joined into landings of about ROWS_A_LANDING or BYTES_A_LANDING."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = size = 0
    for delivery in download:
        if delivery.rows.num_rows:
            waiting.append(delivery.rows)
            rows += delivery.rows.num_rows
            size += delivery.rows.nbytes
        if rows >= ROWS_A_LANDING or size >= BYTES_A_LANDING:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def _report(
    context: dg.OutputContext,
    published: Published,
    frame: DataFrame,
    table: Table,
    rectangle: Rectangle,
    facts: dict[str, Any],
) -> None:
    """Say what a publish did: what the table holds on every partition's event, the rest once if the keys are many."""
    counts = {name: value for name, value in dataclasses.asdict(published).items() if name not in ("rows", "version")}
    counts["ticker-years written"] = counts.pop("partitions")
    facts = {"dagster/row_count": frame.count(), **facts}
    # The UI draws column lineage from a materialization; on the definition it stands always.
    lineage = dg.MetadataValue.column_lineage(column_lineage(table))
    newest = frame.where(frame["year"].isin(list(rectangle.years[-2:])))
    context.log.info(
        f"{table.name}: {published.added:,} rows added, {published.corrected:,} corrected, "
        f"{published.withdrawn:,} withdrawn; {len(context.asset_partition_keys):,} partitions to record"
    )
    _tell(context, facts, {**counts, "preview": _preview(newest, rectangle), "dagster/column_lineage": lineage})


def _tell(context: dg.OutputContext, facts: dict[str, Any], rich: dict[str, Any]) -> None:
    """Put `facts` on every partition's event; `rich` too, or if the keys are many into one observation of the run."""
    if len(context.asset_partition_keys) <= RICH_KEYS:
        context.add_output_metadata({**facts, **rich})
    else:
        context.add_output_metadata(facts)
        context.log_event(dg.AssetObservation(context.asset_key, metadata={**facts, **rich}))


def _preview(frame: DataFrame, rectangle: Rectangle) -> dg.MarkdownMetadataValue:
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
