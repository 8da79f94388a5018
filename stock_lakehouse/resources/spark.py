"""The engine as a Dagster resource: one session per process, shared by the steps of a run and stopped with the run.

Here: who shares a session and when it stops. Not here: how a session starts (engines/).
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from stock_lakehouse.engines import REMOTE_VARIABLE, spark_session
from stock_lakehouse.settings import Databricks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass
class _Shared:
    """The session of this process for one engine, and the number of resources that use it."""

    stack: ExitStack
    session: SparkSession
    users: int = 0


_shared: dict[str, _Shared] = {}
_lock = threading.Lock()


class SparkResource(dg.ConfigurableResource[Any]):
    """The engine of a run: one session, started at its first use and stopped with the run.

    Dagster copies a resource into each resource that nests it. The copies share the session of the process, because frames
    of different sessions cannot be joined.
    """

    engine: str
    databricks: dict[str, Any] = Field(
        default_factory=dict
    )  # the settings under [databricks]; they contain no credentials
    _session: Any = PrivateAttr(default=None)

    @property
    def session(self) -> SparkSession:
        """The session. Raises EngineError when the engine does not start."""
        if self._session is None:
            with _lock:
                if self.engine not in _shared:
                    stack = ExitStack()
                    # Read from the environment, not from the resource's config, which the UI shows: the address may
                    # contain a token.
                    remote = os.environ.get(REMOTE_VARIABLE)
                    say = dg.get_dagster_logger("engine").info
                    session_context = spark_session(self.engine, remote, Databricks(**self.databricks), say)
                    _shared[self.engine] = _Shared(stack, stack.enter_context(session_context))
                _shared[self.engine].users += 1
                self._session = _shared[self.engine].session
        session: SparkSession = self._session
        return session

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._session is None:
            return
        self._session = None
        with _lock:
            shared = _shared[self.engine]
            shared.users -= 1
            if shared.users == 0:
                del _shared[self.engine]
                shared.stack.close()
