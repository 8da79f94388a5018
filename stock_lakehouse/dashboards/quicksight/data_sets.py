"""The data sets of the dashboard: their SQL, their columns and the types that SPICE keeps.

Here: what is read from Athena or Redshift. Not here: what is drawn of it (definition.py), and the calls of QuickSight
(provisioning.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from stock_lakehouse.dashboards.charts import PANES, Mark
from stock_lakehouse.lake.serving import served_name
from stock_lakehouse.schemas import Column
from stock_lakehouse.sql.reports import report_named
from stock_lakehouse.tables import BY_NAME, CURATED, FEATURES, QUARANTINE, RESTATEMENTS

if TYPE_CHECKING:
    from stock_lakehouse.settings import Aws, QuickSight, Redshift
    from stock_lakehouse.sql.dialect import OutputColumn

REPORT = "dashboard_daily"
DAILY, QUALITY = "daily", "quality"
# Columns of `daily` besides those of the report.
NEWEST, DRAWDOWN, SIGNAL, HAS_SIGNAL = "is_newest", "drawdown", "signal", "has_signal"
# SPICE has no booleans, and its "fixed" decimals have four places.
KINDS = {
    "varchar": {"Type": "STRING"},
    "double": {"Type": "DECIMAL", "SubType": "FLOAT"},
    "bigint": {"Type": "INTEGER"},
    "integer": {"Type": "INTEGER"},
    "boolean": {"Type": "INTEGER"},
    "date": {"Type": "DATETIME"},
    "timestamp": {"Type": "DATETIME"},
}
CASTS = {"boolean": "integer", "date": "timestamp"}
LONGEST_DESCRIPTION = 500


class Groups(Protocol):
    """The groups of the settings that say where the data sets are read from."""

    @property
    def quicksight(self) -> QuickSight: ...
    @property
    def aws(self) -> Aws: ...
    @property
    def redshift(self) -> Redshift: ...


@dataclass(frozen=True)
class Field:
    """A column of a data set.

    - kind: the members Type and SubType of QuickSight's InputColumn
    - description: shown to authors; empty for none
    """

    name: str
    kind: Mapping[str, str]
    description: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set in SPICE.

    - name: its identifier in the definition of the dashboard
    - sql: in the dialect of the source
    - window: the column by which an incremental refresh finds the newest rows; None: every refresh is a full one
    """

    name: str
    sql: str
    fields: Sequence[Field]
    window: str | None = None

    def request(self, source: str) -> dict[str, Any]:
        """The members of CreateDataSet and UpdateDataSet that say what the data set is. `source`: the ARN of the data source."""
        described = [
            {
                "TagColumnOperation": {
                    "ColumnName": field.name,
                    "Tags": [{"ColumnDescription": {"Text": field.description[:LONGEST_DESCRIPTION]}}],
                }
            }
            for field in self.fields
            if field.description
        ]
        query = {
            "DataSourceArn": source,
            "Name": self.name,
            "SqlQuery": self.sql,
            "Columns": [{"Name": field.name, **field.kind} for field in self.fields],
        }
        logical = {"Alias": self.name, "Source": {"PhysicalTableId": self.name}, "DataTransforms": described}
        return {
            "PhysicalTableMap": {self.name: {"CustomSql": query}},
            "LogicalTableMap": {self.name: logical},
            "ImportMode": "SPICE",
        }


def data_sets(settings: Groups) -> tuple[DataSet, DataSet]:
    """`daily` and `quality` over the source that `settings` name."""
    if settings.quicksight.source == "redshift":
        schema = f'"{settings.redshift.schema_name}"'
        external = f'"{settings.redshift.external_schema}"'
        names = ", ".join(f'"{column.name}"' for column in report_columns())
        # All years, as from Athena; the view dashboard_daily has the loaded ones.
        rows = f"SELECT {names}\nFROM {schema}.prices_with_features"
        return daily(rows), _quality(
            _bars("stock_prices", f"{schema}.stock_prices"),
            _bars("stock_features", f"{schema}.stock_features"),
            # Spectrum reads no Delta log, so the ledger is missing; and its syntax for arrays is its own.
            _counts("quarantine", f"'{QUARANTINE.name}'", "'any reason'", "NULL", "count(*)")
            + f'FROM {external}."{QUARANTINE.name}" GROUP BY ticker',
        )
    database = f'"{settings.aws.glue_database}"'
    return daily(report_over(database)), _quality(
        _bars(CURATED.name, f'{database}."{served_name(CURATED)}"'),
        _bars(FEATURES.name, f'{database}."{served_name(FEATURES)}"'),
        _counts("quarantine", f"'{QUARANTINE.name}'", "reason", "NULL", "count(*)")
        + f'FROM {database}."{QUARANTINE.name}" CROSS JOIN UNNEST(reasons) AS unnested (reason) GROUP BY ticker, reason',
        _counts(
            "restatement", "table_name", "coalesce(cause, 'unknown')", "date_trunc('day', restated_at)", 'sum("rows")'
        )
        + f'FROM {database}."{RESTATEMENTS.name}" GROUP BY 2, 3, 4, 5',
    )


def quality_kinds(settings: Groups) -> tuple[str, ...]:
    """What `quality` counts: the values of its column `kind`."""
    counted = ("bars", "quarantine")
    return counted if settings.quicksight.source == "redshift" else (*counted, "restatement")


def report_over(database: str) -> str:
    """The report, unordered, over the serving copies in a Glue database, whose quoted name is `database`."""
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(report_named(REPORT).sql, dialect="athena")
    tree.set("order", None)
    for table in tree.find_all(exp.Table):
        served = exp.to_table(f'{database}."{served_name(BY_NAME[table.name])}"', dialect="athena")
        table.set("this", served.this)
        table.set("db", served.args["db"])
    return tree.sql(dialect="athena", pretty=True, comments=False)


@cache
def report_columns() -> tuple[OutputColumn, ...]:
    """The columns of the report, with their types in Athena and the columns of tables that each is made of."""
    return report_named(REPORT).columns(BY_NAME)


def marks() -> tuple[Mark, ...]:
    """The marks of all panes."""
    return tuple(mark for pane in PANES for mark in pane.marks)


def mark_column(mark: Mark) -> str:
    """The column that has a price where `mark` is drawn, and else null."""
    return f"{mark.column}_at"


def daily(rows: str) -> DataSet:
    """The bars with their features, and what a chart in QuickSight cannot compute.

    `rows`: a SELECT with the columns of the report. Marks are at the first of consecutive equal values, as on the local page.
    Window functions see all rows of a ticker, also in an incremental refresh, which QuickSight filters outside of this SQL.
    """
    columns = report_columns()
    typed = [
        f'CAST("{column.name}" AS {CASTS[column.type]}) AS "{column.name}"'
        if column.type in CASTS
        else f'"{column.name}"'
        for column in columns
    ]
    starts = [f"{_starts(mark)} AS {mark.column}_starts" for mark in marks()]
    newest = f'CASE WHEN "date" = max("date") OVER (PARTITION BY ticker) THEN 1 ELSE 0 END AS {NEWEST}'
    drawdown = (
        'adj_close / max(adj_close) OVER (PARTITION BY ticker ORDER BY "date" ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)'
        f" - 1 AS {DRAWDOWN}"
    )
    names = [f'"{column.name}"' for column in columns]
    at = [
        f"CASE WHEN {mark.column}_starts = 1 THEN coalesce("
        f'"{"low" if mark.position == "belowBar" else "high"}", "close") END AS {mark_column(mark)}'
        for mark in marks()
    ]
    signals = [mark for mark in marks() if mark.absent is False]
    text = " || ".join(f"CASE WHEN {mark.column}_starts = 1 THEN '{mark.label}. ' ELSE '' END" for mark in signals)
    has = " OR ".join(f"{mark.column}_starts = 1" for mark in signals)
    sql = (
        f"SELECT {', '.join([*names, NEWEST, DRAWDOWN, *at])},\n"
        f"  trim({text}) AS {SIGNAL},\n"
        f"  CASE WHEN {has} THEN 1 ELSE 0 END AS {HAS_SIGNAL}\n"
        f"FROM (\nSELECT *, {newest},\n  {drawdown},\n  {', '.join(starts)}\n"
        f"FROM (\nSELECT {', '.join(typed)}\nFROM (\n{rows}\n) AS bars\n) AS typed\n) AS marked"
    )
    described = _descriptions()
    fields = [Field(column.name, KINDS[column.type], described.get(column.name, "")) for column in columns]
    fields += [
        Field(NEWEST, KINDS["integer"], "1 on the newest session of the ticker, else 0"),
        Field(DRAWDOWN, KINDS["double"], "adj_close divided by its highest value until then, minus 1; fraction"),
        *(Field(mark_column(mark), KINDS["double"], f"Where the sign of {mark.label} is drawn") for mark in marks()),
        Field(SIGNAL, KINDS["varchar"], "Crosses and signals that begin on the session"),
        Field(HAS_SIGNAL, KINDS["integer"], "1 if a cross or signal begins on the session, else 0"),
    ]
    return DataSet(DAILY, sql, fields, window="date")


def _starts(mark: Mark) -> str:
    """1 on the first session of consecutive equal values that differ from the absent one, else 0."""
    value, absent = f'"{mark.column}"', format(float(mark.absent), "g")
    before = f'coalesce(lag({value}) OVER (PARTITION BY ticker ORDER BY "date"), {absent})'
    return f"CASE WHEN {value} <> {absent} AND {before} <> {value} THEN 1 ELSE 0 END"


def _bars(name: str, table: str) -> str:
    counted = _counts("bars", f"'{name}'", "price_basis", 'max("date")', "count(*)")
    return f"{counted}FROM {table} GROUP BY ticker, price_basis"


def _counts(kind: str, table: str, detail: str, day: str, rows: str) -> str:
    """The begin of a SELECT of the columns of `quality`; the arguments but `kind` are SQL."""
    return (
        f"SELECT '{kind}' AS kind, {table} AS table_name, ticker, {detail} AS detail,\n"
        f"  CAST({day} AS timestamp) AS day, CAST({rows} AS bigint) AS row_count\n"
    )


QUALITY_FIELDS = (
    Field("kind", KINDS["varchar"], "bars, quarantine or restatement"),
    Field("table_name", KINDS["varchar"], "The table whose rows are counted"),
    Field("ticker", KINDS["varchar"], "Ticker symbol, as the exchange writes it"),
    Field("detail", KINDS["varchar"], "Of bars the price basis, of quarantine the reason, of restatements the cause"),
    Field("day", KINDS["timestamp"], "Of bars the last session, of restatements the day on which values were changed"),
    Field("row_count", KINDS["bigint"], "Rows; of a restatement the rows that changed"),
)


def _quality(*parts: str) -> DataSet:
    return DataSet(QUALITY, "\nUNION ALL\n".join(parts), QUALITY_FIELDS)


def _descriptions() -> dict[str, str]:
    columns: dict[str, Column] = {}
    for table in (FEATURES, CURATED):
        columns |= {column.name: column for column in table.columns}
    return {name: column.documentation for name, column in columns.items()}
