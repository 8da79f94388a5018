"""A step by which a service is brought to what it should have: what was found of one thing, and what is done with it.

Here: the record that `quicksight` and `deploy databricks` print and give as JSON. Not here: the steps themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Step:
    """What was found of one thing, and what is done with it.

    - what: the thing, like `data set daily`
    - action: unchanged, a word for the write, or waiting: it cannot be done yet
    - detail: the reason, what came of it, or what to do; empty for none
    """

    what: str
    action: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.action}" + (f"; {self.detail}" if self.detail else "")
