"""The warehouse as a Dagster resource: which it is, of which lake. Not here: loading and comparing it (warehouse/)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from stock_lakehouse.aws import Right, glue_tables
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Redshift

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.warehouse.load import Warehouse


class WarehouseResource(dg.ConfigurableResource[Any]):
    """Where the native tables beside the lake are.

    - service: the setting `warehouse`: "off" or "redshift"
    - redshift: the settings of the group `redshift` that differ from their defaults
    - glue_database: the setting `aws.glue_database`
    """

    lakehouse: LakehouseResource
    service: str
    redshift: dict[str, Any]
    glue_database: str

    @classmethod
    def of(cls, settings: Settings, lakehouse: LakehouseResource) -> WarehouseResource:
        """The resource that `settings` describe."""
        return cls(
            lakehouse=lakehouse,
            service=settings.warehouse,
            redshift=settings.redshift.model_dump(mode="json", exclude_defaults=True),
            glue_database=settings.aws.glue_database,
        )

    def rights(self) -> Sequence[Right]:
        """What loads and comparisons need: statements, and what Glue has registered."""
        if self.service == "off":
            return ()
        from stock_lakehouse.sql.data_api import data_api_rights

        actions = ("glue:GetTables", "glue:GetTable", "glue:GetPartitions")
        registered = Right("Registered", actions, glue_tables(self.glue_database))
        return (*data_api_rights(Redshift(**self.redshift)), registered)

    def comparing_rights(self) -> Sequence[Right]:
        """What comparisons need: they write nothing."""
        if self.service == "off":
            return ()
        from stock_lakehouse.sql.data_api import data_api_rights

        return data_api_rights(Redshift(**self.redshift), transactions=False)

    @property
    def warehouse(self) -> Warehouse | None:
        """The warehouse; None if the settings say `off`. Nothing is contacted."""
        from stock_lakehouse.warehouse.load import warehouse_of

        if self.service == "off":
            return None
        return warehouse_of(self.lakehouse.lake, Redshift(**self.redshift), self.glue_database)
