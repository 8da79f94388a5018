"""A data platform for daily stock prices: README.md says what it does, docs/python.md how Python reads its tables."""

import importlib as _importlib
import warnings as _warnings
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from stock_lakehouse.lake.dictionary import describe, list_tables
    from stock_lakehouse.lake.history import NoVersionError
    from stock_lakehouse.lake.reading import (
        InvalidDateError,
        MissingPackageError,
        NoHistoryError,
        NoLakeError,
        TableName,
        UnknownColumnError,
        UnknownTableError,
        UnknownTickerError,
        read_table,
    )
    from stock_lakehouse.lake.storage import LakeError, StorageError
    from stock_lakehouse.sql.choose import query
    from stock_lakehouse.sql.engine import (
        PermissionMissingError,
        QueryError,
        QueryFailedError,
        QueryRefusedError,
        QuerySyntaxError,
        QueryTimeoutError,
        ScanLimitError,
    )

__all__ = [
    "InvalidDateError",
    "LakeError",
    "MissingPackageError",
    "NoHistoryError",
    "NoLakeError",
    "NoVersionError",
    "PermissionMissingError",
    "QueryError",
    "QueryFailedError",
    "QueryRefusedError",
    "QuerySyntaxError",
    "QueryTimeoutError",
    "ScanLimitError",
    "StorageError",
    "TableName",
    "UnknownColumnError",
    "UnknownTableError",
    "UnknownTickerError",
    "describe",
    "list_tables",
    "query",
    "read_table",
]

# Dagster says at every start that backfill policies, check and load options are in beta; requirements.lock pins what is tested.
_warnings.filterwarnings("ignore", message=r".*is currently in beta, and may have breaking changes.*")

__version__ = "0.1.0"

_ROOMS = {
    **dict.fromkeys(("describe", "list_tables"), "lake.dictionary"),
    "query": "sql.choose",
    **dict.fromkeys(
        (
            "PermissionMissingError",
            "QueryError",
            "QueryFailedError",
            "QueryRefusedError",
            "QuerySyntaxError",
            "QueryTimeoutError",
            "ScanLimitError",
        ),
        "sql.engine",
    ),
}  # of names of the public API that lake/reading.py does not have


def __getattr__(name: str) -> _Any:
    """A name of the public API, imported when it is asked for: what it needs takes half a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(f"stock_lakehouse.{_ROOMS.get(name, 'lake.reading')}"), name)


def __dir__() -> list[str]:
    """The public API alone, so that completion offers nothing else."""
    return __all__
