"""A data stream of Kinesis, on its emulator: every message once, whatever dies, and a named refusal where messages are gone."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse import aws
from stock_lakehouse.cli import app, doctor
from stock_lakehouse.lake import stream_table
from stock_lakehouse.lake.tick_table import GIVEN_UP, READ_TO_END, LostRowsError, TickTable
from stock_lakehouse.settings import SettingsError, load_settings
from stock_lakehouse.streams import (
    ExpiredError,
    RecreatedError,
    SourceError,
    SourceUnavailableError,
    kinesis,
    status,
)
from stock_lakehouse.streams.kinesis import KinesisSource
from stock_lakehouse.streams.replay import Faults
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.kinesis_server import Answer, Edge, Forward, kinesis_server, refused
from stock_lakehouse_tests.not_run import or_skipped
from stock_lakehouse_tests.streams import killed
from stock_lakehouse_tests.streams.house import event
from stock_lakehouse_tests.streams.kinesis_house import KinesisHouse
from stock_lakehouse_tests.streams.test_exactly_once import CRASHES, CrashError, crashing

soak = pytest.mark.soak  # CI has no time for it
FAULTS = Faults(late=0.02, duplicate=0.02, poison=0.02, seed=7)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with or_skipped("an emulator of Kinesis", kinesis_server(tmp_path_factory.mktemp("kinesis"))) as edge:
        yield edge


@pytest.fixture
def edge(server: Edge) -> Iterator[Edge]:
    """The emulator; every request of the test was one that AWS's model allows."""
    server.reset()
    server.requests.clear()
    with s3.variables(server.environment):
        yield server
    assert server.requests
    assert server.faults == []


@pytest.fixture
def house(
    tmp_path: Path, spark: SparkSession, edge: Edge, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> KinesisHouse:
    """A stream of two shards in batches of 300 messages."""
    monkeypatch.setattr(stream_table, "PAUSE_SECONDS", 0.0)
    name = re.sub(r"\W+", "-", request.node.name)[:80]
    return KinesisHouse.at(tmp_path, spark, edge, name, 2, batch_messages=300, compact_batches=3)


def calls(edge: Edge, operation: str) -> list[dict[str, Any]]:
    return [body for _, name, body in edge.requests if name == operation]


# Exactness


@pytest.mark.slow
def test_every_message_is_read_once_over_split_merge_and_a_kill_at_each_step(
    house: KinesisHouse, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = house.walks(["NVDA", "AAPL"], 60, FAULTS)
    third = len(one) // 3

    def killed_at(step: str) -> None:
        with monkeypatch.context() as patched, pytest.raises(CrashError):  # noqa: PT012
            crashing(patched, step, 1)
            house.drain()

    house.send(*one[:third], place=0.1)
    house.send(*other[:third], place=0.9)
    killed_at(CRASHES[0])
    house.split(0)  # of shard 0 the shards 2 and 3 are made
    house.send(*one[third : 2 * third : 2], place=0.1)
    house.send(*one[third + 1 : 2 * third : 2], place=0.4)
    killed_at(CRASHES[1])
    house.merge(3, 1)  # of them shard 4
    house.send(*one[2 * third :], place=0.1)
    house.send(*other[third:], place=0.9)
    killed_at(CRASHES[2])
    killed_at(CRASHES[3])
    house.drain()
    house.check()
    ticks = house.ticks()
    assert {tick["partition"][-1] for tick in ticks} == set("01234")
    assert {len(tick["offset"]) for tick in ticks} == {56}
    arrived = {place: at for place, (_, at) in house.records().items()}
    assert {(tick["partition"], tick["offset"]): tick["arrival_time"] for tick in ticks} == arrived
    # Positions of 186 bits come back whole, and the parents are known to be read to their end.
    table = TickTable(house.options, 2)
    table.begin()
    found = table.partitions(house.source().name)
    last: dict[str, int] = {}
    for shard, number in arrived:
        last[shard] = max(last.get(shard, 0), int(number))
    assert {shard: progress.position for shard, progress in found.items()} == {
        shard: number + 1 for shard, number in last.items()
    }
    assert max(last.values()).bit_length() == 186
    assert {shard[-1] for shard, progress in found.items() if progress.ended == READ_TO_END} == set("013")
    assert house.drain().messages == 0


@soak
@pytest.mark.parametrize("step", ["after ticks"])
def test_kill_9(house: KinesisHouse, step: str) -> None:
    for place, walk in zip((0.1, 0.9), house.walks(["NVDA", "AAPL"], 90, FAULTS), strict=True):
        house.send(*walk, place=place)
    assert killed.start(house, step, 1).wait(120) == -signal.SIGKILL
    house.split(1)
    house.drain()
    house.check()


@soak
@pytest.mark.parametrize("seed", range(4))
def test_kill_9_at_random_over_splits_and_merges(house: KinesisHouse, seed: int) -> None:
    dice = random.Random(seed)
    kills, walks = 0, house.walks(["NVDA", "AAPL"], 10, FAULTS)
    parts = [[walk[n : n + 100] for n in range(0, len(walk), 100)] for walk in walks]
    while kills < 10 and all(parts):
        for place, walk in zip((0.1, 0.9), parts, strict=True):
            house.send(*walk.pop(0), place=place)
        open_shards = [
            n for n, shard in enumerate(house.shards()) if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        ]
        if len(open_shards) < 5:
            house.split(dice.choice(open_shards))
        kills += killed.killed_at_random(house, dice)
    house.drain()
    house.check()


@soak
def test_a_child_waits_for_its_parents_and_goes_on_their_newest_event(house: KinesisHouse) -> None:
    house.send(event(0), event(600), place=0.1)
    house.send(event(600, ticker="AAPL"), place=0.9)
    house.split(0)
    house.send(event(300, event_id="late"), event(601), place=0.1)
    house.send(event(602), place=0.4)
    with closing(house.source()) as source:
        source.open({})
        first = source.poll(100, 10**6, 0)
        assert {name[-1] for name in first.rows["partition"].to_pylist()} == {"0", "1"}
        assert {name[-1] for name in first.ended} == {"0"}
        assert {name[-1] for name in first.unread} == {"2", "3"}
        second = source.poll(100, 10**6, 0)
        assert {name[-1] for name in second.rows["partition"].to_pylist()} == {"2", "3"}
        assert {name[-1]: [one[-1] for one in parents] for name, parents in second.parents.items()} == {
            "2": ["0"],
            "3": ["0"],
        }
    house.drain()
    house.check()
    assert [tick["event_id"] for tick in house.ticks() if tick["late"]] == ["late"]


@soak
def test_latest_begins_with_what_comes_from_now_on(house: KinesisHouse) -> None:
    house.send(event(0), place=0.1)
    time.sleep(0.05)
    house.settings = house.settings.model_copy(update={"start": "latest"})
    assert house.drain().messages == 0
    house.send(event(60, volume=7), place=0.1)
    house.send(event(60, volume=8), place=0.9)
    house.drain()
    assert sorted(tick["volume"] for tick in house.ticks()) == [7, 8]


@soak
def test_a_message_that_the_producer_library_has_joined_is_a_dead_letter(house: KinesisHouse) -> None:
    # The magic number of the KPL, a message of Protocol Buffers, and its MD5.
    house.send(b"\xf3\x89\x9a\xc2" + b"\x0a\x04NVDA\x1a\x10" + bytes(16), event(0), place=0.1)
    counts = house.drain()
    assert (counts.events, dict(counts.reasons)) == (1, {"not UTF-8": 1})


@soak
def test_a_shard_is_read_less_than_five_times_a_second(house: KinesisHouse, edge: Edge) -> None:
    with closing(house.source()) as source:
        source.open({})
        source.poll(10, 10**6, 0)
        edge.requests.clear()
        source.poll(10, 10**6, 1.5)
    reads = [when for when, name, _ in edge.requests if name == "GetRecords"]
    assert 8 <= len(reads) <= 16  # of two shards
    # Of each shard every second read.
    assert min(later - earlier for earlier, later in zip(reads, reads[2:], strict=False)) > 0.2


@soak
def test_shards_are_listed_page_by_page(house: KinesisHouse, edge: Edge) -> None:
    def paged(operation: str, body: dict[str, Any], forward: Forward) -> Answer:
        return forward({**body, "MaxResults": 1} if operation == "ListShards" else body)

    edge.act = paged
    house.send(event(0), place=0.1)
    house.send(event(0), place=0.9)
    assert house.drain().messages == 2
    assert any("NextToken" in body and "StreamName" not in body for body in calls(edge, "ListShards"))


# What goes away by itself


@soak
def test_throttling_and_expired_iterators_pass(house: KinesisHouse, edge: Edge) -> None:
    for place, walk in zip((0.1, 0.9), house.walks(["NVDA", "AAPL"], 90), strict=True):
        house.send(*walk, place=place)
    reads, made = 0, Counter[str]()

    def troubled(operation: str, body: dict[str, Any], forward: Forward) -> Answer | None:
        nonlocal reads
        if operation == "GetRecords":
            reads += 1
            if reads in (2, 3):
                made["throttled"] += 1
                return refused("ProvisionedThroughputExceededException", "Rate exceeded for shard")
            if reads == 6:
                made["expired"] += 1
                return refused("ExpiredIteratorException", "Iterator expired")
            if reads == 8:
                made["lost"] += 1
                forward(body)
                return None
        return forward(body)

    edge.act = troubled
    house.drain()
    edge.reset()
    house.check()
    assert made.keys() == {"throttled", "expired", "lost"}


@soak
def test_throttling_that_stays_is_a_named_error(
    house: KinesisHouse, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "ATTEMPTS", 2)
    house.send(event(0), place=0.1)
    edge.act = lambda operation, body, forward: (
        refused("ProvisionedThroughputExceededException", "Rate exceeded for shard")
        if operation == "GetRecords"
        else forward(body)
    )
    with pytest.raises(SourceUnavailableError, match="after 2 attempts: Rate exceeded for shard"):
        house.drain()
    edge.reset()
    assert house.drain().messages == 1


@soak
def test_iterators_that_always_expire_are_a_named_error(
    house: KinesisHouse, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis, "READ_SECONDS", 0.0)
    edge.act = lambda operation, body, forward: (
        refused("ExpiredIteratorException", "Iterator expired") if operation == "GetRecords" else forward(body)
    )
    with closing(house.source()) as source:
        source.open({})
        with pytest.raises(SourceUnavailableError, match="expired 5 times in a row"):
            source.poll(10, 10**6, 0)


# What somebody has to decide


@pytest.mark.slow
def test_what_expired_during_a_pause_is_refused_until_it_is_accepted(house: KinesisHouse) -> None:
    """AWS begins at the trim horizon without a word. The clock moves, since no message of the emulator gets old."""
    house.client.increase_stream_retention_period(StreamName=house.settings.name, RetentionPeriodHours=72)
    house.send(event(0), place=0.1)
    house.send(event(0), place=0.9)
    house.drain()
    house.send(event(60), place=0.1)
    house.ahead = 60 * HOUR
    with closing(house.source()) as source:
        source.open(_known(house))
    # Somebody makes it shorter.
    house.client.decrease_stream_retention_period(StreamName=house.settings.name, RetentionPeriodHours=48)
    with pytest.raises(
        ExpiredError, match=r"keeps messages for 48 hours: .* are gone, if there were any \(and 1 more\)"
    ):
        house.drain()
    found = status.status_of(house.options, 2, house.source(), 1)
    assert found.refusal is not None
    assert "48 hours" in found.refusal
    assert house.drain("over the holidays").messages == 1
    house.check_ticks()
    lost = house.table("losses").to_pylist()
    assert {(line["partition"][-1], line["why"]) for line in lost} == {
        ("0", "over the holidays"),
        ("1", "over the holidays"),
    }
    assert house.drain().messages == 0


@soak
def test_a_stream_that_was_silent_and_watched_has_lost_nothing(house: KinesisHouse) -> None:
    house.send(event(0), place=0.1)
    house.drain()
    version = TickTable(house.root, 2).version()
    house.drain()
    assert TickTable(house.root, 2).version() == version  # looking costs no commit
    house.ahead = 20 * HOUR
    house.drain()  # finds nothing, and says so in the table
    house.ahead = 40 * HOUR
    house.send(event(60), place=0.1)
    assert house.drain().messages == 1
    house.check_ticks()


def _known(house: KinesisHouse) -> dict[str, Any]:
    table = TickTable(house.options, 2)
    table.begin()
    return table.partitions(house.source().name)


def without_shards(endings: str) -> Callable[[str, dict[str, Any], Forward], Answer]:
    """What an edge does from whose list of shards those are missing whose names end in one of the characters `endings`."""

    def listed(operation: str, body: dict[str, Any], forward: Forward) -> Answer:
        code, answer = forward(body)
        if operation == "ListShards":
            answer["Shards"] = [shard for shard in answer["Shards"] if shard["ShardId"][-1] not in endings]
        return code, answer

    return listed


@soak
@pytest.mark.parametrize("read_before", [True, False])
def test_a_parent_that_is_no_longer_listed(house: KinesisHouse, edge: Edge, read_before: bool) -> None:
    house.send(event(0), place=0.1)
    house.send(event(0), place=0.9)
    house.drain()
    house.split(0)
    house.send(event(60), place=0.1)
    house.send(event(60), place=0.4)
    if read_before:
        assert house.drain().messages == 2

    edge.act = without_shards("0")
    if read_before:
        house.send(event(120), place=0.1)
        assert house.drain().messages == 1
        return
    with pytest.raises(ExpiredError, match="shardId-000000000000 is no longer listed, and was not known to be read"):
        house.drain()
    assert house.drain("nobody looked").messages == 2
    assert {name[-1]: progress.ended for name, progress in _known(house).items() if progress.ended} == {"0": GIVEN_UP}
    assert house.drain().messages == 0


@soak
def test_a_generation_of_shards_that_came_and_went_between_is_a_loss(house: KinesisHouse, edge: Edge) -> None:
    house.send(event(0), place=0.1)
    house.split(0)  # 2, 3
    house.drain()
    house.split(2)  # 4, 5
    house.split(4)  # 6, 7
    house.send(event(60), place=0.05)

    edge.act = without_shards("04")
    with pytest.raises(
        ExpiredError, match="shardId-000000000004, of which shardId-000000000006 was made, is no longer"
    ):
        house.drain()
    assert house.drain("accepted").messages == 1
    assert house.drain().messages == 0


@soak
def test_a_stream_that_was_made_anew_is_refused_until_that_is_accepted(house: KinesisHouse) -> None:
    house.send(event(0, volume=1), place=0.1)
    house.drain()
    former = house.source().name
    with house.running() as started:
        house.delete()
        with pytest.raises(SourceError, match="there is no such stream in us-east-1"):
            _poll_for(started, 20)
        house.create(2)
        with pytest.raises(RecreatedError, match="it was deleted and made anew"):
            _poll_for(started, 20)
    house.send(event(60, volume=2), place=0.1)
    with pytest.raises(RecreatedError, match=re.escape(former)):
        house.drain()
    assert house.drain("made larger").messages == 1
    assert sorted((tick["source"] == former, tick["volume"]) for tick in house.ticks()) == [(False, 2), (True, 1)]
    assert house.drain().messages == 0


def _poll_for(started: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started.step(0.5)


@soak
def test_missing_rights_credentials_and_regions_are_named(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    source = KinesisSource("nowhere")
    with closing(source), pytest.raises(SourceError, match=r"there is no such stream in us-east-1.*create it"):
        source.open({})
    edge.act = lambda *_: refused(
        "AccessDeniedException",
        "User: arn:aws:iam::1:user/x is not authorized to perform: kinesis:DescribeStreamSummary on resource: "
        "arn:aws:kinesis:us-east-1:1:stream/nowhere because no identity-based policy allows the "
        "kinesis:DescribeStreamSummary action",
    )
    right = "the right kinesis:DescribeStreamSummary on arn:aws:kinesis:us-east-1:1:stream/nowhere is missing"
    with closing(KinesisSource("nowhere")) as source, pytest.raises(SourceError, match=right):
        source.open({})
    edge.act = lambda *_: refused(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    )
    with closing(KinesisSource("nowhere")) as source, pytest.raises(SourceError, match="does not take the credentials"):
        source.open({})
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with closing(KinesisSource("nowhere")) as source, pytest.raises(SourceError, match="You must specify a region"):
        source.open({})


@pytest.mark.slow
def test_a_restored_table_gets_its_rows_back_as_far_as_the_stream_has_them(house: KinesisHouse, edge: Edge) -> None:
    one, other = house.walks(["NVDA", "AAPL"], 60, FAULTS)
    house.send(*one[:200], place=0.1)
    house.send(*other[:200], place=0.9)
    house.drain()
    early = len(house.ticks())
    house.split(0)
    house.send(*one[200:], place=0.1)
    house.send(*other[200:], place=0.9)
    house.drain()
    ticks, bars = house.ticks(), house.bars()
    house.restore_ticks(early)
    with pytest.raises(LostRowsError, match=rf"has {early} rows, .* stream refill"):
        house.drain()
    done = house.refill()
    assert (done.found, done.read_again, done.lost) == (early, len(ticks) - early, 0)
    house.check()
    assert [{**tick, "batch": 0} for tick in house.ticks()] == [{**tick, "batch": 0} for tick in ticks]
    assert house.bars() == bars
    # Of the shard that was split nothing is left, and AWS begins with what is there of the others.
    house.restore_ticks(0)

    edge.act = without_shards("0")
    of_parent = [tick for tick in ticks if tick["partition"][-1] == "0"]
    done = house.refill()
    assert (done.found, done.read_again, done.lost) == (0, len(ticks) - len(of_parent), len(of_parent))
    (loss,) = house.table("losses").to_pylist()
    assert loss["partition"][-1] == "0"
    assert int(loss["from_offset"]) == int(of_parent[0]["offset"])
    assert int(loss["to_offset"]) == int(of_parent[-1]["offset"]) + 1
    assert house.drain().messages == 0


# The producer


@soak
def test_the_producer_sends_again_what_was_not_taken_and_what_was_not_answered(house: KinesisHouse, edge: Edge) -> None:
    walks = house.walks(["NVDA", "AAPL"], 60)
    sent = [message for pair in zip(*walks, strict=True) for message in pair]
    puts = 0

    def troubled(operation: str, body: dict[str, Any], forward: Forward) -> Answer | None:
        nonlocal puts
        if operation != "PutRecords":
            return forward(body)
        puts += 1
        if puts == 1:  # it came, and its answer is lost
            forward(body)
            return None
        if puts == 3:  # every third is not taken
            taken = [record for number, record in enumerate(body["Records"]) if number % 3]
            _, answer = forward({**body, "Records": taken})
            answers = iter(answer["Records"])
            failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
            records = [next(answers) if number % 3 else failed for number in range(len(body["Records"]))]
            return 200, {"FailedRecordCount": len(records) - len(taken), "Records": records}
        return forward(body)

    edge.act = troubled
    pauses: list[float] = []
    assert kinesis.produce(house.settings.name, [sent], pauses.append) == len(sent)
    edge.reset()
    assert (puts, pauses) == (4, [kinesis.PAUSE_SECONDS])
    found = Counter(house.messages().values())
    assert found.keys() == set(sent)
    assert sorted(set(found.values())) == [1, 2]  # those whose answer was lost
    # A ticker is in one shard.
    shards = {(shard, json.loads(value)["ticker"]) for (shard, _), value in house.messages().items()}
    assert len(shards) == 2
    counts = house.drain()
    assert (counts.events, counts.duplicates) == (len(sent), 500)


@soak
def test_the_producer_gives_up_with_a_named_error(house: KinesisHouse, edge: Edge) -> None:
    def full(operation: str, body: dict[str, Any], forward: Forward) -> Answer:
        if operation != "PutRecords":
            return forward(body)
        failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
        return 200, {"FailedRecordCount": len(body["Records"]), "Records": [failed] * len(body["Records"])}

    edge.act = full
    pauses: list[float] = []
    with pytest.raises(SourceUnavailableError, match=r"did not take 2 messages in 8 attempts .*; 0 were delivered"):
        kinesis.produce(house.settings.name, [[event(0), b"\xff"]], pauses.append)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0])


def test_a_request_has_no_more_than_aws_takes() -> None:
    requests = list(kinesis._requests([b"x" * 900_000] * 9 + [b"y"] * 1001))
    assert [len(records) for records in requests] == [4, 4, 500, 500, 2]
    assert sum(map(len, requests)) == 1010


# Commands


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stream", *arguments])


@soak
def test_a_newcomer_produces_drains_and_sees_how_it_stands(house: KinesisHouse, tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text(f'[stream]\nsource = "kinesis"\nname = "{house.settings.name}"\n')
    produced = call("produce", "--tickers", "NVDA,AAPL", "--every", "120", "--json")
    assert produced.exit_code == 0, produced.output
    sent = json.loads(produced.stdout)
    assert sent["stream"] == house.settings.name
    found = doctor._stream(load_settings())
    assert (found.state, found.detail.endswith(" has 2 partitions")) == ("ok", True), found
    behind = json.loads(call("status", "--json").stdout)
    assert [part["lag"] for part in behind["partitions"]] == [None, None]
    assert any(part["waiting_since"] for part in behind["partitions"])
    parts = status.status_of(house.options, 2, house.source(), 1).partitions
    assert [part.is_behind for part in parts] == [part.waiting_since is not None for part in parts]
    drained = call("drain", "--json")
    assert drained.exit_code == 0, drained.output
    assert json.loads(drained.stdout)["messages"] == sent["messages"]
    after = call("status", "--json")
    assert after.exit_code == 0
    assert [part["waiting_since"] for part in json.loads(after.stdout)["partitions"]] == [None, None]
    house.delete()
    missing = call("drain")
    assert (missing.exit_code, len(missing.output.strip().splitlines())) == (3, 1)
    assert doctor._stream(load_settings()).state == "broken"


def test_kinesis_needs_the_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lakehouse.toml").write_text('[stream]\nsource = "kinesis"\n')
    monkeypatch.setenv("STOCK_LAKEHOUSE_SIMULATED_CLOCK", str(tmp_path / "now"))
    with pytest.raises(SettingsError, match="simulated_clock: Kinesis needs the real time"):
        load_settings()
