"""Databricks: the workspace client and its credentials, the start of a cluster, and the Spark Connect channel.

The session uses plain PySpark: databricks-connect bundles its own pyspark and cannot be installed beside dagster-databricks.
The Databricks SDK finds the credentials, in variables (DATABRICKS_TOKEN, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET) or
in a profile. They never pass through settings or a Dagster resource: the client resource of dagster-databricks would keep them
in its config, which the UI shows. Not here: jobs (databricks_jobs/).
"""

from __future__ import annotations

import os
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stock_lakehouse import __version__
from stock_lakehouse.engines.connect import PRODUCT, Say, connected
from stock_lakehouse.engines.errors import CREDENTIALS, CredentialsError, EngineError
from stock_lakehouse.engines.interceptor import Authenticated
from stock_lakehouse.engines.workers import check_workers

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from pyspark.sql import SparkSession

    from stock_lakehouse.settings import Databricks

HTTP_SECONDS, RETRY_SECONDS = 30, 60
POLL_SECONDS = 5.0
WHEEL = f"stock_lakehouse-{__version__}-py3-none-any.whl"
SERVERLESS_VERSION = "4"  # of the environment: Spark 4, Python 3.12


class ClusterError(EngineError):
    """The cluster does not exist or does not start; the message repeats the reason that Databricks gives."""


@contextmanager
def databricks_session(databricks: Databricks, say: Say) -> Iterator[SparkSession]:
    """A Spark Connect session on the cluster or the serverless compute that the settings name.

    A terminated cluster is started; the wait for it ends after `start_minutes`.
    Raises CredentialsError, ClusterError, WorkerError, or EngineError when no server answers.
    """
    client = workspace(databricks)
    if databricks.cluster_id:
        start_cluster(client, databricks.cluster_id, databricks.start_minutes, say)
    builder = channel_builder(client.config.host, lambda: headers(client), databricks.cluster_id)
    compute = f"cluster {databricks.cluster_id}" if databricks.cluster_id else "serverless compute"
    with connected(builder, f"check that {compute} of {client.config.host} exists and that you may use it") as spark:
        check_workers(spark, _how_to_install(databricks))
        yield spark


def workspace(databricks: Databricks) -> WorkspaceClient:
    """A client of the workspace whose requests time out. Raises CredentialsError, which names what is missing."""
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config
    from databricks.sdk.errors.base import DatabricksError

    try:
        config = Config(
            host=databricks.host,
            profile=databricks.profile,
            product=PRODUCT,
            product_version=__version__,
            http_timeout_seconds=HTTP_SECONDS,
            retry_timeout_seconds=RETRY_SECONDS,
        )
    except (ValueError, OSError, DatabricksError) as error:
        raise CredentialsError(f"Databricks: {_missing(databricks)} ({_first_line(error)})") from None
    if not config.host:
        raise CredentialsError("Databricks: no workspace; set databricks.host or DATABRICKS_HOST to https://…")
    return WorkspaceClient(config=config)


def headers(client: WorkspaceClient) -> dict[str, str]:
    """The authentication headers for a call made now: the SDK renews a token before it expires. Raises CredentialsError."""
    try:
        return dict(client.config.authenticate())
    except (ValueError, OSError) as error:  # the SDK raises ValueError, the library requests OSError
        raise CredentialsError(f"Databricks gives no token ({_first_line(error)}); {CREDENTIALS}") from None


def start_cluster(client: WorkspaceClient, cluster_id: str, minutes: float, say: Say) -> None:
    """Wait until the cluster runs; start it if it is terminated.

    Raises ClusterError, after `minutes` at the latest, or CredentialsError.
    """
    from databricks.sdk.service.compute import State

    deadline = time.monotonic() + minutes * 60
    states: list[State | None] = []
    started = False
    while True:
        cluster = _answer(cluster_id, lambda: client.clusters.get(cluster_id))
        state, reason = cluster.state, _reason(cluster)
        if state in (State.RUNNING, State.RESIZING):
            return
        name = f"cluster {cluster_id} is {state.value if state else 'in no state'} ({reason})"
        if state in (State.ERROR, State.UNKNOWN) or (state == State.TERMINATED and started and State.PENDING in states):
            raise ClusterError(f"{name} and does not start; look at its event log in the workspace")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{name}: it did not run within {minutes:g} min; look at its event log in the workspace, or raise "
                "databricks.start_minutes"
            )
        if state == State.TERMINATED and not started:
            say(f"{name}; starting it, for up to {minutes:g} min")
            _answer(cluster_id, lambda: client.clusters.start(cluster_id))
            started = True
        elif states[-1:] != [state]:
            say(f"{name}; waiting for it to run")
        states.append(state)
        time.sleep(POLL_SECONDS)


def _answer(cluster_id: str, request: Callable[[], Any]) -> Any:
    """The answer of the Clusters API to `request`. Raises this module's errors for those of the SDK."""
    from databricks.sdk.errors import BadRequest, InvalidState, NotFound, PermissionDenied, Unauthenticated
    from databricks.sdk.errors.base import DatabricksError

    try:
        return request()
    except InvalidState:
        return None  # another client is starting the cluster already
    except (Unauthenticated, PermissionDenied) as error:
        raise CredentialsError(
            f"Databricks refuses cluster {cluster_id} ({_first_line(error)}); {CREDENTIALS}"
        ) from None
    except (NotFound, BadRequest) as error:
        raise ClusterError(f"cluster {cluster_id}: {_first_line(error)}; check databricks.cluster_id") from None
    except (DatabricksError, OSError, ValueError) as error:
        raise ClusterError(
            f"the workspace does not give the state of cluster {cluster_id} ({_first_line(error)})"
        ) from None


def channel_builder(host: str, credentials: Callable[[], Mapping[str, str]], cluster_id: str | None) -> Any:
    """A PySpark ChannelBuilder for the workspace at `host` (https://…), with TLS and the header that names the compute.

    `credentials` is called for every request, so that a token can be renewed in the middle of a run.
    """
    import grpc
    from pyspark.sql.connect.client import ChannelBuilder

    url = urllib.parse.urlparse(host)

    class DatabricksChannelBuilder(ChannelBuilder):
        @property
        def host(self) -> str:
            return url.hostname or ""

        def toChannel(self) -> grpc.Channel:  # noqa: N802  # PySpark's name
            return self._secure_channel(f"{url.hostname}:{url.port or 443}", grpc.ssl_channel_credentials())

    builder = DatabricksChannelBuilder()
    if cluster_id:
        builder.set("x-databricks-cluster-id", cluster_id)
    else:
        session = str(uuid.uuid4())
        builder.set(ChannelBuilder.PARAM_SESSION_ID, session)
        builder.set("x-databricks-session-id", session)
    builder.add_interceptor(Authenticated(credentials))
    return builder


def _reason(cluster: Any) -> str:
    code = cluster.termination_reason.code if cluster.termination_reason else None
    return (
        ", ".join(str(part) for part in (code.value if code else None, cluster.state_message) if part)
        or "no reason given"
    )


def _missing(databricks: Databricks) -> str:
    if not databricks.host and not databricks.profile and not os.environ.get("DATABRICKS_HOST"):
        return "no workspace; set databricks.host or DATABRICKS_HOST to https://…"
    for variable, counterpart in (("CLIENT_ID", "CLIENT_SECRET"), ("CLIENT_SECRET", "CLIENT_ID")):
        if os.environ.get(f"DATABRICKS_{variable}") and not os.environ.get(f"DATABRICKS_{counterpart}"):
            return f"DATABRICKS_{variable} is set without DATABRICKS_{counterpart}; {CREDENTIALS}"
    return f"no credentials; {CREDENTIALS}"


def _how_to_install(databricks: Databricks) -> str:
    wheel = databricks.wheel or f"the wheel {WHEEL}"
    if databricks.cluster_id:
        return f"install {wheel} on the cluster (Libraries → Install new → Python Whl), which brings TA-Lib, and restart it"
    return (
        f"add {wheel}, which brings TA-Lib, to the workspace's default base environment of serverless compute; "
        'or set databricks.work = "job": a job installs the wheel of databricks.wheel'
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
