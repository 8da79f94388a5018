"""What the warehouse says of itself, and what the dashboard's page Data shows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stock_lakehouse.dashboards.questions import answer
from stock_lakehouse.dashboards.server import application
from stock_lakehouse.dashboards.view import View, Views
from stock_lakehouse_tests.dashboards.serving import running
from stock_lakehouse_tests.dashboards.test_page import Shown
from stock_lakehouse_tests.test_ui import chromium
from stock_lakehouse_tests.warehouse.lakes import NATIVE, ODD, WarehouseLake

TWO_YEARS = [(ticker, year) for ticker in ODD for year in (2022, 2023)]


@pytest.mark.soak
def test_the_state_tells_the_loaded_version_and_what_the_next_load_brings(
    made: Callable[..., WarehouseLake], tmp_path: Path
) -> None:
    place = made()
    place.put(TWO_YEARS)
    assert [(state.ticker_years, state.rows, state.version, state.behind) for state in place.warehouse().state()] == [
        (0, 0, None, len(TWO_YEARS)),
        (0, 0, None, len(TWO_YEARS)),
    ]
    place.load()
    loaded = {name: place.lake.delta[table.name].version() for name, table in NATIVE.items()}
    place.put([(ODD[0], 2023)], count=5, seed=1)
    warehouse = place.warehouse()
    found = {state.table.name: state for state in warehouse.state()}
    assert warehouse.api.writes == 0
    for name, state in found.items():
        assert (state.ticker_years, state.rows, state.version, state.behind) == (8, 24, loaded[name], 1)

    view = View(place.lake, warehouse=warehouse)
    assert answer(view, "warehouse") == [
        {
            "table": name,
            "source": NATIVE[name].name,
            "rows": 24,
            "ticker_years": 8,
            "version": loaded[name],
            "lake_version": (loaded[name] or 0) + 1,
            "behind": 1,
        }
        for name in found
    ]
    assert answer(View(place.lake), "warehouse") is None

    views = Views(place.lake, tmp_path / "serving", warehouse=warehouse)
    with chromium() as browser, running(application(views, None)) as url:
        shown = Shown(browser, url, "/data")
        shown.until("document.querySelector('#warehouse table') !== null")
        said = shown.text("#warehouse")
        assert all(f"{name}: 1 ticker-year to be loaded" in said for name in found)
        place.load()
        shown.page.reload()
        shown.until("document.querySelector('#warehouse table') !== null")
        assert "✓ It has every ticker-year of the lake" in shown.text("#warehouse")
        assert not shown.problems
        shown.close()
