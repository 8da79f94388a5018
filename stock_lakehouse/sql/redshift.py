"""SQL on Amazon Redshift: the same queries as on Athena, over the warehouse's native tables and, for other tables, over the lake.

Here: which object of the warehouse stands for which table, and the types of a result. Not here: the calls (data_api.py), and the
translation (redshift_dialect.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stock_lakehouse.lake.serving import SERVED, served_name
from stock_lakehouse.settings import Redshift
from stock_lakehouse.sql.data_api import Cell, DataApi
from stock_lakehouse.sql.engine import Parameter, QueryRefusedError, QueryResult
from stock_lakehouse.sql.redshift_dialect import translate
from stock_lakehouse.sql.typed import BOOLEAN, DATE, DOUBLE, TIMES, TIMESTAMP_TZ, WHOLE, quoted
from stock_lakehouse.sql.values import arrow_type, literals, table_of
from stock_lakehouse.tables import ANY_BY_NAME, BARS_WITH_FEATURES, CURATED, FEATURES, Table

if TYPE_CHECKING:
    import pyarrow as pa

SERVED_TABLES = {served_name(table): table.name for table in SERVED}  # other names of the same rows
# The native table of each table of the lake, and the view of all years, which has those that are not loaded too.
NATIVE = {CURATED.name: ("stock_prices", "all_prices"), FEATURES.name: ("stock_features", "all_features")}


class RedshiftEngine:
    """Redshift over the warehouse of a lake.

    - redshift: the group [redshift] of the settings
    - minutes: after this time a query is cancelled
    - tables: the lake's tables by name, with the columns that they have
    - views: queries that SQL may name like tables
    """

    name = "redshift"

    def __init__(
        self,
        redshift: Redshift,
        minutes: float,
        tables: Mapping[str, Table],
        views: Mapping[str, str] = MappingProxyType({}),
        client: Any = None,
    ) -> None:
        self.redshift, self.tables, self.views = redshift, tables, views
        self.api = DataApi(redshift, minutes, client)

    def run(self, sql: str, parameters: Sequence[Parameter] = (), as_of: datetime | None = None) -> QueryResult:
        """The result of one SELECT; see QueryEngine.run.

        Raises QueryRefusedError for `as_of`: the warehouse has the present rows alone. Also the errors of data_api.py.
        """
        if as_of is not None:
            raise QueryRefusedError(
                "the warehouse on Redshift has only the present rows; with --as-of use --engine duckdb or trino"
            )
        literals(parameters)  # refuses a value that no engine takes
        translation = translate(sql, self.tables, self.place_of, parameters, self.views)
        found = self.api.run(translation.sql, translation.parameters)
        columns = [
            column_of([row[place] for row in found.values], column.type)
            for place, column in enumerate(translation.columns)
        ]
        return QueryResult(
            rows=table_of([column.name for column in translation.columns], columns),
            engine=self.name,
            query_id=found.statement_id,
            seconds=found.seconds,
        )

    def place_of(self, name: str) -> str | None:
        """What stands in FROM for the table `name`: a native table, a view of the warehouse, or an external table.

        None for a Delta table that the warehouse has not: an external table reads plain files, and no Delta log.
        """
        if name == BARS_WITH_FEATURES:
            return self._bars_with_features()
        name = SERVED_TABLES.get(name, name)
        if name in NATIVE:
            native, everything = NATIVE[name]
            chosen = native if self.redshift.hot_years is None else everything
            return f"{quoted(self.redshift.schema_name)}.{quoted(chosen)}"
        if ANY_BY_NAME[name].format == "delta":
            return None
        return f"{quoted(self.redshift.external_schema)}.{quoted(name)}"

    def _bars_with_features(self) -> str:
        bars = self.tables[CURATED.name]
        columns = ", ".join(
            f"{'b' if column.name in bars.column_names else 'f'}.{quoted(column.name)}"
            for column in self.tables[BARS_WITH_FEATURES].columns
        )
        on = " AND ".join(f"b.{quoted(name)} = f.{quoted(name)}" for name in bars.key)
        source = f"{self.place_of(CURATED.name)} AS b LEFT JOIN {self.place_of(FEATURES.name)} AS f ON {on}"
        return " ".join(("(SELECT", columns, "FROM", f"{source})"))


def column_of(cells: Sequence[Cell], kind: str) -> pa.Array:
    """A column in the Arrow type of `kind`, a type of Athena. Numbers may be text, as a DECIMAL is."""
    import pyarrow as pa

    def converted(cell: Cell) -> Any:
        if kind == BOOLEAN:
            return bool(cell)
        if kind in WHOLE:
            return int(cell)  # type: ignore[arg-type]
        if kind == DOUBLE:
            return float(cell)  # type: ignore[arg-type]
        if kind == DATE:
            return date.fromisoformat(str(cell)[: len("2024-01-31")])
        if kind in TIMES:
            moment = datetime.fromisoformat(str(cell)).replace(tzinfo=None)
            return moment.replace(tzinfo=UTC) if kind == TIMESTAMP_TZ else moment
        return str(cell)

    return pa.array([None if cell is None else converted(cell) for cell in cells], arrow_type(kind))
