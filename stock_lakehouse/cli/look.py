"""Commands that read the lake: status, show, restatements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import engine, settings_of_process
from stock_lakehouse.cli.outcome import print_tables
from stock_lakehouse.cli.printing import as_text, fail, new_grid, print_grid, print_rows, say
from stock_lakehouse.cli.program import app

if TYPE_CHECKING:
    from stock_lakehouse.lake.status import TableStatus, TickerStatus
    from stock_lakehouse.settings import Settings

SHOWN_TICKERS = 20


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What each table holds: rows, sessions, sessions missing against the calendar, rows by older formulas, bytes, version.

    Names the tickers of the settings that have no bar.
    """
    from stock_lakehouse.tables import CURATED, QUARANTINE

    settings = settings_of_process()
    tables = _status(settings)
    if as_json:
        typer.echo(json.dumps([table.as_json() for table in tables], default=str, indent=2))
        return
    print_tables(tables)
    detail = new_grid("table", "ticker", "rows", "first session", "last session", "missing", "outdated")
    for table in tables:
        for ticker, held in table.tickers.items():
            figures = (str(held.first), str(held.last), str(held.missing), str(held.outdated))
            detail.add_row(table.table, ticker, f"{held.rows:,}", *figures)
    print_grid(detail)
    outdated = sum(table.outdated for table in tables)
    if outdated:
        say(f"{outdated:,} rows of features are by older formulas; `stock-lakehouse backfill` computes them again.")
    absent = next(table.absent for table in tables if table.table == CURATED.name)
    if absent:
        refused = next(table.tickers for table in tables if table.table == QUARANTINE.name)
        say(f"Tickers of the settings without any bar: {_without_bars(absent, refused)}.")
        say(
            f"  to do: `stock-lakehouse doctor` shows what the source has; `stock-lakehouse show {QUARANTINE.name} TICKER` "
            "shows what was refused"
        )
    removed = sorted({ticker for table in tables for ticker, held in table.tickers.items() if held.removed})
    if removed:
        say(
            f"No longer in the settings, and kept as they are: {', '.join(removed)}. Runs do not change their rows; "
            "to continue with a ticker, put it back into `tickers`."
        )


def _without_bars(absent: Sequence[str], refused: Mapping[str, TickerStatus]) -> str:
    """The tickers with their rows in the quarantine, and the rows in it whose ticker could not be read."""
    from stock_lakehouse.sources.file_report import rows_in_words
    from stock_lakehouse.tables import UNREADABLE

    def named(ticker: str) -> str:
        return f"{ticker} ({rows_in_words(refused[ticker].rows)} in quarantine)" if ticker in refused else ticker

    names = ", ".join(map(named, absent[:SHOWN_TICKERS]))
    more = f" and {len(absent) - SHOWN_TICKERS:,} more" if len(absent) > SHOWN_TICKERS else ""
    unread = (
        f"; of {UNREADABLE} {rows_in_words(refused[UNREADABLE].rows)} in quarantine" if UNREADABLE in refused else ""
    )
    return f"{names}{more}{unread}"


@app.command()
def show(
    table: Annotated[str, typer.Argument(help="A table, like curated_stocks_daily or stocks_features.")],
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest rows.")] = 10,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Rows as of a moment: a date (its end, UTC) or a time like 2024-05-03T20:30."
        ),
    ] = None,
) -> None:
    """The newest rows of a ticker, as they are or as they were."""
    from stock_lakehouse.lake.reading import read_table
    from stock_lakehouse.lake.storage import LakeError
    from stock_lakehouse.tables import QUARANTINE, UNREADABLE

    settings_of_process()
    # The spelling of `status`: __unreadable__ in lower case, tickers in upper case.
    name = ticker.lower() if ticker.lower() == UNREADABLE else ticker.upper()
    try:
        rows = read_table(table, tickers=ticker, as_of=as_of)
    except LakeError as error:
        fail(str(error))
    if not rows.num_rows:
        then = f" of {as_of}" if as_of else ""
        fail(f"TICKER: {table} holds no row of {name}{then}; `stock-lakehouse status` lists what it holds")
    key = ("ticker", "date", *(("file", "line_number", "reasons") if table == QUARANTINE.name else ()))
    names = dict.fromkeys(column for column in (*key, *rows.column_names) if column in rows.column_names)
    newest = rows.select(list(names)).slice(max(rows.num_rows - last, 0)).to_pylist()
    if table == QUARANTINE.name:  # most of its columns are null in most rows
        names = {name: None for name in names if name in key or any(row[name] is not None for row in newest)}
    print_rows([{name: as_text(row[name]) for name in names} for row in newest])


@app.command()
def restatements(
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest lines.")] = 20,
) -> None:
    """Published values of a ticker that later changed: old and new value, cause and run."""
    from stock_lakehouse.tables import RESTATEMENTS

    settings = settings_of_process()
    with engine(settings, RESTATEMENTS.name) as spark:
        from stock_lakehouse.lake import Lake
        from stock_lakehouse.lake.status import restatement_lines

        lines = restatement_lines(Lake(settings.lake_options), spark, ticker.upper(), last)
    if not lines:
        say(f"No published value of {ticker.upper()} has changed.")
        return
    print_rows([{name: as_text(value) for name, value in line.items()} for line in lines])


def _status(settings: Settings) -> list[TableStatus]:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.status import status as read_status

    with engine(settings) as spark:
        return read_status(Lake(settings.lake_options), spark, settings.calendar, settings.tickers)
