"""The rights of who provisions the dashboard on QuickSight. Not here: the calls that need them (provisioning.py, refresh.py)."""

from __future__ import annotations

from collections.abc import Sequence

from stock_lakehouse.aws import NO_RESOURCE, Right, arn
from stock_lakehouse.settings import Aws, QuickSight, Redshift
from stock_lakehouse.sql.athena import workgroup_rights
from stock_lakehouse.sql.data_api import WORKGROUP


def provisioning_rights(quicksight: QuickSight, aws: Aws, redshift: Redshift) -> Sequence[Right]:
    """What `provisioning.provision` needs, beside reading the lake."""
    source, sets = arn("quicksight", f"datasource/{quicksight.name}"), arn("quicksight", f"dataset/{quicksight.name}-*")
    dashboard = arn("quicksight", f"dashboard/{quicksight.name}")
    accounts = ("quicksight:DescribeAccountSubscription", "quicksight:DescribeUser", "quicksight:DescribeGroup")
    found = [
        Right("QuickSightAccount", accounts, ("*",), reason="users and groups are of a region that is not known"),
        Right("QuickSightAny", _actions("CreateDataSource", "ListIngestions"), ("*",), reason=NO_RESOURCE),
        Right("QuickSightSource", _actions(
            "DescribeDataSource", "UpdateDataSource", "PassDataSource", "DescribeDataSourcePermissions",
            "UpdateDataSourcePermissions", "CreateDataSet", "UpdateDataSet",
        ), (source,)),
        Right("QuickSightSets", _actions(
            "DescribeDataSet", "CreateDataSet", "UpdateDataSet", "PassDataSet", "DescribeDataSetPermissions",
            "UpdateDataSetPermissions", "DescribeDataSetRefreshProperties", "PutDataSetRefreshProperties",
            "DescribeRefreshSchedule", "CreateRefreshSchedule", "UpdateRefreshSchedule", "CreateIngestion", "DescribeIngestion",
        ), (sets,)),
        Right("QuickSightDashboard", _actions(
            "DescribeDashboard", "CreateDashboard", "UpdateDashboard", "UpdateDashboardPublishedVersion",
            "DescribeDashboardPermissions", "UpdateDashboardPermissions",
        ), (dashboard,)),
        Right("QuickSightTags", _actions("ListTagsForResource", "TagResource"), (source, sets, dashboard)),
    ]  # fmt: skip
    if quicksight.role:
        to_quicksight = {"StringEquals": {"iam:PassedToService": "quicksight.amazonaws.com"}}
        found.append(Right("QuickSightRole", ("iam:PassRole",), ("${QuicksightRole.Arn}",), to_quicksight))
    if quicksight.source == "redshift" and redshift.workgroup:
        found.append(Right("QuickSightWorkgroup", ("redshift-serverless:GetWorkgroup",), (WORKGROUP,)))
    if quicksight.source == "athena" and aws.athena_results is not None:
        found.extend(workgroup_rights(aws))
    return found


def _actions(*names: str) -> tuple[str, ...]:
    return tuple(f"quicksight:{name}" for name in names)
