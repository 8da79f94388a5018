"""Policies with one change each: a statement, action, resource or condition that is gone or wider. Not here: who notices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

from stock_lakehouse_tests.deployment.simulate import Document, Mutant, Row

LIKELY = 12  # rows that are asked first


def mutants(policies: Mapping[str, Sequence[Document]], rows: Sequence[Row]) -> Iterator[Mutant]:
    """Every mutant of every statement of the policies of each role."""
    of_role: dict[str, list[tuple[int, Row]]] = {role: [] for role in policies}
    for number, row in enumerate(rows):
        of_role.setdefault(row.role, []).append((number, row))
    for role, documents in policies.items():
        for place, document in enumerate(documents):
            for changed, what, touched in _changes(document):
                likely = tuple(islice(_touched(of_role[role], touched), LIKELY))
                yield Mutant(role, place, changed, f"{role} {place}: {what}", likely)


def mutants_of_bucket(policy: Document, role: str) -> Iterator[Mutant]:
    """Every mutant of the bucket's policy, which rows of `role` have to notice."""
    for changed, what, _ in _changes(policy):
        yield Mutant(role, "bucket", changed, f"bucket: {what}")
    for number, statement in enumerate(policy["Statement"]):
        yield Mutant(role, "bucket", _with(policy, number, "Effect", "Allow"), f"bucket: {statement['Sid']} allows")


Touched = tuple[bool, re.Pattern[str], re.Pattern[str] | None, frozenset[str] | None]


def _changes(document: Document) -> Iterator[tuple[Document, str, Touched]]:
    """Each changed document, what was changed, and the rows that it concerns, in the form that `_touched` takes."""
    for number, statement in enumerate(document["Statement"]):
        sid, actions, resources = statement["Sid"], _list(statement["Action"]), _list(statement["Resource"])
        everything, exactly = _matching(resources), frozenset(actions)
        rest = [other for place, other in enumerate(document["Statement"]) if place != number]
        yield {**document, "Statement": rest}, f"{sid} is gone", (True, everything, None, exactly)
        for action in actions:
            if len(actions) > 1:
                fewer = [other for other in actions if other != action]
                gone = _with(document, number, "Action", fewer)
                yield gone, f"{sid} without {action}", (True, everything, None, frozenset({action}))
            wide = f"{action.partition(':')[0]}:*"
            if wide != action:
                wider = [wide if other == action else other for other in actions]
                yield _with(document, number, "Action", wider), f"{sid} with {wide}", (False, everything, None, None)
        for resource in resources:
            if len(resources) > 1:
                fewer = [other for other in resources if other != resource]
                gone = _with(document, number, "Resource", fewer)
                yield gone, f"{sid} without {resource}", (True, _matching([resource]), _matching(fewer), exactly)
            for wide in _wider(resource):
                wider = [wide if other == resource else other for other in resources]
                changed = _with(document, number, "Resource", wider)
                yield changed, f"{sid} on {wide}", (False, _matching([wide]), everything, exactly)
        yield from _of_conditions(document, number, everything, exactly)


def _of_conditions(
    document: Document, number: int, everything: re.Pattern[str], actions: frozenset[str]
) -> Iterator[tuple[Document, str, Touched]]:
    statement = document["Statement"][number]
    either: Touched = (False, everything, None, actions)
    for operator, keys in statement.get("Condition", {}).items():
        for key, value in keys.items():
            without = deepcopy(statement["Condition"])
            del without[operator][key]
            yield _with(document, number, "Condition", without), f"{statement['Sid']} whatever {key}", either
            values = _list(value)
            for one in values:
                if len(values) > 1:
                    fewer = [other for other in values if other != one]
                    changed = _with_condition(document, number, operator, key, fewer)
                    yield changed, f"{statement['Sid']} without {key} {one}", (True, everything, None, actions)
                for wide in _wider(one) if operator == "StringLike" else ():
                    wider = [wide if other == one else other for other in values]
                    changed = _with_condition(document, number, operator, key, wider)
                    yield changed, f"{statement['Sid']} with {key} {wide}", either


def _wider(pattern: str) -> Iterator[str]:
    """Patterns that match more than `pattern`: its neighbours, and everything beside it."""
    if pattern == "*":
        return
    yield f"{pattern.removesuffix('/*').removesuffix('*').removesuffix('/')}*"
    parts = re.split("([/:])", pattern.removesuffix("/*"))
    yield "".join(parts[:-1]) + "*"
    yield "*"


def _touched(rows: Iterable[tuple[int, Row]], touched: Touched) -> Iterator[int]:
    """The rows that a change concerns: those with the expected answer, on resources that match, of the actions."""
    allowed, matching, not_matching, actions = touched
    for number, row in rows:
        if (
            row.allowed == allowed
            and (actions is None or row.action in actions)
            and matching.fullmatch(row.resource)
            and not (not_matching is not None and not_matching.fullmatch(row.resource))
        ):
            yield number


def _matching(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(pattern).replace(r"\*", ".*") for pattern in patterns))


def _with(document: Document, number: int, part: str, value: Any) -> Document:
    """`document` with another value of a part of its statement `number`."""
    statements = list(document["Statement"])
    statements[number] = {**statements[number], part: value}
    return {**document, "Statement": statements}


def _with_condition(document: Document, number: int, operator: str, key: str, value: Any) -> Document:
    conditions = deepcopy(document["Statement"][number]["Condition"])
    conditions[operator][key] = value
    return _with(document, number, "Condition", conditions)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
