"""Clients of AWS services by boto3, and the missing right that an error names.

Here: region, retries, missing rights, and the form in which a service's rights are declared. Not here: the lake's own bucket
(lake/storage/bucket.py), a service's calls (sql/, catalog/), and the policies that are made of rights (deployment/).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ATTEMPTS = 8  # of each call, with growing pauses: a throttled call is in the end sent about a minute after the first
ACTION = re.compile(r"is not authorized to perform:? ([\w-]+:\w+)(?: on resource:? (\S+))?")
# Error codes of AWS's services for credentials that lack a right, or are no credentials at all.
DENIED = ("AccessDenied", "AccessDeniedException", "AllAccessDisabled")
REJECTED = (
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "UnrecognizedClientException",
)
THROTTLED = ("TooManyRequestsException", "Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown")


NO_RESOURCE = "AWS knows no resource of these actions"  # the reason of a right on `*`


@dataclass(frozen=True)
class Right:
    """What a process may do at a service: one IAM statement that allows. Those of the lake's own bucket are not among them.

    - sid: identifier of the statement in its policy, letters and digits
    - actions: like `glue:GetTable`
    - resources: ARNs in CloudFormation's notation, `arn:${AWS::Partition}:glue:${AWS::Region}:${AWS::AccountId}:catalog`; an ARN
      of another resource of the template as `${RunRole.Arn}`
    - conditions: operator → key → value or values, as IAM writes them
    - reason: why a resource is `*`, or why an action is allowed that no recorded run asks for; empty for other rights
    """

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, str | tuple[str, ...]]] = field(default_factory=dict)
    reason: str = ""


def arn(service: str, resource: str) -> str:
    """The ARN of `resource` of a service in the account and region of the deployment, in CloudFormation's notation."""
    return f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{resource}"


# The actions with which a service or a query reads tables that Glue has.
GLUE_READS = (
    "glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:GetPartition", "glue:GetPartitions", "glue:BatchGetPartition",
)  # fmt: skip


def glue_tables(database: str) -> tuple[str, ...]:
    """The ARNs by which rights of Glue name the tables of `database`: catalog, database and tables."""
    return arn("glue", "catalog"), arn("glue", f"database/{database}"), arn("glue", f"table/{database}/*")


def client(service: str, region: str | None = None, connect_seconds: float = 60, answer_seconds: float = 60) -> Any:
    """A boto3 client that repeats a failed or throttled call up to ATTEMPTS times.

    Region, credentials and endpoints come from boto3's variables and profiles. The region may also be in AWS_REGION, which the
    lake's bucket uses and boto3 does not read. `region`: another one.
    A connection is tried for `connect_seconds`, and an answer may be silent for `answer_seconds`.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=connect_seconds,
        read_timeout=answer_seconds,
    )
    # A session of its own: making clients of boto3's default session is not safe in threads.
    return boto3.session.Session(region_name=region or os.environ.get("AWS_REGION") or None).client(
        service, config=config
    )


@contextmanager
def named_errors(
    what: str, service: str, stays: str, kind: Callable[[str], Exception], of_answer: Callable[[Any, str], Exception]
) -> Iterator[None]:
    """Errors of boto3 as errors of the caller, which name `what` was worked on and say what to do.

    - service: its name in messages
    - stays: what a call that failed leaves as it is
    - kind: makes the error of a service that does not answer or cannot be called
    - of_answer: makes the error of a refusal, of boto3's error and `what`
    """
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except ClientError as error:
        raise of_answer(error, what) from error
    except (ConnectionError, HTTPClientError) as error:
        raise kind(f"{what}: {service} does not answer: {error}; run again: {stays} stays") from error
    except BotoCoreError as error:
        raise kind(
            f"{what}: {service} cannot be called: {error}; set AWS_REGION, and credentials by AWS_PROFILE, variables or a role"
        ) from error


def missing_right(message: str) -> str | None:
    """`ACTION on RESOURCE` of a message of AWS that a right is missing; None if the message names no action."""
    found = ACTION.search(message)
    if found is None:
        return None
    resource = (found[2] or "").rstrip(".,;)")
    return f"{found[1]} on {resource}" if resource else found[1]


def code_of(error: Exception) -> str:
    """The error code of AWS; empty for an error that is not an answer of a service."""
    answer = getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def message_of(error: Exception) -> str:
    """The message of the service, without boto3's words around it; of another error its text."""
    answer = getattr(error, "response", None)
    said = answer.get("Error", {}).get("Message") if isinstance(answer, dict) else None
    return str(said or error)
