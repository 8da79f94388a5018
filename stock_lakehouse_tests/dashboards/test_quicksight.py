"""QuickSight is brought to what the lake has, on a server that keeps its states."""

from __future__ import annotations

from stock_lakehouse_tests.dashboards.conftest import Place


def test_first(place: Place) -> None:
    outcome = place.provision()
    for step in outcome.steps:
        print(step)
    print(outcome)
    print(place.account.writes)
    again = place.provision()
    for step in again.steps:
        print(step)
    print(again)
