"""What tests share: one embedded engine a process, a lake in a temporary folder, and a lakehouse on both."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from stock_lakehouse.lake import Lake
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.resources.spark import SparkResource
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests import s3

pytest_plugins = ["stock_lakehouse_tests.faults", "stock_lakehouse_tests.yahoo_server"]


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and so do all processes from there, also those of tests of
    Ctrl-C."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test marked `slice(n)`, n spread evenly run as marked, and the others are soak."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slice") and not item.get_closest_marker("soak"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for alike in cases.values():
        wanted = alike[0].get_closest_marker("slice").args[0]  # type: ignore[union-attr]
        kept = {place * len(alike) // wanted for place in range(wanted)}
        for place, item in enumerate(alike):
            if place not in kept:
                item.add_marker("soak")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test runs in a folder of its own, without lakehouse.toml and STOCK_LAKEHOUSE_* variables."""
    import os

    for name in [name for name in os.environ if name.startswith(("STOCK_LAKEHOUSE_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # a worker of xdist has it, and then lines are broken
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    # Held for the whole session: runs of the same process share it and need not start an engine each.
    engine = SparkResource(engine="embedded")
    yield engine.session
    engine.teardown_after_execution(None)  # type: ignore[arg-type]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The sample's six tickers, a lake in a temporary folder."""
    return Settings(lake_root=tmp_path / "lake", last_date=date(2023, 9, 21))


@pytest.fixture
def house(settings: Settings, spark: SparkSession) -> LakehouseResource:
    """A lakehouse resource as a run has it, on the session's engine."""
    resource = LakehouseResource.of(settings)
    resource.spark._session = spark
    return resource


@pytest.fixture
def sessions(house: LakehouseResource) -> DataFrame:
    return house.sessions


def frame(spark: SparkSession, schema: str, *rows: tuple[object, ...]) -> DataFrame:
    """A readable little frame."""
    return spark.createDataFrame(list(rows), schema)


def bytes_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below `folder` with its inode and time of change: equal before and after means that nothing was written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


def rows_of(frame: DataFrame, *order: str) -> list[dict[str, object]]:
    """The rows of `frame`, ordered, with doubles as they are."""
    table: pa.Table = frame.orderBy(*(order or ("ticker", "date"))).toArrow()
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


@pytest.fixture(scope="session", params=["moto", "weed"])
def s3_bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """s3://, and a bucket on a server to which this process's AWS_* variables lead. Its name is new each time: the engine keeps a
    client a bucket, and another file's tests may start the server anew."""
    name: str = request.param
    if name == "weed" and not s3.WEED:
        pytest.skip(s3.NO_WEED)
    with getattr(s3, name)() as endpoint, s3.variables(s3.environment(endpoint)):
        bucket = f"{name}-{uuid.uuid4().hex[:12]}"
        s3.make_bucket(endpoint, bucket)
        yield f"s3://{bucket}"


@pytest.fixture
def s3_root(s3_bucket: str) -> str:
    """A new place for a lake in the bucket."""
    return f"{s3_bucket}/{uuid.uuid4().hex}/lake"
