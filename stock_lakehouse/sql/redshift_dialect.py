"""From a query in Athena's dialect to the SQL of Redshift that gives the same rows, or the reason and the place why not.

The rules are those for DuckDB (dialect.py), of which each that may be used is named here, and those that write other SQL are
replaced. So a rule that is added there is refused here until somebody has looked at it for Redshift.

Where Redshift has no value that Athena has, the query fails and gives no other rows: a double divided by zero, the root of a
negative number. So no value is NaN or infinite, and a comparison needs no rule for them. A time with a zone is stored as a time
in UTC, because Redshift's external tables have no others.

Here: queries and expressions. Not here: functions that are a template (redshift_functions.py), and running the result
(redshift.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from stock_lakehouse.sql import casts
from stock_lakehouse.sql.calls import UNITS
from stock_lakehouse.sql.dialect import OutputColumn, Translator
from stock_lakehouse.sql.engine import Parameter
from stock_lakehouse.sql.expressions import type_of_parameter
from stock_lakehouse.sql.functions import Signature
from stock_lakehouse.sql.redshift_functions import REASONS, redshift_signatures
from stock_lakehouse.sql.scopes import Relation, Scope, Visible
from stock_lakehouse.sql.typed import (
    BIGINT,
    BOOLEAN,
    DATE,
    DECIMAL,
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
    is_array,
    quoted,
)
from stock_lakehouse.tables import Table

TYPES = {
    BOOLEAN: "BOOLEAN",
    INTEGER: "INTEGER",
    BIGINT: "BIGINT",
    DOUBLE: "DOUBLE PRECISION",
    VARCHAR: "VARCHAR(65535)",  # without a length it is 256 bytes, and a conversion cuts the text
    DATE: "DATE",
    TIMESTAMP: "TIMESTAMP",
    TIMESTAMP_TZ: "TIMESTAMP",
}
# The kinds of expressions, by sqlglot's name, whose rule gives Redshift's SQL: either the one of DuckDB, or one here.
RUN = """
    column literal boolean null placeholder paren neg not and or dpipe interval between in is nullsafeeq nullsafeneq like escape
    case if cast trycast extract substring strposition currentdate subquery exists anonymous filter withingroup window ignorenulls
    eq neq gt gte lt lte add sub mul div mod
"""
AGGREGATES_OVER = (
    "count", "count_if", "sum", "avg", "min", "max", "stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop",
)  # fmt: skip
OF_FRAMES = ("first_value", "last_value", "nth_value")
BEST = {"max_by": "DESC", "min_by": "ASC"}
# Doubles from here on have no digits after the point.
WHOLE_DOUBLES = 2**52
MOST_DIGITS = 15  # of round
# Characters one of which stands for the escape in LIKE, where Athena has none and Redshift a backslash.
ESCAPES = "^~#|!@"
# The specifiers of date_format, as TO_CHAR writes them.
FORMAT = {"Y": "YYYY", "m": "MM", "d": "DD", "H": "HH24", "i": "MI", "s": "SS", "S": "SS", "%": "%"}
PLACE = re.compile(r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?: (\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?)?")
PARAMETER = "lake_value_"


@dataclass(frozen=True)
class RedshiftTranslation:
    """A query for Redshift.

    - sql: Redshift's SQL
    - parameters: the values of `:name` in it
    - columns: of the result
    - tables: the tables that it reads
    """

    sql: str
    parameters: Mapping[str, str]
    columns: tuple[OutputColumn, ...]
    tables: tuple[str, ...]


def translate(
    sql: str,
    tables: Mapping[str, Table],
    place_of: Callable[[str], str | None],
    parameters: Sequence[Parameter] = (),
    views: Mapping[str, str] | None = None,
) -> RedshiftTranslation:
    """Redshift's SQL for one SELECT in Athena's dialect.

    - tables: the tables that may be read, by name, with the columns that they have
    - place_of: what stands in FROM for a table, by its name; None for a table that Redshift does not read
    - parameters: the values for its `?`
    - views: queries that may be read like a table, by name

    Raises QuerySyntaxError for what Athena refuses as well, QueryRefusedError for what Redshift does otherwise.
    """
    translator = RedshiftTranslator(sql, tables, parameters, views or {}, place_of)
    translation = translator.run()
    return RedshiftTranslation(translation.sql, translator.given, translation.columns, translation.tables)


class RedshiftTranslator(Translator):
    """The rules for Redshift.

    - place_of: what stands in FROM for a table, by its name; None for a table that Redshift does not read
    - given: the values of the query's `:name`
    """

    engine = "Redshift"
    elsewhere = "run it with --engine duckdb, athena or trino"
    reasons = REASONS

    def __init__(
        self,
        sql: str,
        tables: Mapping[str, Table],
        parameters: Sequence[Parameter],
        views: Mapping[str, str],
        place_of: Callable[[str], str | None],
    ) -> None:
        super().__init__(sql, tables, parameters, views)
        self.place_of = place_of
        self.given: dict[str, str] = {}
        self._condition: str | None = None  # of the FILTER around the aggregate that is translated
        self._order: str | None = None  # of the joined texts of the SELECT that is translated
        self._best: dict[int, str] = {}  # of a max_by or min_by: the column that is 1 in its row

    @property
    def signatures(self) -> dict[str, list[Signature]]:
        return redshift_signatures()

    # Queries.

    def query(self, node: Any, outer: Scope) -> Relation:
        outside = self._condition, self._order
        self._condition = self._order = None
        relation = super().query(node, outer)
        self._condition, self._order = outside
        return relation

    def stored(self, node: Any, name: str) -> str:
        place = self.place_of(name)
        if place is None:
            self.refuse(
                node.this,
                f"{name} is a Delta table, which Redshift does not read, and no table of the warehouse; {self.elsewhere}",
            )
        return place

    def of_view(self, sql: str) -> Translator:
        return RedshiftTranslator(sql, self.tables, (), {}, self.place_of)

    def source(self, node: Any, scope: Scope) -> str:
        for window in node.args.get("windows") or []:
            self.refuse(window, "WINDOW is not run on Redshift; write the window in each OVER (…)")
        written = super().source(node, scope)
        calls = _own_calls(node)
        return self._with_best(node, scope, written, calls) if calls else written

    def _with_best(self, node: Any, scope: Scope, written: str, calls: Sequence[Any]) -> str:
        """`written` with a column a call of max_by or min_by, that is 1 in the row whose value the call gives."""
        from sqlglot import exp

        inside = self.unique("rows")
        group = node.args.get("group")
        keys = []
        if group is not None:
            self.only(group, "expressions")
            for key in group.expressions:
                place = isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit()
                named = (
                    node.expressions[int(key.name) - 1] if place and 0 < int(key.name) <= len(node.expressions) else key
                )
                keys.append(self.value(named.this if isinstance(named, exp.Alias) else named, scope).sql)
        partition = f"PARTITION BY {', '.join(keys)} " if keys else ""
        columns, visible = [], []
        for column in scope.visible:
            if is_array(column.value.type):
                continue
            name = self.unique(column.name or "column")
            columns.append(f"{column.value.sql} AS {quoted(name)}")
            visible.append(replace(column, value=replace(column.value, sql=f"{quoted(inside)}.{quoted(name)}")))
        for call in calls:
            if len(call.expressions) != 2:
                self.refuse(call, f"{call.name.lower()} takes two arguments here")
            order = self.settled(call.expressions[1], self.value(call.expressions[1], scope))
            name = self.unique("best")
            direction = BEST[call.name.lower()]
            columns.append(
                f"ROW_NUMBER() OVER ({partition}ORDER BY {order.sql} {direction} NULLS LAST) AS {quoted(name)}"
            )
            self._best[id(call)] = f"{quoted(inside)}.{quoted(name)}"
        scope.visible = visible
        return " ".join(("FROM (SELECT", ", ".join(columns), f"{written}) AS", quoted(inside)))

    def relation(self, node: Any, scope: Scope) -> tuple[str, list[Visible]]:
        from sqlglot import exp

        if isinstance(node, exp.Unnest | exp.Lateral):
            self.refuse(node, f"{type(node).__name__.upper()} is not run on Redshift; {self.elsewhere}")
        return super().relation(node, scope)

    def constant_rows(self, names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
        rows = [", ".join(f"{cell} AS {quoted(name)}" for name, cell in zip(names, row, strict=True)) for row in cells]
        return " UNION ALL ".join(f"SELECT {row}" for row in rows)

    def set_operation(self, node: Any, scope: Scope) -> Relation:
        word = type(node).__name__.upper()
        if word != "UNION" and not node.args.get("distinct"):
            self.refuse(node, f"{word} ALL is not run on Redshift; {self.elsewhere}")
        return super().set_operation(node, scope)

    def output(self, node: Any, scope: Scope) -> Value:
        value = super().output(node, scope)
        return self._no_array(node, value)

    def selected(self, item: Any, scope: Scope, count: int) -> list[tuple[str, Value, bool]]:
        return [
            (name, self._no_array(item, value), named) for name, value, named in super().selected(item, scope, count)
        ]

    def count(self, node: Any) -> str:
        from sqlglot import exp

        if isinstance(node.args.get("expression"), exp.Placeholder):
            value = self._next_parameter(node.expression)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.wrong(node.expression, "LIMIT needs a whole number")
            return str(value)
        return super().count(node)

    # Expressions.

    def value(self, node: Any, scope: Scope, in_order: bool = False) -> Value:
        if type(node).__name__.lower() not in RUN.split():
            self.refuse(node, f"this is not run on Redshift ({type(node).__name__.upper()}); {self.elsewhere}")
        return super().value(node, scope, in_order)

    def _no_array(self, node: Any, value: Value) -> Value:
        if is_array(value.type):
            self.refuse(node, f"Redshift has no arrays; name the columns that are none, or {self.elsewhere}")
        return value

    def on_column(self, node: Any, scope: Scope) -> Value:
        value = super().on_column(node, scope)
        name, relation = node.name.lower(), node.text("table").lower() or None
        if not any(column.name == name and relation in (None, column.relation) for column in scope.visible):
            self.refuse(
                node, "a subquery that names columns of the query around it is not run on Redshift; write a JOIN"
            )
        return self._no_array(node, value)

    def plain(self, sql: str, kind: str) -> str:
        return sql if kind == UNKNOWN else f"CAST({sql} AS {TYPES[kind]})"

    def coerced(self, value: Value, kind: str) -> Value:
        if value.type == DECIMAL and kind == DOUBLE:
            return replace(value, sql=_double(value.sql), type=DOUBLE)
        return super().coerced(value, kind)

    def on_literal(self, node: Any, scope: Scope) -> Value:
        value = super().on_literal(node, scope)
        if value.type == VARCHAR:
            return replace(value, sql=_text(node.name))
        return replace(value, sql=_double(node.name)) if value.type == DOUBLE else value

    def placeholder(self, node: Any) -> Value:
        value = self._next_parameter(node)
        kind = type_of_parameter(value)
        if not isinstance(value, str) or not value:  # the Data API takes no empty text
            return Value(self.plain(_constant(value), kind), kind)
        name = f"{PARAMETER}{self.seen_parameters}"
        self.given[name] = value
        return Value(self.plain(f":{name}", kind), kind)

    def _next_parameter(self, node: Any) -> Parameter:
        if node.args.get("this"):
            self.wrong(node, "a parameter is written as `?`")
        if self.seen_parameters >= len(self.parameters):
            self.wrong(node, f"there is no value for this `?`; {len(self.parameters)} parameters are given")
        self.seen_parameters += 1
        return self.parameters[self.seen_parameters - 1]

    def computed(self, node: Any, operator: str, left: Value, right: Value) -> Value:
        if operator == "%" and left.type == DOUBLE:
            self.refuse(node, f"% of doubles is not run on Redshift; {self.elsewhere}")
        return Value(f"({left.sql} {operator} {right.sql})", left.type, origin=left.origin | right.origin)

    def on_interval(self, node: Any, scope: Scope) -> Value:
        return replace(super().on_interval(node, scope), sql=str(int(node.this.name)))

    def moved(self, node: Any, operator: str, left: Value, right: Value) -> Value:
        checked = super().moved(node, operator, left, right)
        if left.type not in (DATE, *TIMES):
            left, right = right, left
        number = int(right.sql) * (-1 if operator == "-" else 1)
        written = f"DATEADD({str(right.literal).lower()}, {number}, {left.sql})"
        return replace(checked, sql=self.plain(written, DATE) if left.type == DATE else written)

    def comparison(self, node: Any, word: str, scope: Scope) -> Value:
        from sqlglot import exp

        if isinstance(node.expression, exp.Any):
            self.refuse(node, f"a comparison with ANY is not run on Redshift; {self.elsewhere}")
        return super().comparison(node, word, scope)

    def distinct_from(self, node: Any, words: str, scope: Scope) -> Value:
        left, right = self.value(node.this, scope), self.value(node.expression, scope)
        kind = self.comparable(node, left, right)
        left, right = (self.settled(node, self.coerced(value, kind)) for value in (left, right))
        differ = f"({left.sql} IS NOT NULL OR {right.sql} IS NOT NULL)"
        written = (
            f"(CASE WHEN {left.sql} IS NULL OR {right.sql} IS NULL THEN {differ} ELSE {left.sql} <> {right.sql} END)"
        )
        if "NOT" in words:
            written = f"(NOT {written})"
        return Value(written, BOOLEAN, origin=left.origin | right.origin)

    def like(self, node: Any, escape: Any, scope: Scope) -> Value:
        from sqlglot import exp

        value = super().like(node, escape, scope)
        pattern = node.expression
        if isinstance(pattern, exp.Placeholder):
            text = str(self.parameters[self.seen_parameters - 1])
        elif isinstance(pattern, exp.Literal):
            text = pattern.name
        else:
            self.refuse(node, "LIKE takes a text that is written in the query, or a parameter, on Redshift")
        if escape is not None:
            return value
        # Without ESCAPE a backslash is one in Redshift, and a plain character in Athena.
        if "\\" not in text:
            return value
        unused = next((letter for letter in ESCAPES if letter not in text), None)
        if unused is None:
            self.refuse(node, f"this pattern is not run on Redshift; {self.elsewhere}")
        return replace(value, sql=f"{value.sql[:-1]} ESCAPE '{unused}')")

    def on_extract(self, node: Any, scope: Scope) -> Value:
        return self.called(node, node.this.name.lower(), [node.expression], scope)

    def cast(self, node: Any, scope: Scope, is_try: bool) -> Value:
        self.only(node, "this", "to", "safe")
        if is_try:
            self.refuse(node, f"TRY_CAST is not run on Redshift; {self.elsewhere}")
        value = self.value(node.this, scope)
        if value.type == DECIMAL:
            value = self.coerced(value, DOUBLE)
        try:
            kind, size = casts.target(node.args["to"], self.engine)
        except casts.NoSuchCastError as error:
            self.refuse(node, str(error))
        if value.literal is not None and value.type == VARCHAR and kind in (DATE, *TIMES):
            return self._time_literal(node, value.literal, kind, size)
        written = self._converted(value, kind, size)
        if written is None:
            length = "" if size is None else f"({size})"
            self.refuse(
                node, f"a conversion of {value.type} to {kind}{length} is not run on Redshift; {self.elsewhere}"
            )
        return Value(written, kind, origin=value.origin)

    def _time_literal(self, node: Any, text: str, kind: str, digits: int | None) -> Value:
        """A day or a time that is written in the query."""
        zone = casts.ZONED_TEXT.fullmatch(text.strip())
        found = (
            PLACE.match(text.strip())
            if zone or casts.DAY_TEXT.fullmatch(text) or casts.TIME_TEXT.fullmatch(text)
            else None
        )
        if found is None or (kind == DATE and found[4] is not None):
            self.refuse(node, f"'{text}' is no day or time here; write it like 2024-01-31, or 2024-01-31 09:30:00")
        if digits is not None and digits < len(found[7] or ""):
            self.refuse(node, f"a time is not rounded to {digits} digits on Redshift; write it with as many")
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
        try:
            moment = datetime(year, month, day, hour, minute, second, int((found[7] or "").ljust(6, "0")))
            if zone is not None and zone[3] not in ("UTC", "Z"):
                moment = datetime.fromisoformat(f"{moment.isoformat()}{zone[3]}").astimezone(UTC).replace(tzinfo=None)
        except ValueError:
            self.wrong(node, f"there is no such day or time: '{text}'")
        written = moment.date().isoformat() if kind == DATE else moment.isoformat(" ")
        return Value(self.plain(f"'{written}'", kind), kind)

    def _converted(self, value: Value, kind: str, size: int | None) -> str | None:
        """`value` as `kind`; None if Redshift does not convert as Athena does."""
        sql, source = value.sql, value.type
        written = None
        if kind == VARCHAR:
            written = self._as_text(sql, source, size)
        elif source == UNKNOWN or (source == kind and kind not in TIMES):
            written = self.plain(sql, kind)
        elif source == DOUBLE and kind in WHOLE:
            written = self.plain(_rounded(sql, 0), kind)
        elif source in NUMBERS and kind == BOOLEAN:
            written = f"({sql} <> 0)"
        elif source == BOOLEAN and kind in NUMBERS:
            written = self.plain(f"CASE WHEN {sql} THEN 1 WHEN NOT {sql} THEN 0 END", kind)
        elif (
            (source in WHOLE and kind in NUMBERS)
            or (source in TIMES and kind == DATE)
            or (source == DATE and kind in TIMES)
        ):
            written = self.plain(sql, kind)
        return written

    def _as_text(self, sql: str, source: str, length: int | None) -> str | None:
        if source in (VARCHAR, UNKNOWN):
            text = self.plain(sql, VARCHAR)
            return text if length is None else f"LEFT({text}, {length})"
        if source == DATE and (length is None or length >= len("2024-01-31")):
            return f"TO_CHAR({sql}, 'YYYY-MM-DD')"
        if length is not None:
            return None
        if source == BOOLEAN:
            return f"(CASE WHEN {sql} THEN 'true' WHEN NOT {sql} THEN 'false' END)"
        return self.plain(sql, VARCHAR) if source in WHOLE else None

    def on_trim(self, node: Any, scope: Scope) -> Value:
        self.refuse(node, f"TRIM is not run on Redshift, which takes other characters for blanks; {self.elsewhere}")

    # Functions.

    def filtered(self, node: Any, scope: Scope) -> tuple[Value, str | None, Signature]:
        self.only(node, "this", "expression")
        condition = self.boolean(node.expression.this, scope, "FILTER")
        self._condition = condition.sql
        value, wrap, signature = self.windowed(node.this, scope)
        self._condition = None
        if signature.kind != "aggregate":
            self.wrong(node, f"FILTER is of aggregates, {signature.name} is none")
        return replace(value, origin=value.origin | condition.origin), wrap, signature

    def within_group(self, node: Any, scope: Scope) -> tuple[Value, str | None, Signature]:
        self.only(node, "this", "expression")
        call = node.this
        if call.name.lower() != "listagg" or len(call.expressions) != 2:
            self.refuse(node, "WITHIN GROUP is run for listagg(…, ', ') alone on Redshift")
        value = self.listed(call, call.expressions[0], call.expressions[1], node.expression, scope)
        return value, None, self.signatures["count"][0]

    def listed(self, node: Any, item: Any, separator: Any, order: Any, scope: Scope) -> Value:
        """Texts of a group, joined in an order."""
        from sqlglot import exp

        if isinstance(item, exp.Distinct):
            self.refuse(item, f"DISTINCT texts are not joined on Redshift; {self.elsewhere}")
        if not (isinstance(separator, exp.Literal) and separator.is_string):
            self.refuse(separator, "the text between the others is written in the query on Redshift")
        value = self.value(item, scope)
        if value.type not in (VARCHAR, UNKNOWN):
            self.refuse(item, f"texts are joined, this is {value.type}; write CAST(… AS varchar)")
        if order is None:
            self.refuse(node, "the order of joined texts is not written; add ORDER BY")
        keys, origin = [], value.origin
        for key in order.expressions:
            self.only(key, "this", "desc", "nulls_first")
            found = self.settled(key.this, self.value(key.this, scope))
            first = bool(key.args.get("nulls_first"))
            keys.append(f"CASE WHEN {found.sql} IS NULL THEN {0 if first else 1} ELSE {1 if first else 0} END")
            keys.append(f"{found.sql} {'DESC' if key.args.get('desc') else 'ASC'}")
            origin |= found.origin
        if self._order not in (None, ", ".join(keys)):
            self.refuse(
                order, "the joined texts of one SELECT have one order on Redshift; join the others in a subquery"
            )
        self._order = ", ".join(keys)
        written = (
            f"LISTAGG({self._of_filter(value.sql)}, {_text(separator.name)}) WITHIN GROUP (ORDER BY {self._order})"
        )
        return Value(written, VARCHAR, origin=origin)

    def _joined_array(self, node: Any, scope: Scope) -> Value | None:
        """`array_join(array_agg(…), …)` without an array; None for another call."""
        from sqlglot import exp

        if len(node.expressions) != 2:
            return None
        call, separator = node.expressions
        condition = None
        if isinstance(call, exp.Filter):
            condition, call = self.boolean(call.expression.this, scope, "FILTER"), call.this
        if not isinstance(call, exp.Anonymous) or call.name.lower() != "array_agg" or len(call.expressions) != 1:
            return None
        order = call.expressions[0] if isinstance(call.expressions[0], exp.Order) else None
        item = call.expressions[0] if order is None else order.this
        self._condition = None if condition is None else condition.sql
        value = self.listed(call, item, separator, order, scope)
        rows = f"COUNT({self._of_filter('1')})"
        self._condition = None
        # An array of nulls is joined to an empty text; without a row there is no array.
        written = f"(CASE WHEN {rows} > 0 THEN COALESCE({value.sql}, '') END)"
        return replace(value, sql=written, origin=value.origin | (condition.origin if condition else frozenset()))

    def on_window(self, node: Any, scope: Scope) -> Value:
        from sqlglot import exp

        if node.args.get("alias") is not None:
            self.refuse(node, "a named window is not run on Redshift; write the window in OVER (…)")
        inner = node.this.this if isinstance(node.this, exp.IgnoreNulls | exp.RespectNulls) else node.this
        name = str(inner.name).lower() if isinstance(inner, exp.Anonymous) else type(inner).__name__.lower()
        order, spec = node.args.get("order"), node.args.get("spec")
        if any(isinstance(part, exp.Distinct) for part in inner.args.get("expressions") or []):
            self.refuse(node, f"{name}(DISTINCT …) OVER (…) is not run on Redshift")
        known = self.signatures.get(name)
        kind = known[0].kind if known else None
        if kind == "aggregate" and name not in AGGREGATES_OVER:
            self.refuse(node, f"{name}(…) OVER (…) is not run on Redshift; {self.elsewhere}")
        if spec is not None and str(spec.args.get("kind")).upper() != "ROWS":
            self.refuse(node, "a frame counts ROWS on Redshift")
        if (spec is not None or kind == "window") and order is None:
            self.refuse(node, f"{name}(…) OVER (…) needs ORDER BY on Redshift")
        if spec is not None and kind == "window" and name not in OF_FRAMES:
            self.refuse(node, f"{name}(…) takes no frame on Redshift")
        if order is not None and any(isinstance(key.this, exp.Literal) for key in order.expressions):
            self.refuse(node, "a window is not ordered by a constant on Redshift")
        frame = ""
        if order is not None and spec is None and (kind == "aggregate" or name in OF_FRAMES):
            if name != "first_value":
                self.refuse(
                    node,
                    "without a frame, rows of the same order are one frame in Athena, and Redshift needs a frame; write ROWS "
                    "BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW in OVER (…)",
                )
            frame = " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"  # its first row is the same
        value = super().on_window(node, scope)
        return replace(value, sql=_framed(value.sql, frame)) if frame else value

    def function(
        self, node: Any, scope: Scope, order: str = "", ignore_nulls: bool = False
    ) -> tuple[Value, str | None, Signature]:
        from sqlglot import exp

        name = str(node.this).lower() if isinstance(node, exp.Anonymous) else ""
        if name in BEST:
            return self._best_value(node, name, scope), None, self.signatures["count"][0]
        if name == "array_join" and (value := self._joined_array(node, scope)) is not None:
            return value, None, self.signatures["coalesce"][0]
        return super().function(node, scope, order, ignore_nulls)

    def _best_value(self, node: Any, name: str, scope: Scope) -> Value:
        if id(node) not in self._best:
            self.refuse(
                node, f"{name}(…) is run on Redshift in the SELECT, HAVING or ORDER BY of a query, and not with OVER"
            )
        if self._condition is not None:
            self.refuse(node, f"{name}(…) has no FILTER on Redshift; filter in WHERE")
        value, key = (self.settled(part, self.value(part, scope)) for part in node.expressions)
        if value.type not in (*NUMBERS, VARCHAR, DATE, *TIMES):
            self.refuse(node, f"{name} gives no {value.type} on Redshift; {self.elsewhere}")
        # A row whose key is null is no candidate.
        written = f"MAX(CASE WHEN {self._best[id(node)]} = 1 AND {key.sql} IS NOT NULL THEN {value.sql} END)"
        return Value(written, value.type, origin=value.origin | key.origin)

    def without_signature(self, node: Any, name: str, arguments: Sequence[Any], scope: Scope) -> Value | None:
        from sqlglot import exp

        if name == "count" and len(arguments) == 1 and isinstance(arguments[0], exp.Star):
            return Value("COUNT(*)" if self._condition is None else f"COUNT({self._of_filter('1')})", BIGINT)
        if name == "nullif":
            return super().without_signature(node, name, arguments, scope)
        return None

    def _of_filter(self, sql: str) -> str:
        """What an aggregate takes of a row: null where its FILTER is not true."""
        return sql if self._condition is None else f"CASE WHEN {self._condition} THEN {sql} END"

    def fit(self, kind: str, value: Value, kinds: Mapping[str, str]) -> Value | None:
        if kind == "text":
            return value if value.type == VARCHAR and value.literal else None
        if kind in ("counted", "digits"):
            least, most = (1, 10**6) if kind == "counted" else (0, MOST_DIGITS)
            is_whole = value.type == INTEGER and value.literal is not None
            return value if is_whole and least <= int(value.literal or 0) <= most else None
        if kind == "whole_days":
            return value if (value.literal or "").lower() == "day" else None
        if kind == "T" and kinds["T"] not in TYPES:
            return None
        return super().fit(kind, value, kinds)

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
        if order:
            self.refuse(node, f"{signature.name}(… ORDER BY …) is not run on Redshift; {self.elsewhere}")
        if signature.name in ("greatest", "least") and kinds["T"] == BOOLEAN:
            self.refuse(node, f"{signature.name} of booleans is not run on Redshift")
        sqls = [value.sql for value in values]
        unit = ""
        for place, kind in enumerate(signature.arguments):
            if kind in UNITS:
                unit = self.literal(arguments[place], kind, values[place].literal or "")
                sqls[place] = _text(unit)
            elif kind == "format":
                sqls = [_text(self.date_format(arguments[place], values[place].literal or "")), sqls[0]]
        first = sqls[0] if sqls else ""
        condition = first if self._condition is None else f"({self._condition} AND {first})"
        if signature.kind == "aggregate" and sqls:
            sqls[0] = distinct + self._of_filter(first)
        days, rounds = f"EXTRACT(DOW FROM {first})", signature.name == "round"
        parts = {
            "all": ", ".join(sqls),
            "any_null": " OR ".join(f"{sql} IS NULL" for sql in sqls),
            "joined": f"({' || '.join(sqls)})",
            "unit": unit,
            "condition": condition,
            "rounded": _rounded(first, int(values[1].literal or 0) if len(values) > 1 else 0) if rounds else "",
            "day_of_week": f"CAST(CASE WHEN {days} = 0 THEN 7 ELSE {days} END AS BIGINT)",
            **{str(place): sql for place, sql in enumerate(sqls)},
        }
        written = re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], signature.template)
        if ignore_nulls:
            written += " IGNORE NULLS"
        return f"({written})" if written.startswith("CASE") else written

    def date_format(self, node: Any, text: str) -> str:
        parts = []
        for match in re.finditer(r"%(.?)|[^%]+", text, re.DOTALL):
            if not match[0].startswith("%"):
                if re.search(r"[A-Za-z0-9\"\\]", match[0]):
                    self.refuse(node, "date_format: letters and digits are not copied on Redshift")
                parts.append(match[0])
            elif match[1] in FORMAT:
                parts.append(FORMAT[match[1]])
            else:
                known = " ".join(f"%{letter}" for letter in FORMAT)
                self.refuse(node, f"date_format: %{match[1]} is not run on Redshift; there are {known}")
        return "".join(parts)


def _own_calls(node: Any) -> list[Any]:
    """The calls of max_by and min_by in a SELECT, without those of its subqueries and windows."""
    from sqlglot import exp

    found = []
    parts = [*node.expressions, node.args.get("having"), node.args.get("order")]
    for part in (part for part in parts if part is not None):
        for inner in part.walk(prune=lambda inner: isinstance(inner, exp.Query | exp.Window | exp.Filter)):
            if isinstance(inner, exp.Anonymous) and inner.name.lower() in BEST:
                found.append(inner)
    return found


def _framed(sql: str, frame: str) -> str:
    """`sql`, which ends with the parenthesis of OVER, with a frame in it."""
    return f"{sql[:-1]}{frame})"


def _double(text: str) -> str:
    """A double, by its text: Redshift takes a number with a point for a decimal of as many digits."""
    return f"CAST('{text}' AS DOUBLE PRECISION)"


def _text(text: str) -> str:
    """A text as Redshift's literal, in which a backslash begins an escape."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _rounded(sql: str, digits: int) -> str:
    """A double rounded to `digits` digits, halves away from zero, as Athena does it: by the product with a power of ten.

    Written by FLOOR, which is exact: Redshift's ROUND of a double is not described for halves.
    """
    factor = _double(str(10**digits))
    scaled = f"ABS({sql})" if digits == 0 else f"ABS({sql}) * {factor}"
    up = f"CASE WHEN {scaled} - FLOOR({scaled}) >= {_double('0.5')} THEN 1 ELSE 0 END"
    whole = f"SIGN({sql}) * (FLOOR({scaled}) + {up})"
    back = whole if digits == 0 else f"{whole} / {factor}"
    return f"(CASE WHEN {scaled} >= {WHOLE_DOUBLES} THEN {sql} ELSE {back} END)"


def _constant(value: Parameter) -> str:
    """A value of a parameter that is no text, or an empty one, as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime):
        return f"'{(value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)).isoformat(' ')}'"
    return str(value) if isinstance(value, int) else f"'{value}'"
