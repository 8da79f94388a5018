"""IAM policies of the roles of rights.py, and the bucket's own policy.

Here: the statements, and the limit of their size. Not here: what a role may do (rights.py), and the template (template.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stock_lakehouse.deployment.places import Places, is_folder, outermost
from stock_lakehouse.deployment.rights import LAKE, LAKE_KEYS, Role
from stock_lakehouse.tables import TABLES

LIMIT = 6144  # characters of a managed policy, without white space, with the names filled in
# Actions that are allowed though no recorded run asks for them, and why.
UNASKED = {
    "s3:AbortMultipartUpload": "an upload of a large file that fails leaves parts, which are paid for until they are removed"
}
Document = dict[str, Any]
Statement = dict[str, Any]
REFERENCE = re.compile(r"\$\{([A-Za-z:]+)(\.Arn)?\}")


@dataclass(frozen=True)
class Names:
    """What stands in a policy for the names of a deployment. The defaults are those of the CloudFormation template.

    - key: ARN of the KMS key of the lake's bucket
    - prefix: of the lake in its bucket; empty for a lake at the bucket's root
    """

    partition: str = "${AWS::Partition}"
    region: str = "${AWS::Region}"
    account: str = "${AWS::AccountId}"
    bucket: str = "${Lake}"
    prefix: str = "${Prefix}"
    key: str = "${Key.Arn}"

    def filled(self, text: str) -> str:
        """`text`, in CloudFormation's notation, with these names; `${RunRole.Arn}` is the ARN of the account's role RunRole."""
        known = {
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "AWS::AccountId": self.account,
            "Lake": self.bucket,
            "Prefix": self.prefix,
        }

        def name(found: re.Match[str]) -> str:
            if self.account.startswith("$"):
                return found[0]
            if found[1] == "Key":
                return self.key
            if found[2]:
                return f"arn:{self.partition}:iam::{self.account}:role/{found[1]}"
            return known.get(found[1], found[1].replace("AWS::", ""))

        return REFERENCE.sub(name, text)


# The longest names that the template accepts.
LONGEST = Names(
    "aws-us-gov",
    "ap-southeast-1",
    "9" * 12,
    "b" * 63,
    "p" * 48,
    f"arn:aws-us-gov:kms:ap-southeast-1:{'9' * 12}:key/{'0' * 36}",
)


def document(statements: Iterable[Statement]) -> Document:
    """A policy of `statements`."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def policies_of(role: Role, names: Names = Names()) -> dict[str, Document]:
    """The managed policies of `role` by part: `list`, `read`, `write` and `services`, those that it needs.

    A part that is longer than LIMIT with the LONGEST names continues in `read-2` and so on.
    """
    parts = {
        "list": _listing(role.places),
        "read": _keys("Read", ("s3:GetObject",), role.places.read | role.places.create, with_root=True),
        "write": [
            *_keys("Write", ("s3:PutObject", "s3:AbortMultipartUpload"), role.places.write | role.places.create),
            *_keys("Delete", ("s3:DeleteObject",), role.places.delete),
        ],
        "services": [_allow(right.sid, right.actions, right.resources, right.conditions) for right in role.services],
    }
    found: dict[str, Document] = {}
    for part, statements in parts.items():
        for number, some in enumerate(_fitting(statements), 1):
            found[part if number == 1 else f"{part}-{number}"] = document(filled(some, names))
    return found


def bucket_policy(names: Names = Names()) -> Document:
    """The policy of the lake's bucket: no access without TLS, and landed files are never replaced, whoever writes."""
    tls_only = {
        "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [LAKE, f"{LAKE}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }  # fmt: skip
    return document(filled([tls_only, append_only()], names))


def append_only() -> Statement:
    """The statement of the bucket's policy by which a landed file is never replaced."""
    # A write without If-None-Match is refused; with it, S3 itself refuses to replace an object.
    return {
        "Sid": "LandedFilesAreNew", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
        "Resource": [f"{LAKE_KEYS}{table.path}/*" for table in TABLES if table.format == "csv"],
        "Condition": {"Null": {"s3:if-none-match": "true"}},
    }  # fmt: skip


def _allow(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
) -> Statement:
    found = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return {**found, "Condition": conditions} if conditions else found


def _listing(places: Places) -> list[Statement]:
    """The right to list every place, and to use the key of the bucket."""
    touched = places.read | places.write | places.create | places.delete
    if not touched:
        return []
    prefixes = [f"${{Prefix}}/{key}" for key in _patterns(touched, with_root=True)]
    key_actions = ("kms:Decrypt", *(("kms:GenerateDataKey",) if places.write | places.create else ()))
    # With a bucket key, the encryption context is the bucket's ARN, not the object's.
    by_bucket = {
        "StringEquals": {"kms:ViaService": "s3.${AWS::Region}.amazonaws.com", "kms:EncryptionContext:aws:s3:arn": LAKE}
    }
    return [
        _allow("List", ("s3:ListBucket",), (LAKE,), {"StringLike": {"s3:prefix": prefixes}}),
        _allow("Key", key_actions, ("${Key.Arn}",), by_bucket),
    ]


def _keys(sid: str, actions: Sequence[str], places: Iterable[str], with_root: bool = False) -> list[Statement]:
    resources = [f"{LAKE_KEYS}{key}" for key in _patterns(places, with_root)]
    return [_allow(sid, actions, resources)] if resources else []


def _patterns(places: Iterable[str], with_root: bool = False) -> Iterator[str]:
    """The patterns of the keys of `places`. `with_root`: engines ask for a folder's name without a slash, too."""
    for place in outermost(places):
        if is_folder(place):
            yield from (place, f"{place}/*") if with_root else (f"{place}/*",)
        else:
            yield place


def filled(value: Any, names: Names) -> Any:
    if isinstance(value, str):
        return names.filled(value if names.prefix else value.replace("${Prefix}/", ""))
    if isinstance(value, Mapping):
        return {key: filled(inner, names) for key, inner in value.items()}
    return [filled(inner, names) for inner in value] if isinstance(value, Sequence) else value


def size(policy: Document) -> int:
    """The characters that IAM counts: without white space."""
    return len(json.dumps(policy, separators=(",", ":")))


def _fitting(statements: Sequence[Statement]) -> Iterator[list[Statement]]:
    """`statements` in groups that each fit into a policy with the longest names; a statement that does not is divided."""
    group: list[Statement] = []
    for statement in (part for whole in statements for part in _divided(whole)):
        if group and _longest([*group, statement]) > LIMIT:
            yield group
            group = []
        group.append(statement)
    if group:
        yield group


def _divided(statement: Statement) -> Iterator[Statement]:
    """`statement`, or as few as fit with a part of its resources each: `Read`, `ReadMore` and so on."""
    resources: list[str] = statement["Resource"]
    for count in range(1, len(resources) + 1):
        size_of_part = -(-len(resources) // count)
        parts = [resources[start : start + size_of_part] for start in range(0, len(resources), size_of_part)]
        found = [
            {**statement, "Sid": statement["Sid"] + "More" * number, "Resource": part}
            for number, part in enumerate(parts)
        ]
        if all(_longest([part]) <= LIMIT for part in found) or count == len(resources):
            yield from found
            return


def _longest(statements: Sequence[Statement]) -> int:
    return size(document(filled(statements, LONGEST)))
