"""The figures of every test that makes something go wrong: faults tried, rows lost, time to heal, by kind of fault.

A test asks for the fixture `faults` and records each; pytest prints the sums at its end, from all workers. Not here: any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

PROPERTY = "fault"


@dataclass
class Faults:
    """What a test says of the faults that it tried; `record` is pytest's `record_property`, which reaches the summary from a
    worker too."""

    record: Callable[[str, object], None]

    def tried(self, kind: str, count: int, rows_lost: int, seconds_to_heal: float = 0.0) -> None:
        """`count` faults of `kind`, after all of which `rows_lost` rows were missing that an undisturbed run has;
        `seconds_to_heal` is the longest time from a fault to the tables as they should be."""
        self.record(PROPERTY, [kind, count, rows_lost, seconds_to_heal])
        assert rows_lost == 0, f"{kind}: {rows_lost} rows lost"


def summary(properties: Iterable[tuple[str, Any]]) -> list[str]:
    """A line a kind of fault of all recorded properties: faults tried, rows lost, the longest time to heal."""
    sums: dict[str, tuple[int, int, float]] = {}
    for name, value in properties:
        if name == PROPERTY:
            kind, count, lost, seconds = value
            before = sums.get(kind, (0, 0, 0.0))
            sums[kind] = (before[0] + count, before[1] + lost, max(before[2], seconds))
    return [
        f"{kind}: {count:,} tried, {lost:,} rows lost, healed in at most {seconds:.1f} s"
        for kind, (count, lost, seconds) in sorted(sums.items())
    ]


@pytest.fixture
def faults(record_property: Callable[[str, object], None]) -> Faults:
    """Where a test records the faults that it tried."""
    return Faults(record_property)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the sums."""
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.stats.get(outcome, [])]
    lines = summary(property for report in reports for property in report.user_properties)
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)
