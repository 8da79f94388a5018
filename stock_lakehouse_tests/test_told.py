"""What the program tells of files and rows that it cannot use, where the person is: on the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.cli.outcome import finding_lines
from stock_lakehouse.instance.run_record import CheckFinding

CONFIG = """
tickers = ["AAPL", "NVDA"]
first_date = 2023-09-01
last_date = 2023-09-21
source = "csv"
csv_folder = "prices"
"""
HEADER = "Date,Open,High,Low,Close,Volume"
DAYS = ("2023-09-18", "2023-09-19", "2023-09-20", "2023-09-21")


def bars(prefix: str = "", days: Sequence[str] = DAYS) -> list[str]:
    return [f"{prefix}{day},10,12,9,11,1000" for day in days]


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    folder = tmp_path / "prices"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, header: str, lines: Sequence[str]) -> None:
    (folder / name).write_text("\n".join([header, *lines, ""]), encoding="utf-8")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def words(result: Result) -> str:
    """All that was printed, with its lines joined."""
    return " ".join(result.output.split())


@pytest.mark.slow
def test_a_run_says_of_each_file_what_it_gave_and_names_the_one_that_gave_nothing(prices: Path) -> None:
    write(prices, "NVDA.csv", HEADER, bars())
    write(prices, "export.csv", HEADER, bars())
    write(prices, "all.csv", f"Symbol,{HEADER}", [*bars("AAPL,"), *bars("XYZ,"), *bars("MSFT,", DAYS[:1])])
    done = call("materialize")
    assert done.exit_code == 0, done.output  # one file gave nothing: a warning
    said = words(done)
    assert "all.csv: 9 rows, 4 landed; 5 outside what the run asked for; 5 of symbols" in said
    assert "5 of symbols that nobody asked for: XYZ 4, MSFT 1 (to load one, add it to `tickers`)" in said
    assert "check not passed raw_stocks_daily: files_read (WARN)" in said
    assert "file=export.csv rows=4 reason=4 refused: " in said
    assert "file=NVDA.csv" not in said


@pytest.mark.soak
def test_a_folder_that_gives_nothing_ends_with_1_and_the_run_is_still_told_to_its_end(prices: Path) -> None:
    write(prices, "all.csv", f"Symbol,{HEADER}", [*bars("XYZ,"), *bars("BRK/B,")])
    done = call("materialize")
    assert done.exit_code == 1
    said = words(done)
    assert "run ended well" in said
    assert (
        "check not passed raw_stocks_daily: files_read (ERROR) No file gave a row of AAPL, NVDA that can be read."
        in said
    )
    assert "XYZ 4, BRK" in said
    assert "to do: `stock-lakehouse doctor` shows what each file has" in said
    filled = call("backfill")
    assert filled.exit_code == 1
    assert "files_read (ERROR)" in filled.output


@pytest.mark.slow
def test_rows_that_a_run_rejects_are_shown_with_their_text_once(prices: Path) -> None:
    write(prices, "NVDA.csv", HEADER, [*bars(days=DAYS[:2]), "2023-09-20,10,12,9,soon,1000", "2023-09-21,10,8,9,11,1"])
    write(prices, "AAPL.csv", HEADER, bars())
    done = call("materialize")
    assert done.exit_code == 0, done.output
    said = words(done)
    assert (
        "check not passed processed_stocks_daily: quarantine (WARN) 2 rows of this run went into the quarantine: "
        in said
    )
    assert "ticker=NVDA session=2023-09-20" in said
    assert "value=close=soon reasons=close cannot be read" in said
    assert "Quarantine: 2 rows more: " in said
    assert "`stock-lakehouse show processed_quarantine NVDA` shows them" in said
    assert "Quarantine: 2 rows more" in done.stdout  # not on stderr alone
    again = call("materialize")
    assert again.exit_code == 0
    assert "Quarantine:" not in again.output
    assert "quarantine (WARN)" not in again.output
    write(prices, "NVDA.csv", HEADER, [*bars(days=DAYS[:2]), "2023-09-20,10,12,9,later,1000", "2023-09-21,10,8,9,11,1"])
    filled = call("backfill")
    assert "Quarantine: 1 row more: close cannot be read (1)." in words(filled)


@pytest.mark.slow
def test_show_gives_the_file_and_line_of_a_row_in_quarantine(prices: Path) -> None:
    write(prices, "NVDA.csv", HEADER, [*bars(days=DAYS[:3]), "2023-09-21,10,12,9,soon,1000"])
    done = call("materialize", "--tickers", "NVDA")
    assert "file=NVDA.csv line=5 value=close=soon" in words(done)
    shown = call("show", "processed_quarantine", "NVDA")
    assert "NVDA.csv" in shown.output
    header, row, *_ = shown.output.splitlines()
    assert header.split()[:5] == ["ticker", "date", "file", "line_number", "reasons"]
    assert row.split()[2:4] == ["NVDA.csv", "5"]


@pytest.mark.slow
def test_show_finds_what_status_lists(prices: Path) -> None:
    write(prices, "export.csv", HEADER, bars())
    assert call("materialize").exit_code == 1
    status = call("status")
    assert "__unreadable__" in status.output
    for name in ("__unreadable__", "__UNREADABLE__", "__Unreadable__"):
        shown = call("show", "processed_quarantine", name)
        assert shown.exit_code == 0, shown.output
        assert "2023-09-21" in shown.output


@pytest.mark.soak
def test_status_names_tickers_without_any_bar(prices: Path) -> None:
    write(prices, "AAPL.csv", HEADER, ["2023-09-20,10,12,9,soon,1000"])
    write(prices, "NVDA.csv", HEADER, bars())
    assert call("materialize").exit_code == 0
    status = call("status")
    assert "Tickers of the settings without any bar: AAPL (1 row in quarantine)." in status.output
    tables = {one["table"]: one for one in json.loads(call("status", "--json").stdout)}
    assert tables["curated_stocks_daily"]["absent"] == ["AAPL"]
    assert tables["raw_stocks_daily"]["absent"] == []
    write(prices, "AAPL.csv", HEADER, bars())
    assert call("backfill").exit_code == 0
    assert "without any bar" not in call("status").output


def test_doctor_says_what_each_file_has(prices: Path) -> None:
    write(prices, "NVDA.csv", HEADER, bars())
    write(prices, "export.csv", HEADER, bars())
    write(prices, "empty.csv", HEADER, [])
    result = call("doctor")
    said = words(result)
    assert result.exit_code == 0, said
    assert (
        "note source: csv: files: 3, rows: 8, of use: 4, tickers of the settings: 1; no row of AAPL; files that give nothing: 2"
        in said
    )
    assert "ok file: NVDA.csv: 4 rows, 4 of NVDA from 2023-09-18 to 2023-09-21" in said
    assert "note file: export.csv: 4 rows; nothing can be used: 4 refused: " in said
    assert "note file: empty.csv: no row" in said
    (prices / "NVDA.csv").unlink()
    broken = call("doctor")
    assert broken.exit_code == 1
    assert "broken source: csv: files: 2, rows: 4, of use: 0" in words(broken)


def test_doctor_of_many_files_shows_those_with_something_to_say(prices: Path) -> None:
    for number in range(40):
        write(prices, f"{number:02}.csv", f"Symbol,{HEADER}", bars("MSFT," if number == 7 else "NVDA,"))
    result = call("doctor")
    files = [line for line in result.output.splitlines() if " file: " in line]
    assert len(files) == 2
    assert "07.csv: 4 rows; nothing can be used: 4 of symbols that nobody asked for: MSFT 4" in files[0]
    assert "39 more files: 156 rows" in files[1]


def test_doctor_says_what_a_watched_folder_waits_for(prices: Path) -> None:
    write(prices, "NVDA.csv", HEADER, bars())
    write(prices, "AAPL.csv", HEADER, bars())
    os.utime(prices / "AAPL.csv", (1_700_000_000, 1_700_000_000))
    assert "watched" not in call("doctor").output
    (prices.parent / "lakehouse.toml").write_text(CONFIG + 'automation = "sensor"\n')
    said = words(call("doctor"))
    assert (
        f"ok folder: {prices} is watched for new and changed files: 2 now, of which 1 changed less than 30 s ago"
        in said
    )


def test_doctor_without_files_is_broken(prices: Path) -> None:
    assert not list(prices.iterdir())
    result = call("doctor")
    assert result.exit_code == 1
    assert "there is no file *.csv or *.csv.gz in" in result.output


@pytest.mark.slow
def test_nothing_in_a_file_or_its_name_steers_the_terminal(prices: Path) -> None:
    steers = "\x1b[31m[red]:smile:\x1b]0;title\x07\u202e"
    write(prices, f"{steers}.csv", f"Symbol,{HEADER}", [*bars("NVDA,"), *bars(f"{steers},"), f"{steers}"])
    write(prices, "NVDA.csv", HEADER, [f"2023-09-18,10,12,9,{steers},1000"])
    for arguments in (["materialize"], ["doctor"], ["show", "processed_quarantine", "NVDA"], ["status"]):
        result = call(*arguments)
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
        assert "\x07" not in result.output
        if arguments != ["status"]:
            assert "[red]:smile:" in result.output


def test_a_red_check_is_shown_whatever_its_table_has() -> None:
    finding = CheckFinding(
        "curated_stocks_daily",
        "split_moves",
        "WARN",
        "A split that is named and has not been applied.",
        tuple(
            {"ticker": "NVDA", "session": f"2023-09-{day}", "move": 0.0999, "file": None, "of": ""}
            for day in range(10, 19)
        ),
        found=70,
        to_do="look " * 30,
    )
    lines = list(finding_lines(finding))
    assert lines[0] == "    A split that is named and has not been applied."
    assert lines[1] == "      ticker=NVDA  session=2023-09-10  move=0.0999"
    assert lines[6] == "      … and 65 more"
    assert lines[7].startswith("    to do: look look")
    assert all(len(line) <= 80 for line in lines)
    assert list(finding_lines(CheckFinding("a", "b", "WARN"))) == []


def test_the_program_itself_ends_with_1_after_an_error(prices: Path) -> None:
    """Not through typer's runner: the process's exit code is what a scheduler looks at."""
    (prices / "all.csv").write_text(f"Symbol,{HEADER}\nMSFT,2023-09-21,soon\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "stock_lakehouse.cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "broken" in done.stdout
