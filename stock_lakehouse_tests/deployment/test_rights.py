"""Who may do what: each request is allowed or refused as the tables and docs/ say, and no change of a policy goes unnoticed.

Policies are evaluated by another program than the one that makes them (simulate.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import pytest

from stock_lakehouse.deployment.policies import Names, bucket_policy, policies_of
from stock_lakehouse.deployment.rights import Role, roles
from stock_lakehouse_tests.deployment import matrix
from stock_lakehouse_tests.deployment.mutants import mutants, mutants_of_bucket
from stock_lakehouse_tests.deployment.simulate import ACCOUNT, Document, Row, evaluable, evaluate
from stock_lakehouse_tests.deployment.stacks import full

pytestmark = pytest.mark.deploy
NAMES = Names("aws", matrix.REGION, ACCOUNT, matrix.BUCKET, matrix.PREFIX, matrix.KEY)
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
# In CI one of so many, spread evenly; `make soak` takes all.
ROWS_STEP, MUTANTS_STEP = 5, 40
# What a `*` in a resource may stand for.
FILLINGS = ("x", "x/ingestion/x", "x/refresh-schedule/x", ":log-stream:x")


@cache
def found() -> Mapping[str, Role]:
    return roles(full())


@cache
def policies() -> Mapping[str, Sequence[Document]]:
    of_roles = {
        name: [evaluable(policy) for policy in policies_of(role, NAMES).values()] for name, role in found().items()
    }
    return {**of_roles, "administrator": [EVERYTHING]}


def of_bucket() -> Document:
    return bucket_policy(NAMES)


@cache
def rows() -> Sequence[Row]:
    return matrix.rows()


def test_the_matrix_is_about_every_role_and_says_both_yes_and_no() -> None:
    assert found().keys() == set(matrix.ROLES)
    assert len(rows()) >= 2_500
    for name in found():
        assert {row.allowed for row in rows() if row.role == name} == {True, False}


@pytest.mark.parametrize("step", [ROWS_STEP, pytest.param(1, marks=pytest.mark.soak)])
def test_each_request_is_allowed_or_refused_as_the_tables_say(step: int) -> None:
    assert not evaluate(policies(), of_bucket(), rows()[::step]).wrong


@pytest.mark.parametrize("step", [MUTANTS_STEP, pytest.param(1, marks=pytest.mark.soak)])
def test_no_change_of_a_policy_goes_unnoticed(step: int) -> None:
    of_roles = {name: documents for name, documents in policies().items() if name != "administrator"}
    changed = [*mutants(of_roles, rows()), *mutants_of_bucket(of_bucket(), matrix.LAKE, "administrator")]
    assert len(changed) >= 1_000
    survivors = evaluate(policies(), of_bucket(), [], changed[::step], of_mutants=rows()).survivors
    assert not [mutant.what for mutant in survivors]


def test_aws_knows_each_action_on_one_of_its_resources() -> None:
    # An action that AWS knows on no resource is refused wherever a resource is named: it has to be allowed on `*`. Of an action
    # that is allowed on several kinds of resources, AWS' list may name one alone.
    asked: dict[tuple[str, str], list[Row]] = {}
    for name, role in found().items():
        for right in role.services:
            for action in right.actions:
                candidates = [
                    NAMES.filled(resource) if resource == "*" else NAMES.filled(resource).replace("*", filling)
                    for resource in right.resources
                    for filling in FILLINGS
                ]
                asked.setdefault((name, action), []).extend(Row(name, action, one, True) for one in candidates)
    checked = [row for candidates in asked.values() for row in candidates]
    unknown = {row for row, _ in evaluate(policies(), None, [], checked=checked).invalid}
    assert not [right for right, candidates in asked.items() if unknown.issuperset(candidates)]
