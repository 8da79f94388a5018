"""The template on ministack: it is made, with and without private network and Dagster, and an update changes nothing; `deploy
check --live` agrees with it, and notices what somebody changed; and the eight callers that a demand of the endpoint may lock out.

ministack knows neither `s3:if-none-match` nor, over plain http, TLS. It enforces nothing here, so both stay. Each stack has an
emulator of its own, because the names of catalog and workgroup are those of the settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from stock_lakehouse.deployment import live
from stock_lakehouse.deployment.live import LiveError, examine_live
from stock_lakehouse.deployment.render import as_yaml
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse.settings import Settings
from stock_lakehouse_tests import s3
from stock_lakehouse_tests.deployment import simulate, stacks
from stock_lakehouse_tests.deployment.asked import Asked, Judge
from stock_lakehouse_tests.deployment.simulate import Row
from stock_lakehouse_tests.deployment.tools import ministack

pytestmark = pytest.mark.deploy

ACCOUNT = "000000000000"


# The emulator has no such attribute of a database: the ARN of the secret that RDS makes for its owner.
SECRET, OF_EMULATOR = (
    "${Database.MasterUserSecret.SecretArn}",
    "arn:aws:secretsmanager:us-east-1:000000000000:secret:owner",
)


@dataclass(frozen=True)
class Stack:
    """A stack that was made on the emulator at `address`: with what, and what it has."""

    address: str
    name: str
    text: str
    parameters: Mapping[str, str]
    status: str
    outputs: Mapping[str, str]

    @property
    def resources(self) -> dict[str, str]:
        return stacks.resources(self.address, self.name)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Stack]]:
    """Stacks of the template: with the fewest settings; with all; in a private network; with Dagster in it."""
    with ExitStack() as emulators:
        found = {}
        for name in ("least", "full", "private", "dagster"):
            address = emulators.enter_context(ministack())
            parameters = {"MakeStream": "yes"} if name == "full" else {}
            if name in ("private", "dagster"):
                parameters |= stacks.network(address)
            if name == "dagster":
                parameters |= {"Image": stacks.DIGEST, "RedshiftWorkgroupId": "1234"}
            text = stacks.text_of(stacks.least if name == "least" else stacks.full).replace(SECRET, OF_EMULATOR)
            stack = stacks.deploy(address, name, text, parameters)
            outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
            found[name] = Stack(address, name, text, parameters, stack["StackStatus"], outputs)
        yield found


def test_every_stack_is_made(made: dict[str, Stack]) -> None:
    assert {stack.name: stack.status for stack in made.values()} == dict.fromkeys(made, "CREATE_COMPLETE")
    resources = {name: stack.resources.keys() for name, stack in made.items()}
    of_network = {
        "S3Endpoint",
        "EndpointGroup",
        "InterfaceStsEndpoint",
        "InterfaceEcrEndpoint1",
        "InterfaceEcrEndpoint2",
    }
    of_dagster = {
        "Service",
        "StreamService",
        "ServerTask",
        "RunTask",
        "Database",
        "Logs",
        "ServiceAlarm",
        "ExecutionRole",
    }
    assert resources["full"] - resources["private"] == {"PriceStream"}
    assert resources["private"] - resources["full"] == of_network
    assert of_dagster < resources["dagster"] - resources["private"]
    assert not (of_network | of_dagster) & (resources["least"] | resources["full"])
    assert made["least"].outputs["LakeRoot"] == f"s3://{made['least'].outputs['Bucket']}/lake"


def test_a_second_update_changes_nothing(made: dict[str, Stack]) -> None:
    for stack in made.values():
        assert stacks.changes(stack.address, stack.name, stack.text, stack.parameters) == []


class WithConditions:
    """A client of IAM on the emulator, whose simulator knows no conditions: of requests that have some, `Judge` decides."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._known: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def simulate_principal_policy(self, **asked: Any) -> Any:
        answer = self._client.simulate_principal_policy(**asked)
        context = {entry["ContextKeyName"]: entry["ContextKeyValues"][0] for entry in asked["ContextEntries"]}
        if context:
            text = json.dumps(self._policies(asked["PolicySourceArn"].rpartition("/")[2]))
            for key, value in context.items():
                text = text.replace(f"${{{key}}}", value)
            judge = Judge(json.loads(text))
            for result in answer["EvaluationResults"]:
                request = Asked(result["EvalActionName"], *asked["ResourceArns"], tuple(context.items()))
                result["EvalDecision"] = "allowed" if judge.verdict(request) else "implicitDeny"
        return answer

    def _policies(self, role: str) -> dict[str, Any]:
        if role not in self._known:
            found = {}
            for policy in self._client.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
                arn = policy["PolicyArn"]
                version = self._client.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
                answer = self._client.get_policy_version(PolicyArn=arn, VersionId=version)
                found[arn] = answer["PolicyVersion"]["Document"]
            self._known[role] = found
        return self._known[role]


@pytest.fixture
def _as_for_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rendered template is the one that the emulator takes, and IAM's simulator knows conditions."""
    of_settings, client = live.template, live.aws.client
    monkeypatch.setattr(
        live.aws, "client", lambda service: WithConditions(client(service)) if service == "iam" else client(service)
    )

    def changed(settings: Settings, known: Mapping[str, Role]) -> Any:
        return yaml.safe_load(as_yaml(of_settings(settings, known)).replace(SECRET, OF_EMULATOR))

    monkeypatch.setattr(live, "template", changed)


@pytest.mark.usefixtures("_as_for_the_emulator")
def test_the_account_has_what_is_rendered_and_a_change_by_hand_is_found(made: dict[str, Stack]) -> None:
    stack = made["dagster"]
    with s3.variables(s3.environment(stack.address)):
        found = {diagnosis.what: diagnosis for diagnosis in examine_live(stacks.full(), stack.name)}
        assert {what: found[what].detail for what in found if found[what].state != "ok"} == {}
        assert {f"role {name}" for name in roles(stacks.full())} < found.keys()
        iam, names = s3.client(stack.address, "iam"), stack.resources
        wide = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [wide]})
        arn = iam.create_policy(PolicyName="by-hand", PolicyDocument=document)["Policy"]["Arn"]
        iam.attach_role_policy(RoleName=names["ReaderRole"], PolicyArn=arn)
        iam.create_policy_version(PolicyArn=names["JobWritePolicy"], PolicyDocument=document, SetAsDefault=True)
        iam.detach_role_policy(RoleName=names["RunRole"], PolicyArn=names["RunReadPolicy"])
        for policy in ("StreamListPolicy", "StreamServicesPolicy"):
            iam.detach_role_policy(RoleName=names["StreamRole"], PolicyArn=names[policy])
        changed = {
            diagnosis.what: diagnosis.detail
            for diagnosis in examine_live(stacks.full(), stack.name)
            if diagnosis.state == "broken"
        }
    assert changed.keys() == {
        "role reader",
        "rights reader",
        "role job",
        "rights job",
        "role run",
        "rights run",
        "role stream",
        "rights stream",
    }
    assert f"{arn}: attached by somebody else" in changed["role reader"]
    assert "write: another document" in changed["role job"]
    assert "read: not attached" in changed["role run"]
    assert "allowed: s3:PutObject" in changed["rights reader"]
    assert "refused: s3:GetObject" in changed["rights run"]
    for action in ("s3:ListBucket", "kms:Decrypt", "kinesis:DescribeStreamSummary"):
        assert f"refused: {action} on arn:" in changed["rights stream"]


@pytest.mark.usefixtures("_as_for_the_emulator")
def test_a_stack_of_other_settings_and_a_stack_that_is_not_there_are_found(made: dict[str, Stack]) -> None:
    with s3.variables(s3.environment(made["least"].address)):
        of_least = {diagnosis.what: diagnosis for diagnosis in examine_live(stacks.least(), "least")}
        assert of_least["template"].state == "ok"
        found = {diagnosis.what: diagnosis for diagnosis in examine_live(stacks.full(), "least")}
        with pytest.raises(LiveError, match=r"stack other: .*--stack"):
            list(examine_live(stacks.full(), "other"))
    assert found["template"].state == "broken"
    assert "has no JobRole" in found["role job"].detail


# Who asks, with which context, for what, and whether that must be allowed: a run by the endpoint, and what must go on beside it.
CALLERS = {
    "a run by the endpoint": ("RunRole", {"aws:SourceVpce": "S3Endpoint"}, "s3:GetObject", True),
    "the keys of a run elsewhere": ("RunRole", {}, "s3:GetObject", False),
    "an administrator who changes the policy": ("administrator", {}, "s3:PutBucketPolicy", True),
    "Athena for a reader": ("ReaderRole", {"aws:ViaAWSService": "true"}, "s3:GetObject", True),
    "Redshift for its external schema": ("SpectrumRole", {}, "s3:GetObject", True),
    "a crawler": ("CrawlerRole", {}, "s3:ListBucket", True),
    "Unity Catalog": ("UnityCatalogRole", {}, "s3:GetObject", True),
    "the role for emergencies": ("break-glass", {}, "s3:GetObject", True),
}
MORE = {
    "another endpoint": ("RunRole", {"aws:SourceVpce": "vpce-other"}, "s3:PutObject", False),
    "an administrator elsewhere who reads": ("administrator", {}, "s3:GetObject", False),
    "a reader elsewhere": ("ReaderRole", {}, "s3:ListBucket", False),
    "a version deleted at the end of the lake": ("administrator", {}, "s3:DeleteObjectVersion", True),
}


def _wrong(policy: dict[str, Any], cases: Mapping[str, Any], names: Mapping[str, str], bucket: str) -> list[str]:
    """The cases that `policy` of the bucket decides otherwise, by iam-simulate. Every caller's own policies allow everything."""
    rows, of_case = [], {}
    for case, (caller, context, action, is_allowed) in cases.items():
        known = {key: names.get(value, value) for key, value in context.items()}
        known = {
            "aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/{names.get(caller, caller)}",
            "aws:SecureTransport": "true",
            "aws:ViaAWSService": "false",
            "aws:PrincipalIsAWSService": "false",
            **known,
        }
        of_object = action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObjectVersion")
        resource = f"arn:aws:s3:::{bucket}" + ("/lake/curated/stocks_daily/a" if of_object else "")
        row = Row(names.get(caller, caller), action, resource, is_allowed, known, asks="bucket")
        rows.append(row)
        of_case[id(row)] = case
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    found = simulate.evaluate({row.role: [allow] for row in rows}, policy, rows)
    return [of_case[id(row)] for row in found.wrong]


def test_the_demand_of_the_endpoint_locks_out_nobody_whom_it_should_not(
    made: dict[str, Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "ACCOUNT", ACCOUNT)
    stack = made["private"]
    names, bucket = stack.resources, stack.outputs["Bucket"]
    policy = json.loads(s3.client(stack.address).get_bucket_policy(Bucket=bucket)["Policy"])
    # Landing is denied by another statement of this policy, which has a condition of the request.
    policy["Statement"] = [statement for statement in policy["Statement"] if statement["Sid"] != "LandedFilesAreNew"]
    assert _wrong(policy, CALLERS | MORE, names, bucket) == []
    naive = {
        "Sid": "ByTheEndpoint",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"StringNotEquals": {"aws:SourceVpce": names["S3Endpoint"]}},
    }
    locked_out = _wrong({"Version": "2012-10-17", "Statement": [naive]}, CALLERS, names, bucket)
    assert locked_out == [
        case for case in CALLERS if case not in ("a run by the endpoint", "the keys of a run elsewhere")
    ]
    assert len(locked_out) == 6


def test_without_the_parameter_the_bucket_demands_no_endpoint(made: dict[str, Stack]) -> None:
    stack = made["full"]
    policy = json.loads(s3.client(stack.address).get_bucket_policy(Bucket=stack.outputs["Bucket"])["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == ["TlsOnly", "LandedFilesAreNew"]
