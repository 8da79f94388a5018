"""An engine that stops answering in the middle of a run: asked again for about half a minute, then a named error. And an engine
that answers that the lake's disk is full or its store fails: a named error too.

PySpark by itself asks again for ten minutes, and then raises gRPC's error. Here: how often, and what it is called. Imported with
a session, since it imports PySpark.
"""

from __future__ import annotations

import re
import time

import grpc
from pyspark.sql.connect.client.retries import DefaultPolicy, RetryPolicyState

from stock_lakehouse.engines.errors import EngineError
from stock_lakehouse.lake.storage import StorageError, storage_error

# Pauses of 0.05, 0.2, 0.8, 3.2 and then 5 s: 34 s, time for a network's hiccup or a load balancer to pass.
RETRIES, FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 10, 50, 5000
# A server may ask for more patience than that, a busy one does, but not for PySpark's ten minutes.
LONGEST_ASKED_MS = 60_000
# After a loss every call fails at its first attempt for this long: a run that ends asks a dead engine several times.
QUIET_SECONDS = 120.0

# How servers say that they know nothing of this session or of the statement asked for: they were started anew. Going on would
# be in another session, without SESSION_SETTINGS.
STARTED_ANEW = re.compile(r"INVALID_HANDLE\.(SESSION|OPERATION)_|operation not found|session not found", re.IGNORECASE)


class EngineLostError(EngineError):
    """The engine stopped answering in the middle of a run, or was started anew; the message says what to do."""


class AskAgain(DefaultPolicy):
    """PySpark's own rule of what is asked again, within bounds; raises EngineLostError at their end."""

    def __init__(self) -> None:
        super().__init__(
            max_retries=RETRIES,
            initial_backoff=FIRST_PAUSE_MS,
            max_backoff=LONGEST_PAUSE_MS,
            max_server_retry_delay=LONGEST_ASKED_MS,
        )
        self.lost_at: float | None = None

    def can_retry(self, e: BaseException) -> bool:
        return super().can_retry(e) or _started_anew(e) or _of_storage(e) is not None

    def to_state(self) -> RetryPolicyState:
        return _Attempts(self)

    @property
    def is_lost(self) -> bool:
        return self.lost_at is not None and time.monotonic() - self.lost_at < QUIET_SECONDS


class _Attempts(RetryPolicyState):
    """The attempts of one call."""

    def __init__(self, policy: AskAgain) -> None:
        super().__init__(policy)
        self._ours = policy

    def next_attempt(self, exception: BaseException | None = None) -> int:
        if told := _of_storage(exception):
            raise told from None
        anew = exception is not None and _started_anew(exception)
        pause = None if anew or self._ours.is_lost else super().next_attempt(exception)
        if pause is not None:
            return pause
        self._ours.lost_at = time.monotonic()
        what = "was started anew in the middle of the run" if anew else "stopped answering in the middle of the run"
        # The client's message is not repeated: it may hold the address, and that a token.
        raise EngineLostError(
            f"the engine {what} ({_code(exception)}); nothing is half-published: see that it runs and has memory enough, "
            "then run the same again"
        ) from None


def _started_anew(error: BaseException) -> bool:
    return isinstance(error, grpc.RpcError) and STARTED_ANEW.search(str(error.details())) is not None


def _of_storage(error: BaseException | None) -> StorageError | None:
    """What the engine met at the lake's disk or store, which it has asked again by itself."""
    if not isinstance(error, grpc.RpcError) or error.code() == grpc.StatusCode.UNAVAILABLE:
        return None  # UNAVAILABLE means that the connection to the engine failed, not the lake's storage
    return storage_error("the engine at the lake", error)


def _code(error: BaseException | None) -> str:
    return str(error.code().name) if isinstance(error, grpc.RpcError) else type(error).__name__
