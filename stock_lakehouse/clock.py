"""The current time: from the wall clock, or from a simulated clock that a demonstration moves.

Here: which of the two clocks a process uses. Everything that needs the time takes a `Clock`. Not here: what is due when
(market_calendar.py, automation/).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stock_lakehouse.market_calendar import utc_now

Clock = Callable[[], datetime]


class ClockError(Exception):
    """The simulated clock cannot be read. There is no fallback to the real time."""


def clock_of(simulated: Path | None) -> Clock:
    """The clock that the setting `simulated_clock` names: the wall clock for None, else the clock in that file."""
    return utc_now if simulated is None else partial(simulated_now, simulated)


def simulated_now(file: Path) -> datetime:
    """The time in `file`, UTC. Raises ClockError if the file has none."""
    try:
        now = datetime.fromisoformat(file.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise ClockError(f"simulated_clock: {file} has no time like 2023-09-21T21:00:00+00:00 ({error})") from None
    if now.tzinfo is None:
        raise ClockError(f"simulated_clock: the time in {file} has no offset; write it like {now.isoformat()}+00:00")
    return now.astimezone(UTC)


def set_simulated(file: Path, now: datetime) -> None:
    """Move the clock in `file` to `now`. A reader sees the old or the new time, never a part of one."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(now.isoformat(), encoding="utf-8")
    os.replace(temporary, file)
