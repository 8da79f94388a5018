"""Files as partitions of a stream: what they may do, and what is refused because messages would be lost."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.lake.tick_table import GIVEN_UP, Progress
from stock_lakehouse.streams import ExpiredError, LossError, ReplacedError, SourceError
from stock_lakehouse.streams.files import LONGEST_LINE, FilesSource
from stock_lakehouse_tests.streams import killed
from stock_lakehouse_tests.streams.house import NOON, StreamHouse, event
from stock_lakehouse_tests.streams.test_exactly_once import CrashError, crashing

LINE = len(event(0)) + 1


@pytest.fixture
def source(tmp_path: Path) -> FilesSource:
    return FilesSource(tmp_path, "s", lambda: NOON)


def values(source: FilesSource, messages: int = 100, size: int = 10**6) -> list[bytes]:
    found: list[bytes] = source.poll(messages, size, 0).rows["value"].to_pylist()
    return found


def test_a_line_counts_once_its_end_is_there(source: FilesSource, tmp_path: Path) -> None:
    source.open({})
    with (tmp_path / "a.jsonl").open("ab", buffering=0) as file:
        file.write(b"one")
        assert values(source) == []
        assert source.ends() == {}
        file.write(b" line\ntw")
        assert values(source) == [b"one line"]
        (end,) = source.ends().values()
        assert end.position == len(b"one line\n")
        assert source.poll(100, 100, 0).at_end  # half a line is none to read
        file.write(b"o\n\n  \nthree\n")
        assert values(source) == [b"two", b"three"]


def test_a_batch_ends_at_its_number_of_messages_and_at_its_size_and_every_file_has_its_share(
    source: FilesSource, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(b"%s%d\n" % (name.encode(), n) for n in range(50)))
    source.open({})
    first = source.poll(10, 10**6, 0)
    found = first.rows["value"].to_pylist()
    assert sorted(value[:1] for value in found) == [b"a"] * 5 + [b"b"] * 5
    assert not first.at_end
    small = values(source, size=20)
    assert 20 <= sum(map(len, small)) <= 24
    found += small
    while more := values(source, messages=7):
        found += more
    assert sorted(found) == sorted(b"%s%d" % (name, n) for name in (b"a", b"b") for n in range(50))


def test_positions_are_bytes_at_which_lines_begin(source: FilesSource, tmp_path: Path) -> None:
    content = b"first\n\nsecond line\nthird\n"
    (tmp_path / "a.jsonl").write_bytes(content)
    source.open({})
    rows = source.poll(2, 10**6, 0)
    assert [content[int(offset) :].split(b"\n")[0] for offset in rows.rows["offset"].to_pylist()] == [
        b"first",
        b"second line",
    ]
    (position,) = rows.positions.values()
    assert content[position:] == b"third\n"


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_whole(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"x" * (3 * LONGEST_LINE) + b"\nnext\n")
    source.open({})
    first, second = values(source, size=10**8)
    assert (len(first), second) == (LONGEST_LINE, b"next")


def test_a_missing_folder_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no folder .*none; create it, or set stream.folder"):
        FilesSource(tmp_path / "none", "s").open({})


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:LINE]), ReplacedError, f"was cut to {LINE} bytes"),
        (lambda path: path.write_bytes(b""), ReplacedError, "was replaced by a file with another beginning"),
        (
            lambda path: path.write_bytes(event(5) + b"\n" + path.read_bytes()),
            ReplacedError,
            "was replaced by a file with another beginning",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:LINE] + b"x" * 999), ReplacedError, "was overwritten"),
        (lambda path: path.unlink(), ExpiredError, "is no longer there"),
        (lambda path: path.rename(path.with_suffix(".1")), ExpiredError, "is no longer there"),
    ],
)
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.slice(7)
def test_a_file_that_is_not_what_was_read_is_refused_until_somebody_accepts_the_loss(
    house: StreamHouse, damage, error: type[LossError], words: str, running: bool
) -> None:
    house.write(event(0), event(1), event(2))
    path = house.folder / "a.jsonl"
    if running:
        with house.running() as started:
            started.drain(1)
            damage(path)
            with pytest.raises(error, match=words):
                started.step(0)
    else:
        house.drain()
        damage(path)
    with pytest.raises(error, match=words) as refused:
        house.drain()
    assert f"read up to byte {3 * LINE:,}" in str(refused.value)
    assert 'stock-lakehouse stream drain --accept-loss "why"' in str(refused.value)
    assert house.table("raw_ticks").num_rows == 3

    house.write(event(3), event(4), file="b.jsonl")
    house.drain("the disk was full")
    (loss,) = house.table("losses").to_pylist()
    assert (loss["partition"].partition("@")[0], int(loss["from_offset"]), loss["to_offset"]) == (
        "a.jsonl",
        3 * LINE,
        None,
    )
    assert (loss["why"], loss["accepted_at"]) == ("the disk was full", house.now)
    # What can still be read is read, from its start; what had been read before repeats events and changes no bar.
    (bar,) = house.bars()
    present = {line for file in house.folder.glob("*.jsonl") for line in file.read_bytes().split(b"\n")[:-1]}
    wanted = {event(n) for n in range(6)} & (present | {event(0), event(1), event(2)})
    assert bar["events"] == len(wanted)
    house.drain()  # the loss is accepted once and for all
    assert house.table("losses").num_rows == 1
    keys = [(tick["partition"], tick["offset"]) for tick in house.ticks()]
    assert len(set(keys)) == len(keys)


@pytest.mark.soak
def test_kill_9_while_a_loss_is_accepted_leaves_no_silent_loss_and_no_second_line(house: StreamHouse) -> None:
    house.write(event(0), event(1))
    house.drain()
    (house.folder / "a.jsonl").unlink()
    house.write(event(2), file="b.jsonl")
    for step in ("before the loss is written", "after the loss is written"):
        assert killed.start(house, step, accept_loss="why").wait(120) == -signal.SIGKILL
        with pytest.raises(ExpiredError):
            house.drain()
    house.drain("why")
    assert house.table("losses").num_rows == 1
    assert house.bars()[0]["events"] == 3


def test_an_acceptance_that_ends_in_the_middle_is_repeated_and_leaves_one_line(
    house: StreamHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.write(event(0), event(1))
    house.drain()
    (house.folder / "a.jsonl").unlink()
    house.write(event(2), file="b.jsonl")
    with monkeypatch.context() as patched, pytest.raises(CrashError):  # noqa: PT012
        crashing(patched, "after the loss is written", 1)
        house.drain("why")
    with pytest.raises(ExpiredError):
        house.drain()
    house.drain("why")
    assert house.table("losses").num_rows == 1
    assert house.bars()[0]["events"] == 3


def test_a_file_that_was_read_and_quiet_for_an_hour_may_go(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark)
    house.now = datetime.now(UTC)
    house.write(event(0), event(300))
    house.write(event(0), event(300), file="b.jsonl")
    house.drain()
    old = time.time() - 3700
    os.utime(house.folder / "a.jsonl", (old, old))
    house.drain()
    (house.folder / "a.jsonl").unlink()
    house.write(event(400), file="b.jsonl")
    house.drain()
    assert house.table("raw_ticks").num_rows == 5
    # It holds back no minute either: b alone decides.
    assert [bar["state"] for bar in house.bars()] == ["final", "open", "open"]
    (house.folder / "b.jsonl").unlink()
    with pytest.raises(ExpiredError, match=r"b\.jsonl"):
        house.drain()


def test_a_stream_may_begin_at_its_ends(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark, start="latest")
    house.write(event(0), event(1))
    assert house.drain().messages == 0
    house.write(event(2))
    house.write(event(3), file="b.jsonl")  # appears later: from its start
    assert house.drain().messages == 2
    assert sorted(tick["event_time"] for tick in house.ticks()) == [NOON + timedelta(seconds=n) for n in (2, 3)]


def test_another_name_of_the_stream_reads_everything_again_beside_the_first(
    tmp_path: Path, spark: SparkSession
) -> None:
    house = StreamHouse.made(tmp_path, spark)
    house.write(event(0))
    house.drain()
    other = StreamHouse.made(tmp_path, spark, name="other")
    assert other.drain().messages == 1
    assert sorted(tick["source"] for tick in house.ticks()) == ["files:other", "files:stock_ticks"]
    (bar,) = house.bars()
    assert (bar["events"], bar["duplicates"]) == (1, 1)


def test_a_position_beyond_64_bits_goes_through_the_log(house: StreamHouse) -> None:
    """Sequence numbers of Kinesis have 186 bits."""
    house.write(event(0))
    place = Progress((1 << 185) + 12345, NOON, NOON, GIVEN_UP)
    with house.running() as started:
        started.ticks.append_batch(
            started.ticks.no_rows().drop_columns(["batch"]), "kinesis:x", {"shard-0": place}, None
        )
        assert started.ticks.partitions("kinesis:x") == {"shard-0": place}
        assert started.ticks.partitions("files:stock_ticks") == {}
