"""The job `check` of the bundle: in this environment, with other versions, and as a wheel in an environment without PySpark."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stock_lakehouse import __version__
from stock_lakehouse.databricks_jobs import check
from stock_lakehouse.engines.databricks import WHEEL

ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
GIVEN = [f"--program={__version__}", f"--python={PYTHON}"]
# As Databricks starts a Python wheel task: the entry point of the distribution by its name, with the named parameters.
AS_A_TASK = """
import importlib.metadata, sys
[entry] = [it for it in importlib.metadata.distribution("stock_lakehouse").entry_points if it.name == "check"]
entry.load()()
"""


def test_what_the_program_runs_with_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    check.main(GIVEN)
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in said)
    assert f"ok      stock_lakehouse {__version__}" in said
    assert "ok      import stock_lakehouse.databricks_jobs.main" in said


def test_all_that_is_wrong_is_named_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["deltalake==0.0.1", "no-such-package==1.0", "numpy>=2"]
    )
    monkeypatch.setitem(sys.modules, "talib", None)
    with pytest.raises(check.CheckError) as wrong:
        check.main(["--program=9.9", "--python=2.7"])
    for part in (
        f"stock_lakehouse {__version__}: the program is 9.9; build and deploy the bundle again",
        f"Python {PYTHON}: the program runs on Python 2.7, so sessions would be refused",
        "the wheel needs 0.0.1; remove what pins another version",
        "no-such-package: it is not installed; the wheel needs 1.0",
        "TA-Lib computes: import of talib halted",
    ):
        assert part in str(wrong.value)
    assert "ok      import stock_lakehouse.lake" in capsys.readouterr().out


def test_a_cluster_without_pyspark_is_broken_and_an_environment_without_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not [what for what, problem in check.findings(__version__, PYTHON) if problem]
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert [what for what, problem in check.findings(__version__, PYTHON) if problem] == ["PySpark"]


@pytest.mark.deploy
@pytest.mark.timeout(600)
def test_the_wheel_works_in_an_environment_of_its_own_and_brings_no_pyspark(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "setup.py", "stock_lakehouse"):
        (sources / name).symlink_to(ROOT / name)
    uv, dist, venv = [sys.executable, "-m", "uv"], str(tmp_path / "dist"), tmp_path / "venv"
    # As the bundle builds it, but with the setuptools that is here. An environment that uv made has no pip.
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", dist]
    build = (
        pip
        if importlib.util.find_spec("pip")
        else [*uv, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", dist]
    )
    subprocess.run([*build, "--no-build-isolation", str(sources)], check=True, cwd=tmp_path)
    wheel = Path(dist, WHEEL)
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
    assert "stock_lakehouse/databricks_jobs/check.py" in names
    assert not [name for name in names if name.startswith("stock_lakehouse_tests")]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--constraints",
        str(ROOT / "requirements.lock"),
        str(wheel),
    ]
    if (installed := subprocess.run(install, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"NOT RUN: needs what the wheel depends on, from uv's cache or an index: {installed.stderr[:300]}")
    listed = subprocess.run([*uv, "pip", "list", "--python", python], check=True, capture_output=True, text=True).stdout
    assert "deltalake" in listed
    assert not [name for name in ("pyspark", "dagster ", "typer") if name in listed]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    run = [python, "-c", AS_A_TASK, *GIVEN]
    done = subprocess.run(run, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"ok      Python {PYTHON}" in done.stdout
    assert "broken" not in done.stdout
    other = subprocess.run(
        [*run[:-2], "--program=0.0.1", GIVEN[1]], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert f"stock_lakehouse {__version__}: the program is 0.0.1" in other.stderr
