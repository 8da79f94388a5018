"""The lake's own resources: its bucket with policy and lifecycle, the bucket of access logs, the key, catalog and workgroup.

Not here: who may use them (stack/roles.py), and the private network (stack/network.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stock_lakehouse.deployment.places import results_folder
from stock_lakehouse.deployment.policies import bucket_policy
from stock_lakehouse.deployment.rights import DeploymentError
from stock_lakehouse.deployment.stack.notation import (
    Resource,
    Resources,
    Statement,
    allow,
    attribute,
    document,
    ref,
    resolved,
    sub,
)
from stock_lakehouse.lake.staging import FOLDER as STAGING
from stock_lakehouse.sql.athena import ENGINE_VERSION
from stock_lakehouse.tables import STREAM_TABLES, TABLES

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings

KEY_TAG = "stock-lakehouse"  # the tag by which `deploy destroy` knows a key that this template made
LOG_DAYS = 365
# Days for which a replaced or deleted object can be brought back, by the first folder of its key. Raw and the ledger cannot be
# computed again. A lease is rewritten every 15 seconds, so old versions of it would be many.
NONCURRENT_DAYS = {
    "raw": 90,
    "processed": 14,
    "curated": 30,
    "stream": 7,
    "serving": 1,
    ".locks": 1,
    STAGING: 1,
}
OTHER_DAYS = 90  # of every other folder
STAGING_DAYS = 7  # after which a frame of a killed run is removed; `upkeep` does it after one day
RESULTS_DAYS = 30  # for which results of queries can be looked at again


def lake_resources(settings: Settings, demand: Statement) -> Resources:
    """Key, buckets and their policies; catalog and workgroup where the settings use them.

    `demand`: the statement by which the bucket demands the private network, where that is asked for.
    """
    policy = resolved(bucket_policy())
    policy["Statement"].append({"Fn::If": ["RequireEndpoint", demand, ref("AWS::NoValue")]})
    resources: Resources = {
        "Key": _key(),
        "AccessLogs": _access_logs(),
        "AccessLogsPolicy": _access_logs_policy(),
        "Lake": _lake_bucket(settings),
        "LakePolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": ref("Lake"), "PolicyDocument": policy},
        },
    }
    if settings.catalog == "glue":
        resources["Catalog"] = {
            "Type": "AWS::Glue::Database",
            "Properties": {
                "CatalogId": ref("AWS::AccountId"),
                "DatabaseInput": {
                    "Name": settings.aws.glue_database,
                    "Description": "Tables of the lake, registered by stock_lakehouse",
                },
            },
        }
    if settings.query_engine == "athena":
        resources["Workgroup"] = _workgroup(settings)
    return resources


def lifecycle(settings: Settings) -> list[dict[str, Any]]:
    """The rules of the lake's bucket. They remove versions that were replaced or deleted, parts of uploads that were abandoned,
    frames that a killed run staged, and results of queries.

    No other object expires: the log of a Delta table names files of any age. Raises DeploymentError for a table in a folder
    without a number of days.
    """
    for table in (*TABLES, *STREAM_TABLES):
        if table.path.split("/")[0] not in NONCURRENT_DAYS:
            raise DeploymentError(
                f"{table.name}: no rule says how long replaced files of {table.path} are kept; add the folder to NONCURRENT_DAYS "
                "in stock_lakehouse/deployment/stack/lake.py"
            )
    rules: list[dict[str, Any]] = [
        {
            "Id": folder.lstrip("."),
            "Prefix": sub(f"${{Prefix}}/{folder}/"),
            "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        }
        for folder, days in NONCURRENT_DAYS.items()
    ]
    expiring = {STAGING: STAGING_DAYS}
    if folder := results_folder(settings):
        expiring[folder] = RESULTS_DAYS
    rules += [
        {"Id": f"{folder.lstrip('.')}-expire", "Prefix": sub(f"${{Prefix}}/{folder}/"), "ExpirationInDays": days}
        for folder, days in expiring.items()
    ]
    rest = {
        "Id": "everything",
        "NoncurrentVersionExpiration": {"NoncurrentDays": OTHER_DAYS},
        "ExpiredObjectDeleteMarker": True,
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    return [{"Status": "Enabled", **rule} for rule in (*rules, rest)]


def _key() -> Resource:
    account = {"AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root")}
    logs = {"Service": sub("logs.${AWS::Region}.amazonaws.com")}
    of_this_account = sub("arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*")
    return {
        "Type": "AWS::KMS::Key",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "Description": "The lake, its results, logs and database",
            "EnableKeyRotation": True,
            "PendingWindowInDays": 30,
            "Tags": [{"Key": KEY_TAG, "Value": "lake"}],
            "KeyPolicy": document(
                # `*` is this key alone, for this is its policy. IAM then says who may use it.
                allow("Account", ["kms:*"], "*", Principal=account),
                allow(
                    "Logs",
                    ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                    "*",
                    Principal=logs,
                    Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": of_this_account}},
                ),
            ),
        },
    }


def _bucket(encryption: dict[str, Any], rules: list[dict[str, Any]], **more: Any) -> Resource:
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    return {
        "Type": "AWS::S3::Bucket",
        # CloudFormation deletes no bucket with objects, and names each, so a second stack does not meet one that was kept.
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
            "LifecycleConfiguration": {"Rules": rules},
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "PublicAccessBlockConfiguration": dict.fromkeys(closed, True),
            "VersioningConfiguration": {"Status": "Enabled"},
            **more,
        },
    }


def _lake_bucket(settings: Settings) -> Resource:
    encryption = {
        "BucketKeyEnabled": True,  # one call to KMS for many objects
        "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": attribute("Key")},
    }
    logs = {"DestinationBucketName": ref("AccessLogs"), "LogFilePrefix": "lake/"}
    return {"DependsOn": "AccessLogsPolicy", **_bucket(encryption, lifecycle(settings), LoggingConfiguration=logs)}


def _access_logs() -> Resource:
    # S3 delivers access logs to no bucket that is encrypted with a key of one's own.
    encryption = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    rule = {
        "Id": "expire",
        "Status": "Enabled",
        "ExpirationInDays": LOG_DAYS,
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    return _bucket(encryption, [rule])


def _access_logs_policy() -> Resource:
    bucket = "arn:${AWS::Partition}:s3:::${AccessLogs}"
    deliver = allow(
        "Deliver",
        ["s3:PutObject"],
        sub(f"{bucket}/lake/*"),
        Principal={"Service": "logging.s3.amazonaws.com"},
        Condition={"StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")}},
    )
    tls_only = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [sub(bucket), sub(f"{bucket}/*")],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {"Bucket": ref("AccessLogs"), "PolicyDocument": document(deliver, tls_only)},
    }


def _workgroup(settings: Settings) -> Resource:
    encryption = {"EncryptionOption": "SSE_KMS", "KmsKey": attribute("Key")}
    place = {
        "OutputLocation": sub(f"s3://${{Lake}}/${{Prefix}}/{results_folder(settings)}/"),
        "EncryptionConfiguration": encryption,
    }
    return {
        "Type": "AWS::Athena::WorkGroup",
        "Properties": {
            "Name": settings.aws.athena_workgroup,
            "Description": "Queries of the lake",
            "RecursiveDeleteOption": True,  # with the history of its queries
            "WorkGroupConfiguration": {
                "BytesScannedCutoffPerQuery": settings.aws.athena_scan_limit_mb * 1_000_000,
                "EnforceWorkGroupConfiguration": True,
                "EngineVersion": {"SelectedEngineVersion": ENGINE_VERSION},
                "PublishCloudWatchMetricsEnabled": True,
                "ResultConfiguration": place,
            },
        },
    }
