"""A stream in a temporary folder, on the session's engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse_tests.streams.house import StreamHouse


@pytest.fixture
def house(tmp_path: Path, spark: SparkSession) -> StreamHouse:  # type: ignore[override]
    return StreamHouse.made(tmp_path, spark)
