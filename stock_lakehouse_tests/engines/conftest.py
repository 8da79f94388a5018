"""What tests of engines share: a Databricks workspace before a server and the authority that this process trusts, and JVM Spark
beside the embedded engine, skipped plainly where there is no Java."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from pyspark.sql import SparkSession

from stock_lakehouse.engines import spark_session
from stock_lakehouse_tests.engines.servers import FOR_SMALL_QUERIES, JAVA, java, jvm_server, sail_server
from stock_lakehouse_tests.engines.workspace import (
    CLUSTER,
    RUNNING,
    TOKEN,
    Workspace,
    authority,
    workspace_at,
)

# As somebody else may have set a server up: a session says what it needs itself.
SET_UP_BY_OTHERS = {
    "spark.sql.session.timeZone": "Asia/Tokyo",
    "spark.sql.ansi.enabled": "false",
    "spark.sql.parquet.outputTimestampType": "INT96",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "LEGACY",
    "spark.sql.parquet.datetimeRebaseModeInRead": "LEGACY",
    "spark.sql.sources.partitionOverwriteMode": "dynamic",
    "spark.databricks.delta.schema.autoMerge.enabled": "true",
    "spark.databricks.delta.replaceWhere.constraintCheck.enabled": "false",
}
Trusted = tuple[trustme.CA, Path]


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusted]:
    """The authority. One a process: gRPC reads its variable at the first TLS channel, and never again."""
    ca, file = authority(tmp_path_factory.mktemp("authority"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(file))
        patch.setenv("REQUESTS_CA_BUNDLE", str(file))
        yield ca, file


@pytest.fixture
def open_workspace(
    trusted: Trusted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Workspace]]:
    """A workspace before the Spark Connect server at host:port: it takes TOKEN and has a running CLUSTER."""
    for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.databrickscfg
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    monkeypatch.setattr("stock_lakehouse.engines.databricks.POLL_SECONDS", 0.05)
    with ExitStack() as stack:

        def open_before(server: str) -> Workspace:
            there = stack.enter_context(workspace_at(server, trusted[0], tmp_path))
            there.tokens[TOKEN] = time.time() + 3600
            there.clusters[CLUSTER] = [RUNNING]
            return there

        yield open_before


@pytest.fixture(scope="session")
def sail() -> Iterator[str]:
    """host:port of a Spark Connect server in a process of its own."""
    with sail_server() as server:
        yield server.host_and_port


@pytest.fixture
def workspace(sail: str, open_workspace: Callable[[str], Workspace]) -> Workspace:
    """A workspace before Sail."""
    return open_workspace(sail)


@pytest.fixture(scope="session")
def needs_java() -> None:
    """Skip, and say so, where there is no Java that Spark runs on."""
    if java() is None:
        pytest.skip(f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")


@pytest.fixture(scope="session")
def jvm_address(needs_java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JVM Spark Connect server with Delta."""
    options = f"{FOR_SMALL_QUERIES} -Duser.timezone=Asia/Tokyo"
    with jvm_server(tmp_path_factory.mktemp("jvm"), java_options=options, settings=SET_UP_BY_OTHERS) as server:
        yield server.address


@pytest.fixture(scope="session")
def jvm(jvm_address: str) -> Iterator[SparkSession]:
    """A session on JVM Spark, as a run has it."""
    with spark_session("spark_connect", jvm_address) as session:
        yield session
