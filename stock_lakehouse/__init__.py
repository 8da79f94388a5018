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

__all__ = [
    "InvalidDateError",
    "LakeError",
    "MissingPackageError",
    "NoHistoryError",
    "NoLakeError",
    "NoVersionError",
    "StorageError",
    "TableName",
    "UnknownColumnError",
    "UnknownTableError",
    "UnknownTickerError",
    "describe",
    "list_tables",
    "read_table",
]

# Dagster says at every start that backfill policies, check and load options are in beta; requirements.lock pins what is tested.
_warnings.filterwarnings("ignore", message=r".*is currently in beta, and may have breaking changes.*")

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    """A name of the public API, imported when it is asked for: what it needs takes half a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "dictionary" if name in ("describe", "list_tables") else "reading"
    return getattr(_importlib.import_module(f"stock_lakehouse.lake.{room}"), name)


def __dir__() -> list[str]:
    """The public API alone, so that completion offers nothing else."""
    return __all__
