"""The end of a lake on S3: all versions of its objects, its bucket, and its key.

Here: what is deleted, and in which order, so that it can be killed at any point and called again. Not here: the question before
it (cli/deploy.py), and the stack, which CloudFormation deletes and which keeps bucket and key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from stock_lakehouse import aws
from stock_lakehouse.deployment.stack.lake import KEY_TAG

KEY_DAYS = 30  # until the key is gone; until then its deletion can be cancelled, the longest time that KMS offers
PAGE = 1000  # versions in a listing and in a deletion, the most that S3 takes
STAYS = "what was deleted stays deleted, and all else stays"


class DestroyError(Exception):
    """The lake is not deleted, or not to its end. The message says why and what to do; the same command goes on."""


@dataclass(frozen=True)
class Destroyed:
    """What was deleted.

    - versions: of objects, and marks of deletions
    - uploads: that were not complete
    - bucket: whether the bucket is gone; it stays while other objects are in it
    - key: ARN of the key that is to be deleted; None if there is none, or if it stays
    - key_gone: the day on which KMS deletes it
    - kept: what stays, and why, as sentences
    """

    versions: int
    uploads: int
    bucket: bool
    key: str | None
    key_gone: date | None
    kept: tuple[str, ...]


class Lake:
    """The lake at `root`, s3://bucket/prefix, with the calls that delete it."""

    def __init__(self, root: str) -> None:
        self.bucket, _, prefix = root.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def check(self) -> bool:
        """Whether there is a bucket to delete from. Raises DestroyError while a stack has the bucket: its runs would write on."""
        with self._named(f"bucket {self.bucket}", "S3", "s3:ListBucketVersions"):
            try:
                self._s3.list_object_versions(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
            except self._s3.exceptions.ClientError as error:
                if aws.code_of(error) != "NoSuchBucket":
                    raise
                return False
        if stack := self._stack():
            raise DestroyError(
                f"the bucket {self.bucket} belongs to the stack {stack}, whose service may write to it; first delete the stack, "
                f"which keeps the bucket: aws cloudformation delete-stack --stack-name {stack}"
            )
        return True

    def destroy(self, tell: Callable[[str], None]) -> Destroyed:
        """Delete it. `tell` is called with a line after each page of versions. Raises DestroyError."""
        versions = 0
        for deleted in self._delete_versions():
            versions += deleted
            tell(f"{versions:,} versions deleted")
        uploads = self._abort_uploads()
        with self._named(f"bucket {self.bucket}", "S3", "s3:ListBucketVersions"):
            other = self._s3.list_object_versions(Bucket=self.bucket, MaxKeys=1)
        if other.get("Versions") or other.get("DeleteMarkers"):
            kept = f"the bucket {self.bucket} and its key stay, because objects outside of the lake are in it"
            return Destroyed(versions, uploads, False, None, None, (kept,))
        key, gone, why = self._schedule_key()  # before the bucket goes, which names it
        with self._named(f"bucket {self.bucket}", "S3", "s3:GetBucketLogging"):
            logging = self._s3.get_bucket_logging(Bucket=self.bucket).get("LoggingEnabled")
        with self._named(f"bucket {self.bucket}", "S3", "s3:DeleteBucket"):
            self._s3.delete_bucket(Bucket=self.bucket)
        logs = (
            ()
            if logging is None
            else (f"the access logs in the bucket {logging['TargetBucket']} stay until they expire",)
        )
        return Destroyed(versions, uploads, True, key, gone, (*why, *logs))

    @cached_property
    def _s3(self) -> Any:
        return aws.client("s3")

    def _stack(self) -> str | None:
        """The name of the stack that has the bucket, if it exists."""
        stacks = aws.client("cloudformation")
        with self._named(
            f"stack of the bucket {self.bucket}", "CloudFormation", "cloudformation:DescribeStackResources"
        ):
            try:
                resources = stacks.describe_stack_resources(PhysicalResourceId=self.bucket)["StackResources"]
                if not resources:
                    return None
                # A deleted stack is still known by its identifier.
                [stack] = stacks.describe_stacks(StackName=resources[0]["StackId"])["Stacks"]
            except stacks.exceptions.ClientError as error:
                if aws.code_of(error) != "ValidationError":  # no stack has it
                    raise
                return None
        return None if stack["StackStatus"] == "DELETE_COMPLETE" else str(stack["StackName"])

    def _delete_versions(self) -> Iterator[int]:
        """How many versions each page had. Every page is the first one: what was listed before is gone."""
        what = f"objects below s3://{self.bucket}/{self._prefix}"
        while True:
            with self._named(what, "S3", "s3:ListBucketVersions"):
                page = self._s3.list_object_versions(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=PAGE)
            found = [
                {"Key": version["Key"], "VersionId": version["VersionId"]}
                for version in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]
            if not found:
                return
            with self._named(what, "S3", "s3:DeleteObjectVersion"):
                answer = self._s3.delete_objects(Bucket=self.bucket, Delete={"Objects": found, "Quiet": True})
            if failed := answer.get("Errors", ()):
                first = failed[0]
                raise DestroyError(
                    f"{len(failed):,} of {len(found):,} versions were not deleted: {first['Key']}: {first.get('Code')}, "
                    f"{first.get('Message')}; allow s3:DeleteObject and s3:DeleteObjectVersion on "
                    f"arn:aws:s3:::{self.bucket}/{self._prefix}*, then run again: {STAYS}"
                )
            yield len(found)

    def _abort_uploads(self) -> int:
        """How many uploads of parts that nobody completed were aborted."""
        count = 0
        with self._named(
            f"uploads to {self.bucket}", "S3", "s3:AbortMultipartUpload and s3:ListBucketMultipartUploads"
        ):
            pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._prefix)
            for upload in [upload for page in pages for upload in page.get("Uploads", ())]:
                try:
                    self._s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                except self._s3.exceptions.NoSuchUpload:  # ended meanwhile
                    continue
                count += 1
        return count

    def _schedule_key(self) -> tuple[str | None, date | None, tuple[str, ...]]:
        """The key that is deleted in KEY_DAYS with the day, or why it stays. A key that the template did not make stays."""
        with self._named(f"bucket {self.bucket}", "S3", "s3:GetEncryptionConfiguration"):
            try:
                rules = self._s3.get_bucket_encryption(Bucket=self.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
            except self._s3.exceptions.ClientError as error:
                if aws.code_of(error) != "ServerSideEncryptionConfigurationNotFoundError":
                    raise
                rules = []
        arn = next((rule["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID") for rule in rules), None)
        if arn is None:
            return None, None, ()
        keys = aws.client("kms")
        with self._named(f"key {arn}", "KMS", "kms:ListResourceTags, kms:DescribeKey and kms:ScheduleKeyDeletion"):
            tags = {
                tag["TagKey"]
                for page in keys.get_paginator("list_resource_tags").paginate(KeyId=arn)
                for tag in page["Tags"]
            }
            if KEY_TAG not in tags:
                return (
                    None,
                    None,
                    (f"the key {arn} stays, because the template did not make it: it has no tag {KEY_TAG}",),
                )
            state = keys.describe_key(KeyId=arn)["KeyMetadata"]
            if state["KeyState"] != "PendingDeletion":
                keys.schedule_key_deletion(KeyId=state["KeyId"], PendingWindowInDays=KEY_DAYS)
                state = keys.describe_key(KeyId=arn)["KeyMetadata"]
        return arn, state["DeletionDate"].date(), ()

    def _named(self, what: str, service: str, right: str) -> Any:
        def of_answer(error: Any, subject: str) -> Exception:
            said = aws.message_of(error)
            if aws.code_of(error) in (*aws.DENIED, *aws.REJECTED):
                return DestroyError(f"{subject}: {service} refuses ({said}); allow {aws.missing_right(said) or right}")
            return DestroyError(f"{subject}: {service} says {aws.code_of(error)}: {said}; run again: {STAYS}")

        return aws.named_errors(what, service, "what was deleted", DestroyError, of_answer)
