"""The retries of a call to the engine, and the named errors at their end.

An engine that stops answering in the middle of a run is retried for about half a minute; PySpark's default is ten minutes and
then gRPC's error. An engine that reports a full disk or a failing store of the lake raises a named error at once. This module
imports PySpark, so it is imported only together with a session.
"""

from __future__ import annotations

import re
import time

import grpc
from pyspark.sql.connect.client.retries import DefaultPolicy, RetryPolicyState

from stock_lakehouse.engines.errors import EngineError
from stock_lakehouse.lake.storage import StorageError, storage_error

# Pauses of 0.05, 0.2, 0.8, 3.2 and then 5 s, 34 s in all: enough for a short network failure or a load balancer's restart.
RETRIES, FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 10, 50, 5000
# A busy server may ask for a longer pause than that, but not for PySpark's ten minutes.
LONGEST_ASKED_MS = 60_000
# After the engine is lost, calls fail at their first attempt for this long: the end of a run makes several calls to it.
QUIET_SECONDS = 120.0

# Messages of a server that does not know this session or statement: it was restarted, or ended a session that was idle (Sail
# after 15 minutes, JVM Spark after an hour). A retry would run in a new session, without SESSION_SETTINGS.
UNKNOWN_SESSION = re.compile(
    r"INVALID_HANDLE\.(SESSION|OPERATION)_|operation not found|session not found|session \S+ is not running",
    re.IGNORECASE,
)


class EngineLostError(EngineError):
    """The engine stopped answering in the middle of a run, or ended the run's session. The message says what to do."""


class BoundedRetryPolicy(DefaultPolicy):
    """PySpark's own rule of which calls are retried, with fewer retries. Raises EngineLostError after the last one."""

    def __init__(self) -> None:
        super().__init__(
            max_retries=RETRIES,
            initial_backoff=FIRST_PAUSE_MS,
            max_backoff=LONGEST_PAUSE_MS,
            max_server_retry_delay=LONGEST_ASKED_MS,
        )
        self.lost_at: float | None = None

    def can_retry(self, e: BaseException) -> bool:
        return super().can_retry(e) or _has_no_session(e) or _storage_error(e) is not None

    def to_state(self) -> RetryPolicyState:
        return _Attempts(self)

    @property
    def is_lost(self) -> bool:
        return self.lost_at is not None and time.monotonic() - self.lost_at < QUIET_SECONDS


class _Attempts(RetryPolicyState):
    """The attempts of one call."""

    def __init__(self, policy: BoundedRetryPolicy) -> None:
        super().__init__(policy)
        self._retry_policy = policy

    def next_attempt(self, exception: BaseException | None = None) -> int:
        if failure := _storage_error(exception):
            raise failure from None
        session_ended = exception is not None and _has_no_session(exception)
        pause = None if session_ended or self._retry_policy.is_lost else super().next_attempt(exception)
        if pause is not None:
            return pause
        self._retry_policy.lost_at = time.monotonic()
        event = "was restarted or ended the idle session" if session_ended else "stopped answering"
        # The client's message is not repeated: it may contain the address, and the address a token.
        raise EngineLostError(
            f"the engine {event} in the middle of the run ({_code(exception)}); nothing is half-published: check that it runs "
            "and has enough memory, then run the same again"
        ) from None


def _has_no_session(error: BaseException) -> bool:
    return isinstance(error, grpc.RpcError) and UNKNOWN_SESSION.search(str(error.details())) is not None


def _storage_error(error: BaseException | None) -> StorageError | None:
    """The failure of the lake's disk or store that the engine reports after retries of its own; None for another error."""
    if not isinstance(error, grpc.RpcError) or error.code() == grpc.StatusCode.UNAVAILABLE:
        return None  # UNAVAILABLE means that the connection to the engine failed, not the lake's storage
    return storage_error("the engine at the lake", error)


def _code(error: BaseException | None) -> str:
    return str(error.code().name) if isinstance(error, grpc.RpcError) else type(error).__name__
