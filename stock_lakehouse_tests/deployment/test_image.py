"""The image of deploy/Containerfile: built without a network, and its processes run in it with a root that cannot be written.

As root with buildah, of the base and the wheels that machine.py makes; the containers are namespaces of this machine's kernel,
with buildah's copy of the image as root. PostgreSQL, S3 and ECS are those of the tests.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from stock_lakehouse import __version__
from stock_lakehouse.deployment import production
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.deployment import machine
from stock_lakehouse_tests.deployment.tools import tool
from stock_lakehouse_tests.postgres import Tls, find_server, postgres

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
MADE = ROOT / "build" / "image-soak"
BUCKET, UID = "lake-of-the-image", 10001
CONFIG = 'tickers = ["AAPL", "NVDA"]\nfirst_date = 2023-08-01\nlast_date = 2023-09-21\n'
HEALTH_SECONDS = 180.0


@pytest.mark.deploy
def test_the_containerfile_is_clean() -> None:
    found = subprocess.run([tool("hadolint"), CONTAINERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


def test_the_image_has_what_its_processes_name() -> None:
    text = CONTAINERFILE.read_text(encoding="utf-8")
    assert f"DAGSTER_HOME={production.HOME}" in text
    folder = Path(production.RDS_CA).parent
    assert f"COPY lakehouse.toml deploy/dagster.yaml build/image/{Path(production.RDS_CA).name} {folder}/" in text
    assert f"USER {UID}:{UID}" in text


@dataclass(frozen=True)
class Image:
    """An image: its root folder in the mounts of a store, how a command gets there, and what buildah says of it."""

    root: Path
    within: Sequence[str]
    entry: Sequence[str]
    variables: Mapping[str, str]
    user: str
    volumes: Sequence[str]

    @contextmanager
    def container(self, command: Sequence[str], **variables: str) -> Iterator[Container]:
        """A process of the image with its entry point, user and variables. Its root is read-only, its /tmp its own."""
        root = shlex.quote(str(self.root))
        values = {**self.variables, **variables}
        script = (
            f"mount --bind {root} {root} && mount -t tmpfs -o mode=1777 tmpfs {root}/tmp && mount -t proc proc {root}/proc && "
            f"mount --rbind /dev {root}/dev && mount -o remount,bind,ro {root} && cd {root}/tmp && "
            # The shell stays, as root: whoever has become another user is not killed with `unshare`.
            f"{shlex.join(self.inside([*self.entry, *command], values))}; exit $?"
        )
        process = subprocess.Popen(
            [*self.within, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            yield Container(self, process, values)
        finally:
            process.kill()
            process.wait()

    def inside(self, command: Sequence[str], values: Mapping[str, str]) -> list[str]:
        """`command` as the image's user in its root."""
        variables = [f"{name}={value}" for name, value in values.items()]
        return ["chroot", f"--userspec={self.user}", str(self.root), "/usr/bin/env", "-i", *variables, *command]

    def call(self, command: Sequence[str], seconds: float = 120, **variables: str) -> tuple[int, str]:
        with self.container(command, **variables) as container:
            try:
                said, _ = container.process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                container.process.kill()
                pytest.fail(f"{shlex.join(command)} does not end:\n{container.process.communicate()[0]}")
            return container.process.returncode, said


@dataclass(frozen=True)
class Container:
    """A process of an image that was started."""

    image: Image
    process: subprocess.Popen[str]
    variables: Mapping[str, str]

    def healthy(self, check: str) -> tuple[bool, str]:
        """Whether the shell command `check` ends well in the container, beside its process and without the entry point."""
        enter = ["nsenter", f"--target={self.process.pid}", "--mount"]
        command = self.image.inside(["sh", "-c", check], self.variables)
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr


class Store:
    """A store of images of its own, in the folder `folder`; what builds in it has no network.

    Its layers lie over each other where the file system can do that, and are copied where it cannot. Its mounts are those of a
    process that ends with this one, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._driver = folder, "overlay"
        keeper = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", "echo; exec cat"]
        self._keeper = subprocess.Popen(keeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._keeper.stdout is not None
        self._keeper.stdout.readline()
        self.within = ("setpriv", "--pdeathsig", "KILL", "nsenter", f"--target={self._keeper.pid}", "--mount")
        try:
            self.call("info")
        except AssertionError:
            self._driver = "vfs"

    def call(self, *arguments: str | Path) -> str:
        """The output of buildah. Raises AssertionError with its errors if it fails."""
        storage = ["--root", self.folder / self._driver, "--runroot", self.folder / "run"]
        command = [*self.within, "unshare", "--net", "buildah", "--storage-driver", self._driver, *storage, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def build(self, context: Path) -> Image:
        """The image of deploy/Containerfile."""
        base = self.call("from", "scratch")
        machine.make_base(self._seen(self.call("mount", base)))
        self.call("commit", "--quiet", "--rm", base, "localhost/base")
        options = [
            "--isolation",
            "chroot",
            "--pull-never",
            "--build-arg",
            "BASE=localhost/base",
            "-t",
            "localhost/lakehouse",
        ]
        self.call("build", *options, "-f", context / "deploy" / "Containerfile", context)
        container = self.call("from", "--pull-never", "localhost/lakehouse")
        found = json.loads(self.call("inspect", "--type", "image", "localhost/lakehouse"))["OCIv1"]["config"]
        root = Path(self.call("mount", container))
        hosts = self._seen(root) / "etc" / "hosts"
        hosts.write_text("127.0.0.1 localhost\n", encoding="utf-8")  # as what runs containers writes it
        variables = dict(value.split("=", 1) for value in found["Env"])
        return Image(root, self.within, found["Entrypoint"], variables, found["User"], list(found["Volumes"]))

    def _seen(self, path: str | Path) -> Path:
        """A path of the store's mounts as this process sees it."""
        return Path(f"/proc/{self._keeper.pid}/root{path}")

    def remove(self) -> None:
        self._keeper.kill()
        self._keeper.wait()
        shutil.rmtree(self.folder)


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    """A store in `folder`, which is removed at the end. Skips the test where no image can be built."""
    missing = [
        name for name in ("buildah", "setpriv", "unshare", "nsenter") if shutil.which(name) is None
    ] + machine.missing_packages()
    if missing or os.geteuid() != 0:
        pytest.skip(f"NOT RUN: needs root, and {', '.join(missing) or 'nothing else'} (Debian: apt-get install)")
    folder.mkdir(exist_ok=True)
    found = Store(folder)
    try:
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """The database's port, and the one that stands in the image."""
    return s3._free_ports(1)[0], production.DATABASE_PORT


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA, ports: tuple[int, int]) -> Iterator[Image]:
    """The image with the packages of this environment. The certificates of this test stand for those of RDS."""
    with store(tmp_path_factory.mktemp("image")) as found:
        context = found.folder / "context"
        wheels = context / "build" / "image" / "wheels"
        machine.pack_wheels(ROOT / "requirements.lock", wheels)
        uv = [Path(sys.executable).with_name("uv"), "build", "--quiet", "--wheel", "--out-dir", wheels]
        subprocess.run([*uv, _sources(found.folder / "sources")], check=True, timeout=300)
        _make_context(context, authority, ports)
        yield found.build(context)


def _sources(folder: Path) -> Path:
    """A copy of what the wheel is built of: a build writes beside it."""
    folder.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    left = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stock_lakehouse", folder / "stock_lakehouse", ignore=left)
    return folder


def _make_context(context: Path, authority: trustme.CA, ports: tuple[int, int]) -> None:
    """What the Containerfile copies, beside the wheels."""
    shutil.copytree(ROOT / "deploy", context / "deploy")
    shutil.copy(ROOT / "requirements.lock", context)
    (context / "lakehouse.toml").write_text(CONFIG, encoding="utf-8")
    text = production.dagster_yaml(Settings()).replace(f"port: {ports[1]}", f"port: {ports[0]}")
    (context / "deploy" / "dagster.yaml").write_text(text, encoding="utf-8")
    authority.cert_pem.write_to_path(str(context / "build" / "image" / "rds-ca.pem"))


@pytest.fixture(scope="module")
def outside(authority: trustme.CA, ports: tuple[int, int]) -> Iterator[dict[str, str]]:
    """The variables with which a container finds its database, and S3 and ECS on an emulator."""
    programs = find_server()
    if programs is None:
        pytest.skip("NOT RUN: no PostgreSQL server here (Debian: apt-get install postgresql)")
    tls = Tls(ports[0], authority.issue_cert("localhost"), "hostssl dagster dagster 127.0.0.1/32 trust")
    with ExitStack() as stack:
        stack.enter_context(postgres(programs, tls))
        address = stack.enter_context(s3.moto())
        s3.make_bucket(address, BUCKET)
        ecs = s3.client(address, "ecs")
        ecs.create_cluster(clusterName="lakehouse")
        run = [{"name": production.RUN_CONTAINER, "image": "image", "essential": True}]
        ecs.register_task_definition(family="lakehouse-run", containerDefinitions=run, cpu="2048", memory="8192")
        yield {
            **s3.environment(address),
            "DAGSTER_POSTGRES_HOST": "localhost",
            "DAGSTER_ECS_CLUSTER": "lakehouse",
            "DAGSTER_ECS_RUN_TASK": "lakehouse-run",
            "DAGSTER_ECS_SUBNETS": "subnet-1",
            "DAGSTER_ECS_SECURITY_GROUPS": "sg-1",
            "DAGSTER_ECS_PUBLIC_IP": "DISABLED",
            "DAGSTER_ECS_ROLES": "{}",
            "DAGSTER_LOGS_BUCKET": BUCKET,
            "DAGSTER_LOGS_PREFIX": f"lake/{production.LOGS}",
            "STOCK_LAKEHOUSE_LAKE_ROOT": f"s3://{BUCKET}/lake",
        }


@pytest.mark.slow
@pytest.mark.deploy
def test_the_image_runs_as_an_unprivileged_user_and_writes_in_tmp_alone(image: Image) -> None:
    assert image.user == f"{UID}:{UID}"
    assert image.volumes == ["/tmp"]
    script = (
        "import os, sys, pathlib; print(os.getuid(), os.getgid(), os.getgroups(), sys.prefix);\n"
        "for name in ('/', '/etc', '/opt/stock-lakehouse', '/var/lib'):\n"
        "    try: pathlib.Path(name, 'x').write_text('x'); print('written', name)\n"
        "    except OSError: pass\n"
        "pathlib.Path('/tmp/x').write_text('x'); print('written', '/tmp')"
    )
    code, said = image.call(["python", "-c", script])
    assert (code, said.splitlines()) == (0, [f"{UID} {UID} [{UID}] /opt/stock-lakehouse", "written /tmp"])
    setuid = subprocess.run(
        [*image.within, "find", image.root / "opt", "-perm", "/6000"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert setuid.stdout == ""


@pytest.mark.slow
@pytest.mark.deploy
def test_the_three_processes_are_well_and_a_run_fills_the_lake(image: Image, outside: dict[str, str]) -> None:
    for port in (production.CODE_PORT, production.UI_PORT):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)), f"another process listens on {port}"
    with ExitStack() as stack:
        for process in production.PROCESSES:
            container = stack.enter_context(image.container(process.command, **outside))
            until = time.monotonic() + HEALTH_SECONDS
            while not (found := container.healthy(process.health))[0]:
                assert container.process.poll() is None, f"{process.name}: {container.process.communicate()[0]}"
                assert time.monotonic() < until, f"{process.name}: {found[1]}"
                time.sleep(1)
        code, said = image.call(["stock-lakehouse", "backfill"], 400, **outside)
        assert code == 0, said
        code, said = image.call(["stock-lakehouse", "status", "--json"], **outside)
        assert code == 0, said
        tables = {table["table"]: table["rows"] for table in json.loads(said[said.index("[") :])}
        assert tables["curated_stocks_daily"] == tables["stocks_features"] == 74  # 37 sessions of two tickers
    keys = [entry["Key"] for entry in s3.client(outside["AWS_ENDPOINT_URL"]).list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert any(key.startswith("lake/raw/stocks_daily/year=2023/") for key in keys)


@pytest.mark.slow
@pytest.mark.deploy
def test_a_container_elsewhere_has_its_database_by_url(image: Image) -> None:
    url = "postgresql://dagster:secret@127.0.0.1:1/dagster"
    code, said = image.call(["stock-lakehouse", "doctor"], DAGSTER_POSTGRES_URL=url)
    assert code == 1
    assert "PostgreSQL database dagster on 127.0.0.1:1 does not answer" in " ".join(said.split())
    assert "secret" not in said


@pytest.mark.soak
@pytest.mark.deploy
@pytest.mark.timeout(1800)
def test_the_wheels_of_make_image_context_are_those_of_the_lock_and_make_the_image(
    authority: trustme.CA, ports: tuple[int, int], tmp_path: Path
) -> None:
    MADE.mkdir(parents=True, exist_ok=True)
    (MADE / "rds-ca.pem").touch()  # which make would fetch from AWS
    python = machine.PREFIX / "bin" / "python3"
    subprocess.run(["make", "-C", ROOT, f"IMAGE={MADE}", f"PYTHON={python}", "image-context"], check=True, timeout=1200)
    with store(tmp_path / "store") as found:
        machine.pack_wheels(ROOT / "requirements.lock", tmp_path / "packed")
        made = {_package(path) for path in (MADE / "wheels").glob("*.whl")}
        assert made == {*map(_package, (tmp_path / "packed").glob("*.whl")), ("stock_lakehouse", __version__)}
        context = found.folder / "context"
        shutil.copytree(MADE / "wheels", context / "build" / "image" / "wheels")
        _make_context(context, authority, ports)
        code, said = found.build(context).call(["python", "-m", "stock_lakehouse", "--version"])
        assert (code, said.strip()) == (0, f"stock-lakehouse {__version__}")


def _package(wheel: Path) -> tuple[str, str]:
    """The name and the version of a wheel."""
    name, version, *_ = wheel.name.split("-")
    return name.lower(), version
