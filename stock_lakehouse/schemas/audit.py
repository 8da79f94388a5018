"""Validating a frame against its table's schema, with pandera.

Here: the pandera schema of a table, and the failures of a frame. Not here: what follows from failures (checks/).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import DataFrame

    from stock_lakehouse.tables import Table


def pandera_schema(table: Table) -> Any:
    """The `pandera.pyspark.DataFrameSchema` of `table`: types, nulls, bounds, allowed values, unique key."""
    import pandera.pyspark as pa
    from pyspark.sql.types import StructType

    struct = StructType.fromDDL(table.ddl)
    assert isinstance(struct, StructType)
    types: dict[str, Any] = {field.name: field.dataType for field in struct.fields}
    columns = {}
    for column in table.columns:
        checks = []
        if column.minimum is not None:
            checks.append(pa.Check.ge(column.minimum))
        if column.maximum is not None:
            checks.append(pa.Check.le(column.maximum))
        elif column.type == "double":  # rejects infinity, and NaN, which Spark orders above infinity
            checks.append(pa.Check.le(sys.float_info.max))
        if column.above is not None:
            checks.append(pa.Check.gt(column.above))
        if column.one_of is not None:
            checks.append(pa.Check.isin(list(column.one_of)))
        columns[column.name] = pa.Column(types[column.name], checks, nullable=column.nullable)
    return pa.DataFrameSchema(columns, name=table.name, strict=True, unique=list(table.key) or None)


class AuditError(Exception):
    """Rows to be published do not conform to their table's schema; none of them was published. `failures` lists the reasons."""

    def __init__(self, table: Table, found: list[dict[str, str]]) -> None:
        self.failures = found
        first = found[0]
        super().__init__(
            f"{table.name}: {len(found)} failures of its schema, the first in {first['column']}: {first['error']}"
        )


def audit(frame: DataFrame, table: Table) -> None:
    """Validate `frame` against `table`'s schema. Raises AuditError if it does not conform."""
    if found := failures(frame, table):
        raise AuditError(table, found)


def failures(frame: DataFrame, table: Table) -> list[dict[str, str]]:
    """The failures of `frame`, a dict each: kind, column, error. Empty if the frame conforms.

    pandera.pyspark never raises on a frame that does not conform, so its `errors` are read. It runs one query for each column and
    bound, 200 a run, and each takes a tenth of a second on JVM Spark. So two queries come first: whether any value breaks a rule
    and whether a key repeats. pandera only sees a frame that does not conform.
    """
    if conforms(frame, table):
        return []
    validated = pandera_schema(table).validate(frame)
    return [
        {
            "kind": str(failure.get("check", kind) if section == "SCHEMA" else kind),
            "column": str(failure["column"]),
            "error": str(failure["error"]),
        }
        for section, kinds in validated.pandera.errors.items()
        for kind, found in kinds.items()
        for failure in found
    ]


def conforms(frame: DataFrame, table: Table) -> bool:
    """Whether `frame` has the columns of `table`, no value breaks its column's rule, and no key repeats."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    struct = StructType.fromDDL(table.ddl)
    assert isinstance(struct, StructType)
    if {field.name: field.dataType for field in frame.schema} != {field.name: field.dataType for field in struct}:
        return False
    breaks_rule = F.lit(False)
    for column in table.columns:
        value = F.col(column.name)
        if not column.nullable:
            breaks_rule = breaks_rule | value.isNull()
        highest = sys.float_info.max if column.maximum is None and column.type == "double" else column.maximum
        for violation in (
            None if column.minimum is None else value < column.minimum,
            None if highest is None else value > highest,
            None if column.above is None else value <= column.above,
            None if column.one_of is None else ~value.isin(list(column.one_of)),
        ):
            if violation is not None:
                breaks_rule = breaks_rule | F.coalesce(violation, F.lit(False))
    if frame.where(breaks_rule).limit(1).count():
        return False
    # A separate query: together with the rules in one aggregation it takes five times as long.
    return not table.key or not frame.groupBy(*table.key).count().where("count > 1").limit(1).count()


def audit_rows(rows: pyarrow.Table, table: Table) -> None:
    """Validate Arrow rows, which no engine holds any more, against `table`'s schema.

    Raises AuditError for other types, a null, a value that breaks its column's rule, or a key that repeats.
    """
    import pyarrow.compute as pc

    found = []
    if (
        rows.schema.remove_metadata().types != table.arrow_schema.types
        or tuple(rows.column_names) != table.column_names
    ):
        raise AuditError(table, [{"kind": "schema", "column": "all", "error": "other names or types of columns"}])
    for column in table.columns:
        values = rows[column.name]
        violations = {
            "null": values.is_null() if not column.nullable else None,
            f"below {column.minimum}": None if column.minimum is None else pc.less(values, column.minimum),
            f"above {column.maximum}": None if column.maximum is None else pc.greater(values, column.maximum),
            f"not above {column.above}": None if column.above is None else pc.less_equal(values, column.above),
            "no finite number": pc.invert(pc.is_finite(values)) if column.type == "double" else None,
            "another value than allowed": None
            if column.one_of is None
            else pc.and_(values.is_valid(), pc.invert(pc.is_in(values, value_set=_strings(column.one_of)))),
        }
        for error, broken in violations.items():
            if broken is not None and pc.any(broken).as_py():
                found.append({"kind": "values", "column": column.name, "error": error})
    if table.key and rows.group_by(list(table.key)).aggregate([]).num_rows != rows.num_rows:
        found.append({"kind": "key", "column": ", ".join(table.key), "error": "a key repeats"})
    if found:
        raise AuditError(table, found)


def _strings(values: tuple[str, ...]) -> pyarrow.Array:
    """`values` as an Arrow array of text."""
    import pyarrow as pa

    return pa.array(values, pa.string())
