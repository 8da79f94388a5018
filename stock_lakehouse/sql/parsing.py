"""The text of a query as a tree, and places in it.

sqlglot reads the grammar of many engines at once. What Athena's grammar does not have is refused here or has no rule in
dialect.py. Not here: what the parts of the tree mean.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, ClassVar

from stock_lakehouse.sql.engine import QueryRefusedError, QuerySyntaxError

# Words that Trino does not take as a name without quotes.
RESERVED = re.compile(
    r"(?i)alter|and|as|between|by|case|cast|constraint|create|cross|cube|current_catalog|current_date|current_path|"
    r"current_role|current_schema|current_time|current_timestamp|current_user|deallocate|delete|describe|"
    r"distinct|drop|else|end|escape|except|execute|exists|extract|false|for|from|full|group|grouping|having|in|"
    r"inner|insert|intersect|into|is|join|json_array|json_exists|json_object|json_query|json_table|json_value|"
    r"left|like|listagg|localtime|localtimestamp|natural|normalize|not|null|on|or|order|outer|prepare|recursive|"
    r"right|rollup|select|skip|table|then|trim|true|uescape|union|unnest|using|values|when|where|with"
)
# Functions whose arguments have a grammar of their own. All others are parsed by name, so that functions.py decides about them.
WITH_GRAMMAR = ("CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRY_CAST", "TRIM")
AFTER_COMMA = re.compile(r"(?i)from|where|group|having|order|limit|offset|union|\)|;")
NOT_IN_ATHENA = {
    "DCOLON": "Athena has no `::`; write CAST(… AS …)",
    "ILIKE": "Athena has no ILIKE; write lower(…) LIKE …",
    "QUALIFY": "Athena has no QUALIFY; filter in a query around it",
    "DSLASH": "Athena has no `//`; `/` of integers is an integer",
    "COLON": "Athena has no `:` here",
}


@cache
def _dialect() -> Any:
    from sqlglot import TokenType, exp
    from sqlglot.dialects.trino import Trino
    from sqlglot.parsers.trino import TrinoParser

    def parameter(parser: Any) -> Any:
        """A `?` with its place, by which it has its number."""
        node = exp.Placeholder()
        node.meta["start"] = parser._prev.start
        return parser.expression(node)

    class ByName(Trino):
        class Parser(TrinoParser):
            FUNCTIONS: ClassVar[dict[str, Any]] = {}
            FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
                name: parser for name, parser in TrinoParser.FUNCTION_PARSERS.items() if name in WITH_GRAMMAR
            }
            PLACEHOLDER_PARSERS: ClassVar[dict[Any, Any]] = {
                **TrinoParser.PLACEHOLDER_PARSERS,
                TokenType.PLACEHOLDER: parameter,
            }

    return ByName


def parsed(sql: str) -> Any:
    """The tree of one query. Raises QuerySyntaxError with the place."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, TokenError

    try:
        tokens = sqlglot.tokenize(sql, read=_dialect())
        _check_tokens(sql, tokens)
        statements = [statement for statement in sqlglot.parse(sql, read=_dialect()) if statement is not None]
    except ParseError as error:
        found = error.errors[0]
        mark = found.get("highlight") or ""
        column = max((found.get("col") or 1) - len(mark) + 1, 1)
        raise QuerySyntaxError(
            _described(str(found.get("description")), mark), sql, found.get("line") or 1, column
        ) from None
    except TokenError as error:
        raise QuerySyntaxError(str(error).split("\n", 1)[0]) from None
    except RecursionError:
        raise QueryRefusedError("the query is nested too deeply") from None
    if not statements:
        raise QuerySyntaxError("there is no query")
    if len(statements) > 1:
        raise QueryRefusedError("one SELECT is run at a time", sql, *location(sql, statements[1]))
    tree = statements[0]
    if not isinstance(tree, exp.Query | exp.Values):
        raise QueryRefusedError(
            "only a SELECT is run; nothing is written by a query", sql, *place_of(sql, tokens[0].start)
        )
    return tree


def _described(description: str, mark: str) -> str:
    text = description.rstrip(". ")
    return f"{text} at {mark!r}" if mark and text.startswith("Invalid expression") else text


def _check_tokens(sql: str, tokens: list[Any]) -> None:
    """Refuse what sqlglot reads and Athena does not: it would work here and break there."""
    limits: dict[int, bool] = {}
    depth = 0
    for number, token in enumerate(tokens):
        kind = token.token_type.name
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        if kind in NOT_IN_ATHENA or (kind == "EQ" and token.text == "=="):
            reason = NOT_IN_ATHENA.get(kind, "Athena has no `==`; write `=`")
            raise QuerySyntaxError(reason, sql, *place_of(sql, token.start))
        if (
            kind == "COMMA"
            and (following is None or AFTER_COMMA.fullmatch(following.text))
            and not _is_quoted(following)
        ):
            raise QuerySyntaxError("there is nothing after this comma", sql, *place_of(sql, token.start))
        if kind == "INTERVAL" and following is not None and following.token_type.name == "NUMBER":
            raise QuerySyntaxError("an interval is written as INTERVAL '1' DAY", sql, *place_of(sql, token.start))
        depth += {"L_PAREN": 1, "R_PAREN": -1}.get(kind, 0)
        if kind in ("LIMIT", "FETCH"):
            limits[depth] = True
        elif kind == "OFFSET" and limits.get(depth):
            raise QuerySyntaxError("OFFSET stands before LIMIT in Athena", sql, *place_of(sql, token.start))
        elif kind in ("SELECT", "UNION"):
            limits[depth] = False


def _is_quoted(token: Any) -> bool:
    return token is not None and token.token_type.name in ("STRING", "IDENTIFIER")


def places_of_parameters(tree: Any) -> list[int]:
    """Where each `?` of a query begins, in the order of the text, which is the order of their values."""
    from sqlglot import exp

    return sorted({node.meta["start"] for node in tree.find_all(exp.Placeholder) if not node.args.get("this")})


def location(sql: str, node: Any) -> tuple[int | None, int | None]:
    """The line and column, from 1, of the first part of `node` that has a place; (None, None) if no part has one."""
    starts = [part.meta["start"] for part in node.walk() if "start" in part.meta] if hasattr(node, "walk") else []
    return place_of(sql, min(starts)) if starts else (None, None)


def place_of(sql: str, start: int) -> tuple[int, int]:
    """The line and column, from 1, of the character `start` of `sql`."""
    return sql.count("\n", 0, start) + 1, start - (sql.rfind("\n", 0, start) + 1) + 1


def unquoted_reserved(sql: str, identifier: Any) -> None:
    """Raise QuerySyntaxError if `identifier` is a name that Athena takes in double quotes alone."""
    name, is_quoted = identifier.name, identifier.args.get("quoted", True)
    if is_quoted:
        return
    if RESERVED.fullmatch(name):
        raise QuerySyntaxError(f'{name} is a reserved word; write "{name}"', sql, *location(sql, identifier))
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise QuerySyntaxError(f'{name} is no name without quotes; write "{name}"', sql, *location(sql, identifier))


def refuse_writes(sql: str) -> None:
    """Raise QueryRefusedError unless `sql` is one query, by its first word and its semicolons.

    For engines that may have grammar that sqlglot does not know: in Athena's dialect only a query begins with these words. Raises
    QuerySyntaxError for text that has no words.
    """
    import sqlglot
    from sqlglot.errors import TokenError

    try:
        tokens = sqlglot.tokenize(sql, read=_dialect())
    except TokenError as error:
        raise QuerySyntaxError(str(error).split("\n", 1)[0]) from None
    if not tokens:
        raise QuerySyntaxError("there is no query")
    if tokens[0].text.upper() not in ("SELECT", "WITH", "VALUES", "TABLE", "("):
        raise QueryRefusedError(
            "only a SELECT is run; nothing is written by a query", sql, *place_of(sql, tokens[0].start)
        )
    ends = [number for number, token in enumerate(tokens) if token.token_type.name == "SEMICOLON"]
    if ends and ends[0] < len(tokens) - 1:
        raise QueryRefusedError("one SELECT is run at a time", sql, *place_of(sql, tokens[ends[0] + 1].start))
