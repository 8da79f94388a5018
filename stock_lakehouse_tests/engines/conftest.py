"""JVM Spark beside the embedded engine: one server for all tests of a process, skipped plainly where there is no Java."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.resources.spark import spark_session
from stock_lakehouse_tests.engines.servers import JAVA, java, jvm_server


@pytest.fixture(scope="session")
def jvm_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JVM Spark Connect server with Delta."""
    if java() is None:
        pytest.skip(f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")
    with jvm_server(tmp_path_factory.mktemp("jvm")) as server:
        yield server.address


@pytest.fixture(scope="session")
def jvm(jvm_address: str) -> Iterator[SparkSession]:
    """A session on JVM Spark, as a run has it."""
    with spark_session("spark_connect", jvm_address) as session:
        yield session
