"""Rows that raw_ticks lost come back from the stream, and what the stream no longer has is a named loss."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.checks.stream import conservation_of, positions_of
from stock_lakehouse.cli import app
from stock_lakehouse.lake import stream_table
from stock_lakehouse.lake.tick_table import LostFilesError, LostRowsError
from stock_lakehouse.streams import SourceError
from stock_lakehouse.streams.runner import StreamTimeoutError
from stock_lakehouse.streams.status import status_of
from stock_lakehouse_tests.streams.house import StreamHouse, event
from stock_lakehouse_tests.streams.test_exactly_once import FAULTS, CrashError, crashing


@pytest.fixture
def house(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> StreamHouse:
    monkeypatch.setattr(stream_table, "PAUSE_SECONDS", 0.0)
    return StreamHouse.made(tmp_path, spark, batch_messages=100)


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def test_a_restored_table_gets_its_rows_back_and_goes_on(house: StreamHouse) -> None:
    house.walk(["NVDA", "AAPL"], 120, FAULTS)
    house.walk(["META"], 120, FAULTS, file="b.jsonl")
    house.drain()
    bars, count = house.bars(), len(house.ticks())
    house.restore_ticks(200)
    with pytest.raises(
        LostRowsError, match=rf"has 200 rows, and its positions stand for {count}.*stream refill"
    ) as error:
        house.drain()
    found = status_of(house.options, 2, house.source(), 2)
    assert found.refusal == str(error.value)
    assert sum(day.messages for day in found.days) == 200  # it is still read
    done = house.refill()
    assert (done.expected, done.found, done.read_again, done.lost) == (count, 200, count - 200, 0)
    house.check()
    assert without(house.bars(), "latest_close") == without(bars, "latest_close")
    assert not (house.tmp / "lake" / "stream" / "losses").exists()
    # Nothing is refused any more, and nothing is read twice.
    assert house.drain().messages == 0
    house.walk(["GOOG"], 120)
    assert house.drain().messages > 0
    house.check()
    again = house.refill()
    assert (again.found, again.read_again) == (again.expected, 0)


@pytest.mark.slice(2)
@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_lost_file_is_refused_and_its_rows_come_back(house: StreamHouse, which: int, how: str) -> None:
    house.walk(["NVDA", "AAPL"], 120, FAULTS)
    house.walk(["META"], 120, FAULTS, file="b.jsonl")
    house.drain()
    bars, count = house.bars(), len(house.ticks())
    file = house.tick_files()[which]
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    with pytest.raises(LostFilesError, match=rf"{file.name} .*stream refill"):
        house.drain()
    found = status_of(house.options, 2, house.source(), 1)
    assert (found.refusal is None, found.days) == (False, [])
    done = house.refill()
    assert (done.damaged_files, done.found + done.read_again, done.lost) == (1, count, 0)
    assert done.read_again > 0
    house.check()
    assert without(house.bars(), "latest_close") == without(bars, "latest_close")
    assert house.drain().messages == 0


def test_a_file_that_is_lost_under_a_runner_s_feet_is_refused_by_name(house: StreamHouse) -> None:
    house.write(event(0), event(1))
    house.drain()
    with house.running() as started:
        house.tick_files()[0].unlink()
        house.write(event(2))
        with pytest.raises(LostFilesError, match="is missing"):
            started.step(0)
    # The tick of the batch came, and its bar did not.
    assert house.refill().read_again == 2
    house.check()


STEPS = ["after a file is taken out", "before ticks", "after ticks", "before bars", "after bars"]


@pytest.mark.slice(3)
@pytest.mark.parametrize("step", STEPS)
def test_a_refill_that_ends_at_any_step_is_done_by_the_next_one(
    house: StreamHouse, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    house.walk(["NVDA"], 30, FAULTS)
    house.drain()
    bars, count = house.bars(), len(house.ticks())
    house.restore_ticks(300)
    house.tick_files()[0].unlink()
    with monkeypatch.context() as patched, pytest.raises(CrashError):  # noqa: PT012
        crashing(patched, step, 1)
        house.refill()
    with pytest.raises((LostRowsError, LostFilesError)):
        house.drain()
    done = house.refill()
    assert (done.expected, done.lost) == (count, 0)
    house.check()
    assert without(house.bars(), "latest_close") == without(bars, "latest_close")
    assert house.drain().messages == 0


def test_what_the_stream_no_longer_has_is_a_named_loss_and_bars_follow(house: StreamHouse) -> None:
    house.settings = house.settings.model_copy(update={"batch_messages": 50})
    house.write(*(event(60 * number, volume=number) for number in range(100)))
    house.drain()
    house.write(*(event(60 * number + 1, "AAPL", volume=number) for number in range(30)), file="b.jsonl")
    house.write(*(event(60 * number + 1, volume=1000) for number in range(100, 120)))
    house.drain()
    gone = {tick["offset"] for tick in house.ticks() if tick["partition"].startswith("b.jsonl")}
    end = (house.folder / "b.jsonl").stat().st_size
    house.restore_ticks(100)
    (house.folder / "b.jsonl").unlink()
    done = house.refill()
    assert (done.found, done.expected, done.read_again, done.lost) == (100, 150, 20, 30)
    (loss,) = house.table("losses").to_pylist()
    assert loss["partition"].startswith("b.jsonl@")
    assert (int(loss["from_offset"]), int(loss["to_offset"])) == (int(min(gone)), end)
    assert "b.jsonl is no longer there" in loss["cause"]
    assert "30 rows" in loss["cause"]
    assert loss["why"].startswith("stream refill")
    # The bars are what the rows say that are there.
    assert {bar["ticker"] for bar in house.bars()} == {"NVDA"}
    assert sum(bar["events"] for bar in house.bars()) == 120
    with house.running(accept_loss="the file is gone") as started:
        started.drain(1)
        assert conservation_of(started.ticks, started.bars).passed
        assert positions_of(started.ticks).passed
    assert house.refill().lost == 0
    assert len(house.table("losses").to_pylist()) == 2  # and what the runner asked for: the rest of the file


@pytest.mark.slice(2)
@pytest.mark.parametrize("step", ["before the loss is written", "after the loss is written", "before ticks"])
def test_a_refill_that_ends_beside_its_losses_writes_each_once(
    house: StreamHouse, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    house.write(event(0), event(60))
    house.drain()
    house.write(event(120), event(180), file="b.jsonl")
    house.drain()
    house.restore_ticks(2)
    (house.folder / "b.jsonl").unlink()
    with monkeypatch.context() as patched, pytest.raises(CrashError):  # noqa: PT012
        crashing(patched, step, 1)
        house.refill()
    with pytest.raises(LostRowsError):
        house.drain()
    assert house.refill().lost == 2
    (loss,) = house.table("losses").to_pylist()
    assert loss["from_offset"] == f"{0:020}"
    assert [bar["events"] for bar in house.bars()] == [1, 1]


def test_rows_that_are_missing_without_a_gap_in_the_stream_are_a_loss_by_their_number(house: StreamHouse) -> None:
    house.write(*(event(60 * number) for number in range(4)))
    house.drain()
    # A message less, and all positions behind it are others: nothing says which row was which message.
    table = house.delta("raw_ticks")
    table.delete("volume = 0 AND minute = '2023-09-21 16:01:00Z'")
    house.write(b"", file="a.jsonl")
    lines = (house.folder / "a.jsonl").read_bytes().split(b"\n")
    lines[1] = b" " * len(lines[1])
    (house.folder / "a.jsonl").write_bytes(b"\n".join(lines))
    assert (house.refill().read_again, house.refill().lost) == (0, 0)
    (loss,) = house.table("losses").to_pylist()
    assert (loss["partition"], loss["cause"]) == (
        "* after batch 1",
        "raw_ticks has 3 rows, and its positions stood for 4",
    )
    assert house.drain().messages == 0


def test_a_lost_file_can_be_accepted_without_reading_again(house: StreamHouse) -> None:
    house.write(event(0), event(1))
    house.drain()
    house.write(event(60), event(61))
    house.drain()
    house.tick_files()[0].unlink()
    assert house.drain("it is old").messages == 0
    assert [tick["event_time"].minute for tick in house.ticks()] == [1, 1]
    assert [(bar["minute"].minute, bar["events"]) for bar in house.bars()] == [(1, 2)]
    (loss,) = house.table("losses").to_pylist()
    assert (loss["partition"], loss["why"]) == ("* after batch 2", "it is old")
    house.write(event(120))
    assert house.drain().messages == 1


def test_what_was_removed_with_its_day_stays_away(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark, keep_ticks_days=2)
    house.now += timedelta(days=30)
    house.write(*(event(86400 * day, volume=day) for day in range(5)))
    house.drain()
    house.write(event(86400 * 4 + 60, volume=9))
    house.drain()
    table = house.delta("raw_ticks")
    removed = next(commit["version"] for commit in table.history() if commit["operation"] == "DELETE")
    table.restore(removed - 1)  # five rows: those of the days that were removed since, and not the newest one
    with pytest.raises(LostRowsError, match=r"has 5 rows, and its positions stand for 4.*removed since"):
        house.drain()
    done = house.refill()
    assert (done.lost, [tick["volume"] for tick in house.ticks()]) == (0, [2, 3, 4, 9])
    # A lost file of a day that is kept, and no more than that.
    (file,) = [path for path in house.tick_files() if "2023-09-24" in str(path)]
    file.unlink()
    done = house.refill()
    assert (done.read_again, done.lost, [tick["volume"] for tick in house.ticks()]) == (1, 0, [2, 3, 4, 9])
    assert [bar["volume"] for bar in house.bars()] == [0, 1, 2, 3, 4, 9]
    assert house.drain().messages == 0


def test_messages_from_before_the_first_run_are_not_brought_in(house: StreamHouse) -> None:
    house.settings = house.settings.model_copy(update={"start": "latest"})
    house.write(event(0), event(1))
    house.drain()
    house.write(event(60), event(61))
    house.drain()
    house.write(event(120))
    house.drain()
    house.tick_files()[0].unlink()
    done = house.refill()
    assert (done.read_again, done.lost) == (2, 0)
    assert [tick["event_time"].minute for tick in house.ticks()] == [1, 1, 2]


def test_a_folder_that_is_away_is_refused_and_nothing_is_given_up(house: StreamHouse) -> None:
    house.write(event(0), event(1))
    house.drain()
    house.restore_ticks(0)
    (house.tmp / "elsewhere").mkdir()
    house.folder.rename(house.tmp / "moved")
    with pytest.raises(SourceError, match="there is no folder"):
        house.refill()
    (house.tmp / "moved").rename(house.folder)
    assert house.refill().read_again == 2
    house.check()


def test_a_refill_that_has_no_time_left_gives_nothing_up(house: StreamHouse) -> None:
    house.write(event(0), event(1))
    house.drain()
    house.restore_ticks(0)
    with pytest.raises(StreamTimeoutError, match="what came back stays"):
        house.refill(0)
    assert house.refill().read_again == 2
    house.check()


def test_the_command_says_what_came_back(tmp_path: Path, spark: SparkSession) -> None:
    (tmp_path / "lakehouse.toml").write_text('[stream]\nsource = "files"\nfolder = "ticks"\nidle_seconds = 10000000\n')
    house = StreamHouse.made(tmp_path, spark, root=tmp_path / "lakehouse", folder=tmp_path / "ticks")

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["stream", *arguments])

    house.write(event(0), event(1))
    house.drain()
    house.write(event(60))
    house.drain()
    whole = call("refill")
    assert (whole.exit_code, "3 rows" in whole.output, "nothing is missing" in whole.output) == (0, True, True)
    house.restore_ticks(2)
    refused = call("drain")
    assert refused.exit_code == 3
    assert "stock-lakehouse stream refill" in refused.output
    assert '--accept-loss "why"' in refused.output
    done = call("refill", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {name: found[name] for name in ("expected", "found", "read_again", "lost", "damaged_files")} == {
        "expected": 3,
        "found": 2,
        "read_again": 1,
        "lost": 0,
        "damaged_files": 0,
    }
    house.check()
    house.restore_ticks(2)
    said = call("refill")
    assert "raw_ticks had 2 of 3 rows: 1 were read again. 1 bars computed." in said.output
    assert "its positions stand for 3" in said.output  # progress
