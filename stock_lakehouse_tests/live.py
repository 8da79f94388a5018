"""The real Dagster, webserver and daemon, on a lake of a test's own; asked over GraphQL, as its UI asks.

Here: starting and stopping it, and launching and awaiting work. Not here: anything a test expects.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 180.0
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True)
class LiveDagster:
    """A running Dagster at `url`."""

    url: str
    log: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that GraphQL answers; RuntimeError with its errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        if found.get("errors"):
            raise RuntimeError(json.dumps(found["errors"])[:2000])
        data: dict[str, Any] = found["data"]
        return data

    def backfill(self, assets: Sequence[str], partitions: Sequence[str] | None = None) -> str:
        """Launch a backfill of `assets` over `partitions` (None: all), as the UI's asset pages do; its id."""
        return self._backfill({"assetSelection": [{"path": [name]} for name in assets]}, partitions)

    def backfill_job(self, job: str, partitions: Sequence[str] | None = None) -> str:
        """Launch a backfill of `job` over `partitions` (None: all), as the UI's job page does; its id."""
        repository = self._repository()
        of = {"repositoryName": repository["name"], "repositoryLocationName": repository["location"]["name"]}
        return self._backfill(
            {"selector": {"partitionSetName": f"{job}_partition_set", "repositorySelector": of}}, partitions
        )

    def _backfill(self, what: Mapping[str, Any], partitions: Sequence[str] | None) -> str:
        keys = {"allPartitions": True} if partitions is None else {"partitionNames": list(partitions)}
        answer = self.ask(
            """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
                 __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={**what, **keys},
        )["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise RuntimeError(str(answer))
        return str(answer["backfillId"])

    def launch_run(self, job: str, tags: Mapping[str, str]) -> str:
        """Launch one run of `job` with `tags`; its id."""
        repository = self._repository()
        answer = self.ask(
            """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            params={
                "selector": {
                    "repositoryName": repository["name"],
                    "repositoryLocationName": repository["location"]["name"],
                    "pipelineName": job,
                },
                "mode": "default",
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            },
        )["launchRun"]
        if "run" not in answer:
            raise RuntimeError(str(answer))
        return str(answer["run"]["runId"])

    def wait(self, backfills: Sequence[str], seconds: float) -> list[dict[str, Any]]:
        """Wait until the backfills and every run have ended; all runs: runId, status, tags. TimeoutError after `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            states = [self._state(one) for one in backfills]
            runs = self.runs()
            if all(one.startswith("COMPLETED") or one == "FAILED" for one in states) and all(
                run["status"] in ENDED for run in runs
            ):
                return runs
            time.sleep(1)
        raise TimeoutError(f"{states}, {[run['status'] for run in runs]}; {self.log.read_text()[-3000:]}")

    def runs(self) -> list[dict[str, Any]]:
        found = self.ask(
            "{ runsOrError { ... on Runs { results { runId status startTime endTime tags { key value } } } } }"
        )
        runs: list[dict[str, Any]] = found["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]

    def _repository(self) -> dict[str, Any]:
        query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        [repository] = self.ask(query)["repositoriesOrError"]["nodes"]
        found: dict[str, Any] = repository
        return found

    def _state(self, backfill: str) -> str:
        found = self.ask(
            """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
                 ... on PartitionBackfill { status } ... on PythonError { message } } }""",
            id=backfill,
        )
        return str(found["partitionBackfillOrError"]["status"])


@contextmanager
def live_dagster(project: Path, home: Path, environment: Mapping[str, str] | None = None) -> Iterator[LiveDagster]:
    """`dagster dev` on the project's lakehouse.toml and the instance at `home`, stopped with all its processes at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(home / "workspace.yaml")]
    log = project / "dagster.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", str(port)],
            cwd=project,
            env={**os.environ, "DAGSTER_HOME": str(home), **(environment or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as server,
    ):
        dagster = LiveDagster(f"http://127.0.0.1:{port}", log)
        try:
            _wait_for(dagster, server)
            yield dagster
        finally:
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def _wait_for(dagster: LiveDagster, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            dagster.ask("{ version }")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError(f"dagster dev did not start: {dagster.log.read_text()[-3000:]}")
