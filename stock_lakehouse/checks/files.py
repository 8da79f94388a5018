"""Checks of what was delivered: files without a usable row, and rows that this run put into quarantine. They do not block.

Here: their specs and results. Not here: counting a file's rows (sources/file_report.py) or the quarantine's (lake/status.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.sources import printable
from stock_lakehouse.sources.file_report import why_useless
from stock_lakehouse.tables import PROCESSED, RAW

if TYPE_CHECKING:
    from stock_lakehouse.sources.download import Download

FILES_READ = dg.AssetCheckSpec(
    "files_read",
    asset=RAW.name,
    description="Every file has a usable row, and no column of dividends or splits was left out.",
)
QUARANTINED = dg.AssetCheckSpec(
    "quarantine",
    asset=PROCESSED.name,
    description="This run put no row into quarantine.",
)


def files_read(download: Download) -> dg.AssetCheckResult:
    """The result of the check FILES_READ: files without a usable row, and files with a column that was left out.

    Its severity is ERROR if no file has a usable row of a ticker that the run requested.
    """
    rows: list[dict[str, Any]] = []
    nothing_came = bool(download.files) and not any(report.gave for report in download.files.values())
    for file, report in sorted(download.files.items()):
        reasons = [printable(note) for note in report.unused]
        if report.is_useless or nothing_came:
            reasons.insert(0, why_useless(report, download.known))
        if reasons:
            rows.append({"file": printable(file), "rows": report.rows, "reason": "; ".join(reasons)})
    others = sum(sum(report.others.values()) for report in download.files.values())
    return dg.AssetCheckResult(
        asset_key=RAW.name,
        check_name=FILES_READ.name,
        passed=not rows,
        severity=dg.AssetCheckSeverity.ERROR if nothing_came else dg.AssetCheckSeverity.WARN,
        metadata={
            "files": len(download.files),
            "rows of symbols that nobody asked for": others,
            "found": len(rows),
            **(_table(rows) if rows else {}),
            **({"reason": _none_of(download.tickers) if nothing_came else _reason(download)} if rows else {}),
            **({"what to do": "`stock-lakehouse doctor` shows what each file has"} if rows else {}),
        },
    )


def _reason(download: Download) -> str:
    reports = download.files.values()
    useless, unused = sum(report.is_useless for report in reports), sum(bool(report.unused) for report in reports)
    parts = [f"{useless:,} of {len(reports):,} files gave nothing that can be used"] if useless else []
    if unused:
        parts.append(f"{unused:,} of {len(reports):,} files have a column that is left out")
    return "; ".join(parts) + "."


def _none_of(tickers: Collection[str]) -> str:
    names = ", ".join(sorted(tickers)[:5]) + (f" and {len(tickers) - 5:,} more" if len(tickers) > 5 else "")
    return f"No file gave a row of {names} that can be read."


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": dg.MetadataValue.table([dg.TableRecord(row) for row in rows[:LISTED]])}
