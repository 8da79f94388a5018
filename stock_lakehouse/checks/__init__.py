"""Checks that run in an asset's step: audits derived from schemas/, conservation of rows, and completeness of a delivery.

Here: their specs and results. Not here: market checks, which read a published table (market.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.lake.causes import VENDOR_EDIT, WITHDRAWN
from stock_lakehouse.layers.serving import SERVING_COPY
from stock_lakehouse.layers.step import LISTED, CheckResult, audit_name
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW, RESTATEMENTS, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.sources.download import Download

RESTATED_DAYS = 30


def warning(table: Table, name: str, found: list[dict[str, Any]], to_do: str = "", **facts: str) -> dg.AssetCheckResult:
    """The result of a check of severity WARN that passes if `found` is empty; `to_do` says what to do about the findings."""
    rows = [dg.TableRecord(row) for row in found[:LISTED]]
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
    """The blocking check that a frame conforms to the schema of `table` before `asset` publishes it.

    `asset` is the asset whose step publishes the table; None: the asset of the table itself.
    """
    return dg.AssetCheckSpec(
        audit_name(table),
        asset=(asset or table).name,
        blocking=True,
        description=f"Every row to be published conforms to the schema of {table.name}; if not, nothing is published.",
    )


def serving_spec(table: Table) -> dg.AssetCheckSpec:
    """The check that the serving copy has every file of the version that the step of `table` published."""
    return dg.AssetCheckSpec(
        SERVING_COPY,
        asset=table.name,
        description="The serving copy has a file of every year of the published version. If not, nothing is lost: readers fall "
        "back to the table, and the next run writes the missing files.",
    )


def as_dagster(result: CheckResult) -> dg.AssetCheckResult:
    """The result of a check of a layer's step in Dagster's form."""
    return dg.AssetCheckResult(
        asset_key=result.table.name,
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity[result.severity],
        metadata={name: _as_metadata(fact) for name, fact in result.facts.items()},
    )


def _as_metadata(fact: Any) -> Any:
    if isinstance(fact, list):
        return dg.MetadataValue.table([dg.TableRecord(row) for row in fact[:LISTED]])
    return fact


DELIVERY_CONSERVED = dg.AssetCheckSpec(
    "conservation", asset=RAW.name, blocking=True, description="delivered = landed + repeated + outside + withheld"
)
SOURCE_COMPLETE = dg.AssetCheckSpec(
    "source_complete", asset=RAW.name, description="The source delivered every requested ticker."
)
ONE_ROW_A_SESSION = dg.AssetCheckSpec(
    "one_row_a_session",
    asset=RAW.name,
    description="No download has two different rows of one ticker and session. The last of them counts; files are read in the "
    "order of their names.",
)
READJUSTED = dg.AssetCheckSpec(
    "readjusted",
    asset=RAW.name,
    description="The vendor has not readjusted prices that landed earlier and were not requested now, for dividends that it does "
    "not name.",
)
FILE_NAMES = dg.AssetCheckSpec(
    "file_names",
    asset=RAW.name,
    description="The name of every file under raw has the form of a landing; others are not read.",
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
    description="Every row of features was computed with the present formulas of the program (indicator_spec).",
)


RESTATED_SHARE = dg.AssetCheckSpec(
    "restated_share",
    asset=RESTATEMENTS.name,
    description=f"No vendor changed or withdrew more than restated_share of a ticker's bars in {RESTATED_DAYS} days.",
)


def restated_share(lines: DataFrame, bars: DataFrame, now: datetime, allowed: float) -> dg.AssetCheckResult:
    """The result of the check RESTATED_SHARE, from the ledger's `lines` and the published `bars`.

    It finds tickers of whose bars the vendor edited or withdrew more than the share `allowed` in the RESTATED_DAYS before `now`.
    Restatements that a split or a dividend causes do not count.
    """
    from pyspark.sql import functions as F

    by_vendor = (F.col("table_name") == CURATED.name) & F.col("cause").isin(VENDOR_EDIT, WITHDRAWN)
    recent = lines.where(by_vendor & (F.col("restated_at") > F.lit(now - timedelta(days=RESTATED_DAYS))))
    days = recent.select("ticker", "date").distinct().groupBy("ticker").agg(F.count("date").alias("changed")).collect()
    changed = {row["ticker"]: row["changed"] for row in days}
    held = {}
    if changed:  # else the bars need not be read
        counts = bars.where(F.col("ticker").isin(*changed)).groupBy("ticker").agg(F.count("date").alias("bars"))
        held = {row["ticker"]: row["bars"] for row in counts.collect()}
    records = [
        dg.TableRecord({"ticker": ticker, "bars changed": count, "bars": held.get(ticker, 0)})
        for ticker, count in sorted(changed.items())
        if count > allowed * max(held.get(ticker, 0), count)
    ]
    to_do = "`stock-lakehouse restatements TICKER` shows what changed; ask the vendor, or look at a second source"
    return dg.AssetCheckResult(
        asset_key=RESTATEMENTS.name,
        check_name=RESTATED_SHARE.name,
        passed=not records,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "allowed": allowed,
            **(
                {"tickers": dg.MetadataValue.table(records[:LISTED]), "what to do": to_do}
                if records
                else {"tickers": 0}
            ),
        },
    )


def delivery_checks(download: Download, strangers: list[str]) -> Iterator[dg.AssetCheckResult]:
    """The results of the raw checks of a download that has landed.

    `strangers`: files under raw whose name does not have the form of a landing.
    """
    landing = download.landing
    yield dg.AssetCheckResult(
        asset_key=RAW.name,
        check_name="conservation",
        passed=landing.delivered == landing.landed + landing.repeated + landing.outside + landing.withheld,
        metadata=dict(landing.counts),
    )
    contradictions = [
        {
            "ticker": rows.ticker,
            "session": rows.session,
            "rows": rows.rows,
            "files": ", ".join(map(printable, rows.files)),
        }
        for rows in landing.contradictions
    ]
    yield warning(RAW, ONE_ROW_A_SESSION.name, contradictions)
    yield warning(
        RAW,
        READJUSTED.name,
        [{"ticker": ticker, "by": factor} for ticker, factor in sorted(landing.readjusted.items())],
        "older and newer bars are on different price bases; run the whole history again: stock-lakehouse materialize --tickers "
        + ",".join(sorted(landing.readjusted)),
    )
    failed = [
        dg.TableRecord({"ticker": ticker, "reason": failure.reason, "kind": failure.kind.value})
        for ticker, failure in sorted(download.failed.items())
    ]
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
