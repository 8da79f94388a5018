"""The real daemon, with the real sensors, on a temporary lake: each sensor is driven here, not only its function."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stock_lakehouse.cli.live_demo import run_live_demo
from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.coverage import read_coverage
from stock_lakehouse.market_calendar import market_calendar, utc_now
from stock_lakehouse.partitions import RANGE_END, RANGE_START, Rectangle
from stock_lakehouse.runs.run import run_rectangle
from stock_lakehouse.settings import Settings, load_settings
from stock_lakehouse_tests.automation.daemon import Daemon, daemon

CALENDAR = market_calendar(date(2023, 1, 3))
SESSIONS = CALENDAR.between(date(2023, 9, 1), date(2023, 9, 21))
HEADER = "Date,Open,High,Low,Close,Adj Close,Volume\n"


def lines(sessions: tuple[date, ...]) -> str:
    return "".join(f"{day},{10 + day.day},{12 + day.day},{9 + day.day},{11 + day.day},10,1000\n" for day in sessions)


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A JSON endpoint on loopback with a secret in its address, and what it received."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/s3cret-t0ken", received
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def being_written(path: Path) -> Iterator[None]:
    """`path` grows by a line twice a second."""
    stop = threading.Event()

    def write() -> None:
        with path.open("a", encoding="utf-8") as file:
            for day in (*SESSIONS, *SESSIONS * 200):
                file.write(lines((day,)))
                file.flush()
                if stop.wait(0.5):
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def held(folder: Path) -> dict[str, Any]:
    lake = Lake(folder / "lake")
    return read_coverage(lake.features, lake.curated, CALENDAR)


def diagnosis(watched: Daemon) -> Any:
    """The newest evaluation of gap_diagnosis of the run that the gap sensor asked for."""
    [run] = watched.finished(asked_by="gap_sensor")
    records = watched.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    [check] = [
        one.event_log_entry.dagster_event.event_specific_data
        for one in records
        if one.event_log_entry.dagster_event.event_specific_data.check_name == "gap_diagnosis"
    ]
    return check


CSV = """\
tickers = ["AAPL", "NVDA", "META"]
first_date = 2023-09-01
last_date = 2023-09-21
source = "csv"
csv_folder = "prices"
lake_root = "lake"
automation = "sensor"
sensor_interval_seconds = 1
csv_stable_seconds = 3
session_retry_minutes = 0.05
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_failures_and_gaps_are_seen_to_by_the_daemon(tmp_path: Path) -> None:
    """One daemon for csv_folder_sensor, run_failure_sensor and gap_sensor: it takes seconds to start."""
    (folder := tmp_path / "prices").mkdir()
    (folder / "AAPL.csv").write_text(HEADER + lines(SESSIONS))
    (folder / "NVDA.csv").write_text(HEADER + lines(SESSIONS[:6] + SESSIONS[7:]))  # the vendor has no 2023-09-12
    (folder / "notes.csv").write_text("this is no price file\n")
    (folder / "META.csv").write_text(HEADER)
    (obstacle := tmp_path / "lake" / "processed" / "stocks_daily").parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder must be")
    with (
        webhook() as (address, received),
        being_written(folder / "META.csv"),
        daemon(tmp_path, CSV, {"STOCK_LAKEHOUSE_WEBHOOK_URL": address}) as watched,
    ):
        # The run for the stable files fails: one message. Its cause is mended: the sensor asks again by itself.
        watched.wait(lambda: received)
        obstacle.unlink()
        watched.wait(lambda: held(tmp_path).keys() == {"AAPL", "NVDA"})
        # A file that is being written has not been asked for, and a bad one has stopped nothing.
        asked = watched.finished(asked_by="csv_folder_sensor")
        assert asked
        assert not any("META" in key for run in asked for key in (run.tags[RANGE_START], run.tags[RANGE_END]))
        [observation] = watched.instance.fetch_observations(dg.AssetKey("raw_stocks_daily"), limit=10).records
        assert "notes.csv: the file has no header" in str(observation.asset_observation.metadata["problem"].value)
        # The gap is asked for again, and diagnosed in that run.
        watched.wait(lambda: watched.finished(asked_by="gap_sensor"))
        check = diagnosis(watched)
        assert not check.passed
        rows = [one.data for one in check.metadata["rows"].records]
        assert len(rows) == 1, rows
        [row] = rows
        assert (row["ticker"], row["first"], row["looks"]) == ("NVDA", "2023-09-12", "vendor gap")
        assert row["asked again"] == 1
        gap_run = watched.finished(asked_by="gap_sensor")[0]
        assert gap_run.tags[RANGE_START] == gap_run.tags[RANGE_END] == "2023-09-12|NVDA"
        [message] = received
        assert message["assets"] == ["processed_stocks_daily"]
        assert message["keys"] == "2023-09-01 to 2023-09-21 of AAPL, NVDA"
        assert message["link"].endswith(f"/runs/{message['run_id']}")
        assert watched.errors("csv_folder_sensor") == watched.errors("gap_sensor") == []
        secret = address.rsplit("/", 1)[1]
        assert secret not in watched.log.read_text()
        states = watched.instance.all_instigator_state()
        assert all(secret not in str(state) for state in states)
        assert secret not in str([watched.ticks(state.instigator_name) for state in states])


@pytest.mark.slow
@pytest.mark.parametrize(
    "sessions",
    [
        pytest.param(1, id="one", marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
        pytest.param(10, id="ten", marks=[pytest.mark.soak, pytest.mark.timeout(3000)]),
    ],
)
def test_the_live_demonstration_brings_in_session_after_session(tmp_path: Path, sessions: int) -> None:
    """new_market_day_sensor, driven by the real daemon under a simulated clock."""
    said: list[str] = []
    first = date(2023, 9, 1) if sessions == 1 else date(2022, 11, 1)
    settings = Settings(lake_root=tmp_path / "lakehouse")
    brought = run_live_demo(settings, sessions, said.append, first)
    assert [one.session for one in brought[1:]] == list(SESSIONS[-sessions:])
    assert len({one.run_id for one in brought}) == sessions + 1
    assert [after.bars - before.bars for before, after in pairwise(brought)] == [6] * sessions
    assert any("next close 2023-09-21 20:00 UTC" in line for line in said)


DECLARATIVE = """\
tickers = ["AAPL", "NVDA"]
first_date = {first}
source = "csv"
csv_folder = "prices"
lake_root = "lake"
partition_by = "session"
automation = "declarative"
sensor_interval_seconds = 1
"""


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_what_lands_in_raw_goes_through_every_layer_by_the_conditions(tmp_path: Path) -> None:
    """automation_condition_sensor in the real daemon, which goes by the real time: so the newest finished sessions."""
    first = utc_now().date() - timedelta(days=60)
    calendar = market_calendar(first)
    newest = calendar.between(first, calendar.latest_finished(utc_now(), timedelta(minutes=30)))[-3:]
    (folder := tmp_path / "prices").mkdir()
    for ticker in ("AAPL", "NVDA"):
        (folder / f"{ticker}.csv").write_text(HEADER + lines(newest))
    with daemon(tmp_path, DECLARATIVE.format(first=first)) as watched:
        watched.wait(lambda: watched.ticks("automation_condition_sensor"))
        settings = load_settings()
        assert run_rectangle(settings, Rectangle(newest, settings.tickers), ["raw_stocks_daily"]).success
        watched.wait(lambda: held(tmp_path).keys() == {"AAPL", "NVDA"})
        watched.wait(lambda: watched.instance.get_latest_materialization_event(dg.AssetKey("restatements")))
        assert {(one.first, one.last) for one in held(tmp_path).values()} == {(newest[0], newest[-1])}
        assert watched.errors("automation_condition_sensor") == []
