"""IAM policies evaluated by @cloud-copilot/iam-simulate, which Node runs. Not here: which requests, and what is expected."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"
FILES = ("package.json", "package-lock.json", "evaluate.mjs")
ACCOUNT = "111122223333"
INSTALL_SECONDS, EVALUATE_SECONDS = 120, 900
Document = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A request, and whether it is allowed.

    - role: who asks
    - context: the keys of conditions that the request has
    - asks: "bucket" or "key" where the policy of the lake's bucket or of its key counts too
    """

    role: str
    action: str
    resource: str
    allowed: bool
    context: Mapping[str, str] = field(default_factory=dict, hash=False)
    asks: str = ""


@dataclass(frozen=True)
class Mutant:
    """A policy with one change.

    - place: which of the role's policies, or "bucket" for the bucket's own
    - number: which statement of it
    - statement: the statement in its place; None: it is gone
    - what: the change, for people
    - likely: places of rows that should notice it; the others of the role are asked after these
    """

    role: str
    place: int | str
    number: int
    statement: dict[str, Any] | None
    what: str
    likely: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """- wrong: rows with another answer than expected; invalid: rows that AWS does not know; survivors: unnoticed mutants"""

    wrong: list[Row]
    invalid: list[tuple[Row, str]]
    survivors: list[Mutant]


def evaluate(
    policies: Mapping[str, Sequence[Document]],
    bucket_policy: Document | None,
    rows: Sequence[Row],
    mutants: Sequence[Mutant] = (),
    checked: Sequence[Row] = (),
    of_mutants: Sequence[Row] = (),
) -> Outcome:
    """Evaluate `rows` against the policies of their roles, and each of `mutants` until a row of `of_mutants` notices it.

    `checked`: rows whose action and resource must be known to AWS. Skips the test where Node or the package cannot be had.
    """
    folder = _installed()
    given = {
        "account": ACCOUNT,
        "policies": policies,
        "bucket_policy": bucket_policy,
        "rows": [asdict(row) for row in rows],
        "of_mutants": [asdict(row) for row in of_mutants],
        "checked": [asdict(row) for row in checked],
        "mutants": [asdict(mutant) for mutant in mutants],
    }
    done = subprocess.run(
        ["node", "evaluate.mjs"],
        check=False,
        cwd=folder,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=EVALUATE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return Outcome(
        [rows[number] for number in found["wrong"]],
        [(checked[number], reason) for number, reason in found["invalid"]],
        [mutants[number] for number in found["survivors"]],
    )


def evaluable(document: Document) -> Document:
    """`document` without conditions that iam-simulate does not know: it drops the encryption context of every request, so that
    such a condition never holds. An assertion of our own holds it (test_assertions.py)."""
    statements = []
    for statement in document["Statement"]:
        conditions = {
            operator: {key: value for key, value in keys.items() if not key.startswith("kms:EncryptionContext:")}
            for operator, keys in statement.get("Condition", {}).items()
        }
        statements.append({**statement, "Condition": conditions} if conditions else statement)
    return {**document, "Statement": statements}


def _installed() -> Path:
    """The folder with evaluate.mjs and the package; installed at first, and again when a file of it changes."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT RUN: needs Node and npm")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()[:16]
    folder = BUILD / f"iam-simulate-{digest}"
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / "iam-simulate.lock"):
        if not (folder / "installed").exists():
            folder.mkdir(exist_ok=True)
            for name in FILES:
                shutil.copyfile(HERE / name, folder / name)
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts"],
                check=False,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
            )
            if done.returncode:
                pytest.skip(f"NOT RUN: npm cannot install @cloud-copilot/iam-simulate: {done.stderr.strip()[-300:]}")
            (folder / "installed").touch()
    return folder
