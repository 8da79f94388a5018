"""A Trino server in a process of its own, on loopback, which reads the catalog and the bucket of a moto server.

Its name is not trino.py: pytest puts this folder on the path, where that would stand in place of Trino's client.

Here: finding a JDK, the server's archive and its folder, starting, waiting, stopping. Not here: anything a test asks of it.

The archive (784 MB) comes once from Maven's repository and is unpacked once, into a cache folder of the user. Where either cannot
be had, `NotRunError` says why.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from stock_lakehouse_tests.not_run import NotRunError
from stock_lakehouse_tests.s3 import KEYS, _free_ports

VERSION = "476"
JAVA = 24  # Trino 476 was built for it
MODULES = {"jdk.incubator.vector", "jdk.attach"}  # of a full JDK; a JRE lacks them
ARTIFACT = f"io.trino:trino-server:{VERSION}:tar.gz"
PLUGINS = ("hive", "delta-lake")  # of the archive's 60, the two that read the lake
START_SECONDS = 180.0
FETCH_SECONDS = 900.0

# Athena's one name space holds Parquet, CSV and Delta tables. So does the Hive connector's, which hands each Delta table to the
# other catalog.
CATALOG = "awsdatacatalog"
CATALOGS = {
    CATALOG: {"connector.name": "hive", "hive.delta-lake-catalog-name": "delta"},
    "delta": {"connector.name": "delta_lake", "delta.metadata.cache-ttl": "0s"},
}


@dataclass(frozen=True)
class Trino:
    """A running server: the port on 127.0.0.1, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def java() -> Path:
    """The `java` of a JDK of version JAVA or newer: of JAVA_HOME, of the path, or where systems keep JDKs. Raises NotRunError."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java"):
        homes.append(Path(on_path).resolve().parents[1])
    homes += sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)
    homes += sorted(Path("/Library/Java/JavaVirtualMachines").glob("*/Contents/Home"), reverse=True)
    homes += sorted((Path.home() / ".sdkman/candidates/java").glob("*"), reverse=True)
    for home in homes:
        if _is_new_jdk(home):
            return home / "bin" / "java"
    raise NotRunError(f"no JDK of version {JAVA} or newer was found; set JAVA_HOME to one")


def _is_new_jdk(home: Path) -> bool:
    """Whether `home` has a full JDK of version JAVA or newer, by the file `release` that every JDK has."""
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return False
    version = re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE)
    modules = re.search(r'^MODULES="(.*)"', release, re.MULTILINE)
    if version is None or modules is None or int(version[1]) < JAVA:
        return False
    return set(modules[1].split()) >= MODULES and (home / "bin" / "java").is_file()


def server_folder() -> Path:
    """The unpacked server, with the plugins that are used. Fetched and unpacked if it is not there. Raises NotRunError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stock_lakehouse_tests"
    folder = cache / f"trino-server-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):
        if not folder.is_dir():
            _unpack(_archive(), folder)
    return folder


def _archive() -> Path:
    """The archive in Maven's local repository, fetched if it is not there. Raises NotRunError."""
    path = Path.home() / ".m2/repository/io/trino/trino-server" / VERSION / f"trino-server-{VERSION}.tar.gz"
    if path.is_file():
        return path
    if shutil.which("mvn") is None:
        raise NotRunError(
            f"the archive of Trino {VERSION} is not in Maven's local repository, and there is no program `mvn`"
        )
    command = ["mvn", "-q", "-B", "dependency:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"]
    try:
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotRunError(f"the archive of Trino {VERSION} did not come within {FETCH_SECONDS:.0f} s") from None
    if fetched.returncode or not path.is_file():
        reason = (fetched.stdout + fetched.stderr).strip().splitlines() or [f"`mvn` ended with {fetched.returncode}"]
        raise NotRunError(f"the archive of Trino {VERSION} cannot be had: {reason[0]}")
    return path


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside `folder` and rename, so that a killed unpacking leaves no half server under the name."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        # The whole archive: its jars are hard links between plugins, so a part of it does not unpack.
        subprocess.run(["tar", "-xzf", str(archive), "-C", beside], check=True)
        unpacked = Path(beside, folder.name)
        for plugin in (unpacked / "plugin").iterdir():
            if plugin.name not in PLUGINS:
                shutil.rmtree(plugin)
        unpacked.rename(folder)


@contextmanager
def trino_server(folder: Path, endpoint: str, memory: str = "3G") -> Iterator[Trino]:
    """A new Trino server whose Glue and S3 are at `endpoint`; its files go to `folder`. Raises NotRunError."""
    program, home = java(), server_folder()
    port = _free_ports(1)[0]
    _configure(folder, port, endpoint)
    command = [
        *(str(program), "-server", f"-Xmx{memory}", "-XX:+UseG1GC", "-Djdk.attach.allowAttachSelf=true"),
        *("--sun-misc-unsafe-memory-access=allow", "--add-modules=jdk.incubator.vector"),
        *(f"-Dconfig={folder}/etc/config.properties", f"-Dlog.levels-file={folder}/etc/log.properties"),
        *("-Dnode.environment=test", "-Dnode.id=one", f"-Dnode.data-dir={folder}/data", "-Dnode.bind-ip=127.0.0.1"),
        *("-cp", f"{home}/lib/*", "io.trino.server.TrinoServer"),
    ]
    with open(folder / "server.log", "wb") as log:
        # In `folder`, where it looks for etc/; its plugins are linked there.
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(server, port, folder / "server.log")
        yield Trino(port, server)
    finally:
        server.kill()
        server.wait()


def _configure(folder: Path, port: int, endpoint: str) -> None:
    settings = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": str(port),
        "discovery.uri": f"http://127.0.0.1:{port}",
        "node.internal-address": "127.0.0.1",
        "catalog.config-dir": f"{folder}/etc/catalog",
        "plugin.dir": f"{server_folder()}/plugin",
    }
    secret = {"aws-access-key": KEYS["AWS_ACCESS_KEY_ID"], "aws-secret-key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    glue = {"endpoint-url": endpoint, "region": KEYS["AWS_REGION"], **secret}
    s3 = {"endpoint": endpoint, "region": KEYS["AWS_REGION"], "path-style-access": "true", **secret}
    shared = {
        "hive.metastore": "glue",
        **{f"hive.metastore.glue.{name}": value for name, value in glue.items()},
        "fs.native-s3.enabled": "true",
        **{f"s3.{name}": value for name, value in s3.items()},
    }
    catalogs = folder / "etc" / "catalog"
    catalogs.mkdir(parents=True, exist_ok=True)
    _write(folder / "etc" / "config.properties", settings)
    _write(folder / "etc" / "log.properties", {"io.trino": "WARN", "io.airlift": "WARN", "root": "WARN"})
    for name, own in CATALOGS.items():
        _write(catalogs / f"{name}.properties", own | shared)


def _write(file: Path, properties: dict[str, str]) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server answers queries. Raises AssertionError with the end of its log if it does not."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/info", timeout=5) as answer:
                if not json.load(answer)["starting"]:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.3)
    end = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    raise AssertionError(f"Trino did not start within {START_SECONDS:.0f} s:\n{end}")
