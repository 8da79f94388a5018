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
    except Exception as error:
        from stock_lakehouse.lake.storage import StorageError, storage_error

        told = error if isinstance(error, StorageError) else storage_error("the lake or Dagster's records", str(error))
        if told is None:
            raise
        typer.echo(f"stock-lakehouse: {told}", err=True)
        raise SystemExit(1) from None
