"""reports: an asset for each file of sql/reports/. It runs the SQL on the engine of the settings and shows its first rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.automation.jobs import CATALOG, GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.resources.query import QueryResource
from stock_lakehouse.sources import printable
from stock_lakehouse.sql.reports import Report, reports

if TYPE_CHECKING:
    from stock_lakehouse.sql.dialect import OutputColumn
    from stock_lakehouse.sql.engine import QueryEngine, QueryResult
    from stock_lakehouse.tables import Table

ROWS_SHOWN = 20
# Rows are counted up to here. The reports with a row a session have millions, which nobody reads in Dagster's UI.
ROWS_COUNTED = 10_000


def report_assets(query_engine: str) -> Sequence[dg.AssetsDefinition]:
    """An asset for each report.

    With an engine that reads a catalog, Athena or Trino, they run after the catalog's asset; on Redshift after the native tables.
    """
    return [_asset(report, after=_before(query_engine)) for report in reports().values()]


def _before(query_engine: str) -> tuple[str, ...]:
    """The assets without which the engine has no rows of the lake's present versions."""
    if query_engine == "redshift":
        from stock_lakehouse.warehouse.tables import NATIVE_TABLES

        return tuple(table.asset for table in NATIVE_TABLES)
    return () if query_engine == "duckdb" else (CATALOG,)


def _asset(report: Report, after: Sequence[str]) -> dg.AssetsDefinition:
    @dg.asset(
        name=report.name,
        deps=[*report.tables, *after],
        group_name=GROUP,
        tags={LAYER_TAG: SERVING_LAYER},
        kinds={"sql"},
        description=f"{report.question} {report.grain}",
        metadata={"sql": dg.MetadataValue.md(f"```sql\n{report.sql}```")},
    )
    def run(context: dg.AssetExecutionContext, query: QueryResource) -> dg.MaterializeResult[Any]:
        engine = query.query_engine
        result = engine.run(report.limited(ROWS_COUNTED + 1))
        context.log.info(f"{report.name}: {result.rows.num_rows:,} rows by {result.engine}, {result.seconds:.2f} s")
        view = {"view": put_in_athena(engine, report.name, report.sql)} if engine.name == "athena" else {}
        return dg.MaterializeResult(metadata={**_metadata(report, query, result), **view})

    return run


def put_in_athena(engine: "QueryEngine", name: str, sql: str) -> str:
    """Make a view of Athena show `sql`; its name, and whether it was written."""
    from stock_lakehouse import aws
    from stock_lakehouse.catalog.glue import named_errors
    from stock_lakehouse.sql.athena import AthenaEngine
    from stock_lakehouse.sql.views import put_view

    assert isinstance(engine, AthenaEngine)
    view = f"{engine.settings.glue_database}.{name}"
    with named_errors(view):
        outcome = put_view(engine, aws.client("glue"), name, sql)
    return f"{view}, {outcome}"


def _metadata(report: Report, query: QueryResource, result: "QueryResult") -> dict[str, Any]:
    from stock_lakehouse.sql.duckdb_engine import LakeTables

    tables = LakeTables(query.lakehouse.lake)
    columns = report.columns(tables)
    counted = result.rows.num_rows
    metadata: dict[str, Any] = {
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(column.name, column.type, _description(column, tables)) for column in columns]
        ),
        "dagster/column_lineage": lineage_of(columns),
        "first rows": as_table(result.rows.slice(0, ROWS_SHOWN).to_pylist()) if counted else "none",
        "engine": result.engine,
        "seconds": result.seconds,
    }
    if counted <= ROWS_COUNTED:
        metadata["dagster/row_count"] = counted
    else:
        metadata["rows"] = f"more than {ROWS_COUNTED:,}"
    facts = {"query id": result.query_id, "bytes scanned": result.scanned_bytes, "dollars": result.dollars}
    return metadata | {name: fact for name, fact in facts.items() if fact is not None}


def _description(column: "OutputColumn", tables: "Mapping[str, Table]") -> str | None:
    """What the tables say of a column that a report has under their name."""
    if len(column.origin) != 1:
        return None
    ((table, name),) = column.origin
    found = (of_table for of_table in tables[table].columns if of_table.name == name == column.name)
    return next((of_table.documentation for of_table in found), None)


def lineage_of(columns: "Sequence[OutputColumn]") -> dg.TableColumnLineage:
    """The columns of tables that each column of a query is made of."""
    return dg.TableColumnLineage(
        {
            column.name: [dg.TableColumnDep(dg.AssetKey(table), name) for table, name in sorted(column.origin)]
            for column in columns
        }
    )


def as_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """`rows` as a table of metadata: numbers as they are, nulls as `-`, and anything else as text."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    name: value
                    if isinstance(value, bool | int | float)
                    else "-"
                    if value is None
                    else printable(str(value))
                    for name, value in row.items()
                }
            )
            for row in rows
        ]
    )
