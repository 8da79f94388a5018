"""The CloudFormation template of a deployment: its parameters and outputs, and its resources from the modules of stack/.

Nothing in it names an account, a region, a bucket or a prefix: these are parameters, or names that CloudFormation gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stock_lakehouse.deployment.policies import LONGEST
from stock_lakehouse.deployment.rights import DeploymentError, Role, roles
from stock_lakehouse.deployment.stack.dagster import dagster_conditions, dagster_parameters, dagster_resources
from stock_lakehouse.deployment.stack.lake import lake_resources
from stock_lakehouse.deployment.stack.network import (
    demand_of_endpoint,
    network_conditions,
    network_parameters,
    network_resources,
)
from stock_lakehouse.deployment.stack.notation import attribute, is_set, is_yes, ref, sub
from stock_lakehouse.deployment.stack.roles import CATALOG_ROLE, SERVICES, databricks_resources, role_resources

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

PREFIX = r"[A-Za-z0-9!_.'()=-]+(/[A-Za-z0-9!_.'()=-]+)*"  # as lake_options.S3_URI, without `*`: in a policy that is a pattern
Part = dict[str, Any]


def template(settings: Settings, known: Mapping[str, Role] | None = None) -> Part:
    """The template as data. Raises DeploymentError, as `roles` does, and for a right on something that the template lacks.

    `known`: the roles, if they are at hand; the graph from which they follow takes a second.
    """
    known = roles(settings) if known is None else known
    on_databricks = settings.engine == "databricks"
    dagster = dagster_resources(settings, known)
    outside = [role.logical_id for role in known.values() if role.trust in SERVICES]
    resources = {
        **lake_resources(settings, demand_of_endpoint([*outside, *([CATALOG_ROLE] if on_databricks else [])])),
        **role_resources(known, [name for name, resource in dagster.items() if "Condition" in resource]),
        **(databricks_resources(known) if on_databricks else {}),
        **network_resources(settings),
        **dagster,
    }
    if settings.stream.source == "kinesis":
        resources["PriceStream"] = {"Condition": "HasStream", **_stream(settings)}
    made = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "stock_lakehouse: the lake, who may do what with it, and Dagster",
        "Parameters": _parameters(settings),
        "Rules": _rules(settings),
        "Conditions": _conditions(settings),
        "Resources": resources,
        "Outputs": _outputs(known, resources),
    }
    _check(made)
    return made


def _parameters(settings: Settings) -> Part:
    found: Part = {
        "Prefix": {
            "Type": "String",
            "Default": "lake",
            "AllowedPattern": PREFIX,
            "MaxLength": len(LONGEST.prefix),
            "Description": "The lake's place in its bucket",
        }
    }
    texts = {}
    if settings.warehouse == "redshift" and settings.redshift.workgroup:
        texts["RedshiftWorkgroupId"] = "Identifier of the workgroup of Redshift Serverless: the end of its ARN"
    if settings.engine == "databricks":
        texts["DatabricksDeployRole"] = (
            "Name of the role with which Databricks makes clusters. It gets the right to pass them JobRole"
        )
        texts["UnityCatalogPrincipal"] = "ARN of the role of Databricks that the storage credential names"
        texts["UnityCatalogExternalId"] = "External id of the storage credential"
    found |= {name: {"Type": "String", "Default": "", "Description": text} for name, text in texts.items()}
    if settings.stream.source == "kinesis":
        found["MakeStream"] = {
            "Type": "String",
            "Default": "no",
            "AllowedValues": ["no", "yes"],
            "Description": f"Whether the stack makes the data stream {settings.stream.name}, or it exists",
        }
    return found | network_parameters(settings) | dagster_parameters(settings)


def _conditions(settings: Settings) -> Part:
    texts = {
        "HasVpc": "VpcId",
        "HasSubnets": "SubnetIds",
        "HasRouteTables": "RouteTableIds",
        "HasCidr": "VpcCidr",
        "HasDatabricksBuckets": "DatabricksBuckets",
        "HasOtherEndpoints": "OtherEndpoints",
        "HasBreakGlass": "BreakGlassRole",
    }
    found: Part = {name: is_set(parameter) for name, parameter in texts.items()}
    if settings.engine == "databricks":
        found["HasDeployRole"] = is_set("DatabricksDeployRole")
        found["HasUnityCatalog"] = {"Fn::And": [is_set("UnityCatalogPrincipal"), is_set("UnityCatalogExternalId")]}
    if settings.stream.source == "kinesis":
        found["HasStream"] = is_yes("MakeStream")
    return found | network_conditions(settings) | dagster_conditions(settings)


def _rules(settings: Settings) -> Part:
    """What parameters need of each other, said before anything is made."""

    def rule(wanted: Part, parameters: Iterable[str], what: str) -> Part:
        asserted = [{"Assert": is_set(name), "AssertDescription": f"{what} needs {name}"} for name in parameters]
        return {"RuleCondition": wanted, "Assertions": asserted}

    found = {
        "Dagster": rule(is_set("Image"), ("VpcId", "SubnetIds"), "Dagster"),
        "RequireEndpoint": rule(
            is_yes("RequireEndpoint"), ("VpcId", "RouteTableIds", "BreakGlassRole"), "The demand of the endpoint"
        ),
        **{
            name: rule(is_yes(name), ("VpcId", "SubnetIds", "VpcCidr"), name)
            for name in network_parameters(settings)
            if name.endswith("Endpoint") and name != "RequireEndpoint"
        },
    }
    if settings.engine == "databricks":
        found["UnityCatalog"] = rule(is_set("UnityCatalogExternalId"), ("UnityCatalogPrincipal",), "Unity Catalog")
    return found


def _stream(settings: Settings) -> Part:
    return {
        "Type": "AWS::Kinesis::Stream",
        "Properties": {
            "Name": settings.stream.name,
            "RetentionPeriodHours": 168,
            "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
            "StreamEncryption": {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
        },
    }


def _outputs(known: Mapping[str, Any], resources: Mapping[str, Any]) -> Part:
    """What the next commands and lakehouse.toml need."""
    found: Part = {
        "LakeRoot": {"Description": "lake_root in lakehouse.toml", "Value": sub("s3://${Lake}/${Prefix}")},
        "Bucket": {"Description": "The lake's bucket, which `deploy destroy --lake` asks for", "Value": ref("Lake")},
        "KeyArn": {"Description": "Key of the bucket", "Value": attribute("Key")},
        "Repository": {
            "Description": "Where the image is pushed to",
            "Value": attribute("Repository", "RepositoryUri"),
        },
        "Service": {
            "Condition": "Dagster",
            "Description": "Cluster and service of Dagster, for `aws ecs list-tasks`",
            "Value": sub("${Cluster} ${Service.Name}"),
        },
    }
    if "JobProfile" in resources:
        found["JobInstanceProfile"] = {
            "Description": "Instance profile of Databricks' clusters",
            "Value": attribute("JobProfile"),
        }
        found[CATALOG_ROLE] = {"Description": "Role of the storage credential", "Value": attribute(CATALOG_ROLE)}
    for role in known.values():
        if role.trust != "ecs-tasks" and role.name != "job":
            found[role.logical_id] = {"Description": f"Role of: {role.who}", "Value": attribute(role.logical_id)}
    return found


def _check(made: Part) -> None:
    """Raise DeploymentError if something in the template names what it lacks: a right on a resource that is not made."""
    names = {*made["Parameters"], *made["Resources"]}
    for name, part in {**made["Resources"], **made["Outputs"]}.items():
        for reference in _references(part):
            if reference not in names and not reference.startswith("AWS::"):
                raise DeploymentError(
                    f"{name}: names {reference}, which the template does not have; make it a parameter of deployment/template.py "
                    "or a resource of deployment/stack/"
                )


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0]
            elif key == "Fn::Sub":
                yield from re.findall(r"\$\{([\w:]+)", value)
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
