"""The command that asks the lake in SQL: query."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stock_lakehouse.cli.context import check_output, existing_lake, settings_of_process
from stock_lakehouse.cli.printing import as_text, aside, fail, print_data, print_table, say, size
from stock_lakehouse.cli.program import AsOf, app
from stock_lakehouse.cli.rows import XLSX_ROWS, csv_text, json_text, write_csv, write_file, write_parquet, write_xlsx

if TYPE_CHECKING:
    import pyarrow as pa

    from stock_lakehouse.sql.engine import Parameter, QueryResult

ROWS_SHOWN = 40
WRITERS = {"csv": write_csv, "parquet": write_parquet, "xlsx": write_xlsx}
SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".xlsx": "xlsx"}
Form = Literal["table", "csv", "json", "parquet", "xlsx"]


def complete_report(start: str) -> list[str]:
    from stock_lakehouse.sql.reports import reports

    return [name for name in reports() if name.startswith(start)]


@app.command()
def query(
    sql: Annotated[
        str | None, typer.Argument(metavar="SQL", help="A SELECT in Athena's dialect; `-` reads it from stdin.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the SQL from a file.")] = None,
    report: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run a report.", autocompletion=complete_report)
    ] = None,
    list_reports: Annotated[bool, typer.Option("--reports", help="List the reports and exit.")] = False,
    engine: Annotated[
        Literal["duckdb", "athena", "trino", "redshift"] | None,
        typer.Option(help="What runs it; default: the setting query_engine."),
    ] = None,
    as_of: AsOf = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help="The value of a `?`, in their order: a number, a date, a time, true, false, null, or text; text in single "
            "quotes is always text.",
        ),
    ] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="Form of the result; default: table, or the suffix of --output.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result to a file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Ask the lake in SQL: its tables, and the reports, which can be named like tables.

    On this machine DuckDB runs it, and reads nothing but the lake. A table shows the first 40 rows, every other form has all.

      stock-lakehouse query "SELECT ticker, max(close) FROM curated_stocks_daily GROUP BY ticker"
      stock-lakehouse query --report latest_signals
      stock-lakehouse query "SELECT * FROM stocks_features WHERE ticker = ?" --param NVDA --output nvda.xlsx
    """
    from stock_lakehouse.lake.reading import moment
    from stock_lakehouse.lake.storage import LakeError
    from stock_lakehouse.sql.choose import engine_of
    from stock_lakehouse.tables import CURATED

    if list_reports:
        _print_reports()
        return
    text = _text_of(sql, file, report)
    chosen: Form = form or _form_of(output)
    target = _target(output, chosen, force)
    settings = settings_of_process()
    existing_lake(settings, CURATED.name)  # whether the tables of the query may be read, its engine finds out
    try:
        at = None if as_of is None else moment(as_of)
        result = engine_of(settings, engine).run(text, [_parameter(value) for value in param or []], at)
    except LakeError as error:
        fail(str(error))
    _give(result, chosen, target)


def _text_of(sql: str | None, file: Path | None, report: str | None) -> str:
    """The SQL that is asked for in one of three ways."""
    from stock_lakehouse.sql.reports import UnknownReportError, report_named, reports

    if [sql, file, report].count(None) != 2:
        fail(
            f"give one of: SQL, --file, --report. The reports are {', '.join(reports())}; --reports says what they answer"
        )
    if report is not None:
        try:
            return report_named(report).sql
        except UnknownReportError as error:
            fail(str(error))
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fail(f"--file: {file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}")
    assert sql is not None
    return sys.stdin.read() if sql == "-" else sql


def _form_of(output: Path | None) -> Form:
    if output is None:
        return "table"
    found = SUFFIXES.get(output.suffix.lower())
    if found is None:
        fail(f"--output: {output.name} does not say its form; end it with {', '.join(SUFFIXES)}, or give --format")
    return found  # type: ignore[return-value]


def _target(output: Path | None, form: Form, force: bool) -> Path | None:
    """The file to write. Exits with a line if it may not be written, or if the form needs one."""
    if output is None:
        if form == "xlsx" or (form == "parquet" and sys.stdout.isatty()):
            fail(f"--format {form}: is no text; name a file with --output")
        return None
    if form == "table":
        fail("--output: a table is printed; give --format csv, json, parquet or xlsx")
    check_output(output, force)
    return output


def _parameter(text: str) -> Parameter:
    """The value that a text on the command line means."""
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if text.lower() in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text.lower()]
    for read in (int, float, date.fromisoformat, datetime.fromisoformat):
        try:
            value: Parameter = read(text)
        except ValueError:
            continue
        # Also texts like 20240105, 2024W011, 1_000, nan: they stay texts or numbers as SQL would write them.
        if isinstance(value, date) and "-" not in text[4:8]:
            continue
        if (
            isinstance(value, int | float)
            and not text.lstrip("+-").replace(".", "", 1).replace("e", "", 1).replace("-", "", 1).isdigit()
        ):
            continue
        return value
    return text


def _give(result: QueryResult, form: Form, target: Path | None) -> None:
    rows = result.rows
    if form in ("json", "parquet", "xlsx") and (repeated := _repeated(rows.column_names)):
        fail(f"--format {form}: two columns are named {repeated}; name them with AS")
    if form == "xlsx" and rows.num_rows > XLSX_ROWS:
        fail(
            f"--format xlsx: a sheet has at most {XLSX_ROWS:,} rows, these are {rows.num_rows:,}; write csv or parquet"
        )
    if form == "table":
        _print_rows(rows)
    elif target is not None:
        if form == "json":
            write_file(target, lambda stream: stream.write(json_text(rows).encode()))
        else:
            write_file(target, lambda stream: WRITERS[form](rows, stream))
        aside(f"{target}: {rows.num_rows:,} rows")
    elif form == "parquet":
        write_parquet(rows, sys.stdout.buffer)
    else:
        print_data(json_text(rows) if form == "json" else csv_text(rows))
    if form == "table" or result.query_id is not None:
        aside(_costs(result))


def _print_rows(rows: pa.Table) -> None:
    shown = rows.slice(0, ROWS_SHOWN)
    if shown.num_rows:
        columns = [column.to_pylist() for column in shown.columns]
        cells = [[as_text(value) for value in row] for row in zip(*columns, strict=True)]
        key = 0
        while key < len(rows.column_names) - 1 and rows.column_names[key] in ("ticker", "date"):
            key += 1
        print_table(rows.column_names, cells, max(key, 1))
    if rows.num_rows > ROWS_SHOWN:
        say(f"The first {ROWS_SHOWN} of {rows.num_rows:,} rows. All: --format csv, or --output FILE.")


def _costs(result: QueryResult) -> str:
    """What is known of the run, in a line."""
    count = result.rows.num_rows
    parts = [f"{count:,} row{'' if count == 1 else 's'} by {result.engine}, {result.seconds:.2f} s"]
    if result.scanned_bytes is not None:
        parts.append(f"{size(result.scanned_bytes)} read")
    if result.dollars is not None:
        parts.append(f"${result.dollars:.5f}")
    if result.query_id is not None:
        parts.append(f"query {result.query_id}")
    return ", ".join(parts)


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _print_reports() -> None:
    from stock_lakehouse.sql.reports import reports

    for report in reports().values():
        say(f"{report.name}\n    {report.question}\n    {report.grain}")
