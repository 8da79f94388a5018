"""The gate's own judgement: which rights a request needs, and IAM's decision on them, by cases of AWS's documentation."""

from __future__ import annotations

import json

import pytest

from stock_lakehouse_tests.deployment.asked import Account, Asked, Judge, Known, Request, asked_of

ACCOUNT = Account("lake", "111122223333")
S3 = "Credential=KEY/20240102/us-east-1/s3/aws4_request"


def s3(method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"", **headers: str) -> list[str]:
    request = Request(method, path, query or {}, {"authorization": S3, **headers}, body)
    return [f"{asked.action} {asked.resource}" for asked in asked_of(request, ACCOUNT, Known())]


DELETE = b"<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object></Delete>"


@pytest.mark.parametrize(
    ("found", "needed"),
    [
        (s3("GET", "/lake/a%20b/k"), ["s3:GetObject arn:aws:s3:::lake/a b/k"]),
        (s3("HEAD", "/lake/k"), ["s3:GetObject arn:aws:s3:::lake/k"]),
        (s3("PUT", "/lake/k"), ["s3:PutObject arn:aws:s3:::lake/k"]),
        (s3("POST", "/lake/k", {"uploads": ""}), ["s3:PutObject arn:aws:s3:::lake/k"]),
        (s3("DELETE", "/lake/k", {"uploadId": "1"}), ["s3:AbortMultipartUpload arn:aws:s3:::lake/k"]),
        (s3("DELETE", "/lake/k"), ["s3:DeleteObject arn:aws:s3:::lake/k"]),
        (s3("DELETE", "/lake/k", {"versionId": "1"}), ["s3:DeleteObjectVersion arn:aws:s3:::lake/k"]),
        (s3("PUT", "/lake/k", {"acl": ""}), ["s3:PutObjectAcl arn:aws:s3:::lake/k"]),
        (s3("GET", "/lake", {"list-type": "2", "prefix": "p/"}), ["s3:ListBucket arn:aws:s3:::lake"]),
        (s3("GET", "/lake", {"versions": ""}), ["s3:ListBucketVersions arn:aws:s3:::lake"]),
        (s3("GET", "/lake", {"location": ""}), ["s3:GetBucketLocation arn:aws:s3:::lake"]),
        (
            s3("POST", "/lake", {"delete": ""}, DELETE),
            ["s3:DeleteObject arn:aws:s3:::lake/a&b", "s3:DeleteObject arn:aws:s3:::lake/c"],
        ),
    ],
)  # fmt: skip
def test_a_request_to_s3_needs_what_its_reference_says(found: list[str], needed: list[str]) -> None:
    assert found == needed


def test_an_action_of_glue_needs_its_catalog_its_database_and_its_table() -> None:
    headers = {"authorization": S3.replace("/s3/", "/glue/"), "x-amz-target": "AWSGlue.GetPartitions"}
    body = json.dumps({"DatabaseName": "lakehouse", "TableName": "bars"}).encode()
    found = asked_of(Request("POST", "/", {}, headers, body), ACCOUNT, Known())
    place = "arn:aws:glue:us-east-1:111122223333"
    wanted = [f"{place}:catalog", f"{place}:database/lakehouse", f"{place}:table/lakehouse/bars"]
    assert [asked.resource for asked in found] == wanted
    assert {asked.action for asked in found} == {"glue:GetPartitions"}


LIST = {
    "Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::lake"],
    "Condition": {"StringLike": {"s3:prefix": ["p/raw", "p/raw/*"]}},
}  # fmt: skip
READ = {"Sid": "Read", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::lake/p/raw/*"]}
DENY = {
    "Sid": "New", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": ["arn:aws:s3:::lake/p/raw/*"],
    "Condition": {"Null": {"s3:if-none-match": "true"}},
}  # fmt: skip
WRITE = {"Sid": "Write", "Effect": "Allow", "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::lake/p/raw/*"]}


@pytest.mark.parametrize(
    ("action", "resource", "context", "allowed"),
    [
        ("s3:ListBucket", "arn:aws:s3:::lake", {"s3:prefix": "p/raw"}, True),
        ("s3:ListBucket", "arn:aws:s3:::lake", {"s3:prefix": "p/raw/year=2023/"}, True),
        ("s3:ListBucket", "arn:aws:s3:::lake", {"s3:prefix": "p/rawer/"}, False),
        ("s3:ListBucket", "arn:aws:s3:::lake", {"s3:prefix": ""}, False),
        ("s3:ListBucket", "arn:aws:s3:::lake", {}, False),  # a condition on a key that is not there does not hold
        ("s3:GetObject", "arn:aws:s3:::lake/p/raw/k", {}, True),
        ("s3:GetObject", "arn:aws:s3:::lake/p/raw", {}, False),
        ("s3:GetObject", "arn:aws:s3:::lake/P/raw/k", {}, False),
        ("s3:PutObject", "arn:aws:s3:::lake/p/raw/k", {}, False),  # the bucket's policy denies it
        ("s3:PutObject", "arn:aws:s3:::lake/p/raw/k", {"s3:if-none-match": "*"}, True),
        ("s3:DeleteObject", "arn:aws:s3:::lake/p/raw/k", {}, False),
    ],
)
def test_a_right_is_given_by_a_statement_and_taken_by_a_denial(
    action: str, resource: str, context: dict[str, str], allowed: bool
) -> None:
    judge = Judge({"role": {"Statement": [LIST, READ, WRITE]}}, {"bucket": {"Statement": [DENY]}})
    assert bool(judge.verdict(Asked(action, resource, tuple(context.items())))) is allowed
