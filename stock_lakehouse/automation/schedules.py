"""market_day_schedule: the alternative to new_market_day_sensor for runs at fixed times.

Here: the times at which it ticks. Not here: what it requests; decisions.py decides that for the sensor and for the schedule.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from stock_lakehouse.automation.decisions import new_market_days
from stock_lakehouse.automation.jobs import lakehouse_job
from stock_lakehouse.automation.sensors import Situation
from stock_lakehouse.market_calendar import MarketCalendar
from stock_lakehouse.settings import Settings

NAME = "market_day_schedule"
LATER = 8 * 60  # minutes until the second tick, for bars that the vendor delivers late


def market_day_schedule(settings: Settings, calendar: MarketCalendar) -> dg.ScheduleDefinition:
    """A schedule that ticks on each weekday with sessions, at the regular close plus the grace and again eight hours later.

    A tick on a holiday requests nothing. On a half-day the schedule is hours late; the sensor is not.
    """
    grace = settings.close_grace_minutes

    @dg.schedule(
        name=NAME,
        job=lakehouse_job,
        cron_schedule=[cron(calendar, grace), cron(calendar, grace + LATER)],
        execution_timezone=calendar.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="After the regular close and the grace, and eight hours later, requests the sessions that the lake lacks.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason | list[dg.RunRequest]:
        situation = Situation(settings)
        decision = situation.decide(new_market_days, context.instance, {})
        if not decision.ask:
            return dg.SkipReason(decision.reason)
        return [situation.request(rectangle, NAME) for rectangle in decision.ask]

    return tick


def cron(calendar: MarketCalendar, minutes_after_close: int) -> str:
    """The cron expression, in the exchange's time, of `minutes_after_close` on each weekday with sessions."""
    days, time_of_day = divmod(calendar.regular_close + timedelta(minutes=minutes_after_close), timedelta(days=1))
    hour, minute = divmod(time_of_day // timedelta(minutes=1), 60)
    # Cron counts weekdays from Sunday, Python from Monday.
    weekdays = ",".join(str((weekday + 1 + days) % 7) for weekday in calendar.weekdays)
    return f"{minute} {hour} * * {weekdays}"
