"""Dagster on ECS: its dagster.yaml on a real PostgreSQL with TLS and an emulator of ECS and S3; how its processes start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import trustme

from stock_lakehouse.automation import jobs
from stock_lakehouse.deployment import database, production, start
from stock_lakehouse.instance.database import InstanceError, check_database
from stock_lakehouse.instance.home import CODE_MODULE, POSTGRES_VARIABLE, PRODUCTION
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.postgres import Tls, find_server, postgres

FAMILY, BUCKET = "lakehouse-run", "lake-of-the-test"
OVERRIDES_LIMIT = 8192  # characters of the overrides of a task: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html


@dataclass(frozen=True)
class Server:
    """PostgreSQL as RDS has it: a database whose owner has a password, and a role for those who log in by IAM."""

    port: int
    ca: Path
    url: str


@pytest.fixture(scope="module")
def rds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    programs = find_server()
    if programs is None:
        pytest.skip("NOT RUN: no PostgreSQL server here (Debian: apt-get install postgresql)")
    authority = trustme.CA()
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    [port] = s3._free_ports(1)
    rules = "hostssl dagster owner 127.0.0.1/32 scram-sha-256\nhostssl dagster dagster 127.0.0.1/32 trust"
    with postgres(programs, Tls(port, authority.issue_cert("localhost"), rules)) as url:
        # The server's first user stands for the one that RDS keeps for itself.
        _sql(url, "CREATE ROLE rds_iam", "CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'secret of the owner'")
        _sql(url, "ALTER ROLE dagster RENAME TO rdsadmin", as_user="postgres_first")
        yield Server(port, ca, url.replace("dagster@", "rdsadmin@"))


def _sql(url: str, *statements: str, as_user: str = "") -> None:
    import psycopg2

    if as_user:  # a role cannot rename itself
        _sql(url, f"CREATE ROLE {as_user} LOGIN SUPERUSER")
        url = url.replace("dagster@", f"{as_user}@")
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def variables(**more: str) -> dict[str, str]:
    return {
        "AWS_REGION": "us-east-1",
        "DAGSTER_POSTGRES_HOST": "localhost",
        "DAGSTER_ECS_CLUSTER": "lakehouse",
        "DAGSTER_ECS_RUN_TASK": FAMILY,
        "DAGSTER_ECS_SUBNETS": "subnet-1,subnet-2",
        "DAGSTER_ECS_SECURITY_GROUPS": "sg-1",
        "DAGSTER_ECS_PUBLIC_IP": "DISABLED",
        "DAGSTER_ECS_ROLES": '{"upkeep": "arn:aws:iam::123456789012:role/upkeep"}',
        "DAGSTER_LOGS_BUCKET": BUCKET,
        "DAGSTER_LOGS_PREFIX": f"lake/{production.LOGS}",
        **more,
    }


@pytest.fixture
def home(tmp_path: Path, rds: Server) -> Path:
    """DAGSTER_HOME as a container makes it, but for the place of the certificates and the server's port."""
    text = production.dagster_yaml(Settings())
    text = text.replace(production.RDS_CA, str(rds.ca)).replace(
        f"port: {production.DATABASE_PORT}", f"port: {rds.port}"
    )
    (tmp_path / "template.yaml").write_text(text, encoding="utf-8")
    folder = tmp_path / "home"
    start.prepare(variables(DAGSTER_HOME=str(folder), DAGSTER_YAML_TEMPLATE=str(tmp_path / "template.yaml")))
    return folder


def with_user(rds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the container `database` of the service does."""
    monkeypatch.setattr(database, "RDS_CA", str(rds.ca))
    monkeypatch.setattr(database, "DATABASE_PORT", rds.port)
    owner = {"host": "localhost", "user": "owner", "password": "secret of the owner"}
    for name, variable in database.OWNER_VARIABLES.items():
        monkeypatch.setenv(variable, owner[name])
    database.main()


@pytest.fixture
def user(rds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg2

    with psycopg2.connect(rds.url) as connection, connection.cursor() as cursor:
        # What RDS gives the owner of a database; before PostgreSQL 16 CREATEROLE alone lets the owner grant rds_iam.
        cursor.execute("ALTER DATABASE dagster OWNER TO owner")
    connection.close()
    with_user(rds, monkeypatch)


@pytest.mark.usefixtures("user")
def test_the_instance_logs_in_by_iam_over_verified_tls(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg2

    passwords: list[str] = []
    connect = psycopg2.connect

    def seen(*args: Any, **values: Any) -> Any:
        passwords.append(values["password"])
        assert values["sslmode"] == "verify-full"
        return connect(*args, **values)

    monkeypatch.setattr(psycopg2, "connect", seen)
    with s3.variables(s3.KEYS):
        assert "PostgreSQL database dagster on localhost" in check_database(home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.report_runless_asset_event(dg.AssetMaterialization("bars"))
            assert instance.get_latest_materialization_event(dg.AssetKey("bars")) is not None
            queue = instance.get_concurrency_config().run_queue_config
            assert queue is not None
            assert queue.max_concurrent_runs == 4
    assert passwords
    for password in passwords:  # a request to RDS, signed for a quarter of an hour
        assert password.startswith("localhost:")
        assert "Action=connect&DBUser=dagster" in password
        assert "X-Amz-Expires=900" in password
        assert "X-Amz-Signature=" in password


@pytest.mark.usefixtures("user")
def test_a_server_whose_certificate_another_authority_signed_is_refused(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    config = home / "dagster.yaml"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(f"        sslrootcert: {other}" if "sslrootcert" in line else line for line in lines))
    with s3.variables(s3.KEYS), pytest.raises(InstanceError, match="certificate verify failed"):
        check_database(home)


def test_without_credentials_doctor_says_that_the_login_needs_them(home: Path) -> None:
    module = "from stock_lakehouse.instance.database import check_database"
    check = f"import pathlib, sys; {module}; check_database(pathlib.Path(sys.argv[1]))"
    nothing = {
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    # In a process of its own: boto3 keeps the credentials that it has found once.
    done = started("python", "-c", check, str(home), **nothing)
    assert "InstanceError: PostgreSQL database dagster on localhost" in done.stderr
    assert "there are no credentials for its login by IAM: Unable to locate credentials" in done.stderr


def test_the_databases_user_is_made_once_and_has_no_password(
    rds: Server, user: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import psycopg2

    with_user(rds, monkeypatch)
    with psycopg2.connect(rds.url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolpassword, pg_has_role('dagster', 'rds_iam', 'member') FROM pg_authid WHERE rolname = 'dagster'"
        )
        assert cursor.fetchall() == [(None, True)]
        cursor.execute("SELECT has_schema_privilege('dagster', 'public', 'CREATE')")
        assert cursor.fetchall() == [(True,)]
    connection.close()
    monkeypatch.setenv(database.OWNER_VARIABLES["password"], "wrong secret")
    with pytest.raises(SystemExit) as refused:
        database.main()
    assert "could not be created on localhost" in str(refused.value)
    monkeypatch.delenv(database.OWNER_VARIABLES["password"])
    with pytest.raises(SystemExit, match="not set: DAGSTER_POSTGRES_OWNER_PASSWORD"):
        database.main()
    assert "secret" not in str(refused.value) + capsys.readouterr().out


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """An emulator with a cluster, the task definition of a run and the lake's bucket."""
    with s3.moto() as address, s3.variables(start.completed(s3.environment(address))):
        s3.make_bucket(address, BUCKET)
        ecs = s3.client(address, "ecs")
        ecs.create_cluster(clusterName="lakehouse")
        ecs.register_task_definition(
            family=FAMILY,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="2048",
            memory="8192",
            containerDefinitions=[{"name": production.RUN_CONTAINER, "image": "image", "essential": True}],
        )
        yield address


def launched(home: Path, monkeypatch: pytest.MonkeyPatch, job: Any) -> dict[str, Any]:
    """The request with which the launcher of the instance starts a run of `job`."""
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.launcher import LaunchRunContext
    from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin

    requests: list[dict[str, Any]] = []
    with dg.DagsterInstance.from_config(str(home)) as instance:
        launcher: Any = instance.run_launcher
        monkeypatch.setattr(
            launcher.ecs,
            "run_task",
            lambda **request: (
                requests.append(request)
                or {"tasks": [{"taskArn": "arn:task", "clusterArn": "arn:cluster"}], "failures": []}
            ),
        )
        module = ModuleCodePointer(CODE_MODULE, "defs")
        code = RepositoryPythonOrigin(sys.executable, module, None, list(DEFAULT_DAGSTER_ENTRY_POINT))
        run = instance.create_run_for_job(job, job_code_origin=JobPythonOrigin(job.name, code), tags=dict(job.tags))
        launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    [request] = requests
    return request


@dg.job
def small_job() -> None:
    pass


@pytest.mark.usefixtures("user", "aws")
def test_a_run_is_a_task_of_the_templates_definition_in_its_network(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    request = launched(home, monkeypatch, small_job)
    assert request["taskDefinition"].partition("/")[2] == f"{FAMILY}:1"
    assert (request["cluster"], request["launchType"]) == ("lakehouse", "FARGATE")
    assert request["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-1", "subnet-2"],
        "securityGroups": ["sg-1"],
        "assignPublicIp": "DISABLED",
    }
    [container] = request["overrides"]["containerOverrides"]
    assert container["name"] == production.RUN_CONTAINER
    assert container["command"][:3] == ["dagster", "api", "execute_run"]
    assert len(json.dumps(request["overrides"])) < OVERRIDES_LIMIT
    assert "taskRoleArn" not in request["overrides"]
    shape = get_session().get_service_model("ecs").shape_for("RunTaskRequest")
    assert ParamValidator().validate(request, shape).has_errors() is False


@pytest.mark.usefixtures("user", "aws")
def test_runs_of_upkeep_have_the_role_that_the_template_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_ECS_ROLES", variables()["DAGSTER_ECS_ROLES"])
    assert jobs.role_tags("stream") == {}
    of_upkeep = dg.JobDefinition(graph_def=small_job.graph, tags=jobs.role_tags("upkeep"))
    request = launched(home, monkeypatch, of_upkeep)
    assert request["overrides"]["taskRoleArn"] == "arn:aws:iam::123456789012:role/upkeep"
    monkeypatch.setenv("DAGSTER_ECS_ROLES", "[1]")
    with pytest.raises(ValueError, match="DAGSTER_ECS_ROLES is not a JSON object"):
        jobs.role_tags("upkeep")
    monkeypatch.delenv("DAGSTER_ECS_ROLES")
    assert jobs.role_tags("upkeep") == {}


@pytest.mark.usefixtures("user")
def test_what_runs_print_is_below_the_lakes_root(home: Path, aws: str, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled(), dg.DagsterInstance.from_config(str(home)) as instance:
        manager = instance.compute_log_manager
        with manager.capture_logs(["run", "compute_logs", "step"]):
            os.write(1, b"a line of a run\n")
        answer = manager.get_log_data(["run", "compute_logs", "step"])
        assert b"a line of a run\n" in (answer.stdout or b"")
    keys = [entry["Key"] for entry in s3.client(aws).list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert f"lake/{production.LOGS}/storage/run/compute_logs/step.out" in keys


def started(*command: str, **values: str) -> subprocess.CompletedProcess[str]:
    """The entry point with `command`, in a process with no variables but `values`."""
    environment: Mapping[str, str] = {"PYTHONPATH": os.pathsep.join(sys.path), **values}
    entry = [sys.executable, "-m", "stock_lakehouse.deployment.start"]
    return subprocess.run([*entry, *command], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_unit_has_its_secrets_as_variables_and_a_servers_dagster_yaml(tmp_path: Path) -> None:
    credentials, home = tmp_path / "credentials", tmp_path / "home"
    credentials.mkdir()
    (credentials / f"variable_{POSTGRES_VARIABLE}").write_text("postgresql://dagster:secret@db/dagster\n")
    (credentials / "of_another_kind").write_text("no variable")
    done = started("dagster", "--version", CREDENTIALS_DIRECTORY=str(credentials), DAGSTER_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dagster, version")  # found although the unit has no PATH of this environment
    assert (home / "dagster.yaml").read_text() == PRODUCTION
    assert "python_module" in (home / "workspace.yaml").read_text()
    (home / "dagster.yaml").write_text("# mine\n")
    seen = start.completed({"CREDENTIALS_DIRECTORY": str(credentials), POSTGRES_VARIABLE: "other"})
    assert seen[POSTGRES_VARIABLE] == "postgresql://dagster:secret@db/dagster"
    assert "of_another_kind" not in seen
    start.prepare({**seen, "DAGSTER_HOME": str(home)})
    assert (home / "dagster.yaml").read_text() == "# mine\n"
    assert "secret" not in "".join(path.read_text() for path in home.iterdir())


def test_what_is_missing_at_the_start_is_named(tmp_path: Path) -> None:
    home, template = str(tmp_path / "home"), tmp_path / "dagster.yaml"
    template.write_text(production.dagster_yaml(Settings()))
    values = variables(DAGSTER_HOME=home, DAGSTER_YAML_TEMPLATE=str(template))
    del values["DAGSTER_ECS_SUBNETS"]
    cases = (
        ((), {"DAGSTER_HOME": home}, "name a command, like `dagster-daemon run`"),
        (("dagster", "--version"), {}, "DAGSTER_HOME is not set"),
        (("dagster", "--version"), {"DAGSTER_HOME": home}, "DAGSTER_POSTGRES_URL is not set: set it to the address"),
        (
            ("dagster", "--version"),
            values,
            "these variables are not set: DAGSTER_ECS_SUBNETS (subnets of the task of a run",
        ),
        (("nothing-like-this",), {"DAGSTER_HOME": home}, "nothing-like-this is not installed"),
    )
    for command, given, message in cases:
        refused = started(*command, **given)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "home").exists()
    assert started("python", "-c", "print(1)").stdout == "1\n"  # without Dagster no variable is needed


def test_every_variable_of_the_file_is_documented_and_used() -> None:
    from string import Template

    assert set(Template(production.dagster_yaml(Settings())).get_identifiers()) | {"DAGSTER_ECS_ROLES"} == set(
        production.VARIABLES
    )
