"""Every command as its role, behind a gate that refuses what IAM would: nothing is refused, and no right is for nothing.

Without any of its actions a role fails, and the error names the action.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from stock_lakehouse.deployment.policies import policies_of
from stock_lakehouse.deployment.rights import roles
from stock_lakehouse_tests.deployment.chapters import CHAPTERS
from stock_lakehouse_tests.deployment.gate import Record
from stock_lakehouse_tests.deployment.recorded import DOCUMENT, droppable, played, survivors, unused
from stock_lakehouse_tests.deployment.world import OF_SERVICES, Lakes, World, deployed, world

pytestmark = pytest.mark.deploy
BY_NAME = {chapter.name: chapter for chapter in CHAPTERS}
# A few of all drops for every run of the tests.
QUICK = (
    ("run", "next day", (("List", "s3:ListBucket"), ("Write", "s3:PutObject"))),
    ("reader", "read_table", (("Read", "s3:GetObject"),)),
)


@pytest.fixture(scope="module")
def place(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(spark, Lakes(tmp_path_factory.mktemp("lakes"))) as found:
        yield found


@pytest.fixture(scope="module")
def record(place: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Record]:
    """What a chapter asked for, by its name. Each is played once."""
    return cache(lambda name: played(place, BY_NAME[name], tmp_path_factory.mktemp("chapter")))


@pytest.mark.slice(1)
@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_is_refused_to_a_command_as_its_role(record: Callable[[str], Record], name: str) -> None:
    assert record(name).refusals(name, BY_NAME[name].refused) == []


@pytest.mark.parametrize(("role", "chapter", "rights"), QUICK)
def test_without_an_action_a_command_fails_and_names_it(
    place: World, role: str, chapter: str, rights: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    assert list(survivors(place, BY_NAME[chapter], role, rights, tmp_path)) == []


@pytest.fixture(scope="module")
def everything(record: Callable[[str], Record]) -> dict[str, Record]:
    """What every chapter asked for, by its name."""
    return {name: record(name) for name in BY_NAME}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_role_has_a_right_that_no_command_used_but_those_with_a_reason(
    place: World, everything: dict[str, Record]
) -> None:
    found, needless = unused(place, everything.values())
    assert found == []
    assert needless == [], "reasons for rights that commands used"


def test_the_document_names_no_action_that_its_role_has_not() -> None:
    documented = re.findall(
        r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.M
    )
    assert {role for role, *_ in documented} == {chapter.role for chapter in CHAPTERS} | {*OF_SERVICES}
    found = roles(deployed())
    for role, *cells in documented:
        given = {action for document in policies_of(found[role]).values() for action in actions_in(document)}
        named = {
            f"{service}:{action}"
            for cell in cells
            for service, actions in re.findall(r"`([\w-]+):` ([A-Za-z, ]+)", cell)
            for action in actions.split(", ")
        }
        assert named - given == set(), role
        assert named


def actions_in(document: dict[str, Any]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", sorted({chapter.role for chapter in CHAPTERS} | {*OF_SERVICES}))
def test_without_any_action_of_a_role_a_command_fails_and_names_it(
    place: World, everything: dict[str, Record], role: str, tmp_path: Path
) -> None:
    survived = []
    for name, rights in droppable(everything, role).items():
        survived += survivors(place, BY_NAME[name], role, rights, tmp_path / name)
    assert survived == []
