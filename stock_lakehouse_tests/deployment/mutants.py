"""Policies with one change each: a statement, action, resource or condition that is gone or wider. Not here: who notices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import islice
from typing import Any

from stock_lakehouse_tests.deployment.simulate import Document, Mutant, Row

LIKELY = 12  # rows that are asked first
Statement = dict[str, Any]


def mutants(policies: Mapping[str, Sequence[Document]], rows: Sequence[Row]) -> Iterator[Mutant]:
    """Every mutant of every statement of the policies of each role."""
    of_role: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(rows):
        of_role.setdefault(row.role, []).append((number, row))
    for role, documents in policies.items():
        for place, document in enumerate(documents):
            for number, statement in enumerate(document["Statement"]):
                for changed, what, touched in _changes(statement):
                    likely = tuple(islice(_touched(of_role[role], touched), LIKELY))
                    yield Mutant(role, place, number, changed, f"{role}, {statement['Sid']} {what}", likely)


def mutants_of_bucket(policy: Document, bucket: str, role: str) -> Iterator[Mutant]:
    """Every mutant of the policy of `bucket`, an ARN, which rows of `role` have to notice.

    Without those that still name the bucket and every object: AWS asks this policy about them alone.
    """
    for number, statement in enumerate(policy["Statement"]):
        for changed, what, _ in _changes(statement):
            others = changed is not None and changed["Resource"] != statement["Resource"]
            if not (others and all(_matching(changed["Resource"]).fullmatch(arn) for arn in (bucket, f"{bucket}/x"))):
                yield Mutant(role, "bucket", number, changed, f"bucket, {statement['Sid']} {what}")
        yield Mutant(role, "bucket", number, {**statement, "Effect": "Allow"}, f"bucket, {statement['Sid']} allows")


# The expected answer of the rows that a change concerns, resources that match and that do not, and actions (None: any).
Touched = tuple[bool, re.Pattern[str], re.Pattern[str] | None, frozenset[str] | None]


def _changes(statement: Statement) -> Iterator[tuple[Statement | None, str, Touched]]:
    """Each changed statement, what was changed, and the rows that it concerns."""
    actions, resources = _list(statement["Action"]), _list(statement["Resource"])
    everything, exactly = _matching(resources), frozenset(actions)
    yield None, "is gone", (True, everything, None, exactly)
    for action in actions:
        if len(actions) > 1:
            fewer = {**statement, "Action": [other for other in actions if other != action]}
            yield fewer, f"without {action}", (True, everything, None, frozenset({action}))
        wide = f"{action.partition(':')[0]}:*"
        if wide != action:
            wider = {**statement, "Action": [wide if other == action else other for other in actions]}
            yield wider, f"with {wide} for {action}", (False, everything, None, None)
    for resource in resources:
        rest = [other for other in resources if other != resource]
        if rest:
            yield (
                {**statement, "Resource": rest},
                f"without {resource}",
                (True, _matching([resource]), _matching(rest), exactly),
            )
        for wide in _wider(resource):
            changed = {**statement, "Resource": [*rest, wide]}
            yield changed, f"with {wide} for {resource}", (False, _matching([wide]), everything, exactly)
    yield from _of_conditions(statement, everything, exactly)


def _of_conditions(
    statement: Statement, everything: re.Pattern[str], actions: frozenset[str]
) -> Iterator[tuple[Statement, str, Touched]]:
    refused: Touched = (False, everything, None, actions)
    for operator, keys in statement.get("Condition", {}).items():
        for key, value in keys.items():
            yield _with(statement, operator, key, None), f"whatever {key}", refused
            values = _list(value)
            for one in values:
                rest = [other for other in values if other != one]
                if rest:
                    yield (
                        _with(statement, operator, key, rest),
                        f"without {key} {one}",
                        (True, everything, None, actions),
                    )
                for wide in _wider(one) if operator == "StringLike" else ():
                    yield _with(statement, operator, key, [*rest, wide]), f"with {key} {wide} for {one}", refused


def _wider(pattern: str) -> Iterator[str]:
    """Patterns that match more than `pattern`: its neighbours, and everything beside it."""
    parts = re.split("([/:])", pattern.removesuffix("/*"))
    begin = pattern.removesuffix("/*").removesuffix("*")
    yield from sorted({f"{begin}*", "".join(parts[:-1]) + "*", "*"} - {pattern})


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


def _with(statement: Statement, operator: str, key: str, value: list[str] | None) -> Statement:
    """`statement` with another value of a key of its conditions; None: without the key."""
    changed = deepcopy(statement)
    if value is None:
        del changed["Condition"][operator][key]
    else:
        changed["Condition"][operator][key] = value
    return changed


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
