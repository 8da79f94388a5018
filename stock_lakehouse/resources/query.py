"""The SQL engine as a Dagster resource: which it is, over which lake. Not here: the engines (sql/)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import SecretStr

from stock_lakehouse.aws import Right
from stock_lakehouse.resources.lakehouse import LakehouseResource
from stock_lakehouse.settings import Aws, Redshift, Trino, variable_of

if TYPE_CHECKING:
    from stock_lakehouse.settings import Settings
    from stock_lakehouse.sql.engine import QueryEngine


class QueryResource(dg.ConfigurableResource[Any]):
    """The engine that runs SQL over the lake.

    - engine: the setting `query_engine`
    - minutes: the setting `query_minutes`
    - serving_cache: the setting of this name
    - aws, trino, redshift: the settings of these groups that differ from their defaults, without Trino's password, which Dagster
      would show
    """

    lakehouse: LakehouseResource
    engine: str
    minutes: float
    serving_cache: str | None
    aws: dict[str, Any]
    trino: dict[str, Any]
    redshift: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings, lakehouse: LakehouseResource) -> QueryResource:
        """The resource that `settings` describe."""
        return cls(
            lakehouse=lakehouse,
            engine=settings.query_engine,
            minutes=settings.query_minutes,
            serving_cache=None if settings.serving_cache is None else str(settings.serving_cache),
            aws=settings.aws.model_dump(exclude_defaults=True),
            trino=settings.trino.model_dump(exclude_defaults=True, exclude={"password"}),
            redshift=settings.redshift.model_dump(mode="json", exclude_defaults=True),
        )

    def reading_rights(self) -> Sequence[Right]:
        """What a query needs."""
        if self.engine == "athena":
            from stock_lakehouse.sql.athena import query_rights

            return query_rights(Aws(**self.aws))
        if self.engine == "redshift":
            from stock_lakehouse.sql.data_api import data_api_rights

            return data_api_rights(Redshift(**self.redshift))
        return ()

    def rights(self) -> Sequence[Right]:
        """What the reports of a run need: queries; on Athena also the workgroup and the views."""
        if self.engine != "athena":
            return self.reading_rights()
        from stock_lakehouse.sql.athena import view_rights, workgroup_rights

        aws = Aws(**self.aws)
        return (*self.reading_rights(), *workgroup_rights(aws), *view_rights(aws))

    @property
    def query_engine(self) -> QueryEngine:
        """The engine. Raises QueryRefusedError, MissingPackageError."""
        from stock_lakehouse.sql.choose import engine_over

        cache = None if self.serving_cache is None else Path(self.serving_cache)
        password = os.environ.get(variable_of(("trino", "password")))
        trino = Trino(**self.trino, password=None if password is None else SecretStr(password))
        redshift = Redshift(**self.redshift)
        return engine_over(self.lakehouse.lake, self.engine, self.minutes, cache, Aws(**self.aws), trino, redshift)
