"""What must hold for every deployment, and which linters do not see. Each assertion yields the faults that it finds.

Here: assertions about policies, the bucket's policy and the lifecycle of objects. Not here: how faults are shown (check.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stock_lakehouse.deployment.policies import LIMIT, LONGEST, Document, Statement, filled, size
from stock_lakehouse.deployment.rights import LAKE, LAKE_KEYS, Role
from stock_lakehouse.tables import LAYOUTS, STREAM_TABLES, TABLES, laid_out

CONTEXT = {"kms:ViaService": "s3.${AWS::Region}.amazonaws.com", "kms:EncryptionContext:aws:s3:arn": LAKE}


@dataclass(frozen=True)
class Deployment:
    """What is deployed, in CloudFormation's notation.

    - roles: by name; policies: of each role by part
    - bucket: the policy of the lake's bucket
    - template: None if it is not looked at
    """

    roles: Mapping[str, Role]
    policies: Mapping[str, Mapping[str, Document]]
    bucket: Document
    template: Mapping[str, Any] | None = field(default=None)

    def statements(self) -> Iterator[tuple[Role, str, Statement]]:
        """Each statement of the roles' policies, with its role, and a name for people."""
        for role, parts in self.policies.items():
            for part, document in parts.items():
                for statement in document["Statement"]:
                    yield self.roles[role], f"{role}-{part}, {statement['Sid']}", statement


def sizes(deployment: Deployment) -> Iterator[str]:
    """IAM takes no longer policy, and counts the names that the parameters become."""
    for role, parts in deployment.policies.items():
        for part, document in parts.items():
            if (characters := size(filled(document, LONGEST))) > LIMIT:
                yield f"{role}-{part}: {characters:,} characters with the longest names, of {LIMIT:,}; divide what it says"


def stars(deployment: Deployment) -> Iterator[str]:
    """No role has an action or a resource `*`, but for actions on `*` whose right gives a reason."""
    for role, name, statement in deployment.statements():
        reasoned = {action for right in role.services if right.reason for action in right.actions}
        for action in statement["Action"]:
            if "*" in action:
                yield f"{name}: the action {action} is several; name each"
            if "*" in statement["Resource"] and action not in reasoned:
                yield f"{name}: {action} on every resource, and no right gives a reason; name the resource, or give the reason"
        for resource in statement["Resource"]:
            if resource != "*" and resource.count(":") >= 5 and resource.split(":", 5)[5] in ("*", "/*"):
                yield f"{name}: {resource} is every resource of a service; name it"
            if resource in (f"{LAKE}/*", LAKE_KEYS + "*") or (resource.startswith("arn:") and ":s3:::*" in resource):
                yield f"{name}: {resource} is the whole lake; name the folders"


def gets_with_lists(deployment: Deployment) -> Iterator[str]:
    """Who may read a key may list it: S3 answers 403, and not 404, for a missing key to anybody else."""
    for role, parts in deployment.policies.items():
        statements = [statement for document in parts.values() for statement in document["Statement"]]
        listed = {
            prefix
            for statement in statements
            if "s3:ListBucket" in statement["Action"] and statement["Resource"] == [LAKE]
            for prefix in statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", ())
        }
        for statement in statements:
            for resource in statement["Resource"] if "s3:GetObject" in statement["Action"] else ():
                if resource.removeprefix(f"{LAKE}/") not in listed:
                    yield f"{role}, {statement['Sid']}: {resource} may be read and not listed; add its s3:prefix to the listing"


def listings_with_prefixes(deployment: Deployment) -> Iterator[str]:
    """Nobody lists the whole bucket, or the lake's root."""
    for _, name, statement in deployment.statements():
        if "s3:ListBucket" in statement["Action"]:
            prefixes = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", ())
            wide = [
                prefix
                for prefix in prefixes
                if prefix in ("*", "", "${Prefix}*", "${Prefix}/*", "${Prefix}/", "${Prefix}")
            ]
            if not prefixes or wide:
                yield f"{name}: lists {', '.join(wide) or 'the whole bucket'}; give the folders in the condition s3:prefix"


def keys_by_context(deployment: Deployment) -> Iterator[str]:
    """The key is used for the lake's bucket alone, and by S3 alone."""
    for _, name, statement in deployment.statements():
        if any(action.startswith("kms:") for action in statement["Action"]):
            if statement["Resource"] != ["${Key.Arn}"]:
                yield f"{name}: another key than the lake's; name ${{Key.Arn}} alone"
            if statement.get("Condition") != {"StringEquals": CONTEXT}:
                yield f"{name}: the key is usable beside the lake's bucket; demand {json.dumps(CONTEXT)}"


def tls_alone(deployment: Deployment) -> Iterator[str]:
    """The bucket and its objects refuse what comes without TLS."""
    wanted = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    if not any(
        _is(statement, wanted) and set(statement["Resource"]) == {LAKE, f"{LAKE}/*"}
        for statement in _bucket(deployment)
    ):
        yield "the bucket's policy lets in what comes without TLS; deny s3:* on both where aws:SecureTransport is false"


def landed_files_are_new(deployment: Deployment) -> Iterator[str]:
    """A landed file is never replaced, whoever writes; other places of the lake are written without a condition."""
    wanted = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Condition": {"Null": {"s3:if-none-match": "true"}},
    }
    landed = {f"{LAKE_KEYS}{table.path}/*" for table in TABLES if table.format == "csv"}
    found = [set(statement["Resource"]) for statement in _bucket(deployment) if _is(statement, wanted)]
    if landed not in found:
        yield f"the bucket's policy lets landed files be replaced; deny plain s3:PutObject on {', '.join(landed)}"
    if any(resources != landed for resources in found):
        yield "the bucket's policy refuses plain writes outside of landed files, which engines make; deny them there alone"


def current_objects_stay(deployment: Deployment) -> Iterator[str]:
    """No rule of the bucket's lifecycle removes a table's objects: its log names files of any age, and raw is the truth."""
    if deployment.template is None:
        return
    tables = {f"{laid_out(table, layout).path}/" for table in (*TABLES, *STREAM_TABLES) for layout in LAYOUTS}
    for rule in deployment.template["Resources"]["Lake"]["Properties"]["LifecycleConfiguration"]["Rules"]:
        if (
            not rule.keys() & {"ExpirationInDays", "ExpirationDate", "Transitions", "Transition"}
            or rule["Status"] != "Enabled"
        ):
            continue
        prefix = rule.get("Prefix", "")
        text = (
            str(prefix.get("Fn::Sub", "") if isinstance(prefix, Mapping) else prefix)
            .removeprefix("${Prefix}")
            .lstrip("/")
        )
        if any(path.startswith(text) or text.startswith(path) for path in tables):
            what = f"rule {rule['Id']} of the lifecycle expires or moves current objects below {text or 'the whole bucket'}"
            yield f"{what}, where tables are; let it expire noncurrent versions alone"


ASSERTIONS: Mapping[str, Callable[[Deployment], Iterator[str]]] = {
    "sizes": sizes,
    "stars": stars,
    "reads": gets_with_lists,
    "listings": listings_with_prefixes,
    "key": keys_by_context,
    "TLS": tls_alone,
    "landed files": landed_files_are_new,
    "lifecycle": current_objects_stay,
}


def _bucket(deployment: Deployment) -> Sequence[Statement]:
    statements: Sequence[Statement] = deployment.bucket["Statement"]
    return statements


def _is(statement: Statement, wanted: Mapping[str, Any]) -> bool:
    """Whether `statement` says what `wanted` does, whatever its resources."""
    return {name: value for name, value in statement.items() if name not in ("Sid", "Resource")} == wanted
