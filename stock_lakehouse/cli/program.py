"""The Typer application to which the commands are added, and the options that several commands share.

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
DATE_OPTION: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "DATE"}
# Options of several commands.
Tickers = Annotated[str | None, typer.Option(metavar="A,B", help="Tickers, separated by commas; default: all.")]
First = Annotated[datetime | None, typer.Option("--from", **DATE_OPTION, help="First day; default: the lake's first.")]
Last = Annotated[datetime | None, typer.Option("--to", **DATE_OPTION, help="Last day; default: the newest.")]
Assets = Annotated[str | None, typer.Option(metavar="ASSET,…", help="Assets, separated by commas; default: all.")]
