"""Watched files: when they are stable, what is new in them, and what is asked again after a failed run."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

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
from stock_lakehouse.partitions import RANGE_END, RANGE_START
from stock_lakehouse.settings import Settings
from stock_lakehouse.sources.csv_folder import CsvFolderSource

NOW = datetime(2023, 9, 22, 12, 0, tzinfo=UTC)
STABLE = timedelta(seconds=30)
HEADER = "Date,Open,High,Low,Close,Volume\n"
TICKERS = ("AAPL", "NVDA")


def row(day: str) -> str:
    return f"{day},1,3,1,2,7\n"


def test_a_file_is_read_once_it_has_not_changed_for_a_while_and_not_again() -> None:
    seen: dict[str, Seen] = {}
    ready_at = []
    for seconds, size in ((0, 10), (10, 20), (20, 30), (40, 30), (50, 30), (60, 30), (90, 30)):
        now = NOW + timedelta(seconds=seconds)
        seen, ready, later = look_at(now, {"AAPL.csv": (size, size)}, seen, STABLE)
        assert ready or later or seconds > 50
        if ready:
            ready_at.append(seconds)
            seen["AAPL.csv"] = replace(seen["AAPL.csv"], settled=True)
    assert ready_at == [50]


def test_a_file_with_the_same_size_and_a_new_time_is_looked_at_again_and_one_that_is_gone_is_forgotten() -> None:
    seen = {"AAPL.csv": Seen(10, 1, NOW, settled=True), "NVDA.csv": Seen(10, 1, NOW, settled=True)}
    memory, ready, later = look_at(NOW, {"AAPL.csv": (10, 2)}, seen, STABLE)
    assert (list(memory), ready, later) == (["AAPL.csv"], [], ["AAPL.csv"])


def test_the_cursor_holds_what_was_seen() -> None:
    seen = {"AAPL.csv": Seen(10, 1, NOW, True, 10, "ab", "key", 1), "é\udcff.csv": Seen(1, 2, NOW)}
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
    seen = {"AAPL.csv": Seen(10, 1, NOW, True, 10, "ab", "key"), "NVDA.csv": Seen(10, 1, NOW, True, 10, "ab", "other")}
    retried = again(NOW, seen, {"key"}, plan, STABLE)
    assert retried["NVDA.csv"] == seen["NVDA.csv"]
    files = {"AAPL.csv": (10, 1), "NVDA.csv": (10, 1)}
    assert look_at(NOW + timedelta(minutes=14), files, retried, STABLE)[1] == []
    assert look_at(NOW + timedelta(minutes=15), files, retried, STABLE)[1] == ["AAPL.csv"]
    spent = {"AAPL.csv": replace(seen["AAPL.csv"], retries=2)}
    assert again(NOW, spent, {"key"}, plan, STABLE) == spent


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
        r"early\n.csv: no row of a ticker of the settings",
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
