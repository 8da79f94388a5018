"""Expressions: columns, literals, operators, conditions and casts, by the types of their operands.

Not here: functions (calls.py), queries (dialect.py), and conversions (casts.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from stock_lakehouse.sql import casts
from stock_lakehouse.sql.calls import Calls
from stock_lakehouse.sql.engine import Parameter
from stock_lakehouse.sql.parsing import unquoted_reserved
from stock_lakehouse.sql.scopes import (
    Relation,
    Scope,
    Visible,
    advice,
    joined_origin,
    listed,
    meant,
    spelled,
)
from stock_lakehouse.sql.typed import (
    BIGINT,
    BOOLEAN,
    DATE,
    DECIMAL,
    DOUBLE,
    INTEGER,
    INTERVAL,
    NUMBERS,
    TIMES,
    TIMESTAMP,
    TIMESTAMP_TZ,
    UNKNOWN,
    VARCHAR,
    Origin,
    Value,
    array_of,
    common_type,
    is_array,
    text_literal,
)

INTERVAL_UNITS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND")
COMPARISONS = {"EQ": "=", "NEQ": "<>", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<="}
ARITHMETIC = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%"}
EXTRACTED = {
    name: name
    for name in ("year", "quarter", "month", "week", "day", "day_of_month", "day_of_week", "dow", "day_of_year", "doy")
} | {"year_of_week": "year_of_week", "yow": "yow", "hour": "hour", "minute": "minute", "second": "second"}


class Expressions(Calls):
    """The rules of expressions: `on_<kind>` for each kind of sqlglot's nodes that has one."""

    def value(self, node: Any, scope: Scope, in_order: bool = False) -> Value:
        """The translation of an expression. `in_order`: names of the SELECT list may stand in it."""
        from sqlglot import exp

        if in_order:
            scope = replace(scope, visible=[
                *(Visible(None, name, value) for name, value in scope.aliases.items()),
                *(column for column in scope.visible if column.name not in scope.aliases or column.relation is not None),
            ])  # fmt: skip
        handler = getattr(self, f"on_{type(node).__name__.lower()}", None)
        if handler is not None:
            found: Value = handler(node, scope)
            return found
        word = type(node).__name__
        if word in COMPARISONS:
            return self.comparison(node, word, scope)
        if word in ARITHMETIC:
            return self.arithmetic(node, ARITHMETIC[word], scope)
        if isinstance(node, exp.ILike):
            self.wrong(node, "Athena has no ILIKE; write lower(…) LIKE …")
        self.refuse(node, f"this is not run on {self.engine} ({spelled(word)}); {self.elsewhere}")

    def boolean(self, node: Any, scope: Scope, word: str) -> Value:
        value = self.value(node, scope)
        if value.type not in (BOOLEAN, UNKNOWN):
            self.wrong(node, f"{word} needs a condition, this is {value.type}")
        return value

    def on_column(self, node: Any, scope: Scope) -> Value:
        if node.args.get("db") is not None:
            self.refuse(node, "a column is named as column or relation.column here")
        unquoted_reserved(self.sql, node.this)
        name, relation = node.name.lower(), node.text("table").lower() or None
        level: Scope | None = scope
        while level is not None:
            found = [
                column
                for column in level.visible
                if column.name == name and (relation is None or column.relation == relation)
            ]
            if found:
                return self.one_of(node, found, name).value
            if relation is not None and any(column.relation == relation for column in level.visible):
                break
            level = level.outer
        seen = self.visible_columns(scope)
        if relation is not None:
            of_relation = [column.name for column in seen if column.relation == relation]
            if not of_relation:
                names = sorted({column.relation for column in seen if column.relation})
                self.wrong(
                    node,
                    f"there is no relation {relation} in FROM{meant(relation, names)}; there are {', '.join(names)}",
                )
            self.wrong(
                node.this, f"{relation} has no column {name}{meant(name, of_relation)}; it has {listed(of_relation)}"
            )
        if not seen:
            self.wrong(node, f"there is no column {name}: the query has no FROM")
        if name in scope.aliases:
            self.wrong(
                node,
                f"{name} is a name of the SELECT list, which Athena knows in ORDER BY alone; repeat its expression",
            )
        names = list(dict.fromkeys(column.name for column in seen))
        self.wrong(node, f"there is no column {name}{meant(name, names)}; there are {listed(names)}")

    def visible_columns(self, scope: Scope) -> list[Visible]:
        return [*scope.visible, *(self.visible_columns(scope.outer) if scope.outer is not None else [])]

    def one_of(self, node: Any, found: Sequence[Visible], name: str) -> Visible:
        if not found:
            self.wrong(node, f"there is no column {name} on both sides of USING")
        if len(found) > 1:
            relations = [column.relation for column in found if column.relation]
            named = " or ".join(f"{relation}.{name}" for relation in dict.fromkeys(relations))
            self.wrong(node, f"column {name} is ambiguous{f': write {named}' if named else ''}")
        return found[0]

    def on_literal(self, node: Any, scope: Scope) -> Value:
        text = node.name
        if node.is_string:
            return Value(text_literal(text), VARCHAR, literal=text)
        if re.fullmatch(r"[0-9]+", text):
            if int(text) > 2**63 - 1:
                self.wrong(node, f"{text} is larger than any bigint")
            return Value(text, INTEGER if int(text) < 2**31 else BIGINT, literal=text)
        if re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+", text):
            return Value(text, DOUBLE, literal=text)
        return Value(text, DECIMAL, literal=text)

    def on_boolean(self, node: Any, scope: Scope) -> Value:
        return Value("TRUE" if node.this else "FALSE", BOOLEAN)

    def on_null(self, node: Any, scope: Scope) -> Value:
        return Value("NULL", UNKNOWN)

    def on_placeholder(self, node: Any, scope: Scope) -> Value:
        return self.placeholder(node)

    def placeholder(self, node: Any) -> Value:
        if node.args.get("this"):
            self.wrong(node, "a parameter is written as `?`")
        if self.seen_parameters >= len(self.parameters):
            self.wrong(node, f"there is no value for this `?`; {len(self.parameters)} parameters are given")
        self.seen_parameters += 1
        kind = type_of_parameter(self.parameters[self.seen_parameters - 1])
        written = f"${self.seen_parameters}"
        return Value(written if kind == UNKNOWN else self.plain(written, kind), kind)

    def on_paren(self, node: Any, scope: Scope) -> Value:
        value = self.value(node.this, scope)
        return value if value.type == DECIMAL else replace(value, sql=f"({value.sql})")

    def on_neg(self, node: Any, scope: Scope) -> Value:
        value = self.value(node.this, scope)
        if value.type not in (*NUMBERS, DECIMAL):
            self.wrong(node, f"-{value.type} does not exist")
        return replace(value, sql=f"-{value.sql}" if value.type == DECIMAL else f"(- {value.sql})", literal=None)

    def on_not(self, node: Any, scope: Scope) -> Value:
        value = self.boolean(node.this, scope, "NOT")
        return replace(value, sql=f"(NOT {value.sql})")

    def on_and(self, node: Any, scope: Scope) -> Value:
        return self.connected(node, "AND", scope)

    def on_or(self, node: Any, scope: Scope) -> Value:
        return self.connected(node, "OR", scope)

    def connected(self, node: Any, word: str, scope: Scope) -> Value:
        left, right = self.boolean(node.this, scope, word), self.boolean(node.expression, scope, word)
        return Value(f"({left.sql} {word} {right.sql})", BOOLEAN, origin=left.origin | right.origin)

    def on_dpipe(self, node: Any, scope: Scope) -> Value:
        left, right = self.value(node.this, scope), self.value(node.expression, scope)
        for part, value in ((node.this, left), (node.expression, right)):
            if value.type == UNKNOWN or is_array(value.type):
                self.refuse(part, "|| joins texts here; write CAST(NULL AS varchar) for a text that is null")
            if value.type != VARCHAR:
                self.wrong(part, f"|| joins texts, this is {value.type}; write CAST(… AS varchar)")
        return Value(f"({left.sql} || {right.sql})", VARCHAR, origin=left.origin | right.origin)

    def arithmetic(self, node: Any, operator: str, scope: Scope) -> Value:
        self.only(node, "this", "expression", "typed", "safe")
        left, right = self.value(node.this, scope), self.value(node.expression, scope)
        if INTERVAL in (left.type, right.type):
            return self.moved(node, operator, left, right)
        kind = common_type(left.type, right.type)
        if kind not in (*NUMBERS, DECIMAL):
            if left.type in (DATE, *TIMES) and right.type in (DATE, *TIMES):
                self.refuse(node, "the difference of two days is an interval in Athena; write date_diff('day', …, …)")
            advice = "; write date_add('day', …, …)" if {DATE, *TIMES} & {left.type, right.type} else ""
            self.wrong(node, f"{left.type} {operator} {right.type} does not exist{advice}")
        if kind == DECIMAL:
            self.settled(node, left)
            self.settled(node, right)
        return self.computed(node, operator, self.coerced(left, kind), self.coerced(right, kind))

    def computed(self, node: Any, operator: str, left: Value, right: Value) -> Value:
        """Two numbers of one type, combined."""
        kind, origin = left.type, left.origin | right.origin
        if kind != DOUBLE and operator in "/%":
            written = f"({left.sql} {'//' if operator == '/' else '%'} {right.sql})"
            if right.literal is None or not int(right.literal):
                failed = casts.failing("'Division by zero'", kind)
                written = f"(CASE WHEN {right.sql} = 0 THEN {failed} ELSE {written} END)"
            return Value(written, kind, origin=origin)
        is_nan = left.nan or right.nan or operator in "/%"
        return Value(f"({left.sql} {operator} {right.sql})", kind, is_nan, origin)

    def moved(self, node: Any, operator: str, left: Value, right: Value) -> Value:
        """A day or time plus or minus an interval."""
        if left.type == INTERVAL and operator == "+":
            left, right = right, left
        if left.type not in (DATE, *TIMES) or operator not in "+-" or right.literal is None:
            self.refuse(node, f"{left.type} {operator} {right.type} is not run on {self.engine}")
        if left.type == DATE and right.literal not in ("YEAR", "MONTH", "DAY"):
            self.wrong(node, "hours, minutes and seconds cannot be added to a date; write CAST(… AS timestamp)")
        written = f"({left.sql} {operator} {right.sql})"
        return Value(self.plain(written, DATE) if left.type == DATE else written, left.type, origin=left.origin)

    def on_interval(self, node: Any, scope: Scope) -> Value:
        unit = node.text("unit").upper()
        number = node.this.name if node.this is not None else ""
        if unit not in INTERVAL_UNITS:
            self.refuse(node, f"INTERVAL … {unit} is not run on {self.engine}; there are {', '.join(INTERVAL_UNITS)}")
        if not (getattr(node.this, "is_string", False) and re.fullmatch(r"[+-]?[0-9]+", number)):
            self.wrong(node, "an interval is written as INTERVAL '1' DAY")
        return Value(f"({int(number)} * INTERVAL 1 {unit})", INTERVAL, literal=unit)

    def comparison(self, node: Any, word: str, scope: Scope) -> Value:
        from sqlglot import exp

        right = node.expression
        if isinstance(right, exp.Any):
            left = self.value(node.this, scope)
            relation = self.subquery(right.this, scope)
            self.comparable(node, left, relation.columns[0][2])
            return Value(f"({left.sql} {COMPARISONS[word]} ANY ({relation.sql}))", BOOLEAN, origin=left.origin)
        return self.compared(node, word, self.value(node.this, scope), self.value(right, scope))

    def comparable(self, node: Any, left: Value, right: Value) -> str:
        """The type in which two values are compared. Wrong if they cannot be."""
        kind = common_type(left.type, right.type)
        if kind is None or kind == INTERVAL:
            self.wrong(node, f"{left.type} cannot be compared with {right.type}; {advice(left.type, right.type)}")
        if kind == DECIMAL and {left.type, right.type} != {DECIMAL}:
            kind = DOUBLE if BIGINT not in (left.type, right.type) else DECIMAL
        return kind

    def compared(self, node: Any, word: str, left: Value, right: Value) -> Value:
        kind = self.comparable(node, left, right)
        left, right = (self.settled(node, self.coerced(value, kind)) for value in (left, right))
        written = f"({left.sql} {COMPARISONS[word]} {right.sql})"
        # NaN is equal to nothing and less than nothing in Athena. In DuckDB it equals itself and is above all numbers.
        risky = {
            "GT": left.nan, "GTE": left.nan, "LT": right.nan, "LTE": right.nan,
            "EQ": left.nan and right.nan, "NEQ": left.nan and right.nan,
        }[word]  # fmt: skip
        if risky:
            is_nan = f"isnan({left.sql}) OR isnan({right.sql})"
            known = f"{left.sql} IS NOT NULL AND {right.sql} IS NOT NULL"
            other = "TRUE" if word == "NEQ" else "FALSE"
            written = f"(CASE WHEN {known} AND ({is_nan}) THEN {other} ELSE {written} END)"
        return Value(written, BOOLEAN, origin=left.origin | right.origin)

    def on_between(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "low", "high")
        value, low, high = (self.value(node.args[name], scope) for name in ("this", "low", "high"))
        above, below = self.compared(node, "GTE", value, low), self.compared(node, "LTE", value, high)
        return Value(f"({above.sql} AND {below.sql})", BOOLEAN, origin=above.origin | below.origin)

    def on_in(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "expressions", "query")
        value = self.value(node.this, scope)
        if (query := node.args.get("query")) is not None:
            relation = self.subquery(query, scope)
            kind = self.comparable(node, value, relation.columns[0][2])
            if value.nan and relation.columns[0][2].nan:
                self.refuse(node, "both sides may be NaN, which DuckDB finds and Athena does not")
            return Value(
                f"({self.settled(node, self.coerced(value, kind)).sql} IN ({relation.sql}))",
                BOOLEAN,
                origin=value.origin,
            )
        tests = [self.compared(node, "EQ", value, self.value(one, scope)) for one in node.expressions]
        origin = frozenset[Origin]().union(*(test.origin for test in tests))
        return Value(f"({' OR '.join(test.sql for test in tests)})", BOOLEAN, origin=origin)

    def on_is(self, node: Any, scope: Scope) -> Value:
        from sqlglot import exp

        if not isinstance(node.expression, exp.Null):
            self.wrong(node, "IS is followed by NULL, NOT NULL or DISTINCT FROM in Athena")
        value = self.value(node.this, scope)
        return Value(f"({value.sql} IS NULL)", BOOLEAN, origin=value.origin)

    def on_nullsafeeq(self, node: Any, scope: Scope) -> Value:
        return self.distinct_from(node, "IS NOT DISTINCT FROM", scope)

    def on_nullsafeneq(self, node: Any, scope: Scope) -> Value:
        return self.distinct_from(node, "IS DISTINCT FROM", scope)

    def distinct_from(self, node: Any, words: str, scope: Scope) -> Value:
        left, right = self.value(node.this, scope), self.value(node.expression, scope)
        kind = self.comparable(node, left, right)
        left, right = (self.settled(node, self.coerced(value, kind)) for value in (left, right))
        return Value(f"({left.sql} {words} {right.sql})", BOOLEAN, origin=left.origin | right.origin)

    def on_like(self, node: Any, scope: Scope) -> Value:
        return self.like(node, None, scope)

    def on_escape(self, node: Any, scope: Scope) -> Value:
        return self.like(node.this, node.expression, scope)

    def like(self, node: Any, escape: Any, scope: Scope) -> Value:
        from sqlglot import exp

        if not isinstance(node, exp.Like):
            self.wrong(node, "ESCAPE follows LIKE")
        self.only(node, "this", "expression", "negate")
        parts = [self.value(part, scope) for part in (node.this, node.expression, escape) if part is not None]
        for value in parts:
            if value.type not in (VARCHAR, UNKNOWN):
                self.wrong(node, f"LIKE compares texts, this is {value.type}")
        word = "NOT LIKE" if node.args.get("negate") else "LIKE"
        written = f"{parts[0].sql} {word} {parts[1].sql}" + (f" ESCAPE {parts[2].sql}" if escape is not None else "")
        return Value(f"({written})", BOOLEAN, origin=joined_origin(parts))

    def on_case(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "ifs", "default")
        operand = self.value(node.this, scope) if node.this is not None else None
        conditions = [
            self.boolean(branch.this, scope, "WHEN")
            if operand is None
            else self.compared(branch, "EQ", operand, self.value(branch.this, scope))
            for branch in node.args["ifs"]
        ]
        return self.chosen(
            node, conditions, [branch.args["true"] for branch in node.args["ifs"]], node.args.get("default"), scope
        )

    def on_if(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "true", "false")
        return self.chosen(
            node, [self.boolean(node.this, scope, "if")], [node.args["true"]], node.args.get("false"), scope
        )

    def chosen(
        self, node: Any, conditions: Sequence[Value], branches: Sequence[Any], default: Any, scope: Scope
    ) -> Value:
        last = [] if default is None else [default]
        results = self.united([*branches, *last], [self.value(branch, scope) for branch in (*branches, *last)])
        whens = " ".join(
            f"WHEN {condition.sql} THEN {result.sql}" for condition, result in zip(conditions, results, strict=False)
        )
        otherwise = f" ELSE {results[-1].sql}" if last else ""
        return Value(
            f"(CASE {whens}{otherwise} END)",
            results[0].type,
            any(result.nan for result in results),
            joined_origin([*conditions, *results]),
        )

    def on_cast(self, node: Any, scope: Scope) -> Value:
        return self.cast(node, scope, False)

    def on_trycast(self, node: Any, scope: Scope) -> Value:
        return self.cast(node, scope, True)

    def cast(self, node: Any, scope: Scope, is_try: bool) -> Value:
        self.only(node, "this", "to", "safe")
        value = self.value(node.this, scope)
        if value.type == DECIMAL:
            value = self.coerced(value, DOUBLE)
        try:
            return casts.cast(value, node.args["to"], is_try)
        except casts.NoSuchCastError as error:
            self.refuse(node, str(error))

    def on_extract(self, node: Any, scope: Scope) -> Value:
        name = node.this.name.lower()
        if name not in EXTRACTED:
            self.refuse(node, f"EXTRACT({name} FROM …) is not run on {self.engine}; there are {', '.join(EXTRACTED)}")
        return self.called(node, EXTRACTED[name], [node.expression], scope)

    def on_trim(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "expression", "position")
        position = (node.args.get("position") or "BOTH").upper()
        name = {"BOTH": "trim", "LEADING": "ltrim", "TRAILING": "rtrim"}[position]
        if node.args.get("expression") is None:
            return self.called(node, name, [node.this], scope)
        parts = [self.value(part, scope) for part in (node.this, node.expression)]
        for value in parts:
            if value.type not in (VARCHAR, UNKNOWN):
                self.wrong(node, f"{name} takes texts, this is {value.type}")
        return Value(f"{name}({parts[0].sql}, {parts[1].sql})", VARCHAR, origin=joined_origin(parts))

    def on_substring(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "start", "length")
        parts = [node.this, node.args["start"], *([node.args["length"]] if node.args.get("length") is not None else [])]
        return self.called(node, "substr", parts, scope)

    def on_strposition(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this", "substr")
        return self.called(node, "strpos", [node.this, node.args["substr"]], scope)

    def on_currentdate(self, node: Any, scope: Scope) -> Value:
        self.only(node)
        return Value("current_date", DATE)

    def on_currenttimestamp(self, node: Any, scope: Scope) -> Value:
        self.only(node)
        return Value("now()", TIMESTAMP_TZ)

    def on_array(self, node: Any, scope: Scope) -> Value:
        self.only(node, "expressions", "value_constructor")
        if not node.expressions:
            self.refuse(node, "an empty array has no type; write CAST in Athena")
        values = self.united(node.expressions, [self.value(one, scope) for one in node.expressions])
        sql = ", ".join(self.plain(value.sql, value.type) for value in values)
        return Value(f"[{sql}]", array_of(values[0].type), any(value.nan for value in values), joined_origin(values))

    def on_bracket(self, node: Any, scope: Scope) -> Value:
        self.refuse(node, "DuckDB gives null beyond the end of an array, where Athena fails; write element_at(…, …)")

    def subquery(self, node: Any, scope: Scope) -> Relation:
        relation = self.query(
            node.this if type(node).__name__ == "Subquery" and not node.args.get("alias") else node, Scope(outer=scope)
        )
        if len(relation.columns) != 1:
            self.wrong(node, f"the subquery has {len(relation.columns)} columns, one is needed")
        return relation

    def on_subquery(self, node: Any, scope: Scope) -> Value:
        relation = self.subquery(node, scope)
        return replace(relation.columns[0][2], sql=f"({relation.sql})")

    def on_exists(self, node: Any, scope: Scope) -> Value:
        self.only(node, "this")
        return Value(f"EXISTS ({self.query(node.this, Scope(outer=scope)).sql})", BOOLEAN)


def type_of_parameter(value: Parameter) -> str:
    """The type that a parameter has in Athena."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER if -(2**31) <= value < 2**31 else BIGINT
    if isinstance(value, float):
        return DOUBLE
    if isinstance(value, datetime):
        return TIMESTAMP if value.tzinfo is None else TIMESTAMP_TZ
    return DATE if isinstance(value, date) else VARCHAR
