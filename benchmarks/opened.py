"""How often files are opened and folders listed below a folder, by this process and any library or engine in it.

The kernel counts (inotify, Linux alone), in a process of its own, so that neither the engine's files nor SQLite's are missed and
nothing is slowed down. Of several openings of one file in a row the kernel may tell one. Not here: what is measured with it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.process import ROOT, module

IN_OPEN, IN_MOVED_TO, IN_CREATE = 0x20, 0x80, 0x100
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_ISDIR = 0x4000, 0x8000, 0x01000000, 0x40000000
WATCHED_AT_ONCE = 1000  # listing a folder to watch it is told too, and the kernel holds 16,384 events
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name
BUFFER = 1 << 20


class Opened:
    """The counts below `root` since the beginning."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def counts(self) -> dict[str, int]:
        """`opened` files and `listed` folders. Raises RuntimeError if events were lost, or not all folders are watched."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer.pop("lost"):
            raise RuntimeError("events were lost: raise max_queued_events or max_user_watches in /proc/sys/fs/inotify")
        return {name: int(count) for name, count in answer.items()}


@contextmanager
def opened_below(root: Path) -> Iterator[Opened | None]:
    """Counts what is opened below the existing folder `root`; None where the system cannot tell."""
    if sys.platform != "linux":
        yield None
        return
    process = subprocess.Popen(
        module("opened", root), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        opened = Opened(process)
        opened.counts()  # every folder is watched
        yield opened
    finally:
        process.kill()
        process.wait()


class _Watcher:
    def __init__(self, root: str) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._folders: dict[int, str] = {}
        self.counts = {"opened": 0, "listed": 0, "lost": 0}
        self._watch(root, is_new=False)

    def _watch(self, folder: str, is_new: bool) -> None:
        """Watch a folder and those below it. Files of a new one were opened by who made them, before it was watched."""
        mask = IN_OPEN | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR
        watch = self._libc.inotify_add_watch(self.descriptor, os.fsencode(folder), mask)
        if watch < 0:
            self.counts["lost"] += ctypes.get_errno() == errno.ENOSPC
            return  # no more may be watched, or it is gone already
        self._folders[watch] = folder
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        self.counts["listed"] -= 1  # this one
        if not is_new and len(self._folders) % WATCHED_AT_ONCE == 0:
            self.read()
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                self._watch(entry.path, is_new)
            elif is_new:
                self.counts["opened"] += 1

    def read(self) -> None:
        """Count the events that wait."""
        while True:
            try:
                events = os.read(self.descriptor, BUFFER)
            except BlockingIOError:
                return
            at = 0
            while at < len(events):
                watch, mask, _, length = EVENT.unpack_from(events, at)
                name = events[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0")
                at += EVENT.size + length
                self._count(watch, mask, name)

    def _count(self, watch: int, mask: int, name: bytes) -> None:
        if mask & IN_Q_OVERFLOW:
            self.counts["lost"] += 1
        elif mask & IN_IGNORED:
            self._folders.pop(watch, None)
        elif mask & IN_ISDIR:
            if mask & IN_OPEN and not name:  # the folder above is told too, with the name
                self.counts["listed"] += 1
            elif mask & (IN_CREATE | IN_MOVED_TO) and watch in self._folders:
                self._watch(f"{self._folders[watch]}/{os.fsdecode(name)}", is_new=True)
        elif mask & IN_OPEN:
            self.counts["opened"] += 1


def main() -> None:
    watcher = _Watcher(sys.argv[1])
    while True:
        ready, _, _ = select.select([watcher.descriptor, sys.stdin], [], [])
        watcher.read()
        if sys.stdin in ready:
            if not sys.stdin.readline():
                return
            watcher.read()
            print(json.dumps(watcher.counts), flush=True)


if __name__ == "__main__":
    main()
