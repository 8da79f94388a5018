"""Statements in Athena's dialect with the answers of a real Trino: the table that holds the translation to DuckDB.

They are in statements.jsonl, a line each, with the answers of Trino 476 in the form of its REST protocol and the time zone UTC:
a date or a time is text, NaN and infinities are text, a row is a list. The length of a varchar is left out. Not here: the
comparison with DuckDB (test_dialect.py), and with a running Trino.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("statements.jsonl")


@dataclass(frozen=True)
class Statement:
    """A statement, and what happens.

    - family: what it is about
    - here: what DuckDB does.
        "same": it gives Trino's rows.
        "refused": it is not asked, and a message says why.
        "wrong": the statement is no SQL of Athena, and a message shows the place.
        "fails": both engines fail when they compute it.
        "stops": DuckDB fails where Trino answers, because nothing in DuckDB gives the same.
    - types, rows: Trino's answer; None if Trino fails
    - error: the name of Trino's error; None if it answers
    """

    family: str
    sql: str
    here: Literal["same", "refused", "wrong", "fails", "stops"]
    types: list[str] | None = None
    rows: list[list[Any]] | None = None
    error: str | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the rows is a part of the answer."""
        return "ORDER BY" in self.sql.rsplit(")", 1)[-1]


STATEMENTS = [Statement(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]
