"""The program `stock-lakehouse`: its commands and the printing of their results. Not here: the work itself."""

from __future__ import annotations

from stock_lakehouse.cli import (
    dashboard,
    demo,
    deploy,
    describe,
    export,
    look,
    operate,
    query,
    quicksight,
    report,
    restore,
    run,
    stream,
    stream_demo,
    warehouse,
)
from stock_lakehouse.cli.errors import explainable, explanation
from stock_lakehouse.cli.interrupt import ctrl_c
from stock_lakehouse.cli.printing import NAME, aside
from stock_lakehouse.cli.program import app

__all__ = [
    "app",
    "dashboard",
    "demo",
    "deploy",
    "describe",
    "export",
    "look",
    "main",
    "operate",
    "query",
    "quicksight",
    "report",
    "restore",
    "run",
    "stream",
    "stream_demo",
    "warehouse",
]


def main() -> None:
    """The program's entry point."""
    with ctrl_c.watched():
        try:
            app(prog_name=NAME)
        except SystemExit:  # every command ends so, also one that has loaded no library
            raise
        except explainable() as error:  # evaluated only after an error, when the libraries are loaded already
            line = explanation(error)
            if line is None:
                raise
            aside(f"{NAME}: {line}")
            raise SystemExit(1) from None
