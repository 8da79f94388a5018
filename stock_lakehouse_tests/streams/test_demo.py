"""`stream demo`: what a newcomer sees, and that nothing of it is left running; and the broker that it starts where it can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stock_lakehouse.streams.local_kafka import NotRunError, jars, java


def demo(source: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stock_lakehouse", "stream", "demo", "--source", source]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=300, check=False
    )


def check(shown: subprocess.CompletedProcess[str]) -> None:
    """The day is there from the messages to the verdict."""
    assert shown.returncode == 0, shown.stdout + shown.stderr
    lines = shown.stdout.splitlines()
    # Two tickers with an event each five seconds of six and a half hours.
    (drained,) = (line for line in lines if " late. 780 new bars, 6 open. " in line)
    assert " messages = 9,360 events + " in drained
    assert sum(line.startswith("NVDA    2023-09-21 19:5") for line in lines) == 5
    assert any(line.startswith("NVDA  410.17, -2.89 % since the close; rsi_14 ") for line in lines)
    assert [line.split()[-1] for line in lines if line.startswith(("AAPL    2023-09-21 ", "NVDA    2023-09-21 "))][
        -2:
    ] == ["match", "match"]
    assert "Everything is stopped" in shown.stdout


@pytest.mark.slow
def test_the_demonstration_shows_a_day_on_files_with_python_alone(tmp_path: Path) -> None:
    shown = demo("files", PATH="", JAVA_HOME="")
    check(shown)
    config = tmp_path / "lakehouse" / ".stream_demo" / "lakehouse.toml"
    assert f"export STOCK_LAKEHOUSE_CONFIG={config}" in shown.stdout
    # What it says to type next, on the lake that it leaves.
    question = "SELECT count(*) AS n, count_if(state = 'open') AS open FROM avg_1min"
    asked = subprocess.run(
        [sys.executable, "-m", "stock_lakehouse", "query", question, "--format", "csv"],
        capture_output=True,
        text=True,
        env={**os.environ, "STOCK_LAKEHOUSE_CONFIG": str(config)},
        check=False,
    )
    assert asked.stdout.split() == ['"n","open"', "780,6"], asked.stderr
    assert not (tmp_path / "lakehouse" / "stream").exists()  # the user's own lake is as it was


@pytest.mark.soak
def test_the_demonstration_shows_the_same_day_on_a_kafka_of_its_own(tmp_path: Path) -> None:
    try:
        jars()
    except NotRunError as error:
        pytest.skip(f"NOT RUN on Kafka: {error}")
    if java() is None:
        pytest.skip("NOT RUN on Kafka: there is no Java")
    shown = demo("auto")
    check(shown)
    assert "Source: a Kafka broker on 127.0.0.1:" in shown.stdout
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running


def test_without_maven_and_jars_it_says_why_kafka_cannot_run(tmp_path: Path) -> None:
    shown = demo("kafka", PATH="", JAVA_HOME="", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert shown.returncode == 1
    assert "Kafka cannot run here: the jars of Kafka 4.1.0 are not there, and there is no Maven (mvn)" in shown.stderr
    assert "`stock-lakehouse stream demo` takes files instead" in shown.stderr
