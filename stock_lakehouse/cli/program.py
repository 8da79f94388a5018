"""The Typer application to which the commands are added, and the options that several commands share.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from stock_lakehouse import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stock-lakehouse {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A data platform for daily stock prices: raw, processed, curated and features, in one lake."""


def complete_table(start: str) -> list[str]:
    """The tables whose names begin with `start`, for the shell's completion."""
    from stock_lakehouse.tables import ANY_BY_NAME

    return [name for name in ANY_BY_NAME if name.startswith(start)]


def complete_ticker(start: str) -> list[str]:
    """The tickers of the settings that begin with `start`, in its case, for the shell's completion."""
    from stock_lakehouse.settings import SettingsError, load_settings

    try:
        tickers = load_settings().tickers
    except SettingsError:
        return []
    spelled = [ticker.lower() for ticker in tickers] if start.islower() else tickers
    return [ticker for ticker in spelled if ticker.startswith(start)]


DATE_OPTION: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "DATE"}
# Options of several commands.
Tickers = Annotated[str | None, typer.Option(metavar="A,B", help="Tickers, separated by commas; default: all.")]
First = Annotated[datetime | None, typer.Option("--from", **DATE_OPTION, help="First day; default: the lake's first.")]
Last = Annotated[datetime | None, typer.Option("--to", **DATE_OPTION, help="Last day; default: the newest.")]
Assets = Annotated[str | None, typer.Option(metavar="ASSET,…", help="Assets, separated by commas; default: all.")]
TableName = Annotated[
    str, typer.Argument(help="A table, like curated_stocks_daily or stocks_features.", autocompletion=complete_table)
]
AsOf = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Rows as of a moment: a date (its end, UTC) or a time like 2024-05-03T20:30."),
]
