"""What time it is: the wall clock, or a simulated one that a demonstration moves.

Here: which of the two a process goes by. Everything that needs the time takes a `Clock`. Not here: what is due when
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
    """The simulated clock cannot be read. It never falls back to the real time."""


def clock_of(simulated: Path | None) -> Clock:
    """The clock of the setting `simulated_clock`: None is the wall clock, a path the file that holds the time."""
    return utc_now if simulated is None else partial(simulated_now, simulated)


def simulated_now(file: Path) -> datetime:
    """The instant in `file`, UTC. Raises ClockError if there is none."""
    try:
        now = datetime.fromisoformat(file.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise ClockError(f"simulated_clock: {file} holds no time like 2023-09-21T21:00:00+00:00 ({error})") from None
    if now.tzinfo is None:
        raise ClockError(f"simulated_clock: the time in {file} has no offset; write it like {now.isoformat()}+00:00")
    return now.astimezone(UTC)


def set_simulated(file: Path, now: datetime) -> None:
    """Move the clock in `file` to `now`; a reader sees the old or the new time, never half of one."""
    hidden = file.with_name(f".{file.name}.tmp")
    hidden.write_text(now.isoformat(), encoding="utf-8")
    os.replace(hidden, file)
