"""minilake: a Databricks workspace on loopback that runs a job's script as a process of its own.

Here: starting, asking, stopping. Not here: anything that a test expects.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60.0


@dataclass
class Minilake:
    """A workspace that runs jobs."""

    host: str
    process: int

    def job_process(self) -> int | None:
        """The process that runs a job now."""
        children = Path(f"/proc/{self.process}/task").glob("*/children")
        found = [int(child) for file in children for child in file.read_text().split()]
        return found[0] if found else None

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        arguments = "&".join(f"{name}={value}" for name, value in query.items())
        with urllib.request.urlopen(f"{self.host}{path}?{arguments}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def runs(self) -> list[dict[str, Any]]:
        return list(self.get("/api/2.2/jobs/runs/list").get("runs", []))


@contextmanager
def minilake_server(folder: Path, variables: Mapping[str, str]) -> Iterator[Minilake]:
    """A workspace whose files are in `folder`, and whose jobs get `variables`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STOCK_LAKEHOUSE_", "DAGSTER_"))},
        **variables,
        "MINILAKE_JOB_EXECUTOR": "subprocess",
        "MINILAKE_NOTEBOOK": "0",
        "MINILAKE_DATA_DIR": str(folder),
        "MINILAKE_DUCKDB_EXTENSION_DIR": str(folder),  # else it would fetch one
        # Jobs are run by the first python3 of the path: this one.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "minilake", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=given, stdout=log, stderr=log, cwd=folder)
    there = Minilake(f"http://127.0.0.1:{port}", process.pid)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                there.runs()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "log").read_text()) from None
                time.sleep(0.1)
        yield there
    finally:
        process.terminate()
        process.wait(timeout=20)
