"""A store that answers 500 or 503 or resets the connection one time in five, before or after it did what was asked: a proxy on
loopback before a server that speaks S3, in a process of its own.

`python -m stock_lakehouse_tests.reliability.faulty_store ADDRESS SEED` prints its port; GET /-/faults says how many it made, by
kind. Not here: what a run makes of them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ONE_IN = 5
KINDS = ("500", "503", "reset")
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>Please try again.</Message></Error>"


class FaultyStore(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behind: str, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind).netloc
        self.made: Counter[str] = Counter()
        self._dice, self._one = random.Random(seed), threading.Lock()

    def fault(self) -> tuple[str, bool] | None:
        """What goes wrong with a request, and whether only after it was done; None: nothing."""
        with self._one:
            if self._dice.randrange(ONE_IN):
                return None
            fault = self._dice.choice(KINDS), self._dice.random() < 0.5
            self.made[f"{fault[0]} {'after' if fault[1] else 'before'} it was done"] += 1
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyStore

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/-/faults":
            self._answer(200, [], json.dumps(self.server.made).encode())
            return
        fault = self.server.fault()
        if fault and not fault[1]:
            self._fail(fault[0])
            return
        behind = http.client.HTTPConnection(self.server.behind, timeout=60)
        try:
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            content = answer.read()
        finally:
            behind.close()
        if fault:
            self._fail(fault[0])
            return
        self._answer(answer.status, answer.getheaders(), content)

    def _fail(self, kind: str) -> None:
        if kind == "reset":
            # To linger for no time is to reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        code = b"InternalError" if kind == "500" else b"SlowDown"
        self._answer(int(kind), [("Content-Type", "application/xml")], SLOW_DOWN % code)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        # The length of what a HEAD asks about is the store's to say.
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        self.send_header("Content-Length", lengths[0] if self.command == "HEAD" and lengths else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - the base class calls these

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client went away, or was reset

    def finish(self) -> None:
        if not self.wfile.closed:
            super().finish()


@contextmanager
def faulty_store(behind: str, seed: int) -> Iterator[str]:
    """The address of a new faulty store before `behind`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stock_lakehouse_tests.reliability.faulty_store", behind, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def faults_made(address: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{address}/-/faults", timeout=30) as answer:
        made: dict[str, int] = json.load(answer)
    return made


if __name__ == "__main__":
    store = FaultyStore(sys.argv[1], int(sys.argv[2]))
    print(store.server_port, flush=True)  # noqa: T201
    store.serve_forever()
