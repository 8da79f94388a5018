"""The catalog of the lake as a Dagster resource: which it is, and how it is written. Not here: registration (catalog/)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.aws import NO_RESOURCE, Right, arn, glue_tables
from stock_lakehouse.settings import Aws

if TYPE_CHECKING:
    from stock_lakehouse.catalog.glue import GlueCatalog
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.settings import Settings


class CatalogResource(dg.ConfigurableResource[Any]):
    """Where the lake's tables are registered.

    - service: the setting `catalog`: "local" or "glue"
    - aws: the settings of the group `aws` that differ from their defaults
    """

    service: str
    aws: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings) -> CatalogResource:
        """The resource that `settings` describe."""
        return cls(service=settings.catalog, aws=settings.aws.model_dump(exclude_defaults=True))

    @property
    def settings(self) -> Aws:
        return Aws(**self.aws)

    @property
    def is_crawled(self) -> bool:
        """Whether crawlers register the partitions of the tables of plain files."""
        return self.settings.catalog_by == "crawl"

    def rights(self) -> Sequence[Right]:
        """What registration, crawlers and the check need."""
        if self.service != "glue":
            return ()
        database = self.settings.glue_database
        actions = (
            "glue:GetDatabase", "glue:CreateDatabase", "glue:GetTables", "glue:GetTable", "glue:CreateTable", "glue:UpdateTable",
            "glue:DeleteTable", "glue:GetPartitions", "glue:BatchCreatePartition", "glue:BatchUpdatePartition",
            "glue:BatchDeletePartition",
        )  # fmt: skip
        found = [Right("Catalog", actions, glue_tables(database))]
        if self.is_crawled:
            from stock_lakehouse.catalog.crawlers import names_of

            crawlers = tuple(arn("glue", f"crawler/{name}") for name in names_of(database))
            calls = ("glue:GetCrawler", "glue:UpdateCrawler", "glue:StartCrawler")
            to_glue = {"StringEquals": {"iam:PassedToService": "glue.amazonaws.com"}}
            found += [
                Right("Crawlers", calls, crawlers),
                Right("AnyCrawler", ("glue:CreateCrawler", "glue:GetCrawlerMetrics"), ("*",), reason=NO_RESOURCE),
                Right("CrawlerRole", ("iam:PassRole",), ("${CrawlerRole.Arn}",), to_glue),
            ]
        return found

    def glue(self, lake: Lake) -> GlueCatalog | None:
        """The Glue database of `lake`; None if its tables are registered nowhere but in itself."""
        from stock_lakehouse.catalog.glue import GlueCatalog

        return GlueCatalog(self.settings.glue_database, str(lake.root)) if self.service == "glue" else None
