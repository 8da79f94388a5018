"""Checks in an asset's own step: audits derived from schemas/, conservation of rows, and completeness of a delivery.

Here: their specs and results. Not here: market checks, which read a published table (market.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.lake.causes import VENDOR_EDIT, WITHDRAWN
from stock_lakehouse.report import outdated_rows
from stock_lakehouse.schemas.audit import AuditError, failures
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import (
    CORPORATE_ACTIONS,
    CURATED,
    FEATURES,
    PROCESSED,
    PROCESSED_ACTIONS,
    QUARANTINE,
    RAW,
    RESTATEMENTS,
    Table,
)
from stock_lakehouse.transforms.indicators import indicator_spec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.sources import Download

RESTATED_DAYS = 30
LISTED = 50  # entries of a list in a check's metadata


def warning(table: Table, name: str, found: list[dict[str, Any]], to_do: str = "", **facts: str) -> dg.AssetCheckResult:
    """The result of a check that warns of each of `found`; `to_do` says what to do about them."""
    rows = [dg.TableRecord(one) for one in found[:LISTED]]
    return dg.AssetCheckResult(
        asset_key=table.name,
        check_name=name,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "found": len(found),
            **facts,
            **({"rows": dg.MetadataValue.table(rows)} if rows else {}),
            **({"what to do": to_do} if rows and to_do else {}),
        },
    )


def audit_spec(table: Table, asset: Table | None = None) -> dg.AssetCheckSpec:
    """The blocking check that a frame conforms to `table`'s schema before `asset` (the table's own) publishes it."""
    return dg.AssetCheckSpec(
        _audit_name(table),
        asset=(asset or table).name,
        blocking=True,
        description=f"Every row to be published conforms to the schema of {table.name}; if not, nothing is published.",
    )


def audited(frame: DataFrame, table: Table, asset: Table | None = None) -> Iterator[dg.AssetCheckResult]:
    """Yield the audit's result; raise dg.Failure after a failed one, so that nothing is published."""
    found = failures(frame, table)
    yield dg.AssetCheckResult(
        asset_key=(asset or table).name,
        check_name=_audit_name(table),
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"failures": _listed(found) if found else 0},
    )
    if found:
        raise blocked(AuditError(table, found))


def blocked(error: AuditError) -> dg.Failure:
    """The failure of a step whose rows break a schema; it is not retried, since it would compute the same."""
    return dg.Failure(
        f"{error}. Nothing was published; the failure's metadata lists them.",
        metadata={"failures": _listed(error.failures)},
        allow_retries=False,
    )


def _listed(found: list[dict[str, str]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(failure)) for failure in found[:LISTED]])


def _audit_name(table: Table) -> str:
    names = {QUARANTINE: "quarantine_schema", PROCESSED_ACTIONS: "actions_schema", CORPORATE_ACTIONS: "actions_schema"}
    return names.get(table, "schema")


DELIVERY_CONSERVED = dg.AssetCheckSpec(
    "conservation", asset=RAW.name, blocking=True, description="delivered = landed + repeated + outside + withheld"
)
SOURCE_COMPLETE = dg.AssetCheckSpec(
    "source_complete", asset=RAW.name, description="The source delivered every ticker that was asked for."
)
ONE_ROW_A_SESSION = dg.AssetCheckSpec(
    "one_row_a_session",
    asset=RAW.name,
    description="No download has two different rows of one ticker and session; of two the last counts. Files are read by name.",
)
READJUSTED = dg.AssetCheckSpec(
    "readjusted",
    asset=RAW.name,
    description="No vendor has adjusted older prices anew, for dividends that it does not name, that landed before and were not "
    "asked for.",
)
FILE_NAMES = dg.AssetCheckSpec(
    "file_names", asset=RAW.name, description="Every file under raw follows the naming; others are never read."
)
ROWS_CONSERVED = dg.AssetCheckSpec(
    "conservation",
    asset=PROCESSED.name,
    blocking=True,
    description="Every landed row of the run's tickers and years is processed, quarantined or superseded.",
)


PRESENT_FORMULAS = dg.AssetCheckSpec(
    "present_formulas",
    asset=FEATURES.name,
    description="Every row of features is by the program's present formulas (indicator_spec).",
)


def present_formulas(features: DataFrame) -> dg.AssetCheckResult:
    """The check of the published features: rows by older formulas, by ticker, and what brings them up to date."""
    outdated = outdated_rows(features)
    rows = [dg.TableRecord({"ticker": ticker, "rows": count}) for ticker, count in list(outdated.items())[:LISTED]]
    to_do = "`stock-lakehouse backfill` computes them again; those of tickers that are not in the settings stay"
    return dg.AssetCheckResult(
        asset_key=FEATURES.name,
        check_name=PRESENT_FORMULAS.name,
        passed=not outdated,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "indicator_spec": indicator_spec(),
            "outdated rows": sum(outdated.values()),
            **({"tickers": dg.MetadataValue.table(rows), "what to do": to_do} if outdated else {}),
        },
    )


RESTATED_SHARE = dg.AssetCheckSpec(
    "restated_share",
    asset=RESTATEMENTS.name,
    description=f"No vendor changed or withdrew more than restated_share of a ticker's bars in {RESTATED_DAYS} days.",
)


def restated_share(lines: DataFrame, bars: DataFrame, now: datetime, allowed: float) -> dg.AssetCheckResult:
    """The check of the ledger's `lines` against the published `bars`: tickers of which more than `allowed`, a share of their
    bars, was edited or withdrawn by the vendor in the RESTATED_DAYS before `now`. Splits and dividends do not count."""
    from pyspark.sql import functions as F

    by_vendor = (F.col("table_name") == CURATED.name) & F.col("cause").isin(VENDOR_EDIT, WITHDRAWN)
    recent = lines.where(by_vendor & (F.col("restated_at") > F.lit(now - timedelta(days=RESTATED_DAYS))))
    changed = recent.select("ticker", "date").distinct().groupBy("ticker").agg(F.count("date").alias("changed"))
    held = bars.groupBy("ticker").agg(F.count("date").alias("bars"))
    rows = changed.join(held, "ticker", "left").fillna(0, ["bars"]).orderBy("ticker").collect()
    above = [row for row in rows if row["changed"] > allowed * max(row["bars"], row["changed"])]
    records = [
        dg.TableRecord({"ticker": row["ticker"], "bars changed": row["changed"], "bars": row["bars"]}) for row in above
    ]
    to_do = "`stock-lakehouse restatements TICKER` shows what changed; ask the vendor, or look at a second source"
    return dg.AssetCheckResult(
        asset_key=RESTATEMENTS.name,
        check_name=RESTATED_SHARE.name,
        passed=not above,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "allowed": allowed,
            **({"tickers": dg.MetadataValue.table(records[:LISTED]), "what to do": to_do} if above else {"tickers": 0}),
        },
    )


def delivery_checks(download: Download, strangers: list[str]) -> Iterator[dg.AssetCheckResult]:
    """What is to be said of a download that has landed."""
    landing = download.landing
    yield dg.AssetCheckResult(
        asset_key=RAW.name,
        check_name="conservation",
        passed=landing.delivered == landing.landed + landing.repeated + landing.outside + landing.withheld,
        metadata=dict(landing.counts),
    )
    twice = [
        {"ticker": one.ticker, "session": one.session, "rows": one.rows, "files": ", ".join(map(printable, one.files))}
        for one in landing.contradictions
    ]
    yield warning(RAW, ONE_ROW_A_SESSION.name, twice)
    yield warning(
        RAW,
        READJUSTED.name,
        [{"ticker": ticker, "by": factor} for ticker, factor in sorted(landing.readjusted.items())],
        "older and newer bars are on two bases; run the whole history again: stock-lakehouse materialize --tickers "
        + ",".join(sorted(landing.readjusted)),
    )
    failed = [dg.TableRecord({"ticker": t, "reason": reason}) for t, reason in sorted(download.failed.items())]
    yield dg.AssetCheckResult(
        asset_key=RAW.name,
        check_name="source_complete",
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"failed": dg.MetadataValue.table(failed)} if failed else {"tickers": len(download.tickers)},
    )
    yield dg.AssetCheckResult(
        asset_key=RAW.name,
        check_name="file_names",
        passed=not strangers,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"never read": "\n".join(strangers[:LISTED]), "files": len(strangers)},
    )


def rows_conserved(delivered: int, fates: dict[str, int]) -> Iterator[dg.AssetCheckResult]:
    """`delivered` rows were read from raw; `fates` counts the rows by what they became. Raise dg.Failure if any is lost."""
    figures: dict[str, Any] = {fate: fates.get(fate, 0) for fate in ("processed", "quarantined", "superseded")}
    kept = sum(fates.values())
    yield dg.AssetCheckResult(
        asset_key=PROCESSED.name,
        check_name="conservation",
        passed=delivered == kept == sum(figures.values()),
        metadata={"delivered": delivered, **figures},
    )
    if delivered != kept or kept != sum(figures.values()):
        raise dg.Failure(
            f"{delivered} rows were read from raw but {figures} came out; nothing was published", allow_retries=False
        )
