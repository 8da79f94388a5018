"""Types of Athena, and what the translation knows about an expression.

Not here: how expressions are translated (dialect.py), and conversions (casts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

BOOLEAN, INTEGER, BIGINT, DOUBLE, VARCHAR, DATE = "boolean", "integer", "bigint", "double", "varchar", "date"
TIMESTAMP, TIMESTAMP_TZ = "timestamp", "timestamp with time zone"
DECIMAL, INTERVAL = "decimal", "interval"  # of literals alone: no other expression has these types
UNKNOWN = "unknown"  # of NULL
WHOLE = (INTEGER, BIGINT)
NUMBERS = (INTEGER, BIGINT, DOUBLE)
TIMES = (TIMESTAMP, TIMESTAMP_TZ)
WIDENING = (WHOLE, (INTEGER, DECIMAL), (BIGINT, DECIMAL), (INTEGER, DOUBLE), (BIGINT, DOUBLE), (DECIMAL, DOUBLE))
LATER = ((DATE, TIMESTAMP), (DATE, TIMESTAMP_TZ), (TIMESTAMP, TIMESTAMP_TZ))

Origin = tuple[str, str]  # a column of a table


@dataclass(frozen=True)
class Value:
    """An expression.

    - sql: in DuckDB
    - type: in Athena
    - nan: it may be NaN. Columns of the lake's tables are not: what is not known is null there.
    - origin: the columns of tables that it names
    - literal: its text, if it is a literal; of an interval, its unit
    """

    sql: str
    type: str
    nan: bool = False
    origin: frozenset[Origin] = frozenset()
    literal: str | None = None


def type_of_column(stored: str) -> str:
    """The type that a column has in Athena, from its type in Spark SQL."""
    if stored.startswith("array<"):
        return array_of(type_of_column(stored[len("array<") : -1]))
    return {"string": VARCHAR, "int": INTEGER, "timestamp": TIMESTAMP_TZ}.get(stored, stored)


def common_type(left: str, right: str) -> str | None:
    """The type to which both can be converted without being asked to; None if there is none."""
    if right in (left, UNKNOWN):
        return left
    if left == UNKNOWN:
        return right
    for narrow, wide in (*WIDENING, *LATER):
        if {narrow, wide} == {left, right}:
            return wide
    if is_array(left) and is_array(right):
        inner = common_type(element_of(left), element_of(right))
        return None if inner is None else array_of(inner)
    return None


def array_of(kind: str) -> str:
    return f"array({kind})"


def is_array(kind: str) -> bool:
    return kind.startswith("array(")


def element_of(kind: str) -> str:
    return kind[len("array(") : -1]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
