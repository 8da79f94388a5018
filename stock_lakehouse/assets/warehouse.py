"""The native tables of the warehouse, in one step, because one transaction replaces the rows of both.

They have no partitions and run after the catalog's asset, whose registration Spectrum reads.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from stock_lakehouse.automation.jobs import CATALOG, GROUP, LAYER_TAG, SERVING_LAYER
from stock_lakehouse.checks.warehouse import AGREES, agreement_of, uniqueness_of, warehouse_checks
from stock_lakehouse.indicators.registry import Indicator
from stock_lakehouse.resources.warehouse import WarehouseResource
from stock_lakehouse.tables import TABLES, with_indicators
from stock_lakehouse.warehouse.tables import TYPES, NativeTable, native_tables

POOL = "warehouse"


def warehouse_assets(indicators: tuple[Indicator, ...]) -> dg.AssetsDefinition:
    """The assets of the native tables. `indicators`: those of the lake, whose columns features have."""
    tables = native_tables({table.name: with_indicators(table, indicators) for table in TABLES})

    @dg.multi_asset(
        name=POOL,
        specs=[_spec(table) for table in tables],
        check_specs=warehouse_checks(tables),
        pool=POOL,
    )
    def warehouse(context: dg.AssetExecutionContext, warehouse_service: WarehouseResource) -> Iterator[Any]:
        found = warehouse_service.warehouse
        assert found is not None, "the asset is defined only with a warehouse"
        again = None
        if _differed(context.instance, tables):
            context.log.info("warehouse_agrees failed before: all rows are compared, and what differs is loaded again")
            again = {comparison.table.name: comparison.pairs for comparison in found.compare(full=True)}
        outcome = found.load(context.log.info, again)
        comparisons = found.compare()
        for comparison in comparisons:
            yield agreement_of(comparison)
        for table in found.tables:
            yield uniqueness_of(table, found.duplicates(table))
        if drifts := [drift for comparison in comparisons for drift in comparison.drifts]:
            raise dg.Failure(
                f"{len(drifts)} ticker-years of the warehouse differ from the lake, the first: {drifts[0]}",
                allow_retries=False,
            )
        found.note(comparisons)
        for of_table in outcome.tables:
            yield dg.MaterializeResult(
                asset_key=of_table.table.asset,
                metadata={
                    "place": f"{found.api.place}, {found.settings.database}.{found.settings.schema_name}.{of_table.table.name}",
                    "version of the lake's table": of_table.version,
                    "ticker-years loaded": of_table.ticker_years,
                    "ticker-years removed": of_table.withdrawn,
                    "rows loaded": of_table.rows,
                    "defined": ", ".join(outcome.defined) or "nothing",
                    "statements": outcome.statements,
                    "calls": found.api.calls.total(),
                    "statements that write": found.api.writes,
                    "seconds": round(outcome.seconds, 2),
                },
            )

    return warehouse


def _spec(table: NativeTable) -> dg.AssetSpec:
    columns = [
        dg.TableColumn(
            column.name,
            TYPES[column.type][0].lower(),
            column.documentation,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in table.columns
    ]
    source = dg.AssetKey(table.source.name)
    return dg.AssetSpec(
        table.asset,
        deps=[table.source.name, CATALOG],
        group_name=GROUP,
        tags={LAYER_TAG: SERVING_LAYER},
        kinds={"redshift"},
        description=f"{table.name} on Redshift: the rows of {table.source.name} as a native table. The ticker-years whose files "
        "have changed are loaded from the serving copy through Spectrum and replaced in one transaction.",
        metadata={
            "dagster/column_schema": dg.TableSchema(columns),
            "dagster/column_lineage": dg.TableColumnLineage(
                {column.name: [dg.TableColumnDep(source, column.name)] for column in table.columns}
            ),
        },
    )


def _differed(instance: dg.DagsterInstance, tables: Sequence[NativeTable]) -> bool:
    """Whether the newest evaluation of the check of a table found that it differs from the lake."""
    from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

    for table in tables:
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(table.asset), AGREES),
            limit=1,
            status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
        )
        evaluations = [record.event.asset_check_evaluation for record in history if record.event]
        if any(evaluation is not None and not evaluation.passed for evaluation in evaluations):
            return True
    return False
