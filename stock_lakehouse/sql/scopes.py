"""What the parts of the translation share: the names that a part of a query may use, and errors at their place.

Not here: any rule of translation (dialect.py for queries, expressions.py, calls.py for functions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from stock_lakehouse.sql import casts
from stock_lakehouse.sql.engine import Parameter, QueryRefusedError, QuerySyntaxError
from stock_lakehouse.sql.parsing import location, unquoted_reserved
from stock_lakehouse.sql.typed import (
    DATE,
    DECIMAL,
    DOUBLE,
    TIMES,
    VARCHAR,
    Origin,
    Value,
    common_type,
)

if TYPE_CHECKING:
    from sqlglot import exp

ON_ATHENA = "run it with --engine athena or trino"


@dataclass(frozen=True)
class Visible:
    """A column that an expression may name.

    - relation: the alias before its dot; None if it has none
    - value: what stands for it in DuckDB's SQL
    - merged: it is a column of USING
    """

    relation: str | None
    name: str
    value: Value


@dataclass(frozen=True)
class Relation:
    """What FROM names, or a subquery: DuckDB's SQL of it, and its columns by name with the name inside."""

    sql: str
    columns: tuple[tuple[str, str, Value], ...]


@dataclass
class Scope:
    """The names that a part of a query may use: columns of FROM, then those of the queries around it; and WITH."""

    visible: list[Visible] = field(default_factory=list)
    outer: Scope | None = None
    named: dict[str, Relation] = field(default_factory=dict)
    windows: dict[str, Value] = field(default_factory=dict)  # of WINDOW; the SQL is the name inside
    aliases: dict[str, Value] = field(default_factory=dict)  # of the SELECT list, for ORDER BY alone

    def with_named(self, name: str) -> Relation | None:
        found = self.named.get(name)
        return found if found is not None or self.outer is None else self.outer.with_named(name)


class Part:
    """A part of the translator: the text of the query, and what every rule needs.

    - sql: the query
    - parameters: the values of its `?`
    - engine, elsewhere: which engine the rules are for, and where else a query can be run, for messages
    """

    engine = "DuckDB"
    elsewhere = ON_ATHENA

    def __init__(self, sql: str, parameters: Sequence[Parameter]) -> None:
        self.sql, self.parameters = sql, parameters
        self.seen_parameters = 0
        self.relations = 0

    def value(self, node: Any, scope: Scope, in_order: bool = False) -> Value:
        """The translation of an expression. `in_order`: names of the SELECT list may stand in it."""
        raise NotImplementedError

    def boolean(self, node: Any, scope: Scope, word: str) -> Value:
        """The translation of a condition of `word`."""
        raise NotImplementedError

    def compared(self, node: Any, word: str, left: Value, right: Value) -> Value:
        """The translation of a comparison by the operator `word`."""
        raise NotImplementedError

    def query(self, node: Any, outer: Scope) -> Relation:
        """The translation of a query."""
        raise NotImplementedError

    def wrong(self, node: Any, reason: str) -> NoReturn:
        raise QuerySyntaxError(reason, self.sql, *location(self.sql, node))

    def refuse(self, node: Any, reason: str) -> NoReturn:
        raise QueryRefusedError(reason, self.sql, *location(self.sql, node))

    def only(self, node: exp.Expression, *known: str) -> None:
        """Refuse `node` if it has a part besides `known`."""
        for name, part in node.args.items():
            if part and name not in known:
                place = part[0] if isinstance(part, list) else part
                self.refuse(
                    place if hasattr(place, "walk") else node,
                    f"{spelled(name)} is not run on {self.engine}; {self.elsewhere}",
                )

    def settled(self, node: Any, value: Value) -> Value:
        """`value`, if it is no decimal number: Athena computes with those in few digits."""
        if value.type == DECIMAL:
            number = value.sql.strip("()")
            self.refuse(
                node,
                f"{number} is a decimal number, with which Athena computes in as few digits as it is written; write {number}e0, "
                "or CAST(… AS double)",
            )
        return value

    def united(self, nodes: Sequence[Any], values: Sequence[Value]) -> list[Value]:
        """`values`, which stand for `nodes`, in their common type. Wrong if they have none."""
        kind = values[0].type
        for node, value in zip(nodes, values, strict=True):
            found = common_type(kind, value.type)
            if found is None:
                self.wrong(node, f"{kind} and {value.type} have no common type; {advice(kind, value.type)}")
            kind = found
        return [self.settled(node, self.coerced(value, kind)) for node, value in zip(nodes, values, strict=True)]

    def coerced(self, value: Value, kind: str) -> Value:
        """`value` as `kind`, to which it can be converted without loss."""
        if kind in (value.type, DECIMAL):  # a decimal number is refused by `settled`
            return value
        if value.type == DECIMAL and kind == DOUBLE:
            return replace(
                value, sql=f"CAST({value.sql} AS DOUBLE)" if "e" in value.sql else f"{value.sql}e0", type=DOUBLE
            )
        return replace(value, sql=self.plain(value.sql, kind), type=kind)

    def plain(self, sql: str, kind: str) -> str:
        """`sql` as the engine's type for `kind`, for values that the engine and Athena convert alike."""
        return casts.plain(sql, kind)

    def sort_key(self, key: Any, sql: str) -> str:
        self.only(key, "this", "desc", "nulls_first")
        return f"{sql} {'DESC' if key.args.get('desc') else 'ASC'} NULLS {'FIRST' if key.args.get('nulls_first') else 'LAST'}"

    def grouped_column(self, node: Any, scope: Scope) -> str:
        from sqlglot import exp

        if not isinstance(node, exp.Column):
            self.wrong(node, "ROLLUP, CUBE and GROUPING SETS take columns in Athena; name the expression in a subquery")
        return self.value(node, scope).sql

    def name_of(self, identifier: Any) -> str:
        unquoted_reserved(self.sql, identifier)
        return str(identifier.name).lower()

    def unique(self, name: str) -> str:
        """A name for DuckDB that nothing else in the query has."""
        self.relations += 1
        return f"{name}_{self.relations}"


def joined_origin(values: Iterable[Value]) -> frozenset[Origin]:
    return frozenset[Origin]().union(*(value.origin for value in values))


def meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def spelled(word: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word).replace("_", " ").strip().upper()


def advice(left: str, right: str) -> str:
    kinds = {left, right}
    if VARCHAR in kinds and DATE in kinds:
        return "write DATE '2024-01-31'"
    if VARCHAR in kinds and kinds & set(TIMES):
        return "write TIMESTAMP '2024-01-31 00:00:00'"
    return "CAST one of them"
