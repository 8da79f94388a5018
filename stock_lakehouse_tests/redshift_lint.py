"""Which SQL is Redshift's: what its reference does not have is found in a statement; what it has is written for DuckDB.

Here: `faults`, which the tests call with every statement that the product sends, and which the tests' server asks before it runs
one. Not here: running statements (redshift_server.py).

A function is Redshift's if it stands in FUNCTIONS: a function that the product begins to use is looked up in Redshift's reference
and added.
"""

from __future__ import annotations

import re
from typing import Any

import sqlglot
from sqlglot import exp


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions of Redshift's reference that the product uses. Aggregates and ranking functions: below.
SCALAR = _words(
    """
    abs ascii atan btrim ceil ceiling char_length charindex chr coalesce concat cos date_part date_trunc dateadd datediff exp
    extract floor greatest initcap left len length least ln lower lpad ltrim log md5 mod nullif nvl octet_length position power
    regexp_count regexp_instr regexp_replace regexp_substr repeat replace reverse right round rpad rtrim sign sin split_part sqrt
    strpos strtol substring tan to_char to_date to_timestamp translate trim trunc upper degrees radians acos asin atan2 last_day
    current_database current_user convert_timezone pi cbrt has_schema_privilege has_table_privilege has_database_privilege
    """
)
AGGREGATES = _words(
    "avg count listagg max median min stddev_pop stddev_samp sum var_pop var_samp bool_and bool_or any_value"
)
FRAMED = _words("first_value last_value nth_value")  # with ORDER BY only with a frame, as aggregates
RANKING = _words("row_number rank dense_rank percent_rank cume_dist ntile lag lead")  # never with a frame
FUNCTIONS = SCALAR | AGGREGATES | FRAMED | RANKING
# Words before a parenthesis that are no function.
WORDS = _words(
    """
    all and any as asc between by case cast check distinct distkey else exists from having in inner insert interval into is
    join key left like limit not null numeric decimal on or order over partition primary right select set similar some sortkey
    table then union except intersect unique using values varchar char character varying when where with within group compound
    interleaved precision timestamp timestamptz diststyle exclude rollup cube sets
    """
)
ABSENT = {
    "filter": "FILTER is not run: write SUM(CASE WHEN … END)",
    "max_by": "there is no MAX_BY: write ROW_NUMBER() in a subquery",
    "min_by": "there is no MIN_BY: write ROW_NUMBER() in a subquery",
    "arg_max": "there is no ARG_MAX",
    "arg_min": "there is no ARG_MIN",
    "count_if": "there is no COUNT_IF: write SUM(CASE WHEN … END)",
    "unnest": "there is no UNNEST",
    "try_cast": "TRY_CAST takes few types; it is not used",
    "array_agg": "there is no ARRAY_AGG: write LISTAGG",
    "string_agg": "there is no STRING_AGG: write LISTAGG",
}
NAMES_A_TABLE = (
    "into",
    "table",
    "exists",
    "view",
    "references",
)  # words before a table's name, which may come before its columns

# What DuckDB computes in another way than Redshift: integers are divided to a double, and by zero to null.
FAILED = "WHEN b = 0 THEN error('division by zero')"
MACROS = (
    "CREATE MACRO from_base(s, base) AS CAST('0x' || s AS BIGINT)",  # what sqlglot makes of STRTOL
    f"CREATE MACRO redshift_div(a BIGINT, b BIGINT) AS CASE {FAILED} ELSE a // b END, "
    f"(a HUGEINT, b HUGEINT) AS CASE {FAILED} ELSE a // b END, (a DOUBLE, b DOUBLE) AS CASE {FAILED} ELSE a / b END",
    f"CREATE MACRO redshift_div_double(a, b) AS CASE {FAILED} ELSE a / b END",
    f"CREATE MACRO redshift_mod(a BIGINT, b BIGINT) AS CASE {FAILED} ELSE a % b END",
)


def faults(sql: str) -> list[str]:
    """What in the statement `sql` Redshift does not have, or runs in another way than it is meant; empty if nothing."""
    try:
        tokens = sqlglot.tokenize(sql, read="redshift")
    except sqlglot.errors.TokenError as error:
        return [f"syntax error: {error}"]
    found = _of_tokens(tokens)
    first = tokens[0].text.lower() if tokens else ""
    if first in ("select", "with", "insert", "delete", "update", "("):
        try:
            tree = sqlglot.parse_one(sql, read="redshift")
        except sqlglot.errors.ParseError as error:
            return [*found, f"syntax error: {error}"]
        found += _of_tree(tree)
    return found


def _of_tokens(tokens: list[Any]) -> list[str]:
    """Functions and words that Redshift does not have."""
    found = []
    words = [*(token.text.lower() for token in tokens), ""]
    for place, token in enumerate(tokens):
        word, following = words[place], words[place + 1]
        before = words[place - 1] if place else ""
        kind = token.token_type.name
        if kind in ("IDENTIFIER", "STRING", "NUMBER") or before == ".":
            continue
        if kind == "PARAMETER" or token.text in ("?", "["):
            found.append(f"{token.text}: there are no arrays, and a parameter is written as :name")
        elif word == "window" and words[place + 2 : place + 3] == ["as"]:
            found.append("there is no WINDOW clause")
        elif word == "lateral":
            found.append("there is no LATERAL")
        elif word in ("range", "groups") and following in ("between", "unbounded", "current"):
            found.append(f"a frame counts ROWS, there is none by {word.upper()}")
        elif word == "distinct" and before in ("is", "not") and following == "from":
            found.append("there is no IS DISTINCT FROM")
        elif following == "(" and re.fullmatch(r"[a-z_]\w*", word) and before not in NAMES_A_TABLE:
            found += _of_function(word)
    return found


def _of_function(name: str) -> list[str]:
    if name in ABSENT:
        return [ABSENT[name]]
    if name in FUNCTIONS or name in WORDS:
        return []
    return [f"function {name}(…) does not exist, or nobody looked it up in Redshift's reference"]


def _of_tree(tree: Any) -> list[str]:
    """Forms of queries that Redshift does not have."""
    found = [fault for window in tree.find_all(exp.Window) for fault in _of_window(window)]
    found += [
        f"there is no {operation.key.upper()} ALL"
        for operation in tree.find_all(exp.Intersect, exp.Except)
        if not operation.args.get("distinct")
    ]
    if any(not isinstance(node.parent, exp.Insert) for node in tree.find_all(exp.Values)):
        found.append("VALUES stands in INSERT alone")
    found += [f"{node.key.upper()} is not run" for node in tree.find_all(exp.Fetch, exp.TableSample)]
    orders: dict[int, set[str]] = {}
    for node in tree.find_all(exp.WithinGroup):
        orders.setdefault(id(node.parent_select), set()).add(node.expression.sql("redshift"))
    if any(len(different) > 1 for different in orders.values()):
        found.append("all LISTAGG of a SELECT have one order")
    if any(re.search(r"\bnulls (first|last)\b", node.sql("redshift"), re.I) for node in tree.find_all(exp.WithinGroup)):
        found.append("LISTAGG orders without NULLS FIRST or LAST")
    return found


def _of_window(window: Any) -> list[str]:
    called = window.this.this if isinstance(window.this, exp.IgnoreNulls | exp.RespectNulls) else window.this
    if not isinstance(called, exp.Func):
        return []  # of a WINDOW clause, which is a fault itself
    name = (called.name if isinstance(called, exp.Anonymous) else called.sql_name()).lower()
    is_framed, is_ordered = window.args.get("spec") is not None, window.args.get("order") is not None
    if name in RANKING:
        return [f"{name} OVER (…) takes no frame"] if is_framed else []
    found = []
    if is_ordered and not is_framed:
        found.append(f"{name} OVER (… ORDER BY …) needs a frame (ROWS BETWEEN … AND …)")
    if any(isinstance(part, exp.Distinct) for part in called.walk()):
        found.append(f"{name}(DISTINCT …) OVER (…) is not run")
    return found


def to_duckdb(tree: Any) -> str:
    """A statement of Redshift, parsed, in DuckDB's SQL; it needs MACROS."""

    def divided(node: Any) -> Any:
        if not isinstance(node, exp.Div | exp.Mod):
            return node
        name = "redshift_mod" if isinstance(node, exp.Mod) else "redshift_div"
        parts = [node.this, node.expression]
        # DuckDB does not choose among macros by the type of an aggregate.
        if name == "redshift_div" and any(_is_double(part.unnest()) for part in parts):
            name = "redshift_div_double"
        return exp.Anonymous(this=name, expressions=parts)

    text: str = tree.transform(divided).sql(dialect="duckdb")
    return text


def _is_double(node: Any) -> bool:
    return isinstance(node, exp.Cast) and bool(node.to.is_type("double"))
