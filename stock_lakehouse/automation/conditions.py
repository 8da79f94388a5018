"""Declarative automation: the conditions under which Dagster materializes each asset.

Here: conditions and freshness policies, applied once to the whole graph. Not here: the assets.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import dagster as dg

from stock_lakehouse.automation.jobs import DAILY, LAYER_TAG, STREAM_LAYER
from stock_lakehouse.automation.schedules import cron
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.settings import Settings
from stock_lakehouse.tables import CURATED, FEATURES, MINUTE_BARS, RAW, RECONCILIATION

Condition: Any = dg.AutomationCondition  # its static methods are typed for assets or checks, one excluding the other
# `eager()` considers only the newest session. Without a window a new ticker would request its whole history, one run a day.
WINDOW = timedelta(days=14)
SERVED = (CURATED.layer, FEATURES.layer)
LATE = timedelta(hours=6)  # allows for a run's time in the queue, its retries and its duration
# For assets and checks without partitions.
AFTER_CHANGE: dg.AutomationCondition[Any] = (
    Condition.any_deps_updated().since_last_handled() & ~Condition.any_deps_in_progress() & ~Condition.in_progress()
).with_label("an upstream has changed")


def condition_of(
    spec: dg.AssetSpec, settings: Settings, calendar: MarketCalendar
) -> dg.AutomationCondition[Any] | None:
    """The condition under which declarative mode materializes an asset; None for those of the stream, which have sensors."""
    if spec.tags.get(LAYER_TAG) == STREAM_LAYER:
        return None
    newest = Condition.in_latest_time_window()
    window = Condition.in_latest_time_window(WINDOW)
    if spec.tags.get(LAYER_TAG) == RAW.layer:
        # Raw has no upstream, so the clock triggers it: for the newest session and the missing sessions of the window.
        after_close = cron(calendar, settings.close_grace_minutes)
        tick = Condition.cron_tick_passed(after_close, calendar.time_zone).since_last_handled()
        closed = window & (newest | Condition.missing()) & tick & ~Condition.in_progress()
        return cast("dg.AutomationCondition[Any]", closed.with_label("the session has closed"))
    if spec.partitions_def is not None:
        return cast("dg.AutomationCondition[Any]", Condition.eager().replace(newest, window))
    return AFTER_CHANGE


def freshness_of(spec: dg.AssetSpec, settings: Settings, calendar: MarketCalendar) -> dg.FreshnessPolicy | None:
    """How old the last materialization of a served layer may be: the exchange's longest closure, the grace, and LATE.

    The same for minute bars and their reconciliation.

    None for other assets, and for a lake with a `last_date`. The check `stale_tickers` compares the last session itself.
    """
    layer = spec.tags.get(LAYER_TAG)
    is_served = spec.partitions_def is not None and layer in SERVED
    is_streamed = layer == STREAM_LAYER and spec.key.path[-1] in (MINUTE_BARS.name, RECONCILIATION.name)
    if settings.last_date is not None or not (is_served or is_streamed):
        return None
    grace = settings.grace
    return dg.FreshnessPolicy.time_window(fail_window=calendar.longest_closure(settings.first_date) + grace + LATE)


def condition_sensor(settings: Settings) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates the conditions."""
    return dg.AutomationConditionSensorDefinition(
        "automation_condition_sensor",
        target=DAILY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        description="Materializes the assets whose automation condition is true.",
    )
