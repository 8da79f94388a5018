"""Holding a frame against its table's schema, with pandera.

Here: the pandera schema of a table, and what a frame does wrong. Not here: what follows from that (checks/).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from stock_lakehouse.tables import Table


def pandera_schema(table: Table) -> Any:
    """The `pandera.pyspark.DataFrameSchema` of `table`: types, nulls, bounds, allowed values, unique key."""
    import pandera.pyspark as pa
    from pyspark.sql.types import StructType

    struct = StructType.fromDDL(table.ddl)
    assert isinstance(struct, StructType)
    types: dict[str, Any] = {one.name: one.dataType for one in struct.fields}
    columns = {}
    for one in table.columns:
        checks = []
        if one.minimum is not None:
            checks.append(pa.Check.ge(one.minimum))
        if one.maximum is not None:
            checks.append(pa.Check.le(one.maximum))
        elif one.type == "double":  # infinity is beyond it, and to Spark nan is beyond infinity
            checks.append(pa.Check.le(sys.float_info.max))
        if one.above is not None:
            checks.append(pa.Check.gt(one.above))
        if one.one_of is not None:
            checks.append(pa.Check.isin(list(one.one_of)))
        columns[one.name] = pa.Column(types[one.name], checks, nullable=one.nullable)
    return pa.DataFrameSchema(columns, name=table.name, strict=True, unique=list(table.key) or None)


def failures(frame: DataFrame, table: Table) -> list[dict[str, str]]:
    """What `frame` does wrong, a dict a failure: kind, column, check, error; empty if it conforms.

    pandera.pyspark never raises on a frame that does not conform; its `errors` are read instead.
    """
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
