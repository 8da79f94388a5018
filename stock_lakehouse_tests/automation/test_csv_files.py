"""Watched files: when they are stable, what is new in them, and what is asked again after a failed run."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stock_lakehouse.automation.csv_files import (
    Seen,
    again,
    contents_of,
    csv_folder_sensor,
    fingerprint,
    look_at,
    seen_from,
    seen_text,
)
from stock_lakehouse.automation.decisions import Plan
from stock_lakehouse.instance.run_tags import ASKED_BY
from stock_lakehouse.partitions import RANGE_END, RANGE_START
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources.csv_folder import CsvFolderSource

NOW = datetime(2023, 9, 22, 12, 0, tzinfo=UTC)
STABLE = timedelta(seconds=30)
DUE = date(2023, 9, 21)
HEADER = "Date,Open,High,Low,Close,Volume\n"
TICKERS = ("AAPL", "NVDA")


def row(day: str) -> str:
    return f"{day},1,3,1,2,7\n"


def test_a_file_is_read_once_it_has_not_changed_for_a_while_and_not_again() -> None:
    seen: dict[str, Seen] = {}
    ready_at = []
    for seconds, size in ((0, 10), (10, 20), (20, 30), (40, 30), (50, 30), (60, 30), (90, 30)):
        now = NOW + timedelta(seconds=seconds)
        look = look_at(now, {"AAPL.csv": (size, size)}, seen, STABLE, DUE)
        seen = look.memory
        assert look.ready or look.unstable or seconds > 50
        if look.ready:
            ready_at.append(seconds)
            seen["AAPL.csv"] = replace(seen["AAPL.csv"], settled=True)
    assert ready_at == [50]


def test_a_file_with_the_same_size_and_a_new_time_is_looked_at_again_and_one_that_is_gone_is_forgotten() -> None:
    seen = {"AAPL.csv": Seen(10, 1, NOW, settled=True), "NVDA.csv": Seen(10, 1, NOW, settled=True)}
    look = look_at(NOW, {"AAPL.csv": (10, 2)}, seen, STABLE, DUE)
    assert (list(look.memory), look.ready, look.unstable) == (["AAPL.csv"], [], ["AAPL.csv"])


def test_the_cursor_holds_what_was_seen() -> None:
    seen = {"AAPL.csv": Seen(10, 1, NOW, True, 10, "ab", ("key", "k"), 1, DUE), "é\udcff.csv": Seen(1, 2, NOW)}
    assert seen_from(seen_text(seen)) == seen
    assert seen_from(None) == {}
    with pytest.raises(ValueError, match="reset it"):
        seen_from("[]")


def test_a_grown_file_is_known_by_its_beginning_and_only_whole_new_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "AAPL.csv"
    path.write_text(HEADER + row("2023-09-20"))
    size = path.stat().st_size
    digest, grown = fingerprint(path, size, Seen(size, 1, NOW))
    assert not grown
    before = Seen(size, 1, NOW, True, size, digest)
    with path.open("a") as file:
        file.write(row("2023-09-21"))
    new, grown = fingerprint(path, path.stat().st_size, before)
    assert grown
    assert new != digest
    assert contents_of(CsvFolderSource(tmp_path), path, TICKERS, size).spans == {"AAPL": (date(2023, 9, 21),) * 2}
    assert contents_of(CsvFolderSource(tmp_path), path, TICKERS).spans == {
        "AAPL": (date(2023, 9, 20), date(2023, 9, 21))
    }
    path.write_text(HEADER + row("2023-09-19") + row("2023-09-21"))
    assert not fingerprint(path, path.stat().st_size, before)[1]


def test_what_a_file_holds_goes_by_the_sessions_that_its_dates_mean(tmp_path: Path) -> None:
    path = tmp_path / "AAPL.csv"
    head = HEADER + row("09/20/2023")
    path.write_text(head + row("10/02/2023") + row("45293"))
    source = CsvFolderSource(tmp_path)
    assert contents_of(source, path, TICKERS).spans == {"AAPL": (date(2023, 9, 20), date(2023, 10, 2))}
    # The new lines alone do not say which of 10 and 02 is the month; those before do.
    assert contents_of(source, path, TICKERS, len(head)).spans == {"AAPL": (date(2023, 10, 2),) * 2}
    path.write_text(HEADER + row("10/02/2023"))
    found = contents_of(source, path, TICKERS)
    assert (found.spans, found.problems) == ({}, 1)
    assert found.problem.startswith("AAPL.csv line 2: the file's dates may be day first or month first")


def test_files_of_a_failed_run_are_read_again_after_a_pause_and_not_for_ever() -> None:
    plan = Plan(TICKERS, date(2023, 1, 3), None, timedelta(), session_attempts=3, session_pause=timedelta(minutes=15))
    seen = {
        "AAPL.csv": Seen(10, 1, NOW, True, 10, "ab", ("key",)),
        "NVDA.csv": Seen(10, 1, NOW, True, 10, "ab", ("other",)),
    }
    retried = again(NOW, seen, set(), {"key"}, plan, STABLE)
    assert retried["NVDA.csv"] == seen["NVDA.csv"]
    assert again(NOW, seen, {"other"}, set(), plan, STABLE)["NVDA.csv"] == replace(seen["NVDA.csv"], asked=())
    files = {"AAPL.csv": (10, 1), "NVDA.csv": (10, 1)}
    assert look_at(NOW + timedelta(minutes=14), files, retried, STABLE, DUE).ready == []
    assert look_at(NOW + timedelta(minutes=15), files, retried, STABLE, DUE).ready == ["AAPL.csv"]
    spent = {"AAPL.csv": replace(seen["AAPL.csv"], retries=2)}
    assert again(NOW, spent, set(), {"key"}, plan, STABLE) == spent


def test_the_sensor_asks_for_the_tickers_and_sessions_of_its_files_and_names_the_bad_one(tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text(HEADER + row("2023-09-18") + row("2023-09-20"))
    (tmp_path / "many.csv").write_text("Symbol," + HEADER + "NVDA," + row("2023-09-21") + "MSFT," + row("2023-09-21"))
    (tmp_path / "broken.csv").write_text("nothing,of,use\n")
    (tmp_path / "early.csv").write_text("Symbol," + HEADER + "AAPL," + row("1999-01-04"))
    settings = Settings(
        source="csv", csv_folder=tmp_path, tickers=TICKERS, first_date=date(2023, 9, 1), last_date=date(2023, 9, 21),
        csv_stable_seconds=0, lake_root=tmp_path / "lake", automation="sensor",
    )  # fmt: skip
    sensor = csv_folder_sensor(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        assert {(one.tags[RANGE_START], one.tags[RANGE_END]) for one in result.run_requests or ()} == {
            ("2023-09-01|AAPL", "2023-09-20|AAPL"),
            ("2023-09-21|NVDA", "2023-09-21|NVDA"),
        }
        [event] = result.asset_events
        assert event.metadata["file"].value == "broken.csv"
        second = sensor(dg.build_sensor_context(instance=instance, cursor=result.cursor))
        assert isinstance(second, dg.SensorResult)
        assert "4 files, none new or changed" in str(second.skip_reason)
        os.utime(tmp_path / "AAPL.csv", ns=(1, 1))  # touched: another time, the same text
        third = sensor(dg.build_sensor_context(instance=instance, cursor=second.cursor))
        assert isinstance(third, dg.SensorResult)
        assert not third.run_requests


def test_a_file_of_problems_is_told_of_in_one_line_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a\n\x1b[31mb.csv").write_text(HEADER + "no bar\n" * 1_000)
    (tmp_path / "early\n.csv").write_text("Symbol," + HEADER + "MSFT," + row("2023-09-20"))
    settings = Settings(
        source="csv", csv_folder=tmp_path, tickers=TICKERS, first_date=date(2023, 9, 1), last_date=date(2023, 9, 21),
        csv_stable_seconds=0, lake_root=tmp_path / "lake", automation="sensor",
    )  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        result = csv_folder_sensor(settings)(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SensorResult)
    assert sorted(str(event.description) for event in result.asset_events) == [
        r"a\n\x1b[31mb.csv line 2: 1 fields where the header has 6, and 999 more lines",
        r"early\n.csv: no row is of a ticker of the settings",
    ]
    assert {str(event.metadata["file"].value) for event in result.asset_events} == {
        r"a\n\x1b[31mb.csv",
        r"early\n.csv",
    }


def test_a_run_leaves_a_file_alone_that_may_be_half_written(tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text(HEADER + row("2023-09-20"))
    (tmp_path / "NVDA.csv").write_text(HEADER + row("2023-09-20"))
    os.utime(tmp_path / "AAPL.csv", (1, 1))
    given = CsvFolderSource(tmp_path, 30).deliver(TICKERS, date(2023, 9, 1), date(2023, 9, 21))
    assert {ticker for one in given for ticker in one.rows["ticker"].to_pylist()} == {"AAPL"}


def folder_settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings(
        source="csv", csv_folder=tmp_path, tickers=TICKERS, first_date=date(2023, 9, 1), csv_stable_seconds=0,
        lake_root=tmp_path / "lake", automation="sensor", **more,
    )  # fmt: skip


def reason(result: dg.SensorResult) -> str | None:
    assert result.skip_reason is None or isinstance(result.skip_reason, dg.SkipReason)
    return result.skip_reason.skip_message if result.skip_reason else None


class Clock:
    """The time as a test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        monkeypatch.setattr("stock_lakehouse.automation.sensors.clock_of", lambda _: lambda: self.now)


def test_sessions_that_were_not_due_when_their_file_was_read_are_requested_once_when_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Close of NYSE in September: 20:00 UTC; grace: 30 minutes. Rows of three sessions stand in the files at once.
    clock = Clock(monkeypatch)
    (tmp_path / "AAPL.csv").write_text(HEADER + row("2023-09-19") + row("2023-09-20"))
    (tmp_path / "day.csv").write_text(
        "Symbol," + HEADER + "NVDA," + row("2023-09-20") + "AAPL," + row("2023-09-22") + "NVDA," + row("2023-09-22")
    )
    sensor = csv_folder_sensor(folder_settings(tmp_path))
    requested, cursor, reasons, keys = [], None, [], []
    with dg.DagsterInstance.ephemeral() as instance:
        for day, hour, minute in (
            (20, 20, 10), (20, 20, 29), (20, 20, 30), (20, 20, 31), (21, 12, 0), (22, 20, 29), (22, 21, 0), (25, 12, 0)
        ):  # fmt: skip
            clock.now = datetime(2023, 9, day, hour, minute, tzinfo=UTC)
            if day == 21:  # it grows while a session of its beginning is not due
                with (tmp_path / "day.csv").open("a") as file:
                    file.write("NVDA," + row("2023-09-19"))
            result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
            assert isinstance(result, dg.SensorResult)
            cursor = result.cursor
            reasons.append(reason(result) or "")
            keys += [request.run_key for request in result.run_requests or ()]
            requested += [
                (day, hour, minute, request.tags[RANGE_START], request.tags[RANGE_END])
                for request in result.run_requests or ()
            ]
    assert requested == [
        (20, 20, 10, "2023-09-19|AAPL", "2023-09-19|AAPL"),
        (20, 20, 30, "2023-09-20|AAPL", "2023-09-20|NVDA"),
        (21, 12, 0, "2023-09-19|NVDA", "2023-09-19|NVDA"),
        (22, 21, 0, "2023-09-22|AAPL", "2023-09-22|NVDA"),
    ]
    assert len(set(keys)) == len(keys)
    assert "2 files hold sessions that are not due yet, the next 2023-09-20: AAPL.csv, day.csv" in reasons[1]
    assert reasons[-1] == "2 files, none new or changed"


def test_a_cursor_of_an_older_version_does_not_hide_a_session_that_became_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    path = tmp_path / "AAPL.csv"
    path.write_text(HEADER + row("2023-09-05") + row("2023-09-20"))
    stat = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seen = [stat.st_size, stat.st_mtime_ns, "2023-09-20T20:10:00+00:00", 1, stat.st_size, digest, "key", 0]
    sensor = csv_folder_sensor(folder_settings(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        clock.now = datetime(2023, 9, 21, 12, tzinfo=UTC)
        result = sensor(dg.build_sensor_context(instance=instance, cursor=json.dumps({"AAPL.csv": seen})))
        assert isinstance(result, dg.SensorResult)
        [request] = result.run_requests or ()
        assert request.tags[RANGE_START] == request.tags[RANGE_END] == "2023-09-20|AAPL"
        second = sensor(dg.build_sensor_context(instance=instance, cursor=result.cursor))
        assert isinstance(second, dg.SensorResult)
        assert reason(second) == "1 files, none new or changed"


def test_a_failed_run_is_requested_again_although_the_file_was_requested_anew_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    (tmp_path / "AAPL.csv").write_text(HEADER + row("2023-09-19") + row("2023-09-20"))
    sensor = csv_folder_sensor(folder_settings(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:

        def look(hour: int, minute: int, cursor: str | None) -> dg.SensorResult:
            clock.now = datetime(2023, 9, 20, hour, minute, tzinfo=UTC)
            result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
            assert isinstance(result, dg.SensorResult)
            return result

        first = look(20, 10, None)
        second = look(20, 30, first.cursor)
        ends = (first, dg.DagsterRunStatus.FAILURE), (second, dg.DagsterRunStatus.SUCCESS)
        for result, status in ends:
            [request] = result.run_requests or ()
            tags = {**request.tags, "dagster/run_key": str(request.run_key)}
            instance.create_run_for_job(done_job, status=status, tags=tags)
        for _ in range(60):  # newer failures of other files do not push it out
            tags = {ASKED_BY: "csv_folder_sensor", "dagster/run_key": "other-0"}
            instance.create_run_for_job(done_job, status=dg.DagsterRunStatus.FAILURE, tags=tags)
        waiting = look(20, 31, second.cursor)
        assert reason(waiting) == "1 files will be read again because their run failed: AAPL.csv"
        third = look(20, 50, waiting.cursor)
        [request] = third.run_requests or ()
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2023-09-19|AAPL", "2023-09-20|AAPL")


@dg.job
def done_job() -> None:
    """No step."""


def test_files_beyond_what_one_look_reads_are_reported_as_such_and_read_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_lakehouse.automation.csv_files.BYTES_A_LOOK", 20)
    for ticker, day in (("AAPL", "2023-09-20"), ("NVDA", "2023-09-21")):
        (tmp_path / f"{ticker}.csv").write_text(HEADER + row(day))
    (tmp_path / "aa.csv").write_text("nothing\n")
    sensor = csv_folder_sensor(folder_settings(tmp_path, last_date=date(2023, 9, 21)))
    starts, cursor, told = [], None, []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(3):
            context = dg.build_sensor_context(instance=instance, cursor=cursor)
            logged: list[str] = []
            monkeypatch.setattr(context.log, "info", logged.append)
            result = sensor(context)
            assert isinstance(result, dg.SensorResult)
            starts.append([request.tags[RANGE_START] for request in result.run_requests or ()])
            told.append("; ".join(logged) or str(result.skip_reason))
            cursor = result.cursor
            # A file that always changes and comes first by name does not keep the others waiting.
            (tmp_path / "AAPL.csv").write_text(HEADER + row("2023-09-20") + row("2023-09-19") * len(starts))
    assert starts[:2] == [["2023-09-20|AAPL"], ["2023-09-21|NVDA"]]
    assert "2 files are left for the next tick" in told[0]
    assert not any("may still be written" in text for text in told)
