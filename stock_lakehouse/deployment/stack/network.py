"""The private network: endpoints in a VPC that exists, and the statement by which the lake's bucket demands them.

Not here: subnets and a way out to the internet, which the VPC has or lacks by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stock_lakehouse.deployment.stack.notation import (
    Resource,
    Resources,
    Statement,
    allow,
    attribute,
    document,
    is_yes,
    listed,
    ref,
    sub,
    under,
)

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

DATA_ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket")


def interface_endpoints(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The services that may have an endpoint in the VPC, by the parameter that asks for it, as AWS names them there."""
    found: dict[str, tuple[str, ...]] = {
        "StsEndpoint": ("sts",),
        "LogsEndpoint": ("logs",),
        "EcrEndpoint": ("ecr.api", "ecr.dkr"),
        "SecretsEndpoint": ("secretsmanager",),
    }
    if settings.catalog == "glue":
        found["GlueEndpoint"] = ("glue",)
    if settings.query_engine == "athena":
        found["AthenaEndpoint"] = ("athena",)
    if settings.warehouse == "redshift":
        found["RedshiftEndpoint"] = ("redshift-data",)
    if settings.stream.source == "kinesis":
        found["KinesisEndpoint"] = ("kinesis-streams",)
    return found


def network_parameters(settings: Settings) -> dict[str, dict[str, Any]]:
    """The parameters of the network. All have defaults; with them there is no network."""
    choice = {"Type": "String", "Default": "no", "AllowedValues": ["no", "yes"]}
    texts = {
        "VpcId": "VPC of the endpoints and of Dagster. Empty: neither",
        "RouteTableIds": "Route tables of the VPC that lead to S3 by a gateway endpoint, by comma. Empty: no such endpoint",
        "SubnetIds": "Subnets of Dagster, its database and interface endpoints, in two zones or more, by comma",
        "VpcCidr": "Addresses that may use the interface endpoints, like 10.0.0.0/16",
        "DatabricksBuckets": "ARNs of Databricks' buckets and of their objects that the VPC may reach beside the lake, by comma",
        "OtherEndpoints": "With RequireEndpoint: further gateway endpoints that the bucket accepts, by comma",
        "BreakGlassRole": "With RequireEndpoint: ARN of a role that reads and writes the lake from anywhere",
    }
    asked = {
        parameter: f"Interface endpoint for {' and '.join(services)}; each costs some 7 dollars a month and zone"
        for parameter, services in interface_endpoints(settings).items()
    }
    asked["RequireEndpoint"] = "The lake's bucket refuses to read and write unless a request comes by the endpoint"
    return {
        **{name: {"Type": "String", "Default": "", "Description": text} for name, text in texts.items()},
        **{name: {**choice, "Description": text} for name, text in asked.items()},
    }


def network_conditions(settings: Settings) -> dict[str, Any]:
    """Which endpoints there are. A condition names each parameter whose value its resources use."""
    asked = list(interface_endpoints(settings))
    placed = [{"Condition": "HasVpc"}, {"Condition": "HasSubnets"}, {"Condition": "HasCidr"}]
    return {
        "Private": {"Fn::And": [{"Condition": "HasVpc"}, {"Condition": "HasRouteTables"}]},
        "RequireEndpoint": {
            "Fn::And": [{"Condition": "Private"}, {"Condition": "HasBreakGlass"}, is_yes("RequireEndpoint")]
        },
        **{f"Has{name}": {"Fn::And": [*placed, is_yes(name)]} for name in asked},
        "HasInterfaces": {"Fn::Or": [{"Condition": f"Has{name}"} for name in asked]},
    }


def network_resources(settings: Settings) -> Resources:
    found = under("Private", {"S3Endpoint": _gateway()})
    found |= under("HasInterfaces", {"EndpointGroup": _group()})
    for parameter, services in interface_endpoints(settings).items():
        numbers = [""] if len(services) == 1 else [str(number) for number in range(1, len(services) + 1)]
        endpoints = {
            f"{parameter}{number}": _interface(service) for number, service in zip(numbers, services, strict=True)
        }
        found |= under(f"Has{parameter}", {f"Interface{name}": endpoint for name, endpoint in endpoints.items()})
    return found


def demand_of_endpoint(services_roles: Iterable[str]) -> Statement:
    """The bucket's statement that refuses data to requests from elsewhere.

    It denies reads, writes, deletions and listings alone, so an administrator can always change the policy. Who cannot come by
    the endpoint is left out: services of AWS that ask for their caller (Athena) or for themselves, and the roles that services
    assume in networks of their own.

    `services_roles`: logical identifiers of those roles.
    """
    several = {"Fn::Split": [",", sub("${S3Endpoint},${OtherEndpoints}")]}
    accepted = {"Fn::If": ["HasOtherEndpoints", several, ref("S3Endpoint")]}
    exempt = [*(attribute(role) for role in services_roles), ref("BreakGlassRole")]
    return {
        "Sid": "ByTheEndpoint",
        "Effect": "Deny",
        "Principal": "*",
        "Action": list(DATA_ACTIONS),
        "Resource": [attribute("Lake"), sub("${Lake.Arn}/*")],
        "Condition": {
            "StringNotEqualsIfExists": {"aws:SourceVpce": accepted},
            "BoolIfExists": {"aws:ViaAWSService": "false", "aws:PrincipalIsAWSService": "false"},
            "ArnNotLikeIfExists": {"aws:PrincipalArn": exempt},
        },
    }


def _gateway() -> Resource:
    own = {"StringEquals": {"aws:PrincipalAccount": ref("AWS::AccountId")}}
    lake = allow(
        "Lake",
        [*DATA_ACTIONS, "s3:AbortMultipartUpload"],
        [attribute("Lake"), sub("${Lake.Arn}/*")],
        Principal="*",
        Condition=own,
    )
    # ECR keeps the layers of images in a bucket of AWS in each region.
    layers = allow(
        "ImageLayers",
        ["s3:GetObject"],
        sub("arn:${AWS::Partition}:s3:::prod-${AWS::Region}-starport-layer-bucket/*"),
        Principal="*",
    )
    workspace = allow("Databricks", list(DATA_ACTIONS), listed("DatabricksBuckets"), Principal="*")
    statements = [lake, layers, {"Fn::If": ["HasDatabricksBuckets", workspace, ref("AWS::NoValue")]}]
    return {
        "Type": "AWS::EC2::VPCEndpoint",
        "Properties": {
            "VpcEndpointType": "Gateway",
            "VpcId": ref("VpcId"),
            "RouteTableIds": listed("RouteTableIds"),
            "ServiceName": sub("com.amazonaws.${AWS::Region}.s3"),
            "PolicyDocument": document(*statements),
        },
    }


def _interface(service: str) -> Resource:
    own = {"StringEquals": {"aws:PrincipalAccount": ref("AWS::AccountId")}}
    return {
        "Type": "AWS::EC2::VPCEndpoint",
        "Properties": {
            "VpcEndpointType": "Interface",
            "VpcId": ref("VpcId"),
            "SubnetIds": listed("SubnetIds"),
            "SecurityGroupIds": [attribute("EndpointGroup", "GroupId")],
            "PrivateDnsEnabled": True,
            "ServiceName": sub(f"com.amazonaws.${{AWS::Region}}.{service}"),
            # The way alone: what a caller may do, its own policies say. Nobody of another account uses it.
            "PolicyDocument": document(allow("OwnAccount", ["*"], "*", Principal="*", Condition=own)),
        },
    }


def _group() -> Resource:
    incoming = {
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "CidrIp": ref("VpcCidr"),
        "Description": "HTTPS from the VPC",
    }
    outgoing = {
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "CidrIp": ref("VpcCidr"),
        "Description": "Answers alone",
    }
    return {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {
            "GroupDescription": "Interface endpoints of AWS services",
            "VpcId": ref("VpcId"),
            "SecurityGroupIngress": [incoming],
            "SecurityGroupEgress": [outgoing],
        },
    }
