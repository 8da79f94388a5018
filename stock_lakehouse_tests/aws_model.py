"""Whether a request to AWS is one that its service's model allows: botocore's own validator, and what that leaves out.

Not here: whether a name in a request exists (a column, a parameter), which the tests of a request look up by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator

# Structures of which exactly one member may be set, where the model does not say so itself.
UNIONS = {
    "quicksight": (
        "Visual",
        "Filter",
        "ParameterControl",
        "FilterControl",
        "ParameterDeclaration",
        "DimensionField",
        "MeasureField",
        "PhysicalTable",
        "LayoutConfiguration",
        "DataSourceParameters",
    ),
}


@cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def faults(service: str, operation: str, request: Mapping[str, Any]) -> list[str]:
    """What is wrong with `request`, the arguments of `operation` of `service`; empty if it may be sent.

    `operation` as the API names it (`ExecuteStatement`).
    """
    shape = _model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape).generate_report()
    found = report.splitlines() if report else []
    return found + wrong(shape, request, operation, UNIONS.get(service, ()))


def wrong(shape: Shape, value: Any, path: str = "", unions: Collection[str] = ()) -> list[str]:
    """What botocore's validator lets pass: a member or a word of an enum that is not in the model, a pattern, an upper bound, not
    one member of a union."""
    found: list[str] = []
    kind, rules = shape.type_name, shape.metadata
    if kind == "structure" and isinstance(value, Mapping):
        is_union = shape.name in unions or getattr(shape, "is_tagged_union", False)
        if is_union and len(value) != 1:
            found.append(f"{path}: {len(value)} members of {shape.name}, which takes one")
        for name, inner in value.items():
            if name not in shape.members:
                found.append(f"{path}: {shape.name} has no member {name}")
            else:
                found += wrong(shape.members[name], inner, f"{path}.{name}", unions)
    elif kind == "list" and isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            found += wrong(shape.member, inner, f"{path}[{place}]", unions)
    elif kind == "map" and isinstance(value, Mapping):
        for name, inner in value.items():
            found += wrong(shape.key, name, f"{path}, key {name!r}", unions)
            found += wrong(shape.value, inner, f"{path}[{name!r}]", unions)
    elif kind == "string" and isinstance(value, str):
        found += _wrong_text(shape, value, path)
    size = value if isinstance(value, int | float) else len(value) if hasattr(value, "__len__") else None
    if size is not None and kind != "structure" and not _within(size, rules):
        found.append(f"{path}: {size} is not within {rules.get('min', '')}..{rules.get('max', '')}")
    return found


def _wrong_text(shape: Any, value: str, path: str) -> list[str]:
    found = []
    if shape.enum and value not in shape.enum:
        found.append(f"{path}: {value!r} is none of {', '.join(shape.enum)}")
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        found.append(f"{path}: {value!r} does not match {pattern}")
    return found


def _within(size: float, rules: Mapping[str, Any]) -> bool:
    low, high = rules.get("min"), rules.get("max")
    return (low is None or size >= low) and (high is None or size <= high)
