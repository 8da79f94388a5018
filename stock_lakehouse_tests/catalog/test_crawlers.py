"""The requests for crawlers against botocore's model of Glue, the bounded wait, and what is told of a crawl.

What a crawl of AWS finds is tested nowhere: moto's crawlers make no table.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from stock_lakehouse.catalog.crawlers import (
    CrawlerError,
    CrawlerTimeoutError,
    crawl,
    crawler_inputs,
    differing_types,
)
from stock_lakehouse.catalog.glue import GlueCatalog
from stock_lakehouse.lake import Lake
from stock_lakehouse.sql.engine import PermissionMissingError

ROOT, DATABASE, ROLE = "s3://bucket/lake", "bars", "arn:aws:iam::123456789012:role/service/crawlers"
DELTA = [f"{ROOT}/{path}" for path in ("processed/actions", "curated/stocks_daily", "curated/corporate_actions",
                                        "curated/stocks_features", "curated/restatements")]  # fmt: skip
FILES = ["raw_stocks_daily", "processed_stocks_daily", "processed_quarantine"]


def configuration(tables: int) -> str:
    return (
        '{"Version": 1.0, "Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas"}, "CrawlerOutput": {"Partitions": '
        f'{{"AddOrUpdateBehavior": "InheritFromTable"}}, "Tables": {{"TableThreshold": {tables}}}}}}}'
    )


def requests() -> list[dict[str, Any]]:
    """The two requests, written out."""
    return [
        {
            "Name": "bars_delta",
            "Role": ROLE,
            "DatabaseName": "bars",
            "Description": "Registers the Delta tables of a stock_lakehouse lake.",
            "TablePrefix": "crawled_",
            "Targets": {
                "DeltaTargets": [{"DeltaTables": DELTA, "CreateNativeDeltaTable": True, "WriteManifest": False}]
            },
            "SchemaChangePolicy": {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "LOG"},
            "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING"},
            "Configuration": configuration(5),
        },
        {
            "Name": "bars_files",
            "Role": ROLE,
            "DatabaseName": "bars",
            "Description": "Adds the partitions of the tables of plain files of a stock_lakehouse lake.",
            "Targets": {"CatalogTargets": [{"DatabaseName": "bars", "Tables": FILES}]},
            "SchemaChangePolicy": {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
            "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING"},
            "Configuration": configuration(3),
        },
    ]


def test_the_requests_are_those_of_the_design() -> None:
    inputs = crawler_inputs(Lake(ROOT), DATABASE, ROLE)
    assert inputs == requests()
    assert [json.loads(one["Configuration"])["CrawlerOutput"]["Tables"] for one in inputs] == [
        {"TableThreshold": 5},
        {"TableThreshold": 3},
    ]


def glue() -> Any:
    return boto3.client("glue", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")


def state(request: dict[str, Any], kind: str, started: int | None = None, **last: str) -> dict[str, Any]:
    """An answer of GetCrawler."""
    crawler = {**request, "Role": "crawlers", "State": kind}
    if started is not None:
        crawler["LastCrawl"] = {"StartTime": datetime(2026, 1, started, tzinfo=UTC), **last}
    return {"Crawler": crawler}


def metrics(name: str, created: int, updated: int) -> dict[str, Any]:
    found = {"CrawlerName": name, "TablesCreated": created, "TablesUpdated": updated, "TablesDeleted": 0}
    return {"CrawlerMetricsList": [found | {"LastRuntimeSeconds": 71.5}]}


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.at, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


def run(client: Any, minutes: float = 5.0) -> tuple[list[Any], Clock]:
    clock = Clock()
    catalog = GlueCatalog(DATABASE, ROOT, client)
    return crawl(catalog, requests(), minutes, clock.sleep, lambda: clock.at), clock


def test_crawlers_are_created_started_and_waited_for() -> None:
    client, (delta, files) = glue(), requests()
    with Stubber(client) as answers:
        for request in (delta, files):
            answers.add_client_error(
                "get_crawler", "EntityNotFoundException", expected_params={"Name": request["Name"]}
            )
            answers.add_response("create_crawler", {}, request)
            answers.add_response("start_crawler", {}, {"Name": request["Name"]})
        for request, created in ((delta, 5), (files, 0)):
            name = {"Name": request["Name"]}
            answers.add_response("get_crawler", state(request, "READY"), name)  # not begun yet
            answers.add_response("get_crawler", state(request, "RUNNING"), name)
            answers.add_response("get_crawler", state(request, "STOPPING"), name)
            ended = state(
                request, "READY", 2, Status="SUCCEEDED", LogGroup="/aws-glue/crawlers", LogStream=request["Name"]
            )
            answers.add_response("get_crawler", ended, name)
            answers.add_response(
                "get_crawler_metrics", metrics(request["Name"], created, 1), {"CrawlerNameList": [request["Name"]]}
            )
        crawls, clock = run(client)
        answers.assert_no_pending_responses()
    assert [found.as_json() for found in crawls] == [
        {
            "name": request["Name"],
            "created": created,
            "updated": 1,
            "deleted": 0,
            "seconds": 71.5,
            "log": f"/aws-glue/crawlers, stream {request['Name']}",
        }
        for request, created in ((delta, 5), (files, 0))
    ]
    assert clock.slept == [15.0] * 6


def test_a_crawler_that_differs_is_updated_and_one_that_does_not_is_not() -> None:
    client, (delta, files) = glue(), requests()
    with Stubber(client) as answers:
        # What the service adds, and the name of the role in place of its ARN, are no difference.
        answers.add_response("get_crawler", state({**delta, "Version": 3}, "READY", 1, Status="SUCCEEDED"))
        answers.add_response("start_crawler", {}, {"Name": "bars_delta"})
        older = {**files, "Targets": {"CatalogTargets": [{"DatabaseName": "bars", "Tables": ["raw_stocks_daily"]}]}}
        answers.add_response("get_crawler", state(older, "READY", 1, Status="FAILED"))
        answers.add_response("update_crawler", {}, files)
        answers.add_response("start_crawler", {}, {"Name": "bars_files"})
        for request in (delta, files):
            answers.add_response("get_crawler", state(request, "READY", 1, Status="FAILED"))  # the crawl before
            answers.add_response("get_crawler", state(request, "READY", 2, Status="SUCCEEDED"))
            answers.add_response("get_crawler_metrics", metrics(request["Name"], 0, 0))
        crawls, _ = run(client)
        answers.assert_no_pending_responses()
    assert [found.name for found in crawls] == ["bars_delta", "bars_files"]


def test_a_failed_crawl_is_an_error_with_its_message_and_its_log() -> None:
    client, (delta, files) = glue(), requests()
    with Stubber(client) as answers:
        for request in (delta, files):
            answers.add_response("get_crawler", state(request, "READY"))
            answers.add_response("start_crawler", {})
        failed = {"Status": "FAILED", "ErrorMessage": "no access", "LogGroup": "/g", "LogStream": "s"}
        answers.add_response("get_crawler", state(delta, "READY", 2, **failed))
        with pytest.raises(
            CrawlerError, match="ended as FAILED: no access; CloudWatch has its log, group /g, stream s"
        ):
            run(client)


def test_the_wait_for_a_crawl_is_bounded() -> None:
    client, (delta, files) = glue(), requests()
    with Stubber(client) as answers:
        for request in (delta, files):
            answers.add_response("get_crawler", state(request, "READY"))
            answers.add_response("start_crawler", {})
        for _ in range(9):
            answers.add_response("get_crawler", state(delta, "RUNNING"))
        with pytest.raises(
            CrawlerTimeoutError, match=r"bars_delta is still RUNNING.* aws glue stop-crawler --name bars_delta"
        ):
            run(client, minutes=2.0)
        answers.assert_no_pending_responses()


def test_a_crawler_that_runs_already_is_waited_for_and_then_started() -> None:
    client, (delta, _) = glue(), requests()
    with Stubber(client) as answers:
        answers.add_response("get_crawler", state(delta, "RUNNING", 1, Status="SUCCEEDED"))
        answers.add_response("get_crawler", state(delta, "READY", 2, Status="SUCCEEDED"))
        answers.add_client_error(
            "start_crawler",
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/x is not authorized to perform: glue:StartCrawler on resource: arn:aws:glue:r:1:crawler/c",
        )
        with pytest.raises(PermissionMissingError, match="glue:StartCrawler on arn:aws:glue:r:1:crawler/c"):
            run(client)
        answers.assert_no_pending_responses()


def test_what_a_crawler_typed_otherwise_is_told() -> None:
    client = glue()
    lake = Lake(ROOT)
    actions = lake.corporate_actions.table
    columns = [{"Name": column.name, "Type": column.type} for column in actions.columns]
    columns[0] |= {"Type": "varchar"}
    with Stubber(client) as answers:
        found = {"Name": "crawled_corporate_actions", "StorageDescriptor": {"Columns": columns[:-1]}}
        answers.add_response("get_tables", {"TableList": [found]})
        differing = differing_types(GlueCatalog(DATABASE, ROOT, client), lake)
    first, last = actions.columns[0], actions.columns[-1]
    assert differing == [
        {"table": "crawled_corporate_actions", "column": first.name, "schema": first.type, "crawler": "varchar"},
        {"table": "crawled_corporate_actions", "column": last.name, "schema": last.type, "crawler": "-"},
    ]


def test_moto_keeps_the_requests(aws: str, lake: Lake, database: str) -> None:
    from stock_lakehouse_tests import s3

    client = s3.client(aws, "glue")
    client.create_database(DatabaseInput={"Name": database})
    for wanted in crawler_inputs(lake, database, "crawlers"):
        client.create_crawler(**wanted)
        kept = client.get_crawler(Name=wanted["Name"])["Crawler"]
        assert {name: kept[name] for name in ("Targets", "Configuration", "SchemaChangePolicy", "RecrawlPolicy")} == {
            name: wanted[name] for name in ("Targets", "Configuration", "SchemaChangePolicy", "RecrawlPolicy")
        }
