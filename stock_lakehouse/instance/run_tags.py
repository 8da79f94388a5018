"""What the tags of a run say: what requested it, and which sessions and tickers it covers.

Here: reading tags. Not here: writing the tags of a range (partitions.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from stock_lakehouse.partitions import RANGE_END, RANGE_START, PartitionError, Rectangle, named_tickers, tickers_of_run
from stock_lakehouse.tables import FEATURES, RAW

if TYPE_CHECKING:
    import dagster as dg

ASKED_BY = "stock_lakehouse/asked_by"  # the sensor or schedule that requested the run
PARTITION = "dagster/partition"
PROGRAM_TAG = "stock_lakehouse/program"  # the machine of a run whose process is the program, not Dagster's daemon
SUMMARY = "stock_lakehouse/summary"  # tickers and days of a run of the program, for people
LISTED = 10  # tickers named in a text


@dataclass(frozen=True)
class RunCoverage:
    """The sessions from `first` to `last` of `tickers`, which the run takes through every layer."""

    run_id: str
    first: date
    last: date
    tickers: frozenset[str]

    def covers(self, ticker: str, session: date) -> bool:
        return ticker in self.tickers and self.first <= session <= self.last


def run_coverage(run: dg.DagsterRun, tickers: Sequence[str]) -> RunCoverage | None:
    """The coverage of `run`, with the settings' `tickers`; None if the run does not take bars through every layer."""
    selection = {key.path[-1] for key in run.asset_selection} if run.asset_selection else {RAW.name, FEATURES.name}
    first = run.tags.get(RANGE_START) or run.tags.get(PARTITION)
    last = run.tags.get(RANGE_END) or run.tags.get(PARTITION)
    if not first or not last or not {RAW.name, FEATURES.name} <= selection:
        return None
    (first_day, bar, start), (last_day, _, end) = first.partition("|"), last.partition("|")
    try:
        covered = frozenset(tickers_of_run(run.tags, tickers))
        if bar:
            covered &= frozenset(tickers[tickers.index(start) : tickers.index(end) + 1])
    except (PartitionError, ValueError):
        return None  # the settings no longer have its tickers
    return RunCoverage(run.run_id, date.fromisoformat(first_day), date.fromisoformat(last_day), covered)


def keys_of(run: dg.DagsterRun) -> str:
    """The partition keys of `run` as text, with its tickers if its tags name them."""
    first, last = run.tags.get(RANGE_START), run.tags.get(RANGE_END)
    if not first or not last:
        return run.tags.get(PARTITION) or "no partition"
    (first_day, _, start), (last_day, _, end) = first.partition("|"), last.partition("|")
    tickers = named_tickers(run.tags)
    if not tickers or (start and start == end):  # the keys name the tickers already
        return first if first == last else f"{first} to {last}"
    days = first_day if first_day == last_day else f"{first_day} to {last_day}"
    return f"{days} of {_short_list(tickers)}"


def summary_of(rectangle: Rectangle) -> str:
    """The tickers and days of a run, as text."""
    days = str(rectangle.first) if rectangle.first == rectangle.last else f"{rectangle.first} to {rectangle.last}"
    return f"{_short_list(rectangle.tickers)}; {days}"


def _short_list(tickers: Sequence[str]) -> str:
    more = len(tickers) - LISTED
    return ", ".join(tickers) if more <= 0 else f"{', '.join(tickers[:LISTED])} and {more} more"
