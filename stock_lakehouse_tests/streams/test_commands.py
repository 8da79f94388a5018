"""The commands of the stream as their users meet them, and that nothing of streaming is there while it is off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.lake.bar_table import BarTable
from stock_lakehouse.market_calendar import market_calendar
from stock_lakehouse.settings import SettingsError, Stream, load_settings
from stock_lakehouse.streams import replay
from stock_lakehouse_tests.streams.house import SESSION, StreamHouse, event

CONFIG = '[stream]\nsource = "files"\nfolder = "ticks"\n'


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["stream", *arguments])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    return tmp_path


def test_streaming_is_neither_imported_nor_defined_while_it_is_off(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text("")
    program = """
import sys
import stock_lakehouse.cli
from stock_lakehouse.definitions import defs
rooms = ("streams", "lake.stream", "lake.tick", "lake.bar_table", "lake.loss", "transforms.ticks", "transforms.minute")
print([name for name in sys.modules if name.startswith(tuple(f"stock_lakehouse.{room}" for room in rooms))])
names = {key.path[-1] for key in defs().resolve_asset_graph().get_all_asset_keys()}
print("stocks_features" in names, [name for name in names if "tick" in name or "minute" in name or "stream" in name])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False
    )
    assert done.stdout.splitlines() == ["[]", "True []"], done.stderr


@pytest.mark.parametrize("command", ["drain", "run", "status", "bars", "dead", "retry", "reconcile", "produce"])
def test_a_command_says_what_to_set_while_the_stream_is_off(command: str) -> None:
    answer = call(command)
    assert answer.exit_code == 2
    assert 'stream.source: is off; set source = "files" and folder = "…"' in answer.output


def test_files_need_a_folder(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text('[stream]\nsource = "files"\n')
    with pytest.raises(SettingsError, match="stream: folder: needed with source = 'files'"):
        load_settings()
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    assert load_settings().stream.folder == tmp_path / "ticks"


@pytest.mark.slow
def test_a_newcomer_produces_drains_and_sees_how_the_stream_stands(project: Path) -> None:
    nothing = call("status")
    assert nothing.exit_code == 3
    assert "there is no folder" in nothing.output
    produced = call("produce", "--every", "60", "--late", "0.02", "--duplicate", "0.02", "--poison", "0.02", "--json")
    assert produced.exit_code == 0, produced.output
    count = json.loads(produced.stdout)["messages"]
    assert count > 2 * 390

    before = json.loads(call("status", "--json").stdout)
    assert before["partitions"][0]["lag"] == (project / "ticks" / "stock_ticks.jsonl").stat().st_size
    drained = call("drain")
    assert drained.exit_code == 0, drained.output
    assert drained.output.startswith(f"{count:,} messages = 780 events + ")
    status = call("status")
    assert status.exit_code == 0, status.output
    assert "files:stock_ticks, batch 1, bars of batch 1; no runner" in status.output
    assert "2023-09-21  " in status.output
    found = json.loads(call("status", "--json").stdout)
    assert [part["lag"] for part in found["partitions"]] == [0]
    assert sum(day["messages"] for day in found["days"]) == count
    for day in found["days"]:
        assert day["messages"] == day["events"] + day["duplicates"] + sum(day["reasons"].values())
    assert sum(day["events"] for day in found["days"]) == 780

    bars = json.loads(call("bars", "nvda", "--last", "1000", "--json").stdout)
    assert sum(bar["events"] for bar in bars) == 390
    shown = call("bars", "NVDA", "--last", "2", "--day", "2023-09-21")
    assert [line.split()[:3] for line in shown.output.splitlines() if line.startswith("NVDA")] == [
        ["NVDA", "2023-09-21", "19:58"],
        ["NVDA", "2023-09-21", "19:59"],
    ]
    compared = json.loads(call("reconcile", "--json").stdout)
    assert [(row["ticker"], row["minutes_present"], row["verdict"]) for row in compared] == [
        ("AAPL", 390, "no official bar"),
        ("NVDA", 390, "no official bar"),
    ]

    letters = json.loads(call("dead", "--last", "1000", "--json").stdout)
    assert len(letters) == sum(sum(day["reasons"].values()) for day in found["days"]) > 0
    assert letters[0]["reason"] in call("dead").output


def test_status_names_what_a_runner_would_refuse_and_where_files_lag(project: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(project, spark, root=project / "lakehouse", folder=project / "ticks")
    house.write(event(0), event(1))
    house.drain()
    house.write(event(2))
    with house.running():
        found = call("status", "--json")
        assert found.exit_code == 0, found.output
        said = json.loads(found.stdout)
        assert said["runner"]["process"] == os.getpid()
        assert (said["batch"], said["partitions"][0]["lag"]) == (1, len(event(2)) + 1)
        busy = call("drain")
        assert busy.exit_code == 1
        assert (
            f"another runner of this stream is at work on {said['runner']['host']}, process {os.getpid()}"
            in busy.output
        )
    (house.folder / "a.jsonl").unlink()
    refused = call("status")
    assert refused.exit_code == 3
    assert "a.jsonl is no longer there" in refused.output
    assert '--accept-loss "why"' in refused.output


def test_dead_letters_that_the_present_rules_accept_join_their_bars(tmp_path: Path, spark: SparkSession) -> None:
    house = StreamHouse.made(tmp_path, spark)
    tomorrow = 86400 + 13 * 3600  # of another day than the arrival of its message
    house.write(event(tomorrow, volume=5), event(86400 - 300, volume=7), event(86400 + 630, close=-1))
    house.drain()
    assert [tick["reason"] for tick in house.ticks()] == ["from the future", None, "from the future"]
    house.settings = Stream(**{**house.settings.model_dump(), "ahead_seconds": 86400})
    with house.running() as started:
        assert started.retry() == (2, 2)
    assert [tick["reason"] for tick in house.ticks()] == [None, None, "bad price"]
    assert [(bar["volume"], bar["events"]) for bar in house.bars()] == [(7, 1), (5, 1)]
    house.settings = Stream(**{**house.settings.model_dump(), "late_seconds": 10**6})
    with house.running() as started:
        assert started.retry() == (1, 0)  # nothing changes, so nothing is written
        batch = started.ticks.batch
    house.write(event(tomorrow + 1, volume=1))
    house.drain()
    assert [bar["volume"] for bar in house.bars()] == [7, 6]
    assert len({tick["trade_date"] for tick in house.ticks()}) == 2
    assert {tick["batch"] for tick in house.ticks()} == {1, batch, batch + 1}


@pytest.mark.slow
@pytest.mark.slice(1)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_run_follows_a_growing_file_and_ends_after_its_batch(
    project: Path, number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "ticks").mkdir()
    file = project / "ticks" / "a.jsonl"
    file.write_bytes(event(0) + b"\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "stock_lakehouse", "stream", "run", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project,
        env={**os.environ, "STOCK_LAKEHOUSE_STREAM_TRIGGER_SECONDS": "0.1"},
    )
    try:
        bars = BarTable(project / "lakehouse", 2)
        for events in range(1, 4):
            deadline = time.monotonic() + 60
            while not (bars.exists() and _events(bars) == events):
                assert time.monotonic() < deadline
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            with file.open("ab") as stream:
                stream.write(event(events) + b"\n")
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code, errors
    if number == signal.SIGTERM:
        summary = json.loads(output)
        assert summary["messages"] in (3, 4)
        assert summary["messages"] == summary["events"]
    else:
        assert "Stopped: what was committed stays" in errors


def _events(bars: BarTable) -> int:
    rows = bars.open().to_pyarrow_table().to_pylist()
    return sum(row["events"] for row in rows)


@pytest.mark.parametrize("ticker", ["NVDA", "META"])
def test_the_walk_of_a_session_has_the_daily_bar(ticker: str, tmp_path: Path) -> None:
    (bar,) = replay.sample_bars([ticker], SESSION, SESSION)
    file = tmp_path / "walk.jsonl"
    assert (
        replay.write([list(replay.walk_messages([bar], market_calendar(SESSION), 10, replay.Faults()))], file) == 2340
    )
    events = [json.loads(line) for line in file.read_bytes().splitlines()]
    prices = [float(message["close"]) for message in events]
    assert (prices[0], max(prices), min(prices), prices[-1]) == tuple(
        map(float, (bar.open, bar.high, bar.low, bar.close))
    )
    assert sum(message["volume"] for message in events) == bar.volume
    times = [message["timestamp"] for message in events]
    assert (times[0], times[-1]) == ("2023-09-21T13:30:00+00:00", "2023-09-21T19:59:50+00:00")
    assert len({message["event_id"] for message in events}) == len(events)


def test_the_bars_of_the_sample_are_as_traded() -> None:
    # NVIDIA split 4 for 1 on 2021-07-20. It closed at 751.19 on the 19th, as newspapers said then.
    (before, after) = replay.sample_bars(["NVDA"], date(2021, 7, 19), date(2021, 7, 20))
    assert float(before.close) == pytest.approx(751.19, abs=0.01)
    assert float(after.close) == pytest.approx(186.12, abs=0.01)


def test_the_faults_of_a_walk_are_all_there_and_the_other_messages_too() -> None:
    bars = replay.sample_bars(["NVDA"], SESSION, SESSION)
    calendar = market_calendar(SESSION)
    plain = list(replay.walk_messages(bars, calendar, 10, replay.Faults()))
    odd = list(replay.walk_messages(bars, calendar, 10, replay.Faults(0.05, 0.05, 0.05, seed=1)))
    assert set(plain) < set(odd)
    assert len(odd) > len(plain) * 1.08
    assert [message for message in odd if message in set(plain)] != sorted(plain, key=plain.index)


def test_what_a_killed_producer_left_becomes_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'whole\n{"tick')
    replay.write([[b"next"]], file)
    assert file.read_bytes() == b'whole\n{"tick\nnext\n'
