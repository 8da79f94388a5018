"""Glue crawlers, for who runs them: their configurations, a bounded wait, and what they found.

Crawlers guess: they give types of their own, no comments, and sometimes a table per folder. So this program registers all tables
itself in either case (glue.py). With `catalog_by = "crawl"` two crawlers run besides: one adds the partitions of the tables of
plain files, and one registers the Delta tables once more, under names that begin with PREFIX. Not here: what is registered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stock_lakehouse.catalog.glue import CatalogError, GlueCatalog, columns_of, named_errors, says
from stock_lakehouse.tables import TABLES

if TYPE_CHECKING:
    from stock_lakehouse.lake import Lake

PREFIX = "crawled_"
WAIT_MINUTES = 60.0
POLL_SECONDS = 15.0
READY = "READY"


class CrawlerError(CatalogError):
    """A crawl failed. The message has the crawler's own and where its log is."""


class CrawlerTimeoutError(CrawlerError):
    """A crawl has not ended within the wait."""


@dataclass(frozen=True)
class Crawl:
    """What a crawler did.

    - name: of the crawler
    - created, updated, deleted: tables, by the crawler's metrics
    - seconds: how long it ran, by its metrics; None if it does not say
    - log: the CloudWatch log group and stream
    """

    name: str
    created: int
    updated: int
    deleted: int
    seconds: float | None
    log: str

    def as_json(self) -> dict[str, Any]:
        """For a table of metadata."""
        return {name: "-" if value is None else value for name, value in asdict(self).items()}


def names_of(database: str) -> tuple[str, str]:
    """The names of the crawlers of `database`: of its Delta tables, and of its tables of plain files."""
    return f"{database}_delta", f"{database}_files"


def crawler_inputs(lake: Lake, database: str, role: str) -> list[dict[str, Any]]:
    """The requests of CreateCrawler: of the crawler of Delta tables, and of the one of tables of plain files."""
    delta = [stored.location for stored in lake.delta.values()]
    files = [table.name for table in TABLES if table.format != "delta"]
    of_delta, of_files = names_of(database)
    return [
        {
            **_common(of_delta, database, role, len(delta)),
            "Description": "Registers the Delta tables of a stock_lakehouse lake.",
            "TablePrefix": PREFIX,
            # CreateNativeDeltaTable: readers take the files from the log. A manifest would be a second, older truth.
            "Targets": {
                "DeltaTargets": [{"DeltaTables": delta, "CreateNativeDeltaTable": True, "WriteManifest": False}]
            },
            "SchemaChangePolicy": {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "LOG"},
        },
        {
            **_common(of_files, database, role, len(files)),
            "Description": "Adds the partitions of the tables of plain files of a stock_lakehouse lake.",
            "Targets": {"CatalogTargets": [{"DatabaseName": database, "Tables": files}]},
            # Names, types and comments stay those that this program registered. Glue demands the second for catalog targets.
            "SchemaChangePolicy": {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
        },
    ]


def _common(name: str, database: str, role: str, tables: int) -> dict[str, Any]:
    configuration = {
        "Version": 1.0,
        "Grouping": {"TableGroupingPolicy": "CombineCompatibleSchemas"},
        "CrawlerOutput": {
            "Partitions": {"AddOrUpdateBehavior": "InheritFromTable"},
            # Without it a crawler made hundreds of tables of a table's folders.
            "Tables": {"TableThreshold": tables},
        },
    }
    return {
        "Name": name,
        "Role": role,
        "DatabaseName": database,
        # Crawling new folders only is for targets of S3 paths, by AWS's documentation, so not for these.
        "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING"},
        "Configuration": json.dumps(configuration),
    }


def crawl(
    catalog: GlueCatalog,
    crawlers: Sequence[dict[str, Any]],
    wait_minutes: float = WAIT_MINUTES,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Crawl]:
    """Create or update each of `crawlers`, start all, and wait until they have ended.

    A crawler that is running already is waited for and then started: it may have begun before the last commit. Raises
    CrawlerError if a crawl failed, CrawlerTimeoutError after `wait_minutes` for all; PermissionMissingError; CatalogError.
    """
    wait = _Wait(catalog.client, clock() + wait_minutes * 60, sleep, clock)
    before: dict[str, Any] = {}
    for crawler in crawlers:
        name = str(crawler["Name"])
        with named_errors(f"crawler {name}"):
            before[name] = _upsert(wait, crawler)
            catalog.client.start_crawler(Name=name)
    return [_ended(wait, name, started) for name, started in before.items()]


@dataclass(frozen=True)
class _Wait:
    """A bounded wait for crawlers: until `deadline` by `clock`, in seconds."""

    client: Any
    deadline: float
    sleep: Callable[[float], None]
    clock: Callable[[], float]

    def until(self, name: str, is_done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The crawler once it is ready and `is_done`. Raises CrawlerTimeoutError."""
        while True:
            found: dict[str, Any] = self.client.get_crawler(Name=name)["Crawler"]
            if found["State"] == READY and is_done(found):
                return found
            left = self.deadline - self.clock()
            if left <= 0:
                raise CrawlerTimeoutError(
                    f"crawler {name} is still {found['State']}, and the wait is over; it goes on in Glue: run the asset "
                    f"`catalog` again when it has ended, or stop it: aws glue stop-crawler --name {name}"
                )
            self.sleep(min(POLL_SECONDS, left))


def _upsert(wait: _Wait, crawler: dict[str, Any]) -> Any:
    """Create the crawler, or update it if it differs, once it does not run; return when its last crawl started."""
    try:
        present = wait.until(crawler["Name"], lambda found: True)
    except wait.client.exceptions.EntityNotFoundException:
        wait.client.create_crawler(**crawler)
        return None
    # Glue answers with the name of a role that was given by its ARN.
    named = [{**found, "Role": str(found["Role"]).rpartition("/")[2]} for found in (present, crawler)]
    if not says(*named):
        wait.client.update_crawler(**crawler)
    return _started(present)


def _started(crawler: dict[str, Any]) -> Any:
    return crawler.get("LastCrawl", {}).get("StartTime")


def _ended(wait: _Wait, name: str, before: Any) -> Crawl:
    """The crawl that began after the one of the time `before`, once it has ended. Raises CrawlerError."""
    with named_errors(f"crawler {name}"):
        # Right after the start a crawler may still be ready, with its crawl before.
        last = wait.until(name, lambda found: _started(found) not in (None, before))["LastCrawl"]
        log = f"{last.get('LogGroup', '/aws-glue/crawlers')}, stream {last.get('LogStream', name)}"
        if last.get("Status") != "SUCCEEDED":
            raise CrawlerError(
                f"crawler {name}: its crawl ended as {last.get('Status')}: {last.get('ErrorMessage', 'without a message')}; "
                f"CloudWatch has its log, group {log}"
            )
        metrics = wait.client.get_crawler_metrics(CrawlerNameList=[name])["CrawlerMetricsList"]
    found = metrics[0] if metrics else {}
    return Crawl(
        name,
        found.get("TablesCreated", 0),
        found.get("TablesUpdated", 0),
        found.get("TablesDeleted", 0),
        found.get("LastRuntimeSeconds"),
        log,
    )


def differing_types(catalog: GlueCatalog, lake: Lake) -> list[dict[str, str]]:
    """The columns that the crawler of Delta tables registered with another type than the schema has, or left out."""
    tables = catalog.tables()
    differing = []
    for stored in lake.delta.values():
        name = f"{PREFIX}{stored.location.rpartition('/')[2]}"
        if name not in tables:
            continue
        found = columns_of(tables[name])
        differing += [
            {"table": name, "column": column.name, "schema": column.type, "crawler": found.get(column.name, "-")}
            for column in stored.table.columns
            if found.get(column.name) != column.type
        ]
    return differing
