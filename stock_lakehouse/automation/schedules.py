"""The schedule: the alternative to new_market_day_sensor for who wants runs at fixed times.

Here: when it looks. What it asks for is decided as by the sensor (decisions.py).
"""

from __future__ import annotations

import dagster as dg

from stock_lakehouse.automation.decisions import new_market_days
from stock_lakehouse.automation.jobs import lakehouse_job
from stock_lakehouse.automation.sensors import Eyes
from stock_lakehouse.settings import Settings

NAME = "market_day_schedule"
EXCHANGE_TIME = "America/New_York"
REGULAR_CLOSE = 16 * 60  # minutes into the day; on a half-day the schedule is three hours late, the sensor is not
LATER = 8 * 60  # a second look for what the vendor brings late


def market_day_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """After the regular close and the grace of each weekday, and once more eight hours later; holidays are skipped."""

    @dg.schedule(
        name=NAME,
        job=lakehouse_job,
        cron_schedule=[cron(settings.close_grace_minutes), cron(settings.close_grace_minutes + LATER)],
        execution_timezone=EXCHANGE_TIME,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="After the regular close and the grace, and eight hours later, asks for the sessions that the lake lacks.",
    )
    def look(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason | list[dg.RunRequest]:
        eyes = Eyes(settings)
        decision = eyes.decide(new_market_days, context.instance, {})
        if not decision.ask:
            return dg.SkipReason(decision.reason)
        return [eyes.request(one, NAME) for one in decision.ask]

    return look


def cron(minutes_after_close: int) -> str:
    """So many minutes after the regular close of each weekday, as a cron line in the exchange's time."""
    days, minutes = divmod(REGULAR_CLOSE + minutes_after_close, 24 * 60)
    hour, minute = divmod(minutes, 60)
    weekdays = ",".join(str((day + days) % 7) for day in range(1, 6))
    return f"{minute} {hour} * * {weekdays}"
