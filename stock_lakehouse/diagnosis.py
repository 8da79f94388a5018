"""The line of a check of `doctor` or `deploy check`: what was checked, its state, and how to mend it. Not here: the checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Diagnosis:
    """State `broken` stops what is to be done, `note` does not. `detail` says how to mend either."""

    what: str
    state: Literal["ok", "note", "broken"]
    detail: str
