"""The asset graph, one file per layer. The attributes that all assets of tables share are set here, once."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from stock_lakehouse.assets.catalog import catalog
from stock_lakehouse.assets.curated import corporate_actions, curated_stocks_daily
from stock_lakehouse.assets.dashboards import run_report
from stock_lakehouse.assets.features import stocks_features
from stock_lakehouse.assets.ledger import restatements
from stock_lakehouse.assets.processed import processed_actions, processed_quarantine, processed_stocks_daily
from stock_lakehouse.assets.quicksight import quicksight_dashboard
from stock_lakehouse.assets.raw import raw_stocks_daily
from stock_lakehouse.assets.reports import report_assets
from stock_lakehouse.automation.jobs import GROUP, LAYER_TAG
from stock_lakehouse.catalog.entries import OWNER
from stock_lakehouse.indicators.registry import INDICATORS, Indicator
from stock_lakehouse.io_managers.metadata import lineage_of
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import BY_NAME, STREAM_BY_NAME, Table, with_indicators

TEAM = f"team:{OWNER}"
KINDS = {"csv": {"csv"}, "parquet": {"parquet", "pyspark"}, "delta": {"deltalake", "pyspark"}}


def all_assets(
    partitions: dg.PartitionsDefinition[str],
    settings: Settings,
    source_retries: dg.RetryPolicy | None = None,
    indicators: tuple[Indicator, ...] = INDICATORS,
) -> Sequence[dg.AssetsDefinition]:
    """All assets that `settings` ask for.

    - partitions: of the layers
    - source_retries: the retry policy of the step that requests rows from the source
    - indicators: those of the lake, whose columns features have
    """

    def described(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.path[-1]
        table = BY_NAME.get(name) or STREAM_BY_NAME.get(name)
        if table is None:  # an asset without a table sets these attributes itself
            return spec.replace_attributes(owners=[*spec.owners] or [TEAM])
        return spec.replace_attributes(
            partitions_def=partitions if name in BY_NAME and table.has_step else None,
            group_name=GROUP,
            tags={LAYER_TAG: table.layer},
            owners=[TEAM],
            kinds=KINDS[table.format],
            description=table.description,
        ).merge_attributes(metadata=_metadata(with_indicators(table, indicators), indicators))

    assets: list[dg.AssetsDefinition] = [
        raw_stocks_daily(source_retries),
        processed_stocks_daily,
        processed_quarantine,
        processed_actions,
        curated_stocks_daily,
        corporate_actions,
        stocks_features,
        restatements,
        catalog,
        *report_assets(settings.query_engine),
        *([run_report(settings)] if settings.dashboard != "off" else []),
    ]
    if settings.warehouse == "redshift":
        from stock_lakehouse.assets.warehouse import warehouse_assets

        assets.append(warehouse_assets(indicators))
    if settings.dashboard == "quicksight":
        assets.append(quicksight_dashboard(settings.quicksight.source))
    if settings.stream.source != "off":
        from stock_lakehouse.assets.stream import stream_assets

        assets.extend(stream_assets())
    return dg.map_asset_specs(described, assets)


def _metadata(table: Table, indicators: tuple[Indicator, ...]) -> dict[str, dg.MetadataValue]:
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            column.documentation,
            constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=table.key == (column.name,)),
        )
        for column in table.columns
    ]
    return {
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "dagster/column_lineage": lineage_of(table, indicators),
        "dagster/table_name": dg.MetadataValue.text(table.name),
    }
