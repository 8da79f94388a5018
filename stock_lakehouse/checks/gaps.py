"""gap_diagnosis: what each stretch of missing sessions looks like, and on what evidence. It reports and does not block.

Here: the evidence, the rules and the check. Not here: asking again for a gap (automation/).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
from stock_lakehouse.checks import SOURCE_COMPLETE
from stock_lakehouse.instance.run_tags import ASKED_BY, Bringing, bringing
from stock_lakehouse.lake.coverage import Gap, Held, find_gaps, read_holdings
from stock_lakehouse.layers.step import LISTED
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.sources import DeliveryFailure, FailureKind
from stock_lakehouse.tables import CURATED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

GONE_AFTER = 10  # sessions without a bar: exchanges seldom halt a stock for longer and let it come back
LOOKS = {  # what a gap looks like whose ticker failed
    FailureKind.UNKNOWN_TICKER: "delisted or renamed",
    FailureKind.UNAVAILABLE: "throttled",
    FailureKind.WITHHELD: "vendor gap",
}
RUNS_A_PAGE = 200
BEFORE_LISTING = "before listing"


@dataclass(frozen=True)
class Facts:
    """What is known of a gap: why delivered rows were rejected, what the source said of the ticker when it failed last, how many
    other tickers were trading then and how many of them lack a session of it too, and how often it was asked for."""

    rejected: tuple[str, ...] = ()
    failure: DeliveryFailure | None = None
    others: int = 0
    lacking: int = 0
    asked: int = 0


def diagnose(gap: Gap, facts: Facts) -> tuple[str, str]:
    """What the gap looks like, and the evidence: halted, delisted or renamed, throttled, or a vendor gap.

    Rejected rows tell most, then the source's own words, then whether the ticker came back and whether it was alone.
    """
    length = f"{len(gap.sessions)} session{'s' if len(gap.sessions) > 1 else ''}"
    company = f"{facts.others - facts.lacking} of {facts.others} other tickers traded"
    if facts.rejected:
        return "vendor gap", f"delivered, but in quarantine: {', '.join(facts.rejected)}"
    if facts.failure:
        return LOOKS[facts.failure.kind], f"the source failed: {facts.failure.reason}"
    if not gap.ended:
        looks = "delisted or renamed" if len(gap.sessions) >= GONE_AFTER else "halted"
        return looks, f"no bar for {length} since the one before {gap.sessions[0]}; {company}"
    if facts.lacking * 2 > facts.others:
        return "vendor gap", f"{facts.lacking} of {facts.others} other tickers lack it too"
    looks = "vendor gap" if len(gap.sessions) == 1 else "halted"
    return looks, f"{length} between bars; {company}"


def gap_diagnosis(condition: dg.AutomationCondition[dg.AssetCheckKey] | None = None) -> dg.AssetChecksDefinition:
    """The check; `condition` says when Dagster evaluates it by itself."""

    @dg.asset_check(
        asset=CURATED.name,
        name="gap_diagnosis",
        description="Each stretch of sessions that a ticker lacks, with what it looks like (halted, delisted or renamed, "
        "throttled, vendor gap), the evidence, and how often gap_sensor has asked for it. Sessions before a listing are "
        "told and no fault.",
        automation_condition=condition,
    )
    def check(context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource) -> dg.AssetCheckResult:
        lake = lakehouse.lake
        holdings = read_holdings(lake.curated, lake.curated, lakehouse.calendar)
        gaps = find_gaps(
            lakehouse.calendar, holdings, lakehouse.lake_options.tickers, lakehouse.expected_last_session()
        )
        history = History(context.instance, lakehouse.lake_options.tickers) if gaps else None
        rejected = _rejected(lake.quarantine.read(lakehouse.session), gaps) if gaps else {}
        rows = [
            _row(gap, history.facts(gap, rejected.get(gap.key, ()), *_company(gap, holdings)))
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


def _company(gap: Gap, holdings: Mapping[str, Held]) -> tuple[int, int]:
    """How many other tickers had begun and not ended when the gap began, and how many of them lack a session of it."""
    first, last, days = gap.sessions[0], gap.sessions[-1], set(gap.sessions)
    others = [held for name, held in holdings.items() if name != gap.ticker and held.first <= first <= held.last]
    return len(others), sum(1 for held in others if held.last < last or days & set(held.missing))


def _before_listing(holdings: Mapping[str, Held], lakehouse: LakehouseResource) -> list[dg.TableRecord]:
    rows = []
    for ticker in lakehouse.lake_options.tickers:
        held = holdings.get(ticker)
        before = lakehouse.calendar.between(lakehouse.lake_options.first_date, held.first)[:-1] if held else ()
        if held and before:
            rows.append(dg.TableRecord({"ticker": ticker, "sessions": len(before), "first bar": str(held.first)}))
    return rows


class History:
    """What runs asked the source for, and what it said. Runs are read newest first, a page at a time, as far as gaps need."""

    def __init__(self, instance: dg.DagsterInstance, tickers: Sequence[str]) -> None:
        self._instance = instance
        self._tickers = tuple(tickers)
        asked_again = instance.get_runs(dg.RunsFilter(job_name=LAKEHOUSE_JOB, tags={ASKED_BY: "gap_sensor"}))
        self._asked_again = self._bringing(asked_again)
        self._newest: list[Bringing] = []
        self._cursor: str | None = None
        self._all_read = False
        self._said: dict[str, dict[str, DeliveryFailure]] = {}

    def facts(self, gap: Gap, rejected: tuple[str, ...], others: int, lacking: int) -> Facts:
        """What is known of `gap`; the source's failure counts only if the newest run that asked for the gap met it."""
        run_id = self.newest_run(gap.ticker, gap.sessions[0])
        failure = self._failures(run_id).get(gap.ticker) if run_id else None
        again = sum(run.brings(gap.ticker, gap.sessions[0]) for run in self._asked_again)
        return Facts(rejected, failure, others, lacking, again)

    def newest_run(self, ticker: str, session: date) -> str | None:
        """The id of the newest run that asked the source for a bar."""
        return next((run.run_id for run in self._runs() if run.brings(ticker, session)), None)

    def _runs(self) -> Iterator[Bringing]:
        """All runs that bring bars, newest first."""
        yield from self._newest
        while not self._all_read:
            page = self._instance.get_runs(
                dg.RunsFilter(job_name=LAKEHOUSE_JOB), cursor=self._cursor, limit=RUNS_A_PAGE
            )
            self._all_read = len(page) < RUNS_A_PAGE
            self._cursor = page[-1].run_id if page else self._cursor
            found = self._bringing(page)
            self._newest += found
            yield from found

    def _bringing(self, runs: Sequence[dg.DagsterRun]) -> list[Bringing]:
        return [found for run in runs if (found := bringing(run, self._tickers)) is not None]

    def _failures(self, run_id: str) -> dict[str, DeliveryFailure]:
        """By ticker, what the check source_complete of a run holds."""
        if run_id not in self._said:
            said = self._said[run_id] = {}
            kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
            for record in self._instance.get_records_for_run(run_id, of_type=kind).records:
                event = record.event_log_entry.dagster_event
                evaluation: Any = event.event_specific_data if event else None
                if evaluation is not None and evaluation.check_name == SOURCE_COMPLETE.name:
                    failed = evaluation.metadata.get("failed")
                    said.update({row.data["ticker"]: _failure(row.data) for row in failed.records} if failed else {})
        return self._said[run_id]


def _failure(row: Mapping[str, Any]) -> DeliveryFailure:
    """A line of source_complete; those of older versions have no kind."""
    return DeliveryFailure(FailureKind(row.get("kind", FailureKind.UNAVAILABLE)), row["reason"])


def _rejected(quarantine: "DataFrame", gaps: Sequence[Gap]) -> dict[str, tuple[str, ...]]:
    """By gap, the reasons why rows of its sessions are in quarantine."""
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
