"""Sessions on Databricks: headers, credentials, clusters, workers, broken streams, against a TLS endpoint of the test's own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.engines import spark_session
from stock_lakehouse.settings import Databricks
from stock_lakehouse_tests.engines.workspace import Workspace, authority, sail_server, workspace_at
from stock_lakehouse_tests.graph import TICKERS, clocked, history, layers, rectangle, run, year_boundary

CLUSTER = "1124-163500-abcdefgh"
TOKEN = "dapi-of-the-test"
RUNNING = {"state": "RUNNING"}
DAYS = year_boundary(30, 30)


@pytest.fixture(scope="module")
def sail() -> Iterator[str]:
    with sail_server() as address:
        yield address


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[object, Path]]:
    """An authority that this process trusts: gRPC reads its variable once, at its first TLS channel."""
    ca, file = authority(tmp_path_factory.mktemp("authority"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(file))
        patch.setenv("REQUESTS_CA_BUNDLE", str(file))
        yield ca, file


@pytest.fixture
def workspace(
    sail: str, trusted: tuple[object, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """A workspace that takes TOKEN and has a running CLUSTER."""
    for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.databrickscfg
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    monkeypatch.setattr("stock_lakehouse.engines.databricks.POLL_SECONDS", 0.05)
    with workspace_at(sail, trusted[0], tmp_path) as there:  # type: ignore[arg-type]
        there.tokens[TOKEN] = time.time() + 3600
        there.clusters[CLUSTER] = [RUNNING]
        yield there


def on(workspace: Workspace, **values: object) -> Databricks:
    return Databricks.model_validate({"host": workspace.host, "cluster_id": CLUSTER, **values})


def session_on(databricks: Databricks, said: list[str] | None = None):  # type: ignore[no-untyped-def]
    return spark_session("databricks", databricks=databricks, say=(said if said is not None else []).append)


def test_the_layers_are_published_through_it_as_on_the_embedded_engine(
    workspace: Workspace, spark: SparkSession, tmp_path: Path
) -> None:
    bars = history(TICKERS, DAYS)
    asked = rectangle(DAYS, TICKERS)
    near = clocked(tmp_path / "near", spark)
    run(near, asked, bars.values())
    with session_on(on(workspace)) as remote:
        far = clocked(tmp_path / "far", remote)
        run(far, asked, bars.values())
        assert layers(far) == layers(near)
    for call in workspace.calls:
        assert call.metadata["x-databricks-cluster-id"] == CLUSTER
        assert call.token == TOKEN
    assert {"ExecutePlan", "AnalyzePlan", "Config"} <= set(workspace.methods())
