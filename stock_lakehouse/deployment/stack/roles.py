"""The roles of rights.py with their policies, and the role and the profile by which Databricks has two of them.

Not here: what a role may do (rights.py), the statements of that (policies.py), and the roles of ECS itself (stack/dagster.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from stock_lakehouse.deployment.policies import policies_of
from stock_lakehouse.deployment.rights import Role
from stock_lakehouse.deployment.stack.notation import (
    Resource,
    Resources,
    allow,
    attribute,
    document,
    ref,
    resolved,
    sub,
    trust,
    under,
)

CATALOG_ROLE = "UnityCatalogRole"
# Roles of these are assumed outside of the account's networks: by people, instances and tasks the others.
SERVICES = ("glue", "redshift", "quicksight")
_REFERENCE = re.compile(r"\$\{(\w+)")


def role_resources(roles: Mapping[str, Role], on_dagster: Collection[str]) -> Resources:
    """The roles and their managed policies, of which a role has several: IAM limits the length of each.

    `on_dagster`: resources that exist under the condition Dagster. A policy that names one exists under it, too.
    """
    found: Resources = {}
    for role in roles.values():
        attached: list[Any] = []
        for part, policy in policies_of(role).items():
            name = policy_id(role, part)
            managed: Resource = {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "Description": f"stock_lakehouse, role {role.name}: {part}",
                    "PolicyDocument": resolved(policy),
                },
            }
            if set(_REFERENCE.findall(json.dumps(policy))) & set(on_dagster):
                found |= under("Dagster", {name: managed})
                attached.append({"Fn::If": ["Dagster", ref(name), ref("AWS::NoValue")]})
            else:
                found[name] = managed
                attached.append(ref(name))
        trusted = account_trust() if role.trust == "account" else trust(role.trust)
        found[role.logical_id] = _role(role.who, trusted, attached)
    return found


def databricks_resources(roles: Mapping[str, Role]) -> Resources:
    """The profile of clusters, the right to give it to them, and the role of Unity Catalog, which reads what `reader` reads."""
    job, reader = roles["job"].logical_id, roles["reader"]
    passed = allow(
        "PassJobRole",
        ["iam:PassRole"],
        attribute(job),
        Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    )
    attached = [ref(policy_id(reader, part)) for part in policies_of(reader) if part.split("-")[0] in ("list", "read")]
    found: Resources = {
        "JobProfile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [ref(job)]}},
        CATALOG_ROLE: _role("Unity Catalog, which reads the lake", _catalog_trust(), attached),
    }
    found[CATALOG_ROLE]["Properties"]["Policies"] = [
        {
            "PolicyName": "assume-itself",
            "PolicyDocument": document(allow("AssumeItself", ["sts:AssumeRole"], sub(_CATALOG_ROLES))),
        }
    ]
    policy = {"PolicyName": "pass-job-role", "Roles": [ref("DatabricksDeployRole")], "PolicyDocument": document(passed)}
    return found | under("HasDeployRole", {"PassJobRole": {"Type": "AWS::IAM::Policy", "Properties": policy}})


def policy_id(role: Role, part: str) -> str:
    """The logical identifier of a policy of `role`: `RunJobsReadPolicy`."""
    part_name = "".join(word.capitalize() for word in part.split("-"))
    return f"{role.logical_id.removesuffix('Role')}{part_name}Policy"


def account_trust() -> dict[str, Any]:
    """The policy by which identities of the account may assume a role if IAM gives them that."""
    root = {"AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root")}
    return document({"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"})


# A role cannot name itself in its own trust, because CloudFormation makes its name of these and random letters.
_CATALOG_ROLES = f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/${{AWS::StackName}}-{CATALOG_ROLE}-*"


def _catalog_trust() -> dict[str, Any]:
    """Databricks demands that the role trusts Databricks' own one, with the credential's external id, and itself."""
    [account] = account_trust()["Statement"]
    itself = {**account, "Condition": {"ArnLike": {"aws:PrincipalArn": sub(_CATALOG_ROLES)}}}
    databricks = {
        "Effect": "Allow",
        "Principal": {"AWS": ref("UnityCatalogPrincipal")},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": ref("UnityCatalogExternalId")}},
    }
    return document(itself, {"Fn::If": ["HasUnityCatalog", databricks, ref("AWS::NoValue")]})


def _role(who: str, trusted: dict[str, Any], policies: list[Any]) -> Resource:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {"Description": who, "AssumeRolePolicyDocument": trusted, "ManagedPolicyArns": policies},
    }
