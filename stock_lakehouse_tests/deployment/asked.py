"""Which rights a request to AWS needs, and which statements of a role's policies give them.

Here: from an HTTP request to IAM's actions, resources and condition keys, as AWS's service authorization reference has them, and
the decision of IAM on them. Not here: the rights of a role, which are the product's, and servers (gate.py).
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from stock_lakehouse_tests.quicksight_server import operation_of

Policies = Mapping[str, Mapping[str, Any]]  # documents by name
SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")
KEYS_TO_DELETE = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
# Actions of which AWS knows no resource, so a policy can only give them on "*".
WITHOUT_RESOURCE = {
    "glue:GetCrawlerMetrics", "glue:CreateCrawler", "quicksight:CreateDataSource", "quicksight:ListIngestions",
    "quicksight:DescribeAccountSubscription",
}  # fmt: skip


@dataclass(frozen=True)
class Account:
    """Where requests go: what ARNs begin with, and the key that encrypts the objects of `bucket`."""

    bucket: str
    number: str = "123456789012"
    region: str = "us-east-1"
    partition: str = "aws"
    key: str | None = None
    workgroup_id: str = "RedshiftWorkgroupId"  # the name of the template's parameter

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.number}:{resource}"

    def object(self, bucket: str, key: str) -> str:
        return f"arn:{self.partition}:s3:::{bucket}/{key}"


@dataclass(frozen=True)
class Asked:
    """A right that a request needs: an action on a resource, and the condition keys that the request has."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        prefix = dict(self.context).get("s3:prefix")
        return f"{self.action} on {self.resource}" + ("" if prefix is None else f" with prefix {prefix!r}")


@dataclass(frozen=True)
class Request:
    """An HTTP request to AWS."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def service(self) -> str:
        """The service that the request is signed for."""
        found = SCOPE.search(self.headers.get("authorization", ""))
        assert found, f"{self.method} {self.path} is not signed"
        return found[1]

    @property
    def operation(self) -> str:
        """The operation of a service that names it in a header."""
        return self.headers.get("x-amz-target", "").rpartition(".")[2]

    @property
    def members(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body or b"{}")
        return found


def of_s3(request: Request, account: Account) -> list[Asked]:
    """The rights of a request to S3, path-style."""
    bucket, _, key = urllib.parse.unquote(request.path).lstrip("/").partition("/")
    query, method = request.query, request.method
    secure = (("aws:SecureTransport", "true"),)
    if method == "POST" and "delete" in query:
        keys = [_xml(key) for key in KEYS_TO_DELETE.findall(request.body)]
        return [Asked("s3:DeleteObject", account.object(bucket, key), secure) for key in keys]
    if not key:
        return [_of_bucket(request, account, bucket)]
    where = account.object(bucket, key)
    beside = {"acl": "Acl", "tagging": "Tagging", "versionId": "Version", "retention": "Retention"}
    if of_what := next((suffix for name, suffix in beside.items() if name in query), None):
        verb = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Delete"}[method]
        return [Asked(f"s3:{verb}Object{of_what}", where, secure)]
    if method == "DELETE":
        return [Asked("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", where, secure)]
    via = (
        ("kms:ViaService", f"s3.{account.region}.amazonaws.com"),
        ("kms:EncryptionContext:aws:s3:arn", f"arn:{account.partition}:s3:::{bucket}"),
    )
    is_ours = account.key is not None and bucket == account.bucket
    if method in ("PUT", "POST"):
        conditions = [
            (f"s3:{name}", value) for name in ("if-none-match", "if-match") if (value := request.headers.get(name))
        ]
        asked = [Asked("s3:PutObject", where, (*secure, *conditions))]
        asked += [Asked("kms:GenerateDataKey", str(account.key), via)] if is_ours else []
        # The parts of an upload are decrypted when they are joined.
        asked += (
            [Asked("kms:Decrypt", str(account.key), via)] if is_ours and query.keys() & {"uploadId", "uploads"} else []
        )
        if source := request.headers.get("x-amz-copy-source"):
            asked.append(
                Asked("s3:GetObject", account.object(*urllib.parse.unquote(source).lstrip("/").split("/", 1)), secure)
            )
        return asked
    action = "s3:ListMultipartUploadParts" if "uploadId" in query else "s3:GetObject"
    decrypts = [Asked("kms:Decrypt", str(account.key), via)] if is_ours and method == "GET" else []
    return [Asked(action, where, secure), *decrypts]


def listing_of(request: Request, account: Account) -> Asked:
    """The right by which S3 says that the object of `request` is not there, and not that it may not be seen."""
    bucket, _, key = urllib.parse.unquote(request.path).lstrip("/").partition("/")
    context = (("aws:SecureTransport", "true"), ("s3:prefix", key))
    return Asked("s3:ListBucket", f"arn:{account.partition}:s3:::{bucket}", context)


def _of_bucket(request: Request, account: Account, bucket: str) -> Asked:
    where, query = f"arn:{account.partition}:s3:::{bucket}", request.query
    named = {"location": "GetBucketLocation", "uploads": "ListBucketMultipartUploads", "versions": "ListBucketVersions"}
    if action := next((action for name, action in named.items() if name in query), None):
        return Asked(f"s3:{action}", where, (("aws:SecureTransport", "true"),))
    if request.method in ("GET", "HEAD"):
        context = [(f"s3:{name}", query[name]) for name in ("prefix", "delimiter") if name in query]
        return Asked("s3:ListBucket", where, (("aws:SecureTransport", "true"), *context))
    # What nobody is given, so the exact name does not matter.
    return Asked(f"s3:{request.method}Bucket{next(iter(query), '')}", where, (("aws:SecureTransport", "true"),))


def _xml(key: bytes) -> str:
    from xml.sax.saxutils import unescape

    return unescape(key.decode(), {"&quot;": '"', "&apos;": "'"})


def of_glue(request: Request, account: Account) -> list[Asked]:
    operation, members = request.operation, request.members
    action = f"glue:{operation}"
    if "Crawler" in operation:
        name = members.get("Name") or ",".join(members.get("CrawlerNameList", ()))
        where = "*" if action in WITHOUT_RESOURCE else account.arn("glue", f"crawler/{name}")
        passed = [
            Asked("iam:PassRole", role_arn(members["Role"], account), (("iam:PassedToService", "glue.amazonaws.com"),))
        ]
        return [Asked(action, where), *(passed if "Role" in members else [])]
    database = members.get("DatabaseName") or members.get("Name") or members.get("DatabaseInput", {}).get("Name")
    places = ["catalog", f"database/{database}"]
    if "Database" not in operation:
        table = members.get("TableName") or members.get("Name") or members.get("TableInput", {}).get("Name") or "*"
        places.append(f"table/{database}/{table}")
    return [Asked(action, account.arn("glue", place)) for place in places]


def role_arn(role: str, account: Account) -> str:
    return role if role.startswith("arn:") else f"arn:{account.partition}:iam::{account.number}:role/{role}"


@dataclass
class Known:
    """What an earlier request said of a later one: the workgroup of a query of Athena, the stream of an iterator."""

    workgroup: str = "primary"
    stream: str = ""
    warehouse: str = ""


def of_athena(request: Request, account: Account, known: Known) -> list[Asked]:
    members = request.members
    given = members.get("WorkGroup") or (members.get("Name") if "WorkGroup" in request.operation else None)
    known.workgroup = given or known.workgroup
    return [Asked(f"athena:{request.operation}", account.arn("athena", f"workgroup/{known.workgroup}"))]


def of_redshift_data(request: Request, account: Account, known: Known) -> list[Asked]:
    """The Data API itself, and the login that it makes with the caller's rights."""
    members, action = request.members, f"redshift-data:{request.operation}"
    if request.operation not in ("ExecuteStatement", "BatchExecuteStatement"):
        return [Asked(action, "*", (("redshift-data:statement-owner-iam-userid", "${aws:userid}"),))]
    if "WorkgroupName" in members:
        # A workgroup's ARN ends in its identifier, which is not its name.
        known.warehouse = account.arn("redshift-serverless", f"workgroup/{account.workgroup_id}")
    elif "ClusterIdentifier" in members:
        known.warehouse = account.arn("redshift", f"cluster:{members['ClusterIdentifier']}")
    asked = [Asked(action, known.warehouse)]
    if "WorkgroupName" in members:
        asked.append(Asked("redshift-serverless:GetCredentials", known.warehouse))
    elif "ClusterIdentifier" in members:
        database, user = members["Database"], members.get("DbUser")
        name = "GetClusterCredentials" if user else "GetClusterCredentialsWithIAM"
        place = (
            f"dbuser:{members['ClusterIdentifier']}/{user}"
            if user
            else f"dbname:{members['ClusterIdentifier']}/{database}"
        )
        asked.append(Asked(f"redshift:{name}", account.arn("redshift", place)))
    return asked


def of_quicksight(request: Request, account: Account) -> list[Asked]:
    """An operation on what its path names, and the rights that it needs on what its body names."""
    operation, path = operation_of(request.method, request.path.partition("?")[0])
    members = request.members if request.body else {}
    action = f"quicksight:{operation}"
    if arn := path.get("ResourceArn"):
        return [Asked(action, arn)]
    kinds = {"DataSourceId": "datasource", "DataSetId": "dataset", "DashboardId": "dashboard"}
    named = {**path, **{name: members[name] for name in kinds if name in members}}
    where = next((f"{kind}/{named[name]}" for name, kind in kinds.items() if name in named), None)
    if where is None:
        who = {"UserName": "user", "GroupName": "group"}
        where = next((f"{kind}/{path['Namespace']}/{path[name]}" for name, kind in who.items() if name in path), None)
    elif "IngestionId" in path:
        where += f"/ingestion/{path['IngestionId']}"
    elif "Ingestion" in operation:
        where += "/ingestion/*"
    elif "RefreshSchedule" in operation:
        schedule = path.get("ScheduleId") or members.get("Schedule", {}).get("ScheduleId") or "*"
        where += f"/refresh-schedule/{schedule}"
    text = request.body.decode() if request.method in ("POST", "PUT") else ""
    sources = sorted(set(re.findall(r"arn:[\w-]+:quicksight:[\w-]+:\d+:datasource/[\w.-]+", text)))
    if operation == "CreateDataSet":
        asked = [Asked(action, arn) for arn in sources]  # its only resources: the data set is not there yet
    else:
        is_any = where is None or action in WITHOUT_RESOURCE
        asked = [Asked(action, "*" if is_any else account.arn("quicksight", where or ""))]
        asked += [Asked(action, arn) for arn in sources if operation == "UpdateDataSet"]
    passed = {"datasource": "PassDataSource", "dataset": "PassDataSet"}
    if operation in ("CreateDataSet", "UpdateDataSet", "CreateDashboard", "UpdateDashboard"):
        for kind, right in passed.items():
            pattern = rf"arn:[\w-]+:quicksight:[\w-]+:\d+:{kind}/[\w.-]+"
            asked += [Asked(f"quicksight:{right}", arn) for arn in sorted(set(re.findall(pattern, text)))]
    for role in sorted(set(re.findall(r'"RoleArn": ?"(arn:[^"]+)"', text))):
        asked.append(Asked("iam:PassRole", role, (("iam:PassedToService", "quicksight.amazonaws.com"),)))
    return asked


def of_kinesis(request: Request, account: Account, known: Known) -> list[Asked]:
    members = request.members
    known.stream = members.get("StreamName") or str(members.get("StreamARN", "")).rpartition("/")[2] or known.stream
    return [Asked(f"kinesis:{request.operation}", account.arn("kinesis", f"stream/{known.stream}"))]


def of_redshift_serverless(request: Request, account: Account, known: Known) -> list[Asked]:
    where = account.arn("redshift-serverless", f"workgroup/{account.workgroup_id}")
    return [Asked(f"redshift-serverless:{request.operation}", where)]


SERVICES = {
    "s3": lambda request, account, known: of_s3(request, account),
    "glue": lambda request, account, known: of_glue(request, account),
    "quicksight": lambda request, account, known: of_quicksight(request, account),
    "athena": of_athena,
    "redshift-data": of_redshift_data,
    "redshift-serverless": of_redshift_serverless,
    "kinesis": of_kinesis,
    "sts": lambda request, account, known: [],  # who am I: everybody may ask
}


def asked_of(request: Request, account: Account, known: Known) -> list[Asked]:
    """The rights that `request` needs, all of them. Raises KeyError for a service that the product does not use."""
    return SERVICES[request.service](request, account, known)


# The decision


@dataclass(frozen=True)
class Grant:
    """The smallest part of a statement: an action on a resource pattern, of a listing also for a pattern of prefixes."""

    policy: str
    sid: str
    action: str
    resource: str
    prefix: str | None = None

    @property
    def place(self) -> str:
        """The pattern without what a folder and the keys below it differ in."""
        return (self.resource if self.prefix is None else self.prefix).removesuffix("/*")


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def grants(policies: Policies) -> Iterator[tuple[Grant, Mapping[str, Any]]]:
    """Every grant of the policies, with its statement."""
    for name, document in policies.items():
        for statement in document["Statement"]:
            if statement["Effect"] != "Allow":
                continue
            prefixes: Sequence[str | None] = [None]
            for operator, keys in statement.get("Condition", {}).items():
                if "s3:prefix" in keys and operator in ("StringLike", "StringEquals"):
                    prefixes = _listed(keys["s3:prefix"])
            for action in _listed(statement["Action"]):
                for resource in _listed(statement["Resource"]):
                    for prefix in prefixes:
                        yield Grant(name, statement.get("Sid", ""), action, resource, prefix), statement


@lru_cache(maxsize=100_000)
def like(pattern: str, text: str) -> bool:
    """IAM's wildcards: * is any text, ? one character."""
    return (
        re.fullmatch("".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern), text, re.DOTALL)
        is not None
    )


def holds(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    """Whether a statement's conditions hold; all of them must. Raises AssertionError for an operator that is not known here."""
    return all(
        _holds(operator, _listed(wanted), context.get(key))
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, wanted: Sequence[str], value: str | None) -> bool:
    if operator == "Null":
        return (value is None) == (wanted[0] == "true")
    if operator.endswith("IfExists"):
        return value is None or _holds(operator.removesuffix("IfExists"), wanted, value)
    negated = {
        "StringNotEquals": "StringEquals",
        "StringNotLike": "StringLike",
        "ArnNotLike": "ArnLike",
        "ArnNotEquals": "ArnLike",
    }
    if operator in negated:
        return not _holds(negated[operator], wanted, value)
    if value is None:
        return False
    if operator in ("StringEquals", "Bool"):
        return value in wanted
    assert operator in ("StringLike", "ArnLike", "ArnEquals"), f"a condition {operator}"
    return any(like(one, value) for one in wanted)


def _names(statement: Mapping[str, Any], asked: Asked) -> bool:
    if "NotAction" in statement or "NotResource" in statement:
        raise AssertionError("a statement by what it does not name")
    return (
        any(like(action.lower(), asked.action.lower()) for action in _listed(statement["Action"]))
        and any(like(resource, asked.resource) for resource in _listed(statement["Resource"]))
        and holds(statement.get("Condition", {}), dict(asked.context))
    )


@dataclass(frozen=True)
class Verdict:
    """What IAM says: the grants that allow it, none if it is refused. `denied`: the statement that denies it."""

    grants: frozenset[Grant] = frozenset()
    denied: str = ""

    def __bool__(self) -> bool:
        return bool(self.grants) and not self.denied


@dataclass
class Judge:
    """IAM for one set of policies: the role's own, and those of the bucket, whose statements here only deny."""

    policies: Policies
    bucket_policies: Policies = field(default_factory=dict)
    _known: dict[Asked, Verdict] = field(default_factory=dict)

    def verdict(self, asked: Asked) -> Verdict:
        if asked not in self._known:
            self._known[asked] = self._decide(asked)
        return self._known[asked]

    def _decide(self, asked: Asked) -> Verdict:
        for document in (*self.policies.values(), *self.bucket_policies.values()):
            for statement in document["Statement"]:
                if statement["Effect"] == "Deny" and _names(statement, asked):
                    return Verdict(denied=statement.get("Sid", "Deny"))
        context = dict(asked.context)
        found = set()
        for grant, statement in grants(self.policies):
            fits = like(grant.action.lower(), asked.action.lower()) and like(grant.resource, asked.resource)
            is_place = grant.prefix is None or like(grant.prefix, context.get("s3:prefix", ""))
            if fits and is_place and holds(statement.get("Condition", {}), context):
                found.add(grant)
        return Verdict(frozenset(found))
