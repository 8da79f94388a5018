"""The clock: real by default, simulated only on purpose, and never real when it should be simulated."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from stock_lakehouse.clock import ClockError, clock_of, set_simulated, simulated_now
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Settings, SettingsError, load_settings

AT = datetime(2023, 9, 21, 21, 0, tzinfo=UTC)


def test_without_a_simulated_clock_it_is_the_wall_clock() -> None:
    assert clock_of(None) is utc_now


def test_a_run_goes_by_the_simulated_clock(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    set_simulated(clock, AT)
    house = LakehouseResource.of(Settings(lake_root=tmp_path, simulated_clock=clock))
    assert house.now() == AT
    assert clock_of(clock)() == AT


@pytest.mark.parametrize("text", ["", "noon", "2023-09-21T21:00:00"])
def test_a_simulated_clock_that_cannot_be_read_is_an_error_and_not_the_real_time(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock").write_text(text)
    with pytest.raises(ClockError):
        simulated_now(tmp_path / "clock")
    with pytest.raises(ClockError):
        simulated_now(tmp_path / "nowhere")


def test_a_live_source_refuses_a_simulated_clock_and_no_file_turns_it_on(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="a live source needs the real time"):
        Settings(source="yfinance", simulated_clock=tmp_path / "clock")
    (tmp_path / "lakehouse.toml").write_text('simulated_clock = "clock"\n')
    with pytest.raises(SettingsError, match="not read from a file"):
        load_settings()


def test_the_webhook_is_refused_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text('webhook_url = "https://example.com/s3cret"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_time_is_asked_for_in_one_place_only() -> None:
    import re

    package = Path(__file__).parents[1] / "stock_lakehouse"
    asking = re.compile(r"datetime\.(now|utcnow)\(|date\.today\(|\btime\.time\(")
    found = {path.name for path in package.rglob("*.py") if asking.search(path.read_text(encoding="utf-8"))}
    assert found == {"market_calendar.py"}
