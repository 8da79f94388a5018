"""The program's commands are added to this; the options that several of them have.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="A data platform for daily stock prices: raw, processed, curated and features, in one lake.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DAY: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "DATE"}
# What several commands ask alike.
Tickers = Annotated[str | None, typer.Option(metavar="A,B", help="Tickers, by comma; all if left out.")]
First = Annotated[datetime | None, typer.Option("--from", **DAY, help="First day; the lake's first if left out.")]
Last = Annotated[datetime | None, typer.Option("--to", **DAY, help="Last day; the newest if left out.")]
Assets = Annotated[str | None, typer.Option(metavar="ASSET,…", help="Assets, by comma; all if left out.")]
