"""warehouse_agrees, which blocks, and warehouse_keys_unique: the native tables have the lake's rows, and each key once.

Here: their specs and results. Not here: how tables are compared (warehouse/agreement.py). The step that loads a table evaluates
them (assets/warehouse.py).
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.warehouse.agreement import TO_DO, Comparison
from stock_lakehouse.warehouse.tables import NativeTable

AGREES, KEYS_UNIQUE = "warehouse_agrees", "warehouse_keys_unique"


def warehouse_checks(tables: Sequence[NativeTable]) -> list[dg.AssetCheckSpec]:
    """The specs of the checks of all native tables."""
    return [
        spec
        for table in tables
        for spec in (
            dg.AssetCheckSpec(
                AGREES,
                asset=table.asset,
                blocking=True,
                description=f"{table.name} has the rows of {table.source.name}: the number of rows of every ticker-year, and the "
                "checksums of those that were loaded since they were last found equal, by Redshift's SQL and by DuckDB over the "
                "lake's files. If not, no report runs on it.",
            ),
            dg.AssetCheckSpec(
                KEYS_UNIQUE,
                asset=table.asset,
                description=f"No {' and '.join(table.source.key)} has two rows in {table.name}: Redshift's planner believes the "
                "declared key, and nobody enforces it.",
            ),
        )
    ]


def agreement_of(comparison: Comparison) -> dg.AssetCheckResult:
    """The result of AGREES."""
    records = [dg.TableRecord(drift.as_json()) for drift in comparison.drifts[:LISTED]]
    return dg.AssetCheckResult(
        asset_key=comparison.table.asset,
        check_name=AGREES,
        passed=not comparison.drifts,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "found": len(comparison.drifts),
            "ticker-years counted": comparison.counted,
            "ticker-years compared by checksum": comparison.compared,
            "version of the lake's table": comparison.version,
            **({"rows": dg.MetadataValue.table(records), "what to do": TO_DO} if records else {}),
        },
    )


def uniqueness_of(table: NativeTable, duplicates: Sequence[dict[str, Any]]) -> dg.AssetCheckResult:
    """The result of KEYS_UNIQUE; `duplicates`: keys with more than one row, each with its `row_count`."""
    records = [
        dg.TableRecord({name: value if isinstance(value, int) else str(value) for name, value in row.items()})
        for row in duplicates[:LISTED]
    ]
    return dg.AssetCheckResult(
        asset_key=table.asset,
        check_name=KEYS_UNIQUE,
        passed=not duplicates,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "found": len(duplicates),
            **({"rows": dg.MetadataValue.table(records), "what to do": TO_DO} if records else {}),
        },
    )
