"""What can happen to anyone is a line without a traceback; and flags, completion and the printing of grids."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app, printing
from stock_lakehouse.instance.home import PRODUCTION
from stock_lakehouse_tests.conftest import bytes_of
from stock_lakehouse_tests.postgres import find_server, postgres


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_long_list_continues_on_further_lines_between_its_dates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    dates = [f"20{year}-0{month}-1{month}" for year in range(10, 20) for month in (3, 9)]
    printing.print_table(("ticker", "golden crosses", "death crosses"), [("NVDA", ", ".join(dates), ", ".join(dates))])
    lines = capsys.readouterr().out.splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    shown = [word.strip(",") for line in lines for word in line.split()]
    assert sorted(word for word in shown if word in dates) == sorted(2 * dates)


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (840_799, "840.8 kB"), (3_100_000, "3.1 MB")])
def test_sizes_have_a_unit(count: int, text: str) -> None:
    assert printing.size(count) == text


def test_commands_in_messages_work_as_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = "`stock-lakehouse doctor` shows it"
    folder = tmp_path / "my programs"
    folder.mkdir()
    installed = folder / "stock-lakehouse"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(installed), "status"])
    assert printing.as_typed(message) == f"`'{installed}' doctor` shows it"
    monkeypatch.setenv("PATH", str(folder))
    assert printing.as_typed(message) == message
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert printing.as_typed(message) == message


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_a_short_flag_everywhere(flag: str) -> None:
    for arguments in ([flag], ["show", flag], ["export", flag]):
        result = call(*arguments)
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_the_version_is_the_packages() -> None:
    import stock_lakehouse

    assert call("--version").stdout == f"stock-lakehouse {stock_lakehouse.__version__}\n"


@pytest.mark.slow
def test_the_shell_completes_commands_tables_and_tickers(tmp_path: Path) -> None:
    (tmp_path / "lakehouse.toml").write_text('tickers = ["AAPL", "NVDA"]\n')

    def completed(words: str) -> list[str]:
        variables = {
            "_STOCK_LAKEHOUSE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "stock_lakehouse.cli"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout.split()

    assert completed("stock-lakehouse mat") == ["materialize"]
    assert completed("stock-lakehouse show stocks_") == ["stocks_features"]
    assert completed("stock-lakehouse show stocks_features n") == ["nvda"]


def assert_one_line(result: Result, *words: str) -> None:
    """The command ended with 2 and a line that has `words`, and with no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


EVERYDAY = [
    ["demo"],
    ["materialize"],
    ["backfill"],
    ["status"],
    ["show", "stocks_features", "NVDA"],
    ["export", "stocks_features"],
    ["restatements", "NVDA"],
    ["upkeep"],
    ["layout"],
    ["record"],
    ["ui", "--port", "1"],
]


@pytest.mark.parametrize("root", ["file", "file/lake"])
def test_a_lake_root_that_is_a_file_is_told_by_every_command(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "lakehouse.toml").write_text(f'lake_root = "{root}"\n')
    for arguments in [*EVERYDAY, ["prune", "--days", "1"], ["init"]]:
        assert_one_line(call(*arguments), f"lake_root: {tmp_path / 'file'} is a file; set lake_root to a folder")
    doctor = call("doctor")
    assert doctor.exit_code == 1
    assert f"broken  lake: {tmp_path / 'file'} is a file; set lake_root" in doctor.output


@pytest.mark.parametrize("first", ["2100-01-01", "2999-12-31"])
@pytest.mark.parametrize("exchange", ["XNYS", "XLON"])
def test_a_first_date_in_the_future_is_told(tmp_path: Path, first: str, exchange: str) -> None:
    (tmp_path / "lakehouse.toml").write_text(f'first_date = {first}\nexchange = "{exchange}"\ntickers = ["A"]\n')
    for arguments in (["demo"], ["materialize"], ["backfill"], ["prune", "--days", "1"], ["ui"]):
        assert_one_line(call(*arguments), f"first_date: no session since {first} is finished")
    doctor = call("doctor")
    assert doctor.exit_code == 1
    assert f"broken  calendar: first_date: no session since {first} is finished" in doctor.output


def run_program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program in a process for which permissions count, also if the tests run as root."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root, without setpriv")
    return subprocess.run(
        [*(drop if os.geteuid() == 0 else []), sys.executable, "-m", "stock_lakehouse.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "ours"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_told(read_only: Path) -> None:
    for arguments, words in (
        (("init",), f"{read_only} cannot be written; call this in a folder that you may write"),
        (("materialize",), f"lake_root: {read_only} cannot be written; set lake_root to a folder that you may write"),
    ):
        done = run_program(read_only, *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stderr == f"stock-lakehouse: {words}\n"
    doctor = run_program(read_only, "doctor")
    assert doctor.returncode == 1
    assert f"lake: {read_only} cannot be written" in doctor.stdout


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text(PRODUCTION)
    (tmp_path / "lakehouse.toml").write_text('tickers = ["NVDA"]\nfirst_date = 2023-09-18\nlast_date = 2023-09-21\n')
    return tmp_path


# What the variable of the database may have, and what is said of it.
WRONG_DATABASES = {
    None: '"DAGSTER_POSTGRES_URL" which is not set',
    "postgresql://u:secret@127.0.0.1:1/lake": "PostgreSQL database lake on 127.0.0.1:1 does not answer: connection to server",
    "secret": "the address of the database is not like postgresql://user:password@host:5432/database",
    "postgresql://u:secret@host:port/lake": "the address of the database is not like postgresql://",
}


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize(("url", "words"), WRONG_DATABASES.items())
def test_a_database_that_cannot_be_used_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str | None, words: str
) -> None:
    if url:
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    for arguments in (["materialize"], ["backfill"], ["prune", "--days", "1"], ["ui"]):
        result = call(*arguments)
        assert_one_line(result, words)
        assert "secret" not in result.output
    doctor = call("doctor")
    assert doctor.exit_code == 1
    assert words in doctor.output
    assert "secret" not in doctor.output


@pytest.mark.usefixtures("production")
def test_doctor_finds_a_database_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = find_server()
    if programs is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    with postgres(programs) as url:
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
        doctor = call("doctor")
        assert doctor.exit_code == 0, doctor.output
        assert "instance: Dagster's database: PostgreSQL database dagster on" in doctor.output


def test_a_port_that_is_taken_is_told_before_the_url_is_printed(tmp_path: Path) -> None:
    before = bytes_of(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = call("ui", "--port", str(port))
    assert_one_line(result, f"--port: {port} cannot be used")
    assert result.stdout == ""
    assert bytes_of(tmp_path) == before


def test_a_permission_that_is_lost_during_a_run_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stock_lakehouse import cli

    def fail(**_: Mapping[str, str]) -> None:
        raise PermissionError(13, "Permission denied", "/lake/curated/x.parquet")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "/lake/curated/x.parquet: Permission denied" in capsys.readouterr().err
