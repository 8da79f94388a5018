"""The program as its users meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

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


@pytest.mark.usefixtures("project")
def test_demo_shows_every_table_indicators_and_crosses_and_a_second_one_changes_nothing() -> None:
    first = call("demo")
    assert first.exit_code == 0, first.output
    for words in (
        "raw_stocks_daily",
        "stocks_features",
        "74",
        "rsi_14",
        "golden crosses",
        "make ui",
        "0 rows in quarantine",
    ):
        assert words in first.output
    assert "Nothing changed" not in first.output
    second = call("demo")
    assert "Nothing changed" in second.output


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


@pytest.mark.usefixtures("project")
def test_status_counts_sessions_that_are_missing_between() -> None:
    for day in ("2023-09-01", "2023-09-06"):
        assert call("materialize", "--tickers", "NVDA", "--from", day, "--to", day).exit_code == 0
    status = json.loads(call("status", "--json").stdout)
    assert next(one for one in status if one["table"] == "curated_stocks_daily")["missing"] == 1


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("materialize", "--tickers", "aapl"), "'aapl' is not a ticker"),
        (("materialize", "--tickers", "MSFT"), "allowed: AAPL, NVDA"),
        (("materialize", "--from", "2023-09-08", "--to", "2023-09-01"), "is before"),
        (("materialize", "--from", "2022-01-01"), "is not within the lake's"),
        (("materialize", "--from", "2023-09-02", "--to", "2023-09-04"), "no session"),
        (("materialize", "--from", "yesterday"), "--from"),
        (("materialize", "--select", "nothing"), "no asset nothing"),
        (("show", "nothing", "AAPL"), "no table nothing"),
        (("show", "stocks_features", "AAPL"), "holds no row of AAPL"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


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


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from stock_lakehouse.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'dagster', 'pyspark', 'pandas', 'pyarrow', 'exchange_calendars', 'pydantic'} & sys.modules.keys()\n"
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
