"""The functions that SQL may use on DuckDB: the signatures that Athena has, and how DuckDB computes the same.

A function that is not in these tables is refused, because nobody has compared it with Trino: a function of the same name may give
other rows (`max_by` skips nulls in DuckDB, `greatest` too, `substr(x, 0)` is not empty). Each line is compared with Trino by the
statements in stock_lakehouse_tests/sql.

Here: data. Not here: the types of expressions and the translation of queries (dialect.py).

A line is `name(arguments) result = DuckDB's SQL`; the SQL may stand on the next line. Without `=`, DuckDB has the function by the
same name.

- `{0}` is the first argument. In `result`, `!` after `double` says that the value may be NaN.
- `{fail:text}` fails the query with that text.
- Types are those of Athena. `number` is integer, bigint or double; `whole` is integer or bigint; `moment` is date, timestamp or
  timestamp with time zone; `T` is any type, the same wherever it stands; `any` is any type.
- `literal` is a text that is written in the query, such as the unit of date_trunc. `...` repeats the argument before it.
- `same` as a result is the type of the first argument; `T` the common type of the arguments of type T.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

Kind = Literal["scalar", "aggregate", "window"]

SCALAR = """
abs(number) same
ceil(whole) same = {0}
ceil(double) double
ceiling(whole) same = {0}
ceiling(double) double = ceil({0})
floor(whole) same = {0}
floor(double) double
round(whole) same = {0}
round(double) double
round(double, whole) double = round({0}, CAST({1} AS INTEGER))
truncate(double) double = trunc({0})
sign(whole) same = CAST(sign({0}) AS {type0})
sign(double) double = CAST(sign({0}) AS DOUBLE)
mod(whole, whole) T = CASE WHEN {1} = 0 THEN {fail:Division by zero} ELSE {0} % {1} END
sqrt(double) double! = CASE WHEN {0} < 0 THEN CAST('nan' AS DOUBLE) ELSE sqrt({0}) END
exp(double) double
ln(double) double! =
    CASE WHEN {0} < 0 THEN CAST('nan' AS DOUBLE) WHEN {0} = 0 THEN CAST('-inf' AS DOUBLE) ELSE ln({0}) END
log2(double) double! =
    CASE WHEN {0} < 0 THEN CAST('nan' AS DOUBLE) WHEN {0} = 0 THEN CAST('-inf' AS DOUBLE) ELSE log2({0}) END
log10(double) double! =
    CASE WHEN {0} < 0 THEN CAST('nan' AS DOUBLE) WHEN {0} = 0 THEN CAST('-inf' AS DOUBLE) ELSE log10({0}) END
power(double, double) double! = pow({0}, {1})
pow(double, double) double!
degrees(double) double
radians(double) double
sin(double) double
cos(double) double
tan(double) double
asin(double) double!
acos(double) double!
atan(double) double
atan2(double, double) double
pi() double
e() double = exp(1)
nan() double! = CAST('nan' AS DOUBLE)
infinity() double = CAST('inf' AS DOUBLE)
is_nan(double) boolean = isnan({0})
is_finite(double) boolean = isfinite({0})
is_infinite(double) boolean = isinf({0})
coalesce(T, T...) T
greatest(T, T...) T = CASE WHEN {any_null} THEN NULL ELSE greatest({all}) END
least(T, T...) T = CASE WHEN {any_null} THEN NULL ELSE least({all}) END
lower(varchar) varchar
upper(varchar) varchar = replace(upper(replace({0}, 'ß', chr(57344))), chr(57344), 'ß')
length(varchar) bigint
reverse(varchar) varchar = array_to_string(list_reverse(string_split({0}, '')), '')
replace(varchar, varchar) varchar = replace({0}, {1}, '')
replace(varchar, varchar, varchar) varchar =
    CASE WHEN {1} = '' THEN CAST({fail:replace: the replaced text is empty} AS VARCHAR) ELSE replace({0}, {1}, {2}) END
trim(varchar) varchar = trim({0}, {whitespace})
ltrim(varchar) varchar = ltrim({0}, {whitespace})
rtrim(varchar) varchar = rtrim({0}, {whitespace})
substr(varchar, whole) varchar = CASE WHEN {1} = 0 OR {1} < -length({0}) THEN '' ELSE substr({0}, {1}) END
substr(varchar, whole, whole) varchar =
    CASE WHEN {1} = 0 OR {1} < -length({0}) OR {2} <= 0 THEN '' ELSE substr({0}, {1}, {2}) END
substring(varchar, whole) varchar = CASE WHEN {1} = 0 OR {1} < -length({0}) THEN '' ELSE substr({0}, {1}) END
substring(varchar, whole, whole) varchar =
    CASE WHEN {1} = 0 OR {1} < -length({0}) OR {2} <= 0 THEN '' ELSE substr({0}, {1}, {2}) END
strpos(varchar, varchar) bigint
starts_with(varchar, varchar) boolean
lpad(varchar, whole, varchar) varchar = lpad({0}, CAST({1} AS INTEGER), {2})
rpad(varchar, whole, varchar) varchar = rpad({0}, CAST({1} AS INTEGER), {2})
concat(varchar, varchar...) varchar = {joined}
concat_ws(varchar, varchar...) varchar
split(varchar, varchar) array(varchar) = string_split({0}, {1})
split_part(varchar, varchar, whole) varchar =
    list_extract(string_split({0}, {1}), CASE WHEN {2} > 0 THEN {2} ELSE {fail:Index must be greater than zero} END)
codepoint(varchar) integer = unicode({0})
chr(whole) varchar = chr(CAST({0} AS INTEGER))
regexp_like(varchar, searched) boolean = regexp_matches({0}, {1})
regexp_extract(varchar, pattern) varchar = CASE WHEN regexp_matches({0}, {1}) THEN regexp_extract({0}, {1}) END
regexp_replace(varchar, replaced) varchar = regexp_replace({0}, {1}, '', 'g')
regexp_replace(varchar, replaced, replacement) varchar = regexp_replace({0}, {1}, {2}, 'g')
year(moment) bigint = CAST(year({0}) AS BIGINT)
quarter(moment) bigint = CAST(quarter({0}) AS BIGINT)
month(moment) bigint = CAST(month({0}) AS BIGINT)
week(moment) bigint = CAST(week({0}) AS BIGINT)
week_of_year(moment) bigint = CAST(week({0}) AS BIGINT)
day(moment) bigint = CAST(day({0}) AS BIGINT)
day_of_month(moment) bigint = CAST(day({0}) AS BIGINT)
day_of_week(moment) bigint = CAST(isodow({0}) AS BIGINT)
dow(moment) bigint = CAST(isodow({0}) AS BIGINT)
day_of_year(moment) bigint = CAST(dayofyear({0}) AS BIGINT)
doy(moment) bigint = CAST(dayofyear({0}) AS BIGINT)
year_of_week(moment) bigint = CAST(isoyear({0}) AS BIGINT)
yow(moment) bigint = CAST(isoyear({0}) AS BIGINT)
hour(time) bigint = CAST(hour({0}) AS BIGINT)
minute(time) bigint = CAST(minute({0}) AS BIGINT)
second(time) bigint = CAST(second({0}) AS BIGINT)
millisecond(time) bigint = CAST(millisecond({0}) % 1000 AS BIGINT)
date(moment) date = CAST({0} AS DATE)
date(varchar) date = {text_as_date}
from_iso8601_date(varchar) date = {text_as_date}
last_day_of_month(moment) date = last_day(CAST({0} AS DATE))
date_trunc(day_unit, date) date = CAST(date_trunc({0}, {1}) AS DATE)
date_trunc(time_unit, time) T1 = date_trunc({0}, {1})
date_add(day_unit, whole, date) date = CAST({1_units_after_2} AS DATE)
date_add(added_unit, whole, time) T2 = {1_units_after_2}
date_diff(day_unit, date, date) bigint = date_sub({0}, {1}, {2})
date_diff(time_unit, time, time) bigint = date_sub({0}, {1}, {2})
date_format(moment, format) varchar = strftime({0}, {1})
to_unixtime(timestamp with time zone) double = epoch({0})
from_unixtime(double) timestamp with time zone = to_timestamp(floor({0} * 1000 + 0.5) / 1000)
now() timestamp with time zone
cardinality(array) bigint = CAST(len({0}) AS BIGINT)
array_join(array(varchar), varchar) varchar = array_to_string({0}, {1})
array_sort(array) same = list_sort({0}, 'ASC', 'NULLS LAST')
element_at(array, whole) element = {element}
"""

# `wrap` of an aggregate: after the bar, what is applied to its result, outside of FILTER and OVER.
AGGREGATE = """
count(any) bigint
count_if(boolean) bigint = count_if({0}) | CAST({result} AS BIGINT)
sum(whole) bigint = sum({0}) | CAST({result} AS BIGINT)
sum(double) double
avg(number) double
min(T) same
max(T) same
min_by(any, T) same = arg_min_null({0}, {1})
max_by(any, T) same = arg_max_null({0}, {1})
any_value(any) same
arbitrary(any) same = any_value({0})
bool_and(boolean) boolean
every(boolean) boolean = bool_and({0})
bool_or(boolean) boolean
stddev(double) double
stddev_samp(double) double
stddev_pop(double) double
variance(double) double = var_samp({0})
var_samp(double) double
var_pop(double) double
covar_samp(double, double) double
covar_pop(double, double) double
corr(double, double) double | CASE WHEN isnan({result}) THEN NULL ELSE {result} END
regr_slope(double, double) double | CASE WHEN isnan({result}) THEN NULL ELSE {result} END
regr_intercept(double, double) double | CASE WHEN isnan({result}) THEN NULL ELSE {result} END
array_agg(any) array
listagg(varchar, varchar) varchar = listagg({0}, {1})
"""

WINDOW = """
row_number() bigint
rank() bigint
dense_rank() bigint
percent_rank() double
cume_dist() double
ntile(whole) bigint
lag(any) same
lag(any, whole) same
lag(T, whole, T) same
lead(any) same
lead(any, whole) same
lead(T, whole, T) same
first_value(any) same
last_value(any) same
nth_value(any, whole) same
"""

# Why a function that Athena has is not here, where there is more to say than that nobody compared it.
REASONS = {
    "approx_percentile": "DuckDB estimates another value; there is no exact percentile in Athena",
    "approx_distinct": "it is an estimate, and DuckDB's is another one; write count(DISTINCT …)",
    "contains": "DuckDB gives false where Athena gives null; write cardinality(filter(…)) in Athena, or UNNEST here",
    "array_position": "DuckDB gives null where Athena gives 0",
    "array_distinct": "DuckDB gives another order; write SELECT DISTINCT over UNNEST",
    "slice": "its third argument is a length in Athena and an end in DuckDB",
    "format": "text is formatted in another way; format in Python",
    "to_iso8601": "text is formatted in another way; format in Python",
    "format_datetime": "DuckDB has no Joda formats; use date_format",
    "date_parse": "DuckDB reads other texts; use CAST(… AS date) for ISO days",
    "typeof": "DuckDB names types in another way",
    "random": "it gives other rows each time",
    "rand": "it gives other rows each time",
    "uuid": "it gives other rows each time",
    "cbrt": "DuckDB's last digits are others; write power(x, 1e0 / 3)",
    "skewness": "DuckDB uses another formula",
    "kurtosis": "DuckDB uses another formula",
    "histogram": "the result is a map",
    "map_agg": "the result is a map",
}


@dataclass(frozen=True)
class Signature:
    """One form of a function.

    - arguments: the types, as written in the tables; `repeats`: the last one may stand any number of times
    - result: the type of the result; `nan`: it may be NaN although no argument is
    - template: DuckDB's SQL; `wrap`: what is applied outside of FILTER and OVER, or None
    """

    name: str
    kind: Kind
    arguments: tuple[str, ...]
    repeats: bool
    result: str
    nan: bool
    template: str
    wrap: str | None

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)}{', …' if self.repeats else ''})"


LINE = re.compile(r"(\w+)\((.*?)\) (timestamp with time zone|[\w()]+)(!?)(?: = (.*?))?(?: \| (.*))?$")


@cache
def signatures() -> dict[str, list[Signature]]:
    """The signatures of each function on DuckDB, by its name in lower case."""
    return signatures_of(SCALAR, AGGREGATE, WINDOW)


def signatures_of(scalar: str, aggregate: str, window: str) -> dict[str, list[Signature]]:
    """The signatures in three tables, a line each, by the function's name in lower case."""
    found: dict[str, list[Signature]] = {}
    kinds: tuple[tuple[Kind, str], ...] = (("scalar", scalar), ("aggregate", aggregate), ("window", window))
    for kind, lines in kinds:
        for line in lines.replace("=\n   ", "=").strip().splitlines():
            matched = LINE.match(line)
            assert matched is not None, line
            name, written, result, nan, template, wrap = matched.groups()
            arguments = [argument.strip() for argument in written.split(",")] if written else []
            repeats = bool(arguments) and arguments[-1].endswith("...")
            plain = tuple(argument.removesuffix("...") for argument in arguments)
            found.setdefault(name, []).append(
                Signature(name, kind, plain, repeats, result, bool(nan), template or f"{name}({{all}})", wrap)
            )
    return found
