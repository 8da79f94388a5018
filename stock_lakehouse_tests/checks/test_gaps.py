"""What a gap looks like, by its evidence."""

from __future__ import annotations

from datetime import date

import dagster as dg
import pytest

from stock_lakehouse.automation.jobs import LAKEHOUSE_JOB
from stock_lakehouse.checks.gaps import GONE_AFTER, Facts, History, _other_tickers, diagnose
from stock_lakehouse.instance.run_tags import ASKED_BY
from stock_lakehouse.lake.coverage import Gap, TickerCoverage
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import RANGE_END, RANGE_START
from stock_lakehouse.sources import DeliveryFailure, FailureKind
from stock_lakehouse.sources.sample import SampleSource

CALENDAR = market_calendar(date(2023, 1, 3))
DAYS = CALENDAR.between(date(2023, 9, 1), date(2023, 9, 21))


def gap(count: int, ended: bool = True) -> Gap:
    return Gap("NVDA", DAYS[:count], ended)


def failure(kind: str, reason: str) -> DeliveryFailure:
    return DeliveryFailure(FailureKind(kind), reason)


@pytest.mark.parametrize(
    ("found", "facts", "looks", "words"),
    [
        (gap(3), Facts(others=5, lacking=0), "halted", "3 sessions between bars; 5 of 5 other tickers traded"),
        (gap(1), Facts(others=5, lacking=0), "vendor gap", "a 1 session"),
        (gap(3), Facts(others=5, lacking=4), "vendor gap", "4 of 5 other tickers lack it too"),
        (gap(1), Facts(("open is missing",), others=5), "vendor gap", "in quarantine: open is missing"),
        (gap(2, False), Facts(others=5), "halted", "no bar for 2 sessions since the one before 2023-09-01"),
        (gap(GONE_AFTER, False), Facts(others=5), "delisted or renamed", f"no bar for {GONE_AFTER} sessions"),
        (gap(2, False), Facts(failure=failure("unavailable", "does not know it"), others=5), "throttled", "know it"),
        (gap(2, False), Facts(failure=failure("unknown ticker", "Unbekannt")), "delisted or renamed", "Unbekannt"),
        (gap(2, False), Facts(failure=failure("withheld", "no bar is valid")), "vendor gap", "no bar is valid"),
    ],
)
def test_a_gap_is_named_by_its_evidence(found: Gap, facts: Facts, looks: str, words: str) -> None:
    named, evidence = diagnose(found, facts)
    assert named == looks
    assert words.removeprefix("a ") in evidence


def test_the_sample_says_of_a_ticker_that_it_lacks_that_it_is_unknown() -> None:
    [*_, last] = SampleSource().deliver(["MSFT"], DAYS[0], DAYS[-1])
    assert last.failed["MSFT"].kind == "unknown ticker"


def test_the_company_of_a_gap_is_who_had_begun_and_not_ended() -> None:
    holdings = {
        "NVDA": TickerCoverage(DAYS[0], DAYS[-1], DAYS[3:5]),
        "AAPL": TickerCoverage(DAYS[0], DAYS[-1]),
        "META": TickerCoverage(DAYS[0], DAYS[-1], DAYS[4:5]),
        "NEW": TickerCoverage(DAYS[8], DAYS[-1]),
        "OLD": TickerCoverage(DAYS[0], DAYS[2]),
        "LATE": TickerCoverage(DAYS[0], DAYS[3]),
    }
    assert _other_tickers(Gap("NVDA", DAYS[3:5], True), holdings) == (3, 2)


def test_many_newer_runs_do_not_hide_what_was_asked_for_a_gap() -> None:
    @dg.job(name=LAKEHOUSE_JOB)
    def lakehouse() -> None:
        """No step."""

    def tags(ticker: str, by: str) -> dict[str, str]:
        key = f"{DAYS[0]}|{ticker}"
        return {RANGE_START: key, RANGE_END: key, ASKED_BY: by}

    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            instance.create_run_for_job(lakehouse, tags=tags("NVDA", "gap_sensor"))
        for _ in range(450):
            instance.create_run_for_job(lakehouse, tags=tags("AAPL", "csv_folder_sensor"))
        history = History(instance, ("AAPL", "NVDA"))
        assert history.facts(gap(1), (), 0, 0).asked == 2
        assert history.newest_run("NVDA", DAYS[0]) is not None
        assert history.newest_run("AAPL", DAYS[1]) is None
