"""What the page Run shows: what a run did, what it changed, what its checks found, and the signals of the newest session.

Here: plain values, ready for JSON. Not here: reading the Dagster instance (instance/run_record.py), the file (report.py), and how
they are shown (page/run.js).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from stock_lakehouse.dashboards.charts import SIGNALS
from stock_lakehouse.dashboards.view import View
from stock_lakehouse.instance.run_record import ROW_COUNT, AssetRecord, CheckFinding, RunRecord, StepRecord
from stock_lakehouse.lake.reading import lines_of_run
from stock_lakehouse.sources import printable
from stock_lakehouse.tables import BY_NAME, CURATED, FEATURES, TABLES

LISTED = 100  # lines of the ledger
LISTED_FINDINGS = 20  # rows of a check; a check has 50 at most
LONGEST_TEXT = 1000  # of an error or a finding; an engine's error can have many thousand characters
SHORT_TEXT = 200  # of a value in a table
QUARANTINE_CHECK = "quarantine"
NOT_SHOWN = {ROW_COUNT, "dagster/partition_row_count", "location", "why", "newest"}


def run(view: View, record: RunRecord, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """What a run did, and what the lake of `view` says of it.

    - run: id, job, outcome, covers, launched_by, started, ended (UTC), seconds, error
    - steps: name, layer, status, attempts, start (seconds after the run's), seconds, error; in the order in which they began
    - checks: asset, check, passed, severity, found, description, to_do, rows
    - tables: of each table that the run recorded: rows before and after, added, corrected, withdrawn, version
    - others: of each other asset: its figures, as text
    - restated: the number of ledger lines, by table and cause, and the first of them
    - quarantined: the number of rows that this run put into quarantine, by reason, and the first of them
    - newest: the newest session, and the tickers with a signal on it

    A value that is not known is null. `secrets`: texts that must not be in it.
    """
    begun = record.started
    answered = {
        "run": {
            "id": record.run_id,
            "job": record.job,
            "outcome": record.outcome,
            "covers": record.covers,
            "launched_by": record.launched_by,
            "started": _at(begun),
            "ended": _at(record.ended),
            "seconds": _seconds(begun, record.ended or _last_moment(record)),
            "error": _cut(record.error, LONGEST_TEXT),
        },
        "steps": [_step(step, begun) for step in record.steps],
        "checks": [_check(found) for found in record.checks],
        "tables": list(_tables(record.assets)),
        "others": [
            {"asset": name, "facts": _facts(found)} for name, found in record.assets.items() if name not in BY_NAME
        ],
        "restated": _restated(view, record.run_id),
        "quarantined": _quarantined(record.checks),
        "newest": _newest(view),
    }
    return dict(_without(answered, [secret for secret in secrets if secret]))


def _step(step: StepRecord, begun: datetime | None) -> dict[str, Any]:
    table = BY_NAME.get(step.name)
    return {
        "name": step.name,
        "layer": table.layer if table is not None else None,
        "status": step.status,
        "attempts": step.attempts,
        "start": _seconds(begun, step.started),
        "seconds": _seconds(step.started, step.ended),
        "error": _cut(step.error, LONGEST_TEXT),
    }


def _check(found: CheckFinding) -> dict[str, Any]:
    rows = [] if found.passed else [_texts(row) for row in found.rows[:LISTED_FINDINGS]]
    return {
        "asset": found.asset,
        "check": found.check,
        "passed": found.passed,
        "severity": found.severity,
        "found": found.found,
        "description": _cut(found.description, LONGEST_TEXT),
        "to_do": found.to_do,
        "rows": rows,
    }


def _tables(assets: Mapping[str, AssetRecord]) -> Iterator[dict[str, Any]]:
    """In the order of the flow."""
    for table in TABLES:
        found = assets.get(table.name)
        if found is None:
            continue
        after = _count(found, ROW_COUNT)
        changes = {name: _count(found, name) for name in ("added", "corrected", "withdrawn")}
        if "landed" in found.facts:  # of raw, whose rows are never changed
            changes = {"added": _count(found, "landed"), "corrected": None, "withdrawn": None}
        before = found.rows_before
        if after is not None and changes["added"] is not None and changes["withdrawn"] is not None:
            before = after - changes["added"] + changes["withdrawn"]  # the publish counted them itself
        yield {
            "table": table.name,
            "before": before,
            "after": after,
            **changes,
            "version": _count(found, "table version"),
        }


def _count(found: AssetRecord, name: str) -> int | None:
    value = found.facts.get(name)
    return value if isinstance(value, int) else None


def _facts(found: AssetRecord) -> str:
    """The figures of an asset without a table, like `ticker-years: 66; statements: 17`."""
    shown = ((name, value) for name, value in found.facts.items() if name not in NOT_SHOWN and value not in ("", 0))
    texts = [
        f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {_value(value)}" for name, value in shown
    ]
    rows = _count(found, ROW_COUNT)
    return _cut("; ".join([*([f"{rows:,} rows"] if rows is not None else []), *texts]), LONGEST_TEXT)


def _restated(view: View, run_id: str) -> dict[str, Any]:
    lines = lines_of_run(view.lake, run_id)
    groups = lines.group_by(["table_name", "cause"]).aggregate([("rows", "sum"), ("rows", "count")]).to_pylist()
    first = lines.sort_by([(name, "ascending") for name in ("table_name", "ticker", "date", "columns")]).slice(
        0, LISTED
    )
    return {
        "lines": lines.num_rows,
        "by_cause": [
            [group["table_name"], group["cause"], group["rows_count"], group["rows_sum"]]
            for group in sorted(groups, key=lambda group: (group["table_name"], group["cause"] or ""))
        ],
        "first": [
            {
                "table": line["table_name"],
                "date": line["date"].isoformat(),
                "columns": line["columns"].split(","),
                **{name: line[name] for name in ("ticker", "old", "new", "rows", "cause")},
            }
            for line in first.to_pylist()
        ],
    }


def _quarantined(checks: Sequence[CheckFinding]) -> dict[str, Any]:
    """From the check that counts them while they are new: a row of the quarantine does not name its run."""
    found = next((check for check in checks if check.check == QUARANTINE_CHECK), None)
    by_reason: Counter[str] = Counter()
    if found is not None and isinstance(given := found.facts.get("by reason"), dict):
        by_reason.update(given)
    return {
        "rows": None if found is None else found.found or 0,
        "by_reason": [
            [_cut(printable(reason), SHORT_TEXT), rows] for reason, rows in by_reason.most_common(LISTED_FINDINGS)
        ],
        "first": [] if found is None else [_texts(row) for row in found.rows],
    }


def _newest(view: View) -> dict[str, Any]:
    import pyarrow.compute as pc

    last = view.spans[FEATURES.name].last
    if last is None:
        return {"session": None, "tickers": 0, "signals": []}
    names = ["ticker", "date", "return_1d", "rsi_14", *SIGNALS, "tradable_from"]
    rows = view.rows(FEATURES, names, [last.year]).filter(pc.field("date") == last)
    signalled = rows.filter(reduce(or_, (pc.field(name) for name in SIGNALS)))  # null is no signal
    bars = view.rows(CURATED, ["ticker", "date", "close"], [last.year], signalled["ticker"].to_pylist())
    joined = signalled.join(bars.filter(pc.field("date") == last), ["ticker", "date"], join_type="left outer")
    return {
        "session": last.isoformat(),
        "tickers": rows.num_rows,
        "signals": [
            {
                **{name: row[name] for name in ("ticker", "close", "return_1d", "rsi_14")},
                "signals": [label for name, label in SIGNALS.items() if row[name]],
                "tradable_from": row["tradable_from"] and row["tradable_from"].isoformat(),
            }
            for row in joined.sort_by("ticker").to_pylist()
        ],
    }


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: _cut(_value(value), SHORT_TEXT) for name, value in row.items() if value not in (None, "")}


def _value(value: Any) -> str:
    is_large = isinstance(value, int) and abs(value) >= 10_000  # a year is no count
    return f"{value:,}" if is_large else printable(str(value))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _at(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _seconds(first: datetime | None, last: datetime | None) -> float | None:
    return None if first is None or last is None else round((last - first).total_seconds(), 3)


def _last_moment(record: RunRecord) -> datetime | None:
    """The last moment that a run in progress recorded."""
    moments = [moment for step in record.steps for moment in (step.started, step.ended) if moment is not None]
    return max(moments, default=None)


def _without(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, dict):
        return {name: _without(inner, secrets) for name, inner in value.items()}
    return [_without(inner, secrets) for inner in value] if isinstance(value, list) else value
