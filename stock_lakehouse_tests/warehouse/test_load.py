"""Loads on a Redshift that executes them: what is loaded, what is not sent, what a failure and a kill leave."""

from __future__ import annotations

from collections.abc import Callable

from stock_lakehouse_tests.warehouse.lakes import ODD, WarehouseLake

Made = Callable[..., WarehouseLake]


def test_a_load_brings_the_published_rows_and_a_second_one_writes_nothing(made: Made) -> None:
    place = made(readers=("group analysts", "bob"))
    pairs = [(ticker, year) for ticker in ODD for year in (2022, 2023)]
    place.put(pairs)
    first = place.load()
    place.assert_equal()
    assert [(of.ticker_years, of.rows) for of in first.tables] == [(8, 24), (8, 24)]
    again = place.warehouse()
    before = len(place.server.requests)
    outcome = again.load()
    assert not outcome.has_loaded
    assert again.api.writes == 0
    sent = [body["Sql"] for operation, body in place.server.requests[before:] if operation == "ExecuteStatement"]
    assert sent
    assert all(sql.startswith("SELECT") for sql in sent)
    assert {operation for operation, _ in place.server.requests[before:]} == {
        "ExecuteStatement", "DescribeStatement", "GetStatementResult",
    }  # fmt: skip
    [prices, features] = place.warehouse().compare(full=True)
    assert (prices.drifts, features.drifts) == ([], [])
    assert (prices.compared, features.compared) == (8, 8)
