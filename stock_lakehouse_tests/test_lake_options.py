"""The lake's options on their way: from the settings to the lake, to Dagster's resource and to a Databricks job."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import CURATED

CHANGED: dict[str, Any] = {
    "tickers": ("VOD.L", "BP.L"),
    "exchange": "XLON",
    "first_date": date(2020, 1, 2),
    "last_date": date(2021, 3, 4),
    "lake_root": Path("/srv/lake"),
    "layout": "year",
    "indicators": Path(__file__).parent / "my_indicators.py",
    "bars_per_chunk": 7,
    "retention_days": 9,
    "close_grace_minutes": 10,
    "price_tolerance": 0.3,
    "jump_deviations": 11.5,
    "adj_close_tolerance": 0.2,
    "restated_share": 0.25,
    "simulated_clock": Path("/srv/clock"),
}


def order(options: LakeOptions) -> Order:
    written = Order(CURATED.name, ["2020-01-02"], ["BP.L"], "a-run", "2021-03-04T22:00:00+00:00", options.as_json())
    return Order.of(json.loads(json.dumps(written.extras())))


def test_every_option_is_among_those_that_the_tests_change() -> None:
    assert set(CHANGED) == set(LakeOptions.model_fields)
    defaults = LakeOptions()
    assert [name for name, value in CHANGED.items() if getattr(defaults, name) == value] == []


@pytest.mark.parametrize(
    "given", [CHANGED, {}, {"lake_root": "s3://a-bucket/prefix"}], ids=["changed", "defaults", "bucket"]
)
def test_every_option_comes_from_the_settings_to_the_lake_the_resource_and_a_job(given: dict[str, Any]) -> None:
    settings = Settings(**given)
    defaults = {name: field.default for name, field in LakeOptions.model_fields.items()}
    expected = {**defaults, "last_date": date(2023, 9, 21), **given}  # a lake of the sample ends with it
    for options in (
        settings.lake_options,
        LakehouseResource.of(settings).lake_options,
        LakehouseResource.of(settings).lake.options,
        order(settings.lake_options).lake_options,
    ):
        assert dict(options) == expected
        assert {name: type(value) for name, value in options} == {name: type(value) for name, value in expected.items()}


def test_the_lake_s_tables_go_by_its_options() -> None:
    lake = LakehouseResource.of(Settings(**CHANGED)).lake
    assert lake.root == Path("/srv/lake")
    assert {lake.delta[name].retention_days for name in ("curated_stocks_daily", "stocks_features")} == {9}
    assert lake.ledger.stored.retention_days == 9


def test_what_none_stands_for_is_the_default_as_none_is_left_out_of_json() -> None:
    fields_with_none = [
        name for name, field in LakeOptions.model_fields.items() if type(None) in get_args(field.annotation)
    ]
    assert fields_with_none
    assert all(LakeOptions.model_fields[name].default is None for name in fields_with_none)
    assert None not in LakeOptions().as_json().values()


def test_no_option_has_a_second_name_in_the_resource_or_in_an_order() -> None:
    assert set(LakehouseResource.model_fields) & set(LakeOptions.model_fields) == set()
    # Of an order: those that it is for, of all that the lake has.
    assert {field.name for field in fields(Order)} & set(LakeOptions.model_fields) == {"tickers"}


def test_a_lake_is_made_of_its_root_alone_with_the_defaults(tmp_path: Path) -> None:
    assert Lake(tmp_path).options == LakeOptions(lake_root=tmp_path)
    assert Lake("s3://a-bucket/prefix").root == "s3://a-bucket/prefix"
    with pytest.raises(ValueError, match="cannot be the root of a lake"):
        Lake("gs://a-bucket/prefix")


def test_calendar_and_grace_follow_from_the_options() -> None:
    options = LakeOptions(**CHANGED)
    assert options.grace == timedelta(minutes=10)
    assert options.calendar.time_zone == "Europe/London"
    assert date(2020, 5, 8) not in options.calendar.sessions  # Early May Bank Holiday, moved to VE Day in 2020
    assert date(2020, 7, 3) in options.calendar.sessions  # New York was closed


def test_an_option_that_a_job_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="colour"):
        _ = Order(CURATED.name, [], [], "a-run", "2021-03-04", {"colour": "red"}).lake_options
