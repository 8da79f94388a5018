"""`python -m stock_lakehouse_tests.streams.killed TMP ROOT STEP BATCH SETTINGS WHY`: a drain that kills itself at STEP.

It does so by SIGKILL when it is at STEP for the BATCHth time, or by SIGSTOP if STEP begins with `stop `. If it comes to its end,
it prints what became of it. WHY: why losses are accepted; empty: they are not.

Here: the steps. Not here: what a test expects afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake import lease
from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.lake.loss_table import LossTable
from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.lake.tick_table import TickTable
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.streams import runner as streams_runner
from stock_lakehouse.streams.runner import Runner
from stock_lakehouse_tests.streams.house import StreamHouse

LEASE_SECONDS = 3.0  # on S3: who comes next waits so long for a killed one

# Before or after which method of which class.
STEPS: dict[str, tuple[type, str, bool]] = {
    "before ticks": (TickTable, "append_batch", False),
    "after ticks": (TickTable, "append_batch", True),
    "before bars": (BarTable, "_merge", False),
    "after bars": (BarTable, "_merge", True),
    "before the loss is written": (LossTable, "add", False),
    "after the loss is written": (LossTable, "add", True),
    "after letters are replaced": (TickTable, "replace_rows", True),
    "after a file is taken out": (Runner, "take_out_damaged", True),
}


def at_step(step: str, number: int, act: Callable[[], None]) -> None:
    """Call `act` the `number`th time that `step` is reached."""
    owner, name, after = STEPS[step]
    method, count = getattr(owner, name), 0

    @wraps(method)
    def stepped(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == number and not after:
            act()
        result = method(*arguments, **named)
        if count == number and after:
            act()
        return result

    setattr(owner, name, stepped)


def start(
    house: StreamHouse, step: str, batch: int = 1, accept_loss: str | None = None, **variables: str
) -> subprocess.Popen[str]:
    """A process of its own that drains the stream of `house`, and kills or stops itself."""
    settings = house.settings.model_dump(mode="json")
    arguments = [str(house.tmp), str(house.root), step, str(batch), json.dumps(settings), accept_loss or ""]
    return subprocess.Popen(
        [sys.executable, "-m", "stock_lakehouse_tests.streams.killed", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **variables},
    )


def killed_at_random(house: StreamHouse, dice: random.Random) -> bool:
    """Drain in a process of its own and kill it some seconds after its start; False if it came to its end before."""
    process = start(house, "random")
    time.sleep(2 + 3 * dice.random())
    lives = process.poll() is None
    process.kill()
    process.communicate()
    return lives


def main(tmp: str, root: str, step: str, batch: str, settings: str, accept_loss: str) -> None:
    number = signal.SIGSTOP if step.startswith("stop ") else signal.SIGKILL
    if number == signal.SIGSTOP:  # a lease that ran out, say: the tables have to be right without the lock
        streams_runner.one_writer = lambda *_, **__: contextlib.nullcontext()  # type: ignore[assignment]
        if "://" not in root:
            (Path(root) / ".locks").mkdir(parents=True, exist_ok=True)
    lease.SECONDS = LEASE_SECONDS
    if step != "random":
        at_step(step.removeprefix("stop "), int(batch), lambda: os.kill(os.getpid(), number))
    with spark_session("embedded") as spark:
        place = Path(root) if "://" not in root else root
        house = StreamHouse.made(Path(tmp), spark, place, **json.loads(settings))
        if house.settings.source == "kinesis":  # whose messages expire by the real time
            house.now = utc_now()
        try:
            house.drain(accept_loss or None)
        except LakeError as error:
            print(type(error).__name__, flush=True)  # noqa: T201
        else:
            print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
