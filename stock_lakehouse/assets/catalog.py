"""catalog: what each table is, registered in Glue if the settings name it. It runs after the layers, and has no partitions."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.assets.reports import put_in_athena
from stock_lakehouse.automation.jobs import CATALOG, GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.checks.catalog import CATALOG_AGREES
from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.resources.catalog import CatalogResource
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.query import QueryResource
from stock_lakehouse.tables import TABLES

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake


@dg.asset(
    name=CATALOG,
    deps=[table.name for table in TABLES],
    group_name=GROUP,
    tags={LAYER_TAG: SERVING_LAYER},
    pool=CATALOG,  # two registrations at once would refuse each other's partitions
    description='What each table is: columns, comments, partitions, version, rows. With the setting `catalog = "glue"` all '
    "tables and their serving copies are registered in Glue; only what differs is written.",
)
def catalog(
    context: dg.AssetExecutionContext,
    lakehouse: LakehouseResource,
    catalog_service: CatalogResource,
    query: QueryResource,
) -> dg.MaterializeResult[Any]:
    from stock_lakehouse.catalog.glue import register_lake

    lake = lakehouse.lake
    glue = catalog_service.glue(lake)
    if glue is None:
        return dg.MaterializeResult(metadata={"registered in": "the lake itself", "tables": _described(lakehouse)})
    outcomes = register_lake(lake, glue, verify=_differed(context.instance), crawled=catalog_service.is_crawled)
    metadata: dict[str, Any] = {
        "registered in": f"Glue database {glue.database}",
        "changed": sum(outcome.changed for outcome in outcomes),
        "tables": dg.MetadataValue.table([dg.TableRecord(outcome.as_json()) for outcome in outcomes]),
    }
    if catalog_service.is_crawled:
        metadata |= _crawled(lakehouse, catalog_service, glue)
    if views := _stream_views(lake, query):
        metadata["views of the stream"] = ", ".join(views)
    # Counted last: with those of the crawlers.
    metadata |= {"calls": glue.calls.total(), "write calls": glue.writes}
    for outcome in outcomes:
        if outcome.changed:
            context.log.info(f"{glue.database}.{outcome.name}: {outcome}")
    return dg.MaterializeResult(metadata=metadata)


def _stream_views(lake: "Lake", query: QueryResource) -> list[str]:
    """Make Athena's views over the tables of the stream; their names, and whether each was written. None with other engines."""
    from stock_lakehouse.sql.reports import stream_views

    if query.engine != "athena":
        return []
    views = {name: view for name, view in stream_views().items() if lake.stream[view.table.name].exists()}
    engine = query.query_engine if views else None
    return [put_in_athena(engine, name, view.in_catalog) for name, view in views.items() if engine is not None]


def _differed(instance: dg.DagsterInstance) -> bool:
    """Whether the newest evaluation of the check found that lake and catalog differ: then every partition is compared."""
    from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

    history = instance.event_log_storage.get_asset_check_execution_history(
        CATALOG_AGREES, limit=1, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    )
    evaluations = [record.event.asset_check_evaluation for record in history if record.event]
    return any(evaluation is not None and not evaluation.passed for evaluation in evaluations)


def _described(lakehouse: LakehouseResource) -> dg.TableMetadataValue:
    from stock_lakehouse.catalog.entries import entries_of

    facts = ("name", "rows", "partitions", "files", "bytes", "version", "location")
    entries = [entry.as_json() for entry in entries_of(lakehouse.lake)]
    return dg.MetadataValue.table(
        [dg.TableRecord({name: "-" if entry[name] is None else entry[name] for name in facts}) for entry in entries]
    )


def _crawled(lakehouse: LakehouseResource, service: CatalogResource, glue: Any) -> dict[str, Any]:
    from stock_lakehouse.catalog.crawlers import crawl, crawler_inputs, differing_types

    role = service.settings.crawler_role
    assert role is not None, "the settings demand it"
    crawls = crawl(glue, crawler_inputs(lakehouse.lake, glue.database, role))
    differing = differing_types(glue, lakehouse.lake)
    return {
        "crawls": dg.MetadataValue.table([dg.TableRecord(found.as_json()) for found in crawls]),
        "types that crawlers gave": dg.MetadataValue.table([dg.TableRecord(row) for row in differing[:LISTED]])
        if differing
        else "those of the schema",
    }
