"""`python -m stock_lakehouse_tests.quicksight_definition`: writes the definition of the dashboard as it was reviewed.

Here: a definition of fixed tickers, and its file. Not here: what is compared with it (quicksight/test_definition.py).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stock_lakehouse.dashboards.quicksight.definition import definition

FILE = Path(__file__).parent / "dashboards" / "quicksight_definition.json"
ARNS = {name: f"arn:aws:quicksight:us-east-1:123456789012:dataset/{name}" for name in ("daily", "quality")}
KINDS = ("bars", "quarantine", "restatement")
SINCE = datetime(2021, 1, 1, tzinfo=UTC)


def reviewed() -> dict[str, Any]:
    """The definition of which the file is a copy."""
    return definition(ARNS, ["AAPL", "NVDA"], SINCE, KINDS)


def text_of(value: dict[str, Any]) -> str:
    """A definition as the file has it."""
    return json.dumps(value, indent=1, default=str) + "\n"


if __name__ == "__main__":
    FILE.write_text(text_of(reviewed()), encoding="utf-8")
