"""The command that writes a table to a file: export."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from stock_lakehouse.cli.context import check_output, settings_of_process, tickers_in
from stock_lakehouse.cli.printing import aside, fail
from stock_lakehouse.cli.program import AsOf, First, Last, TableName, Tickers, app
from stock_lakehouse.cli.rows import XLSX_ROWS, chosen_rows, write_csv, write_file, write_parquet, write_xlsx

WRITERS = {"csv": write_csv, "parquet": write_parquet, "xlsx": write_xlsx}


@app.command()
def export(
    table: TableName,
    form: Annotated[Literal["csv", "parquet", "xlsx"], typer.Option("--format", help="Form of the file.")] = "csv",
    tickers: Tickers = None,
    first: First = None,
    last: Last = None,
    as_of: AsOf = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; default: TABLE.FORMAT, here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the rows of a table to a file, as they are or as they were. The columns keep their types.

    Delivered text (raw, quarantine) is written as it was delivered, and a spreadsheet runs a formula in a CSV file; in xlsx it
    stays text.
    """
    settings = settings_of_process()
    target = output or Path(f"{table}.{form}")
    check_output(target, force)
    if form == "xlsx" and find_spec("xlsxwriter") is None:
        fail("--format xlsx: needs XlsxWriter; install it with: pip install XlsxWriter")
    try:
        names = None if tickers is None else tickers_in(tickers)
    except ValueError as error:
        fail(str(error))
    rows = chosen_rows(settings, table, names, first, last, as_of)
    if form == "xlsx" and rows.num_rows > XLSX_ROWS:
        fail(
            f"--format xlsx: a sheet has at most {XLSX_ROWS:,} rows, these are {rows.num_rows:,}; narrow them with --tickers, "
            "--from and --to, or write csv or parquet"
        )
    write_file(target, lambda file: WRITERS[form](rows, file))
    aside(f"{target}: {rows.num_rows:,} rows")
