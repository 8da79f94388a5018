"""Databricks: the workspace and who asks, a cluster that runs, and a Spark Connect channel with the headers it expects.

By plain PySpark: databricks-connect brings a pyspark of its own and cannot be installed beside dagster-databricks. Credentials
are the Databricks SDK's: variables (DATABRICKS_TOKEN, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET) or a profile. They
never pass through settings or a Dagster resource: dagster-databricks' client resource would hold them in its config, which the
UI shows. Not here: jobs (databricks_jobs/).
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


class ClusterError(EngineError):
    """The cluster is not there or does not come to run; the message says what it says of itself."""


@contextmanager
def databricks_session(databricks: Databricks, say: Say) -> Iterator[SparkSession]:
    """A Spark Connect session on the cluster or the serverless compute that the settings name. A cluster that does not run is
    started, and waited for up to `start_minutes`.

    Raises CredentialsError, ClusterError, WorkerError, or EngineError when nothing answers.
    """
    client = workspace(databricks)
    if databricks.cluster_id:
        start_cluster(client, databricks.cluster_id, databricks.start_minutes, say)
    builder = channel_builder(client.config.host, lambda: headers(client), databricks.cluster_id)
    where = f"cluster {databricks.cluster_id}" if databricks.cluster_id else "serverless compute"
    with connected(builder, f"check that {where} of {client.config.host} is there and may be used") as spark:
        check_workers(spark, _how_to_install(databricks))
        yield spark


def workspace(databricks: Databricks) -> WorkspaceClient:
    """A client of the workspace, requests bounded in time. Raises CredentialsError that names what is missing."""
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
    """The headers that say who asks, as of now: the SDK renews a token before it expires. Raises CredentialsError."""
    try:
        return dict(client.config.authenticate())
    except (ValueError, OSError) as error:  # the SDK's own, and requests'
        raise CredentialsError(f"Databricks gives no token ({_first_line(error)}); {CREDENTIALS}") from None


def start_cluster(client: WorkspaceClient, cluster_id: str, minutes: float, say: Say) -> None:
    """Return when the cluster runs; start it if it is terminated. Raises ClusterError, after `minutes` at the latest, or
    CredentialsError."""
    from databricks.sdk.service.compute import State

    deadline = time.monotonic() + minutes * 60
    seen: list[State | None] = []
    started = False
    while True:
        cluster = _asked(cluster_id, lambda: client.clusters.get(cluster_id))
        state, reason = cluster.state, _reason(cluster)
        if state in (State.RUNNING, State.RESIZING):
            return
        name = f"cluster {cluster_id} is {state.value if state else 'in no state'} ({reason})"
        if state in (State.ERROR, State.UNKNOWN) or (state == State.TERMINATED and started and State.PENDING in seen):
            raise ClusterError(f"{name} and does not start; look at its event log in the workspace")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{name}: it did not run within {minutes:g} min; look at its event log in the workspace, or raise "
                "databricks.start_minutes"
            )
        if state == State.TERMINATED and not started:
            say(f"{name}; starting it, for up to {minutes:g} min")
            _asked(cluster_id, lambda: client.clusters.start(cluster_id))
            started = True
        elif seen[-1:] != [state]:
            say(f"{name}; waiting for it to run")
        seen.append(state)
        time.sleep(POLL_SECONDS)


def _asked(cluster_id: str, request: Callable[[], Any]) -> Any:
    """What the Clusters API answers, its errors under this module's names."""
    from databricks.sdk.errors import BadRequest, InvalidState, NotFound, PermissionDenied, Unauthenticated
    from databricks.sdk.errors.base import DatabricksError

    try:
        return request()
    except InvalidState:
        return None  # asked to start, while someone else's start is under way
    except (Unauthenticated, PermissionDenied) as error:
        raise CredentialsError(
            f"Databricks refuses cluster {cluster_id} ({_first_line(error)}); {CREDENTIALS}"
        ) from None
    except (NotFound, BadRequest) as error:
        raise ClusterError(f"cluster {cluster_id}: {_first_line(error)}; check databricks.cluster_id") from None
    except (DatabricksError, OSError, ValueError) as error:
        raise ClusterError(f"the workspace does not say how cluster {cluster_id} is ({_first_line(error)})") from None


def channel_builder(host: str, credentials: Callable[[], Mapping[str, str]], cluster_id: str | None) -> Any:
    """A PySpark ChannelBuilder for the workspace at `host` (https://…): TLS, the header that names the compute, and
    `credentials` asked anew for every call, so that a token may be renewed in the middle of a run."""
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
    for given, other in (("CLIENT_ID", "CLIENT_SECRET"), ("CLIENT_SECRET", "CLIENT_ID")):
        if os.environ.get(f"DATABRICKS_{given}") and not os.environ.get(f"DATABRICKS_{other}"):
            return f"DATABRICKS_{given} is set without DATABRICKS_{other}; {CREDENTIALS}"
    return f"no credentials; {CREDENTIALS}"


def _how_to_install(databricks: Databricks) -> str:
    wheel = databricks.wheel or f"the wheel stock_lakehouse-{__version__}-py3-none-any.whl"
    if databricks.cluster_id:
        return f"install {wheel} on the cluster (Libraries → Install new → Python Whl), which brings TA-Lib, and restart it"
    return (
        f"add {wheel}, which brings TA-Lib, to the workspace's default base environment of serverless compute; "
        'or set databricks.work = "job", whose environment takes it from databricks.wheel'
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
