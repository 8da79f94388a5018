"""A measured figure beside its target, and how tables of them are printed.

Belongs here: the record and its text. The targets themselves stand in the module that measures them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`target` is None for a figure that is reported only. `at_least`: more is better."""

    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def print_figures(figures: Iterable[Figure]) -> None:
    """A line a figure: what, value, target, met or not."""
    verdicts = {True: "met", False: "NOT MET", None: ""}
    rows = []
    for one in figures:
        target = "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:g} {one.unit}"
        rows.append((one.what, f"{one.value:,.4g} {one.unit}", target, verdicts[one.met]))
    print_table(("what", "measured", "target", ""), rows)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell; numbers and figures to the right, the first column to the left."""
    texts = [list(map(_text, row)) for row in rows]
    widths = [max(len(row[place]) for row in [list(header), *texts]) for place in range(len(header))]
    for row in [list(header), *texts]:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
