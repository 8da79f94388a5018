"""Ctrl-C: a line that says what stands and what to type, then the end of this process with exit code 130.

A run of this program may be killed at any point: nothing is half-published, and the operating system releases its locks. So the
process does not wait for libraries to react.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stock_lakehouse.cli.printing import program

EXIT_CODE = 130  # of a process that SIGINT ended
GRACE_SECONDS = 1.5
# To cancel jobs on a remote engine and to give back the leases of a bucket, which otherwise expire after a minute.
REMOTE_GRACE_SECONDS = 20.0
END = b"\0"  # no signal has this number

RUNS = "what was published stays, and nothing is half-published. To continue: "
STANDS = {
    "demo": RUNS,
    "materialize": RUNS,
    "backfill": RUNS,
    "record": "the lake is unchanged, and what was marked stays marked. To continue: ",
    "prune": "the lake is unchanged, and deleted records stay deleted. To continue: ",
    "upkeep": "every table is whole, compacted or not. To continue: ",
    "layout": "every table is whole, and moved tables stay moved. To continue: ",
    "dashboard": "the lake stays as it is. To open it again: ",
    "stream": "what was committed stays, and nothing is half-written. To go on from there: ",
    "deploy": "what was written or deleted stays so. To continue: ",
    "ui": "the lake stays as it is; a run that was in progress can be run again. To open it again: ",
}
NOTHING = "nothing was changed. To repeat it: "


class CtrlC:
    """Watches for Ctrl-C in a thread, whatever the main thread waits for.

    Python writes each signal to the wakeup descriptor when it arrives. A handler of our own would be replaced: Dagster sets its
    own for the time of a step, and keeps a signal for later while it writes events.
    """

    def __init__(self) -> None:
        self.grace = GRACE_SECONDS
        self.exit_code = EXIT_CODE  # 0 for a command that nothing but Ctrl-C ends
        self._reader, self._writer = socket.socketpair()
        self._pressed = False
        self._stderr: int | None = (
            None  # a copy, because Dagster redirects standard error to a file for the time of a step
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the process with `exit_code` if Ctrl-C is pressed in the `with` block, at the latest after `grace`."""
        self._stderr = os.dup(2) if sys.stderr is not None else None
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            self._writer.send(END)
            watcher.join()
            if self._pressed:
                os._exit(self.exit_code)

    def _watch(self) -> None:
        while (received := self._receive()) != END:
            if received == bytes([signal.SIGINT]):
                if self._pressed:  # a second time: at once
                    os._exit(self.exit_code)
                self._pressed = True
                self._say_what_stands()
                self._reader.settimeout(self.grace)

    def _receive(self) -> bytes:
        try:
            return self._reader.recv(1)
        except TimeoutError:
            os._exit(self.exit_code)

    def _say_what_stands(self) -> None:
        """Print the line, and nothing after it: libraries report the interruption in many lines."""
        command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        line = f"Stopped: {STANDS.get(command, NOTHING)}{program()} {shlex.join(sys.argv[1:])}\n"
        if self._stderr is None:
            return
        if os.isatty(self._stderr):
            line = f"\n{line}"  # after the terminal's ^C
        os.write(self._stderr, line.encode())
        # Dagster restores the descriptors when a step ends, so the streams of Python are replaced too.
        logging.disable()
        sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        os.dup2(sys.stderr.fileno(), 1)
        os.dup2(sys.stderr.fileno(), 2)


ctrl_c = CtrlC()
