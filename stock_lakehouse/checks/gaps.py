"""gap_diagnosis: the probable cause of each stretch of missing sessions, and the evidence. It reports and does not block.

Here: the evidence, the rules and the check. Not here: requesting a gap again (automation/).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
from stock_lakehouse.checks import SOURCE_COMPLETE
from stock_lakehouse.instance.run_tags import ASKED_BY, RunCoverage, run_coverage
from stock_lakehouse.lake.coverage import Gap, TickerCoverage, find_gaps, read_coverage
from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.sources import DeliveryFailure, FailureKind
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

GONE_AFTER = 10  # sessions without a bar: a stock seldom trades again after a longer halt
LOOKS = {  # what a gap looks like if the source failed for its ticker
    FailureKind.UNKNOWN_TICKER: "delisted or renamed",
    FailureKind.UNAVAILABLE: "throttled",
    FailureKind.WITHHELD: "vendor gap",
}
RUNS_A_PAGE = 200
BEFORE_LISTING = "before listing"


@dataclass(frozen=True)
class Facts:
    """What is known about a gap.

    - `rejected`: the reasons why delivered rows of its sessions are in quarantine.
    - `failure`: how the source failed for the ticker in the newest run that covered the gap; None if it did not.
    - `others`: how many other tickers traded when the gap began.
    - `lacking`: how many of those lack a session of the gap too.
    - `asked`: how many runs gap_sensor has requested for the gap.
    """

    rejected: tuple[str, ...] = ()
    failure: DeliveryFailure | None = None
    others: int = 0
    lacking: int = 0
    asked: int = 0


def diagnose(gap: Gap, facts: Facts) -> tuple[str, str]:
    """What the gap looks like (halted, delisted or renamed, throttled, or a vendor gap), and the evidence.

    Rejected rows are the strongest evidence, then the source's failure, then whether the ticker has later bars and whether other
    tickers traded.
    """
    length = f"{len(gap.sessions)} session{'s' if len(gap.sessions) > 1 else ''}"
    traded = f"{facts.others - facts.lacking} of {facts.others} other tickers traded"
    if facts.rejected:
        return "vendor gap", f"delivered, but in quarantine: {', '.join(facts.rejected)}"
    if facts.failure:
        return LOOKS[facts.failure.kind], f"the source failed: {facts.failure.reason}"
    if not gap.ended:
        looks = "delisted or renamed" if len(gap.sessions) >= GONE_AFTER else "halted"
        return looks, f"no bar for {length} since the one before {gap.sessions[0]}; {traded}"
    if facts.lacking * 2 > facts.others:
        return "vendor gap", f"{facts.lacking} of {facts.others} other tickers lack it too"
    looks = "vendor gap" if len(gap.sessions) == 1 else "halted"
    return looks, f"{length} between bars; {traded}"


def gap_diagnosis(condition: dg.AutomationCondition[dg.AssetCheckKey] | None = None) -> dg.AssetChecksDefinition:
    """The check; `condition` decides when Dagster evaluates it by itself."""

    @dg.asset_check(
        asset=CURATED.name,
        name="gap_diagnosis",
        description="No ticker lacks a session after its first bar. Each gap is listed with what it looks like (halted, delisted "
        "or renamed, throttled, vendor gap), the evidence, and how often gap_sensor has requested it. Sessions before a "
        "listing are listed and are not a fault.",
        automation_condition=condition,
    )
    def check(context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource) -> dg.AssetCheckResult:
        lake = lakehouse.lake
        holdings = read_coverage(lake.curated, None, lakehouse.calendar)
        gaps = find_gaps(
            lakehouse.calendar, holdings, lakehouse.lake_options.tickers, lakehouse.expected_last_session()
        )
        history = History(context.instance, lakehouse.lake_options.tickers) if gaps else None
        rejected = _rejected(lake.quarantine.read(lakehouse.session), gaps) if gaps else {}
        rows = [
            _row(gap, history.facts(gap, rejected.get(gap.key, ()), *_other_tickers(gap, holdings)))
            for gap in gaps
            if history
        ]
        listings = _before_listing(holdings, lakehouse)
        return dg.AssetCheckResult(
            passed=not rows,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "found": len(rows),
                **({"rows": dg.MetadataValue.table(rows[:LISTED])} if rows else {}),
                **({BEFORE_LISTING: dg.MetadataValue.table(listings[:LISTED])} if listings else {}),
            },
        )

    return check


def _row(gap: Gap, facts: Facts) -> dg.TableRecord:
    looks, evidence = diagnose(gap, facts)
    return dg.TableRecord(
        {
            "ticker": gap.ticker,
            "first": str(gap.sessions[0]),
            "last": str(gap.sessions[-1]),
            "sessions": len(gap.sessions),
            "looks": looks,
            "evidence": evidence,
            "asked again": facts.asked,
        }
    )


def _other_tickers(gap: Gap, holdings: Mapping[str, TickerCoverage]) -> tuple[int, int]:
    """How many other tickers have bars before and after the beginning of the gap, and how many of them lack a session of it."""
    first, last, days = gap.sessions[0], gap.sessions[-1], set(gap.sessions)
    others = [held for name, held in holdings.items() if name != gap.ticker and held.first <= first <= held.last]
    return len(others), sum(1 for held in others if held.last < last or days & set(held.missing))


def _before_listing(holdings: Mapping[str, TickerCoverage], lakehouse: LakehouseResource) -> list[dg.TableRecord]:
    rows = []
    for ticker in lakehouse.lake_options.tickers:
        held = holdings.get(ticker)
        before = lakehouse.calendar.between(lakehouse.lake_options.first_date, held.first)[:-1] if held else ()
        if held and before:
            rows.append(dg.TableRecord({"ticker": ticker, "sessions": len(before), "first bar": str(held.first)}))
    return rows


class History:
    """What runs requested from the source, and how the source failed. Runs are read newest first, a page at a time, on demand."""

    def __init__(self, instance: dg.DagsterInstance, tickers: Sequence[str]) -> None:
        self._instance = instance
        self._tickers = tuple(tickers)
        gap_runs = instance.get_runs(dg.RunsFilter(job_name=LAKEHOUSE_JOB, tags={ASKED_BY: "gap_sensor"}))
        self._gap_runs = self._coverages(gap_runs)
        self._newest: list[RunCoverage] = []
        self._cursor: str | None = None
        self._all_read = False
        self._failures_by_run: dict[str, dict[str, DeliveryFailure]] = {}

    def facts(self, gap: Gap, rejected: tuple[str, ...], others: int, lacking: int) -> Facts:
        """What is known about `gap`. A failure of the source counts only if it is of the newest run that covers the gap."""
        run_id = self.newest_run(gap.ticker, gap.sessions[0])
        failure = self._failures(run_id).get(gap.ticker) if run_id else None
        requests = sum(run.covers(gap.ticker, gap.sessions[0]) for run in self._gap_runs)
        return Facts(rejected, failure, others, lacking, requests)

    def newest_run(self, ticker: str, session: date) -> str | None:
        """The id of the newest run that requested a bar from the source; None if no run did."""
        return next((run.run_id for run in self._runs() if run.covers(ticker, session)), None)

    def _runs(self) -> Iterator[RunCoverage]:
        """The coverage of all runs that take bars through every layer, newest first."""
        yield from self._newest
        while not self._all_read:
            page = self._instance.get_runs(
                dg.RunsFilter(job_name=LAKEHOUSE_JOB), cursor=self._cursor, limit=RUNS_A_PAGE
            )
            self._all_read = len(page) < RUNS_A_PAGE
            self._cursor = page[-1].run_id if page else self._cursor
            found = self._coverages(page)
            self._newest += found
            yield from found

    def _coverages(self, runs: Sequence[dg.DagsterRun]) -> list[RunCoverage]:
        return [coverage for run in runs if (coverage := run_coverage(run, self._tickers)) is not None]

    def _failures(self, run_id: str) -> dict[str, DeliveryFailure]:
        """By ticker, the failures that the check source_complete of a run recorded."""
        if run_id not in self._failures_by_run:
            failures = self._failures_by_run[run_id] = {}
            kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
            for record in self._instance.get_records_for_run(run_id, of_type=kind).records:
                event = record.event_log_entry.dagster_event
                evaluation: Any = event.event_specific_data if event else None
                if evaluation is not None and evaluation.check_name == SOURCE_COMPLETE.name:
                    failed = evaluation.metadata.get("failed")
                    failures.update(
                        {row.data["ticker"]: _failure(row.data) for row in failed.records} if failed else {}
                    )
        return self._failures_by_run[run_id]


def _failure(row: Mapping[str, Any]) -> DeliveryFailure:
    """The failure in a row of source_complete. Rows that older versions recorded have no kind and count as UNAVAILABLE."""
    return DeliveryFailure(FailureKind(row.get("kind", FailureKind.UNAVAILABLE)), row["reason"])


def _rejected(quarantine: "DataFrame", gaps: Sequence[Gap]) -> dict[str, tuple[str, ...]]:
    """By the key of a gap, the reasons why rows of its sessions are in quarantine."""
    from pyspark.sql import functions as F

    day = F.substring(F.trim("date"), 1, 10)
    rows = quarantine.where(F.col("ticker").isin(sorted({gap.ticker for gap in gaps}))).select(
        "ticker", day.alias("day"), "reasons"
    )
    reasons: dict[tuple[str, str], set[str]] = {}
    for row in rows.collect():
        reasons.setdefault((row["ticker"], row["day"]), set()).update(row["reasons"])
    return {
        gap.key: tuple(sorted(found))
        for gap in gaps
        if (found := set().union(*(reasons.get((gap.ticker, str(day)), set()) for day in gap.sessions)))
    }
