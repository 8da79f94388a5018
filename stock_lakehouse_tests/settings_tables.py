"""`python -m stock_lakehouse_tests.settings_tables`: writes the tables of docs/settings.md from the fields of the settings.

Here: how a field becomes a line of a table, and where tables stand in the document. Not here: what a setting means, which its
field says. Each table stands between the lines `<!-- settings of NAME -->` and `<!-- end of settings -->`. NAME is LakeOptions,
Settings (for what it has besides those), or the name of a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from stock_lakehouse.lake_options import LakeOptions
from stock_lakehouse.settings import Settings, fields_of, types_of, variable_of, variable_only

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = "| name | type or allowed values | default | what it is |\n|---|---|---|---|"
TABLE = re.compile(r"(?<=<!-- settings of )(\w+)( -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
KINDS = {
    bool: "`true`, `false`",
    int: "whole number",
    float: "number",
    str: "text",
    date: "date",
    Path: "path",
    SecretStr: "text",
    dict: "table",
    tuple: "list",
}


class TableError(Exception):
    """A setting cannot be described, or the document has no place for it; the message says what to add."""


def written(text: str, settings_class: type[Settings] = Settings) -> str:
    """`text` with the tables of the settings. Raises TableError if a table has no place, or a place no table."""
    tables = tables_of(settings_class)
    places = [match[1] for match in TABLE.finditer(text)]
    if sorted(places) != sorted(tables):
        raise TableError(
            f"docs/settings.md has places for {', '.join(places)}; there are settings of {', '.join(tables)}"
        )
    return TABLE.sub(lambda match: f"{match[1]}{match[2]}\n{tables[match[1]]}\n\n", text)


def tables_of(settings_class: type[Settings]) -> dict[str, str]:
    """The table of each part of the settings, by the part's name."""
    lines: dict[str, list[str]] = {}
    for path, field in fields_of(settings_class):
        plain = LakeOptions if path[0] in LakeOptions.model_fields else Settings
        part = path[0] if len(path) > 1 else plain.__name__
        lines.setdefault(part, [HEAD]).append(_line(path, field))
    return {part: "\n".join(of_part) for part, of_part in lines.items()}


def _line(path: tuple[str, ...], field: FieldInfo) -> str:
    if not field.description:
        raise TableError(f"{'.'.join(path)}: has no description")
    name = f"`{path[-1]}`"
    if variable_only(field):
        name += f", only as the variable `{variable_of(path)}`"
    cells = (name, _allowed(path, field), _default(field), _linked(field.description))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _allowed(path: tuple[str, ...], field: FieldInfo) -> str:
    """What a value may be: the values of a Literal, else kinds and bounds."""
    kinds = []
    for each in types_of(field):
        kind = get_origin(each) or each
        if kind is Literal:
            kinds.append(", ".join(f"`{value}`" for value in get_args(each)))
        elif kind in KINDS:
            kinds.append(KINDS[kind])
        else:
            raise TableError(f"{'.'.join(path)}: {each} has no name for operators yet; add it to KINDS")
    return ", ".join([" or ".join(kinds), *_bounds(field)])


def _bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for attribute, sign in BOUNDS.items():
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield f"{sign} {bound}"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
    return str(value) if isinstance(value, date) else f"`{value}`"


def _linked(description: str) -> str:
    """The files of docs/ that the description names as links of this document."""

    def link(match: re.Match[str]) -> str:
        file, anchor = match[1], match[2] or ""
        return f"[below]({anchor})" if file == DOCUMENT.name else f"[{file}]({file}{anchor})"

    return re.sub(r"docs/(\w+\.md)(#[\w-]+)?", link, description)


def main() -> None:
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
