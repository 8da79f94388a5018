"""Bulk loads as Databricks jobs by Dagster Pipes, run whole against minilake: what is submitted, what comes back, what stops.

minilake runs a job's script as a process of its own; context and messages go through moto's S3.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.databricks_jobs.order import Order
from stock_lakehouse.definitions import build_definitions
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.lock import one_writer
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.partitions import PartitionScheme, Rectangle
from stock_lakehouse.resources.databricks_jobs import _task
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Databricks, Settings
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, RAW
from stock_lakehouse_tests.engines.minilake import START_SECONDS, Minilake, minilake_server
from stock_lakehouse_tests.graph import LANDINGS, contents
from stock_lakehouse_tests.s3 import environment, make_bucket, moto, variables

BUCKET = "messages"
WHEEL = "/Volumes/main/default/wheels/stock_lakehouse.whl"
COMPUTED = (PROCESSED.name, CURATED.name, FEATURES.name)


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """S3 on loopback, with BUCKET; as variables."""
    with moto() as endpoint, variables(environment(endpoint)):
        make_bucket(endpoint, BUCKET)
        yield environment(endpoint)


@pytest.fixture(scope="module")
def minilake(aws: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minilake]:
    with minilake_server(tmp_path_factory.mktemp("minilake"), aws) as there:
        yield there


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> None:
    """Short waits; and what reads by session, the market checks, reads by the embedded engine: minilake has no Spark Connect."""
    monkeypatch.setattr("stock_lakehouse.resources.spark.spark_session", lambda *_: nullcontext(spark))
    monkeypatch.setenv("DATABRICKS_TOKEN", "of-the-test")
    monkeypatch.setattr("stock_lakehouse.resources.databricks_jobs.POLL_SECONDS", 0.2)
    monkeypatch.setattr("stock_lakehouse.resources.databricks_jobs.READ_SECONDS", 0.2)


Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def run(instance: dg.DagsterInstance) -> Run:
    """Run the job for AAPL and NVDA × four sessions on a lake."""

    def run_assets(settings: Settings, select: Sequence[str]) -> dg.ExecuteInProcessResult:
        scheme = PartitionScheme(settings, market_calendar(settings.first_date))
        asked = scheme.request(("AAPL", "NVDA"), date(2023, 9, 18), date(2023, 9, 21), date(2023, 9, 21))
        definitions = build_definitions(settings, scheme.ticker_order(asked))
        return definitions.resolve_job_def("stock_lakehouse").execute_in_process(
            instance=instance,
            tags=scheme.range_tags(asked),
            asset_selection=[dg.AssetKey(name) for name in select],
            run_config={"loggers": {"progress": {}}},
            raise_on_error=False,
        )

    return run_assets


def said_in(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """Everything that the run's log holds."""
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def near(root: LakeRoot) -> Settings:
    return Settings(lake_root=root, tickers=("AAPL", "NVDA"), last_date=date(2023, 9, 21))


def far(root: LakeRoot, minilake: Minilake, **values: Any) -> Settings:
    given = {"host": minilake.host, "work": "job", "messages": f"s3://{BUCKET}", "wheel": WHEEL, **values}
    return near(root).model_copy(update={"engine": "databricks", "databricks": Databricks.model_validate(given)})


CLUSTERS: dict[str, dict[str, Any]] = {
    "a new cluster": {
        "job_cluster": {"spark_version": "17.3.x-scala2.13", "node_type_id": "i3.xlarge", "num_workers": 1}
    },
    "an existing cluster": {"cluster_id": "1124-163500-abcdefgh"},
    "serverless": {"serverless": True},
}


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {f"{one.asset_key.path[-1]}.{one.check_name}": one.passed for one in result.get_asset_check_evaluations()}


def layers_at(root: LakeRoot) -> dict[str, list[dict[str, Any]]]:
    lake = Lake(root)
    return {
        "processed": without_times(contents(lake.processed)),
        "curated": without_times(contents(lake.curated)),
        "features": contents(lake.features),
    }


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two lakes landed the same rows at different times."""
    return [{name: value for name, value in row.items() if name not in LANDINGS} for row in rows]


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("where", "layers"),
    [
        ("a new cluster", COMPUTED),
        ("serverless", COMPUTED[:1]),
        pytest.param("an existing cluster", COMPUTED[:1], marks=pytest.mark.soak),
    ],
)
def test_a_job_publishes_what_a_session_does_and_its_checks_metadata_and_logs_come_back(
    minilake: Minilake, run: Run, tmp_path: Path, instance: dg.DagsterInstance, where: str, layers: tuple[str, ...]
) -> None:
    root: LakeRoot = "s3://messages/lake" if where == "serverless" else tmp_path / "job"
    settings = far(root, minilake, **CLUSTERS[where])
    assert run(near(root), [RAW.name]).success
    before = len(minilake.runs())
    result = run(settings, layers)
    assert result.success
    assert len(minilake.runs()) == before + len(layers)

    expected = run(near(tmp_path / "session"), [RAW.name, *layers])
    assert layers_at(root) == layers_at(tmp_path / "session")
    own = {name for name in checks_of(expected) if not name.startswith(RAW.name)}
    assert checks_of(result) == {name: checks_of(expected)[name] for name in own}
    assert f"{PROCESSED.name}: 8 rows added, 0 corrected, 0 withdrawn" in said_in(instance, result)
    for name in layers:
        events = [one.asset_materializations_for_node(name) for one in (result, expected)]
        assert len(events[0]) == len(events[1]) == 8
        there, here = ({key: value.value for key, value in event[-1].metadata.items()} for event in events)
        assert there["Databricks Job Run URL"].startswith(minilake.host)
        for key in ("dagster/row_count", "added", "corrected", "withdrawn", "ticker-years written"):
            assert there[key] == here[key]
        assert there["dagster/column_lineage"] == here["dagster/column_lineage"]


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_a_check_that_blocks_stops_the_run_with_its_result_and_nothing_is_published(
    minilake: Minilake, run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "job"
    assert run(near(root), [RAW.name, PROCESSED.name]).success
    [file] = (root / PROCESSED.path).glob("ticker=AAPL/year=2023/*.parquet")
    bars = pq.read_table(file)
    worse = pc.multiply(bars["close"], -1.0)  # what no source can deliver: only the audit of curated stands before it
    pq.write_table(bars.set_column(bars.column_names.index("close"), "close", worse), file)
    result = run(far(root, minilake, serverless=True), [CURATED.name, FEATURES.name])
    assert not result.success
    assert checks_of(result) == {"curated_stocks_daily.schema": False}
    [check] = result.get_asset_check_evaluations()
    assert "close" in str(check.metadata["failures"].value)
    assert not Lake(root).curated.exists()
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "the job published nothing" in str(failure.step_failure_data.error)


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_a_job_that_fails_is_a_named_error_and_its_log_comes_back(
    minilake: Minilake, run: Run, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    root = tmp_path / "job"
    assert run(near(root), [RAW.name]).success
    (root / "processed").write_text("a file where a folder should be")
    result = run(far(root, minilake, serverless=True), [PROCESSED.name])
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "JobError: processed_stocks_daily: the Databricks job failed" in str(failure.step_failure_data.error)
    said = [
        entry.dagster_event.engine_event_data
        for entry in instance.all_logs(result.run_id, dg.DagsterEventType.ENGINE_EVENT)
    ]
    assert any(one.error and "NotADirectoryError" in str(one.error) for one in said)


@pytest.mark.soak
def test_cancelling_the_run_cancels_the_job_and_the_next_run_publishes(
    minilake: Minilake, run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "job"
    assert run(near(root), [RAW.name]).success
    settings = {
        "TICKERS": "AAPL,NVDA", "LAST_DATE": "2023-09-21", "LAKE_ROOT": str(root), "ENGINE": "databricks",
        "DATABRICKS_HOST": minilake.host, "DATABRICKS_CLUSTER_ID": "1124-163500-abcdefgh", "DATABRICKS_WORK": "job",
        "DATABRICKS_MESSAGES": f"s3://{BUCKET}", "DATABRICKS_WHEEL": WHEEL,
    }  # fmt: skip
    named = {f"STOCK_LAKEHOUSE_{name}": value for name, value in settings.items()}
    command = [
        *(sys.executable, "-m", "stock_lakehouse.cli", "materialize", "--select", PROCESSED.name),
        *("--from", "2023-09-18", "--to", "2023-09-21"),
    ]
    given = {**os.environ, **named, "DATABRICKS_TOKEN": "of-the-test"}
    before = {one["run_id"] for one in minilake.runs()}
    with (
        one_writer(root, PROCESSED.name),  # the job computes, then waits
        subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True) as dagster,
    ):
        job = wait_for(minilake.job_process)
        dagster.send_signal(signal.SIGINT)
        assert dagster.stderr is not None
        assert any(line.startswith("Stopped: ") for line in dagster.stderr)
        time.sleep(5)  # the line comes before the request, of which minilake shows nothing until the job has ended
        os.kill(job, signal.SIGKILL)  # as Databricks ends the process of a cancelled run; minilake lets it be
        assert dagster.wait(timeout=60) == 130
    [cancelled] = [one for one in minilake.runs() if one["run_id"] not in before]
    assert cancelled["state"]["result_state"] == "CANCELED"
    assert Lake(root).processed.files() == []
    assert run(near(root), [PROCESSED.name]).success
    assert len(contents(Lake(root).processed)) == 8


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


ORDER = Order(
    "curated_stocks_daily", ["2023-09-21"], ["AAPL"], "a-run", "2024-01-02", {"lake_root": "s3://a-bucket/lake"}
)


def test_a_task_runs_where_the_settings_say_with_the_wheel_installed() -> None:
    def submitted(**values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        databricks = Databricks.model_validate(
            {"messages": "/Volumes/a/b/c", "wheel": WHEEL, "job_minutes": 5, **values}
        )
        task, arguments = _task(ORDER, databricks, "/Workspace/script.py")
        assert task.spark_python_task is not None
        assert task.spark_python_task.python_file == "/Workspace/script.py"
        assert task.timeout_seconds == arguments["timeout_seconds"] == 300
        return task.as_dict(), arguments

    task, _ = submitted(**CLUSTERS["a new cluster"])
    assert task["new_cluster"] == CLUSTERS["a new cluster"]["job_cluster"]
    assert task["libraries"] == [{"whl": WHEEL}]
    task, _ = submitted(**CLUSTERS["an existing cluster"])
    assert task["existing_cluster_id"] == "1124-163500-abcdefgh"
    assert task["libraries"] == [{"whl": WHEEL}]
    task, arguments = submitted(**CLUSTERS["serverless"])
    [environment] = arguments["environments"]
    assert task["environment_key"] == environment.environment_key
    assert environment.spec.dependencies == [WHEEL]
    assert "libraries" not in task


@pytest.mark.parametrize(
    ("engine", "values", "bars", "job"),
    [
        ("databricks", {"work": "job"}, 1, True),
        ("databricks", {"work": "session"}, 10**6, False),
        ("databricks", {"work": "auto", "job_bars": 8}, 8, True),
        ("databricks", {"work": "auto", "job_bars": 9}, 8, False),
        ("databricks", {"work": "auto", "job_bars": 1, "messages": None}, 8, False),
        ("embedded", {"work": "job"}, 10**6, False),
    ],
)
def test_the_number_of_keys_or_the_setting_decides_between_session_and_job(
    tmp_path: Path, engine: str, values: dict[str, Any], bars: int, job: bool
) -> None:
    given = {"serverless": True, "messages": "/Volumes/a/b/c", "wheel": WHEEL, **values}
    settings = near(tmp_path).model_copy(
        update={"engine": engine, "databricks": Databricks.model_validate(given), "tickers": ("AAPL",)}
    )
    house = LakehouseResource.of(settings)
    assert (
        house.is_job(Rectangle(tuple(date.fromordinal(700_000 + day) for day in range(min(bars, 8))), ("AAPL",))) is job
    )


NOT_ON_DATABRICKS = (
    "dagster",
    "confluent_kafka",
    "pysail",
    "databricks",
    "pydantic_settings",
    "typer",
    "rich",
    "sqlalchemy",
    "yfinance",
)


@pytest.mark.slow
def test_a_job_needs_nothing_that_a_cluster_does_not_get_with_the_wheel() -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {NOT_ON_DATABRICKS}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import stock_lakehouse.databricks_jobs.main, stock_lakehouse.databricks_jobs.stream, pandera.pyspark\n"
        "import stock_lakehouse.engines.workers\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_wheel_brings_no_spark_of_its_own_which_would_replace_the_cluster_s() -> None:
    required = [line for line in metadata.requires("stock-lakehouse") or () if "extra ==" not in line]
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in required}
    assert {"ta-lib", "deltalake", "dagster-pipes"} <= names
    assert not {"pyspark", "pysail", "dagster", "databricks-connect"} & names
    assert not any("pyspark" in line for line in required)
