"""The program `stock-lakehouse`: what is asked on a command line, and how answers are printed. Not here: any work."""

from __future__ import annotations

import typer

from stock_lakehouse.cli import look, operate, run
from stock_lakehouse.cli.program import app

__all__ = ["app", "look", "main", "operate", "run"]


def main() -> None:
    """The program's entry point."""
    try:
        app()
    except _store_errors() as error:  # evaluated only when something is raised: the libraries are loaded by then
        from stock_lakehouse.lake.storage import storage_error

        told = storage_error("the lake or Dagster's records", error)
        if told is None:
            raise
        typer.echo(f"stock-lakehouse: {told}", err=True)
        raise SystemExit(1) from None


def _store_errors() -> tuple[type[Exception], ...]:
    from stock_lakehouse.lake.storage import error_types

    return error_types()
