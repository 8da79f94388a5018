"""A job's layers on a classic PySpark session, which is what a cluster hands a job, in place of Spark Connect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW
from stock_lakehouse_tests.engines.servers import DELTA, IN_PYSPARK, JAVA, java
from stock_lakehouse_tests.graph import NOW, TICKERS, clocked, history, layers, rectangle, run, year_boundary

DAYS = year_boundary(5, 5)
JOBS = """
import json, sys
from stock_lakehouse.databricks_jobs.main import job_session, publish
from stock_lakehouse.databricks_jobs.order import Order
with job_session() as spark:
    kind = type(spark).__module__
    said = []
    for order in json.load(sys.stdin):
        publish(Order.of(order), spark, lambda result: said.append([result.name, result.passed]))
    spark.stop()
print(json.dumps([kind, said]))
"""


def classic_spark(folder: Path) -> dict[str, str]:
    """The variables of a process on a cluster: its runtime's, and those with which PySpark starts a session of its own."""
    configuration = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    arguments = ["--master", "local[2]", "--packages", DELTA, "--exclude-packages", ",".join(IN_PYSPARK)]
    arguments += ["--driver-java-options", "'-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'"]
    arguments += [part for name, value in configuration.items() for part in ("--conf", f"{name}={value}")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    return {
        **clean,
        "DATABRICKS_RUNTIME_VERSION": "17.3",
        "PYSPARK_SUBMIT_ARGS": " ".join([*arguments, "pyspark-shell"]),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


@pytest.mark.engines
@pytest.mark.timeout(600)
def test_the_cluster_s_own_session_publishes_what_the_embedded_engine_does(spark: SparkSession, tmp_path: Path) -> None:
    if java() is None:
        pytest.skip(f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")
    asked, bars = rectangle(DAYS, TICKERS[:1]), history(TICKERS[:1], DAYS)
    near, far = clocked(tmp_path / "near", spark), clocked(tmp_path / "far", spark)
    run(near, asked, bars.values())
    run(far, asked, bars.values(), steps=(RAW.name,))
    orders = [
        Order(
            name=name,
            sessions=[day.isoformat() for day in DAYS],
            tickers=list(asked.tickers),
            run_id="a-run",
            now=NOW.isoformat(),
            options=far.options,
        )
        for name in (PROCESSED.name, CURATED.name, FEATURES.name)
    ]
    done = subprocess.run(
        [sys.executable, "-c", JOBS],
        input=json.dumps([order.extras() for order in orders]),
        env=classic_spark(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=540,
    )
    kind, said = json.loads(done.stdout.splitlines()[-1])
    assert kind == "pyspark.sql.session"
    assert [name for name, _ in said] == [
        "conservation",
        "schema",
        "quarantine_schema",
        "actions_schema",
        "quarantine",
        "schema",
        "corporate_actions_schema",
        "serving_copy",
        "schema",
        "serving_copy",
        "present_formulas",
    ]
    assert all(passed for _, passed in said)
    assert layers(far) == layers(near)
