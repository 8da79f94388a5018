"""The functions that SQL may use on Redshift: the signatures that Athena has, and how Redshift computes the same.

A function that is not in these tables is refused, because nobody has shown that it gives the same rows: of the functions of the
same name Redshift's `round` rounds in its own way, `split_part` gives an empty text where Athena gives null, and `datediff`
counts boundaries. Each line is compared with Trino's answers on the tests' server, and on PostgreSQL where that has the function
too.

Here: data. Not here: functions that need more than a template (redshift_dialect.py). The form of the tables is that of
functions.py, and besides:

- `text` is a text that is written in the query and not empty; `counted` a whole number from 1, `digits` one from 0, written too
- `{unit}` is a unit of time as a word; `{condition}` a condition together with that of FILTER
- `{0}` of an aggregate has its DISTINCT, and the CASE of its FILTER
"""

from __future__ import annotations

from functools import cache

from stock_lakehouse.sql.functions import Signature, signatures_of

SCALAR = """
abs(number) same = ABS({0})
ceil(whole) same = {0}
ceil(double) double = CEIL({0})
ceiling(whole) same = {0}
ceiling(double) double = CEIL({0})
floor(whole) same = {0}
floor(double) double = FLOOR({0})
round(whole) same = {0}
round(double) double = {rounded}
round(double, digits) double = {rounded}
truncate(double) double = TRUNC({0})
sign(whole) same = CASE WHEN {0} > 0 THEN 1 WHEN {0} < 0 THEN -1 WHEN {0} = 0 THEN 0 END
sign(double) double = SIGN({0})
mod(whole, whole) T = ({0} % {1})
sqrt(double) double = SQRT({0})
exp(double) double = EXP({0})
ln(double) double = LN({0})
log10(double) double = LOG({0})
power(double, double) double = POWER({0}, {1})
pow(double, double) double = POWER({0}, {1})
degrees(double) double = DEGREES({0})
radians(double) double = RADIANS({0})
sin(double) double = SIN({0})
cos(double) double = COS({0})
tan(double) double = TAN({0})
asin(double) double = ASIN({0})
acos(double) double = ACOS({0})
atan(double) double = ATAN({0})
atan2(double, double) double = ATAN2({0}, {1})
pi() double = PI()
e() double = EXP(CAST('1' AS DOUBLE PRECISION))
coalesce(T, T...) T = COALESCE({all})
greatest(T, T...) T = CASE WHEN {any_null} THEN NULL ELSE GREATEST({all}) END
least(T, T...) T = CASE WHEN {any_null} THEN NULL ELSE LEAST({all}) END
length(varchar) bigint = CAST(LEN({0}) AS BIGINT)
reverse(varchar) varchar = REVERSE({0})
replace(varchar, text) varchar = REPLACE({0}, {1}, '')
replace(varchar, text, varchar) varchar = REPLACE({0}, {1}, {2})
substr(varchar, counted) varchar = SUBSTRING({0}, {1})
substr(varchar, counted, counted) varchar = SUBSTRING({0}, {1}, {2})
substring(varchar, counted) varchar = SUBSTRING({0}, {1})
substring(varchar, counted, counted) varchar = SUBSTRING({0}, {1}, {2})
strpos(varchar, text) bigint = CAST(STRPOS({0}, {1}) AS BIGINT)
starts_with(varchar, text) boolean = (LEFT({0}, LEN({1})) = {1})
lpad(varchar, counted, text) varchar = LPAD({0}, {1}, {2})
rpad(varchar, counted, text) varchar = RPAD({0}, {1}, {2})
concat(varchar, varchar...) varchar = {joined}
year(moment) bigint = CAST(EXTRACT(YEAR FROM {0}) AS BIGINT)
quarter(moment) bigint = CAST(EXTRACT(QUARTER FROM {0}) AS BIGINT)
month(moment) bigint = CAST(EXTRACT(MONTH FROM {0}) AS BIGINT)
day(moment) bigint = CAST(EXTRACT(DAY FROM {0}) AS BIGINT)
day_of_month(moment) bigint = CAST(EXTRACT(DAY FROM {0}) AS BIGINT)
day_of_week(moment) bigint = {day_of_week}
dow(moment) bigint = {day_of_week}
day_of_year(moment) bigint = CAST(EXTRACT(DOY FROM {0}) AS BIGINT)
doy(moment) bigint = CAST(EXTRACT(DOY FROM {0}) AS BIGINT)
hour(time) bigint = CAST(EXTRACT(HOUR FROM {0}) AS BIGINT)
minute(time) bigint = CAST(EXTRACT(MINUTE FROM {0}) AS BIGINT)
second(time) bigint = CAST(FLOOR(EXTRACT(SECOND FROM {0})) AS BIGINT)
date(moment) date = CAST({0} AS DATE)
last_day_of_month(moment) date = LAST_DAY(CAST({0} AS DATE))
date_trunc(day_unit, date) date = CAST(DATE_TRUNC({0}, {1}) AS DATE)
date_trunc(time_unit, time) T1 = DATE_TRUNC({0}, {1})
date_add(day_unit, whole, date) date = CAST(DATEADD({unit}, CAST({1} AS INTEGER), {2}) AS DATE)
date_add(added_unit, whole, time) T2 = DATEADD({unit}, CAST({1} AS INTEGER), {2})
date_diff(whole_days, date, date) bigint = CAST(DATEDIFF(day, {1}, {2}) AS BIGINT)
date_format(moment, format) varchar = TO_CHAR({1}, {0})
"""

AGGREGATE = """
count(any) bigint = COUNT({0})
count_if(boolean) bigint = COUNT(CASE WHEN {condition} THEN 1 END)
sum(whole) bigint = SUM({0}) | CAST({result} AS BIGINT)
sum(double) double = SUM({0})
avg(double) double = AVG({0})
min(number) same = MIN({0})
min(varchar) same = MIN({0})
min(moment) same = MIN({0})
max(number) same = MAX({0})
max(varchar) same = MAX({0})
max(moment) same = MAX({0})
any_value(number) same = MIN({0})
any_value(varchar) same = MIN({0})
any_value(moment) same = MIN({0})
arbitrary(number) same = MIN({0})
arbitrary(varchar) same = MIN({0})
arbitrary(moment) same = MIN({0})
bool_and(boolean) boolean = BOOL_AND({0})
every(boolean) boolean = BOOL_AND({0})
bool_or(boolean) boolean = BOOL_OR({0})
stddev(double) double = STDDEV_SAMP({0})
stddev_samp(double) double = STDDEV_SAMP({0})
stddev_pop(double) double = STDDEV_POP({0})
variance(double) double = VAR_SAMP({0})
var_samp(double) double = VAR_SAMP({0})
var_pop(double) double = VAR_POP({0})
"""

WINDOW = """
row_number() bigint = ROW_NUMBER()
rank() bigint = RANK()
dense_rank() bigint = DENSE_RANK()
percent_rank() double = PERCENT_RANK()
cume_dist() double = CUME_DIST()
ntile(counted) bigint = NTILE({0})
lag(any) same = LAG({0})
lag(any, whole) same = LAG({0}, {1})
lead(any) same = LEAD({0})
lead(any, whole) same = LEAD({0}, {1})
first_value(any) same = FIRST_VALUE({0})
last_value(any) same = LAST_VALUE({0})
nth_value(any, whole) same = NTH_VALUE({0}, {1})
"""

# Why a function that Athena has is not here, where there is more to say than that nobody compared it.
REASONS = {
    "array_agg": "Redshift has no arrays; array_join(array_agg(… ORDER BY …), ', ') is run",
    "array_join": "Redshift has no arrays; array_join(array_agg(… ORDER BY …), ', ') is run",
    "approx_percentile": "Redshift estimates another value",
    "approx_distinct": "it is an estimate, and Redshift's is another one; write count(DISTINCT …)",
    "split_part": "Redshift gives an empty text where Athena gives null",
    "regexp_like": "Redshift's regular expressions are others; write LIKE",
    "regexp_extract": "Redshift's regular expressions are others",
    "regexp_replace": "Redshift's regular expressions are others",
    "lower": "letters beyond ASCII are not shown to become the same ones; compare with both spellings",
    "upper": "letters beyond ASCII are not shown to become the same ones; compare with both spellings",
    "try": "Redshift fails the query where TRY gives null",
    "nan": "Redshift orders and compares NaN in another way",
    "infinity": "Redshift computes with it in another way",
    "now": "Redshift's is the time of its own clock without a zone; bind the moment as a parameter",
    "corr": "Redshift has no correlation",
    "regr_slope": "Redshift has no regression",
    "regr_intercept": "Redshift has no regression",
}


@cache
def redshift_signatures() -> dict[str, list[Signature]]:
    """The signatures of each function on Redshift, by its name in lower case."""
    return signatures_of(SCALAR, AGGREGATE, WINDOW)
