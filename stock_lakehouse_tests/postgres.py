"""A PostgreSQL server of a test's own: Debian's, in a temporary folder, on a unix socket there, stopped at the end. If wanted it
also listens on 127.0.0.1, with TLS alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

START_SECONDS = 60.0


def find_server() -> Path | None:
    """The folder with initdb and postgres; None where there is none."""
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return debian[-1].parent if debian else None


@dataclass(frozen=True)
class Tls:
    """A port of 127.0.0.1, the server's certificate, and the lines of pg_hba.conf that say who may come in there."""

    port: int
    certificate: trustme.LeafCert
    rules: str


@contextmanager
def postgres(programs: Path, tls: Tls | None = None) -> Iterator[str]:
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
        settings = ["-c", "fsync=off", "-c", "shared_buffers=32MB"]
        settings += ["-c", "listen_addresses="] if tls is None else _prepare_tls(Path(folder, "data"), tls, identity)
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
                port = str(tls.port if tls else 5432)  # it is a part of the socket's name
                _wait(programs, folder, port, server)
                call("createdb", "-h", folder, "-p", port, "-U", "dagster", "dagster")
                yield f"postgresql://dagster@/dagster?host={folder}&port={port}"
            finally:
                server.terminate()  # a quick stop: no client keeps it
                try:
                    server.wait(10)
                except subprocess.TimeoutExpired:
                    server.send_signal(2)
                    server.wait(30)


def _prepare_tls(data: Path, tls: Tls, identity: dict[str, Any]) -> list[str]:
    """Write the server's key, certificate and rules; give its options."""
    (data / "server.key").write_bytes(tls.certificate.private_key_pem.bytes())
    (data / "server.key").chmod(0o600)
    (data / "server.crt").write_bytes(b"".join(blob.bytes() for blob in tls.certificate.cert_chain_pems))
    (data / "pg_hba.conf").write_text(f"local all all trust\n{tls.rules}\n", encoding="utf-8")
    if identity:
        for name in ("server.key", "server.crt", "pg_hba.conf"):
            os.chown(data / name, identity["user"], identity["group"])
    return ["-c", "listen_addresses=127.0.0.1", "-p", str(tls.port), "-c", "ssl=on"]


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("neither a user postgres nor nobody: the server refuses to run as root")


def _wait(programs: Path, folder: str, port: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        ready = subprocess.run([programs / "pg_isready", "-q", "-h", folder, "-p", port], check=False, timeout=30)
        if ready.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {Path(folder, 'log').read_text(encoding='utf-8')}")
