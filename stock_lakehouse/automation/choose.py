"""Which sensors, schedules and conditions the settings turn on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from stock_lakehouse.automation.conditions import AFTER_CHANGE, condition_of, condition_sensor, freshness_of
from stock_lakehouse.automation.csv_files import csv_folder_sensor
from stock_lakehouse.automation.failures import run_failure_sensor
from stock_lakehouse.automation.schedules import market_day_schedule
from stock_lakehouse.automation.sensors import gap_sensor, new_market_day_sensor
from stock_lakehouse.automation.upkeep_schedule import upkeep_schedule
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.settings import Settings


@dataclass(frozen=True)
class Automation:
    """The sensors and schedules that are defined.

    `check_condition`: the condition of the checks that run outside an asset's step; None if Dagster does not run them by itself.
    """

    sensors: tuple[dg.SensorDefinition, ...] = ()
    schedules: tuple[dg.ScheduleDefinition, ...] = ()
    check_condition: dg.AutomationCondition[Any] | None = None


def automation_of(settings: Settings, calendar: MarketCalendar) -> Automation:
    """The automation of the chosen `automation`; what belongs to the other choices is not defined.

    Failure messages are defined whenever a webhook is set, the weekly upkeep whenever `automation` is not `off`.
    """
    messages = (run_failure_sensor(settings),) if settings.webhook_url else ()
    if settings.automation == "off":
        return Automation(messages)
    weekly = (upkeep_schedule(calendar),)
    if settings.automation == "sensor":
        files = (csv_folder_sensor(settings),) if settings.source == "csv" else ()
        return Automation((*files, new_market_day_sensor(settings), gap_sensor(settings), *messages), weekly)
    if settings.automation == "schedule":
        return Automation((gap_sensor(settings), *messages), (market_day_schedule(settings, calendar), *weekly))
    return Automation((condition_sensor(settings), *messages), weekly, AFTER_CHANGE)


def automated(
    assets: Sequence[dg.AssetsDefinition], settings: Settings, calendar: MarketCalendar
) -> Sequence[dg.AssetsDefinition]:
    """`assets` with the conditions and freshness policies that the settings require."""

    def described(spec: dg.AssetSpec) -> dg.AssetSpec:
        declarative = settings.automation == "declarative"
        return spec.replace_attributes(
            automation_condition=condition_of(spec, settings, calendar) if declarative else None,
            freshness_policy=freshness_of(spec, settings, calendar),
        )

    return dg.map_asset_specs(described, assets)
