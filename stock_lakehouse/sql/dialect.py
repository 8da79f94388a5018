"""From a query in Athena's dialect to the SQL of DuckDB that gives the same rows, or the reason and the place why there is none.

The query is parsed by sqlglot. Then every part of it is looked up: names in the schema, functions in functions.py, operators by
the types of their operands, and each is written anew for DuckDB. What has no rule is refused, so nothing reaches DuckDB that
nobody compared with Trino: 30 of 236 expressions gave other rows without an error when sqlglot translated them alone.

Here: queries. Not here: expressions (expressions.py, calls.py), and running the result (duckdb_engine.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stock_lakehouse.sql.engine import Parameter, QuerySyntaxError
from stock_lakehouse.sql.expressions import Expressions
from stock_lakehouse.sql.parsing import parsed, places_of_parameters, unquoted_reserved
from stock_lakehouse.sql.scopes import (
    Relation,
    Scope,
    Visible,
    meant,
)
from stock_lakehouse.sql.typed import (
    BIGINT,
    INTERVAL,
    WHOLE,
    Origin,
    Value,
    common_type,
    element_of,
    is_array,
    quoted,
    type_of_column,
)
from stock_lakehouse.tables import Table

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class OutputColumn:
    """A column of a query's result: its name, its type in Athena, and the columns of tables that its expression names."""

    name: str
    type: str
    origin: frozenset[Origin]


@dataclass(frozen=True)
class Translation:
    """A query for DuckDB.

    - sql: DuckDB's SQL; parameter n is `$n`
    - columns: of the result
    - tables: the tables that it reads, in the order of their first mention
    """

    sql: str
    columns: tuple[OutputColumn, ...]
    tables: tuple[str, ...]


def translate(
    sql: str,
    tables: Mapping[str, Table],
    parameters: Sequence[Parameter] = (),
    views: Mapping[str, str] | None = None,
) -> Translation:
    """DuckDB's SQL for one SELECT in Athena's dialect.

    - tables: the tables that may be read, by name, with the columns that they have
    - parameters: the values for its `?`; their types are needed
    - views: queries that may be read like a table, by name

    Raises QuerySyntaxError for what Athena refuses as well, QueryRefusedError for what DuckDB does otherwise.
    """
    return Translator(sql, tables, parameters, {} if views is None else views).run()


class Translator(Expressions):
    """The rules of queries, for DuckDB. Those of another engine are a subclass."""

    def __init__(
        self, sql: str, tables: Mapping[str, Table], parameters: Sequence[Parameter], views: Mapping[str, str]
    ) -> None:
        super().__init__(sql, parameters)
        self.tables, self.views = tables, views
        self.used: dict[str, None] = {}

    def run(self) -> Translation:
        tree = parsed(self.sql)
        self.parameter_places = places_of_parameters(tree)
        relation = self.query(tree, Scope())
        if len(self.parameter_places) != len(self.parameters):
            raise QuerySyntaxError(
                f"the query has {len(self.parameter_places)} `?`, and {len(self.parameters)} parameters are given"
            )
        return Translation(
            relation.sql,
            tuple(OutputColumn(name, value.type, value.origin) for name, _, value in relation.columns),
            tuple(self.used),
        )

    def query(self, node: Any, outer: Scope) -> Relation:
        """A query in parentheses or not, with its WITH, ORDER BY and LIMIT."""
        from sqlglot import exp

        scope = Scope(outer=outer)
        written = self.with_clause(node.args.get("with_"), scope)
        if isinstance(node, exp.Subquery):
            self.only(node, "this", "with_", "order", "limit", "offset")
            inner = self.query(node.this, scope)
            relation = self.ordered(node, replace(inner, sql=f"({inner.sql})"), scope)
        elif isinstance(node, exp.Select):
            relation = self.select(node, scope)
        elif isinstance(node, exp.SetOperation):
            relation = self.set_operation(node, scope)
        elif isinstance(node, exp.Values):
            self.only(node, "expressions")
            relation = self.values(node, scope)
        elif isinstance(node, exp.Table):  # TABLE name
            self.refuse(node, "write SELECT * FROM the table")
        else:
            self.refuse(node, "only a SELECT is run; nothing is written by a query")
        return replace(relation, sql=f"{written}{relation.sql}")

    def with_clause(self, node: Any, scope: Scope) -> str:
        if node is None:
            return ""
        if node.args.get("recursive"):
            self.refuse(node, f"WITH RECURSIVE is not run on {self.engine}; {self.elsewhere}")
        parts = []
        for cte in node.expressions:
            self.only(cte, "this", "alias")
            relation = self.renamed(self.query(cte.this, scope), cte.args["alias"])
            name = self.unique(self.name_of(cte.args["alias"].this))
            parts.append(f"{quoted(name)} AS ({relation.sql})")
            scope.named[self.name_of(cte.args["alias"].this)] = replace(relation, sql=quoted(name))
        return f"WITH {', '.join(parts)} "

    def renamed(self, relation: Relation, alias: Any) -> Relation:
        """`relation` with the column names of `AS alias(names)`."""
        names = [self.name_of(column) for column in alias.args.get("columns") or []]
        if not names:
            return relation
        if len(names) != len(relation.columns):
            self.wrong(alias, f"{len(names)} names are given for {len(relation.columns)} columns")
        columns = [(name, inner, value) for name, (_, inner, value) in zip(names, relation.columns, strict=True)]
        return replace(relation, columns=tuple(columns))

    def select(self, node: Any, scope: Scope) -> Relation:
        from sqlglot import exp

        self.only(
            node, "with_", "expressions", "distinct", "from_", "joins", "where", "group", "having", "windows", "order", "limit",
            "offset",
        )  # fmt: skip
        source = self.source(node, scope)
        bodies: dict[str, Value] = {}
        for window in node.args.get("windows") or []:
            name = self.name_of(window.this)
            bodies[name] = self.window_body(window, scope)
            scope.windows[name] = replace(bodies[name], sql=quoted(self.unique(f"w_{name}")))
        columns: list[tuple[str, str, Value]] = []
        items: list[str] = []
        taken: set[str] = set()
        aliased: dict[str, list[int]] = {}
        for item in node.expressions:
            for name, value, has_alias in self.selected(item, scope, len(columns)):
                inner = name
                while inner in taken:
                    inner = f"{inner}_{len(columns) + 1}"
                taken.add(inner)
                items.append(f"{value.sql} AS {quoted(inner)}")
                columns.append((name, inner, replace(value, sql="")))
                if has_alias:
                    aliased.setdefault(name, []).append(len(columns))
                    scope.aliases[name] = value
        distinct = node.args.get("distinct")
        if distinct is not None:
            self.only(distinct)
        windows = [f"{scope.windows[name].sql} AS ({body.sql})" for name, body in bodies.items()]
        parts = [f"SELECT {'DISTINCT ' if distinct is not None else ''}{', '.join(items)}", source]
        if (group := node.args.get("group")) is not None:
            parts.append(f"GROUP BY {self.group(group, scope, len(columns))}")
        parts.append(self.condition(node.args.get("having"), scope, "HAVING"))
        parts.append(f"WINDOW {', '.join(windows)}" if windows else "")
        relation = Relation(" ".join(part for part in parts if part), tuple(columns))
        return self.ordered(node, relation, scope, aliased, isinstance(node, exp.Select))

    def selected(self, item: Any, scope: Scope, count: int) -> Iterable[tuple[str, Value, bool]]:
        """The columns that an item of the SELECT list gives: name, value, and whether ORDER BY may name it."""
        from sqlglot import exp

        is_star = isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star))
        if is_star:
            star = item if isinstance(item, exp.Star) else item.this
            self.only(star)
            relation = item.text("table").lower() if isinstance(item, exp.Column) else None
            found = [
                column for column in scope.visible if column.name and (relation is None or column.relation == relation)
            ]
            if not found:
                self.wrong(item, f"nothing to select from: no relation {relation or 'in FROM'}")
            return [(column.name, column.value, True) for column in found]
        if isinstance(item, exp.Alias):
            self.only(item, "this", "alias")
            return [(self.name_of(item.args["alias"]), self.output(item.this, scope), True)]
        value = self.output(item, scope)
        if isinstance(item, exp.Column):
            return [(item.name.lower(), value, True)]
        return [(f"_col{count}", value, False)]

    def output(self, node: Any, scope: Scope) -> Value:
        value = self.settled(node, self.value(node, scope))
        if value.type == INTERVAL:
            self.refuse(node, "an interval cannot be a column of the result")
        return value

    def source(self, node: Any, scope: Scope) -> str:
        """`FROM …` and `WHERE …` of a SELECT."""
        written = self.from_clause(node, scope)
        return f"{written} {self.condition(node.args.get('where'), scope, 'WHERE')}".strip()

    def from_clause(self, node: Any, scope: Scope) -> str:
        """`FROM …` with its joins. The columns become visible in `scope`."""
        source = node.args.get("from_")
        joins = node.args.get("joins") or []
        if source is None:
            return ""
        written, scope.visible = self.relation(source.this, scope)
        # A JOIN after `FROM a, b` belongs to b alone; then a may not be named in its ON. DuckDB has the same rule.
        for join in [*(source.this.args.get("joins") or []), *joins]:
            written = self.join(written, join, scope)
        return f"FROM {written}"

    def join(self, left: str, node: Any, scope: Scope) -> str:
        self.only(node, "this", "kind", "side", "on", "using")
        kind, side = (node.args.get("kind") or "").upper(), (node.args.get("side") or "").upper()
        if kind not in ("", "CROSS", "INNER", "OUTER") or side not in ("", "LEFT", "RIGHT", "FULL"):
            self.refuse(node, f"{side} {kind} JOIN is not run on {self.engine}".strip())
        written, added = self.relation(node.this, scope)
        on, using = node.args.get("on"), node.args.get("using")
        if on is None and not using:
            if side or kind == "INNER":
                self.wrong(node.this, "the JOIN has no ON")
            scope.visible = [*scope.visible, *added]
            return f"{left} CROSS JOIN {written}"
        if kind == "CROSS":
            self.wrong(node.this, "CROSS JOIN has no ON")
        operator = f"{side} JOIN".strip() if side else "JOIN"
        if using:
            condition = self.using(list(using), added, side, scope)
        else:
            scope.visible = [*scope.visible, *added]
            condition = self.boolean(on, scope, "ON").sql
        return f"{left} {operator} {written} ON {condition}"

    def using(self, columns: Sequence[Any], added: list[Visible], side: str, scope: Scope) -> str:
        """The condition of USING. Its columns come first, once, and have no relation."""
        conditions, merged, hidden = [], [], set()
        for column in columns:
            name = self.name_of(column)
            left, right = (
                self.one_of(column, [one for one in side_columns if one.name == name], name)
                for side_columns in (scope.visible, added)
            )
            conditions.append(self.compared(column, "EQ", left.value, right.value).sql)
            kind = common_type(left.value.type, right.value.type) or left.value.type
            sql = {"": left.value.sql, "LEFT": left.value.sql, "RIGHT": right.value.sql}.get(
                side, f"coalesce({left.value.sql}, {right.value.sql})"
            )
            merged.append(Visible(None, name, Value(sql, kind, origin=left.value.origin | right.value.origin)))
            hidden |= {id(left), id(right)}
        rest = [column for column in (*scope.visible, *added) if id(column) not in hidden]
        scope.visible = [*merged, *rest]
        return f"({' AND '.join(conditions)})"

    def relation(self, node: Any, scope: Scope) -> tuple[str, list[Visible]]:
        """What stands in FROM: DuckDB's SQL with its alias, and the columns that it makes visible."""
        from sqlglot import exp

        if isinstance(node, exp.Unnest):
            return self.unnest(node, scope)
        alias = node.args.get("alias")
        if isinstance(node, exp.Table):
            self.only(node, "this", "alias", "joins", "db", "catalog")
            found = self.table(node, scope)
        elif isinstance(node, exp.Lateral):
            self.only(node, "this", "alias", "outer", "view")
            lateral = Scope(visible=scope.visible, outer=scope)
            inner = self.query(node.this, lateral)
            found = replace(inner, sql=f"LATERAL ({inner.sql})")
        elif isinstance(node, exp.Subquery):
            self.only(node, "this", "alias", "with_", "joins")
            # A derived table does not see the other relations of FROM.
            inner = self.query(node.this, Scope(outer=scope.outer, named=scope.named))
            found = replace(inner, sql=f"({inner.sql})")
        elif isinstance(node, exp.Values):
            self.only(node, "expressions", "alias")
            inner = self.values(node, scope)
            found = replace(inner, sql=f"({inner.sql})")
        else:
            self.refuse(node, f"this is not run in FROM on {self.engine}; {self.elsewhere}")
        if alias is not None:
            self.only(alias, "this", "columns")
            found = self.renamed(found, alias)
        name = (
            self.name_of(alias.this)
            if alias is not None
            else node.name.lower()
            if isinstance(node, exp.Table)
            else None
        )
        inside = self.unique(name or "query")
        return f"{found.sql} AS {quoted(inside)}", [
            Visible(name, column, replace(value, sql=f"{quoted(inside)}.{quoted(inner)}"))
            for column, inner, value in found.columns
        ]

    def table(self, node: Any, scope: Scope) -> Relation:
        name = node.name.lower()
        if node.args.get("db") is not None:
            self.refuse(node, f"a table is named without its database here: {name}")
        if not hasattr(node.this, "quoted"):
            self.refuse(node, f"{node.this.name}(…) is not run in FROM on {self.engine}")
        unquoted_reserved(self.sql, node.this)
        if self.sql[node.this.meta.get("start", 0)] == "'":
            self.wrong(node, "a name stands in double quotes, or in none")
        if (found := scope.with_named(name)) is not None:
            return found
        if name in self.tables:
            self.used[name] = None
            return Relation(
                self.stored(node, name),
                tuple(
                    (
                        column.name,
                        column.name,
                        Value("", type_of_column(column.type), origin=frozenset({(name, column.name)})),
                    )
                    for column in self.tables[name].columns
                ),
            )
        if name in self.views:
            return self.view(name)
        known = [*self.tables, *self.views]
        self.wrong(node.this, f"there is no table {name}{meant(name, known)}; there are {', '.join(known)}")

    def stored(self, node: Any, name: str) -> str:
        """What stands in FROM for the table `name`, which `node` names."""
        return quoted(name)

    def of_view(self, sql: str) -> Translator:
        """A translator of the query of a view."""
        return Translator(sql, self.tables, (), {})

    def view(self, name: str) -> Relation:
        inner = self.of_view(self.views[name])
        relation = inner.query(parsed(self.views[name]), Scope())
        self.used |= inner.used
        return replace(relation, sql=f"({relation.sql})")

    def unnest(self, node: Any, scope: Scope) -> tuple[str, list[Visible]]:
        self.only(node, "expressions", "alias", "offset")
        if len(node.expressions) != 1:
            self.refuse(node, f"UNNEST of several arrays is not run on {self.engine}; {self.elsewhere}")
        value = self.value(node.expressions[0], Scope(visible=scope.visible, outer=scope.outer, named=scope.named))
        if not is_array(value.type):
            self.wrong(node, f"UNNEST needs an array, this is {value.type}")
        alias = node.args.get("alias")
        names = [self.name_of(column) for column in alias.args.get("columns") or []] if alias is not None else []
        offset = node.args.get("offset")
        counted = self.name_of(offset) if hasattr(offset, "name") else None
        if not names or (offset and counted is None):
            self.wrong(node, "name the columns of UNNEST: … AS t(name)")
        relation = self.name_of(alias.this)
        inside = self.unique(relation)
        parts = [f"unnest({value.sql}) AS {quoted(names[0])}"]
        columns = [(names[0], element_of(value.type))]
        if counted is not None:
            parts.append(f"CAST(generate_subscripts({value.sql}, 1) AS BIGINT) AS {quoted(counted)}")
            columns.append((counted, BIGINT))
        return f"LATERAL (SELECT {', '.join(parts)}) AS {quoted(inside)}", [
            Visible(relation, name, Value(f"{quoted(inside)}.{quoted(name)}", kind, value.nan, value.origin))
            for name, kind in columns
        ]

    def values(self, node: Any, scope: Scope) -> Relation:
        rows = [
            [self.value(cell, scope) for cell in (row.expressions if type(row).__name__ == "Tuple" else [row])]
            for row in node.expressions
        ]
        if len({len(row) for row in rows}) != 1:
            self.wrong(node, "the rows of VALUES have different numbers of columns")
        columns, cells = [], [[""] * len(rows[0]) for _ in rows]
        for place in range(len(rows[0])):
            cells_of = [row.expressions[place] if type(row).__name__ == "Tuple" else row for row in node.expressions]
            united = self.united(cells_of, [row[place] for row in rows])
            for number, value in enumerate(united):
                cells[number][place] = self.plain(value.sql, value.type)
            kind = united[0].type
            origin = frozenset[Origin]().union(*(value.origin for value in united))
            columns.append(
                (f"_col{place}", f"_col{place}", Value("", kind, any(value.nan for value in united), origin))
            )
        return Relation(self.constant_rows([inner for _, inner, _ in columns], cells), tuple(columns))

    def constant_rows(self, names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
        """A query that gives `cells`, rows of columns with `names`."""
        written = ", ".join(f"({', '.join(row)})" for row in cells)
        source = f"(VALUES {written}) AS v({', '.join(map(quoted, names))})"
        return " ".join(("SELECT * FROM", source))

    def set_operation(self, node: Any, scope: Scope) -> Relation:
        self.only(node, "this", "expression", "distinct", "with_", "order", "limit", "offset")
        left, right = self.query(node.this, scope), self.query(node.expression, scope)
        word = type(node).__name__.upper()
        if len(left.columns) != len(right.columns):
            self.wrong(node.expression, f"{word} of {len(left.columns)} and {len(right.columns)} columns")
        columns = []
        for (name, inner, value), (_, _, other) in zip(left.columns, right.columns, strict=True):
            kind = common_type(value.type, other.type)
            if kind is None:
                self.wrong(node.expression, f"{word}: column {name} is {value.type} here and {other.type} there")
            columns.append((name, inner, Value("", kind, value.nan or other.nan, value.origin | other.origin)))
        every = "" if node.args.get("distinct") else " ALL"
        relation = Relation(f"({left.sql}) {word}{every} ({right.sql})", tuple(columns))
        aliased: dict[str, list[int]] = {}
        for place, (name, _, _) in enumerate(columns):
            aliased.setdefault(name, []).append(place + 1)
        return self.ordered(node, relation, scope, aliased)

    def group(self, node: Any, scope: Scope, count: int) -> str:
        from sqlglot import exp

        self.only(node, "expressions", "rollup", "cube", "grouping_sets")
        parts = []
        for part in [
            *node.expressions,
            *(one for name in ("rollup", "cube", "grouping_sets") for one in node.args.get(name) or []),
        ]:
            if isinstance(part, exp.Rollup | exp.Cube):
                word = type(part).__name__.upper()
                parts.append(f"{word} ({', '.join(self.grouped_column(one, scope) for one in part.expressions)})")
            elif isinstance(part, exp.GroupingSets):
                sets = [self.grouping_set(one, scope) for one in part.expressions]
                parts.append(f"GROUPING SETS ({', '.join(sets)})")
            elif isinstance(part, exp.Literal) and not part.is_string:
                if not part.name.isdigit() or not 0 < int(part.name) <= count:
                    self.wrong(
                        part, f"GROUP BY position {part.name} is not in the SELECT list, which has {count} columns"
                    )
                parts.append(part.name)
            else:
                parts.append(self.settled(part, self.value(part, scope)).sql)
        return ", ".join(parts)

    def grouping_set(self, node: Any, scope: Scope) -> str:
        from sqlglot import exp

        columns = (
            node.expressions if isinstance(node, exp.Tuple) else [node.this if isinstance(node, exp.Paren) else node]
        )
        return f"({', '.join(self.grouped_column(column, scope) for column in columns)})"

    def ordered(
        self,
        node: Any,
        relation: Relation,
        scope: Scope,
        aliased: Mapping[str, list[int]] | None = None,
        inside: bool = False,
    ) -> Relation:
        """`relation` with the ORDER BY, OFFSET and LIMIT of `node`. `aliased`: the places of columns that ORDER BY may name."""
        from sqlglot import exp

        parts = [relation.sql]
        if (order := node.args.get("order")) is not None:
            self.only(order, "expressions")
            places = aliased or {}
            if aliased is None:
                for place, (name, _, _) in enumerate(relation.columns):
                    places = {**places, name: [*places.get(name, []), place + 1]}
            keys = []
            for key in order.expressions:
                column = key.this
                if isinstance(column, exp.Literal) and not column.is_string:
                    if not column.name.isdigit() or not 0 < int(column.name) <= len(relation.columns):
                        self.wrong(column, f"ORDER BY position {column.name} is not in the SELECT list")
                    sql = column.name
                elif isinstance(column, exp.Column) and not column.table and column.name.lower() in places:
                    found = places[column.name.lower()]
                    same = {
                        (relation.columns[place - 1][2].type, relation.columns[place - 1][2].origin) for place in found
                    }
                    if len(same) > 1:
                        self.wrong(column, f"column {column.name} is ambiguous")
                    sql = str(found[0])
                elif inside:
                    sql = self.settled(column, self.value(column, replace(scope, outer=scope.outer), in_order=True)).sql
                else:
                    self.wrong(column, "ORDER BY of a UNION names columns of its result, by name or position")
                keys.append(self.sort_key(key, sql))
            parts.append(f"ORDER BY {', '.join(keys)}")
        for name in ("limit", "offset"):
            if (part := node.args.get(name)) is not None:
                parts.append(f"{name.upper()} {self.count(part)}")
        return replace(relation, sql=" ".join(parts))

    def count(self, node: Any) -> str:
        from sqlglot import exp

        if isinstance(node, exp.Fetch):
            options = node.args.get("limit_options")
            if options is not None and (options.args.get("with_ties") or options.args.get("percent")):
                self.refuse(node, f"FETCH … WITH TIES is not run on {self.engine}")
            number = node.args.get("count")
            return "1" if number is None else number.name
        self.only(node, "expression")
        number = node.expression
        if isinstance(number, exp.Placeholder):
            value = self.placeholder(number)
            if value.type not in WHOLE:
                self.wrong(number, f"LIMIT needs a whole number, the parameter is {value.type}")
            return value.sql
        if not (isinstance(number, exp.Literal) and not number.is_string and number.name.isdigit()):
            self.wrong(node, "LIMIT and OFFSET take a whole number")
        return str(number.name)

    def condition(self, node: Any, scope: Scope, word: str) -> str:
        return "" if node is None else f"{word} {self.boolean(node.this, scope, word).sql}"
