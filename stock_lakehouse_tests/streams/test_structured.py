"""Structured Streaming without a JVM: which settings go with it, what Spark's sources are told, and what their rows mean.

The query itself is tested in engines/test_structured_streaming.py. No source of Kinesis runs outside Databricks: its columns are
those of its documentation.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pyspark.sql import SparkSession

from stock_lakehouse.lake.stream_table import FencedError
from stock_lakehouse.lake.tick_table import Progress
from stock_lakehouse.settings import SettingsError, Stream, load_settings
from stock_lakehouse.streams.batches import CheckpointLostError, messages_of
from stock_lakehouse.streams.order import StreamOrder
from stock_lakehouse.streams.structured import StreamQueryError, StructuredRunner, _since, source_options

NOW = datetime(2026, 11, 20, 15, 31, 41, 250_000, UTC)
FIRST = (
    49_578_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000  # a sequence number, as AWS gives them
)


def order(source: str = "kafka", **more: Any) -> StreamOrder:
    settings = {"source": source, "runner": "structured_streaming", "servers": "a:1,b:2", **more.pop("settings", {})}
    if source == "kinesis":
        del settings["servers"]
    stream = Stream(**settings).model_dump(mode="json", exclude={"password"})
    return StreamOrder(f"{source}:stock_ticks@1", "0f", {"0": 5, "1": 0}, {}, stream, **more)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            '[stream]\nsource = "kafka"\nservers = "a:1"',
            "stream.runner: the embedded engine has no Structured Streaming; set engine",
        ),
        (
            'engine = "spark_connect"\n[stream]\nsource = "kinesis"',
            "stream.runner: Spark has no source for Kinesis, except on",
        ),
        (
            'engine = "spark_connect"\n[stream]\nsource = "files"\nfolder = "ticks"',
            "runner: files that grow are read by the embedded",
        ),
        (
            'engine = "databricks"\n[databricks]\ncluster_id = "c"\n[stream]\nsource = "kafka"\nservers = "a:1"',
            "databricks.messages: stream.runner = 'structured_streaming' runs as a job; set it to a volume's folder",
        ),
        ('engine = "spark_connect"\n[stream]\nsource = "kafka"\nservers = "a:1"', None),
        ("[stream]", None),  # while the stream is off
    ],
)
def test_settings_that_do_not_go_with_structured_streaming_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, message: str | None
) -> None:
    (tmp_path / "lakehouse.toml").write_text(f'{lines}\nrunner = "structured_streaming"\n')
    monkeypatch.setenv("STOCK_LAKEHOUSE_SPARK_REMOTE", "sc://localhost:15002")
    if message is None:
        assert load_settings().stream.runner == "structured_streaming"
        return
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert message in str(refused.value)


def test_kafka_s_source_is_told_where_to_begin_to_fail_on_loss_and_the_password_alone_in_its_login() -> None:
    options = source_options(order(), None, is_databricks=False)
    assert json.loads(options["startingOffsets"]) == {"stock_ticks": {"0": 5, "1": 0}}
    assert options["subscribe"] == "stock_ticks"
    assert (options["failOnDataLoss"], options["kafka.isolation.level"]) == ("true", "read_committed")
    assert options["maxOffsetsPerTrigger"] == "20000"
    assert not any("jaas" in name or "truststore" in name for name in options)

    login = {"security": "sasl_ssl", "user": 'a"b', "password": SecretStr("wo\\rd")}
    secured = order(settings=login, authority="-----BEGIN CERTIFICATE-----")
    assert "wo" + "\\" not in json.dumps(secured.extras())
    for is_databricks, prefix in ((False, ""), (True, "kafkashaded.")):
        options = source_options(secured, "wo\\rd", is_databricks=is_databricks)
        assert options["kafka.sasl.jaas.config"] == (
            f"{prefix}org.apache.kafka.common.security.scram.ScramLoginModule required "
            r'username="a\"b" password="wo\\rd";'
        )
        assert (options["kafka.security.protocol"], options["kafka.sasl.mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
        assert options["kafka.ssl.truststore.certificates"] == "-----BEGIN CERTIFICATE-----"


def test_kinesis_source_begins_at_the_time_up_to_which_every_shard_was_read() -> None:
    seen = NOW - timedelta(hours=1)
    known = {
        "shard-0": Progress(FIRST, None, NOW, seen=NOW),
        "shard-1": Progress(FIRST, None, seen),
        "shard-2": Progress(FIRST, None, NOW - timedelta(hours=9), ended=1),  # read to its end
    }
    since = _since({"shard-0": FIRST, "shard-1": FIRST}, known)
    assert since == "2026-11-20T14:31:40.250000+00:00"
    options = source_options(order("kinesis", since=since, region="eu-central-1"), None, is_databricks=True)
    assert json.loads(options.pop("initialPosition")) == {
        "at_timestamp": "11/20/2026 14:31:40 UTC", "format": "MM/dd/yyyy HH:mm:ss ZZZ",
    }  # fmt: skip
    assert options == {"streamName": "stock_ticks", "region": "eu-central-1"}
    # A shard that was never read: everything. With `start = "latest"` a position is a time in milliseconds.
    assert _since({"shard-0": FIRST, "shard-9": 0}, known) is None
    latest = int(NOW.timestamp() * 1000)
    assert _since({"shard-9": latest}, {}) == "2026-11-20T15:31:40.250000+00:00"
    options = source_options(order("kinesis", region="eu-central-1"), None, is_databricks=True)
    assert options["initialPosition"] == "TRIM_HORIZON"


def test_rows_of_kinesis_source_become_messages_and_what_was_read_before_is_left_out(spark: SparkSession) -> None:
    columns = "partitionKey string, data binary, stream string, shardId string, sequenceNumber string, "
    columns += "approximateArrivalTimestamp timestamp"
    rows = [
        ("NVDA", b"{}", "stock_ticks", shard, str(FIRST + number), NOW)
        for shard, number in [("shard-0", 0), ("shard-0", 1), ("shard-0", 2), ("shard-1", 0)]
    ]
    known = {"shard-0": Progress(FIRST + 1), "shard-2": Progress(FIRST)}
    found = messages_of(spark.createDataFrame(rows, columns), order("kinesis"), known, NOW)
    assert sorted(map(tuple, found.collect())) == [
        ("kinesis:stock_ticks@1", "shard-0", f"{FIRST + number:056}", NOW.replace(tzinfo=None), b"{}")
        for number in (1, 2)
    ] + [("kinesis:stock_ticks@1", "shard-1", f"{FIRST:056}", NOW.replace(tzinfo=None), b"{}")]


def test_rows_of_kafka_s_source_arrive_by_the_broker_s_time_and_by_a_producer_s_only_up_to_now(
    spark: SparkSession,
) -> None:
    columns = (
        "key binary, value binary, topic string, partition int, offset bigint, timestamp timestamp, timestampType int"
    )
    ahead, before = NOW + timedelta(hours=1), datetime(1970, 1, 1, tzinfo=UTC)
    rows = [
        (None, b"a", "stock_ticks", 1, 7, NOW - timedelta(seconds=1), 0),
        (None, None, "stock_ticks", 1, 8, ahead, 0),
        (None, b"c", "stock_ticks", 1, 9, before, 0),
        (None, b"d", "stock_ticks", 1, 10, ahead, 1),
    ]
    found = messages_of(spark.createDataFrame(rows, columns), order(), {}, NOW)
    arrived = [NOW - timedelta(seconds=1), NOW, NOW, ahead]
    assert sorted(map(tuple, found.collect())) == [
        ("kafka:stock_ticks@1", "1", f"{offset:020}", time.replace(tzinfo=None), value)
        for offset, time, value in zip(range(7, 11), arrived, [b"a", b"", b"c", b"d"], strict=True)
    ]


def test_an_error_of_a_batch_comes_back_by_its_name_and_another_one_in_a_line(
    spark: SparkSession, tmp_path: Path
) -> None:
    of_lake = StreamOrder(**{**order().extras(), "options": {"lake_root": str(tmp_path)}})

    class Source:
        name = "kafka:stock_ticks@1"

        def open(self, known: Any) -> None:
            """Nothing was lost."""

    started = StructuredRunner(of_lake, Source(), spark, lambda: NOW)  # type: ignore[arg-type]
    started.ticks.prepare()
    traceback = "[FOREACH_BATCH] …\n  File …\nstock_lakehouse.lake.stream_table.FencedError: raw_ticks: why\n at"
    error = started._named(RuntimeError(traceback))
    assert (type(error), str(error)) == (FencedError, "raw_ticks: why")
    error = started._named(RuntimeError("x.CheckpointLostError: gone"))
    assert (type(error), str(error)) == (CheckpointLostError, "gone")
    error = started._named(RuntimeError("Something\n  " + "long " * 1000))
    assert isinstance(error, StreamQueryError)
    assert len(str(error)) < 600
    assert "\n" not in str(error)


def test_an_order_reaches_a_job_as_json_and_holds_no_password() -> None:
    given = order(settings={"security": "sasl_ssl", "user": "u", "password": SecretStr("secret")}, follows=True)
    there = StreamOrder.of(json.loads(json.dumps(given.extras())))
    assert there == given
    assert (there.name, there.stream_settings.late_seconds) == ("stream_run", 120)
    assert "secret" not in json.dumps(given.extras())
