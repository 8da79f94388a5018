"""What the template must have that no linter asks for, beside the assertions of `deploy check`. Each rule is also held against
templates with a planted fault."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml

from stock_lakehouse.deployment import database, production
from stock_lakehouse.deployment.rights import DeploymentError, roles
from stock_lakehouse.deployment.stack import lake as lake_part
from stock_lakehouse.deployment.template import PREFIX, template
from stock_lakehouse.lake_options import S3_URI
from stock_lakehouse_tests.deployment.stacks import full, least, text_of

Template = dict[str, Any]
# Statements on `*` beside those of rights.py, each of which says its reason: AWS knows no resource of the action, or it is the
# policy of one key or of one way.
STARS = {
    "Account": "kms:* in the policy of the key itself: the account decides who uses it, as AWS advises",
    "Logs": "the policy of the key itself, for this account's logs",
    "OwnAccount": "an endpoint is a way; what a caller may do, its own policies say",
    "ImageLogin": "ecr:GetAuthorizationToken",
    "Sessions": "channels of Session Manager",
}
SECRET = re.compile("PASSWORD|SECRET|TOKEN|WEBHOOK|CLIENT_ID")


def of_type(made: Template, *kinds: str) -> dict[str, Any]:
    return {name: resource["Properties"] for name, resource in made["Resources"].items() if resource["Type"] in kinds}


def values(part: Any) -> Iterator[Any]:
    """Every dictionary and text in `part`."""
    yield part
    for inner in part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ():
        yield from values(inner)


def statements(made: Template) -> Iterator[dict[str, Any]]:
    """Every statement of a policy in the template."""
    for value in values(made["Resources"]):
        if isinstance(value, Mapping) and "Effect" in value:
            yield dict(value)


def buckets_are_private_and_kept(made: Template) -> Iterator[str]:
    for name, bucket in of_type(made, "AWS::S3::Bucket").items():
        kept = made["Resources"][name]
        if not kept.get("DeletionPolicy") == kept.get("UpdateReplacePolicy") == "Retain":
            yield f"{name} is not kept"
        if bucket["VersioningConfiguration"] != {"Status": "Enabled"} or not bucket.get("BucketEncryption"):
            yield f"{name} has no versions, or is not encrypted"
        if list(bucket["PublicAccessBlockConfiguration"].values()) != [True] * 4:
            yield f"{name} may be public"


def every_bucket_refuses_plain_http(made: Template) -> Iterator[str]:
    policies = of_type(made, "AWS::S3::BucketPolicy").values()
    for name in of_type(made, "AWS::S3::Bucket"):
        ends = [
            {json.dumps(resource).split("${")[-1] for resource in statement["Resource"]}
            for policy in policies
            for statement in policy["PolicyDocument"]["Statement"]
            if statement.get("Effect") == "Deny"
            and (statement["Principal"], statement["Action"]) == ("*", "s3:*")
            and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        ]
        if {f'{name}}}"}}', f'{name}}}/*"}}'} not in ends:
            yield f"{name} can be reached without TLS"


def replaced_objects_end(made: Template) -> Iterator[str]:
    rules = made["Resources"]["Lake"]["Properties"]["LifecycleConfiguration"]["Rules"]
    if not any("Prefix" not in rule and "NoncurrentVersionExpiration" in rule for rule in rules):
        yield "replaced objects of some folder stay for ever"
    if not any("AbortIncompleteMultipartUpload" in rule for rule in rules):
        yield "parts of uploads stay for ever"


def only_listed_rights_are_on_everything(made: Template) -> Iterator[str]:
    rights = [right for role in roles(full()).values() for right in role.services]
    explained = {right.sid for right in rights if right.resources == ("*",) and right.reason} | STARS.keys()
    for statement in statements(made):
        resources = statement.get("Resource", [])
        wide = "*" in (resources if isinstance(resources, list) else [resources])
        wide |= any("*" in action for action in (*statement.get("Action", ()),) if statement["Effect"] == "Allow")
        if statement["Effect"] == "Allow" and wide and statement.get("Sid") not in explained:
            yield f"{statement.get('Sid')} is on everything"


def secrets_come_from_secrets_manager(made: Template) -> Iterator[str]:
    for task in of_type(made, "AWS::ECS::TaskDefinition").values():
        for container in task["ContainerDefinitions"]:
            for variable in container.get("Environment", ()):
                if SECRET.search(variable["Name"]):
                    yield f"{variable['Name']} is in the task of {container['Name']}"


def only_one_container_has_the_owners_password(made: Template) -> Iterator[str]:
    password = database.OWNER_VARIABLES["password"]
    for task in of_type(made, "AWS::ECS::TaskDefinition").values():
        for container in task["ContainerDefinitions"]:
            if container["Name"] != "database" and password in json.dumps(container):
                yield f"{container['Name']} has the password of the database's owner"


def nothing_is_open_to_the_world(made: Template) -> Iterator[str]:
    for name, group in of_type(made, "AWS::EC2::SecurityGroup").items():
        for rule in group.get("SecurityGroupIngress", ()):
            if rule.get("CidrIp") == "0.0.0.0/0" or "CidrIpv6" in rule:
                yield f"{name} lets the world in"
    for name, instance in of_type(made, "AWS::RDS::DBInstance").items():
        if instance["PubliclyAccessible"] is not False:
            yield f"{name} is public"


def the_database_is_encrypted_and_kept(made: Template) -> Iterator[str]:
    for name, instance in of_type(made, "AWS::RDS::DBInstance").items():
        if made["Resources"][name].get("DeletionPolicy") != "Snapshot":
            yield f"{name} leaves no snapshot"
        if not (instance["StorageEncrypted"] and instance["EnableIAMDatabaseAuthentication"]):
            yield f"{name} is not encrypted, or has no login by IAM"


def containers_cannot_change_the_image(made: Template) -> Iterator[str]:
    for task in of_type(made, "AWS::ECS::TaskDefinition").values():
        for container in task["ContainerDefinitions"]:
            if container.get("ReadonlyRootFilesystem") is not True or container.get("User") != "10001":
                yield f"{container['Name']} may write its root, or is root"


def no_two_daemons_run_at_once(made: Template) -> Iterator[str]:
    for name, service in of_type(made, "AWS::ECS::Service").items():
        deployment = service["DeploymentConfiguration"]
        if (service["DesiredCount"], deployment["MaximumPercent"]) != (1, 100):
            yield f"{name} may run twice"


def logs_are_encrypted_and_end(made: Template) -> Iterator[str]:
    for name, group in of_type(made, "AWS::Logs::LogGroup").items():
        if not group.get("KmsKeyId") or not group.get("RetentionInDays"):
            yield f"{name} is not encrypted, or never ends"


def names_are_parameters_or_given(made: Template) -> Iterator[str]:
    for value in values(made):
        if isinstance(value, str) and re.search(r"\b\d{12}\b|\b(us|eu|ap)-[a-z]+-\d\b|arn:aws:|s3://(?!\$)", value):
            yield f"{value} names an account, a region, a partition or a bucket"
        if (
            isinstance(value, Mapping)
            and {"BucketName", "RoleName", "ManagedPolicyName", "DBInstanceIdentifier"} & value.keys()
        ):
            yield "a name is given, so a second stack fails"


def tasks_are_this_accounts(made: Template) -> Iterator[str]:
    for name, role in of_type(made, "AWS::IAM::Role").items():
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            if "ecs-tasks.amazonaws.com" in json.dumps(statement) and "aws:SourceAccount" not in json.dumps(statement):
                yield f"{name} may be assumed for another account"


def the_demand_of_the_endpoint_leaves_a_way_back(made: Template) -> Iterator[str]:
    for statement in statements(made):
        if statement.get("Sid") == "ByTheEndpoint":
            if not set(statement["Action"]) <= {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"}:
                yield "an administrator could not change the policy"
            if {"Ref": "BreakGlassRole"} not in statement["Condition"]["ArnNotLikeIfExists"]["aws:PrincipalArn"]:
                yield "nobody could read the lake from elsewhere"


def _tls(made: Template) -> Any:
    return made["Resources"]["LakePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]


def _server(made: Template, name: str) -> Any:
    containers = made["Resources"]["ServerTask"]["Properties"]["ContainerDefinitions"]
    return next(container for container in containers if container["Name"] == name)


def _lake(made: Template) -> Any:
    return made["Resources"]["Lake"]["Properties"]


def _demand(made: Template) -> Any:
    return next(statement for statement in _every(made) if statement.get("Sid") == "ByTheEndpoint")


def _every(made: Template) -> Iterator[Any]:
    return (value for value in values(made) if isinstance(value, dict) and "Effect" in value)


# Each rule with faults that it must notice: changes of a template.
RULES: dict[Callable[[Template], Iterator[str]], tuple[Callable[[Template], Any], ...]] = {
    buckets_are_private_and_kept: (
        lambda made: made["Resources"]["Lake"].pop("DeletionPolicy"),
        lambda made: _lake(made)["VersioningConfiguration"].update(Status="Suspended"),
        lambda made: _lake(made)["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
    ),
    every_bucket_refuses_plain_http: (
        lambda made: _tls(made)["Condition"]["Bool"].update({"aws:SecureTransport": "true"}),
        lambda made: _tls(made).update(Effect="Allow"),
        lambda made: _tls(made)["Resource"].pop(),
        lambda made: made["Resources"].pop("AccessLogsPolicy"),
    ),
    replaced_objects_end: (lambda made: _lake(made)["LifecycleConfiguration"]["Rules"].pop(),),
    only_listed_rights_are_on_everything: (
        lambda made: next(one for one in _every(made) if one.get("Sid") == "Read").update(Resource=["*"]),
        lambda made: next(one for one in _every(made) if one.get("Sid") == "List").update(Action=["s3:List*"]),
    ),
    secrets_come_from_secrets_manager: (
        lambda made: _server(made, "daemon")["Environment"].append({"Name": "DATABRICKS_CLIENT_SECRET", "Value": "x"}),
    ),
    only_one_container_has_the_owners_password: (
        lambda made: _server(made, "code")["Secrets"].extend(_server(made, "database")["Secrets"]),
    ),
    nothing_is_open_to_the_world: (
        lambda made: made["Resources"]["DatabaseGroup"]["Properties"]["SecurityGroupIngress"][0].update(
            CidrIp="0.0.0.0/0"
        ),
        lambda made: made["Resources"]["Database"]["Properties"].update(PubliclyAccessible=True),
    ),
    the_database_is_encrypted_and_kept: (
        lambda made: made["Resources"]["Database"].update(DeletionPolicy="Delete"),
        lambda made: made["Resources"]["Database"]["Properties"].update(EnableIAMDatabaseAuthentication=False),
    ),
    containers_cannot_change_the_image: (lambda made: _server(made, "webserver").update(User="0"),),
    no_two_daemons_run_at_once: (
        lambda made: made["Resources"]["Service"]["Properties"]["DeploymentConfiguration"].update(MaximumPercent=200),
    ),
    logs_are_encrypted_and_end: (lambda made: made["Resources"]["Logs"]["Properties"].pop("RetentionInDays"),),
    names_are_parameters_or_given: (
        lambda made: _lake(made).update(BucketName="stocks"),
        lambda made: _server(made, "code").update(Image="111122223333.dkr.ecr.eu-central-1.amazonaws.com/x"),
    ),
    tasks_are_this_accounts: (
        lambda made: made["Resources"]["RunRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0].pop(
            "Condition"
        ),
    ),
    the_demand_of_the_endpoint_leaves_a_way_back: (
        lambda made: _demand(made).update(Action=["s3:*"]),
        lambda made: _demand(made)["Condition"]["ArnNotLikeIfExists"]["aws:PrincipalArn"].pop(),
    ),
}


@pytest.fixture(scope="module")
def made() -> Template:
    """The template as it is rendered, read again."""
    parsed: Template = yaml.safe_load(text_of(full))
    return parsed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_template_keeps_the_rule(made: Template, rule: Callable[[Template], Iterator[str]]) -> None:
    assert list(rule(made)) == []
    assert list(rule(yaml.safe_load(text_of(least)))) == []


@pytest.mark.parametrize(
    ("rule", "number"), [(rule, number) for rule, faults in RULES.items() for number in range(len(faults))]
)
def test_the_rule_notices_a_planted_fault(
    made: Template, rule: Callable[[Template], Iterator[str]], number: int
) -> None:
    faulty = copy.deepcopy(made)
    RULES[rule][number](faulty)
    assert list(rule(faulty))


def test_each_role_is_in_the_template_with_all_its_policies(made: Template) -> None:
    for role in roles(full()).values():
        resource = made["Resources"][role.logical_id]["Properties"]
        assert resource["Description"] == role.who
        attached = [
            value["Ref"]
            for value in values(resource["ManagedPolicyArns"])
            if isinstance(value, dict) and "Ref" in value
        ]
        names = [name for name in attached if name != "AWS::NoValue"]
        documents = [made["Resources"][name]["Properties"]["PolicyDocument"] for name in names]
        sids = {statement["Sid"].removesuffix("More") for document in documents for statement in document["Statement"]}
        expected = {"List", "Key", "Read"} | ({"Write"} if role.places.write | role.places.create else set())
        assert expected | {right.sid for right in role.services} <= sids | {"Write"}
        assert len(names) <= 10  # IAM's limit of policies that a role may have


def test_tasks_have_every_variable_that_dagster_reads(made: Template) -> None:
    tasks = of_type(made, "AWS::ECS::TaskDefinition")
    assert set(tasks) == {"RunTask", "ServerTask", "StreamTask"}
    for container in (container for task in tasks.values() for container in task["ContainerDefinitions"]):
        names = {variable["Name"] for variable in container["Environment"]}
        if container["Name"] == "database":
            secrets = {secret["Name"] for secret in container["Secrets"]}
            assert names | secrets == set(database.OWNER_VARIABLES.values())
        else:
            assert production.VARIABLES.keys() <= names
    processes = [container["Name"] for container in tasks["ServerTask"]["ContainerDefinitions"]]
    assert processes == ["database", *(process.name for process in production.PROCESSES)]


def test_the_output_for_a_task_of_ones_own_is_the_network_of_the_service(made: Template) -> None:
    network = made["Resources"]["Service"]["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    # The short form that `aws ecs run-task --network-configuration` documents.
    text = made["Outputs"]["TaskNetwork"]["Value"]["Fn::Sub"]
    assert re.fullmatch(r"awsvpcConfiguration=\{subnets=\[(.+)\],securityGroups=\[(.+)\],assignPublicIp=(.+)\}", text)
    named = set(re.findall(r"\$\{([\w.]+)\}", text))
    assert network["Subnets"] == {"Fn::Split": [",", {"Ref": "SubnetIds"}]}
    assert network["SecurityGroups"] == [{"Fn::GetAtt": ["TaskGroup", "GroupId"]}]
    assert network["AssignPublicIp"] == {"Ref": "PublicIp"}
    assert named == {"SubnetIds", "TaskGroup.GroupId", "PublicIp"}


def test_only_what_the_settings_use_is_made() -> None:
    resources = yaml.safe_load(text_of(least))["Resources"]
    assert not {"Catalog", "Workgroup", "StreamTask", "JobProfile", "JobRole", "PriceStream", "SpectrumRole"} & set(
        resources
    )
    assert {"Lake", "Key", "RunRole", "UpkeepRole", "RepairRole", "DagsterRole", "ReaderRole", "Service"} <= set(
        resources
    )
    assert not {"UnityCatalogExternalId", "GlueEndpoint", "DatabricksSecret"} & set(
        yaml.safe_load(text_of(least))["Parameters"]
    )


def test_a_table_in_a_folder_without_a_rule_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not `delitem`, which puts the item back at the end: the order of what is rendered would be another.
    others = {folder: days for folder, days in lake_part.NONCURRENT_DAYS.items() if folder != "processed"}
    monkeypatch.setattr(lake_part, "NONCURRENT_DAYS", others)
    with pytest.raises(DeploymentError, match="processed_stocks_daily: no rule says how long"):
        lake_part.lifecycle(least())


def test_a_right_on_something_that_the_template_lacks_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stock_lakehouse.deployment import template as module

    monkeypatch.setattr(module, "network_resources", lambda settings: {})
    with pytest.raises(DeploymentError, match="LakePolicy: names S3Endpoint, which the template does not have"):
        template(least())


@pytest.mark.parametrize("prefix", ["lake", "team/lake", "a.b_c=d-e/f", "", "/lake", "lake/", "a//b", "a*", "a b"])
def test_a_prefix_that_the_template_takes_is_one_that_a_lake_may_have(prefix: str) -> None:
    taken = re.fullmatch(PREFIX, prefix) is not None
    assert taken == (prefix in ("lake", "team/lake", "a.b_c=d-e/f"))
    assert not taken or S3_URI.fullmatch(f"s3://bucket/{prefix}")
