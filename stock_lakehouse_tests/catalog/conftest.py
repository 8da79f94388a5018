"""moto's S3 and Glue, and a lake in a bucket of each test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.catalog.lakes import fill, on_s3


@pytest.fixture(scope="session")
def filled(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled lake in a folder; tests read it, and change only copies."""
    return fill(tmp_path_factory.mktemp("catalog") / "lake", spark)


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The endpoint of a new moto server, to which this process's AWS_* variables lead."""
    with s3.moto() as endpoint, s3.variables(s3.environment(endpoint)):
        yield endpoint


@pytest.fixture
def database() -> str:
    return f"db_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def lake(filled: Path, aws: str) -> Lake:
    """A lake in a bucket of its own."""
    return Lake(on_s3(filled, aws, f"bucket-{uuid.uuid4().hex[:12]}"))


@pytest.fixture
def glue(aws: str) -> Any:
    """A client of its own, so that hooks of one test are not those of another."""
    return s3.client(aws, "glue")
