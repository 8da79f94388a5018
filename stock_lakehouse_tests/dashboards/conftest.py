"""What the tests of the dashboard share: one lake, which they only read."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse_tests.dashboards.varied_lake import Varied, varied_lake


@pytest.fixture(scope="session")
def varied(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Varied:
    return varied_lake(tmp_path_factory.mktemp("varied") / "lake", spark)
