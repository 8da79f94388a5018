"""A server for tests that speaks QuickSight's API on loopback, and as much of STS and Redshift Serverless as goes with it.

Here: what the API reference says of resources, their states, versions, permissions, ingestions, tags and errors. Each request is
held against botocore's model, what that leaves out (aws_model.py), and, a definition, against the columns of its data sets
(quicksight_names.py). With `rows` an ingestion executes the SQL of its data set, and an incremental one replaces the rows of the
lookback window alone. Not here: product code, and what a test expects.

Not imitated: drawing, analyses, folders, row-level permissions, the rights of who calls.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stock_lakehouse_tests import aws_model, quicksight_names, s3

ACCOUNT, REGION = "123456789012", "us-east-1"
PREFIX = f"arn:aws:quicksight:{REGION}:{ACCOUNT}"
WRITES = ("Create", "Update", "Put", "Tag", "Delete")
IN_FLIGHT = ("INITIALIZED", "QUEUED", "RUNNING")
# Errors of a test that let another refresh, as of somebody's schedule, come in between; the types of that one.
SUPERSEDED = {"INGESTION_SUPERSEDED": "FULL_REFRESH", "SUPERSEDED_BY_LESS": "INCREMENTAL_REFRESH"}
MOST_INGESTIONS = 32  # of a data set in 24 hours

Row = Mapping[str, Any]
# The arguments of the methods of Account that members of requests are; all others are keywords of the API's name.
NAMES = {
    "UserName": "user",
    "GroupName": "group",
    "Namespace": "namespace",
    "ResourceArn": "arn",
    "DataSourceId": "source_id",
    "DataSetId": "set_id",
    "DashboardId": "dashboard_id",
    "IngestionId": "ingestion_id",
    "IngestionType": "kind",
    "ScheduleId": "schedule_id",
    "MaxResults": "most",
    "NextToken": "token",
    "VersionNumber": "number",
    "AliasName": "alias",
    "Schedule": "schedule",
    "DataSetRefreshProperties": "properties",
}


class RefusedError(Exception):
    """An answer that is an error: its code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DeniedError(Exception):
    """The service that has the rows denies them to QuickSight's role, in these words."""


@dataclass
class Faults:
    """What the server does wrong on purpose.

    - throttled, internal, conflicts: so many of the next calls (conflicts: writes) are refused
    - unanswered: the operations of which one call is executed and its answer lost
    - denied: operations for which the credentials lack the right
    - edition: of the account
    - identity_region: the region that has users, groups and the subscription
    - ingestions: the errors with which the next ingestions end, by type; "" for one that ends well
    - dropped: rows that the next ingestion drops
    - version: the error of the next version of the dashboard
    - source: the error of the next change of the data source
    - looks: how often a state is described as in progress
    """

    throttled: int = 0
    internal: int = 0
    conflicts: int = 0
    unanswered: set[str] = field(default_factory=set)
    denied: frozenset[str] = frozenset()
    edition: str = "ENTERPRISE"
    identity_region: str = REGION
    ingestions: list[str] = field(default_factory=list)
    dropped: int = 0
    version: str | None = None
    source: str | None = None
    looks: int = 1


@dataclass
class Resource:
    """A data source, data set or dashboard: what was asked for, and its permissions and tags."""

    arn: str
    request: dict[str, Any]
    permissions: dict[str, set[str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    links: dict[str, set[str]] = field(default_factory=dict)
    status: str = ""
    error: str | None = None
    looks: int = 0
    # of a data set
    ingestions: dict[str, dict[str, Any]] = field(default_factory=dict)
    properties: dict[str, Any] | None = None
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    spice: list[Row] = field(default_factory=list)
    # of a dashboard
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)
    published: int = 1


class Account:
    """The QuickSight of one account.

    - rows: executes the SQL of a data set, or raises DeniedError; None: ingestions read nothing
    - now: the service's clock
    - requests: every call, as (operation, request)
    - findings: what was wrong with a request, of all requests
    """

    def __init__(self, rows: Callable[[str], list[Row]] | None = None) -> None:
        self.rows = rows
        self.faults = Faults()
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.sources: dict[str, Resource] = {}
        self.sets: dict[str, Resource] = {}
        self.dashboards: dict[str, Resource] = {}
        self.users = {"ana", "ben", "cleo"}
        self.groups = {"analysts", "traders"}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.findings: list[str] = []
        self.lock = threading.RLock()
        self._started = 0

    @property
    def calls(self) -> Counter[str]:
        return Counter(operation for operation, _ in self.requests)

    @property
    def writes(self) -> list[str]:
        """The calls that could have changed something, in their order."""
        return [operation for operation, _ in self.requests if operation.startswith(WRITES)]

    def answer(self, operation: str, request: dict[str, Any], region: str) -> dict[str, Any]:
        """The members of the answer. Raises RefusedError."""
        with self.lock:
            self.requests.append((operation, request))
            self._refuse(operation, region)
            if faults := aws_model.faults("quicksight", operation, request):
                self.findings += faults
                raise RefusedError("InvalidParameterValueException", "; ".join(faults))
            if request.get("AwsAccountId", ACCOUNT) != ACCOUNT:
                raise RefusedError("AccessDeniedException", "another account")
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
            members = {NAMES.get(key, key): value for key, value in request.items() if key != "AwsAccountId"}
            given: dict[str, Any] = getattr(self, name)(**members)
            return given

    def _refuse(self, operation: str, region: str) -> None:
        if self.faults.throttled:
            self.faults.throttled -= 1
            raise RefusedError("ThrottlingException", "Rate exceeded")
        if self.faults.internal:
            self.faults.internal -= 1
            raise RefusedError("InternalFailureException", "An internal failure occurred.")
        if operation in self.faults.denied:
            raise RefusedError(
                "AccessDeniedException",
                f"User: arn:aws:iam::{ACCOUNT}:user/runner is not authorized to perform: quicksight:{operation} on resource: "
                f"{PREFIX}:*",
            )
        home = self.faults.identity_region
        if operation in ("DescribeUser", "DescribeGroup", "DescribeAccountSubscription") and region != home:
            raise RefusedError(
                "AccessDeniedException",
                f"Operation is being called from endpoint {region}, but your identity region is {home}. Please use the {home} "
                "endpoint.",
            )
        if self.faults.conflicts and operation.startswith(WRITES):
            self.faults.conflicts -= 1
            raise RefusedError("ConflictException", "Another change is in progress")

    # Account

    def describe_account_subscription(self) -> dict[str, Any]:
        status = "ACCOUNT_CREATED" if self.faults.edition != "none" else "UNSUBSCRIBED"
        info = {"AccountSubscriptionStatus": status}
        return {"AccountInfo": info | ({"Edition": self.faults.edition} if self.faults.edition != "none" else {})}

    def describe_user(self, user: str, namespace: str) -> dict[str, Any]:
        if user not in self.users:
            raise RefusedError("ResourceNotFoundException", f"User {user} is not found")
        return {"User": {"Arn": self.principal("user", user, namespace), "UserName": user, "Role": "READER"}}

    def describe_group(self, group: str, namespace: str) -> dict[str, Any]:
        if group not in self.groups:
            raise RefusedError("ResourceNotFoundException", f"Group {group} is not found")
        return {"Group": {"Arn": self.principal("group", group, namespace), "GroupName": group}}

    def principal(self, kind: str, name: str, namespace: str = "default") -> str:
        return f"arn:aws:quicksight:{self.faults.identity_region}:{ACCOUNT}:{kind}/{namespace}/{name}"

    # Tags and permissions

    def _of_arn(self, arn: str) -> Resource:
        for resources in (self.sources, self.sets, self.dashboards):
            for resource in resources.values():
                if resource.arn == arn:
                    return resource
        raise RefusedError("ResourceNotFoundException", f"{arn} is not found")

    def list_tags_for_resource(self, arn: str) -> dict[str, Any]:
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._of_arn(arn).tags.items()]}

    def tag_resource(self, arn: str, **request: Any) -> dict[str, Any]:
        self._of_arn(arn).tags.update(_tags(request))
        return {}

    def _permissions(self, resource: Resource) -> dict[str, Any]:
        answer = {"Permissions": _entries(resource.permissions)} if resource.permissions else {}
        return answer | (
            {"LinkSharingConfiguration": {"Permissions": _entries(resource.links)}} if resource.links else {}
        )

    def _change(self, resource: Resource, changes: Mapping[str, Any]) -> dict[str, Any]:
        for member, entries in changes.items():
            held = resource.links if "Link" in member else resource.permissions
            for entry in entries:
                self._known(entry["Principal"])
                actions = held.setdefault(entry["Principal"], set())
                if member.startswith("Grant"):
                    actions.update(entry["Actions"])
                else:
                    actions.difference_update(entry["Actions"])
                if not actions:
                    del held[entry["Principal"]]
        return self._permissions(resource)

    def _known(self, principal: str) -> None:
        kind, *_, name = principal.rpartition(":")[2].split("/")
        if kind != "namespace" and name not in self.users | self.groups:
            raise RefusedError("InvalidParameterValueException", f"Principal {principal} does not exist")

    def describe_data_source_permissions(self, source_id: str) -> dict[str, Any]:
        return self._permissions(_found(self.sources, source_id))

    def update_data_source_permissions(self, source_id: str, **changes: Any) -> dict[str, Any]:
        return self._change(_found(self.sources, source_id), changes)

    def describe_data_set_permissions(self, set_id: str) -> dict[str, Any]:
        return self._permissions(_found(self.sets, set_id))

    def update_data_set_permissions(self, set_id: str, **changes: Any) -> dict[str, Any]:
        return self._change(_found(self.sets, set_id), changes)

    def describe_dashboard_permissions(self, dashboard_id: str) -> dict[str, Any]:
        self._enterprise("DescribeDashboardPermissions")
        return self._permissions(_found(self.dashboards, dashboard_id))

    def update_dashboard_permissions(self, dashboard_id: str, **changes: Any) -> dict[str, Any]:
        self._enterprise("UpdateDashboardPermissions")
        return self._change(_found(self.dashboards, dashboard_id), changes)

    # Data sources

    def create_data_source(self, source_id: str, **request: Any) -> dict[str, Any]:
        _free(self.sources, source_id)
        source = Resource(f"{PREFIX}:datasource/{source_id}", request, tags=_tags(request))
        self.sources[source_id] = source
        return self._make_source(source, "CREATION", request)

    def update_data_source(self, source_id: str, **request: Any) -> dict[str, Any]:
        source = _found(self.sources, source_id)
        source.request = {"Type": source.request["Type"], **request}
        return self._make_source(source, "UPDATE", source.request)

    def _make_source(self, source: Resource, change: str, request: Mapping[str, Any]) -> dict[str, Any]:
        [kind] = request["DataSourceParameters"]
        if kind.removesuffix("Parameters").upper() != request["Type"]:
            raise RefusedError("InvalidParameterValueException", f"{kind} for a data source of type {request['Type']}")
        source.status, source.looks = f"{change}_IN_PROGRESS", self.faults.looks
        source.error, self.faults.source = self.faults.source, None
        return {
            "Arn": source.arn,
            "DataSourceId": source.arn.rpartition("/")[2],
            f"{change.title()}Status": source.status,
        }

    def describe_data_source(self, source_id: str) -> dict[str, Any]:
        source = _found(self.sources, source_id)
        if source.status.endswith("IN_PROGRESS") and _looked(source):
            source.status = source.status.replace("IN_PROGRESS", "FAILED" if source.error else "SUCCESSFUL")
        described = {"Arn": source.arn, "DataSourceId": source_id, "Status": source.status}
        if source.status.endswith("FAILED"):
            described["ErrorInfo"] = {"Type": "ACCESS_DENIED", "Message": source.error}
        kept = {
            name: source.request[name]
            for name in ("Name", "Type", "DataSourceParameters", "VpcConnectionProperties")
            if name in source.request
        }
        return {"DataSource": {**described, **kept}}

    # Data sets

    def create_data_set(self, set_id: str, **request: Any) -> dict[str, Any]:
        _free(self.sets, set_id)
        self._check_set(request)
        self.sets[set_id] = Resource(f"{PREFIX}:dataset/{set_id}", request, tags=_tags(request))
        return self._changed_set(set_id, "INITIAL_INGESTION")

    def update_data_set(self, set_id: str, **request: Any) -> dict[str, Any]:
        data_set = _found(self.sets, set_id)
        self._check_set(request)
        data_set.request = request
        return self._changed_set(set_id, "EDIT")

    def _check_set(self, request: Mapping[str, Any]) -> None:
        for table in request["PhysicalTableMap"].values():
            self._of_arn(next(iter(table.values()))["DataSourceArn"])
        for logical in request.get("LogicalTableMap", {}).values():
            if logical["Source"]["PhysicalTableId"] not in request["PhysicalTableMap"]:
                raise RefusedError("InvalidParameterValueException", "no such physical table")
            names = self._column_types(request)
            for transform in logical.get("DataTransforms", []):
                if next(iter(transform.values()))["ColumnName"] not in names:
                    raise RefusedError("InvalidParameterValueException", f"no such column: {transform}")

    @staticmethod
    def _column_types(request: Mapping[str, Any]) -> dict[str, str]:
        [table] = request["PhysicalTableMap"].values()
        return {column["Name"]: column["Type"] for column in table["CustomSql"]["Columns"]}

    def _changed_set(self, name: str, kind: str) -> dict[str, Any]:
        data_set, answer = self.sets[name], {"Arn": self.sets[name].arn, "DataSetId": name}
        if data_set.request["ImportMode"] != "SPICE":
            return answer
        self._started += 1
        identifier = f"automatic-{self._started}"
        self._ingest(data_set, identifier, kind)
        return {**answer, "IngestionId": identifier, "IngestionArn": f"{data_set.arn}/ingestion/{identifier}"}

    def describe_data_set(self, set_id: str) -> dict[str, Any]:
        data_set = _found(self.sets, set_id)
        columns = [{"Name": name, "Type": kind} for name, kind in self._column_types(data_set.request).items()]
        kept = {name: data_set.request[name] for name in ("Name", "PhysicalTableMap", "LogicalTableMap", "ImportMode")}
        return {"DataSet": {"Arn": data_set.arn, "DataSetId": set_id, "OutputColumns": columns, **kept}}

    def put_data_set_refresh_properties(self, set_id: str, properties: dict[str, Any]) -> dict[str, Any]:
        data_set = _found(self.sets, set_id)
        window = properties["RefreshConfiguration"]["IncrementalRefresh"]["LookbackWindow"]
        if self._column_types(data_set.request).get(window["ColumnName"]) != "DATETIME":
            raise RefusedError("InvalidParameterValueException", f"{window['ColumnName']} is no date column")
        if data_set.properties == properties:
            raise RefusedError(
                "InvalidParameterValueException",
                "The configuration provided is same as the existing configuration for the dataset.",
            )
        data_set.properties = properties
        return {}

    def describe_data_set_refresh_properties(self, set_id: str) -> dict[str, Any]:
        data_set = _found(self.sets, set_id)
        if data_set.properties is None:
            raise RefusedError("ResourceNotFoundException", "The data set has no refresh properties")
        return {"DataSetRefreshProperties": data_set.properties}

    def create_refresh_schedule(self, set_id: str, schedule: dict[str, Any]) -> dict[str, Any]:
        schedules = _found(self.sets, set_id).schedules
        if schedule["ScheduleId"] in schedules:
            raise RefusedError("ResourceExistsException", "The schedule exists")
        return self._set_schedule(set_id, schedule)

    def update_refresh_schedule(self, set_id: str, schedule: dict[str, Any]) -> dict[str, Any]:
        _found(_found(self.sets, set_id).schedules, schedule["ScheduleId"])
        return self._set_schedule(set_id, schedule)

    def _set_schedule(self, name: str, schedule: dict[str, Any]) -> dict[str, Any]:
        data_set = self.sets[name]
        if schedule["RefreshType"] == "INCREMENTAL_REFRESH" and data_set.properties is None:
            raise RefusedError("PreconditionNotMetException", "Incremental refresh is not configured")
        data_set.schedules[schedule["ScheduleId"]] = schedule
        return {
            "ScheduleId": schedule["ScheduleId"],
            "Arn": f"{data_set.arn}/refresh-schedule/{schedule['ScheduleId']}",
        }

    def describe_refresh_schedule(self, set_id: str, schedule_id: str) -> dict[str, Any]:
        return {"RefreshSchedule": _found(_found(self.sets, set_id).schedules, schedule_id)}

    # Ingestions

    def create_ingestion(self, set_id: str, ingestion_id: str, kind: str = "FULL_REFRESH") -> dict[str, Any]:
        data_set = _found(self.sets, set_id)
        if ingestion_id in data_set.ingestions:
            raise RefusedError("ResourceExistsException", f"Ingestion {ingestion_id} exists")
        if kind == "INCREMENTAL_REFRESH" and data_set.properties is None:
            raise RefusedError("InvalidParameterValueException", "Incremental refresh is not configured")
        if sum(not name.startswith("automatic") for name in data_set.ingestions) >= MOST_INGESTIONS:
            raise RefusedError("LimitExceededException", f"more than {MOST_INGESTIONS} ingestions in 24 hours")
        return {"Arn": "", **self._ingest(data_set, ingestion_id, kind)}

    def _ingest(self, data_set: Resource, identifier: str, kind: str) -> dict[str, Any]:
        for other in data_set.ingestions.values():
            if other["IngestionStatus"] in IN_FLIGHT:  # it is superseded by the new one
                other["IngestionStatus"] = "CANCELLED"
                other["ErrorInfo"] = {"Type": "INGESTION_SUPERSEDED", "Message": "Superseded by a later ingestion"}
        self._started += 1
        data_set.ingestions[identifier] = {
            "Arn": f"{data_set.arn}/ingestion/{identifier}",
            "IngestionId": identifier,
            "IngestionStatus": "INITIALIZED",
            # Two of one moment are told apart.
            "CreatedTime": self.now().timestamp() + self._started / 1e6,
            "RequestSource": "MANUAL",
            "RequestType": kind,
            "error": self.faults.ingestions.pop(0) if self.faults.ingestions else "",
            "looks": self.faults.looks,
        }
        return {"IngestionId": identifier, "IngestionStatus": "INITIALIZED"}

    def describe_ingestion(self, set_id: str, ingestion_id: str) -> dict[str, Any]:
        data_set = _found(self.sets, set_id)
        ingestion = _found(data_set.ingestions, ingestion_id)
        if ingestion["IngestionStatus"] in IN_FLIGHT:
            if ingestion["looks"] > 0:
                ingestion["looks"] -= 1
                ingestion["IngestionStatus"] = "RUNNING"
            elif ingestion["error"] in SUPERSEDED:
                self._started += 1
                self._ingest(data_set, f"automatic-{self._started}", SUPERSEDED[ingestion["error"]])
            elif ingestion["error"]:
                ingestion["IngestionStatus"] = "FAILED"
                ingestion["ErrorInfo"] = {"Type": ingestion["error"], "Message": "of the test"}
            else:
                self._load(data_set, ingestion)
        return {"Ingestion": {name: value for name, value in ingestion.items() if name not in ("error", "looks")}}

    def _load(self, data_set: Resource, ingestion: dict[str, Any]) -> None:
        ingestion["IngestionStatus"] = "COMPLETED"
        [table] = data_set.request["PhysicalTableMap"].values()
        try:
            read = [] if self.rows is None else self.rows(table["CustomSql"]["SqlQuery"])
        except DeniedError as error:
            ingestion["IngestionStatus"] = "FAILED"
            ingestion["ErrorInfo"] = {"Type": "PERMISSION_DENIED", "Message": str(error)}
            return
        names = list(self._column_types(data_set.request))
        if read and list(read[0]) != names:
            ingestion["IngestionStatus"] = "FAILED"
            ingestion["ErrorInfo"] = {"Type": "SQL_SCHEMA_MISMATCH_ERROR", "Message": f"{list(read[0])}, not {names}"}
            return
        if ingestion["RequestType"] == "INCREMENTAL_REFRESH":
            assert data_set.properties is not None
            window = data_set.properties["RefreshConfiguration"]["IncrementalRefresh"]["LookbackWindow"]
            column, start = window["ColumnName"], (self.now() - timedelta(days=window["Size"])).replace(tzinfo=None)
            read = [row for row in read if row[column] >= start]
            data_set.spice = [row for row in data_set.spice if row[column] < start] + read
        else:
            data_set.spice = read
        dropped, self.faults.dropped = self.faults.dropped, 0
        counts = {
            "RowsIngested": len(read) - dropped,
            "RowsDropped": dropped,
            "TotalRowsInDataset": len(data_set.spice),
        }
        ingestion["RowInfo"] = counts

    def list_ingestions(self, set_id: str, most: int = 100, token: str = "0") -> dict[str, Any]:
        found = [
            {name: value for name, value in each.items() if name not in ("error", "looks")}
            for each in reversed(_found(self.sets, set_id).ingestions.values())
        ]
        start, end = int(token), int(token) + most
        return {"Ingestions": found[start:end]} | ({"NextToken": str(end)} if end < len(found) else {})

    # Dashboards

    def _enterprise(self, operation: str) -> None:
        if self.faults.edition == "STANDARD":
            raise RefusedError("UnsupportedUserEditionException", f"{operation} is not supported in this edition")

    def create_dashboard(self, dashboard_id: str, **request: Any) -> dict[str, Any]:
        self._enterprise("CreateDashboard")
        _free(self.dashboards, dashboard_id)
        self.dashboards[dashboard_id] = Resource(f"{PREFIX}:dashboard/{dashboard_id}", request, tags=_tags(request))
        return self._add_version(dashboard_id, request) | {"CreationStatus": "CREATION_IN_PROGRESS"}

    def update_dashboard(self, dashboard_id: str, **request: Any) -> dict[str, Any]:
        self._enterprise("UpdateDashboard")
        dashboard = _found(self.dashboards, dashboard_id)
        if any(version["Status"] == "CREATION_IN_PROGRESS" for version in dashboard.versions.values()):
            raise RefusedError("ConflictException", "A version is being created")
        return self._add_version(dashboard_id, request) | {"CreationStatus": "CREATION_IN_PROGRESS"}

    def _add_version(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        dashboard, number = self.dashboards[name], len(self.dashboards[name].versions) + 1
        dashboard.versions[number] = {
            "VersionNumber": number,
            "Arn": f"{dashboard.arn}/version/{number}",
            "Status": "CREATION_IN_PROGRESS",
            "Description": request["VersionDescription"],
            "definition": request["Definition"],
            "errors": self._errors(request["Definition"]),
            "looks": self.faults.looks,
        }
        return {"Arn": dashboard.arn, "VersionArn": dashboard.versions[number]["Arn"], "DashboardId": name}

    def _errors(self, definition: Mapping[str, Any]) -> list[dict[str, Any]]:
        error, self.faults.version = self.faults.version, None
        errors = (
            []
            if error is None
            else [{"Type": "INTERNAL_FAILURE", "Message": error, "ViolatedEntities": [{"Path": "sheet/ticker"}]}]
        )
        columns: dict[str, dict[str, str]] = {}
        for declared in definition["DataSetIdentifierDeclarations"]:
            data_set = next((each for each in self.sets.values() if each.arn == declared["DataSetArn"]), None)
            if data_set is None:
                errors.append({"Type": "DATA_SET_NOT_FOUND", "Message": declared["DataSetArn"]})
            else:
                columns[declared["Identifier"]] = self._column_types(data_set.request)
        if not errors:
            faults = quicksight_names.unknown(definition, columns)
            self.findings += faults
            errors += [{"Type": "PARAMETER_VALUE_INCOMPATIBLE", "Message": fault} for fault in faults]
        return errors

    def describe_dashboard(
        self, dashboard_id: str, number: int | None = None, alias: str = "$PUBLISHED"
    ) -> dict[str, Any]:
        self._enterprise("DescribeDashboard")
        dashboard = _found(self.dashboards, dashboard_id)
        number = number or (max(dashboard.versions) if alias == "$LATEST" else dashboard.published)
        version = _found(dashboard.versions, number)
        if version["Status"] == "CREATION_IN_PROGRESS":
            version["looks"] -= 1
            if version["looks"] < 0:
                version["Status"] = "CREATION_FAILED" if version["errors"] else "CREATION_SUCCESSFUL"
        described = {name: value for name, value in version.items() if name not in ("definition", "errors", "looks")}
        if version["Status"] == "CREATION_FAILED":
            described["Errors"] = version["errors"]
        return {"Dashboard": {"DashboardId": dashboard_id, "Arn": dashboard.arn, "Version": described}}

    def update_dashboard_published_version(self, dashboard_id: str, number: int) -> dict[str, Any]:
        self._enterprise("UpdateDashboardPublishedVersion")
        dashboard = _found(self.dashboards, dashboard_id)
        version = _found(dashboard.versions, number)
        if version["Status"] == "CREATION_IN_PROGRESS":
            raise RefusedError("ConflictException", "The version is being created")
        if version["Status"] == "CREATION_FAILED":
            raise RefusedError("InvalidParameterValueException", "The version could not be created")
        dashboard.published = number
        return {"DashboardId": dashboard_id, "DashboardArn": dashboard.arn}


def _found(resources: Mapping[Any, Any], name: Any) -> Any:
    if name not in resources:
        raise RefusedError("ResourceNotFoundException", f"{name} is not found")
    return resources[name]


def _free(resources: Mapping[str, Resource], name: str) -> None:
    if name in resources:
        raise RefusedError("ResourceExistsException", f"{name} exists")


def _looked(resource: Resource) -> bool:
    resource.looks -= 1
    return resource.looks < 0


def _tags(request: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request.pop("Tags", [])}


def _entries(permissions: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    return [{"Principal": principal, "Actions": sorted(actions)} for principal, actions in permissions.items()]


# The wire

MODEL = botocore.session.get_session().get_service_model("quicksight")
ROUTES = [
    (
        MODEL.operation_model(name).http["method"],
        MODEL.operation_model(name).http["requestUri"].strip("/").split("/"),
        name,
    )
    for name in MODEL.operation_names
]


def operation_of(method: str, raw_path: str) -> tuple[str, dict[str, str]]:
    """The operation of a request, and the parameters in its path. Raises KeyError."""
    steps = raw_path.strip("/").split("/")
    for wanted, uri, name in ROUTES:
        if wanted != method or len(uri) != len(steps):
            continue
        pairs = list(zip(uri, steps, strict=True))
        if all(part.startswith("{") or part == step for part, step in pairs):
            return name, {part.strip("{}"): urllib.parse.unquote(step) for part, step in pairs if part.startswith("{")}
    raise KeyError(f"{method} {raw_path}")


def typed(shape: Any, value: Any) -> Any:
    """A value of a JSON request as botocore's validator takes it: times as datetime, numbers of a path or query as such."""
    if shape.type_name == "timestamp":
        return datetime.fromtimestamp(float(value), UTC)
    if shape.type_name in ("long", "integer") and isinstance(value, str):
        return int(value)
    if shape.type_name == "structure" and isinstance(value, Mapping):
        return {
            name: typed(shape.members[name], inner) if name in shape.members else inner for name, inner in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [typed(shape.member, inner) for inner in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {name: typed(shape.value, inner) for name, inner in value.items()}
    return value


def request_of(name: str, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The members of a request."""
    shape = MODEL.operation_model(name).input_shape
    places = {member: inner.serialization for member, inner in shape.members.items()}
    found: dict[str, Any] = json.loads(body) if body else {}
    for member, place in places.items():
        values = {"uri": path, "querystring": query}.get(place.get("location", ""))
        if values is not None and place["name"] in values:
            found[member] = values[place["name"]]
    result: dict[str, Any] = typed(shape, found)
    return result


def _region(request: Request) -> str:
    found = re.search(r"Credential=[^/]+/\d+/([a-z0-9-]+)/", request.headers.get("authorization", ""))
    return found[1] if found else REGION


def _json(value: Any) -> str:
    return json.dumps(value, default=lambda other: other.timestamp() if isinstance(other, datetime) else str(other))


@dataclass
class Served:
    """What a server serves; a test may put another account in its place."""

    account: Account


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """The address of a server, which ends with the context."""

    async def quicksight(request: Request) -> Response:
        account = served.account
        raw = request.scope["raw_path"].decode().partition("?")[0]
        name, path = operation_of(request.method, raw)
        members = request_of(name, path, dict(request.query_params), await request.body())
        try:
            answer = await run_in_threadpool(account.answer, name, members, _region(request))
        except RefusedError as error:
            shape = next((each for each in MODEL.operation_model(name).error_shapes if each.name == error.code), None)
            status = 400 if shape is None else shape.metadata["error"]["httpStatusCode"]
            headers = {"x-amzn-ErrorType": error.code}
            return Response(_json({"Message": str(error)}), status, headers, "application/json")
        except Exception as error:  # a defect of this server, which boto3 would only repeat
            account.findings.append(f"{name}: {error!r}")
            raise
        if name in account.faults.unanswered:
            account.faults.unanswered.discard(name)
            return Response("", 502)
        return Response(_json({**answer, "RequestId": "of-the-test"}), 200, media_type="application/json")

    async def others(request: Request) -> Response:
        if target := request.headers.get("x-amz-target"):
            workgroup = json.loads(await request.body())["workgroupName"]
            address = f"{workgroup}.{ACCOUNT}.{REGION}.redshift-serverless.amazonaws.com"
            found = {
                "workgroup": {
                    "workgroupName": workgroup,
                    "status": "AVAILABLE",
                    "endpoint": {"address": address, "port": 5439},
                }
            }
            assert target == "RedshiftServerless.GetWorkgroup", target
            return Response(_json(found), 200, media_type="application/x-amz-json-1.1")
        assert b"Action=GetCallerIdentity" in await request.body()
        identity = f"<Arn>arn:aws:iam::{ACCOUNT}:user/runner</Arn><UserId>AIDA</UserId><Account>{ACCOUNT}</Account>"
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        result = f"<GetCallerIdentityResult>{identity}</GetCallerIdentityResult>"
        xml = f"<GetCallerIdentityResponse {space}>{result}</GetCallerIdentityResponse>"
        return Response(xml, 200, media_type="text/xml")

    routes = [
        Route("/", others, methods=["POST"]),
        Route("/{rest:path}", quicksight, methods=["GET", "POST", "PUT", "DELETE"]),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), "127.0.0.1", 0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def environment(address: str) -> dict[str, str]:
    """The variables with which boto3 calls the server at `address`."""
    services = ("QUICKSIGHT", "STS", "REDSHIFT_SERVERLESS")
    return {**s3.KEYS, **{f"AWS_ENDPOINT_URL_{service}": address for service in services}}
