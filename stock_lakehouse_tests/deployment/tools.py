"""The tools of the tests of deploy/, in their own environment (`make .venv/deploy`), and ministack: AWS on loopback.

Here: where a tool is, starting, stopping. Not here: anything a test expects.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "deploy" / ("Scripts" if os.name == "nt" else "bin")
START_SECONDS = 60.0
# Without each of the first three it also listens on other interfaces or ports.
MINISTACK = {"BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}


def tool(name: str) -> Path:
    """The program `name` of the tools' environment (`python` is its interpreter); skips the test where it is not installed."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"NOT RUN: needs {name} of the tools' environment, which `make .venv/deploy` installs")
    return path


@contextmanager
def ministack(*, enforced: bool = False) -> Iterator[str]:
    """The address of a new ministack, which holds its state in memory. `enforced`: it asks for IAM's rights, but not those of the
    key `test`. Skips the test where ministack is not installed; raises RuntimeError if it does not start."""
    python = tool("python")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    values |= MINISTACK | {"GATEWAY_PORT": str(port), "AUTH": "true" if enforced else "false"}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([python, "-m", "ministack"], env=values, stdout=quiet, stderr=quiet)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, server)
        yield address
    finally:
        server.kill()
        server.wait()


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_ministack/health", timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"ministack did not start at {address}: exit code {server.poll()}")
