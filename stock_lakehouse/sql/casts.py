"""Conversions between types as Athena does them, in DuckDB's SQL.

DuckDB reads other texts as numbers and days (`1_000`, `0x10`, `inf`, `2024/01/05`), rounds 2.5 to 2, ignores the length of
varchar(n), and writes doubles and times as other texts. Not here: which conversions happen without being asked for (typed.py).
"""

from __future__ import annotations

import re
from typing import Any

from stock_lakehouse.sql.typed import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    INTEGER,
    NUMBERS,
    TIMES,
    TIMESTAMP,
    TIMESTAMP_TZ,
    UNKNOWN,
    VARCHAR,
    WHOLE,
    Value,
    element_of,
    is_array,
    text_literal,
)

DUCKDB = {
    BOOLEAN: "BOOLEAN",
    INTEGER: "INTEGER",
    BIGINT: "BIGINT",
    DOUBLE: "DOUBLE",
    VARCHAR: "VARCHAR",
    DATE: "DATE",
    TIMESTAMP: "TIMESTAMP",
    TIMESTAMP_TZ: "TIMESTAMPTZ",
}
# The texts that Athena reads as a value of the type. Java reads a double with a suffix, and trims what is not above a blank.
FORMS = {
    DOUBLE: r"[+-]?(NaN|Infinity|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[dDfF]?)",
    BIGINT: r"[+-]?[0-9]+",
    INTEGER: r"[+-]?[0-9]+",
    DATE: r"[0-9]{1,4}-[0-9]{1,2}-[0-9]{1,2}",
    BOOLEAN: r"(?i:t|true|f|false|1|0)",
}
# Texts that Athena reads too, and DuckDB does not: digits of other scripts, hexadecimal doubles, years beyond four digits.
UNREAD = {
    BIGINT: r"[+-]?\p{Nd}+",
    INTEGER: r"[+-]?\p{Nd}+",
    DOUBLE: r"[+-]?0[xX][0-9a-fA-F.]+[pP][+-]?[0-9]+[dDfF]?",
    DATE: r"[+-]?[0-9]+-[0-9]{1,2}-[0-9]{1,2}",
}
TRIMMED = "".join(map(chr, range(1, 33)))
DAY_TEXT = re.compile(r"\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}\s*")
TIME_TEXT = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2} [0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?")
ZONED_TEXT = re.compile(TIME_TEXT.pattern + r" ?(UTC|Z|[+-][0-9]{2}:[0-9]{2})")


class NoSuchCastError(Exception):
    """DuckDB does not convert as Athena does, or Athena does not convert at all. The message says what to write."""


def plain(sql: str, kind: str) -> str:
    """`sql` as the DuckDB type of `kind`, for values that both engines convert alike."""
    if kind == UNKNOWN:
        return sql
    return f"CAST({sql} AS {_duckdb(kind)})"


def _duckdb(kind: str) -> str:
    return f"{_duckdb(element_of(kind))}[]" if is_array(kind) else DUCKDB[kind]


def cast(value: Value, to: Any, is_try: bool) -> Value:
    """`CAST(value AS to)`, or TRY_CAST. `to`: a type as sqlglot parses it. Raises NoSuchCastError."""
    kind, precision = target(to)
    if value.literal is not None and value.type == VARCHAR and kind in (DATE, *TIMES):
        return _literal(value, kind, precision, is_try)
    written = _converted(value, kind, precision, is_try)
    is_nan = kind == DOUBLE and (value.nan or value.type == VARCHAR)
    return Value(written, kind, is_nan, value.origin)


def target(to: Any, engine: str = "DuckDB") -> tuple[str, int | None]:
    """The type of a cast on `engine`, and its length or precision. Raises NoSuchCastError."""
    name = to.this.value if hasattr(to.this, "value") else str(to.this)
    parameters = [int(parameter.name) for parameter in to.expressions if parameter.name.isdigit()]
    precision = parameters[0] if parameters else None
    kind = {
        "BOOLEAN": BOOLEAN, "INT": INTEGER, "BIGINT": BIGINT, "DOUBLE": DOUBLE, "VARCHAR": VARCHAR, "DATE": DATE,
        "TIMESTAMP": TIMESTAMP, "TIMESTAMPTZ": TIMESTAMP_TZ,
    }.get(name)  # fmt: skip
    if name == "DECIMAL":
        raise NoSuchCastError(
            f"{engine} rounds and divides decimal numbers in another way than Athena; use double, and round(…, 2) for two places"
        )
    if kind is None:
        raise NoSuchCastError(
            f"a conversion to {name.lower()} is not run on {engine}; there are boolean, integer, bigint, double, varchar, date, "
            "timestamp, timestamp with time zone"
        )
    if kind not in (VARCHAR, *TIMES) and precision is not None:
        raise NoSuchCastError(f"{kind} has no length")
    return kind, precision


def _literal(value: Value, kind: str, precision: int | None, is_try: bool) -> Value:
    """A day or a time that is written in the query."""
    text = value.literal or ""
    if kind == DATE:
        if DAY_TEXT.fullmatch(text):
            return Value(f"{'TRY_' if is_try else ''}CAST({text_literal(text.strip())} AS DATE)", DATE)
        raise NoSuchCastError(f"{text_literal(text)} is no day; write it like 2024-01-31")
    if ZONED_TEXT.fullmatch(text):
        moment = re.sub(r" ?(UTC|Z)$", "+00:00", text)
        moment = re.sub(r" (?=[+-][0-9]{2}:[0-9]{2}$)", "", moment)
        zoned = f"CAST({text_literal(moment)} AS TIMESTAMPTZ)"
        return Value(zoned if kind == TIMESTAMP_TZ else f"CAST({zoned} AS TIMESTAMP)", kind)
    if TIME_TEXT.fullmatch(text) or DAY_TEXT.fullmatch(text):
        written = _rounded(f"CAST({text_literal(text)} AS TIMESTAMP)", precision)
        return Value(written if kind == TIMESTAMP else f"CAST({written} AS TIMESTAMPTZ)", kind)
    raise NoSuchCastError(
        f"{text_literal(text)} is no time; write it like 2024-01-31 09:30:00, with UTC after it for a zone"
    )


def _converted(value: Value, kind: str, precision: int | None, is_try: bool) -> str:
    word = "TRY_CAST" if is_try else "CAST"
    sql, source = value.sql, value.type
    if kind == VARCHAR and source != UNKNOWN:
        written = _as_text(sql, source, precision)
    elif source == UNKNOWN or (kind == source and kind not in TIMES) or (kind == DATE and source in TIMES):
        written = plain(sql, kind)
    elif source == VARCHAR and kind in FORMS:
        written = text_as(sql, kind, is_try)
    elif source == DOUBLE and kind in WHOLE:
        written = f"{word}(round({sql}) AS {DUCKDB[kind]})"
    elif source == DOUBLE and kind == BOOLEAN:
        written = f"({sql} <> 0)"
    elif source in (*NUMBERS, BOOLEAN) and kind in (*NUMBERS, BOOLEAN):
        written = f"{word}({sql} AS {DUCKDB[kind]})"
    elif source in (DATE, *TIMES) and kind in TIMES:
        moment = plain(sql, TIMESTAMP)
        rounded = moment if source == DATE else _rounded(moment, 3 if precision is None else precision)
        written = rounded if kind == TIMESTAMP else plain(rounded, TIMESTAMP_TZ)
    else:
        raise NoSuchCastError(f"a conversion of {source} to {kind} is not run on DuckDB")
    return written


def _as_text(sql: str, source: str, length: int | None) -> str:
    if source not in (VARCHAR, BOOLEAN, DATE, *WHOLE):
        raise NoSuchCastError(f"DuckDB writes a {source} as another text than Athena; format it in Python")
    text = plain(sql, VARCHAR)
    if length is None:
        return text
    if source == VARCHAR:
        return f"left({text}, {length})"
    failed = failing(text_literal(f"a value is longer than varchar({length})"), VARCHAR)
    return f"(CASE WHEN length({text}) > {length} THEN {failed} ELSE {text} END)"


def text_as(sql: str, kind: str, is_try: bool) -> str:
    """A text as a value of `kind`: what Athena cannot read is an error, or null if `is_try`."""
    text = sql if kind == BOOLEAN else f"trim({sql}, {text_literal(TRIMMED)})"
    number = f"regexp_replace({text}, '[dDfF]$', '')" if kind == DOUBLE else text
    # `x` is a number without a suffix also where its last letter is one of them, as of Infinity: it has none.
    word = "TRY_CAST" if is_try or kind == DATE else "CAST"
    read = f"{word}({number} AS {DUCKDB[kind]})"
    otherwise = "NULL" if is_try else failing(f"'Cannot cast ' || {sql} || ' to {kind}'", kind)
    if kind == DATE and not is_try:
        read = f"coalesce({read}, {otherwise})"
    foreign = failing(f"{sql} || ' is not read as {kind} on DuckDB'", kind)
    matches = f"regexp_full_match({text}, {text_literal(FORMS[kind])})"
    branches = f"WHEN {matches} THEN {read}"
    if kind in UNREAD:
        branches += f" WHEN regexp_full_match({text}, {text_literal(UNREAD[kind])}) THEN {foreign}"
    return f"(CASE WHEN {sql} IS NULL THEN NULL {branches} ELSE {otherwise} END)"


def failing(message: str, kind: str) -> str:
    """An expression of `kind` that fails the query when it is computed. `message`: an SQL expression that is no number.

    Not `error(…)`: DuckDB takes that for volatile, and then refuses TRY.
    """
    number = f"CAST({message} AS INTEGER)"
    return f"make_date({number})" if kind == DATE else plain(number, kind)


def _rounded(sql: str, precision: int | None) -> str:
    """A time rounded to `precision` digits of a second; None: as it is written."""
    if precision is None or precision >= 6:
        return sql
    unit = 10 ** (6 - precision)
    return f"make_timestamp(CAST(round(epoch_us({sql}) / {unit}e0) AS BIGINT) * {unit})"
