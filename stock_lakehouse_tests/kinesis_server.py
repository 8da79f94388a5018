"""kinesis-local, an emulator of Amazon Kinesis, on loopback, behind an edge where a test can change what is asked and answered.

Here: starting, stopping, and the edge, which holds every request against botocore's model. Not here: anything a test expects.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from stock_lakehouse_tests import aws_model
from stock_lakehouse_tests.not_run import NotRunError
from stock_lakehouse_tests.s3 import KEYS, _free_ports

PACKAGE = "kinesis-local@0.6.2"
START_SECONDS = 60.0
# It would listen on every interface.
PIN = """
const { Server } = require('net'); const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  if (typeof first === 'object' && first !== null) return listen.call(this, { ...first, host: '127.0.0.1' }, ...rest);
  if (typeof rest[0] === 'string') rest.shift();
  return listen.call(this, first, '127.0.0.1', ...rest); };
"""

Answer = tuple[int, dict[str, Any]]
Forward = Callable[[dict[str, Any]], Answer]
Act = Callable[[str, dict[str, Any], Forward], Answer | None]


@dataclass
class Edge:
    """What stands between boto3 and the emulator.

    - act: gives the answer to an operation and its body, mostly by the emulator (`forward`); None: the connection breaks
    - requests: when each came (seconds, monotonic), its operation and body
    - faults: of requests that AWS's model does not allow
    """

    url: str = ""
    act: Act = lambda _, body, forward: forward(body)
    requests: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process needs to speak to it."""
        return {**KEYS, "AWS_ENDPOINT_URL_KINESIS": self.url}

    def client(self) -> Any:
        """A client of the test, which goes through the edge too."""
        return boto3.client(
            "kinesis",
            endpoint_url=self.url,
            region_name=KEYS["AWS_REGION"],
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def reset(self) -> None:
        self.act = lambda _, body, forward: forward(body)


def refused(code: str, message: str = "", status: int = 400) -> Answer:
    """An error as AWS gives it."""
    return status, {"__type": code, "message": message}


def _package() -> Path:
    """The folder of the emulator, which is fetched once into the user's cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotRunError("needs Node 20 and npm for kinesis-local")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < 20:
        raise NotRunError(f"needs Node 20 for kinesis-local, and this is {version.strip()}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stock-lakehouse" / "kinesis-local"
    found = cache / "node_modules" / "kinesis-local"
    if not (found / "main.js").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # Beside the cache and then into it, so that two tests at once do not meet in the middle.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", folder, PACKAGE]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            except subprocess.TimeoutExpired:
                raise NotRunError(f"needs {PACKAGE}, which npm did not get in two minutes") from None
            if done.returncode:
                raise NotRunError(f"needs {PACKAGE}, which npm does not get: {done.stderr.strip()[-200:]}")
            if not found.exists():
                shutil.copytree(Path(folder, "node_modules"), cache / "node_modules", dirs_exist_ok=True)
    return found


@contextmanager
def kinesis_server(folder: Path) -> Iterator[Edge]:
    """The emulator and its edge. Raises NotRunError if it cannot run here."""
    package, node = _package(), shutil.which("node")
    assert node is not None
    (folder / "pin.js").write_text(PIN)
    tls, plain = _free_ports(2)
    durations = ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS")
    values = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "KINESIS_MOCK_TLS_PORT": str(tls),
        "KINESIS_MOCK_PLAIN_PORT": str(plain),
        "LOG_LEVEL": "ERROR",
        **{f"{name}_DURATION": "10ms" for name in durations},
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [node, "--require", str(folder / "pin.js"), "main.js"], cwd=package, env=values, stdout=log, stderr=log
        )
    edge = Edge()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(edge, f"http://127.0.0.1:{plain}"))
    edge.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        _wait(edge, process, folder / "log")
        yield edge
    finally:
        server.shutdown()
        server.server_close()
        process.kill()
        process.wait()


def _wait(edge: Edge, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            edge.client().list_streams()
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotRunError(f"kinesis-local does not start: {log.read_text()[-300:]}") from None
            time.sleep(0.2)
        else:
            return


def _handler(edge: Edge, emulator: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            body = json.loads(text)
            edge.requests.append((time.monotonic(), operation, body))
            edge.faults += aws_model.faults("kinesis", operation, body)
            answer = edge.act(operation, body, self.forward)
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            status, found = answer
            content = json.dumps(found).encode() if found else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def forward(self, body: dict[str, Any]) -> Answer:
            names = ("X-Amz-Target", "Content-Type", "Authorization", "X-Amz-Date")
            headers = {name: self.headers[name] for name in names if self.headers[name]}
            request = urllib.request.Request(emulator, json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    content = answer.read()
                    return answer.status, json.loads(content) if content else {}
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
