"""Functions, aggregates and windows: which signature fits, and DuckDB's SQL of it.

Not here: the functions themselves (functions.py), and other expressions (expressions.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stock_lakehouse.sql import casts
from stock_lakehouse.sql.functions import REASONS, Signature, signatures
from stock_lakehouse.sql.scopes import (
    Part,
    Scope,
    joined_origin,
    meant,
    spelled,
)
from stock_lakehouse.sql.typed import (
    BIGINT,
    DATE,
    DECIMAL,
    DOUBLE,
    INTEGER,
    INTERVAL,
    NUMBERS,
    TIMES,
    UNKNOWN,
    VARCHAR,
    WHOLE,
    Origin,
    Value,
    array_of,
    common_type,
    element_of,
    is_array,
    text_literal,
)

DAY_UNITS = {"day": "1 DAY", "week": "7 DAY", "month": "1 MONTH", "quarter": "3 MONTH", "year": "1 YEAR"}
TIME_UNITS = {"millisecond": "1 MILLISECOND", "second": "1 SECOND", "minute": "1 MINUTE", "hour": "1 HOUR", **DAY_UNITS}
# A time has the precision of its text in Athena, to which date_add rounds: a millisecond after 00:00:00 is 00:00:00.
ADDED_UNITS = {name: unit for name, unit in TIME_UNITS.items() if name != "millisecond"}
PATTERNS = ("searched", "pattern", "replaced")
LITERALS = (*PATTERNS, "replacement", "format", "day_unit", "time_unit", "added_unit")
UNITS = {"day_unit": DAY_UNITS, "time_unit": TIME_UNITS, "added_unit": ADDED_UNITS}
# MySQL's specifiers of date_format, which Athena has, as strftime writes them. Others are refused.
SPECIFIERS = {
    **{letter: f"%{letter}" for letter in "YmdHjpaby%"},
    "f": "%g000",  # Athena formats milliseconds
    **{"i": "%M", "s": "%S", "S": "%S", "M": "%B", "W": "%A", "T": "%H:%M:%S", "h": "%I", "I": "%I"},
    **{"c": "%-m", "e": "%-d", "k": "%-H", "l": "%-I"},
}  # fmt: skip
# What Java calls white space, which `trim` removes.
WHITESPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
    "\u2028\u2029\u205f\u3000"
)
# Names of the tables in functions.py for several types.
CLASSES = {"number": NUMBERS, "whole": WHOLE, "moment": (DATE, *TIMES), "time": TIMES}
FAILS = re.compile(r"\{fail:(.*?)\}")


class Calls(Part):
    """The rules of functions. `reasons`: why a function that Athena has is not among the signatures."""

    reasons: Mapping[str, str] = REASONS

    @property
    def signatures(self) -> dict[str, list[Signature]]:
        """The functions that the engine computes as Athena does, by name."""
        return signatures()

    def on_anonymous(self, node: Any, scope: Scope) -> Value:
        value, wrap, signature = self.function(node, scope)
        if signature.kind == "window":
            self.wrong(node, f"{signature.name} needs OVER (…)")
        return wrapped(value, wrap)

    def on_filter(self, node: Any, scope: Scope) -> Value:
        value, wrap, _ = self.filtered(node, scope)
        return wrapped(value, wrap)

    def filtered(self, node: Any, scope: Scope) -> tuple[Value, str | None, Signature]:
        self.only(node, "this", "expression")
        value, wrap, signature = self.windowed(node.this, scope)
        if signature.kind != "aggregate":
            self.wrong(node, f"FILTER is of aggregates, {signature.name} is none")
        condition = self.boolean(node.expression.this, scope, "FILTER")
        written = f"{value.sql} FILTER (WHERE {condition.sql})"
        return replace(value, sql=written, origin=value.origin | condition.origin), wrap, signature

    def on_withingroup(self, node: Any, scope: Scope) -> Value:
        value, wrap, _ = self.within_group(node, scope)
        return wrapped(value, wrap)

    def within_group(self, node: Any, scope: Scope) -> tuple[Value, str | None, Signature]:
        self.only(node, "this", "expression")
        if node.this.name.lower() != "listagg":
            self.refuse(node, f"WITHIN GROUP is run for listagg alone on {self.engine}")
        order = self.sort_keys(node.expression, scope).sql
        return self.function(node.this, scope, order=order)

    def windowed(self, node: Any, scope: Scope) -> tuple[Value, str | None, Signature]:
        """A function before FILTER or OVER: without what is applied to its result."""
        from sqlglot import exp

        if isinstance(node, exp.Filter):
            return self.filtered(node, scope)
        if isinstance(node, exp.WithinGroup):
            return self.within_group(node, scope)
        if isinstance(node, exp.IgnoreNulls | exp.RespectNulls):
            return self.function(node.this, scope, ignore_nulls=isinstance(node, exp.IgnoreNulls))
        return self.function(node, scope)

    def on_ignorenulls(self, node: Any, scope: Scope) -> Value:
        self.wrong(node, "IGNORE NULLS stands between a window function and its OVER")

    def on_window(self, node: Any, scope: Scope) -> Value:
        from sqlglot import exp

        self.only(node, "this", "partition_by", "order", "spec", "alias", "over")
        if isinstance(node.this, exp.Filter):
            self.wrong(node, "Athena has no FILTER before OVER; write an aggregate of CASE WHEN … THEN … END")
        value, wrap, signature = self.windowed(node.this, scope)
        if signature.kind == "scalar":
            self.wrong(node, f"{signature.name} is neither an aggregate nor a window function")
        if node.args.get("alias") is not None and not (
            node.args.get("partition_by") or node.args.get("order") or node.args.get("spec")
        ):
            name = self.name_of(node.args["alias"])
            if name not in scope.windows:
                self.wrong(node, f"there is no window {name}")
            body, over = scope.windows[name], scope.windows[name].sql
        else:
            body = self.window_body(node, scope)
            over = f"({body.sql})"
        return wrapped(replace(value, sql=f"{value.sql} OVER {over}", origin=value.origin | body.origin), wrap)

    def window_body(self, node: Any, scope: Scope) -> Value:
        """What stands in the parentheses of OVER."""
        if node.args.get("alias") is not None:
            self.refuse(node, f"a window that extends a named one is not run on {self.engine}; write it in full")
        parts, origin = [], frozenset[Origin]()
        if node.args.get("partition_by"):
            values = [self.settled(one, self.value(one, scope)) for one in node.args["partition_by"]]
            parts.append(f"PARTITION BY {', '.join(value.sql for value in values)}")
            origin |= joined_origin(values)
        if node.args.get("order") is not None:
            keys = self.sort_keys(node.args["order"], scope)
            parts.append(f"ORDER BY {keys.sql}")
            origin |= keys.origin
        if (spec := node.args.get("spec")) is not None:
            self.only(spec, "kind", "start", "start_side", "end", "end_side")
            start, end = (self.bound(spec, name, scope) for name in ("start", "end"))
            kind = spec.args["kind"].upper()
            parts.append(f"{kind} BETWEEN {start} AND {end}" if end else f"{kind} {start}")
        return Value(" ".join(parts), UNKNOWN, origin=origin)

    def bound(self, spec: Any, name: str, scope: Scope) -> str:
        bound, side = spec.args.get(name), (spec.args.get(f"{name}_side") or "").upper()
        if bound is None:
            return ""
        if isinstance(bound, str):
            return f"{bound.upper()} {side}".strip()
        value = self.settled(bound, self.value(bound, scope))
        return f"{value.sql} {side}"

    def sort_keys(self, order: Any, scope: Scope) -> Value:
        """The keys of an ORDER BY inside of a function or window."""
        values = [self.settled(key.this, self.value(key.this, scope)) for key in order.expressions]
        keys = [self.sort_key(key, value.sql) for key, value in zip(order.expressions, values, strict=True)]
        return Value(", ".join(keys), UNKNOWN, origin=joined_origin(values))

    def called(self, node: Any, name: str, arguments: Sequence[Any], scope: Scope) -> Value:
        """A scalar function that has a syntax of its own."""
        return self.applied(node, name, [self.value(argument, scope) for argument in arguments], arguments)[0]

    def function(
        self, node: Any, scope: Scope, order: str = "", ignore_nulls: bool = False
    ) -> tuple[Value, str | None, Signature]:
        """A function by name: its value, what is applied to the result outside of FILTER and OVER, and its signature."""
        from sqlglot import exp

        if not isinstance(node, exp.Anonymous):
            self.refuse(node, f"this is not run on {self.engine} ({spelled(type(node).__name__)})")
        name = str(node.this).lower()
        arguments = list(node.expressions)
        if (value := self.without_signature(node, name, arguments, scope)) is not None:
            return value, None, self.signatures["count" if name == "count" else "coalesce"][0]
        distinct = ""
        if len(arguments) == 1 and isinstance(arguments[0], exp.Order):
            order, arguments = self.sort_keys(arguments[0], scope).sql, [arguments[0].this]
        if len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
            self.only(arguments[0], "expressions")
            distinct, arguments = "DISTINCT ", list(arguments[0].expressions)
        if arguments and isinstance(arguments[-1], exp.Order):
            order, arguments[-1] = self.sort_keys(arguments[-1], scope).sql, arguments[-1].this
        values = [self.value(argument, scope) for argument in arguments]
        if name in ("lag", "lead", "nth_value") and len(values) > 1:
            offset = values[1].literal
            if offset is None or not offset.isdigit() or (name == "nth_value" and not int(offset)):
                self.refuse(arguments[1], f"the offset of {name} is written as a positive whole number here")
        value, signature = self.applied(node, name, values, arguments, distinct, order, ignore_nulls)
        if (distinct or order) and signature.kind != "aggregate":
            self.wrong(node, f"DISTINCT and ORDER BY are of aggregates, {name} is none")
        if ignore_nulls and signature.kind != "window":
            self.wrong(node, f"IGNORE NULLS is of window functions, {name} is none")
        wrap = signature.wrap
        if signature.name == "max" and values[0].nan:
            wrap = "(- {result})"
        return value, wrap, signature

    def without_signature(self, node: Any, name: str, arguments: Sequence[Any], scope: Scope) -> Value | None:
        """`try`, `nullif`, `grouping` and `count(*)`, whose arguments no signature describes; None for another function."""
        from sqlglot import exp

        if name == "try" and len(arguments) == 1:
            value = self.settled(arguments[0], self.value(arguments[0], scope))
            return replace(value, sql=f"TRY({value.sql})", literal=None)
        if name == "nullif" and len(arguments) == 2:
            first, second = (self.value(argument, scope) for argument in arguments)
            equal = self.compared(node, "EQ", first, second)
            first = self.settled(arguments[0], first)
            written = f"(CASE WHEN {equal.sql} THEN NULL ELSE {first.sql} END)"
            return Value(written, first.type, first.nan, equal.origin)
        if name == "grouping":
            columns = ", ".join(self.grouped_column(argument, scope) for argument in arguments)
            return Value(f"CAST(grouping({columns}) AS INTEGER)", INTEGER)
        if name == "count" and len(arguments) == 1 and isinstance(arguments[0], exp.Star):
            return Value("count(*)", BIGINT)
        return None

    def applied(
        self,
        node: Any,
        name: str,
        values: Sequence[Value],
        arguments: Sequence[Any],
        distinct: str = "",
        order: str = "",
        ignore_nulls: bool = False,
    ) -> tuple[Value, Signature]:
        """The function `name` of `values`, which stand for `arguments`."""
        known = self.signatures.get(name)
        if known is None:
            reason = self.reasons.get(name)
            if reason is not None:
                self.refuse(node, f"{name}(…) is not run on {self.engine}: {reason}; or {self.elsewhere}")
            self.refuse(
                node,
                f"{name}(…) is not among the functions that are known to give the same rows on {self.engine}"
                f"{meant(name, self.signatures)}; if Athena has it, {self.elsewhere}",
            )
        for signature in known:
            fitted = self.fitted(signature, values)
            if fitted is None:
                continue
            taken, kinds = fitted
            written = self.written(node, signature, taken, kinds, arguments, distinct, order, ignore_nulls)
            result = _result_type(signature, [value.type for value in taken], kinds)
            if signature.kind == "scalar" and signature.name in ("abs", "sign", "floor", "ceil", "round", "truncate"):
                result = taken[0].type if signature.result == "same" else result
            is_nan = result == DOUBLE and (signature.nan or any(value.nan for value in taken))
            return Value(written, result, is_nan, joined_origin(taken)), signature
        given = ", ".join(value.type for value in values)
        expected = " or ".join(map(str, known))
        if DECIMAL in [value.type for value in values]:
            self.settled(node, next(value for value in values if value.type == DECIMAL))
        self.refuse(node, f"{name}({given}) is not run on {self.engine}; there are {expected}")

    def fitted(self, signature: Signature, values: Sequence[Value]) -> tuple[list[Value], dict[str, str]] | None:
        """`values` in the types of `signature`, and the type that T stands for; None if they do not fit."""
        wanted = list(signature.arguments)
        if signature.repeats:
            wanted += [wanted[-1]] * (len(values) - len(wanted))
        if len(wanted) != len(values):
            return None
        kinds: dict[str, str] = {}
        for kind, value in zip(wanted, values, strict=True):
            if kind == "T":
                found = common_type(kinds.get("T", value.type), value.type)
                if found is None or found in (DECIMAL, INTERVAL):
                    return None
                kinds["T"] = found
        if signature.name == "mod":
            kinds["T"] = BIGINT if BIGINT in [value.type for value in values] else INTEGER
        taken = []
        for kind, value in zip(wanted, values, strict=True):
            fits = self.fit(kind, value, kinds)
            if fits is None:
                return None
            taken.append(fits)
        return taken, kinds

    def fit(self, kind: str, value: Value, kinds: Mapping[str, str]) -> Value | None:
        """`value` as an argument of the type `kind`; None if it is not one."""
        allowed = CLASSES.get(kind)
        if kind == "T":
            return self.coerced(value, kinds["T"])
        if allowed is not None:
            fits = value.type in allowed
        elif kind in LITERALS:
            fits = value.type == VARCHAR and value.literal is not None
        elif kind == "array":
            fits = is_array(value.type)
        elif kind == "any":
            fits = value.type not in (DECIMAL, INTERVAL)
        else:
            return self.coerced(value, kind) if common_type(value.type, kind) == kind else None
        return value if fits else None

    def written(
        self,
        node: Any,
        signature: Signature,
        values: Sequence[Value],
        kinds: Mapping[str, str],
        arguments: Sequence[Any],
        distinct: str,
        order: str,
        ignore_nulls: bool,
    ) -> str:
        """DuckDB's SQL of a function of `values`."""
        sqls = [value.sql for value in values]
        template = signature.template
        for place, kind in enumerate(signature.arguments):
            if kind in LITERALS:
                sqls[place] = text_literal(self.literal(arguments[place], kind, values[place].literal or ""))
        if signature.name in ("max", "max_by", "min_by", "greatest") and any(value.nan for value in values):
            # NaN is above all numbers in DuckDB, and no candidate in Athena unless there is nothing else.
            if signature.name == "max":
                template, sqls = "min({all})", [f"(- {sqls[0]})"]
            elif signature.name == "greatest":
                template = template.replace("greatest({all})", f"(- least({', '.join(f'(- {sql})' for sql in sqls)}))")
            elif values[1].nan:
                bound = "-inf" if signature.name == "max_by" else "inf"
                sqls[1] = f"CASE WHEN isnan({sqls[1]}) THEN CAST('{bound}' AS DOUBLE) ELSE {sqls[1]} END"
        every = ", ".join(sqls)
        if signature.kind == "window" and ignore_nulls:
            every += " IGNORE NULLS"
        if order:
            every += f" ORDER BY {order}"
        if signature.kind == "aggregate":
            template = re.sub(r"^(\w+)\(\{0\}(, \{1\})?\)$", r"\1({all})", template)
            every = distinct + every
        beyond = casts.failing("'SQL array indices start at 1'", BIGINT)
        parts = {
            "all": every,
            "any_null": " OR ".join(f"{sql} IS NULL" for sql in sqls),
            "joined": f"({' || '.join(sqls)})",
            "whitespace": text_literal(WHITESPACE),
            "type0": casts.DUCKDB.get(values[0].type, "") if values else "",
            "text_as_date": casts.text_as(sqls[0], DATE, False) if sqls else "",
            "element": f"list_extract({sqls[0]}, CASE WHEN {sqls[1]} = 0 THEN {beyond} ELSE {sqls[1]} END)"
            if len(sqls) > 1
            else "",
        }
        if "{1_units_after_2}" in template:
            unit = TIME_UNITS[str(values[0].literal).lower()]
            template = template.replace("{1_units_after_2}", f"({{2}} + CAST({{1}} AS INTEGER) * INTERVAL {unit})")
        for name, text in parts.items():
            template = template.replace(f"{{{name}}}", text.replace("{", "\0").replace("}", "\1"))
        for place, sql in enumerate(sqls):
            template = template.replace(f"{{{place}}}", sql.replace("{", "\0").replace("}", "\1"))
        template = template.replace("\0", "{").replace("\1", "}")
        template = FAILS.sub(lambda match: casts.failing(text_literal(match[1]), BIGINT), template)
        return f"({template})" if template.startswith("CASE") else template

    def literal(self, node: Any, kind: str, text: str) -> str:
        """The text of an argument that must be written in the query, as DuckDB needs it."""
        if kind in UNITS:
            units = UNITS[kind]
            if text.lower() not in units:
                self.refuse(node, f"'{text}' is no unit here; there are {', '.join(units)}")
            return text.lower()
        if kind == "format":
            return self.date_format(node, text)
        if kind in PATTERNS:
            return self.pattern(node, kind, text)
        if kind == "replacement":
            if "\\" in text or "${" in text:
                self.refuse(node, f"a replacement with \\ or ${{…}} is not run on {self.engine}; {self.elsewhere}")
            return re.sub(r"\$([0-9])", r"\\\1", text)
        return text

    def pattern(self, node: Any, kind: str, text: str) -> str:
        """A regular expression that means the same in both engines."""
        if re.search(r"\(\?[=!<>]|\\[1-9pPkGZzbB]|[*+?}]\+|&&|\[:", text):
            self.refuse(
                node, f"DuckDB has no look-around, references, classes or boundaries like Athena's; {self.elsewhere}"
            )
        # The end in Athena is also before a last line break. A search may consume that.
        body, ends = (text[:-1], True) if re.search(r"(?<!\\)(\\\\)*\$$", text) else (text, False)
        if (ends and kind != "searched") or re.search(r"(?<!\\)(\\\\)*\$", body):
            self.refuse(node, f"`$` is also before a last line break in Athena, and not in DuckDB; {self.elsewhere}")
        if kind == "replaced" and _matches_nothing(text):
            self.refuse(
                node, f"a pattern that matches an empty text is replaced in another way by DuckDB; {self.elsewhere}"
            )
        return rf"{body}\n?\z" if ends else text

    def date_format(self, node: Any, text: str) -> str:
        parts = []
        for match in re.finditer(r"%(.?)|[^%]+", text, re.DOTALL):
            if not match[0].startswith("%"):
                parts.append(match[0])
            elif match[1] in SPECIFIERS:
                parts.append("%%" if match[1] == "%" else SPECIFIERS[match[1]])
            else:
                known = " ".join(f"%{letter}" for letter in SPECIFIERS)
                self.refuse(node, f"date_format: %{match[1]} is not run on {self.engine}; there are {known}")
        return "".join(parts)


def _matches_nothing(pattern: str) -> bool:
    """Whether a regular expression may match an empty text; True if Python cannot tell."""
    try:
        return re.search(pattern, "") is not None
    except re.error:
        return True


def wrapped(value: Value, wrap: str | None) -> Value:
    return value if wrap is None else replace(value, sql=wrap.replace("{result}", value.sql))


def _result_type(signature: Signature, types: Sequence[str], kinds: Mapping[str, str]) -> str:
    result = signature.result
    if result == "same":
        return types[0]
    if result == "T":
        return kinds["T"]
    if result in ("T1", "T2"):
        return types[int(result[1])]
    if result == "array":
        return array_of(types[0])
    return element_of(types[0]) if result == "element" else result
