"""Values between Python and Athena's SQL: parameters as literals, and answers as Arrow columns.

Not here: a query's text (dialect.py), and the calls of an engine (athena.py, trino.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from stock_lakehouse.sql.engine import Parameter, QueryRefusedError

if TYPE_CHECKING:
    import pyarrow as pa

BIGINT = 1 << 63
NESTED = ("array", "map", "row")  # Athena writes their values as text from which they cannot be read back
TYPE = re.compile(r"(?P<name>[a-z]+)(?:\((?P<size>[^()]*)\))?(?P<rest>(?: with(?:out)? time zone| to \w+)*)")
PLAIN = {
    "boolean": "bool_",
    "tinyint": "int8",
    "smallint": "int16",
    "integer": "int32",
    "int": "int32",
    "bigint": "int64",
    "real": "float32",
    "float": "float32",
    "double": "float64",
    "date": "date32",
    "varbinary": "binary",
    "unknown": "null",
}


def literals(parameters: Sequence[Parameter]) -> list[str]:
    """`parameters` as SQL literals of Athena and Trino. Raises QueryRefusedError for a value that no literal has."""
    return [_literal(value, place) for place, value in enumerate(parameters, start=1)]


def _literal(value: Parameter, place: int) -> str:
    match value:
        case None:
            text = "NULL"
        case bool():
            text = "true" if value else "false"
        case int():
            if not -BIGINT <= value < BIGINT:
                raise QueryRefusedError(f"parameter {place}: {value} does not fit a bigint")
            text = str(value)
        case float():
            if not math.isfinite(value):
                raise QueryRefusedError(f"parameter {place}: {value} has no literal in SQL")
            number, _, exponent = repr(value).partition("e")
            text = f"{number}E{int(exponent or 0)}"  # without an exponent the literal would be a decimal
        case datetime() if value.tzinfo is not None:
            text = f"TIMESTAMP '{_moment(value.astimezone(UTC))} UTC'"
        case datetime():
            text = f"TIMESTAMP '{_moment(value)}'"
        case date():
            text = f"DATE '{value.isoformat()}'"
        case str():
            text = "'" + value.replace("'", "''") + "'"
        case _:
            raise QueryRefusedError(f"parameter {place}: a {type(value).__name__} cannot be a parameter of a query")
    return text


def _moment(value: datetime) -> str:
    digits = "milliseconds" if value.microsecond % 1000 == 0 else "microseconds"
    return value.replace(tzinfo=None).isoformat(" ", digits)


def arrow_type(name: str, precision: int = 0, scale: int = 0) -> pa.DataType:
    """The Arrow type of an SQL type like `varchar(4)` or `timestamp(3) with time zone`.

    `precision`, `scale`: of a decimal whose name does not have them. A type without a counterpart in Arrow (json, time, interval)
    is text. Nested types are those of `array(…)`; a map and a row are text.
    """
    import pyarrow as pa

    if name.startswith("array(") and name.endswith(")"):
        return pa.list_(arrow_type(name.removeprefix("array(")[:-1]))
    found = TYPE.fullmatch(name)
    if found is None:
        return pa.string()
    kind, size = found["name"], found["size"]
    if kind == "decimal":
        digits = [int(part) for part in size.split(",")] if size else [precision or 38, scale]
        return pa.decimal128(*digits)
    if kind == "timestamp":
        return pa.timestamp("us", "UTC" if found["rest"] == " with time zone" else None)
    return getattr(pa, PLAIN[kind])() if kind in PLAIN else pa.string()


def column_from_text(texts: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column in type `kind`, from the texts that Athena writes. Nulls stay nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(kind):
        return texts
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(texts))])
    if pa.types.is_binary(kind):  # as `0a ff`
        octets = [None if text is None else bytes.fromhex(text) for text in texts.to_pylist()]
        return pa.chunked_array([pa.array(octets, kind)])
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        if pc.all(pc.ends_with(texts, " UTC"), min_count=0).as_py():
            return pc.assume_timezone(pc.utf8_slice_codeunits(texts, 0, -4).cast(pa.timestamp("us")), "UTC")
        moments = [None if text is None else _zoned(text) for text in texts.to_pylist()]
        return pa.chunked_array([pa.array(moments, kind)])
    return texts.cast(kind)


def _zoned(text: str) -> datetime:
    """The moment of `2024-05-03 09:30:00.000 America/New_York`; the zone may be `+02:00` too."""
    from zoneinfo import ZoneInfo

    moment, _, zone = text.rpartition(" ")
    if zone[0] in "+-":
        return datetime.fromisoformat(moment + zone)
    return datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))


def table_of(names: Sequence[str], columns: Sequence[Any]) -> pa.Table:
    """A table whose column names may repeat, as in SQL."""
    import pyarrow as pa

    return pa.Table.from_arrays(list(columns), names=list(names))


def plain(rows: pa.Table) -> pa.Table:
    """`rows` with decimals as doubles and bytes as text, in which those that are not UTF-8 are written as escapes."""
    import pyarrow as pa

    for place, field in enumerate(rows.schema):
        if pa.types.is_decimal(field.type):
            # By their text: pyarrow's own cast is one bit off for some prices (415.829987 becomes 415.82998699999996).
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.string()).cast(pa.float64()))
        elif pa.types.is_binary(field.type):
            texts = [
                None if it is None else it.decode(errors="backslashreplace") for it in rows.column(place).to_pylist()
            ]
            rows = rows.set_column(place, field.name, pa.array(texts, pa.string()))
    return rows
