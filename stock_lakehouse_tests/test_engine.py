"""The engine: embedded, or a Spark Connect server in another process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.engines import EngineError, cores, spark_session
from stock_lakehouse.engines.loss import EngineLostError
from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse_tests.engines.servers import sail_server


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a Spark Connect server in a process of its own."""
    with sail_server() as sail:
        yield sail.address


def test_results_do_not_depend_on_the_engine_s_own_settings() -> None:
    with spark_session("embedded") as spark:
        assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
        assert spark.conf.get("spark.sql.ansi.enabled") == "true"


SAIL_IDLE = "SAIL_SPARK__SESSION_TIMEOUT_SECS"
SAIL_ENDS_IDLE = 900.0  # seconds: its default


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_session_of_the_embedded_engine_outlives_a_quiet_quarter_of_an_hour() -> None:
    with spark_session("embedded") as spark:
        time.sleep(SAIL_ENDS_IDLE + 60)
        assert spark.range(3).count() == 3


@pytest.mark.parametrize("engine", ["embedded", "spark_connect"])
def test_a_session_that_ended_by_a_pause_is_a_lost_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the embedded engine obeys IDLE_SECONDS here, it does so with the longer one too."""
    monkeypatch.setenv(SAIL_IDLE, "1")  # of the server; what the embedded engine sets is removed at the end
    with sail_server() as other:
        monkeypatch.delenv(SAIL_IDLE)
        monkeypatch.setattr("stock_lakehouse.engines.IDLE_SECONDS", 1)
        with spark_session(engine, other.address) as spark:
            assert spark.range(3).count() == 3
            time.sleep(4)
            with pytest.raises(EngineLostError, match=r"ended the idle session.* nothing is half-published"):
                spark.range(3).count()


def test_copies_of_a_resource_share_one_session_that_ends_with_the_last(spark: object) -> None:
    first, second = SparkResource(engine="embedded"), SparkResource(engine="embedded")
    assert first.session is second.session
    first.teardown_after_execution(None)  # type: ignore[arg-type]
    assert second.session.range(3).count() == 3
    second.teardown_after_execution(None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_whole_graph_runs_on_a_spark_connect_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lakehouse.toml").write_text(
        'tickers = ["AAPL"]\nfirst_date = 2023-08-01\nlast_date = 2023-09-21\nengine = "spark_connect"\n'
    )
    monkeypatch.setenv("STOCK_LAKEHOUSE_SPARK_REMOTE", server)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    assert "stocks_features" in result.output
    config = (tmp_path / "lakehouse" / ".dagster" / "dagster.yaml").read_text()
    assert server not in config


def test_a_server_that_is_not_there_is_a_named_error_that_keeps_the_address_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stock_lakehouse.engines.connect.ANSWER_SECONDS", 1.0)
    with (
        pytest.raises(EngineError, match="check STOCK_LAKEHOUSE_SPARK_REMOTE") as caught,
        spark_session("spark_connect", "sc://localhost:9/;token=very-secret"),
    ):
        pass
    assert "very-secret" not in str(caught.value)


def test_an_address_of_another_form_is_a_named_error() -> None:
    with (
        pytest.raises(EngineError, match="not an address like sc://"),
        spark_session("spark_connect", "http://somewhere"),
    ):
        pass


def test_an_engine_without_its_address_says_which_variable_to_set() -> None:
    with pytest.raises(EngineError, match="STOCK_LAKEHOUSE_SPARK_REMOTE is not set"), spark_session("spark_connect"):
        pass


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("400000 100000", 4), ("150000 100000", 1), ("50000 100000", 1), (None, 8)],
)
def test_cores_are_those_of_the_machine_within_the_container_s_quota(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert cores(tmp_path / "cpu.max") == expected


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from pyspark.sql import functions as F
from stock_lakehouse.engines import spark_session
with spark_session("embedded") as spark:
    rows = spark.range(10_000).groupBy((F.col("id") % 100).alias("group")).count()
    print(rows.select(F.spark_partition_id()).distinct().count())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not restrict a process to one core")
def test_on_one_core_the_embedded_engine_still_divides_rows() -> None:
    """With a single partition it holds all rows that it reads."""
    found = subprocess.run([sys.executable, "-c", ON_ONE_CORE], capture_output=True, text=True, timeout=120, check=True)
    assert int(found.stdout) == 2
