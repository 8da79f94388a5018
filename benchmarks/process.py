"""One command in a process of its own: how long it took, and the most memory that it and its children held together.

Belongs here: starting, sampling and waiting. What the command does, and what its figures mean, do not.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.05
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measured:
    """A command that ended well. `cpu_seconds` of all its threads, which other work on the machine inflates little; `peak_gb`
    is resident memory in 1e9 bytes."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    out: str

    @property
    def answer(self) -> Any:
        """The last line of standard output, as JSON."""
        return json.loads(self.out.strip().splitlines()[-1])


def measure(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, quiet: bool = True
) -> Measured:
    """Run `command` with `env` added to this process's variables; benchmarks and the package are importable in it.

    Raises RuntimeError with the end of its standard error if it fails. `quiet` False passes that error stream through.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Modules are compiled once, as for a user, whatever the caller's variables say: an import of Dagster takes seconds otherwise.
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=variables, cwd=cwd, stdout=out, stderr=err if quiet else None)
        sampled, usage = 0, None
        try:
            while usage is None:
                sampled = max(sampled, _resident(process.pid))
                pid, status, found = os.wait4(process.pid, os.WNOHANG)
                usage = found if pid else None
                if usage is None:
                    time.sleep(SAMPLE_SECONDS)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            errors = err.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}\n{errors}")
        # The kernel's own peak is of one process, and exact; the samples add up the children.
        one = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Measured(
            seconds, usage.ru_utime + usage.ru_stime, max(sampled, one) / 1e9, out.read().decode(errors="replace")
        )


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs the benchmark module `name`."""
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def cpu_seconds() -> float:
    """Processor time of this process and its descendants until now; without /proc of this process alone."""
    ticks = 0
    for one in _tree(os.getpid()):
        with contextlib.suppress(OSError):  # it ended meanwhile
            ticks += sum(map(int, (one / "stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else time.process_time()


def _resident(pid: int) -> int:
    """Bytes of resident memory of `pid` and its descendants now; 0 where there is no /proc."""
    pages = 0
    for one in _tree(pid):
        with contextlib.suppress(OSError):
            pages += int((one / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _tree(pid: int) -> list[Path]:
    """The folders in /proc of `pid` and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        one = Path(f"/proc/{waiting.pop()}")
        found.append(one)
        with contextlib.suppress(OSError):
            for task in (one / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found
