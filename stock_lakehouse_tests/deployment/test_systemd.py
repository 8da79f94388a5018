"""The units of systemd: valid, hardened, and each with the entry point that gives it its secrets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = sorted(path.name.replace("@.", "@dagster.") for path in UNITS.glob("*.service"))
EXPOSURE = 4.0  # of 10; systemd says OK below 5


def analyzed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT RUN: needs systemd-analyze (Debian: apt-get install systemd)")
    variables = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}  # before the machine's own units
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units of a machine on which Python stands in the place that they name."""
    folder = tmp_path / "system"
    shutil.copytree(UNITS, folder)
    for path in folder.glob("*.service"):
        text = path.read_text(encoding="utf-8")
        assert "ExecStart=/opt/stock-lakehouse/bin/python -m stock_lakehouse.deployment.start " in text
        path.write_text(text.replace("/opt/stock-lakehouse/bin/python", "/bin/sh"), encoding="utf-8")
    return folder


def test_there_are_units_of_the_webserver_the_daemon_the_stream_and_commands() -> None:
    assert [name.removeprefix("stock-lakehouse-") for name in NAMES] == [
        "command@dagster.service", "daemon.service", "stream.service", "webserver.service",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_systemd_knows_every_line_of_a_unit(installed: Path, name: str) -> None:
    found = analyzed(installed, "verify", "--man=no", str(installed / name))
    assert (found.stderr, found.returncode) == ("", 0)
    common = installed / "stock-lakehouse-.service.d" / "common.conf"
    common.write_text(common.read_text(encoding="utf-8").replace("ProtectHome=", "ProtectHomes="), encoding="utf-8")
    assert "Unknown key 'ProtectHomes'" in analyzed(installed, "verify", "--man=no", str(installed / name)).stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_units_exposure_is_low(installed: Path, name: str) -> None:
    def exposure() -> float:
        found = analyzed(installed, "security", "--offline=true", str(installed / name))
        [level] = re.findall(r"Overall exposure level for .*: ([0-9.]+)", found.stdout)
        return float(level)

    assert exposure() <= EXPOSURE
    shutil.rmtree(installed / "stock-lakehouse-.service.d")
    assert exposure() > EXPOSURE


def test_no_unit_has_a_secret() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in UNITS.rglob("*") if path.is_file())
    assert "LoadCredential=variable:/etc/stock-lakehouse/credentials" in text
    assert "EnvironmentFile" not in text
    assert not re.search(r"^Environment=.*(URL|PASSWORD|SECRET|TOKEN)", text, re.MULTILINE)
