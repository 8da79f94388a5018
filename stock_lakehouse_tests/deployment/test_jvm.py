"""Spark on the JVM through Hadoop's S3A with the rights of a cluster's role, on a lake of landed files and on a filled one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.engines import spark_session
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.deployment.chapters import Act, filled, landed, layers_by_jobs
from stock_lakehouse_tests.deployment.world import Lakes, World, world
from stock_lakehouse_tests.engines.servers import JAVA, java, jvm_server

pytestmark = [pytest.mark.deploy, pytest.mark.soak, pytest.mark.timeout(1800)]
# Before it makes a folder, S3A looks for the folders above it, up to the lake's root. No role may list that, and S3A goes on.
REFUSED = r"s3:ListBucket on arn:aws:s3:::lake-\w+ with prefix 'team/\w+/'"


@pytest.fixture(scope="module")
def place(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose clusters are Spark on the JVM."""
    if java() is None:
        pytest.skip(f"NOT RUN: needs Java {JAVA} or newer (JAVA_HOME, or java on the path)")
    with (
        world(spark, Lakes(tmp_path_factory.mktemp("lakes"))) as found,
        jvm_server(
            tmp_path_factory.mktemp("jvm"),
            packages=s3.JVM_PACKAGES,
            excluded=s3.JVM_EXCLUDED,
            settings=s3.jvm_settings(found.gate.url),
        ) as server,
        spark_session("spark_connect", server.address) as session,
    ):
        yield replace(found, spark=session)


@pytest.mark.parametrize("before", [landed, filled], ids=["landed files alone", "a filled lake"])
def test_the_layers_of_a_run_need_no_more_than_the_role_of_a_cluster(place: World, before: Act, tmp_path: Path) -> None:
    with place.staged({}, tmp_path / "stage") as stage:
        before(stage)
        place.record()
        stage.play(layers_by_jobs, "job", "jvm")
        log = stage.keys("curated/stocks_features/_delta_log")
        assert [key for key in log if key.endswith(".json")]
        assert [key for key in log if key.endswith(".tmp")] == [], "a checksum that was renamed, and not removed"
    record = place.record()
    assert sum(record.asked.values()) > 100
    assert record.refusals("jvm", REFUSED) == []
