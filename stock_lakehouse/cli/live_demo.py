"""`demo --live`: the real daemon and the real sensor load the sample's last sessions, one by one, under a simulated clock.

Here: the demonstration's own lake, instance, daemon and clock. Not here: anything that a production lake does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_lakehouse.automation.sensors import Situation
from stock_lakehouse.clock import set_simulated
from stock_lakehouse.instance.event_log import BULK_ENVIRONMENT
from stock_lakehouse.instance.home import dagster_folder, ensure_dagster_home
from stock_lakehouse.market_calendar import utc_now
from stock_lakehouse.settings import CONFIG_VARIABLE, PREFIX, Settings, load_settings, variable_of

if TYPE_CHECKING:
    import dagster as dg

FOLDER = ".live"  # below the lake's root, recreated each time
SENSOR = "new_market_day_sensor"
PATIENCE_SECONDS = 300.0
CONFIG = """\
# The lake of `stock-lakehouse demo --live`; recreated each time.
tickers = ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]
first_date = {first}
last_date = 2023-09-21
source = "sample"
lake_root = "."
automation = "sensor"
sensor_interval_seconds = 1
"""
FIRST = date(2022, 11, 1)  # at least 200 sessions before the first one that is held back: every indicator has values


class LiveDemoError(Exception):
    """The demonstration failed. The message says where to look."""


@dataclass(frozen=True)
class Brought:
    """A session that a run loaded, or the history before the first one.

    `session`: the session; for the history, its last one.
    `run_id`, `seconds`: the run and its duration.
    `bars`: how many bars the lake held after the run.
    """

    session: date
    run_id: str
    seconds: float
    bars: int


def live_folder(settings: Settings, name: str = FOLDER) -> Path:
    """The folder of a demonstration's lake and Dagster home: below the lake's root, or for S3 below its Dagster home."""
    return (settings.lake_root if isinstance(settings.lake_root, Path) else dagster_folder(settings)) / name


def run_live_demo(settings: Settings, sessions: int, say: Callable[[str], None], first: date = FIRST) -> list[Brought]:
    """Load the history, then the sample's last `sessions` sessions one by one. `say` is called with a line for every event.

    Raises LiveDemoError if the folder of an earlier demonstration is in use, or if a session is not loaded, not in a run of its
    own, or loaded twice.
    """
    import dagster as dg

    folder = emptied(live_folder(settings))
    clock = folder / "clock"
    set_simulated(clock, datetime.fromisoformat(f"{first}T00:00:00+00:00"))
    variables = {variable_of(("simulated_clock",)): str(clock)}
    with own_environment(folder, CONFIG.format(first=first), variables) as live:
        os.environ["DAGSTER_HOME"] = str(ensure_dagster_home(live))  # for the daemon
        assert live.simulated_clock is not None
        situation = Situation(live)
        held_back = situation.calendar.between(live.first_date, live.last_date or date.max)[-sessions:]
        before = situation.calendar.between(live.first_date, held_back[0])[-2]
        set_simulated(live.simulated_clock, situation.calendar.close(before) + situation.plan.grace)
        with (
            dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance,
            _daemon(folder, instance) as daemon,
        ):
            stage = _Stage(live, situation, instance, daemon, folder, say)
            say(f"{stage.time()}  the daemon starts; the lake is empty")
            loaded = [stage.wait_for_run(before)]
            for session in held_back:
                close = situation.calendar.close(session)
                stage.wait_at(close - timedelta(minutes=30))
                stage.move(close + situation.plan.grace)
                loaded.append(stage.wait_for_run(session))
            stage.wait_at(situation.now() + timedelta(minutes=30))
            runs = instance.get_runs_count()
    if runs != len(loaded):
        raise LiveDemoError(f"{runs} runs for {len(loaded)} sessions: a session was requested twice; see {folder}")
    return loaded


class _Stage:
    """The lake, the clock and the daemon of the demonstration, and the waits for them."""

    def __init__(
        self,
        live: Settings,
        situation: Situation,
        instance: dg.DagsterInstance,
        daemon: subprocess.Popen[bytes],
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self._live, self._situation, self._instance = live, situation, instance
        self._daemon, self._folder, self._say = daemon, folder, say

    def time(self) -> str:
        return f"{self._situation.now():%a %Y-%m-%d %H:%M} UTC"

    def move(self, now: datetime) -> None:
        assert self._live.simulated_clock is not None
        set_simulated(self._live.simulated_clock, now)

    def wait_at(self, now: datetime) -> None:
        """Move the clock to a moment at which nothing is due, and wait until the sensor reports that."""
        self.move(now)
        moved = utc_now().timestamp()  # Dagster records ticks in real time
        tick = self._wait(
            lambda: next((tick for tick in self._ticks() if tick.timestamp > moved and tick.skip_reason), None),
            "a tick of the sensor",
        )
        self._say(f"{self.time()}  the sensor waits: {tick.skip_reason}")

    def wait_for_run(self, session: date) -> Brought:
        """Wait until the sensor's run has loaded all sessions up to `session`."""
        import dagster as dg

        known = {run.run_id for run in self._instance.get_runs() if run.is_finished}
        run = self._wait(
            lambda: next(
                (run for run in self._instance.get_runs() if run.run_id not in known and run.is_finished), None
            ),
            f"a run that loads {session}",
        )
        [record] = self._instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        holdings = self._situation.holdings(self._instance)
        if not run.is_success or any(held.last != session for held in holdings.values()):
            raise LiveDemoError(f"run {run.run_id} did not load {session}; see {self._folder / 'daemon.log'}")
        bars = sum(
            len(self._situation.calendar.between(held.first, held.last)) - len(held.missing)
            for held in holdings.values()
        )
        seconds = (record.end_time or 0) - (record.start_time or 0)
        self._say(f"{self.time()}  run {run.run_id[:8]} loaded {session}: the lake holds {bars:,} bars")
        return Brought(session, run.run_id, seconds, bars)

    def _ticks(self) -> list[Any]:
        for state in self._instance.all_instigator_state():
            if state.instigator_name == SENSOR:
                return list(self._instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=5))
        return []

    def _wait(self, look: Callable[[], Any], what: str) -> Any:
        """The result of `look` as soon as it is not None. Raises LiveDemoError after PATIENCE_SECONDS, or if the daemon fails."""
        end = time.monotonic() + PATIENCE_SECONDS
        while (found := look()) is None:
            failed = next((tick.error.message.strip() for tick in self._ticks() if tick.error), None)
            if failed or self._daemon.poll() is not None or time.monotonic() > end:
                raise LiveDemoError(
                    f"waited for {what}: {failed or 'there was none'}; see {self._folder / 'daemon.log'}"
                )
            time.sleep(0.3)
        return found


def emptied(folder: Path) -> Path:
    """`folder`, new and empty. Raises LiveDemoError if what is in it cannot be removed."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise LiveDemoError(f"{folder} cannot be removed ({error}): does a daemon or UI still use it?") from None
    folder.mkdir(parents=True)
    return folder


@contextmanager
def own_environment(folder: Path, config: str, variables: Mapping[str, str]) -> Iterator[Settings]:
    """The settings of `config`, and of `variables`, alone in the environment of this process; restored at the end.

    `config` becomes the lakehouse.toml of `folder`. Variables that begin as those of settings do, and DAGSTER_HOME, are unset.
    """
    file = folder / "lakehouse.toml"
    file.write_text(config, encoding="utf-8")
    before = _taken_out()
    os.environ |= {CONFIG_VARIABLE: str(file), **variables}
    try:
        yield load_settings()
    finally:
        _taken_out()
        os.environ.update(before)


def _taken_out() -> dict[str, str]:
    """The variables of settings and of Dagster's home, which are unset."""
    return {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX) or name == "DAGSTER_HOME"
    }


@contextmanager
def _daemon(folder: Path, instance: dg.DagsterInstance) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon in this environment. It and its child processes are stopped at the end."""
    # These calls create the SQLite files; otherwise two processes would create them at the same time.
    instance.get_runs_count(), instance.all_instigator_state(), instance.get_asset_keys(limit=1)
    program = os.path.join(os.path.dirname(sys.executable), "dagster-daemon")
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [program, "run", "-w", os.path.join(os.environ["DAGSTER_HOME"], "workspace.yaml")],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **BULK_ENVIRONMENT},  # the history is a bulk run
            start_new_session=True,
        )
        try:
            yield daemon
        except KeyboardInterrupt:
            os.killpg(daemon.pid, signal.SIGKILL)  # at once: the demonstration's lake is created anew each time
            raise
        finally:
            daemon.terminate()  # not SIGINT, which a process started in the background ignores
            try:
                daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
