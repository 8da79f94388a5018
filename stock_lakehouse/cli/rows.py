"""The rows that `show`, `export` and `query` are asked for, and the files and texts that they are written to.

Not here: reading a table (lake/reading.py), and the commands (look.py, export.py, query.py).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stock_lakehouse.cli.context import day_of, existing_lake
from stock_lakehouse.cli.printing import fail

if TYPE_CHECKING:
    import pyarrow as pa

    from stock_lakehouse.settings import Settings

XLSX_ROWS = 1_048_575  # of a sheet, without its header
XLSX_TEXT = 32_767  # characters of a cell


def spelled(ticker: str) -> str:
    """A ticker as the lake spells it: upper case, and __unreadable__ in lower case."""
    from stock_lakehouse.tables import UNREADABLE

    return UNREADABLE if ticker.lower() == UNREADABLE else ticker.upper()


def chosen_rows(
    settings: Settings,
    table: str,
    tickers: Sequence[str] | None,
    first: datetime | None,
    last: datetime | None,
    as_of: str | None,
) -> pa.Table:
    """Rows of a table, sorted by ticker and day: of `tickers` (None: all), of the days from `first` to `last`, as of a moment.

    Prices of the stream are doubles, and its messages text, as in SQL.
    Exits with a line for what does not exist: the lake, the table, a ticker, the moment.
    """
    from stock_lakehouse.lake import Lake
    from stock_lakehouse.lake.reading import read_table, table_of
    from stock_lakehouse.lake.storage import LakeError
    from stock_lakehouse.sql.values import plain

    try:
        stored = table_of(Lake(settings.lake_options), table)
        existing_lake(settings, *(stored.made_from if stored.layer == "view" else (table,)))
        return plain(read_table(table, tickers=tickers, first=day_of(first), last=day_of(last), as_of=as_of))
    except LakeError as error:
        fail(str(error))


def json_text(rows: pa.Table) -> str:
    """The rows as a JSON list of objects. Days and times are ISO text; null and NaN are null."""
    plain = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in rows.to_pylist()
    ]
    return json.dumps(plain, default=lambda value: value.isoformat(), indent=2)


def csv_text(rows: pa.Table) -> str:
    """The rows as CSV with a header. A list is joined by `; `, null is an empty cell."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    write_csv(rows, sink)
    return str(sink.getvalue().to_pybytes().decode())


def write_csv(rows: pa.Table, file: Any) -> None:
    import pyarrow.csv

    pyarrow.csv.write_csv(_with_joined_lists(rows), file)


def write_parquet(rows: pa.Table, file: BinaryIO) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(rows, file)


def write_xlsx(rows: pa.Table, file: BinaryIO) -> None:
    """One sheet with typed cells. Delivered text stays text. Times are in UTC, because Excel has no zones."""
    import xlsxwriter

    book = xlsxwriter.Workbook(file, {"constant_memory": True, "remove_timezone": True})
    sheet = book.add_worksheet()
    bold = book.add_format({"bold": True})
    formats = {
        date: book.add_format({"num_format": "yyyy-mm-dd"}),
        datetime: book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
    }
    sheet.freeze_panes(1, 0)
    for place, name in enumerate(rows.column_names):
        sheet.write_string(0, place, name, bold)
        sheet.set_column(place, place, max(len(name), 11))
    number = 0
    for batch in _with_joined_lists(rows).to_batches():
        for row in batch.to_pylist():
            number += 1
            for place, value in enumerate(row.values()):
                if isinstance(value, str):
                    sheet.write_string(
                        number, place, value if len(value) <= XLSX_TEXT else value[: XLSX_TEXT - 1] + "…"
                    )
                elif value is not None and not (isinstance(value, float) and not math.isfinite(value)):
                    sheet.write(number, place, value, formats.get(type(value)))
    book.close()


def write_file(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write `target` by `write`. It appears when it is complete, so no half file is read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with hidden.open("wb") as file:
            write(file)
        hidden.replace(target)
    finally:
        hidden.unlink(missing_ok=True)


def _with_joined_lists(rows: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            rows = rows.set_column(place, field.name, pc.binary_join(rows[field.name], "; "))
    return rows
