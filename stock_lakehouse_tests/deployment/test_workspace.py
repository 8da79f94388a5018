"""A Databricks workspace is brought to what a lake needs: what is written, when, and what a refusal says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from typer.testing import CliRunner, Result

from stock_lakehouse.cli import app
from stock_lakehouse.deployment import workspace
from stock_lakehouse.deployment.template import template
from stock_lakehouse.deployment.workspace import OtherLakeError, Outcome, Wanted, WorkspaceError, prepare
from stock_lakehouse.engines import databricks
from stock_lakehouse.settings import Databricks, Settings
from stock_lakehouse_tests.deployment.workspace_server import (
    CATALOG,
    MASTER_ROLE,
    PRINCIPAL,
    PRINCIPAL_NUMBER,
    PRINCIPALS,
    TOKEN,
    Workspace,
    workspace_server,
)

PROFILE = "arn:aws:iam::000000000000:instance-profile/lake-job"
ROLE = "arn:aws:iam::000000000000:role/lake-catalog"
LAKE = "s3://prices/lake"
WANTED = Wanted(LAKE, PROFILE, ROLE, PRINCIPAL, "eu-central-1", "stock_lakehouse")
ADD, LIST = "/api/2.0/instance-profiles/add", "/api/2.0/instance-profiles/list"
CREDENTIALS, LOCATIONS = f"{CATALOG}/storage-credentials", f"{CATALOG}/external-locations"
WRITES = [f"POST {ADD}", f"PATCH {PRINCIPALS}/{PRINCIPAL_NUMBER}", f"POST {CREDENTIALS}", f"POST {LOCATIONS}"]
SETTINGS = f"""
lake_root = "{LAKE}"
[databricks]
host = "{{host}}"
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    with workspace_server() as workspace:
        yield workspace
    assert workspace.faults == []


@pytest.fixture
def client(server: Workspace) -> WorkspaceClient:
    return databricks.workspace(Databricks(host=server.host))


def trust(server: Workspace) -> None:
    """What the second update of the stack does: the role of Unity Catalog trusts the credential."""
    server.trusted = {credential["aws_iam_role"]["external_id"] for credential in server.credentials.values()}


def complete(server: Workspace, client: WorkspaceClient, wanted: Wanted = WANTED) -> Outcome:
    prepare(wanted, client)
    trust(server)
    return prepare(wanted, client)


def actions(outcome: Outcome) -> list[str]:
    return [step.action for step in outcome.steps]


def test_the_first_call_stops_at_the_trust_the_second_completes_and_a_third_writes_nothing(
    server: Workspace, client: WorkspaceClient
) -> None:
    first = prepare(WANTED, client)
    assert actions(first) == ["registered", "granted", "created", "waiting"]
    assert server.writes == WRITES[:3]
    assert not first.is_complete
    assert first.parameters == {"UnityCatalogExternalId": "external-id-0", "UnityCatalogPrincipal": MASTER_ROLE}
    assert "not authorized to perform sts:AssumeRole" in first.steps[-1].detail
    assert f"UnityCatalogExternalId=external-id-0 UnityCatalogPrincipal={MASTER_ROLE}" in first.steps[-1].detail
    trust(server)
    second = prepare(WANTED, client)
    assert actions(second) == ["unchanged", "unchanged", "unchanged", "works", "created"]
    assert second.is_complete
    assert server.writes == WRITES
    third = prepare(WANTED, client)
    assert actions(third) == ["unchanged", "unchanged", "unchanged", "works", "unchanged"]
    assert third.writes == 0
    assert server.writes == WRITES


def test_the_server_of_these_tests_finds_a_member_that_the_sdk_does_not_know(server: Workspace) -> None:
    role = {"role_arn": ROLE}
    server.answer(
        "POST", CREDENTIALS, {}, {"name": "a", "comment": "", "read_only": True, "aws_iam_role": role, "mistake": 1}
    )
    server.answer("POST", ADD, {}, {"instance_profile_arn": PROFILE, "mistake": 1})
    assert [fault for fault in server.faults if "mistake" in fault] == server.faults
    assert len(server.faults) == 2
    server.faults.clear()


def test_databricks_may_only_read_the_lake(server: Workspace, client: WorkspaceClient) -> None:
    complete(server, client)
    credential, location = server.credentials["stock_lakehouse"], server.locations["stock_lakehouse"]
    assert credential["read_only"] is True
    assert credential["aws_iam_role"]["role_arn"] == ROLE
    assert {**location, "comment": ""} == {
        "name": "stock_lakehouse", "url": LAKE, "credential_name": "stock_lakehouse", "read_only": True, "comment": "",
    }  # fmt: skip


@pytest.mark.parametrize("written", range(4))
def test_a_call_that_is_killed_before_a_write_is_completed_by_the_next(
    server: Workspace, client: WorkspaceClient, written: int
) -> None:
    def kill_after(writes: int) -> Callable[[str], None]:
        def tell(line: str) -> None:
            if len(server.writes) == writes:
                raise KeyboardInterrupt

        return tell

    if written == 3:
        prepare(WANTED, client)
        trust(server)
    with pytest.raises(KeyboardInterrupt):
        prepare(WANTED, client, tell=kill_after(written))
    assert server.writes == WRITES[:written]
    complete(server, client)
    assert server.writes == WRITES


@pytest.mark.parametrize("path", [ADD, CREDENTIALS, LOCATIONS])
def test_a_write_whose_answer_is_lost_is_done_once(server: Workspace, client: WorkspaceClient, path: str) -> None:
    server.lost = {path}
    complete(server, client)
    assert server.lost == set()
    assert server.writes == WRITES


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(server: Workspace, client: WorkspaceClient) -> None:
    outcome = prepare(WANTED, client, dry_run=True)
    assert actions(outcome) == ["would be registered", "would be granted", "would be created", "waiting"]
    assert outcome.writes == 3
    assert server.writes == []


def test_a_role_that_the_stack_made_anew_replaces_the_one_of_the_credential(
    server: Workspace, client: WorkspaceClient
) -> None:
    complete(server, client)
    new = Wanted(LAKE, PROFILE, ROLE + "-2", PRINCIPAL, None, "stock_lakehouse")
    assert actions(prepare(new, client)) == ["unchanged", "unchanged", "changed", "works", "unchanged"]
    assert server.credentials["stock_lakehouse"]["aws_iam_role"]["role_arn"] == ROLE + "-2"
    assert prepare(new, client).writes == 0


@pytest.mark.parametrize("kind", ["credentials", "locations"])
def test_what_somebody_made_writable_becomes_read_only_again(
    server: Workspace, client: WorkspaceClient, kind: str
) -> None:
    complete(server, client)
    getattr(server, kind)["stock_lakehouse"]["read_only"] = False
    assert prepare(WANTED, client).writes == 1
    assert getattr(server, kind)["stock_lakehouse"]["read_only"] is True


def test_the_names_of_another_lake_are_refused_and_stay_as_they_are(server: Workspace, client: WorkspaceClient) -> None:
    complete(server, client)
    before = copy.deepcopy(server.state())
    other = Wanted("s3://prices/other", PROFILE, ROLE, PRINCIPAL, None, "stock_lakehouse")
    with pytest.raises(OtherLakeError, match=r"storage credential .*s3://prices/lake.*; give --name another name"):
        prepare(other, client)
    assert server.state() == before
    server.credentials["stock_lakehouse"]["comment"] = "Reads the lake at s3://prices/other. Kept by stock-lakehouse."
    with pytest.raises(OtherLakeError, match=r"external location .* is of s3://prices/lake; give --name another name"):
        prepare(other, client)
    assert server.locations == before["locations"]


def test_without_unity_catalog_or_without_clusters_the_rest_is_prepared(
    server: Workspace, client: WorkspaceClient
) -> None:
    assert actions(prepare(Wanted(LAKE, PROFILE, None, None, None, "x"), client)) == ["registered"]
    assert actions(prepare(Wanted(LAKE, None, ROLE, PRINCIPAL, None, "x"), client)) == ["created", "waiting"]


@pytest.mark.parametrize(
    ("request_", "answer", "message"),
    [
        (
            ("POST", ADD),
            (400, "INVALID_PARAMETER_VALUE", "Verification of the instance profile failed. iam:PassRole"),
            "needs iam:PassRole on its role: set the stack's DatabricksDeployRole",
        ),
        (
            ("POST", ADD),
            (403, "PERMISSION_DENIED", "Only admins can add instance profiles"),
            "Databricks refuses (Only admins can add instance profiles. … you have to be an administrator of the workspace",
        ),
        (
            ("POST", CREDENTIALS),
            (403, "PERMISSION_DENIED", "User does not have CREATE STORAGE CREDENTIAL"),
            "you have to be a metastore admin, or have CREATE STORAGE CREDENTIAL on the metastore",
        ),
        (
            ("POST", LOCATIONS),
            (400, "INVALID_PARAMETER_VALUE", "LOCATION_OVERLAP: s3://prices"),
            "external location stock_lakehouse: LOCATION_OVERLAP: s3://prices; remove or narrow the external location",
        ),
        (
            ("POST", CREDENTIALS),
            (404, "METASTORE_DOES_NOT_EXIST", "No metastore assigned for the current workspace."),
            "(No metastore assigned for the current workspace.); run the same again: what was written stays",
        ),
        (
            ("GET", LIST),
            (401, "UNAUTHENTICATED", "token expired"),
            "Databricks rejects the credentials (token expired. … set DATABRICKS_TOKEN",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(
    server: Workspace,
    client: WorkspaceClient,
    request_: tuple[str, str],
    answer: tuple[int, str, str],
    message: str,
) -> None:
    server.refused[request_] = answer
    with pytest.raises(WorkspaceError) as refused:
        complete(server, client)
    for part in message.split(" … "):  # between them is what the SDK adds about its configuration
        assert part in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_an_unknown_service_principal_is_named(server: Workspace, client: WorkspaceClient) -> None:
    with pytest.raises(WorkspaceError, match="no service principal with this application id; add it in the settings"):
        prepare(Wanted(LAKE, PROFILE, None, "nobody", None, "x"), client)


def call(server: Workspace, *arguments: str, settings: str = SETTINGS) -> Result:
    Path("lakehouse.toml").write_text(settings.format(host=server.host))
    return CliRunner().invoke(app, ["deploy", "databricks", *arguments])


def test_the_template_has_the_outputs_that_are_read_and_the_parameters_that_are_named() -> None:
    made = template(
        Settings(lake_root=LAKE, source="yfinance", engine="databricks", databricks=Databricks(cluster_id="x"))
    )
    assert {workspace.INSTANCE_PROFILE, workspace.CATALOG_ROLE, workspace.LAKE_ROOT} <= made["Outputs"].keys()
    assert {workspace.EXTERNAL_ID, workspace.CATALOG_PRINCIPAL, workspace.DEPLOY_ROLE} <= made["Parameters"].keys()


BY_ARN = ("--instance-profile", PROFILE, "--catalog-role", ROLE, "--principal", PRINCIPAL, "--region", "eu-central-1")


def variables(target: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"deploy/.databricks/bundle/{target}/variable-overrides.json").read_text())
    return found


def test_the_command_writes_the_bundles_variables_and_exits_with_1_until_it_is_complete(server: Workspace) -> None:
    first = call(server, *BY_ARN)
    assert first.exit_code == 1
    assert "waiting" in first.output
    cluster = {"instance_profile": PROFILE, "region": "eu-central-1"}
    assert variables("dev") == cluster
    assert variables("production") == {**cluster, "principal": PRINCIPAL}
    Path("deploy/.databricks/bundle/production/variable-overrides.json").write_text(
        '{"workers": 4, "region": "us-east-1"}'
    )
    trust(server)
    second = call(server, *BY_ARN, "--json")
    assert second.exit_code == 0, second.output
    told = json.loads(second.stdout)
    assert (told["complete"], told["writes"], told["dry_run"]) == (True, 1, False)
    assert [step["action"] for step in told["steps"]][-2:] == ["unchanged", "written"]
    assert variables("production") == {"workers": 4, **cluster, "principal": PRINCIPAL}
    third = call(server, *BY_ARN)
    assert third.exit_code == 0
    assert "0 writes to the workspace" in third.output
    assert TOKEN not in first.output + second.output + third.output


def test_a_dry_run_of_the_command_leaves_no_file(server: Workspace) -> None:
    assert "variables of the target dev: would be written" in call(server, *BY_ARN, "--dry-run").output
    assert not Path("deploy").exists()


def test_a_file_of_variables_that_is_no_json_is_named_and_kept(server: Workspace) -> None:
    path = Path("deploy/.databricks/bundle/dev/variable-overrides.json")
    path.parent.mkdir(parents=True)
    path.write_text("workers: 4")
    result = call(server, *BY_ARN)
    assert result.exit_code == 2
    assert "is not JSON" in result.output
    assert path.read_text() == "workers: 4"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's CloudFormation with a stack that has the outputs of the lake's."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    values = {"LakeRoot": LAKE, "JobInstanceProfile": PROFILE, "UnityCatalogRole": ROLE}
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in values.items()},
    }
    with mock_aws(config={"core": {"passthrough": {"urls": ["http://127.0.0.1.*"]}}}):
        client = boto3.client("cloudformation", region_name="eu-west-1")
        client.create_stack(StackName="lake", TemplateBody=json.dumps(template))
        template["Outputs"] = {"LakeRoot": {"Value": LAKE}}
        client.create_stack(StackName="plain", TemplateBody=json.dumps(template))
        del template["Outputs"]
        client.create_stack(StackName="other", TemplateBody=json.dumps(template))
        yield client


def test_the_stacks_outputs_say_what_to_register(server: Workspace, stack: Any) -> None:
    assert call(server, "--stack", "lake").exit_code == 1
    trust(server)
    assert call(server, "--stack", "lake").exit_code == 0
    assert server.instance_profiles == [PROFILE]
    assert server.credentials["stock_lakehouse"]["aws_iam_role"]["role_arn"] == ROLE
    assert variables("dev") == {"instance_profile": PROFILE, "region": "eu-west-1"}


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["--stack", "lake"], SETTINGS.replace(LAKE, "s3://amzn-s3-demo-bucket/lake"), f'set lake_root = "{LAKE}" in'),
        (["--stack", "no"], SETTINGS, "Stack with id no does not exist; name the stack that `aws cloudformation deploy` made"),
        (["--instance-profile", ROLE], SETTINGS, f"--instance-profile: '{ROLE}' is not of the form: arn:"),
        (["--principal", "lake"], SETTINGS, "--principal: 'lake' is not of the form: the application id of a service principal"),
        (["--name", "a/b"], SETTINGS, "--name: 'a/b' is not of the form: letters, digits, _ and -"),
        ([], SETTINGS, "Stack with id stock-lakehouse does not exist"),
        (["--stack", "other"], SETTINGS, "stack other: it has no output LakeRoot; name the stack of the lake"),
        (["--stack", "plain"], SETTINGS, "no output JobInstanceProfile, because it was rendered without Databricks; set engine"),
        (["--catalog-role", ROLE], '[databricks]\nhost = "{host}"\n', "is a folder; what Databricks reads with a role is"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_prepared_are_refused_before_anything_is_written(
    server: Workspace, stack: Any, arguments: list[str], settings: str, message: str
) -> None:
    result = call(server, *arguments, settings=settings)
    assert result.exit_code == 2
    assert message in result.output
    assert server.writes == []
    assert not Path("deploy").exists()
