"""The program `stock-lakehouse`: its commands and the printing of their results. Not here: the work itself."""

from __future__ import annotations

import typer

from stock_lakehouse.cli import look, operate, report, run
from stock_lakehouse.cli.program import app

__all__ = ["app", "look", "main", "operate", "report", "run"]


def main() -> None:
    """The program's entry point."""
    try:
        app()
    except _store_errors() as error:  # evaluated only after an error, when the libraries are loaded already
        from stock_lakehouse.lake.storage import storage_error

        failure = storage_error("the lake or Dagster's records", error)
        if failure is None:
            raise
        typer.echo(f"stock-lakehouse: {failure}", err=True)
        raise SystemExit(1) from None


def _store_errors() -> tuple[type[Exception], ...]:
    from stock_lakehouse.lake.storage import error_types

    return error_types()
