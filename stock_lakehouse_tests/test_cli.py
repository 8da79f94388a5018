"""The program as its users meet it."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from stock_lakehouse import cli
from stock_lakehouse.cli import app

CONFIG = """
tickers = ["AAPL", "NVDA"]
first_date = 2023-08-01
last_date = 2023-09-21
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "lakehouse.toml").write_text(CONFIG)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_demo_shows_tables_indicators_quarantine_and_a_correction_and_a_second_one_changes_nothing(
    project: Path,
) -> None:
    first = call("demo")
    assert first.exit_code == 0, first.output
    for words in (
        "raw_stocks_daily",
        "stocks_features",
        "74",
        "rsi_14",
        "golden crosses",
        "stock-lakehouse ui",
        "adjusted by: 2 dividends",  # Apple's of 2023-08-11 and NVIDIA's of 2023-09-06
        "high is below low; open is outside low…high; close is outside low…high",
        "the close of NVDA on 2023-09-20, vendor edit",
        "report.html",
    ):
        assert words in first.output
    before, now = (line.split()[-1] for line in first.output.splitlines() if "--as-of" in line or "  now  " in line)
    assert (before, now) == ("424.39", "422.39")
    assert "<html" in (project / "report.html").read_text()
    assert "Nothing changed" not in first.output
    second = call("demo")
    assert "Nothing changed" in second.output
    assert "424.39" in second.output


@pytest.mark.usefixtures("project")
def test_materialize_runs_a_rectangle_and_status_and_show_tell_of_it() -> None:
    done = call("materialize", "--tickers", "NVDA", "--from", "2023-09-01", "--to", "2023-09-08")
    assert done.exit_code == 0, done.output
    status = json.loads(call("status", "--json").stdout)
    features = next(one for one in status if one["table"] == "stocks_features")
    assert features["rows"] == 5
    assert features["tickers"] == {
        "NVDA": {
            "rows": 5,
            "first": "2023-09-01",
            "last": "2023-09-08",
            "missing": 0,
            "outdated": 0,
            "removed": False,
        }
    }
    assert features["version"] == 1
    shown = call("show", "curated_stocks_daily", "nvda", "--last", "2")
    assert "2023-09-08" in shown.output
    assert "2023-09-06" not in shown.output


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_tables_and_describe_say_what_the_tables_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_FIRST_DATE", "2022-12-01")
    assert call("materialize", "--tickers", "NVDA", "--from", "2022-12-29", "--to", "2023-01-04").exit_code == 0
    listed = {one["name"]: one for one in json.loads(call("tables", "--json").stdout)}
    bars = 4  # sessions, two of each year
    for name, partitions in (("curated_stocks_daily", 2), ("stocks_features", 2)):
        assert (listed[name]["rows"], listed[name]["partitions"], listed[name]["files"]) == (bars, partitions, 2)
        assert listed[name]["version"] == 1
        assert listed[name]["registered"] == []
    assert listed["processed_stocks_daily"]["rows"] is None
    assert sum(listed["raw_stocks_daily"][name] for name in ("partitions", "files")) == 4
    shown = call("tables").stdout
    assert "curated_stocks_daily" in shown
    assert 'registered nowhere else (catalog = "local")' in " ".join(shown.split())
    described = " ".join(call("describe", "processed_stocks_daily").stdout.split())
    assert "Parquet: 4 rows, 2 partitions by ticker and year, 2 files" in described
    found = json.loads(call("describe", "stocks_features", "--json").stdout)
    assert (found["rows"], found["partition_by"]) == (bars, ["ticker", "year"])
    rsi = next(column for column in found["columns"] if column["name"] == "rsi_14")
    assert rsi["type"] == "double"
    assert rsi["made_of"] == [{"table": "curated_stocks_daily", "column": "close"}]


@pytest.mark.soak
@pytest.mark.usefixtures("project")
def test_status_counts_sessions_that_are_missing_between() -> None:
    for day in ("2023-09-01", "2023-09-06"):
        assert call("materialize", "--tickers", "NVDA", "--from", day, "--to", day).exit_code == 0
    status = json.loads(call("status", "--json").stdout)
    assert next(one for one in status if one["table"] == "curated_stocks_daily")["missing"] == 1


# Commands that make no sense without a lake.
WITH_A_LAKE = (
    ("status",),
    ("status", "--json"),
    ("tables",),
    ("show", "stocks_features", "AAPL"),
    ("show", "stocks_features", "AAPL", "--csv"),
    ("export", "stocks_features"),
    ("restatements", "AAPL"),
    ("upkeep",),
    ("layout",),
    ("record",),
)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("materialize", "--tickers", "a b"), "'A B' is not a ticker"),
        (("materialize", "--tickers", "msft"), "tickers: MSFT not in the settings; allowed: AAPL, NVDA"),
        (("materialize", "--tickers", ""), "--tickers: is empty; name at least one, or leave --tickers out for all"),
        (("backfill", "--tickers", ","), "--tickers: is empty"),
        (("materialize", "--select", ""), "--select: is empty"),
        (("show", "stocks_features", "AAPL", "--json", "--csv"), "give one of them"),
        (("materialize", "--from", "2023-09-08", "--to", "2023-09-01"), "is before"),
        (("materialize", "--from", "2022-01-01"), "is not within the lake's"),
        (("materialize", "--from", "2023-09-02", "--to", "2023-09-04"), "no session"),
        (("materialize", "--from", "yesterday"), "--from"),
        (("materialize", "--select", "nothing"), "no asset nothing"),
        (("show", "nothing", "AAPL"), "no table nothing"),
        (("export", "nothing"), "no table nothing; allowed: raw_stocks_daily, "),
        (("export", "stocks_features", "--format", "pdf"), "'pdf'"),
        *((command, "there is no lake in ") for command in WITH_A_LAKE),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.soak
def test_rows_by_older_formulas_and_removed_tickers_show_in_status_and_in_checks(project: Path) -> None:
    from stock_lakehouse.transforms import features

    with pytest.MonkeyPatch.context() as older:
        older.setattr(features, "indicator_spec", lambda _of: "0-old")
        assert call("materialize").exit_code == 0
    (project / "lakehouse.toml").write_text(CONFIG.replace('"AAPL", ', ""))
    shown = call("status")
    assert "74 rows of features are by older formulas; `stock-lakehouse backfill`" in shown.output
    assert "No longer in the settings, and kept as they are: AAPL." in shown.output
    healed = call("backfill")
    assert healed.exit_code == 0, healed.output
    assert "present_formulas (WARN)" in healed.output  # the removed ticker's rows stay as they are
    status = json.loads(call("status", "--json").stdout)
    tickers = next(one for one in status if one["table"] == "stocks_features")["tickers"]
    assert {name: (one["rows"], one["outdated"], one["removed"]) for name, one in tickers.items()} == {
        "AAPL": (37, 37, True),
        "NVDA": (37, 0, False),
    }


def test_a_wrong_setting_is_one_clear_line_and_exit_code_2(project: Path) -> None:
    (project / "lakehouse.toml").write_text('source = "bloomberg"\n')
    result = call("status")
    assert result.exit_code == 2
    assert "source" in result.output
    assert "'sample', 'csv' or 'yfinance'" in result.output


def test_a_failed_run_ends_with_its_cause_and_exit_code_1(project: Path) -> None:
    (project / "lakehouse.toml").write_text(CONFIG + 'source = "csv"\ncsv_folder = "nowhere"\n')
    result = call("materialize")
    assert result.exit_code == 1
    assert "there is no folder" in result.output


@pytest.mark.usefixtures("project")
def test_doctor_finds_a_sound_project_sound() -> None:
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "embedded answers" in result.output


def test_doctor_says_how_to_mend_what_is_broken(project: Path) -> None:
    (project / "file").write_text("")
    (project / "lakehouse.toml").write_text(
        CONFIG + 'lake_root = "file/lake"\nsource = "csv"\ncsv_folder = "nowhere"\n'
    )
    result = call("doctor")
    assert result.exit_code == 1
    assert "set lake_root" in result.output
    assert "set csv_folder" in result.output


@pytest.fixture
def on_s3(project: Path, s3_root: str) -> str:
    (project / "lakehouse.toml").write_text(f'{CONFIG}lake_root = "{s3_root}/"\n')
    return s3_root


@pytest.mark.soak
def test_a_lake_on_s3_is_loaded_shown_and_found_sound(on_s3: str, project: Path) -> None:
    doctor = call("doctor")
    assert doctor.exit_code == 0, doctor.output
    assert f"lake: {on_s3} can be listed, read and written" in doctor.output
    first = call("materialize", "--to", "2023-08-04")
    assert first.exit_code == 0, first.output
    assert "Nothing changed" not in first.output
    assert "Nothing changed" in call("materialize", "--to", "2023-08-04").output
    status = {one["table"]: one for one in json.loads(call("status", "--json").stdout)}
    assert {name: one["rows"] for name, one in status.items()} == {
        "raw_stocks_daily": 8,
        "processed_stocks_daily": 8,
        "processed_quarantine": 0,
        "processed_actions": 0,
        "curated_stocks_daily": 8,
        "corporate_actions": 0,
        "stocks_features": 8,
        "restatements": 0,
    }
    assert status["raw_stocks_daily"]["bytes"] > 1000
    assert "2023-08-04" in call("show", "stocks_features", "NVDA", "--last", "2").output
    # Nothing but the instance is on this machine, beside lakehouse.toml and apart from those of other lakes.
    home = project / ".dagster" / on_s3.removeprefix("s3://")
    assert (home / "dagster.yaml").is_file()
    assert {path.name for path in project.iterdir()} <= {"lakehouse.toml", ".dagster"}


def test_a_bucket_that_is_not_there_is_named_by_every_command(s3_bucket: str, project: Path) -> None:
    (project / "lakehouse.toml").write_text(f'{CONFIG}lake_root = "s3://there-is-none/lake"\n')
    for arguments in (["doctor"], ["materialize"], ["status"], ["show", "stocks_features", "NVDA"]):
        result = call(*arguments)
        assert result.exit_code != 0
        assert "there is no bucket there-is-none; create it, or set lake_root to one that exists" in result.output


def test_doctor_refuses_a_store_that_takes_no_notice_of_conditions_on_writes(
    on_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stock_lakehouse.lake.storage import Bucket

    put = Bucket.put
    monkeypatch.setattr(
        Bucket, "put", lambda bucket, path, content, there: put(bucket, f"{path}{uuid4()}", content, None)
    )
    result = call("doctor")
    assert result.exit_code == 1
    assert f"{on_s3}: this store ignores conditions on writes" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from stock_lakehouse.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'dagster', 'pyspark', 'pandas', 'pyarrow', 'exchange_calendars', 'pandas_market_calendars', 'pydantic'}\n"
        "heavy &= sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_loading_the_code_location_imports_no_engine_and_contacts_nothing() -> None:
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('a connection while definitions load')\n"
        "socket.socket.connect = refuse\n"
        "from stock_lakehouse.definitions import defs; defs()\n"
        "heavy = {'pysail', 'talib', 'yfinance', 'pandera', 'deltalake'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.usefixtures("project")
def test_delivered_text_is_shown_and_steers_neither_terminal_nor_markup(project: Path) -> None:
    (project / "prices").mkdir()
    texts = [
        "[red]1[/red]",
        "[/]",
        "[link=http://x.invalid]1[/link]",
        "\x1b[31m1\x1b]0;title\x07",
        "1\u202e2",
        ":smile:",
    ]
    lines = "".join(f"2023-09-{11 + at},{text},2,1,2,7\n" for at, text in enumerate(texts))
    (project / "prices" / "NVDA.csv").write_text("Date,Open,High,Low,Close,Volume\n" + lines)
    (project / "lakehouse.toml").write_text(CONFIG + 'source = "csv"\ncsv_folder = "prices"\n')
    done = call("materialize", "--tickers", "NVDA", "--select", "raw_stocks_daily,processed_stocks_daily")
    assert done.exit_code == 0, done.output
    shown = call("show", "processed_quarantine", "NVDA")
    assert shown.exit_code == 0, shown.output
    for text in (
        "[red]1[/red]",
        "[/]",
        "[link=http://x.invalid]1[/link]",
        r"\x1b[31m1\x1b]0;title\x07",
        r"1\u202e2",
        ":smile:",
    ):
        assert text in shown.output
    assert "\x1b" not in shown.output


@pytest.mark.soak
def test_upkeep_names_what_is_damaged_and_repairs_it_when_told_to(project: Path) -> None:
    assert call("materialize").exit_code == 0
    well = call("upkeep")
    assert well.exit_code == 0, well.output
    assert "Every table agrees with its log, its schema and its computation." in well.output
    before = call("show", "curated_stocks_daily", "NVDA", "--last", "40").output
    (victim,) = (project / "lakehouse" / "curated" / "stocks_daily" / "ticker=NVDA").rglob("*.parquet")
    victim.write_bytes(victim.read_bytes()[:99])
    damaged = call("upkeep", "--check-only")
    assert damaged.exit_code == 1
    assert victim.name in damaged.output.replace("\n", "")
    assert "upkeep --repair" in damaged.output
    repaired = call("upkeep", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert "To be recomputed: NVDA 2023" in repaired.output
    assert call("show", "curated_stocks_daily", "NVDA", "--last", "40").output == before
    assert call("upkeep", "--repair", "--check-only").exit_code == 2


@pytest.mark.soak
def test_a_lake_of_another_layout_is_refused_in_a_line_and_moved_by_the_command(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("materialize").exit_code == 0
    shown = {table: call("show", table, "NVDA").output for table in ("processed_stocks_daily", "stocks_features")}
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAYOUT", "year")
    for arguments in (["materialize"], ["backfill"], ["upkeep", "--repair"]):
        refused = call(*arguments)
        assert refused.exit_code == 2, refused.output
        (line,) = [line for line in refused.output.splitlines() if "layout" in line]
        assert "run `stock-lakehouse layout` to move the lake" in line
    assert "broken" in call("doctor").output
    assert {table: call("show", table, "NVDA").output for table in shown} == shown
    moved = call("layout")
    assert moved.exit_code == 0, moved.output
    assert 'Every table has layout "year".' in moved.output
    assert {path.name for path in (project / "lakehouse/processed/stocks_daily_by_year").iterdir()} == {"year=2023"}
    assert {table: call("show", table, "NVDA").output for table in shown} == shown
    again = call("materialize")
    assert again.exit_code == 0, again.output
    assert "Nothing changed" in again.output


def test_an_error_whose_text_sounds_like_the_stores_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("InternalError in my transform")

    monkeypatch.setattr(cli, "app", lambda **_: fail())
    with pytest.raises(ValueError, match="InternalError in my transform"):
        cli.main()
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "app", lambda **_: fail())
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "no space is left on the disk" in " ".join(capsys.readouterr().err.split())
