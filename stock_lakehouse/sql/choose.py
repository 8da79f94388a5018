"""The SQL engine that the settings name, and `stock_lakehouse.query`, which asks it.

Not here: the engines. Their libraries are imported when an engine is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stock_lakehouse.lake import Lake
from stock_lakehouse.lake.reading import MissingPackageError, Moment, moment, opened_lake
from stock_lakehouse.lake.serving import reading_copy
from stock_lakehouse.lake.storage import LakeRoot
from stock_lakehouse.sql.engine import Parameter, QueryEngine, QueryRefusedError
from stock_lakehouse.sql.reports import reports, stream_views

if TYPE_CHECKING:
    import pyarrow as pa

    from stock_lakehouse.settings import Aws, Redshift, Settings, Trino

EngineName = Literal["duckdb", "athena", "trino", "redshift"]
ENGINES: tuple[EngineName, ...] = ("duckdb", "athena", "trino", "redshift")
MINUTES = 30.0  # of a query over a lake that is named without settings
# What an engine needs besides this package.
PACKAGES = {
    "duckdb": "stock-lakehouse[platform]",
    "athena": "stock-lakehouse[platform]",
    "trino": "stock-lakehouse[trino]",
    "redshift": "stock-lakehouse[platform]",
}


def engine_of(settings: Settings, name: str | None = None) -> QueryEngine:
    """The engine `name` over the lake of `settings`; None: the one that the settings name.

    Raises QueryRefusedError if the settings do not say how to reach it, MissingPackageError if its library is not installed.
    """
    chosen = name or settings.query_engine
    if chosen == "redshift" and settings.warehouse != "redshift":
        raise QueryRefusedError(
            'warehouse: Redshift runs SQL over the warehouse; set warehouse = "redshift" and load it with '
            "`stock-lakehouse warehouse`"
        )
    return engine_over(
        Lake(settings.lake_options),
        chosen,
        settings.query_minutes,
        settings.serving_cache,
        settings.aws,
        settings.trino,
        settings.redshift,
    )


def engine_over(
    lake: Lake, name: str, minutes: float, cache: Path | None, aws: Aws, trino: Trino, redshift: Redshift
) -> QueryEngine:
    """The engine `name` over `lake`; raises what `engine_of` does."""
    try:
        if name == "athena":
            from stock_lakehouse.sql.athena import AthenaEngine
            from stock_lakehouse.sql.duckdb_engine import LakeTables

            if aws.athena_results is None:
                raise QueryRefusedError("aws.athena_results: needed with the engine athena, where results go (s3://…)")
            return AthenaEngine(aws, minutes, LakeTables(lake))
        if name == "trino":
            from stock_lakehouse.sql.trino import TrinoEngine

            if trino.url is None:
                raise QueryRefusedError("trino.url: needed with the engine trino, the address of the server")
            return TrinoEngine(trino, minutes, lake)
        if name == "redshift":
            import boto3  # noqa: F401 - so that its absence is an error here

            from stock_lakehouse.sql.duckdb_engine import LakeTables
            from stock_lakehouse.sql.redshift import RedshiftEngine

            return RedshiftEngine(redshift, minutes, LakeTables(lake), report_texts())
        return local_engine(lake, cache, minutes)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None


def local_engine(lake: Lake, cache: Path | None = None, minutes: float = MINUTES) -> QueryEngine:
    """DuckDB over `lake`. The reports can be named like tables, as views of them can on Athena.

    `cache`: the setting `serving_cache`.
    """
    import duckdb  # noqa: F401 - so that its absence is an error here
    import sqlglot  # noqa: F401

    from stock_lakehouse.sql.duckdb_engine import DuckDBEngine

    return DuckDBEngine(lake, reading_copy(lake, cache), minutes, LakeViews(lake))


def report_texts() -> dict[str, str]:
    """The SQL of the reports, by name."""
    return {report.name: report.sql for report in reports().values()}


class LakeViews(Mapping[str, str]):
    """What SQL may name like a table: the reports, and the views over the stream whose tables exist. Looked at when asked for."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._reports = report_texts()

    def __getitem__(self, name: str) -> str:
        if name in self._reports:
            return self._reports[name]
        view = stream_views()[name]
        if not self.lake.stream[view.table.name].exists():
            raise KeyError(name)
        return view.sql

    def __iter__(self) -> Iterator[str]:
        return (name for name in (*self._reports, *stream_views()) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def query(
    sql: str,
    parameters: Sequence[Parameter] = (),
    as_of: Moment | None = None,
    engine: EngineName | None = None,
    lake_root: LakeRoot | None = None,
) -> pa.Table:
    """The rows of one SELECT in Athena's dialect, in the types that Athena gives. docs/sql.md describes the dialect.

    - sql: over the tables of `list_tables()` and the reports.
    - parameters: the values of its `?`, in their order. They are bound, so that text in them is never SQL.
    - as_of: the tables as they were at that moment, as of `read_table`. Athena and Redshift have no past.
    - engine: "duckdb", "athena", "trino" or "redshift" (None: the setting `query_engine`).
    - lake_root: a folder or s3://bucket/prefix, for DuckDB alone (None: the lake of the settings).

    All errors but SettingsError are a LakeError: QuerySyntaxError and QueryRefusedError, whose messages show the place in the
    SQL; QueryTimeoutError, ScanLimitError, PermissionMissingError, QueryFailedError; and the errors of `read_table`.
    """
    at = None if as_of is None else moment(as_of)
    if lake_root is not None:
        if engine not in (None, "duckdb"):
            raise QueryRefusedError(f"lake_root: {engine} reads the lake of the settings; leave lake_root out")
        lake = opened_lake(lake_root)
        try:
            return local_engine(lake).run(sql, parameters, at).rows
        except ModuleNotFoundError as error:
            raise _missing("duckdb", error) from None
    opened_lake(None)  # its errors name what is missing
    from stock_lakehouse.settings import load_settings

    return engine_of(load_settings(), engine).run(sql, parameters, at).rows


def _missing(engine: str, error: ModuleNotFoundError) -> MissingPackageError:
    return MissingPackageError(f"the SQL engine {engine} needs {error.name}: pip install '{PACKAGES[engine]}'")
