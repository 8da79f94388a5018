"""`deploy destroy --lake`: what it deletes and what it leaves, killed between any two calls, and its refusals. On moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.client import BaseClient
from typer.testing import CliRunner

from stock_lakehouse.cli import app
from stock_lakehouse.deployment import destroy as destroying
from stock_lakehouse.deployment.destroy import DestroyError, Lake
from stock_lakehouse.deployment.stack.lake import KEY_TAG
from stock_lakehouse_tests import aws_model, s3

BUCKET = "stocks-lake-3f2a"
ROOT = f"s3://{BUCKET}/team/lake"
VERSIONS, MARKS = 12, 3  # of the lake's objects, as `_fill` makes them


class Killed(BaseException):
    """The process was killed before a call."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3.moto() as address, s3.variables(s3.environment(address)):
        yield address


@pytest.fixture
def store(endpoint: str) -> Iterator[Any]:
    """The client of an account without a bucket at the end, and the lake of ROOT in it at the beginning."""
    client = s3.client(endpoint)
    s3.make_bucket(endpoint, BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    for bucket in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        for version in _versions(client, bucket):
            client.delete_object(Bucket=bucket, **version)
        client.delete_bucket(Bucket=bucket)


def _fill(client: Any) -> None:
    """Three objects in four versions each, deleted at the end; and an upload that nobody completes."""
    for name in ("raw/stocks_daily/a.csv", "curated/stocks_daily/b.parquet", ".locks/c.lease"):
        for number in range(VERSIONS // 3):
            client.put_object(Bucket=BUCKET, Key=f"team/lake/{name}", Body=b"%d" % number)
        client.delete_object(Bucket=BUCKET, Key=f"team/lake/{name}")
    client.create_multipart_upload(Bucket=BUCKET, Key="team/lake/curated/large.parquet")


def _versions(client: Any, bucket: str = BUCKET) -> list[dict[str, str]]:
    page = client.list_object_versions(Bucket=bucket)
    found = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
    return [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]


def _encrypt(endpoint: str, client: Any, tagged: bool) -> str:
    """Encrypt the bucket with a new key, and return its ARN."""
    tags = [{"TagKey": KEY_TAG, "TagValue": "lake"}] if tagged else []
    arn: str = s3.client(endpoint, "kms").create_key(Tags=tags)["KeyMetadata"]["Arn"]
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": arn}}
    client.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
    return arn


def _state(endpoint: str, arn: str) -> str:
    return str(s3.client(endpoint, "kms").describe_key(KeyId=arn)["KeyMetadata"]["KeyState"])


def _buckets(client: Any) -> list[str]:
    return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_every_version_and_the_bucket_are_deleted_and_the_key_of_the_template_in_thirty_days(
    store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destroying, "PAGE", 4)
    arn = _encrypt(endpoint, store, tagged=True)
    _fill(store)
    lines: list[str] = []
    lake = Lake(ROOT)
    assert lake.check()
    done = lake.destroy(lines.append)
    assert (done.versions, done.uploads, done.bucket, done.key) == (VERSIONS + MARKS, 1, True, arn)
    assert lines == ["4 versions deleted", "8 versions deleted", "12 versions deleted", "15 versions deleted"]
    assert (_buckets(store), _state(endpoint, arn)) == ([], "PendingDeletion")
    assert not Lake(ROOT).check()


def test_objects_beside_the_lake_stay_and_so_do_bucket_and_key(store: Any, endpoint: str) -> None:
    arn = _encrypt(endpoint, store, tagged=True)
    _fill(store)
    for key in ("team/lake_of_others/a", "team/lake", "b"):
        store.put_object(Bucket=BUCKET, Key=key, Body=b"")
    done = Lake(ROOT).destroy(lambda line: None)
    assert sorted(version["Key"] for version in _versions(store)) == ["b", "team/lake", "team/lake_of_others/a"]
    assert not done.bucket
    assert done.kept == (f"the bucket {BUCKET} and its key stay, because objects outside of the lake are in it",)
    assert _state(endpoint, arn) == "Enabled"


def test_a_key_that_the_template_did_not_make_stays(store: Any, endpoint: str) -> None:
    arn = _encrypt(endpoint, store, tagged=False)
    done = Lake(ROOT).destroy(lambda line: None)
    assert (done.bucket, done.key, _state(endpoint, arn)) == (True, None, "Enabled")
    assert arn in done.kept[0]


@pytest.mark.slow
def test_killed_before_any_call_it_goes_on_to_the_same_end(
    store: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destroying, "PAGE", 5)
    arn = _encrypt(endpoint, store, tagged=True)
    _fill(store)
    call, left = BaseClient._make_api_call, [0]  # type: ignore[attr-defined]

    def killed(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        assert aws_model.faults(client.meta.service_model.service_name, operation, arguments) == []
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return call(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", killed)
    for calls in range(3, 40):
        left[0] = calls
        try:
            lake = Lake(ROOT)
            if lake.check():
                lake.destroy(lambda line: None)
        except Killed:
            continue
        break
    monkeypatch.undo()
    assert calls > 5
    assert (_buckets(store), _state(endpoint, arn)) == ([], "PendingDeletion")


def test_a_version_that_is_not_deleted_is_an_error_that_names_the_right(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(store)
    call = BaseClient._make_api_call  # type: ignore[attr-defined]

    def refusing(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if operation != "DeleteObjects":
            return call(client, operation, arguments)
        return {
            "Errors": [{"Key": "team/lake/a", "VersionId": "1", "Code": "AccessDenied", "Message": "Access Denied"}]
        }

    monkeypatch.setattr(BaseClient, "_make_api_call", refusing)
    with pytest.raises(
        DestroyError, match=r"1 of 15 versions were not deleted: team/lake/a: AccessDenied.*s3:DeleteObjectVersion"
    ):
        Lake(ROOT).destroy(lambda line: None)


@pytest.mark.parametrize(("status", "refused"), [("CREATE_COMPLETE", True), ("DELETE_COMPLETE", False)])
def test_a_bucket_of_a_stack_is_refused_until_the_stack_is_deleted(
    store: Any, monkeypatch: pytest.MonkeyPatch, status: str, refused: bool
) -> None:
    call, identifier = BaseClient._make_api_call, "arn:aws:cloudformation:us-east-1:111122223333:stack/stocks/1"  # type: ignore[attr-defined]
    answers = {
        "DescribeStackResources": {"StackResources": [{"StackId": identifier, "LogicalResourceId": "Lake"}]},
        "DescribeStacks": {"Stacks": [{"StackName": "stocks", "StackStatus": status}]},
    }

    def answering(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if operation not in answers:
            return call(client, operation, arguments)
        assert aws_model.faults("cloudformation", operation, arguments) == []
        return answers[operation]

    monkeypatch.setattr(BaseClient, "_make_api_call", answering)
    if refused:
        with pytest.raises(DestroyError, match="aws cloudformation delete-stack --stack-name stocks"):
            Lake(ROOT).check()
    else:
        assert Lake(ROOT).check()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lake"], "--bucket: is missing, and nobody can be asked"),
        (["--lake", "--bucket", "other"], "that is not the bucket's name"),
        ([], "--lake: is missing"),
    ],
)
def test_without_the_buckets_name_nothing_is_deleted(
    store: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    _fill(store)
    before = _versions(store)
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", ROOT)
    done = CliRunner().invoke(app, ["deploy", "destroy", *arguments])
    assert done.exit_code == 2
    assert said in done.output
    assert _versions(store) == before


def test_a_program_gets_what_was_deleted_as_json_and_a_repetition_finds_nothing(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(store)
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", ROOT)
    done = CliRunner().invoke(app, ["deploy", "destroy", "--lake", "--bucket", BUCKET, "--json"])
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert (answer["versions"], answer["bucket"], answer["key"]) == (VERSIONS + MARKS, True, None)
    again = CliRunner().invoke(app, ["deploy", "destroy", "--lake", "--bucket", BUCKET])
    assert (again.exit_code, again.stdout) == (0, f"There is no bucket {BUCKET}: nothing to delete.\n")


def test_a_lake_in_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_LAKEHOUSE_LAKE_ROOT", "lakehouse")
    done = CliRunner().invoke(app, ["deploy", "destroy", "--lake", "--bucket", "lakehouse"])
    assert done.exit_code == 2
    assert "is a folder" in done.output


def test_missing_rights_are_named(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        raise client.exceptions.ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, operation)

    with monkeypatch.context() as refused:
        refused.setattr(BaseClient, "_make_api_call", refusing)
        with pytest.raises(DestroyError, match="allow s3:ListBucketVersions"):
            Lake(ROOT).check()
