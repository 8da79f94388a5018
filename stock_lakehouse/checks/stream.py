"""Checks of the stream: nothing is lost or counted twice, little waits, little is unusable, bars are what their ticks say.

Conservation and positions are evaluated in the step that writes, under the stream's lock; conservation blocks what follows. The
others read published tables and warn.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.stream import StreamResource
from stock_lakehouse.tables import MINUTE_BARS, RAW_TICKS, RECONCILIATION

if TYPE_CHECKING:
    from stock_lakehouse.lake.bar_table import BarTable
    from stock_lakehouse.lake.tick_table import TickTable

DAYS = 2  # the newest ones, whose counts are compared
MINUTES = 50  # that are computed anew
DEAD_SHARE, LATE_SHARE = 0.01, 0.05
WARN = dg.AssetCheckSeverity.WARN
CONSERVATION = dg.AssetCheckSpec(
    "stream_conservation",
    asset=MINUTE_BARS.name,
    blocking=True,
    description=f"Of the newest {DAYS} days: messages = events + duplicates + dead letters, and no more late events than events.",
)
POSITIONS = dg.AssetCheckSpec(
    "stream_positions",
    asset=RAW_TICKS.name,
    description="raw_ticks has as many rows as its commits stand for, and of the newest "
    f"{DAYS} days no message at or behind the position of its partition.",
)


def conservation_of(ticks: TickTable, bars: BarTable) -> dg.AssetCheckResult:
    """The result of CONSERVATION, as of the handles of the tables."""
    from stock_lakehouse.streams.status import days_of

    days = days_of(ticks, bars, DAYS)
    wrong = [
        day
        for day in days
        if day.messages != day.events + day.duplicates + day.dead or not 0 <= day.late_events <= day.events
    ]
    rows = [
        dg.TableRecord(
            {
                "day": str(day.day),
                "messages": day.messages,
                "events": day.events,
                "duplicates": day.duplicates,
                "dead letters": day.dead,
                "late events": day.late_events,
            }
        )
        for day in days
    ]
    to_do = "`stock-lakehouse upkeep --repair` computes the bars again from the ticks"
    return dg.AssetCheckResult(
        asset_key=MINUTE_BARS.name,
        check_name=CONSERVATION.name,
        passed=not wrong,
        metadata={
            "days": dg.MetadataValue.table(rows) if rows else 0,
            **({"what to do": to_do} if wrong else {}),
        },
    )


def positions_of(ticks: TickTable) -> dg.AssetCheckResult:
    """The result of POSITIONS, as of the handle of the table."""
    rows, expected, known = ticks.row_count(), ticks.expected_rows, ticks.sources()
    beyond = [
        dg.TableRecord({"source": source, "partition": partition, "newest offset": str(offset)})
        for (source, partition), offset in ticks.newest_offsets(ticks.newest_days(DAYS)).items()
        if partition not in known.get(source, {}) or offset >= known[source][partition].position
    ]
    return dg.AssetCheckResult(
        asset_key=RAW_TICKS.name,
        check_name=POSITIONS.name,
        passed=rows == expected and not beyond,
        severity=WARN,
        metadata={
            "rows": rows,
            "rows of all commits": expected,
            **({"at or behind their position": dg.MetadataValue.table(beyond[:LISTED])} if beyond else {}),
        },
    )


def stream_checks() -> dg.AssetChecksDefinition:
    """The checks that read published tables."""
    specs = [
        dg.AssetCheckSpec(
            "stream_lag", asset=RAW_TICKS.name, description="No message waits longer than lag_alert_seconds."
        ),
        dg.AssetCheckSpec(
            "dead_share",
            asset=RAW_TICKS.name,
            description=f"At most {DEAD_SHARE:.0%} of the newest day's messages are dead letters.",
        ),
        dg.AssetCheckSpec(
            "late_share",
            asset=MINUTE_BARS.name,
            description=f"At most {LATE_SHARE:.0%} of the newest day's events came late.",
        ),
        dg.AssetCheckSpec(
            "minutes_match_ticks",
            asset=MINUTE_BARS.name,
            description=f"{MINUTES} of the newest bars, computed anew from their ticks, are the same to the bit.",
        ),
    ]

    @dg.multi_asset_check(name="stream_tables", specs=specs)
    def check(lakehouse: LakehouseResource, stream_service: StreamResource) -> Iterator[dg.AssetCheckResult]:
        from stock_lakehouse.streams.rebuild import differing_minutes
        from stock_lakehouse.streams.status import lag_of, waited_longest

        status = stream_service.status(1)
        waited = waited_longest(status, lakehouse.now())
        limit = stream_service.settings.lag_alert_seconds
        yield _warning(
            RAW_TICKS.name,
            "stream_lag",
            waited <= timedelta(seconds=limit),
            {"waited, s": round(waited.total_seconds(), 1), "lag": lag_of(status)},
            "`stock-lakehouse stream status` shows which partition waits, and whether a runner is at work",
        )
        (newest,) = status.days or (None,)
        dead, late = (0.0, 0.0) if newest is None else (newest.dead_share, newest.late_share)
        reasons = {} if newest is None else newest.reasons
        yield _warning(
            RAW_TICKS.name,
            "dead_share",
            dead <= DEAD_SHARE,
            {"share": round(dead, 4), **reasons},
            "`stock-lakehouse stream dead` shows the messages",
        )
        yield _warning(
            MINUTE_BARS.name,
            "late_share",
            late <= LATE_SHARE,
            {"share": round(late, 4)},
            "the feed is slow, or the clock of a producer is; raise late_seconds if bars should wait longer",
        )
        with stream_service.session() as spark:
            compared, wrong = differing_minutes(
                lakehouse.lake_options, stream_service.settings.versions_hours, spark, MINUTES
            )
        records = [dg.TableRecord({"ticker": ticker, "minute": str(minute)}) for ticker, minute in wrong[:LISTED]]
        yield _warning(
            MINUTE_BARS.name,
            "minutes_match_ticks",
            not wrong,
            {"compared": compared, **({"minutes": dg.MetadataValue.table(records)} if records else {})},
            "`stock-lakehouse upkeep --repair` computes the bars again from the ticks",
        )

    return check


RECONCILED = dg.AssetCheckSpec(
    "reconciled",
    asset=RECONCILIATION.name,
    description="No ticker of the newest compared session differs from its official bar, and the stream had its minutes.",
)


def reconciled_of(rows: list[dict[str, Any]]) -> dg.AssetCheckResult:
    """The result of RECONCILED, from rows of minute_reconciliation."""
    newest = max((row["date"] for row in rows), default=None)
    of_newest = [row for row in rows if row["date"] == newest]
    wrong = [row for row in of_newest if row["verdict"] not in ("match", "replay")]
    records = [dg.TableRecord({"ticker": row["ticker"], "verdict": row["verdict"]}) for row in wrong[:LISTED]]
    return _warning(
        RECONCILIATION.name,
        RECONCILED.name,
        not wrong,
        {
            "session": str(newest),
            "compared": len(of_newest),
            **({"tickers": dg.MetadataValue.table(records)} if records else {}),
        },
        "`stock-lakehouse stream reconcile` shows the differences; the daily bar stays as it is",
    )


def _warning(asset: str, name: str, passed: bool, facts: dict[str, Any], to_do: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=passed,
        severity=WARN,
        metadata={**facts, **({} if passed else {"what to do": to_do})},
    )
