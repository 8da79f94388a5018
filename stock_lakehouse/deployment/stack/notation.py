"""CloudFormation's notation as Python: references, substitutions, policy documents. Not here: any resource of the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Resource = dict[str, Any]
Statement = dict[str, Any]
Resources = dict[str, Resource]


def ref(name: str) -> dict[str, str]:
    """What CloudFormation's Ref gives of a resource, or the value of a parameter."""
    return {"Ref": name}


def attribute(name: str, of: str = "Arn") -> dict[str, list[str]]:
    """An attribute of a resource."""
    return {"Fn::GetAtt": [name, of]}


def sub(text: str) -> dict[str, str]:
    """`text` with `${Name}` filled in."""
    return {"Fn::Sub": text}


def resolved(value: Any) -> Any:
    """`value`, of lists, dicts and texts, in which every text with `${` is one that CloudFormation fills in."""
    if isinstance(value, Mapping):
        return {name: resolved(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(inner) for inner in value]
    return sub(value) if isinstance(value, str) and "${" in value else value


def document(*statements: Mapping[str, Any]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(sid: str, actions: Sequence[str], resources: Any, **more: Any) -> Statement:
    """A statement that allows `actions` on `resources`; `more`: Condition, Principal."""
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resources, **more}


def trust(service: str) -> dict[str, Any]:
    """The policy by which `service` of AWS, like `ecs-tasks`, may assume a role."""
    names = (service, "redshift-serverless") if service == "redshift" else (service,)
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": [f"{name}.amazonaws.com" for name in names]},
        "Action": "sts:AssumeRole",
    }
    if service == "ecs-tasks":  # which says for whose account it works
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")}}
    return document(statement)


def is_set(parameter: str) -> dict[str, Any]:
    """The condition that a parameter is not empty."""
    return {"Fn::Not": [{"Fn::Equals": [ref(parameter), ""]}]}


def is_yes(parameter: str) -> dict[str, Any]:
    """The condition that a parameter is `yes`."""
    return {"Fn::Equals": [ref(parameter), "yes"]}


def listed(parameter: str) -> dict[str, Any]:
    """The list in a parameter whose values are separated by commas."""
    return {"Fn::Split": [",", ref(parameter)]}


def under(condition: str, resources: Resources) -> Resources:
    """`resources`, each of which exists under `condition` alone, unless it names another one."""
    return {name: {"Condition": condition, **resource} for name, resource in resources.items()}
