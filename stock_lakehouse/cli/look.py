"""Commands that read the lake: status, show, restatements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stock_lakehouse.cli.context import engine, existing_lake, settings_of_process
from stock_lakehouse.cli.outcome import print_tables
from stock_lakehouse.cli.printing import as_text, fail, print_data, print_rows, print_table, say
from stock_lakehouse.cli.program import AsOf, First, Last, TableName, app, complete_ticker
from stock_lakehouse.cli.rows import chosen_rows, csv_text, json_text, spelled

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
    existing_lake(settings)
    tables = _status(settings)
    if as_json:
        typer.echo(json.dumps([table.as_json() for table in tables], default=str, indent=2))
        return
    print_tables(tables)
    outdated = sum(table.outdated for table in tables)
    rows = [
        (
            *(
                table.table,
                as_text(ticker),
                f"{held.rows:,}",
                as_text(held.first),
                as_text(held.last),
                f"{held.missing:,}",
            ),
            *((f"{held.outdated:,}",) if outdated else ()),
        )
        for table in tables
        for ticker, held in table.tickers.items()
    ]
    names = ("table", "ticker", "rows", "first", "last", "missing", *(("outdated",) if outdated else ()))
    print_table(names, rows, key=2)
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
    table: TableName,
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.", autocompletion=complete_ticker)],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest rows.")] = 10,
    first_day: First = None,
    last_day: Last = None,
    as_of: AsOf = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of rows.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For programs: CSV with a header.")] = False,
) -> None:
    """The newest rows of a ticker, as they are or as they were. `export` writes whole tables to files."""
    from stock_lakehouse.tables import QUARANTINE

    if as_json and as_csv:
        fail("--json, --csv: give one of them")
    settings = settings_of_process()
    name = spelled(ticker)
    rows = chosen_rows(settings, table, [ticker], first_day, last_day, as_of)
    newest = rows.slice(max(rows.num_rows - last, 0))
    if as_json or as_csv:
        print_data(json_text(newest) if as_json else csv_text(newest))
        return
    if not newest.num_rows:
        then = f" of {as_of}" if as_of else ""
        say(f"{table} holds no row of {name}{then}.")
        return
    key = ("ticker", "date", *(("file", "line_number", "reasons") if table == QUARANTINE.name else ()))
    names = dict.fromkeys(column for column in (*key, *newest.column_names) if column in newest.column_names)
    shown = newest.to_pylist()
    if table == QUARANTINE.name:  # most of its columns are null in most rows
        names = {name: None for name in names if name in key or any(row[name] is not None for row in shown)}
    print_rows([{name: as_text(row[name]) for name in names} for row in shown])


@app.command()
def restatements(
    ticker: Annotated[str, typer.Argument(help="A ticker, like NVDA.", autocompletion=complete_ticker)],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest lines.")] = 20,
) -> None:
    """Published values of a ticker that later changed: old and new value, cause and run."""
    from stock_lakehouse.tables import RESTATEMENTS

    settings = settings_of_process()
    lake = existing_lake(settings, RESTATEMENTS.name)
    with engine(settings, RESTATEMENTS.name) as spark:
        from stock_lakehouse.lake.status import restatement_lines

        lines = restatement_lines(lake, spark, ticker.upper(), last)
    if not lines:
        chosen_rows(
            settings, RESTATEMENTS.name, [ticker], None, None, None
        )  # fails if the lake does not know the ticker
        say(f"No published value of {ticker.upper()} has changed.")
        return
    print_rows([{name: as_text(value) for name, value in line.items()} for line in lines])


def _status(settings: Settings) -> list[TableStatus]:
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.status import status as read_status

    with engine(settings) as spark:
        return read_status(Lake(settings.lake_options), spark, settings.calendar, settings.tickers)
