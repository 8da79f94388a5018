"""The schedule: the alternative to new_market_day_sensor for who wants runs at fixed times.

Here: when it looks. What it asks for is decided as by the sensor (decisions.py).
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from stock_lakehouse.automation.decisions import new_market_days
from stock_lakehouse.automation.jobs import lakehouse_job
from stock_lakehouse.automation.sensors import Eyes
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.settings import Settings

NAME = "market_day_schedule"
LATER = 8 * 60  # a second look for what the vendor brings late


def market_day_schedule(settings: Settings, calendar: MarketCalendar) -> dg.ScheduleDefinition:
    """After the regular close and the grace of each weekday with sessions, and once more eight hours later.

    Holidays are skipped. On a half-day the schedule is hours late; the sensor is not.
    """
    grace = settings.close_grace_minutes

    @dg.schedule(
        name=NAME,
        job=lakehouse_job,
        cron_schedule=[cron(calendar, grace), cron(calendar, grace + LATER)],
        execution_timezone=calendar.time_zone,
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


def cron(calendar: MarketCalendar, minutes_after_close: int) -> str:
    """So many minutes after the regular close of each weekday with sessions, as a cron line in the exchange's time."""
    days, time_of_day = divmod(calendar.regular_close + timedelta(minutes=minutes_after_close), timedelta(days=1))
    hour, minute = divmod(time_of_day // timedelta(minutes=1), 60)
    # Cron counts weekdays from Sunday, Python from Monday.
    weekdays = ",".join(str((weekday + 1 + days) % 7) for weekday in calendar.weekdays)
    return f"{minute} {hour} * * {weekdays}"
