"""A lease: one holder at a time across machines, by conditional writes to one small object in the lake's bucket.

Here: acquiring, renewing, losing and releasing a lease. Not here: what a lease is for (lock.py).
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

FOLDER = ".locks"
SUFFIX = ".lease"
TRIAL = f"{FOLDER}/doctor-"  # how the key of the object begins with which `doctor` tries conditional writes
SECONDS = 60.0  # a holder that does not renew for this long may lose the lease
RENEWALS = 4  # renewals in SECONDS
POLL_SECONDS = 1.0
ATTEMPTS = 5  # attempts of a write whose answer is lost


def lease_path(name: str) -> str:
    """The path of the object of the lease `name` under the lake's root."""
    return f"{FOLDER}/{name}{SUFFIX}"


class LeaseLostError(Exception):
    """This run did not renew its lease in time, and another run may have taken it. Nothing more is published."""


class Lease:
    """The lease `name` of the lake in `bucket`. Its object names the holder, or says that the lease is free.

    Clocks of machines are not compared: a waiting process watches the object, and may take the lease once the object has not
    changed for as long as the holder wrote into it. Every change is a write on condition of the object's version tag, so
    only one of two concurrent attempts succeeds.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._path = lease_path(name)
        self._name = name
        self._token = uuid.uuid4().hex
        self._seconds = SECONDS
        self._renewals = 0
        self._version_tag = ""
        self._lost = False
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"lease {name}", daemon=True)

    def take(self, wait_seconds: float) -> bool:
        """Wait for the lease and hold it; False if another process holds it for longer than `wait_seconds`."""
        began = time.monotonic()
        seen_tag, since = "", began
        while True:
            tag, silence = self._look()
            now = time.monotonic()
            if tag != seen_tag:
                seen_tag, since = tag or "", now
            if tag is None or now - since >= silence:
                try:
                    self._write(tag)
                except ChangedError:
                    if self._written_renewal() is None:
                        continue
                self._keeper.start()
                return True
            if now - began >= wait_seconds:
                return False
            time.sleep(min(POLL_SECONDS, silence))

    def confirm(self) -> None:
        """Renew now. Raises LeaseLostError if another process holds the lease, StorageError if the holder is unknown."""
        with self._changing:
            self._renew()
            if self._lost:
                raise LeaseLostError(
                    f"{self._name}: this run was silent for more than {self._seconds:.0f} s and another took its place; "
                    "nothing more was published, run it again"
                )

    def give_back(self) -> None:
        """Release the lease, so that the next process can take it at once. Does nothing after a loss."""
        self._ended.set()
        self._keeper.join()
        with self._changing:
            for _ in range(ATTEMPTS):
                if self._lost:
                    return
                try:
                    self._bucket.put(self._path, json.dumps({"free": self._token}).encode(), self._version_tag)
                except ChangedError:
                    # The object is free already, or the answer to a renewal was lost.
                    self._lost = self._written_renewal() is None
                except StorageError:
                    return  # the lease expires by itself
                else:
                    return

    def _keep(self) -> None:
        while not self._lost and not self._ended.wait(self._seconds / RENEWALS):
            with self._changing:
                try:
                    self._renew()
                except StorageError:
                    continue  # no answer: the next renewal follows soon, and `confirm` renews before every publish

    def _renew(self) -> None:
        for _ in range(ATTEMPTS):
            if self._lost:
                return
            try:
                self._write(self._version_tag)
            except ChangedError:
                renewal = self._written_renewal()
                self._lost = renewal is None
                if renewal == self._renewals:  # this renewal was written, but its answer was lost
                    return
            else:
                return
        raise StorageError(f"{self._name}: the store answered none of {ATTEMPTS} renewals of this run's lease")

    def _write(self, expected_tag: str | None) -> None:
        self._renewals += 1
        holder = {"token": self._token, "seconds": self._seconds, "renewals": self._renewals}
        process = {"host": socket.gethostname(), "process": os.getpid()}
        self._version_tag = self._bucket.put(self._path, json.dumps({**holder, **process}).encode(), expected_tag)

    def _written_renewal(self) -> int | None:
        """The number of this holder's renewal that the object contains; None if the object is not this holder's.

        After a write whose answer was lost, the retry meets the object that the first attempt wrote.
        """
        try:
            content, tag = self._bucket.look(self._path)
        except FileNotFoundError:
            return None
        lease = _parsed(content)
        if lease.get("token") != self._token:
            return None
        self._version_tag = tag
        return int(lease["renewals"])

    def _look(self) -> tuple[str | None, float]:
        """The version tag of the object, None if there is no object; and the seconds without a change after which the lease
        may be taken."""
        try:
            content, tag = self._bucket.look(self._path)
        except FileNotFoundError:
            return None, 0.0
        lease = _parsed(content)
        if "free" in lease:
            return tag, 0.0
        seconds = lease.get("seconds")
        # An unreadable object does not tell how long its holder may be silent, so it gets as long as any holder.
        return tag, float(seconds) if isinstance(seconds, int | float) else SECONDS


def holder_in(bucket: Bucket, name: str) -> tuple[str, int] | None:
    """The host and process that the lease `name` names; None if it is free. A holder that died is still named."""
    try:
        content, _ = bucket.look(lease_path(name))
    except FileNotFoundError:
        return None
    fields = _parsed(content)
    return None if "free" in fields else (str(fields.get("host", "unknown")), int(fields.get("process", 0)))


def _parsed(content: bytes) -> dict[str, Any]:
    """The fields of a lease's object; empty if it is empty or not a lease."""
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
