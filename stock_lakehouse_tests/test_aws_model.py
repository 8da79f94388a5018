"""What is wrong with a request to AWS is found: by botocore's validator, and where that lets it pass."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.validate import ParamValidator

from stock_lakehouse_tests import aws_model

RIGHT = {"Sql": "SELECT 1", "WorkgroupName": "stocks", "ClientToken": "a" * 64, "WaitTimeSeconds": 30}


def by_botocore(service: str, operation: str, request: dict[str, Any]) -> str:
    shape = aws_model._model(service).operation_model(operation).input_shape
    report: str = ParamValidator().validate(request, shape).generate_report()
    return report


def test_a_right_request_has_no_faults() -> None:
    assert aws_model.faults("redshift-data", "ExecuteStatement", RIGHT) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"ResultFormat": "XML"}, "ResultFormat: 'XML' is none of JSON, CSV"),
        ({"WorkgroupName": "Stocks"}, "WorkgroupName: 'Stocks' does not match"),
        ({"ClientToken": "a" * 65}, r"ClientToken: 65 is not within 1\.\.64"),
        ({"WaitTimeSeconds": 31}, r"WaitTimeSeconds: 31 is not within 1\.\.30"),
        ({"Parameters": [{"name": "a-b", "value": "1"}]}, r"Parameters\[0\]\.name: 'a-b' does not match"),
    ],
)
def test_what_botocore_lets_pass_is_found(changed: dict[str, Any], found: str) -> None:
    request = {**RIGHT, **changed}
    assert by_botocore("redshift-data", "ExecuteStatement", request) == ""
    (fault,) = aws_model.faults("redshift-data", "ExecuteStatement", request)
    assert re.search(found, fault), fault


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"Sqls": ["SELECT 1"]}, "Sqls"),
        ({"Sql": 1}, "Sql"),
        ({"Sql": None}, "Sql"),
        ({"Parameters": [{"name": "a", "value": ""}]}, "value"),
    ],
)
def test_what_botocore_finds_is_found(changed: dict[str, Any], found: str) -> None:
    request = {name: value for name, value in {**RIGHT, **changed}.items() if value is not None}
    assert any(found in fault for fault in aws_model.faults("redshift-data", "ExecuteStatement", request))


def test_two_members_of_a_union_are_found() -> None:
    table = {"CustomSql": {"DataSourceArn": "arn:x", "Name": "daily", "SqlQuery": "SELECT 1"}}
    request = {"AwsAccountId": "123456789012", "DataSetId": "daily", "Name": "daily", "ImportMode": "SPICE"}
    one = {**request, "PhysicalTableMap": {"daily": table}}
    both = {
        **request,
        "PhysicalTableMap": {"daily": {**table, "S3Source": {"DataSourceArn": "arn:x", "InputColumns": []}}},
    }
    assert not [fault for fault in aws_model.faults("quicksight", "CreateDataSet", one) if "members" in fault]
    assert [
        fault
        for fault in aws_model.faults("quicksight", "CreateDataSet", both)
        if "2 members of PhysicalTable" in fault
    ]
