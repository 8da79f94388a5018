"""The engine as Dagster's resource: one session of the process, shared by a run's steps, stopped with the run.

Here: who shares a session and when it stops. Not here: how one starts (engines/).
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
    """The session of this process for one engine, and how many resources use it."""

    stack: ExitStack
    session: SparkSession
    users: int = 0


_shared: dict[str, _Shared] = {}
_lock = threading.Lock()


class SparkResource(dg.ConfigurableResource[Any]):
    """The engine of a run: one session, started at its first use, stopped with the run.

    Dagster copies a resource for each resource it is nested in; the copies share one session of the process, since frames of
    different sessions cannot be joined.
    """

    engine: str
    databricks: dict[str, Any] = Field(
        default_factory=dict
    )  # the settings of that name; credentials are not among them
    _session: Any = PrivateAttr(default=None)

    @property
    def session(self) -> SparkSession:
        """The session. Raises EngineError when the engine does not start."""
        if self._session is None:
            with _lock:
                if self.engine not in _shared:
                    stack = ExitStack()
                    # Read here and not from a resource's config, which the UI shows: the address may hold a token.
                    remote = os.environ.get(REMOTE_VARIABLE)
                    say = dg.get_dagster_logger("engine").info
                    started = spark_session(self.engine, remote, Databricks(**self.databricks), say)
                    _shared[self.engine] = _Shared(stack, stack.enter_context(started))
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
