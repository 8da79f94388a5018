"""Ctrl-C in a real process: one line that says what stands and what to type, exit code 130, nothing of ours left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from filelock import FileLock

from stock_lakehouse.cli.interrupt import EXIT_CODE

# Two seconds is the promise. Dagster's processes take a few more to end after the line, and a busy machine doubles all of it.
PATIENCE_SECONDS = 10.0
UI_PATIENCE_SECONDS = 40.0

pytestmark = pytest.mark.slow


def start(folder: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stock_lakehouse.cli", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for(word: str, stream: IO[str] | None) -> None:
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            return
    raise AssertionError(f"{word} was not printed, but: {lines}")


def press_ctrl_c(process: subprocess.Popen[str], seconds: float) -> tuple[str, float]:
    """stderr from now on, and the seconds until the end."""
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=seconds)
    return errors, time.monotonic() - pressed


@pytest.mark.slice(1)
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("demo",), "tickers ×"),  # Dagster plans the run
        (("materialize", "--tickers", "nvda"), "raw_stocks_daily: "),  # Dagster writes events
        (("backfill", "--tickers", "nvda"), "processed_stocks_daily: "),
    ],
)
def test_a_run_ends_with_a_line_and_can_be_started_again(tmp_path: Path, arguments: tuple[str, ...], word: str) -> None:
    (tmp_path / "lakehouse.toml").write_text('tickers = ["NVDA"]\nfirst_date = 2013-01-02\nlast_date = 2023-09-21\n')
    process = start(tmp_path, *arguments)
    wait_for(word, process.stderr)
    errors, seconds = press_ctrl_c(process, 60)
    assert process.returncode == EXIT_CODE
    assert seconds < PATIENCE_SECONDS
    command = " ".join(arguments)
    expected = "Stopped: what was published stays, and nothing is half-published. To continue: stock-lakehouse "
    assert errors.splitlines()[-1] == expected + command, errors
    assert "Traceback" not in errors
    for path in tmp_path.rglob("*.lock"):
        with FileLock(path, timeout=0):
            pass


@pytest.mark.soak
def test_upkeep_ends_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text('tickers = ["NVDA"]\nfirst_date = 2023-01-03\nlast_date = 2023-09-21\n')
    subprocess.run([sys.executable, "-m", "stock_lakehouse.cli", "demo"], cwd=tmp_path, check=True, capture_output=True)
    process = start(tmp_path, "upkeep")
    wait_for("rows checked", process.stderr)
    errors, seconds = press_ctrl_c(process, 60)
    assert process.returncode == EXIT_CODE
    assert seconds < PATIENCE_SECONDS
    assert errors.splitlines()[-1] == (
        "Stopped: every table is whole, compacted or not. To continue: stock-lakehouse upkeep"
    )


def test_the_ui_ends_with_its_processes(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text('tickers = ["NVDA"]\nfirst_date = 2023-09-18\nlast_date = 2023-09-21\n')
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = start(tmp_path, "ui", "--port", str(port), stderr=subprocess.STDOUT)
    wait_for(f"Dagster on http://127.0.0.1:{port}", process.stdout)
    wait_for("Launching Dagster services", process.stdout)
    children = processes_of(port)
    assert children
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    wait_for("Stopped: the lake stays as it is", process.stdout)
    assert time.monotonic() - pressed < PATIENCE_SECONDS
    process.communicate(timeout=UI_PATIENCE_SECONDS)
    assert process.returncode == EXIT_CODE
    assert not processes_of(port)


def processes_of(port: int) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if f"--port {port}" in line]
