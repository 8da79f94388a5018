"""The reports as views in Athena, so that BI tools and people find them in the catalog.

Here: when a view is written. Not here: running SQL (athena.py), and the reports (reports.py).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from stock_lakehouse.sql.engine import QueryRefusedError

if TYPE_CHECKING:
    from stock_lakehouse.sql.athena import AthenaEngine

ENCODED = re.compile(r"/\* Presto View: (\S+) \*/")


def put_view(engine: AthenaEngine, glue: Any, name: str, sql: str) -> Literal["written", "unchanged"]:
    """Make the view `name` of the engine's database show `sql`; nothing is written if it does.

    `glue`: a boto3 client of Glue. Athena stores a view's text as it formats it, so the texts cannot be compared. The name of the
    subquery, which Athena keeps, has a digest of the report's text, and view and digest are written in one step.

    Raises QueryRefusedError if a table has the name; what `AthenaEngine.execute` raises; boto3's ClientError.
    """
    mark = f"text_{hashlib.sha256(sql.encode()).hexdigest()[:16]}"
    if mark in _stored_text(glue, engine.settings.glue_database, name):
        return "unchanged"
    engine.execute(f"CREATE OR REPLACE VIEW {name} AS\nSELECT * FROM (\n{sql.rstrip()}\n) AS {mark}")
    return "written"


def _stored_text(glue: Any, database: str, name: str) -> str:
    """The SQL of a view as Glue has it; empty if there is none."""
    try:
        table = glue.get_table(DatabaseName=database, Name=name)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return ""
    if table.get("TableType") != "VIRTUAL_VIEW":
        raise QueryRefusedError(
            f"{database}.{name} is a table, so the report of this name cannot be a view; rename or delete it"
        )
    found = ENCODED.search(table.get("ViewOriginalText", ""))
    return str(json.loads(base64.b64decode(found[1]))["originalSql"]) if found else ""
