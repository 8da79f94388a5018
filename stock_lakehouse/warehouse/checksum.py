"""The checksum of a ticker-year: its rows, and two sums of 32 bits of the MD5 of each row's text, as SQL of several engines.

Here: the SQL. Not here: what is compared with it (agreement.py).

The text of a row is made of whole numbers alone, so no engine's formatting or rounding of numbers counts. A double is a letter
and two whole numbers: with |x| scaled by a power of two, the part before the point and 54 binary digits after it. Both steps are
exact in IEEE arithmetic. The letter names the power:

- s, for |x| < 2^-22: 2^84. Digits below 2^-138 are left out; so 0 and -0 are equal, and so are all values closer to 0 than that.
- m, for |x| < 2^42: 2^20
- l, for |x| < 2^106: 2^-44
- h: any other, with its sign alone. The audits refuse infinity and NaN, so the tables have neither.

Two doubles of s (from 2^-86 on), m or l have the same text only if they are equal.

A date is year * 10,000 + month * 100 + day, a time is written to the microsecond in UTC, a text has its length before it, and a
null is ~. So two rows have the same text only if all their values are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stock_lakehouse.schemas import Column
from stock_lakehouse.warehouse.tables import sql

# Redshift's whole numbers have 63 bits, so 2^84 is written as a product. Multiplication by powers of two is exact.
POWER_84 = "1048576*1048576*1048576*1048576*16"
TWO_42, TWO_44, TWO_54, TWO_62 = 1 << 42, 1 << 44, 1 << 54, 1 << 62


@dataclass(frozen=True)
class Dialect:
    """What an engine's SQL has of its own.

    - text: the type of texts
    - time: the text of a timestamp to the microsecond, in UTC; the session's time zone must be UTC
    - number: the value of eight hexadecimal digits
    - quote: around a name
    """

    text: str
    time: Callable[[str], str]
    number: Callable[[str], str]
    quote: str = '"'

    def name(self, name: str) -> str:
        """`name` in quotes."""
        return f"{self.quote}{name.replace(self.quote, self.quote * 2)}{self.quote}"


REDSHIFT = Dialect(
    "VARCHAR",
    lambda value: f"TO_CHAR({value}, 'YYYY-MM-DD HH24:MI:SS.US')",
    lambda digits: f"STRTOL({digits}, 16)",
)
DUCKDB = Dialect(
    "VARCHAR",
    lambda value: f"STRFTIME({value}, '%Y-%m-%d %H:%M:%S.%f')",
    lambda digits: f"CAST('0x' || {digits} AS BIGINT)",
)
SPARK = Dialect(
    "STRING",
    lambda value: f"DATE_FORMAT({value}, 'yyyy-MM-dd HH:mm:ss.SSSSSS')",
    lambda digits: f"CAST(CONV({digits}, 16, 10) AS BIGINT)",
    "`",
)


@dataclass(frozen=True)
class Checksum:
    """Of the rows of a ticker-year.

    - rows: how many
    - first, second: sums over the rows
    """

    rows: int
    first: int
    second: int


def checksums_sql(columns: Sequence[Column], source: str, dialect: Dialect) -> str:
    """A SELECT of ticker, year, row_count, checksum_1 and checksum_2 of each ticker-year of `source`.

    - columns: those that count, in this order; ticker and year are among them
    - source: a table, or a query in parentheses

    The columns have short names inside, because the text grows with their number: about 0.5 KB for a double.
    """
    ticker, year = (dialect.name(name) for name in ("ticker", "year"))
    short = {column.name: f"c{place}" for place, column in enumerate(columns)}
    key = f"{short['ticker']}, {short['year']}"
    doubles = [short[column.name] for column in columns if column.type == "double"]
    named = ", ".join(f"{dialect.name(column.name)} AS {short[column.name]}" for column in columns)
    banded = _with(_rows(named, source, 0), short.values(), doubles, _band, "b", 1)
    scaled = _with(banded, [*short.values(), *(f"b{name}" for name in doubles)], doubles, _scaled, "s", 2)
    texts = " || '|' || ".join(_text(column, short[column.name], dialect) for column in columns)
    digests = _rows(f"{key}, MD5({texts}) AS digest", scaled, 3)
    halves = ", ".join(
        f"{dialect.number(f'SUBSTRING(digest, {start}, 8)')} AS half_{place}" for place, start in ((1, 1), (2, 9))
    )
    found = (
        f"{short['ticker']} AS {ticker}, {short['year']} AS {year}, COUNT(*) AS row_count, "
        "CAST(SUM(half_1) AS BIGINT) AS checksum_1, CAST(SUM(half_2) AS BIGINT) AS checksum_2"
    )
    return sql("SELECT", found, "FROM", _rows(f"{key}, {halves}", digests, 4), "GROUP BY", key)


def _rows(columns: str, source: str, level: int) -> str:
    """`columns` of `source`, as a source of the next level."""
    return sql("(SELECT", columns, "FROM", f"{source}) AS rows_{level}")


def _with(
    source: str, names: Iterable[str], doubles: Iterable[str], made: Callable[[str], str], prefix: str, level: int
) -> str:
    """`source` with a further column for each double."""
    more = [f"{made(name)} AS {prefix}{name}" for name in doubles]
    return _rows(", ".join([*names, *more]), source, level)


def _band(name: str) -> str:
    """The letter of a double; null for null.

    A comparison comes before the multiplication that could overflow. NaN is greater than every number in some engines and not
    comparable in others, so it is below none of the bounds.
    """
    size = f"ABS({name})"
    return (
        f"CASE WHEN {size} < 1 THEN CASE WHEN {size} * 4194304 < 1 THEN 's' ELSE 'm' END WHEN {size} < {TWO_42} THEN 'm' "
        f"WHEN {size} / {TWO_62} < {TWO_44} THEN 'l' WHEN {name} IS NOT NULL THEN 'h' END"
    )


def _scaled(name: str) -> str:
    """|x| times the power of its letter; 0 for a letter without one."""
    return (
        f"CASE b{name} WHEN 's' THEN ABS({name})*{POWER_84} WHEN 'm' THEN ABS({name})*1048576 "
        f"WHEN 'l' THEN ABS({name})/{TWO_44} ELSE 0 END"
    )


def _text(column: Column, name: str, dialect: Dialect) -> str:
    def whole(value: str) -> str:
        return f"CAST(CAST({value} AS BIGINT) AS {dialect.text})"

    scaled = f"s{name}"
    texts = {
        "string": f"CAST(LENGTH({name}) AS {dialect.text}) || ':' || {name}",
        "double": f"CASE WHEN {name} < 0 THEN '-' ELSE '' END || b{name} || {whole(f'FLOOR({scaled})')} || '.' || "
        + whole(f"FLOOR(({scaled} - FLOOR({scaled})) * {TWO_54})"),
        "bigint": f"CAST({name} AS {dialect.text})",
        "int": f"CAST({name} AS {dialect.text})",
        "boolean": f"CASE WHEN {name} THEN '1' WHEN NOT {name} THEN '0' END",
        # CAST(… AS BIGINT) rounds in some engines and cuts in others, but parts of a date are whole numbers.
        "date": whole(
            f"EXTRACT(YEAR FROM {name}) * 10000 + EXTRACT(MONTH FROM {name}) * 100 + EXTRACT(DAY FROM {name})"
        ),
        "timestamp": dialect.time(name),
    }
    return f"COALESCE({texts[column.type]}, '~')"
