"""A lake on S3 is the lake in a folder: the same tables, the same increments, whoever writes and whenever it is killed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.readwriter import DataFrameWriter

from stock_lakehouse.engines import spark_session
from stock_lakehouse.lake import lease
from stock_lakehouse.lake.lease import LeaseLostError
from stock_lakehouse.lake.lock import TableBusyError, one_writer
from stock_lakehouse.lake.publish import PublishError
from stock_lakehouse.lake.staging import Staging
from stock_lakehouse.lake.storage import Bucket, File, LakeRoot
from stock_lakehouse.layers.step import Step
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.tables import CURATED, FEATURES, PROCESSED, QUARANTINE, RAW
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.engines.servers import JAVA, java, jvm_server
from stock_lakehouse_tests.graph import (
    TICKERS,
    clocked,
    edited,
    history,
    layers,
    ledger,
    plain,
    raw_contents,
    rectangle,
    run,
    step,
)
from stock_lakehouse_tests.lake.test_concurrent_writers import ALL, ASKED, BARS, DAYS, EDITED, at_once

Rows = list[dict[str, Any]]


def told(house: LakehouseResource) -> Rows:
    """The ledger without what differs between two lakes."""
    return [{name: value for name, value in line.items() if name != "table_id"} for line in ledger(house)]


@pytest.mark.slow
def test_the_layers_on_s3_are_those_of_a_folder_run_after_run(
    spark: SparkSession, tmp_path: Path, s3_root: str
) -> None:
    # Characters that engines escape in the names of folders.
    bars = {**BARS, **history(("A^B", "C=F"), DAYS[20:])}
    changed = edited(edited(bars, ("A^B", DAYS[25]), volume="-1"), ("AAA", DAYS[2]), close=bars["AAA", DAYS[2]]["open"])
    asked = rectangle(DAYS, (*TICKERS, "A^B", "C=F"))
    here, there = (clocked(root, spark, asked.tickers) for root in (tmp_path / "lake", s3_root))
    for house in (here, there):
        run(house, asked, bars.values(), "11111111-run")
    assert layers(there) == layers(here)
    assert raw_contents(there.lake) == raw_contents(here.lake)
    assert {row["ticker"] for row in layers(there)["features"]} == set(asked.tickers)
    assert there.lake.processed.read(spark, ["A^B"]).count() == 40

    before, tags = s3.objects(s3_root), there.lake.version_tags()
    run(there, asked, bars.values(), "22222222-run")
    assert s3.objects(s3_root) == before
    assert there.lake.version_tags() == tags

    for house in (here, there):
        run(house, asked, changed.values(), "33333333-run")
    assert layers(there) == layers(here)
    assert told(there) == told(here) != []
    assert there.lake.version_tags() != tags
    assert raw_contents(there.lake) == raw_contents(here.lake)
    kept = {key: at for key, at in s3.objects(s3_root).items() if key.startswith("raw/")}
    assert kept.items() >= {key: at for key, at in before.items() if key.startswith("raw/")}.items()
    assert there.lake.raw.strangers() == []
    assert [key for key in s3.objects(s3_root) if key.startswith(".staging")] == []


def test_what_is_no_landing_is_never_read_and_is_reported(spark: SparkSession, s3_root: str) -> None:
    house = clocked(s3_root, spark)
    bucket = Bucket(s3_root)
    bucket.create("raw/stocks_daily/ticker=AAA/year=2020/bars.csv", b"symbol,date\nAAA,2020-01-02\n")
    assert house.lake.raw.read(spark).count() == 0
    run(house, rectangle(DAYS[:2], ("AAA",)), BARS.values(), steps=[RAW.name])
    assert house.lake.raw.read(spark).count() == 2
    assert house.lake.raw.strangers() == [f"{s3_root}/raw/stocks_daily/ticker=AAA/year=2020/bars.csv"]


@pytest.mark.soak
def test_processes_that_publish_at_once_end_in_the_tables_of_one_run(
    spark: SparkSession, tmp_path: Path, s3_root: str
) -> None:
    many, one = clocked(s3_root, spark), clocked(tmp_path / "one", spark)
    first = rectangle(DAYS[:45], ("AAA", "BBB"))
    for house in (many, one):
        run(house, first, BARS.values(), "00000000-run")
    run(many, ALL, EDITED.values(), "99999999-run", steps=[RAW.name])
    # Overlapping in sessions, over the year's end.
    with at_once(s3_root, (rectangle(DAYS[:40], TICKERS),), (rectangle(DAYS[20:], TICKERS),)):
        run(one, ALL, EDITED.values(), "99999999-run")
    assert layers(many) == layers(one)
    words = ("ticker", "date", "columns", "old", "new", "rows")

    def curated(house: LakehouseResource) -> list[tuple[Any, ...]]:
        return sorted(
            tuple(line[name] for name in words) for line in ledger(house) if line["table_name"] == CURATED.name
        )

    assert curated(many) == curated(one) != []


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_processes_that_publish_at_once_end_in_the_tables_of_one_run(
    spark: SparkSession, tmp_path: Path, s3_root: str
) -> None:
    one = clocked(tmp_path / "one", spark)
    run(one, ALL, EDITED.values())
    for attempt in range(3):
        many = clocked(f"{s3_root}/{attempt}", spark)
        run(many, ALL, EDITED.values(), steps=[RAW.name])
        with at_once(many.root, *ASKED, *ASKED):
            pass
        assert layers(many) == layers(one)


def test_a_reader_meets_whole_files_while_raw_and_processed_are_written(spark: SparkSession, s3_root: str) -> None:
    house = clocked(s3_root, spark)
    run(house, ALL, BARS.values(), steps=[RAW.name, PROCESSED.name])
    writer = threading.Thread(
        target=run, args=(house, ALL, EDITED.values(), "22222222-run", [RAW.name, PROCESSED.name])
    )
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append({one["open"] for one in house.lake.processed.read(spark, ["AAA"]).select("open").collect()})
        assert {len(row["close"] or "") > 3 for row in raw_contents(house.lake)} == {True}
    writer.join()
    assert {len(one) for one in seen} == {len(DAYS)}


@pytest.fixture
def stale(
    spark: SparkSession, s3_root: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[LakehouseResource, Any]:
    """A run that has computed a layer, and of which another machine takes the lease as soon as it has it."""
    layer: str = request.param
    house = clocked(s3_root, spark)
    run(house, ALL, BARS.values(), "11111111-run")
    order = [RAW.name, PROCESSED.name, CURATED.name, FEATURES.name]
    run(house, ALL, EDITED.values(), "22222222-run", steps=order[: order.index(layer)])
    publish = step(house, layer, ALL, "22222222-run")
    bucket, path = Bucket(s3_root), f".locks/{layer}.step.lease"

    def taken(*_: object) -> None:
        bucket.put(path, json.dumps({"token": "another", "seconds": 0.1}).encode(), bucket.look(path)[1])

    monkeypatch.setattr(Step, "confirm", taken)
    return house, publish


@pytest.mark.slow
@pytest.mark.parametrize("stale", [CURATED.name, pytest.param(PROCESSED.name, marks=pytest.mark.soak)], indirect=True)
def test_a_run_that_lost_its_lease_publishes_nothing(
    stale: tuple[LakehouseResource, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    house, publish = stale
    before, lines, versions = layers(house), ledger(house), house.lake.stored(CURATED.name).version()
    with pytest.raises(LeaseLostError, match="another took its place; nothing more was published, run it again"):
        publish()
    monkeypatch.undo()
    house.teardown_after_execution(None)  # type: ignore[arg-type]
    names = {"processed", "curated", "features"}
    assert {name: layers(house)[name] for name in names} == {name: before[name] for name in names}
    assert house.lake.stored(CURATED.name).version() == versions
    assert ledger(house) == lines
    run(house, ALL, EDITED.values(), "33333333-run")
    assert layers(house)["features"] != before["features"]


@pytest.mark.slow
def test_a_file_that_another_writer_replaced_since_the_comparison_is_not_overwritten(
    spark: SparkSession, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = clocked(s3_root, spark)
    run(house, ALL, BARS.values(), "11111111-run")
    (file, *_) = house.lake.processed.files()
    run(house, ALL, EDITED.values(), "22222222-run", steps=[RAW.name])
    publish = step(house, PROCESSED.name, ALL, "22222222-run")
    replace = Bucket.replace

    def after_another(bucket: Bucket, path: str, content: bytes, there: File | None, draft: str) -> None:
        if path == file.path:
            bucket.put(path, b"another writer's", file.version_tag)
        replace(bucket, path, content, there, draft)

    monkeypatch.setattr(Bucket, "replace", after_another)
    with pytest.raises(
        PublishError, match=r"another writer changed .*/ticker=AAA/year=2019/data\.parquet while this run"
    ):
        publish()
    assert Bucket(s3_root).read(file.path) == b"another writer's"
    house.teardown_after_execution(None)  # type: ignore[arg-type]


@pytest.mark.soak
def test_a_commit_on_s3_that_met_one_its_comparison_did_not_know_is_taken_back(
    spark: SparkSession, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_commit_between_is_taken_back(spark, s3_root, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_commit_that_met_one_its_comparison_did_not_know_is_taken_back_and_compared_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_commit_between_is_taken_back(spark, tmp_path / "lake", tmp_path, monkeypatch)


def a_commit_between_is_taken_back(
    spark: SparkSession, root: LakeRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clocked(tmp_path / "other", spark)
    run(other, ALL, BARS.values(), "11111111-run")
    run(other, ALL, EDITED.values(), "22222222-run")
    house = clocked(root, spark)
    run(house, ALL, BARS.values(), "11111111-run", steps=[RAW.name, PROCESSED.name, CURATED.name])
    run(house, ALL, EDITED.values(), "22222222-run", steps=[RAW.name, PROCESSED.name])
    save, path = DataFrameWriter.save, str(house.lake.curated.path)
    others = iter(["ticker = 'CCC' AND year = 2020"])

    def after_another(writer: Any, target: str, *args: Any, **kwargs: Any) -> None:
        # A writer outside all locks, after the last look at the version and before the engine plans.
        for one in others if target == path else ():
            deltalake.DeltaTable(target).delete(one)
        save(writer, target, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(DataFrameWriter, "save", after_another)
        run(house, ALL, run_id="22222222-run", steps=[CURATED.name, FEATURES.name])
    assert layers(house) == layers(other)
    operations = [one["operation"] for one in deltalake.DeltaTable(path).history()]
    assert operations[:4] == ["WRITE", "RESTORE", "WRITE", "DELETE"]
    assert {(line["ticker"], line["columns"]) for line in ledger(house) if line["table_name"] == CURATED.name} == {
        ("AAA", "close"),
        ("BBB", "volume"),
    }


def test_a_killed_run_is_followed_after_its_lease(
    spark: SparkSession, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 1.0)
    monkeypatch.setattr(one_writer.__wrapped__, "__defaults__", (0.2,))  # type: ignore[attr-defined]
    bucket = Bucket(s3_root)
    bucket.create(f".locks/{RAW.name}.lease", json.dumps({"token": "of the dead", "seconds": 1.5}).encode())
    house, asked = clocked(s3_root, spark), rectangle(DAYS[:2], ("AAA",))
    with pytest.raises(TableBusyError, match=f"^{RAW.name}: another process"):
        run(house, asked, BARS.values(), steps=[RAW.name])
    monkeypatch.setattr(one_writer.__wrapped__, "__defaults__", (30.0,))  # type: ignore[attr-defined]
    run(house, asked, BARS.values(), steps=[RAW.name])
    assert house.lake.raw.read(spark).count() == 2


@pytest.fixture
def jvm(s3_bucket: str, tmp_path: Path) -> Iterator[SparkSession]:
    if java() is None:
        pytest.skip(f"there is no Java {JAVA} or newer (JAVA_HOME, or java on the path)")
    settings = s3.jvm_settings(os.environ["AWS_ENDPOINT_URL"])
    with (
        jvm_server(tmp_path, packages=s3.JVM_PACKAGES, excluded=s3.JVM_EXCLUDED, settings=settings) as server,
        spark_session("spark_connect", server.address) as session,
    ):
        yield session


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_sail_and_spark_on_the_jvm_write_one_lake_on_s3_by_turns_and_at_once(
    spark: SparkSession, jvm: SparkSession, s3_root: str, tmp_path: Path
) -> None:
    tickers, days = ("AAA", "A^B", "C=F"), DAYS[20:40]
    bars = history(tickers, days)
    changed = edited(edited(bars, ("AAA", days[2]), volume="-1"), ("C=F", days[5]), volume="7")
    asked = rectangle(days, tickers)
    ours, one = clocked(s3_root, spark, tickers), clocked(tmp_path / "one", spark, tickers)
    theirs = clocked(s3_root, jvm, tickers)
    theirs._staging = Staging(s3_root)  # as with engine = "spark_connect": where the server reaches it
    run(theirs, rectangle(days[:12], tickers), bars.values(), "11111111-run")
    run(ours, asked, bars.values(), "22222222-run")
    tags = ours.lake.version_tags()
    for house in (theirs, ours):
        run(house, asked, bars.values(), "22222222-run")
    assert ours.lake.version_tags() == tags
    run(theirs, asked, changed.values(), "33333333-run")
    for number, given in ((1, rectangle(days[:12], tickers)), (2, asked), (3, asked)):
        run(one, given, (changed if number == 3 else bars).values(), f"{number}" * 8 + "-run")
    assert values(ours, spark) == values(one, spark)
    assert told(ours) == told(one) != []

    run(ours, asked, bars.values(), "44444444-run", steps=[RAW.name])
    run(one, asked, bars.values(), "44444444-run")
    threads = [
        threading.Thread(
            target=run, args=(house, part, (), "44444444-run", [PROCESSED.name, CURATED.name, FEATURES.name])
        )
        for house, part in ((ours, rectangle(days[:13], tickers)), (theirs, rectangle(days[7:], tickers)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(ours, asked, run_id="44444444-run", steps=[PROCESSED.name, CURATED.name, FEATURES.name])
    assert values(ours, spark) == values(one, spark)


def values(house: LakehouseResource, spark: SparkSession) -> dict[str, Rows]:
    """The layers as one engine reads them: the two write a timestamp of Parquet differently."""
    names = (PROCESSED.name, QUARANTINE.name, CURATED.name, FEATURES.name)
    return {name: plain(house.lake.read(name, spark).toArrow()) for name in names}
