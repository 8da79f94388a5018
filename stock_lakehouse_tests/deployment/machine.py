"""What an image is built of, from what this machine has: a base of its Debian packages and its Python, and wheels.

Here: both, within seconds and without a network. Not here: the wheels of a deployment, which `make image-context` makes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from packaging.requirements import Requirement

PREFIX = Path(sys.base_prefix)  # where the Python of the tests' environment is installed
# Packages of the base besides the required ones. The second brings the libraries that any Python needs.
PACKAGES = ("ca-certificates", "python3-venv")
LEFT_OUT = ("/usr/share/doc/", "/usr/share/locale/", "/usr/share/man/")  # as in slim images
LINKS = ("bin", "sbin", "lib", "lib64")  # of the root, to the folders of the same name below usr
# What an installer writes, and what a wheel has of its own.
OF_AN_INSTALLATION = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}


def missing_packages() -> list[str]:
    """Those of PACKAGES that are not installed here; all of them on a machine without Debian's packages."""
    installed = _installed() if shutil.which("dpkg-query") else {}
    return [name for name in PACKAGES if name not in installed]


def make_base(root: Path) -> None:
    """Fill the empty folder `root` with a Debian that has a Python in /usr/local, as the images `python` have.

    Files are those of the required packages of this machine and of PACKAGES with what they depend on; PREFIX becomes /usr/local.
    """
    for name in LINKS:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    packages = sorted(_with_dependencies(_installed()))
    listed = subprocess.run(["dpkg", "--listfiles", *packages], capture_output=True, text=True, check=True).stdout
    paths = {line for line in listed.splitlines() if line.startswith("/") and not line.startswith(LEFT_OUT)} - {"/."}
    for path in map(Path, sorted(paths)):
        target = root / path.parent.resolve().relative_to("/") / path.name  # Debian lists some files by the links
        if path.is_symlink() or path.is_file():
            shutil.copy2(path, target, follow_symlinks=False)
        elif path.is_dir() and not target.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
    # What the packages made when they were installed.
    for name in ("passwd", "group", "localtime", "timezone"):
        if Path("/etc", name).exists():
            shutil.copy2(Path("/etc", name), root / "etc" / name, follow_symlinks=False)
    for name in ("alternatives", "ssl/certs"):
        shutil.copytree(Path("/etc", name), root / "etc" / name, symlinks=True, dirs_exist_ok=True)
    if Path("/usr") != PREFIX:
        left = shutil.ignore_patterns("__pycache__", "test", "tests", "site-packages", "*.a")
        shutil.copytree(PREFIX, root / "usr" / "local", symlinks=True, dirs_exist_ok=True, ignore=left)
    subprocess.run(["ldconfig", "-r", root], check=True)


def _installed() -> dict[str, tuple[bool, set[str]]]:
    """The packages of this machine: whether each is required, and the names that it depends on."""
    form = "${Package}\t${db:Status-Status}\t${Priority}\t${Pre-Depends}, ${Depends}\n"
    said = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        name, status, priority, needed = line.split("\t")
        if status == "installed":
            found[name] = (priority == "required", set(re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]*)", needed)))
    return found


def _with_dependencies(installed: dict[str, tuple[bool, set[str]]]) -> set[str]:
    found: set[str] = set()
    wanted = {*PACKAGES, *(name for name, (is_required, _) in installed.items() if is_required)}
    while wanted:
        found |= wanted
        wanted = {needed for name in wanted for needed in installed[name][1] if needed in installed} - found
    return found


def pack_wheels(lock: Path, folder: Path) -> None:
    """Write the wheels that `lock` pins for this Python to `folder`, packed again, uncompressed, of what is installed here.

    Raises PackageNotFoundError for a package that this environment lacks.
    """
    folder.mkdir(parents=True)
    for requirement in map(Requirement, lock.read_text(encoding="utf-8").splitlines()):
        if requirement.marker is None or requirement.marker.evaluate():
            _pack(metadata.distribution(requirement.name), folder)


def _pack(package: metadata.Distribution, folder: Path) -> None:
    """Write the wheel of an installed package: its files and scripts, as its metadata list them."""
    files = package.files or []
    info = next(path.parts[0] for path in files if path.parts[0].endswith(".dist-info"))
    name = info.removesuffix(".dist-info")
    tags = [
        line.split(": ")[1].split("-")
        for line in str(package.read_text("WHEEL")).splitlines()
        if line.startswith("Tag: ")
    ]
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    made = {point.name for point in package.entry_points.select(group="console_scripts")}
    with ZipFile(folder / f"{name}-{tag}.whl", "w", ZIP_STORED, strict_timestamps=False) as wheel:
        inside = []
        for path in files:
            place = str(path)
            if path.parts[0] == "..":
                if path.parent.name != "bin" or path.name in made:
                    continue  # manuals; and pip writes the scripts of entry points
                place = f"{name}.data/scripts/{path.name}"
            elif path.parts[0] == info and path.name in OF_AN_INSTALLATION:
                continue
            wheel.write(path.locate(), place)
            inside.append(place)
        record = f"{info}/RECORD"
        wheel.writestr(record, "".join(f"{place},,\n" for place in (*inside, record)))
