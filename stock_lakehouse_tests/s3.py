"""Stores that speak S3, on loopback, each in a process of its own: moto's server, and seaweedfs where its program `weed` is.

Here: starting, stopping, a bucket, and what a lake in one holds. Not here: anything a test expects.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import obstore
from obstore.store import S3Store

from stock_lakehouse.lake.storage import bucket as s3_bucket
from stock_lakehouse_tests.engines.servers import DELTA

KEYS = {"AWS_ACCESS_KEY_ID": "lakehouse", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}
WEED = shutil.which("weed") or shutil.which("weed", path=sysconfig.get_path("scripts"))
NO_WEED = "needs seaweedfs: its program `weed`, which `make weed` builds with Go"

# One request at a time: moto looks at a condition and writes in two steps. GET /-/requests says how many came, by
# method; a GET that lists is a LIST.
MOTO = """
import collections, json, logging, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
application, one = DomainDispatcherApplication(create_backend_app), threading.Lock()
requests = collections.Counter()
def serialized(environ, start_response):
    with one:
        if environ["PATH_INFO"] == "/-/requests":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(requests).encode()]
        is_list = "list-type" in environ.get("QUERY_STRING", "")
        requests["LIST" if is_list else environ["REQUEST_METHOD"]] += 1
        return application(environ, start_response)
server = make_server("127.0.0.1", 0, serialized, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


def environment(endpoint: str) -> dict[str, str]:
    """The variables that a lake at `endpoint` needs."""
    return {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """The AWS_* variables of this process are `values` and no others."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(values)
    s3_bucket._client.cache_clear()
    try:
        yield
    finally:
        s3_bucket._client.cache_clear()
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def moto(calls_without_rights: int | None = None) -> Iterator[str]:
    """The address of a new moto server; it asks for rights after so many calls, or never."""
    values = dict(os.environ)
    if calls_without_rights is not None:
        values["INITIAL_NO_AUTH_ACTION_COUNT"] = str(calls_without_rights)
    server = subprocess.Popen(
        [sys.executable, "-c", MOTO], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=values
    )
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()


def requests_to(endpoint: str) -> dict[str, int]:
    """How many requests the moto server at `endpoint` has had, by method."""
    with urllib.request.urlopen(f"{endpoint}/-/requests", timeout=30) as answer:
        requests: dict[str, int] = json.load(answer)
    return requests


@contextmanager
def weed() -> Iterator[str]:
    """The address of a new seaweedfs, which knows KEYS and, for reading alone, the keys `reader`."""
    assert WEED
    identities = [
        _identity("writer", KEYS["AWS_ACCESS_KEY_ID"], ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", "reader", ["Read", "List"]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        names = [f"{name}.{port}" for name in ("master", "volume", "filer", "s3") for port in ("port", "port.grpc")]
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        command = [WEED, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder}/s3.json", "-master.telemetry=false"]
        command += [
            "-master.volumeSizeLimitMB=64",
            "-volume.max=0",
            *(f"-{name}={port}" for name, port in ports.items()),
        ]
        with open(Path(folder, "log"), "wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            yield f"http://127.0.0.1:{ports['s3.port']}"
        finally:
            server.kill()
            server.wait()


def _identity(name: str, key: str, actions: list[str]) -> dict[str, Any]:
    credentials = [{"accessKey": key, "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def client(endpoint: str, service: str = "s3") -> Any:
    """A boto3 client of a service at `endpoint`."""
    config = botocore.config.Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=KEYS["AWS_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=config,
    )


def make_bucket(endpoint: str, bucket: str) -> None:
    """Make it as soon as the server answers."""
    for _ in range(120):
        try:
            client(endpoint).create_bucket(Bucket=bucket)
        except (botocore.exceptions.EndpointConnectionError, botocore.exceptions.ClientError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"no server at {endpoint}")


def objects(root: str) -> dict[str, tuple[str, Any]]:
    """Every object of the lake at `root` but its leases, with its mark and time: equal before and after means nothing written."""
    return {
        one["path"]: (str(one["e_tag"]), one["last_modified"])
        for chunk in obstore.list(S3Store.from_url(root, client_options={"allow_http": True}))
        for one in chunk
        if not one["path"].startswith(".locks/")
    }


def copy(root: str, target: str) -> None:
    """Copy the lake at `root` to `target`, without its leases."""
    source, other = (S3Store.from_url(one, client_options={"allow_http": True}) for one in (root, target))
    for path in objects(root):
        obstore.put(other, path, obstore.get(source, path).bytes())


def upload(folder: Path, root: str) -> None:
    """Copy the lake in `folder` to `root`, without its locks."""
    other = S3Store.from_url(root, client_options={"allow_http": True})
    for path in folder.rglob("*"):
        if path.is_file() and ".locks" not in path.parts:
            obstore.put(other, str(path.relative_to(folder)), path.read_bytes())


HADOOP, AWS_SDK = "3.5.0", "2.35.4"  # PySpark's Hadoop, and the client that its hadoop-aws is built with
JVM_PACKAGES = (
    DELTA,
    f"org.apache.hadoop:hadoop-aws:{HADOOP}",
    # The parts of the client that S3 needs, 20 MB, for the bundle of all of AWS, 700 MB.
    *(f"software.amazon.awssdk:{part}:{AWS_SDK}" for part in ("s3", "s3-transfer-manager", "sts")),
)
JVM_EXCLUDED = (
    "software.amazon.awssdk:bundle",
    "org.apache.hadoop:hadoop-client-*",
    "org.apache.parquet:*",
    "org.slf4j:*",
)


def jvm_settings(endpoint: str) -> dict[str, str]:
    """What a Spark server on the JVM needs to read s3:// at `endpoint`."""
    return {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": KEYS["AWS_REGION"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }
