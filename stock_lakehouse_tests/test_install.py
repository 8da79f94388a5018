"""install.py and the package that it installs: what is checked before anything is downloaded, and what a wheel holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """install.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT))
    import install

    return install


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what install.py needs, and on its own PATH a uv that notes its arguments and installs nothing."""
    for name in (
        "install.py",
        "pyproject.toml",
        "requirements.lock",
        "requirements-tests.lock",
        "requirements-deploy.lock",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    (programs := tmp_path / "programs").mkdir()
    uv = programs / "uv"
    uv.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, venv\n"
        f"open({str(tmp_path / 'said')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if sys.argv[1] == 'venv':\n"
        "    venv.create(sys.argv[-1])\n"
        "sys.exit(int(os.environ.get('UV_FAILS', '0')) if 'pip' in sys.argv else 0)\n"
    )
    uv.chmod(0o755)
    return tmp_path


def call(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, checkout / "install.py", *arguments],
        env={**os.environ, "PATH": f"{checkout / 'programs'}{os.pathsep}{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(checkout: Path) -> list[str]:
    return (checkout / "said").read_text().splitlines()


def test_what_the_lock_names_is_installed_once(checkout: Path) -> None:
    assert call(checkout).returncode == 0
    made, packages, project = said(checkout)
    assert made.startswith("venv ")
    assert packages.endswith(f"--requirements {checkout}/requirements.lock")
    assert project.endswith(f"--no-deps --editable {checkout}")
    again = call(checkout)
    assert (again.returncode, again.stdout) == (0, "")
    assert len(said(checkout)) == 3
    os.utime(checkout / "requirements.lock", (2**32, 2**32))  # newer than what is installed
    assert call(checkout).returncode == 0
    assert len(said(checkout)) == 5


def test_with_the_tests_everything_else_is_there_too(checkout: Path) -> None:
    assert call(checkout, "--tests").returncode == 0
    assert said(checkout)[1].endswith("requirements-tests.lock")
    assert call(checkout).stdout == ""


def test_the_tools_of_deploy_have_an_environment_of_their_own_without_the_project(checkout: Path) -> None:
    assert call(checkout).returncode == 0
    assert call(checkout, "--deploy").returncode == 0
    made, packages = said(checkout)[3:]
    assert made.endswith(f"{checkout}/.venv/deploy")
    assert packages.endswith(
        f"--python {checkout}/.venv/deploy/bin/python --requirements {checkout}/requirements-deploy.lock"
    )
    assert [call(checkout, *arguments).stdout for arguments in ((), ("--deploy",))] == ["", ""]


def test_no_lock_names_a_registry() -> None:
    locks = list(ROOT.glob("*.lock"))
    assert len(locks) == 3
    assert not [path.name for path in locks if "://" in path.read_text()]


@pytest.mark.parametrize("harm", ["unfinished", "no interpreter", "empty"])
def test_a_half_made_environment_is_made_anew(checkout: Path, harm: str) -> None:
    assert call(checkout).returncode == 0
    if harm == "unfinished":
        (checkout / ".venv" / "unfinished").touch()
    elif harm == "no interpreter":
        (checkout / ".venv" / "bin" / "python").unlink()
    else:
        shutil.rmtree(checkout / ".venv")
        (checkout / ".venv").mkdir()
    repaired = call(checkout)
    assert repaired.returncode == 0
    assert "The folder .venv is not complete: it is made anew." in repaired.stdout
    assert sum(line.startswith("venv ") for line in said(checkout)) == 2


def test_a_failed_download_says_what_to_look_at_and_the_next_call_goes_on(checkout: Path) -> None:
    failed = call(checkout, UV_FAILS="2")
    assert failed.returncode == 1
    assert "look at the network and pip's settings, then run this again" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    assert call(checkout).returncode == 0


def test_python_place_and_room_are_looked_at_before_anything_is_downloaded(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(install.InstallError, match=r"3\.11 or newer is needed, and this is 3\.9"):
        install.check_python((3, 9, 1))
    install.check_python((3, 11, 0))
    with pytest.raises(install.InstallError, match=r"MB are free in .* and about 1000000000 MB are needed"):
        install.check_place(str(tmp_path), 10**9)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(install.InstallError, match="cannot be written to"):
        install.check_place(str(tmp_path), 1)


def test_pips_mirror_is_uvs_too(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("UV_INDEX", "https://mine.example/simple")
    config = "global.index-url='https://mirror.example/simple'\n:env:.cert='/etc/ca.pem'\ninstall.extra-index-url='x'\n"
    assert install.mirrors(config) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }


@pytest.mark.slow
def test_a_wheel_holds_the_package_alone_and_says_what_it_is(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    names = ("stock_lakehouse", "pyproject.toml", "setup.py", "README.md", "LICENSE")
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    subprocess.run(
        [sys.executable, "-c", "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])", str(tmp_path)],
        cwd=copy,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        files = packed.namelist()
        (metadata,) = (name for name in files if name.endswith("METADATA"))
        facts = Parser().parsestr(packed.read(metadata).decode())
    assert {name.split("/")[0].split("-")[0] for name in files} == {"stock_lakehouse"}
    held = {name for name in files if not name.endswith(".py")}
    assert {
        "stock_lakehouse/sources/sample_data/actions.csv",
        "stock_lakehouse/dashboards/page/app.js",
        "stock_lakehouse/py.typed",
    } <= held
    assert facts["License-Expression"] == "Apache-2.0"
    assert any(line.startswith("boto3") and "platform" in line for line in facts.get_all("Requires-Dist", []))


def test_a_plain_install_of_the_program_says_what_to_add() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom stock_lakehouse.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "stock-lakehouse: typer is not installed; pip install 'stock-lakehouse[platform]'"
