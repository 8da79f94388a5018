"""The comparison of warehouse and lake: every difference is found and named, and what is equal is found equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stock_lakehouse.upkeep import _compared as compared
from stock_lakehouse.warehouse.agreement import NOT_LOADED, OTHER_FILES, OTHER_ROWS, OTHER_VALUES, WITHDRAWN, Comparison
from stock_lakehouse.warehouse.load import LOOKS, Warehouse
from stock_lakehouse_tests.warehouse.lakes import ODD, WarehouseLake

Made = Callable[..., WarehouseLake]
PAIRS = [(ticker, 2023) for ticker in ODD]


def drifts(found: list[Comparison]) -> list[tuple[Any, ...]]:
    return [
        (drift.table, drift.ticker, drift.year, drift.lake, drift.warehouse, drift.what)
        for comparison in found
        for drift in comparison.drifts
    ]


def by_hand(place: WarehouseLake, *statements: str) -> None:
    """Somebody changes the warehouse."""
    cursor = place.server.database.cursor()
    for statement in statements:
        cursor.execute(statement)


def test_a_difference_names_table_ticker_year_and_both_counts(made: Made) -> None:
    place = made()
    place.put([*PAIRS, ("C=F", 2022)])
    place.load()
    assert drifts(place.warehouse().compare(full=True)) == []
    by_hand(
        place,
        "DELETE FROM stocks.stock_prices WHERE ticker = 'BRK-B' AND date = '2023-01-02'",
        "INSERT INTO stocks.stock_features SELECT * FROM stocks.stock_features WHERE ticker = 'C=F' AND date = '2023-01-03'",
        "INSERT INTO stocks.stock_prices SELECT * REPLACE ('ZZZ' AS ticker) FROM stocks.stock_prices WHERE ticker = 'C=F' AND "
        "year = 2022",
    )
    # The smallest change of a double, found by its checksum alone.
    by_hand(
        place,
        "UPDATE stocks.stock_prices SET close = close * (1 + 2.220446049250313e-16) WHERE ticker = '^GSPC' AND "
        "date = '2023-01-02'",
    )
    by_counts = [
        ("stock_prices", "ZZZ", 2022, 0, 3, WITHDRAWN),
        ("stock_prices", "BRK-B", 2023, 3, 2, OTHER_ROWS),
        ("stock_features", "C=F", 2023, 3, 4, OTHER_ROWS),
    ]
    assert drifts(place.warehouse().compare()) == by_counts
    found = drifts(place.warehouse().compare(full=True))
    assert found == [*by_counts[:2], ("stock_prices", "^GSPC", 2023, 3, 3, OTHER_VALUES), by_counts[2]]
    said = str(place.warehouse().compare()[0].drifts[1])
    assert said == "stock_prices BRK-B 2023: another number of rows; rows in the lake: 3, in the warehouse: 2"
    [prices, features] = place.warehouse().tables
    assert place.warehouse().duplicates(prices) == []
    assert place.warehouse().duplicates(features) == [{"ticker": "C=F", "date": "2023-01-03", "row_count": 2}]

    # The weekly upkeep says it as findings of the assets.
    upkeeps = compared(place.warehouse(), lambda line: None)
    assert [(upkeep.table, upkeep.rows_checked) for upkeep in upkeeps] == [
        ("warehouse_stock_prices", 17), ("warehouse_stock_features", 16),
    ]  # fmt: skip
    assert [upkeep.findings[0].what.split(":")[0] for upkeep in upkeeps] == [
        "3 ticker-years differ from the lake, the first", "1 ticker-years differ from the lake, the first",
    ]  # fmt: skip

    # A plain load sees the same files and does nothing; a repair loads what differs.
    assert not place.load().has_loaded
    warehouse = place.warehouse()
    again = {comparison.table.name: comparison.pairs for comparison in warehouse.compare(full=True)}
    outcome = warehouse.load(again=again)
    assert [(of.ticker_years, of.withdrawn) for of in outcome.tables] == [(2, 1), (1, 0)]
    place.assert_equal()
    assert drifts(place.warehouse().compare(full=True)) == []


def test_what_is_behind_the_lake_is_a_difference(made: Made) -> None:
    place = made()
    place.put(PAIRS)
    assert {what for *_, what in drifts(place.warehouse().compare())} == {NOT_LOADED}
    place.load()
    place.put([("BRK-B", 2023)], count=5, seed="corrected", native=["stock_prices"])
    place.put([("C=F", 2023)], count=0, native=["stock_features"])
    assert drifts(place.warehouse().compare()) == [
        ("stock_prices", "BRK-B", 2023, 5, 3, OTHER_FILES),
        ("stock_features", "C=F", 2023, 0, 3, WITHDRAWN),
    ]
    assert place.warehouse().behind() == {"stock_prices": 1, "stock_features": 1}


def test_what_spectrum_gives_wrong_is_seen_by_the_comparison_after_the_load(made: Made) -> None:
    place = made()
    place.put(PAIRS)
    place.register()
    # An engine that cuts a time to milliseconds, as some readers of Parquet do.
    whole = place.server._files
    place.server._files = lambda *arguments: (
        (whole(*arguments) or "")
        .replace(  # type: ignore[method-assign]
            'CAST("ingested_at" AS TIMESTAMP)', "DATE_TRUNC('millisecond', \"ingested_at\")"
        )
        .replace(
            "DATE_TRUNC('millisecond', \"ingested_at\") AS",
            "CAST(DATE_TRUNC('millisecond', \"ingested_at\") AS TIMESTAMP) AS",
        )
    )
    place.warehouse().load()
    assert {(table, what) for table, *_, what in drifts(place.warehouse().compare())} == {
        ("stock_prices", OTHER_VALUES)
    }


def test_a_load_that_was_killed_before_its_comparison_is_compared_by_the_next(made: Made) -> None:
    place = made()
    place.put(PAIRS)
    place.load()
    found = place.warehouse().compare()
    assert [comparison.compared for comparison in found] == [4, 4]
    again = place.warehouse()
    again.note(again.compare())
    found = place.warehouse().compare()
    assert [comparison.compared for comparison in found] == [0, 0]
    assert [comparison.counted for comparison in found] == [4, 4]
    last = place.warehouse()
    last.note(last.compare())
    assert last.api.writes == 0
    # A corrected ticker-year alone is compared again; one that differs is not noted.
    place.put([("BRK-B", 2023)], seed="corrected")
    place.load()
    by_hand(
        place, "UPDATE stocks.loaded_years SET checksum_1 = 1 WHERE ticker = 'BRK-B' AND table_name = 'stock_prices'"
    )
    differing = place.warehouse()
    found = differing.compare()
    assert [comparison.compared for comparison in found] == [1, 1]
    assert drifts(found) == [("stock_prices", "BRK-B", 2023, 3, 3, OTHER_VALUES)]
    differing.note(found)
    assert [comparison.compared for comparison in place.warehouse().compare()] == [1, 0]


def test_if_the_lake_moves_meanwhile_it_compares_again_and_not_for_ever(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made()
    place.put(PAIRS)
    place.load()
    looks = 0
    counts = Warehouse._counts

    def moving(warehouse: Warehouse, table: Any) -> Any:
        """Between the look at the lake and that at the warehouse another run publishes and loads."""
        nonlocal looks
        looks += 1
        found = counts(warehouse, table)
        if looks <= limit and table.name == "stock_features":
            place.put([("BRK-B", 2023)], count=3 + looks, seed=looks)
            if loads:
                monkeypatch.setattr(Warehouse, "_counts", counts)
                place.load()
        return found

    limit, loads = 2, True
    place.put([("BRK-B", 2023)], count=9)  # the warehouse is behind at the first look
    monkeypatch.setattr(Warehouse, "_counts", moving)
    assert drifts(place.warehouse().compare()) == []

    looks, limit, loads = 0, 1000, False
    place.put([("C=F", 2023)], count=9)
    monkeypatch.setattr(Warehouse, "_counts", moving)
    assert drifts(place.warehouse().compare())
    assert looks == 2 * LOOKS


@pytest.mark.soak
def test_a_table_that_is_gone_differs_everywhere(made: Made) -> None:
    place = made()
    place.put(PAIRS)
    place.load()
    by_hand(place, "DROP TABLE stocks.stock_prices")
    found = drifts(place.warehouse().compare(full=True))
    assert [(table, warehouse, what) for table, _, _, _, warehouse, what in found] == [
        ("stock_prices", None, NOT_LOADED)
    ] * 4
