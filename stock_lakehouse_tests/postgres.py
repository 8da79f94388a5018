"""A PostgreSQL server of a test's own: Debian's, in a temporary folder, on a unix socket there, stopped at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0


def find_server() -> Path | None:
    """The folder with initdb and postgres; None where there is none."""
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return debian[-1].parent if debian else None


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """The URL of an empty database. As root the server runs as an unprivileged user, since it refuses root."""
    user = _unprivileged() if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # a socket's path must be short
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}

        def call(name: str, *arguments: str) -> None:
            subprocess.run(
                [programs / name, *arguments],
                check=True,
                timeout=120,
                capture_output=True,
                cwd=folder,
                env=environment,
                **identity,
            )

        call("initdb", "-D", f"{folder}/data", "-U", "dagster", "-A", "trust", "--no-sync", "-E", "UTF8")
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=32MB"]
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(
                [programs / "postgres", "-D", f"{folder}/data", "-k", folder, *settings],
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                **identity,
            ) as server,
        ):
            try:
                _wait(programs, folder, server)
                call("createdb", "-h", folder, "-U", "dagster", "dagster")
                yield f"postgresql://dagster@/dagster?host={folder}"
            finally:
                server.terminate()  # a quick stop: no client keeps it
                try:
                    server.wait(10)
                except subprocess.TimeoutExpired:
                    server.send_signal(2)
                    server.wait(30)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("neither a user postgres nor nobody: the server refuses to run as root")


def _wait(programs: Path, folder: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        ready = subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False, timeout=30)
        if ready.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {Path(folder, 'log').read_text(encoding='utf-8')}")
