"""A lease: one holder at a time across machines, by conditional writes to one small object of the lake's bucket.

Here: taking, renewing, losing and giving back. Not here: what a lease is for (lock.py).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from stock_lakehouse.lake.storage import Bucket, ChangedError, StorageError

SECONDS = 60.0  # a holder that has not renewed for so long has lost it
RENEWALS = 4  # in that time
POLL_SECONDS = 1.0
ATTEMPTS = 5  # of a write whose answers are lost


class LeaseLostError(Exception):
    """This run was silent for longer than its lease, and another may have taken its place; nothing more is published."""


class Lease:
    """The lease `name` of the lake in `bucket`. The object says who holds it, or that nobody does.

    No clocks are compared: whoever waits watches the object, and may take it once it has not changed for as long as its
    holder said. Every change is a write on condition of the object's mark, so of two that try one succeeds.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._path = f".locks/{name}.lease"
        self._name = name
        self._token = uuid.uuid4().hex
        self._seconds = SECONDS
        self._renewals = 0
        self._mark = ""
        self._lost = False
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"lease {name}", daemon=True)

    def take(self, wait_seconds: float) -> bool:
        """Wait for the lease and hold it; False if another holds it for longer than `wait_seconds`."""
        began = time.monotonic()
        watched, since = "", began
        while True:
            there, patience = self._look()
            now = time.monotonic()
            if there != watched:
                watched, since = there or "", now
            if there is None or now - since >= patience:
                try:
                    self._write(there)
                except ChangedError:
                    if self._holder() is None:
                        continue
                self._keeper.start()
                return True
            if now - began >= wait_seconds:
                return False
            time.sleep(min(POLL_SECONDS, patience))

    def confirm(self) -> None:
        """Renew now. Raises LeaseLostError if the lease is another's by now, StorageError if that cannot be known."""
        with self._changing:
            self._renew()
            if self._lost:
                raise LeaseLostError(
                    f"{self._name}: this run was silent for more than {self._seconds:.0f} s and another took its place; "
                    "nothing more was published, run it again"
                )

    def give_back(self) -> None:
        """Let the next one in at once. After a loss it does nothing: the lease is another's."""
        self._ended.set()
        self._keeper.join()
        with self._changing:
            for _ in range(ATTEMPTS):
                if self._lost:
                    return
                try:
                    self._bucket.put(self._path, json.dumps({"free": self._token}).encode(), self._mark)
                except ChangedError:
                    self._lost = self._holder() is None  # it is free by now, or the answer to a renewal was lost
                except StorageError:
                    return  # it ends by itself
                else:
                    return

    def _keep(self) -> None:
        while not self._lost and not self._ended.wait(self._seconds / RENEWALS):
            with self._changing:
                try:
                    self._renew()
                except StorageError:
                    continue  # no answer: asked again soon, and by `confirm` before anything is published

    def _renew(self) -> None:
        for _ in range(ATTEMPTS):
            if self._lost:
                return
            try:
                self._write(self._mark)
            except ChangedError:
                held = self._holder()
                self._lost = held is None
                if held == self._renewals:  # this renewal is written, and its answer was lost
                    return
            else:
                return
        raise StorageError(f"{self._name}: the store answered none of {ATTEMPTS} renewals of this run's lease")

    def _write(self, there: str | None) -> None:
        self._renewals += 1
        holder = {"token": self._token, "seconds": self._seconds, "renewals": self._renewals}
        who = {"host": socket.gethostname(), "process": os.getpid()}
        self._mark = self._bucket.put(self._path, json.dumps({**holder, **who}).encode(), there)

    def _holder(self) -> int | None:
        """Which of this holder's writes the object is, None if it is another's: a write whose answer was lost, sent again, meets
        itself."""
        try:
            content, mark = self._bucket.look(self._path)
        except FileNotFoundError:
            return None
        said = _said(content)
        if said.get("token") != self._token:
            return None
        self._mark = mark
        return int(said["renewals"])

    def _look(self) -> tuple[str | None, float]:
        """The mark of the object, None if there is none, and for how long it must not change before it may be taken."""
        try:
            content, mark = self._bucket.look(self._path)
        except FileNotFoundError:
            return None, 0.0
        said = _said(content)
        if "free" in said:
            return mark, 0.0
        seconds = said.get("seconds")
        # Of an object that cannot be read nobody knows how long its holder may be silent: as long as any may.
        return mark, float(seconds) if isinstance(seconds, int | float) else SECONDS


def _said(content: bytes) -> dict[str, Any]:
    """What the object of a lease says; nothing where it is empty or no lease."""
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
