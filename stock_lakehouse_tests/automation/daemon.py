"""Dagster's real daemon on a temporary lake and instance, for tests: started, watched and stopped.

Here: the process and what its instance recorded. Not here: what a test expects of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from stock_lakehouse.instance.home import ensure_dagster_home, open_instance
from stock_lakehouse.settings import load_settings

PATIENCE_SECONDS = 400.0


@dataclass
class Daemon:
    """A running daemon and its instance."""

    process: subprocess.Popen[bytes]
    instance: dg.DagsterInstance
    log: Path

    def wait(self, look: Callable[[], Any]) -> Any:
        """What `look` finds that is true; the daemon's log if it finds nothing in time."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := look()):
            late = self.process.poll() is not None or time.monotonic() > end
            assert not late, self.log.read_text(encoding="utf-8")[-6000:]
            time.sleep(0.3)
        return found

    def ticks(self, name: str) -> list[Any]:
        """The ticks of a sensor or schedule, newest first."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == name:
                return list(self.instance.get_ticks(state.instigator_origin_id, state.selector_id))
        return []

    def skip_reasons(self, name: str) -> list[str]:
        return [tick.skip_reason for tick in self.ticks(name) if tick.skip_reason]

    def errors(self, name: str) -> list[str]:
        return [tick.error.message for tick in self.ticks(name) if tick.error]

    def finished(self, **tags: str) -> list[dg.DagsterRun]:
        """Runs that have ended, newest first; `asked_by` selects those of a sensor."""
        wanted = {f"stock_lakehouse/{name}": value for name, value in tags.items()}
        return [run for run in self.instance.get_runs(dg.RunsFilter(tags=wanted)) if run.is_finished]


@contextmanager
def daemon(folder: Path, config: str, variables: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """The daemon on the lakehouse.toml `config` in `folder`, the working directory of a test, until the end of the block."""
    (folder / "lakehouse.toml").write_text(config, encoding="utf-8")
    for name, value in (variables or {}).items():
        os.environ[name] = value  # conftest takes them away again before the next test
    home = ensure_dagster_home(load_settings())
    program = os.path.join(os.path.dirname(sys.executable), "dagster-daemon")
    log = folder / "daemon.log"
    with log.open("wb") as output, open_instance(home) as instance:
        # Its SQLite files must be there before two processes would make them at once.
        instance.get_runs_count(), instance.all_instigator_state(), instance.get_asset_keys(limit=1)
        process = subprocess.Popen(
            [program, "run", "-w", str(home / "workspace.yaml")],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "DAGSTER_HOME": str(home),
                "DAGSTER_EVENT_BATCH_SIZE": "1000",
                "FRESHNESS_DAEMON_INTERVAL_SECONDS": "2",
            },
            start_new_session=True,
        )
        try:
            yield Daemon(process, instance, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
