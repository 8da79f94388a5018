"""A data platform for daily stock prices: README.md says what it does, docs/architecture.md how."""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stock_lakehouse.lake.reading import read_table as read_table

# Dagster says at every start that backfill policies, check and load options are in beta; requirements.lock pins what is tested.
warnings.filterwarnings("ignore", message=r".*is currently in beta, and may have breaking changes.*")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`stock_lakehouse.read_table`, imported when it is asked for: what it needs takes half a second."""
    if name == "read_table":
        from stock_lakehouse.lake.reading import read_table

        return read_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
