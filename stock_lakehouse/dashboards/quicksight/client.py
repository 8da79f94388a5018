"""Calls of QuickSight by boto3: the account, reads and writes that are counted, waits with a bound, and errors by name.

Here: how a call is made and what its errors mean. Not here: which calls are made (provisioning.py).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from stock_lakehouse import aws
from stock_lakehouse.lake.storage import LakeError
from stock_lakehouse.sql.engine import PermissionMissingError

WRITES = ("Create", "Update", "Put", "Tag", "Untag", "Delete")
# Users, groups and the subscription are asked for in one region of the account, which only this error names.
IDENTITY_REGION = re.compile(r"your identity region is ([a-z0-9-]+)")
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
PAUSE_GROWTH = 1.5
CONFLICT_MINUTES = 5.0  # how long another change of the same resource is waited for


class QuickSightError(LakeError):
    """QuickSight was not brought to what the lake has. The message says what to do; what was written stays."""


class EditionError(QuickSightError):
    """The account has no QuickSight, or its edition has no dashboards by API."""


class PrincipalError(QuickSightError):
    """A reader or author does not exist. The message names it and its namespace."""


class OtherLakeError(QuickSightError):
    """The name is used for the dashboard of another lake. The message names that lake."""


class FailedError(QuickSightError):
    """QuickSight could not make a data source or a version of the dashboard. The message has its reasons."""


class IngestionError(QuickSightError):
    """A refresh of SPICE failed. The message has QuickSight's reason."""


class WaitError(QuickSightError):
    """QuickSight is still at work after the time that is waited for it. The next run goes on where this one stopped."""


class QuickSight:
    """QuickSight in the account and region of boto3's variables and profiles.

    - client, sts: None for those by boto3's variables and profiles, with bounded retries
    - calls: how often each operation was called, by name, without retries
    """

    def __init__(self, client: Any = None, sts: Any = None) -> None:
        self.calls: Counter[str] = Counter()
        self._sts = sts
        with named_errors("QuickSight"):
            self._client = client or aws.client("quicksight")
        self._client.meta.events.register("provide-client-params.quicksight", self._count)
        self._identity: Any = None

    def _count(self, model: Any, **_: Any) -> None:
        self.calls[model.name] += 1

    @property
    def writes(self) -> int:
        """How many calls could have changed something."""
        return sum(count for name, count in self.calls.items() if name.startswith(WRITES))

    @property
    def region(self) -> str:
        return str(self._client.meta.region_name)

    @cached_property
    def caller(self) -> Mapping[str, str]:
        """The account of the credentials, and the partition of its ARNs."""
        with named_errors("the AWS account"):
            found = (self._sts or aws.client("sts")).get_caller_identity()
        return {"account": str(found["Account"]), "partition": str(found["Arn"]).split(":")[1]}

    @property
    def account(self) -> str:
        return self.caller["account"]

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a dashboard, dataset or datasource of this account and region."""
        return f"arn:{self.caller['partition']}:quicksight:{self.region}:{self.account}:{kind}/{name}"

    def call(self, operation: str, what: str, **members: Any) -> dict[str, Any]:
        """The answer of `operation`, like "update_dashboard". `what` is worked on, for errors.

        A write that meets another change of the same resource is repeated for CONFLICT_MINUTES. The answer is empty if what is to
        be created exists: another process made it, or this call, whose first answer was lost.
        """
        until, pause = time.monotonic() + CONFLICT_MINUTES * 60, FIRST_PAUSE_SECONDS
        while True:
            with named_errors(what):
                try:
                    return dict(getattr(self._client, operation)(AwsAccountId=self.account, **members))
                except self._client.exceptions.ResourceExistsException:
                    return {}
                except self._client.exceptions.ConflictException:
                    if time.monotonic() + pause > until:
                        raise
            time.sleep(pause)
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)

    def find(self, operation: str, what: str, **members: Any) -> dict[str, Any] | None:
        """The answer of a describing operation; None if the resource does not exist."""
        with named_errors(what):
            try:
                return dict(getattr(self._client, operation)(AwsAccountId=self.account, **members))
            except self._client.exceptions.ResourceNotFoundException:
                return None

    def find_identity(self, operation: str, what: str, **members: Any) -> dict[str, Any] | None:
        """As `find`, of an operation on users, groups or the subscription, in the region that has those."""
        from botocore.exceptions import ClientError

        with named_errors(what):
            try:
                return self._in_identity_region(operation, members)
            except ClientError as error:
                elsewhere = IDENTITY_REGION.search(aws.message_of(error))
                if elsewhere is None or self._identity is not None:
                    raise
                self._identity = aws.client("quicksight", elsewhere[1])
                self._identity.meta.events.register("provide-client-params.quicksight", self._count)
                return self._in_identity_region(operation, members)

    def _in_identity_region(self, operation: str, members: Mapping[str, Any]) -> dict[str, Any] | None:
        client = self._identity or self._client
        try:
            return dict(getattr(client, operation)(AwsAccountId=self.account, **members))
        except client.exceptions.ResourceNotFoundException:
            return None

    def tags(self, arn: str, what: str) -> dict[str, str]:
        """The tags of a resource."""
        with named_errors(what):
            found = self._client.list_tags_for_resource(ResourceArn=arn).get("Tags", [])
        return {tag["Key"]: tag["Value"] for tag in found}

    def tag(self, arn: str, what: str, tags: Mapping[str, str]) -> None:
        """Set tags of a resource; others stay."""
        with named_errors(what):
            self._client.tag_resource(ResourceArn=arn, Tags=as_tags(tags))


def as_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """`tags` as QuickSight has them."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def wait(look: Callable[[], Any], minutes: float, what: str) -> Any:
    """What `look` gives, as soon as it is not None. Raises WaitError after `minutes`."""
    until, pause = time.monotonic() + minutes * 60, FIRST_PAUSE_SECONDS
    while (found := look()) is None:
        if time.monotonic() + pause > until:
            raise WaitError(
                f"{what}: QuickSight was still at work after {minutes:g} minutes; run `stock-lakehouse quicksight` later, which "
                "goes on from here"
            )
        time.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
    return found


def named_errors(what: str) -> AbstractContextManager[None]:
    """Errors of boto3 as errors of this package, which name `what` was worked on and say what to do."""
    return aws.named_errors(what, "AWS", "what was written", QuickSightError, _named)


def _named(error: Any, what: str) -> LakeError:
    code, message = aws.code_of(error), aws.message_of(error)
    right = aws.missing_right(message)
    if right or code in aws.DENIED:
        return PermissionMissingError(
            f"{what}: these credentials lack {right or f'the right for {error.operation_name} ({message})'}; allow it in IAM "
            "(docs/dashboards.md lists the rights)"
        )
    if code in aws.REJECTED:
        return PermissionMissingError(f"{what}: AWS rejects these credentials: {message}")
    operation = error.operation_name
    sayings = {
        "UnsupportedUserEditionException": "the QuickSight account is of the Standard edition, which has no "
        f"{operation}; upgrade it to Enterprise, or set dashboard to local",
        "ConflictException": f"another change of it has not ended in {CONFLICT_MINUTES:g} minutes ({message}); run again later",
        "LimitExceededException": f"a limit of QuickSight is reached: {message}; free something, or ask AWS for a higher quota, "
        "and run again",
        **dict.fromkeys(
            aws.THROTTLED,
            f"AWS throttled {operation} {aws.ATTEMPTS} times; run again later: what was written stays",
        ),
    }
    said = sayings.get(code, f"AWS refused {operation} with {code}: {message}; run again: what was written stays")
    kind = EditionError if code == "UnsupportedUserEditionException" else QuickSightError
    return kind(f"{what}: {said}")
