"""The template with the settings of deploy/ and with the fewest, and stacks of it on ministack.

Here: making them. Not here: what is expected of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from stock_lakehouse.deployment.render import as_yaml
from stock_lakehouse.deployment.template import template
from stock_lakehouse.settings import CONFIG_VARIABLE, PREFIX, Settings, load_settings
from stock_lakehouse_tests import s3

CONFIG = Path(__file__).parents[2] / "deploy" / "lakehouse.toml"
DIGEST = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/lakehouse@sha256:{'0' * 64}"
UPLOADS = "uploads"
WAIT_SECONDS = 60.0


@cache
def full() -> Settings:
    """The settings of deploy/, which use every service."""
    with _variables({CONFIG_VARIABLE: str(CONFIG)}):
        return load_settings()


@cache
def least() -> Settings:
    """A lake on S3 and nothing else."""
    with _variables({}):
        return Settings(lake_root="s3://bucket/lake")


def _variables(given: Mapping[str, str]) -> Any:
    """`given` as the only variables of the settings: what a test has set must not stay in what is remembered."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return mock.patch.dict(os.environ, {**others, **given}, clear=True)


@cache
def text_of(settings_of: Any) -> str:
    """The rendered template of `full` or `least`."""
    return as_yaml(template(settings_of()))


def network(address: str) -> dict[str, str]:
    """Parameters of a private network, which is made on the emulator at `address`."""
    ec2 = s3.client(address, "ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for number, zone in enumerate(("us-east-1a", "us-east-1b"))
    ]
    return {
        "VpcId": vpc,
        "RouteTableIds": ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"],
        "SubnetIds": ",".join(subnets),
        "VpcCidr": "10.0.0.0/16",
        "StsEndpoint": "yes",
        "EcrEndpoint": "yes",
        "RequireEndpoint": "yes",
        "BreakGlassRole": "arn:aws:iam::000000000000:role/break-glass",
    }


def deploy(address: str, name: str, text: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Make the stack `name`, and return its description when it is made or has failed."""
    client = s3.client(address, "cloudformation")
    client.create_stack(StackName=name, **_given(address, text, parameters))
    return settled(address, name)


def settled(address: str, name: str) -> dict[str, Any]:
    """The description of a stack, once nothing is in progress."""
    client, until = s3.client(address, "cloudformation"), time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        [stack] = client.describe_stacks(StackName=name)["Stacks"]
        if "IN_PROGRESS" not in stack["StackStatus"]:
            return dict(stack)
        time.sleep(0.1)
    raise AssertionError(f"the stack {name} is not made in {WAIT_SECONDS} s")


def changes(address: str, name: str, text: str, parameters: Mapping[str, str]) -> list[Any]:
    """What an update of the stack to `text` would change."""
    client, until = s3.client(address, "cloudformation"), time.monotonic() + WAIT_SECONDS
    client.create_change_set(StackName=name, ChangeSetName="again", **_given(address, text, parameters))
    while time.monotonic() < until:
        found = client.describe_change_set(StackName=name, ChangeSetName="again")
        if found["Status"] in ("CREATE_COMPLETE", "FAILED"):
            return list(found["Changes"])
        time.sleep(0.1)
    raise AssertionError("there is no change set")


def resources(address: str, name: str) -> dict[str, str]:
    """The names that the emulator gave, by the identifiers of the template."""
    pages = s3.client(address, "cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
    }


def _given(address: str, text: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a deployment. CloudFormation takes a template of more than 51,200 bytes from a bucket alone."""
    s3.make_bucket(address, UPLOADS)
    s3.client(address).put_object(Bucket=UPLOADS, Key="lakehouse.yaml", Body=text.encode())
    listed = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    return {
        "TemplateURL": f"{address}/{UPLOADS}/lakehouse.yaml",
        "Parameters": listed,
        "Capabilities": ["CAPABILITY_IAM"],
    }
